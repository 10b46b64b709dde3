#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "proxy/daemon/account.h"

static struct buf said;

static void log_here(void *ctx UNUSED, enum log_level level UNUSED, struct slice line)
{
	buf_add(&said, line);
}

static int set_up(void **state UNUSED)
{
	buf_init(&said, 1u << 16);
	log_setup("test", LOG_LEVEL_INFO, log_here, NULL);
	return 0;
}

static int tear_down(void **state UNUSED)
{
	log_setup(NULL, LOG_LEVEL_INFO, NULL, NULL);
	buf_done(&said);
	return 0;
}

static void expect(const char *text)
{
	if (!slice_eq(buf_slice(&said), slice_str(text)))
		fail_msg("\"%.*s\" instead of \"%s\"", SLICE_ARG(buf_slice(&said)), text);
	buf_clear(&said);
}

static void what_is_left_is_named_and_what_is_not_is_no_word(void **state UNUSED)
{
	assert_int_equal(account("thread", 3, "memory", 0), 0);
	expect("");
	assert_int_equal(account("thread", 3, "memory", UINT64_MAX), 1);
	expect("test: error: event=not_given_back thread=3 what=memory left=18446744073709551615\n");
}

static void descriptors_that_are_open_are_named(void **state UNUSED)
{
	const int first = STDERR_FILENO + 1;
	char text[256];
	int fds[2];

	assert_int_equal(close_range((unsigned)first, ~0u, 0), 0); /* who started us may have left us some */
	assert_int_equal(account_descriptors(first), 0);
	expect("");
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(account_descriptors(first), 2);
	snprintf(text, sizeof(text),
	    "test: error: event=not_given_back descriptor=%d mode=010600\n"
	    "test: error: event=not_given_back descriptor=%d mode=010600\n",
	    fds[0], fds[1]);
	expect(text);
	close(fds[0]);
	assert_int_equal(account_descriptors(first), 1);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_left_is_named_and_what_is_not_is_no_word),
		cmocka_unit_test(descriptors_that_are_open_are_named),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
