/*
 * worker_child: one place of a pool for a worker process, and the process in it as the master sees it.
 * Owns:   the control socket, the output pipe, the wishes for slot sockets; the process, as far as ending it goes.
 * Never:  decides that a process is started, or when another one follows: the supervisor does. Believes what a worker says.
 * Thread: the master's.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_CHILD_H
#define FOREBAY_UPSTREAM_WORKER_CHILD_H

#include <event2/event.h>
#include <sys/types.h>

#include "conf/conf.h"
#include "core/clock.h"
#include "upstream/launch.h"
#include "upstream/output.h"
#include "upstream/worker/control.h"

#define CHILD_NEVER   UINT64_MAX
#define CHILD_WHY_MAX 160

enum worker_state {
	WORKER_DOWN,     /* no process */
	WORKER_CALLED,   /* a zygote was asked for one, which has not said yet that it is there */
	WORKER_STARTING, /* it has not asked for a slot socket yet */
	WORKER_UP,
	WORKER_ENDING, /* it was told to end, or said that it does; killed when that is due */
	WORKER_STATE_COUNT,
};

struct worker_child;

/* None may free a place. */
struct worker_child_events {
	/* Takes *front_fd. */
	void (*slot_ready)(void *ctx, struct worker_child *w, unsigned slot, int *front_fd);
	/* CALLED: the kernel says that `pid` speaks. False: that cannot be. */
	bool (*announced)(void *ctx, struct worker_child *w, pid_t pid);
	/* CALLED: the zygote has not brought it in time; it is about to be lost. */
	void (*late)(void *ctx, struct worker_child *w);
	void (*fit)(void *ctx, struct worker_child *w); /* its first wish for a slot: it is UP */
	void (*lost)(
	    void *ctx, struct worker_child *w); /* CALLED: it has ended before it was there: it is DOWN; w->why says more */
	void (*stirred)(void *ctx);             /* something else is due now, and when */
};

/* What the places of a pool share; outlives them. */
struct worker_house {
	struct event_base *base;
	const struct conf_pool *conf;
	const struct clock *clock;
	uint64_t end_timeout_ms;                    /* for one that has no request any more, or is not waited for */
	bool debug;                                 /* somebody develops: what they write is shown as it is */
	bool front_there;                           /* slot sockets are of use */
	int (*kill)(void *ctx, pid_t pid, int sig); /* NULL: kill(2) */
	const struct worker_child_events *events;
	void *ctx;
};

struct worker_seat {
	bool wanted;     /* it waits for a slot socket */
	bool given;      /* it has got one since its process started */
	bool given_up;   /* the front does not wait for what it does */
	uint64_t due_us; /* the next one, not before */
};

struct worker_child {
	struct worker_house *house;
	unsigned place;
	/* for reading */
	enum worker_state state;
	pid_t pid; /* 0: none, or not known yet */
	unsigned generation;
	uint64_t born_us;
	uint64_t ends_us;        /* ENDING: since when */
	uint64_t pss;            /* bytes, as it said last; 0: it did not */
	char why[CHILD_WHY_MAX]; /* it will be or was lost; "": not known */
	/* the supervisor's */
	bool held;     /* it gets no slots until worker_child_release */
	bool replaced; /* it ends because it was told to, or has done its share */
	/* its own */
	uint64_t due_us; /* CALLED, STARTING, ENDING: the kill */
	int control;     /* -1: none */
	struct event *control_event;
	struct output *output;
	struct worker_seat *seats;
	unsigned wanted; /* seats */
};

MUST_USE int worker_child_init(struct worker_child *w, struct worker_house *house, unsigned place);
/* Kills what still lives. */
void worker_child_done(struct worker_child *w);

/* DOWN: takes our ends of `p`, before the process is made that is to have the others. 0 or -errno. */
MUST_USE int worker_child_prepare(struct worker_child *w, struct launch_pipes *p);
/* It was made: pid 0, by a zygote. */
void worker_child_begin(struct worker_child *w, pid_t pid, unsigned generation);
/* It could not be made. */
void worker_child_abandon(struct worker_child *w);

/* After waitpid: logs its last words; it is DOWN. */
void worker_child_reaped(struct worker_child *w);

/* CALLED, STARTING, UP: it gets slots from now on. */
void worker_child_release(struct worker_child *w);

/*
 * It ends when what it has begun is done. No request may take longer than the pool's timeout, and a stream that is passed through not longer than that
 * from now on: end_timeout_ms later it is killed.
 */
void worker_child_end(struct worker_child *w);
/* The same, also to one that ends already: there is no request any more that anybody waits for, so end_timeout_ms is all that it gets. */
void worker_child_end_soon(struct worker_child *w);
/* As worker_child_end, also to one that ends already, and without waiting for `seat`; first it is asked to log what its threads are at. */
void worker_child_end_without(struct worker_child *w, unsigned seat);
void worker_child_kill(struct worker_child *w);
/* CALLED: nobody comes, and why. */
void worker_child_not_born(struct worker_child *w, const char *why);

/* The wishes of a front that is gone do not wait for their pause. */
void worker_child_fresh_front(struct worker_child *w);

/* Takes what it has said by now. */
void worker_child_look(struct worker_child *w);

/* When the next thing is due, and does it. */
uint64_t worker_child_due(const struct worker_child *w);
void worker_child_tick(struct worker_child *w);

#endif
