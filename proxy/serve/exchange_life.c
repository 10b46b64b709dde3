#include "proxy/serve/exchange_life.h"

#include <arpa/inet.h>
#include <stdlib.h>

static const unsigned may_follow[] = {
	[EXCHANGE_RECEIVING] = TO(EXCHANGE_QUEUED) | TO(EXCHANGE_DRAINING) | TO(EXCHANGE_DONE),
	[EXCHANGE_QUEUED] = TO(EXCHANGE_WORKING) | TO(EXCHANGE_DRAINING) | TO(EXCHANGE_DONE),
	[EXCHANGE_WORKING] = TO(EXCHANGE_QUEUED) | TO(EXCHANGE_DRAINING) | TO(EXCHANGE_DONE),
	[EXCHANGE_DRAINING] = TO(EXCHANGE_DONE),
	[EXCHANGE_DONE] = 0,
};
static_assert(ARRAY_LEN(may_follow) == EXCHANGE_STATE_COUNT, "a row for each state");

void exchange_enter(struct exchange *ex, enum exchange_state next)
{
	assert(may_follow[ex->state] & TO(next));
	ex->state = next;
}

bool exchange_charge(struct exchange *ex)
{
	size_t now = sizeof(*ex) + head_memory(&ex->head) + head_memory(&ex->response);

	if (now > ex->charged && !lease_take(&ex->cx->loop->lease, now - ex->charged))
		return false;
	if (now < ex->charged)
		lease_give(&ex->cx->loop->lease, ex->charged - now);
	ex->charged = now;
	return true;
}

void exchange_stream_leave(struct exchange *ex)
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
		pieces_give(&ex->cx->loop->pieces, ex, sizeof(*ex));
}

static uint64_t span_us(uint64_t from, uint64_t to)
{
	return from && to ? to - from : UINT64_MAX;
}

static void exchange_log(struct exchange *ex, const struct exchange_outcome *o, unsigned status)
{
	struct body *body = exchange_request_body(ex);
	uint64_t now = exchange_now_us(ex);
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

void exchange_let_go(struct exchange *ex)
{
	bool unfinished = ex->open && ex->request && ex->request->body && !body_is_finished(ex->request->body);

	ex->settling = false;
	loop_timer_clear(ex->cx->loop, &ex->queue_timer);
	if (ex->state == EXCHANGE_QUEUED)
		pool_cancel(ex->pool, &ex->waiter);
	if (!ex->attempt)
		return;
	ex->hold_us = exchange_now_us(ex) - attempt_begun_us(ex->attempt);
	if (unfinished || ex->is_stream)
		attempt_abort(ex->attempt);
	else
		attempt_detach(ex->attempt);
	ex->attempt = NULL;
}

void exchange_end(struct exchange **ex, const struct exchange_outcome *o, unsigned status)
{
	struct exchange *old = *ex;

	*ex = NULL;
	exchange_let_go(old);
	exchange_stream_leave(old);
	if (old->cx->access)
		exchange_log(old, o, status);
	exchange_enter(old, EXCHANGE_DONE);
	exchange_free(old);
}
