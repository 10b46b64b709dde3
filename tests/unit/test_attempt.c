#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/http1.h"
#include "upstream/attempt.h"
#include "upstream/worker/wire.h"

/* A worker that this test plays itself, step by step, on a real Unix socket: no threads, no waiting. */

enum reads { READS_NOTHING, READS_ALL };
enum then { THEN_CLOSES, THEN_STAYS };

static const struct row {
	const char *request;
	const char *body; /* NULL: none */
	enum reads reads;
	const char *answer;
	enum then then;
	enum attempt_end end;
	const char *content; /* expected, if it is whole */
	bool keepalive;
} rows[] = {
#define GET  "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
#define HEAD "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
#define OK   "HTTP/1.1 200 OK\r\n"
	{ GET, NULL, READS_ALL, OK "Content-Length: 2\r\n\r\nhi", THEN_STAYS, ATTEMPT_WHOLE, "hi", false },
	{ GET, NULL, READS_ALL, OK "Content-Length: 2\r\n\r\nhi", THEN_CLOSES, ATTEMPT_WHOLE, "hi", true },
	{ GET, NULL, READS_ALL, OK "Content-Length: 0\r\n\r\n", THEN_STAYS, ATTEMPT_WHOLE, "", true },
	{ GET, NULL, READS_ALL, OK "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", THEN_STAYS, ATTEMPT_WHOLE, "hi",
	    false },
	{ GET, NULL, READS_ALL, OK "\r\nhi", THEN_CLOSES, ATTEMPT_WHOLE_EOF, "hi", false },
	{ GET, NULL, READS_ALL, "HTTP/1.1 204 No Content\r\n\r\n", THEN_STAYS, ATTEMPT_WHOLE, "", false },
	{ GET, NULL, READS_ALL, "HTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 2\r\n\r\nhi", THEN_STAYS, ATTEMPT_WHOLE,
	    "hi", false },
	{ HEAD, NULL, READS_ALL, OK "Content-Length: 2000\r\n\r\n", THEN_STAYS, ATTEMPT_WHOLE, "", false },
	/* gunicorn does */
	{ HEAD, NULL, READS_ALL, OK "Content-Length: 2\r\n\r\nhi", THEN_CLOSES, ATTEMPT_WHOLE, "", true },
	{ POST, "abc", READS_ALL, OK "Content-Length: 2\r\n\r\nhi", THEN_STAYS, ATTEMPT_WHOLE, "hi", true },
	/* an answer before the body was read (413 at once) is an answer */
	{ POST, "abc", READS_NOTHING, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", THEN_CLOSES, ATTEMPT_WHOLE, "",
	    false },
	/* lies about its length, dies, says two things, garbage */
	{ GET, NULL, READS_ALL, OK "Content-Length: 3\r\n\r\nhi", THEN_CLOSES, ATTEMPT_LOST, NULL, false },
	{ GET, NULL, READS_ALL, OK "Content-Length: 1\r\n\r\nhi", THEN_CLOSES, ATTEMPT_GARBAGE, NULL, false },
	{ GET, NULL, READS_ALL, OK "Content-Length: 0\r\n\r\n" OK "Content-Length: 0\r\n\r\n", THEN_STAYS, ATTEMPT_GARBAGE,
	    NULL, false },
	{ GET, NULL, READS_ALL, OK "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", THEN_CLOSES, ATTEMPT_LOST, NULL, false },
	{ GET, NULL, READS_ALL, OK "Transfer-Encoding: chunked\r\n\r\n2\r\nhiX", THEN_STAYS, ATTEMPT_GARBAGE, NULL, false },
	{ GET, NULL, READS_ALL, OK "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi", THEN_STAYS, ATTEMPT_GARBAGE, NULL,
	    false },
	{ GET, NULL, READS_ALL, OK "Content-Length: 2\nX: y\r\n\r\nhi", THEN_STAYS, ATTEMPT_GARBAGE, NULL, false },
	{ GET, NULL, READS_ALL, "hello\r\n\r\n", THEN_STAYS, ATTEMPT_GARBAGE, NULL, false },
	{ GET, NULL, READS_ALL, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", THEN_STAYS,
	    ATTEMPT_GARBAGE, NULL, false },
	{ GET, NULL, READS_ALL, "HTTP/1.1 200", THEN_CLOSES, ATTEMPT_LOST, NULL, false },
	/* the proof that it was not begun: a reset with nothing but the head under way */
	{ GET, NULL, READS_NOTHING, "", THEN_CLOSES, ATTEMPT_UNREAD, NULL, false },
	{ GET, NULL, READS_ALL, "", THEN_CLOSES, ATTEMPT_LOST, NULL, false },
	{ POST, "abc", READS_NOTHING, "", THEN_CLOSES, ATTEMPT_LOST, NULL, false },
};

