#include "upstream/worker/rehearsal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "upstream/worker/talk.h"
#include "upstream/worker/wire.h"

#define REQUEST_MAX (16u << 10)
#define SERIAL      1

/* Who reads what the application answers. */
struct listener {
	int sock;
	unsigned status; /* of the final head */
	bool whole;      /* END came */
};

/* `n` bytes, into `to` or away. */
static bool take(int sock, char *to, size_t n)
{
	char away[4096] = { 0 };

	while (n > 0) {
		size_t part = to ? n : MIN(n, sizeof(away));
		ssize_t got = recv(sock, to ? to : away, part, 0);

		if (got == -1 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		to = to ? to + got : NULL;
		n -= (size_t)got;
	}
	return true;
}

/* False: nothing more is to come. A file's descriptor is dropped by the kernel, since no room is given for it. */
static bool take_frame(struct listener *l)
{
	char header[WIRE_HEADER_BYTES], status[2];
	struct wire_frame f;

	if (!take(l->sock, header, sizeof(header)) || wire_get_header(slice_of(header, sizeof(header)), &f) != 1)
		return false;
	if (f.type == WIRE_HEAD) {
		if (!take(l->sock, status, sizeof(status)) || !take(l->sock, NULL, f.length - sizeof(status)))
			return false;
		l->status = wire_get_u16(status);
		return true;
	}
	l->whole = f.type == WIRE_END;
	return take(l->sock, NULL, f.length) && !l->whole;
}

static void *listen_to_it(void *ctx)
{
	struct listener *l = ctx;

	while (take_frame(l))
		;
	/* Whoever answers sees the end, in place of the next request. */
	(void)shutdown(l->sock, SHUT_RDWR);
	return NULL;
}

static void put_variables(struct buf *b, const char *target)
{
	struct slice path = slice_str(target), query = slice_str(target);

	if (slice_cut(&query, '?', &path))
		;
	else
		query = slice_of("", 0);
	wire_put_pair(b, SLICE("GATEWAY_INTERFACE"), SLICE("CGI/1.1"));
	wire_put_pair(b, SLICE("SERVER_SOFTWARE"), SLICE("forebay"));
	wire_put_pair(b, SLICE("REQUEST_METHOD"), SLICE("GET"));
	wire_put_pair(b, SLICE("SCRIPT_NAME"), slice_of("", 0));
	wire_put_pair(b, SLICE("PATH_INFO"), path);
	wire_put_pair(b, SLICE("QUERY_STRING"), query);
	wire_put_pair(b, SLICE("REQUEST_URI"), slice_str(target));
	wire_put_pair(b, SLICE("SERVER_PROTOCOL"), SLICE("HTTP/1.1"));
	wire_put_pair(b, SLICE("SERVER_NAME"), SLICE("localhost"));
	wire_put_pair(b, SLICE("SERVER_PORT"), SLICE("80"));
	wire_put_pair(b, SLICE("REMOTE_ADDR"), SLICE("127.0.0.1"));
	wire_put_pair(b, SLICE("REQUEST_SCHEME"), SLICE("http"));
	wire_put_pair(b, SLICE("FOREBAY_REQUEST_ID"), SLICE("rehearsal"));
	wire_put_pair(b, SLICE("HTTP_HOST"), SLICE("localhost"));
	wire_put_pair(b, SLICE("HTTP_USER_AGENT"), SLICE("forebay-rehearsal"));
}

static int put_request(struct buf *b, const char *target)
{
	struct buf variables;
	char header[WIRE_HEADER_BYTES], length[4];
	int err;

	buf_init(&variables, REQUEST_MAX);
	put_variables(&variables, target);
	wire_put_hello(b);
	wire_put_header(
	    header, &(struct wire_frame){
	                .type = WIRE_REQUEST, .length = (uint32_t)(sizeof(length) + variables.len), .serial = SERIAL });
	wire_put_u32(length, (uint32_t)variables.len);
	buf_add(b, slice_of(header, sizeof(header)));
	buf_add(b, slice_of(length, sizeof(length)));
	buf_add(b, buf_slice(&variables));
	err = variables.failed || b->failed ? -E2BIG : 0;
	buf_done(&variables);
	return err;
}

/* It is small enough for the socket to hold before anybody reads. */
static int send_request(int sock, const char *target)
{
	struct buf b;
	int err;

	buf_init(&b, 2 * REQUEST_MAX);
	err = put_request(&b, target);
	if (!err && send(sock, b.ptr, b.len, MSG_NOSIGNAL) != (ssize_t)b.len)
		err = -EIO;
	buf_done(&b);
	return err;
}

static void serve(const struct worker_app *app, void *app_ctx, int sock)
{
	_Atomic uint64_t started = 0;
	const atomic_bool ending = false;
	const struct talk_plan talk = { .app = app, .app_ctx = app_ctx, .started = &started, .ending = &ending };
	pid_t self = getpid();

	if (app->prepare_thread)
		app->prepare_thread(app_ctx);
	(void)!talk_serve(sock, &talk); /* what became of it the listener knows */
	if (getpid() != self)
		_exit(1); /* a process that the application has forked, and that came back from it */
	if (app->leave_thread)
		app->leave_thread(app_ctx);
}

int rehearse(const struct worker_app *app, void *app_ctx, const char *target, unsigned *ret_status)
{
	struct listener l = { 0 };
	pthread_t thread;
	int pair[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == -1)
		return -errno;
	l.sock = pair[0];
	err = send_request(pair[0], target);
	if (!err)
		err = -pthread_create(&thread, NULL, listen_to_it, &l);
	if (!err) {
		serve(app, app_ctx, pair[1]);
		(void)shutdown(pair[1], SHUT_RDWR);
		pthread_join(thread, NULL);
		*ret_status = l.whole ? l.status : 0;
	}
	close(pair[0]);
	close(pair[1]);
	return err;
}
