#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "proxy/client/rate.h"

#define GRACE 10000
#define RATE  1024 /* bytes per second */

static const struct {
	uint64_t bytes, every_ms; /* so many, so often */
	uint64_t until_ms;
	bool broken;
} cases[] = {
	{ 0, 1000, 10000, false },                               /* nothing, but within the grace */
	{ 0, 1000, 10001, true }, { 1024, 1000, 600000, false }, /* just the rate */
	{ 1000, 1000, 600000, true },                            /* a little less, for long enough */
	{ 4, 1000, 10050, true },                                /* dripping */
	{ 10240, 10000, 600000, false },                         /* in bursts as far apart as the grace */
	{ 10240, 11000, 22000, true },                           /* a little further apart */
};

static void a_peer_keeps_to_the_rate_or_does_not(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct rate r;
		uint64_t now = 0;
		bool broken = false;

		rate_begin(&r, 0, GRACE);
		while (now + cases[i].every_ms <= cases[i].until_ms && !broken) {
			now += cases[i].every_ms;
			broken = rate_broken(&r, now);
			rate_credit(&r, cases[i].bytes, now, RATE, GRACE);
		}
		broken = broken || rate_broken(&r, cases[i].until_ms);
		if (broken != cases[i].broken)
			fail_msg("row %zu: broken=%d", i, broken);
	}
}

static void a_fast_beginning_does_not_pay_for_a_stop(void **state)
{
	struct rate r;

	(void)state;
	rate_begin(&r, 0, GRACE);
	rate_credit(&r, UINT64_MAX, 1, RATE, GRACE);
	assert_false(rate_broken(&r, 1 + GRACE));
	assert_true(rate_broken(&r, 2 + GRACE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_peer_keeps_to_the_rate_or_does_not),
		cmocka_unit_test(a_fast_beginning_does_not_pay_for_a_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
