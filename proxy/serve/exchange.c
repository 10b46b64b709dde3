#include "proxy/serve/exchange.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "core/fields.h"
#include "core/log.h"
#include "proxy/serve/again.h"
#include "proxy/serve/poison.h"
#include "proxy/serve/porter.h"
#include "proxy/serve/refusal.h"
#include "proxy/serve/request_id.h"
#include "upstream/attempt.h"

#define FLIGHT_BYTES  (256u << 10) /* of a response in memory, while its client takes it as it comes */
#define STREAM_BYTES  (64u << 10)  /* of a stream, in either direction, before its source must wait */
#define HINTS_MAX     8            /* 103 responses passed on */
#define RETRY_AFTER_S 1

enum exchange_state {
	EXCHANGE_RECEIVING,
	EXCHANGE_QUEUED,
	EXCHANGE_WORKING,
	EXCHANGE_DRAINING,
	EXCHANGE_DONE,
	EXCHANGE_STATE_COUNT,
};

static const unsigned may_follow[] = {
	[EXCHANGE_RECEIVING] = TO(EXCHANGE_QUEUED) | TO(EXCHANGE_DRAINING) | TO(EXCHANGE_DONE),
	[EXCHANGE_QUEUED] = TO(EXCHANGE_WORKING) | TO(EXCHANGE_DRAINING) | TO(EXCHANGE_DONE),
	[EXCHANGE_WORKING] = TO(EXCHANGE_QUEUED) | TO(EXCHANGE_DRAINING) | TO(EXCHANGE_DONE),
	[EXCHANGE_DRAINING] = TO(EXCHANGE_DONE),
	[EXCHANGE_DONE] = 0,
};
static_assert(ARRAY_LEN(may_follow) == EXCHANGE_STATE_COUNT, "a row for each state");

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

static const struct attempt_events attempt_events;
static const struct body_events request_body_events, response_body_events;

/* The only writer of ex->state. */
static void exchange_enter(struct exchange *ex, enum exchange_state next)
{
	assert(may_follow[ex->state] & TO(next));
	ex->state = next;
}

static uint64_t now_us(const struct exchange *ex)
{
	return loop_now_us(ex->cx->loop);
}

static const struct conf_pool *pool_of(const struct exchange *ex)
{
	return ex->route ? ex->route->pool : NULL;
}

/* Charges what the heads hold now. */
static bool exchange_charge(struct exchange *ex)
{
	size_t now = sizeof(*ex) + head_memory(&ex->head) + head_memory(&ex->response);

	if (now > ex->charged && !lease_take(&ex->cx->loop->lease, now - ex->charged))
		return false;
	if (now < ex->charged)
		lease_give(&ex->cx->loop->lease, ex->charged - now);
	ex->charged = now;
	return true;
}

struct exchange *exchange_new(
    struct context *cx, const struct exchange_origin *origin, const struct exchange_events *events, void *ctx)
{
	struct exchange *ex;

	if (!lease_take(&cx->loop->lease, sizeof(*ex)))
		return NULL;
	ex = malloc(sizeof(*ex));
	if (!ex) {
		lease_give(&cx->loop->lease, sizeof(*ex));
		return NULL;
	}
	*ex = (struct exchange){
		.cx = cx,
		.conf = conf_hold(cx->conf),
		.events = events,
		.ctx = ctx,
		.origin = *origin,
		.charged = sizeof(*ex),
		.queue_us = UINT64_MAX,
		.hold_us = UINT64_MAX,
	};
	head_init(&ex->head);
	head_init(&ex->response);
	request_id_make(cx->id_seed, cx->loop->index, cx->id_count++, ex->id);
	return ex;
}

/* The end. */

static void stream_leave(struct exchange *ex)
{
	if (ex->stream_counted)
		pool_stream_leave(ex->pool);
	ex->stream_counted = false;
}

static void exchange_free(struct exchange *ex)
{
	body_free(&ex->body);
	request_drop(&ex->request);
	body_free(&ex->response_body);
	head_done(&ex->head);
	head_done(&ex->response);
	lease_give(&ex->cx->loop->lease, ex->charged);
	conf_drop(&ex->conf);
	free(ex->line);
	if (ex->mailed)
		ex->dead = true; /* its mail frees it, at last from loop_free: cx and all else may have gone before */
	else
		free(ex);
}

