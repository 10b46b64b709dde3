#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "upstream/attempt.h"
#include "upstream/worker/wire.h"

/*
 * One of forebay's own workers, played by this test at the other end of a real slot socket: what it says, how it ends, and what the started page
 * says decide how the attempt ended, and whether its process is to be replaced.
 *
 * What it says, a letter a frame: h hello, H head, I 103, d DATA, E END, s END with another serial, R REQUEST, f FILE with a descriptor, F FILE
 * without, p FILE with a pipe, t HEAD with two descriptors, X nonsense, x half a header.
 */

enum then {
	STAYS,
	CLOSES,
	HALF /* it can be sent to, still */,
	DETACHED /* the client has left before it says it; then it stays */
};

static const struct row {
	const char *says;
	enum then then;
	bool called;
	enum attempt_end end;
	bool replaced;
} rows[] = {
	{ "hHdE", STAYS, true, ATTEMPT_WHOLE, false },
	{ "hHdE", CLOSES, true, ATTEMPT_WHOLE, false },
	{ "hIIIIIIIIHE", STAYS, true, ATTEMPT_WHOLE, false },
	/* lost: the page says the rest */
	{ "", CLOSES, false, ATTEMPT_UNREAD, false },
	{ "", CLOSES, true, ATTEMPT_LOST, false },
	{ "h", CLOSES, false, ATTEMPT_UNREAD, false },
	{ "h", CLOSES, true, ATTEMPT_LOST, false },
	{ "hx", CLOSES, true, ATTEMPT_LOST, false },
	{ "hI", CLOSES, true, ATTEMPT_LOST, false },
	{ "hH", CLOSES, true, ATTEMPT_LOST, false },
	{ "hHd", CLOSES, true, ATTEMPT_LOST, false },
	/* it may still read what it was sent */
	{ "", HALF, false, ATTEMPT_LOST, true },
	{ "h", HALF, false, ATTEMPT_LOST, true },
	{ "hH", HALF, true, ATTEMPT_LOST, false },
	/* not the protocol: the same, and nobody waits for its end */
	{ "X", STAYS, false, ATTEMPT_GARBAGE, true },
	{ "X", CLOSES, false, ATTEMPT_GARBAGE, true },
	{ "H", STAYS, false, ATTEMPT_GARBAGE, true },
	{ "hh", STAYS, false, ATTEMPT_GARBAGE, true },
	{ "hE", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "hd", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "hHH", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "hHs", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "hHR", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "hHEE", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "hHEHE", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "hIIIIIIIIIHE", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "hHF", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "hHp", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "hHffffffffffffffffE", STAYS, true, ATTEMPT_WHOLE, false },
	{ "hHfffffffffffffffffE", STAYS, true, ATTEMPT_GARBAGE, true },
	{ "ht", STAYS, false, ATTEMPT_GARBAGE, true },
	/* nobody listens any more: told to nobody, and the slot is free or lost all the same */
	{ "hHdE", DETACHED, true, ATTEMPT_END_COUNT, false },
	{ "hHEE", DETACHED, true, ATTEMPT_END_COUNT, true },
	{ "hHs", DETACHED, true, ATTEMPT_END_COUNT, true },
	{ "X", DETACHED, true, ATTEMPT_END_COUNT, true },
	{ "ht", DETACHED, true, ATTEMPT_END_COUNT, true },
};

#define PID 77

static struct fixture {
	struct clock_test clock;
	struct budget budget;
	struct loop *loop;
	struct conf_pool conf;
	struct pool *pool;
	_Atomic uint64_t started;
	int worker; /* -1: closed */
	uint64_t serial;
	struct request *request;
	struct body *into;
	struct attempt *attempt;
	unsigned ends;
	enum attempt_end how;
} fx;

static void on_head(void *ctx UNUSED, struct head *h, const struct http1_message *m UNUSED)
{
	assert_in_range(h->status, 100, 599);
}

static void on_progress(void *ctx UNUSED)
{
}

static void on_end(void *ctx UNUSED, enum attempt_end how, const char *why)
{
	if (how != ATTEMPT_WHOLE)
		assert_non_null(why);
	fx.ends++;
	fx.how = how;
}

static const struct attempt_events events = {
	.head = on_head, .progress = on_progress, .upgraded = on_progress, .end = on_end
};

/* What is there is done; nothing is waited for. */
static void turn(void)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(fx.loop->base, EVLOOP_NONBLOCK);
}

static void attach(void)
{
	struct link *link;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	fx.worker = pair[1];
	assert_int_equal(link_wrap(&pair[0], &fx.started, fx.serial, &link), 0);
	pool_attach(fx.pool, 0, link, fx.loop, PID);
	turn();
}

