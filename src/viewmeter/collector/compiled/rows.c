/* `viewmeter.collector._compiled`: events of many beacons as columns that grow.
 *
 * In: bodies (`Rows.take`) that scan.c understands, or events that Python decoded (`Rows.extend`). Out: one buffer per
 * column (`Rows.columns`), or all as a record batch (`Rows.batch`). Promised: a beacon is in as a whole or not at all; each column has one value per event; all
 * memory is bounded by the events in it, of which there are at most 2^24. Not done:
 * every decision about what is not plain (columns.py).
 */
#include "store.h"

#include <math.h>

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
        int good = item != NULL && PyTuple_Check(item) &&
                   PyArg_ParseTuple(item, "nULLiiiii", &run->events, &view, &view_key, &viewer_hash, &run->words[0],
                                    &run->words[1], &run->words[2], &run->words[3], &run->words[4]);
        if (good && (run->events < 1 || run->events > events - first)) good = 0;
        if (!good) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a run is a tuple, and within its beacon");
            vm_forget_runs(self->runs, r);
            return -1;
        }
        run->view = Py_NewRef(view);
        run->view_key = view_key;
        run->viewer_hash = viewer_hash;
        first += run->events;
    }
    if (first == events) return count;
    vm_forget_runs(self->runs, count);
    PyErr_SetString(PyExc_ValueError, "the runs must make up the events");
    return -1;
}

/* Return whether all numbers are absent (NaN) or of a size that `llrint` takes. */
static int are_numbers(const double *numbers, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++)
        if (numbers[i] < -1e15 || numbers[i] > 1e15) return 0;
    return 1;
}

/* Write the numbers that Python decoded, halves rounded to even. `vm_reserve` was called; nothing can fail. */
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
    Py_ssize_t bytes = vm_views_bytes(self->runs, runs);
    int failed = bytes < 0 || vm_reserve(self, events, (size_t)bytes) < 0;
    if (!failed) {
        write_numbers(self, buffers[B_NUMBERS].buf, events, beacon->shift_ms);
        memcpy(self->column[TYPE] + self->events, buffers[B_TYPE].buf, (size_t)events);
        memcpy(self->column[FATAL] + self->events, buffers[B_FATAL].buf, (size_t)events);
        memcpy(self->column[BLIND] + self->events, buffers[B_BLIND].buf, (size_t)events);
        vm_write_runs(self, beacon, self->runs, runs);
        self->events += events;
    }
    vm_forget_runs(self->runs, runs);
    return failed ? -1 : 0;
}

PyDoc_STRVAR(extend_doc,
             "extend(numbers, types, fatal, blind, runs, shift_ms, tenant, sender, received_at, /)\n--\n\n"
             "Add events that were decoded elsewhere, or raise and add nothing. numbers: float64, a row per column, "
             "NaN = absent. A run is (events, view_id, view_key, viewer_hash, and five codes of words).");

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
    if (self->busy || self->gone)
        PyErr_SetString(PyExc_RuntimeError, "a beacon is being taken, or the columns are gone");
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

PyDoc_STRVAR(columns_doc,
             "columns()\n--\n\n"
             "Return a copy of each column as bytes, by name; `view_ends` and `view_text` are the "
             "view_ids, end by end.");

static PyObject *Rows_columns(Rows *self, PyObject *Py_UNUSED(ignored)) {
    if (self->gone) return PyErr_SetString(PyExc_RuntimeError, "the columns are gone"), NULL;
    PyObject *columns = PyDict_New();
    if (columns == NULL) return NULL;
    size_t events = (size_t)self->events;
    int failed = put(columns, "view_ends", self->view_ends + 1, events * sizeof *self->view_ends) < 0 ||
                 put(columns, "view_text", self->views, self->views_size) < 0;
    for (int i = 0; i < COLUMNS && !failed; i++)
        failed = put(columns, vm_layout[i].name, self->column[i], events * vm_layout[i].width) < 0;
    if (failed) Py_CLEAR(columns);
    return columns;
}

/* ---- the type and the module ---------------------------------------------------------------------------------- */

