/*
 * pool: the slots of one set of workers and the requests that wait for one.
 * Owns:   slots and the queue (FIFO). One mutex, never held across a system call.
 * Never:  hands out more than it has slots; calls a waiter from another thread than its own; starts or talks to a worker.
 * Thread: any; each waiter and each granted slot belongs to one loop.
 *
 * A slot is ABSENT (own workers: no socket from the master yet; others': its socket is resting after a refused connect), FREE,
 * GRANTED (on its way to a thread, exactly one mail in flight) or BUSY. It is changed under the mutex only. While a slot is FREE
 * nobody waits. What is granted later always comes from the loop: no pool_ function calls a waiter from within.
 */
#ifndef FOREBAY_UPSTREAM_POOL_H
#define FOREBAY_UPSTREAM_POOL_H

#include <pthread.h>

#include "conf/conf.h"
#include "core/loop.h"

struct pool;
struct link;

enum slot_state { SLOT_ABSENT, SLOT_FREE, SLOT_GRANTED, SLOT_BUSY, SLOT_STATE_COUNT };

struct waiter;
enum waiter_state { WAITER_IDLE, WAITER_QUEUED, WAITER_GRANTED /* but not delivered */ };

struct slot {
	/* constant */
	struct pool *pool;
	unsigned index;                     /* in the pool */
	unsigned socket;                    /* others' workers: index of conf_pool.sockets */
	const struct conf_address *address; /* others' workers: where to connect; own: NULL */
	/* whoever has it BUSY may use these */
	struct link *link; /* kept connection, or NULL; own workers: the slot's socket */
	struct loop
	    *home;        /* the loop on which `link` is hooked; NULL without link. pool_release sets it to the releasing one */
	pid_t worker_pid; /* own workers; 0: unknown */
	/* the pool's */
	uint8_t state; /* enum slot_state */
	struct slot *next, *prev;
	struct waiter *waiter; /* GRANTED: to whom; NULL: that one has gone */
	struct loop *to;       /* GRANTED: whose thread it goes to; BUSY: whose it is */
	struct link *fresh;    /* own workers: attached while the old link was still in use; takes its place at the release */
	struct loop *fresh_home;
	pid_t fresh_pid;
	pid_t given_up_pid; /* 0: not given up */
	struct mail mail;
};

/* Lies in the struct of whoever waits. Zeroed, then loop, granted and ctx set. */
struct waiter {
	struct loop *loop;
	/* From w->loop's mailbox: the slot is BUSY and w's, its link (if any) hooked here. w is idle and may be freed. */
	void (*granted)(struct waiter *w, struct slot *slot);
	uint64_t since_us; /* when it asked first; set by pool_acquire if 0 */
	/* the pool's */
	uint8_t state; /* enum waiter_state */
	struct waiter *next, *prev;
	struct slot *slot;
};

/* How links are let go of and taken in when a slot changes threads; tests have their own. Called on the home thread. */
struct pool_links {
	void (*attached)(struct link *link, struct slot *slot); /* by pool_attach, on its thread; NULL: need not know */
	void (*unhook)(struct link *link);                      /* stop watching it here */
	void (*hook)(struct link *link, struct loop *loop);     /* watch it here (FREE, or BUSY at its new thread) */
	void (*close)(struct link *link); /* it is not wanted any more; on any thread if it was never hooked */
};

/*
 * `conf` is borrowed for the pool's life and says the number of slots. `index` is the pool's number. An app pool starts with
 * all slots ABSENT until pool_attach; others' with all FREE.
 */
MUST_USE int pool_new(
    const struct conf_pool *conf, const struct pool_links *links, const struct clock *clock, struct pool **ret);

/* Every slot must be FREE or ABSENT and the queue empty. Closes kept links. When no loop runs any more, before they are freed. */
void pool_free(struct pool **p);

enum pool_answer {
	POOL_GRANTED, /* *ret is BUSY and yours, on this thread */
	POOL_QUEUED,  /* w->granted will be called, or you cancel */
	POOL_FULL,    /* queue_limit */
};

/* On w->loop's thread. Prefers the slot used last whose link is at home here, then one without a link, then one that must move. */
MUST_USE enum pool_answer pool_acquire(struct pool *p, struct waiter *w, struct slot **ret);

