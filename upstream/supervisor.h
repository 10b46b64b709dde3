/*
 * supervisor: the master's side of one pool of forebay's own workers: starts them, hands them slot sockets, replaces the lost, and all of them
 * when there is something new.
 * Owns:   the worker processes and zygotes, their control sockets and output pipes, the pool's started page.
 * Never:  touches a byte of a request; keeps a front's end of a slot socket (with one kept, a client could get another's answer).
 * Thread: the master's only one.
 *
 * A worker process has conf->threads slots, numbered from its place * threads on. A thread of it that has no slot socket says so; the supervisor
 * makes a socketpair, gives one end to the worker and the other to the front by slot_ready. When a front dies each worker thread sees EOF as
 * soon as it is not in the application any more, and asks for a fresh socket: so a slot that is still busy for a dead front is not
 * handed to the next one before it is free.
 */
#ifndef FOREBAY_UPSTREAM_SUPERVISOR_H
#define FOREBAY_UPSTREAM_SUPERVISOR_H

#include <event2/event.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "conf/conf.h"
#include "core/clock.h"
#include "upstream/worker/control.h"

struct supervisor;
struct spawn_plan;

struct supervisor_events {
	/*
	 * Slot `slot` of the pool has a worker that waits on the other end of *front_fd (non-blocking, close-on-exec). Takes *front_fd: passes
	 * it to the front and closes it. Where that fails closing is enough: the worker asks again.
	 */
	void (*slot_ready)(void *ctx, size_t pool_index, unsigned slot, int *front_fd, pid_t pid);
	/* All that follow may be NULL. The worker process behind the slot has ended (the front sees EOF as well). */
	void (*slot_gone)(void *ctx, size_t pool_index, unsigned slot, pid_t pid);
	/* Nothing has been fit to serve since the start, and now something has failed; once. It is tried again. */
	void (*start_failed)(void *ctx, size_t pool_index);
	/* True if this process is somebody's already: another pool's worker, the front. */
	bool (*is_taken)(void *ctx, pid_t pid);
	/* Bytes of memory that are free; UINT64_MAX: not known. */
	uint64_t (*memory_room)(void *ctx);
};

/* What the front says of a pool since it said so last. */
struct supervisor_load {
	uint64_t delay_us; /* the longest that a request has waited, or waits now */
	unsigned busy;     /* the most requests at once, in work or waiting */
};

struct supervisor_options {
	const struct clock *clock; /* borrowed for the supervisor's life */
	const char *default_user;  /* for a pool without `user` under a root master; NULL: such a pool is refused with -EPERM */
	uint64_t end_timeout_ms;   /* from when a worker should have ended to killing it; 0: 30 s */
	bool debug;                /* for the applications: somebody develops */
	struct rlimit descriptors; /* RLIMIT_NOFILE as the daemon was started with it; rlim_cur is 0: the processes have ours */
	/* For tests; NULL: spawn_child(), kill(2) and waitid(2). */
	int (*spawn)(void *ctx, const struct spawn_plan *plan, pid_t *ret);
	int (*kill)(void *ctx, pid_t pid, int sig);
	bool (*is_child)(void *ctx, pid_t pid);
};

/*
 * Borrows base, conf, events and ctx for its life. Makes the started page, starts nothing. Returns 0 with *ret set, or -errno, said in the
 * log: -EPERM (root without a user), -ENOENT (unknown user, no directory), -ENOTSUP (an app that is not built in).
 */
MUST_USE int supervisor_new(struct event_base *base, const struct conf_pool *conf, const struct supervisor_options *options,
    const struct supervisor_events *events, void *ctx, struct supervisor **ret);

/* Kills what still lives (SIGKILL) and forgets it: call it when supervisor_alive() is 0, or at the very end. Sets *s to NULL. */
void supervisor_free(struct supervisor **s);

/* Starts all worker processes, or what they are to be forked from. No slot_ready comes before supervisor_fresh_slots. */
void supervisor_start(struct supervisor *s);

/* There is no front just now: slot sockets are not made until the next supervisor_fresh_slots. */
void supervisor_front_lost(struct supervisor *s);

/*
 * A new front is there and takes slots: slot_ready is called for every slot whose thread has no socket, at once (from within) and later.
 * The master must have let go of all ends that the last front held.
 */
void supervisor_fresh_slots(struct supervisor *s);

/* A read-only descriptor of the started page, for a front; yours to close. Its line for slot n begins at n * STARTED_LINE_BYTES. Or -errno. */
MUST_USE int supervisor_started_fd(const struct supervisor *s);

/* Bytes of the started page: what the front maps (PROT_READ, MAP_SHARED). */
size_t supervisor_started_bytes(const struct supervisor *s);

/* True if this process is one of these. */
bool supervisor_knows(const struct supervisor *s, pid_t pid);

/* The same before waitpid: a worker that a zygote has forked can end before anybody has read that it is there, so what they say is read first. */
bool supervisor_look_for(struct supervisor *s, pid_t pid);

/* After waitpid: true if the process was one of these. Says in the log how it ended; starts its successor now or after a backoff. */
bool supervisor_reaped(struct supervisor *s, pid_t pid, int status);

/*
 * The front has given up on a request in this slot (`timeout`, or nonsense): the worker process, if it is still `pid` (0: whoever it is), is asked
 * to log what its threads are at, and ends when its other requests are done (those that were not given up; at once if there are none), at the
 * latest end_timeout_ms after they have had the pool's timeout, by SIGKILL. It is replaced without backoff.
 */
void supervisor_replace(struct supervisor *s, unsigned slot, pid_t pid);

/*
 * Rolling restart: the application is loaded anew, its first worker must be fit, then the others are relieved one by one. What fails leaves those
 * that are there serving. Asked for once more meanwhile, it is done once more.
 */
void supervisor_restart(struct supervisor *s, const char *why);

/* Starts one worker more, or ends one, within processes_min and processes. */
void supervisor_scale(struct supervisor *s, const struct supervisor_load *load);

/* There is no front any more, and no worker is started. force: SIGKILL now. Else each ends by itself, or after end_timeout_ms by SIGKILL. */
void supervisor_stop(struct supervisor *s, bool force);

/* Worker processes and zygotes that were started and not yet reaped. */
unsigned supervisor_alive(const struct supervisor *s);

/* Slots that may have a worker: twice processes * threads, since those that are relieved and those that follow stand side by side. */
unsigned supervisor_slots(const struct supervisor *s);

const struct conf_pool *supervisor_conf(const struct supervisor *s);

/* Does what is due (respawns, kills, postponed slots). The supervisor's own timer calls it; tests call it after moving the clock. */
void supervisor_tick(struct supervisor *s);

#endif
