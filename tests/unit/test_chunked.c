#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "core/http1.h"

#define CONTENT_MAX 256

struct outcome {
	enum http1_result result;
	char content[CONTENT_MAX];
	size_t content_len;
	size_t left; /* bytes not used */
};

/* Decodes one piece until it is used up or there is an answer. */
static void decode_piece(struct chunked *c, struct slice *in, struct outcome *o)
{
	struct slice data;

	do {
		o->result = chunked_decode(c, in, &data);
		if (o->content_len + data.len > CONTENT_MAX)
			fail_msg("more content than there can be");
		memcpy(o->content + o->content_len, data.ptr, data.len);
		o->content_len += data.len;
	} while (o->result == HTTP1_MORE && data.len);
	if (o->result == HTTP1_MORE)
		assert_int_equal(in->len, 0);
}

/* In pieces of step bytes, the first of them of `first` bytes; each in a block that ends with its last byte. */
static struct outcome decode(struct slice bytes, size_t first, size_t step)
{
	struct outcome o = { .result = HTTP1_MORE };
	struct chunked c = { 0 };
	size_t at = 0, n = first;

	do {
		char *block = malloc(MAX(n, (size_t)1));
		struct slice in = { block, n };

		memcpy(block, bytes.ptr + at, n);
		at += n;
		decode_piece(&c, &in, &o);
		o.left = in.len + bytes.len - at;
		free(block);
		n = MIN(step, bytes.len - at);
	} while (o.result == HTTP1_MORE && n);
	return o;
}

static bool same(const struct outcome *a, const struct outcome *b)
{
	return a->result == b->result && (a->result != HTTP1_OK || a->left == b->left) &&
	       slice_eq(slice_of(a->content, a->content_len), slice_of(b->content, b->content_len));
}

static struct outcome decode_every_way(size_t row, struct slice bytes)
{
	struct outcome whole = decode(bytes, bytes.len, 1), bytewise = decode(bytes, 0, 1);

	if (!same(&whole, &bytewise))
		fail_msg("row %zu: byte by byte: %s, not %s", row, http1_reason(bytewise.result), http1_reason(whole.result));
	for (size_t split = 0; split <= bytes.len; split++) {
		struct outcome two = decode(bytes, split, bytes.len);

		if (!same(&whole, &two))
			fail_msg("row %zu, split at %zu: %s, not %s", row, split, http1_reason(two.result),
			    http1_reason(whole.result));
	}
	return whole;
}

