#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "proxy/client/http2_fields.h"

#define MAX_BYTES  1000
#define MAX_FIELDS 12
#define KEY        SLICE("AAAAAAAAAAAAAAAAAAAAAA==")

/* Field lines as "name|value\n", so that any byte but those two may stand in them. */
static void give(struct http2_fields *f, struct slice lines)
{
	struct slice line, name;

	while (slice_cut(&lines, '\n', &line)) {
		assert_true(slice_cut(&line, '|', &name));
		http2_fields_add(f, name, line);
	}
}

#define GET  ":method|GET\n:scheme|https\n:authority|a.example\n:path|/\n"
#define POST ":method|POST\n:scheme|https\n:authority|a.example\n:path|/\n"

static enum http2_fields_result judge(
    struct http2_fields *f, struct slice lines, bool trailers, bool ended, struct http2_request *ret)
{
	http2_fields_begin(f, trailers, MAX_BYTES, MAX_FIELDS);
	give(f, lines);
	return http2_fields_end(f, ended, KEY, ret);
}

static const struct {
	struct slice lines;
	const char *why; /* NULL: fine */
} requests[] = {
	{ SLICE_INIT(GET), NULL },
	{ SLICE_INIT(GET "a|b\n"), NULL },
	{ SLICE_INIT(GET "a|\n"), NULL },
	{ SLICE_INIT(GET "te|trailers\n"), NULL },
	{ SLICE_INIT(GET "host|a.example\n"), NULL },
	{ SLICE_INIT(GET "host|A.EXAMPLE\n"), NULL },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|/?\nhost|a\n"), NULL },
	{ SLICE_INIT(":method|OPTIONS\n:scheme|http\n:path|*\n:authority|a\n"), NULL },
	{ SLICE_INIT(GET "content-length|0\n"), NULL },
	/* pseudo-fields (RFC 9113, 8.3) */
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|*\n:authority|a\n"), ":path is no path" },
	{ SLICE_INIT(":scheme|http\n:path|/\n:authority|a\n"), "no :method" },
	{ SLICE_INIT(":method|GET\n:path|/\n:authority|a\n"), "no :path or no :scheme" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:authority|a\n"), "no :path or no :scheme" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|/\n"), "neither :authority nor Host" },
	{ SLICE_INIT(":method|G T\n:scheme|http\n:path|/\n:authority|a\n"), ":method is no token" },
	{ SLICE_INIT(":method|\n:scheme|http\n:path|/\n:authority|a\n"), ":method is no token" },
	{ SLICE_INIT(":method|GET\n:scheme|ftp\n:path|/\n:authority|a\n"), ":scheme is neither http nor https" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|\n:authority|a\n"), ":path is no path" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|x\n:authority|a\n"), ":path is no path" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|/a b\n:authority|a\n"), ":path is no path" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|/a#b\n:authority|a\n"), ":path is no path" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|/a\r\n:authority|a\n"), ":path is no path" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|http://a/\n:authority|a\n"), ":path is no path" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|/\n:authority|u@a\n"), ":authority is no host" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|/\n:authority|\n"), ":authority is no host" },
	{ SLICE_INIT(":method|GET\n:scheme|http\n:path|/\n:authority|a,b\n"), ":authority is no host" },
	{ SLICE_INIT(GET ":path|/\n"), "pseudo-field twice" },
	{ SLICE_INIT(GET "a|b\n:method|GET\n"), "pseudo-field behind a field" },
	{ SLICE_INIT(":method|GET\n:path|/\na|b\n:scheme|http\n:authority|a\n"), "pseudo-field behind a field" },
	{ SLICE_INIT(GET ":status|200\n"), "unknown pseudo-field" },
	{ SLICE_INIT(GET ":protocol|websocket\n"), ":protocol without CONNECT" },
	{ SLICE_INIT(GET "host|b.example\n"), "Host differs from :authority" },
	{ SLICE_INIT(GET "host|a.example\nhost|a.example\n"), "Host twice" },
	{ SLICE_INIT(GET "host|a b\n"), "Host is no host" },
	{ SLICE_INIT(":method|CONNECT\n:authority|a:1\n:path|/\n"), "CONNECT with a :path or :scheme" },
	/* names and values (RFC 9113, 8.2.1) */
	{ SLICE_INIT(GET "A|b\n"), "field name" },
	{ SLICE_INIT(GET "a b|c\n"), "field name" },
	{ SLICE_INIT(GET "a:b|c\n"), "field name" },
	{ SLICE_INIT(GET "a\0b|c\n"), "field name" },
	{ SLICE_INIT(GET "a\r|c\n"), "field name" },
	{ SLICE_INIT(GET "\xc3\xa4|c\n"), "field name" },
	{ SLICE_INIT(GET "|c\n"), "field name" },
	{ SLICE_INIT(GET "a|b\rc\n"), "field value" },
	{ SLICE_INIT(GET "a|b\0c\n"), "field value" },
	{ SLICE_INIT(GET "a| b\n"), "field value" },
	{ SLICE_INIT(GET "a|b\t\n"), "field value" },
	{ SLICE_INIT(GET "cookie|a\rb\n"), "field value" },
	/* of the connection (8.2.2) */
	{ SLICE_INIT(GET "connection|close\n"), "connection-specific field" },
	{ SLICE_INIT(GET "keep-alive|5\n"), "connection-specific field" },
	{ SLICE_INIT(GET "proxy-connection|close\n"), "connection-specific field" },
	{ SLICE_INIT(GET "transfer-encoding|chunked\n"), "connection-specific field" },
	{ SLICE_INIT(GET "upgrade|x\n"), "connection-specific field" },
	{ SLICE_INIT(GET "te|gzip\n"), "TE other than trailers" },
	/* lengths (8.1.1) */
	{ SLICE_INIT(GET "content-length|1\n"), "Content-Length and no content" },
	{ SLICE_INIT(GET "content-length|0\ncontent-length|0\n"), "Content-Length twice" },
	{ SLICE_INIT(GET "content-length|+1\n"), "Content-Length is no number" },
	{ SLICE_INIT(GET "content-length|0, 0\n"), "Content-Length is no number" },
	{ SLICE_INIT(GET "content-length|18446744073709551616\n"), "Content-Length is no number" },
	{ SLICE_INIT(GET "content-length|9223372036854775808\n"), "Content-Length is no number" },
};

