#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/wheel.h"

#define START_MS 100050

struct probe {
	struct timer timer;
	struct wheel *wheel;
	unsigned fired;
	struct probe *victim; /* cleared and freed when this one fires */
	uint64_t again_ms;    /* 0: is not set again when it fires */
};

static void on_fire(struct timer *t)
{
	struct probe *p = CONTAINER_OF(t, struct probe, timer);

	assert_false(timer_is_set(t));
	p->fired++;
	if (p->victim) {
		wheel_clear(p->wheel, &p->victim->timer);
		free(p->victim);
		p->victim = NULL;
	}
	if (p->again_ms)
		wheel_set(p->wheel, t, p->again_ms);
}

static void probe_init(struct probe *p, struct wheel *w)
{
	*p = (struct probe){ .timer.fire = on_fire, .wheel = w };
}

static const struct {
	uint64_t due_ms, not_yet_ms, fires_ms;
} cases[] = {
	{ START_MS, 100099, 100100 },
	{ 100100, 100199, 100200 }, /* set in the tick of its own due time: that one has not come yet, see below */
	{ 100101, 100199, 100200 },
	{ 100200, 100199, 100200 },
	{ 100201, 100299, 100300 },
	{ 0, 100099, 100100 },
	{ 5, 100099, 100100 },
	{ 151200, 151199, 151200 }, /* one turn less one tick */
	{ 151300, 151299, 151300 },
	{ 200000, 199999, 200000 }, /* two turns */
	{ 10000000000, 9999999999, 10000000000 },
};

static void a_timer_fires_at_the_first_tick_after_it_is_due(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct wheel w;
		struct probe p;
		uint64_t start_ms = cases[i].due_ms == 100100 ? 100100 : START_MS;

		wheel_init(&w, start_ms);
		probe_init(&p, &w);
		wheel_set(&w, &p.timer, cases[i].due_ms);
		wheel_advance(&w, cases[i].not_yet_ms, UINT_MAX);
		if (p.fired || !timer_is_set(&p.timer) || w.count != 1)
			fail_msg("row %zu: fired early", i);
		wheel_advance(&w, cases[i].fires_ms, UINT_MAX);
		if (p.fired != 1 || timer_is_set(&p.timer) || w.count != 0)
			fail_msg("row %zu: not fired", i);
		wheel_advance(&w, cases[i].fires_ms + 200000, UINT_MAX);
		if (p.fired != 1)
			fail_msg("row %zu: fired twice", i);
	}
}

static void a_moved_or_cleared_timer_does_not_fire(void **state UNUSED)
{
	struct wheel w;
	struct probe moved, cleared;

	wheel_init(&w, START_MS);
	probe_init(&moved, &w);
	probe_init(&cleared, &w);
	wheel_set(&w, &moved.timer, 100200);
	wheel_set(&w, &cleared.timer, 100200);
	wheel_set(&w, &moved.timer, 100400);
	wheel_clear(&w, &cleared.timer);
	wheel_clear(&w, &cleared.timer);
	wheel_advance(&w, 100399, UINT_MAX);
	assert_int_equal(moved.fired, 0);
	wheel_advance(&w, 100400, UINT_MAX);
	assert_int_equal(moved.fired, 1);
	assert_int_equal(cleared.fired, 0);
	assert_int_equal(w.count, 0);
}

static void firing_may_clear_and_free_others_and_set_itself(void **state UNUSED)
{
	struct wheel w;
	struct probe p[8];

	wheel_init(&w, START_MS);
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		probe_init(&p[i], &w);
		p[i].victim = malloc(sizeof(*p[i].victim));
		assert_non_null(p[i].victim);
		probe_init(p[i].victim, &w);
		/* Half of the victims would fire before, half after the one that frees them; all in the same slot. */
		wheel_set(&w, i % 2 ? &p[i].timer : &p[i].victim->timer, 100200);
		wheel_set(&w, i % 2 ? &p[i].victim->timer : &p[i].timer, i % 4 < 2 ? 151400 : 100200);
		p[i].again_ms = 1; /* long over: the next tick, not an endless turn */
	}
	for (uint64_t now_ms = 100200; now_ms <= 160000; now_ms += 51200)
		wheel_advance(&w, now_ms, UINT_MAX);
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		assert_true(p[i].fired >= 1);
		assert_null(p[i].victim);
		wheel_clear(&w, &p[i].timer);
	}
	assert_int_equal(w.count, 0);
}

