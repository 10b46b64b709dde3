#include "proxy/client/http2_respond.h"

#include <stdlib.h>
#include <unistd.h>

#include "proxy/client/websocket.h"

#define FRAME_ROOM  (9u + (16u << 10)) /* of the largest frame that the library makes */
#define BATCH_FIRST (16u << 10)
#define BATCH_MAX   (LOOP_BLOCK_BYTES - FRAME_ROOM)
#define FLUSH_BYTES (512u << 10) /* before the other connections have their turn */
#define NAMES_MAX   256          /* fields of a response, in place */

/* ---- heads ---- */

/* No content in the response, whatever its head says (RFC 9110, 6.4.1). */
static bool without_content(const struct http2_stream *s, unsigned status)
{
	return s->of_head || status < 200 || status == 204 || status == 304;
}

static nghttp2_nv pair(struct slice name, struct slice value)
{
	return (nghttp2_nv){ .name = (uint8_t *)name.ptr,
		.value = (uint8_t *)value.ptr,
		.namelen = name.len,
		.valuelen = value.len,
		.flags = NGHTTP2_NV_FLAG_NONE };
}

/* A name that we know by its id lies in lower case where it stays. */
static nghttp2_nv field_pair(const struct forward_field *f)
{
	nghttp2_nv nv = pair(f->id == FIELD_OTHER ? f->name : field_id_name(f->id), f->value);

	if (f->id != FIELD_OTHER)
		nv.flags |= NGHTTP2_NV_FLAG_NO_COPY_NAME;
	/* No two are the same: in the peer's table it would only be in the way, and make looking things up there long. */
	if (f->id == FIELD_X_REQUEST_ID)
		nv.flags |= NGHTTP2_NV_FLAG_NO_INDEX;
	return nv;
}

/*
 * The library copies all other text, and makes names lower-case. `names` has room for one more than there are fields. What accepts an upgrade has
 * no meaning in the 200 that opens a tunnel (RFC 8441, 5).
 */
static size_t fill_names(
    const struct forward_list *list, bool upgraded, unsigned status, char digits[static 3], nghttp2_nv *names)
{
	size_t n = 0;

	for (unsigned i = 0, rest = status; i < 3; i++, rest /= 10)
		digits[2 - i] = (char)('0' + rest % 10);
	names[n] = pair(SLICE(":status"), slice_of(digits, 3));
	names[n++].flags |= NGHTTP2_NV_FLAG_NO_COPY_NAME;
	for (size_t i = 0; i < list->count; i++)
		if (!upgraded || !slice_eq_nocase(list->fields[i].name, SLICE("Sec-WebSocket-Accept")))
			names[n++] = field_pair(&list->fields[i]);
	return n;
}

static ssize_t read_body(
    nghttp2_session *session, int32_t id, uint8_t *buf, size_t length, uint32_t *flags, nghttp2_data_source *source, void *ctx);

enum how { HOW_INTERIM, HOW_WHOLE, HOW_BODY };

static int submit(struct http2_stream *s, const nghttp2_nv *names, size_t n, enum how how)
{
	const nghttp2_data_provider provider = { .source.ptr = s, .read_callback = read_body };
	nghttp2_session *session = s->client->session;

	if (how == HOW_INTERIM)
		return nghttp2_submit_headers(session, NGHTTP2_FLAG_NONE, s->id, NULL, names, n, NULL);
	return nghttp2_submit_response(session, s->id, names, n, how == HOW_BODY ? &provider : NULL);
}

/* A worker's head, as its client is to see it. */
static int submit_head(
    struct http2_stream *s, const struct head *h, const struct forward_response *f, unsigned status, enum how how)
{
	struct forward_field fields_in_place[NAMES_MAX];
	nghttp2_nv in_place[NAMES_MAX], *names = in_place;
	size_t max = 1u + h->field_count + FORWARD_OWN_FIELDS;
	struct forward_list list = { .fields = fields_in_place };
	char digits[3];
	int err;

	if (max > NAMES_MAX) {
		names = malloc(max * (sizeof(*names) + sizeof(*list.fields)));
		if (!names)
			return -ENOMEM;
		list.fields = (struct forward_field *)(names + max);
	}
	forward_response_list(h, f, &list);
	err = submit(s, names, fill_names(&list, h->status == 101, status, digits, names), how);
	if (names != in_place)
		free(names);
	return err ? -ENOMEM : 0;
}

/* The body has nothing that would have to be sent. */
static bool body_is_empty(const struct body *b)
{
	return !b || (body_is_finished(b) && body_bytes(b) == 0);
}

static enum how how_to_send(struct http2_stream *s, unsigned status)
{
	if (exchange_is_tunnel(s->exchange))
		return HOW_BODY;
	if (without_content(s, status) || body_is_empty(exchange_response_body(s->exchange)))
		return HOW_WHOLE;
	return HOW_BODY;
}

