#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "proxy/client/crowd.h"

static struct crowd crowd;
static struct crowd_member members[4];
static const struct crowd_member *unquiet;
static int evicted[4], evictions, spilled;

static void evict(struct crowd_member *m, const char *why)
{
	assert_string_equal(why, "test");
	evicted[evictions++] = (int)(m - members);
	crowd_move(&crowd, m, CROWD_NONE);
}

static void spill(struct crowd_member *m)
{
	(void)m;
	spilled++;
}

static bool is_quiet(struct crowd_member *m)
{
	return m != unquiet;
}

static const struct crowd_acts acts = { .evict = evict, .spill = spill, .is_quiet = is_quiet };

static unsigned asked;

static bool says_no(struct crowd_member *m)
{
	(void)m;
	asked++;
	return false;
}

static const struct crowd_acts never_quiet = { .evict = evict, .spill = spill, .is_quiet = says_no };

static int setup(void **state)
{
	(void)state;
	crowd_init(&crowd);
	evictions = spilled = 0;
	unquiet = NULL;
	asked = 0;
	for (size_t i = 0; i < ARRAY_LEN(members); i++)
		members[i] = (struct crowd_member){ .acts = &acts };
	return 0;
}

static void the_one_idle_longest_goes_first(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++)
		crowd_move(&crowd, &members[i], CROWD_IDLE);
	crowd_move(&crowd, &members[0], CROWD_BUSY);
	crowd_move(&crowd, &members[0], CROWD_IDLE); /* idle again: now it is the newest */
	crowd_move(&crowd, &members[3], CROWD_WAITING);
	while (crowd_evict_idle(&crowd, 1000, "test"))
		;
	assert_int_equal(evictions, 3);
	assert_int_equal(evicted[0], 1);
	assert_int_equal(evicted[1], 2);
	assert_int_equal(evicted[2], 0);
	assert_int_equal(crowd.count, 1);
}

static void one_whose_request_has_come_is_not_idle_any_more(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++)
		crowd_move(&crowd, &members[i], CROWD_IDLE);
	unquiet = &members[0];
	assert_true(crowd_evict_idle(&crowd, 1000, "test"));
	assert_int_equal(evicted[0], 1);
	assert_true(crowd_evict_idle(&crowd, 1000, "test"));
	assert_int_equal(evicted[1], 2);
	assert_false(crowd_evict_idle(&crowd, 1000, "test"));
}

static void a_fresh_one_has_a_moment_to_send(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		members[i].fresh = true;
		members[i].since_ms = 1000 + 500 * i;
		crowd_move(&crowd, &members[i], CROWD_IDLE);
	}
	crowd_move(&crowd, &members[2], CROWD_IDLE);
	assert_true(crowd_evict_idle(&crowd, 1999, "test"));
	assert_int_equal(evicted[0], 2);
	assert_false(crowd_evict_idle(&crowd, 1999, "test"));
	assert_true(crowd_evict_idle(&crowd, 2000, "test"));
	assert_int_equal(evicted[1], 0);
	assert_false(crowd_evict_idle(&crowd, 2499, "test"));
	assert_true(crowd_evict_idle(&crowd, 2500, "test"));
}

/* A crowd of them costs a bounded look, not one for each. */
static void those_that_are_not_quiet_are_asked_in_bounds(void **state)
{
	static struct crowd_member many[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(many); i++) {
		many[i] = (struct crowd_member){ .acts = &never_quiet };
		crowd_move(&crowd, &many[i], CROWD_IDLE);
	}
	assert_false(crowd_evict_idle(&crowd, 1000, "test"));
	assert_int_equal(asked, 64);
	for (size_t i = 0; i < ARRAY_LEN(many); i++) {
		many[i].fresh = true;
		many[i].since_ms = 1000;
	}
	asked = 0;
	crowd_move(&crowd, &members[0], CROWD_IDLE);
	assert_true(crowd_evict_idle(&crowd, 1000, "test")); /* a look costs less than a question */
	assert_int_equal(evicted[0], 0);
	assert_int_equal(asked, 0);
}

static void one_whose_request_has_come_is_not_quiet(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++)
		crowd_move(&crowd, &members[i], CROWD_IDLE);
	unquiet = &members[1];
	crowd_evict_quiet(&crowd, "test");
	assert_int_equal(evictions, 2);
	assert_int_equal(members[1].where, CROWD_IDLE);
}

static const struct {
	struct {
		uint64_t since_ms, bytes;
	} m[4];
	int slowest; /* -1: none */
} cases[] = {
	{ { { 0, 100 }, { 0, 50 }, { 0, 200 }, { 0, 60 } }, 1 },
	{ { { 0, 100 }, { 5000, 10 }, { 0, 200 }, { 0, 60 } }, 1 },
	{ { { 0, 100 }, { 9500, 0 }, { 0, 200 }, { 0, 60 } }, 3 }, /* in its grace */
	{ { { 9500, 0 }, { 9500, 0 }, { 9999, 0 }, { 10000, 0 } }, -1 },
};

static void the_slowest_goes_first_but_in_its_grace(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		setup(NULL);
		for (size_t k = 0; k < ARRAY_LEN(members); k++) {
			members[k].since_ms = cases[i].m[k].since_ms;
			members[k].bytes = cases[i].m[k].bytes;
			crowd_move(&crowd, &members[k], CROWD_WAITING);
		}
		if (crowd_evict_slowest(&crowd, 10000, 1000, "test") != (cases[i].slowest >= 0))
			fail_msg("row %zu: found or not", i);
		if (cases[i].slowest >= 0 && evicted[0] != cases[i].slowest)
			fail_msg("row %zu: %d went", i, evicted[0]);
	}
}

static void only_those_with_requests_are_spilled(void **state)
{
	(void)state;
	crowd_move(&crowd, &members[0], CROWD_WAITING);
	crowd_move(&crowd, &members[1], CROWD_BUSY);
	crowd_move(&crowd, &members[2], CROWD_IDLE);
	crowd_spill(&crowd);
	assert_int_equal(spilled, 2);
	crowd_evict_all(&crowd, CROWD_BUSY, "test");
	assert_int_equal(evicted[0], 1);
	assert_int_equal(crowd.count, 2);
}

static void others_are_told_from_oneself(void **state)
{
	(void)state;
	assert_false(crowd_others_busy(&crowd, &members[0]));
	crowd_move(&crowd, &members[0], CROWD_BUSY);
	crowd_move(&crowd, &members[3], CROWD_WAITING);
	assert_false(crowd_others_busy(&crowd, &members[0]));
	assert_true(crowd_others_busy(&crowd, &members[3]));
	crowd_move(&crowd, &members[1], CROWD_BUSY);
	for (size_t i = 0; i < 2; i++)
		assert_true(crowd_others_busy(&crowd, &members[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_one_idle_longest_goes_first, setup),
		cmocka_unit_test_setup(one_whose_request_has_come_is_not_idle_any_more, setup),
		cmocka_unit_test_setup(a_fresh_one_has_a_moment_to_send, setup),
		cmocka_unit_test_setup(those_that_are_not_quiet_are_asked_in_bounds, setup),
		cmocka_unit_test_setup(one_whose_request_has_come_is_not_quiet, setup),
		cmocka_unit_test_setup(the_slowest_goes_first_but_in_its_grace, setup),
		cmocka_unit_test_setup(only_those_with_requests_are_spilled, setup),
		cmocka_unit_test_setup(others_are_told_from_oneself, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