static void a_request_is_taken_or_malformed(void **state UNUSED)
{
	struct http2_fields f;
	struct http2_request r;

	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		enum http2_fields_result got = judge(&f, requests[i].lines, false, true, &r);

		if (requests[i].why ? got != HTTP2_FIELDS_MALFORMED || strcmp(r.why, requests[i].why) != 0
		                    : got != HTTP2_FIELDS_OK)
			fail_msg("row %zu: %d %s", i, (int)got, r.why ? r.why : "-");
		http2_fields_done(&f);
	}
}

static void a_request_becomes_a_head(void **state UNUSED)
{
	struct http2_fields f;
	struct http2_request r;
	struct head *h = &f.head;

	assert_int_equal(
	    judge(&f,
	        SLICE(":method|POST\n:scheme|https\n:authority|a.example:8\n:path|/p/q?r=s?t\na|b\ncookie|c=1\nd|e\n"
	              "cookie|f=2\ncontent-length|7\npriority|u=1, i\n"),
	        false, false, &r),
	    HTTP2_FIELDS_OK);
	assert_int_equal(h->version, 20);
	assert_int_equal(h->method, METHOD_POST);
	assert_true(slice_eq(head_text(h, h->authority), SLICE("a.example:8")));
	assert_true(slice_eq(head_text(h, h->path), SLICE("/p/q")));
	assert_true(h->has_query && slice_eq(head_text(h, h->query), SLICE("r=s?t")));
	assert_true(slice_eq(head_text(h, h->target), SLICE("/p/q?r=s?t")));
	assert_true(slice_eq(head_get(h, FIELD_COOKIE), SLICE("c=1; f=2")));
	assert_int_equal(head_find(h, FIELD_COOKIE, (unsigned)head_find(h, FIELD_COOKIE, 0) + 1), -1);
	assert_int_equal(r.message.framing, FRAMING_LENGTH);
	assert_int_equal(r.message.length, 7);
	assert_int_equal(r.urgency, 1);
	assert_true(r.incremental);
	http2_fields_done(&f);
	assert_int_equal(judge(&f, SLICE(POST), false, false, &r), HTTP2_FIELDS_OK);
	assert_int_equal(r.message.framing, FRAMING_CHUNKED);
	http2_fields_done(&f);
}

