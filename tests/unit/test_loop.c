#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <event2/event_struct.h>
#include <string.h>
#include <unistd.h>

#include "core/loop.h"

/* What happened, one letter each: 'r' the pipe was read, else a look's own. */
static char said[16];
static struct loop *loop;
static int ends[2];

struct waiter {
	struct loop_look look;
	char letter;
	unsigned again; /* times that it waits anew */
	bool writes;    /* into the pipe, when its look has come */
	bool stops;
};

static void say(char letter)
{
	size_t n = strlen(said);

	assert_true(n + 1 < sizeof(said));
	said[n] = letter;
}

static void on_pipe(evutil_socket_t fd, short what, void *ctx)
{
	char byte;

	(void)what;
	(void)ctx;
	assert_int_equal(read(fd, &byte, 1), 1);
	say('r');
}

static void watch_pipe(struct event *ev, event_callback_fn read_it, void *ctx)
{
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(event_assign(ev, loop->base, ends[0], EV_READ | EV_PERSIST, read_it, ctx), 0);
	assert_int_equal(event_add(ev, NULL), 0);
}

static void leave_pipe(struct event *ev)
{
	event_del(ev);
	close(ends[0]);
	close(ends[1]);
}

static void looked(struct loop_look *k)
{
	struct waiter *w = CONTAINER_OF(k, struct waiter, look);

	say(w->letter);
	if (w->writes)
		assert_int_equal(write(ends[1], "x", 1), 1);
	if (w->again > 0) {
		w->again--;
		assert_true(loop_look(loop, k));
	} else if (w->stops) {
		loop_stop(loop);
	}
}

/* The kernel has told of a byte by the time of the look, and only what came before the look comes before it. */
static void a_look_comes_behind_what_the_kernel_tells(void **state)
{
	static struct clock_test clock;
	struct waiter a = { .look.looked = looked, .letter = 'a', .writes = true },
	              b = { .look.looked = looked, .letter = 'b' }, gone = { .look.looked = looked, .letter = 'x' },
	              last = { .look.looked = looked, .letter = 'z', .again = 1, .stops = true };
	struct budget budget;
	struct event ev;

	(void)state;
	clock_test_init(&clock);
	budget_init(&budget, 1u << 20);
	assert_int_equal(loop_new(0, &clock.clock, &budget, NULL, &loop), 0);
	watch_pipe(&ev, on_pipe, NULL);
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_true(loop_look(loop, &a.look));
	assert_true(loop_look(loop, &gone.look));
	assert_true(loop_look(loop, &b.look));
	assert_true(loop_look(loop, &b.look)); /* it waits already */
	assert_true(loop_look(loop, &last.look));
	loop_look_cancel(&gone.look);
	loop_look_cancel(&gone.look);
	loop_run(loop);
	assert_string_equal(said, "rabzrz");
	leave_pipe(&ev);
	loop_free(&loop);
}

/* The last that waited has gone: the next to wait is heard all the same. */
static void a_look_that_nobody_waits_for_is_none(void **state)
{
	static struct clock_test clock;
	struct waiter gone = { .look.looked = looked, .letter = 'x' },
	              last = { .look.looked = looked, .letter = 'z', .stops = true };
	struct budget budget;

	(void)state;
	memset(said, 0, sizeof(said));
	clock_test_init(&clock);
	budget_init(&budget, 1u << 20);
	assert_int_equal(loop_new(0, &clock.clock, &budget, NULL, &loop), 0);
	assert_true(loop_look(loop, &gone.look));
	loop_look_cancel(&gone.look);
	assert_true(loop_look(loop, &last.look));
	loop_run(loop);
	assert_string_equal(said, "z");
	loop_free(&loop);
}

#define TIMERS 10000

struct due_timer {
	struct timer timer;
	unsigned *left;
};

static unsigned left_at_read;

static void on_pipe_among_timers(evutil_socket_t fd, short what, void *ctx)
{
	char byte;

	(void)what;
	assert_int_equal(read(fd, &byte, 1), 1);
	left_at_read = *(unsigned *)ctx;
}

/* The first to fire writes into the pipe. */
static void due(struct timer *t)
{
	struct due_timer *d = CONTAINER_OF(t, struct due_timer, timer);

	if (*d->left == TIMERS)
		assert_int_equal(write(ends[1], "x", 1), 1);
	if (--*d->left == 0)
		loop_stop(loop);
}

