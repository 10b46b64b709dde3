#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "upstream/scaling.h"

#define SECOND (UINT64_C(1000000))
#define MS     (UINT64_C(1000))
#define MEGA   (UINT64_C(1) << 20)

static const struct scaling_rules rules = {
	.least = 1, .most = 4, .threads = 2, .up_delay_us = 100 * MS, .down_after_us = 60 * SECOND
};

/* Each row goes on where the one before it ended. */
static const struct {
	uint64_t at_us;
	struct scaling_figures f;
	enum scaling_step step;
} day[] = {
	{ 1 * SECOND, { 1, 0, 0, 0, 0, UINT64_MAX }, SCALING_STAY },
	{ 2 * SECOND, { 1, 0, 100 * MS, 5, 0, UINT64_MAX }, SCALING_STAY },            /* just as long as is allowed */
	{ 3 * SECOND, { 1, 0, 100 * MS + 1, 5, 0, UINT64_MAX }, SCALING_UP },          /* longer */
	{ 4 * SECOND, { 2, 1, 900 * MS, 5, 0, UINT64_MAX }, SCALING_STAY },            /* one is on its way */
	{ 5 * SECOND, { 2, 0, 900 * MS, 9, 0, UINT64_MAX }, SCALING_UP },              /* that was not enough */
	{ 6 * SECOND, { 3, 0, 900 * MS, 9, 50 * MEGA, 100 * MEGA }, SCALING_NO_ROOM }, /* half of what there is, at most */
	{ 7 * SECOND, { 3, 0, 900 * MS, 9, 50 * MEGA, 101 * MEGA + 1 }, SCALING_UP },
	{ 8 * SECOND, { 4, 0, 900 * MS, 9, 50 * MEGA, 900 * MEGA }, SCALING_STAY }, /* all there may be */
	{ 9 * SECOND, { 4, 0, 0, 7, 0, UINT64_MAX }, SCALING_STAY },      /* the fourth is needed for the seventh request */
	{ 69 * SECOND - 1, { 4, 0, 0, 6, 0, UINT64_MAX }, SCALING_STAY }, /* not needed, but not for long enough */
	{ 69 * SECOND, { 4, 0, 0, 6, 0, UINT64_MAX }, SCALING_DOWN },
	{ 70 * SECOND, { 3, 0, 0, 0, 0, UINT64_MAX }, SCALING_STAY },  /* one at a time */
	{ 100 * SECOND, { 3, 0, 0, 5, 0, UINT64_MAX }, SCALING_STAY }, /* needed once more: it begins anew */
	{ 159 * SECOND, { 3, 0, 0, 4, 0, UINT64_MAX }, SCALING_STAY },
	{ 160 * SECOND, { 3, 0, 0, 4, 0, UINT64_MAX }, SCALING_DOWN },
	{ 220 * SECOND, { 2, 0, 0, 0, 0, UINT64_MAX }, SCALING_DOWN },
	{ 900 * SECOND, { 1, 0, 0, 0, 0, UINT64_MAX }, SCALING_STAY }, /* the last ones stay */
};

static void a_day(void **state)
{
	struct scaling s = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(day); i++) {
		enum scaling_step got = scaling_look(&s, &rules, &day[i].f, day[i].at_us);

		if (got != day[i].step)
			fail_msg("row %zu: %d", i, (int)got);
	}
}

static void a_pool_that_began_with_more_waits_before_it_ends_one(void **state)
{
	struct scaling s = { 0 };
	const struct scaling_figures f = { .wanted = 4, .room_bytes = UINT64_MAX };

	(void)state;
	assert_int_equal(scaling_look(&s, &rules, &f, 1000 * SECOND), SCALING_STAY);
	assert_int_equal(scaling_look(&s, &rules, &f, 1060 * SECOND), SCALING_DOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_day),
		cmocka_unit_test(a_pool_that_began_with_more_waits_before_it_ends_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
