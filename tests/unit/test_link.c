#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "upstream/link.h"

/* A link that rests on a real loop, and its worker's end, played by callbacks of that loop. */

static struct {
	struct budget budget;
	struct clock_test clock;
	struct loop *loop;
	struct link *link;
	int worker, other[2];
	struct event other_ev;
	bool before_the_turn, in_the_turn, seen_quiet;
} fx;

static void worker_says(void)
{
	assert_int_equal(send(fx.worker, "x", 1, MSG_NOSIGNAL), 1);
}

static void wake_other(void)
{
	assert_int_equal(send(fx.other[1], "x", 1, MSG_NOSIGNAL), 1);
}

/* The second turn: whether the link is used again. */
static void on_second(void)
{
	if (fx.in_the_turn)
		worker_says();
	fx.seen_quiet = link_is_quiet(fx.link);
	loop_stop(fx.loop);
}

/* The first turn: the link is read and comes to rest. The other event is told first, also if the link's comes with it. */
static void on_first(void)
{
	char byte;

	assert_int_equal(link_recv(fx.link, &byte, 1, false), -EAGAIN);
	link_was_read(fx.link, true);
	wake_other();
	if (fx.before_the_turn)
		worker_says();
}

static void on_other(evutil_socket_t fd, short what UNUSED, void *ctx)
{
	unsigned *turns = ctx;
	char byte;

	loop_callback(fx.loop);
	assert_int_equal(recv(fd, &byte, 1, 0), 1);
	if ((*turns)++ == 0)
		on_first();
	else
		on_second();
}

static int setup(void **state UNUSED)
{
	int pair[2];

	memset(&fx, 0, sizeof(fx));
	budget_init(&fx.budget, 64u << 20);
	clock_test_init(&fx.clock);
	assert_int_equal(loop_new(0, &fx.clock.clock, &fx.budget, NULL, &fx.loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fx.other), 0);
	assert_int_equal(link_wrap(&pair[0], NULL, 1, &fx.link), 0);
	fx.worker = pair[1];
	link_hook(fx.link, fx.loop);
	return 0;
}

static int teardown(void **state UNUSED)
{
	event_del(&fx.other_ev);
	link_free(&fx.link);
	loop_free(&fx.loop);
	close(fx.worker);
	close(fx.other[0]);
	close(fx.other[1]);
	return 0;
}

static bool quiet_in_second_turn(void)
{
	unsigned turns = 0;

	event_assign(&fx.other_ev, fx.loop->base, fx.other[0], EV_READ | EV_PERSIST, on_other, &turns);
	assert_int_equal(event_add(&fx.other_ev, NULL), 0);
	wake_other();
	loop_run(fx.loop);
	assert_int_equal(turns, 2);
	return fx.seen_quiet;
}

static void what_came_before_the_turn_is_known(void **state UNUSED)
{
	fx.before_the_turn = true;
	assert_false(quiet_in_second_turn());
}

/* The kernel is not asked again, or it would say so. */
static void in_a_later_turn_the_kernel_was_asked_already(void **state UNUSED)
{
	fx.in_the_turn = true;
	assert_true(quiet_in_second_turn());
}

static void nothing_is_quiet(void **state UNUSED)
{
	assert_true(quiet_in_second_turn());
}

/* Outside of a loop, and in the turn in which it was emptied, only the kernel knows. */
static void on_same_turn(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx UNUSED)
{
	loop_callback(fx.loop);
	link_was_read(fx.link, true);
	assert_true(link_is_quiet(fx.link));
	worker_says();
	fx.seen_quiet = link_is_quiet(fx.link);
	loop_stop(fx.loop);
}

static void in_the_same_turn_the_kernel_is_asked(void **state UNUSED)
{
	event_assign(&fx.other_ev, fx.loop->base, fx.other[0], EV_READ | EV_PERSIST, on_same_turn, NULL);
	assert_int_equal(event_add(&fx.other_ev, NULL), 0);
	wake_other();
	loop_run(fx.loop);
	assert_false(fx.seen_quiet);
}

/* What a read has left makes no edge any more. */
static void on_left(evutil_socket_t fd, short what UNUSED, void *ctx)
{
	unsigned *turns = ctx;
	char byte;

	loop_callback(fx.loop);
	assert_int_equal(recv(fd, &byte, 1, 0), 1);
	if ((*turns)++ == 0) {
		worker_says();
		worker_says();
	} else if (*turns == 2) {
		assert_int_equal(link_recv(fx.link, &byte, 1, false), 1);
		link_was_read(fx.link, false);
	} else {
		fx.seen_quiet = link_is_quiet(fx.link);
		loop_stop(fx.loop);
		return;
	}
	wake_other();
}

static void link_told(void *ctx UNUSED, short what UNUSED)
{
}

static void what_a_read_left_is_asked_for(void **state UNUSED)
{
	unsigned turns = 0;

	link_use(fx.link, link_told, NULL);
	event_assign(&fx.other_ev, fx.loop->base, fx.other[0], EV_READ | EV_PERSIST, on_left, &turns);
	assert_int_equal(event_add(&fx.other_ev, NULL), 0);
	wake_other();
	loop_run(fx.loop);
	assert_int_equal(turns, 3);
	assert_false(fx.seen_quiet);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_came_before_the_turn_is_known, setup, teardown),
		cmocka_unit_test_setup_teardown(in_a_later_turn_the_kernel_was_asked_already, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_is_quiet, setup, teardown),
		cmocka_unit_test_setup_teardown(in_the_same_turn_the_kernel_is_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_read_left_is_asked_for, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
