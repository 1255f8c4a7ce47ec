/* The body of a beacon as plain events: what the compiled decoder understands of the native dialect.
 *
 * In: the bytes of a JSON array of event objects. Out: an array of `vm_event`, whose texts point into the body.
 * Promised: no byte outside of the body is read, nothing is allocated, and what is accepted means exactly what
 * dialects/native.py makes of it. Deliberately not done: whatever is not plain. An escape, an exponent, an error of any
 * kind: the answer is 0, "not mine", and the caller asks the Python decoder, which is the reference.
 *
 * No Python in here, so that it can be run alone under a sanitizer (tests/unit/collector/scan_alone.c).
 */
#ifndef VIEWMETER_SCAN_H
#define VIEWMETER_SCAN_H

#include <stddef.h>
#include <stdint.h>

/* The bounds of dialects/__init__.py and model/events.py. decoder.py compares them when it loads the module. */
#define VM_MAX_EVENTS 500
#define VM_MAX_ID_CHARS 255
#define VM_MAX_TEXT_CHARS 1024
#define VM_MAX_SEQ 10000000LL
#define VM_MAX_TS_MS 4102444800000LL
#define VM_MAX_MS 316224000000LL
#define VM_MAX_COUNT 10000000LL
#define VM_MAX_KBPS 100000000LL
#define VM_MAX_PLAYBACK_RATE 1000.0

/* Numbers that become whole. */
enum {
    VM_TS, VM_SEQ, VM_POSITION, VM_DURATION, VM_PLAYED, VM_REBUFFERED, VM_REBUFFERS, VM_STARTUP, VM_BITRATE,
    VM_WHOLES
};

/* Texts. Those before VM_HEADS are equal in all events of a run. */
enum {
    VM_VIEW, VM_VIEWER, VM_CHANNEL, VM_VIDEO, VM_PLAYER, VM_CDN, VM_STREAM, VM_HEADS,
    VM_ERROR_CODE = VM_HEADS, VM_ERROR_MESSAGE, VM_TEXTS
};

enum { VM_FATAL, VM_HALTED, VM_BLIND, VM_FLAGS };

/* `at` is NULL where the field is absent. Equal to the same text of the event before: the same `at`. */
typedef struct {
    const unsigned char *at;
    size_t size;
} vm_text;

typedef struct {
    int64_t whole[VM_WHOLES]; /* -1 = absent */
    double rate;              /* -1.0 = absent */
    vm_text text[VM_TEXTS];
    int8_t flag[VM_FLAGS]; /* -1 = absent, 0, 1 */
    uint8_t type;
} vm_event;

#define VM_TYPES 11
extern const vm_text vm_types[VM_TYPES]; /* in the order of EventType */

/* Fill `events`, which has room for VM_MAX_EVENTS. Returns how many there are, or 0: not mine.
 * `ignored` becomes the number of fields that are unknown. */
int vm_scan(const unsigned char *body, size_t size, vm_event *events, int *ignored);

#endif
