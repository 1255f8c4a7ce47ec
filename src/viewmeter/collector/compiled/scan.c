/* See scan.h. Each read is behind a comparison with `end`; each function that can fail returns NULL or 0. */
#include "scan.h"

#include <float.h>
#include <string.h>

typedef const unsigned char *at_t;

const vm_text vm_types[VM_TYPES] = {
#define WORD(word) {(at_t)(word), sizeof(word) - 1}
    WORD("request"),   WORD("play"),     WORD("pause"), WORD("seek"), WORD("buffer"), WORD("quality_change"),
    WORD("heartbeat"), WORD("complete"), WORD("error"), WORD("exit"), WORD("other"),
};

enum { K_TYPE, K_WHOLE, K_RATE, K_TEXT, K_CODE, K_FLAG, K_UNKNOWN };

typedef struct {
    const char *name;
    uint8_t size, kind, place;
    int64_t limit; /* of a number: its largest value; of a text: characters */
} field_t;

#define FIELD(name, kind, place, limit) {name, sizeof(name) - 1, kind, place, limit}
static const field_t fields[] = {
    FIELD("type", K_TYPE, 0, 0),
    FIELD("ts", K_WHOLE, VM_TS, VM_MAX_TS_MS),
    FIELD("view_id", K_TEXT, VM_VIEW, VM_MAX_ID_CHARS),
    FIELD("seq", K_WHOLE, VM_SEQ, VM_MAX_SEQ),
    FIELD("video_id", K_TEXT, VM_VIDEO, VM_MAX_ID_CHARS),
    FIELD("channel_id", K_TEXT, VM_CHANNEL, VM_MAX_ID_CHARS),
    FIELD("viewer_id", K_TEXT, VM_VIEWER, VM_MAX_ID_CHARS),
    FIELD("position_ms", K_WHOLE, VM_POSITION, VM_MAX_MS),
    FIELD("duration_ms", K_WHOLE, VM_DURATION, VM_MAX_MS),
    FIELD("played_ms", K_WHOLE, VM_PLAYED, VM_MAX_MS),
    FIELD("rebuffered_ms", K_WHOLE, VM_REBUFFERED, VM_MAX_MS),
    FIELD("rebuffer_count", K_WHOLE, VM_REBUFFERS, VM_MAX_COUNT),
    FIELD("startup_ms", K_WHOLE, VM_STARTUP, VM_MAX_MS),
    FIELD("bitrate_kbps", K_WHOLE, VM_BITRATE, VM_MAX_KBPS),
    FIELD("playback_rate", K_RATE, 0, 0),
    FIELD("error_code", K_CODE, VM_ERROR_CODE, VM_MAX_ID_CHARS),
    FIELD("error_message", K_TEXT, VM_ERROR_MESSAGE, VM_MAX_TEXT_CHARS),
    FIELD("player", K_TEXT, VM_PLAYER, VM_MAX_ID_CHARS),
    FIELD("cdn", K_TEXT, VM_CDN, VM_MAX_ID_CHARS),
    FIELD("stream_type", K_TEXT, VM_STREAM, VM_MAX_ID_CHARS),
    FIELD("fatal", K_FLAG, VM_FATAL, 0),
    FIELD("halted", K_FLAG, VM_HALTED, 0),
    FIELD("blind", K_FLAG, VM_BLIND, 0),
};
#define FIELDS ((int)(sizeof fields / sizeof *fields))
#define BIT(number) (1u << (number))
#define REQUIRED (BIT(0) | BIT(1) | BIT(2) | BIT(3) | BIT(4)) /* type, ts, view_id, seq, video_id */

#define UNKNOWN_MAX 8 /* unknown fields of one event; with more of them it is not mine */
static const field_t unknown = {"", 0, K_UNKNOWN, 0, VM_MAX_TEXT_CHARS};

/* A name with its quotes, colon and blanks, as the event before wrote it. The next event mostly repeats it. */
typedef struct {
    at_t at;
    size_t size;
    int field; /* FIELDS = unknown */
} name_t;