static uint64_t span_us(uint64_t from, uint64_t to)
{
	return from && to ? to - from : UINT64_MAX;
}

static void exchange_log(struct exchange *ex, const struct exchange_outcome *o, unsigned status)
{
	struct body *body = exchange_request_body(ex);
	uint64_t now = now_us(ex);
	char client[INET6_ADDRSTRLEN] = "";
	struct access_record r = {
		.wall_us = ex->origin.begun_wall_us,
		.request = ex->head.field_count || ex->head.method_text.len ? &ex->head : NULL,
		.request_line = slice_str(ex->line),
		.id = exchange_id(ex),
		.peer = slice_str(ex->origin.client.peer_address),
		.listen = ex->origin.listen->name,
		.tls = ex->origin.tls_version,
		.pool = ex->pool ? pool_conf(ex->pool)->name : NULL,
		.worker_pid = ex->worker_pid,
		.status = status,
		.request_bytes = body ? body_bytes(body) : 0,
		.response_bytes = o->body_bytes,
		.receive_us = span_us(ex->origin.begun_us, ex->complete_us),
		.queue_us = ex->queue_us,
		.hold_us = ex->hold_us,
		.drain_us = span_us(ex->answered_us, now),
		.total_us = now - ex->origin.begun_us,
		.attempts = ex->tries,
		.request_spooled = body && body_was_spooled(body),
		.response_spooled = ex->response_body && body_was_spooled(ex->response_body),
		.eof = ex->eof,
		.cut = o->cut,
		.reason = ex->reason ? ex->reason : o->reason,
	};

	if (ex->request)
		r.client = slice_str(ex->request->remote_addr);
	else if (r.request && forward_client_address(&ex->head, &ex->origin.client, ex->conf, client, sizeof(client)) == 0)
		r.client = slice_str(client);
	else
		r.client = r.peer;
	access_log_write(ex->cx->access, &r);
}

/* Lets go of queue and worker. A worker that is at work goes on; what it answers is discarded. */
static void exchange_let_go(struct exchange *ex)
{
	bool unfinished = ex->open && ex->request && ex->request->body && !body_is_finished(ex->request->body);

	ex->settling = false;
	loop_timer_clear(ex->cx->loop, &ex->queue_timer);
	if (ex->pool)
		pool_cancel(ex->pool, &ex->waiter);
	if (!ex->attempt)
		return;
	ex->hold_us = now_us(ex) - attempt_begun_us(ex->attempt);
	if (unfinished || ex->is_stream)
		attempt_abort(ex->attempt);
	else
		attempt_detach(ex->attempt);
	ex->attempt = NULL;
}

static void exchange_end(struct exchange **ex, const struct exchange_outcome *o, unsigned status)
{
	struct exchange *old = *ex;

	*ex = NULL;
	exchange_let_go(old);
	stream_leave(old);
	if (old->cx->access)
		exchange_log(old, o, status);
	exchange_enter(old, EXCHANGE_DONE);
	exchange_free(old);
}

void exchange_done(struct exchange **ex, const struct exchange_outcome *o)
{
	exchange_end(ex, o, (*ex)->status);
}

void exchange_leave(struct exchange **ex, const struct exchange_outcome *o)
{
	exchange_end(ex, o, (*ex)->given ? (*ex)->status : 499);
}

/* Refusals. */

static void refusal_delivered(struct mail *m)
{
	struct exchange *ex = CONTAINER_OF(m, struct exchange, mail);

	ex->mailed = false;
	if (ex->dead)
		free(ex);
	else
		ex->events->respond(ex->ctx);
}

static void response_reset(struct exchange *ex)
{
	head_done(&ex->response);
	head_init(&ex->response);
	body_free(&ex->response_body);
}

static int response_body_new(struct exchange *ex, uint64_t expected)
{
	struct body_options o = {
		.memory_max = FLIGHT_BYTES, .expected = expected, .events = &response_body_events, .ctx = ex
	};

	return body_new(ex->cx->loop, &o, &ex->response_body);
}

