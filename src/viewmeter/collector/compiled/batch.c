/* `Rows.batch`: the columns of a group become an Arrow record batch, without a copy of most of them.
 *
 * In: the columns, and what Python knows of senders and words. Out: the address of an `ArrowArray` (Arrow's C data
 * interface), whose columns are those of EVENT_SCHEMA in its order. Promised: it holds its memory until Arrow releases
 * it, from whatever thread; each code is within its words. Not done: the schema, which Python has.
 */
#include "store.h"

enum { NUMBER, WORD, SENDER_WORD, VIEW_ID, FLAG, SENDER_FLAG, ERROR_TEXT };

typedef struct {
    const char *name;
    int kind, place; /* the column, or of an error the place in its note */
} field_t;

static const field_t fields[] = {
    {"tenant_id", WORD, TENANT},
    {"channel_id", WORD, CHANNEL},
    {"video_id", WORD, VIDEO},
    {"view_id", VIEW_ID, 0},
    {"view_key", NUMBER, VIEW_KEY},
    {"viewer_hash", NUMBER, VIEWER_HASH},
    {"seq", NUMBER, VM_SEQ},
    {"type", NUMBER, TYPE},
    {"ts", NUMBER, VM_TS},
    {"received_at", NUMBER, RECEIVED_AT},
    {"position_ms", NUMBER, VM_POSITION},
    {"duration_ms", NUMBER, VM_DURATION},
    {"played_ms", NUMBER, VM_PLAYED},
    {"rebuffered_ms", NUMBER, VM_REBUFFERED},
    {"rebuffer_count", NUMBER, VM_REBUFFERS},
    {"startup_ms", NUMBER, VM_STARTUP},
    {"bitrate_kbps", NUMBER, VM_BITRATE},
    {"playback_rate", NUMBER, RATE},
    {"fatal", NUMBER, FATAL},
    {"blind", FLAG, BLIND},
    {"is_bot", SENDER_FLAG, 0},
    {"error_code", ERROR_TEXT, 1},
    {"error_message", ERROR_TEXT, 2},
    {"country", SENDER_WORD, 0},
    {"region", SENDER_WORD, 0},
    {"city", SENDER_WORD, 0},
    {"asn", SENDER_WORD, 0},
    {"device_type", SENDER_WORD, 0},
    {"os", SENDER_WORD, 0},
    {"browser", SENDER_WORD, 0},
    {"player", WORD, PLAYER},
    {"cdn", WORD, CDN},
    {"stream_type", WORD, STREAM},
};
#define FIELDS ((Py_ssize_t)(sizeof fields / sizeof *fields))

/* What an array owns: its buffers, each by itself, and the structs of what hangs below it. */
typedef struct {
    const void *buffers[3];
    struct ArrowArray *child[sizeof fields / sizeof *fields];
    struct ArrowArray below[];
} owned_t;

/* As the interface has it: an array that was moved elsewhere (`release` is NULL) is no longer ours to release. */
static void release(struct ArrowArray *array) {
    owned_t *owned = array->private_data;
    for (int64_t i = 0; i < array->n_children; i++)
        if (owned->child[i]->release != NULL) owned->child[i]->release(owned->child[i]);
    if (array->dictionary != NULL && array->dictionary->release != NULL) array->dictionary->release(array->dictionary);
    for (int i = 0; i < 3; i++) PyMem_RawFree((void *)owned->buffers[i]);
    PyMem_RawFree(owned);
    array->release = NULL;
}

/* Make an array of no buffers, with `below` structs for its children or its dictionary. Returns -1 with an exception. */
static int begin(struct ArrowArray *array, int64_t length, int64_t buffers, size_t below) {
    owned_t *owned = PyMem_RawCalloc(1, sizeof *owned + below * sizeof(struct ArrowArray));
    if (owned == NULL) return PyErr_NoMemory(), -1;
    *array = (struct ArrowArray){
        .length = length, .n_buffers = buffers, .buffers = owned->buffers, .release = release, .private_data = owned};
    return 0;
}

/* Give an array one more buffer of its own, all zero. Returns it, or NULL with an exception. */
static void *room(struct ArrowArray *array, int place, size_t size) {
    void *made = PyMem_RawCalloc(size ? size : 1, 1);
    if (made == NULL) PyErr_NoMemory();
    ((owned_t *)array->private_data)->buffers[place] = made;
    return made;
}

