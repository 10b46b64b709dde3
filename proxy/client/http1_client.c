#include "proxy/client/http1_client.h"

#include <arpa/inet.h>
#include <event2/event_struct.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "core/sender.h"
#include "proxy/client/crowd.h"
#include "proxy/client/guard.h"
#include "proxy/client/rate.h"
#include "proxy/serve/exchange.h"

#define TIGHT_BYTES     4096         /* the same, when memory is short */
#define READ_BYTES      (64u << 10)  /* of heads, chunks and tunnels, through the loop's scratch */
#define BODY_BYTES      (256u << 10) /* of a body with a length, straight into its memory */
#define TURNS_AT_ONCE   8            /* reads, before the other connections have their turn */
#define STEPS_AT_ONCE   32           /* sends, the same */
#define OUT_MAX_BYTES   (256u << 10) /* a response head, interim ones and a chunk's frame */
#define PIECES          8
#define STARVED_MS      100 /* until a body that found no memory is tried again */
#define CARE_MS         1000
#define LINGER_MS       2000 /* for the peer to take our last words (RFC 9112, 9.6) */
#define LINE_LOGGED_MAX 256

enum reading {
	READING_IDLE, /* between requests: nothing has come */
	READING_HEAD,
	READING_LENGTH,  /* content, of known length */
	READING_CHUNKED, /* content */
	READING_HELD,    /* nothing: the request at hand is whole, or not wanted */
	READING_TUNNEL,  /* no HTTP any more */
	READING_LINGER,  /* our last words are out; what comes is thrown away */
	READING_COUNT,
};

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

/* One request and its response. Made when the head is whole, so that an idle connection costs nothing of it. */
struct turn {
	struct exchange *exchange;
	struct http1_message message;
	struct chunked chunked;
	uint64_t body_left; /* READING_LENGTH */
	struct sender sender;
	struct rate rate;
	uint64_t seen_bytes;   /* of the body sent, when last looked */
	uint64_t queued_bytes; /* in the socket then, of whatever response */
	uint64_t active_ms;    /* when something last went either way */
	bool responding;       /* respond was called */
	bool keep;             /* the connection serves another request after this one */
	bool stuck;            /* the socket was full when last tried */
	bool starved;          /* no memory for the body: tried again by the timer */
	bool cut;
	char peer[INET6_ADDRSTRLEN];
	char local[INET6_ADDRSTRLEN];
};

struct http1_client {
	struct crowd_member member;
	struct context *cx;
	const struct conf_listen *listen;
	const struct conf_address *local;
	int fd;
	struct event ev; /* edge-triggered, all of READ, WRITE and CLOSED, added once */
	struct timer timer;
	struct turn *turn;
	char *partial; /* read and not yet understood */
	uint32_t partial_len;
	bool partial_again; /* it may hold more than was asked for so far: look before reading */
	bool readable;
	bool drained; /* the last read got less than it asked for: what comes next is an edge of its own */
	bool peer_closed, broken;
	uint8_t reading; /* enum reading */
	struct http1_scan scan;
	uint32_t requests;
	uint64_t head_begun_us;
	int64_t head_begun_wall_us;
	union {
		struct sockaddr any;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
	} peer;
};

static const struct exchange_events exchange_events;

static struct loop *loop_of(const struct http1_client *c)
{
	return c->cx->loop;
}

static uint64_t now_ms(const struct http1_client *c)
{
	return loop_now_ms(loop_of(c));
}

/* The only writer of c->reading; what a state waits for, and for how long, is set up here too. */
static void client_enter(struct http1_client *c, enum reading next)
{
	assert(may_follow[c->reading] & TO(next));
	c->reading = (uint8_t)next;
	c->member.since_ms = now_ms(c);
	c->member.bytes = 0;
	switch (next) {
	case READING_IDLE:
		crowd_move(c->cx->crowd, &c->member, CROWD_IDLE);
		loop_timer_set(loop_of(c), &c->timer, c->listen->idle_timeout_ms);
		break;
	case READING_HEAD:
		crowd_move(c->cx->crowd, &c->member, CROWD_WAITING);
		if (c->requests > 0) /* the first one's time runs from accept on */
			loop_timer_set(loop_of(c), &c->timer, c->listen->head_timeout_ms);
		break;
	case READING_LENGTH:
	case READING_CHUNKED:
		crowd_move(c->cx->crowd, &c->member, CROWD_WAITING);
		rate_begin(&c->turn->rate, now_ms(c), c->listen->min_rate_grace_ms);
		loop_timer_set(loop_of(c), &c->timer, CARE_MS);
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
		loop_timer_set(loop_of(c), &c->timer, LINGER_MS);
		break;
	case READING_COUNT:
		break;
	}
}

