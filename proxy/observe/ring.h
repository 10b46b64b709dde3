/*
 * ring: records on their way from the one thread that writes them to the one that takes them, in order, without a lock.
 * Owns:   a fixed piece of memory.
 * Never:  waits: a record that does not fit is dropped and counted.
 * Thread: ring_put the writer's; ring_front and ring_take the taker's; ring_is_empty and ring_dropped any.
 */
#ifndef FOREBAY_PROXY_RING_H
#define FOREBAY_PROXY_RING_H

#include <stdatomic.h>

#include "core/slice.h"

/* What stands before each text. Its size is the ring's unit, so that it never wraps. */
struct ring_record {
	uint32_t len; /* bytes of text */
	uint32_t epoch;
	uint32_t level;
	uint32_t unused;
};

struct ring {
	char *data;
	size_t size;
	_Alignas(64) atomic_size_t head; /* bytes ever put: the writer's */
	atomic_uint_fast64_t dropped;
	_Alignas(64) atomic_size_t tail; /* bytes ever taken: the taker's */
};

/* `size` is a power of two, at least two records. 0 or -ENOMEM. */
MUST_USE int ring_init(struct ring *r, size_t size);
void ring_done(struct ring *r);

/* False: it did not fit, and was counted. */
bool ring_put(struct ring *r, uint32_t epoch, uint32_t level, struct slice text);

/* The next record, without its text; false: there is none. */
bool ring_front(const struct ring *r, struct ring_record *ret);

/* Copies the text of what ring_front said to `out` and makes its place free. */
void ring_take(struct ring *r, const struct ring_record *front, char *out);

bool ring_is_empty(const struct ring *r);
uint64_t ring_dropped(const struct ring *r);

#endif