#define NAMES_MAX (FIELDS + UNKNOWN_MAX)
typedef struct {
    at_t end;
    name_t names[NAMES_MAX];
    int names_known;
    int ignored;
} scan_t;

static inline at_t blanks(at_t p, at_t end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    return p;
}

static inline int is_digit(unsigned char c) { return c >= '0' && c <= '9'; }

/* memcmp() == 0 for what is mostly short and mostly equal: eight bytes at a time, the last ones overlapping. */
static inline int same(at_t a, at_t b, size_t size) {
    if (size < 8 || size > 64) return memcmp(a, b, size) == 0;
    uint64_t left, right, differ = 0;
    for (size_t i = 0; i + 8 < size; i += 8) {
        memcpy(&left, a + i, 8);
        memcpy(&right, b + i, 8);
        differ |= left ^ right;
    }
    memcpy(&left, a + size - 8, 8);
    memcpy(&right, b + size - 8, 8);
    return (differ | (left ^ right)) == 0;
}

/* ---- texts ---------------------------------------------------------------------------------------------------- */

/* Return the number of characters, or -1 where the bytes are not UTF-8 as RFC 3629 has it (no surrogates). */
static int64_t utf8_chars(at_t p, at_t end) {
    int64_t chars = 0;
    while (p < end) {
        unsigned char c = *p++;
        chars++;
        if (c < 0x80) continue;
        int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
        if (c < 0xC2 || c > 0xF4 || end - p < more) return -1;
        unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
        unsigned char high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        if (*p < low || *p > high) return -1;
        for (p++, more--; more > 0; p++, more--)
            if ((*p & 0xC0) != 0x80) return -1;
    }
    return chars;
}

#define ONES 0x0101010101010101ULL
#define HIGHS 0x8080808080808080ULL

/* Return whether one of eight bytes ends a plain run: a quote, a backslash, below a blank, above ASCII. */
static inline int is_special(uint64_t w) {
    uint64_t quote = w ^ (ONES * '"'), slash = w ^ (ONES * '\\');
    return (((quote - ONES) | (slash - ONES) | (w - ONES * 0x20) | w) & HIGHS) != 0;
}

/* Read a text behind its opening quote. Returns what follows its closing quote. No escapes, no control characters. */
static at_t text(at_t p, at_t end, int64_t most_chars, vm_text *found) {
    at_t start = p;
    int ascii = 1;
    for (;;) {
        uint64_t eight;
        while (end - p >= 8 && (memcpy(&eight, p, 8), !is_special(eight))) p += 8;
        if (p >= end) return NULL;
        if (*p == '"') break;
        if (*p == '\\' || *p < 0x20) return NULL;
        if (*p >= 0x80) ascii = 0;
        p++;
    }
    int64_t chars = ascii ? p - start : utf8_chars(start, p);
    if (chars < 0 || chars > most_chars) return NULL;
    found->at = start;
    found->size = (size_t)(p - start);
    return p + 1;
}

static inline at_t text_like(at_t p, at_t end, int64_t most_chars, const vm_text *before, vm_text *found) {
    if (before != NULL && before->at != NULL && (size_t)(end - p) > before->size && p[before->size] == '"' &&
        same(p, before->at, before->size)) {
        *found = *before;
        return p + before->size + 1;
    }
    return text(p, end, most_chars, found);
}

static at_t type(at_t p, at_t end, uint8_t *code) {
    vm_text word;
    p = text(p, end, VM_MAX_ID_CHARS, &word);
    if (p == NULL) return NULL;
    for (int i = 0; i < VM_TYPES; i++)
        if (vm_types[i].size == word.size && memcmp(vm_types[i].at, word.at, word.size) == 0) {
            *code = (uint8_t)i;
            return p;
        }
    return NULL;
}

/* ---- numbers -------------------------------------------------------------------------------------------------- */

