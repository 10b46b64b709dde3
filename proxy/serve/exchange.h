/*
 * exchange: one request and its response for a client, whatever protocol the client speaks.
 * Owns:   the heads and bodies of both, its place in the queue, its attempts.
 * Never:  reads or writes a client's socket.
 * Thread: its loop's.
 *
 * RECEIVING -> QUEUED -> WORKING -> DRAINING -> DONE; WORKING -> QUEUED is a replay; a refusal goes to DRAINING from anywhere
 * before; a stream is QUEUED with its request still open.
 */
#ifndef FOREBAY_PROXY_EXCHANGE_H
#define FOREBAY_PROXY_EXCHANGE_H

#include "core/http1.h"
#include "proxy/serve/context.h"
#include "proxy/serve/forward.h"

struct exchange;

/* What the client's side hears. Each comes from the loop, never from within a call of its own; each may end in freeing the exchange. */
struct exchange_events {
	void (*respond)(void *ctx);                          /* the response may be sent: exchange_response() */
	void (*progress)(void *ctx);                         /* more of its body, or its end, is there */
	void (*interim)(void *ctx, const struct head *head); /* 103 */
	void (*room)(void *ctx);                             /* the request's body takes more again */
	void (*ready)(void *ctx);                            /* what was cold in the response's body can be sent */
	void (*upgraded)(void *ctx); /* respond was called with a 101; the request's body is open again */
	void (*cut)(void *ctx);      /* the rest of the response will not come: it must not look whole */
};

struct exchange_origin {
	const struct conf_listen *listen;
	struct forward_client client;
	const char *tls_version; /* a literal, for the log; NULL: plain */
	uint64_t begun_us;       /* monotonic: the first byte came */
	int64_t begun_wall_us;
};

/* `origin` is copied, what it points to borrowed. NULL without memory. */
struct exchange *exchange_new(
    struct context *cx, const struct exchange_origin *origin, const struct exchange_events *events, void *ctx);

/*
 * A request head. Takes h's content. What is wrong with it is answered by `respond`. Afterwards exchange_wants_body() says
 * whether content is to be read.
 */
void exchange_request(struct exchange *ex, struct head *h, const struct http1_message *m);

/*
 * The same in two steps, for whoever reads many requests at once: code that runs for one after the other stays in the processor's cache.
 * Between the two it may only be ended.
 */
void exchange_take_head(struct exchange *ex, struct head *h, const struct http1_message *m);
void exchange_begin(struct exchange *ex);

/* This request is answered by forebay itself. `line` is what there is of the request if its head was not understood. */
void exchange_refuse(struct exchange *ex, unsigned status, const char *reason);
void exchange_set_line(struct exchange *ex, struct slice line);

/* The request's content is wanted and goes into exchange_request_body(). */
bool exchange_wants_body(const struct exchange *ex);
struct body *exchange_request_body(struct exchange *ex);

/* After appending: sees to limits and hands streams on. */
void exchange_body_grew(struct exchange *ex);

/* The body took no more: -ENOMEM, -ENOSPC, -EIO. Refuses. */
void exchange_body_failed(struct exchange *ex, int err);

/* The request is complete. */
void exchange_received(struct exchange *ex);

/* The response. */
struct head *exchange_response(struct exchange *ex);
struct body *exchange_response_body(struct exchange *ex); /* its whole or growing content, also to HEAD (then not to be sent) */
/* How long the content is: true and *ret if that is known by now. */
bool exchange_response_length(const struct exchange *ex, uint64_t *ret);
bool exchange_is_answered(const struct exchange *ex); /* all of the response is there */
bool exchange_is_tunnel(const struct exchange *ex);
bool exchange_is_refused(const struct exchange *ex);
/* A stream's pace is its worker's; it may be silent for so long. */
bool exchange_is_stream(const struct exchange *ex);
uint64_t exchange_stream_idle_ms(const struct exchange *ex);
const struct head *exchange_head(const struct exchange *ex); /* the request's; empty if none was understood */
struct slice exchange_id(const struct exchange *ex);

/* The body's bytes before `offset` have been sent. */
void exchange_sent(struct exchange *ex, uint64_t offset);

/* Waits for its client: what it holds in memory goes to the spool. */
void exchange_spill(struct exchange *ex);

struct exchange_outcome {
	uint64_t body_bytes; /* of the response, that went out */
	bool cut;
	const char *reason; /* a literal or NULL; the exchange's own reason comes first */
};

/* The client has it all. Logs; sets *ex to NULL. */
void exchange_done(struct exchange **ex, const struct exchange_outcome *o);

/* The client has gone, or is thrown out: whatever state it is in. Logs (499, or the status that was sent); sets *ex to NULL. */
void exchange_leave(struct exchange **ex, const struct exchange_outcome *o);

#endif
