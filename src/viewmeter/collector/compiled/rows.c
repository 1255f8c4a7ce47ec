/* `viewmeter.collector._compiled`: events of many beacons as columns that grow.
 *
 * In: bodies (`Rows.take`) that scan.c understands, or events that Python decoded (`Rows.extend`). Out: one buffer per
 * column (`Rows.columns`). Promised: a beacon is in as a whole or not at all; each column has one value per event; all
 * memory is bounded by the events in it, of which there are at most 2^24. Not done: the making of Arrow arrays, and
 * every decision about what is not plain (columns.py).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>

#include "scan.h"

/* ---- the columns ---------------------------------------------------------------------------------------------- */

/* The whole numbers of an event come first, in the order of scan.h. */
enum {
    RECEIVED_AT = VM_WHOLES, VIEW_KEY, VIEWER_HASH, RATE, /* 8 bytes */
    TENANT, CHANNEL, VIDEO, PLAYER, CDN, STREAM, SENDER,  /* 4 bytes */
    TYPE, FATAL, BLIND,                                   /* 1 byte */
    COLUMNS
};

typedef struct {
    const char *name;
    size_t width;
} column_t;

static const column_t layout[COLUMNS] = {
    [VM_TS] = {"ts", 8},
    [VM_SEQ] = {"seq", 8},
    [VM_POSITION] = {"position_ms", 8},
    [VM_DURATION] = {"duration_ms", 8},
    [VM_PLAYED] = {"played_ms", 8},
    [VM_REBUFFERED] = {"rebuffered_ms", 8},
    [VM_REBUFFERS] = {"rebuffer_count", 8},
    [VM_STARTUP] = {"startup_ms", 8},
    [VM_BITRATE] = {"bitrate_kbps", 8},
    [RECEIVED_AT] = {"received_at", 8},
    [VIEW_KEY] = {"view_key", 8},
    [VIEWER_HASH] = {"viewer_hash", 8},
    [RATE] = {"playback_rate", 8},
    [TENANT] = {"tenant_id", 4},
    [CHANNEL] = {"channel_id", 4},
    [VIDEO] = {"video_id", 4},
    [PLAYER] = {"player", 4},
    [CDN] = {"cdn", 4},
    [STREAM] = {"stream_type", 4},
    [SENDER] = {"sender", 4},
    [TYPE] = {"type", 1},
    [FATAL] = {"fatal", 1},
    [BLIND] = {"blind", 1},
};

/* The words of a run, in the order of the tables that `Rows` is given. */
enum { W_CHANNEL, W_VIDEO, W_PLAYER, W_CDN, W_STREAM, WORDS };
static const int head_of_word[WORDS] = {VM_CHANNEL, VM_VIDEO, VM_PLAYER, VM_CDN, VM_STREAM};

#define MOST_EVENTS (1 << 24)
#define FIRST_ROOM 512

/* Neighbours of one beacon that differ in nothing but numbers, type and errors. */
typedef struct {
    Py_ssize_t first, events;
    PyObject *view; /* owned */
    int64_t view_key, viewer_hash;
    int32_t words[WORDS];
} run_t;

/* What is the same for all events of a beacon. */
typedef struct {
    int64_t received_at, shift_ms;
    int32_t tenant, sender;
} beacon_t;

typedef struct {
    PyObject_HEAD
    Py_ssize_t events, room;
    unsigned char *column[COLUMNS];
    int32_t *view_ends; /* where the view_id of each event ends in `views` */
    char *views;
    size_t views_size, views_room;
    PyObject *words[WORDS]; /* dict: word to code */
    PyObject *lists[WORDS]; /* list: code to word */
    PyObject *texts;        /* list of (place, error_code, error_message), of the few events that have any */
    vm_event *scanned;      /* VM_MAX_EVENTS of them, and as many runs */
    run_t *runs;
    int busy;
} Rows;

static int64_t *whole_of(Rows *self, int column) { return (int64_t *)(void *)self->column[column] + self->events; }
static int32_t *code_of(Rows *self, int column) { return (int32_t *)(void *)self->column[column] + self->events; }

