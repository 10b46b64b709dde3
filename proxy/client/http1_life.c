#include "proxy/client/http1_life.h"

#include <stdlib.h>

#include "proxy/client/guard.h"

#define LINGER_MS 2000 /* for the peer to take our last words (RFC 9112, 9.6) */

#define TOO_SLOW SLICE("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

static const unsigned may_follow[] = {
	[READING_IDLE] = TO(READING_HEAD) | TO(READING_LINGER),
	[READING_HEAD] = TO(READING_LENGTH) | TO(READING_CHUNKED) | TO(READING_HELD),
	[READING_LENGTH] = TO(READING_HELD) | TO(READING_LINGER),
	[READING_CHUNKED] = TO(READING_HELD) | TO(READING_LINGER),
	[READING_HELD] = TO(READING_IDLE) | TO(READING_TUNNEL) | TO(READING_LINGER),
	[READING_TUNNEL] = TO(READING_HELD) | TO(READING_LINGER),
	[READING_LINGER] = 0,
};
static_assert(ARRAY_LEN(may_follow) == READING_COUNT, "a row for each state");

struct loop *client_loop(const struct http1_client *c)
{
	return c->cx->loop;
}

uint64_t client_now_ms(const struct http1_client *c)
{
	return loop_now_ms(client_loop(c));
}

/* The only writer of c->reading; what a state waits for, and for how long, is set up here too. */
void client_enter(struct http1_client *c, enum reading next)
{
	assert(may_follow[c->reading] & TO(next));
	c->reading = (uint8_t)next;
	c->member.since_ms = client_now_ms(c);
	c->member.bytes = 0;
	switch (next) {
	case READING_IDLE:
		crowd_move(c->cx->crowd, &c->member, CROWD_IDLE);
		loop_timer_set(client_loop(c), &c->timer, c->listen->idle_timeout_ms);
		break;
	case READING_HEAD:
		c->member.fresh = false;
		crowd_move(c->cx->crowd, &c->member, CROWD_WAITING);
		if (c->requests > 0) /* the first one's time runs from accept on */
			loop_timer_set(client_loop(c), &c->timer, c->listen->head_timeout_ms);
		break;
	case READING_LENGTH:
	case READING_CHUNKED:
		crowd_move(c->cx->crowd, &c->member, CROWD_WAITING);
		rate_begin(&c->turn->rate, client_now_ms(c), c->listen->min_rate_grace_ms);
		loop_timer_set(client_loop(c), &c->timer, CLIENT_CARE_MS);
		break;
	case READING_HELD:
		c->readable = c->readable && !c->drained;
		crowd_move(c->cx->crowd, &c->member, CROWD_BUSY);
		break;
	case READING_TUNNEL:
		crowd_move(c->cx->crowd, &c->member, CROWD_BUSY);
		break;
	case READING_LINGER:
		crowd_move(c->cx->crowd, &c->member, CROWD_WAITING);
		loop_timer_set(client_loop(c), &c->timer, LINGER_MS);
		break;
	case READING_COUNT:
		break;
	}
}

void client_partial_free(struct http1_client *c)
{
	if (c->partial)
		lease_give(&client_loop(c)->lease, c->partial_len);
	free(c->partial);
	c->partial = NULL;
	c->partial_len = 0;
	c->partial_again = false;
}

void client_turn_free(struct http1_client *c)
{
	if (!c->turn)
		return;
	loop_look_cancel(&c->turn->look);
	sender_done(&c->turn->sender);
	pieces_give(&client_loop(c)->pieces, c->turn, sizeof(*c->turn));
	c->turn = NULL;
	lease_give(&client_loop(c)->lease, sizeof(*c->turn));
}

/* Closes at once, in any state. Frees c. */
void client_close(struct http1_client *c, const char *why)
{
	struct context *cx = c->cx;
	struct exchange_outcome o = { .reason = why };

	if (c->turn) {
		o.body_bytes = c->turn->sender.body_sent;
		o.cut = c->turn->responding;
		if (c->turn->exchange)
			exchange_leave(&c->turn->exchange, &o);
		client_turn_free(c);
	}
	if (c->reading == READING_IDLE)
		stream_farewell(&c->stream);
	client_partial_free(c);
	loop_timer_clear(cx->loop, &c->timer);
	crowd_move(cx->crowd, &c->member, CROWD_NONE);
	event_del(&c->ev);
	stream_close(&c->stream);
	guard_leave(cx->guard, &c->peer.any, c->listen->connections_per_address);
	lease_give(&cx->loop->lease, sizeof(*c));
	free(c);
	cx->left(cx->left_ctx);
}

/* What was sent of a response must not look whole: the peer sees a reset (RFC 9112, 8). Frees c. */
void client_cut(struct http1_client *c, const char *why)
{
	stream_cut(&c->stream);
	client_close(c, why);
}

void client_turn_away(struct http1_client *c, unsigned status, const char *why)
{
	struct turn *t = c->turn;

	if (t && (t->responding || c->reading == READING_TUNNEL)) {
		client_cut(c, why);
		return;
	}
	if (t || c->reading == READING_HEAD)
		stream_say(&c->stream, status == 408 ? TOO_SLOW : CLIENT_NO_ROOM);
	if (t)
		exchange_refuse(t->exchange, status, why);
	client_close(c, why);
}

/* Our last words are out: closing now could destroy them on their way if the peer still sends. */
void client_linger(struct http1_client *c)
{
	int err = c->broken ? -ECONNRESET : stream_end(&c->stream);

	if (err && err != -EAGAIN) {
		client_close(c, NULL);
		return;
	}
	c->unended = err == -EAGAIN;
	client_partial_free(c);
	client_enter(c, READING_LINGER);
	event_active(&c->ev, EV_READ, 0);
}

bool client_linger_on(struct http1_client *c)
{
	int err = stream_end(&c->stream);

	c->unended = err == -EAGAIN;
	if (!err || err == -EAGAIN)
		return true;
	client_close(c, NULL);
	return false;
}

/* True: it has gone, as far as a request goes that is not yet in work. */
bool client_has_left(const struct http1_client *c)
{
	return c->broken || (c->peer_closed && !c->listen->half_close);
}

/* A stream that has begun may be silent for so long; while its request is still received, that has limits of its own. */
void client_watch_stream(struct http1_client *c)
{
	struct turn *t = c->turn;

	if (t->responding && !t->stuck && exchange_is_stream(t->exchange) && c->reading != READING_LENGTH &&
	    c->reading != READING_CHUNKED)
		loop_timer_set(client_loop(c), &c->timer, exchange_stream_idle_ms(t->exchange));
}
