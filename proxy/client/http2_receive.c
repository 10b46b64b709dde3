#include "config.h"

#include "proxy/client/http2_receive.h"

#include <stddef.h>

#include "core/log.h"
#include "proxy/client/http2_memory.h"
#include "proxy/client/http2_respond.h"
#include "proxy/client/websocket.h"

#define READ_BYTES        (64u << 10)
#define TURNS_AT_ONCE     4 /* reads, before the other connections have their turn */
#define LINE_LOGGED_MAX   256
#define CONTINUATIONS_MAX 64   /* of one field block */
#define LIBRARY_MAX       1000 /* the library's own limit is for those who have none */

static bool memory_is_tight(const struct http2_client *c)
{
	return budget_pressure(http2_loop(c)->lease.budget) >= BUDGET_TIGHT;
}

/* ---- a request's head ---- */

static bool flood(struct http2_client *c, enum http2_flood_kind kind)
{
	const char *why = c->failed ? NULL : http2_flood_count(&c->flood, kind, http2_now_ms(c));

	if (why)
		http2_fail(c, NGHTTP2_ENHANCE_YOUR_CALM, why);
	return why != NULL;
}

static struct http2_stream *stream_of(struct http2_client *c, int32_t id)
{
	return nghttp2_session_get_stream_user_data(c->session, id);
}

static struct exchange *exchange_for(struct http2_stream *s)
{
	struct http2_client *c = s->client;

	c->origin.begun_us = loop_now_us(http2_loop(c));
	c->origin.begun_wall_us = loop_wall_us(http2_loop(c));
	return exchange_new(c->cx, &c->origin, &http2_exchange_events, s);
}

static void new_stream(struct http2_client *c, int32_t id)
{
	struct http2_stream *s = http2_stream_new(c, id);

	c->fields_of = NULL;
	if (s) {
		s->exchange = exchange_for(s);
		if (s->exchange && nghttp2_session_set_stream_user_data(c->session, id, s) == 0) {
			c->fields_of = s;
			return;
		}
		s->closed = true; /* the library was told of none */
		s->next_closed = c->closed;
		c->closed = s;
	}
	if (nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM) != 0)
		c->broken = true;
}

static int on_begin_headers(nghttp2_session *session UNUSED, const nghttp2_frame *frame, void *ctx)
{
	struct http2_client *c = ctx;
	bool trailers = frame->headers.cat != NGHTTP2_HCAT_REQUEST;

	if (c->failed)
		return 0;
	c->in_fields = true;
	c->fields_begun_ms = http2_now_ms(c);
	http2_fields_done(&c->fields);
	http2_fields_begin(&c->fields, trailers, c->listen->head_limit, c->listen->fields_max);
	if (trailers)
		c->fields_of = stream_of(c, frame->hd.stream_id);
	else
		new_stream(c, frame->hd.stream_id);
	return 0;
}

static int on_header(nghttp2_session *session UNUSED, const nghttp2_frame *frame UNUSED, const uint8_t *name, size_t name_len,
    const uint8_t *value, size_t value_len, uint8_t flags UNUSED, void *ctx)
{
	struct http2_client *c = ctx;

	if (c->failed)
		return NGHTTP2_ERR_PAUSE;
	http2_fields_add(&c->fields, slice_of((const char *)name, name_len), slice_of((const char *)value, value_len));
	if (!http2_fields_flooded(&c->fields))
		return 0;
	http2_fail(c, NGHTTP2_ENHANCE_YOUR_CALM, "header list far over head_limit");
	return NGHTTP2_ERR_PAUSE;
}

