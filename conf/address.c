#include "conf/address.h"

#include <arpa/inet.h>
#include <stdlib.h>

#define WHY_LISTEN  "an address and port such as 127.0.0.1:8000, [::1]:8000 or unix:/run/forebay.sock"
#define WHY_SOCKET  "a socket such as /run/app.sock, 127.0.0.1:9000 or [::1]:9000"
#define WHY_ANY     "an address before the port: 0.0.0.0 for any IPv4 address, [::] for any address"
#define WHY_PORT    "a port from 1 to 65535 behind the address"
#define WHY_NUMBERS "an IP address in numbers, since names are not looked up"
#define WHY_BRACKET "an IPv6 address in brackets, such as [::1]:8000"
#define WHY_PATH    "an absolute path of at most 107 bytes"
#define WHY_NETWORK "a network such as 10.0.0.0/8 or fd00::/8, an address, or unix"
#define WHY_PREFIX  "a prefix of 0 to 32 bits behind an IPv4 address, 0 to 128 behind an IPv6 address"
#define WHY_HOST    "a network without bits behind its prefix, such as 10.0.0.0/8"
#define WHY_MAPPED  "an IPv4 network in its own form, such as 10.0.0.0/8"

static const uint8_t mapped_prefix[12] = { [10] = 0xff, [11] = 0xff };

/* inet_pton wants a NUL, and slices have none. */
static bool parse_ip(int family, struct slice text, void *ret)
{
	char str[INET6_ADDRSTRLEN];

	if (text.len == 0 || text.len >= sizeof(str) || memchr(text.ptr, 0, text.len))
		return false;
	memcpy(str, text.ptr, text.len);
	str[text.len] = '\0';
	return inet_pton(family, str, ret) == 1;
}

static int finish(struct conf_address *a, socklen_t len, struct slice prefix, struct slice text, struct conf_address *ret)
{
	a->len = len;
	a->text = malloc(prefix.len + text.len + 1);
	if (!a->text)
		return -ENOMEM;
	memcpy(a->text, prefix.ptr, prefix.len);
	memcpy(a->text + prefix.len, text.ptr, text.len);
	a->text[prefix.len + text.len] = '\0';
	*ret = *a;
	return 0;
}

static int parse_unix(struct slice path, bool for_listen, struct conf_address *ret, const char **ret_why)
{
	struct conf_address a = { 0 };

	*ret_why = WHY_PATH;
	if (path.len < 2 || path.ptr[0] != '/' || path.len >= sizeof(a.addr.un.sun_path) || memchr(path.ptr, 0, path.len))
		return -EINVAL;
	a.addr.un.sun_family = AF_UNIX;
	memcpy(a.addr.un.sun_path, path.ptr, path.len);
	return finish(&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + 1),
	    for_listen ? SLICE("unix:") : SLICE(""), path, ret);
}

static bool parse_port(struct slice text, in_port_t *ret)
{
	uint64_t port;

	if (text.len > 5 || !slice_to_u64(text, &port) || port < 1 || port > 65535)
		return false;
	*ret = htons((uint16_t)port);
	return true;
}

static int parse_in6(struct slice text, struct slice host, struct slice port, struct conf_address *ret, const char **ret_why)
{
	struct conf_address a = { 0 };

	a.addr.in6.sin6_family = AF_INET6;
	*ret_why = WHY_BRACKET;
	if (!parse_ip(AF_INET6, host, &a.addr.in6.sin6_addr))
		return -EINVAL;
	*ret_why = WHY_PORT;
	if (!parse_port(port, &a.addr.in6.sin6_port))
		return -EINVAL;
	return finish(&a, sizeof(a.addr.in6), SLICE(""), text, ret);
}

static int parse_in4(struct slice text, struct slice host, struct slice port, struct conf_address *ret, const char **ret_why)
{
	struct conf_address a = { 0 };

	a.addr.in4.sin_family = AF_INET;
	if (host.len == 0 || slice_eq(host, SLICE("*"))) {
		*ret_why = WHY_ANY;
		return -EINVAL;
	}
	*ret_why = memchr(port.ptr, ':', port.len) ? WHY_BRACKET : WHY_NUMBERS;
	if (!parse_ip(AF_INET, host, &a.addr.in4.sin_addr))
		return -EINVAL;
	*ret_why = WHY_PORT;
	if (!parse_port(port, &a.addr.in4.sin_port))
		return -EINVAL;
	return finish(&a, sizeof(a.addr.in4), SLICE(""), text, ret);
}

