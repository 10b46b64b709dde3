#include "proxy/client/http2_client.h"

#include <stdlib.h>

#include "proxy/client/http2_receive.h"
#include "proxy/client/http2_respond.h"
#include "proxy/serve/address_text.h"

#define LOOKS_MAX  8           /* at the kernel, for more answers */
#define LOOK_BYTES (64u << 10) /* of answers, which are worth a write of their own */

/* ---- does the peer keep to the least rate, and is it slow enough to go to disk? ---- */

/* Bytes that the peer has taken since the last look: what went in, less what the socket grew by. */
static uint64_t newly_acked(struct http2_client *c)
{
	uint64_t queued = stream_queued(&c->stream), in = c->out_bytes - c->seen_bytes + c->queued_bytes;

	c->seen_bytes = c->out_bytes;
	c->queued_bytes = queued;
	return in > queued ? in - queued : 0;
}

/*
 * A response that waits for its client. If the stream's own window is shut, what counts is what went by this stream, and siblings share the
 * connection's rate; else what the connection took.
 */
static void credit_sending(struct http2_stream *s, uint64_t acked, uint64_t now)
{
	const struct http2_client *c = s->client;
	bool shut = nghttp2_session_get_stream_remote_window_size(c->session, s->id) <= 0;
	uint64_t n = shut ? (s->sent_bytes - s->seen_bytes) * c->sending : acked;

	s->seen_bytes = s->sent_bytes;
	if (!s->slow) {
		s->slow = true;
		rate_begin(&s->rate, now, c->listen->min_rate_grace_ms);
		return;
	}
	rate_credit(&s->rate, n, now, c->listen->min_rate, c->listen->min_rate_grace_ms);
}

/* False: c was freed. */
static bool too_slow(struct http2_stream *s)
{
	struct http2_client *c = s->client;

	if (c->pending_len > 0) { /* nor would it take our word for that */
		http2_cut(c, "min_rate");
		return false;
	}
	if (s->responding) {
		http2_stream_reset(s, NGHTTP2_CANCEL, 0, "min_rate");
		return true;
	}
	http2_read_enter(s, HTTP2_HELD);
	exchange_refuse(s->exchange, 408, "min_rate");
	return true;
}

static bool is_silent(const struct http2_stream *s, uint64_t now)
{
	return s->passing && now >= s->active_ms + exchange_stream_idle_ms(s->exchange);
}

/* False: c was freed. */
static bool care_for(struct http2_stream *s, uint64_t acked, uint64_t now)
{
	struct http2_client *c = s->client;
	bool receiving = s->reading == HTTP2_CONTENT;

	if (is_silent(s, now)) {
		http2_stream_reset(s, NGHTTP2_CANCEL, 0, "stream_idle_timeout");
		return true;
	}
	if (!receiving && !s->sending) {
		s->slow = false;
		return true;
	}
	if (c->listen->min_rate > 0 && s->sending)
		credit_sending(s, acked, now);
	if (receiving && s->kept_window > 0)
		rate_begin(&s->rate, now, c->listen->min_rate_grace_ms); /* it waits for us */
	if (c->listen->min_rate > 0 && rate_broken(&s->rate, now))
		return too_slow(s);
	exchange_spill(s->exchange);
	return true;
}

/* False: c was freed. */
static bool care(struct http2_client *c, uint64_t now)
{
	uint64_t acked = newly_acked(c);

	for (struct http2_stream *s = c->streams.next; s != &c->streams; s = s->next)
		if (s->exchange && !care_for(s, acked, now))
			return false;
	if (c->pending_len > 0 && acked > 0)
		c->pending_since_ms = now;
	if (c->pending_len > 0 && c->listen->min_rate > 0 &&
	    now >= c->pending_since_ms + c->listen->min_rate_grace_ms + HTTP2_CARE_MS) {
		http2_cut(c, "min_rate"); /* what it does not take belongs to no response any more */
		return false;
	}
	return true;
}

static void http2_timer(struct timer *timer)
{
	struct http2_client *c = CONTAINER_OF(timer, struct http2_client, timer);
	uint64_t now = http2_now_ms(c);

	if (c->phase == HTTP2_LINGER) {
		http2_close(c, c->failed);
		return;
	}
	if (c->stream_count == 0 && !c->in_fields &&
	    now >= c->idle_since_ms + (c->member.fresh ? c->listen->head_timeout_ms : c->listen->idle_timeout_ms)) {
		http2_goodbye(c, NGHTTP2_NO_ERROR, NULL);
		return;
	}
	if (c->in_fields && now >= c->fields_begun_ms + c->listen->head_timeout_ms) {
		http2_goodbye(c, NGHTTP2_ENHANCE_YOUR_CALM, "head_timeout");
		return;
	}
	if (c->phase == HTTP2_NOTICE && now >= c->notice_ms + HTTP2_CARE_MS)
		http2_last(c);
	if (c->starved)
		http2_feed(c);
	if (!care(c, now))
		return;
	http2_reap(c);
	http2_settle(c);
}

/* ---- what the crowd asks ---- */