static void set_up(void)
{
	fx = (struct fixture){ .worker = -1, .serial = 1000 };
	clock_test_init(&fx.clock);
	budget_init(&fx.budget, 64u << 20);
	assert_int_equal(loop_new(0, &fx.clock.clock, &fx.budget, NULL, &fx.loop), 0);
	fx.conf = (struct conf_pool){ .name = "p",
		.app = APP_DEMO,
		.processes = 1,
		.threads = 1,
		.queue_limit = 10,
		.timeout_ms = 1000,
		.release_timeout_ms = 2000 };
	assert_int_equal(pool_new(&fx.conf, &link_pool_links, &fx.clock.clock, &fx.pool), 0);
	attach();
}

static void tear_down(void)
{
	request_drop(&fx.request);
	body_free(&fx.into);
	pool_free(&fx.pool);
	assert_int_equal(fx.loop->lease.used, 0);
	loop_free(&fx.loop);
	if (fx.worker != -1)
		close(fx.worker);
}

static void granted(struct waiter *w UNUSED, struct slot *slot)
{
	pool_release(slot);
}

/* A request is handed to the worker, who reads it. */
static void begin(void)
{
	static const struct body_events none = { .room = on_progress, .ready = on_progress };
	const struct body_options o = { .memory_max = 1u << 20, .events = &none };
	struct waiter w = { .loop = fx.loop, .granted = granted };
	struct slot *slot;
	char seen[4096];

	fx.request = request_new(fx.loop);
	assert_int_equal(head_put(&fx.request->head, SLICE("GET"), &fx.request->head.method_text), 0);
	assert_int_equal(head_put(&fx.request->head, SLICE("/"), &fx.request->head.path), 0);
	fx.request->head.method = METHOD_GET;
	fx.request->length_known = true;
	assert_int_equal(body_new(fx.loop, &o, &fx.into), 0);
	assert_int_equal(pool_acquire(fx.pool, &w, &slot), POOL_GRANTED);
	fx.ends = 0;
	fx.how = ATTEMPT_END_COUNT;
	fx.attempt = attempt_new(fx.loop, slot, fx.request, fx.into, &events, &fx);
	assert_non_null(fx.attempt);
	turn();
	assert_true(recv(fx.worker, seen, sizeof(seen), MSG_DONTWAIT) > 0);
	fx.serial++;
}

static void say(uint8_t type, uint8_t flags, uint64_t serial, struct slice payload, const int *fds, size_t fd_count)
{
	struct buf b;
	char *to;

	buf_init(&b, 4096);
	to = buf_room(&b, WIRE_HEADER_BYTES);
	wire_put_header(
	    to, &(struct wire_frame){ .type = type, .flags = flags, .length = (uint32_t)payload.len, .serial = serial });
	b.len += WIRE_HEADER_BYTES;
	buf_add(&b, payload);
	(void)!fdpass_send(fx.worker, b.ptr, b.len, fds, fd_count, 0); /* the front may have closed it by now */
	buf_done(&b);
}

static void say_hello(void)
{
	struct buf b;

	buf_init(&b, 64);
	wire_put_hello(&b);
	assert_int_equal(send(fx.worker, b.ptr, b.len, MSG_NOSIGNAL), (ssize_t)b.len);
	buf_done(&b);
}

static void say_head(unsigned status, const int *fds, size_t fd_count)
{
	char payload[4];

	wire_put_u16(payload, (uint16_t)status);
	wire_put_u16(payload + 2, 0);
	say(WIRE_HEAD, 0, fx.serial, slice_of(payload, sizeof(payload)), fds, fd_count);
}

static void say_file(int fd)
{
	char payload[WIRE_FILE_BYTES];

	wire_put_file(payload, &(struct wire_file){ .offset = 1, .length = 3 });
	say(WIRE_FILE, WIRE_DESCRIPTOR, fx.serial, slice_of(payload, sizeof(payload)), &fd, fd != -1);
}

static void say_letter(char letter)
{
	int fds[2] = { memfd_create("file", MFD_CLOEXEC), -1 }, pipes[2];

	assert_int_equal(write(fds[0], "0123456789", 10), 10);
	assert_int_equal(pipe(pipes), 0);
	fds[1] = pipes[0];
	switch (letter) {
	case 'h':
		say_hello();
		break;
	case 'H':
		say_head(200, NULL, 0);
		break;
	case 'I':
		say_head(103, NULL, 0);
		break;
	case 't':
		say_head(200, fds, 2);
		break;
	case 'd':
		say(WIRE_DATA, 0, fx.serial, SLICE("12345"), NULL, 0);
		break;
	case 'E':
		say(WIRE_END, 0, fx.serial, SLICE(""), NULL, 0);
		break;
	case 's':
		say(WIRE_END, 0, fx.serial - 1, SLICE(""), NULL, 0);
		break;
	case 'R':
		say(WIRE_REQUEST, 0, fx.serial, SLICE("\0\0\0\0"), NULL, 0);
		break;
	case 'f':
		say_file(fds[0]);
		break;
	case 'F':
		say_file(-1);
		break;
	case 'p':
		say_file(fds[1]);
		break;
	case 'x':
		assert_int_equal(send(fx.worker, "\3\0\0", 3, MSG_NOSIGNAL), 3);
		break;
	case 'X':
		assert_int_equal(send(fx.worker, "HTTP/1.1 200 OK\r\n\r\n", 19, MSG_NOSIGNAL), 19);
		break;
	default:
		fail_msg("letter %c", letter);
	}
	close(fds[0]);
	close(pipes[0]);
	close(pipes[1]);
}

