/* The columns of a group, and what is written into them: shared by store.c, take.c, batch.c and rows.c; and what the module is made of. */
#ifndef VIEWMETER_STORE_H
#define VIEWMETER_STORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "scan.h"

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

/* The words of a run, in the order of the tables that `Rows` is given. */
enum { W_CHANNEL, W_VIDEO, W_PLAYER, W_CDN, W_STREAM, WORDS };

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

/* Arrow's C data interface, as its specification has it. */
struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

/* The memory of the columns is that of PyMem_Raw…: Arrow frees it, from any thread. */
typedef struct {
    PyObject_HEAD
    Py_ssize_t events, room;
    unsigned char *column[COLUMNS];
    int32_t *view_ends; /* 0, then where the view_id of each event ends in `views` */
    char *views;
    size_t views_size, views_room;
    PyObject *words[WORDS]; /* dict: word to code */
    PyObject *lists[WORDS]; /* list: code to word */
    PyObject *tenants;      /* dict: tenant to code; it makes what is missing */
    PyObject *senders;      /* dict: sender to code */
    PyObject *texts;        /* list of (place, error_code, error_message), of the few events that have any */
    vm_event *scanned;      /* VM_MAX_EVENTS of them, and as many runs */
    run_t *runs;
    int busy;
    int gone; /* the columns were given away */
    struct ArrowArray batch;
} Rows;

extern const column_t vm_layout[COLUMNS];

/* Where the next event's value goes. Good until `vm_reserve`. */
static inline int64_t *whole_of(Rows *self, int column) {
    return (int64_t *)(void *)self->column[column] + self->events;
}
static inline int32_t *code_of(Rows *self, int column) {
    return (int32_t *)(void *)self->column[column] + self->events;
}

/* Make room for more events, and bytes of their view_ids. Returns 0, or -1 with an exception and nothing changed. */
int vm_reserve(Rows *self, Py_ssize_t more, size_t more_views);

/* Return the code of a word, a new one for a new word; -1 with an exception. */
int32_t vm_code(Rows *self, int table, PyObject *word);

/* Return the bytes that the view_ids of all events take, or -1 with an exception (a lone surrogate). */
Py_ssize_t vm_views_bytes(const run_t *runs, Py_ssize_t count);

/* Write the columns of runs that lie behind `self->events`. `vm_reserve` was called; nothing can fail. */
void vm_write_runs(Rows *self, const beacon_t *beacon, const run_t *runs, Py_ssize_t count);

void vm_forget_runs(run_t *runs, Py_ssize_t count);

/* The methods of `Rows` that take.c and batch.c have. */
extern const char vm_take_doc[];
PyObject *vm_rows_take(Rows *self, PyObject *const *args, Py_ssize_t count);
extern const char vm_batch_doc[];
PyObject *vm_rows_batch(Rows *self, PyObject *args);

/* Add `Turnstile` (door.c) to the module. Returns 0, or -1 with an exception. */
int vm_add_turnstile(PyObject *module);

/* Return the names of the batch's columns, in order; NULL with an exception. */
PyObject *vm_batch_fields(void);

#endif