int conf_address_parse(struct slice text, bool for_listen, struct conf_address *ret, const char **ret_why)
{
	struct slice rest = text, host, port;

	if (text.len > 0 && text.ptr[0] == '/')
		return parse_unix(text, for_listen, ret, ret_why);
	if (slice_starts(text, SLICE("unix:")))
		return parse_unix(slice_of(text.ptr + 5, text.len - 5), for_listen, ret, ret_why);
	if (text.len > 0 && text.ptr[0] == '[') {
		rest = slice_of(text.ptr + 1, text.len - 1);
		*ret_why = WHY_BRACKET;
		if (!slice_cut(&rest, ']', &host))
			return -EINVAL;
		*ret_why = WHY_PORT;
		if (rest.len == 0 || rest.ptr[0] != ':')
			return -EINVAL;
		port = slice_of(rest.ptr + 1, rest.len - 1);
		return parse_in6(text, host, port, ret, ret_why);
	}
	if (slice_cut(&rest, ':', &host))
		return parse_in4(text, host, rest, ret, ret_why);
	*ret_why = for_listen ? WHY_LISTEN : WHY_SOCKET;
	return -EINVAL;
}

/* Networks */

/* True if no bit behind the prefix is set: 10.0.0.1/8 is more likely a mistake than meant. */
static bool is_network(const uint8_t *bytes, unsigned family_bytes, unsigned prefix_bits)
{
	for (unsigned bit = prefix_bits; bit < family_bytes * 8; bit++)
		if (bytes[bit / 8] & (0x80 >> bit % 8))
			return false;
	return true;
}

static const char *parse_ip_network(struct slice text, struct conf_network *n)
{
	struct slice rest = text, address;
	bool has_prefix = slice_cut(&rest, '/', &address);
	uint64_t bits;

	if (!has_prefix)
		address = text;
	if (parse_ip(AF_INET, address, n->bytes))
		n->family_bytes = 4;
	else if (parse_ip(AF_INET6, address, n->bytes))
		n->family_bytes = 16;
	else
		return WHY_NETWORK;
	bits = n->family_bytes * 8u;
	if (has_prefix && (rest.len > 3 || !slice_to_u64(rest, &bits) || bits > n->family_bytes * 8u))
		return WHY_PREFIX;
	n->prefix_bits = (uint8_t)bits;
	if (n->family_bytes == 16 && bits >= 96 && memcmp(n->bytes, mapped_prefix, sizeof(mapped_prefix)) == 0)
		return WHY_MAPPED;
	return is_network(n->bytes, n->family_bytes, n->prefix_bits) ? NULL : WHY_HOST;
}

int network_parse(struct slice text, struct conf_network *ret, const char **ret_why)
{
	struct conf_network n = { .is_unix = slice_eq(text, SLICE("unix")) };

	*ret_why = n.is_unix ? NULL : parse_ip_network(text, &n);
	if (*ret_why)
		return -EINVAL;
	n.text = slice_dup(text);
	if (!n.text)
		return -ENOMEM;
	*ret = n;
	return 0;
}

static bool covers(const struct conf_network *n, const uint8_t *bytes, unsigned family_bytes)
{
	unsigned whole = n->prefix_bits / 8, rest = n->prefix_bits % 8;

	if (n->is_unix || n->family_bytes != family_bytes || memcmp(n->bytes, bytes, whole) != 0)
		return false;
	return rest == 0 || ((n->bytes[whole] ^ bytes[whole]) >> (8 - rest)) == 0;
}

bool conf_network_has(const struct conf_network *networks, size_t count, const struct sockaddr *addr)
{
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
	const uint8_t *bytes = NULL;
	unsigned family_bytes = 0;

	/* Copied: what stands behind a struct sockaddr need not be aligned for its own type. */
	if (addr->sa_family == AF_INET) {
		memcpy(&in4, addr, sizeof(in4));
		bytes = (const uint8_t *)&in4.sin_addr;
		family_bytes = 4;
	} else if (addr->sa_family == AF_INET6) {
		memcpy(&in6, addr, sizeof(in6));
		bytes = in6.sin6_addr.s6_addr;
		family_bytes = 16;
		if (memcmp(bytes, mapped_prefix, sizeof(mapped_prefix)) == 0) {
			bytes += sizeof(mapped_prefix);
			family_bytes = 4;
		}
	}
	for (size_t i = 0; i < count; i++)
		if (bytes ? covers(&networks[i], bytes, family_bytes) : networks[i].is_unix && addr->sa_family == AF_UNIX)
			return true;
	return false;
}
