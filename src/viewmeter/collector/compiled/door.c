/* `Turnstile`: a sender that was admitted before, and says the same of itself again, goes through.
 *
 * In: a request of RSGI. Out: who sends and `t`, or None: `Door` decides, and nothing was counted. Promised: what is let
 * through, `Door.admit` would let through with the same answer, and both rates have counted it once. Not done: every
 * refusal, every sender that is not remembered, and bodies that cannot be read in one go (request.py, bodies.py).
 */
#include "store.h"

/* The parts of `Turnstile(...)`, in the order of its arguments. */
enum { KNOWN, SAID, KEYS, IS_FULL, NOW, ADDRESS_OF, APART_FROM_TIME, ADDRESS_NAMES, KEY_NAMES, PARTS };

/* A `RateLimit` of rates.py; its names stand among the parts. */
typedef struct {
    Py_buffer tags, levels;
    double interval, room;
} rate_t;

typedef struct {
    PyObject_HEAD
    PyObject *part[PARTS];
    rate_t of_address, of_key;
    Py_ssize_t small;         /* bytes of a body that is read in one go */
    Py_ssize_t longest_query; /* characters of a query that are read */
    int is_direct;            /* no proxies: the address is that of the connection */
} Turnstile;

/* What is said of one request, as far as it was found out. All owned. */
typedef struct {
    PyObject *headers, *address, *query, *sent_at, *said, *admitted;
} request_t;

/* Where a name that may send now is counted, and what stands there then. */
typedef struct {
    double *level, full_at;
} turn_t;

enum { N_METHOD, N_HEADERS, N_CLIENT, N_PATH, N_QUERY, N_GET, N_YOUNG, N_VERSION, N_KEY, N_ID,
       N_LENGTH, N_ENCODING, N_PREFER, N_AUTHORIZATION, NAMES };
static const char *const texts_of_names[NAMES] = {
    "method", "headers", "client", "path", "query_string", "get", "young", "version", "key", "id",
    "content-length", "content-encoding", "prefer", "authorization",
};
static PyObject *names[NAMES];

/* All functions below that return an int return 1: yes, 0: not ours to decide, -1: an exception. */

