#include "proxy/client/door.h"

#include <event2/event_struct.h>
#include <openssl/ssl.h>
#include <stdlib.h>

#include "core/log.h"
#include "proxy/client/crowd.h"
#include "proxy/client/guard.h"
#include "proxy/client/http1_client.h"
#include "proxy/client/http2_client.h"
#include "proxy/client/proxy_header.h"
#include "proxy/client/tls.h"
#include "proxy/client/tls_shop.h"
#include "proxy/serve/address_text.h"

#define FAILURES_LOGGED 20 /* of a thread, within */
#define FAILURES_MS     10000

enum door_state {
	DOOR_HEADER,    /* PROXY's has not come, or not all of it */
	DOOR_SILENT,    /* nothing has come yet */
	DOOR_PREFACE,   /* without TLS: what has come may become HTTP/2's */
	DOOR_HANDSHAKE, /* TLS */
	DOOR_GONE,      /* closed, or on to its protocol */
	DOOR_STATE_COUNT,
};

static const unsigned may_follow[] = {
	[DOOR_HEADER] = TO(DOOR_SILENT) | TO(DOOR_GONE),
	[DOOR_SILENT] = TO(DOOR_PREFACE) | TO(DOOR_HANDSHAKE) | TO(DOOR_GONE),
	[DOOR_PREFACE] = TO(DOOR_GONE),
	[DOOR_HANDSHAKE] = TO(DOOR_GONE),
	[DOOR_GONE] = 0,
};
static_assert(ARRAY_LEN(may_follow) == DOOR_STATE_COUNT, "a row for each state");

struct door {
	struct crowd_member member;
	struct context *cx;
	struct arrival a;
	struct event ev; /* edge-triggered, all of READ, WRITE and CLOSED, added once */
	struct timer timer;
	enum door_state state;
	bool counted; /* by its client's address */
	bool closed;  /* the peer has ended its side, behind whatever there is */
};

/* The only writer of d->state. */
static void door_enter(struct door *d, enum door_state next)
{
	assert(may_follow[d->state] & TO(next));
	d->state = next;
	d->member.since_ms = loop_now_ms(d->cx->loop);
	d->member.fresh = next == DOOR_SILENT;
	switch (next) {
	case DOOR_PREFACE:
	case DOOR_HANDSHAKE:
		crowd_move(d->cx->crowd, &d->member, CROWD_WAITING);
		break;
	case DOOR_GONE:
		crowd_move(d->cx->crowd, &d->member, CROWD_NONE);
		loop_timer_clear(d->cx->loop, &d->timer);
		event_del(&d->ev);
		break;
	case DOOR_SILENT:
		crowd_move(d->cx->crowd, &d->member, CROWD_IDLE);
		break;
	case DOOR_HEADER:
	case DOOR_STATE_COUNT:
		break;
	}
}

static void door_free(struct door *d)
{
	lease_give(&d->cx->loop->lease, sizeof(*d));
	free(d);
}

/* Out of the connection's count; also of one that its protocol could not take. */
static void leave(struct context *cx, const struct arrival *a, bool counted)
{
	guard_leave(cx->guard, &a->peer.any, counted ? a->listen->connections_per_address : 0);
	cx->left(cx->left_ctx);
}

/* Frees d. */
static void door_close(struct door *d)
{
	struct context *cx = d->cx;
	struct arrival a = d->a;
	bool counted = d->counted;

	door_enter(d, DOOR_GONE);
	stream_close(&a.stream);
	door_free(d);
	leave(cx, &a, counted);
}

/* One line each, but in a flood: then how many there were. */
static void log_failure(struct door *d, const char *what, const char *why)
{
	struct door_floods *f = &d->cx->floods;
	uint64_t now = loop_now_ms(d->cx->loop);
	char peer[INET6_ADDRSTRLEN];
	uint16_t port;

	if (now - f->since_ms >= FAILURES_MS) {
		if (f->count > FAILURES_LOGGED)
			log_info("event=doors_closed count=%u: failures like the last ones, within %u s",
			    f->count - FAILURES_LOGGED, FAILURES_MS / 1000);
		*f = (struct door_floods){ .since_ms = now };
	}
	if (++f->count > FAILURES_LOGGED)
		return;
	address_text(&d->a.peer.any, peer, &port);
	log_info("event=%s listen=%s peer=%s port=%u why=\"%s\"", what, d->a.listen->name, peer, port, why);
}

