#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "upstream/worker/wire.h"

static const struct {
	uint8_t bytes[WIRE_HEADER_BYTES];
	int want;
	struct wire_frame f;
} headers[] = {
	{ { 1, 0, 0, 0, 16 }, 1, { WIRE_HELLO, 0, 16, 0 } },
	{ { 1, 0, 0, 0, 15 }, -EPROTO, { 0 } },
	{ { 1, 0, 0, 0, 17 }, -EPROTO, { 0 } },
	{ { 1, 0, 0, 0, 16, 0, 0, 0, 1 }, -EPROTO, { 0 } }, /* a HELLO has no serial */
	{ { 2, 0, 0, 0, 4, 0, 0, 0, 1 }, 1, { WIRE_REQUEST, 0, 4, 1 } },
	{ { 2, 1, 0, 0, 4, 0, 0, 0, 1 }, 1, { WIRE_REQUEST, WIRE_DESCRIPTOR, 4, 1 } },
	{ { 2, 2, 0, 0, 4, 0, 0, 0, 1 }, -EPROTO, { 0 } }, /* not its flag */
	{ { 2, 0, 0, 0, 3, 0, 0, 0, 1 }, -EPROTO, { 0 } },
	{ { 2, 0, 0, 0, 4 }, -EPROTO, { 0 } }, /* all else has one */
	{ { 2, 0, 0, 0, 0x04, 0, 7, 0, 1 }, 1, { WIRE_REQUEST, 0, WIRE_REQUEST_MAX, 1 } },
	{ { 2, 0, 0, 0, 0x05, 0, 7, 0, 1 }, -EPROTO, { 0 } },
	{ { 3, 0, 0, 0, 0, 0, 1, 0, 1 }, 1, { WIRE_HEAD, 0, WIRE_HEAD_MAX, 1 } },
	{ { 3, 0, 0, 0, 1, 0, 1, 0, 1 }, -EPROTO, { 0 } },
	{ { 4, 0, 0, 0, 0, 0, 16, 0, 1 }, 1, { WIRE_DATA, 0, WIRE_DATA_MAX, 1 } },
	{ { 4, 0, 0, 0, 1, 0, 16, 0, 1 }, -EPROTO, { 0 } },
	{ { 4, 0, 0, 0, 0, 0, 0, 0, 1 }, -EPROTO, { 0 } }, /* of nothing */
	{ { 4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1 }, -EPROTO, { 0 } },
	{ { 5, 1, 0, 0, 16, 0, 0, 0, 1 }, 1, { WIRE_FILE, WIRE_DESCRIPTOR, 16, 1 } },
	{ { 5, 0, 0, 0, 16, 0, 0, 0, 1 }, -EPROTO, { 0 } }, /* always with a descriptor */
	{ { 6, 0, 0, 0, 0, 0, 0, 0, 1 }, 1, { WIRE_END, 0, 0, 1 } },
	{ { 6, 2, 0, 0, 0, 0, 0, 0, 1 }, 1, { WIRE_END, WIRE_LAST, 0, 1 } },
	{ { 6, 0, 0, 0, 1, 0, 0, 0, 1 }, -EPROTO, { 0 } },
	{ { 7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8 }, 1, { WIRE_CANCEL, 0, 0, UINT64_C(0x0807060504030201) } },
	{ { 0, 0, 0, 0, 0, 0, 0, 0, 1 }, -EPROTO, { 0 } }, /* no type */
	{ { 8, 0, 0, 0, 0, 0, 0, 0, 1 }, -EPROTO, { 0 } },
	{ { 255, 0, 0, 0, 0, 0, 0, 0, 1 }, -EPROTO, { 0 } },
	{ { 6, 0, 1, 0, 0, 0, 0, 0, 1 }, -EPROTO, { 0 } }, /* reserved */
	{ { 6, 0, 0, 128, 0, 0, 0, 0, 1 }, -EPROTO, { 0 } },
	{ { 6, 4, 0, 0, 0, 0, 0, 0, 1 }, -EPROTO, { 0 } },
};

static void a_header_is_taken_or_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
		struct slice in = { (const char *)headers[i].bytes, WIRE_HEADER_BYTES };
		struct wire_frame f = { 0 };
		char back[WIRE_HEADER_BYTES];
		int got = wire_get_header(in, &f);

		if (got != headers[i].want)
			fail_msg("row %zu: %d", i, got);
		for (size_t n = 0; n < WIRE_HEADER_BYTES; n++)
			if (wire_get_header(slice_of(in.ptr, n), &(struct wire_frame){ 0 }) != 0)
				fail_msg("row %zu: %zu bytes are no header", i, n);
		if (got != 1)
			continue;
		if (f.type != headers[i].f.type || f.flags != headers[i].f.flags || f.length != headers[i].f.length ||
		    f.serial != headers[i].f.serial)
			fail_msg("row %zu: another frame", i);
		wire_put_header(back, &f);
		assert_memory_equal(back, in.ptr, WIRE_HEADER_BYTES);
	}
}

