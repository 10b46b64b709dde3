/*
 * worker: what an application of forebay's own workers sees: one whole request, and the functions that answer it.
 * This is all that an application written in C, or the embedding of another language, needs to know.
 *
 * An application is called on as many threads at once as the pool has `threads`; each call has its own request. It may block as long as it
 * likes: nobody but the application is waited for. What it writes is taken as fast as it can write.
 * Thread: a request belongs to the thread that serve() was called on, from the call to its return.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WORKER_H
#define FOREBAY_UPSTREAM_WORKER_WORKER_H

#include <sys/types.h>

#include "core/slice.h"

struct worker_request;

/* What an application may want to know before its first request. Borrowed for the process's life. */
struct worker_setting {
	const char *target;          /* what stands behind the colon of `app =`, or "" */
	const char *virtualenv;      /* "": none */
	unsigned processes, threads; /* at most so many processes serve this pool; so many threads call serve() in each */
	bool debug;                  /* somebody develops: errors may be shown to whoever asks */
};

struct worker_app {
	const char *name;
	/*
	 * Once, before any request and any other thread: in the process that serves, or in the one that it is forked from. 0 with *ret_ctx, or -errno;
	 * why not is the application's to say, on its standard error.
	 */
	int (*load)(const struct worker_setting *setting, void **ret_ctx);
	/*
	 * Answers one request: worker_status, worker_field, worker_write, in this order. The response is complete when it returns; one that never gave a
	 * status is a 500, one with less content than its Content-Length is cut.
	 */
	void (*serve)(void *ctx, struct worker_request *r);
	/*
	 * serve() says worker_begin() itself, right before it does what must not be done twice. Without it that is when serve() is called.
	 */
	bool says_begun;
	/* After the last request. May be NULL, as all that follow. */
	void (*unload)(void *ctx);
	/* On each thread that is going to call serve(), before the first and after the last time; also on the main one, for a rehearsal. */
	void (*prepare_thread)(void *ctx);
	void (*leave_thread)(void *ctx);
	/* In a zygote, on its only thread: once before the first fork; around each fork, the last on both sides. */
	void (*freeze)(void *ctx);
	void (*before_fork)(void *ctx);
	void (*after_fork)(void *ctx, bool child);
	/* What a fork would lose that the kernel does not show: names of threads and the like. malloc'd text; NULL: nothing. */
	char *(*unforkable)(void *ctx);
	/* From now on SIGURG makes this process write what its threads are at to its standard error. Once in each worker. */
	void (*watch_stack)(void *ctx);
};

/* The request. Everything is valid until serve() returns. */

/*
 * From now on the request counts as begun, whatever becomes of this process: no other worker is given it, unless doing it twice does no harm.
 * A store to memory, no system call.
 */
void worker_begin(struct worker_request *r);

/* Number of CGI variables, in the order in which they came, and one of them. */
size_t worker_variable_count(const struct worker_request *r);
void worker_variable(struct worker_request *r, size_t i, struct slice *ret_name, struct slice *ret_value);

/* The value of the variable with this name; empty if there is none. */
struct slice worker_get(const struct worker_request *r, const char *name);

/* The body: its length, and where it is: in memory (fd -1) or in a regular file (a read-only descriptor, from offset 0; memory is empty). */
uint64_t worker_body_bytes(const struct worker_request *r);
struct slice worker_body_memory(const struct worker_request *r);
int worker_body_fd(const struct worker_request *r);

/* The next bytes of the body, wherever it is. Bytes, 0 at its end, or -errno. */
MUST_USE ssize_t worker_body_read(struct worker_request *r, void *buf, size_t size);

/*
 * The response. Each returns 0, or -errno: -EPIPE, nobody listens any more (all calls fail from then on; serve() had better return);
 * -EINVAL, what it was given is not valid at this place and was left out; -E2BIG, the head is too large.
 */

/* Begins the response; or, 103 with its fields, sends early hints, after which a status is given again. 200 to 599. */
MUST_USE int worker_status(struct worker_request *r, unsigned status);

/* One field. Not those of a connection (Connection, Transfer-Encoding, ...). Content-Length binds what follows. */
MUST_USE int worker_field(struct worker_request *r, struct slice name, struct slice value);

/* Content. Collected and sent in larger pieces. After a HEAD request, and with 204 and 304, it is dropped. */
MUST_USE int worker_write(struct worker_request *r, const void *data, size_t len);

/* A piece of a regular file as content; its bytes do not pass through the worker. Takes *fd. What the file holds must not change any more. */
MUST_USE int worker_write_file(struct worker_request *r, int *fd, uint64_t offset, uint64_t len);

/* Sends what was collected now. For streams. */
MUST_USE int worker_flush(struct worker_request *r);

/*
 * Takes back the status, the fields and the content that were given so far, but for early hints: the response begins anew. -EALREADY: some of it has
 * been sent.
 */
MUST_USE int worker_reset(struct worker_request *r);

/* The response cannot be completed: it is cut, so that nobody takes it for whole. If nothing was sent yet the client hears 502. */
void worker_abort(struct worker_request *r);

/* True once the front has said that its client has gone, or has gone itself. A system call; never waits. */
bool worker_client_gone(struct worker_request *r);

#endif
