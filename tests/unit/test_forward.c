#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>

#include "core/http1.h"
#include "proxy/client/tls_peer.h"
#include "proxy/serve/forward.h"
#include "proxy/serve/request_id.h"
#include "tests/write_head.h"

/* 10/8, 2001:db8:1::/48 and Unix sockets are trusted. */
static struct conf_network trusted[] = {
	{ .family_bytes = 4, .prefix_bits = 8, .bytes = { 10 } },
	{ .family_bytes = 16, .prefix_bits = 48, .bytes = { 0x20, 0x01, 0x0d, 0xb8, 0, 1 } },
	{ .is_unix = true },
};
static const struct conf conf = { .daemon = { .trusted = trusted, .trusted_count = ARRAY_LEN(trusted) } };

struct peer {
	union {
		struct sockaddr any;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
	} addr;
	struct forward_client client;
};

/* "": a Unix socket. */
static void peer_init(struct peer *p, const char *text)
{
	memset(p, 0, sizeof(*p));
	p->addr.any.sa_family = AF_UNIX;
	if (inet_pton(AF_INET, text, &p->addr.in4.sin_addr) == 1) {
		p->addr.any.sa_family = AF_INET;
	} else if (text[0]) {
		char plain[INET6_ADDRSTRLEN + 1] = "";

		memcpy(plain, text, MIN(strcspn(text, "%"), sizeof(plain) - 1));
		p->addr.any.sa_family = AF_INET6;
		assert_int_equal(inet_pton(AF_INET6, plain, &p->addr.in6.sin6_addr), 1);
	}
	p->client = (struct forward_client){ .peer_address = text, .peer = &p->addr.any };
}

static void expect_text(size_t row, const struct buf *got, const char *want)
{
	if (!slice_eq(buf_slice(got), slice_str(want)))
		fail_msg("row %zu: got\n%.*swanted\n%s", row, SLICE_ARG(buf_slice(got)), want);
}

/* What one does not want to write in every row: these end each request's head. */
#define TELLS                                                                                                                   \
	"X-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nForwarded: for=192.0.2.1;host=h;proto=http\r\nX-Request-Id: new\r\n" \
	"X-Request-Start: t=1700000000.000042\r\n\r\n"
#define VIA_AND_TELLS "Via: 1.1 forebay\r\nX-Forwarded-For: 192.0.2.1\r\n" TELLS
#define END           "Connection: close\r\n" VIA_AND_TELLS

static void request_row(size_t row, const char *in, const struct forward_request *options, const char *want)
{
	struct forward_request r = *options;
	struct http1_message m;
	struct peer peer;
	struct head head, out;
	struct buf text;

	peer_init(&peer, "192.0.2.1");
	if (!r.client)
		r.client = &peer.client;
	r.conf = &conf;
	r.complete_wall_us = 1700000000000042;
	head_init(&head);
	head_init(&out);
	buf_init(&text, 1u << 20);
	if (http1_request(slice_str(in), &head, &m) != HTTP1_OK)
		fail_msg("row %zu: does not parse", row);
	r.request_id = forward_request_id(&head, r.client, r.conf, "new");
	assert_int_equal(forward_request_wire(&head, &r, &text), 0);
	expect_text(row, &text, want);
	assert_int_equal(forward_request_head(&head, &r, &out), 0);
	buf_clear(&text);
	write_request(&out, &text);
	expect_text(row, &text, want);
	buf_done(&text);
	head_done(&head);
	head_done(&out);
}

#define TOLD                                                                                                                   \
	"X-Client-Verify: SUCCESS\r\nx-client-subject: CN=evil\r\nX-CLIENT-ISSUER: a\r\nX-Client-Serial: 1\r\nX-Client-Fingerprint: 00\r\n"

