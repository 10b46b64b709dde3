#include "proxy/serve/exchange_response.h"

#include <string.h>

#include "core/fields.h"
#include "proxy/serve/exchange_own.h"
#include "proxy/serve/exchange_request.h"
#include "proxy/serve/poison.h"
#include "proxy/serve/porter.h"

#define FLIGHT_BYTES (256u << 10) /* of a response in memory, while its client takes it as it comes */
#define HINTS_MAX    8            /* 103 responses passed on */

static const struct body_events response_body_events;

void exchange_response_reset(struct exchange *ex)
{
	head_done(&ex->response);
	head_init(&ex->response);
	body_free(&ex->response_body);
}

int exchange_response_new(struct exchange *ex, uint64_t expected)
{
	struct body_options o = {
		.memory_max = FLIGHT_BYTES, .expected = expected, .events = &response_body_events, .ctx = ex
	};

	return body_new(ex->cx->loop, &o, &ex->response_body);
}

static void give(struct exchange *ex)
{
	ex->given = true;
	ex->status = ex->response.status;
	ex->events->respond(ex->ctx);
}

/* An HTTP/1.0 client gets no chunks, so what has no length is kept until it is whole; but for streams, which end with the connection. */
static bool must_be_whole(const struct exchange *ex)
{
	return ex->head.version == 10 && ex->response_message.framing != FRAMING_LENGTH && !ex->is_stream;
}

static bool asks_for_stream(const struct exchange *ex, const struct head *h)
{
	struct slice type = head_get(h, FIELD_CONTENT_TYPE), kind;

	if (!ex->route->buffer || slice_eq_nocase(head_get(h, FIELD_X_ACCEL_BUFFERING), SLICE("no")))
		return true;
	if (!slice_cut(&type, ';', &kind))
		kind = type;
	return slice_eq_nocase(slice_trim_ows(kind), SLICE("text/event-stream"));
}

/* Many an HTTP/1.1 client takes a 103 for the response. */
static bool takes_hints(const struct exchange *ex)
{
	return ex->head.version == 20 || (ex->origin.listen->early_hints && ex->head.version == 11);
}

static void head_came(void *ctx, struct head *h, const struct http1_message *m)
{
	struct exchange *ex = ctx;

	if (h->status == 103) {
		if (takes_hints(ex) && !ex->given && ex->hints++ < HINTS_MAX)
			ex->events->interim(ex->ctx, h);
		return;
	}
	ex->response = *h;
	head_init(h);
	ex->response_message = *m;
	if (porter_hsts(ex->origin.listen, ex->origin.client.secure, &ex->response) != 0 || !exchange_charge(ex)) {
		exchange_refuse(ex, 503, "memory_limit");
		return;
	}
	if (m->framing == FRAMING_TUNNEL || m->framing == FRAMING_NONE || !asks_for_stream(ex, &ex->response))
		return;
	if (!ex->stream_counted && !pool_stream_enter(ex->pool)) {
		ex->is_stream = true; /* it has no end of its own to wait for */
		exchange_refuse(ex, 503, "streams");
		return;
	}
	ex->stream_counted = ex->is_stream = true;
	attempt_is_stream(ex->attempt);
	give(ex);
}

static void pace_worker(struct exchange *ex)
{
	uint64_t unsent = body_bytes(ex->response_body) - body_bytes_dropped(ex->response_body);

	if (ex->is_stream ? unsent > STREAM_BYTES && ex->given : body_full(ex->response_body))
		attempt_pause(ex->attempt);
}

static void response_grew(void *ctx)
{
	struct exchange *ex = ctx;

	pace_worker(ex);
	if (!ex->is_stream && budget_pressure(ex->cx->loop->lease.budget) != BUDGET_EASY)
		body_spill(ex->response_body);
	if (ex->given)
		ex->events->progress(ex->ctx);
	else if (!must_be_whole(ex) && body_bytes(ex->response_body) > ex->route->hold)
		give(ex);
}

/* Both directions are open from here on. */
static void upgraded(void *ctx)
{
	struct exchange *ex = ctx;

	ex->is_tunnel = ex->is_stream = ex->open = true;
	if (exchange_body_new(ex) != 0) {
		exchange_refuse(ex, 503, "memory_limit");
		return;
	}
	ex->request->body = ex->body;
	ex->body = NULL;
	ex->request->streams = true;
	ex->given = true;
	ex->status = ex->response.status;
	ex->events->upgraded(ex->ctx);
}

