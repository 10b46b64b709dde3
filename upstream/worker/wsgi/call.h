/*
 * call: one serving thread: its Python thread state, the request that it is at, and the objects that it gives to the application.
 * Owns:   the thread state; the objects, which serve the next request too unless the application kept them.
 * Thread: the serving one, but for what is said to be any thread's. A call is never freed: an application's thread may ask about it late.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_CALL_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_CALL_H

#include "upstream/worker/wsgi/python.h"

#include <pthread.h>
#include <stdatomic.h>

#include "upstream/worker/worker.h"

#define CALL_ID_BYTES 136

struct start;
struct input;
struct gone;

struct answer {
	bool called;     /* start_response was called, well or not */
	bool started;    /* status and fields were given */
	bool opened;     /* content has been given: status and fields stand */
	bool has_length; /* Content-Length was said: `left` counts */
	bool no_content; /* HEAD, 204, 304 */
	bool over;       /* nobody listens, or there was too much: what comes is dropped */
	bool too_much;   /* for the Content-Length */
	unsigned status;
	uint64_t left;
	bool is_stream;    /* each block leaves at once */
	uint64_t given_us; /* when content last left; 0: there was none */
	size_t waiting;    /* bytes of content that have not left; under the lock */
};

struct call {
	struct worker_request *r; /* NULL between requests */
	PyThreadState *python;
	bool of_main;         /* python is the main thread's own state */
	pthread_mutex_t lock; /* of r, for whoever does not hold the GIL all the time */
	struct start *start;
	struct input *input;
	struct gone *gone;
	bool is_head; /* the method */
	struct answer answer;
	_Atomic uint64_t waits_since_us; /* what waits, while nobody but the flusher sends it; 0: nothing */
	struct call *next_known;         /* the flusher's */
	char id[CALL_ID_BYTES];          /* of the request; "": none */
};

/* The main thread's, once Python runs. 0 or -ENOMEM. */
MUST_USE int call_adopt_main(void);

/* This thread's, made at its first use. NULL without memory. Without the GIL. */
struct call *call_enter_thread(void);

/* The thread is about to end. Without the GIL. */
void call_leave_thread(void);

/* The one of this thread that has a request, or NULL. Any thread. */
struct call *call_here(void);

/* The GIL is taken and `r` is being answered from here to call_end. */
void call_begin(struct call *c, struct worker_request *r);
void call_end(struct call *c);

/* The lock; the GIL, which is held, is let go of while it has to be waited for. */
void call_lock(struct call *c);
void call_unlock(struct call *c);

#endif
