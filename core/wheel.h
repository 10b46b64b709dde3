/*
 * wheel: very many coarse timers (100 ms), each a few instructions to set and to clear.
 * Owns:   nothing but the lists; a timer lies in the struct of whoever waits.
 * Thread: its loop's.
 */
#ifndef FOREBAY_CORE_WHEEL_H
#define FOREBAY_CORE_WHEEL_H

#include <limits.h>

#include "core/base.h"

#define WHEEL_TICK_MS 100
#define WHEEL_SLOTS   512

struct timer {
	struct timer *next, **prev; /* prev NULL: not set */
	uint64_t due_ms;            /* monotonic */
	void (*fire)(struct timer *t);
};

struct wheel {
	struct timer *slots[WHEEL_SLOTS];
	struct timer *due; /* by `tick`, and not fired yet */
	uint64_t tick;     /* the last one handled */
	size_t count;      /* timers set */
};

void wheel_init(struct wheel *w, uint64_t now_ms);

/* Sets or moves a timer. It fires at the first tick at or after due_ms, never before. t->fire must be set already. */
void wheel_set(struct wheel *w, struct timer *t, uint64_t due_ms);

/* Does nothing to a timer that is not set. */
void wheel_clear(struct wheel *w, struct timer *t);

static inline bool timer_is_set(const struct timer *t)
{
	return t->prev != NULL;
}

/*
 * Fires what is due, but no more timers than that (UINT_MAX: all), in any order; what an earlier call has left comes first. True: there is
 * more; call again. A timer is clear when its `fire` is called, which may set it again, set and clear others, and free its own and any other timer's struct (after
 * clearing that). However far now_ms has jumped, it is at most one turn of the wheel that is looked at.
 */
bool wheel_advance(struct wheel *w, uint64_t now_ms, unsigned at_most);

#endif