static void a_jump_of_the_clock_fires_all_that_is_due_and_nothing_else(void **state UNUSED)
{
	struct wheel w;
	struct probe p[2000];

	wheel_init(&w, START_MS);
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		probe_init(&p[i], &w);
		wheel_set(&w, &p[i].timer, START_MS + i * 100);
	}
	wheel_advance(&w, START_MS + 1500 * 100, UINT_MAX);
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		if (p[i].fired != (i < 1500))
			fail_msg("row %zu: fired %u times", i, p[i].fired);
	wheel_advance(&w, START_MS, UINT_MAX); /* backwards: nothing */
	wheel_advance(&w, UINT64_MAX, UINT_MAX);
	assert_int_equal(w.count, 0);
}

static unsigned fired(const struct probe *p, size_t n)
{
	unsigned sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += p[i].fired;
	return sum;
}

/* Those of a later tick come behind all that were due before, however few are fired at once. */
static void no_more_are_fired_at_once_than_wanted(void **state UNUSED)
{
	struct wheel w;
	struct probe early[7], late[3];

	wheel_init(&w, START_MS);
	for (size_t i = 0; i < ARRAY_LEN(early); i++) {
		probe_init(&early[i], &w);
		wheel_set(&w, &early[i].timer, 100200);
	}
	for (size_t i = 0; i < ARRAY_LEN(late); i++) {
		probe_init(&late[i], &w);
		wheel_set(&w, &late[i].timer, 100300);
	}
	assert_true(wheel_advance(&w, 100200, 3));
	assert_int_equal(fired(early, ARRAY_LEN(early)), 3);
	for (size_t i = 0; i < ARRAY_LEN(early); i++) {
		if (early[i].fired)
			continue;
		wheel_clear(&w, &early[i].timer); /* of those that wait to be fired, one goes and one moves */
		wheel_set(&w, &early[(i + 1) % ARRAY_LEN(early)].timer, 100400);
		break;
	}
	assert_true(wheel_advance(&w, 100300, 1));
	assert_int_equal(fired(late, ARRAY_LEN(late)), 0);
	while (wheel_advance(&w, 100300, 1))
		assert_true(w.count > 0);
	assert_int_equal(fired(late, ARRAY_LEN(late)), 3);
	assert_int_equal(w.count, 1);
	assert_false(wheel_advance(&w, 100400, 1));
	assert_int_equal(w.count, 0);
	assert_false(wheel_advance(&w, 100400, 0));
}

static void random_timers_agree_with_a_plain_list(void **state UNUSED)
{
	enum { TIMERS = 64, STEPS = 20000 };
	struct wheel w;
	struct probe p[TIMERS];
	uint64_t due[TIMERS] = { 0 }, now_ms = START_MS;
	unsigned seed = 1;

	wheel_init(&w, now_ms);
	for (size_t i = 0; i < TIMERS; i++)
		probe_init(&p[i], &w);
	for (size_t step = 0; step < STEPS; step++) {
		size_t i = (size_t)rand_r(&seed) % TIMERS;

		if (rand_r(&seed) % 4 == 0) {
			wheel_clear(&w, &p[i].timer);
			due[i] = 0;
		} else {
			due[i] = now_ms + (uint64_t)(rand_r(&seed) % 200000);
			wheel_set(&w, &p[i].timer, due[i]);
		}
		now_ms += (uint64_t)(rand_r(&seed) % 300);
		wheel_advance(&w, now_ms, UINT_MAX);
		for (i = 0; i < TIMERS; i++) {
			if (p[i].fired && (due[i] == 0 || due[i] > now_ms))
				fail_msg("step %zu: timer %zu fired early", step, i);
			if (!p[i].fired && due[i] != 0 && due[i] + 2 * WHEEL_TICK_MS < now_ms)
				fail_msg("step %zu: timer %zu is late", step, i);
			if (p[i].fired)
				due[i] = p[i].fired = 0;
		}
	}
}