/* What there is of a request that was not understood: for the log. */
static void set_line(struct http2_stream *s)
{
	const struct head *h = &s->client->fields.head;
	struct slice method = head_text(h, h->method_text), target = head_text(h, h->target);
	char room[LINE_LOGGED_MAX];
	struct buf line;

	buf_init_in(&line, room, sizeof(room), sizeof(room));
	buf_add(&line, slice_of(method.ptr, MIN(method.len, sizeof(room) / 4)));
	buf_char(&line, ' ');
	buf_add(&line, slice_of(target.ptr, MIN(target.len, sizeof(room) / 2)));
	buf_add(&line, SLICE(" HTTP/2.0"));
	exchange_set_line(s->exchange, buf_slice(&line));
	buf_done(&line);
}

static void malformed(struct http2_stream *s, const char *why)
{
	struct http2_client *c = s->client;

	s->why = why;
	http2_stream_reset(s, NGHTTP2_PROTOCOL_ERROR, 400, why);
	(void)flood(c, FLOOD_MALFORMED);
}

/* For an extended CONNECT, whose client sends none: the worker wants one (RFC 8441, 5). */
static struct slice make_key(const struct http2_fields *f, char text[static WEBSOCKET_KEY_LEN + 1])
{
	return f->protocol.len > 0 && websocket_key(text) ? slice_str(text) : slice_of("", 0);
}

static void prioritize(struct http2_stream *s, const struct http2_request *r)
{
	const nghttp2_extpri priority = { .urgency = r->urgency, .inc = r->incremental };

	if (r->urgency == NGHTTP2_EXTPRI_DEFAULT_URGENCY && !r->incremental)
		return;
	if (nghttp2_session_change_extpri_stream_priority(s->client->session, s->id, &priority, 0) != 0)
		s->client->broken = true;
}

/* Requests that are whole go on together: see exchange_begin. */
static void begin_arrived(struct http2_client *c)
{
	for (unsigned i = 0; i < c->arrived_count; i++)
		if (c->arrived[i]->exchange)
			exchange_begin(c->arrived[i]->exchange);
	c->arrived_count = 0;
}

static void whole_request_came(struct http2_stream *s, const struct http2_request *r)
{
	struct http2_client *c = s->client;

	http2_read_enter(s, HTTP2_HELD);
	exchange_take_head(s->exchange, &c->fields.head, &r->message);
	c->arrived[c->arrived_count++] = s;
	if (c->arrived_count == ARRAY_LEN(c->arrived))
		begin_arrived(c);
}

/* A request that was understood. */
static void begin_request(struct http2_stream *s, const struct http2_request *r, bool ended)
{
	struct http2_client *c = s->client;

	s->connects = r->connects;
	s->has_length = r->message.has_length;
	s->content_length = r->message.length;
	prioritize(s, r);
	if (ended) {
		whole_request_came(s, r);
		return;
	}
	exchange_request(s->exchange, &c->fields.head, &r->message);
	if (r->connects || !exchange_wants_body(s->exchange)) {
		http2_read_enter(s, HTTP2_HELD);
		return;
	}
	http2_read_enter(s, HTTP2_CONTENT);
	if (r->message.expect_continue)
		http2_continue(s);
}

static void request_came(struct http2_stream *s, bool ended)
{
	struct http2_client *c = s->client;
	char key[WEBSOCKET_KEY_LEN + 1];
	struct http2_request r;

	c->requests++;
	s->of_head = c->fields.head.method == METHOD_HEAD;
	switch (http2_fields_end(&c->fields, ended, make_key(&c->fields, key), &r)) {
	case HTTP2_FIELDS_OK:
		begin_request(s, &r, ended);
		break;
	case HTTP2_FIELDS_MALFORMED:
		set_line(s);
		malformed(s, r.why);
		break;
	case HTTP2_FIELDS_REFUSED:
		set_line(s);
		http2_read_enter(s, HTTP2_HELD);
		exchange_refuse(s->exchange, r.status, r.why);
		break;
	}
	if (c->listen->keepalive_requests && c->requests >= c->listen->keepalive_requests)
		http2_notice(c);
}

/* ---- its content ---- */

