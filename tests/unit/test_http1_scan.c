#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "core/http1.h"
#include "tests/unit/scan_avx2.h"

static const struct http1_limits roomy = { .head_max_bytes = 1000, .line_max_bytes = 1000, .fields_max = 100 };

typedef enum http1_result scan_function(
    struct http1_scan *s, struct slice bytes, const struct http1_limits *limits, size_t *ret_len);

/* The AVX2 way, where the processor has it; else the other one once more. */
static scan_function *scan_widest(void)
{
#ifdef HAVE_SCAN_AVX2
	if (scan_avx2_runs())
		return http1_scan_avx2;
#endif
	return http1_scan;
}

struct answer {
	enum http1_result result;
	size_t len; /* with HTTP1_OK */
};

/*
 * Scans the first pieces[0] bytes, then the first pieces[1], and so on until there is an answer. Each time in a block of its
 * own that ends with the last byte, so that a look behind it is seen.
 */
static struct answer scan_pieces(
    scan_function *scan, struct slice bytes, const size_t *pieces, size_t n, const struct http1_limits *limits)
{
	struct answer answer = { HTTP1_MORE, 0 };
	struct http1_scan s = { 0 };

	for (size_t i = 0; i < n && answer.result == HTTP1_MORE; i++) {
		char *block = malloc(MAX(pieces[i], (size_t)1));

		if (pieces[i])
			memcpy(block, bytes.ptr, pieces[i]);
		answer.result = scan(&s, slice_of(block, pieces[i]), limits, &answer.len);
		free(block);
	}
	return answer;
}

static struct answer scan_whole(scan_function *scan, struct slice bytes, const struct http1_limits *limits)
{
	return scan_pieces(scan, bytes, &bytes.len, 1, limits);
}

static struct answer scan_split(scan_function *scan, struct slice bytes, size_t split, const struct http1_limits *limits)
{
	return scan_pieces(scan, bytes, (size_t[]){ split, bytes.len }, 2, limits);
}

static struct answer scan_bytewise(scan_function *scan, struct slice bytes, const struct http1_limits *limits)
{
	size_t pieces[512];

	assert_true(bytes.len < ARRAY_LEN(pieces));
	for (size_t i = 0; i <= bytes.len; i++)
		pieces[i] = i;
	return scan_pieces(scan, bytes, pieces, bytes.len + 1, limits);
}

static bool same(struct answer a, struct answer b)
{
	return a.result == b.result && (a.result != HTTP1_OK || a.len == b.len);
}

/* Every scanner, whole, byte by byte and, if `all_splits`, in every two pieces. Returns what they agree on. */
static struct answer scan_every_way(
    const char *what, size_t row, struct slice bytes, const struct http1_limits *limits, bool all_splits)
{
	struct answer whole = scan_whole(http1_scan, bytes, limits);

	if (!same(scan_whole(http1_scan_plain, bytes, limits), whole))
		fail_msg("%s %zu: the plain scanner differs", what, row);
	if (!same(scan_whole(scan_widest(), bytes, limits), whole))
		fail_msg("%s %zu: the AVX2 scanner differs", what, row);
	if (!same(scan_bytewise(http1_scan, bytes, limits), whole))
		fail_msg("%s %zu: byte by byte differs", what, row);
	for (size_t split = 0; all_splits && split <= bytes.len; split++)
		if (!same(scan_split(http1_scan, bytes, split, limits), whole) ||
		    !same(scan_split(http1_scan_plain, bytes, split, limits), whole) ||
		    !same(scan_split(scan_widest(), bytes, split, limits), whole))
			fail_msg("%s %zu: split at %zu differs", what, row, split);
	return whole;
}