/* Make room for more events, and bytes of their view_ids. Returns 0, or -1 with an exception and nothing changed. */
static int reserve(Rows *self, Py_ssize_t more, size_t more_views) {
    if (more > MOST_EVENTS - self->events || more_views > (size_t)INT32_MAX - self->views_size) {
        PyErr_SetString(PyExc_OverflowError, "a group cannot hold that many events");
        return -1;
    }
    if (self->events + more > self->room) {
        Py_ssize_t room = self->room * 2 > self->events + more ? self->room * 2 : self->events + more;
        for (int i = 0; i < COLUMNS; i++) {
            unsigned char *grown = PyMem_Realloc(self->column[i], (size_t)room * layout[i].width);
            if (grown == NULL) return PyErr_NoMemory(), -1;
            self->column[i] = grown;
        }
        int32_t *grown = PyMem_Realloc(self->view_ends, (size_t)room * sizeof *grown);
        if (grown == NULL) return PyErr_NoMemory(), -1;
        self->view_ends = grown;
        self->room = room;
    }
    if (self->views_size + more_views > self->views_room) {
        size_t room = self->views_room * 2 + more_views;
        char *grown = PyMem_Realloc(self->views, room);
        if (grown == NULL) return PyErr_NoMemory(), -1;
        self->views = grown;
        self->views_room = room;
    }
    return 0;
}

/* Return the code of a word, a new one for a new word; -1 with an exception. */
static int32_t code(Rows *self, int table, PyObject *word) {
    PyObject *known = PyDict_GetItemWithError(self->words[table], word);
    if (known != NULL) return (int32_t)PyLong_AsLong(known);
    if (PyErr_Occurred()) return -1;
    Py_ssize_t next = PyList_GET_SIZE(self->lists[table]);
    PyObject *number = PyLong_FromSsize_t(next);
    if (number == NULL || PyList_Append(self->lists[table], word) < 0) return Py_XDECREF(number), -1;
    int failed = PyDict_SetItem(self->words[table], word, number);
    Py_DECREF(number);
    return failed ? -1 : (int32_t)next;
}

/* Write the columns of runs that lie behind `self->events`. `reserve` was called; nothing can fail. */
static void write_runs(Rows *self, const beacon_t *beacon, const run_t *runs, Py_ssize_t count) {
    for (Py_ssize_t r = 0; r < count; r++) {
        const run_t *run = &runs[r];
        Py_ssize_t size;
        const char *view = PyUnicode_AsUTF8AndSize(run->view, &size); /* cached since `reserve` asked for its size */
        for (Py_ssize_t i = run->first; i < run->first + run->events; i++) {
            whole_of(self, RECEIVED_AT)[i] = beacon->received_at;
            whole_of(self, VIEW_KEY)[i] = run->view_key;
            whole_of(self, VIEWER_HASH)[i] = run->viewer_hash;
            code_of(self, TENANT)[i] = beacon->tenant;
            code_of(self, SENDER)[i] = beacon->sender;
            for (int word = 0; word < WORDS; word++) code_of(self, CHANNEL + word)[i] = run->words[word];
            memcpy(self->views + self->views_size, view, (size_t)size);
            self->views_size += (size_t)size;
            self->view_ends[self->events + i] = (int32_t)self->views_size;
        }
    }
}

/* Return the bytes that the view_ids of all events take, or -1 with an exception (a lone surrogate). */
static Py_ssize_t views_bytes(const run_t *runs, Py_ssize_t count) {
    Py_ssize_t total = 0;
    for (Py_ssize_t r = 0; r < count; r++) {
        Py_ssize_t size;
        if (PyUnicode_AsUTF8AndSize(runs[r].view, &size) == NULL) return -1;
        if (size > (INT32_MAX - total) / runs[r].events) return PyErr_NoMemory(), -1;
        total += size * runs[r].events;
    }
    return total;
}

static void forget_runs(run_t *runs, Py_ssize_t count) {
    for (Py_ssize_t r = 0; r < count; r++) Py_CLEAR(runs[r].view);
}

/* ---- take: a body --------------------------------------------------------------------------------------------- */

