#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/http1.h"
#include "tests/write_head.h"

static const struct http1_limits limits = { .head_max_bytes = 4096, .line_max_bytes = 1024, .fields_max = 20 };

/* Scans what has come, in two looks, then parses: what a connection does with it. */
static enum http1_result take_request(struct slice bytes, size_t split, struct head *h, struct http1_message *m)
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
		result = http1_request(slice_of(block, len), h, m);
	free(block);
	return result;
}

/* A head of one field more than Host, which is the most frequent question. */
#define WITH(field) SLICE_INIT("POST / HTTP/1.1\r\nHost: a\r\n" field "\r\n\r\n")
#define LINE(line)  SLICE_INIT(line "\r\nHost: a\r\n\r\n")
#define HOST(field) SLICE_INIT("GET / HTTP/1.1\r\n" field "\r\n\r\n")

static const struct {
	struct slice bytes;
	enum http1_result result;
} refused[] = {
	/* The request line: RFC 9112, 3 and 3.2. */
	{ LINE(" GET / HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET  / HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET /  HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET / HTTP/1.1 "), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET / x HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET /"), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET"), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET\t/ HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET /\tHTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET /\t HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("G\tET / HTTP/1.1"), HTTP1_BAD_METHOD },
	{ LINE("G(T / HTTP/1.1"), HTTP1_BAD_METHOD },
	{ LINE("\"GET\" / HTTP/1.1"), HTTP1_BAD_METHOD },
	{ LINE("G\xc3\x89T / HTTP/1.1"), HTTP1_BAD_METHOD },
	{ LINE("GET: / HTTP/1.1"), HTTP1_BAD_METHOD },
	{ LINE("GET a HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET a/b HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET ?x HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET example.org:80 HTTP/1.1"), HTTP1_BAD_TARGET }, /* authority-form is CONNECT's */
	{ LINE("GET /a#b HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET /\xc3\xa4 HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET * HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("OPTIONS ** HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("OPTIONS *?x HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET ftp://a/ HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET file:///etc/passwd HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET http:/a/ HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET http:a HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET http:/// HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET http:// HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET http://?x HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET http://user@a/ HTTP/1.1"), HTTP1_BAD_TARGET }, /* RFC 9110, 4.2.4 */
	{ LINE("GET http://a:99999/ HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("GET http://a\\b/ HTTP/1.1"), HTTP1_BAD_TARGET },
	{ LINE("CONNECT a:443 HTTP/1.1"), HTTP1_CONNECT_REFUSED },
	{ LINE("CONNECT / HTTP/1.1"), HTTP1_CONNECT_REFUSED },
	/* The version: RFC 9112, 2.3. */
	{ LINE("GET / http/1.1"), HTTP1_BAD_VERSION },
	{ LINE("GET / HTTP/1"), HTTP1_BAD_VERSION },
	{ LINE("GET / HTTP/1."), HTTP1_BAD_VERSION },
	{ LINE("GET / HTTP/11"), HTTP1_BAD_VERSION },
	{ LINE("GET / HTTP/1.10"), HTTP1_BAD_VERSION },
	{ LINE("GET / HTTP/01.1"), HTTP1_BAD_VERSION },
	{ LINE("GET / HTTP/+1.1"), HTTP1_BAD_VERSION },
	{ LINE("GET / HTTP/1,1"), HTTP1_BAD_VERSION },
	{ LINE("GET / HTTP 1.1"), HTTP1_BAD_REQUEST_LINE },
	{ LINE("GET / HTTPS/1.1"), HTTP1_BAD_VERSION },
	{ LINE("GET / ICY/1.1"), HTTP1_BAD_VERSION },
	{ LINE("GET / HTTP/x.1"), HTTP1_BAD_VERSION },
	{ LINE("GET / "), HTTP1_BAD_VERSION },
	{ LINE("GET / HTTP/0.9"), HTTP1_VERSION_NOT_SUPPORTED },
	{ LINE("GET / HTTP/2.0"), HTTP1_VERSION_NOT_SUPPORTED },
	{ LINE("GET / HTTP/9.9"), HTTP1_VERSION_NOT_SUPPORTED },
	{ SLICE_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), HTTP1_VERSION_NOT_SUPPORTED },
	/* Line ends and control bytes: RFC 9112, 2.2; RFC 9110, 5.5. */
	{ SLICE_INIT("GET / HTTP/1.1\nHost: a\n\n"), HTTP1_BAD_LINE_END },
	{ WITH("X: a\nTransfer-Encoding: chunked"), HTTP1_BAD_LINE_END },
	{ WITH("X: a\rTransfer-Encoding: chunked"), HTTP1_BAD_LINE_END },
	{ WITH("X: a\r"), HTTP1_BAD_LINE_END },
	{ WITH("X: a\0b"), HTTP1_BAD_BYTE },
	{ WITH("X\0: a"), HTTP1_BAD_BYTE },
	{ WITH("X: \x1b[31m"), HTTP1_BAD_BYTE },
	{ WITH("X: \x7f"), HTTP1_BAD_BYTE },
	/* Field lines: RFC 9112, 5. */
	{ WITH("X : a"), HTTP1_BAD_FIELD_NAME }, /* 5.1 */
	{ WITH("X\t: a"), HTTP1_BAD_FIELD_NAME },
	{ WITH("Content-Length : 5"), HTTP1_BAD_FIELD_NAME },
	{ WITH("Transfer-Encoding : chunked"), HTTP1_BAD_FIELD_NAME },
	{ WITH("Transfer-Encoding\t: chunked"), HTTP1_BAD_FIELD_NAME },
	{ WITH(": a"), HTTP1_BAD_FIELD_NAME },
	{ WITH("X"), HTTP1_BAD_FIELD_NAME },
	{ WITH("X a: b"), HTTP1_BAD_FIELD_NAME },
	{ WITH("X(a): b"), HTTP1_BAD_FIELD_NAME },
	{ WITH("X\x80: b"), HTTP1_BAD_FIELD_NAME },
	{ WITH("GET /smuggled HTTP/1.1"), HTTP1_BAD_FIELD_NAME },
	{ WITH("X: a\r\n b"), HTTP1_OBS_FOLD }, /* 5.2 */
	{ WITH("X: a\r\n\tb"), HTTP1_OBS_FOLD },
	{ WITH("X: a\r\n "), HTTP1_OBS_FOLD },
	{ WITH("Transfer-Encoding:\r\n chunked"), HTTP1_OBS_FOLD },
	{ SLICE_INIT("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), HTTP1_OBS_FOLD }, /* 2.2: blank before the first field */
	{ SLICE_INIT("GET / HTTP/1.1\r\n\tX: b\r\nHost: a\r\n\r\n"), HTTP1_OBS_FOLD },
	/* Host: RFC 9112, 3.2. */
	{ SLICE_INIT("GET / HTTP/1.1\r\n\r\n"), HTTP1_BAD_HOST },
	{ SLICE_INIT("GET http://a/ HTTP/1.1\r\n\r\n"), HTTP1_BAD_HOST },
	{ HOST("Host: a\r\nHost: a"), HTTP1_BAD_HOST },
	{ HOST("Host: a\r\nhost: b"), HTTP1_BAD_HOST },
	{ HOST("Host:"), HTTP1_BAD_HOST },
	{ HOST("Host: "), HTTP1_BAD_HOST },
	{ HOST("Host: user@a"), HTTP1_BAD_HOST },
	{ HOST("Host: a b"), HTTP1_BAD_HOST },
	{ HOST("Host: a, b"), HTTP1_BAD_HOST },
	{ HOST("Host: a,b"), HTTP1_BAD_HOST },
	{ HOST("Host: a/b"), HTTP1_BAD_HOST },
	{ HOST("Host: http://a"), HTTP1_BAD_HOST },
	{ HOST("Host: a:80:80"), HTTP1_BAD_HOST },
	{ HOST("Host: a:b"), HTTP1_BAD_HOST },
	{ HOST("Host: [::1"), HTTP1_BAD_HOST },
	{ HOST("Host: a\xc3\xa4"), HTTP1_BAD_HOST },
	{ HOST("Host : a"), HTTP1_BAD_FIELD_NAME },
	{ SLICE_INIT("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), HTTP1_BAD_HOST },
	{ SLICE_INIT("GET / HTTP/1.0\r\nHost:\r\n\r\n"), HTTP1_BAD_HOST },
	{ SLICE_INIT("GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n"), HTTP1_BAD_HOST },
	{ SLICE_INIT("GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), HTTP1_BAD_HOST },
	/* Content-Length: RFC 9110, 8.6; RFC 9112, 6.3. */
	{ WITH("Content-Length: 5\r\nContent-Length: 6"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5\r\nContent-Length: 5"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5\r\ncontent-length: 6"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5, 5"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5,6"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5,"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length:"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: +5"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: -5"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: -0"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 0x5"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5 5"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5.0"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5e1"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 1_0"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: \"5\""), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: five"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5;x"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: \xd9\xa5"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 9223372036854775808"), HTTP1_BAD_CONTENT_LENGTH },  /* 2^63 */
	{ WITH("Content-Length: 18446744073709551616"), HTTP1_BAD_CONTENT_LENGTH }, /* 2^64 */
	{ WITH("Content-Length: 18446744073709551621"), HTTP1_BAD_CONTENT_LENGTH }, /* 2^64 + 5 */
	{ WITH("Content-Length: 99999999999999999999999999"), HTTP1_BAD_CONTENT_LENGTH },
	{ WITH("Content-Length: 5\x0b"), HTTP1_BAD_BYTE },
	/* Both lengths: RFC 9112, 6.1 and 6.3. */
	{ WITH("Content-Length: 5\r\nTransfer-Encoding: chunked"), HTTP1_LENGTH_AND_CHUNKED },
	{ WITH("Transfer-Encoding: chunked\r\nContent-Length: 5"), HTTP1_LENGTH_AND_CHUNKED },
	{ WITH("Transfer-Encoding: chunked\r\nContent-Length: 0"), HTTP1_LENGTH_AND_CHUNKED },
	{ WITH("Transfer-Encoding: xchunked\r\nContent-Length: 5"), HTTP1_LENGTH_AND_CHUNKED },
	{ WITH("Transfer-Encoding:\r\nContent-Length: 5"), HTTP1_LENGTH_AND_CHUNKED },
	{ WITH("Transfer-Encoding: chunked\r\nContent-Length: x"), HTTP1_BAD_CONTENT_LENGTH },
	/* Transfer-Encoding: RFC 9112, 6.1, 6.3 and 7. */
	{ WITH("Transfer-Encoding: gzip, chunked"), HTTP1_UNKNOWN_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"), HTTP1_UNKNOWN_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: x;q=\"a,b\", chunked"), HTTP1_UNKNOWN_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: xchunked, Chunked"), HTTP1_UNKNOWN_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: identity, chunked"), HTTP1_UNKNOWN_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: gzip"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: identity"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked, gzip"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked, identity"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked, chunked"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: gzip, chunked, chunked"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked\r\nTransfer-encoding: x"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked\r\nTransfer-Encoding:"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding:\r\nTransfer-Encoding: chunked"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding:"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: ,"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked,"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: ,chunked"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked;q=1"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked;"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked ; x"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: xchunked"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunkedx"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunk ed"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked x"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: \"chunked\""), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: 'chunked'"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: =chunked"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: \xff"
	       "chunked"),
	    HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: chunked\xa0"), HTTP1_BAD_TRANSFER_ENCODING },
	{ WITH("Transfer-Encoding: \x0b"
	       "chunked"),
	    HTTP1_BAD_BYTE },
	{ WITH("Transfer-Encoding: chunked\x0c"), HTTP1_BAD_BYTE },
	{ WITH("Transfer-Encoding:\0chunked"), HTTP1_BAD_BYTE },
	{ WITH("X: y\nTransfer-Encoding: chunked"), HTTP1_BAD_LINE_END },
	{ SLICE_INIT("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), HTTP1_BAD_TRANSFER_ENCODING },
	/* Others. */
	{ WITH("Content-Length: 5\r\nExpect: 200-ok"), HTTP1_BAD_EXPECT }, /* RFC 9110, 10.1.1 */
	{ WITH("Content-Length: 5\r\nExpect: 100-continue, x"), HTTP1_BAD_EXPECT },
	{ WITH("Content-Length: 5\r\nExpect: 100-continue\r\nExpect: x"), HTTP1_BAD_EXPECT },
	{ WITH("Expect:"), HTTP1_BAD_EXPECT },
	{ WITH("Connection: clo se"), HTTP1_BAD_FIELD_VALUE }, /* RFC 9110, 7.6.1 */
	{ WITH("Connection: \"close\""), HTTP1_BAD_FIELD_VALUE },
	{ WITH("Connection: close;x"), HTTP1_BAD_FIELD_VALUE },
	/* Not whole. */
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n"), HTTP1_MORE },
	{ SLICE_INIT("GET / HTTP/1.1"), HTTP1_MORE },
};

static void what_is_invalid_is_refused(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(refused); i++)
		for (size_t split = 0; split <= refused[i].bytes.len; split++) {
			struct http1_message m = { .length = 42 };
			struct head h;
			enum http1_result result = take_request(refused[i].bytes, split, &h, &m);

			if (result != refused[i].result)
				fail_msg("row %zu, split at %zu: %s: %.*s", i, split, http1_reason(result),
				    SLICE_ARG(refused[i].bytes));
			if (head_memory(&h) != 0 || h.field_count != 0 || m.length != 42)
				fail_msg("row %zu: something is left", i);
		}
}

enum { KEEP = 1, EXPECT = 2, UPGRADE = 4, LENGTH = 8, QUERY = 16 };

static const struct {
	struct slice bytes;
	enum http1_framing framing;
	uint64_t length;
	unsigned flags;
	const char *authority, *path, *query;
} accepted[] = {
	{ LINE("GET / HTTP/1.1"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ LINE("get / HTTP/1.1"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ LINE("!#$%&'*+-.^_`|~09AZaz / HTTP/1.1"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ LINE("\r\nGET / HTTP/1.1"), FRAMING_NONE, 0, KEEP, "a", "/", "" }, /* RFC 9112, 2.2 */
	/* Targets: RFC 9112, 3.2. */
	{ LINE("GET /a/b?c=d?e HTTP/1.1"), FRAMING_NONE, 0, KEEP | QUERY, "a", "/a/b", "c=d?e" },
	{ LINE("GET /? HTTP/1.1"), FRAMING_NONE, 0, KEEP | QUERY, "a", "/", "" },
	{ LINE("GET //b/c HTTP/1.1"), FRAMING_NONE, 0, KEEP, "a", "//b/c", "" },
	{ LINE("GET /http://b/ HTTP/1.1"), FRAMING_NONE, 0, KEEP, "a", "/http://b/", "" },
	{ LINE("GET /%00|{}^\"<>\\` HTTP/1.1"), FRAMING_NONE, 0, KEEP, "a", "/%00|{}^\"<>\\`", "" },
	{ LINE("GET /../a HTTP/1.1"), FRAMING_NONE, 0, KEEP, "a", "/../a", "" },
	{ LINE("GET http://b:81/c?d HTTP/1.1"), FRAMING_NONE, 0, KEEP | QUERY, "b:81", "/c", "d" }, /* Host is ignored: 3.2.2 */
	{ LINE("GET HTTPS://b HTTP/1.1"), FRAMING_NONE, 0, KEEP, "b", "/", "" },
	{ LINE("GET http://b?c HTTP/1.1"), FRAMING_NONE, 0, KEEP | QUERY, "b", "/", "c" },
	{ LINE("GET http://[::1]:80/ HTTP/1.1"), FRAMING_NONE, 0, KEEP, "[::1]:80", "/", "" },
	{ LINE("GET http://b/@c HTTP/1.1"), FRAMING_NONE, 0, KEEP, "b", "/@c", "" },
	{ LINE("OPTIONS * HTTP/1.1"), FRAMING_NONE, 0, KEEP, "a", "*", "" },
	{ LINE("OPTIONS http://b HTTP/1.1"), FRAMING_NONE, 0, KEEP, "b", "*", "" }, /* 3.2.4 */
	{ LINE("OPTIONS http://b/ HTTP/1.1"), FRAMING_NONE, 0, KEEP, "b", "/", "" },
	{ LINE("OPTIONS http://b?c HTTP/1.1"), FRAMING_NONE, 0, KEEP | QUERY, "b", "/", "c" },
	/* Versions: RFC 9110, 2.5 and 6.2. */
	{ LINE("GET / HTTP/1.0"), FRAMING_NONE, 0, 0, "a", "/", "" },
	{ LINE("GET / HTTP/1.9"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ SLICE_INIT("GET / HTTP/1.0\r\n\r\n"), FRAMING_NONE, 0, 0, "", "/", "" },
	{ SLICE_INIT("GET http://b/ HTTP/1.0\r\n\r\n"), FRAMING_NONE, 0, 0, "b", "/", "" },
	/* Hosts and fields. */
	{ HOST("Host:a"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ HOST("hOST: \t a:80 \t"), FRAMING_NONE, 0, KEEP, "a:80", "/", "" },
	{ HOST("Host: [::1]"), FRAMING_NONE, 0, KEEP, "[::1]", "/", "" },
	{ HOST("X:\r\nHost: a\r\nY: \t\x80\xff b\t"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ HOST("Host: a\r\nHost_: b\r\nContent_Length: 5\r\nTransfer_Encoding: chunked"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	/* Content: RFC 9112, 6. */
	{ WITH("Content-Length: 0"), FRAMING_NONE, 0, KEEP | LENGTH, "a", "/", "" },
	{ WITH("Content-Length: 5"), FRAMING_LENGTH, 5, KEEP | LENGTH, "a", "/", "" },
	{ WITH("content-length:\t0005 "), FRAMING_LENGTH, 5, KEEP | LENGTH, "a", "/", "" },
	{ WITH("Content-Length: 9223372036854775807"), FRAMING_LENGTH, INT64_MAX, KEEP | LENGTH, "a", "/", "" },
	{ WITH("Transfer-Encoding: chunked"), FRAMING_CHUNKED, 0, KEEP, "a", "/", "" },
	{ WITH("transfer-encoding:\tCHUNKED "), FRAMING_CHUNKED, 0, KEEP, "a", "/", "" },
	{ SLICE_INIT("POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n"), FRAMING_LENGTH, 5, LENGTH, "", "/", "" },
	/* Persistence: RFC 9112, 9.3. */
	{ WITH("Connection: close"), FRAMING_NONE, 0, 0, "a", "/", "" },
	{ WITH("Connection: x, CLOSE"), FRAMING_NONE, 0, 0, "a", "/", "" },
	{ WITH("Connection: keep-alive\r\nConnection: close"), FRAMING_NONE, 0, 0, "a", "/", "" },
	{ WITH("Connection: ,x,,"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ WITH("Connection:"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ SLICE_INIT("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), FRAMING_NONE, 0, KEEP, "", "/", "" },
	{ SLICE_INIT("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"), FRAMING_NONE, 0, 0, "", "/", "" },
	/* Expect: RFC 9110, 10.1.1. */
	{ WITH("Content-Length: 5\r\nExpect: 100-Continue"), FRAMING_LENGTH, 5, KEEP | LENGTH | EXPECT, "a", "/", "" },
	{ WITH("Expect: 100-continue\r\nTransfer-Encoding: chunked"), FRAMING_CHUNKED, 0, KEEP | EXPECT, "a", "/", "" },
	{ WITH("Expect: 100-continue"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ SLICE_INIT("POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"), FRAMING_LENGTH, 5, LENGTH, "",
	    "/", "" },
	/* Upgrade: RFC 9110, 7.8. */
	{ WITH("Connection: keep-alive, Upgrade\r\nUpgrade: websocket"), FRAMING_NONE, 0, KEEP | UPGRADE, "a", "/", "" },
	{ WITH("Upgrade: websocket"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ WITH("Connection: upgrade"), FRAMING_NONE, 0, KEEP, "a", "/", "" },
	{ SLICE_INIT("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), FRAMING_NONE, 0, 0, "", "/", "" },
};

static unsigned flags_of(const struct head *h, const struct http1_message *m)
{
	return (m->keep_alive ? KEEP : 0) | (m->expect_continue ? EXPECT : 0) | (m->upgrade ? UPGRADE : 0) |
	       (m->has_length ? LENGTH : 0) | (h->has_query ? QUERY : 0);
}

static void what_is_valid_is_understood(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(accepted); i++)
		for (size_t split = 0; split <= accepted[i].bytes.len; split++) {
			struct http1_message m = { .length = 42 };
			struct head h;
			enum http1_result result = take_request(accepted[i].bytes, split, &h, &m);

			if (result != HTTP1_OK)
				fail_msg("row %zu, split at %zu: %s", i, split, http1_reason(result));
			if (m.framing != accepted[i].framing || m.length != accepted[i].length)
				fail_msg("row %zu: framing %d, %" PRIu64 " bytes", i, m.framing, m.length);
			if (flags_of(&h, &m) != accepted[i].flags)
				fail_msg("row %zu: flags %u", i, flags_of(&h, &m));
			if (!slice_eq(head_text(&h, h.authority), slice_str(accepted[i].authority)) ||
			    !slice_eq(head_text(&h, h.path), slice_str(accepted[i].path)) ||
			    !slice_eq(head_text(&h, h.query), slice_str(accepted[i].query)))
				fail_msg("row %zu: %.*s %.*s %.*s", i, SLICE_ARG(head_text(&h, h.authority)),
				    SLICE_ARG(head_text(&h, h.path)), SLICE_ARG(head_text(&h, h.query)));
			head_done(&h);
		}
}

static void a_head_keeps_what_was_received(void **state UNUSED)
{
	struct http1_message m;
	struct head h;

	assert_int_equal(
	    take_request(SLICE("PATCH HTTP://b:81/c?d HTTP/1.1\r\nHost: a\r\nX-A:\r\nCookie: \x80 \r\n\r\n"), 3, &h, &m),
	    HTTP1_OK);
	assert_int_equal(h.method, METHOD_PATCH);
	assert_int_equal(h.version, 11);
	assert_true(slice_eq(head_text(&h, h.method_text), SLICE("PATCH")));
	assert_true(slice_eq(head_text(&h, h.target), SLICE("HTTP://b:81/c?d")));
	assert_true(slice_eq(head_text(&h, h.scheme), SLICE("HTTP")));
	assert_int_equal(h.field_count, 3);
	assert_true(slice_eq(head_name(&h, 1), SLICE("X-A")));
	assert_int_equal(head_value(&h, 1).len, 0);
	assert_true(slice_eq(head_get(&h, FIELD_COOKIE), SLICE("\x80")));
	/* One block, no larger than it must be. */
	assert_true(head_memory(&h) < 80 + 4 * sizeof(struct field) + 32);
	head_done(&h);
}

/* Whoever calls the parser without the scanner gets no other answers than that a line end is wrong. */
static const struct {
	struct slice text;
	enum http1_result result;
} unscanned[] = {
	{ SLICE_INIT(""), HTTP1_BAD_REQUEST_LINE },
	{ SLICE_INIT("\r\n"), HTTP1_BAD_REQUEST_LINE },
	{ SLICE_INIT("\n"), HTTP1_BAD_REQUEST_LINE },
	{ SLICE_INIT("GET / HTTP/1.1\n"), HTTP1_BAD_REQUEST_LINE },
	{ SLICE_INIT("GET / HTTP/1.1\r\n"), HTTP1_BAD_LINE_END },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n"), HTTP1_BAD_LINE_END },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\n\r\n"), HTTP1_BAD_LINE_END },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\nX"), HTTP1_BAD_LINE_END },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n"), HTTP1_BAD_FIELD_VALUE },
	{ SLICE_INIT("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n"), HTTP1_BAD_FIELD_VALUE },
	{ SLICE_INIT("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_BAD_TARGET },
	{ SLICE_INIT("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"), HTTP1_BAD_VERSION },
};

static void the_parser_alone_is_as_strict(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(unscanned); i++) {
		struct http1_message m;
		struct head h;
		enum http1_result result;

		head_init(&h);
		result = http1_request(unscanned[i].text, &h, &m);
		if (result != unscanned[i].result)
			fail_msg("row %zu: %s", i, http1_reason(result));
		head_done(&h);
	}
}

static void more_fields_than_a_head_holds_are_refused(void **state UNUSED)
{
	static const struct slice line = SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n");
	struct http1_message m;
	struct head h;
	struct buf text;

	buf_init(&text, 1u << 20);
	buf_add(&text, line);
	for (unsigned i = 0; i < 65534; i++)
		buf_add(&text, SLICE("a:\r\n"));
	buf_add(&text, SLICE("\r\n"));
	head_init(&h);
	assert_int_equal(http1_request(buf_slice(&text), &h, &m), HTTP1_OK);
	assert_int_equal(h.field_count, 65535);
	head_done(&h);
	text.len -= 2;
	buf_add(&text, SLICE("a:\r\n\r\n"));
	assert_int_equal(http1_request(buf_slice(&text), &h, &m), HTTP1_HEAD_TOO_LARGE);
	buf_done(&text);
}

static void what_is_written_reads_the_same(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(accepted); i++) {
		struct http1_message m = { 0 }, again_m = { 0 };
		struct head h, again;
		struct buf first, second;

		buf_init(&first, 4096);
		buf_init(&second, 4096);
		assert_int_equal(take_request(accepted[i].bytes, 0, &h, &m), HTTP1_OK);
		write_request(&h, &first);
		/* It is written as HTTP/1.1, which wants a Host. */
		if (head_find(&h, FIELD_HOST, 0) >= 0) {
			if (take_request(buf_slice(&first), 0, &again, &again_m) != HTTP1_OK)
				fail_msg("row %zu: %.*s", i, SLICE_ARG(buf_slice(&first)));
			write_request(&again, &second);
			if (!slice_eq(buf_slice(&first), buf_slice(&second)) || m.framing != again_m.framing ||
			    m.length != again_m.length)
				fail_msg("row %zu: %.*s", i, SLICE_ARG(buf_slice(&second)));
			head_done(&again);
		}
		head_done(&h);
		buf_done(&first);
		buf_done(&second);
	}
}

static void a_head_made_by_hand_is_written(void **state UNUSED)
{
	struct head h;
	struct buf out;

	head_init(&h);
	buf_init(&out, 100);
	assert_int_equal(head_put(&h, SLICE("PUT"), &h.method_text), 0);
	assert_int_equal(head_put(&h, SLICE("/x"), &h.target), 0);
	assert_int_equal(head_add(&h, SLICE("Host"), SLICE("a")), 0);
	write_request(&h, &out);
	assert_true(slice_eq(buf_slice(&out), SLICE("PUT /x HTTP/1.1\r\nHost: a\r\n\r\n")));
	buf_clear(&out);
	h.status = 404;
	write_response(&h, &out);
	assert_true(slice_eq(buf_slice(&out), SLICE("HTTP/1.1 404 Not Found\r\nHost: a\r\n\r\n")));
	head_done(&h);
	buf_done(&out);
}

static void each_result_has_a_status_and_a_phrase(void **state UNUSED)
{
	for (unsigned r = 0; r < HTTP1_RESULT_COUNT; r++) {
		unsigned status = http1_status(r);

		assert_non_null(http1_reason(r));
		if (r == HTTP1_OK || r == HTTP1_MORE)
			assert_int_equal(status, 0);
		else if (status < 400 || status > 505 || status_reason(status).len == 0)
			fail_msg("%s: %u", http1_reason(r), status);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_invalid_is_refused),
		cmocka_unit_test(what_is_valid_is_understood),
		cmocka_unit_test(a_head_keeps_what_was_received),
		cmocka_unit_test(the_parser_alone_is_as_strict),
		cmocka_unit_test(more_fields_than_a_head_holds_are_refused),
		cmocka_unit_test(what_is_written_reads_the_same),
		cmocka_unit_test(a_head_made_by_hand_is_written),
		cmocka_unit_test(each_result_has_a_status_and_a_phrase),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