static void http2_evict(struct crowd_member *m, const char *why)
{
	struct http2_client *c = CONTAINER_OF(m, struct http2_client, member);

	if (c->stream_count == 0)
		http2_goodbye(c, NGHTTP2_NO_ERROR, NULL);
	else
		http2_goodbye(c, NGHTTP2_ENHANCE_YOUR_CALM, why);
}

static void http2_spill(struct crowd_member *m)
{
	struct http2_client *c = CONTAINER_OF(m, struct http2_client, member);

	for (struct http2_stream *s = c->streams.next; s != &c->streams; s = s->next)
		if (s->exchange)
			exchange_spill(s->exchange);
}

static bool http2_is_quiet(struct crowd_member *m)
{
	struct http2_client *c = CONTAINER_OF(m, struct http2_client, member);

	return stream_is_quiet(&c->stream);
}

static void http2_drain(struct crowd_member *m)
{
	http2_notice(CONTAINER_OF(m, struct http2_client, member));
}

static const struct crowd_acts crowd_acts = {
	.evict = http2_evict, .spill = http2_spill, .is_quiet = http2_is_quiet, .drain = http2_drain
};

/* ---- events ---- */

/*
 * More answers are awaited, and the last look at the kernel has brought some: another look costs much less than to send these and those
 * one after the other.
 */
static bool worth_a_look(const struct http2_client *c)
{
	return c->answered_count > c->looked_count && c->stream_count > c->answered_count && c->looks < LOOKS_MAX &&
	       c->answered_bytes < LOOK_BYTES;
}

/*
 * The answers of one turn go out together: what is active already may bring more of them, and a batch costs much the same whatever its
 * size. Once only, so that there is an end to waiting. May free c.
 */
static void flush_behind_others(struct http2_client *c)
{
	if (!c->behind && event_base_get_num_events(http2_loop(c)->base, EVENT_BASE_COUNT_ACTIVE) > 0) {
		c->behind = true;
		http2_kick(c);
		return;
	}
	c->behind = false;
	if (worth_a_look(c) && loop_look(http2_loop(c), &c->look)) {
		c->looks++;
		c->looked_count = c->answered_count;
		return;
	}
	c->looks = c->looked_count = 0;
	(void)http2_flush(c);
}

static void looked(struct loop_look *k)
{
	flush_behind_others(CONTAINER_OF(k, struct http2_client, look));
}

static void http2_event(evutil_socket_t fd UNUSED, short what, void *ctx)
{
	struct http2_client *c = ctx;

	loop_callback(http2_loop(c));
	if (what & EV_CLOSED)
		c->peer_closed = true;
	if (what & (EV_READ | EV_CLOSED)) {
		c->readable = true;
		stream_edge(&c->stream, what & EV_CLOSED);
	}
	if (c->cx->draining)
		http2_notice(c);
	if ((what & EV_READ) && !http2_read(c))
		return;
	if ((what & EV_CLOSED) && !(what & EV_READ) && !http2_read(c))
		return;
	if (what & EV_WRITE) {
		c->stuck = false;
		flush_behind_others(c);
	}
}

static void fill(struct http2_client *c, struct context *cx, struct arrival *a)
{
	uint16_t peer_port;

	c->cx = cx;
	c->listen = a->listen;
	c->local = a->local;
	c->peer = a->peer;
	stream_move(&c->stream, &a->stream);
	address_text(&c->peer.any, c->peer_text, &peer_port);
	c->origin = (struct exchange_origin){
		.listen = c->listen,
		.client = { .peer_address = c->peer_text,
		    .peer_port = peer_port,
		    .peer = &c->peer.any,
		    .secure = stream_is_secure(&c->stream),
		    .tls = stream_tls_peer(&c->stream),
		    .server = &c->local->addr.any },
		.tls_version = stream_tls_version(&c->stream),
	};
	c->streams.next = c->streams.prev = &c->streams;
	c->answered_end = &c->answered;
	c->timer.fire = http2_timer;
	c->look.looked = looked;
	c->member.acts = &crowd_acts;
	c->member.fresh = true;
	c->idle_since_ms = http2_now_ms(c);
	http2_flood_init(&c->flood, c->listen->http2_allowance, c->idle_since_ms);
	head_init(&c->fields.head);
}

static void give_up(struct http2_client *c, struct arrival *a)
{
	nghttp2_session_del(c->session);
	stream_move(&a->stream, &c->stream);
	lease_give(&http2_loop(c)->lease, sizeof(*c));
	free(c);
}

int http2_client_new(struct context *cx, struct arrival *a)
{
	struct http2_client *c = NULL;

	if (lease_take(&cx->loop->lease, sizeof(*c))) {
		c = calloc(1, sizeof(*c));
		if (!c)
			lease_give(&cx->loop->lease, sizeof(*c));
	}
	if (!c)
		return -ENOMEM;
	fill(c, cx, a);
	if (http2_session_new(c) != 0) {
		give_up(c, a);
		return -ENOMEM;
	}
	event_assign(&c->ev, cx->loop->base, c->stream.fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST, http2_event, c);
	if (event_add(&c->ev, NULL) == -1) {
		give_up(c, a);
		return -ENOMEM;
	}
	if (a->seen)
		event_active(&c->ev, a->seen, 0);
	http2_settle(c);
	return 0;
}