/* A number without sign and exponent: `digits` × 10^-`places`, of at most 19 digits. */
typedef struct {
    uint64_t whole, digits;
    int places;       /* digits behind the point */
    int exact;        /* whether `digits` holds all of them */
    int first_places; /* the first four of them as a number, 0 to 9999 */
    int fraction;     /* whether any of them is not 0 */
} number_t;

static const uint64_t tens[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

/* Read up to eight digits as a number; return how many there are. Fewer than eight: they are all. */
static inline int digits_at(at_t p, at_t end, uint64_t *value) {
    *value = 0;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (end - p >= 8) {
        uint64_t eight;
        memcpy(&eight, p, 8);
        eight ^= ONES * '0';                                            /* a digit is now 0 to 9 */
        uint64_t others = ((eight + ONES * 0x76) | eight) & HIGHS;      /* what is not; exact up to the first of them */
        int count = others ? __builtin_ctzll(others) / 8 : 8;
        if (count == 0) return 0;
        eight <<= 64 - 8 * count;                                       /* as if zeros stood in front */
        eight = eight * 10 + (eight >> 8);                              /* pairs, in each second byte */
        eight = ((eight & 0x000000FF000000FFULL) * (100 + (1000000ULL << 32)) +
                 ((eight >> 16) & 0x000000FF000000FFULL) * (1 + (10000ULL << 32))) >> 32;
        *value = eight;
        return count;
    }
#endif
    int count = 0;
    for (; count < 8 && p < end && is_digit(*p); p++, count++) *value = *value * 10 + (uint64_t)(*p - '0');
    return count;
}

static at_t number(at_t p, at_t end, number_t *n) {
    at_t start = p;
    uint64_t digits = 0, some;
    int count;
    do {
        count = digits_at(p, end, &some);
        digits = digits * tens[count] + some;
        p += count;
        if (p - start > 15) return NULL; /* beyond every bound */
    } while (count == 8);
    if (p == start || (*start == '0' && p - start > 1)) return NULL;
    *n = (number_t){digits, digits, 0, 1, 0, 0};
    if (p == end || *p != '.') return p;
    int64_t used = digits == 0 ? 0 : p - start; /* a zero takes no room; those behind the point do */
    at_t point = ++p;
    do {
        count = digits_at(p, end, &some);
        if (p == point) n->first_places = (int)(count < 4 ? some * tens[4 - count] : some / tens[count - 4]);
        if (some) n->fraction = 1;
        used += count;
        if (used > 19) n->exact = 0;
        if (n->exact) {
            digits = digits * tens[count] + some;
            n->places += count;
        }
        p += count;
    } while (count == 8);
    if (p == point) return NULL;
    n->digits = digits;
    return p;
}

static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10,
                                1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* The double nearest to the number, halves to even, as every correct reader has it. Returns 0 where it is not known. */
static int as_double(const number_t *n, double *value) {
    if (!n->exact) return 0;
#if FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 1 || FLT_EVAL_METHOD == 16 /* a double is a double in each */
    /* Clinger: both operands are exact doubles, so one division rounds once. */
    if (n->digits <= (1ULL << 53) && n->places <= 22) {
        *value = (double)n->digits / powers[n->places];
        return 1;
    }
#endif
#ifdef __SIZEOF_INT128__
    /* digits × 2^64 / 10^places has at least 54 bits, since digits > 2^53 and 10^19 < 2^64; the rest is sticky. */
    if (n->digits > (1ULL << 53) && n->places <= 19) {
        uint64_t divisor = 1;
        for (int i = 0; i < n->places; i++) divisor *= 10;
        unsigned __int128 dividend = (unsigned __int128)n->digits << 64;
        unsigned __int128 quotient = dividend / divisor;
        int sticky = dividend % divisor != 0;
        int surplus = 0; /* bits beyond the 53 of a double */
        while (quotient >> (53 + surplus)) surplus++;
        uint64_t mantissa = (uint64_t)(quotient >> surplus);
        unsigned __int128 rest = quotient & (((unsigned __int128)1 << surplus) - 1);
        unsigned __int128 half = (unsigned __int128)1 << (surplus - 1);
        if (rest > half || (rest == half && (sticky || (mantissa & 1)))) mantissa++;
        double scale = 1.0;
        for (int i = surplus; i < 64; i++) scale *= 0.5; /* powers of two: exact */
        for (int i = 64; i < surplus; i++) scale *= 2.0;
        *value = (double)mantissa * scale;
        return 1;
    }
#endif
    return 0;
}

/* The nearest whole number, halves to even: rint() of the double nearest to what is written. */
static at_t whole(at_t p, at_t end, int64_t limit, int64_t *value) {
    number_t n;
    p = number(p, end, &n);
    if (p == NULL || n.whole > (uint64_t)limit || (n.whole == (uint64_t)limit && n.fraction)) return NULL;
    *value = (int64_t)n.whole;
    if (!n.fraction) return p;
    /* Below 2^42 the double is within 0.00025 of what is written, so only near the half does it matter. */
    if (n.first_places >= 5010) {
        *value += 1;
    } else if (n.first_places >= 4990) {
        double nearest;
        if (!as_double(&n, &nearest)) return NULL;
        double rest = nearest - (double)n.whole; /* exact */
        if (rest > 0.5 || (rest == 0.5 && (n.whole & 1))) *value += 1;
    }
    return p;
}

/* ---- events --------------------------------------------------------------------------------------------------- */

static inline int starts_with(at_t p, at_t end, const char *word, size_t size) {
    return (size_t)(end - p) >= size && memcmp(p, word, size) == 0;
}

/* Skip a value of an unknown field: a text, a number, a word of JSON. What nests is not mine. */
static at_t skip(at_t p, at_t end) {
    vm_text ignored;
    number_t number_ignored;
    if (p == end) return NULL;
    if (*p == '"') return text(p + 1, end, VM_MAX_TEXT_CHARS, &ignored);
    if (starts_with(p, end, "true", 4)) return p + 4;
    if (starts_with(p, end, "false", 5)) return p + 5;
    return number(*p == '-' ? p + 1 : p, end, &number_ignored);
}

static at_t error_code(at_t p, at_t end, vm_text *found) {
    at_t start = p;
    number_t n;
    int negative = *p == '-';
    p = number(p + negative, end, &n);
    if (p == NULL || memchr(start, '.', (size_t)(p - start)) != NULL) return NULL;
    if (negative && n.whole == 0) return NULL; /* -0 is written 0; every other number as it stands */
    found->at = start;
    found->size = (size_t)(p - start);
    return p;
}

static at_t value(at_t p, at_t end, const field_t *field, const vm_event *before, vm_event *event) {
    if (p == end) return NULL;
    switch (field->kind) {
        case K_TYPE: return *p == '"' ? type(p + 1, end, &event->type) : NULL;
        case K_WHOLE: {
            at_t after = whole(p, end, field->limit, &event->whole[field->place]);
            /* A `seq` with a point is mended elsewhere. */
            return after != NULL && field->place == VM_SEQ && memchr(p, '.', (size_t)(after - p)) ? NULL : after;
        }
        case K_RATE: {
            number_t n;
            p = number(p, end, &n);
            return p != NULL && as_double(&n, &event->rate) && event->rate <= VM_MAX_PLAYBACK_RATE ? p : NULL;
        }
        case K_CODE:
            if (*p != '"') return error_code(p, end, &event->text[field->place]);
            /* fall through */
        case K_TEXT: {
            const vm_text *like = before == NULL ? NULL : &before->text[field->place];
            return *p == '"' ? text_like(p + 1, end, field->limit, like, &event->text[field->place]) : NULL;
        }
        case K_FLAG:
            if (starts_with(p, end, "true", 4)) return event->flag[field->place] = 1, p + 4;
            if (starts_with(p, end, "false", 5)) return event->flag[field->place] = 0, p + 5;
            return NULL;
        default: return skip(p, end);
    }
}

/* Read a name, its colon and the blanks around; `p` is at the opening quote. */
static at_t name(at_t p, at_t end, name_t *found) {
    vm_text word;
    found->at = p;
    if (p == end || *p != '"' || (p = text(p + 1, end, VM_MAX_ID_CHARS, &word)) == NULL) return NULL;
    found->field = 0;
    while (found->field < FIELDS && (fields[found->field].size != word.size ||
                                     memcmp(fields[found->field].name, word.at, word.size) != 0))
        found->field++;
    p = blanks(p, end);
    if (p == end || *p != ':') return NULL;
    p = blanks(p + 1, end);
    found->size = (size_t)(p - found->at);
    return p;
}

/* Whether an unknown name (with its quotes) is new in this event. Twice the same is one field that is ignored. */
static int is_new(const name_t *word, const name_t *known, int count) {
    at_t quote = memchr(word->at + 1, '"', word->size - 1);
    size_t size = (size_t)(quote - word->at) + 1;
    for (int i = 0; i < count; i++)
        if (known[i].size >= size && memcmp(known[i].at, word->at, size) == 0) return 0;
    return 1;
}

/* Read the members of an object behind its brace. Returns what follows the closing one. */
static at_t object(at_t p, scan_t *scan, const vm_event *before, vm_event *event) {
    at_t end = scan->end;
    unsigned seen = 0, present = 0;
    name_t unknowns[UNKNOWN_MAX];
    int ignored = 0;
    for (int i = 0;; i++) {
        name_t *expected = &scan->names[i];
        if (i == NAMES_MAX) return NULL;
        if (i < scan->names_known && (size_t)(end - p) >= expected->size &&
            same(p, expected->at, expected->size)) {
            p += expected->size;
        } else {
            if ((p = name(p, end, expected)) == NULL) return NULL;
            scan->names_known = i + 1;
        }
        const field_t *field = &unknown;
        if (expected->field < FIELDS) {
            field = &fields[expected->field];
            if (seen & BIT(expected->field)) return NULL; /* twice: which one counts is for the reference to say */
            seen |= BIT(expected->field);
        } else if (is_new(expected, unknowns, ignored)) {
            if (ignored == UNKNOWN_MAX) return NULL;
            unknowns[ignored++] = *expected;
        }
        if (starts_with(p, end, "null", 4)) {
            p += 4; /* null is absent */
        } else {
            if ((p = value(p, end, field, before, event)) == NULL) return NULL;
            if (field != &unknown) present |= BIT(expected->field);
        }
        if (p < end && *p != ',' && *p != '}') p = blanks(p, end);
        if (p == end) return NULL;
        if (*p == '}') break;
        if (*p++ != ',') return NULL;
        if (p < end && *p != '"') p = blanks(p, end);
    }
    if ((present & REQUIRED) != REQUIRED || event->text[VM_VIEW].size == 0 || event->text[VM_VIDEO].size == 0)
        return NULL;
    scan->ignored += ignored;
    return p + 1;
}

static void nothing(vm_event *event) {
    memset(event, 0, sizeof *event);
    for (int i = 0; i < VM_WHOLES; i++) event->whole[i] = -1;
    for (int i = 0; i < VM_FLAGS; i++) event->flag[i] = -1;
    event->rate = -1.0;
}

int vm_scan(const unsigned char *body, size_t size, vm_event *events, int *ignored) {
    scan_t scan = {.end = body + size, .names_known = 0, .ignored = 0};
    at_t p = blanks(body, scan.end);
    int count = 0;
    if (p == scan.end || *p++ != '[') return 0;
    for (;;) {
        p = blanks(p, scan.end);
        if (count == VM_MAX_EVENTS || p == scan.end || *p != '{') return 0;
        nothing(&events[count]);
        p = object(blanks(p + 1, scan.end), &scan, count ? &events[count - 1] : NULL, &events[count]);
        if (p == NULL) return 0;
        count++;
        p = blanks(p, scan.end);
        if (p == scan.end) return 0;
        if (*p == ']') break;
        if (*p++ != ',') return 0;
    }
    if (blanks(p + 1, scan.end) != scan.end) return 0;
    *ignored = scan.ignored;
    return count;
}
