#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "proxy/serve/request_id.h"

static void seed_thread_and_count_are_told(void **state UNUSED)
{
	static const struct {
		uint64_t seed;
		unsigned thread;
		uint64_t count;
		const char *id;
	} cases[] = {
		{ 0, 0, 0, "0000000000000000-0-0" },
		{ 0xf0123456789abcde, 15, 16, "f0123456789abcde-f-10" },
		{ 1, 255, 0xfff, "0000000000000001-ff-fff" },
		{ UINT64_MAX, UINT32_MAX, UINT64_MAX, "ffffffffffffffff-ffffffff-ffffffffffffffff" },
	};
	char id[REQUEST_ID_BYTES];
	struct request_ids ids;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		request_ids_init(&ids, cases[i].seed, cases[i].thread);
		assert_int_equal(ids.count, 0);
		ids.count = cases[i].count;
		request_id_next(&ids, id);
		assert_string_equal(id, cases[i].id);
		assert_int_equal(ids.count, cases[i].count + 1);
		assert_true(request_id_ok(slice_str(id)));
	}
}

static void what_could_mean_something_is_not_taken_over(void **state UNUSED)
{
	static const char *const bad[] = { "", "a b", "a\"", "a\n", "a;b", "a/b", "<a>", "\xc3\xa4", "a%20" };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (request_id_ok(slice_str(bad[i])))
			fail_msg("row %zu", i);
	assert_true(request_id_ok(SLICE("azAZ09._-")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(seed_thread_and_count_are_told),
		cmocka_unit_test(what_could_mean_something_is_not_taken_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
