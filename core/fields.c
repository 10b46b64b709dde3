#include "core/fields.h"

#include <arpa/inet.h>

#define HOST_BYTES_MAX 255 /* more than any name of the DNS has */
#define PORT_DIGITS    5

/* reg-name but for the percent sign (RFC 3986, 3.2.2). Without the comma: that is how two Host fields look once merged. */
static bool is_reg_name_byte(unsigned char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c && strchr("-._~!$&'()*+;=", c));
}

static bool is_hex(unsigned char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

bool field_name_ok(struct slice name)
{
	return slice_is_token(name);
}

static bool text_bytes_ok(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

/* Eight bytes at once: whether one of them is below a space or DEL, by the borrow into its highest bit. */
static bool word_is_plain(uint64_t word)
{
	const uint64_t ones = 0x0101010101010101, highs = ones * 0x80;
	uint64_t del = word ^ ones * 0x7f;

	return (((word - ones * 0x20) & ~word) & highs) == 0 && (((del - ones) & ~del) & highs) == 0;
}

static bool eight_ok(const char *text)
{
	uint64_t word;

	memcpy(&word, text, sizeof(word));
	return word_is_plain(word) || text_bytes_ok(text, sizeof(word)); /* a tab is neither */
}

/* Four to eight bytes, as two words that may overlap. */
static bool four_to_eight_ok(const char *text, size_t len)
{
	uint32_t first, last;

	memcpy(&first, text, sizeof(first));
	memcpy(&last, text + len - sizeof(last), sizeof(last));
	return word_is_plain((uint64_t)first << 32 | last) || text_bytes_ok(text, len);
}

bool field_text_ok(struct slice text)
{
	if (text.len < 4)
		return text_bytes_ok(text.ptr, text.len);
	if (text.len < 8)
		return four_to_eight_ok(text.ptr, text.len);
	for (size_t i = 0; i + 8 < text.len; i += 8)
		if (!eight_ok(text.ptr + i))
			return false;
	return eight_ok(text.ptr + text.len - 8); /* it may overlap the one before it */
}

bool field_value_ok(struct slice value)
{
	return slice_trim_ows(value).len == value.len && field_text_ok(value);
}

static bool reg_name_ok(struct slice name)
{
	for (size_t i = 0; i < name.len; i++) {
		if (is_reg_name_byte((unsigned char)name.ptr[i]))
			continue;
		if (name.ptr[i] != '%' || name.len - i < 3)
			return false;
		if (!is_hex((unsigned char)name.ptr[i + 1]) || !is_hex((unsigned char)name.ptr[i + 2]))
			return false;
		i += 2;
	}
	return name.len > 0;
}

/* The text between the brackets: no zone, which is nobody's business but the sender's, and no IPvFuture. */
static bool ipv6_ok(struct slice address)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr unused;

	if (address.len >= sizeof(text) || (address.len && memchr(address.ptr, '\0', address.len)))
		return false;
	if (address.len)
		memcpy(text, address.ptr, address.len);
	text[address.len] = '\0';
	return inet_pton(AF_INET6, text, &unused) == 1;
}

/* Bytes of the host part, brackets included: an IPv6 address has colons of its own. */
static size_t host_len(struct slice authority)
{
	char end = authority.len && authority.ptr[0] == '[' ? ']' : ':';
	const char *at = authority.len ? memchr(authority.ptr, end, authority.len) : NULL;

	if (!at)
		return authority.len;
	return (size_t)(at - authority.ptr) + (end == ']');
}

/* What stands behind the host: nothing, or a colon and maybe a port. */
static bool port_part_ok(struct slice part)
{
	uint64_t port;

	if (part.len == 0 || (part.len == 1 && part.ptr[0] == ':'))
		return true;
	if (part.ptr[0] != ':' || part.len > 1 + PORT_DIGITS)
		return false;
	return slice_to_u64((struct slice){ part.ptr + 1, part.len - 1 }, &port) && port >= 1 && port <= 65535;
}

bool field_host_ok(struct slice host)
{
	size_t len = host_len(host);

	if (len == 0 || len > HOST_BYTES_MAX)
		return false;
	if (!port_part_ok((struct slice){ host.ptr + len, host.len - len }))
		return false;
	if (host.ptr[0] != '[')
		return reg_name_ok((struct slice){ host.ptr, len });
	return len > 2 && host.ptr[len - 1] == ']' && ipv6_ok((struct slice){ host.ptr + 1, len - 2 });
}

void field_host_split(struct slice authority, struct slice *ret_host, struct slice *ret_port)
{
	size_t len = host_len(authority);

	*ret_host = (struct slice){ authority.ptr, len };
	*ret_port = SLICE("");
	if (authority.len > len + 1)
		*ret_port = (struct slice){ authority.ptr + len + 1, authority.len - len - 1 };
}

/* Wider than RFC 3986 by the likes of '|' and '{', which browsers send as they are in queries. */
bool field_target_ok(struct slice target)
{
	for (size_t i = 0; i < target.len; i++) {
		unsigned char c = (unsigned char)target.ptr[i];

		if (c <= 0x20 || c >= 0x7f || c == '#')
			return false;
	}
	return target.len > 0;
}