static void a_host_stands_in_for_the_authority(void **state UNUSED)
{
	struct http2_fields f;
	struct http2_request r;

	assert_int_equal(
	    judge(&f, SLICE(":method|GET\n:scheme|http\n:path|/\nhost|b.example\n"), false, true, &r), HTTP2_FIELDS_OK);
	assert_true(slice_eq(head_text(&f.head, f.head.authority), SLICE("b.example")));
	http2_fields_done(&f);
}

static void an_extended_connect_becomes_an_upgrade(void **state UNUSED)
{
	struct http2_fields f;
	struct http2_request r;
	struct head *h = &f.head;

	assert_int_equal(judge(&f, SLICE(":method|CONNECT\n:protocol|websocket\n:scheme|https\n:authority|a\n:path|/ws\n"),
	                     false, false, &r),
	    HTTP2_FIELDS_OK);
	assert_true(r.connects && r.message.upgrade);
	assert_int_equal(r.message.framing, FRAMING_NONE);
	assert_int_equal(h->method, METHOD_GET);
	assert_true(slice_eq(head_text(h, h->method_text), SLICE("GET")));
	assert_true(slice_eq(head_get(h, FIELD_UPGRADE), SLICE("websocket")));
	assert_true(slice_eq(head_get(h, FIELD_CONNECTION), SLICE("upgrade")));
	assert_true(slice_eq(head_name(h, h->field_count - 1u), SLICE("sec-websocket-key")));
	assert_true(slice_eq(head_value(h, h->field_count - 1u), KEY));
	http2_fields_done(&f);
}

static const struct {
	struct slice lines;
	unsigned status;
} refusals[] = {
	{ SLICE_INIT(":method|CONNECT\n:authority|a:1\n"), 501 },
	{ SLICE_INIT(":method|CONNECT\n:protocol|connect-udp\n:scheme|https\n:authority|a\n:path|/\n"), 501 },
	{ SLICE_INIT(POST "expect|something\n"), 417 },
	{ SLICE_INIT(GET "1|\n2|\n3|\n4|\n5|\n6|\n7|\n8|\n9|\n"), 431 },
};

static void what_is_well_formed_may_be_refused(void **state UNUSED)
{
	struct http2_fields f;
	struct http2_request r;

	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		if (judge(&f, refusals[i].lines, false, false, &r) != HTTP2_FIELDS_REFUSED || r.status != refusals[i].status)
			fail_msg("row %zu: %u %s", i, r.status, r.why ? r.why : "-");
		assert_non_null(r.why);
		http2_fields_done(&f);
	}
}

static void trailers_are_checked_and_dropped(void **state UNUSED)
{
	static const struct {
		struct slice lines;
		bool ended;
		const char *why;
	} cases[] = {
		{ SLICE_INIT("a|b\n"), true, NULL },
		{ SLICE_INIT(""), true, NULL },
		{ SLICE_INIT("a|b\n"), false, "trailers that do not end the stream" },
		{ SLICE_INIT(":path|/\n"), true, "pseudo-field in trailers" },
		{ SLICE_INIT("A|b\n"), true, "field name" },
		{ SLICE_INIT("connection|close\n"), true, "connection-specific field" },
	};
	struct http2_fields f;
	struct http2_request r;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		enum http2_fields_result got = judge(&f, cases[i].lines, true, cases[i].ended, &r);

		if (cases[i].why ? got != HTTP2_FIELDS_MALFORMED || strcmp(r.why, cases[i].why) != 0 : got != HTTP2_FIELDS_OK)
			fail_msg("row %zu: %d %s", i, (int)got, r.why ? r.why : "-");
		assert_int_equal(f.head.field_count, 0);
		http2_fields_done(&f);
	}
}

