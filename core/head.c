#include "core/head.h"

#include <stdlib.h>

#define TEXT_MAX        (16u << 20) /* bytes */
#define FIELDS_MAX      65535u
#define TEXT_FIRST      512
#define FIELDS_FIRST    16
#define MALLOC_OVERHEAD 16 /* bytes that the allocator keeps for itself, about */

static const struct slice field_names[FIELD_ID_COUNT] = {
	[FIELD_OTHER] = SLICE_INIT(""),
	[FIELD_ACCEPT] = SLICE_INIT("accept"),
	[FIELD_CONNECTION] = SLICE_INIT("connection"),
	[FIELD_CONTENT_LENGTH] = SLICE_INIT("content-length"),
	[FIELD_CONTENT_TYPE] = SLICE_INIT("content-type"),
	[FIELD_COOKIE] = SLICE_INIT("cookie"),
	[FIELD_DATE] = SLICE_INIT("date"),
	[FIELD_EXPECT] = SLICE_INIT("expect"),
	[FIELD_FORWARDED] = SLICE_INIT("forwarded"),
	[FIELD_HOST] = SLICE_INIT("host"),
	[FIELD_HTTP2_SETTINGS] = SLICE_INIT("http2-settings"),
	[FIELD_KEEP_ALIVE] = SLICE_INIT("keep-alive"),
	[FIELD_MAX_FORWARDS] = SLICE_INIT("max-forwards"),
	[FIELD_PROXY] = SLICE_INIT("proxy"),
	[FIELD_PROXY_AUTHENTICATE] = SLICE_INIT("proxy-authenticate"),
	[FIELD_PROXY_AUTHORIZATION] = SLICE_INIT("proxy-authorization"),
	[FIELD_PROXY_CONNECTION] = SLICE_INIT("proxy-connection"),
	[FIELD_REFERER] = SLICE_INIT("referer"),
	[FIELD_RETRY_AFTER] = SLICE_INIT("retry-after"),
	[FIELD_SERVER] = SLICE_INIT("server"),
	[FIELD_TE] = SLICE_INIT("te"),
	[FIELD_TRAILER] = SLICE_INIT("trailer"),
	[FIELD_TRANSFER_ENCODING] = SLICE_INIT("transfer-encoding"),
	[FIELD_UPGRADE] = SLICE_INIT("upgrade"),
	[FIELD_USER_AGENT] = SLICE_INIT("user-agent"),
	[FIELD_VIA] = SLICE_INIT("via"),
	[FIELD_X_ACCEL_BUFFERING] = SLICE_INIT("x-accel-buffering"),
	[FIELD_X_FORWARDED_FOR] = SLICE_INIT("x-forwarded-for"),
	[FIELD_X_FORWARDED_HOST] = SLICE_INIT("x-forwarded-host"),
	[FIELD_X_FORWARDED_PROTO] = SLICE_INIT("x-forwarded-proto"),
	[FIELD_X_REQUEST_ID] = SLICE_INIT("x-request-id"),
	[FIELD_X_REQUEST_START] = SLICE_INIT("x-request-start"),
};

/* The ids of each length of name, FIELD_OTHER behind the last: at most three names are compared, mostly none. */
static const uint8_t ids_by_length[][4] = {
	[2] = { FIELD_TE },
	[3] = { FIELD_VIA },
	[4] = { FIELD_HOST, FIELD_DATE },
	[5] = { FIELD_PROXY },
	[6] = { FIELD_ACCEPT, FIELD_COOKIE, FIELD_EXPECT, FIELD_SERVER },
	[7] = { FIELD_REFERER, FIELD_UPGRADE, FIELD_TRAILER },
	[9] = { FIELD_FORWARDED },
	[10] = { FIELD_CONNECTION, FIELD_USER_AGENT, FIELD_KEEP_ALIVE },
	[11] = { FIELD_RETRY_AFTER },
	[12] = { FIELD_CONTENT_TYPE, FIELD_X_REQUEST_ID, FIELD_MAX_FORWARDS },
	[14] = { FIELD_CONTENT_LENGTH, FIELD_HTTP2_SETTINGS },
	[15] = { FIELD_X_FORWARDED_FOR, FIELD_X_REQUEST_START },
	[16] = { FIELD_X_FORWARDED_HOST, FIELD_PROXY_CONNECTION },
	[17] = { FIELD_TRANSFER_ENCODING, FIELD_X_FORWARDED_PROTO, FIELD_X_ACCEL_BUFFERING },
	[18] = { FIELD_PROXY_AUTHENTICATE },
	[19] = { FIELD_PROXY_AUTHORIZATION },
};

