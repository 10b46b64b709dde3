#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define EVENTS       256
#define HANDSHAKE_MS 60000

/* One handshake on its way: the connection, and what its slot was given to resume by. */
struct shake_slot {
	struct wire wire;
	SSL_SESSION *session;
	bool done; /* the handshake; what follows is the end */
};

struct shake {
	const struct load *load;
	int epoll;
	struct shake_slot slots[IN_FLIGHT_MAX];
	bool resume;
	uint64_t to_begin, busy, done;
};

static _Noreturn void fail_tls(const char *what)
{
	char about[256];

	ERR_error_string_n(ERR_peek_error(), about, sizeof(about));
	load_fail(what, about);
}

/* Sessions go to the slot that the connection was made for: a copy, which the connection's own end does not spoil. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
	struct shake_slot *slot = SSL_get_app_data(ssl);

	if (slot) {
		SSL_SESSION_free(slot->session);
		slot->session = SSL_SESSION_dup(session);
	}
	return 0;
}

/* What browsers offer, in their order, so that all proxies work with the same. Who is spoken to is not checked. */
static SSL_CTX *make_context(void)
{
	static SSL_CTX *ctx;

	if (ctx)
		return ctx;
	ctx = SSL_CTX_new(TLS_client_method());
	if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set1_groups_list(ctx, "X25519:P-256") != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") != 1)
		fail_tls("TLS");
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, on_session);
	return ctx;
}

static SSL *make_session(const struct load *l, int fd)
{
	SSL *ssl = SSL_new(make_context());

	if (!ssl || SSL_set_fd(ssl, fd) != 1 || SSL_set_tlsext_host_name(ssl, l->host) != 1)
		fail_tls("TLS");
	SSL_set_connect_state(ssl);
	return ssl;
}

struct wire load_wire_open(const struct load *l)
{
	struct wire w = { .fd = load_connect(l, 0) };
	struct pollfd p = { .fd = w.fd, .events = POLLIN };
	int n;

	if (!l->tls)
		return w;
	w.ssl = make_session(l, w.fd);
	while ((n = SSL_do_handshake(w.ssl)) != 1)
		if (SSL_get_error(w.ssl, n) != SSL_ERROR_WANT_READ || poll(&p, 1, HANDSHAKE_MS) != 1)
			fail_tls("a handshake");
	return w;
}

/* As errno tells it; the end of a connection is 0. */
static ssize_t tls_result(SSL *ssl, int n)
{
	switch (SSL_get_error(ssl, n)) {
	case SSL_ERROR_NONE:
		return n;
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		errno = EAGAIN;
		return -1;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return -1;
	default:
		fail_tls("TLS");
	}
}

ssize_t load_wire_send(const struct wire *w, const struct iovec *iov, int n)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };

	if (!w->ssl)
		return sendmsg(w->fd, &msg, MSG_NOSIGNAL);
	ERR_clear_error();
	return tls_result(w->ssl, SSL_write(w->ssl, iov->iov_base, (int)iov->iov_len));
}

ssize_t load_wire_recv(const struct wire *w, void *to, size_t room)
{
	if (!w->ssl)
		return recv(w->fd, to, room, 0);
	ERR_clear_error();
	return tls_result(w->ssl, SSL_read(w->ssl, to, (int)room));
}

static void begin(struct shake *k, unsigned number)
{
	struct shake_slot *s = &k->slots[number];
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = number };

	k->to_begin--;
	k->busy++;
	s->done = false;
	s->wire.fd = load_connect(k->load, 0);
	s->wire.ssl = make_session(k->load, s->wire.fd);
	SSL_set_app_data(s->wire.ssl, s);
	if (k->resume && s->session && SSL_set_session(s->wire.ssl, s->session) != 1)
		fail_tls("a session");
	if (epoll_ctl(k->epoll, EPOLL_CTL_ADD, s->wire.fd, &ev) == -1)
		load_fail("epoll_ctl", strerror(errno));
}

/* True: it is done, and our end of the connection's. */
static bool handshake(struct shake *k, struct shake_slot *s)
{
	bool asked = k->resume && s->session;
	int n;

	ERR_clear_error();
	n = SSL_do_handshake(s->wire.ssl);
	if (n != 1) {
		n = (int)tls_result(s->wire.ssl, n);
		if (n == 0 || (n == -1 && errno != EAGAIN))
			load_fail("a handshake", n == 0 ? "end of file" : strerror(errno));
		return false;
	}
	if (asked != (SSL_session_reused(s->wire.ssl) == 1))
		load_fail("a session was not taken up", "");
	s->done = true;
	if (SSL_shutdown(s->wire.ssl) == -1)
		fail_tls("the end of a connection");
	return true;
}

/* The other end has closed: only now is it known to have done its part. */
static void finish(struct shake *k, unsigned number)
{
	struct shake_slot *s = &k->slots[number];

	if (k->resume && !s->session)
		load_fail("no session was given", "");
	SSL_free(s->wire.ssl);
	close(s->wire.fd);
	k->busy--;
	k->done++;
	if (k->to_begin > 0)
		begin(k, number);
}

static void on_event(struct shake *k, unsigned number)
{
	struct shake_slot *s = &k->slots[number];
	char byte;
	ssize_t n;

	if (!s->done && !handshake(k, s))
		return;
	n = load_wire_recv(&s->wire, &byte, 1);
	if (n == 0)
		finish(k, number);
	else if (n > 0)
		load_fail("an answer to no request", "");
	else if (errno != EAGAIN)
		load_fail("the end of a connection", strerror(errno));
}

static void turn(struct shake *k)
{
	struct epoll_event events[EVENTS];
	int n;

	while (k->busy > 0) {
		n = epoll_wait(k->epoll, events, EVENTS, -1);
		if (n == -1 && errno != EINTR)
			load_fail("epoll_wait", strerror(errno));
		for (int i = 0; i < n; i++)
			on_event(k, events[i].data.u32);
	}
}

static void command(struct shake *k, bool resume, uint64_t handshakes)
{
	uint64_t start = load_now_ns();

	k->resume = resume;
	k->to_begin = handshakes;
	k->done = 0;
	for (unsigned i = 0; i < k->load->in_flight && k->to_begin > 0; i++)
		begin(k, i);
	turn(k);
	printf("{\"handshakes\": %" PRIu64 ", \"seconds\": %.6f}\n", k->done, (double)(load_now_ns() - start) / 1e9);
}

void shake_run(const struct load *l)
{
	static struct shake k;
	char line[128];
	uint64_t n;

	k.load = l;
	k.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (k.epoll == -1)
		load_fail("epoll_create", strerror(errno));
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "full %" SCNu64, &n) == 1)
			command(&k, false, n);
		else if (sscanf(line, "resume %" SCNu64, &n) == 1)
			command(&k, true, n);
		else
			load_fail("no such command", line);
	}
}