static void page_make(struct exchange *ex)
{
	struct refusal refusal = { .status = ex->status, .reason = ex->reason, .id = exchange_id(ex) };
	struct buf page;

	refusal.accept = head_get(&ex->head, FIELD_ACCEPT);
	refusal.retry_after_s = ex->status == 503 ? RETRY_AFTER_S : 0;
	buf_init(&page, 16u << 10);
	response_reset(ex);
	/* Without memory for the page the status goes out alone. */
	if (ex->status >= 400 && refusal_make(&refusal, &ex->response, &page) != 0) {
		head_done(&ex->response);
		head_init(&ex->response);
		buf_clear(&page);
	}
	ex->response.status = (uint16_t)ex->status;
	ex->response.version = 11;
	if (response_body_new(ex, page.len) == 0) {
		if (page.len && body_append(ex->response_body, buf_slice(&page)) != 0)
			log_warning("no memory for an error page id=%s status=%u", ex->id, ex->status);
		body_finish(ex->response_body);
	}
	buf_done(&page);
}

/* Takes the content. */
static int own_make(struct exchange *ex, struct porter_answer *own)
{
	int err = porter_head(own, &ex->response);

	if (!err)
		err = response_body_new(ex, own->len);
	if (!err && own->fd != -1)
		err = body_append_file(ex->response_body, &own->fd, 0, own->len);
	if (!err)
		body_finish(ex->response_body);
	return err;
}

/* What forebay itself says: the porter's word, or a page. */
static void answer(struct exchange *ex, unsigned status, const char *reason, struct porter_answer *own)
{
	exchange_let_go(ex);
	exchange_enter(ex, EXCHANGE_DRAINING);
	ex->status = status;
	ex->reason = reason;
	ex->refused = true;
	ex->answered_us = now_us(ex);
	ex->response_over = true;
	if (own && own_make(ex, own) != 0) {
		ex->status = 503;
		ex->reason = "memory_limit";
		own = NULL;
	}
	if (!own)
		page_make(ex);
	if (porter_hsts(ex->origin.listen, ex->origin.client.secure, &ex->response) != 0)
		log_debug("no memory for a field id=%s", ex->id);
	ex->given = true;
	ex->mail.deliver = refusal_delivered;
	ex->mailed = true;
	mailbox_post_here(&ex->cx->loop->mailbox, &ex->mail);
}

void exchange_refuse(struct exchange *ex, unsigned status, const char *reason)
{
	if (ex->state != EXCHANGE_DRAINING && !ex->given)
		answer(ex, status, reason, NULL);
}

/* True: the listener itself has an answer. */
static bool porter_answered(struct exchange *ex)
{
	struct porter_answer own;

	porter_ask(ex->origin.listen, ex->origin.client.secure, &ex->head, &own);
	if (own.status != 0)
		answer(ex, own.status, own.reason, own.status < 400 ? &own : NULL);
	porter_answer_done(&own);
	return own.status != 0;
}

static void cut_delivered(struct mail *m)
{
	struct exchange *ex = CONTAINER_OF(m, struct exchange, mail);

	ex->mailed = false;
	if (ex->dead)
		free(ex);
	else
		ex->events->cut(ex->ctx);
}

/* The response has begun, and will not come to its end. Told from the loop. */
static void cut_later(struct exchange *ex, const char *reason)
{
	if (ex->mailed)
		return;
	exchange_let_go(ex);
	ex->reason = reason;
	ex->refused = true;
	ex->mail.deliver = cut_delivered;
	ex->mailed = true;
	mailbox_post_here(&ex->cx->loop->mailbox, &ex->mail);
}

void exchange_set_line(struct exchange *ex, struct slice line)
{
	free(ex->line);
	ex->line = slice_dup(line);
}

/* From the head to the queue. */

/* What an own worker gets is complete, always: its protocol knows nothing else. Its answers may still be streams. */
static bool sent_while_received(const struct exchange *ex)
{
	return !ex->route->buffer && pool_of(ex)->app == APP_NONE;
}

static int request_body_new(struct exchange *ex)
{
	struct body_options o = {
		.memory_max = (size_t)ex->route->body_memory,
		.expected = ex->message.has_length ? ex->message.length : 0,
		.own_file = pool_of(ex)->app != APP_NONE,
		.events = &request_body_events,
		.ctx = ex,
	};

	if (sent_while_received(ex) || ex->is_tunnel) {
		o.memory_only = true;
		o.memory_max = STREAM_BYTES;
	}
	return body_new(ex->cx->loop, &o, &ex->body);
}

