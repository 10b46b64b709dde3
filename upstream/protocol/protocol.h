/*
 * protocol: how a request and its response look on a link. One small file each behind this interface.
 * A protocol reads and writes bytes that the attempt moves; it never touches a socket, a slot or a timer.
 * Thread: the attempt's.
 */
#ifndef FOREBAY_UPSTREAM_PROTOCOL_H
#define FOREBAY_UPSTREAM_PROTOCOL_H

#include "upstream/attempt.h"

enum begun { BEGUN_NO, BEGUN_YES, BEGUN_UNKNOWN };

struct protocol {
	const char *name;
	size_t state_bytes; /* zeroed for each attempt */
	bool descriptors;   /* they are passed on this link: it is read by recvmsg */

	/*
	 * Writes what goes first to attempt_out(); the request's body follows verbatim as it is, or in chunks if its length is unknown,
	 * unless attempt_send_fd() was called. 0, or -E2BIG: this protocol cannot carry such a head; -ENOMEM; what body_export() says. Then nothing
	 * has been sent.
	 */
	int (*start)(struct attempt *a, void *state);

	/*
	 * Takes from *in what it can and says what it is by the attempt_got_ functions. What it leaves (an incomplete head or frame) comes
	 * again with more behind it. `fd` is -1 or a descriptor that came with these bytes: taken by setting it to -1. Returns 0, or -EPROTO
	 * or -ENOMEM with *ret_why a literal. Stops at once when attempt_got_whole was called.
	 */
	int (*take)(struct attempt *a, void *state, struct slice *in, int *fd, const char **ret_why);

	/* The link ended in good order. 0: so did the response (attempt_got_whole was not called). -EPROTO: it is cut. */
	int (*eof)(struct attempt *a, void *state);

	/* The link broke: did the application begin? */
	enum begun (*begun)(struct attempt *a, void *state);

	/* The client has gone: may write to attempt_out(). NULL: nothing to say. */
	void (*cancel)(struct attempt *a, void *state);

	/* Frees what the state holds. May be NULL. */
	void (*done)(void *state);
};

extern const struct protocol protocol_http;
extern const struct protocol protocol_worker;

/* What a protocol may ask and tell. */
const struct request *attempt_request(const struct attempt *a);
const struct conf_pool *attempt_pool_conf(const struct attempt *a);
struct link *attempt_link(struct attempt *a);
struct buf *attempt_out(struct attempt *a); /* bytes to send, in order */

/* The next byte of attempt_out() written from here on carries this descriptor. Takes it. Only at the start of `out`; the body is not sent then. */
void attempt_send_fd(struct attempt *a, int *fd);

/* The body shall not be sent by the attempt (it went as a descriptor or inside `out`). */
void attempt_body_sent(struct attempt *a);

/* A head, interim or final; takes its content. May be called once for a final one. */
void attempt_got_head(struct attempt *a, struct head *h, const struct http1_message *m);

/* Content. */
void attempt_got_content(struct attempt *a, struct slice bytes);

/* The next n bytes on the link are content verbatim (UINT64_MAX: all up to its end); take() goes on behind them. */
void attempt_got_raw(struct attempt *a, uint64_t n);

/* A piece of a regular file is content. Takes *fd. Offset and length are the worker's claim and are checked here (fstat). 0 or -EPROTO. */
MUST_USE int attempt_got_file(struct attempt *a, int *fd, uint64_t offset, uint64_t len);

/* The response is complete. reusable: the link may carry another request. */
void attempt_got_whole(struct attempt *a, bool reusable);

#endif