static const struct {
	struct slice name;
	bool idempotent; /* RFC 9110, 9.2.2 */
} methods[METHOD_COUNT] = {
	[METHOD_OTHER] = { SLICE_INIT(""), false },
	[METHOD_GET] = { SLICE_INIT("GET"), true },
	[METHOD_HEAD] = { SLICE_INIT("HEAD"), true },
	[METHOD_POST] = { SLICE_INIT("POST"), false },
	[METHOD_PUT] = { SLICE_INIT("PUT"), true },
	[METHOD_DELETE] = { SLICE_INIT("DELETE"), true },
	[METHOD_OPTIONS] = { SLICE_INIT("OPTIONS"), true },
	[METHOD_TRACE] = { SLICE_INIT("TRACE"), true },
	[METHOD_CONNECT] = { SLICE_INIT("CONNECT"), false },
	[METHOD_PATCH] = { SLICE_INIT("PATCH"), false },
};

static const struct {
	uint16_t status;
	struct slice reason;
} reasons[] = {
	{ 200, SLICE_INIT("OK") },
	{ 404, SLICE_INIT("Not Found") },
	{ 302, SLICE_INIT("Found") },
	{ 304, SLICE_INIT("Not Modified") },
	{ 100, SLICE_INIT("Continue") },
	{ 101, SLICE_INIT("Switching Protocols") },
	{ 102, SLICE_INIT("Processing") },
	{ 103, SLICE_INIT("Early Hints") },
	{ 201, SLICE_INIT("Created") },
	{ 202, SLICE_INIT("Accepted") },
	{ 203, SLICE_INIT("Non-Authoritative Information") },
	{ 204, SLICE_INIT("No Content") },
	{ 205, SLICE_INIT("Reset Content") },
	{ 206, SLICE_INIT("Partial Content") },
	{ 207, SLICE_INIT("Multi-Status") },
	{ 208, SLICE_INIT("Already Reported") },
	{ 226, SLICE_INIT("IM Used") },
	{ 300, SLICE_INIT("Multiple Choices") },
	{ 301, SLICE_INIT("Moved Permanently") },
	{ 303, SLICE_INIT("See Other") },
	{ 305, SLICE_INIT("Use Proxy") },
	{ 307, SLICE_INIT("Temporary Redirect") },
	{ 308, SLICE_INIT("Permanent Redirect") },
	{ 400, SLICE_INIT("Bad Request") },
	{ 401, SLICE_INIT("Unauthorized") },
	{ 402, SLICE_INIT("Payment Required") },
	{ 403, SLICE_INIT("Forbidden") },
	{ 405, SLICE_INIT("Method Not Allowed") },
	{ 406, SLICE_INIT("Not Acceptable") },
	{ 407, SLICE_INIT("Proxy Authentication Required") },
	{ 408, SLICE_INIT("Request Timeout") },
	{ 409, SLICE_INIT("Conflict") },
	{ 410, SLICE_INIT("Gone") },
	{ 411, SLICE_INIT("Length Required") },
	{ 412, SLICE_INIT("Precondition Failed") },
	{ 413, SLICE_INIT("Content Too Large") },
	{ 414, SLICE_INIT("URI Too Long") },
	{ 415, SLICE_INIT("Unsupported Media Type") },
	{ 416, SLICE_INIT("Range Not Satisfiable") },
	{ 417, SLICE_INIT("Expectation Failed") },
	{ 421, SLICE_INIT("Misdirected Request") },
	{ 422, SLICE_INIT("Unprocessable Content") },
	{ 423, SLICE_INIT("Locked") },
	{ 424, SLICE_INIT("Failed Dependency") },
	{ 425, SLICE_INIT("Too Early") },
	{ 426, SLICE_INIT("Upgrade Required") },
	{ 428, SLICE_INIT("Precondition Required") },
	{ 429, SLICE_INIT("Too Many Requests") },
	{ 431, SLICE_INIT("Request Header Fields Too Large") },
	{ 451, SLICE_INIT("Unavailable For Legal Reasons") },
	{ 500, SLICE_INIT("Internal Server Error") },
	{ 501, SLICE_INIT("Not Implemented") },
	{ 502, SLICE_INIT("Bad Gateway") },
	{ 503, SLICE_INIT("Service Unavailable") },
	{ 504, SLICE_INIT("Gateway Timeout") },
	{ 505, SLICE_INIT("HTTP Version Not Supported") },
	{ 506, SLICE_INIT("Variant Also Negotiates") },
	{ 507, SLICE_INIT("Insufficient Storage") },
	{ 508, SLICE_INIT("Loop Detected") },
	{ 511, SLICE_INIT("Network Authentication Required") },
};

