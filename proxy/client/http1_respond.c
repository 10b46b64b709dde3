#include "proxy/client/http1_respond.h"

#define STEPS_AT_ONCE 32          /* sends, before the other connections have their turn */
#define FEW_EVENTS    16          /* that wait in a turn of the loop */
#define SMALL_BYTES   (16u << 10) /* of content that may wait for that of others */

/* The response is out. False: c was freed. */
static bool client_turn_over(struct http1_client *c)
{
	struct exchange_outcome o = { .body_bytes = c->turn->sender.body_sent };
	bool keep = c->turn->keep && !c->cx->draining && c->reading == READING_HELD && !exchange_is_tunnel(c->turn->exchange);

	exchange_done(&c->turn->exchange, &o);
	client_turn_free(c);
	loop_timer_clear(client_loop(c), &c->timer);
	if (!keep) {
		client_linger(c);
		return false; /* it may have been freed; what is left is the loop's */
	}
	client_enter(c, READING_IDLE);
	c->partial_again = c->partial_len > 0;
	if (c->partial_again || c->readable)
		event_active(&c->ev, EV_READ, 0);
	else if (c->peer_closed)
		event_active(&c->ev, EV_READ | EV_CLOSED, 0);
	return true;
}

/* Bytes that the peer has taken since the last look, also of responses before: what went in, less what the socket grew by. */
uint64_t client_newly_acked(struct http1_client *c)
{
	struct turn *t = c->turn;
	uint64_t queued = stream_queued(&c->stream), in = t->sender.body_sent - t->seen_bytes + t->queued_bytes;

	t->seen_bytes = t->sender.body_sent;
	t->queued_bytes = queued;
	return in > queued ? in - queued : 0;
}

/* The socket is full: from now on its peer is waited for. */
static void client_stuck(struct http1_client *c)
{
	struct turn *t = c->turn;

	if (t->stuck && c->member.where == CROWD_WAITING)
		return;
	if (!t->stuck) {
		t->stuck = true;
		(void)client_newly_acked(c);
		rate_begin(&t->rate, client_now_ms(c), c->listen->min_rate_grace_ms);
	}
	loop_timer_set(client_loop(c), &c->timer, CLIENT_CARE_MS);
	if (c->member.where != CROWD_WAITING) {
		crowd_move(c->cx->crowd, &c->member, CROWD_WAITING);
		c->member.since_ms = client_now_ms(c);
		c->member.bytes = 0;
	}
}

/* Sends what there is. False: c was freed. */
bool client_flush(struct http1_client *c)
{
	struct turn *t = c->turn;
	enum sender_step step = SENDER_ON;
	uint64_t before = t->sender.body_sent;
	int err = 0;

	for (int i = 0; i < STEPS_AT_ONCE && step == SENDER_ON; i++)
		step = sender_step(&t->sender, &stream_sink, &c->stream, &err);
	c->member.bytes += t->sender.body_sent - before;
	t->stuck = t->stuck && step == SENDER_FULL;
	if (!t->stuck && c->member.where == CROWD_WAITING && (c->reading == READING_HELD || c->reading == READING_TUNNEL))
		crowd_move(c->cx->crowd, &c->member, CROWD_BUSY);
	if (step == SENDER_ON || step == SENDER_WAIT || t->sender.body_sent != before)
		t->active_ms = client_now_ms(c);
	if (t->sender.body && t->sender.body_sent != before)
		exchange_sent(t->exchange, t->sender.cursor.offset);
	switch (step) {
	case SENDER_ON:
		event_active(&c->ev, EV_WRITE, 0);
		return true;
	case SENDER_FULL:
		client_stuck(c);
		return true;
	case SENDER_WAIT:
	case SENDER_COLD:
		return true;
	case SENDER_ENDED:
		return t->responding ? client_turn_over(c) : true;
	case SENDER_LOST:
		client_cut(c, "response lost in the spool");
		return false;
	case SENDER_ERROR:
		client_close(c, t->responding ? "client left inside the response" : "client left");
		return false;
	}
	return true;
}

/* No content in the response, whatever its head says (RFC 9110, 6.4.1). */
static bool without_content(const struct http1_client *c, unsigned status)
{
	return exchange_head(c->turn->exchange)->method == METHOD_HEAD || status < 200 || status == 204 || status == 304;
}