/* The head as the worker gets it. */
static int request_build(struct exchange *ex)
{
	struct request *r = request_new(ex->cx->loop);
	struct forward_request f = {
		.client = &ex->origin.client,
		.conf = ex->conf,
		.request_id = forward_request_id(&ex->head, &ex->origin.client, ex->conf, ex->id),
		.complete_wall_us = loop_wall_us(ex->cx->loop),
		.upgrade = ex->message.upgrade,
		.keepalive = pool_of(ex)->keepalive,
	};
	int err;

	if (!r)
		return -ENOMEM;
	ex->request = r;
	r->body = ex->body;
	ex->body = NULL;
	r->streams = ex->open;
	r->upgrade = ex->message.upgrade;
	r->secure = ex->origin.client.secure;
	r->mount = ex->route->mount;
	r->length_known = !(r->body && ex->open && ex->message.framing == FRAMING_CHUNKED);
	if (r->body)
		r->length = ex->open ? ex->message.length : body_bytes(r->body);
	f.has_body_length = r->body && r->length_known;
	f.body_length = r->length;
	f.chunked = !r->length_known;
	if (pool_of(ex)->app != APP_NONE) {
		err = forward_request_head(&ex->head, &f, &r->head);
	} else {
		r->head.method = ex->head.method;
		err = forward_request_wire(&ex->head, &f, &r->wire);
	}
	if (err)
		return err;
	slice_to_str(f.request_id, r->id, sizeof(r->id));
	err = forward_client_address(&ex->head, &ex->origin.client, ex->conf, r->remote_addr, sizeof(r->remote_addr));
	assert(!err);
	r->remote_port = ex->origin.client.peer_port;
	slice_to_str(slice_str(ex->origin.client.server_address), r->server_addr, sizeof(r->server_addr));
	r->server_port = ex->origin.client.server_port;
	return request_charge(r);
}

static void slot_granted(struct waiter *w, struct slot *slot);

static void queue_timed_out(struct timer *t)
{
	exchange_refuse(CONTAINER_OF(t, struct exchange, queue_timer), 503, "queue_timeout");
}

/* In line for a slot, anew or again. */
static void exchange_queue(struct exchange *ex, bool again)
{
	enum pool_answer answer;
	struct slot *slot;
	uint64_t waited_ms;

	exchange_enter(ex, EXCHANGE_QUEUED);
	answer = again ? pool_acquire_again(ex->pool, &ex->waiter, &slot) : pool_acquire(ex->pool, &ex->waiter, &slot);
	switch (answer) {
	case POOL_GRANTED:
		slot_granted(&ex->waiter, slot);
		return;
	case POOL_QUEUED:
		waited_ms = (now_us(ex) - ex->waiter.since_us) / 1000;
		loop_timer_set(ex->cx->loop, &ex->queue_timer,
		    waited_ms < pool_of(ex)->queue_timeout_ms ? pool_of(ex)->queue_timeout_ms - waited_ms : 0);
		return;
	case POOL_FULL:
		exchange_refuse(ex, 503, "queue_limit");
		return;
	}
}

static void exchange_dispatch(struct exchange *ex)
{
	int err;

	ex->settling = false;
	ex->complete_us = now_us(ex);
	err = request_build(ex);
	if (err) {
		exchange_refuse(
		    ex, err == -ENOMEM ? 503 : 400, err == -ENOMEM ? "memory_limit" : "request cannot be passed on");
		return;
	}
	ex->waiter.loop = ex->cx->loop;
	ex->waiter.granted = slot_granted;
	ex->queue_timer.fire = queue_timed_out;
	exchange_queue(ex, false);
}

static void slot_granted(struct waiter *w, struct slot *slot)
{
	struct exchange *ex = CONTAINER_OF(w, struct exchange, waiter);

	loop_timer_clear(ex->cx->loop, &ex->queue_timer);
	if (response_body_new(ex, 0) != 0) {
		pool_release(slot);
		exchange_refuse(ex, 503, "memory_limit");
		return;
	}
	ex->granted_us = now_us(ex);
	ex->queue_us = ex->granted_us - ex->waiter.since_us;
	ex->request->queue_us = ex->queue_us;
	ex->worker_pid = slot->worker_pid;
	exchange_enter(ex, EXCHANGE_WORKING);
	ex->tries++;
	ex->attempt = attempt_new(ex->cx->loop, slot, ex->request, ex->response_body, &attempt_events, ex);
	if (!ex->attempt) {
		pool_release(slot);
		exchange_refuse(ex, 503, "memory_limit");
	}
}

