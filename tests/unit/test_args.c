#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "upstream/worker/args.h"

static const struct worker_args samples[] = {
	{ .role = ARGS_WORKER, .app = "demo", .pool = "p", .setting = { .processes = 1, .threads = 1 } },
	{ .role = ARGS_ZYGOTE,
	    .app = "wsgi",
	    .pool = "a pool",
	    .setting = { "site.wsgi:app", "/srv/env=1", 1024, ARGS_THREADS_MAX, true },
	    .place = 2047,
	    .max_requests = UINT64_MAX,
	    .max_memory = 1u << 30,
	    .health_path = "/health?a=b",
	    .preload_request = "/=" },
};

static int count(const struct args_list *list)
{
	int n = 0;

	while (list->argv[n])
		n++;
	return n;
}

/* NULL is as good as "". */
static void same(const char *a, const char *b)
{
	assert_string_equal(a ? a : "", b ? b : "");
}

static void what_is_written_is_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
		const struct worker_args *a = &samples[i];
		struct args_list list;
		struct worker_args b;

		assert_int_equal(args_write(a, &list), 0);
		assert_true(args_read(count(&list), list.argv, &b));
		args_list_done(&list); /* what was read is a copy */
		assert_int_equal(a->role, b.role);
		same(a->app, b.app);
		same(a->pool, b.pool);
		same(a->setting.target, b.setting.target);
		same(a->setting.virtualenv, b.setting.virtualenv);
		assert_int_equal(a->setting.processes, b.setting.processes);
		assert_int_equal(a->setting.threads, b.setting.threads);
		assert_int_equal(a->setting.debug, b.setting.debug);
		assert_int_equal(a->place, b.place);
		assert_true(a->max_requests == b.max_requests && a->max_memory == b.max_memory);
		same(a->health_path, b.health_path);
		same(a->preload_request, b.preload_request);
		args_done(&b);
	}
}

static void what_ps_shows_says_what_it_is(void **state)
{
	static const char given[] = "forebay\0worker\0app=demo";
	char title[ARGS_TITLE_MAX], at_once[sizeof(given)], *argv[] = { at_once, at_once + 8, at_once + 15 };

	(void)state;
	args_title(&samples[0], title);
	assert_string_equal(title, "forebay: worker p 1");
	args_title(&samples[1], title);
	assert_string_equal(title, "forebay: zygote a pool");
	memcpy(at_once, given, sizeof(given));
	args_retitle(3, argv, "a title");
	assert_memory_equal(at_once, "a title\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", sizeof(at_once));
	memcpy(at_once, given, sizeof(given));
	args_retitle(3, argv, "a title that is longer than there is room");
	assert_string_equal(argv[0], "a title that is longer ");
}

/* One argument of a good list in another form. */
static const struct {
	int which;
	const char *argument;
} wrong[] = {
	{ 1, "master" },
	{ 1, "" },
	{ 2, "interface=0" },
	{ 2, "interface" },
	{ 3, "application=demo" },
	{ 3, "app" },
	{ 3, "" },
	{ 7, "processes=0" },
	{ 7, "processes=4294967296" },
	{ 8, "threads=0" },
	{ 8, "threads=1025" },
	{ 8, "threads=x" },
	{ 9, "debug=2" },
	{ 10, "place=" },
	{ 10, "place=4194303" },
	{ 11, "max_memory=0" },
};

static void nothing_else_is_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct args_list list;
		struct worker_args b;
		char *good;

		assert_int_equal(args_write(&samples[0], &list), 0);
		assert_false(args_read(count(&list) - 1, list.argv, &b));
		assert_false(args_are_anothers(count(&list), list.argv));
		good = list.argv[wrong[i].which];
		list.argv[wrong[i].which] = (char *)(uintptr_t)wrong[i].argument;
		if (args_read(count(&list), list.argv, &b))
			fail_msg("row %zu: %s", i, wrong[i].argument);
		assert_null(b.app);
		assert_int_equal(args_are_anothers(count(&list), list.argv), strcmp(wrong[i].argument, "interface=0") == 0);
		list.argv[wrong[i].which] = good;
		args_list_done(&list);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(what_ps_shows_says_what_it_is),
		cmocka_unit_test(nothing_else_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
