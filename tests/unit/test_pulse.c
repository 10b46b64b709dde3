#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "proxy/daemon/pulse.h"

#define STEPS_MAX 4
#define NOTHING   UINT64_MAX /* no word from the front */

/* Two threads. `times` looks, after `every_ms` each; before each look the front tells ticks that grow by this, or tells nothing. */
struct step {
	unsigned times;
	uint64_t every_ms;
	uint64_t grow[2];
};

static const struct {
	const char *what;
	struct step steps[STEPS_MAX];
	int still; /* the thread that the last look finds; -1: none. No look before finds one */
} rows[] = {
	{ "both live", { { 100, PULSE_LOOK_MS, { 5, 5 } } }, -1 },
	{ "slow, but alive", { { 29, PULSE_LOOK_MS, { 0, 0 } }, { 1, 500, { 1, 1 } }, { 29, PULSE_LOOK_MS, { 0, 0 } } }, -1 },
	{ "the second stands still", { { 30, PULSE_LOOK_MS, { 5, 0 } } }, 1 },
	{ "not yet", { { 29, PULSE_LOOK_MS, { 5, 0 } } }, -1 },
	{ "the front's main thread stands still", { { 30, PULSE_LOOK_MS, { NOTHING } } }, 0 },
	{ "the master was stopped for long", { { 1, 3600000, { NOTHING } }, { 29, PULSE_LOOK_MS, { 0, 0 } } }, -1 },
	{ "and then the front stands still all the same", { { 1, 3600000, { NOTHING } }, { 30, PULSE_LOOK_MS, { 0, 0 } } }, 0 },
	{ "the master runs late now and then", { { 10, 3001, { 0, 0 } }, { 29, PULSE_LOOK_MS, { 0, 0 } } }, -1 },
	{ "a little late is no excuse", { { 15, 2000, { 5, 0 } } }, 1 },
};

static int play(const struct step *steps, size_t row)
{
	uint64_t now_ms = 5, ticks[CHANNEL_THREADS_MAX] = { 0 };
	struct pulse p;
	unsigned thread;
	bool still = false;

	pulse_start(&p, 2, now_ms);
	for (size_t s = 0; s < STEPS_MAX; s++) {
		for (unsigned i = 0; i < steps[s].times; i++) {
			if (still)
				fail_msg("row %zu: too early, step %zu, look %u", row, s, i);
			now_ms += steps[s].every_ms;
			ticks[0] += steps[s].grow[0] == NOTHING ? 0 : steps[s].grow[0];
			ticks[1] += steps[s].grow[1];
			if (steps[s].grow[0] != NOTHING)
				pulse_heard(&p, ticks, now_ms);
			still = pulse_stands_still(&p, now_ms, &thread);
		}
	}
	return still ? (int)thread : -1;
}

static void a_thread_that_stands_still_is_found(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int got = play(rows[i].steps, i);

		if (got != rows[i].still)
			fail_msg("row %zu: %s: %d", i, rows[i].what, got);
	}
}

static void all_must_beat_between_two_words_to_the_service_manager(void **state)
{
	uint64_t ticks[CHANNEL_THREADS_MAX] = { 1, 1 };
	struct pulse p;

	(void)state;
	pulse_start(&p, 2, 0);
	assert_false(pulse_all_beat(&p)); /* nothing heard yet */
	pulse_heard(&p, ticks, 1);
	assert_true(pulse_all_beat(&p));
	assert_false(pulse_all_beat(&p));
	ticks[0]++;
	pulse_heard(&p, ticks, 2);
	assert_false(pulse_all_beat(&p));
	ticks[1]++;
	pulse_heard(&p, ticks, 3);
	assert_true(pulse_all_beat(&p));
	pulse_start(&p, 2, 4); /* another front begins at nought */
	ticks[0] = ticks[1] = 1;
	pulse_heard(&p, ticks, 5);
	assert_true(pulse_all_beat(&p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thread_that_stands_still_is_found),
		cmocka_unit_test(all_must_beat_between_two_words_to_the_service_manager),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
