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

#include "upstream/worker/args.h"
#include "upstream/worker/control.h"

#define RUNTIME_THREADS_MAX ARGS_THREADS_MAX

/* A seat's line of the started page. */
struct started_line {
	_Alignas(STARTED_LINE_BYTES) _Atomic uint64_t serial;
};
static_assert(sizeof(struct started_line) == STARTED_LINE_BYTES, "one cache line a slot");

struct runtime_plan {
	const struct worker_app *app;
	void *app_ctx;                /* it is loaded */
	unsigned threads;             /* 1 to RUNTIME_THREADS_MAX */
	int control;                  /* blocking; borrowed */
	struct started_line *started; /* of seat 0; borrowed */
	uint64_t max_requests;        /* 0: any number; else ends after that many and up to a tenth more */
	uint64_t max_memory;          /* bytes; 0: any */
	/* Between two looks at its memory, while there is something to do; and to reports. 0: RUNTIME_LOOK_MS, RUNTIME_REPORT_MS. */
	unsigned look_ms, report_ms;
};

#define RUNTIME_LOOK_MS   1000
#define RUNTIME_REPORT_MS 5000

/*
 * Serves until the master says END, max_requests is reached or max_memory exceeded, and all that was begun is done; then unloads the application:
 * 0. -ECONNRESET: the master has gone; threads may still be in the application, so the caller leaves by _exit. -ETIME: all is done but what the
 * front has given up on; the same. Other -errno: it could not start; the same.
 */
MUST_USE int runtime_run(const struct runtime_plan *plan);

#endif