typedef struct {
    long long oldest, newest; /* `ts` strictly between them is surely in time; at the edge the reference decides */
    PyObject *own, *channels; /* the key's one channel or None; all its channels or None */
    PyObject *views, *viewers;
    PyObject *sender, *tenant_id;
    int anonymous; /* a viewer is known by its view alone */
} admission_t;

static PyObject *word_of(const vm_text *text) {
    return PyUnicode_DecodeUTF8((const char *)text->at, (Py_ssize_t)text->size, NULL);
}

static int same_run(const vm_event *a, const vm_event *b) {
    for (int i = 0; i < VM_HEADS; i++)
        if (a->text[i].at != b->text[i].at) return 0;
    return 1;
}

static int is_given(const vm_text *text) { return text->at != NULL && text->size > 0; }

/* Return the channel of a run, or NULL: with an exception an error, without one not mine. */
static PyObject *channel_of(const vm_text *named, const admission_t *key) {
    if (!is_given(named)) return key->own == Py_None ? NULL : Py_NewRef(key->own);
    PyObject *channel = word_of(named);
    if (channel == NULL || key->channels == Py_None) return channel;
    int allowed = PySequence_Contains(key->channels, channel);
    if (allowed != 1) Py_CLEAR(channel);
    return channel;
}

/* Set the key of a hash: `table[word]`, where the tables of viewers.py compute what is missing. */
static int hash_of(PyObject *table, PyObject *word, int64_t *hash) {
    PyObject *found = PyObject_GetItem(table, word);
    if (found == NULL) return -1;
    *hash = PyLong_AsLongLong(found);
    Py_DECREF(found);
    return *hash == -1 && PyErr_Occurred() ? -1 : 0;
}

static int viewer_of(const vm_event *head, const admission_t *key, int64_t *hash) {
    const vm_text *viewer = &head->text[key->anonymous ? VM_VIEW : VM_VIEWER];
    if (is_given(viewer)) {
        PyObject *word = word_of(viewer);
        int failed = word == NULL ? -1 : hash_of(key->viewers, word, hash);
        Py_XDECREF(word);
        return failed;
    }
    PyObject *found = PyObject_CallMethod(key->sender, "viewer_hash", "O", key->tenant_id);
    if (found == NULL) return -1;
    *hash = PyLong_AsLongLong(found);
    Py_DECREF(found);
    return *hash == -1 && PyErr_Occurred() ? -1 : 0;
}

/* Describe the run that starts with `head`. Returns 1, 0: not mine, -1: an exception. `run->view` may be set anyway. */
static int describe(Rows *self, const vm_event *head, const admission_t *key, run_t *run) {
    PyObject *channel = channel_of(&head->text[VM_CHANNEL], key);
    if (channel == NULL) return PyErr_Occurred() ? -1 : 0;
    run->words[W_CHANNEL] = code(self, W_CHANNEL, channel);
    Py_DECREF(channel);
    if (run->words[W_CHANNEL] < 0) return -1;
    for (int i = W_CHANNEL + 1; i < WORDS; i++) {
        const vm_text *text = &head->text[head_of_word[i]];
        run->words[i] = 0;
        if (!is_given(text)) continue;
        PyObject *word = word_of(text);
        if (word == NULL) return -1;
        run->words[i] = code(self, i, word);
        Py_DECREF(word);
        if (run->words[i] < 0) return -1;
    }
    run->view = word_of(&head->text[VM_VIEW]);
    if (run->view == NULL || hash_of(key->views, run->view, &run->view_key) < 0) return -1;
    return viewer_of(head, key, &run->viewer_hash) < 0 ? -1 : 1;
}

/* Find the runs of the scanned events. Returns how many, 0: not mine, -1: an exception. */
static Py_ssize_t find_runs(Rows *self, Py_ssize_t events, const admission_t *key) {
    const vm_event *scanned = self->scanned;
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < events; i++) {
        if (scanned[i].whole[VM_TS] <= key->oldest || scanned[i].whole[VM_TS] >= key->newest) return 0;
    }
    for (Py_ssize_t i = 0; i < events; i++) {
        if (i > 0 && same_run(&scanned[i], &scanned[i - 1])) {
            self->runs[count - 1].events++;
            continue;
        }
        run_t *run = &self->runs[count++];
        *run = (run_t){.first = i, .events = 1, .view = NULL};
        int described = describe(self, &scanned[i], key, run);
        if (described <= 0) {
            forget_runs(self->runs, count);
            return described;
        }
    }
    return count;
}

