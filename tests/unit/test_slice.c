#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "core/log.h"
#include "core/slice.h"

static const struct {
	struct slice a, b;
	bool eq, eq_nocase, starts, ends;
} pairs[] = {
	{ SLICE_INIT("Host"), SLICE_INIT("Host"), true, true, true, true },
	{ SLICE_INIT("Host"), SLICE_INIT("hOST"), false, true, false, false },
	{ SLICE_INIT("Host"), SLICE_INIT("Ho"), false, false, true, false },
	{ SLICE_INIT("Host"), SLICE_INIT("st"), false, false, false, true },
	{ SLICE_INIT("Host"), SLICE_INIT(""), false, false, true, true },
	{ SLICE_INIT(""), SLICE_INIT(""), true, true, true, true },
	{ SLICE_INIT("Ho"), SLICE_INIT("Host"), false, false, false, false },
	{ SLICE_INIT("a\0b"), SLICE_INIT("a\0c"), false, false, false, false },
	{ SLICE_INIT("[@`{"), SLICE_INIT("{`@["), false, false, false, false }, /* beside the letters: no case */
	{ SLICE_INIT("\xc4"), SLICE_INIT("\xe4"), false, false, false, false },
};

static void two_slices_are_compared(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		struct slice a = pairs[i].a, b = pairs[i].b;

		if (slice_eq(a, b) != pairs[i].eq || slice_eq_nocase(a, b) != pairs[i].eq_nocase ||
		    slice_starts(a, b) != pairs[i].starts || slice_ends(a, b) != pairs[i].ends)
			fail_msg("row %zu: %.*s %.*s", i, SLICE_ARG(a), SLICE_ARG(b));
	}
}

static void a_slice_without_memory_is_empty(void **state UNUSED)
{
	struct slice none = { NULL, 0 }, before, element;

	assert_true(slice_eq(none, SLICE("")));
	assert_true(slice_eq_nocase(none, none));
	assert_true(slice_starts(none, none));
	assert_true(slice_ends(none, none));
	assert_false(slice_cut(&none, ',', &before));
	assert_false(slice_next_element(&none, &element));
	assert_int_equal(slice_trim_ows(none).len, 0);
	assert_false(slice_is_token(none));
	assert_int_equal(slice_str(NULL).len, 0);
}

static const struct {
	struct slice text, before, after;
	bool found;
} cuts[] = {
	{ SLICE_INIT("a:b:c"), SLICE_INIT("a"), SLICE_INIT("b:c"), true },
	{ SLICE_INIT(":b"), SLICE_INIT(""), SLICE_INIT("b"), true },
	{ SLICE_INIT("a:"), SLICE_INIT("a"), SLICE_INIT(""), true },
	{ SLICE_INIT("abc"), SLICE_INIT(""), SLICE_INIT("abc"), false },
	{ SLICE_INIT("a\0:b"), SLICE_INIT("a\0"), SLICE_INIT("b"), true },
};

static void the_first_separator_cuts(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
		struct slice text = cuts[i].text, before = SLICE("");

		if (slice_cut(&text, ':', &before) != cuts[i].found || !slice_eq(before, cuts[i].before) ||
		    !slice_eq(text, cuts[i].after))
			fail_msg("row %zu: %.*s", i, SLICE_ARG(cuts[i].text));
	}
}

static const struct {
	struct slice text, trimmed;
} trims[] = {
	{ SLICE_INIT(" \t a b \t"), SLICE_INIT("a b") },
	{ SLICE_INIT("\v a\f"), SLICE_INIT("\v a\f") }, /* the only blanks are these two */
	{ SLICE_INIT(" \t"), SLICE_INIT("") },
	{ SLICE_INIT(""), SLICE_INIT("") },
};

static void blanks_are_trimmed_at_both_ends(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(trims); i++)
		if (!slice_eq(slice_trim_ows(trims[i].text), trims[i].trimmed))
			fail_msg("row %zu", i);
}

/* RFC 9110, 5.6.2 */
static void a_token_has_tchars_only(void **state UNUSED)
{
	static const char tchars[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

	for (unsigned c = 0; c < 256; c++) {
		char text[3] = { 'a', (char)c, 'b' };
		bool is_tchar = c && strchr(tchars, (int)c);

		if (slice_is_token(slice_of(text, 3)) != is_tchar)
			fail_msg("byte %u", c);
	}
	assert_true(slice_is_token(slice_str(tchars)));
	assert_false(slice_is_token(SLICE("")));
}

static const struct {
	struct slice text;
	bool ok;
	uint64_t n;
} numbers[] = {
	{ SLICE_INIT("0"), true, 0 }, { SLICE_INIT("007"), true, 7 }, { SLICE_INIT("18446744073709551615"), true, UINT64_MAX },
	{ SLICE_INIT("18446744073709551616"), false, 0 }, { SLICE_INIT("18446744073709551620"), false, 0 },
	{ SLICE_INIT("184467440737095516150"), false, 0 }, { SLICE_INIT("99999999999999999999999999"), false, 0 },
	{ SLICE_INIT(""), false, 0 }, { SLICE_INIT("+5"), false, 0 }, { SLICE_INIT("-5"), false, 0 },
	{ SLICE_INIT(" 5"), false, 0 }, { SLICE_INIT("5 "), false, 0 }, { SLICE_INIT("0x5"), false, 0 },
	{ SLICE_INIT("5\0"), false, 0 }, { SLICE_INIT("1_000"), false, 0 }, { SLICE_INIT("1.0"), false, 0 },
	{ SLICE_INIT("\xd9\xa5"), false, 0 }, /* an Arabic five */
};

static void a_number_is_digits_that_fit(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		uint64_t n = 0;

		if (slice_to_u64(numbers[i].text, &n) != numbers[i].ok || n != numbers[i].n)
			fail_msg("row %zu: %.*s", i, SLICE_ARG(numbers[i].text));
	}
}