void head_init(struct head *h)
{
	*h = (struct head){ .fields = NULL };
}

/* One block holds the fields and behind them the text; it begins at h->fields, also when there is room for none. */
void head_done(struct head *h)
{
	free(h->fields);
	head_init(h);
}

static int move_to_block(struct head *h, size_t text_size, size_t field_size)
{
	struct field *block = malloc(field_size * sizeof(struct field) + MAX(text_size, (size_t)1));

	if (!block)
		return -ENOMEM;
	if (h->fields)
		memcpy(block, h->fields, h->field_count * sizeof(struct field));
	if (h->text_len)
		memcpy((char *)(block + field_size), h->text, h->text_len);
	free(h->fields);
	h->fields = block;
	h->field_size = (uint16_t)field_size;
	h->text = (char *)(block + field_size);
	h->text_size = (uint32_t)text_size;
	return 0;
}

int head_reserve(struct head *h, size_t text_bytes, size_t fields)
{
	if (text_bytes > TEXT_MAX - h->text_len || fields > FIELDS_MAX - h->field_count)
		return -E2BIG;
	if (h->fields && h->text_len + text_bytes <= h->text_size && h->field_count + fields <= h->field_size)
		return 0;
	return move_to_block(
	    h, MAX(h->text_len + text_bytes, (size_t)h->text_size), MAX(h->field_count + fields, (size_t)h->field_size));
}

/* As head_reserve, but with room to spare for more of the same: whoever calls adds one by one. */
static int make_room(struct head *h, size_t text_bytes, size_t fields)
{
	size_t text_size = h->text_size, field_size = h->field_size;

	if (text_bytes > TEXT_MAX - h->text_len || fields > FIELDS_MAX - h->field_count)
		return -E2BIG;
	if (h->fields && h->text_len + text_bytes <= text_size && h->field_count + fields <= field_size)
		return 0;
	if (h->text_len + text_bytes > text_size)
		text_size = MIN(MAX(h->text_len + text_bytes, MAX(text_size * 2, (size_t)TEXT_FIRST)), (size_t)TEXT_MAX);
	if (!h->fields || h->field_count + fields > field_size) /* the first text is followed by fields */
		field_size = MIN(MAX(field_size * 2, (size_t)FIELDS_FIRST), (size_t)FIELDS_MAX);
	return move_to_block(h, text_size, field_size);
}

size_t head_memory(const struct head *h)
{
	return h->fields ? h->field_size * sizeof(struct field) + h->text_size + MALLOC_OVERHEAD : 0;
}

/* There is room. Text of the head's own would have died when the room was made. */
static struct span put(struct head *h, struct slice text)
{
	struct span span = { h->text_len, (uint32_t)text.len };

	if (text.len)
		memcpy(h->text + h->text_len, text.ptr, text.len);
	h->text_len += (uint32_t)text.len;
	return span;
}

int head_put(struct head *h, struct slice text, struct span *ret)
{
	int err = text.len > h->text_size - h->text_len || !h->fields ? make_room(h, text.len, 0) : 0;

	if (err)
		return err;
	*ret = put(h, text);
	return 0;
}

int head_add(struct head *h, struct slice name, struct slice value)
{
	return head_add_id(h, field_id_from(name), name, value);
}

int head_add_id(struct head *h, enum field_id id, struct slice name, struct slice value)
{
	size_t room = h->text_size - h->text_len;
	int err;

	if (h->field_count == h->field_size || name.len > room || value.len > room - name.len) {
		if (name.len > TEXT_MAX || value.len > TEXT_MAX)
			return -E2BIG;
		err = make_room(h, name.len + value.len, 1);
		if (err)
			return err;
	}
	h->fields[h->field_count].name = put(h, name);
	h->fields[h->field_count].value = put(h, value);
	h->fields[h->field_count++].id = (uint8_t)id;
	h->ids |= 1ull << id;
	return 0;
}