/* RFC 9112, 7.1 */
static const struct {
	struct slice bytes;
	struct slice content;
	size_t left;
} accepted[] = {
	{ SLICE_INIT("0\r\n\r\n"), SLICE_INIT(""), 0 }, { SLICE_INIT("5\r\nhello\r\n0\r\n\r\n"), SLICE_INIT("hello"), 0 },
	{ SLICE_INIT("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET /"), SLICE_INIT("hello world"), 5 },
	{ SLICE_INIT("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), SLICE_INIT("01234567890123456789"), 0 },
	{ SLICE_INIT("1\r\n\r\r\n1\r\n\n\r\n1\r\n\0\r\n0\r\n\r\n"), SLICE_INIT("\r\n\0"), 0 },
	{ SLICE_INIT("7\r\n0\r\n\r\nxy\r\n0\r\n\r\n"), SLICE_INIT("0\r\n\r\nxy"), 0 }, /* looks like an end */
	{ SLICE_INIT("0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n"), SLICE_INIT("hello"), 0 },
	{ SLICE_INIT("000\r\n\r\n\r\n"), SLICE_INIT(""), 2 },
	/* Extensions: 7.1.1. */
	{ SLICE_INIT("2;a\r\nxy\r\n0;b=c\r\n\r\n"), SLICE_INIT("xy"), 0 },
	{ SLICE_INIT("2 ;\ta\t= b ; c=\"d;\\\"\\\\ \t\xff=\";e\r\nxy\r\n0\r\n\r\n"), SLICE_INIT("xy"), 0 },
	{ SLICE_INIT("2;a=\"\"\r\nxy\r\n0\r\n\r\n"), SLICE_INIT("xy"), 0 },
	{ SLICE_INIT("2;f00=ba4\r\nxy\r\n0\r\n\r\n"), SLICE_INIT("xy"), 0 }, /* hex digits that are no size */
	{ SLICE_INIT("2;a=\"\\\xff\"\r\nxy\r\n0\r\n\r\n"), SLICE_INIT("xy"), 0 },
	/* Trailers: 7.1.2. */
	{ SLICE_INIT("0\r\nX: a\r\n\r\n"), SLICE_INIT(""), 0 },
	{ SLICE_INIT("0\r\nX:\r\nEtag:\t\"a\\b\";c=\xff \r\n\r\nnext"), SLICE_INIT(""), 4 },
	{ SLICE_INIT("1\r\na\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), SLICE_INIT("a"),
	    0 }, /* dropped */
};

static void valid_chunks_are_decoded(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(accepted); i++) {
		struct outcome o = decode_every_way(i, accepted[i].bytes);

		if (o.result != HTTP1_OK || o.left != accepted[i].left)
			fail_msg("row %zu: %s, %zu left", i, http1_reason(o.result), o.left);
		if (!slice_eq(slice_of(o.content, o.content_len), accepted[i].content))
			fail_msg("row %zu: %.*s", i, (int)o.content_len, o.content);
	}
}

static const struct {
	struct slice bytes;
	enum http1_result result;
} refused[] = {
	/* Sizes. */
	{ SLICE_INIT("\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT(" 5\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("\t5\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5 \r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5\t\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5 5\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("+5\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("-5\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("-0\r\n\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("0x5\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5h\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("g\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5_0\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5.0\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5,5\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("\"5\"\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT(";a\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5\0\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("\xd9\xa5\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5\x0b\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("8000000000000000\r\n"), HTTP1_CHUNK_TOO_LARGE }, /* 2^63 */
	{ SLICE_INIT("ffffffffffffffff\r\n"), HTTP1_CHUNK_TOO_LARGE },
	{ SLICE_INIT("10000000000000000\r\n"), HTTP1_CHUNK_TOO_LARGE }, /* 2^64 */
	{ SLICE_INIT("10000000000000005\r\nhello\r\n"), HTTP1_CHUNK_TOO_LARGE },
	{ SLICE_INIT("100000000000000000000000000000005\r\nhello\r\n"), HTTP1_CHUNK_TOO_LARGE },
	{ SLICE_INIT("00000000000000005\r\nhello\r\n"), HTTP1_CHUNK_TOO_LARGE }, /* 17 digits */
	{ SLICE_INIT("00000000000000000\r\n\r\n"), HTTP1_CHUNK_TOO_LARGE },
	/* Line ends. */
	{ SLICE_INIT("5\nhello\r\n0\r\n\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5\rhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5\r\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5\r\nhello\n0\r\n\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5\r\nhello\r0\r\n\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5\r\nhello0\r\n\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5\r\nhello!\r\n0\r\n\r\n"), HTTP1_BAD_CHUNK }, /* more than was said */
	{ SLICE_INIT("6\r\nhello\r\n0\r\n\r\n"), HTTP1_BAD_CHUNK },  /* less */
	{ SLICE_INIT("5\r\nhello\r\n\r\n0\r\n\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("0\n\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("0\r\n\n"), HTTP1_BAD_TRAILER },
	{ SLICE_INIT("0\r\n\rX"), HTTP1_BAD_TRAILER },
	/* Extensions. */
	{ SLICE_INIT("5;\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;;a\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a=\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;=a\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a b\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a \r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a=b c\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a=b=c\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a,b\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a\nhello\r\n0\r\n\r\n"), HTTP1_BAD_CHUNK }, /* where readers disagree on an LF */
	{ SLICE_INIT("5;a\rX\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a=\"b\r\n\"\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a=\"b\n\"\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a=\"\\\n\"\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a=\"b\"c\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a=\0\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a=\"\x7f\"\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	{ SLICE_INIT("5;a\xff\r\nhello\r\n"), HTTP1_BAD_CHUNK },
	/* Trailers are fields. */
	{ SLICE_INIT("0\r\nX\r\n\r\n"), HTTP1_BAD_TRAILER },
	{ SLICE_INIT("0\r\nX : a\r\n\r\n"), HTTP1_BAD_TRAILER },
	{ SLICE_INIT("0\r\n: a\r\n\r\n"), HTTP1_BAD_TRAILER },
	{ SLICE_INIT("0\r\n X: a\r\n\r\n"), HTTP1_BAD_TRAILER },
	{ SLICE_INIT("0\r\nX: a\r\n b\r\n\r\n"), HTTP1_BAD_TRAILER },
	{ SLICE_INIT("0\r\nX: a\n\r\n"), HTTP1_BAD_TRAILER },
	{ SLICE_INIT("0\r\nX: a\rb\r\n\r\n"), HTTP1_BAD_TRAILER },
	{ SLICE_INIT("0\r\nX: a\0\r\n\r\n"), HTTP1_BAD_TRAILER },
	{ SLICE_INIT("0\r\nX: a\r\n\n"), HTTP1_BAD_TRAILER },
	{ SLICE_INIT("0\r\nGET /smuggled HTTP/1.1\r\n\r\n"), HTTP1_BAD_TRAILER },
	/* Not whole: nobody takes these for an end. */
	{ SLICE_INIT(""), HTTP1_MORE },
	{ SLICE_INIT("5"), HTTP1_MORE },
	{ SLICE_INIT("5\r\nhell"), HTTP1_MORE },
	{ SLICE_INIT("5\r\nhello\r\n"), HTTP1_MORE },
	{ SLICE_INIT("5\r\nhello\r\n0\r\n"), HTTP1_MORE },
	{ SLICE_INIT("5\r\nhello\r\n0\r\n\r"), HTTP1_MORE },
	{ SLICE_INIT("5\r\nhello\r\n0\r\nX: a\r\n"), HTTP1_MORE },
};

static void invalid_chunks_are_refused(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		struct outcome o = decode_every_way(i, refused[i].bytes);

		if (o.result != refused[i].result)
			fail_msg("row %zu: %s: %.*s", i, http1_reason(o.result), SLICE_ARG(refused[i].bytes));
	}
}

static void an_answer_stays(void **state UNUSED)
{
	struct chunked good = { 0 }, bad = { 0 };
	struct slice in = SLICE("0\r\n\r\n5\r\n"), data;

	assert_int_equal(chunked_decode(&good, &in, &data), HTTP1_OK);
	assert_int_equal(chunked_decode(&good, &in, &data), HTTP1_OK);
	assert_int_equal(in.len, 3);
	in = SLICE("x5\r\nhello");
	assert_int_equal(chunked_decode(&bad, &in, &data), HTTP1_BAD_CHUNK);
	assert_int_equal(chunked_decode(&bad, &in, &data), HTTP1_BAD_CHUNK);
	assert_int_equal(data.len, 0);
}

static void content_can_be_read_past_the_decoder(void **state UNUSED)
{
	struct chunked c = { 0 };
	struct slice in = SLICE("7fffffffffffffff"), data;

	/* Half a size is no promise. */
	assert_int_equal(chunked_decode(&c, &in, &data), HTTP1_MORE);
	assert_true(chunked_data_left(&c) == 0);
	in = SLICE("\r\nabc");
	assert_int_equal(chunked_decode(&c, &in, &data), HTTP1_MORE);
	assert_true(slice_eq(data, SLICE("abc")));
	assert_true(chunked_data_left(&c) == (uint64_t)INT64_MAX - 3);
	chunked_skip(&c, 0);
	chunked_skip(&c, (uint64_t)INT64_MAX - 4);
	in = SLICE("d\r\n0\r\n\r\n");
	assert_int_equal(chunked_decode(&c, &in, &data), HTTP1_MORE);
	assert_true(slice_eq(data, SLICE("d")));
	assert_true(chunked_data_left(&c) == 0);
	assert_int_equal(chunked_decode(&c, &in, &data), HTTP1_OK);
	/* To the chunk's very end. */
	c = (struct chunked){ 0 };
	in = SLICE("5\r\n");
	assert_int_equal(chunked_decode(&c, &in, &data), HTTP1_MORE);
	chunked_skip(&c, 5);
	in = SLICE("\r\n0\r\n\r\n");
	assert_int_equal(chunked_decode(&c, &in, &data), HTTP1_OK);
}

/* Head, n times part, tail; decoded whole, content not looked at. */
static enum http1_result decode_repeated(struct slice head, struct slice part, size_t n, struct slice tail)
{
	enum http1_result result;
	struct chunked c = { 0 };
	struct slice in, data;
	struct buf text;

	buf_init(&text, 1u << 20);
	buf_add(&text, head);
	for (size_t i = 0; i < n; i++)
		buf_add(&text, part);
	buf_add(&text, tail);
	assert_false(text.failed);
	in = buf_slice(&text);
	do
		result = chunked_decode(&c, &in, &data);
	while (result == HTTP1_MORE && data.len);
	buf_done(&text);
	return result;
}

static void extensions_are_bounded(void **state UNUSED)
{
	const struct slice part = SLICE("x"), tail = SLICE("\r\na\r\n0\r\n\r\n");
	const size_t chunk = CHUNKED_EXTENSION_MAX - 1; /* without the ';' */
	char line[CHUNKED_EXTENSION_MAX + 8] = "1;";
	struct slice full = { line, 2 + chunk + 5 };

	assert_int_equal(decode_repeated(SLICE("1;"), part, chunk, tail), HTTP1_OK);
	assert_int_equal(decode_repeated(SLICE("1;"), part, chunk + 1, tail), HTTP1_CHUNK_EXTENSION_TOO_LONG);
	assert_int_equal(decode_repeated(SLICE("1"), SLICE(" "), chunk + 2, tail), HTTP1_CHUNK_EXTENSION_TOO_LONG);
	/* Over all chunks. */
	memset(line + 2, 'x', chunk);
	memcpy(line + 2 + chunk, "\r\na\r\n", 5);
	assert_int_equal(
	    decode_repeated(SLICE(""), full, CHUNKED_EXTENSIONS_MAX / CHUNKED_EXTENSION_MAX, SLICE("0\r\n\r\n")), HTTP1_OK);
	assert_int_equal(decode_repeated(SLICE(""), full, CHUNKED_EXTENSIONS_MAX / CHUNKED_EXTENSION_MAX, SLICE("0;x\r\n\r\n")),
	    HTTP1_CHUNK_EXTENSION_TOO_LONG);
}

static void trailers_are_bounded(void **state UNUSED)
{
	const size_t value = CHUNKED_TRAILER_MAX - sizeof("X:\r\n\r") + 1; /* up to the CR that begins the end */

	assert_int_equal(decode_repeated(SLICE("0\r\nX:"), SLICE("x"), value, SLICE("\r\n\r\n")), HTTP1_OK);
	assert_int_equal(decode_repeated(SLICE("0\r\nX:"), SLICE("x"), value + 1, SLICE("\r\n\r\n")), HTTP1_BAD_TRAILER);
	assert_int_equal(
	    decode_repeated(SLICE("0\r\n"), SLICE("X: a\r\n"), CHUNKED_TRAILER_FIELDS_MAX, SLICE("\r\n")), HTTP1_OK);
	assert_int_equal(decode_repeated(SLICE("0\r\n"), SLICE("X: a\r\n"), CHUNKED_TRAILER_FIELDS_MAX + 1, SLICE("\r\n")),
	    HTTP1_BAD_TRAILER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_chunks_are_decoded),
		cmocka_unit_test(invalid_chunks_are_refused),
		cmocka_unit_test(an_answer_stays),
		cmocka_unit_test(content_can_be_read_past_the_decoder),
		cmocka_unit_test(extensions_are_bounded),
		cmocka_unit_test(trailers_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
