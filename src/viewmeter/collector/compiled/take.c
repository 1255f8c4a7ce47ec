/* `Rows.take`: a body that scan.c understands becomes columns.
 *
 * In: a body, the terms of its sender, and when it was sent and received. Out: the number of its events, or None: not plain, or not wholly valid (an
 * event out of time, a channel that the key may not write to). Promised: all of a body is in the columns or nothing.
 */
#include "store.h"

#include <math.h>
#include <stdlib.h>

static const int head_of_word[WORDS] = {VM_CHANNEL, VM_VIDEO, VM_PLAYER, VM_CDN, VM_STREAM};

typedef struct {
    long long oldest, newest; /* `ts` strictly between them is surely in time; at the edge the reference decides */
    PyObject *own, *channels; /* the key's one channel or None; all its channels or None */
    PyObject *views, *viewers;
    PyObject *sender, *tenant_id;
    int anonymous; /* a viewer is known by its view alone */
} admission_t;

/* `Terms` of columns.py. */
enum { T_OWN, T_CHANNELS, T_VIEWS, T_VIEWERS, T_SENDER, T_TENANT, T_ANONYMOUS, T_TOLERANCE, T_AGE, T_AHEAD, TERMS };

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
    run->words[W_CHANNEL] = vm_code(self, W_CHANNEL, channel);
    Py_DECREF(channel);
    if (run->words[W_CHANNEL] < 0) return -1;
    for (int i = W_CHANNEL + 1; i < WORDS; i++) {
        const vm_text *text = &head->text[head_of_word[i]];
        run->words[i] = 0;
        if (!is_given(text)) continue;
        PyObject *word = word_of(text);
        if (word == NULL) return -1;
        run->words[i] = vm_code(self, i, word);
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
            vm_forget_runs(self->runs, count);
            return described;
        }
    }
    return count;
}

