/*
 * forebay/worker.h: an application that forebay runs as its own workers, or a host for applications in another language.
 *
 * main() is one call: return forebay_worker_main(argc, argv, &app). The program is named in a pool, `app = worker:/path/to/program TARGET`,
 * and started by forebay: processes times threads. serve() gets one whole request and answers it by the functions below. It may block as long as
 * it likes: nobody but the application is waited for, and what it writes is taken as fast as it can write.
 *
 * Threads: serve() is called on as many at once as the pool has `threads`, each with a request of its own, which belongs to that thread from the
 * call to its return.
 *
 * forebay-worker(3) tells all of this at length. C11, C++11.
 */
#ifndef FOREBAY_WORKER_H
#define FOREBAY_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that somebody else owns; no NUL ends them, and any may be in them. For printf's "%.*s": (int)text.len, text.ptr. */
struct forebay_text {
	const char *ptr;
	size_t len;
};

/* What the configuration says that an application may want to know. */
struct forebay_setting {
	const char *target; /* what stands behind the program in `app =`, or "" */
	unsigned processes, threads;
	bool debug; /* by `forebay run`: an error page may tell what went wrong */
};

struct forebay_request; /* valid until serve() returns, and so is all that it gives */

struct forebay_app {
	const char *name;
	/*
	 * Once, before any request: in the process that serves or, with `preload = on`, in the one that it is forked from. May be NULL. 0 with *ret_ctx,
	 * which the others get as ctx; or -errno: it cannot serve.
	 */
	int (*load)(const struct forebay_setting *setting, void **ret_ctx);
	/* Answers one request: forebay_status, forebay_field, forebay_write, in this order. The response is complete when it returns. */
	void (*serve)(void *ctx, struct forebay_request *r);
	/* serve() calls forebay_begin(), right before it does what must not be done twice. Without it that is when serve() is called. */
	bool says_begun;
	/* After the last request. May be NULL, as all that follow, which hosts of other languages need. */
	void (*unload)(void *ctx);
	/* On each thread that calls serve(), before the first and after the last time; also on the main one, for a request of forebay's own. */
	void (*prepare_thread)(void *ctx);
	void (*leave_thread)(void *ctx);
	/* With `preload = on`: once before the first fork; around each fork, the last on both sides. */
	void (*freeze)(void *ctx);
	void (*before_fork)(void *ctx);
	void (*after_fork)(void *ctx, bool child);
	/* What of the application a fork would lose and the kernel does not show: malloc'd text that names it, NULL: nothing. */
	char *(*unforkable)(void *ctx);
	/* From now on SIGURG makes the process write what its threads are at to its standard error. Once in each worker. */
	void (*watch_stack)(void *ctx);
};

/* main() of a worker. Returns the exit status. */
int forebay_worker_main(int argc, char **argv, const struct forebay_app *app);

/* ---- the request ---- */

/* From now on the request counts as begun: should this process be lost, another one gets it only if doing it twice does no harm. No system call. */
void forebay_begin(struct forebay_request *r);

/* The value of the CGI variable with this name (REQUEST_METHOD, PATH_INFO, HTTP_HOST, ...); empty if there is none. */
struct forebay_text forebay_variable(const struct forebay_request *r, const char *name);

/* All of them: their number, and one. */
size_t forebay_variable_count(const struct forebay_request *r);
void forebay_variable_at(struct forebay_request *r, size_t i, struct forebay_text *ret_name, struct forebay_text *ret_value);

/* The body: all of it is there. In memory (fd is -1), or in a regular file: a read-only descriptor, from offset 0 (memory is empty). */
uint64_t forebay_body_bytes(const struct forebay_request *r);
struct forebay_text forebay_body_memory(const struct forebay_request *r);
int forebay_body_fd(const struct forebay_request *r);

/* The next bytes of the body, wherever it is. Bytes, 0 at its end, or -errno. */
ssize_t forebay_body_read(struct forebay_request *r, void *buf, size_t size);

/* ---- the response ---- */

/*
 * Each returns 0 or -errno: -EPIPE, nobody listens any more, and all calls fail from then on; -EINVAL, what it was given is not valid at this
 * place, and was left out; -E2BIG, the head is too large; -ENOMEM, the answer is cut.
 */

/* 200 to 599. Or 103: its fields are early hints, and a status is given again behind them. */
int forebay_status(struct forebay_request *r, unsigned status);

/* Not those of a connection (Connection, Transfer-Encoding, ...). Content-Length binds what follows. */
int forebay_field(struct forebay_request *r, const char *name, const char *value);
int forebay_field_text(struct forebay_request *r, struct forebay_text name, struct forebay_text value);

/* Content. Collected, and sent in larger pieces. To HEAD, and with 204 and 304, it is dropped. */
int forebay_write(struct forebay_request *r, const void *data, size_t len);

/* A piece of a regular file; its bytes do not pass through the worker. Takes *fd, also on failure, and sets it to -1. The file must not change any
 * more. */
int forebay_write_file(struct forebay_request *r, int *fd, uint64_t offset, uint64_t len);

/* Sends what was collected now. For streams. */
int forebay_flush(struct forebay_request *r);

/* Takes back what was given so far, but for early hints: the response begins anew. -EALREADY: some of it has been sent. */
int forebay_reset(struct forebay_request *r);

/* The response cannot be completed: it is cut, so that nobody takes it for whole; if nothing of it was sent yet, the client hears 502. */
void forebay_abort(struct forebay_request *r);

/* True once forebay has said that the client has gone. A system call; never waits. */
bool forebay_client_gone(struct forebay_request *r);

#ifdef __cplusplus
}
#endif

#endif
