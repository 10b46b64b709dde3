#include "proxy/serve/exchange_request.h"

#include "core/fields.h"
#include "proxy/serve/address_text.h"
#include "proxy/serve/exchange_own.h"
#include "proxy/serve/exchange_response.h"

static const struct body_events request_body_events;

/* What an own worker gets is complete, always: its protocol knows nothing else. Its answers may still be streams. */
static bool sent_while_received(const struct exchange *ex)
{
	return !ex->route->buffer && exchange_pool(ex)->app == APP_NONE;
}

int exchange_body_new(struct exchange *ex)
{
	struct body_options o = {
		.memory_max = (size_t)ex->route->body_memory,
		.expected = ex->message.has_length ? ex->message.length : 0,
		.own_file = exchange_pool(ex)->app != APP_NONE,
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
		.keepalive = exchange_pool(ex)->keepalive,
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
	r->tls_version = ex->origin.tls_version;
	r->mount = ex->route->mount;
	r->length_known = !(r->body && ex->open && ex->message.framing == FRAMING_CHUNKED);
	if (r->body)
		r->length = ex->open ? ex->message.length : body_bytes(r->body);
	f.has_body_length = r->body && r->length_known;
	f.body_length = r->length;
	f.chunked = !r->length_known;
	if (exchange_pool(ex)->app != APP_NONE) {
		if (ex->origin.client.server)
			address_text(ex->origin.client.server, r->server_addr, &r->server_port);
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
	return request_charge(r);
}

static void slot_granted(struct waiter *w, struct slot *slot);

static void queue_timed_out(struct timer *t)
{
	exchange_refuse(CONTAINER_OF(t, struct exchange, queue_timer), 503, "queue_timeout");
}

void exchange_queue(struct exchange *ex, bool again)
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
		waited_ms = (exchange_now_us(ex) - ex->waiter.since_us) / 1000;
		loop_timer_set(ex->cx->loop, &ex->queue_timer,
		    waited_ms < exchange_pool(ex)->queue_timeout_ms ? exchange_pool(ex)->queue_timeout_ms - waited_ms : 0);
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
	ex->complete_us = exchange_now_us(ex);
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
	if (exchange_response_new(ex, 0) != 0) {
		pool_release(slot);
		exchange_refuse(ex, 503, "memory_limit");
		return;
	}
	ex->granted_us = exchange_now_us(ex);
	ex->queue_us = ex->granted_us - ex->waiter.since_us;
	ex->request->queue_us = ex->queue_us;
	ex->worker_pid = slot->worker_pid;
	exchange_enter(ex, EXCHANGE_WORKING);
	ex->tries++;
	ex->attempt = attempt_new(ex->cx->loop, slot, ex->request, ex->response_body, &exchange_attempt_events, ex);
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
	if (exchange_pool(ex)->app != APP_NONE)
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

void exchange_take_head(struct exchange *ex, struct head *h, const struct http1_message *m)
{
	ex->head = *h;
	head_init(h);
	ex->message = *m;
}

void exchange_begin(struct exchange *ex)
{
	enum http1_framing framing = ex->message.framing;
	const char *why;
	unsigned status;

	/*
	 * An upgrade with content has no meaning that both sides share: the content counts, the upgrade is not passed on. Nor is one to
	 * HTTP/2, by which requests would reach the worker that nobody here has seen.
	 */
	if (framing != FRAMING_NONE || head_has_element(&ex->head, FIELD_UPGRADE, SLICE("h2c")))
		ex->message.upgrade = false;
	if (exchange_charge(ex) && exchange_porter_answered(ex))
		return;
	why = request_refused(ex, &status);
	if (why) {
		exchange_refuse(ex, status, why);
		return;
	}
	if (framing == FRAMING_NONE) {
		exchange_dispatch(ex);
		return;
	}
	if (exchange_body_new(ex) != 0) {
		exchange_refuse(ex, 503, "memory_limit");
		return;
	}
	if (sent_while_received(ex)) {
		ex->open = ex->is_stream = true;
		exchange_dispatch(ex);
	}
}

void exchange_request(struct exchange *ex, struct head *h, const struct http1_message *m)
{
	exchange_take_head(ex, h, m);
	exchange_begin(ex);
}

void exchange_body_grew(struct exchange *ex)
{
	struct body *b = exchange_request_body(ex);

	if (!ex->is_tunnel && body_bytes(b) > ex->route->body_limit) {
		if (ex->given)
			exchange_cut_later(ex, "body_limit");
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
		exchange_cut_later(ex, "request body lost");
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
		ex->complete_us = exchange_now_us(ex);
		if (ex->attempt)
			attempt_kick(ex->attempt);
		return;
	}
	if (exchange_pool(ex)->app != APP_NONE && !body_settled(b)) {
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
