#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "core/http1.h"
#include "tests/write_head.h"

static const struct http1_limits limits = { .head_max_bytes = 4096, .line_max_bytes = 1024, .fields_max = 20 };

static enum http1_result take_response(
    struct slice bytes, size_t split, enum method method, struct head *h, struct http1_message *m)
{
	char *block = malloc(MAX(bytes.len, (size_t)1)); /* ends with the last byte, so that a look behind it is seen */
	struct http1_scan scan = { 0 };
	enum http1_result result;
	size_t len = 0;

	if (bytes.len > 0)
		memcpy(block, bytes.ptr, bytes.len);
	head_init(h);
	result = http1_scan(&scan, slice_of(block, split), &limits, &len);
	if (result == HTTP1_MORE)
		result = http1_scan(&scan, slice_of(block, bytes.len), &limits, &len);
	if (result == HTTP1_OK)
		result = http1_response(slice_of(block, len), method, h, m);
	free(block);
	return result;
}

#define LINE(line)   SLICE_INIT(line "\r\n\r\n")
#define WITH(fields) SLICE_INIT("HTTP/1.1 200 OK\r\n" fields "\r\n\r\n")

static const struct {
	struct slice bytes;
	enum http1_result result;
} refused[] = {
	/* The status line: RFC 9112, 4. */
	{ LINE("HTTP/1.1"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 "), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1  200 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 20 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 2000 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 0200 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 +20 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 2x0 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 200OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1\t200 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 200\tOK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 099 X"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 000 X"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 600 X"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.1 999 X"), HTTP1_BAD_STATUS_LINE },
	{ LINE(" HTTP/1.1 200 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("http/1.1 200 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1.11 200 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("HTTP/1 200 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("ICY 200 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("Status: 200 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("200 OK"), HTTP1_BAD_STATUS_LINE },
	{ LINE("<html>"), HTTP1_BAD_STATUS_LINE },
	{ LINE("\r\nHTTP/1.1 200 OK"), HTTP1_BAD_STATUS_LINE }, /* only requests may have an empty line before */
	{ LINE("HTTP/2.0 200 OK"), HTTP1_VERSION_NOT_SUPPORTED },
	{ LINE("HTTP/0.9 200 OK"), HTTP1_VERSION_NOT_SUPPORTED },
	/* Line ends, control bytes, fields. */
	{ SLICE_INIT("HTTP/1.1 200 OK\nX: a\n\n"), HTTP1_BAD_LINE_END },
	{ LINE("HTTP/1.1 200 O\rK"), HTTP1_BAD_LINE_END },
	{ LINE("HTTP/1.1 200 O\0K"), HTTP1_BAD_BYTE },
	{ WITH("Set-Cookie: a\nX: b"), HTTP1_BAD_LINE_END },
	{ WITH("Location: /\rX: b"), HTTP1_BAD_LINE_END },
	{ WITH("X: a\0"), HTTP1_BAD_BYTE },
	{ WITH("X : a"), HTTP1_BAD_FIELD_NAME },
	{ WITH("X"), HTTP1_BAD_FIELD_NAME },
	{ WITH(": a"), HTTP1_BAD_FIELD_NAME },
	{ WITH("X: a\r\n b"), HTTP1_OBS_FOLD },
	{ WITH(" X: a"), HTTP1_OBS_FOLD },
	{ WITH("HTTP/1.1 200 OK"), HTTP1_BAD_FIELD_NAME },
	{ WITH("Connection: a b"), HTTP1_BAD_FIELD_VALUE },
	/* Framing: RFC 9112, 6.3. */
	{ WITH("Content-Length: 5\r\nContent-Length: 6"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5\r\nContent-Length: 5"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5, 5"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: -1"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length:"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 18446744073709551621"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5\r\nTransfer-Encoding: chunked"), HTTP1_LENGTH_AND_CHUNKED },
	{ WITH("Transfer-Encoding: chunked\r\nContent-Length: 5"), HTTP1_LENGTH_AND_CHUNKED },
	{ WITH("Transfer-Encoding: identity\r\nContent-Length: 5"), HTTP1_LENGTH_AND_CHUNKED },
	{ WITH("Transfer-Encoding: gzip, chunked"), HTTP1_UNKNOWN_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: gzip"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked, gzip"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked,"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding:"), HTTP1_BAD_TRANSFER_ENCODING },
	{ LINE("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked"), HTTP1_BAD_TRANSFER_ENCODING },
	/* Nor where there is no content. */
	{ LINE("HTTP/1.1 204 No Content\r\nContent-Length: x"), HTTP1_BAD_CONTENT_LENGTH },
	{ LINE("HTTP/1.1 304 Not Modified\r\nContent-Length: 1\r\nContent-Length: 2"), HTTP1_BAD_CONTENT_LENGTH },
	{ LINE("HTTP/1.1 100 Continue\r\nTransfer-Encoding: x"), HTTP1_BAD_TRANSFER_ENCODING },
	/* Not whole. */
	{ SLICE_INIT("HTTP/1.1 200 OK\r\nX: a\r\n"), HTTP1_MORE },
	{ SLICE_INIT("HTTP/1.1 200"), HTTP1_MORE },
};

static void what_is_invalid_is_refused(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(refused); i++)
		for (size_t split = 0; split <= refused[i].bytes.len; split++) {
			struct http1_message m = { .length = 42 };
			struct head h;
			enum http1_result result = take_response(refused[i].bytes, split, METHOD_GET, &h, &m);

			if (result != refused[i].result)
				fail_msg("row %zu, split at %zu: %s: %.*s", i, split, http1_reason(result),
				    SLICE_ARG(refused[i].bytes));
			if (head_memory(&h) != 0 || m.length != 42)
				fail_msg("row %zu: something is left", i);
		}
}

enum { KEEP = 1, UPGRADE = 2, LENGTH = 4 };

static const struct {
	struct slice bytes;
	enum method method;
	enum http1_framing framing;
	uint64_t length;
	unsigned flags, status;
	const char *reason;
} accepted[] = {
	{ WITH("Content-Length: 5"), METHOD_GET, FRAMING_LENGTH, 5, KEEP | LENGTH, 200, "OK" },
	{ WITH("Content-Length: 0"), METHOD_GET, FRAMING_NONE, 0, KEEP | LENGTH, 200, "OK" },
	{ WITH("Content-Length: 9223372036854775807"), METHOD_GET, FRAMING_LENGTH, INT64_MAX, KEEP | LENGTH, 200, "OK" },
	{ WITH("Transfer-Encoding: Chunked"), METHOD_GET, FRAMING_CHUNKED, 0, KEEP, 200, "OK" },
	{ WITH("X: a"), METHOD_GET, FRAMING_CLOSE, 0, 0, 200, "OK" },
	{ WITH("Connection: keep-alive"), METHOD_GET, FRAMING_CLOSE, 0, 0, 200, "OK" }, /* nothing can follow */
	{ WITH("Connection: close\r\nContent-Length: 5"), METHOD_GET, FRAMING_LENGTH, 5, LENGTH, 200, "OK" },
	{ LINE("HTTP/1.0 200 OK"), METHOD_GET, FRAMING_CLOSE, 0, 0, 200, "OK" },
	{ LINE("HTTP/1.0 200 OK\r\nContent-Length: 5"), METHOD_GET, FRAMING_LENGTH, 5, LENGTH, 200, "OK" },
	{ LINE("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive"), METHOD_GET, FRAMING_LENGTH, 5, KEEP | LENGTH,
	    200, "OK" },
	{ LINE("HTTP/1.3 200 OK\r\nContent-Length: 5"), METHOD_GET, FRAMING_LENGTH, 5, KEEP | LENGTH, 200, "OK" },
	/* No content, whatever the fields say: RFC 9112, 6.3, rule 1. */
	{ WITH("Content-Length: 5"), METHOD_HEAD, FRAMING_NONE, 5, KEEP | LENGTH, 200, "OK" },
	{ WITH("Transfer-Encoding: chunked"), METHOD_HEAD, FRAMING_NONE, 0, KEEP, 200, "OK" },
	{ WITH("X: a"), METHOD_HEAD, FRAMING_NONE, 0, KEEP, 200, "OK" },
	{ LINE("HTTP/1.1 204 No Content"), METHOD_GET, FRAMING_NONE, 0, KEEP, 204, "No Content" },
	{ LINE("HTTP/1.1 204 No Content\r\nContent-Length: 0"), METHOD_GET, FRAMING_NONE, 0, KEEP | LENGTH, 204, "No Content" },
	{ LINE("HTTP/1.1 204 No Content\r\nContent-Length: 5"), METHOD_GET, FRAMING_NONE, 5, KEEP | LENGTH, 204, "No Content" },
	{ LINE("HTTP/1.1 304 Not Modified\r\nContent-Length: 5"), METHOD_GET, FRAMING_NONE, 5, KEEP | LENGTH, 304,
	    "Not Modified" },
	{ LINE("HTTP/1.1 100 Continue"), METHOD_POST, FRAMING_NONE, 0, KEEP, 100, "Continue" },
	{ LINE("HTTP/1.1 103 Early Hints\r\nLink: </a>"), METHOD_GET, FRAMING_NONE, 0, KEEP, 103, "Early Hints" },
	{ LINE("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket"), METHOD_GET, FRAMING_TUNNEL, 0,
	    UPGRADE, 101, "Switching Protocols" },
	{ LINE("HTTP/1.1 200 OK"), METHOD_CONNECT, FRAMING_TUNNEL, 0, 0, 200, "OK" }, /* rule 2 */
	{ LINE("HTTP/1.1 205 Reset Content\r\nContent-Length: 0"), METHOD_POST, FRAMING_NONE, 0, KEEP | LENGTH, 205,
	    "Reset Content" },
	/* Status and reason. */
	{ LINE("HTTP/1.1 200 "), METHOD_GET, FRAMING_CLOSE, 0, 0, 200, "" },
	{ LINE("HTTP/1.1 200"), METHOD_GET, FRAMING_CLOSE, 0, 0, 200, "" }, /* the space that 4 asks for is not missed */
	{ LINE("HTTP/1.1 200  two  spaces\t\xff "), METHOD_GET, FRAMING_CLOSE, 0, 0, 200, " two  spaces\t\xff " },
	{ LINE("HTTP/1.1 599 X"), METHOD_GET, FRAMING_CLOSE, 0, 0, 599, "X" },
	{ LINE("HTTP/1.1 404 Not Found"), METHOD_GET, FRAMING_CLOSE, 0, 0, 404, "Not Found" },
};

static unsigned flags_of(const struct http1_message *m)
{
	return (m->keep_alive ? KEEP : 0) | (m->upgrade ? UPGRADE : 0) | (m->has_length ? LENGTH : 0);
}

static void what_is_valid_is_understood(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(accepted); i++)
		for (size_t split = 0; split <= accepted[i].bytes.len; split++) {
			struct http1_message m = { .length = 42 };
			struct head h;
			enum http1_result result = take_response(accepted[i].bytes, split, accepted[i].method, &h, &m);

			if (result != HTTP1_OK)
				fail_msg("row %zu, split at %zu: %s", i, split, http1_reason(result));
			if (m.framing != accepted[i].framing || m.length != accepted[i].length)
				fail_msg("row %zu: framing %d, %" PRIu64 " bytes", i, m.framing, m.length);
			if (flags_of(&m) != accepted[i].flags || h.status != accepted[i].status)
				fail_msg("row %zu: flags %u, status %u", i, flags_of(&m), h.status);
			if (!slice_eq(head_text(&h, h.reason), slice_str(accepted[i].reason)))
				fail_msg("row %zu: %.*s", i, SLICE_ARG(head_text(&h, h.reason)));
			head_done(&h);
		}
}

static void what_is_written_reads_the_same(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(accepted); i++) {
		struct http1_message m = { 0 }, again_m = { 0 };
		struct head h, again;
		struct buf first, second;

		buf_init(&first, 4096);
		buf_init(&second, 4096);
		assert_int_equal(take_response(accepted[i].bytes, 0, accepted[i].method, &h, &m), HTTP1_OK);
		write_response(&h, &first);
		if (take_response(buf_slice(&first), 0, accepted[i].method, &again, &again_m) != HTTP1_OK)
			fail_msg("row %zu: %.*s", i, SLICE_ARG(buf_slice(&first)));
		write_response(&again, &second);
		if (!slice_eq(buf_slice(&first), buf_slice(&second)) || m.framing != again_m.framing ||
		    m.length != again_m.length)
			fail_msg("row %zu: %.*s", i, SLICE_ARG(buf_slice(&second)));
		head_done(&h);
		head_done(&again);
		buf_done(&first);
		buf_done(&second);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_invalid_is_refused),
		cmocka_unit_test(what_is_valid_is_understood),
		cmocka_unit_test(what_is_written_reads_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