static int write_response(struct http1_client *c)
{
	struct turn *t = c->turn;
	const struct head *response = exchange_response(t->exchange);
	bool http10 = exchange_head(t->exchange)->version == 10;
	struct forward_response f = {
		.client_version = http10 ? 10 : 11,
		.request_id = exchange_id(t->exchange),
		.upgrade = exchange_is_tunnel(t->exchange),
		.date = date_text(&c->cx->date, loop_wall_us(client_loop(c))),
	};
	int err;

	f.has_length = exchange_response_length(t->exchange, &f.length) && !f.upgrade;
	if (without_content(c, response->status)) {
		if (response->status < 200 || response->status == 204)
			f.has_length = false;
	} else if (!f.has_length && !f.upgrade) {
		f.chunked = !http10;
		t->keep = t->keep && !http10;
	}
	f.close = !t->keep && !f.upgrade;
	f.keep_alive_1_0 = t->keep && http10;
	err = forward_response_wire(response, &f, &t->sender.out);
	if (!err && (!without_content(c, response->status) || f.upgrade) && exchange_response_body(t->exchange))
		sender_body(&t->sender, exchange_response_body(t->exchange), f.chunked);
	return err;
}

void client_looked(struct loop_look *k)
{
	(void)client_flush(CONTAINER_OF(k, struct turn, look)->client);
}

static void client_respond(void *ctx)
{
	struct http1_client *c = ctx;
	struct turn *t = c->turn;
	const struct body *content = exchange_response_body(t->exchange);

	/* What it still has to send of its request nobody wants (RFC 9112, 9.3). */
	if (c->reading != READING_HELD && (!exchange_is_stream(t->exchange) || exchange_is_refused(t->exchange))) {
		t->keep = false;
		client_enter(c, READING_HELD);
	}
	if (c->cx->draining || (c->listen->keepalive_requests && c->requests >= c->listen->keepalive_requests) ||
	    !t->message.keep_alive)
		t->keep = false;
	t->responding = true;
	t->active_ms = client_now_ms(c);
	if (write_response(c) != 0) {
		client_cut(c, "memory_limit");
		return;
	}
	client_watch_stream(c);
	/*
	 * Behind what this turn of the loop has to do already, if that is little, and behind what the kernel has to tell by then if workers are
	 * at more: they get their next requests before clients their answers, and clients that are woken together cost less than one by one.
	 * Not what is still coming: it could be cut by then, and the client would not even hear how it began. Nor what is large: of what that
	 * takes, waking its client is little.
	 */
	if (!exchange_is_answered(t->exchange) || (content && body_bytes(content) > SMALL_BYTES) ||
	    event_base_get_num_events(client_loop(c)->base, EVENT_BASE_COUNT_ACTIVE) > FEW_EVENTS) {
		(void)client_flush(c);
		return;
	}
	if (!crowd_others_busy(c->cx->crowd, &c->member) || !loop_look(client_loop(c), &t->look))
		event_active(&c->ev, EV_WRITE, 0);
}

static void client_progress(void *ctx)
{
	struct http1_client *c = ctx;

	if (!c->turn->stuck)
		(void)client_flush(c);
}

static void client_interim(void *ctx, const struct head *head)
{
	struct http1_client *c = ctx;
	const struct forward_response f = { .client_version = 11, .request_id = exchange_id(c->turn->exchange) };

	if (c->turn->stuck)
		return; /* a hint that comes late is none */
	if (forward_response_wire(head, &f, &c->turn->sender.out) == 0)
		(void)client_flush(c);
}

static void client_room(void *ctx)
{
	struct http1_client *c = ctx;

	event_active(&c->ev, EV_READ, 0);
}

static void client_upgraded(void *ctx)
{
	struct http1_client *c = ctx;

	c->turn->keep = false;
	c->turn->responding = true;
	client_enter(c, READING_TUNNEL);
	c->partial_again = c->partial_len > 0;
	c->turn->active_ms = client_now_ms(c);
	if (write_response(c) != 0) {
		client_cut(c, "memory_limit");
		return;
	}
	client_watch_stream(c);
	event_active(&c->ev, EV_READ, 0);
	(void)client_flush(c);
}

static void client_response_cut(void *ctx)
{
	client_cut(ctx, "worker ended inside its answer");
}

const struct exchange_events client_exchange_events = {
	.respond = client_respond,
	.progress = client_progress,
	.interim = client_interim,
	.room = client_room,
	.ready = client_progress,
	.upgraded = client_upgraded,
	.cut = client_response_cut,
};
