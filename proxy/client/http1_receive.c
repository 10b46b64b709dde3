#include "proxy/client/http1_receive.h"

#include <stdlib.h>

#include "proxy/client/http1_respond.h"
#include "proxy/serve/address_text.h"

#define READ_BYTES       (64u << 10)  /* of heads, chunks and tunnels, through the loop's scratch */
#define TIGHT_BYTES      2048         /* the same, when memory is short */
#define BODY_BYTES       (512u << 10) /* of a body with a length, straight into its memory */
#define BODY_BYTES_FIRST (16u << 10)
#define BODY_BYTES_MIN   4096u        /* the same from a slow peer */
#define TURNS_AT_ONCE    4            /* reads, before the other connections have their turn */
#define OUT_MAX_BYTES    (256u << 10) /* a response head, interim ones and a chunk's frame */
#define PIECES           8
#define STARVED_MS       100 /* until a body that found no memory is tried again */
#define LINE_LOGGED_MAX  256

bool client_turn_new(struct http1_client *c)
{
	struct exchange_origin origin = {
		.listen = c->listen, .begun_us = c->head_begun_us, .begun_wall_us = c->head_begun_wall_us
	};
	struct turn *t;

	if (!lease_take(&client_loop(c)->lease, sizeof(*t)))
		return false;
	t = pieces_take(&client_loop(c)->pieces, sizeof(*t));
	if (!t) {
		lease_give(&client_loop(c)->lease, sizeof(*t));
		return false;
	}
	*t = (struct turn){ .client = c, .read_bytes = BODY_BYTES_FIRST, .look.looked = client_looked };
	address_text(&c->peer.any, t->peer, &origin.client.peer_port);
	origin.client.peer_address = t->peer;
	origin.client.server = &c->local->addr.any;
	origin.client.peer = &c->peer.any;
	origin.client.secure = stream_is_secure(&c->stream);
	origin.client.tls = stream_tls_peer(&c->stream);
	origin.tls_version = stream_tls_version(&c->stream);
	sender_init(&t->sender, OUT_MAX_BYTES);
	c->turn = t;
	t->exchange = exchange_new(c->cx, &origin, &client_exchange_events, c);
	if (!t->exchange) {
		client_turn_free(c);
		return false;
	}
	c->requests++;
	return true;
}

/* The head, or the lack of one, is answered by forebay itself, and the connection ends with it. False: c was freed. */
bool client_refuse(struct http1_client *c, struct slice bytes, unsigned status, const char *reason)
{
	struct slice line = bytes;

	if (!client_turn_new(c)) {
		client_turn_away(c, 503, "memory_limit");
		return false;
	}
	(void)slice_cut(&bytes, '\n', &line);
	if (line.len > 0 && line.ptr[line.len - 1] == '\r')
		line.len--;
	line.len = MIN(line.len, LINE_LOGGED_MAX);
	exchange_set_line(c->turn->exchange, line);
	exchange_refuse(c->turn->exchange, status, reason);
	client_enter(c, READING_HELD);
	loop_timer_clear(client_loop(c), &c->timer);
	return true;
}

/* What of an Expect: 100-continue request has not come by now is waiting for our word (RFC 9110, 10.1.1). */
static void client_continue(struct http1_client *c)
{
	buf_add(&c->turn->sender.out, SLICE("HTTP/1.1 100 Continue\r\n\r\n"));
}

/* A whole head. *rest is what has come behind it. False: c was freed. */
static bool client_head(struct http1_client *c, struct slice text, unsigned lines, const struct slice *rest)
{
	struct http1_message message;
	enum http1_result r;
	struct head head;

	head_init(&head);
	r = head_reserve(&head, text.len + 1, lines) == 0 ? http1_request(text, &head, &message) : HTTP1_NO_MEMORY;
	if (r != HTTP1_OK)
		return client_refuse(c, text, http1_status(r), http1_reason(r));
	if (c->listen->tls_count > 0 && !stream_is_secure(&c->stream)) {
		head_done(&head);
		return client_refuse(c, text, 400, "plain HTTP sent to a TLS port");
	}
	if (!client_turn_new(c)) {
		head_done(&head);
		client_turn_away(c, 503, "memory_limit");
		return false;
	}
	c->turn->message = message;
	c->turn->keep = message.keep_alive;
	c->turn->body_left = message.length;
	loop_timer_clear(client_loop(c), &c->timer);
	if (message.framing == FRAMING_NONE) {
		client_enter(c, READING_HELD);
		if (client_has_left(c)) {
			head_done(&head);
			client_close(c, "client left");
			return false;
		}
		exchange_request(c->turn->exchange, &head, &message);
		return true;
	}
	exchange_request(c->turn->exchange, &head, &message);
	if (!exchange_wants_body(c->turn->exchange)) {
		c->turn->keep = false;
		client_enter(c, READING_HELD);
		return true;
	}
	if (rest->len >= BODY_BYTES_FIRST)
		c->turn->read_bytes = BODY_BYTES; /* a fast one */
	client_enter(c, message.framing == FRAMING_LENGTH ? READING_LENGTH : READING_CHUNKED);
	if (message.expect_continue && rest->len == 0) {
		client_continue(c);
		return client_flush(c);
	}
	return true;
}