/* Make an array of texts: a list of words. */
static int words_array(struct ArrowArray *array, PyObject *list) {
    Py_ssize_t count = PyList_GET_SIZE(list), size, total = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyUnicode_AsUTF8AndSize(PyList_GET_ITEM(list, i), &size) == NULL) return -1;
        if (size > INT32_MAX - total) return PyErr_NoMemory(), -1;
        total += size;
    }
    if (begin(array, count, 3, 0) < 0) return -1;
    int32_t *ends = room(array, 1, ((size_t)count + 1) * sizeof *ends);
    char *text = ends == NULL ? NULL : room(array, 2, (size_t)total);
    if (text == NULL) return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        const char *word = PyUnicode_AsUTF8AndSize(PyList_GET_ITEM(list, i), &size); /* cached since it was measured */
        memcpy(text + ends[i], word, (size_t)size);
        ends[i + 1] = ends[i] + (int32_t)size;
    }
    return 0;
}

/* Make error_code or error_message of the notes, which stand in the order of their events. */
static int notes_array(struct ArrowArray *array, const Rows *self, int part) {
    Py_ssize_t noted = PyList_GET_SIZE(self->texts), size, total = 0, next = 0;
    int32_t *ends = begin(array, self->events, 3, 0) < 0 ? NULL : room(array, 1, ((size_t)self->events + 1) * 4);
    if (ends == NULL) return -1;
    for (Py_ssize_t i = 0; i < noted; i++) {
        PyObject *note = PyList_GET_ITEM(self->texts, i);
        Py_ssize_t place = PyTuple_Check(note) && PyTuple_GET_SIZE(note) == 3
                               ? PyLong_AsSsize_t(PyTuple_GET_ITEM(note, 0)) : -1;
        if (place < next || place >= self->events) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "notes stand in the order of their events");
            return -1;
        }
        if (PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(note, part), &size) == NULL) return -1;
        if (size > INT32_MAX - total) return PyErr_NoMemory(), -1;
        total += size;
        ends[place + 1] = (int32_t)size;
        next = place + 1;
    }
    char *text = room(array, 2, (size_t)total);
    if (text == NULL) return -1;
    for (Py_ssize_t i = 0; i < noted; i++) {
        const char *word = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(PyList_GET_ITEM(self->texts, i), part), &size);
        memcpy(text, word, (size_t)size);
        text += size;
    }
    if (noted > 0)
        for (Py_ssize_t i = 0; i < self->events; i++) ends[i + 1] += ends[i];
    return 0;
}

/* Make an array of bits: of each event its own byte, or that of its sender. */
static int flags_array(struct ArrowArray *array, const Rows *self, const unsigned char *flags, const int32_t *of) {
    unsigned char *bits = begin(array, self->events, 2, 0) < 0 ? NULL : room(array, 1, (size_t)self->events / 8 + 1);
    if (bits == NULL) return -1;
    for (Py_ssize_t i = 0; i < self->events; i++)
        bits[i / 8] |= (unsigned char)((flags[of == NULL ? i : of[i]] != 0) << (i % 8));
    return 0;
}

/* What Python knows beside the columns. */
typedef struct {
    PyObject *words;      /* a list of texts for each field of words, in order */
    Py_buffer bots;       /* a byte for each sender */
    Py_buffer codes;      /* int32: for each field of a sender's words a code for each sender */
    Py_ssize_t next_word; /* fields that have been made */
    Py_ssize_t next_code;
} known_t;

static int begin_coded(struct ArrowArray *array, const Rows *self, known_t *known, Py_ssize_t *words) {
    PyObject *list = PyTuple_GET_ITEM(known->words, known->next_word++);
    *words = PyList_GET_SIZE(list);
    if (begin(array, self->events, 2, 1) < 0) return -1;
    array->dictionary = ((owned_t *)array->private_data)->below;
    if (words_array(array->dictionary, list) == 0) return 0;
    return -1;
}

