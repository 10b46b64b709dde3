/*
 * loop: what one event-loop thread stands on: libevent's base, the clock, timers, mailbox, its lease on the memory.
 * Owns:   all of these. Borrows budget, spool and clock, which outlive it.
 * Thread: its own, but for loop->mailbox. The base is made EVENT_BASE_FLAG_NOLOCK | NO_CACHE_TIME: nobody else touches it.
 */
#ifndef FOREBAY_CORE_LOOP_H
#define FOREBAY_CORE_LOOP_H

#include <event2/event.h>

#include "core/budget.h"
#include "core/clock.h"
#include "core/mailbox.h"
#include "core/pieces.h"
#include "core/wheel.h"

struct spool;

/* Lies in the struct of whoever waits. Zeroed, then `looked` set. */
struct loop_look {
	struct loop_look *next, *prev; /* the loop's; NULL: it does not wait */
	void (*looked)(struct loop_look *k);
};

#define LOOP_SCRATCH_BYTES (256u << 10)

struct loop {
	struct event_base *base;
	const struct clock *clock;
	struct wheel wheel;
	struct loop_look more_timers; /* are due */
	struct event tick;            /* every WHEEL_TICK_MS, always: the watchdog looks at `ticks` */
	uint64_t tick_ms;             /* the last one came */
	struct event turn_end;        /* active behind all others, once somebody has asked for `turn` */
	uint64_t turn;                /* see loop_has_asked */
	uint64_t callbacks;           /* since the last step of `turn` */
	bool in_turn;
	struct event look;      /* at once, behind what the kernel has to tell by then */
	struct loop_look looks; /* a ring of those that wait for it */
	bool runs;              /* inside loop_run */
	bool clock_stale;       /* a callback has begun since it was read */
	uint64_t mono_us;       /* as read last */
	int64_t wall_us;        /* the same, */
	uint64_t wall_of_us;    /* when mono_us was this */
	struct mailbox mailbox;
	struct lease lease;
	struct spool *spool; /* NULL: bodies stay in memory (tests) */
	size_t awaited;      /* mails that others are bound to post (spool jobs): loop_free waits for them */
	unsigned index;      /* of the thread, from 0 */
	char *scratch;       /* LOOP_SCRATCH_BYTES for whoever runs just now; nothing in it survives the return to the loop */
	_Atomic uint64_t ticks;    /* grows every tick: the watchdog's sign of life */
	struct pieces pieces;      /* for what each request takes */
	struct loop_block *blocks; /* at hand */
	unsigned block_count;
	unsigned blocks_least; /* at hand since `blocks_ms` */
	unsigned blocks_max;   /* to be kept */
	uint64_t blocks_ms;
	unsigned blocks_out; /* taken and not given back */
	atomic_uint stalls;  /* ticks that came more than half a second late: each was logged */
};

MUST_USE int loop_new(unsigned index, const struct clock *clock, struct budget *budget, struct spool *spool, struct loop **ret);
/* Without a thread that runs it: delivers what is in the mailbox and what is `awaited`, however long that takes. Returns how much. */
size_t loop_settle(struct loop *l);

/* After loop_settle, which it does first. Nothing may be charged to the lease after that. */
void loop_free(struct loop **l);

/*
 * A block of LOOP_BLOCK_BYTES that has pages of its own, so that a storm's memory goes back to the system; some are kept at hand. NULL
 * without memory. Not charged: its user does that.
 */
#define LOOP_BLOCK_BYTES (64u << 10)
void *loop_block_take(struct loop *l);
void loop_block_give(struct loop *l, void *block);

/* Runs until loop_stop. */
void loop_run(struct loop *l);

/* On the loop's thread: loop_run returns after the running callback. */
void loop_stop(struct loop *l);

/*
 * The time, read once in each callback that begins with loop_callback (and after each wake and tick); outside of loop_run, at
 * each call.
 */
uint64_t loop_read_clock(struct loop *l);
/* Since 1970, as the clock said it up to a tenth of a second ago and as time has passed since. */
int64_t loop_wall_us(struct loop *l);

/* What each callback of a client's, a link's or a listener's event calls first: one that does not sees an older time. */
static inline void loop_callback(struct loop *l)
{
	l->clock_stale = true;
	l->callbacks++;
}
/* Monotonic. */
static inline uint64_t loop_now_us(struct loop *l)
{
	return l->clock_stale ? loop_read_clock(l) : l->mono_us;
}
static inline uint64_t loop_now_ms(struct loop *l)
{
	return loop_now_us(l) / 1000;
}

/* Where the loop stands, for loop_has_asked. */
uint64_t loop_turn(struct loop *l);

/*
 * Since then (a loop_turn) the kernel was asked for events, and whatever was one at that time has had its callback or is active. May
 * be false when it was; always outside of loop_run.
 */
static inline bool loop_has_asked(const struct loop *l, uint64_t since)
{
	return l->runs && l->turn - since >= 2;
}

/*
 * Calls k->looked once the kernel was asked for events again and these have had their callbacks, without waiting for any: for work that is
 * cheaper when more of it has come together. At most one wait at a time. False: without memory; nothing will be called.
 */
MUST_USE bool loop_look(struct loop *l, struct loop_look *k);
/* In any state. */
void loop_look_cancel(struct loop_look *k);

/*
 * Sets `t` to fire after_ms from now (loop_now_us), at the next tick, never before. Of many that are due at once some fire, then what the
 * kernel has to tell has its callbacks, then some more.
 */
void loop_timer_set(struct loop *l, struct timer *t, uint64_t after_ms);
void loop_timer_clear(struct loop *l, struct timer *t);

#endif
