#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/buf.h"

static void assert_content(const struct buf *b, struct slice expected)
{
	assert_true(slice_eq(buf_slice(b), expected));
}

static void what_is_added_is_there(void **state UNUSED)
{
	struct buf b;

	buf_init(&b, 1000);
	buf_add(&b, SLICE("a\0b"));
	buf_add(&b, slice_of(NULL, 0));
	buf_char(&b, ' ');
	buf_u64(&b, 0);
	buf_char(&b, ' ');
	buf_u64(&b, UINT64_MAX);
	buf_printf(&b, " %s=%d", "x", -1);
	assert_content(&b, SLICE("a\0b 0 18446744073709551615 x=-1"));
	assert_false(b.failed);
	buf_done(&b);
	buf_done(&b);
	assert_null(b.ptr);
}

static void numbers_are_written_as_printf_would(void **state UNUSED)
{
	for (uint64_t power = 1; power <= UINT64_MAX / 10; power *= 10)
		for (uint64_t n = power - 1; n <= power + 11; n++) {
			char text[32];
			struct buf b;

			(void)snprintf(text, sizeof(text), "%" PRIu64, n);
			buf_init(&b, 32);
			buf_u64(&b, n);
			assert_content(&b, slice_str(text));
			buf_done(&b);
		}
}

static void a_buf_fills_to_its_maximum_and_no_further(void **state UNUSED)
{
	static const size_t maxima[] = { 1, 3, 255, 256, 257, 1000, 65536, 100000 };

	for (size_t i = 0; i < ARRAY_LEN(maxima); i++) {
		struct buf b;

		buf_init(&b, maxima[i]);
		for (size_t n = 0; n < maxima[i]; n++)
			buf_char(&b, 'x');
		if (b.failed || b.len != maxima[i] || b.size != maxima[i])
			fail_msg("row %zu: %zu of %zu", i, b.len, b.size);
		buf_char(&b, 'y');
		if (!b.failed || b.len != maxima[i])
			fail_msg("row %zu: more than the maximum", i);
		buf_done(&b);
	}
}

static void what_does_not_fit_is_not_there_at_all(void **state UNUSED)
{
	struct buf b;

	buf_init(&b, 10);
	buf_add(&b, SLICE("123456"));
	buf_add(&b, SLICE("12345"));
	assert_true(b.failed);
	assert_content(&b, SLICE("123456"));
	buf_printf(&b, "%s", "12345");
	assert_content(&b, SLICE("123456"));
	buf_add(&b, SLICE("7890")); /* sticky, though this one fits */
	assert_true(b.failed);
	assert_content(&b, SLICE("1234567890"));
	assert_null(buf_room(&b, SIZE_MAX));
	buf_clear(&b);
	assert_false(b.failed);
	assert_int_equal(b.len, 0);
	buf_printf(&b, "%s", "1234567890"); /* printf's NUL costs nothing */
	assert_false(b.failed);
	assert_content(&b, SLICE("1234567890"));
	buf_done(&b);
}

static void a_maximum_of_nothing_takes_nothing(void **state UNUSED)
{
	struct buf b;

	buf_init(&b, 0);
	assert_non_null(buf_room(&b, 0));
	buf_add(&b, SLICE(""));
	assert_false(b.failed);
	buf_char(&b, 'x');
	assert_true(b.failed);
	buf_done(&b);
}

static void a_long_text_is_printed_whole(void **state UNUSED)
{
	char text[2000];
	struct buf b;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	buf_init(&b, 3000);
	buf_printf(&b, "%s!", text);
	assert_int_equal(b.len, sizeof(text));
	assert_int_equal(b.ptr[b.len - 1], '!');
	buf_done(&b);
}

static void what_does_not_fit_the_first_memory_moves(void **state UNUSED)
{
	static const size_t maxima[] = { 3, 8, 9, 300 };
	char first[8];
	struct buf b;

	for (size_t i = 0; i < ARRAY_LEN(maxima); i++) {
		buf_init_in(&b, first, sizeof(first), maxima[i]);
		for (size_t n = 0; n < maxima[i]; n++)
			buf_char(&b, (char)('a' + n % 26));
		if (b.failed || b.len != maxima[i] || (b.ptr == first) != (maxima[i] <= sizeof(first)))
			fail_msg("row %zu: %zu bytes", i, b.len);
		for (size_t n = 0; n < maxima[i]; n++)
			if (b.ptr[n] != (char)('a' + n % 26))
				fail_msg("row %zu: byte %zu", i, n);
		buf_char(&b, 'x');
		if (!b.failed)
			fail_msg("row %zu: more than the maximum", i);
		buf_done(&b);
	}
}

static void what_is_borrowed_is_never_written_to(void **state UNUSED)
{
	static const char text[] = "head"; /* a write would be a fault */
	struct buf b;

	buf_borrow(&b, SLICE(""), 4);
	buf_done(&b);
	buf_borrow(&b, slice_str(text), 8);
	assert_content(&b, SLICE("head"));
	assert_ptr_equal(b.ptr, text);
	buf_char(&b, '!');
	assert_content(&b, SLICE("head!"));
	buf_clear(&b);
	buf_done(&b);
	buf_borrow(&b, slice_str(text), 8);
	buf_clear(&b);
	assert_int_equal(b.len, 0);
	buf_add(&b, SLICE("12345678"));
	assert_content(&b, SLICE("12345678"));
	buf_char(&b, '9');
	assert_true(b.failed);
	buf_done(&b);
	assert_string_equal(text, "head");
}

static void room_is_written_to_in_place(void **state UNUSED)
{
	struct buf b;
	char *room;

	buf_init(&b, 5000);
	room = buf_room(&b, 5000);
	assert_non_null(room);
	memset(room, 'x', 5000);
	b.len += 5000;
	assert_null(buf_room(&b, 1));
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_added_is_there),
		cmocka_unit_test(numbers_are_written_as_printf_would),
		cmocka_unit_test(a_buf_fills_to_its_maximum_and_no_further),
		cmocka_unit_test(what_does_not_fit_is_not_there_at_all),
		cmocka_unit_test(a_maximum_of_nothing_takes_nothing),
		cmocka_unit_test(a_long_text_is_printed_whole),
		cmocka_unit_test(what_does_not_fit_the_first_memory_moves),
		cmocka_unit_test(what_is_borrowed_is_never_written_to),
		cmocka_unit_test(room_is_written_to_in_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