/* The body is whole. False: c was freed. */
static bool client_body_whole(struct http1_client *c)
{
	if (!c->turn->stuck)
		loop_timer_clear(client_loop(c), &c->timer);
	client_enter(c, READING_HELD);
	client_watch_stream(c);
	if (!exchange_is_stream(c->turn->exchange) && client_has_left(c)) {
		client_close(c, "client left");
		return false;
	}
	exchange_received(c->turn->exchange);
	return true;
}

/* After content was appended. False: no more is wanted just now. */
static bool client_body_grew(struct http1_client *c, size_t n)
{
	c->member.bytes += n;
	c->turn->active_ms = client_now_ms(c);
	if (c->listen->min_rate > 0)
		rate_credit(&c->turn->rate, n, client_now_ms(c), c->listen->min_rate, c->listen->min_rate_grace_ms);
	exchange_body_grew(c->turn->exchange);
	if (exchange_wants_body(c->turn->exchange)) {
		if (budget_pressure(client_loop(c)->lease.budget) != BUDGET_EASY)
			exchange_spill(c->turn->exchange);
		return true;
	}
	/* Refused half-way: the answer is on its way, and the connection ends with it. */
	c->turn->keep = false;
	client_enter(c, READING_HELD);
	loop_timer_clear(client_loop(c), &c->timer);
	return false;
}

static void client_body_failed(struct http1_client *c, int err)
{
	exchange_body_failed(c->turn->exchange, err);
	c->turn->keep = false;
	client_enter(c, READING_HELD);
	loop_timer_clear(client_loop(c), &c->timer);
}

/* Content that came with other bytes. False: c was freed, or stands at READING_HELD. */
static bool append_content(struct http1_client *c, struct slice data)
{
	int err = body_append(exchange_request_body(c->turn->exchange), data);

	if (err) {
		client_body_failed(c, err);
		return false;
	}
	return client_body_grew(c, data.len);
}

static bool take_head(struct http1_client *c, struct slice *in)
{
	const struct http1_limits limits = {
		.head_max_bytes = c->listen->head_limit,
		.line_max_bytes = c->listen->head_limit,
		.fields_max = c->listen->fields_max,
	};
	enum http1_result r;
	struct slice text;
	unsigned lines;
	size_t len;

	if (c->reading == READING_IDLE) {
		c->head_begun_us = loop_now_us(client_loop(c));
		c->head_begun_wall_us = loop_wall_us(client_loop(c));
		client_enter(c, READING_HEAD);
	}
	r = http1_scan(&c->scan, *in, &limits, &len);
	if (r == HTTP1_MORE)
		return true;
	if (r == HTTP1_HEAD_TOO_LARGE && c->scan.lines == 0)
		r = HTTP1_TARGET_TOO_LONG; /* both have the same limit: say what it was */
	lines = c->scan.lines;
	c->scan = (struct http1_scan){ 0 };
	if (r != HTTP1_OK) {
		text = *in;
		*in = (struct slice){ 0 };
		return client_refuse(c, text, http1_status(r), http1_reason(r));
	}
	text = slice_of(in->ptr, len);
	in->ptr += len;
	in->len -= len;
	return client_head(c, text, lines, in);
}

static bool take_length(struct http1_client *c, struct slice *in)
{
	struct slice data = slice_of(in->ptr, (size_t)MIN(in->len, c->turn->body_left));

	in->ptr += data.len;
	in->len -= data.len;
	c->turn->body_left -= data.len;
	if (!append_content(c, data))
		return true;
	return c->turn->body_left > 0 || client_body_whole(c);
}

