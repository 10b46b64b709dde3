/* address: what `address =`, `socket =` and `trusted =` take, and which peers a network has. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdlib.h>

#include "conf/address.h"

#define A10      "aaaaaaaaaa"
#define PATH_106 "/" A10 A10 A10 A10 A10 A10 A10 A10 A10 A10 "aaaaa"

static const struct {
	struct slice text;
	const char *as;  /* its text; NULL: refused */
	const char *why; /* a part of it, "" with one that is taken */
	int family;
	bool for_listen;
} addresses[] = {
	{ SLICE_INIT("127.0.0.1:8000"), "127.0.0.1:8000", "", AF_INET, true },
	{ SLICE_INIT("0.0.0.0:1"), "0.0.0.0:1", "", AF_INET, true },
	{ SLICE_INIT("127.0.0.1:65535"), "127.0.0.1:65535", "", AF_INET, false },
	{ SLICE_INIT("[::]:443"), "[::]:443", "", AF_INET6, true },
	{ SLICE_INIT("[::1]:9000"), "[::1]:9000", "", AF_INET6, false },
	{ SLICE_INIT("unix:/run/x.sock"), "unix:/run/x.sock", "", AF_UNIX, true },
	{ SLICE_INIT("/run/x.sock"), "unix:/run/x.sock", "", AF_UNIX, true },
	{ SLICE_INIT("unix:/run/x.sock"), "/run/x.sock", "", AF_UNIX, false },
	{ SLICE_INIT("/run/x.sock"), "/run/x.sock", "", AF_UNIX, false },
	{ SLICE_INIT(PATH_106 "b"), PATH_106 "b", "", AF_UNIX, false },
	{ SLICE_INIT(PATH_106 "bc"), NULL, "107 bytes", 0, false },
	{ SLICE_INIT("unix:run/x.sock"), NULL, "absolute path", 0, true },
	{ SLICE_INIT("unix:@x"), NULL, "absolute path", 0, true },
	{ SLICE_INIT("unix:"), NULL, "absolute path", 0, true },
	{ SLICE_INIT("/"), NULL, "absolute path", 0, true },
	{ SLICE_INIT("/a\0b"), NULL, "absolute path", 0, true },
	{ SLICE_INIT(""), NULL, "an address and port", 0, true },
	{ SLICE_INIT("8000"), NULL, "an address and port", 0, true },
	{ SLICE_INIT("8000"), NULL, "a socket", 0, false },
	{ SLICE_INIT("*:80"), NULL, "0.0.0.0", 0, true },
	{ SLICE_INIT(":80"), NULL, "0.0.0.0", 0, true },
	{ SLICE_INIT("localhost:80"), NULL, "in numbers", 0, true },
	{ SLICE_INIT("127.1:80"), NULL, "in numbers", 0, true },
	{ SLICE_INIT("127.0.0.01:80"), NULL, "in numbers", 0, true },
	{ SLICE_INIT("127.0.0.1\0:80"), NULL, "in numbers", 0, true },
	{ SLICE_INIT("http://127.0.0.1:80"), NULL, "brackets", 0, true },
	{ SLICE_INIT("::1:80"), NULL, "0.0.0.0", 0, true },
	{ SLICE_INIT("fe80::1:80"), NULL, "brackets", 0, true },
	{ SLICE_INIT("[::1"), NULL, "brackets", 0, true },
	{ SLICE_INIT("[127.0.0.1]:80"), NULL, "brackets", 0, true },
	{ SLICE_INIT("[fe80::1%lo]:80"), NULL, "brackets", 0, true },
	{ SLICE_INIT("[::1]"), NULL, "port", 0, true },
	{ SLICE_INIT("[::1]80"), NULL, "port", 0, true },
	{ SLICE_INIT("[::1]:"), NULL, "port", 0, true },
	{ SLICE_INIT("127.0.0.1:"), NULL, "port", 0, true },
	{ SLICE_INIT("127.0.0.1:0"), NULL, "port", 0, true },
	{ SLICE_INIT("127.0.0.1:65536"), NULL, "port", 0, true },
	{ SLICE_INIT("127.0.0.1:99999999999999999999"), NULL, "port", 0, true },
	{ SLICE_INIT("127.0.0.1:-1"), NULL, "port", 0, true },
	{ SLICE_INIT("127.0.0.1:+80"), NULL, "port", 0, true },
	{ SLICE_INIT("127.0.0.1: 80"), NULL, "port", 0, true },
	{ SLICE_INIT("127.0.0.1:80 "), NULL, "port", 0, true },
	{ SLICE_INIT("127.0.0.1:http"), NULL, "port", 0, true },
};