/* Exactly at the limit is fine; a byte or a field more is not kept, and far more is a flood. */
static void a_head_has_its_limits(void **state UNUSED)
{
	static char text[MAX_BYTES];
	struct http2_fields f;
	size_t room;

	memset(text, 'x', sizeof(text));
	http2_fields_begin(&f, false, MAX_BYTES, MAX_FIELDS);
	give(&f, SLICE(GET));
	room = (size_t)(MAX_BYTES - f.bytes) - HTTP2_FIELD_OVERHEAD - 1;
	http2_fields_add(&f, SLICE("a"), slice_of(text, room));
	assert_int_equal(f.bytes, MAX_BYTES);
	assert_false(f.too_large);
	http2_fields_add(&f, SLICE("b"), SLICE(""));
	assert_true(f.too_large);
	assert_int_equal(f.head.field_count, 1);
	while (f.bytes + 500 + HTTP2_FIELD_OVERHEAD + 1 <= 4 * MAX_BYTES)
		http2_fields_add(&f, SLICE("c"), slice_of(text, 500));
	assert_false(http2_fields_flooded(&f));
	http2_fields_add(&f, SLICE("c"), slice_of(text, sizeof(text)));
	http2_fields_add(&f, SLICE("c"), slice_of(text, sizeof(text)));
	assert_true(http2_fields_flooded(&f));
	assert_int_equal(f.head.field_count, 1);
	http2_fields_done(&f);
	http2_fields_begin(&f, false, UINT32_MAX, MAX_FIELDS);
	for (unsigned i = 0; i < 4 * MAX_FIELDS + 3; i++)
		http2_fields_add(&f, SLICE("c"), SLICE(""));
	assert_false(http2_fields_flooded(&f));
	http2_fields_add(&f, SLICE("c"), SLICE(""));
	assert_true(http2_fields_flooded(&f));
	http2_fields_done(&f);
}

static void a_priority_is_understood_or_passed_over(void **state UNUSED)
{
	static const struct {
		struct slice value;
		uint8_t urgency;
		bool incremental;
	} cases[] = {
		{ SLICE_INIT(""), 3, false },
		{ SLICE_INIT("u=0"), 0, false },
		{ SLICE_INIT("u=7, i"), 7, true },
		{ SLICE_INIT("i"), 3, true },
		{ SLICE_INIT("i=?1,u=2"), 2, true },
		{ SLICE_INIT("i, i=?0"), 3, false },
		{ SLICE_INIT("u=2;x=1, i;y"), 2, true },
		{ SLICE_INIT("u=8"), 3, false },
		{ SLICE_INIT("u=-1"), 3, false },
		{ SLICE_INIT("u=12"), 3, false },
		{ SLICE_INIT("U=1, I, x, y=\"u=1\""), 3, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t urgency = 3;
		bool incremental = false;

		http2_priority_parse(cases[i].value, &urgency, &incremental);
		if (urgency != cases[i].urgency || incremental != cases[i].incremental)
			fail_msg("row %zu: %u %d", i, urgency, incremental);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_is_taken_or_malformed),
		cmocka_unit_test(a_request_becomes_a_head),
		cmocka_unit_test(a_host_stands_in_for_the_authority),
		cmocka_unit_test(an_extended_connect_becomes_an_upgrade),
		cmocka_unit_test(what_is_well_formed_may_be_refused),
		cmocka_unit_test(trailers_are_checked_and_dropped),
		cmocka_unit_test(a_head_has_its_limits),
		cmocka_unit_test(a_priority_is_understood_or_passed_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