/* A tunnel by an extended CONNECT begins with 200 (RFC 8441, 5). */
static int write_response(struct http2_stream *s)
{
	const struct head *response = exchange_response(s->exchange);
	struct context *cx = s->client->cx;
	bool tunnel = exchange_is_tunnel(s->exchange);
	struct forward_response f = {
		.client_version = 20,
		.request_id = exchange_id(s->exchange),
		.date = date_text(&cx->date, loop_wall_us(cx->loop)),
	};
	enum how how = how_to_send(s, response->status);
	int err;

	f.has_length = exchange_response_length(s->exchange, &f.length) && !tunnel;
	err = submit_head(s, response, &f, tunnel ? 200 : response->status, how);
	if (err)
		return err;
	if (how == HOW_BODY) {
		body_cursor_init(&s->cursor, exchange_response_body(s->exchange));
		http2_stream_sending(s, true);
	}
	return 0;
}

/* Ours is the last: what a client has sent of that name means nothing here. */
static struct slice websocket_key_of(const struct head *request)
{
	for (unsigned i = request->field_count; i-- > 0;)
		if (slice_eq_nocase(head_name(request, i), SLICE("Sec-WebSocket-Key")))
			return head_value(request, i);
	return slice_of("", 0);
}

/*
 * A worker that does not change protocols has not opened the tunnel that a 2xx would tell of (RFC 8441, 5); nor has one that does not show
 * that it speaks this one: clients of HTTP/1.1 see that for themselves (RFC 6455, 4.1). NULL: all is well.
 */
static const char *tunnel_refused(const struct http2_stream *s)
{
	const struct head *response = exchange_response(s->exchange);

	if (!s->connects)
		return NULL;
	if (!exchange_is_tunnel(s->exchange))
		return response->status / 100 == 2 ? "no 101 to an extended CONNECT" : NULL;
	if (!websocket_is_accepted(response, websocket_key_of(exchange_head(s->exchange))))
		return "101 without the right Sec-WebSocket-Accept";
	return NULL;
}

static void refuse_tunnel(struct http2_stream *s, const char *why)
{
	const nghttp2_nv names[] = { pair(SLICE(":status"), SLICE("502")) };

	s->why = why;
	if (submit(s, names, 1, HOW_WHOLE) != 0)
		s->client->broken = true;
	http2_stream_leave(s, s->why);
}

static void http2_answer(struct http2_stream *s)
{
	struct http2_client *c = s->client;
	const char *refused = tunnel_refused(s);

	/* What it still has to send of its request nobody wants. */
	if (s->reading == HTTP2_CONTENT && (!exchange_is_stream(s->exchange) || exchange_is_refused(s->exchange)))
		http2_read_enter(s, HTTP2_HELD);
	s->responding = true;
	s->active_ms = http2_now_ms(c);
	s->passing = exchange_is_stream(s->exchange);
	c->passing += s->passing;
	if (refused)
		refuse_tunnel(s, refused);
	else if (write_response(s) != 0)
		http2_stream_reset(s, NGHTTP2_INTERNAL_ERROR, 0, "memory_limit");
	http2_kick(c);
}

static void answer_all(struct http2_client *c)
{
	for (struct http2_stream *s; (s = c->answered);) {
		http2_answered_remove(s);
		http2_answer(s);
	}
	c->answered_bytes = 0;
}

/* ---- what exchanges tell ---- */

/* Answers go to the library together, as requests go on together (exchange_begin). */
static void http2_respond(void *ctx)
{
	struct http2_stream *s = ctx;
	struct body *b = exchange_response_body(s->exchange);

	s->responding = true;
	s->client->answered_bytes += b ? body_bytes(b) : 0;
	http2_answered_add(s);
	http2_kick(s->client);
}

static void http2_progress(void *ctx)
{
	struct http2_stream *s = ctx;

	if (s->sending || !s->responding || s->over)
		return;
	if (nghttp2_session_resume_data(s->client->session, s->id) != 0)
		return; /* its head is still to be sent: the library asks by itself */
	http2_stream_sending(s, true);
	http2_kick(s->client);
}

static void http2_interim(void *ctx, const struct head *head)
{
	struct http2_stream *s = ctx;
	const struct forward_response f = { .client_version = 20, .request_id = exchange_id(s->exchange) };

	if (s->client->stuck)
		return; /* a hint that comes late is none */
	if (submit_head(s, head, &f, head->status, HOW_INTERIM) == 0)
		http2_kick(s->client);
}