/* The end. */

static void partial_free(struct http1_client *c)
{
	if (c->partial)
		lease_give(&loop_of(c)->lease, c->partial_len);
	free(c->partial);
	c->partial = NULL;
	c->partial_len = 0;
	c->partial_again = false;
}

static void turn_free(struct http1_client *c)
{
	if (!c->turn)
		return;
	sender_done(&c->turn->sender);
	free(c->turn);
	c->turn = NULL;
	lease_give(&loop_of(c)->lease, sizeof(*c->turn));
}

/* Closes at once, in any state. Frees c. */
static void client_close(struct http1_client *c, const char *why)
{
	struct context *cx = c->cx;
	struct exchange_outcome o = { .reason = why };

	if (c->turn) {
		o.body_bytes = c->turn->sender.body_sent;
		o.cut = c->turn->responding;
		if (c->turn->exchange)
			exchange_leave(&c->turn->exchange, &o);
		turn_free(c);
	}
	partial_free(c);
	loop_timer_clear(cx->loop, &c->timer);
	crowd_move(cx->crowd, &c->member, CROWD_NONE);
	event_del(&c->ev);
	close(c->fd);
	guard_leave(cx->guard, &c->peer.any, c->listen->connections_per_address);
	lease_give(&cx->loop->lease, sizeof(*c));
	free(c);
	cx->left(cx->left_ctx);
}

/* What was sent of a response must not look whole: the peer sees a reset (RFC 9112, 8). Frees c. */
static void client_cut(struct http1_client *c, const char *why)
{
	(void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
	client_close(c, why);
}

/* Our last words are out: closing now could destroy them on their way if the peer still sends. */
static void client_linger(struct http1_client *c)
{
	if (c->broken || shutdown(c->fd, SHUT_WR) == -1) {
		client_close(c, NULL);
		return;
	}
	partial_free(c);
	client_enter(c, READING_LINGER);
	event_active(&c->ev, EV_READ, 0);
}

/* A turn. */

static void address_text(const struct sockaddr *a, char *out, socklen_t size, uint16_t *ret_port)
{
	const struct sockaddr_in6 *in6 = (const void *)a;
	const struct sockaddr_in *in4 = (const void *)a;

	out[0] = '\0';
	*ret_port = 0;
	if (a->sa_family == AF_INET) {
		inet_ntop(AF_INET, &in4->sin_addr, out, size);
		*ret_port = ntohs(in4->sin_port);
	} else if (a->sa_family == AF_INET6) {
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
			inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], out, size);
		else
			inet_ntop(AF_INET6, &in6->sin6_addr, out, size);
		*ret_port = ntohs(in6->sin6_port);
	}
}

static bool turn_new(struct http1_client *c)
{
	struct exchange_origin origin = {
		.listen = c->listen, .begun_us = c->head_begun_us, .begun_wall_us = c->head_begun_wall_us
	};
	struct turn *t;

	if (!lease_take(&loop_of(c)->lease, sizeof(*t)))
		return false;
	t = calloc(1, sizeof(*t));
	if (!t) {
		lease_give(&loop_of(c)->lease, sizeof(*t));
		return false;
	}
	address_text(&c->peer.any, t->peer, sizeof(t->peer), &origin.client.peer_port);
	address_text(&c->local->addr.any, t->local, sizeof(t->local), &origin.client.server_port);
	origin.client.peer_address = t->peer;
	origin.client.server_address = t->local;
	origin.client.peer = &c->peer.any;
	sender_init(&t->sender, OUT_MAX_BYTES);
	c->turn = t;
	t->exchange = exchange_new(c->cx, &origin, &exchange_events, c);
	if (!t->exchange) {
		turn_free(c);
		return false;
	}
	c->requests++;
	return true;
}