static const struct {
	struct slice bytes;
	int pairs; /* that can be read before `last` */
	int last;
} pair_lists[] = {
	{ SLICE_INIT(""), 0, 0 },
	{ SLICE_INIT("\1\0\0\0\0\0\0\0A"), 1, 0 },
	{ SLICE_INIT("\1\0\0\0\2\0\0\0Abc"), 1, 0 },
	{ SLICE_INIT("\1\0\0\0\2\0\0\0Abc\2\0\0\0\0\0\0\0de"), 2, 0 },
	{ SLICE_INIT("\0\0\0\0\2\0\0\0bc"), 0, -EPROTO }, /* no name */
	{ SLICE_INIT("\1\0\0\0\2\0\0\0Ab"), 0, -EPROTO }, /* one byte short */
	{ SLICE_INIT("\1\0\0\0\2\0\0"), 0, -EPROTO },
	{ SLICE_INIT("\1\0\0\0\0\0\0\0Ax"), 1, -EPROTO }, /* a rest */
	{ SLICE_INIT("\1\0\0\0\xff\xff\xff\xff"
	             "A"),
	    0, -EPROTO },
	{ SLICE_INIT("\xff\xff\xff\xff\1\0\0\0A"), 0, -EPROTO }, /* the sum would be 0 in 32 bits */
	{ SLICE_INIT("\xff\xff\xff\xff\xff\xff\xff\xff"
	             "A"),
	    0, -EPROTO },
};

static void pairs_are_read_to_the_last_byte(void **state)
{
	struct slice name, value;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pair_lists); i++) {
		struct slice in = pair_lists[i].bytes;
		int pairs = 0, got;

		while ((got = wire_get_pair(&in, &name, &value)) == 1)
			pairs++;
		if (pairs != pair_lists[i].pairs || got != pair_lists[i].last)
			fail_msg("row %zu: %d pairs, then %d", i, pairs, got);
	}
}

static void a_pair_comes_back_as_it_was_put(void **state)
{
	struct buf b;
	struct slice in, name, value;

	(void)state;
	buf_init(&b, 64);
	wire_put_pair(&b, SLICE("name"), SLICE("v\0lue"));
	wire_put_pair(&b, SLICE("n"), SLICE(""));
	in = buf_slice(&b);
	assert_int_equal(wire_get_pair(&in, &name, &value), 1);
	assert_true(slice_eq(name, SLICE("name")) && slice_eq(value, SLICE("v\0lue")));
	assert_int_equal(wire_get_pair(&in, &name, &value), 1);
	assert_true(slice_eq(name, SLICE("n")) && value.len == 0);
	assert_int_equal(wire_get_pair(&in, &name, &value), 0);
	wire_put_pair(&b, SLICE("too long for what is left of it"), SLICE("value"));
	assert_true(b.failed);
	assert_int_equal(b.len, 4 + 5 + 8 + 1 + 8);
	buf_done(&b);
}

static void a_hello_is_ours_or_refused(void **state)
{
	struct buf b;
	struct wire_frame f;
	struct slice payload;

	(void)state;
	buf_init(&b, 64);
	wire_put_hello(&b);
	assert_int_equal(b.len, WIRE_HEADER_BYTES + WIRE_HELLO_BYTES);
	assert_int_equal(wire_get_header(buf_slice(&b), &f), 1);
	assert_int_equal(f.type, WIRE_HELLO);
	payload = slice_of(b.ptr + WIRE_HEADER_BYTES, WIRE_HELLO_BYTES);
	assert_int_equal(wire_check_hello(payload), 0);
	for (size_t i = 0; i < WIRE_HELLO_BYTES; i++) {
		char was = b.ptr[WIRE_HEADER_BYTES + i];

		/* Any other magic, version, or smaller limit. */
		b.ptr[WIRE_HEADER_BYTES + i] = (char)(i < 8 || i >= 12 ? was ^ 1 : 0);
		if (b.ptr[WIRE_HEADER_BYTES + i] != was && wire_check_hello(payload) != -EPROTO)
			fail_msg("byte %zu", i);
		b.ptr[WIRE_HEADER_BYTES + i] = was;
	}
	assert_int_equal(wire_check_hello(slice_of(payload.ptr, WIRE_HELLO_BYTES - 1)), -EPROTO);
	buf_done(&b);
}