static const struct {
	struct slice bytes;
	enum http1_result result;
	size_t left; /* bytes behind the head */
} rows[] = {
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_OK, 0 }, { SLICE_INIT("GET / HTTP/1.1\r\n\r\n"), HTTP1_OK, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next"), HTTP1_OK, 9 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n"), HTTP1_OK, 2 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n\n\0"), HTTP1_OK, 2 },
	{ SLICE_INIT("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_OK, 0 }, /* RFC 9112, 2.2 */
	{ SLICE_INIT("GET /a-target-of-more-than-sixteen-bytes-and-then-more-than-thirty-two HTTP/1.1\r\n"
	             "X-Long: 0123456789abcdef0123456789abcdef0123456789abcdef\tblank\r\nHost: \x80\xff\r\n\r\n"),
	    HTTP1_OK, 0 },
	{ SLICE_INIT(""), HTTP1_MORE, 0 }, { SLICE_INIT("\r"), HTTP1_MORE, 0 }, { SLICE_INIT("\r\n"), HTTP1_MORE, 0 },
	{ SLICE_INIT("GET / HTTP/1.1"), HTTP1_MORE, 0 }, { SLICE_INIT("GET / HTTP/1.1\r"), HTTP1_MORE, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\n"), HTTP1_MORE, 0 }, { SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r"), HTTP1_MORE, 0 },
	{ SLICE_INIT("\r\n\r\nGET / HTTP/1.1\r\n\r\n"), HTTP1_BAD_REQUEST_LINE, 0 }, /* one empty line, no more */
	{ SLICE_INIT("\nGET / HTTP/1.1\r\n\r\n"), HTTP1_BAD_LINE_END, 0 },
	{ SLICE_INIT("\r\r\nGET / HTTP/1.1\r\n\r\n"), HTTP1_BAD_LINE_END, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\nHost: a\n\n"), HTTP1_BAD_LINE_END, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\n\r\n"), HTTP1_BAD_LINE_END, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\n"), HTTP1_BAD_LINE_END, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"), HTTP1_BAD_LINE_END, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"), HTTP1_BAD_LINE_END, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n"), HTTP1_BAD_LINE_END, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\n\nGET /smuggled HTTP/1.1\r\n\r\n"), HTTP1_BAD_LINE_END, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n"), HTTP1_BAD_BYTE, 0 },
	{ SLICE_INIT("GET /\0 HTTP/1.1\r\n\r\n"), HTTP1_BAD_BYTE, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nTransfer-Encoding: \x0b"
	             "chunked\r\n\r\n"),
	    HTTP1_BAD_BYTE, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nTransfer-Encoding:\x0c"
	             "chunked\r\n\r\n"),
	    HTTP1_BAD_BYTE, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\nX: \x7f\r\n\r\n"), HTTP1_BAD_BYTE, 0 },
	{ SLICE_INIT("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), HTTP1_BAD_BYTE, 0 }, /* TLS at a plain door */
};

static void a_head_ends_where_it_should(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct answer a = scan_every_way("row", i, rows[i].bytes, &roomy, true);

		if (a.result != rows[i].result || (a.result == HTTP1_OK && a.len != rows[i].bytes.len - rows[i].left))
			fail_msg("row %zu: %s, %zu bytes", i, http1_reason(a.result), a.len);
	}
}

/* Wherever in a line, and so wherever in a vector. */
static void each_byte_is_judged_in_each_place(void **state UNUSED)
{
	static const char line[] = "GET /0123456789abcdef0123456789abcdef0123456789abcdef HTTP/1.1\r\n\r\n";
	const size_t len = sizeof(line) - 1;

	for (unsigned c = 0; c < 256; c++)
		for (size_t at = 0; at < len - 5; at++) { /* not behind the last line's end */
			enum http1_result expected = HTTP1_OK;
			struct answer a, plain;
			char text[sizeof(line)];

			memcpy(text, line, len);
			text[at] = (char)c;
			if (c == '\r' || c == '\n')
				expected = HTTP1_BAD_LINE_END;
			else if ((c < 0x20 && c != '\t') || c == 0x7f)
				expected = HTTP1_BAD_BYTE;
			a = scan_whole(http1_scan, slice_of(text, len), &roomy);
			plain = scan_whole(http1_scan_plain, slice_of(text, len), &roomy);
			if (a.result != expected || !same(a, plain))
				fail_msg("byte %u at %zu: %s", c, at, http1_reason(a.result));
		}
}

#define PLACES 65

/* In a block that begins `skew` bytes before the text and ends with it. */
static struct answer scan_skewed(scan_function *scan, struct slice text, size_t skew)
{
	char *block = malloc(skew + text.len);
	struct answer a;

	memcpy(block + skew, text.ptr, text.len);
	a = scan_whole(scan, slice_of(block + skew, text.len), &roomy);
	free(block);
	return a;
}

static void scanners_agree_on_line(size_t at, unsigned c, size_t skew)
{
	struct answer fast, plain, widest;
	char text[PLACES + 4];

	memset(text, 'a', PLACES);
	memcpy(text + PLACES, "\r\n\r\n", 4);
	text[at] = (char)c;
	fast = scan_skewed(http1_scan, slice_of(text, sizeof(text)), skew);
	plain = scan_skewed(http1_scan_plain, slice_of(text, sizeof(text)), skew);
	widest = scan_skewed(scan_widest(), slice_of(text, sizeof(text)), skew);
	if (!same(fast, plain) || !same(widest, plain))
		fail_msg("byte %u at %zu, %zu bytes into its block: %d, %d, plain %d", c, at, skew, (int)fast.result,
		    (int)widest.result, (int)plain.result);
}

/* Wherever in a vector, wherever the vector lies, and however much of a line is left for the plain loop. */
static void every_scanner_agrees_on_each_byte_in_each_place(void **state UNUSED)
{
	for (size_t skew = 0; skew < 32; skew++)
		for (size_t at = 0; at < PLACES; at++)
			for (unsigned c = 0; c < 256; c++)
				scanners_agree_on_line(at, c, skew);
}