/* Ten thousand slow clients' timers are due at once: what the kernel tells meanwhile does not wait for all of them. */
static void many_timers_let_others_in_between(void **state)
{
	static struct clock_test clock;
	static struct due_timer timers[TIMERS];
	unsigned left = TIMERS;
	struct budget budget;
	struct event ev;

	(void)state;
	clock_test_init(&clock);
	budget_init(&budget, 1u << 20);
	assert_int_equal(loop_new(0, &clock.clock, &budget, NULL, &loop), 0);
	watch_pipe(&ev, on_pipe_among_timers, &left);
	for (size_t i = 0; i < TIMERS; i++) {
		timers[i] = (struct due_timer){ .timer.fire = due, .left = &left };
		loop_timer_set(loop, &timers[i].timer, 500);
	}
	clock_test_advance(&clock, 1000000);
	event_active(&loop->tick, EV_TIMEOUT, 0);
	loop_run(loop);
	assert_int_equal(left, 0);
	assert_in_range(left_at_read, TIMERS - 100, TIMERS - 1);
	leave_pipe(&ev);
	loop_free(&loop);
}

struct wall_look {
	struct loop_look look;
	struct clock_test *clock;
};

/* The wall clock is set to another day: seen when the last look at it is a tenth of a second ago, and until then time has only passed. */
static void look_at_the_wall(struct loop_look *k)
{
	struct clock_test *clock = CONTAINER_OF(k, struct wall_look, look)->clock;
	int64_t before = loop_wall_us(loop), set = before - 86400000000;

	assert_int_equal(before, clock->wall_us);
	clock->wall_us = set;
	clock->mono_us += 99999;
	loop_callback(loop);
	assert_int_equal(loop_wall_us(loop), before + 99999);
	clock->mono_us++;
	loop_callback(loop);
	assert_int_equal(loop_wall_us(loop), set);
	loop_stop(loop);
}

static void the_wall_clock_is_asked_ten_times_a_second(void **state)
{
	static struct clock_test clock;
	struct wall_look wall = { .look.looked = look_at_the_wall, .clock = &clock };
	struct budget budget;

	(void)state;
	clock_test_init(&clock);
	budget_init(&budget, 1u << 20);
	assert_int_equal(loop_new(0, &clock.clock, &budget, NULL, &loop), 0);
	assert_true(loop_look(loop, &wall.look));
	loop_run(loop);
	clock.wall_us = 7000000;
	assert_int_equal(loop_wall_us(loop), 7000000); /* at each call, outside of loop_run */
	loop_free(&loop);
}

/* A second later, with a tick. */
static void second_passes(struct clock_test *clock)
{
	struct waiter end = { .look.looked = looked, .letter = '.', .stops = true };

	memset(said, 0, sizeof(said));
	clock_test_advance(clock, 1000000);
	event_active(&loop->tick, EV_TIMEOUT, 0);
	assert_true(loop_look(loop, &end.look));
	loop_run(loop);
}

static void blocks_that_were_of_no_use_for_a_second_go(void **state)
{
	static struct clock_test clock;
	struct budget budget;
	void *blocks[5];

	(void)state;
	clock_test_init(&clock);
	budget_init(&budget, 64u << 20);
	assert_int_equal(loop_new(0, &clock.clock, &budget, NULL, &loop), 0);
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
		assert_non_null(blocks[i] = loop_block_take(loop));
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
		loop_block_give(loop, blocks[i]);
	second_passes(&clock); /* all were in use in it */
	assert_int_equal(loop->block_count, 5);
	assert_non_null(blocks[0] = loop_block_take(loop));
	assert_non_null(blocks[1] = loop_block_take(loop));
	loop_block_give(loop, blocks[0]);
	loop_block_give(loop, blocks[1]);
	second_passes(&clock);
	assert_int_equal(loop->block_count, 2);
	second_passes(&clock);
	assert_int_equal(loop->block_count, 0);
	loop_free(&loop);
}

static void no_block_is_kept_while_memory_is_short(void **state)
{
	static struct clock_test clock;
	struct budget budget;
	void *block;

	(void)state;
	clock_test_init(&clock);
	budget_init(&budget, 64u << 20);
	assert_int_equal(loop_new(0, &clock.clock, &budget, NULL, &loop), 0);
	assert_true(lease_take(&loop->lease, 32u << 20));
	assert_non_null(block = loop_block_take(loop));
	loop_block_give(loop, block);
	assert_int_equal(loop->block_count, 0);
	lease_give(&loop->lease, 32u << 20);
	assert_non_null(block = loop_block_take(loop));
	loop_block_give(loop, block);
	assert_int_equal(loop->block_count, 1);
	loop_free(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_look_comes_behind_what_the_kernel_tells),
		cmocka_unit_test(a_look_that_nobody_waits_for_is_none),
		cmocka_unit_test(many_timers_let_others_in_between),
		cmocka_unit_test(the_wall_clock_is_asked_ten_times_a_second),
		cmocka_unit_test(blocks_that_were_of_no_use_for_a_second_go),
		cmocka_unit_test(no_block_is_kept_while_memory_is_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