static int field_array(struct ArrowArray *array, Rows *self, const field_t *field, known_t *known) {
    const int32_t *sender = (const int32_t *)(const void *)self->column[SENDER];
    Py_ssize_t senders = known->bots.len, words;
    switch (field->kind) {
        case FLAG: return flags_array(array, self, self->column[field->place], NULL);
        case SENDER_FLAG: return flags_array(array, self, known->bots.buf, sender);
        case ERROR_TEXT: return notes_array(array, self, field->place);
        case VIEW_ID:
            if (begin(array, self->events, 3, 0) < 0) return -1;
            ((owned_t *)array->private_data)->buffers[1] = self->view_ends;
            ((owned_t *)array->private_data)->buffers[2] = self->views;
            self->view_ends = NULL;
            self->views = NULL;
            return 0;
        case SENDER_WORD: {
            if (begin_coded(array, self, known, &words) < 0) return -1;
            int32_t *to = room(array, 1, (size_t)self->events * sizeof *to);
            if (to == NULL) return -1;
            const int32_t *codes = (const int32_t *)known->codes.buf + known->next_code++ * senders;
            for (Py_ssize_t i = 0; i < senders; i++)
                if (codes[i] < 0 || codes[i] >= words) return PyErr_SetString(PyExc_ValueError, "a code of no word"), -1;
            for (Py_ssize_t i = 0; i < self->events; i++) to[i] = codes[sender[i]];
            return 0;
        }
        case WORD:
            if (begin_coded(array, self, known, &words) < 0) return -1;
            break;
        default:
            if (begin(array, self->events, 2, 0) < 0) return -1;
    }
    ((owned_t *)array->private_data)->buffers[1] = self->column[field->place];
    self->column[field->place] = NULL;
    return 0;
}

/* Look at all that Python gave before anything is moved. Returns -1 with an exception. */
static int check(const Rows *self, const known_t *known) {
    Py_ssize_t words = 0, codes = 0;
    for (Py_ssize_t i = 0; i < FIELDS; i++) {
        words += fields[i].kind == WORD || fields[i].kind == SENDER_WORD;
        codes += fields[i].kind == SENDER_WORD;
    }
    int good = PyTuple_GET_SIZE(known->words) == words &&
               known->codes.len == codes * known->bots.len * (Py_ssize_t)sizeof(int32_t);
    for (Py_ssize_t i = 0; good && i < words; i++) good = PyList_Check(PyTuple_GET_ITEM(known->words, i));
    const int32_t *sender = (const int32_t *)(const void *)self->column[SENDER];
    for (Py_ssize_t i = 0; good && i < self->events; i++) good = sender[i] >= 0 && sender[i] < known->bots.len;
    if (good) return 0;
    PyErr_SetString(PyExc_ValueError, "a list of words for each field of words, a code and a flag for each sender");
    return -1;
}

static int make(Rows *self, known_t *known) {
    struct ArrowArray *batch = &self->batch;
    if (check(self, known) < 0 || begin(batch, self->events, 1, (size_t)FIELDS) < 0) return -1;
    owned_t *owned = batch->private_data;
    batch->children = owned->child;
    self->gone = 1; /* from here on columns move */
    for (Py_ssize_t i = 0; i < FIELDS; i++) {
        owned->child[i] = &owned->below[i];
        batch->n_children = i + 1; /* one that fails half-way is released as well */
        if (field_array(&owned->below[i], self, &fields[i], known) < 0) return release(batch), -1;
    }
    return 0;
}

const char vm_batch_doc[] = PyDoc_STR(
    "batch(words, bots, codes, /)\n--\n\n"
    "Return the address of an ArrowArray of all events, to be imported before `self` goes; nothing is left behind.\n\n"
    "words: a list for each field of words in the schema's order. bots: a byte for each sender. codes: int32, for each "
    "field of a sender's words a code for each sender.");

PyObject *vm_rows_batch(Rows *self, PyObject *args) {
    known_t known = {.next_word = 0, .next_code = 0};
    if (!PyArg_ParseTuple(args, "O!y*y*", &PyTuple_Type, &known.words, &known.bots, &known.codes)) return NULL;
    int failed = -1;
    if (self->busy || self->gone)
        PyErr_SetString(PyExc_RuntimeError, "the columns are in use, or gone already");
    else
        failed = make(self, &known);
    PyBuffer_Release(&known.bots);
    PyBuffer_Release(&known.codes);
    return failed ? NULL : PyLong_FromVoidPtr(&self->batch);
}

PyObject *vm_batch_fields(void) {
    PyObject *names = PyTuple_New(FIELDS);
    for (Py_ssize_t i = 0; names != NULL && i < FIELDS; i++) {
        PyObject *name = PyUnicode_FromString(fields[i].name);
        if (name == NULL) Py_CLEAR(names);
        else PyTuple_SET_ITEM(names, i, name);
    }
    return names;
}