/* False: it said another length than it has sent. */
static bool length_holds(const struct http2_stream *s, bool ended)
{
	if (!s->has_length)
		return true;
	return ended ? s->got_bytes == s->content_length : s->got_bytes <= s->content_length;
}

static void content_ended(struct http2_stream *s)
{
	if (s->reading != HTTP2_CONTENT && s->reading != HTTP2_TUNNEL)
		return;
	if (s->reading == HTTP2_CONTENT && !length_holds(s, true)) {
		malformed(s, "Content-Length differs from the content");
		return;
	}
	http2_read_enter(s, HTTP2_HELD);
	exchange_received(s->exchange);
}

static void trailers_came(struct http2_stream *s, bool ended)
{
	struct http2_client *c = s->client;
	struct http2_request r;

	switch (http2_fields_end(&c->fields, ended, slice_of("", 0), &r)) {
	case HTTP2_FIELDS_OK:
		content_ended(s);
		return;
	case HTTP2_FIELDS_MALFORMED:
		malformed(s, r.why);
		return;
	case HTTP2_FIELDS_REFUSED:
		http2_stream_reset(s, NGHTTP2_CANCEL, r.status, r.why);
		return;
	}
}

/* The connection's window is given back at once: a stream that is not read on must not stop the others. */
static void give_back_connection(struct http2_client *c, size_t n)
{
	if (nghttp2_session_consume_connection(c->session, n) != 0)
		c->broken = true;
}

static void give_back_stream(struct http2_stream *s)
{
	if (s->kept_window > 0 && nghttp2_session_consume_stream(s->client->session, s->id, (size_t)s->kept_window) != 0)
		s->client->broken = true;
	s->kept_window = 0;
}

/* The body has it: its window is given back if there is room for more. */
static void content_taken(struct http2_stream *s, size_t n)
{
	struct http2_client *c = s->client;

	s->active_ms = http2_now_ms(c);
	c->member.bytes += n;
	/* What one of many uploads gets of its connection is the peer's to share out. */
	if (c->listen->min_rate > 0)
		rate_credit(
		    &s->rate, n * MAX(c->receiving, 1u), s->active_ms, c->listen->min_rate, c->listen->min_rate_grace_ms);
	exchange_body_grew(s->exchange);
	if (!exchange_wants_body(s->exchange)) {
		http2_read_enter(s, HTTP2_HELD); /* refused half-way: the answer is on its way */
		return;
	}
	if (budget_pressure(http2_loop(c)->lease.budget) != BUDGET_EASY)
		exchange_spill(s->exchange);
	s->kept_window += n;
	if (memory_is_tight(c)) {
		c->starved = true;
		return;
	}
	if (!body_full(exchange_request_body(s->exchange)))
		give_back_stream(s);
}

static void content_came(struct http2_stream *s, struct slice data)
{
	int err;

	if (s->reading == HTTP2_HELD && s->connects && s->exchange && !s->responding) {
		malformed(s, "content before the tunnel is open");
		return;
	}
	if (s->reading != HTTP2_CONTENT && s->reading != HTTP2_TUNNEL)
		return; /* nobody wants it */
	s->got_bytes += data.len;
	if (s->reading == HTTP2_CONTENT && !length_holds(s, false)) {
		malformed(s, "more content than Content-Length");
		return;
	}
	if (data.len == 0)
		return;
	err = body_append(exchange_request_body(s->exchange), data);
	if (!err) {
		content_taken(s, data.len);
		return;
	}
	if (s->reading == HTTP2_TUNNEL) {
		http2_stream_reset(s, NGHTTP2_INTERNAL_ERROR, 0, "memory_limit");
		return;
	}
	http2_read_enter(s, HTTP2_HELD);
	exchange_body_failed(s->exchange, err);
}

