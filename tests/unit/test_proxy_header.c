#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "proxy/serve/address_text.h"
#include "proxy/client/proxy_header.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V4        "\x01\x02\x03\x04\x05\x06\x07\x08\x10\xe1\x01\xbb"
#define V6                                                                                                                     \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"                                                                           \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"                                                                           \
	"\x10\xe1\x01\xbb"
#define TEN   "0123456789"
#define FORTY TEN TEN TEN TEN
#define UNIX  FORTY FORTY FORTY FORTY FORTY TEN "012345"

static const struct {
	struct slice bytes;
	enum proxy_result result;
	size_t left; /* of the bytes, behind the header */
	const char *client;
	uint16_t port;
} cases[] = {
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 4321 443\r\n"), PROXY_OK, 0, "1.2.3.4", 4321 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 4321 443\r\nGET / HTTP/1.1\r\n"), PROXY_OK, 16, "1.2.3.4", 4321 },
	{ SLICE_INIT("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), PROXY_OK, 0, "255.255.255.255", 65535 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\n"), PROXY_OK, 0, "1.2.3.4", 0 },
	{ SLICE_INIT("PROXY TCP6 2001:db8::1 2001:db8::2 4321 443\r\n"), PROXY_OK, 0, "2001:db8::1", 4321 },
	{ SLICE_INIT("PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n"), PROXY_OK, 0, "1.2.3.4", 1 },
	{ SLICE_INIT(
	      "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
	    PROXY_OK, 0, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535 },
	{ SLICE_INIT("PROXY UNKNOWN\r\n"), PROXY_OK, 0, NULL, 0 },
	{ SLICE_INIT("PROXY UNKNOWN ffff::1 what 1 65536\r\nrest"), PROXY_OK, 4, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 4321 443\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 4321\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 4321 443 \r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 4321 443 5\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4  1.2.3.4 5.6.7.8 4321 443\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 65536 443\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 01 443\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 -1 443\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP6 2001:db8::1 nothing 1 2\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY \r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY \n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("PROXY\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT("GET / HTTP/1.1\r\n"), PROXY_BAD, 0, NULL, 0 },
	/* 107 bytes with the end are the most; with 108 the end comes too late */
	{ SLICE_INIT("PROXY UNKNOWN " FORTY FORTY TEN "0\r\n"), PROXY_OK, 0, NULL, 0 },
	{ SLICE_INIT("PROXY UNKNOWN " FORTY FORTY TEN "01\r\n"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT(""), PROXY_MORE, 0, NULL, 0 },
	{ SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 4321 443\r"), PROXY_MORE, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x21\x11\0\x0c" V4), PROXY_OK, 0, "1.2.3.4", 4321 },
	{ SLICE_INIT(SIGNATURE "\x21\x11\0\x0c" V4 "rest"), PROXY_OK, 4, "1.2.3.4", 4321 },
	{ SLICE_INIT(SIGNATURE "\x21\x21\0\x24" V6), PROXY_OK, 0, "2001:db8::1", 4321 },
	{ SLICE_INIT(SIGNATURE "\x21\x31\0\xd8" UNIX), PROXY_OK, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x21\0\0\0"), PROXY_OK, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x21\0\0\x02xx"), PROXY_OK, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x20\x11\0\x0c" V4), PROXY_OK, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x20\0\0\0rest"), PROXY_OK, 4, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x20\xff\0\x01x"), PROXY_OK, 0, NULL, 0 },
	/* ALPN, authority, nothing */
	{ SLICE_INIT(SIGNATURE "\x21\x11\0\x1f" V4 "\x01\0\x02h2\x02\0\x08"
	                       "exam.ple\x04\0\0"),
	    PROXY_OK, 0, "1.2.3.4", 4321 },
	{ SLICE_INIT(SIGNATURE "\x21\x11\0\x11" V4 "\x01\0\x03h2"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x21\x11\0\x0e" V4 "\x01\0"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x21\x11\0\x0b\x01\x02\x03\x04\x05\x06\x07\x08\x10\xe1\x01"), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x21\x21\0\x0c" V4), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x21\x12\0\x0c" V4), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x21\x41\0\x0c" V4), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x22\x11\0\x0c" V4), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x11\x11\0\x0c" V4), PROXY_BAD, 0, NULL, 0 },
	{ SLICE_INIT(SIGNATURE "\x21\x11\x0f\xf1"), PROXY_BAD, 0, NULL, 0 }, /* 4097 bytes */
	{ SLICE_INIT(SIGNATURE "\x21\x11\x0f\xf0"), PROXY_MORE, 0, NULL, 0 },
	{ SLICE_INIT("\r\n\r\n\0\r\nQUIT\r"), PROXY_BAD, 0, NULL, 0 },
};

/* In a block that ends with its last byte. */
static enum proxy_result parse(struct slice bytes, struct proxy_header *ret)
{
	char *block = malloc(MAX(bytes.len, (size_t)1));
	const char *why = NULL;
	enum proxy_result r;

	memcpy(block, bytes.ptr, bytes.len);
	r = proxy_header_parse(slice_of(block, bytes.len), ret, &why);
	assert_true((r == PROXY_BAD) == (why != NULL));
	free(block);
	return r;
}

static void a_header_is_taken_or_refused(void **state)
{
	struct proxy_header got;
	char text[INET6_ADDRSTRLEN];
	uint16_t port;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		if (parse(cases[i].bytes, &got) != cases[i].result)
			fail_msg("row %zu: another result", i);
		if (cases[i].result != PROXY_OK)
			continue;
		if (got.len != cases[i].bytes.len - cases[i].left || got.has_client != (cases[i].client != NULL))
			fail_msg("row %zu: length %zu", i, got.len);
		if (!cases[i].client)
			continue;
		address_text(&got.client.any, text, &port);
		if (strcmp(text, cases[i].client) != 0 || port != cases[i].port)
			fail_msg("row %zu: %s %u", i, text, port);
	}
}

/* However little there is: the answer is "more" until it is the same as of the whole. */
static void a_header_may_be_cut_anywhere(void **state)
{
	struct proxy_header got;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		size_t end = cases[i].bytes.len - cases[i].left;

		for (size_t n = 0; n < end; n++) {
			enum proxy_result r = parse(slice_of(cases[i].bytes.ptr, n), &got);

			if (r == PROXY_OK || (r == PROXY_BAD && cases[i].result != PROXY_BAD))
				fail_msg("row %zu, %zu bytes: result %d", i, n, r);
		}
	}
}

static void the_longest_header_is_taken(void **state)
{
	static char bytes[PROXY_HEADER_MAX] = SIGNATURE "\x21\x11\x0f\xf0" V4 "\x04\x0f\xe1";
	struct proxy_header got;

	(void)state;
	assert_int_equal(parse(slice_of(bytes, sizeof(bytes) - 1), &got), PROXY_MORE);
	assert_int_equal(parse(slice_of(bytes, sizeof(bytes)), &got), PROXY_OK);
	assert_int_equal(got.len, PROXY_HEADER_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_header_is_taken_or_refused),
		cmocka_unit_test(a_header_may_be_cut_anywhere),
		cmocka_unit_test(the_longest_header_is_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