static struct fixture {
	char dir[64], path[96];
	int listener, worker;
	struct clock_test clock;
	struct budget budget;
	struct loop *loop;
	struct conf_pool conf;
	struct conf_address address;
	struct pool *pool;
	struct request *request;
	struct body *into;
	struct attempt *attempt;
	int ends;
	enum attempt_end how;
	unsigned status;
} fx;

static void on_head(void *ctx, struct head *h, const struct http1_message *m)
{
	(void)ctx;
	(void)m;
	fx.status = h->status;
}

static void on_progress(void *ctx)
{
	(void)ctx;
}

static void on_end(void *ctx, enum attempt_end how, const char *why)
{
	(void)ctx;
	if (how != ATTEMPT_WHOLE && how != ATTEMPT_WHOLE_EOF)
		assert_non_null(why);
	fx.ends++;
	fx.how = how;
	fx.attempt = NULL;
}

static const struct attempt_events events = {
	.head = on_head, .progress = on_progress, .upgraded = on_progress, .end = on_end
};
static const struct body_events body_events = { .room = on_progress, .ready = on_progress };

static void granted(struct waiter *w, struct slot *slot)
{
	(void)w;
	pool_release(slot);
}

static int setup(void **state)
{
	struct sockaddr_un *un = &fx.address.addr.un;

	(void)state;
	fx = (struct fixture){ .dir = "/tmp/test_attempt.XXXXXX", .worker = -1 };
	assert_non_null(mkdtemp(fx.dir));
	snprintf(fx.path, sizeof(fx.path), "%s/s", fx.dir);
	un->sun_family = AF_UNIX;
	snprintf(un->sun_path, sizeof(un->sun_path), "%s", fx.path);
	fx.address.len = sizeof(*un);
	fx.address.text = fx.path;
	fx.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fx.listener, &fx.address.addr.any, fx.address.len), 0);
	assert_int_equal(listen(fx.listener, 8), 0);
	clock_test_init(&fx.clock);
	budget_init(&fx.budget, 64u << 20);
	assert_int_equal(loop_new(0, &fx.clock.clock, &fx.budget, NULL, &fx.loop), 0);
	fx.conf = (struct conf_pool){
		.name = "p",
		.sockets = &fx.address,
		.socket_count = 1,
		.slots = 2,
		.queue_limit = 10,
		.keepalive_idle_ms = 1000,
		.timeout_ms = 1000,
		.release_timeout_ms = 2000,
		.connect_timeout_ms = 1000,
	};
	assert_int_equal(pool_new(&fx.conf, &link_pool_links, &fx.clock.clock, &fx.pool), 0);
	return 0;
}

static int teardown(void **state)
{
	struct pool_figures figures;

	(void)state;
	request_drop(&fx.request);
	body_free(&fx.into);
	pool_figures(fx.pool, &figures);
	assert_int_equal(figures.busy, 0);
	pool_free(&fx.pool);
	assert_int_equal(fx.loop->lease.used, 0);
	loop_free(&fx.loop);
	if (fx.worker != -1)
		close(fx.worker);
	close(fx.listener);
	unlink(fx.path);
	rmdir(fx.dir);
	return 0;
}

/* What is there is done; nothing is waited for. */
static void turn(void)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(fx.loop->base, EVLOOP_NONBLOCK);
}

static void begin(const char *head, const char *body)
{
	struct body_options o = { .memory_max = 65536, .events = &body_events };
	struct waiter w = { .loop = fx.loop, .granted = granted };
	struct http1_message m;
	struct head parsed;
	struct slot *slot;

	fx.request = request_new(fx.loop);
	head_init(&parsed);
	assert_int_equal(http1_request(slice_str(head), &parsed, &m), HTTP1_OK);
	fx.request->head.method = parsed.method;
	buf_add(&fx.request->wire, slice_str(head));
	head_done(&parsed);
	fx.request->length_known = true;
	if (body) {
		assert_int_equal(body_new(fx.loop, &o, &fx.request->body), 0);
		assert_int_equal(body_append(fx.request->body, slice_str(body)), 0);
		body_finish(fx.request->body);
		fx.request->length = strlen(body);
	}
	assert_int_equal(body_new(fx.loop, &o, &fx.into), 0);
	assert_int_equal(pool_acquire(fx.pool, &w, &slot), POOL_GRANTED);
	fx.attempt = attempt_new(fx.loop, slot, fx.request, fx.into, &events, &fx);
	assert_non_null(fx.attempt);
}