static int on_data(
    nghttp2_session *session UNUSED, uint8_t flags UNUSED, int32_t id, const uint8_t *data, size_t len, void *ctx)
{
	struct http2_client *c = ctx;
	struct http2_stream *s = c->failed ? NULL : stream_of(c, id);

	give_back_connection(c, len);
	if (s && s->exchange)
		content_came(s, slice_of((const char *)data, len));
	return 0;
}

void http2_feed(struct http2_client *c)
{
	c->starved = false;
	for (struct http2_stream *s = c->streams.next; s != &c->streams; s = s->next) {
		if (s->kept_window == 0 || s->closed || !s->exchange)
			continue;
		exchange_spill(s->exchange);
		if (memory_is_tight(c)) {
			c->starved = true;
			continue;
		}
		if (exchange_wants_body(s->exchange) && body_full(exchange_request_body(s->exchange)))
			continue;
		give_back_stream(s);
		rate_begin(&s->rate, http2_now_ms(c), c->listen->min_rate_grace_ms);
	}
	http2_kick(c);
}

/* ---- frames ---- */

static int on_begin_frame(nghttp2_session *session UNUSED, const nghttp2_frame_hd *hd, void *ctx)
{
	struct http2_client *c = ctx;

	switch (hd->type) {
	case NGHTTP2_DATA:
		if (hd->length == 0 && !(hd->flags & NGHTTP2_FLAG_END_STREAM))
			(void)flood(c, FLOOD_EMPTY);
		return 0;
	case NGHTTP2_HEADERS:
		c->continuations = 0;
		return 0;
	case NGHTTP2_PUSH_PROMISE:
	case NGHTTP2_GOAWAY:
		return 0;
	case NGHTTP2_RST_STREAM:
		(void)flood(c, FLOOD_RESET);
		return 0;
	case NGHTTP2_SETTINGS:
		if (!(hd->flags & NGHTTP2_FLAG_ACK))
			(void)flood(c, FLOOD_SETTINGS);
		return 0;
	case NGHTTP2_PING:
		(void)flood(c, FLOOD_PING);
		return 0;
	case NGHTTP2_PRIORITY:
		if (hd->stream_id == 0) /* the library looks at none of them */
			http2_fail(c, NGHTTP2_PROTOCOL_ERROR, "PRIORITY on stream 0");
		(void)flood(c, FLOOD_PRIORITY);
		return 0;
	case NGHTTP2_PRIORITY_UPDATE:
		(void)flood(c, FLOOD_PRIORITY);
		return 0;
	case NGHTTP2_WINDOW_UPDATE:
		(void)flood(c, FLOOD_WINDOW_UPDATE);
		return 0;
	case NGHTTP2_CONTINUATION:
		if (++c->continuations > CONTINUATIONS_MAX)
			http2_fail(c, NGHTTP2_ENHANCE_YOUR_CALM, "too many CONTINUATION");
		(void)flood(c, FLOOD_CONTINUATION);
		return 0;
	default:
		(void)flood(c, FLOOD_OTHER);
		return 0;
	}
}

static void headers_came(struct http2_client *c, const nghttp2_frame *frame)
{
	struct http2_stream *s = c->fields_of;
	bool ended = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;

	c->in_fields = false;
	c->fields_of = NULL;
	if (s && s->exchange) {
		if (c->fields.trailers)
			trailers_came(s, ended);
		else
			request_came(s, ended);
	}
	http2_fields_done(&c->fields);
}

/* The end of a frame whose content came piece by piece. One of padding alone is as empty as one of nothing. */
static void data_came(struct http2_client *c, const nghttp2_frame *frame)
{
	struct http2_stream *s;

	if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
		if (frame->hd.length > 0 && frame->hd.length == frame->data.padlen)
			(void)flood(c, FLOOD_EMPTY);
		return;
	}
	s = stream_of(c, frame->hd.stream_id);
	if (s && s->exchange)
		content_ended(s);
}

static void settings_came(struct http2_client *c, const nghttp2_settings *settings)
{
	for (size_t i = 0; i < settings->niv; i++)
		if (settings->iv[i].settings_id == NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE)
			c->windows_changed = true;
}

