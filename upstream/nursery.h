/*
 * nursery: the master's side of a zygote: the process that has loaded an application and forks workers.
 * Owns:   the process, its control socket and output.
 * Never:  starts another one when it has ended: the code may have changed since. Believes what it says.
 * Thread: the master's.
 */
#ifndef FOREBAY_UPSTREAM_NURSERY_H
#define FOREBAY_UPSTREAM_NURSERY_H

#include "upstream/worker_child.h"

enum nursery_state {
	NURSERY_LOADING, /* the application */
	NURSERY_OPEN,    /* it forks */
	NURSERY_KILLED,  /* it is as good as dead */
	NURSERY_GONE,    /* it is dead */
	NURSERY_STATE_COUNT,
};

struct nursery;

/* None may free a nursery. */
struct nursery_events {
	void (*open)(void *ctx, struct nursery *n);
	/* A fork would lose what `text` names (escaped for the log). It is KILLED. */
	void (*unforkable)(void *ctx, struct nursery *n, const char *text);
	/* The worker for `place` could not be forked. */
	void (*no_fork)(void *ctx, struct nursery *n, unsigned place, int err);
};

struct nursery {
	/* for reading */
	enum nursery_state state;
	pid_t pid;
	char why[CHILD_WHY_MAX]; /* it was killed; "": it was not, or just so */
	uint64_t born_us;
	struct nursery *next; /* the supervisor's */
	/* its own */
	struct worker_house *house;
	const struct nursery_events *events;
	uint64_t due_us;
	int control;
	struct event *control_event;
	struct output *output;
};

/* Starts a zygote. `events` get house->ctx. 0 with *ret set, or -errno. */
MUST_USE int nursery_new(
    struct worker_house *house, const struct launch *launch, const struct nursery_events *events, struct nursery **ret);

/* Kills what still lives, and forgets it. */
void nursery_free(struct nursery **n);

/* OPEN: asks for a worker for `place`, with the other ends of `p`. 0, or -errno: it does not take it. */
MUST_USE int nursery_spawn(struct nursery *n, unsigned place, const struct launch_pipes *p);

void nursery_kill(struct nursery *n, const char *why);

/* After waitpid: logs its last words; it is GONE. */
void nursery_reaped(struct nursery *n);

uint64_t nursery_due(const struct nursery *n);
void nursery_tick(struct nursery *n);

#endif