static void a_loop_rounds_up_and_ends_clean(void **state UNUSED)
{
	struct clock_test clock;
	struct budget budget;
	struct loop *l = NULL;
	struct probe p;

	clock_test_init(&clock);
	clock.mono_us = 1000000001; /* one microsecond past a tick */
	budget_init(&budget, 1 << 20);
	assert_int_equal(loop_new(3, &clock.clock, &budget, NULL, &l), 0);
	assert_int_equal(l->index, 3);
	probe_init(&p, &l->wheel);
	loop_timer_set(l, &p.timer, 100);
	clock_test_advance(&clock, 100000 - 2);
	wheel_advance(&l->wheel, loop_now_ms(l), UINT_MAX);
	clock_test_advance(&clock, 1); /* 1000.1 s: the tick, but 99.999 ms only */
	wheel_advance(&l->wheel, loop_now_ms(l), UINT_MAX);
	assert_int_equal(p.fired, 0);
	clock_test_advance(&clock, 100000);
	wheel_advance(&l->wheel, loop_now_ms(l), UINT_MAX);
	assert_int_equal(p.fired, 1);
	assert_true(lease_take(&l->lease, 1000));
	lease_give(&l->lease, 1000);
	loop_free(&l);
	assert_null(l);
	assert_int_equal(atomic_load(&budget.leased), 0);
	loop_free(&l);
}

/* Stops the loop at its third tick; the second is made late by a jump of the clock. */
struct stopper {
	struct timer timer;
	struct loop *loop;
	struct clock_test *clock;
};

static void on_stopper(struct timer *t)
{
	struct stopper *s = CONTAINER_OF(t, struct stopper, timer);

	if (atomic_load(&s->loop->ticks) >= 3) {
		loop_stop(s->loop);
		return;
	}
	loop_timer_set(s->loop, t, 0);
	clock_test_advance(s->clock, atomic_load(&s->loop->ticks) == 1 ? 700000 : 100000);
}

static char said[256];

static void log_here(void *ctx UNUSED, enum log_level level UNUSED, struct slice line)
{
	snprintf(said, sizeof(said), "%.*s", SLICE_ARG(line));
}

static void a_running_loop_ticks_counts_stalls_and_says_so(void **state UNUSED)
{
	struct clock_test clock;
	struct budget budget;
	struct loop *l = NULL;
	struct stopper s = { .timer.fire = on_stopper, .clock = &clock };

	clock_test_init(&clock);
	budget_init(&budget, 1 << 20);
	assert_int_equal(loop_new(0, &clock.clock, &budget, NULL, &l), 0);
	s.loop = l;
	log_setup("test", LOG_LEVEL_INFO, log_here, NULL);
	loop_timer_set(l, &s.timer, 0);
	event_active(&l->tick, EV_TIMEOUT, 0);
	clock_test_advance(&clock, 100000);
	loop_run(l);
	assert_true(atomic_load(&l->ticks) >= 3);
	assert_int_equal(atomic_load(&l->stalls), 1);
	assert_string_equal(said, "test: warning: event=loop_stalled thread=0 ms=600\n");
	log_setup(NULL, LOG_LEVEL_INFO, NULL, NULL);
	loop_free(&l);
}

/* More than are kept at hand, so that both ends of a block's way are there. */
static void blocks_are_counted_until_they_are_given_back(void **state UNUSED)
{
	struct clock_test clock;
	struct budget budget;
	struct loop *l = NULL;
	void *blocks[80];

	clock_test_init(&clock);
	budget_init(&budget, 1 << 20);
	assert_int_equal(loop_new(0, &clock.clock, &budget, NULL, &l), 0);
	for (int round = 0; round < 2; round++) {
		for (unsigned i = 0; i < ARRAY_LEN(blocks); i++) {
			blocks[i] = loop_block_take(l);
			assert_non_null(blocks[i]);
			memset(blocks[i], 'x', LOOP_BLOCK_BYTES);
			assert_int_equal(l->blocks_out, i + 1);
		}
		for (unsigned i = 0; i < ARRAY_LEN(blocks); i++)
			loop_block_give(l, blocks[i]);
		assert_int_equal(l->blocks_out, 0);
	}
	loop_free(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_timer_fires_at_the_first_tick_after_it_is_due),
		cmocka_unit_test(a_moved_or_cleared_timer_does_not_fire),
		cmocka_unit_test(firing_may_clear_and_free_others_and_set_itself),
		cmocka_unit_test(a_jump_of_the_clock_fires_all_that_is_due_and_nothing_else),
		cmocka_unit_test(no_more_are_fired_at_once_than_wanted),
		cmocka_unit_test(random_timers_agree_with_a_plain_list),
		cmocka_unit_test(a_loop_rounds_up_and_ends_clean),
		cmocka_unit_test(a_running_loop_ticks_counts_stalls_and_says_so),
		cmocka_unit_test(blocks_are_counted_until_they_are_given_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