static PyObject *header_of(PyObject *headers, PyObject *name) {
    PyObject *called[] = {headers, name};
    return PyObject_VectorcallMethod(names[N_GET], called, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

static int is_absent(PyObject *headers, PyObject *name) {
    PyObject *found = header_of(headers, name);
    if (found == NULL) return -1;
    Py_DECREF(found);
    return found == Py_None;
}

static int is_small_number(PyObject *text, Py_ssize_t most) {
    if (!PyUnicode_Check(text) || !PyUnicode_IS_ASCII(text)) return 0;
    Py_ssize_t size = PyUnicode_GET_LENGTH(text), number = 0;
    if (size < 1 || size > 9) return 0;
    const Py_UCS1 *digits = PyUnicode_1BYTE_DATA(text);
    for (Py_ssize_t i = 0; i < size; i++) {
        if (digits[i] < '0' || digits[i] > '9') return 0;
        number = number * 10 + (digits[i] - '0');
    }
    return number <= most;
}

/* A POST whose body is small and as it is, and whose sender wants no counts. */
static int is_plain(const Turnstile *self, PyObject *scope, const request_t *of) {
    PyObject *method = PyObject_GetAttr(scope, names[N_METHOD]);
    if (method == NULL) return -1;
    int yes = PyUnicode_Check(method) && PyUnicode_CompareWithASCIIString(method, "POST") == 0;
    Py_DECREF(method);
    if (!yes) return 0;
    PyObject *length = header_of(of->headers, names[N_LENGTH]);
    if (length == NULL) return -1;
    yes = is_small_number(length, self->small);
    Py_DECREF(length);
    if (yes) yes = is_absent(of->headers, names[N_ENCODING]);
    return yes == 1 ? is_absent(of->headers, names[N_PREFER]) : yes;
}

/* Set the address; `1.2.3.4:5` is read here. */
static int find_address(const Turnstile *self, PyObject *scope, request_t *of) {
    if (self->is_direct) {
        PyObject *peer = PyObject_GetAttr(scope, names[N_CLIENT]);
        if (peer == NULL) return -1;
        if (PyUnicode_Check(peer) && PyUnicode_IS_ASCII(peer)) {
            const Py_UCS1 *text = PyUnicode_1BYTE_DATA(peer);
            Py_ssize_t size = 0;
            while (text[size] == '.' || (text[size] >= '0' && text[size] <= '9')) size++; /* a NUL is behind it */
            Py_ssize_t behind = PyUnicode_GET_LENGTH(peer) - size - 1;
            if (size > 0 && text[size] == ':' && memchr(text + size + 1, ':', (size_t)behind) == NULL)
                of->address = PyUnicode_Substring(peer, 0, size);
        }
        Py_DECREF(peer);
        if (of->address == NULL && PyErr_Occurred()) return -1;
    }
    if (of->address == NULL) {
        PyObject *called[] = {scope, of->headers};
        of->address = PyObject_Vectorcall(self->part[ADDRESS_OF], called, 2, NULL);
    }
    return of->address == NULL ? -1 : 1;
}

/* Set the query and `t` apart; `…&t=123` is read here. */
static int find_query(const Turnstile *self, PyObject *scope, request_t *of) {
    PyObject *text = PyObject_GetAttr(scope, names[N_QUERY]);
    if (text == NULL) return -1;
    if (PyUnicode_Check(text) && PyUnicode_IS_ASCII(text) && PyUnicode_GET_LENGTH(text) <= self->longest_query) {
        const Py_UCS1 *chars = PyUnicode_1BYTE_DATA(text);
        Py_ssize_t size = PyUnicode_GET_LENGTH(text), begin = size;
        while (begin > 0 && chars[begin - 1] >= '0' && chars[begin - 1] <= '9') begin--;
        if (begin < size && begin >= 3 && memcmp(chars + begin - 3, "&t=", 3) == 0) {
            of->query = PyUnicode_Substring(text, 0, begin - 3);
            of->sent_at = PyUnicode_Substring(text, begin, size);
        }
    }
    if (of->sent_at == NULL && !PyErr_Occurred()) {
        PyObject *apart = PyObject_CallOneArg(self->part[APART_FROM_TIME], text);
        if (apart != NULL && PyArg_ParseTuple(apart, "OO", &of->query, &of->sent_at)) {
            Py_INCREF(of->query);
            Py_INCREF(of->sent_at);
        }
        Py_XDECREF(apart);
    }
    Py_DECREF(text);
    return PyErr_Occurred() ? -1 : 1;
}

/* Make the tuple that `Door` remembers senders by: path, address, query, and their headers. */
static int find_said(const Turnstile *self, PyObject *scope, request_t *of) {
    PyObject *said_by = self->part[SAID];
    Py_ssize_t count = PyTuple_GET_SIZE(said_by);
    if ((of->said = PyTuple_New(3 + count)) == NULL) return -1;
    PyObject *path = PyObject_GetAttr(scope, names[N_PATH]);
    if (path == NULL) return -1;
    PyTuple_SET_ITEM(of->said, 0, path);
    PyTuple_SET_ITEM(of->said, 1, Py_NewRef(of->address));
    PyTuple_SET_ITEM(of->said, 2, Py_NewRef(of->query));
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(said_by, i), *text = header_of(of->headers, name);
        if (text == NULL) return -1;
        PyTuple_SET_ITEM(of->said, 3 + i, text);
        if (text == Py_None && PyUnicode_Compare(name, names[N_AUTHORIZATION]) == 0) {
            int is_there = PySequence_Contains(of->headers, name); /* and cannot be read */
            if (is_there != 0) return is_there < 0 ? -1 : 0;
        }
    }
    return 1;
}

/* Set who sends, where that is remembered and the key is still what it was. */
static int find_admitted(const Turnstile *self, request_t *of) {
    PyObject *young = PyObject_GetAttr(self->part[KNOWN], names[N_YOUNG]);
    if (young == NULL) return -1;
    if (!PyDict_Check(young)) PyErr_SetString(PyExc_TypeError, "what is remembered is a dict");
    PyObject *found = PyDict_Check(young) ? PyDict_GetItemWithError(young, of->said) : NULL;
    of->admitted = Py_XNewRef(found);
    Py_DECREF(young);
    if (found == NULL) return PyErr_Occurred() ? -1 : 0;
    PyObject *then = PyObject_GetAttr(of->admitted, names[N_VERSION]);
    PyObject *now = then == NULL ? NULL : PyObject_GetAttr(self->part[KEYS], names[N_VERSION]);
    int same = now == NULL ? -1 : now == then;
    Py_XDECREF(then);
    Py_XDECREF(now);
    return same;
}

/* Set where a name is counted, if it may send now: `RateLimit.take`. */
static int find_turn(const rate_t *rate, PyObject *known, PyObject *name, double now, turn_t *turn) {
    PyObject *at = PyDict_GetItemWithError(known, name);
    if (at == NULL) return PyErr_Occurred() ? -1 : 0;
    Py_ssize_t slot;
    unsigned long long tag;
    if (!PyArg_ParseTuple(at, "nK", &slot, &tag)) return -1;
    if (slot < 0 || slot >= rate->levels.len / 8 || ((uint64_t *)rate->tags.buf)[slot] != tag) return 0;
    turn->level = (double *)rate->levels.buf + slot;
    double start = *turn->level > now ? *turn->level : now;
    turn->full_at = start + rate->interval;
    return start - now + rate->interval <= rate->room;
}

/* Count the request, if both rates allow it. */
static int take_turns(const Turnstile *self, const request_t *of) {
    PyObject *clock = PyObject_CallNoArgs(self->part[NOW]);
    if (clock == NULL) return -1;
    double now = PyFloat_AsDouble(clock);
    Py_DECREF(clock);
    if (now == -1.0 && PyErr_Occurred()) return -1;
    turn_t of_address, of_key;
    int may = find_turn(&self->of_address, self->part[ADDRESS_NAMES], of->address, now, &of_address);
    if (may != 1) return may;
    PyObject *key = PyObject_GetAttr(of->admitted, names[N_KEY]);
    PyObject *id = key == NULL ? NULL : PyObject_GetAttr(key, names[N_ID]);
    may = id == NULL ? -1 : find_turn(&self->of_key, self->part[KEY_NAMES], id, now, &of_key);
    Py_XDECREF(key);
    Py_XDECREF(id);
    if (may != 1) return may;
    if (of_address.level == of_key.level) return 0; /* one place for both: it would be counted once */
    *of_address.level = of_address.full_at;
    *of_key.level = of_key.full_at;
    return 1;
}

static int is_full(const Turnstile *self) {
    PyObject *full = PyObject_CallNoArgs(self->part[IS_FULL]);
    if (full == NULL) return -1;
    int is = PyObject_IsTrue(full);
    Py_DECREF(full);
    return is;
}

static int pass(const Turnstile *self, PyObject *scope, request_t *of) {
    int full = is_full(self);
    if (full != 0) return full < 0 ? -1 : 0;
    if ((of->headers = PyObject_GetAttr(scope, names[N_HEADERS])) == NULL) return -1;
    int may = is_plain(self, scope, of);
    if (may == 1) may = find_address(self, scope, of);
    if (may == 1) may = find_query(self, scope, of);
    if (may == 1) may = find_said(self, scope, of);
    if (may == 1) may = find_admitted(self, of);
    return may == 1 ? take_turns(self, of) : may;
}

PyDoc_STRVAR(admit_doc,
             "admit(scope, /)\n--\n\n"
             "Return (who sends, `t`) where `Door.admit` would, or None: ask it. Nothing was counted then.");

static PyObject *Turnstile_admit(Turnstile *self, PyObject *scope) {
    request_t of = {NULL};
    int may = pass(self, scope, &of);
    PyObject *answer = may < 0 ? NULL : may == 0 ? Py_NewRef(Py_None) : PyTuple_Pack(2, of.admitted, of.sent_at);
    Py_XDECREF(of.headers);
    Py_XDECREF(of.address);
    Py_XDECREF(of.query);
    Py_XDECREF(of.sent_at);
    Py_XDECREF(of.said);
    Py_XDECREF(of.admitted);
    return answer;
}

/* ---- the type ------------------------------------------------------------------------------------------------- */

static int Turnstile_traverse(Turnstile *self, visitproc visit, void *arg) {
    for (int i = 0; i < PARTS; i++) Py_VISIT(self->part[i]);
    return 0;
}

static int Turnstile_clear(Turnstile *self) {
    for (int i = 0; i < PARTS; i++) Py_CLEAR(self->part[i]);
    return 0;
}

static void Turnstile_dealloc(Turnstile *self) {
    PyObject_GC_UnTrack(self);
    Turnstile_clear(self);
    PyBuffer_Release(&self->of_address.tags);
    PyBuffer_Release(&self->of_address.levels);
    PyBuffer_Release(&self->of_key.tags);
    PyBuffer_Release(&self->of_key.levels);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *Turnstile_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(named)) {
    Turnstile *self = (Turnstile *)type->tp_alloc(type, 0); /* all zero */
    if (self == NULL) return NULL;
    PyObject *given[PARTS] = {NULL};
    rate_t *address = &self->of_address, *key = &self->of_key;
    int good = PyArg_ParseTuple(args, "OO!OOOOO(O!w*w*dd)(O!w*w*dd)nnp", &given[KNOWN], &PyTuple_Type, &given[SAID],
                                &given[KEYS], &given[IS_FULL], &given[NOW], &given[ADDRESS_OF], &given[APART_FROM_TIME],
                                &PyDict_Type, &given[ADDRESS_NAMES], &address->tags, &address->levels,
                                &address->interval, &address->room, &PyDict_Type, &given[KEY_NAMES], &key->tags,
                                &key->levels, &key->interval, &key->room, &self->small,
                                &self->longest_query, &self->is_direct);
    if (good)
        for (int i = 0; i < PARTS; i++) self->part[i] = Py_NewRef(given[i]);
    if (good && (address->tags.len != address->levels.len || key->tags.len != key->levels.len)) {
        PyErr_SetString(PyExc_ValueError, "a level and a tag for each slot");
        good = 0;
    }
    if (!good) Py_CLEAR(self);
    return (PyObject *)self;
}

static PyMethodDef Turnstile_methods[] = {
    {"admit", (PyCFunction)Turnstile_admit, METH_O, admit_doc},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject TurnstileType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "viewmeter.collector._compiled.Turnstile",
    .tp_basicsize = sizeof(Turnstile),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "Lets senders through that were admitted before; see request.py.",
    .tp_new = Turnstile_new,
    .tp_dealloc = (destructor)Turnstile_dealloc,
    .tp_traverse = (traverseproc)Turnstile_traverse,
    .tp_clear = (inquiry)Turnstile_clear,
    .tp_methods = Turnstile_methods,
};

int vm_add_turnstile(PyObject *module) {
    for (int i = 0; i < NAMES; i++)
        if (names[i] == NULL && (names[i] = PyUnicode_InternFromString(texts_of_names[i])) == NULL) return -1;
    if (PyType_Ready(&TurnstileType) < 0) return -1;
    return PyModule_AddObjectRef(module, "Turnstile", (PyObject *)&TurnstileType);
}
