#include "proxy/serve/request_id.h"

static char *put_hex(char *to, uint64_t n, unsigned digits)
{
	for (unsigned i = digits; i > 0; i--, n >>= 4)
		to[i - 1] = "0123456789abcdef"[n & 15];
	return to + digits;
}

static unsigned hex_digits(uint64_t n)
{
	return n ? (67 - (unsigned)__builtin_clzll(n)) / 4 : 1;
}

void request_id_make(uint64_t seed, unsigned thread, uint64_t count, char ret[static REQUEST_ID_BYTES])
{
	char *to = put_hex(ret, seed, 16);

	*to++ = '-';
	to = put_hex(to, thread, hex_digits(thread));
	*to++ = '-';
	to = put_hex(to, count, hex_digits(count));
	*to = '\0';
}

static bool is_id_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool request_id_ok(struct slice id)
{
	for (size_t i = 0; i < id.len; i++)
		if (!is_id_byte(id.ptr[i]))
			return false;
	return id.len > 0 && id.len <= REQUEST_ID_MAX;
}