static void http2_room(void *ctx)
{
	struct http2_stream *s = ctx;

	if (s->kept_window == 0 || s->closed)
		return;
	if (nghttp2_session_consume_stream(s->client->session, s->id, (size_t)s->kept_window) != 0)
		s->client->broken = true;
	s->kept_window = 0;
	rate_begin(&s->rate, http2_now_ms(s->client), s->client->listen->min_rate_grace_ms);
	http2_kick(s->client);
}

static void http2_upgraded(void *ctx)
{
	struct http2_stream *s = ctx;

	http2_read_enter(s, HTTP2_TUNNEL);
	http2_answer(s);
	if (!s->exchange || s->closed || nghttp2_session_get_stream_remote_close(s->client->session, s->id) != 1)
		return;
	http2_read_enter(s, HTTP2_HELD); /* it has said all before the tunnel was open */
	exchange_received(s->exchange);
}

static void http2_response_cut(void *ctx)
{
	http2_stream_reset(ctx, NGHTTP2_INTERNAL_ERROR, 0, "worker ended inside its answer");
}

const struct exchange_events http2_exchange_events = {
	.respond = http2_respond,
	.progress = http2_progress,
	.interim = http2_interim,
	.room = http2_room,
	.ready = http2_progress,
	.upgraded = http2_upgraded,
	.cut = http2_response_cut,
};

void http2_continue(struct http2_stream *s)
{
	const nghttp2_nv names[] = { pair(SLICE(":status"), SLICE("100")) };

	if (submit(s, names, 1, HOW_INTERIM) != 0)
		s->client->broken = true;
	http2_kick(s->client);
}

/* ---- bodies ---- */

static size_t piece_bytes(const struct http2_piece *p)
{
	size_t bytes = p->in_file ? p->file.len : 0;

	for (int i = 0; i < p->n; i++)
		bytes += p->iov[i].iov_len;
	return bytes;
}

/* What the library is to frame next. Tells how long it is; http2_send_data gives it. */
static ssize_t read_body(nghttp2_session *session UNUSED, int32_t id UNUSED, uint8_t *buf UNUSED, size_t length,
    uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
	struct http2_stream *s = source->ptr;
	struct http2_client *c = ctx;
	struct http2_piece *p = &c->piece;
	enum body_peek what;
	size_t bytes;

	if (!s->exchange)
		return NGHTTP2_ERR_DEFERRED; /* its RST_STREAM is on its way */
	*p = (struct http2_piece){ 0 };
	what = body_peek(&s->cursor, length, p->iov, (int)ARRAY_LEN(p->iov), &p->n, &p->file);
	switch (what) {
	case BODY_MEMORY:
		break;
	case BODY_FILE:
		p->n = 0;
		p->in_file = true;
		p->file.len = MIN(p->file.len, length);
		break;
	case BODY_COLD:
	case BODY_WAIT:
		http2_stream_sending(s, false);
		return NGHTTP2_ERR_DEFERRED;
	case BODY_END:
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		return 0;
	case BODY_FAILED:
		s->why = "response lost in the spool";
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	bytes = piece_bytes(p);
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (body_is_finished(s->cursor.body) && body_unread(&s->cursor) == bytes)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)bytes;
}

/* False: a file has become shorter. */
static bool copy_piece(const struct http2_piece *p, char *to)
{
	for (int i = 0; i < p->n; i++) {
		memcpy(to, p->iov[i].iov_base, p->iov[i].iov_len);
		to += p->iov[i].iov_len;
	}
	return !p->in_file || pread(p->file.fd, to, p->file.len, p->file.offset) == (ssize_t)p->file.len;
}

static bool block_is_full(struct http2_client *c)
{
	return c->block_len >= c->batch_bytes;
}

