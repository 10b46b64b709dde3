/*
 * exchange_life: what one exchange is, which states it has, and how it ends. Below exchange_own, exchange_request, exchange_response and exchange,
 * which share the struct; nobody else includes this.
 * Owns:   see exchange.h.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_EXCHANGE_LIFE_H
#define FOREBAY_PROXY_EXCHANGE_LIFE_H

#include "core/log.h"
#include "proxy/serve/again.h"
#include "proxy/serve/exchange.h"
#include "proxy/serve/request_id.h"
#include "upstream/attempt.h"

#define STREAM_BYTES (64u << 10) /* of a stream, in either direction, before its source must wait */

enum exchange_state {
	EXCHANGE_RECEIVING,
	EXCHANGE_QUEUED,
	EXCHANGE_WORKING,
	EXCHANGE_DRAINING,
	EXCHANGE_DONE,
	EXCHANGE_STATE_COUNT,
};

struct exchange {
	struct context *cx;
	struct conf *conf; /* the snapshot it began with */
	const struct exchange_events *events;
	void *ctx;
	struct exchange_origin origin;
	enum exchange_state state;
	/* the request */
	struct head head;
	struct http1_message message;
	const struct conf_route *route;
	struct pool *pool;
	struct body *body; /* until `request` has it */
	struct request *request;
	char id[REQUEST_ID_BYTES];
	char *line; /* of a request that was not understood */
	/* its way to a worker */
	struct waiter waiter;
	struct timer queue_timer;
	struct attempt *attempt;
	struct again again;
	unsigned tries, hints;
	pid_t worker_pid;
	/* the response */
	struct head response;
	struct http1_message response_message;
	struct body *response_body;
	unsigned status;
	const char *reason;
	/* microseconds, monotonic; 0: not yet */
	uint64_t complete_us, granted_us, answered_us;
	uint64_t queue_us, hold_us;
	size_t charged;
	struct mail mail; /* a refusal's way to `respond` */
	bool mailed, dead;
	bool open;     /* dispatched before its request is complete */
	bool settling; /* complete, but the spool still writes what the worker gets as a descriptor */
	bool given;    /* respond was called */
	bool is_stream, is_tunnel, stream_counted, refused, eof, response_over;
};

static inline uint64_t exchange_now_us(const struct exchange *ex)
{
	return loop_now_us(ex->cx->loop);
}

/* NULL before a route was found. */
static inline const struct conf_pool *exchange_pool(const struct exchange *ex)
{
	return ex->route ? ex->route->pool : NULL;
}

/* The only writer of ex->state. */
void exchange_enter(struct exchange *ex, enum exchange_state next);

/* Charges what the heads hold now. False: there is no room for that. */
MUST_USE bool exchange_charge(struct exchange *ex);

/* It is none of its pool's `streams` any more. */
void exchange_stream_leave(struct exchange *ex);

/* Lets go of queue and worker. A worker that is at work goes on; what it answers is discarded. */
void exchange_let_go(struct exchange *ex);

/* Logs it with this status, and frees it. */
void exchange_end(struct exchange **ex, const struct exchange_outcome *o, unsigned status);

#endif