/* The head, or the lack of one, is answered by forebay itself, and the connection ends with it. False: c was freed. */
static bool client_refuse(struct http1_client *c, struct slice bytes, unsigned status, const char *reason)
{
	struct slice line = bytes;

	if (!turn_new(c)) {
		client_close(c, "memory_limit");
		return false;
	}
	(void)slice_cut(&bytes, '\n', &line);
	line.len = MIN(line.len, LINE_LOGGED_MAX);
	exchange_set_line(c->turn->exchange, line);
	exchange_refuse(c->turn->exchange, status, reason);
	client_enter(c, READING_HELD);
	loop_timer_clear(loop_of(c), &c->timer);
	return true;
}

/* True: it has gone, as far as a request goes that is not yet in work. */
static bool client_has_left(const struct http1_client *c)
{
	return c->broken || (c->peer_closed && !c->listen->half_close);
}

static bool client_flush(struct http1_client *c);

/* What of an Expect: 100-continue request has not come by now is waiting for our word (RFC 9110, 10.1.1). */
static void client_continue(struct http1_client *c)
{
	buf_add(&c->turn->sender.out, SLICE("HTTP/1.1 100 Continue\r\n\r\n"));
}

/* A whole head. *rest is what has come behind it. False: c was freed. */
static bool client_head(struct http1_client *c, struct slice text, const struct slice *rest)
{
	struct http1_message message;
	enum http1_result r;
	struct head head;

	head_init(&head);
	r = http1_request(text, &head, &message);
	if (r != HTTP1_OK)
		return client_refuse(c, text, http1_status(r), http1_reason(r));
	if (!turn_new(c)) {
		head_done(&head);
		client_close(c, "memory_limit");
		return false;
	}
	c->turn->message = message;
	c->turn->keep = message.keep_alive;
	c->turn->body_left = message.length;
	loop_timer_clear(loop_of(c), &c->timer);
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
	client_enter(c, message.framing == FRAMING_LENGTH ? READING_LENGTH : READING_CHUNKED);
	if (message.expect_continue && rest->len == 0) {
		client_continue(c);
		return client_flush(c);
	}
	return true;
}

/* Reading. */

/* A stream that has begun may be silent for so long; while its request is still received, that has limits of its own. */
static void client_watch_stream(struct http1_client *c)
{
	struct turn *t = c->turn;

	if (t->responding && exchange_is_stream(t->exchange) && c->reading != READING_LENGTH && c->reading != READING_CHUNKED)
		loop_timer_set(loop_of(c), &c->timer, exchange_stream_idle_ms(t->exchange));
}

/* The body is whole. False: c was freed. */
static bool client_body_whole(struct http1_client *c)
{
	loop_timer_clear(loop_of(c), &c->timer);
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
	if (c->listen->min_rate > 0)
		rate_credit(&c->turn->rate, n, now_ms(c), c->listen->min_rate, c->listen->min_rate_grace_ms);
	exchange_body_grew(c->turn->exchange);
	if (exchange_wants_body(c->turn->exchange)) {
		if (budget_pressure(loop_of(c)->lease.budget) != BUDGET_EASY)
			exchange_spill(c->turn->exchange);
		return true;
	}
	/* Refused half-way: the answer is on its way, and the connection ends with it. */
	c->turn->keep = false;
	client_enter(c, READING_HELD);
	loop_timer_clear(loop_of(c), &c->timer);
	return false;
}

static void client_body_failed(struct http1_client *c, int err)
{
	exchange_body_failed(c->turn->exchange, err);
	c->turn->keep = false;
	client_enter(c, READING_HELD);
	loop_timer_clear(loop_of(c), &c->timer);
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
	size_t len;

	if (c->reading == READING_IDLE) {
		c->head_begun_us = loop_now_us(loop_of(c));
		c->head_begun_wall_us = clock_wall_us(loop_of(c)->clock);
		client_enter(c, READING_HEAD);
	}
	r = http1_scan(&c->scan, *in, &limits, &len);
	if (r == HTTP1_MORE)
		return true;
	if (r == HTTP1_HEAD_TOO_LARGE && c->scan.lines == 0)
		r = HTTP1_TARGET_TOO_LONG; /* both have the same limit: say what it was */
	c->scan = (struct http1_scan){ 0 };
	if (r != HTTP1_OK) {
		text = *in;
		*in = (struct slice){ 0 };
		return client_refuse(c, text, http1_status(r), http1_reason(r));
	}
	text = slice_of(in->ptr, len);
	in->ptr += len;
	in->len -= len;
	return client_head(c, text, in);
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
	loop_timer_clear(loop_of(c), &c->timer);
	exchange_refuse(c->turn->exchange, http1_status(r), http1_reason(r));
	return true;
}