/* Note error_code and error_message of the events that have any. Returns -1 with an exception. */
static int note_texts(Rows *self, Py_ssize_t events) {
    for (Py_ssize_t i = 0; i < events; i++) {
        const vm_text *texts = self->scanned[i].text;
        const vm_text *code = &texts[VM_ERROR_CODE], *message = &texts[VM_ERROR_MESSAGE];
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

/* Write the scanned events into the columns of numbers. `vm_reserve` was called; nothing can fail. */
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

/* Set what to add to each `ts`, as `clock_shift` of intake.py has it. Returns -1 with an exception. */
static int clock_shift(PyObject *sent_at, long long received_at, long long tolerance, int64_t *shift) {
    *shift = 0;
    if (sent_at == Py_None || (PyUnicode_Check(sent_at) && PyUnicode_GET_LENGTH(sent_at) == 0)) return 0;
    PyObject *number = PyFloat_FromString(sent_at);
    if (number == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) return -1;
        PyErr_Clear();
        return 0;
    }
    double sent = PyFloat_AS_DOUBLE(number);
    Py_DECREF(number);
    if (!(sent >= 0 && sent <= (double)VM_MAX_TS_MS)) return 0; /* nor where it is NaN */
    int64_t found = received_at - llrint(sent);
    if (llabs(found) > tolerance) *shift = found;
    return 0;
}

/* Return the code of a sender in this group, a new one for a new sender; -1 with an exception. */
static int32_t sender_code(Rows *self, PyObject *sender) {
    PyObject *known = PyDict_GetItemWithError(self->senders, sender);
    if (known != NULL) return (int32_t)PyLong_AsLong(known);
    if (PyErr_Occurred()) return -1;
    Py_ssize_t next = PyDict_GET_SIZE(self->senders);
    PyObject *number = PyLong_FromSsize_t(next);
    int failed = number == NULL || PyDict_SetItem(self->senders, sender, number) < 0;
    Py_XDECREF(number);
    return failed ? -1 : (int32_t)next;
}

static int codes_of(Rows *self, const admission_t *key, beacon_t *beacon) {
    int64_t tenant;
    if (hash_of(self->tenants, key->tenant_id, &tenant) < 0) return -1;
    beacon->tenant = (int32_t)tenant;
    beacon->sender = sender_code(self, key->sender);
    return beacon->sender < 0 ? -1 : 0;
}

static Py_ssize_t take(Rows *self, PyObject *body, Py_ssize_t most, beacon_t *beacon, const admission_t *key,
                       int *ignored) {
    const unsigned char *bytes_of_body = (const unsigned char *)PyBytes_AS_STRING(body);
    Py_ssize_t events = vm_scan(bytes_of_body, (size_t)PyBytes_GET_SIZE(body), self->scanned, ignored);
    if (events == 0 || events > most) return 0;
    Py_ssize_t runs = find_runs(self, events, key);
    if (runs <= 0) return runs;
    Py_ssize_t noted = PyList_GET_SIZE(self->texts);
    Py_ssize_t bytes = codes_of(self, key, beacon) < 0 ? -1 : vm_views_bytes(self->runs, runs);
    /* `vm_reserve` comes last: behind it no other code can run that might change the columns. */
    if (bytes < 0 || note_texts(self, events) < 0 || vm_reserve(self, events, (size_t)bytes) < 0) {
        unnote(self, noted);
        events = -1;
    } else {
        write_scanned(self, events, beacon->shift_ms);
        vm_write_runs(self, beacon, self->runs, runs);
        self->events += events;
    }
    vm_forget_runs(self->runs, runs);
    return events;
}

/* Read the terms of a sender. Returns -1 with an exception. */
static int read_terms(PyObject *terms, PyObject *sent_at, beacon_t *beacon, admission_t *key) {
    if (!PyTuple_Check(terms) || PyTuple_GET_SIZE(terms) != TERMS ||
        !(PyTuple_GET_ITEM(terms, T_OWN) == Py_None || PyUnicode_Check(PyTuple_GET_ITEM(terms, T_OWN))))
        return PyErr_SetString(PyExc_TypeError, "the terms are a tuple, and own in it is a channel or None"), -1;
    PyObject *const *of = &PyTuple_GET_ITEM(terms, 0);
    long long tolerance = PyLong_AsLongLong(of[T_TOLERANCE]);
    long long age = PyLong_AsLongLong(of[T_AGE]), ahead = PyLong_AsLongLong(of[T_AHEAD]);
    int anonymous = PyObject_IsTrue(of[T_ANONYMOUS]);
    if (anonymous < 0 || PyErr_Occurred()) return -1;
    if (clock_shift(sent_at, beacon->received_at, tolerance, &beacon->shift_ms) < 0) return -1;
    *key = (admission_t){
        .oldest = beacon->received_at - age - beacon->shift_ms,
        .newest = beacon->received_at + ahead - beacon->shift_ms,
        .own = of[T_OWN],
        .channels = of[T_CHANNELS],
        .views = of[T_VIEWS],
        .viewers = of[T_VIEWERS],
        .sender = of[T_SENDER],
        .tenant_id = of[T_TENANT],
        .anonymous = anonymous,
    };
    return 0;
}

static PyObject *counts(Py_ssize_t events, int ignored, int corrected) {
    PyObject *made = PyTuple_New(3);
    PyObject *numbers[] = {PyLong_FromSsize_t(events), PyLong_FromLong(ignored), PyBool_FromLong(corrected)};
    for (int i = 0; i < 3; i++) {
        if (numbers[i] == NULL) Py_CLEAR(made);
        if (made != NULL) PyTuple_SET_ITEM(made, i, numbers[i]);
        else Py_XDECREF(numbers[i]);
    }
    return made;
}

const char vm_take_doc[] = PyDoc_STR(
    "take(body, terms, sent_at, received_at, most, /)\n--\n\n"
    "Add the events of a body; return (events, ignored fields, clock corrected), or None where it is not plain.\n\n"
    "None leaves nothing behind but words and senders, and so does an exception. terms: `Terms` of columns.py. "
    "sent_at: `t` as it was sent, or None. most: events it may have.");

PyObject *vm_rows_take(Rows *self, PyObject *const *args, Py_ssize_t count) {
    admission_t key;
    beacon_t beacon = {.tenant = 0, .sender = 0};
    int ignored = 0;
    if (count != 5 || !PyBytes_Check(args[0]))
        return PyErr_SetString(PyExc_TypeError, "take(body, terms, sent_at, received_at, most)"), NULL;
    beacon.received_at = PyLong_AsLongLong(args[3]);
    Py_ssize_t most = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred() || read_terms(args[1], args[2], &beacon, &key) < 0) return NULL;
    if (self->gone) return PyErr_SetString(PyExc_RuntimeError, "the columns are gone"), NULL;
    if (self->busy) Py_RETURN_NONE; /* a hash that is computed may run other code, even this again */
    self->busy = 1;
    Py_ssize_t events = take(self, args[0], most, &beacon, &key, &ignored);
    self->busy = 0;
    if (events < 0) return NULL;
    if (events == 0) Py_RETURN_NONE;
    return counts(events, ignored, beacon.shift_ms != 0);
}
