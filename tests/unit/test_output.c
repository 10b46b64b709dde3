#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "upstream/output.h"

static struct buf said;

static void log_here(void *ctx UNUSED, enum log_level level UNUSED, struct slice line)
{
	buf_add(&said, line);
}

/* What the log says when a child has written this, in pieces of so many bytes, and ended. The caller frees it. */
static char *logged(struct slice written, size_t piece, bool bare)
{
	struct event_base *base = event_base_new();
	struct output *o = NULL;
	int fds[2];

	assert_non_null(base);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(output_new(base, "blog", &fds[0], &o), 0);
	output_set_pid(o, 7);
	if (bare)
		output_set_bare(o);
	buf_init(&said, 1u << 20);
	while (written.len > 0) {
		size_t n = MIN(piece, written.len);

		assert_int_equal(write(fds[1], written.ptr, n), (ssize_t)n);
		assert_true(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
		written = slice_of(written.ptr + n, written.len - n);
	}
	close(fds[1]);
	output_end(o);
	output_free(&o);
	event_base_free(base);
	buf_char(&said, '\0');
	return said.ptr;
}

#define LINE "test: info: pool=blog pid=7"

static const struct {
	struct slice written;
	const char *log, *bare;
} cases[] = {
	{ SLICE_INIT("one\n\ntwo"), LINE " output=\"one\"\n" LINE " output=\"two\"\n", "one\n\ntwo\n" },
	{ SLICE_INIT("\ta\"\\\x1b\xc3\xa4\n"), LINE " output=\"\\x09a\\x22\\x5c\\x1b\\xc3\\xa4\"\n", "\ta\"\\?\xc3\xa4\n" },
	{ SLICE_INIT("\x1f"
	             "ab-1 it fails\nelsewhere\n"),
	    LINE " id=ab-1 output=\"it fails\"\n" LINE " output=\"elsewhere\"\n", "it fails\nelsewhere\n" },
	{ SLICE_INIT("\x1f"
	             "ab-1 \n\x1f"
	             "ab-1  x\n"),
	    LINE " id=ab-1 output=\" x\"\n", "\n x\n" },
	/* what is no id */
	{ SLICE_INIT("\x1f"
	             "ab-1\n"),
	    LINE " output=\"\\x1fab-1\"\n", "?ab-1\n" },
	{ SLICE_INIT("\x1f x\n"), LINE " output=\"\\x1f x\"\n", "? x\n" },
	{ SLICE_INIT("\x1f"
	             "a\"b x\n"),
	    LINE " output=\"\\x1fa\\x22b x\"\n", "?a\"b x\n" },
	{ SLICE_INIT("\x1f\xff x\n"), LINE " output=\"\\x1f\\xff x\"\n", "?\xff x\n" },
	{ SLICE_INIT("x \x1f"
	             "ab-1 y\n"),
	    LINE " output=\"x \\x1fab-1 y\"\n", "x ?ab-1 y\n" },
};

static void what_a_child_writes_is_logged_line_by_line(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		for (size_t piece = 1; piece < 100; piece += 98)
			for (int bare = 0; bare < 2; bare++) {
				const char *expected = bare ? cases[i].bare : cases[i].log;
				char *log = logged(cases[i].written, piece, bare);

				if (strcmp(log, expected) != 0)
					fail_msg("row %zu: %s instead of %s", i, log, expected);
				free(log);
			}
}

static void an_id_ends_at_its_limit(void **state UNUSED)
{
	for (size_t len = OUTPUT_ID_MAX; len <= OUTPUT_ID_MAX + 1; len++) {
		char text[OUTPUT_ID_MAX + 8] = "\x1f", *log;

		memset(text + 1, 'a', len);
		memcpy(text + 1 + len, " x\n", 3);
		log = logged(slice_of(text, len + 4), len + 4, false);
		assert_int_equal(strstr(log, " id=aaaa") != NULL, len == OUTPUT_ID_MAX);
		free(log);
	}
}

/* Pieces, and not a byte lost; its end is no line of its own. */
static void a_long_line_is_cut(void **state UNUSED)
{
	static const size_t lengths[] = { OUTPUT_LINE_MAX - 1, OUTPUT_LINE_MAX, OUTPUT_LINE_MAX + 1, 3 * OUTPUT_LINE_MAX };

	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		char *text = malloc(lengths[i] + 3), *log;
		size_t count = 0, lines = 0;

		memset(text, 'Q', lengths[i]);
		memcpy(text + lengths[i], "\nR\n", 3);
		log = logged(slice_of(text, lengths[i] + 3), 1000, true);
		for (const char *c = log; *c; c++) {
			count += *c == 'Q';
			lines += *c == '\n';
		}
		assert_int_equal(count, lengths[i]);
		assert_non_null(strstr(log, "Q\nR\n"));
		assert_null(strstr(log, "\n\n"));
		assert_true(lines >= lengths[i] / LOG_BARE_MAX);
		free(log);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_child_writes_is_logged_line_by_line),
		cmocka_unit_test(an_id_ends_at_its_limit),
		cmocka_unit_test(a_long_line_is_cut),
	};

	log_setup("test", LOG_LEVEL_INFO, log_here, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