/* It asks for an answer of the first intermediary it meets (RFC 9110, 7.6.2). */
static bool is_last_hop(const struct head *h)
{
	uint64_t left;

	return (h->method == METHOD_TRACE || h->method == METHOD_OPTIONS) &&
	       slice_to_u64(head_get(h, FIELD_MAX_FORWARDS), &left) && left == 0;
}

/* NULL: may go on. */
static const char *request_refused(struct exchange *ex, unsigned *ret_status)
{
	struct slice host, port;
	enum route_result found;

	if (is_last_hop(&ex->head)) {
		*ret_status = ex->head.method == METHOD_OPTIONS ? 204 : 405;
		return "Max-Forwards: 0";
	}
	*ret_status = 503;
	if (!exchange_charge(ex) || budget_pressure(ex->cx->loop->lease.budget) == BUDGET_HARD)
		return "memory_limit";
	field_host_split(head_text(&ex->head, ex->head.authority), &host, &port);
	found = route_find(ex->cx->routes, host, head_text(&ex->head, ex->head.path), &ex->route);
	if (found != ROUTE_FOUND) {
		*ret_status = found == ROUTE_NONE ? 404 : 400;
		return found == ROUTE_NONE ? "no route" : "path leaves the root";
	}
	ex->pool = ex->cx->pools[ex->route->pool->index];
	if (pool_of(ex)->app != APP_NONE)
		ex->message.upgrade = false; /* own workers have no such thing */
	if (ex->message.has_length && ex->message.length > ex->route->body_limit) {
		*ret_status = 413;
		return "body_limit";
	}
	if (ex->message.upgrade || !ex->route->buffer) {
		if (!pool_stream_enter(ex->pool)) {
			*ret_status = 503;
			return "streams";
		}
		ex->stream_counted = true;
	}
	return NULL;
}

void exchange_request(struct exchange *ex, struct head *h, const struct http1_message *m)
{
	const char *why;
	unsigned status;

	ex->head = *h;
	head_init(h);
	ex->message = *m;
	/*
	 * An upgrade with content has no meaning that both sides share: the content counts, the upgrade is not passed on. Nor is one to
	 * HTTP/2, by which requests would reach the worker that nobody here has seen.
	 */
	if (m->framing != FRAMING_NONE || head_has_element(&ex->head, FIELD_UPGRADE, SLICE("h2c")))
		ex->message.upgrade = false;
	if (exchange_charge(ex) && porter_answered(ex))
		return;
	why = request_refused(ex, &status);
	if (why) {
		exchange_refuse(ex, status, why);
		return;
	}
	if (m->framing == FRAMING_NONE) {
		exchange_dispatch(ex);
		return;
	}
	if (request_body_new(ex) != 0) {
		exchange_refuse(ex, 503, "memory_limit");
		return;
	}
	if (sent_while_received(ex)) {
		ex->open = ex->is_stream = true;
		exchange_dispatch(ex);
	}
}

bool exchange_wants_body(const struct exchange *ex)
{
	const struct body *b = ex->request ? ex->request->body : ex->body;

	return !ex->refused && b && !body_is_finished(b);
}

struct body *exchange_request_body(struct exchange *ex)
{
	return ex->request ? ex->request->body : ex->body;
}

void exchange_body_grew(struct exchange *ex)
{
	struct body *b = exchange_request_body(ex);

	if (!ex->is_tunnel && body_bytes(b) > ex->route->body_limit) {
		if (ex->given)
			cut_later(ex, "body_limit");
		else
			exchange_refuse(ex, 413, "body_limit");
		return;
	}
	if (ex->open && ex->attempt)
		attempt_kick(ex->attempt);
}

void exchange_body_failed(struct exchange *ex, int err)
{
	if (ex->given)
		cut_later(ex, "request body lost");
	else if (err == -ENOMEM)
		exchange_refuse(ex, 503, "memory_limit");
	else
		exchange_refuse(ex, 507, err == -ENOSPC ? "spool_limit or disk full" : "spool error");
}

void exchange_received(struct exchange *ex)
{
	struct body *b = exchange_request_body(ex);

	if (ex->refused || !b)
		return;
	body_finish(b);
	if (ex->open) {
		ex->complete_us = now_us(ex);
		if (ex->attempt)
			attempt_kick(ex->attempt);
		return;
	}
	if (pool_of(ex)->app != APP_NONE && !body_settled(b)) {
		ex->settling = true;
		return;
	}
	exchange_dispatch(ex);
}