static size_t worker_reads(char *into, size_t size)
{
	size_t got = 0;
	ssize_t n;

	turn();
	while ((n = recv(fx.worker, into + got, size - got, MSG_DONTWAIT)) > 0) {
		got += (size_t)n;
		turn();
	}
	return got;
}

static void worker_closes(void)
{
	close(fx.worker);
	fx.worker = -1;
}

static void content_is(size_t row, const char *expected)
{
	struct body_cursor c;
	struct iovec iov[8];
	struct body_file file;
	char got[256];
	size_t len = 0;
	int n;

	body_cursor_init(&c, fx.into);
	while (body_peek(&c, sizeof(got) - len, iov, 8, &n, &file) == BODY_MEMORY) {
		memcpy(got + len, iov[0].iov_base, iov[0].iov_len);
		len += iov[0].iov_len;
		body_advance(&c, iov[0].iov_len);
	}
	if (len != strlen(expected) || memcmp(got, expected, len) != 0)
		fail_msg("row %zu: content is %.*s", row, (int)len, got);
}

/* All at once, or one byte after the other. */
static void play(size_t row, bool bytewise)
{
	const struct row *r = &rows[row];
	char seen[1024];
	size_t len = strlen(r->answer);

	fx.conf.keepalive = r->keepalive;
	begin(r->request, r->body);
	fx.worker = accept(fx.listener, NULL, NULL);
	assert_true(fx.worker >= 0);
	if (r->reads == READS_ALL) {
		size_t n = worker_reads(seen, sizeof(seen));

		if (n != strlen(r->request) + (r->body ? strlen(r->body) : 0))
			fail_msg("row %zu: worker saw %.*s", row, (int)n, seen);
	}
	for (size_t at = 0; at < len && fx.ends == 0; at += bytewise ? 1 : len) {
		assert_true(send(fx.worker, r->answer + at, bytewise ? 1 : len, MSG_NOSIGNAL) > 0);
		if (bytewise)
			turn();
	}
	if (r->then == THEN_CLOSES)
		worker_closes();
	turn();
	if (fx.ends != 1 || (!bytewise && fx.how != r->end))
		fail_msg("row %zu: ends=%d how=%d expected=%d", row, fx.ends, (int)fx.how, (int)r->end);
	if (r->content && (fx.how == ATTEMPT_WHOLE || fx.how == ATTEMPT_WHOLE_EOF))
		content_is(row, r->content);
	/* Byte by byte a byte behind the end comes too late to be seen: never as part of the answer. */
	if (bytewise && r->end != ATTEMPT_GARBAGE && fx.how != r->end)
		fail_msg("row %zu bytewise: how=%d expected=%d", row, (int)fx.how, (int)r->end);
}

static void an_answer_is_whole_or_lost_or_garbage(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (int bytewise = 0; bytewise < 2; bytewise++) {
			setup(state);
			play(i, bytewise);
			teardown(state);
		}
	}
}

static void with_replay_unread_the_body_waits_for_the_head_to_be_read(void **state)
{
	char seen[1024];
	size_t n;

	(void)state;
	fx.conf.replay_unread = true;
	begin(POST, "abc");
	fx.worker = accept(fx.listener, NULL, NULL);
	turn();
	n = (size_t)recv(fx.worker, seen, sizeof(seen), MSG_DONTWAIT | MSG_PEEK);
	assert_int_equal(n, strlen(POST)); /* the head alone */
	n = worker_reads(seen, sizeof(seen));
	assert_int_equal(n, strlen(POST) + 3);
	worker_closes();
	turn();
	assert_int_equal(fx.how, ATTEMPT_LOST);
}

static void with_replay_unread_a_post_that_was_not_read_is_proved_unread(void **state)
{
	(void)state;
	fx.conf.replay_unread = true;
	begin(POST, "abc");
	fx.worker = accept(fx.listener, NULL, NULL);
	turn();
	worker_closes();
	turn();
	assert_int_equal(fx.how, ATTEMPT_UNREAD);
}

static void a_socket_that_refuses_is_unreachable_and_rests(void **state)
{
	struct pool_figures figures;

	(void)state;
	close(fx.listener);
	fx.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	begin(GET, NULL);
	assert_int_equal(fx.ends, 0); /* not from within the call */
	turn();
	assert_int_equal(fx.how, ATTEMPT_UNREACHABLE);
	pool_figures(fx.pool, &figures);
	assert_int_equal(figures.sockets_down, 1);
	assert_int_equal(figures.absent, 2);
}