static int on_frame(nghttp2_session *session UNUSED, const nghttp2_frame *frame, void *ctx)
{
	struct http2_client *c = ctx;

	if (c->failed)
		return 0;
	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		headers_came(c, frame);
		return 0;
	case NGHTTP2_DATA:
		data_came(c, frame);
		return 0;
	case NGHTTP2_SETTINGS:
		settings_came(c, &frame->settings);
		return 0;
	case NGHTTP2_PING:
		if ((frame->hd.flags & NGHTTP2_FLAG_ACK) && c->phase == HTTP2_NOTICE)
			http2_last(c);
		return 0;
	default:
		return 0;
	}
}

static int on_invalid_frame(nghttp2_session *session UNUSED, const nghttp2_frame *frame, int err, void *ctx)
{
	struct http2_client *c = ctx;

	log_debug("peer=%s http2 frame type=%u stream=%d: %s", c->peer_text, frame->hd.type, (int)frame->hd.stream_id,
	    nghttp2_strerror(err));
	(void)flood(c, FLOOD_MALFORMED);
	return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
	struct http2_client *c = ctx;
	struct http2_stream *s;

	if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR && !c->told) {
		c->told = true;
		c->failed = "protocol error";
		log_info("peer=%s listen=%s http2=goaway code=%s", c->peer_text, c->listen->name,
		    nghttp2_http2_strerror(frame->goaway.error_code));
	}
	/* The library ends the stream whose window became too large by that; it is to be the connection (RFC 9113, 6.9.2). */
	if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code == NGHTTP2_FLOW_CONTROL_ERROR &&
	    c->windows_changed)
		http2_fail(c, NGHTTP2_FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE takes a window over the maximum");
	if ((frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) ||
	    !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	s = stream_of(c, frame->hd.stream_id);
	if (!s)
		return 0;
	s->over = true;
	http2_stream_sending(s, false);
	/* The rest of the request nobody wants (RFC 9113, 8.1). */
	if (nghttp2_session_get_stream_remote_close(session, s->id) == 0 &&
	    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR) != 0)
		c->broken = true;
	return 0;
}

static int on_stream_close(nghttp2_session *session UNUSED, int32_t id, uint32_t code, void *ctx)
{
	struct http2_client *c = ctx;
	struct http2_stream *s = stream_of(c, id);

	if (!s)
		return 0;
	s->closed = true;
	if (!s->over && !s->why)
		s->why = code == NGHTTP2_NO_ERROR || code == NGHTTP2_CANCEL ? "client reset the stream" : "stream error";
	if (!s->over)
		http2_stream_leave(s, s->why);
	s->next_closed = c->closed;
	c->closed = s;
	return 0;
}

/* ---- the session ---- */

static int set_options(struct http2_client *c, nghttp2_session_callbacks *calls, nghttp2_option *option)
{
	nghttp2_mem memory = http2_memory(c);

	nghttp2_session_callbacks_set_on_begin_headers_callback(calls, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(calls, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, on_data);
	nghttp2_session_callbacks_set_on_begin_frame_callback(calls, on_begin_frame);
	nghttp2_session_callbacks_set_on_frame_recv_callback(calls, on_frame);
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(calls, on_invalid_frame);
	nghttp2_session_callbacks_set_on_frame_send_callback(calls, on_frame_sent);
	nghttp2_session_callbacks_set_on_stream_close_callback(calls, on_stream_close);
	nghttp2_session_callbacks_set_send_data_callback(calls, http2_send_data);
	nghttp2_option_set_no_auto_window_update(option, 1);
	nghttp2_option_set_no_http_messaging(option, 1); /* http2_fields says why, too */
	nghttp2_option_set_no_closed_streams(option, 1);
#ifdef HAVE_NGHTTP2_OPTION_SET_MAX_CONTINUATIONS
	nghttp2_option_set_max_continuations(option, LIBRARY_MAX);
#endif
#ifdef HAVE_NGHTTP2_OPTION_SET_STREAM_RESET_RATE_LIMIT
	nghttp2_option_set_stream_reset_rate_limit(option, c->listen->http2_allowance + LIBRARY_MAX, LIBRARY_MAX);
#endif
	nghttp2_option_set_builtin_recv_extension_type(option, NGHTTP2_PRIORITY_UPDATE);
	return nghttp2_session_server_new3(&c->session, calls, c, option, &memory);
}

static int first_settings(struct http2_client *c)
{
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->listen->http2_max_streams },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)c->listen->http2_window },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)c->listen->head_limit },
		{ NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 },
		{ NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
	};
	int err = nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));

	if (!err)
		err = nghttp2_session_set_local_window_size(
		    c->session, NGHTTP2_FLAG_NONE, 0, (int32_t)c->listen->http2_connection_window);
	return err;
}

