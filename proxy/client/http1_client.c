#include "proxy/client/http1_client.h"

#include <stdlib.h>

#include "proxy/client/http1_receive.h"
#include "proxy/client/http1_respond.h"

/* It may be silent for long, but not for ever. */
static void client_care_for_stream(struct http1_client *c)
{
	uint64_t idle_max = exchange_stream_idle_ms(c->turn->exchange), idle = client_now_ms(c) - c->turn->active_ms;

	if (idle >= idle_max)
		client_cut(c, "stream_idle_timeout");
	else
		loop_timer_set(client_loop(c), &c->timer, idle_max - idle);
}

/* Every second while the peer is waited for: does it keep to the least rate, and is it slow enough to go to disk? */
static void client_care(struct http1_client *c)
{
	struct turn *t = c->turn;
	bool receiving = c->reading == READING_LENGTH || c->reading == READING_CHUNKED;
	uint64_t now = client_now_ms(c);

	if (!receiving && !t->stuck) {
		if (exchange_is_stream(t->exchange))
			client_care_for_stream(c);
		return;
	}
	if (t->responding && exchange_is_stream(t->exchange) && now - t->active_ms >= exchange_stream_idle_ms(t->exchange)) {
		client_cut(c, "stream_idle_timeout");
		return;
	}
	loop_timer_set(client_loop(c), &c->timer, CLIENT_CARE_MS);
	if (t->stuck && c->listen->min_rate > 0)
		rate_credit(&t->rate, client_newly_acked(c), now, c->listen->min_rate, c->listen->min_rate_grace_ms);
	if (receiving && (t->starved || body_full(exchange_request_body(t->exchange))))
		rate_begin(&t->rate, now, c->listen->min_rate_grace_ms); /* it waits for us */
	if (c->listen->min_rate > 0 && rate_broken(&t->rate, now)) {
		if (t->responding || t->stuck) { /* nor would it take our word for that */
			client_cut(c, "min_rate");
			return;
		}
		t->keep = false;
		exchange_refuse(t->exchange, 408, "min_rate");
		client_enter(c, READING_HELD);
		loop_timer_clear(client_loop(c), &c->timer);
		return;
	}
	exchange_spill(t->exchange);
	if (t->starved) {
		t->starved = false;
		event_active(&c->ev, EV_READ, 0);
	}
}

static void client_timer(struct timer *timer)
{
	struct http1_client *c = CONTAINER_OF(timer, struct http1_client, timer);

	switch ((enum reading)c->reading) {
	case READING_IDLE:
	case READING_LINGER:
		client_close(c, NULL);
		return;
	case READING_HEAD:
		(void)client_refuse(c, slice_of(c->partial, c->partial_len), 408, "head_timeout");
		return;
	case READING_LENGTH:
	case READING_CHUNKED:
	case READING_HELD:
	case READING_TUNNEL:
		if (c->turn)
			client_care(c);
		return;
	case READING_COUNT:
		return;
	}
}

static void client_evict(struct crowd_member *m, const char *why)
{
	struct http1_client *c = CONTAINER_OF(m, struct http1_client, member);

	if (c->reading == READING_HEAD)
		(void)client_turn_new(c); /* for the access log */
	client_turn_away(c, c->reading == READING_HELD ? 503 : 408, why);
}

static void client_spill(struct crowd_member *m)
{
	struct http1_client *c = CONTAINER_OF(m, struct http1_client, member);

	if (c->turn)
		exchange_spill(c->turn->exchange);
}

static bool client_is_quiet(struct crowd_member *m)
{
	struct http1_client *c = CONTAINER_OF(m, struct http1_client, member);

	return !c->partial_again && stream_is_quiet(&c->stream);
}

static const struct crowd_acts crowd_acts = { .evict = client_evict, .spill = client_spill, .is_quiet = client_is_quiet };

static void client_event(evutil_socket_t fd UNUSED, short what, void *ctx)
{
	struct http1_client *c = ctx;

	loop_callback(client_loop(c));
	if (what & EV_CLOSED)
		c->peer_closed = true;
	if ((what & EV_WRITE) && c->unended && !client_linger_on(c))
		return;
	if (what & (EV_READ | EV_CLOSED)) {
		c->readable = true;
		c->drained = false; /* this edge came after that read */
		stream_edge(&c->stream, what & EV_CLOSED);
	}
	if (c->reading == READING_HELD && c->readable)
		c->broken = c->broken || stream_is_broken(&c->stream);
	if ((what & EV_WRITE) && c->turn && (c->turn->responding || sender_out_left(&c->turn->sender) > 0) && !client_flush(c))
		return;
	(void)client_read(c);
}

int http1_client_new(struct context *cx, struct arrival *a)
{
	struct http1_client *c = NULL;

	if (lease_take(&cx->loop->lease, sizeof(*c))) {
		c = calloc(1, sizeof(*c));
		if (!c)
			lease_give(&cx->loop->lease, sizeof(*c));
	}
	if (!c) {
		stream_say(&a->stream, CLIENT_NO_ROOM);
		return -ENOMEM;
	}
	c->cx = cx;
	c->listen = a->listen;
	c->local = a->local;
	c->peer = a->peer;
	stream_move(&c->stream, &a->stream);
	c->timer.fire = client_timer;
	c->member.acts = &crowd_acts;
	c->member.since_ms = client_now_ms(c);
	c->member.fresh = true;
	crowd_move(cx->crowd, &c->member, CROWD_IDLE);
	loop_timer_set(cx->loop, &c->timer, c->listen->head_timeout_ms);
	event_assign(
	    &c->ev, cx->loop->base, c->stream.fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST, client_event, c);
	if (event_add(&c->ev, NULL) == -1) {
		loop_timer_clear(cx->loop, &c->timer);
		crowd_move(cx->crowd, &c->member, CROWD_NONE);
		stream_move(&a->stream, &c->stream);
		lease_give(&cx->loop->lease, sizeof(*c));
		free(c);
		return -ENOMEM;
	}
	if (a->seen)
		event_active(&c->ev, a->seen, 0);
	return 0;
}
