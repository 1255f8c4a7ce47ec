/* See store.h. */
#include "store.h"

const column_t vm_layout[COLUMNS] = {
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

int vm_reserve(Rows *self, Py_ssize_t more, size_t more_views) {
    if (more > MOST_EVENTS - self->events || more_views > (size_t)INT32_MAX - self->views_size) {
        PyErr_SetString(PyExc_OverflowError, "a group cannot hold that many events");
        return -1;
    }
    if (self->events + more > self->room) {
        Py_ssize_t room = self->room * 2 > self->events + more ? self->room * 2 : self->events + more;
        for (int i = 0; i < COLUMNS; i++) {
            unsigned char *grown = PyMem_RawRealloc(self->column[i], (size_t)room * vm_layout[i].width);
            if (grown == NULL) return PyErr_NoMemory(), -1;
            self->column[i] = grown;
        }
        int32_t *grown = PyMem_RawRealloc(self->view_ends, ((size_t)room + 1) * sizeof *grown);
        if (grown == NULL) return PyErr_NoMemory(), -1;
        grown[0] = 0;
        self->view_ends = grown;
        self->room = room;
    }
    if (self->views_size + more_views > self->views_room) {
        size_t room = self->views_room * 2 + more_views;
        char *grown = PyMem_RawRealloc(self->views, room);
        if (grown == NULL) return PyErr_NoMemory(), -1;
        self->views = grown;
        self->views_room = room;
    }
    return 0;
}

int32_t vm_code(Rows *self, int table, PyObject *word) {
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

void vm_write_runs(Rows *self, const beacon_t *beacon, const run_t *runs, Py_ssize_t count) {
    for (Py_ssize_t r = 0; r < count; r++) {
        const run_t *run = &runs[r];
        Py_ssize_t size;
        const char *view = PyUnicode_AsUTF8AndSize(run->view, &size); /* cached since `vm_reserve` asked for its size */
        for (Py_ssize_t i = run->first; i < run->first + run->events; i++) {
            whole_of(self, RECEIVED_AT)[i] = beacon->received_at;
            whole_of(self, VIEW_KEY)[i] = run->view_key;
            whole_of(self, VIEWER_HASH)[i] = run->viewer_hash;
            code_of(self, TENANT)[i] = beacon->tenant;
            code_of(self, SENDER)[i] = beacon->sender;
            for (int word = 0; word < WORDS; word++) code_of(self, CHANNEL + word)[i] = run->words[word];
            memcpy(self->views + self->views_size, view, (size_t)size);
            self->views_size += (size_t)size;
            self->view_ends[self->events + i + 1] = (int32_t)self->views_size;
        }
    }
}

Py_ssize_t vm_views_bytes(const run_t *runs, Py_ssize_t count) {
    Py_ssize_t total = 0;
    for (Py_ssize_t r = 0; r < count; r++) {
        Py_ssize_t size;
        if (PyUnicode_AsUTF8AndSize(runs[r].view, &size) == NULL) return -1;
        if (size > (INT32_MAX - total) / runs[r].events) return PyErr_NoMemory(), -1;
        total += size * runs[r].events;
    }
    return total;
}

void vm_forget_runs(run_t *runs, Py_ssize_t count) {
    for (Py_ssize_t r = 0; r < count; r++) Py_CLEAR(runs[r].view);
}
