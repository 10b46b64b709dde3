#include "proxy/client/http2_life.h"

#include <stdlib.h>

#include "core/log.h"
#include "proxy/client/guard.h"

#define LINGER_MS 2000 /* for the peer to take our last words */

static const unsigned phases_after[] = {
	[HTTP2_OPEN] = TO(HTTP2_NOTICE) | TO(HTTP2_LAST) | TO(HTTP2_LINGER),
	[HTTP2_NOTICE] = TO(HTTP2_LAST) | TO(HTTP2_LINGER),
	[HTTP2_LAST] = TO(HTTP2_LINGER),
	[HTTP2_LINGER] = 0,
};
static_assert(ARRAY_LEN(phases_after) == HTTP2_PHASE_COUNT, "a row for each phase");

static const unsigned readings_after[] = {
	[HTTP2_HEAD] = TO(HTTP2_CONTENT) | TO(HTTP2_HELD),
	[HTTP2_CONTENT] = TO(HTTP2_HELD),
	[HTTP2_HELD] = TO(HTTP2_TUNNEL),
	[HTTP2_TUNNEL] = TO(HTTP2_HELD),
};
static_assert(ARRAY_LEN(readings_after) == HTTP2_READING_COUNT, "a row for each state");

struct loop *http2_loop(const struct http2_client *c)
{
	return c->cx->loop;
}

uint64_t http2_now_ms(const struct http2_client *c)
{
	return loop_now_ms(http2_loop(c));
}

void http2_enter(struct http2_client *c, enum http2_phase next)
{
	assert(phases_after[c->phase] & TO(next));
	c->phase = (uint8_t)next;
}

void http2_read_enter(struct http2_stream *s, enum http2_reading next)
{
	struct http2_client *c = s->client;

	assert(readings_after[s->reading] & TO(next));
	c->receiving -= s->reading == HTTP2_CONTENT;
	s->reading = (uint8_t)next;
	if (next == HTTP2_CONTENT) {
		c->receiving++;
		rate_begin(&s->rate, http2_now_ms(c), c->listen->min_rate_grace_ms);
	}
}

/* Streams. */

struct http2_stream *http2_stream_new(struct http2_client *c, int32_t id)
{
	struct http2_stream *s;

	if (!lease_take(&http2_loop(c)->lease, sizeof(*s)))
		return NULL;
	s = pieces_take(&http2_loop(c)->pieces, sizeof(*s));
	if (!s) {
		lease_give(&http2_loop(c)->lease, sizeof(*s));
		return NULL;
	}
	*s = (struct http2_stream){ .client = c, .id = id, .next = &c->streams, .prev = c->streams.prev };
	s->prev->next = s;
	c->streams.prev = s;
	c->stream_count++;
	c->member.fresh = false;
	return s;
}

void http2_stream_sending(struct http2_stream *s, bool sending)
{
	s->client->sending += sending;
	s->client->sending -= s->sending;
	s->sending = sending;
}

void http2_answered_add(struct http2_stream *s)
{
	struct http2_client *c = s->client;

	s->answered_at = c->answered_end;
	s->next_answered = NULL;
	*c->answered_end = s;
	c->answered_end = &s->next_answered;
	c->answered_count++;
}

void http2_answered_remove(struct http2_stream *s)
{
	struct http2_client *c = s->client;

	if (!s->answered_at)
		return;
	*s->answered_at = s->next_answered;
	if (s->next_answered)
		s->next_answered->answered_at = s->answered_at;
	else
		c->answered_end = s->answered_at;
	s->answered_at = NULL;
	c->answered_count--;
}

void http2_stream_leave(struct http2_stream *s, const char *why)
{
	struct exchange_outcome o = { .body_bytes = s->sent_bytes, .reason = why };

	if (s->client->fields_of == s)
		s->client->fields_of = NULL;
	if (s->reading == HTTP2_HEAD || s->reading == HTTP2_CONTENT || s->reading == HTTP2_TUNNEL)
		http2_read_enter(s, HTTP2_HELD);
	http2_stream_sending(s, false);
	http2_answered_remove(s);
	s->client->passing -= s->passing;
	s->passing = false;
	if (!s->exchange)
		return;
	if (s->over && !why) {
		exchange_done(&s->exchange, &o);
		return;
	}
	o.cut = s->responding;
	exchange_leave(&s->exchange, &o);
}

