#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "proxy/serve/again.h"

static const struct conf_pool own = { .app = APP_DEMO, .retries = 3, .replay_max = 1 };
static const struct conf_pool others = { .app = APP_NONE, .retries = 3, .replay_max = 1 };

/* RFC 9110, 9.2.2. */
static const struct {
	const char *name;
	bool idempotent;
} methods[] = {
	{ "GET", true }, { "HEAD", true }, { "PUT", true }, { "DELETE", true }, { "OPTIONS", true }, { "TRACE", true },
	{ "POST", false }, { "PATCH", false }, { "CONNECT", false }, { "PROPFIND", false }, /* it is, but nobody here knows */
};

enum when { NEVER, IF_IDEMPOTENT, ALWAYS };

static const struct {
	enum attempt_end how;
	enum when when; /* if nothing was sent; else never */
} ends[] = {
	{ ATTEMPT_WHOLE, NEVER },
	{ ATTEMPT_WHOLE_EOF, NEVER },
	{ ATTEMPT_UNREACHABLE, ALWAYS },
	{ ATTEMPT_UNREAD, ALWAYS },
	{ ATTEMPT_LOST, IF_IDEMPOTENT },
	{ ATTEMPT_GARBAGE, NEVER },
	{ ATTEMPT_TIMEOUT, NEVER },
	{ ATTEMPT_NO_MEMORY, NEVER },
	{ ATTEMPT_NO_SPOOL, NEVER },
	{ ATTEMPT_TOO_LARGE, NEVER },
	{ ATTEMPT_ABORTED, NEVER },
};
static_assert(ARRAY_LEN(ends) == ATTEMPT_END_COUNT, "a row for each end");

static void every_method_with_every_end(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		for (size_t k = 0; k < ARRAY_LEN(ends); k++)
			for (int sent = 0; sent < 2; sent++)
				for (int is_own = 0; is_own < 2; is_own++) {
					struct again a = { 0 };
					enum method method = method_from(slice_str(methods[i].name));
					bool want = !sent && (ends[k].when == ALWAYS ||
					                         (ends[k].when == IF_IDEMPOTENT && methods[i].idempotent));

					if (again_may(&a, is_own ? &own : &others, method, ends[k].how, sent) != want)
						fail_msg("%s, end %d, sent %d, own %d: not %d", methods[i].name,
						    (int)ends[k].how, sent, is_own, want);
				}
}

static unsigned times(const struct conf_pool *pool, enum method method, enum attempt_end how, unsigned at_most)
{
	struct again a = { 0 };
	unsigned n = 0;

	while (n < at_most && again_may(&a, pool, method, how, false))
		n++;
	return n;
}

static void nothing_is_tried_for_ever(void **state)
{
	struct conf_pool pool = own;

	(void)state;
	assert_int_equal(times(&own, METHOD_POST, ATTEMPT_UNREAD, 1000), AGAIN_UNREAD_MAX);
	assert_int_equal(times(&others, METHOD_POST, ATTEMPT_UNREAD, 1000), AGAIN_UNREAD_MAX);
	assert_int_equal(times(&own, METHOD_GET, ATTEMPT_LOST, 1000), 1);    /* replay_max */
	assert_int_equal(times(&others, METHOD_GET, ATTEMPT_LOST, 1000), 3); /* retries: others' have no replay_max */
	pool.replay_max = 10;
	assert_int_equal(times(&pool, METHOD_GET, ATTEMPT_LOST, 1000), 3);
	pool.replay_max = 0;
	assert_int_equal(times(&pool, METHOD_GET, ATTEMPT_LOST, 1000), 0);
	assert_int_equal(times(&pool, METHOD_GET, ATTEMPT_UNREAD, 1000), AGAIN_UNREAD_MAX);
}

/* Each kind of end has its own limit: workers that were lost before they began do not use up what one may that began. */
static void what_was_not_begun_does_not_count_as_begun(void **state)
{
	struct again a = { 0 };

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_true(again_may(&a, &own, METHOD_GET, ATTEMPT_UNREAD, false));
	for (unsigned i = 0; i < again_lost_max(&own); i++)
		assert_true(again_may(&a, &own, METHOD_GET, ATTEMPT_LOST, false));
	assert_true(again_may(&a, &own, METHOD_GET, ATTEMPT_UNREAD, false));
	assert_false(again_may(&a, &own, METHOD_GET, ATTEMPT_LOST, false));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_method_with_every_end),
		cmocka_unit_test(nothing_is_tried_for_ever),
		cmocka_unit_test(what_was_not_begun_does_not_count_as_begun),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