/* Frees d. */
static void handshake_failed(struct door *d, const char *why)
{
	log_failure(d, "tls_handshake_failed", why);
	door_close(d);
}

/* What was agreed on (RFC 7301). Without TLS, and without a word in it, HTTP/1. */
static bool agreed_on_http2(const struct stream *s)
{
	const unsigned char *name = NULL;
	unsigned len = 0;

	if (stream_is_secure(s))
		SSL_get0_alpn_selected(stream_ssl(s), &name, &len);
	return slice_eq(slice_of((const char *)name, len), SLICE("h2"));
}

/*
 * On to what it speaks, with what a handshake has read or still lies there. Its protocol's event is added before ours goes, and is for the same:
 * the kernel hears of neither. Frees d.
 */
static void door_pass(struct door *d, bool http2)
{
	struct context *cx = d->cx;
	struct arrival a = d->a;
	int err;

	a.seen = (short)(EV_READ | (d->closed ? EV_CLOSED : 0));
	stream_move(&a.stream, &d->a.stream);
	err = http2 ? http2_client_new(cx, &a) : http1_client_new(cx, &a);
	door_enter(d, DOOR_GONE);
	door_free(d);
	if (err) {
		stream_close(&a.stream);
		leave(cx, &a, true);
	}
}

static int begin_session(struct door *d)
{
	struct tls *tls = tls_shop_get(d->cx->tls, d->a.listen);
	SSL *ssl = tls ? tls_session(tls) : NULL;

	tls_drop(&tls);
	return ssl ? stream_secure(&d->a.stream, d->cx->loop, ssl) : -ENOMEM;
}

/* What has come, left where it is. 0: nothing yet, or d was freed. */
static size_t look(struct door *d, char *bytes, size_t max)
{
	ssize_t got = recv(d->a.stream.fd, bytes, max, MSG_PEEK | MSG_DONTWAIT);

	if (got > 0)
		return (size_t)got;
	if (got == 0 || (errno != EAGAIN && errno != EINTR))
		door_close(d); /* it may have been a look whether somebody listens */
	return 0;
}

/* Frees d. */
static void header_refused(struct door *d, const char *why)
{
	log_failure(d, "proxy_header_refused", why);
	door_close(d);
}

/* The client's address is known. False: d was freed. */
static bool count_client(struct door *d)
{
	struct context *cx = d->cx;
	const struct conf_listen *listen = d->a.listen;

	if (guard_enter(cx->guard, &d->a.peer.any, listen->connections_per_address) == GUARD_OK) {
		d->counted = true;
		return true;
	}
	log_debug("listen=%s connection refused: connections_per_address", listen->name);
	door_enter(d, DOOR_GONE);
	stream_close(&d->a.stream);
	door_free(d);
	cx->left(cx->left_ctx); /* its place was returned */
	return false;
}

/* False: more is to come, or d was freed. */
static bool step_header(struct door *d)
{
	const struct conf_daemon *daemon = &d->cx->conf->daemon;
	char bytes[PROXY_HEADER_MAX];
	struct proxy_header header;
	const char *why = "";
	size_t n = look(d, bytes, sizeof(bytes));

	if (n == 0)
		return false;
	if (!conf_network_has(daemon->trusted, daemon->trusted_count, &d->a.peer.any)) {
		header_refused(d, "from a peer that is not trusted");
		return false;
	}
	switch (proxy_header_parse(slice_of(bytes, n), &header, &why)) {
	case PROXY_MORE:
		if (d->closed)
			header_refused(d, "the client has left inside it");
		return false;
	case PROXY_BAD:
		header_refused(d, why);
		return false;
	case PROXY_OK:
		break;
	}
	if (recv(d->a.stream.fd, bytes, header.len, MSG_DONTWAIT) != (ssize_t)header.len) {
		header_refused(d, "the client has left behind it");
		return false;
	}
	if (header.has_client)
		d->a.peer = header.client;
	if (!count_client(d))
		return false;
	door_enter(d, DOOR_SILENT);
	return true;
}

/* The preface, as far as it has come, decides (RFC 9113, 3.3). May free d. */
static void step_plain(struct door *d)
{
	char bytes[HTTP2_PREFACE_BYTES];
	size_t n;

	if (!d->a.listen->http2) {
		door_pass(d, false);
		return;
	}
	n = look(d, bytes, sizeof(bytes));
	if (n == 0)
		return;
	if (memcmp(bytes, HTTP2_PREFACE, n) != 0)
		door_pass(d, false);
	else if (n == sizeof(bytes))
		door_pass(d, true);
	else if (d->closed)
		door_close(d);
	else if (d->state == DOOR_SILENT)
		door_enter(d, DOOR_PREFACE);
}