static void an_address_is_taken_or_refused(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
		struct conf_address got = { 0 };
		const char *why = "";
		int err = conf_address_parse(addresses[i].text, addresses[i].for_listen, &got, &why);

		if ((err == 0) != (addresses[i].as != NULL) || (err != 0 && err != -EINVAL))
			fail_msg("row %zu: %d", i, err);
		if (err == -EINVAL && !strstr(why, addresses[i].why))
			fail_msg("row %zu: %s", i, why);
		if (err == -EINVAL && got.text)
			fail_msg("row %zu: touched", i);
		if (err == 0 && (!slice_eq(slice_str(got.text), slice_str(addresses[i].as)) ||
		                    got.addr.any.sa_family != addresses[i].family))
			fail_msg("row %zu: %s", i, got.text);
		free(got.text);
	}
}

static void the_kernel_gets_what_was_written(void **state UNUSED)
{
	struct conf_address a;
	const char *why;

	assert_int_equal(conf_address_parse(SLICE("192.0.2.1:8001"), true, &a, &why), 0);
	assert_int_equal(a.len, sizeof(struct sockaddr_in));
	assert_int_equal(ntohl(a.addr.in4.sin_addr.s_addr), 0xc0000201);
	assert_int_equal(ntohs(a.addr.in4.sin_port), 8001);
	free(a.text);
	assert_int_equal(conf_address_parse(SLICE("[::1]:8002"), true, &a, &why), 0);
	assert_int_equal(a.len, sizeof(struct sockaddr_in6));
	assert_memory_equal(&a.addr.in6.sin6_addr, &in6addr_loopback, 16);
	assert_int_equal(ntohs(a.addr.in6.sin6_port), 8002);
	free(a.text);
	assert_int_equal(conf_address_parse(SLICE("unix:/a"), true, &a, &why), 0);
	assert_int_equal(a.len, offsetof(struct sockaddr_un, sun_path) + 3);
	assert_string_equal(a.addr.un.sun_path, "/a");
	free(a.text);
}

static const struct {
	struct slice text;
	const char *why; /* a part of it; "": taken */
} networks[] = {
	{ SLICE_INIT("unix"), "" },
	{ SLICE_INIT("0.0.0.0/0"), "" },
	{ SLICE_INIT("10.0.0.0/8"), "" },
	{ SLICE_INIT("10.1.2.3"), "" },
	{ SLICE_INIT("10.1.2.3/32"), "" },
	{ SLICE_INIT("192.168.1.128/25"), "" },
	{ SLICE_INIT("::/0"), "" },
	{ SLICE_INIT("fd00::/8"), "" },
	{ SLICE_INIT("::1"), "" },
	{ SLICE_INIT("::1/128"), "" },
	{ SLICE_INIT(""), "a network" },
	{ SLICE_INIT("/8"), "a network" },
	{ SLICE_INIT("Unix"), "a network" },
	{ SLICE_INIT("localhost"), "a network" },
	{ SLICE_INIT("10.0.0/8"), "a network" },
	{ SLICE_INIT("10.0.0.0:80"), "a network" },
	{ SLICE_INIT("[::1]"), "a network" },
	{ SLICE_INIT("10.0.0.0/"), "a prefix" },
	{ SLICE_INIT("10.0.0.0/33"), "a prefix" },
	{ SLICE_INIT("10.0.0.0/8/8"), "a prefix" },
	{ SLICE_INIT("10.0.0.0/255.0.0.0"), "a prefix" },
	{ SLICE_INIT("10.0.0.0/-1"), "a prefix" },
	{ SLICE_INIT("10.0.0.0/4294967304"), "a prefix" },
	{ SLICE_INIT("::/129"), "a prefix" },
	{ SLICE_INIT("10.0.0.1/8"), "behind its prefix" },
	{ SLICE_INIT("192.168.1.128/24"), "behind its prefix" },
	{ SLICE_INIT("fd00::1/64"), "behind its prefix" },
	{ SLICE_INIT("::ffff:10.0.0.0/104"), "its own form" },
	{ SLICE_INIT("::ffff:10.0.0.1"), "its own form" },
};