static bool take_chunks(struct http1_client *c, struct slice *in)
{
	enum http1_result r;
	struct slice data;

	while ((r = chunked_decode(&c->turn->chunked, in, &data)) == HTTP1_MORE && data.len > 0)
		if (!append_content(c, data))
			return true;
	if (r == HTTP1_MORE)
		return true;
	if (r == HTTP1_OK)
		return client_body_whole(c);
	c->turn->keep = false;
	if (exchange_is_stream(c->turn->exchange)) {
		/* A worker has part of it already: it must not take that for the whole. */
		client_close(c, http1_reason(r));
		return false;
	}
	client_enter(c, READING_HELD);
	loop_timer_clear(client_loop(c), &c->timer);
	exchange_refuse(c->turn->exchange, http1_status(r), http1_reason(r));
	return true;
}

static bool take_tunnel(struct http1_client *c, struct slice *in)
{
	int err = body_append(exchange_request_body(c->turn->exchange), *in);

	*in = (struct slice){ 0 };
	c->turn->active_ms = client_now_ms(c);
	if (err) {
		client_cut(c, "memory_limit");
		return false;
	}
	exchange_body_grew(c->turn->exchange);
	return true;
}

/* Uses what it can of *in, as the state asks. False: c was freed. */
static bool client_take(struct http1_client *c, struct slice *in)
{
	size_t before;

	do {
		before = in->len;
		switch ((enum reading)c->reading) {
		case READING_IDLE:
		case READING_HEAD:
			if (!take_head(c, in))
				return false;
			break;
		case READING_LENGTH:
			if (!take_length(c, in))
				return false;
			break;
		case READING_CHUNKED:
			if (!take_chunks(c, in))
				return false;
			break;
		case READING_TUNNEL:
			if (!take_tunnel(c, in))
				return false;
			break;
		case READING_LINGER:
			*in = (struct slice){ 0 };
			break;
		case READING_HELD:
		case READING_COUNT:
			return true;
		}
	} while (in->len > 0 && in->len != before);
	return true;
}

/* Frees c. */
static void client_no_room(struct http1_client *c)
{
	if (c->reading == READING_HEAD)
		(void)client_turn_new(c); /* for the access log, if there is room for that */
	client_turn_away(c, 503, "memory_limit");
}

/* What was read and not used is kept: at most what one read brings behind a head. False: c was freed. */
static bool client_keep(struct http1_client *c, struct slice rest)
{
	char *copy;

	if (rest.len == 0) {
		client_partial_free(c);
		return true;
	}
	if (!lease_take(&client_loop(c)->lease, rest.len)) {
		client_no_room(c);
		return false;
	}
	copy = malloc(rest.len);
	if (!copy) {
		lease_give(&client_loop(c)->lease, rest.len);
		client_no_room(c);
		return false;
	}
	memcpy(copy, rest.ptr, rest.len);
	client_partial_free(c);
	c->partial = copy;
	c->partial_len = (uint32_t)rest.len;
	return true;
}

/* The peer has ended its side. False: c was freed. */
static bool client_input_ended(struct http1_client *c, int err)
{
	c->readable = false;
	c->peer_closed = true;
	switch ((enum reading)c->reading) {
	case READING_HEAD:
		if (client_turn_new(c)) {
			exchange_set_line(c->turn->exchange, slice_of(c->partial, MIN(c->partial_len, LINE_LOGGED_MAX)));
			client_close(c, "client left inside the head");
		} else {
			client_close(c, NULL);
		}
		return false;
	case READING_LENGTH:
	case READING_CHUNKED:
		client_close(c, "client left inside the body");
		return false;
	case READING_TUNNEL:
		if (err == 0) {
			client_enter(c, READING_HELD);
			exchange_received(c->turn->exchange);
			return true;
		}
		client_close(c, "client left");
		return false;
	case READING_IDLE:
	case READING_HELD:
	case READING_LINGER:
	case READING_COUNT:
		break;
	}
	client_close(c, NULL);
	return false;
}

/* Bytes, 0 for nothing now, or -1: c was freed. */
static ssize_t client_recv(struct http1_client *c, struct iovec *iov, int n, size_t asked)
{
	ssize_t got = stream_recv(&c->stream, iov, n);

	if (got > 0) {
		c->drained = (size_t)got < asked && !c->peer_closed && !stream_pending(&c->stream);
		return got;
	}
	if (got == -EINTR)
		return 0;
	if (got == -EAGAIN) {
		c->readable = false;
		return 0;
	}
	return client_input_ended(c, (int)got) ? 0 : -1;
}

