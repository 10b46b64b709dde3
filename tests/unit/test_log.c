#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "core/buf.h"
#include "core/log.h"

static struct buf said;

static void log_here(void *ctx UNUSED, enum log_level level UNUSED, struct slice line)
{
	buf_add(&said, line);
}

static int set_up(void **state)
{
	(void)state;
	buf_init(&said, 1u << 16);
	log_setup("test", LOG_LEVEL_INFO, log_here, NULL);
	log_stamps(false);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
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

static void somebody_elses_words_stand_alone(void **state)
{
	char text[LOG_BARE_MAX + 1];

	(void)state;
	log_bare(LOG_LEVEL_INFO, SLICE("\tFile \"x.py\", \xc3\xa4\x1b[2J\n\x7f"));
	expect("\tFile \"x.py\", \xc3\xa4?[2J??\n");
	log_bare(LOG_LEVEL_INFO, SLICE(""));
	expect("\n");
	log_bare(LOG_LEVEL_DEBUG, SLICE("not asked for"));
	expect("");
	memset(text, 'a', sizeof(text));
	log_bare(LOG_LEVEL_INFO, slice_of(text, sizeof(text)));
	assert_int_equal(said.len, LOG_BARE_MAX + 1);
}

static void a_line_says_who_and_how_bad(void **state)
{
	(void)state;
	log_error("a=%d", 1);
	expect("test: error: a=1\n");
	log_info("a=\"%s\"", "x\ny\x1b\x7f\xc3\xa9");
	expect("test: info: a=\"x?y??\xc3\xa9\"\n");
	log_debug("a=1");
	expect("");
	errno = ENOSPC;
	log_warning("%s", "");
	assert_int_equal(errno, ENOSPC);
	expect("test: warning: \n");
}

/* Digits stand for any digit. */
static void a_line_with_its_time(void **state)
{
	static const char form[] = "0000-00-00T00:00:00.000000Z test: info: a=b\n";

	(void)state;
	log_stamps(true);
	log_info("a=b");
	assert_int_equal(said.len, sizeof(form) - 1);
	for (size_t i = 0; i < said.len; i++) {
		bool is_digit = said.ptr[i] >= '0' && said.ptr[i] <= '9';

		if (form[i] == '0' ? !is_digit : said.ptr[i] != form[i])
			fail_msg("at %zu: %.*s", i, SLICE_ARG(buf_slice(&said)));
	}
}

static void a_long_line_is_cut_and_says_so(void **state)
{
	static char text[5000];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	for (int stamps = 0; stamps < 2; stamps++) {
		buf_clear(&said);
		log_stamps(stamps);
		log_info("%s", text);
		assert_int_equal(said.len, 2047);
		assert_memory_equal(said.ptr + said.len - 5, "x...\n", 5);
	}
}

static void what_peers_send_is_escaped(void **state)
{
	static const struct {
		struct slice text;
		size_t room;
		const char *out;
	} cases[] = {
		{ SLICE_INIT("plain"), 99, "plain" },
		{ SLICE_INIT("a\"b\\c\n\0\xff"), 99, "a\\x22b\\x5cc\\x0a\\x00\\xff" },
		{ SLICE_INIT("plain"), 4, "pla" },
		{ SLICE_INIT("a\n"), 5, "a" },
		{ SLICE_INIT("a\n"), 6, "a\\x0a" },
		{ SLICE_INIT("a"), 1, "" },
	};
	char out[100];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (strcmp(log_escape(cases[i].text, out, cases[i].room), cases[i].out) != 0)
			fail_msg("row %zu: %s", i, out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(somebody_elses_words_stand_alone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_line_says_who_and_how_bad, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_line_with_its_time, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_long_line_is_cut_and_says_so, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_peers_send_is_escaped, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