/* Who the client is, its certificate says, and nobody else. */
static void of_a_certificate_only_the_front_tells(void **state UNUSED)
{
	static const struct tls_peer known = { "SUCCESS", "CN=a", "CN=b", "0A", "ff" }, none = { "NONE", "", "", "", "" };
	static const struct {
		const char *address;
		const struct tls_peer *tls;
		const char *told; /* the worker */
	} cases[] = {
		{ "192.0.2.1", NULL, "" },
		{ "192.0.2.1", &none, "X-Client-Verify: NONE\r\n" },
		{ "192.0.2.1", &known,
		    "X-Client-Verify: SUCCESS\r\nX-Client-Subject: CN=a\r\nX-Client-Issuer: CN=b\r\nX-Client-Serial: 0A\r\n"
		    "X-Client-Fingerprint: ff\r\n" },
		/* a trusted peer that has spoken TLS in our place */
		{ "10.0.0.1", NULL, TOLD },
		{ "10.0.0.1", &none, "X-Client-Verify: NONE\r\n" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct forward_request r = { .conf = &conf, .request_id = SLICE("id") };
		struct http1_message m;
		struct head head;
		struct buf text;
		struct peer peer;
		size_t at = 0;

		peer_init(&peer, cases[i].address);
		peer.client.tls = cases[i].tls;
		r.client = &peer.client;
		head_init(&head);
		buf_init(&text, 1u << 16);
		assert_int_equal(
		    http1_request(SLICE("GET / HTTP/1.1\r\nHost: h\r\n" TOLD "X-Client-IP: 1\r\n\r\n"), &head, &m), HTTP1_OK);
		assert_int_equal(forward_request_wire(&head, &r, &text), 0);
		for (size_t k = 0; k + strlen("X-Client-") < text.len; k++)
			at += strncasecmp(text.ptr + k, "\nX-Client-", strlen("\nX-Client-")) == 0;
		if (cases[i].told[0] && !memmem(text.ptr, text.len, cases[i].told, strlen(cases[i].told)))
			fail_msg("row %zu: %.*s", i, SLICE_ARG(buf_slice(&text)));
		/* X-Client-IP is nothing of ours. */
		if (at != 1 + (cases[i].told == cases[0].told ? 0 : cases[i].tls == &none ? 1u : 5u))
			fail_msg("row %zu: %zu fields in %.*s", i, at, SLICE_ARG(buf_slice(&text)));
		buf_done(&text);
		head_done(&head);
	}
}

static void a_request_is_built_anew(void **state UNUSED)
{
	static const struct {
		const char *in;
		struct forward_request options;
		const char *out;
	} cases[] = {
		{ "GET / HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "GET / HTTP/1.1\r\nHost: h\r\n" END },
		{ "GET / HTTP/1.1\r\nhost: h\r\n\r\n", { .keepalive = true },
		    "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n" VIA_AND_TELLS },
		/* end-to-end fields keep their order and their spelling */
		{ "GET / HTTP/1.1\r\nAccept: a\r\nHost: h\r\nx-B: 1\r\nCookie: c=d\r\nX-B:\r\nAccept: b\r\n\r\n", { 0 },
		    "GET / HTTP/1.1\r\nHost: h\r\nAccept: a\r\nx-B: 1\r\nCookie: c=d\r\nX-B: \r\nAccept: b\r\n" END },
		/* targets (RFC 9112, 3.2) */
		{ "GET /a%2fb/../c?d=/e?f HTTP/1.1\r\nHost: h\r\n\r\n", { 0 },
		    "GET /a%2fb/../c?d=/e?f HTTP/1.1\r\nHost: h\r\n" END },
		{ "GET /? HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "GET /? HTTP/1.1\r\nHost: h\r\n" END },
		{ "GET http://h/a?b HTTP/1.1\r\nHost: other\r\n\r\n", { 0 }, "GET /a?b HTTP/1.1\r\nHost: h\r\n" END },
		{ "GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "GET / HTTP/1.1\r\nHost: h\r\n" END },
		{ "GET http://h?b HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "GET /?b HTTP/1.1\r\nHost: h\r\n" END },
		{ "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "OPTIONS * HTTP/1.1\r\nHost: h\r\n" END },
		{ "OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "OPTIONS * HTTP/1.1\r\nHost: h\r\n" END },
		{ "OPTIONS http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "OPTIONS / HTTP/1.1\r\nHost: h\r\n" END },
		{ "PROPFIND / HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "PROPFIND / HTTP/1.1\r\nHost: h\r\n" END },
		/* one exact length (RFC 9110, 8.6) */
		{ "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0005\r\nA: b\r\n\r\n",
		    { .has_body_length = true, .body_length = 5 },
		    "POST / HTTP/1.1\r\nHost: h\r\nA: b\r\nContent-Length: 5\r\n" END },
		{ "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\nTE: trailers\r\n\r\n",
		    { .has_body_length = true, .body_length = UINT64_MAX },
		    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551615\r\n" END },
		{ "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", { .chunked = true },
		    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n" END },
		{ "POST / HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n" END },
		{ "PUT / HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n" END },
		{ "PATCH / HTTP/1.1\r\nHost: h\r\n\r\n", { 0 }, "PATCH / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n" END },
		{ "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", { 0 }, "GET / HTTP/1.1\r\nHost: h\r\n" END },
		{ "DELETE / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n", { .has_body_length = true, .body_length = 2 },
		    "DELETE / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n" END },
		/* hop by hop (RFC 9110, 7.6.1) */
		{ "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-Gone ,,te\r\nX-GONE: 1\r\nX-Stays: 1\r\nx-gone: 2\r\n\r\n",
		    { 0 }, "GET / HTTP/1.1\r\nHost: h\r\nX-Stays: 1\r\n" END },
		{ "GET / HTTP/1.1\r\nHost: h\r\nConnection: a\r\nA: 1\r\nConnection: b\r\nB: 1\r\nC: 1\r\n\r\n", { 0 },
		    "GET / HTTP/1.1\r\nHost: h\r\nC: 1\r\n" END },
		{ "GET / HTTP/1.1\r\nHost: h\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n"
		  "HTTP2-Settings: AAMAAABk\r\nProxy-Authorization: Basic eA==\r\nProxy-Authenticate: Basic\r\nTrailer: x\r\n"
		  "Proxy-Authentication-Info: x\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
		    { 0 }, "GET / HTTP/1.1\r\nHost: h\r\n" END },
		{ "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
		    { .has_body_length = true, .body_length = 1 }, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n" END },
		/* a Connection that names what forebay writes takes nothing away */
		{ "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nConnection: Host, Content-Length, X-Forwarded-For, Forwarded,"
		  " X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id, X-Request-Start, Via, Connection\r\n\r\n",
		    { .has_body_length = true, .body_length = 1 }, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n" END },
		/* names that CGI would take for others */
		{ "GET / HTTP/1.1\r\nHost: h\r\nX_Forwarded_For: 1\r\nContent_Length: 9\r\n_: 1\r\nProxy: http://evil\r\nX-Ok: 1\r\n\r\n",
		    { 0 }, "GET / HTTP/1.1\r\nHost: h\r\nX-Ok: 1\r\n" END },
		/* the client's word about itself */
		{ "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: evil\r\n"
		  "Forwarded: for=6.6.6.6\r\nX-Request-Id: evil\r\nX-Request-Start: 0\r\nX-Forwarded-Port: 1\r\n"
		  "X-FORWARDED-Prefix: /evil\r\nX-Real-IP: 6.6.6.6\r\n\r\n",
		    { 0 }, "GET / HTTP/1.1\r\nHost: h\r\n" END },
		/* upgrades */
		{ "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nUpgrade: x/2\r\n\r\n",
		    { .upgrade = true, .keepalive = true },
		    "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket, x/2\r\nConnection: upgrade\r\n" VIA_AND_TELLS },
		{ "GET / HTTP/1.1\r\nHost: h\r\n\r\n", { .upgrade = true }, "GET / HTTP/1.1\r\nHost: h\r\n" END },
		/* Via (RFC 9110, 7.6.3) */
		{ "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.0 a\r\nVia: 1.1 b (c)\r\n\r\n", { 0 },
		    "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nVia: 1.0 a, 1.1 b (c), 1.1 forebay\r\n"
		    "X-Forwarded-For: 192.0.2.1\r\n" TELLS },
		{ "GET / HTTP/1.0\r\nHost: h\r\n\r\n", { 0 },
		    "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nVia: 1.0 forebay\r\nX-Forwarded-For: 192.0.2.1\r\n" TELLS },
		/* without a host */
		{ "GET / HTTP/1.0\r\n\r\n", { 0 },
		    "GET / HTTP/1.1\r\nHost: \r\nConnection: close\r\nVia: 1.0 forebay\r\nX-Forwarded-For: 192.0.2.1\r\n"
		    "X-Forwarded-Proto: http\r\nForwarded: for=192.0.2.1;proto=http\r\nX-Request-Id: new\r\n"
		    "X-Request-Start: t=1700000000.000042\r\n\r\n" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		request_row(i, cases[i].in, &cases[i].options, cases[i].out);
}

/* What stands between Via and X-Request-Start. */
static void what_is_told_of_the_client(void **state UNUSED)
{
	static const struct {
		const char *peer;
		bool secure;
		const char *host, *fields, *tells;
	} cases[] = {
		{ "192.0.2.1", true, "h", "",
		    "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n"
		    "Forwarded: for=192.0.2.1;host=h;proto=https\r\nX-Request-Id: new\r\n" },
		{ "2001:db8::1", false, "h:81", "",
		    "X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h:81\r\n"
		    "Forwarded: for=\"[2001:db8::1]\";host=\"h:81\";proto=http\r\nX-Request-Id: new\r\n" },
		{ "::ffff:192.0.2.1", false, "[::1]", "",
		    "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: [::1]\r\n"
		    "Forwarded: for=192.0.2.1;host=\"[::1]\";proto=http\r\nX-Request-Id: new\r\n" },
		{ "fe80::1%eth0", false, "h", "",
		    "X-Forwarded-For: fe80::1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
		    "Forwarded: for=\"[fe80::1]\";host=h;proto=http\r\nX-Request-Id: new\r\n" },
		{ "", false, "h", "",
		    "X-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nForwarded: for=unknown;host=h;proto=http\r\n"
		    "X-Request-Id: new\r\n" },
		/* trusted: continued and kept */
		{ "10.1.1.1", false, "h",
		    "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7, 10.9.9.9\r\nX-Forwarded-Proto: https\r\n"
		    "X-Forwarded-Host: front.test:8443\r\nForwarded: for=192.0.2.7\r\nForwarded: for=10.9.9.9\r\n"
		    "X-Request-Id: a-B.c_9\r\n",
		    "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.9.9.9, 10.1.1.1\r\nX-Forwarded-Proto: https\r\n"
		    "X-Forwarded-Host: front.test:8443\r\n"
		    "Forwarded: for=192.0.2.7, for=10.9.9.9, for=10.1.1.1;host=h;proto=http\r\nX-Request-Id: a-B.c_9\r\n" },
		{ "", false, "h", "X-Forwarded-For: 192.0.2.7\r\nForwarded:\r\n",
		    "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
		    "Forwarded: for=unknown;host=h;proto=http\r\nX-Request-Id: new\r\n" },
		/* trusted, but said twice or badly: written afresh */
		{ "10.1.1.1", false, "h",
		    "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Forwarded-Host: b\r\n"
		    "X-Request-Id: a\r\nX-Request-Id: b\r\n",
		    "X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
		    "Forwarded: for=10.1.1.1;host=h;proto=http\r\nX-Request-Id: new\r\n" },
		{ "10.1.1.1", false, "h", "X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a@b\r\nX-Request-Id: a b\r\n",
		    "X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
		    "Forwarded: for=10.1.1.1;host=h;proto=http\r\nX-Request-Id: new\r\n" },
		/* trusted: a Connection that came through from an untrusted client takes nothing away */
		{ "10.1.1.1", false, "h",
		    "X-Forwarded-For: 192.0.2.7\r\nConnection: X-Forwarded-For, X-Request-Id\r\nX-Request-Id: a\r\n",
		    "X-Forwarded-For: 192.0.2.7, 10.1.1.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
		    "Forwarded: for=10.1.1.1;host=h;proto=http\r\nX-Request-Id: a\r\n" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct peer peer;
		struct buf in, want;

		peer_init(&peer, cases[i].peer);
		peer.client.secure = cases[i].secure;
		buf_init(&in, 65536);
		buf_init(&want, 65536);
		buf_printf(&in, "GET / HTTP/1.1\r\nHost: %s\r\n%s\r\n%c", cases[i].host, cases[i].fields, 0);
		buf_printf(&want,
		    "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nVia: 1.1 forebay\r\n%sX-Request-Start: "
		    "t=1700000000.000042\r\n\r\n%c",
		    cases[i].host, cases[i].tells, 0);
		request_row(i, in.ptr, &(struct forward_request){ .client = &peer.client }, want.ptr);
		buf_done(&in);
		buf_done(&want);
	}
}

static void parse_request(const char *fields, struct head *ret)
{
	struct http1_message m;
	struct buf in;

	buf_init(&in, 1u << 20);
	buf_printf(&in, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", fields);
	head_init(ret);
	assert_int_equal(http1_request(buf_slice(&in), ret, &m), HTTP1_OK);
	buf_done(&in);
}

/* The value of one field of what goes to the worker, when the peer is trusted. */
static void expect_kept(size_t row, const char *fields, enum field_id id, const char *want)
{
	struct peer peer;
	struct head in, out;
	struct forward_request r = { .client = &peer.client, .conf = &conf, .complete_wall_us = 1500000 };
	struct slice got;

	peer_init(&peer, "10.0.0.1");
	parse_request(fields, &in);
	r.request_id = forward_request_id(&in, r.client, r.conf, "new");
	head_init(&out);
	assert_int_equal(forward_request_head(&in, &r, &out), 0);
	got = head_get(&out, id);
	if (!slice_eq(got, slice_str(want)))
		fail_msg("row %zu: %.*s, not %s", row, SLICE_ARG(got), want);
	assert_true(head_find(&out, id, (unsigned)head_find(&out, id, 0) + 1) == -1);
	head_done(&in);
	head_done(&out);
}

static void a_trusted_request_start_is_kept_if_it_is_a_time(void **state UNUSED)
{
	static const struct {
		const char *said, *want;
	} cases[] = {
		{ "t=1700000000.123", "t=1700000000.123" },
		{ "1700000000123", "1700000000123" },
		{ "t=", "t=1.500000" },
		{ "t=1.2.3", "t=1.500000" },
		{ "t=.", "t=1.500000" },
		{ "t=12a", "t=1.500000" },
		{ "12345678901234567890123456789012345678901", "t=1.500000" },
		{ "", "t=1.500000" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char fields[128];

		snprintf(fields, sizeof(fields), "X-Request-Start: %s\r\n", cases[i].said);
		expect_kept(i, fields, FIELD_X_REQUEST_START, cases[i].want);
	}
}

static void a_trusted_request_id_has_its_limit(void **state UNUSED)
{
	char fields[256], id[REQUEST_ID_MAX + 2];

	for (unsigned more = 0; more < 2; more++) {
		memset(id, 'x', sizeof(id));
		id[REQUEST_ID_MAX + more] = '\0';
		snprintf(fields, sizeof(fields), "X-Request-Id: %s\r\n", id);
		expect_kept(more, fields, FIELD_X_REQUEST_ID, more ? "new" : id);
	}
}

static void the_client_is_the_first_untrusted_hop_from_the_right(void **state UNUSED)
{
	static const struct {
		const char *peer, *fields, *client;
	} cases[] = {
		{ "192.0.2.1", "", "192.0.2.1" },
		{ "192.0.2.1", "X-Forwarded-For: 6.6.6.6\r\n", "192.0.2.1" },
		{ "::ffff:192.0.2.1", "", "192.0.2.1" },
		{ "", "", "" },
		{ "10.0.0.1", "", "10.0.0.1" },
		{ "10.0.0.1", "X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7" },
		{ "::ffff:10.0.0.1", "X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7" },
		{ "", "X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7" },
		{ "2001:db8:1::1", "X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7" },
		{ "2001:db8:2::1", "X-Forwarded-For: 192.0.2.7\r\n", "2001:db8:2::1" },
		{ "10.0.0.1", "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n", "192.0.2.7" },
		{ "10.0.0.1", "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.2\r\n", "192.0.2.7" },
		{ "10.0.0.1", "X-Forwarded-For: 6.6.6.6,192.0.2.7\r\nA: b\r\nX-Forwarded-For: 10.0.0.2 ,10.0.0.3\r\n",
		    "192.0.2.7" },
		{ "10.0.0.1", "X-Forwarded-For: 10.0.0.9, 10.0.0.8\r\n", "10.0.0.9" }, /* all are trusted: the farthest */
		{ "10.0.0.1", "X-Forwarded-For: ,, 192.0.2.7 ,,\r\n", "192.0.2.7" },
		{ "10.0.0.1", "X-Forwarded-For:\r\n", "10.0.0.1" },
		{ "10.0.0.1", "X-Forwarded-For: 192.0.2.7:1234\r\n", "192.0.2.7" },
		{ "10.0.0.1", "X-Forwarded-For: [2001:DB8:0::7]:1234\r\n", "2001:db8::7" },
		{ "10.0.0.1", "X-Forwarded-For: [2001:db8::7]\r\n", "2001:db8::7" },
		{ "10.0.0.1", "X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7" },
		{ "10.0.0.1", "X-Forwarded-For: 192.0.2.7, ::ffff:10.1.1.1\r\n", "192.0.2.7" },
		{ "10.0.0.1", "X-Forwarded-For: ::ffff:192.0.2.7\r\n", "192.0.2.7" },
		/* what is no address ends the walk */
		{ "10.0.0.1", "X-Forwarded-For: 192.0.2.7, unknown\r\n", "10.0.0.1" },
		{ "10.0.0.1", "X-Forwarded-For: 192.0.2.7, unknown, 10.0.0.2\r\n", "10.0.0.2" },
		{ "10.0.0.1", "X-Forwarded-For: 192.0.2.7, 10.0.0.300\r\n", "10.0.0.1" },
		{ "10.0.0.1", "X-Forwarded-For: [192.0.2.7\r\n", "10.0.0.1" },
		{ "10.0.0.1", "X-Forwarded-For: [2001:db8::7]x\r\n", "10.0.0.1" },
		{ "10.0.0.1", "X-Forwarded-For: []\r\n", "10.0.0.1" },
		{ "10.0.0.1", "X-Forwarded-For: \"192.0.2.7\"\r\n", "10.0.0.1" },
		{ "10.0.0.1", "X-Forwarded-For: 1111111111111111111111111111111111111111111111\r\n", "10.0.0.1" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[INET6_ADDRSTRLEN];
		struct peer peer;
		struct head head;

		peer_init(&peer, cases[i].peer);
		parse_request(cases[i].fields, &head);
		assert_int_equal(forward_client_address(&head, &peer.client, &conf, text, sizeof(text)), 0);
		if (strcmp(text, cases[i].client) != 0)
			fail_msg("row %zu: %s, not %s", i, text, cases[i].client);
		assert_int_equal(forward_client_address(&head, &peer.client, &conf, text, strlen(text)), -ENOSPC);
		head_done(&head);
	}
}

static void connection_has_a_limit_in_requests(void **state UNUSED)
{
	struct peer peer;
	struct forward_request r = { .client = &peer.client, .conf = &conf, .request_id = SLICE("new") };

	peer_init(&peer, "192.0.2.1");
	for (unsigned count = FORWARD_OPTIONS_MAX; count <= FORWARD_OPTIONS_MAX + 1; count++) {
		struct head in, out;
		struct buf fields;

		buf_init(&fields, 4096);
		buf_printf(&fields, "Connection: a0");
		for (unsigned i = 1; i < count; i++)
			buf_printf(&fields, "%sa%u", i == 9 ? "\r\nConnection:" : ",", i);
		buf_printf(&fields, "\r\na%u: 1\r\n%c", count - 1, 0);
		parse_request(fields.ptr, &in);
		head_init(&out);
		assert_int_equal(forward_request_head(&in, &r, &out), count > FORWARD_OPTIONS_MAX ? -EINVAL : 0);
		for (unsigned i = 0; i < out.field_count; i++)
			assert_false(slice_eq(head_name(&out, i), SLICE("a63")));
		if (count > FORWARD_OPTIONS_MAX)
			assert_null(out.fields);
		head_done(&in);
		head_done(&out);
		buf_done(&fields);
	}
}

static void the_built_head_has_its_parts(void **state UNUSED)
{
	struct peer peer;
	struct forward_request r = { .client = &peer.client, .conf = &conf, .request_id = SLICE("new") };
	struct http1_message m;
	struct head in, out;

	peer_init(&peer, "192.0.2.1");
	head_init(&in);
	head_init(&out);
	assert_int_equal(http1_request(SLICE("PUT http://u.test:8/p/q?x?y HTTP/1.1\r\nHost: h\r\n\r\n"), &in, &m), HTTP1_OK);
	assert_int_equal(forward_request_head(&in, &r, &out), 0);
	assert_int_equal(out.method, METHOD_PUT);
	assert_int_equal(out.version, 11);
	assert_true(out.has_query);
	assert_true(slice_eq(head_text(&out, out.target), SLICE("/p/q?x?y")));
	assert_true(slice_eq(head_text(&out, out.path), SLICE("/p/q")));
	assert_true(slice_eq(head_text(&out, out.query), SLICE("x?y")));
	assert_true(slice_eq(head_text(&out, out.authority), SLICE("u.test:8")));
	assert_true(slice_eq(head_text(&out, out.scheme), SLICE("http")));
	assert_int_equal(out.fields[0].id, FIELD_HOST);
	head_done(&in);
	head_done(&out);
}

#define DATE   "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
#define SERVER "Server: forebay\r\n"

/* The fields one by one are those of the bytes. */
static void expect_list(size_t row, const struct head *in, const struct forward_response *r, const char *want)
{
	struct forward_field fields[64];
	struct forward_list list = { .fields = fields };
	struct buf text;

	assert_true((size_t)in->field_count + FORWARD_OWN_FIELDS <= ARRAY_LEN(fields));
	buf_init(&text, 65536);
	forward_response_list(in, r, &list);
	http1_write_status_line(&text, in->status, head_text(in, in->reason));
	for (size_t i = 0; i < list.count; i++) {
		http1_write_field(&text, fields[i].name, fields[i].value);
		assert_int_equal(fields[i].id, field_id_from(fields[i].name));
	}
	http1_write_end(&text);
	expect_text(row, &text, want);
	buf_done(&text);
}

static void a_response_is_built_anew(void **state UNUSED)
{
	static const struct {
		const char *in;
		struct forward_response options;
		const char *out;
	} cases[] = {
		{ "HTTP/1.1 200 OK\r\nContent-Length: 005\r\n\r\n", { .has_length = true, .length = 5 },
		    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" DATE SERVER "\r\n" },
		{ "HTTP/1.0 200 Fine by me\r\nA: b\r\n\r\n", { .chunked = true },
		    "HTTP/1.1 200 Fine by me\r\nA: b\r\nTransfer-Encoding: chunked\r\n" DATE SERVER "\r\n" },
		{ "HTTP/1.1 299 Odd\r\n\r\n", { .close = true },
		    "HTTP/1.1 299 Odd\r\nConnection: close\r\n" DATE SERVER "\r\n" },
		{ "HTTP/1.1 200 OK\r\n\r\n", { .client_version = 10, .keep_alive_1_0 = true, .has_length = true },
		    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n" DATE SERVER "\r\n" },
		{ "HTTP/1.1 200 OK\r\n\r\n", { .client_version = 20, .close = true, .upgrade = true, .has_length = true },
		    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" DATE SERVER "\r\n" },
		{ "HTTP/1.1 200 OK\r\nserver: gunicorn\r\nDATE: Mon, 01 Jan 2001 00:00:00 GMT\r\n\r\n", { 0 },
		    "HTTP/1.1 200 OK\r\nserver: gunicorn\r\nDATE: Mon, 01 Jan 2001 00:00:00 GMT\r\n\r\n" },
		/* hop by hop */
		{ "HTTP/1.1 200 OK\r\nConnection: x-gone, keep-alive\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n"
		  "Trailer: a\r\nProxy-Authenticate: Basic\r\nProxy-Authentication-Info: x\r\nUpgrade: h2c\r\nX-Accel-Buffering: no\r\n"
		  "Proxy-Connection: close\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nx_y: 1\r\n\r\n",
		    { .chunked = true },
		    "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nx_y: 1\r\nTransfer-Encoding: chunked\r\n" DATE
		        SERVER "\r\n" },
		/* the Date that Connection takes away is written anew */
		{ "HTTP/1.1 200 OK\r\nConnection: Date\r\nDate: x\r\n\r\n", { 0 }, "HTTP/1.1 200 OK\r\n" DATE SERVER "\r\n" },
		/* ids */
		{ "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\n\r\n", { .request_id = SLICE_INIT("ours") },
		    "HTTP/1.1 200 OK\r\n" DATE SERVER "X-Request-Id: ours\r\n\r\n" },
		{ "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\n\r\n", { 0 },
		    "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\n" DATE SERVER "\r\n" },
		/* without content */
		{ "HTTP/1.1 204 No Content\r\n\r\n", { .has_length = true }, "HTTP/1.1 204 No Content\r\n" DATE SERVER "\r\n" },
		{ "HTTP/1.1 204 No Content\r\n\r\n", { .chunked = true }, "HTTP/1.1 204 No Content\r\n" DATE SERVER "\r\n" },
		{ "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 7\r\n\r\n", { .has_length = true, .length = 7 },
		    "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 7\r\n" DATE SERVER "\r\n" },
		{ "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\nX: 1\r\n\r\n",
		    { .has_length = true, .request_id = SLICE_INIT("ours") },
		    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" },
		/* upgrades */
		{ "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
		    { .upgrade = true },
		    "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" },
		{ "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		    { .has_length = true, .close = true },
		    "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n" DATE
		        SERVER "\r\n" },
		{ "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		    { .client_version = 10, .close = true },
		    "HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\n" DATE SERVER "\r\n" },
		/* HTTP/2 */
		{ "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
		    { .client_version = 20, .upgrade = true },
		    "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n" },
		{ "HTTP/1.1 200 OK\r\nConnection: x-gone\r\nX-Gone: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nServer: s\r\n\r\n",
		    { .client_version = 20, .has_length = true, .length = UINT64_MAX, .request_id = SLICE_INIT("ours") },
		    "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nServer: s\r\nContent-Length: 18446744073709551615\r\n" DATE
		    "X-Request-Id: ours\r\n\r\n" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct forward_response r = cases[i].options;
		struct http1_message m;
		struct head in;
		struct buf text;

		head_init(&in);
		buf_init(&text, 65536);
		r.date = SLICE("Tue, 14 Nov 2023 22:13:20 GMT");
		r.client_version = r.client_version ? r.client_version : 11;
		if (http1_response(slice_str(cases[i].in), METHOD_GET, &in, &m) != HTTP1_OK)
			fail_msg("row %zu: does not parse", i);
		assert_int_equal(forward_response_wire(&in, &r, &text), 0);
		expect_text(i, &text, cases[i].out);
		if (r.client_version == 20)
			expect_list(i, &in, &r, cases[i].out);
		buf_done(&text);
		head_done(&in);
	}
}

/* A worker may name as much as it likes. */
static void connection_has_no_limit_in_responses(void **state UNUSED)
{
	struct forward_response r = { .client_version = 11 };
	struct http1_message m;
	struct head in;
	struct buf text;

	buf_init(&text, 65536);
	buf_printf(&text, "HTTP/1.1 200 OK\r\nConnection: a");
	for (unsigned i = 0; i < FORWARD_OPTIONS_MAX; i++)
		buf_printf(&text, ",b%u", i);
	buf_printf(&text, ",X-Gone\r\nx-gone: 1\r\nb7: 1\r\nc: 1\r\n\r\n");
	head_init(&in);
	assert_int_equal(http1_response(buf_slice(&text), METHOD_GET, &in, &m), HTTP1_OK);
	buf_clear(&text);
	assert_int_equal(forward_response_wire(&in, &r, &text), 0);
	expect_text(0, &text, "HTTP/1.1 200 OK\r\nc: 1\r\n" SERVER "\r\n"); /* no Date was given */
	buf_done(&text);
	head_done(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_is_built_anew),
		cmocka_unit_test(of_a_certificate_only_the_front_tells),
		cmocka_unit_test(what_is_told_of_the_client),
		cmocka_unit_test(a_trusted_request_start_is_kept_if_it_is_a_time),
		cmocka_unit_test(a_trusted_request_id_has_its_limit),
		cmocka_unit_test(the_client_is_the_first_untrusted_hop_from_the_right),
		cmocka_unit_test(connection_has_a_limit_in_requests),
		cmocka_unit_test(the_built_head_has_its_parts),
		cmocka_unit_test(a_response_is_built_anew),
		cmocka_unit_test(connection_has_no_limit_in_responses),
	};

	return cmocka_run_group_tests_name("forward", tests, NULL, NULL);
}