int head_add_spans(struct head *h, struct span name, struct span value)
{
	enum field_id id;
	int err = h->field_count == h->field_size ? make_room(h, 0, 1) : 0;

	if (err)
		return err;
	id = field_id_from(head_text(h, name));
	h->fields[h->field_count++] = (struct field){ .name = name, .value = value, .id = (uint8_t)id };
	h->ids |= 1ull << id;
	return 0;
}

static_assert(FIELD_ID_COUNT <= 64, "head.ids");

int head_find(const struct head *h, enum field_id id, unsigned from)
{
	if (!(h->ids & 1ull << id))
		return -1;
	for (unsigned i = from; i < h->field_count; i++)
		if (h->fields[i].id == id)
			return (int)i;
	return -1;
}

struct slice head_get(const struct head *h, enum field_id id)
{
	int i = head_find(h, id, 0);

	return i < 0 ? SLICE("") : head_value(h, (unsigned)i);
}

bool head_has_element(const struct head *h, enum field_id id, struct slice element)
{
	for (int i = head_find(h, id, 0); i >= 0; i = head_find(h, id, (unsigned)i + 1)) {
		struct slice list = head_value(h, (unsigned)i), found;

		while (slice_next_element(&list, &found))
			if (slice_eq_nocase(found, element))
				return true;
	}
	return false;
}

bool method_is_idempotent(enum method m)
{
	return methods[m].idempotent;
}

enum method method_from(struct slice text)
{
	for (unsigned m = METHOD_OTHER + 1; m < METHOD_COUNT; m++)
		if (slice_eq(text, methods[m].name))
			return m;
	return METHOD_OTHER;
}

static bool is_named_4(const char *token, const char *lower)
{
	uint32_t a, b;

	memcpy(&a, token, sizeof(a));
	memcpy(&b, lower, sizeof(b));
	return (a | 0x20202020) == b;
}

static bool is_named_8(const char *token, const char *lower)
{
	uint64_t a, b;

	memcpy(&a, token, sizeof(a));
	memcpy(&b, lower, sizeof(b));
	return (a | 0x2020202020202020) == b;
}

/*
 * A token and a name in lower case of the same length. No byte of a token but a letter becomes one of the names' by setting
 * bit 5: CR would become '-', and what would become a digit is a control byte.
 */
static bool is_named(const char *token, const char *lower, size_t len)
{
	if (len < 4) {
		for (size_t i = 0; i < len; i++)
			if ((token[i] | 0x20) != lower[i])
				return false;
		return true;
	}
	if (len < 8) /* the two may overlap, as the last of the following may with the one before it */
		return is_named_4(token, lower) && is_named_4(token + len - 4, lower + len - 4);
	for (size_t i = 0; i + 8 < len; i += 8)
		if (!is_named_8(token + i, lower + i))
			return false;
	return is_named_8(token + len - 8, lower + len - 8);
}

enum field_id field_id_from(struct slice name)
{
	if (name.len >= ARRAY_LEN(ids_by_length))
		return FIELD_OTHER;
	for (unsigned i = 0; i < ARRAY_LEN(ids_by_length[0]); i++) {
		enum field_id id = ids_by_length[name.len][i];

		if (id == FIELD_OTHER)
			break;
		if (is_named(name.ptr, field_names[id].ptr, name.len))
			return id;
	}
	return FIELD_OTHER;
}

bool field_is_of_connection(enum field_id id)
{
	switch (id) {
	case FIELD_CONNECTION:
	case FIELD_HTTP2_SETTINGS:
	case FIELD_KEEP_ALIVE:
	case FIELD_PROXY_CONNECTION:
	case FIELD_TE:
	case FIELD_TRAILER:
	case FIELD_TRANSFER_ENCODING:
	case FIELD_UPGRADE:
		return true;
	default:
		return false;
	}
}

struct slice field_id_name(enum field_id id)
{
	return field_names[id];
}

struct slice status_reason(unsigned status)
{
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return SLICE("");
}