/* All of it before the front looks, or after each frame. */
static void play(size_t i, bool one_by_one)
{
	const struct row *r = &rows[i];
	struct pool_figures figures;
	unsigned index;
	pid_t pid = 0;
	bool told;

	begin();
	if (r->called)
		atomic_store(&fx.started, fx.serial);
	if (r->then == DETACHED)
		attempt_detach(fx.attempt);
	for (const char *c = r->says; *c; c++) {
		say_letter(*c);
		/* What stands behind an END is seen with it or, later, on an idle link. */
		if (one_by_one && *c != 'E')
			turn();
	}
	if (r->then == CLOSES) {
		close(fx.worker);
		fx.worker = -1;
	} else if (r->then == HALF) {
		assert_int_equal(shutdown(fx.worker, SHUT_WR), 0);
	}
	turn();
	if (fx.ends != (r->then != DETACHED) || fx.how != r->end)
		fail_msg("row %zu, %d: ends=%u how=%d", i, one_by_one, fx.ends, (int)fx.how);
	told = pool_next_given_up(fx.pool, &index, &pid);
	if (told != r->replaced || (told && (pid != PID || index != 0)))
		fail_msg("row %zu, %d: told=%d pid=%d", i, one_by_one, told, (int)pid);
	pool_figures(fx.pool, &figures);
	if (figures.busy != 0 || (r->replaced && figures.free != 0))
		fail_msg("row %zu, %d: busy=%u free=%u", i, one_by_one, figures.busy, figures.free);
}

static void how_it_ends(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		for (int one_by_one = 0; one_by_one < 2; one_by_one++) {
			set_up();
			play(i, one_by_one);
			tear_down();
		}
}

/* Nobody asked: neither the slot nor the process is used again. Its own end alone is no such thing. */
static void a_worker_that_speaks_out_of_turn_is_given_up(void **state)
{
	static const struct {
		const char *says;
		bool closes, told;
	} idle[] = { { "E", false, true }, { "h", false, true }, { "X", false, true }, { "", true, false } };
	struct pool_figures figures;
	unsigned index;
	pid_t pid;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(idle); i++) {
		set_up();
		for (const char *c = idle[i].says; *c; c++)
			say_letter(*c);
		if (idle[i].closes) {
			close(fx.worker);
			fx.worker = -1;
		}
		turn();
		pool_figures(fx.pool, &figures);
		if (figures.absent != figures.slots || pool_next_given_up(fx.pool, &index, &pid) != idle[i].told)
			fail_msg("row %zu: absent=%u", i, figures.absent);
		tear_down();
	}
}

/* The page still has the serial of an earlier one, or of one after it: only its own counts. */
static void another_requests_serial_is_not_this_one(void **state)
{
	(void)state;
	set_up();
	begin();
	atomic_store(&fx.started, fx.serial - 1);
	close(fx.worker);
	fx.worker = -1;
	turn();
	assert_int_equal(fx.how, ATTEMPT_UNREAD);
	tear_down();
}

/* After `timeout` the client has heard, and the process, which may be at it for ever, is given up. */
static void a_worker_out_of_time_is_given_up_whether_it_began_or_not(void **state)
{
	unsigned index;
	pid_t pid = 0;

	(void)state;
	for (int called = 0; called < 2; called++) {
		set_up();
		begin();
		if (called)
			atomic_store(&fx.started, fx.serial);
		clock_test_advance(&fx.clock, 1200 * 1000);
		wheel_advance(&fx.loop->wheel, loop_now_ms(fx.loop), UINT_MAX);
		turn();
		assert_int_equal(fx.ends, 1);
		assert_int_equal(fx.how, ATTEMPT_TIMEOUT);
		assert_true(pool_next_given_up(fx.pool, &index, &pid));
		assert_int_equal(pid, PID);
		tear_down();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(how_it_ends),
		cmocka_unit_test(a_worker_that_speaks_out_of_turn_is_given_up),
		cmocka_unit_test(another_requests_serial_is_not_this_one),
		cmocka_unit_test(a_worker_out_of_time_is_given_up_whether_it_began_or_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
