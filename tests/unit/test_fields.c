#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>

#include "core/fields.h"

static const struct {
	struct slice value;
	bool ok;
} values[] = {
	{ SLICE_INIT(""), true },
	{ SLICE_INIT("a b\tc"), true },
	{ SLICE_INIT("\x80\xff"), true }, /* obs-text */
	{ SLICE_INIT(" a"), false },
	{ SLICE_INIT("a "), false },
	{ SLICE_INIT("a\t"), false },
	{ SLICE_INIT(" "), false },
};

static void a_field_value_is_taken_or_refused(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(values); i++)
		if (field_value_ok(values[i].value) != values[i].ok)
			fail_msg("row %zu", i);
}

static void a_control_byte_anywhere_is_refused(void **state UNUSED)
{
	for (unsigned c = 0; c < 256; c++)
		for (size_t len = 1; len <= 20; len++)
			for (size_t at = 0; at < len; at++) {
				bool ok = (c >= 0x20 && c != 0x7f) || c == '\t';
				bool inside = at > 0 && at < len - 1;
				char *text = malloc(len); /* of its own, so that a sanitizer sees what is read behind it */

				assert_non_null(text);
				memset(text, 'x', len);
				text[at] = (char)c;
				if (field_text_ok(slice_of(text, len)) != ok)
					fail_msg("text of %zu: byte %u at %zu", len, c, at);
				if (field_value_ok(slice_of(text, len)) != (ok && (inside || (c != ' ' && c != '\t'))))
					fail_msg("value of %zu: byte %u at %zu", len, c, at);
				free(text);
			}
}

static void a_field_name_is_a_token(void **state UNUSED)
{
	assert_true(field_name_ok(SLICE("X-Forwarded_For")));
	assert_false(field_name_ok(SLICE("")));
	assert_false(field_name_ok(SLICE("Host ")));
	assert_false(field_name_ok(SLICE(":path")));
	assert_false(field_name_ok(SLICE("Ho\0st")));
	assert_false(field_name_ok(SLICE("H\xc3\xb6st")));
}

static const struct {
	struct slice authority;
	bool ok;
	struct slice host, port;
} hosts[] = {
	{ SLICE_INIT("example.org"), true, SLICE_INIT("example.org"), SLICE_INIT("") },
	{ SLICE_INIT("example.org:8080"), true, SLICE_INIT("example.org"), SLICE_INIT("8080") },
	{ SLICE_INIT("example.org:"), true, SLICE_INIT("example.org"), SLICE_INIT("") }, /* RFC 3986, 3.2.3 */
	{ SLICE_INIT("127.0.0.1:80"), true, SLICE_INIT("127.0.0.1"), SLICE_INIT("80") },
	{ SLICE_INIT("[::1]"), true, SLICE_INIT("[::1]"), SLICE_INIT("") },
	{ SLICE_INIT("[2001:db8::1]:443"), true, SLICE_INIT("[2001:db8::1]"), SLICE_INIT("443") },
	{ SLICE_INIT("[::ffff:192.0.2.1]:"), true, SLICE_INIT("[::ffff:192.0.2.1]"), SLICE_INIT("") },
	{ SLICE_INIT("a_b.example"), true, SLICE_INIT("a_b.example"), SLICE_INIT("") },
	{ SLICE_INIT("xn--bcher-kva.example"), true, SLICE_INIT("xn--bcher-kva.example"), SLICE_INIT("") },
	{ SLICE_INIT("a%2Db"), true, SLICE_INIT("a%2Db"), SLICE_INIT("") },
	{ SLICE_INIT("a!$&'()*+;=~b"), true, SLICE_INIT("a!$&'()*+;=~b"), SLICE_INIT("") },
	{ SLICE_INIT("a:1"), true, SLICE_INIT("a"), SLICE_INIT("1") },
	{ SLICE_INIT("a:65535"), true, SLICE_INIT("a"), SLICE_INIT("65535") },
	{ SLICE_INIT(""), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT(":80"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("a:65536"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("a:0"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("a:000080"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("a:+80"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("a:80:80"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("a:80x"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("user@example.org"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("user:pass@example.org"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("example.org, evil.org"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("example.org,evil.org"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("example org"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("example.org/path"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("example.org?"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("example.org#"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("example.org\\"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("<script>"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("\"a\""), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("a\0b"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("b\xc3\xbc"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("a%2"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("a%"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("a%2g"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("[::1"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("::1"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("[]"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("["), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("[::1]x"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("[::1]80"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("[127.0.0.1]"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("[fe80::1%25eth0]"), false, SLICE_INIT(""), SLICE_INIT("") }, /* a zone */
	{ SLICE_INIT("[v1.a]"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("[::1\0]"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]"), false, SLICE_INIT(""), SLICE_INIT("") },
	{ SLICE_INIT("x[::1]"), false, SLICE_INIT(""), SLICE_INIT("") },
};

static void a_host_is_taken_or_refused(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
		struct slice host, port;

		if (field_host_ok(hosts[i].authority) != hosts[i].ok)
			fail_msg("row %zu: %.*s", i, SLICE_ARG(hosts[i].authority));
		if (!hosts[i].ok)
			continue;
		field_host_split(hosts[i].authority, &host, &port);
		if (!slice_eq(host, hosts[i].host) || !slice_eq(port, hosts[i].port))
			fail_msg("row %zu: %.*s and %.*s", i, SLICE_ARG(host), SLICE_ARG(port));
	}
}

static void a_host_has_at_most_255_bytes(void **state UNUSED)
{
	char text[256];

	memset(text, 'a', sizeof(text));
	assert_true(field_host_ok(slice_of(text, 255)));
	assert_false(field_host_ok(slice_of(text, 256)));
}

static void a_target_is_visible_ascii(void **state UNUSED)
{
	for (unsigned c = 0; c < 256; c++) {
		char text[3] = { '/', (char)c, 'x' };

		if (field_target_ok(slice_of(text, 3)) != (c > 0x20 && c < 0x7f && c != '#'))
			fail_msg("byte %u", c);
	}
	assert_false(field_target_ok(SLICE("")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_field_value_is_taken_or_refused),
		cmocka_unit_test(a_control_byte_anywhere_is_refused),
		cmocka_unit_test(a_field_name_is_a_token),
		cmocka_unit_test(a_host_is_taken_or_refused),
		cmocka_unit_test(a_host_has_at_most_255_bytes),
		cmocka_unit_test(a_target_is_visible_ascii),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
