#include "proxy/client/proxy_header.h"

#include <arpa/inet.h>

#define V1_MAX  107 /* bytes, with its end */
#define V2_HEAD 16  /* bytes before the addresses */

static const char v2_signature[] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

enum command { LOCAL, PROXY };

static enum proxy_result bad(const char **ret_why, const char *why)
{
	*ret_why = why;
	return PROXY_BAD;
}

static bool begins_like(struct slice in, struct slice whole)
{
	return memcmp(in.ptr, whole.ptr, MIN(in.len, whole.len)) == 0;
}

/* ---- version 1 ---- */

static bool port_parse(struct slice text, in_port_t *ret)
{
	uint64_t n;

	if (text.len == 0 || text.len > 5 || (text.len > 1 && text.ptr[0] == '0') || !slice_to_u64(text, &n) || n > UINT16_MAX)
		return false;
	*ret = htons((uint16_t)n);
	return true;
}

static bool address_parse(int family, struct slice text, void *ret)
{
	char copy[INET6_ADDRSTRLEN];

	if (text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len))
		return false;
	memcpy(copy, text.ptr, text.len);
	copy[text.len] = '\0';
	return inet_pton(family, copy, ret) == 1;
}

/* Both ends must be what they claim, though only the client's is used. */
static bool ends_parse(int family, struct slice line, union peer *ret)
{
	struct slice client, here, port;
	struct in6_addr unused;
	in_port_t client_port, here_port;

	if (!slice_cut(&line, ' ', &client) || !slice_cut(&line, ' ', &here) || !slice_cut(&line, ' ', &port) ||
	    !port_parse(port, &client_port) || !port_parse(line, &here_port) || !address_parse(family, here, &unused))
		return false;
	*ret = (union peer){ 0 };
	if (family == AF_INET) {
		ret->in4.sin_family = AF_INET;
		ret->in4.sin_port = client_port;
		return address_parse(family, client, &ret->in4.sin_addr);
	}
	ret->in6.sin6_family = AF_INET6;
	ret->in6.sin6_port = client_port;
	return address_parse(family, client, &ret->in6.sin6_addr);
}

static enum proxy_result v1_line(struct slice line, struct proxy_header *ret, const char **ret_why)
{
	struct slice what;

	if (!slice_cut(&line, ' ', &what))
		what = line;
	if (slice_eq(what, SLICE("UNKNOWN")))
		return PROXY_OK; /* whatever stands behind it */
	ret->has_client = true;
	if (slice_eq(what, SLICE("TCP4")) && ends_parse(AF_INET, line, &ret->client))
		return PROXY_OK;
	if (slice_eq(what, SLICE("TCP6")) && ends_parse(AF_INET6, line, &ret->client))
		return PROXY_OK;
	return bad(ret_why, "not a line of version 1");
}

static enum proxy_result v1_parse(struct slice in, struct proxy_header *ret, const char **ret_why)
{
	struct slice rest = slice_of(in.ptr, MIN(in.len, V1_MAX)), line;

	if (!slice_cut(&rest, '\n', &line))
		return in.len >= V1_MAX ? bad(ret_why, "a line of version 1 without an end") : PROXY_MORE;
	ret->len = line.len + 1;
	if (line.ptr[line.len - 1] != '\r')
		return bad(ret_why, "a line of version 1 that does not end in CR LF");
	line.len--;
	line = slice_of(line.ptr + strlen("PROXY "), line.len - strlen("PROXY "));
	return v1_line(line, ret, ret_why);
}

/* ---- version 2 ---- */

static uint16_t u16_at(const char *bytes)
{
	uint16_t n;

	memcpy(&n, bytes, sizeof(n));
	return ntohs(n);
}

/* What follows the addresses says more about the connection (ALPN, authority, ...): not used, but it must be well-formed. */
static bool extras_ok(struct slice left)
{
	while (left.len > 0) {
		size_t len;

		if (left.len < 3)
			return false;
		len = 3 + (size_t)u16_at(left.ptr + 1);
		if (len > left.len)
			return false;
		left = slice_of(left.ptr + len, left.len - len);
	}
	return true;
}

/* Bytes of the addresses of a family; -1: none that can be at the end of a stream. */
static int v2_address_bytes(unsigned char family)
{
	switch (family) {
	case 0x00: /* AF_UNSPEC */
		return 0;
	case 0x11: /* TCP over IPv4 */
		return 12;
	case 0x21: /* TCP over IPv6 */
		return 36;
	case 0x31: /* a Unix stream */
		return 216;
	default:
		return -1;
	}
}

static void v2_client(unsigned char family, const char *addresses, struct proxy_header *ret)
{
	ret->client = (union peer){ 0 };
	if (family == 0x11) {
		ret->has_client = true;
		ret->client.in4.sin_family = AF_INET;
		memcpy(&ret->client.in4.sin_addr, addresses, 4);
		memcpy(&ret->client.in4.sin_port, addresses + 8, 2);
	} else if (family == 0x21) {
		ret->has_client = true;
		ret->client.in6.sin6_family = AF_INET6;
		memcpy(&ret->client.in6.sin6_addr, addresses, 16);
		memcpy(&ret->client.in6.sin6_port, addresses + 32, 2);
	}
}

static enum proxy_result v2_parse(struct slice in, struct proxy_header *ret, const char **ret_why)
{
	unsigned char version, family;
	int addresses;
	size_t len;

	if (in.len < V2_HEAD)
		return PROXY_MORE;
	version = (unsigned char)in.ptr[12];
	family = (unsigned char)in.ptr[13];
	len = u16_at(in.ptr + 14);
	if (version >> 4 != 2 || (version & 15) > PROXY)
		return bad(ret_why, "neither PROXY nor LOCAL of version 2");
	if (V2_HEAD + len > PROXY_HEADER_MAX)
		return bad(ret_why, "a header that is too long");
	if (in.len < V2_HEAD + len)
		return PROXY_MORE;
	ret->len = V2_HEAD + len;
	if ((version & 15) == LOCAL)
		return PROXY_OK; /* whatever it holds */
	addresses = v2_address_bytes(family);
	if (addresses < 0)
		return bad(ret_why, "an address of no stream");
	if ((size_t)addresses > len)
		return bad(ret_why, "addresses that are cut");
	/* Of AF_UNSPEC all is skipped. */
	if (family != 0x00 && !extras_ok(slice_of(in.ptr + V2_HEAD + addresses, len - (size_t)addresses)))
		return bad(ret_why, "what follows the addresses is cut");
	v2_client(family, in.ptr + V2_HEAD, ret);
	return PROXY_OK;
}

enum proxy_result proxy_header_parse(struct slice in, struct proxy_header *ret, const char **ret_why)
{
	const struct slice v1 = SLICE("PROXY "), v2 = slice_of(v2_signature, sizeof(v2_signature));

	*ret = (struct proxy_header){ 0 };
	if (in.len == 0)
		return PROXY_MORE;
	if (begins_like(in, v1))
		return in.len <= v1.len ? PROXY_MORE : v1_parse(in, ret, ret_why);
	if (begins_like(in, v2))
		return in.len <= v2.len ? PROXY_MORE : v2_parse(in, ret, ret_why);
	return bad(ret_why, "no PROXY header");
}