static void a_head_that_nobody_reads_is_counted_as_an_overstated_slot(void **state)
{
	struct pool_figures figures;
	char seen[1024];

	(void)state;
	begin(GET, NULL);
	fx.worker = accept(fx.listener, NULL, NULL);
	turn();
	clock_test_advance(&fx.clock, 100 * 1000 + 100 * 1000);
	wheel_advance(&fx.loop->wheel, loop_now_ms(fx.loop), UINT_MAX);
	pool_figures(fx.pool, &figures);
	assert_int_equal(figures.slots_overstated, 1);
	worker_reads(seen, sizeof(seen));
	assert_true(send(fx.worker, OK "Content-Length: 0\r\n\r\n", 38, MSG_NOSIGNAL) > 0);
	turn();
	assert_int_equal(fx.how, ATTEMPT_WHOLE);
}

static void detached_it_keeps_its_slot_until_the_answer_has_ended(void **state)
{
	struct pool_figures figures;
	char seen[1024];

	(void)state;
	begin(GET, NULL);
	fx.worker = accept(fx.listener, NULL, NULL);
	worker_reads(seen, sizeof(seen));
	attempt_detach(fx.attempt);
	body_free(&fx.into);
	turn();
	pool_figures(fx.pool, &figures);
	assert_int_equal(figures.busy, 1);
	assert_true(send(fx.worker, OK "Content-Length: 2\r\n\r\nhi", 40, MSG_NOSIGNAL) > 0);
	turn();
	pool_figures(fx.pool, &figures);
	assert_int_equal(figures.busy, 0);
	assert_int_equal(fx.ends, 0);
}

static void at_its_time_limit_the_owner_hears_and_the_slot_stays_taken_until_release_timeout(void **state)
{
	struct pool_figures figures;
	char seen[1024];

	(void)state;
	begin(GET, NULL);
	fx.worker = accept(fx.listener, NULL, NULL);
	worker_reads(seen, sizeof(seen));
	clock_test_advance(&fx.clock, 1200 * 1000);
	wheel_advance(&fx.loop->wheel, loop_now_ms(fx.loop), UINT_MAX);
	assert_int_equal(fx.ends, 1);
	assert_int_equal(fx.how, ATTEMPT_TIMEOUT);
	turn();
	pool_figures(fx.pool, &figures);
	assert_int_equal(figures.busy, 1);
	clock_test_advance(&fx.clock, 2200 * 1000);
	wheel_advance(&fx.loop->wheel, loop_now_ms(fx.loop), UINT_MAX);
	turn();
	pool_figures(fx.pool, &figures);
	assert_int_equal(figures.busy, 0);
}

static const _Atomic uint64_t started; /* nothing was */

static size_t descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* The kernel gives as many as there is room for, without a word: whoever makes room for more than it looks at loses them. */
static void descriptors_that_nobody_asked_for_are_closed(void **state)
{
	const char nonsense[WIRE_HEADER_BYTES] = { WIRE_HELLO };
	int pair[2], fds[2] = { STDERR_FILENO, STDERR_FILENO };
	struct link *link;
	size_t before;

	(void)state;
	pool_free(&fx.pool);
	fx.conf = (struct conf_pool){ .name = "p", .app = APP_DEMO, .processes = 1, .threads = 1, .queue_limit = 10 };
	assert_int_equal(pool_new(&fx.conf, &link_pool_links, &fx.clock.clock, &fx.pool), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	fx.worker = pair[1];
	assert_int_equal(link_wrap(&pair[0], &started, 1, &link), 0);
	pool_attach(fx.pool, 0, link, fx.loop, 77);
	turn();
	begin(GET, NULL);
	turn();
	before = descriptors();
	assert_int_equal(fdpass_send(fx.worker, nonsense, sizeof(nonsense), fds, ARRAY_LEN(fds), 0), sizeof(nonsense));
	turn();
	assert_int_equal(fx.ends, 1);
	assert_int_equal(fx.how, ATTEMPT_GARBAGE);
	assert_int_equal(descriptors(), before - 1); /* the link's */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_is_whole_or_lost_or_garbage),
		cmocka_unit_test_setup_teardown(with_replay_unread_the_body_waits_for_the_head_to_be_read, setup, teardown),
		cmocka_unit_test_setup_teardown(with_replay_unread_a_post_that_was_not_read_is_proved_unread, setup, teardown),
		cmocka_unit_test_setup_teardown(a_socket_that_refuses_is_unreachable_and_rests, setup, teardown),
		cmocka_unit_test_setup_teardown(a_head_that_nobody_reads_is_counted_as_an_overstated_slot, setup, teardown),
		cmocka_unit_test_setup_teardown(descriptors_that_nobody_asked_for_are_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(detached_it_keeps_its_slot_until_the_answer_has_ended, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    at_its_time_limit_the_owner_hears_and_the_slot_stays_taken_until_release_timeout, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