/* Note error_code and error_message of the events that have any. Returns -1 with an exception. */
static int note_texts(Rows *self, Py_ssize_t events) {
    for (Py_ssize_t i = 0; i < events; i++) {
        const vm_text *code = &self->scanned[i].text[VM_ERROR_CODE], *message = &self->scanned[i].text[VM_ERROR_MESSAGE];
        if (code->at == NULL && message->at == NULL) continue;
        PyObject *note = Py_BuildValue("(ns#s#)", self->events + i, code->at ? (const char *)code->at : "",
                                       (Py_ssize_t)code->size, message->at ? (const char *)message->at : "",
                                       (Py_ssize_t)message->size);
        int failed = note == NULL || PyList_Append(self->texts, note) < 0;
        Py_XDECREF(note);
        if (failed) return -1;
    }
    return 0;
}

/* Take back what was noted beyond `kept`, under an exception that stays. */
static void unnote(Rows *self, Py_ssize_t kept) {
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyList_SetSlice(self->texts, kept, PyList_GET_SIZE(self->texts), NULL);
    PyErr_Restore(type, error, trace);
}

/* Write the scanned events into the columns of numbers. `reserve` was called; nothing can fail. */
static void write_scanned(Rows *self, Py_ssize_t events, int64_t shift_ms) {
    for (int column = 0; column < VM_WHOLES; column++) {
        int64_t *to = whole_of(self, column);
        for (Py_ssize_t i = 0; i < events; i++) to[i] = self->scanned[i].whole[column];
    }
    int64_t *ts = whole_of(self, VM_TS);
    double *rate = (double *)(void *)self->column[RATE] + self->events;
    for (Py_ssize_t i = 0; i < events; i++) {
        const vm_event *event = &self->scanned[i];
        ts[i] += shift_ms;
        rate[i] = event->rate;
        self->column[TYPE][self->events + i] = event->type;
        int8_t fatal = event->flag[VM_FATAL]; /* its values are those of `Fatality` */
        if (fatal < 0 && event->flag[VM_HALTED] == 1) fatal = 2;
        self->column[FATAL][self->events + i] = (unsigned char)fatal;
        self->column[BLIND][self->events + i] = event->flag[VM_BLIND] == 1;
    }
}

static Py_ssize_t take(Rows *self, const char *body, Py_ssize_t size, Py_ssize_t most, const beacon_t *beacon,
                       const admission_t *key, int *ignored) {
    Py_ssize_t events = vm_scan((const unsigned char *)body, (size_t)size, self->scanned, ignored);
    if (events == 0 || events > most) return 0;
    Py_ssize_t runs = find_runs(self, events, key);
    if (runs <= 0) return runs;
    Py_ssize_t noted = PyList_GET_SIZE(self->texts);
    Py_ssize_t bytes = views_bytes(self->runs, runs);
    /* `reserve` comes last: behind it no other code can run that might change the columns. */
    if (bytes < 0 || note_texts(self, events) < 0 || reserve(self, events, (size_t)bytes) < 0) {
        unnote(self, noted);
        events = -1;
    } else {
        write_scanned(self, events, beacon->shift_ms);
        write_runs(self, beacon, self->runs, runs);
        self->events += events;
    }
    forget_runs(self->runs, runs);
    return events;
}

PyDoc_STRVAR(take_doc,
             "take(body, most, oldest, newest, shift_ms, own, channels, views, viewers, sender, tenant_id, "
             "anonymous, tenant, sender_code, received_at, /)\n--\n\n"
             "Add the events of a body; return (events, ignored fields), or None where it is not plain.\n\n"
             "None leaves nothing behind but words, and so does an exception. most: events it may have. oldest, newest: "
             "rounded `ts` must lie between them, without them. own: the channel of events that name none, or None. "
             "channels: those allowed, or None. views, viewers: text to hash.");