/* May free d. */
static void step_handshake(struct door *d)
{
	const char *why = "";
	int err;

	if (d->state == DOOR_SILENT) {
		if (begin_session(d) != 0) {
			handshake_failed(d, "no memory");
			return;
		}
		door_enter(d, DOOR_HANDSHAKE);
		if (d->closed) /* the end came with the first bytes, when nobody of the session's was there to hear it */
			stream_edge(&d->a.stream, true);
	}
	err = stream_handshake(&d->a.stream, &why);

	if (err == 0)
		door_pass(d, agreed_on_http2(&d->a.stream));
	else if (err != -EAGAIN)
		handshake_failed(d, why);
}

/* May free d. */
static void step_tls(struct door *d)
{
	bool fresh = d->state != DOOR_HANDSHAKE;
	char first;

	if (fresh && look(d, &first, 1) == 0)
		return;
	if (fresh && first >= 'A' && first <= 'Z')
		door_pass(d, false); /* a method: http1 says that it has come to the wrong port */
	else
		step_handshake(d);
}

/* Who has begun nothing is not worth a line. Frees d. */
static void door_give_up(struct door *d, const char *why)
{
	if (d->state == DOOR_HANDSHAKE)
		handshake_failed(d, why);
	else if (d->state == DOOR_HEADER && !stream_is_quiet(&d->a.stream))
		header_refused(d, why);
	else
		door_close(d);
}

static void door_event(evutil_socket_t fd UNUSED, short what, void *ctx)
{
	struct door *d = ctx;

	loop_callback(d->cx->loop);
	if (what & (EV_READ | EV_CLOSED))
		stream_edge(&d->a.stream, what & EV_CLOSED);
	d->closed = d->closed || (what & EV_CLOSED);
	/* A reset comes as both, and never again; bytes before it may still lie there. */
	if ((what & EV_READ) && (what & EV_WRITE) && stream_is_broken(&d->a.stream)) {
		door_give_up(d, "the client has reset the connection");
		return;
	}
	if (d->state == DOOR_HEADER && !step_header(d))
		return;
	if (d->a.listen->tls_count > 0)
		step_tls(d);
	else
		step_plain(d);
}

static void door_timer(struct timer *t)
{
	door_give_up(CONTAINER_OF(t, struct door, timer), "handshake_timeout");
}

static void door_evict(struct crowd_member *m, const char *why)
{
	door_give_up(CONTAINER_OF(m, struct door, member), why);
}

static void door_spill(struct crowd_member *m UNUSED)
{
}

static bool door_is_quiet(struct crowd_member *m)
{
	struct door *d = CONTAINER_OF(m, struct door, member);

	return stream_is_quiet(&d->a.stream);
}

static const struct crowd_acts crowd_acts = { .evict = door_evict, .spill = door_spill, .is_quiet = door_is_quiet };

bool door_is_needed(const struct conf_listen *listen)
{
	return listen->tls_count > 0 || listen->http2 || listen->proxy_protocol;
}

bool door_learns_client(const struct conf_listen *listen)
{
	return listen->proxy_protocol;
}

int door_new(struct context *cx, struct arrival *a)
{
	struct door *d = NULL;

	if (lease_take(&cx->loop->lease, sizeof(*d))) {
		d = calloc(1, sizeof(*d));
		if (!d)
			lease_give(&cx->loop->lease, sizeof(*d));
	}
	if (!d)
		return -ENOMEM;
	d->cx = cx;
	d->a = *a;
	stream_move(&d->a.stream, &a->stream);
	d->state = a->listen->proxy_protocol ? DOOR_HEADER : DOOR_SILENT;
	d->counted = !a->listen->proxy_protocol;
	d->timer.fire = door_timer;
	d->member.acts = &crowd_acts;
	d->member.since_ms = loop_now_ms(cx->loop);
	d->member.fresh = true;
	event_assign(
	    &d->ev, cx->loop->base, d->a.stream.fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST, door_event, d);
	if (event_add(&d->ev, NULL) == -1) {
		stream_move(&a->stream, &d->a.stream);
		door_free(d);
		return -ENOMEM;
	}
	crowd_move(cx->crowd, &d->member, CROWD_IDLE);
	loop_timer_set(cx->loop, &d->timer, a->listen->handshake_timeout_ms);
	return 0;
}