int http2_session_new(struct http2_client *c)
{
	nghttp2_session_callbacks *calls = NULL;
	nghttp2_option *option = NULL;
	int err = nghttp2_session_callbacks_new(&calls);

	if (!err)
		err = nghttp2_option_new(&option);
	if (!err)
		err = set_options(c, calls, option);
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(calls);
	if (!err && first_settings(c) != 0) {
		nghttp2_session_del(c->session);
		c->session = NULL;
		err = NGHTTP2_ERR_NOMEM;
	}
	return err ? -ENOMEM : 0;
}

/* ---- bytes ---- */

/* False: c was freed. */
static bool take(struct http2_client *c, const char *bytes, size_t n)
{
	ssize_t used;

	if (c->phase == HTTP2_LINGER || c->failed)
		return true;
	used = nghttp2_session_mem_recv(c->session, (const uint8_t *)bytes, n);
	begin_arrived(c);
	if (c->broken || used == NGHTTP2_ERR_NOMEM) {
		http2_cut(c, "memory_limit");
		return false;
	}
	if (used == NGHTTP2_ERR_BAD_CLIENT_MAGIC) {
		http2_close(c, NULL);
		return false;
	}
	if (used == NGHTTP2_ERR_FLOODED)
		http2_fail(c, NGHTTP2_ENHANCE_YOUR_CALM, "too many answers asked for");
	else if (used < 0)
		http2_fail(c, NGHTTP2_INTERNAL_ERROR, "library error");
	http2_reap(c);
	return true;
}

/* The peer has ended its side. False: c was freed. */
static bool input_ended(struct http2_client *c, ssize_t err)
{
	c->readable = false;
	c->peer_closed = true;
	if (err == 0 && c->listen->half_close && c->phase != HTTP2_LINGER && c->stream_count > 0 && c->receiving == 0) {
		http2_last(c); /* it gets its answers */
		return true;
	}
	http2_close(c, "client left");
	return false;
}

bool http2_read(struct http2_client *c)
{
	struct iovec iov = { http2_loop(c)->scratch, READ_BYTES };

	for (int turn = 0; c->readable || stream_pending(&c->stream); turn++) {
		ssize_t got;

		if (turn == TURNS_AT_ONCE) {
			event_active(&c->ev, EV_READ, 0);
			break;
		}
		got = stream_recv(&c->stream, &iov, 1);
		if (got == -EINTR)
			continue;
		if (got == -EAGAIN) {
			c->readable = false;
			break;
		}
		if (got <= 0)
			return input_ended(c, got);
		if (!take(c, iov.iov_base, (size_t)got))
			return false;
		if ((size_t)got < READ_BYTES && !c->peer_closed && !stream_pending(&c->stream))
			c->readable = false; /* what comes next is an edge of its own */
	}
	if (nghttp2_session_want_write(c->session) || c->failed)
		http2_kick(c);
	http2_settle(c);
	return true;
}