/* How an attempt that failed is told to the client. */
static const struct {
	unsigned status;
	const char *reason;
} failures[] = {
	[ATTEMPT_UNREACHABLE] = { 502, "worker cannot be reached" },
	[ATTEMPT_UNREAD] = { 502, "workers end before they begin" },
	[ATTEMPT_LOST] = { 502, "worker ended inside its answer" },
	[ATTEMPT_GARBAGE] = { 502, "worker's answer is no HTTP" },
	[ATTEMPT_TIMEOUT] = { 504, "timeout" },
	[ATTEMPT_NO_MEMORY] = { 503, "memory_limit" },
	[ATTEMPT_NO_SPOOL] = { 507, "spool error" },
	[ATTEMPT_TOO_LARGE] = { 431, "request head is too large for the worker's protocol" },
	[ATTEMPT_ABORTED] = { 502, "aborted" },
};
static_assert(ARRAY_LEN(failures) == ATTEMPT_END_COUNT, "a row for each end");

/*
 * Whether it may be tried again. The time that it was at a worker is not time that it waited: what is left of queue_timeout is the same as
 * before. That of a connect counts, or a socket that nobody answers at would be tried for ever.
 */
static bool may_replay(struct exchange *ex, enum attempt_end how)
{
	bool read_once = ex->request->streams && ex->request->body && body_bytes_dropped(ex->request->body) > 0;

	if (!again_may(&ex->again, exchange_pool(ex), ex->head.method, how, ex->given || ex->hints > 0 || read_once))
		return false;
	if (how != ATTEMPT_UNREACHABLE)
		ex->waiter.since_us += ex->hold_us;
	return true;
}

/* It was in a worker that was lost, and is not tried again: whoever wants to know why finds it in quarantine_dir. */
static void keep_for_study(struct exchange *ex)
{
	const struct poison_case from = { .head = &ex->head,
		.body = ex->request->body,
		.pool = exchange_pool(ex)->index,
		.pid = ex->worker_pid,
		.tries = ex->tries,
		.wall_us = loop_wall_us(ex->cx->loop),
		.id = exchange_id(ex) };
	struct poison *p;
	int err;

	if (exchange_pool(ex)->app == APP_NONE || !exchange_pool(ex)->quarantine_dir || !ex->cx->poison)
		return;
	err = poison_new(&from, &p);
	if (err)
		log_warning("event=not_quarantined id=%s error=%s", ex->request->id, strerrorname_np(-err));
	else
		ex->cx->poison(ex->cx->poison_ctx, &p);
}

static void response_failed(struct exchange *ex, enum attempt_end how, const char *why)
{
	if (how == ATTEMPT_LOST)
		keep_for_study(ex);
	if (ex->given) {
		ex->reason = why ? why : failures[how].reason;
		ex->events->cut(ex->ctx);
		return;
	}
	exchange_refuse(ex, failures[how].status, why ? why : failures[how].reason);
}

static void attempt_ended(void *ctx, enum attempt_end how, const char *why)
{
	struct exchange *ex = ctx;

	ex->hold_us = exchange_now_us(ex) - attempt_begun_us(ex->attempt);
	ex->attempt = NULL;
	if (how != ATTEMPT_WHOLE && how != ATTEMPT_WHOLE_EOF) {
		if (may_replay(ex, how)) {
			exchange_response_reset(ex);
			exchange_queue(ex, true);
		} else {
			response_failed(ex, how, why);
		}
		return;
	}
	exchange_enter(ex, EXCHANGE_DRAINING);
	exchange_stream_leave(ex);
	ex->eof = how == ATTEMPT_WHOLE_EOF && !ex->is_tunnel;
	ex->response_over = true;
	ex->answered_us = exchange_now_us(ex);
	if (ex->given)
		ex->events->progress(ex->ctx);
	else
		give(ex);
}

const struct attempt_events exchange_attempt_events = {
	.head = head_came,
	.progress = response_grew,
	.upgraded = upgraded,
	.end = attempt_ended,
};

static void response_body_room(void *ctx)
{
	struct exchange *ex = ctx;

	if (ex->attempt && !ex->is_stream)
		attempt_resume(ex->attempt);
}

static void response_body_ready(void *ctx)
{
	struct exchange *ex = ctx;

	if (ex->given)
		ex->events->ready(ex->ctx);
}

static void response_body_failed(void *ctx, int err)
{
	struct exchange *ex = ctx;
	const char *why = err == -ENOSPC ? "spool_limit or disk full" : "spool error";

	if (!ex->given) {
		exchange_refuse(ex, 507, why);
		return;
	}
	ex->reason = why;
	ex->events->cut(ex->ctx);
}

static const struct body_events response_body_events = {
	.room = response_body_room,
	.ready = response_body_ready,
	.failed = response_body_failed,
};