static PyObject *Rows_take(Rows *self, PyObject *args) {
    admission_t key;
    beacon_t beacon;
    PyObject *body;
    Py_ssize_t most;
    long long shift_ms, received_at;
    int ignored = 0;
    if (!PyArg_ParseTuple(args, "SnLLLOOOOOUpiiL", &body, &most, &key.oldest, &key.newest, &shift_ms, &key.own,
                          &key.channels, &key.views, &key.viewers, &key.sender, &key.tenant_id, &key.anonymous,
                          &beacon.tenant, &beacon.sender, &received_at))
        return NULL;
    if (key.own != Py_None && !PyUnicode_Check(key.own)) {
        PyErr_SetString(PyExc_TypeError, "own is a channel or None");
        return NULL;
    }
    if (self->busy) Py_RETURN_NONE; /* a hash that is computed may run other code, even this again */
    beacon.received_at = received_at;
    beacon.shift_ms = shift_ms;
    self->busy = 1;
    Py_ssize_t events = take(self, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), most, &beacon, &key, &ignored);
    self->busy = 0;
    if (events < 0) return NULL;
    if (events == 0) Py_RETURN_NONE;
    return Py_BuildValue("(ni)", events, ignored);
}

/* ---- extend: events that Python decoded ----------------------------------------------------------------------- */

enum { B_NUMBERS, B_TYPE, B_FATAL, B_BLIND, BUFFERS };
#define NUMBERS (VM_WHOLES + 1) /* `playback_rate` is the last */
static const Py_ssize_t width_of_buffer[BUFFERS] = {8 * NUMBERS, 1, 1, 1};

/* Read the runs that Python found. Returns how many, or -1 with an exception; they must make up all events. */
static Py_ssize_t read_runs(Rows *self, PyObject *list, Py_ssize_t events) {
    Py_ssize_t first = 0, count = PyList_GET_SIZE(list);
    if (count > VM_MAX_EVENTS) {
        PyErr_SetString(PyExc_ValueError, "too many runs");
        return -1;
    }
    for (Py_ssize_t r = 0; r < count; r++) {
        run_t *run = &self->runs[r];
        PyObject *view, *item = PyList_GetItem(list, r);
        long long view_key, viewer_hash;
        *run = (run_t){.first = first};
        int good = item != NULL && PyTuple_Check(item) && PyArg_ParseTuple(item, "nULLiiiii", &run->events, &view, &view_key,
                                                           &viewer_hash, &run->words[0], &run->words[1], &run->words[2],
                                                           &run->words[3], &run->words[4]);
        if (good && (run->events < 1 || run->events > events - first)) good = 0;
        if (!good) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a run is a tuple, and within its beacon");
            forget_runs(self->runs, r);
            return -1;
        }
        run->view = Py_NewRef(view);
        run->view_key = view_key;
        run->viewer_hash = viewer_hash;
        first += run->events;
    }
    if (first == events) return count;
    forget_runs(self->runs, count);
    PyErr_SetString(PyExc_ValueError, "the runs must make up the events");
    return -1;
}

/* Return whether all numbers are absent (NaN) or of a size that `llrint` takes. */
static int are_numbers(const double *numbers, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++)
        if (numbers[i] < -1e15 || numbers[i] > 1e15) return 0;
    return 1;
}

/* Write the numbers that Python decoded, halves rounded to even. `reserve` was called; nothing can fail. */
static void write_numbers(Rows *self, const double *numbers, Py_ssize_t events, int64_t shift_ms) {
    for (int column = 0; column < VM_WHOLES; column++) {
        int64_t *to = whole_of(self, column), shift = column == VM_TS ? shift_ms : 0;
        for (Py_ssize_t i = 0; i < events; i++, numbers++) to[i] = isnan(*numbers) ? -1 : llrint(*numbers) + shift;
    }
    double *rate = (double *)(void *)self->column[RATE] + self->events;
    for (Py_ssize_t i = 0; i < events; i++, numbers++) rate[i] = isnan(*numbers) ? -1.0 : *numbers;
}