static bool take_tunnel(struct http1_client *c, struct slice *in)
{
	int err = body_append(exchange_request_body(c->turn->exchange), *in);

	*in = (struct slice){ 0 };
	c->turn->active_ms = now_ms(c);
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

/* What was read and not used is kept: at most what one read brings behind a head. False: c was freed. */
static bool client_keep(struct http1_client *c, struct slice rest)
{
	char *copy;

	if (rest.len == 0) {
		partial_free(c);
		return true;
	}
	if (!lease_take(&loop_of(c)->lease, rest.len)) {
		client_close(c, "memory_limit");
		return false;
	}
	copy = malloc(rest.len);
	if (!copy) {
		lease_give(&loop_of(c)->lease, rest.len);
		client_close(c, "memory_limit");
		return false;
	}
	memcpy(copy, rest.ptr, rest.len);
	partial_free(c);
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
		if (turn_new(c)) {
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
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = (size_t)n };
	ssize_t got = recvmsg(c->fd, &msg, MSG_DONTWAIT);

	if (got > 0) {
		c->drained = (size_t)got < asked && !c->peer_closed;
		return got;
	}
	if (got == -1 && errno == EINTR)
		return 0;
	if (got == -1 && errno == EAGAIN) {
		c->readable = false;
		return 0;
	}
	return client_input_ended(c, got == 0 ? 0 : errno) ? 0 : -1;
}

/* Heads, chunks, tunnels: what was left over and what comes now, in the scratch. False: c was freed. */
static bool read_mixed(struct http1_client *c)
{
	char *scratch = loop_of(c)->scratch;
	size_t have = c->partial_len;
	/* In need, heads are read without the content behind them, which would have to be kept. */
	size_t asked = budget_pressure(loop_of(c)->lease.budget) >= BUDGET_TIGHT ? TIGHT_BYTES : READ_BYTES;
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
	loop_timer_set(loop_of(c), &c->timer, STARVED_MS);
}

/* Content of known length goes straight to where it is kept. False: c was freed. */
static bool read_length(struct http1_client *c)
{
	size_t want = (size_t)MIN(c->turn->body_left, BODY_BYTES), asked = 0;
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
	if (c->reading == READING_LENGTH || c->reading == READING_CHUNKED || c->reading == READING_TUNNEL)
		return !c->turn->starved && !body_full(exchange_request_body(c->turn->exchange));
	return true;
}

/* A stream's client that has gone is seen by nothing else while its worker is silent. A tunnel may be half closed. */
static bool client_is_awaited(const struct http1_client *c)
{
	return exchange_is_stream(c->turn->exchange) && (c->broken || !exchange_is_tunnel(c->turn->exchange));
}

/* False: c was freed. */
static bool client_read(struct http1_client *c)
{
	for (int turn = 0; client_reads(c); turn++) {
		if (turn == TURNS_AT_ONCE) {
			event_active(&c->ev, EV_READ, 0);
			return true;
		}
		if ((c->reading == READING_LENGTH || c->reading == READING_CHUNKED) &&
		    budget_pressure(loop_of(c)->lease.budget) >= BUDGET_TIGHT) {
			client_starve(c);
			return true;
		}
		if (!(c->reading == READING_LENGTH && c->partial_len == 0 ? read_length(c) : read_mixed(c)))
			return false;
	}
	/* Nobody waits for its next request while it has none: seen here, it is a departure. */
	if (c->reading == READING_HELD && c->turn && client_has_left(c) && (!c->turn->responding || client_is_awaited(c))) {
		client_close(c, "client left");
		return false;
	}
	return true;
}

/* Sending. */

/* The response is out. False: c was freed. */
static bool client_turn_over(struct http1_client *c)
{
	struct exchange_outcome o = { .body_bytes = c->turn->sender.body_sent };
	bool keep = c->turn->keep && !c->cx->draining && c->reading == READING_HELD && !exchange_is_tunnel(c->turn->exchange);

	exchange_done(&c->turn->exchange, &o);
	turn_free(c);
	loop_timer_clear(loop_of(c), &c->timer);
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

static uint64_t queued_bytes(const struct http1_client *c)
{
	int queued = 0;

	return ioctl(c->fd, SIOCOUTQ, &queued) == 0 && queued > 0 ? (uint64_t)queued : 0;
}

/* Bytes that the peer has taken since the last look, also of responses before: what went in, less what the socket grew by. */
static uint64_t newly_acked(struct http1_client *c)
{
	struct turn *t = c->turn;
	uint64_t queued = queued_bytes(c), in = t->sender.body_sent - t->seen_bytes + t->queued_bytes;

	t->seen_bytes = t->sender.body_sent;
	t->queued_bytes = queued;
	return in > queued ? in - queued : 0;
}

/* The socket is full: from now on its peer is waited for. */
static void client_stuck(struct http1_client *c)
{
	struct turn *t = c->turn;

	if (t->stuck)
		return;
	t->stuck = true;
	(void)newly_acked(c);
	rate_begin(&t->rate, now_ms(c), c->listen->min_rate_grace_ms);
	loop_timer_set(loop_of(c), &c->timer, CARE_MS);
	if (c->member.where != CROWD_WAITING) {
		crowd_move(c->cx->crowd, &c->member, CROWD_WAITING);
		c->member.since_ms = now_ms(c);
		c->member.bytes = 0;
	}
}

/* Sends what there is. False: c was freed. */
static bool client_flush(struct http1_client *c)
{
	struct turn *t = c->turn;
	enum sender_step step = SENDER_ON;
	uint64_t before = t->sender.body_sent;
	int err = 0;

	for (int i = 0; i < STEPS_AT_ONCE && step == SENDER_ON; i++)
		step = sender_step(&t->sender, &sender_socket, &c->fd, &err);
	c->member.bytes += t->sender.body_sent - before;
	t->stuck = t->stuck && step == SENDER_FULL;
	if (!t->stuck && c->member.where == CROWD_WAITING && (c->reading == READING_HELD || c->reading == READING_TUNNEL))
		crowd_move(c->cx->crowd, &c->member, CROWD_BUSY);
	if (step == SENDER_ON || step == SENDER_WAIT)
		t->active_ms = now_ms(c);
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

/* What the exchange says. */

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
		.now_wall_us = clock_wall_us(loop_of(c)->clock),
	};
	struct head out;
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
	head_init(&out);
	err = forward_response_head(response, &f, &out);
	if (!err)
		http1_write_response(&out, &t->sender.out);
	head_done(&out);
	if (!err && (!without_content(c, response->status) || f.upgrade) && exchange_response_body(t->exchange))
		sender_body(&t->sender, exchange_response_body(t->exchange), f.chunked);
	return err;
}

static void client_respond(void *ctx)
{
	struct http1_client *c = ctx;
	struct turn *t = c->turn;

	/* What it still has to send of its request nobody wants (RFC 9112, 9.3). */
	if (c->reading != READING_HELD && !exchange_is_stream(t->exchange)) {
		t->keep = false;
		client_enter(c, READING_HELD);
	}
	if (c->cx->draining || (c->listen->keepalive_requests && c->requests >= c->listen->keepalive_requests) ||
	    !t->message.keep_alive)
		t->keep = false;
	t->responding = true;
	t->active_ms = now_ms(c);
	if (write_response(c) != 0) {
		client_cut(c, "memory_limit");
		return;
	}
	client_watch_stream(c);
	(void)client_flush(c);
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
	struct head out;

	if (c->turn->stuck)
		return; /* a hint that comes late is none */
	head_init(&out);
	if (forward_response_head(head, &f, &out) == 0)
		http1_write_response(&out, &c->turn->sender.out);
	head_done(&out);
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
	c->turn->active_ms = now_ms(c);
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

static const struct exchange_events exchange_events = {
	.respond = client_respond,
	.progress = client_progress,
	.interim = client_interim,
	.room = client_room,
	.ready = client_progress,
	.upgraded = client_upgraded,
	.cut = client_response_cut,
};

/* Time and pressure. */

/* It may be silent for long, but not for ever. */
static void client_care_for_stream(struct http1_client *c)
{
	uint64_t idle_max = exchange_stream_idle_ms(c->turn->exchange), idle = now_ms(c) - c->turn->active_ms;

	if (idle >= idle_max)
		client_cut(c, "stream_idle_timeout");
	else
		loop_timer_set(loop_of(c), &c->timer, idle_max - idle);
}

/* Every second while the peer is waited for: does it keep to the least rate, and is it slow enough to go to disk? */
static void client_care(struct http1_client *c)
{
	struct turn *t = c->turn;
	bool receiving = c->reading == READING_LENGTH || c->reading == READING_CHUNKED;
	uint64_t now = now_ms(c);

	if (!receiving && !t->stuck) {
		if (exchange_is_stream(t->exchange))
			client_care_for_stream(c);
		return;
	}
	loop_timer_set(loop_of(c), &c->timer, CARE_MS);
	if (t->stuck && c->listen->min_rate > 0)
		rate_credit(&t->rate, newly_acked(c), now, c->listen->min_rate, c->listen->min_rate_grace_ms);
	if (receiving && (t->starved || body_full(exchange_request_body(t->exchange))))
		rate_begin(&t->rate, now, c->listen->min_rate_grace_ms); /* it waits for us */
	if (c->listen->min_rate > 0 && rate_broken(&t->rate, now)) {
		if (t->responding) {
			client_cut(c, "min_rate");
			return;
		}
		t->keep = false;
		exchange_refuse(t->exchange, 408, "min_rate");
		client_enter(c, READING_HELD);
		loop_timer_clear(loop_of(c), &c->timer);
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
	bool waits_for_us = c->reading == READING_HELD;
	struct slice last = waits_for_us
	                        ? SLICE("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	                        : SLICE("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");

	if (c->reading == READING_HEAD && !turn_new(c)) {
		client_close(c, why);
		return;
	}
	if (c->turn && !c->turn->responding && c->reading != READING_TUNNEL) {
		(void)send(c->fd, last.ptr, last.len, MSG_DONTWAIT | MSG_NOSIGNAL);
		exchange_refuse(c->turn->exchange, waits_for_us ? 503 : 408, why);
		client_close(c, why);
		return;
	}
	if (c->turn)
		client_cut(c, why);
	else
		client_close(c, why);
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
	char byte;

	return !c->partial_again && recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

static const struct crowd_acts crowd_acts = { .evict = client_evict, .spill = client_spill, .is_quiet = client_is_quiet };

/* Where nothing is read, a reset must be asked for: libevent tells it as readable and writable. */
static bool is_broken(const struct http1_client *c)
{
	int err = 0;
	socklen_t len = sizeof(err);

	return getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1 || err != 0;
}

static void client_event(evutil_socket_t fd UNUSED, short what, void *ctx)
{
	struct http1_client *c = ctx;

	if (what & EV_CLOSED)
		c->peer_closed = true;
	if (what & (EV_READ | EV_CLOSED))
		c->readable = true;
	if (c->reading == READING_HELD && c->readable)
		c->broken = c->broken || is_broken(c);
	if ((what & EV_WRITE) && c->turn && (c->turn->responding || sender_out_left(&c->turn->sender) > 0) && !client_flush(c))
		return;
	(void)client_read(c);
}

int http1_client_new(struct context *cx, const struct conf_listen *listen, const struct conf_address *local,
    const struct sockaddr *peer, int *fd)
{
	struct http1_client *c = NULL;

	if (lease_take(&cx->loop->lease, sizeof(*c))) {
		c = calloc(1, sizeof(*c));
		if (!c)
			lease_give(&cx->loop->lease, sizeof(*c));
	}
	if (!c) {
		close(*fd);
		*fd = -1;
		return -ENOMEM;
	}
	c->cx = cx;
	c->listen = listen;
	c->local = local;
	c->fd = *fd;
	*fd = -1;
	if (peer->sa_family == AF_INET6)
		c->peer.in6 = *(const struct sockaddr_in6 *)peer;
	else if (peer->sa_family == AF_INET)
		c->peer.in4 = *(const struct sockaddr_in *)peer;
	else
		c->peer.any.sa_family = AF_UNIX;
	c->timer.fire = client_timer;
	c->member.acts = &crowd_acts;
	c->member.since_ms = now_ms(c);
	crowd_move(cx->crowd, &c->member, CROWD_IDLE);
	loop_timer_set(cx->loop, &c->timer, listen->head_timeout_ms);
	event_assign(&c->ev, cx->loop->base, c->fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST, client_event, c);
	if (event_add(&c->ev, NULL) == -1) {
		loop_timer_clear(cx->loop, &c->timer);
		crowd_move(cx->crowd, &c->member, CROWD_NONE);
		close(c->fd);
		lease_give(&cx->loop->lease, sizeof(*c));
		free(c);
		return -ENOMEM;
	}
	return 0;
}