void http2_stream_reset(struct http2_stream *s, uint32_t code, unsigned status, const char *why)
{
	if (s->exchange && status && !s->responding)
		exchange_refuse(s->exchange, status, why);
	http2_stream_leave(s, why);
	if (!s->closed && nghttp2_submit_rst_stream(s->client->session, NGHTTP2_FLAG_NONE, s->id, code) != 0)
		s->client->broken = true;
	http2_kick(s->client);
}

static void stream_free(struct http2_stream *s)
{
	struct http2_client *c = s->client;

	http2_stream_leave(s, s->why);
	s->prev->next = s->next;
	s->next->prev = s->prev;
	c->stream_count--;
	if (c->stream_count == 0)
		c->idle_since_ms = http2_now_ms(c);
	pieces_give(&http2_loop(c)->pieces, s, sizeof(*s));
	lease_give(&http2_loop(c)->lease, sizeof(*s));
}

void http2_reap(struct http2_client *c)
{
	struct http2_stream **at = &c->closed, *s;

	while ((s = *at)) {
		if (s->touched || (s->over && s->exchange && c->pending_len > 0)) {
			at = &s->next_closed;
			continue;
		}
		*at = s->next_closed;
		stream_free(s);
	}
}

/* Where it stands. */

static uint64_t stream_idle_due(const struct http2_client *c)
{
	uint64_t due = UINT64_MAX;

	for (const struct http2_stream *s = c->streams.next; s != &c->streams; s = s->next)
		if (s->passing && s->exchange)
			due = MIN(due, s->active_ms + exchange_stream_idle_ms(s->exchange));
	return due;
}

static uint64_t next_due(const struct http2_client *c, uint64_t now)
{
	uint64_t due = UINT64_MAX;

	if (c->phase == HTTP2_LINGER)
		return c->linger_ms + LINGER_MS;
	if (c->in_fields)
		due = c->fields_begun_ms + c->listen->head_timeout_ms;
	if (c->phase == HTTP2_NOTICE)
		due = MIN(due, c->notice_ms + HTTP2_CARE_MS);
	if (c->starved)
		due = MIN(due, now + HTTP2_STARVED_MS);
	if (c->receiving > 0 || c->sending > 0 || c->pending_len > 0)
		due = MIN(due, now + HTTP2_CARE_MS);
	if (c->passing > 0)
		due = MIN(due, stream_idle_due(c));
	if (c->stream_count == 0)
		due = MIN(due, c->idle_since_ms + (c->member.fresh ? c->listen->head_timeout_ms : c->listen->idle_timeout_ms));
	return due;
}

static enum crowd_list crowd_place(const struct http2_client *c)
{
	if (c->phase == HTTP2_LINGER || c->receiving > 0 || c->sending > 0 || c->pending_len > 0 || c->in_fields)
		return CROWD_WAITING;
	return c->stream_count > 0 ? CROWD_BUSY : CROWD_IDLE;
}

/* The timer is never moved back: what is due later is found out when it fires. */
void http2_settle(struct http2_client *c)
{
	uint64_t now = http2_now_ms(c), due = next_due(c, now);
	enum crowd_list place = crowd_place(c);

	if (c->member.where != place) {
		crowd_move(c->cx->crowd, &c->member, place);
		c->member.since_ms = now;
		c->member.bytes = 0;
	}
	if (due == UINT64_MAX || (timer_is_set(&c->timer) && c->timer_due_ms <= due))
		return;
	c->timer_due_ms = due;
	loop_timer_set(http2_loop(c), &c->timer, due > now ? due - now : 0);
}

void http2_kick(struct http2_client *c)
{
	if (!c->stuck)
		event_active(&c->ev, EV_WRITE, 0);
}

/* Its end. */

void http2_notice(struct http2_client *c)
{
	if (c->phase != HTTP2_OPEN)
		return;
	http2_enter(c, HTTP2_NOTICE);
	c->notice_ms = http2_now_ms(c);
	/* The answer to the PING tells that the notice was read: what comes behind it was sent knowingly (RFC 9113, 6.8). */
	if (nghttp2_submit_shutdown_notice(c->session) != 0 || nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL) != 0)
		c->broken = true;
	http2_kick(c);
}