static int extend(Rows *self, const Py_buffer *buffers, PyObject *list, const beacon_t *beacon) {
    Py_ssize_t events = buffers[B_TYPE].len;
    for (int i = 0; i < BUFFERS; i++)
        if (buffers[i].len % width_of_buffer[i] != 0 || buffers[i].len / width_of_buffer[i] != events) {
            PyErr_SetString(PyExc_ValueError, "each column has one value per event");
            return -1;
        }
    if (!are_numbers(buffers[B_NUMBERS].buf, events * NUMBERS)) {
        PyErr_SetString(PyExc_ValueError, "a number is out of range");
        return -1;
    }
    Py_ssize_t runs = read_runs(self, list, events);
    if (runs < 0) return -1;
    Py_ssize_t bytes = views_bytes(self->runs, runs);
    int failed = bytes < 0 || reserve(self, events, (size_t)bytes) < 0;
    if (!failed) {
        write_numbers(self, buffers[B_NUMBERS].buf, events, beacon->shift_ms);
        memcpy(self->column[TYPE] + self->events, buffers[B_TYPE].buf, (size_t)events);
        memcpy(self->column[FATAL] + self->events, buffers[B_FATAL].buf, (size_t)events);
        memcpy(self->column[BLIND] + self->events, buffers[B_BLIND].buf, (size_t)events);
        write_runs(self, beacon, self->runs, runs);
        self->events += events;
    }
    forget_runs(self->runs, runs);
    return failed ? -1 : 0;
}

PyDoc_STRVAR(extend_doc,
             "extend(numbers, types, fatal, blind, runs, shift_ms, tenant, sender, received_at, /)\n--\n\n"
             "Add events that were decoded elsewhere, or raise and add nothing. numbers: float64, a row per column, NaN = "
             "absent. A run is (events, view_id, view_key, viewer_hash, and five codes of words).");