static void Rows_dealloc(Rows *self) {
    if (self->batch.release != NULL) self->batch.release(&self->batch); /* nobody took it */
    for (int i = 0; i < COLUMNS; i++) PyMem_RawFree(self->column[i]);
    PyMem_RawFree(self->view_ends);
    PyMem_RawFree(self->views);
    PyMem_Free(self->scanned);
    PyMem_Free(self->runs);
    for (int i = 0; i < WORDS; i++) {
        Py_XDECREF(self->words[i]);
        Py_XDECREF(self->lists[i]);
    }
    Py_XDECREF(self->tenants);
    Py_XDECREF(self->senders);
    Py_XDECREF(self->texts);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *Rows_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(named)) {
    PyObject *words, *lists, *tenants, *senders, *texts;
    if (!PyArg_ParseTuple(args, "O!O!O!O!O!", &PyTuple_Type, &words, &PyTuple_Type, &lists, &PyDict_Type, &tenants,
                          &PyDict_Type, &senders, &PyList_Type, &texts))
        return NULL;
    int good = PyTuple_GET_SIZE(words) == WORDS && PyTuple_GET_SIZE(lists) == WORDS;
    for (int i = 0; good && i < WORDS; i++)
        good = PyDict_Check(PyTuple_GET_ITEM(words, i)) && PyList_Check(PyTuple_GET_ITEM(lists, i));
    if (!good) {
        PyErr_SetString(PyExc_TypeError, "Rows takes five dicts, five lists, two dicts, and a list");
        return NULL;
    }
    Rows *self = (Rows *)type->tp_alloc(type, 0); /* all zero */
    if (self == NULL) return NULL;
    for (int i = 0; i < WORDS; i++) {
        self->words[i] = Py_NewRef(PyTuple_GET_ITEM(words, i));
        self->lists[i] = Py_NewRef(PyTuple_GET_ITEM(lists, i));
    }
    self->tenants = Py_NewRef(tenants);
    self->senders = Py_NewRef(senders);
    self->texts = Py_NewRef(texts);
    self->scanned = PyMem_Malloc(VM_MAX_EVENTS * sizeof *self->scanned);
    self->runs = PyMem_Malloc(VM_MAX_EVENTS * sizeof *self->runs);
    if (self->scanned == NULL || self->runs == NULL) PyErr_NoMemory();
    if (PyErr_Occurred() || vm_reserve(self, FIRST_ROOM, FIRST_ROOM * 36) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *Rows_events(Rows *self, void *Py_UNUSED(closure)) { return PyLong_FromSsize_t(self->events); }

static PyGetSetDef Rows_attributes[] = {
    {"events", (getter)Rows_events, NULL, "How many events are in it.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef Rows_methods[] = {
    {"take", (PyCFunction)(void (*)(void))vm_rows_take, METH_FASTCALL, vm_take_doc},
    {"extend", (PyCFunction)Rows_extend, METH_VARARGS, extend_doc},
    {"columns", (PyCFunction)Rows_columns, METH_NOARGS, columns_doc},
    {"batch", (PyCFunction)vm_rows_batch, METH_VARARGS, vm_batch_doc},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject RowsType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "viewmeter.collector._compiled.Rows",
    .tp_basicsize = sizeof(Rows),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Events as columns that grow. Rows(word tables, their lists, tenants, senders, texts): see columns.py.",
    .tp_new = Rows_new,
    .tp_dealloc = (destructor)Rows_dealloc,
    .tp_methods = Rows_methods,
    .tp_getset = Rows_attributes,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_compiled", .m_doc = "Bodies of beacons to columns.", .m_size = -1,
};

/* What must be the same in model/events.py and dialects/__init__.py; decoder.py compares. */
static PyObject *bounds(void) {
    PyObject *types = PyTuple_New(VM_TYPES);
    if (types == NULL) return NULL;
    for (int i = 0; i < VM_TYPES; i++) {
        PyObject *word = PyUnicode_FromStringAndSize((const char *)vm_types[i].at, (Py_ssize_t)vm_types[i].size);
        if (word == NULL) return Py_DECREF(types), NULL;
        PyTuple_SET_ITEM(types, i, word);
    }
    PyObject *columns = vm_batch_fields();
    if (columns == NULL) return Py_DECREF(types), NULL;
    return Py_BuildValue("(NNiiiLLLLLd)", types, columns, VM_MAX_EVENTS, VM_MAX_ID_CHARS, VM_MAX_TEXT_CHARS, VM_MAX_SEQ,
                         VM_MAX_TS_MS, VM_MAX_MS, VM_MAX_COUNT, VM_MAX_KBPS, VM_MAX_PLAYBACK_RATE);
}

PyMODINIT_FUNC PyInit__compiled(void) {
    if (PyType_Ready(&RowsType) < 0) return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made == NULL) return NULL;
    PyObject *known = bounds();
    if (known == NULL || PyModule_AddObjectRef(made, "BOUNDS", known) < 0 ||
        PyModule_AddObjectRef(made, "Rows", (PyObject *)&RowsType) < 0 || vm_add_turnstile(made) < 0)
        Py_CLEAR(made);
    Py_XDECREF(known);
    return made;
}
