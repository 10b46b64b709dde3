/*
 * attempt: one try of a request at a worker, from the granted slot to its release.
 * Owns:   slot, link, a reference to the request. Outlives the exchange that made it if need be: a slot is not free because nobody
 *         listens any more.
 * Never:  chooses a slot, replays, speaks to a client.
 * Thread: its loop's. Every event comes from the loop, not from within a call of the exchange's.
 */
#ifndef FOREBAY_UPSTREAM_ATTEMPT_H
#define FOREBAY_UPSTREAM_ATTEMPT_H

#include "core/http1.h"
#include "upstream/link.h"
#include "upstream/request.h"

struct attempt;

enum attempt_end {
	ATTEMPT_WHOLE,       /* the response is complete */
	ATTEMPT_WHOLE_EOF,   /* it ended with its connection: complete as far as can be told */
	ATTEMPT_UNREACHABLE, /* no connection was made */
	ATTEMPT_UNREAD,      /* the worker was lost and provably did not begin */
	ATTEMPT_LOST,        /* the worker was lost and may have begun */
	ATTEMPT_GARBAGE,     /* what came is not a response */
	ATTEMPT_TIMEOUT,
	ATTEMPT_NO_MEMORY, /* the response could not be kept */
	ATTEMPT_NO_SPOOL,
	ATTEMPT_TOO_LARGE, /* the protocol cannot carry this request */
	ATTEMPT_ABORTED,   /* by attempt_abort; told to nobody */
	ATTEMPT_END_COUNT,
};

struct attempt_events {
	/* A final response head (takes it over: leaves *h empty), or a 103. The body that follows goes to the body given by attempt_into. */
	void (*head)(void *ctx, struct head *h, const struct http1_message *m);
	/* The response body has grown. */
	void (*progress)(void *ctx);
	/* A 101 came and its head was reported: bytes of both directions flow from request->body and into the response body. */
	void (*upgraded)(void *ctx);
	/* The last event; `why` is a literal for the log. The attempt belongs to itself from here on. */
	void (*end)(void *ctx, enum attempt_end how, const char *why);
};

/*
 * Begins. Takes the BUSY slot; holds a reference to `request`; borrows `into`, to which the response's content is appended, until detach or end.
 * Never fails at once: what goes wrong is told by `end` (NULL only without memory; then the slot is still the caller's).
 */
struct attempt *attempt_new(struct loop *loop, struct slot *slot, struct request *request, struct body *into,
    const struct attempt_events *events, void *ctx);

/* Stop and go on reading from the worker, when the body is full. */
void attempt_pause(struct attempt *a);
void attempt_resume(struct attempt *a);

/* The request's body has grown or is finished (streams), or its cold part was read in. */
void attempt_kick(struct attempt *a);

/* No more events; what still comes is discarded; the slot is released at the message's end, at EOF or after release_timeout. */
void attempt_detach(struct attempt *a);

/* Like detach, for streams and tunnels that have no end of their own: closes the link now. */
void attempt_abort(struct attempt *a);

/* The response is a stream: the pool's time for one request does not apply any more. */
void attempt_is_stream(struct attempt *a);

pid_t attempt_worker_pid(const struct attempt *a);  /* 0: unknown */
uint64_t attempt_begun_us(const struct attempt *a); /* when it got its slot, monotonic */

#endif