/* The same for one that had its turn and lost its worker: it goes to the head of the queue, queue_limit does not apply. */
MUST_USE enum pool_answer pool_acquire_again(struct pool *p, struct waiter *w, struct slot **ret);

/* Any thread, at the price of a load; may be over by then. Somebody is in the queue: a slot that is released now is granted at once. */
bool pool_is_waited_for(const struct pool *p);

/* On w->loop's thread: `granted` will not be called any more; a slot on its way is released by who receives it. Idle: nothing. */
void pool_cancel(struct pool *p, struct waiter *w);

/*
 * On the thread that has it BUSY. slot->link says what is kept, hooked on this thread. Grants it to the head of the queue, if
 * any. An own worker's slot without a link is as good as lost.
 */
void pool_release(struct slot *slot);

/*
 * Others' workers: a connect to the slot's socket was refused (ECONNREFUSED, ENOENT, ...). Gives the slot back and rests all
 * slots of that socket for a backoff (50 ms, doubling to 1 s, up to a quarter more by jitter), after which one slot tries.
 * Meanwhile what is released for that socket becomes ABSENT, also with a kept link. slot->link must be NULL. Call on the slot's
 * thread; its wheel carries the timer. Grants nothing.
 */
#define POOL_BACKOFF_MIN_MS 50
#define POOL_BACKOFF_MAX_MS 1000
/* True: it was up until now. */
bool pool_socket_down(struct slot *slot, struct loop *loop);

/* After every connect that was taken; costs one load while the socket is up. The slot stays BUSY; the others come back. */
/* True: it was down until now. */
bool pool_socket_up(struct slot *slot);

/*
 * Own workers, any thread: slot `index` has a new socket, wrapped as link (taken, not hooked yet), to be watched at `home`.
 * Replaces what was there: at once if idle, at its release if in use.
 */
void pool_attach(struct pool *p, unsigned index, struct link *link, struct loop *home, pid_t worker_pid);

/* On the thread that has it BUSY: its worker is lost; ABSENT until attached anew. slot->link must have been closed and NULL. */
void pool_release_lost(struct slot *slot);

/*
 * The same, and the worker was not lost but given up (`timeout`, or it broke the protocol): whoever looks after workers hears of it by
 * pool_next_given_up.
 */
void pool_release_given_up(struct slot *slot);

/* Any thread: this process, which has or had the slot, is given up. A pid of 0 is nobody. */
void pool_give_up(struct slot *slot, pid_t worker_pid);

/* Any thread: a slot whose worker was given up since the last call, once for each, and which process that was. False: none. */
bool pool_next_given_up(struct pool *p, unsigned *ret_index, pid_t *ret_pid);

/*
 * On the home thread, by the link's watcher: an idle slot's link ended. True: the link is out of the pool, yours to close, and an
 * own worker's slot is ABSENT. False: the slot has just been granted or is in use; leave it alone, whoever gets it will see.
 */
MUST_USE bool pool_link_ended(struct slot *slot);

/* Others' workers: a head was still unread after 100 ms, though its slot was free: `slots` says more than there are workers. */
#define POOL_OVERSTATED_MS 100
/* Counts it. True: nobody was told for a minute. */
bool pool_overstated(struct pool *p);

/* Streams hold a slot for long; each pool caps them. False: at the cap. */
MUST_USE bool pool_stream_enter(struct pool *p);
void pool_stream_leave(struct pool *p);

const struct conf_pool *pool_conf(const struct pool *p);

/* Since the last call: the longest that a request waited or waits (own workers only), and the most requests in work or waiting at once. */
struct pool_load {
	uint64_t delay_us;
	unsigned requests;
};
void pool_load(struct pool *p, struct pool_load *ret);

struct pool_figures {
	unsigned slots, absent, free, granted, busy, queued, queue_peak, streams, sockets_down;
	uint64_t grants, moves, refused_full, slots_overstated;
	uint64_t oldest_wait_us; /* of the queue's head; 0: empty */
};
void pool_figures(struct pool *p, struct pool_figures *ret);

#endif