static PyObject *Rows_extend(Rows *self, PyObject *args) {
    Py_buffer buffers[BUFFERS];
    PyObject *runs;
    beacon_t beacon;
    long long shift_ms, received_at;
    if (!PyArg_ParseTuple(args, "y*y*y*y*O!LiiL", &buffers[0], &buffers[1], &buffers[2], &buffers[3], &PyList_Type,
                          &runs, &shift_ms, &beacon.tenant, &beacon.sender, &received_at))
        return NULL;
    beacon.received_at = received_at;
    beacon.shift_ms = shift_ms;
    int failed = -1;
    if (self->busy)
        PyErr_SetString(PyExc_RuntimeError, "a beacon is being taken");
    else
        failed = extend(self, buffers, runs, &beacon);
    for (int i = 0; i < BUFFERS; i++) PyBuffer_Release(&buffers[i]);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* ---- columns -------------------------------------------------------------------------------------------------- */

static int put(PyObject *columns, const char *name, const void *bytes, size_t size) {
    PyObject *made = PyBytes_FromStringAndSize(bytes, (Py_ssize_t)size);
    int failed = made == NULL || PyDict_SetItemString(columns, name, made) < 0;
    Py_XDECREF(made);
    return failed ? -1 : 0;
}

PyDoc_STRVAR(columns_doc, "columns()\n--\n\nReturn a copy of each column as bytes, by name; `view_ends` and `view_text` are "
                          "the view_ids, end by end.");

static PyObject *Rows_columns(Rows *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *columns = PyDict_New();
    if (columns == NULL) return NULL;
    size_t events = (size_t)self->events;
    int failed = put(columns, "view_ends", self->view_ends, events * sizeof *self->view_ends) < 0 ||
                 put(columns, "view_text", self->views, self->views_size) < 0;
    for (int i = 0; i < COLUMNS && !failed; i++)
        failed = put(columns, layout[i].name, self->column[i], events * layout[i].width) < 0;
    if (failed) Py_CLEAR(columns);
    return columns;
}

/* ---- the type and the module ---------------------------------------------------------------------------------- */

static void Rows_dealloc(Rows *self) {
    for (int i = 0; i < COLUMNS; i++) PyMem_Free(self->column[i]);
    PyMem_Free(self->view_ends);
    PyMem_Free(self->views);
    PyMem_Free(self->scanned);
    PyMem_Free(self->runs);
    for (int i = 0; i < WORDS; i++) {
        Py_XDECREF(self->words[i]);
        Py_XDECREF(self->lists[i]);
    }
    Py_XDECREF(self->texts);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *Rows_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(named)) {
    PyObject *words, *lists, *texts;
    if (!PyArg_ParseTuple(args, "O!O!O!", &PyTuple_Type, &words, &PyTuple_Type, &lists, &PyList_Type, &texts))
        return NULL;
    int good = PyTuple_GET_SIZE(words) == WORDS && PyTuple_GET_SIZE(lists) == WORDS;
    for (int i = 0; good && i < WORDS; i++)
        good = PyDict_Check(PyTuple_GET_ITEM(words, i)) && PyList_Check(PyTuple_GET_ITEM(lists, i));
    if (!good) {
        PyErr_SetString(PyExc_TypeError, "Rows takes five dicts, five lists, and a list");
        return NULL;
    }
    Rows *self = (Rows *)type->tp_alloc(type, 0); /* all zero */
    if (self == NULL) return NULL;
    for (int i = 0; i < WORDS; i++) {
        self->words[i] = Py_NewRef(PyTuple_GET_ITEM(words, i));
        self->lists[i] = Py_NewRef(PyTuple_GET_ITEM(lists, i));
    }
    self->texts = Py_NewRef(texts);
    self->scanned = PyMem_Malloc(VM_MAX_EVENTS * sizeof *self->scanned);
    self->runs = PyMem_Malloc(VM_MAX_EVENTS * sizeof *self->runs);
    if (self->scanned == NULL || self->runs == NULL) PyErr_NoMemory();
    if (PyErr_Occurred() || reserve(self, FIRST_ROOM, FIRST_ROOM * 36) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *Rows_events(Rows *self, void *Py_UNUSED(closure)) { return PyLong_FromSsize_t(self->events); }

static PyGetSetDef Rows_attributes[] = {
    {"events", (getter)Rows_events, NULL, "How many events are in it.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef Rows_methods[] = {
    {"take", (PyCFunction)Rows_take, METH_VARARGS, take_doc},
    {"extend", (PyCFunction)Rows_extend, METH_VARARGS, extend_doc},
    {"columns", (PyCFunction)Rows_columns, METH_NOARGS, columns_doc},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject RowsType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "viewmeter.collector._compiled.Rows",
    .tp_basicsize = sizeof(Rows),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Events as columns that grow. Rows(word tables, their lists, texts): see columns.py.",
    .tp_new = Rows_new,
    .tp_dealloc = (destructor)Rows_dealloc,
    .tp_methods = Rows_methods,
    .tp_getset = Rows_attributes,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_compiled", .m_doc = "Bodies of beacons to columns.", .m_size = -1,
};

/* What must be the same in model/events.py and dialects/__init__.py; rows.py compares. */
static PyObject *bounds(void) {
    PyObject *types = PyTuple_New(VM_TYPES);
    if (types == NULL) return NULL;
    for (int i = 0; i < VM_TYPES; i++) {
        PyObject *word = word_of(&vm_types[i]);
        if (word == NULL) return Py_DECREF(types), NULL;
        PyTuple_SET_ITEM(types, i, word);
    }
    return Py_BuildValue("(NiiiLLLLLd)", types, VM_MAX_EVENTS, VM_MAX_ID_CHARS, VM_MAX_TEXT_CHARS, VM_MAX_SEQ,
                         VM_MAX_TS_MS, VM_MAX_MS, VM_MAX_COUNT, VM_MAX_KBPS, VM_MAX_PLAYBACK_RATE);
}

PyMODINIT_FUNC PyInit__compiled(void) {
    if (PyType_Ready(&RowsType) < 0) return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made == NULL) return NULL;
    PyObject *known = bounds();
    if (known == NULL || PyModule_AddObjectRef(made, "BOUNDS", known) < 0 ||
        PyModule_AddObjectRef(made, "Rows", (PyObject *)&RowsType) < 0)
        Py_CLEAR(made);
    Py_XDECREF(known);
    return made;
}
