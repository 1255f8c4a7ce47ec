/* scan.c without Python, under a sanitizer: bodies from a file, mutated, each in memory of exactly its size.
 *
 * In: FILE (4 bytes of length, little endian, then a body; again and again), SEED, ROUNDS. Out: how many mutants there
 * were and how many were taken; or an abort where a byte outside was read or a promise of scan.h broken.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scan.h"

#define BODIES 4096
#define LONGEST (1 << 16)

static uint64_t state;

static uint64_t any(void) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 0x2545F4914F6CDD1DULL;
}

static const char *const tokens[] = {
    "\"",  "\\",  "\\u0000", "\\ud800", "{",   "}",    "[",    "]",     ",",     ":",    "null", "true", "false", "nul",
    "-",   "-0",  ".",       "e",       "1e9", "0",    "00",   "1.5",   "0.5",   ".49",  ".50",  "9007199254740993",
    " ", "\n",  "\xef\xbb\xbf", "\xc3", "\xc3\xbc", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf0\x9f\x98\x80", "\xff",
    "\"seq\":", "\"view_id\":", "\"z\":", "\"ts\":", "\"error_code\":7", "\"playback_rate\":1.0499999999999998,",
    "99999999999999999999", "[[[[[[[[[[", "{\"a\":", "{},", "},{",
};

static size_t mutate(unsigned char *body, size_t size, const unsigned char *other, size_t other_size) {
    for (int changes = (int)(any() % 6); changes > 0 && size > 0; changes--) {
        size_t place = any() % size, length = any() % 24;
        switch (any() % 6) {
            case 0: body[place] = (unsigned char)any(); break;
            case 1: body[place] ^= (unsigned char)(1u << (any() % 8)); break;
            case 2: size = place; break; /* cut off */
            case 3:                      /* leave a piece out */
                if (length > size - place) length = size - place;
                memmove(body + place, body + place + length, size - place - length);
                size -= length;
                break;
            default: { /* put a token in, or a piece of another body */
                const char *token = tokens[any() % (sizeof tokens / sizeof *tokens)];
                const unsigned char *piece = (const unsigned char *)token;
                size_t more = strlen(token);
                if (any() % 3 == 0 && other_size > 64) piece = other + any() % (other_size - 64), more = any() % 64;
                if (size + more > LONGEST) break;
                memmove(body + place + more, body + place, size - place);
                memcpy(body + place, piece, more);
                size += more;
            }
        }
    }
    return size;
}

/* Stop where what was accepted is not what scan.h promises. */
static void check(int count, const unsigned char *body, size_t size, const vm_event *events) {
    if (count < 0 || count > VM_MAX_EVENTS) abort();
    for (int i = 0; i < count; i++) {
        const vm_event *event = &events[i];
        for (int j = 0; j < VM_TEXTS; j++) {
            const vm_text *text = &event->text[j];
            if (text->at == NULL) continue;
            if (text->at < body || text->at + text->size >= body + size || text->size > 4 * VM_MAX_TEXT_CHARS) abort();
            if (memchr(text->at, '"', text->size) || memchr(text->at, '\\', text->size)) abort();
        }
        if (event->type >= VM_TYPES || event->text[VM_VIEW].size == 0 || event->text[VM_VIDEO].size == 0) abort();
        if (event->whole[VM_TS] < 0 || event->whole[VM_TS] > VM_MAX_TS_MS) abort();
        if (event->whole[VM_SEQ] < 0 || event->whole[VM_SEQ] > VM_MAX_SEQ) abort();
        for (int j = VM_POSITION; j < VM_WHOLES; j++)
            if (event->whole[j] < -1 || event->whole[j] > VM_MAX_MS) abort();
        if (!(event->rate == -1.0 || (event->rate >= 0 && event->rate <= VM_MAX_PLAYBACK_RATE))) abort();
    }
}

int main(int count, char **arguments) {
    static unsigned char *bodies[BODIES];
    static size_t sizes[BODIES];
    static vm_event events[VM_MAX_EVENTS];
    static unsigned char mutant[LONGEST];
    FILE *file = count == 4 ? fopen(arguments[1], "rb") : NULL;
    unsigned char head[4];
    size_t known = 0;
    if (file == NULL) return fprintf(stderr, "usage: scan_alone FILE SEED ROUNDS\n"), 2;
    while (known < BODIES && fread(head, 1, 4, file) == 4) {
        size_t size = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
        if (size == 0 || size > LONGEST / 2 || (bodies[known] = malloc(size)) == NULL) return 2;
        if (fread(bodies[known], 1, size, file) != size) return 2;
        sizes[known++] = size;
    }
    fclose(file);
    if (known == 0) return 2;
    state = strtoull(arguments[2], NULL, 10) * 2 + 1;
    long rounds = strtol(arguments[3], NULL, 10), taken = 0;
    for (long round = 0; round < rounds; round++) {
        size_t one = any() % known, other = any() % known;
        memcpy(mutant, bodies[one], sizes[one]);
        size_t size = mutate(mutant, sizes[one], bodies[other], sizes[other]);
        unsigned char *exact = malloc(size ? size : 1); /* so that the sanitizer sees the byte behind */
        if (exact == NULL) return 2;
        memcpy(exact, mutant, size);
        int ignored = 0, found = vm_scan(exact, size, events, &ignored);
        check(found, exact, size, events);
        taken += found > 0;
        free(exact);
    }
    for (size_t i = 0; i < known; i++) free(bodies[i]);
    printf("%ld mutants, %ld taken\n", rounds, taken);
    return 0;
}