static const struct {
	struct slice payload;
	uint8_t flags;
	int want;
	size_t variables;
	uint64_t length;
} requests[] = {
	{ SLICE_INIT("\0\0\0\0"), 0, 0, 0, 0 },
	{ SLICE_INIT("\0\0\0\0body"), 0, 0, 0, 4 },
	{ SLICE_INIT("\11\0\0\0\1\0\0\0\0\0\0\0Abody"), 0, 0, 1, 4 },
	{ SLICE_INIT("\0\0\0\0\1\0\0\0\0\0\0\0"), WIRE_DESCRIPTOR, 0, 0, 1 },
	{ SLICE_INIT("\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f"), WIRE_DESCRIPTOR, 0, 0, INT64_MAX },
	{ SLICE_INIT("\0\0\0\0\0\0\0\0\0\0\0\x80"), WIRE_DESCRIPTOR, -EPROTO, 0, 0 },
	{ SLICE_INIT("\0\0\0\0\1\0\0\0\0\0\0"), WIRE_DESCRIPTOR, -EPROTO, 0, 0 },
	{ SLICE_INIT("\0\0\0\0\1\0\0\0\0\0\0\0x"), WIRE_DESCRIPTOR, -EPROTO, 0, 0 }, /* a body in both places */
	{ SLICE_INIT("\0\0\0"), 0, -EPROTO, 0, 0 },
	{ SLICE_INIT("\1\0\0\0"), 0, -EPROTO, 0, 0 },                   /* variables that are not there */
	{ SLICE_INIT("\10\0\0\0\1\0\0\0\0\0\0\0A"), 0, -EPROTO, 0, 0 }, /* that end inside one */
	{ SLICE_INIT("\xff\xff\xff\xff\1\0\0\0"), 0, -EPROTO, 0, 0 },
};

static void a_request_is_taken_or_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		struct wire_frame f = { .type = WIRE_REQUEST, .flags = requests[i].flags };
		struct wire_request r;
		int got = wire_get_request(&f, requests[i].payload, &r);

		if (got != requests[i].want)
			fail_msg("row %zu: %d", i, got);
		if (got == 0 && (r.variable_count != requests[i].variables || r.length != requests[i].length))
			fail_msg("row %zu: %zu variables, %" PRIu64 " bytes", i, r.variable_count, r.length);
	}
}

/* A payload of `variables` bytes of pairs and `body` bytes behind them. */
static int take_sizes(size_t variables, size_t body)
{
	size_t len = 4 + variables + body;
	char *payload = calloc(1, len);
	struct wire_request r;
	int got;

	assert_non_null(payload);
	wire_put_u32(payload, (uint32_t)variables);
	if (variables > 0) {
		wire_put_u32(payload + 4, 1);
		wire_put_u32(payload + 8, (uint32_t)(variables - 9));
	}
	got = wire_get_request(&(struct wire_frame){ .type = WIRE_REQUEST }, slice_of(payload, len), &r);
	free(payload);
	return got;
}

static void the_largest_request_is_taken_and_no_larger(void **state)
{
	(void)state;
	assert_int_equal(take_sizes(WIRE_VARIABLES_MAX, WIRE_INLINE_MAX), 0);
	assert_int_equal(take_sizes(WIRE_VARIABLES_MAX + 1, 0), -EPROTO);
	assert_int_equal(take_sizes(0, WIRE_INLINE_MAX + 1), -EPROTO);
}

#define FIELD(name_len, name, value_len, value) name_len "\0\0\0" value_len "\0\0\0" name value

