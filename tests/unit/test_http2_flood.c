#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "proxy/client/http2_flood.h"

static unsigned until_ended(struct http2_flood *f, enum http2_flood_kind kind, uint64_t now_ms, unsigned most)
{
	for (unsigned n = 0; n < most; n++)
		if (http2_flood_count(f, kind, now_ms))
			return n;
	return most;
}

static void an_allowance_ends(void **state UNUSED)
{
	for (enum http2_flood_kind kind = 0; kind < FLOOD_KIND_COUNT; kind++) {
		struct http2_flood f;

		http2_flood_init(&f, 100, 5000);
		assert_int_equal(until_ended(&f, kind, 5000, 1000), 100);
		assert_non_null(http2_flood_count(&f, kind, 5000));
	}
}

static void all_kinds_share_it(void **state UNUSED)
{
	struct http2_flood f;

	http2_flood_init(&f, 20, 0);
	assert_int_equal(until_ended(&f, FLOOD_PING, 0, 12), 12);
	assert_int_equal(until_ended(&f, FLOOD_RESET, 0, 1000), 8);
	assert_string_equal(http2_flood_count(&f, FLOOD_PING, 0), "too many PING");
}

static void it_comes_back_with_time(void **state UNUSED)
{
	struct http2_flood f;

	http2_flood_init(&f, 300, 0);
	assert_int_equal(until_ended(&f, FLOOD_PING, 0, 1000), 300);
	assert_int_equal(until_ended(&f, FLOOD_PING, HTTP2_FLOOD_REGAIN_MS / 10, 1000), 30);
	assert_int_equal(until_ended(&f, FLOOD_PING, 100 * (uint64_t)HTTP2_FLOOD_REGAIN_MS, 1000), 300);
	assert_int_equal(until_ended(&f, FLOOD_PING, 0, 1000), 0); /* a clock that went back gives nothing */
}

/* A small allowance, asked for every millisecond, comes back as a large one does. */
static void what_is_too_little_to_count_is_not_lost(void **state UNUSED)
{
	struct http2_flood f;
	unsigned taken = 0;

	http2_flood_init(&f, 10, 0);
	for (uint64_t now = 0; now <= HTTP2_FLOOD_REGAIN_MS; now++)
		taken += !http2_flood_count(&f, FLOOD_PING, now);
	assert_in_range(taken, 19, 20);
}

static void windows_are_earned_by_data(void **state UNUSED)
{
	struct http2_flood f;

	http2_flood_init(&f, 10, 0);
	for (unsigned i = 0; i < 50; i++)
		http2_flood_earn(&f);
	assert_int_equal(until_ended(&f, FLOOD_WINDOW_UPDATE, 0, 1000), 210);
	for (unsigned i = 0; i < 100000; i++)
		http2_flood_earn(&f);
	assert_int_equal(until_ended(&f, FLOOD_WINDOW_UPDATE, 0, 10000), 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_allowance_ends),
		cmocka_unit_test(all_kinds_share_it),
		cmocka_unit_test(it_comes_back_with_time),
		cmocka_unit_test(what_is_too_little_to_count_is_not_lost),
		cmocka_unit_test(windows_are_earned_by_data),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
