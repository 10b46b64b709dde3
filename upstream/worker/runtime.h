/*
 * runtime: a worker process: one thread for each of its slots, each blocking on one request at a time, and the main thread, which
 * waits for what the master says.
 * Owns:   the threads, the slot sockets they serve.
 * Never:  outlives its master: the end of the control socket is the end of the process.
 * Thread: runtime_run is the main one's.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_RUNTIME_H
#define FOREBAY_UPSTREAM_WORKER_RUNTIME_H

#include <stdatomic.h>

#include "upstream/worker/control.h"
#include "upstream/worker/worker.h"

#define RUNTIME_THREADS_MAX 1024

/* A seat's line of the started page. */
struct started_line {
	_Alignas(STARTED_LINE_BYTES) _Atomic uint64_t serial;
};
static_assert(sizeof(struct started_line) == STARTED_LINE_BYTES, "one cache line a slot");

struct runtime_plan {
	const struct worker_app *app;
	const char *target;           /* for app->load */
	unsigned threads;             /* 1 to RUNTIME_THREADS_MAX */
	int control;                  /* blocking; borrowed */
	struct started_line *started; /* of seat 0; borrowed */
	uint64_t max_requests;        /* 0: any number; else ends after that many and up to a tenth more */
};

/*
 * Loads the application and serves until the master says END, or max_requests is reached, and all that was begun is done: 0. -ECONNRESET: the
 * master has gone; threads may still be in the application, so the caller leaves by _exit. -ETIME: all is done but what the front has given up
 * on; the same. Other -errno: it could not start; the same.
 */
MUST_USE int runtime_run(const struct runtime_plan *plan);

/* main() of a worker: argv is what supervisor.c wrote, and names one of the apps (the list ends in NULL). Returns the exit status. */
int worker_main(int argc, char **argv, const struct worker_app *const *apps);

#endif