static const struct {
	struct slice payload;
	int want;
	bool has_length;
	uint64_t length;
} heads[] = {
	{ SLICE_INIT("\xc8\0\0\0"), 0, false, 0 }, /* 200 */
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\1", "A", "\1", "b")), 0, false, 0 },
	{ SLICE_INIT("\xc8\0\2\0" FIELD("\1", "A", "\1", "b") FIELD("\1", "A", "\0", "")), 0, false, 0 },
	{ SLICE_INIT("\x57\2\0\0"), 0, false, 0 },       /* 599 */
	{ SLICE_INIT("\x58\2\0\0"), -EPROTO, false, 0 }, /* 600 */
	{ SLICE_INIT("\xc7\0\0\0"), -EPROTO, false, 0 }, /* 199 */
	{ SLICE_INIT("\x67\0\0\0"), 0, false, 0 },       /* 103 */
	{ SLICE_INIT("\x64\0\0\0"), -EPROTO, false, 0 }, /* 100 */
	{ SLICE_INIT("\x65\0\0\0"), -EPROTO, false, 0 }, /* 101 */
	{ SLICE_INIT("\0\0\0\0"), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\0"), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0"), -EPROTO, false, 0 },                             /* a field too few */
	{ SLICE_INIT("\xc8\0\0\0" FIELD("\1", "A", "\1", "b")), -EPROTO, false, 0 }, /* one too many */
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\1", "A", "\1", "b") "x"), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\2", "A:", "\1", "b")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\2", "A ", "\1", "b")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\1", "A", "\3", "b\r\n")), -EPROTO, false, 0 }, /* no splitting of responses */
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\1", "A", "\3", "b\nc")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\1", "A", "\3", "b\0c")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\16", "Content-Length", "\2", "12")), 0, true, 12 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\16", "content-length", "\1", "0")), 0, true, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\16", "Content-Length", "\2", "-1")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\16", "Content-Length", "\0", "")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\16", "Content-Length", "\4", "1, 1")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\16", "Content-Length", "\23", "9223372036854775807")), 0, true, INT64_MAX },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\16", "Content-Length", "\23", "9223372036854775808")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\16", "Content-Length", "\24", "18446744073709551617")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\2\0" FIELD("\16", "Content-Length", "\1", "1") FIELD("\16", "content-length", "\1", "1")), -EPROTO,
	    false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\21", "Transfer-Encoding", "\7", "chunked")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\12", "connection", "\5", "close")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\7", "Upgrade", "\1", "x")), -EPROTO, false, 0 },
	{ SLICE_INIT("\xc8\0\1\0" FIELD("\7", "Trailer", "\1", "x")), -EPROTO, false, 0 },
};

static void a_head_is_taken_or_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
		struct wire_head h;
		const char *why = NULL;
		int got = wire_get_head(heads[i].payload, &h, &why);

		if (got != heads[i].want || (got != 0 && !why))
			fail_msg("row %zu: %d, %s", i, got, why);
		if (got == 0 && (h.has_length != heads[i].has_length || (h.has_length && h.length != heads[i].length)))
			fail_msg("row %zu: another length", i);
	}
}

static int take_fields(unsigned count)
{
	struct wire_head h;
	const char *why;
	struct buf b;
	char *start;
	int got;

	buf_init(&b, WIRE_HEAD_MAX);
	start = buf_room(&b, 4);
	assert_non_null(start);
	wire_put_u16(start, 200);
	wire_put_u16(start + 2, (uint16_t)count);
	b.len = 4;
	for (unsigned i = 0; i < count; i++)
		wire_put_pair(&b, SLICE("A"), SLICE("b"));
	assert_false(b.failed);
	got = wire_get_head(buf_slice(&b), &h, &why);
	buf_done(&b);
	return got;
}

static void as_many_fields_as_may_be_and_no_more(void **state)
{
	(void)state;
	assert_int_equal(take_fields(WIRE_FIELDS_MAX), 0);
	assert_int_equal(take_fields(WIRE_FIELDS_MAX + 1), -EPROTO);
}

static const struct {
	uint64_t offset, length;
	int want;
} files[] = {
	{ 0, 1, 0 },
	{ 0, INT64_MAX, 0 },
	{ INT64_MAX - 1, 1, 0 },
	{ 0, 0, -EPROTO },
	{ 1, INT64_MAX, -EPROTO },
	{ INT64_MAX, 1, -EPROTO },
	{ UINT64_MAX, 2, -EPROTO },
	{ 2, UINT64_MAX, -EPROTO },
};

static void a_piece_of_a_file_lies_within_what_files_can_be(void **state)
{
	char payload[WIRE_FILE_BYTES];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		struct wire_file f = { files[i].offset, files[i].length }, back;
		int got;

		wire_put_file(payload, &f);
		got = wire_get_file(slice_of(payload, sizeof(payload)), &back);
		if (got != files[i].want)
			fail_msg("row %zu: %d", i, got);
		if (got == 0 && (back.offset != f.offset || back.length != f.length))
			fail_msg("row %zu: another piece", i);
	}
	assert_int_equal(wire_get_file(slice_of(payload, 15), &(struct wire_file){ 0 }), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_header_is_taken_or_refused),
		cmocka_unit_test(pairs_are_read_to_the_last_byte),
		cmocka_unit_test(a_pair_comes_back_as_it_was_put),
		cmocka_unit_test(a_hello_is_ours_or_refused),
		cmocka_unit_test(a_request_is_taken_or_refused),
		cmocka_unit_test(the_largest_request_is_taken_and_no_larger),
		cmocka_unit_test(a_head_is_taken_or_refused),
		cmocka_unit_test(as_many_fields_as_may_be_and_no_more),
		cmocka_unit_test(a_piece_of_a_file_lies_within_what_files_can_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