/* Heads, chunks, tunnels: what was left over and what comes now, in the scratch. False: c was freed. */
static bool read_mixed(struct http1_client *c)
{
	char *scratch = client_loop(c)->scratch;
	size_t have = c->partial_len;
	/* In need, heads are read without the content behind them, which would have to be kept. */
	size_t asked = budget_pressure(client_loop(c)->lease.budget) >= BUDGET_TIGHT ? TIGHT_BYTES : READ_BYTES;
	struct iovec iov = { scratch + have, asked };
	struct slice in;
	ssize_t n = 0;

	if (have)
		memcpy(scratch, c->partial, have);
	if (!c->partial_again)
		n = client_recv(c, &iov, 1, asked);
	if (n < 0)
		return false;
	if (n == 0 && !c->partial_again)
		return true;
	c->partial_again = false;
	in = slice_of(scratch, have + (size_t)n);
	/* Bytes may only stand here again while a head is being read: then `scan` knows how far it has looked. */
	return client_take(c, &in) && client_keep(c, in);
}

/* No memory for content just now: what is there goes to the spool, and the peer waits for the room that makes. */
static void client_starve(struct http1_client *c)
{
	exchange_spill(c->turn->exchange);
	c->turn->starved = true;
	loop_timer_set(client_loop(c), &c->timer, STARVED_MS);
}

/* As much room as the peer fills: a slow one shall not hold what it does not use. */
static void client_fit_read(struct http1_client *c, size_t got, size_t asked)
{
	struct turn *t = c->turn;

	if (got == asked)
		t->read_bytes = MIN(t->read_bytes * 4, BODY_BYTES);
	else if (got < asked / 4)
		t->read_bytes = MAX(t->read_bytes / 4, BODY_BYTES_MIN);
}

/* Content of known length goes straight to where it is kept. False: c was freed. */
static bool read_length(struct http1_client *c)
{
	size_t want = (size_t)MIN(c->turn->body_left, c->turn->read_bytes), asked = 0;
	struct body *body = exchange_request_body(c->turn->exchange);
	struct iovec iov[PIECES];
	ssize_t got;
	int n = body_room(body, want, iov, PIECES);

	if (n == -ENOMEM) {
		client_starve(c);
		return true;
	}
	if (n < 0) {
		client_body_failed(c, n);
		return true;
	}
	for (int i = 0; i < n; i++)
		asked += iov[i].iov_len;
	got = client_recv(c, iov, n, asked);
	if (got < 0)
		return false;
	body_commit(body, (size_t)got);
	if (got == 0)
		return true;
	client_fit_read(c, (size_t)got, asked);
	c->turn->body_left -= (uint64_t)got;
	if (!client_body_grew(c, (size_t)got))
		return true;
	return c->turn->body_left > 0 || client_body_whole(c);
}

/* True: something may be read just now. */
static bool client_reads(const struct http1_client *c)
{
	if (c->reading == READING_HELD || (!c->readable && !c->partial_again))
		return false;
	if (c->reading == READING_LENGTH || c->reading == READING_CHUNKED || c->reading == READING_TUNNEL) {
		assert(c->turn);
		return !c->turn->starved && !body_full(exchange_request_body(c->turn->exchange));
	}
	return true;
}

/* A stream's client that has gone is seen by nothing else while its worker is silent. A tunnel may be half closed. */
static bool client_is_awaited(const struct http1_client *c)
{
	return exchange_is_stream(c->turn->exchange) && (c->broken || !exchange_is_tunnel(c->turn->exchange));
}

/* False: c was freed. */
bool client_read(struct http1_client *c)
{
	for (int turn = 0; client_reads(c); turn++) {
		if (turn == TURNS_AT_ONCE) {
			event_active(&c->ev, EV_READ, 0);
			return true;
		}
		if ((c->reading == READING_LENGTH || c->reading == READING_CHUNKED) &&
		    budget_pressure(client_loop(c)->lease.budget) >= BUDGET_TIGHT) {
			client_starve(c);
			return true;
		}
		if (!(c->reading == READING_LENGTH && c->partial_len == 0 ? read_length(c) : read_mixed(c)))
			return false;
	}
	/* What it sent may lie unread for a disk's time; that it has left shall not. */
	if ((c->reading == READING_LENGTH || c->reading == READING_CHUNKED) && c->readable && stream_is_broken(&c->stream)) {
		client_close(c, "client left inside the body");
		return false;
	}
	/* Nobody waits for its next request while it has none: seen here, it is a departure. */
	if (c->reading == READING_HELD && c->turn && client_has_left(c) && (!c->turn->responding || client_is_awaited(c))) {
		client_close(c, "client left");
		return false;
	}
	return true;
}