static const struct {
	struct slice bytes;
	struct http1_limits limits;
	enum http1_result result;
} limited[] = {
	/* A head of 27 bytes, a first line of 16. */
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), { 27, 16, 1 }, HTTP1_OK },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), { 26, 16, 1 }, HTTP1_HEAD_TOO_LARGE },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), { 25, 16, 1 }, HTTP1_HEAD_TOO_LARGE },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), { 27, 15, 1 }, HTTP1_TARGET_TOO_LONG },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), { 27, 14, 1 }, HTTP1_TARGET_TOO_LONG },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), { 27, 16, 0 }, HTTP1_HEAD_TOO_LARGE },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n"), { 100, 16, 1 }, HTTP1_HEAD_TOO_LARGE },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n"), { 100, 16, 2 }, HTTP1_OK },
	/* The empty line before counts for the head, not for the first line. */
	{ SLICE_INIT("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), { 29, 16, 1 }, HTTP1_OK },
	{ SLICE_INIT("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), { 28, 16, 1 }, HTTP1_HEAD_TOO_LARGE },
	/* A first line that never ends is the target's fault, a field's or a head's are not. */
	{ SLICE_INIT("GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), { 100, 20, 1 }, HTTP1_TARGET_TOO_LONG },
	{ SLICE_INIT("GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), { 20, 100, 1 }, HTTP1_HEAD_TOO_LARGE },
	{ SLICE_INIT("GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), { 20, 20, 1 }, HTTP1_HEAD_TOO_LARGE },
	{ SLICE_INIT("GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaa"), { 40, 20, 1 }, HTTP1_HEAD_TOO_LARGE },
	{ SLICE_INIT("GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaa"), { 40, 20, 1 }, HTTP1_MORE },
	/* What comes too late is not looked at. */
	{ SLICE_INIT("GET / HTTP/1.1\r\nX: a\0aaaaaaaaaa"), { 20, 16, 1 }, HTTP1_HEAD_TOO_LARGE },
	{ SLICE_INIT("GET / HTTP/1.1\r\nX: a"), { 0, 0, 0 }, HTTP1_HEAD_TOO_LARGE },
	{ SLICE_INIT(""), { 0, 0, 0 }, HTTP1_HEAD_TOO_LARGE },
};

static void each_limit_is_kept_to_the_byte(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(limited); i++) {
		struct answer a = scan_every_way("limit", i, limited[i].bytes, &limited[i].limits, true);

		if (a.result != limited[i].result)
			fail_msg("row %zu: %s", i, http1_reason(a.result));
	}
}

static void no_limit_is_too_large(void **state UNUSED)
{
	static const struct http1_limits huge = { SIZE_MAX, SIZE_MAX, UINT32_MAX };
	size_t lines = UINT16_MAX + 10u, len = lines * 4;
	char *text = malloc(len);
	struct answer a;

	assert_int_equal(scan_whole(http1_scan, rows[0].bytes, &huge).result, HTTP1_OK);
	for (size_t i = 0; i < lines; i++)
		memcpy(text + i * 4, "a:\r\n", 4);
	a = scan_whole(http1_scan, slice_of(text, len), &huge); /* more lines than the scan can count */
	assert_int_equal(a.result, HTTP1_HEAD_TOO_LARGE);
	free(text);
}

/* xorshift: the same on each run. */
static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* Changes, takes out or puts in a byte, most often one that matters. */
static size_t mutate(char *text, size_t len, size_t size, uint32_t *seed)
{
	static const char bytes[] = "\r\n\r\n\r\n\0\t :\x7f\x1f a\x80";
	size_t at = next_random(seed) % len;
	char c = bytes[next_random(seed) % (sizeof(bytes) - 1)];

	switch (next_random(seed) % 4) {
	case 0:
		memmove(text + at, text + at + 1, len - at - 1);
		return len - 1;
	case 1:
		if (len == size)
			return len;
		memmove(text + at + 1, text + at, len - at);
		text[at] = c;
		return len + 1;
	case 2:
		text[at] = (char)next_random(seed);
		return len;
	default:
		text[at] = c;
		return len;
	}
}

static void all_scanners_agree_on_mutations(void **state UNUSED)
{
	static const struct slice seeds[] = {
		SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"),
		SLICE_INIT("\r\nPOST /upload?x=1 HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\n\r\n"),
		SLICE_INIT("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"),
	};
	const struct http1_limits tight = { .head_max_bytes = 60, .line_max_bytes = 24, .fields_max = 2 };
	uint32_t seed = 20261123;

	for (size_t round = 0; round < 200000; round++) {
		struct slice from = seeds[round % ARRAY_LEN(seeds)];
		size_t len = from.len;
		char text[100];

		memcpy(text, from.ptr, len);
		for (unsigned n = 1 + next_random(&seed) % 3; n; n--)
			len = mutate(text, len, sizeof(text), &seed);
		if (round % 8 == 0) {
			scan_every_way("mutation", round, slice_of(text, len), round % 16 ? &roomy : &tight, true);
			continue;
		}
		if (!same(scan_whole(http1_scan, slice_of(text, len), &roomy),
		        scan_split(http1_scan_plain, slice_of(text, len), next_random(&seed) % len, &roomy)))
			fail_msg("mutation %zu differs", round);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_head_ends_where_it_should),
		cmocka_unit_test(each_byte_is_judged_in_each_place),
		cmocka_unit_test(every_scanner_agrees_on_each_byte_in_each_place),
		cmocka_unit_test(each_limit_is_kept_to_the_byte),
		cmocka_unit_test(no_limit_is_too_large),
		cmocka_unit_test(all_scanners_agree_on_mutations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