void http2_last(struct http2_client *c)
{
	if (c->phase >= HTTP2_LAST)
		return;
	http2_enter(c, HTTP2_LAST);
	if (nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->session),
	        NGHTTP2_NO_ERROR, NULL, 0) != 0)
		c->broken = true;
	http2_kick(c);
}

static void streams_leave(struct http2_client *c, const char *why)
{
	for (struct http2_stream *s = c->streams.next; s != &c->streams; s = s->next) {
		if (!s->why)
			s->why = why;
		http2_stream_leave(s, s->over && c->pending_len == 0 ? NULL : s->why);
	}
}

static void streams_refuse(struct http2_client *c, const char *why)
{
	for (struct http2_stream *s = c->streams.next; s != &c->streams; s = s->next)
		if (s->exchange && !s->responding)
			exchange_refuse(s->exchange, s->reading == HTTP2_HELD ? 503 : 408, why);
}

void http2_fail(struct http2_client *c, uint32_t code, const char *why)
{
	if (c->failed)
		return;
	c->failed = why;
	if (!c->told)
		log_warning("peer=%s listen=%s http2=goaway code=%s reason=\"%s\"", c->peer_text, c->listen->name,
		    nghttp2_http2_strerror(code), why);
	c->told = true;
	streams_leave(c, why);
	if (nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->session), code,
	        (const uint8_t *)why, strlen(why)) != 0)
		c->broken = true;
	if (c->phase < HTTP2_LAST)
		http2_enter(c, HTTP2_LAST);
	http2_kick(c);
}

void http2_pending_free(struct http2_client *c)
{
	if (c->pending)
		lease_give(&http2_loop(c)->lease, c->pending_len);
	free(c->pending);
	c->pending = NULL;
	c->pending_len = c->pending_sent = 0;
}

void http2_close(struct http2_client *c, const char *why)
{
	struct context *cx = c->cx;

	if (c->pending_len > 0)
		stream_cut(&c->stream); /* what is out ends within a frame */
	streams_leave(c, why);
	for (struct http2_stream *s = c->streams.next, *next; s != &c->streams; s = next) {
		next = s->next;
		stream_free(s);
	}
	http2_pending_free(c);
	if (c->block)
		loop_block_give(cx->loop, c->block);
	http2_fields_done(&c->fields);
	nghttp2_session_del(c->session);
	loop_timer_clear(cx->loop, &c->timer);
	crowd_move(cx->crowd, &c->member, CROWD_NONE);
	event_del(&c->ev);
	loop_look_cancel(&c->look);
	stream_close(&c->stream);
	guard_leave(cx->guard, &c->peer.any, c->listen->connections_per_address);
	lease_give(&cx->loop->lease, sizeof(*c));
	free(c);
	cx->left(cx->left_ctx);
}

void http2_cut(struct http2_client *c, const char *why)
{
	stream_cut(&c->stream);
	http2_close(c, why);
}

void http2_goodbye(struct http2_client *c, uint32_t code, const char *why)
{
	const uint8_t *bytes;
	ssize_t n;

	streams_refuse(c, why);
	streams_leave(c, why);
	if (c->phase < HTTP2_LINGER && c->pending_len == 0 && !c->failed) {
		(void)nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->session),
		    code, (const uint8_t *)why, why ? strlen(why) : 0);
		while ((n = nghttp2_session_mem_send(c->session, &bytes)) > 0)
			stream_say(&c->stream, slice_of((const char *)bytes, (size_t)n));
	}
	http2_close(c, why);
}

void http2_linger(struct http2_client *c)
{
	int err = c->broken ? -EPIPE : stream_end(&c->stream);

	if (err == -EAGAIN) {
		c->stuck = true;
		http2_settle(c);
		return;
	}
	if (err || c->peer_closed) {
		http2_close(c, c->failed);
		return;
	}
	streams_leave(c, c->failed ? c->failed : "connection ended");
	http2_enter(c, HTTP2_LINGER);
	c->linger_ms = http2_now_ms(c);
	http2_settle(c);
	event_active(&c->ev, EV_READ, 0);
}