static const struct {
	struct slice list;
	const char *elements; /* joined by '|' */
} lists[] = {
	{ SLICE_INIT("a, b ,c"), "a|b|c|" }, { SLICE_INIT(",, ,a,,\t,b,"), "a|b|" }, { SLICE_INIT(""), "" },
	{ SLICE_INIT(" , "), "" }, { SLICE_INIT("a=\"x,y\", b"), "a=\"x,y\"|b|" },
	{ SLICE_INIT("a=\"x\\\",y\", b"), "a=\"x\\\",y\"|b|" },
	{ SLICE_INIT("\"a, b"), "\"a, b|" }, /* a quote that does not end */
	{ SLICE_INIT("\"a\\"), "\"a\\|" },   /* nor does the escape */
	{ SLICE_INIT("a\\,b"), "a\\|b|" },   /* no escapes outside of quotes */
};

static void a_list_has_its_elements(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		struct slice list = lists[i].list, element;
		char got[64] = "";
		size_t n = 0;

		while (slice_next_element(&list, &element)) {
			memcpy(got + n, element.ptr, element.len);
			n += element.len;
			got[n++] = '|';
		}
		if (!slice_eq(slice_of(got, n), slice_str(lists[i].elements)))
			fail_msg("row %zu: %s", i, got);
	}
}

static void a_copy_ends_in_nul(void **state UNUSED)
{
	char *copy = slice_dup(slice_of("abcdef", 3)), *empty = slice_dup(slice_of(NULL, 0));

	assert_string_equal(copy, "abc");
	assert_string_equal(empty, "");
	free(copy);
	free(empty);
}

static const struct {
	struct slice text;
	size_t out_size;
	const char *escaped;
} escapes[] = {
	{ SLICE_INIT("GET /"), 64, "GET /" },
	{ SLICE_INIT("a\r\nb\0c\"\\\x7f\xe4"), 64, "a\\x0d\\x0ab\\x00c\\x22\\x5c\\x7f\\xe4" },
	{ SLICE_INIT("abcdef"), 4, "abc" },
	{ SLICE_INIT("ab\ncd"), 6, "ab" }, /* an escape is whole or not there */
	{ SLICE_INIT("ab\ncd"), 7, "ab\\x0a" },
	{ SLICE_INIT("abc"), 1, "" },
};

static void a_peers_bytes_are_escaped(void **state UNUSED)
{
	char out[64];

	for (size_t i = 0; i < ARRAY_LEN(escapes); i++)
		if (strcmp(log_escape(escapes[i].text, out, escapes[i].out_size), escapes[i].escaped) != 0)
			fail_msg("row %zu: %s", i, out);
}

static void keep_line(void *ctx, enum log_level level UNUSED, struct slice line)
{
	char **kept = ctx;

	free(*kept);
	*kept = slice_dup(line);
}

static void a_log_line_is_one_bounded_line(void **state UNUSED)
{
	char *line = NULL, long_text[4000];

	log_setup("test", LOG_LEVEL_INFO, keep_line, &line);
	log_debug("not=wanted");
	assert_null(line);
	errno = EPIPE;
	log_warning("n=%d\nforged: line", 1);
	assert_int_equal(errno, EPIPE);
	assert_string_equal(line, "test: warning: n=1?forged: line\n");
	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	log_error("%s", long_text);
	assert_true(slice_str(line).len < 2048);
	assert_true(slice_ends(slice_str(line), SLICE("xxx...\n")));
	free(line);
	log_setup(NULL, LOG_LEVEL_INFO, NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_slices_are_compared),
		cmocka_unit_test(a_slice_without_memory_is_empty),
		cmocka_unit_test(the_first_separator_cuts),
		cmocka_unit_test(blanks_are_trimmed_at_both_ends),
		cmocka_unit_test(a_token_has_tchars_only),
		cmocka_unit_test(a_number_is_digits_that_fit),
		cmocka_unit_test(a_list_has_its_elements),
		cmocka_unit_test(a_copy_ends_in_nul),
		cmocka_unit_test(a_peers_bytes_are_escaped),
		cmocka_unit_test(a_log_line_is_one_bounded_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
