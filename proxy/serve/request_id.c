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

void request_ids_init(struct request_ids *ids, uint64_t seed, unsigned thread)
{
	char *to;

	*ids = (struct request_ids){ 0 };
	to = put_hex(ids->start, seed, 16);

	*to++ = '-';
	to = put_hex(to, thread, hex_digits(thread));
	*to++ = '-';
	ids->start_bytes = (uint8_t)(to - ids->start);
}

void request_id_next(struct request_ids *ids, char ret[static REQUEST_ID_BYTES])
{
	uint64_t n = ids->count++;

	memcpy(ret, ids->start, sizeof(ids->start)); /* all of it: a length that is known is copied without a call */
	*put_hex(ret + ids->start_bytes, n, hex_digits(n)) = '\0';
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