int http2_send_data(nghttp2_session *session UNUSED, nghttp2_frame *frame UNUSED, const uint8_t *frame_head, size_t length,
    nghttp2_data_source *source, void *ctx)
{
	struct http2_stream *s = source->ptr;
	struct http2_client *c = ctx;
	char *to = c->block + c->block_len;

	memcpy(to, frame_head, 9);
	if (!copy_piece(&c->piece, to + 9)) {
		s->why = "response lost in the spool";
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	body_advance(&s->cursor, length);
	s->sent_bytes += length;
	http2_flood_earn(&c->flood);
	c->block_len += 9 + length;
	if (!s->touched) {
		s->touched = true;
		s->next_touched = c->touched;
		c->touched = s;
	}
	c->block_full = block_is_full(c);
	return c->block_full ? NGHTTP2_ERR_PAUSE : 0;
}

/* ---- frames to the socket ---- */

/* What of `bytes` the socket takes, or -errno. */
static ssize_t push(struct http2_client *c, struct slice bytes)
{
	size_t done = 0;
	ssize_t got;

	while (done < bytes.len) {
		struct iovec iov = { (char *)bytes.ptr + done, bytes.len - done };

		got = stream_sink.pieces(&c->stream, &iov, 1, false);
		if (got == -EINTR)
			continue;
		if (got == -EAGAIN)
			break;
		if (got <= 0)
			return got ? got : -EIO;
		done += (size_t)got;
	}
	c->stuck = done < bytes.len;
	c->out_bytes += done;
	c->member.bytes += done;
	return (ssize_t)done;
}

static int push_pending(struct http2_client *c)
{
	ssize_t got;

	if (c->pending_len == 0)
		return 0;
	got = push(c, slice_of(c->pending + c->pending_sent, c->pending_len - c->pending_sent));
	if (got < 0)
		return (int)got;
	c->pending_sent += (size_t)got;
	if (c->pending_sent == c->pending_len)
		http2_pending_free(c);
	return 0;
}

/* The rest of a block: at most one batch, and small batches for a peer that takes little. */
static int keep_pending(struct http2_client *c, struct slice rest)
{
	if (!lease_take(&http2_loop(c)->lease, rest.len))
		return -ENOMEM;
	c->pending = malloc(rest.len);
	if (!c->pending) {
		lease_give(&http2_loop(c)->lease, rest.len);
		return -ENOMEM;
	}
	memcpy(c->pending, rest.ptr, rest.len);
	c->pending_len = rest.len;
	c->pending_since_ms = http2_now_ms(c);
	c->batch_bytes = BATCH_FIRST;
	return 0;
}

/* What went into frames is the body's no more. */
static void let_go_of_bodies(struct http2_client *c)
{
	uint64_t now = http2_now_ms(c);

	while (c->touched) {
		struct http2_stream *s = c->touched;

		c->touched = s->next_touched;
		s->touched = false;
		s->active_ms = now;
		if (s->exchange)
			exchange_sent(s->exchange, s->cursor.offset);
	}
}

static int push_block(struct http2_client *c)
{
	ssize_t got = push(c, slice_of(c->block, c->block_len));
	size_t len = c->block_len;

	c->block_len = 0;
	let_go_of_bodies(c);
	if (got < 0)
		return (int)got;
	if ((size_t)got < len)
		return keep_pending(c, slice_of(c->block + got, len - (size_t)got));
	c->batch_bytes = MIN(c->batch_bytes * 2, BATCH_MAX);
	return 0;
}

/* Frames into the block, until it is full or there are none. */
static int fill_block(struct http2_client *c)
{
	const uint8_t *bytes;
	ssize_t n;

	c->block_full = false;
	while (!c->block_full) {
		n = nghttp2_session_mem_send(c->session, &bytes);
		if (n < 0)
			return n == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO;
		if (n == 0)
			return 0;
		assert((size_t)n <= LOOP_BLOCK_BYTES - c->block_len);
		memcpy(c->block + c->block_len, bytes, (size_t)n);
		c->block_len += (size_t)n;
		c->block_full = block_is_full(c);
	}
	return 0;
}

static int flush_session(struct http2_client *c)
{
	uint64_t before = c->out_bytes;
	int err = push_pending(c);

	while (!err && c->pending_len == 0 && nghttp2_session_want_write(c->session)) {
		if (c->out_bytes - before >= FLUSH_BYTES) {
			http2_kick(c);
			break;
		}
		err = fill_block(c);
		if (err || c->block_len == 0)
			break;
		err = push_block(c);
	}
	return err;
}

/* All has been said that will be said. */
static bool is_over(const struct http2_client *c)
{
	if (c->phase == HTTP2_LINGER || c->pending_len > 0 || nghttp2_session_want_write(c->session))
		return false;
	if (c->failed || (c->phase == HTTP2_LAST && c->stream_count == 0))
		return true;
	return !nghttp2_session_want_read(c->session);
}

bool http2_flush(struct http2_client *c)
{
	int err;

	if (c->phase == HTTP2_LINGER)
		return true;
	if (c->batch_bytes == 0)
		c->batch_bytes = BATCH_FIRST;
	c->block = loop_block_take(http2_loop(c));
	if (!c->block) {
		http2_close(c, "memory_limit");
		return false;
	}
	answer_all(c);
	err = flush_session(c);
	let_go_of_bodies(c);
	loop_block_give(http2_loop(c), c->block);
	c->block = NULL;
	c->block_len = 0;
	if (err) {
		if (err == -ENOMEM)
			http2_cut(c, "memory_limit");
		else
			http2_close(c, "client left");
		return false;
	}
	if (!nghttp2_session_want_write(c->session))
		c->windows_changed = false;
	http2_reap(c);
	if (is_over(c)) {
		http2_linger(c); /* it may have been freed; what is left is the loop's */
		return false;
	}
	http2_settle(c);
	return true;
}