static void a_network_is_taken_or_refused(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(networks); i++) {
		struct conf_network got = { 0 };
		const char *why = "";
		int err = network_parse(networks[i].text, &got, &why);

		if (err != (networks[i].why[0] ? -EINVAL : 0))
			fail_msg("row %zu: %d", i, err);
		if (err == -EINVAL && !strstr(why, networks[i].why))
			fail_msg("row %zu: %s", i, why);
		if (err == 0 && !slice_eq(slice_str(got.text), networks[i].text))
			fail_msg("row %zu: %s", i, got.text);
		free(got.text);
	}
}

static const struct {
	const char *network, *peer; /* "unix" or an address */
	bool has;
} peers[] = {
	{ "10.0.0.0/8", "10.255.0.1", true },
	{ "10.0.0.0/8", "11.0.0.1", false },
	{ "10.0.0.0/8", "::ffff:10.1.1.1", true },
	{ "10.0.0.0/8", "::ffff:11.1.1.1", false },
	{ "10.0.0.0/8", "::10.1.1.1", false },
	{ "10.0.0.0/8", "a00::", false },
	{ "10.0.0.0/8", "unix", false },
	{ "192.168.1.128/25", "192.168.1.128", true },
	{ "192.168.1.128/25", "192.168.1.127", false },
	{ "10.1.2.3", "10.1.2.3", true },
	{ "10.1.2.3", "10.1.2.2", false },
	{ "0.0.0.0/0", "255.255.255.255", true },
	{ "0.0.0.0/0", "::1", false },
	{ "::/0", "::1", true },
	{ "::/0", "1.2.3.4", false },
	{ "::/0", "::ffff:1.2.3.4", false },
	{ "fd00::/8", "fdff::1", true },
	{ "fd00::/8", "fc00::1", false },
	{ "fe80::/10", "febf::1", true },
	{ "fe80::/10", "fec0::1", false },
	{ "::1", "::1", true },
	{ "::1", "::2", false },
	{ "unix", "unix", true },
	{ "unix", "127.0.0.1", false },
};

static socklen_t peer_of(const char *text, struct sockaddr_storage *ret)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, text, &in4->sin_addr) == 1) {
		ret->ss_family = AF_INET;
		return sizeof(*in4);
	}
	if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
		ret->ss_family = AF_INET6;
		return sizeof(*in6);
	}
	ret->ss_family = AF_UNIX;
	return sizeof(sa_family_t);
}

static void a_network_has_its_peers_only(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(peers); i++) {
		struct conf_network list[2];
		struct sockaddr_storage peer;
		const char *why;

		assert_int_equal(network_parse(SLICE("203.0.113.7"), &list[0], &why), 0);
		assert_int_equal(network_parse(slice_str(peers[i].network), &list[1], &why), 0);
		peer_of(peers[i].peer, &peer);
		if (conf_network_has(list, 2, (struct sockaddr *)&peer) != peers[i].has)
			fail_msg("row %zu: %s in %s", i, peers[i].peer, peers[i].network);
		assert_false(conf_network_has(list, 0, (struct sockaddr *)&peer));
		free(list[0].text);
		free(list[1].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_is_taken_or_refused),
		cmocka_unit_test(the_kernel_gets_what_was_written),
		cmocka_unit_test(a_network_is_taken_or_refused),
		cmocka_unit_test(a_network_has_its_peers_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