static void request_body_room(void *ctx)
{
	struct exchange *ex = ctx;

	if (ex->settling && body_settled(exchange_request_body(ex)))
		exchange_dispatch(ex);
	else if (exchange_wants_body(ex))
		ex->events->room(ex->ctx);
}

static void request_body_ready(void *ctx)
{
	struct exchange *ex = ctx;

	if (ex->attempt)
		attempt_kick(ex->attempt);
}

static void request_body_failed(void *ctx, int err)
{
	struct exchange *ex = ctx;

	if (ex->attempt)
		attempt_kick(ex->attempt); /* it finds out, if it still needs the body */
	else
		exchange_body_failed(ex, err);
}

static const struct body_events request_body_events = {
	.room = request_body_room,
	.ready = request_body_ready,
	.failed = request_body_failed,
};

/* The response comes in. */

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
	if (request_body_new(ex) != 0) {
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

	if (!again_may(&ex->again, pool_of(ex), ex->head.method, how, ex->given || ex->hints > 0 || read_once))
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
		.pool = pool_of(ex)->index,
		.pid = ex->worker_pid,
		.tries = ex->tries,
		.wall_us = loop_wall_us(ex->cx->loop),
		.id = exchange_id(ex) };
	struct poison *p;
	int err;

	if (pool_of(ex)->app == APP_NONE || !pool_of(ex)->quarantine_dir || !ex->cx->poison)
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

	ex->hold_us = now_us(ex) - attempt_begun_us(ex->attempt);
	ex->attempt = NULL;
	if (how != ATTEMPT_WHOLE && how != ATTEMPT_WHOLE_EOF) {
		if (may_replay(ex, how)) {
			response_reset(ex);
			exchange_queue(ex, true);
		} else {
			response_failed(ex, how, why);
		}
		return;
	}
	exchange_enter(ex, EXCHANGE_DRAINING);
	stream_leave(ex);
	ex->eof = how == ATTEMPT_WHOLE_EOF && !ex->is_tunnel;
	ex->response_over = true;
	ex->answered_us = now_us(ex);
	if (ex->given)
		ex->events->progress(ex->ctx);
	else
		give(ex);
}

static const struct attempt_events attempt_events = {
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

/* What the client's side asks. */

struct head *exchange_response(struct exchange *ex)
{
	return &ex->response;
}

struct body *exchange_response_body(struct exchange *ex)
{
	return ex->response_body;
}

bool exchange_response_length(const struct exchange *ex, uint64_t *ret)
{
	if (ex->response_message.has_length && !ex->refused) {
		*ret = ex->response_message.length;
		return true;
	}
	if (!ex->response_over || ex->is_tunnel)
		return false;
	/* What a HEAD would have been answered with, nobody knows, nor what a 304 stands for (RFC 9110, 8.6). */
	if ((ex->head.method == METHOD_HEAD || ex->response.status == 304) && !ex->refused)
		return false;
	*ret = ex->response_body ? body_bytes(ex->response_body) : 0;
	return true;
}

bool exchange_is_answered(const struct exchange *ex)
{
	return ex->response_over;
}

bool exchange_is_tunnel(const struct exchange *ex)
{
	return ex->is_tunnel;
}

bool exchange_is_refused(const struct exchange *ex)
{
	return ex->refused;
}

bool exchange_is_stream(const struct exchange *ex)
{
	return ex->is_stream;
}

uint64_t exchange_stream_idle_ms(const struct exchange *ex)
{
	return pool_of(ex)->stream_idle_timeout_ms;
}

const struct head *exchange_head(const struct exchange *ex)
{
	return &ex->head;
}

struct slice exchange_id(const struct exchange *ex)
{
	return slice_str(ex->request ? ex->request->id : ex->id);
}

void exchange_sent(struct exchange *ex, uint64_t offset)
{
	body_drop(ex->response_body, offset);
	if (ex->attempt && ex->is_stream && body_bytes(ex->response_body) - offset <= STREAM_BYTES)
		attempt_resume(ex->attempt);
}

void exchange_spill(struct exchange *ex)
{
	if (ex->is_stream)
		return;
	if (ex->response_body)
		body_spill(ex->response_body);
	if (exchange_request_body(ex))
		body_spill(exchange_request_body(ex));
}
