/*
 * slots: the inside of a pool, for pool.c and pool_socket.c only: where a slot stands and how it gets to a thread.
 * Owns:   nothing; pool.c does.
 * Never:  posts while the mutex is held: what is granted is put into an outbox, which is posted afterwards.
 * Thread: any; "under the mutex" where it says so.
 */
#ifndef FOREBAY_UPSTREAM_SLOTS_H
#define FOREBAY_UPSTREAM_SLOTS_H

#include "upstream/queue.h"

/*
 * A socket of others' workers. RESTING: a connect was refused, the backoff runs, none of its slots is out but those in use.
 * PROBING: the backoff is over, one slot (the probe) may try.
 */
enum socket_state { SOCKET_UP, SOCKET_RESTING, SOCKET_PROBING };

struct socket {
	struct pool *pool;
	atomic_uchar state; /* enum socket_state; written under the mutex */
	unsigned backoff_ms;
	uint64_t until_ms;  /* RESTING: the backoff's end */
	struct slot *probe; /* PROBING: the one that may try */
	struct loop *loop;  /* whose wheel has `timer`; NULL: not set */
	struct timer timer; /* touched by `loop`'s thread only; may outlast the rest, see socket_timer */
};

/* Doubly linked, newest first. */
struct slot_list {
	struct slot *first, *last;
};

struct pool {
	/* constant */
	const struct conf_pool *conf;
	const struct pool_links *links;
	const struct clock *clock;
	struct slot *slots;
	unsigned slot_count;
	struct socket *sockets;
	unsigned socket_count;
	unsigned streams_max;
	/* under the mutex */
	pthread_mutex_t mutex;
	struct slot_list linked, bare; /* the FREE slots, with and without a link */
	struct queue queue;
	unsigned streams, given_up;
	unsigned in_state[SLOT_STATE_COUNT];
	uint64_t grants, moves, refused_full, slots_overstated;
	uint64_t delay_peak_us; /* since the last pool_load */
	unsigned load_peak;
	uint64_t overstated_told_us;
	uint32_t random; /* for the jitter */
};

/* Of forebay's own workers. */
static inline bool pool_is_own(const struct pool *p)
{
	return p->conf->app != APP_NONE;
}

/* GRANTED slots that are still to be posted, once the mutex is free. They are in no other list. All zero to begin. */
struct outbox {
	struct slot *first, *last;
};

/* Without the mutex. `here`: this thread's loop, NULL if not known. */
void outbox_post(struct outbox *out, const struct loop *here);

/* All below under the mutex. */

/* The only writer of slot->state. */
void slot_enter(struct slot *s, enum slot_state next);

/* The lists of FREE slots. A slot's link must not change while it is in one. */
void slot_free_append(struct slot *s);
void slot_free_remove(struct slot *s);

/* The one used last whose link is at home here, then one without a link, then one that must move; NULL: none. Stays listed. */
struct slot *slot_pick(struct pool *p, const struct loop *loop);

/* To a waiter that is in no list; the slot neither. */
void slot_grant(struct slot *s, struct waiter *w, struct outbox *out);

/* To `loop`'s thread, which releases it (and hooks its link, if that is still to be done). */
void slot_send_idle(struct slot *s, struct loop *loop, struct outbox *out);

/* A slot that nobody uses any more, or that has come back, goes where it belongs: ABSENT, to the queue's head, or FREE. */
void slot_place(struct slot *s, struct outbox *out);

/* slot->mail's; from the loop, without the mutex. */
void slot_deliver(struct mail *m);

/* pool_socket.c: for pool.c. */
void pool_sockets_init(struct pool *p);
unsigned pool_sockets_down(const struct pool *p);

#endif
