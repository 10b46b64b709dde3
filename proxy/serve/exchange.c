#include "proxy/serve/exchange.h"

#include <stdlib.h>

#include "proxy/serve/exchange_life.h"

struct exchange *exchange_new(
    struct context *cx, const struct exchange_origin *origin, const struct exchange_events *events, void *ctx)
{
	struct exchange *ex;

	if (!lease_take(&cx->loop->lease, sizeof(*ex)))
		return NULL;
	ex = pieces_take(&cx->loop->pieces, sizeof(*ex));
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
	request_id_next(&cx->ids, ex->id);
	return ex;
}

void exchange_done(struct exchange **ex, const struct exchange_outcome *o)
{
	exchange_end(ex, o, (*ex)->status);
}

void exchange_leave(struct exchange **ex, const struct exchange_outcome *o)
{
	exchange_end(ex, o, (*ex)->given ? (*ex)->status : 499);
}

void exchange_set_line(struct exchange *ex, struct slice line)
{
	free(ex->line);
	ex->line = slice_dup(line);
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
	return exchange_pool(ex)->stream_idle_timeout_ms;
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
