#include "upstream/worker/wire.h"

#include <endian.h>

#include "core/fields.h"
#include "core/head.h"

#define PAIR_HEADER_BYTES 8
#define HEAD_HEADER_BYTES 4

static const struct {
	uint32_t min, max; /* payload bytes */
	uint8_t flags;     /* allowed */
	uint8_t required;  /* of these */
} limits[] = {
	[WIRE_HELLO] = { WIRE_HELLO_BYTES, WIRE_HELLO_BYTES, 0, 0 },
	[WIRE_REQUEST] = { 4, WIRE_REQUEST_MAX, WIRE_DESCRIPTOR, 0 },
	[WIRE_HEAD] = { HEAD_HEADER_BYTES, WIRE_HEAD_MAX, 0, 0 },
	[WIRE_DATA] = { 1, WIRE_DATA_MAX, 0, 0 },
	[WIRE_FILE] = { WIRE_FILE_BYTES, WIRE_FILE_BYTES, WIRE_DESCRIPTOR, WIRE_DESCRIPTOR },
	[WIRE_END] = { 0, 0, WIRE_LAST, 0 },
	[WIRE_CANCEL] = { 0, 0, 0, 0 },
};
static_assert(ARRAY_LEN(limits) == WIRE_TYPE_COUNT, "a row for each type");

void wire_put_u16(char *to, uint16_t n)
{
	n = htole16(n);
	memcpy(to, &n, sizeof(n));
}

void wire_put_u32(char *to, uint32_t n)
{
	n = htole32(n);
	memcpy(to, &n, sizeof(n));
}

void wire_put_u64(char *to, uint64_t n)
{
	n = htole64(n);
	memcpy(to, &n, sizeof(n));
}

uint16_t wire_get_u16(const char *from)
{
	uint16_t n;

	memcpy(&n, from, sizeof(n));
	return le16toh(n);
}

uint32_t wire_get_u32(const char *from)
{
	uint32_t n;

	memcpy(&n, from, sizeof(n));
	return le32toh(n);
}

uint64_t wire_get_u64(const char *from)
{
	uint64_t n;

	memcpy(&n, from, sizeof(n));
	return le64toh(n);
}

void wire_put_header(char *to, const struct wire_frame *f)
{
	to[0] = (char)f->type;
	to[1] = (char)f->flags;
	wire_put_u16(to + 2, 0);
	wire_put_u32(to + 4, f->length);
	wire_put_u64(to + 8, f->serial);
}

int wire_get_header(struct slice in, struct wire_frame *ret)
{
	struct wire_frame f;

	if (in.len < WIRE_HEADER_BYTES)
		return 0;
	f = (struct wire_frame){
		.type = (uint8_t)in.ptr[0],
		.flags = (uint8_t)in.ptr[1],
		.length = wire_get_u32(in.ptr + 4),
		.serial = wire_get_u64(in.ptr + 8),
	};
	if (f.type < WIRE_HELLO || f.type >= WIRE_TYPE_COUNT || wire_get_u16(in.ptr + 2) != 0)
		return -EPROTO;
	if ((f.flags & ~limits[f.type].flags) || (f.flags & limits[f.type].required) != limits[f.type].required)
		return -EPROTO;
	if (f.length < limits[f.type].min || f.length > limits[f.type].max || (f.type == WIRE_HELLO) != (f.serial == 0))
		return -EPROTO;
	*ret = f;
	return 1;
}

/* The first n bytes of *in, which has as many. */
static struct slice cut(struct slice *in, size_t n)
{
	struct slice got = { in->ptr, n };

	in->ptr += n;
	in->len -= n;
	return got;
}

void wire_put_pair(struct buf *out, struct slice name, struct slice value)
{
	char *to;

	if (name.len > UINT32_MAX || value.len > UINT32_MAX || name.len + value.len > SIZE_MAX - PAIR_HEADER_BYTES) {
		out->failed = true;
		return;
	}
	to = buf_room(out, PAIR_HEADER_BYTES + name.len + value.len);
	if (!to)
		return;
	wire_put_u32(to, (uint32_t)name.len);
	wire_put_u32(to + 4, (uint32_t)value.len);
	if (name.len > 0)
		memcpy(to + PAIR_HEADER_BYTES, name.ptr, name.len);
	if (value.len > 0)
		memcpy(to + PAIR_HEADER_BYTES + name.len, value.ptr, value.len);
	out->len += PAIR_HEADER_BYTES + name.len + value.len;
}

int wire_get_pair(struct slice *in, struct slice *ret_name, struct slice *ret_value)
{
	uint64_t name_len, value_len;

	if (in->len == 0)
		return 0;
	if (in->len < PAIR_HEADER_BYTES)
		return -EPROTO;
	name_len = wire_get_u32(in->ptr);
	value_len = wire_get_u32(in->ptr + 4);
	if (name_len == 0 || name_len + value_len > in->len - PAIR_HEADER_BYTES)
		return -EPROTO;
	cut(in, PAIR_HEADER_BYTES);
	*ret_name = cut(in, (size_t)name_len);
	*ret_value = cut(in, (size_t)value_len);
	return 1;
}

void wire_put_hello(struct buf *out)
{
	char *to = buf_room(out, WIRE_HEADER_BYTES + WIRE_HELLO_BYTES);

	if (!to)
		return;
	wire_put_header(to, &(struct wire_frame){ .type = WIRE_HELLO, .length = WIRE_HELLO_BYTES });
	to += WIRE_HEADER_BYTES;
	wire_put_u32(to, WIRE_MAGIC);
	wire_put_u32(to + 4, WIRE_VERSION);
	wire_put_u32(to + 8, MAX(WIRE_REQUEST_MAX, WIRE_DATA_MAX));
	wire_put_u32(to + 12, 0);
	out->len += WIRE_HEADER_BYTES + WIRE_HELLO_BYTES;
}

int wire_check_hello(struct slice payload)
{
	if (payload.len != WIRE_HELLO_BYTES || wire_get_u32(payload.ptr) != WIRE_MAGIC ||
	    wire_get_u32(payload.ptr + 4) != WIRE_VERSION)
		return -EPROTO;
	if (wire_get_u32(payload.ptr + 8) < MAX(WIRE_REQUEST_MAX, WIRE_DATA_MAX) || wire_get_u32(payload.ptr + 12) != 0)
		return -EPROTO;
	return 0;
}

static int count_pairs(struct slice pairs, size_t *ret)
{
	struct slice name, value;
	size_t n = 0;
	int got;

	while ((got = wire_get_pair(&pairs, &name, &value)) == 1)
		n++;
	*ret = n;
	return got;
}

int wire_get_request(const struct wire_frame *f, struct slice payload, struct wire_request *ret)
{
	uint32_t variables;

	if (payload.len < 4)
		return -EPROTO;
	variables = wire_get_u32(payload.ptr);
	cut(&payload, 4);
	if (variables > WIRE_VARIABLES_MAX || variables > payload.len)
		return -EPROTO;
	ret->variables = cut(&payload, variables);
	if (count_pairs(ret->variables, &ret->variable_count) != 0)
		return -EPROTO;
	if (f->flags & WIRE_DESCRIPTOR) {
		if (payload.len != 8)
			return -EPROTO;
		ret->body = slice_of("", 0);
		ret->length = wire_get_u64(payload.ptr);
		return ret->length > INT64_MAX ? -EPROTO : 0;
	}
	if (payload.len > WIRE_INLINE_MAX)
		return -EPROTO;
	ret->body = payload;
	ret->length = payload.len;
	return 0;
}

/* NULL, or why this field cannot stand in a HEAD. */
static const char *field_refused(struct slice name, struct slice value, struct wire_head *h)
{
	if (!field_name_ok(name) || !field_value_ok(value))
		return "invalid field in the worker's answer";
	if (field_is_of_connection(field_id_from(name)))
		return "connection field in the worker's answer";
	if (field_id_from(name) != FIELD_CONTENT_LENGTH)
		return NULL;
	if (h->has_length || !slice_to_u64(value, &h->length) || h->length > INT64_MAX)
		return "bad Content-Length in the worker's answer";
	h->has_length = true;
	return NULL;
}

int wire_get_head(struct slice payload, struct wire_head *ret, const char **ret_why)
{
	struct slice rest, name, value;
	unsigned fields = 0;
	int got;

	*ret = (struct wire_head){ 0 };
	*ret_why = "malformed head in the worker's answer";
	if (payload.len < HEAD_HEADER_BYTES)
		return -EPROTO;
	ret->status = wire_get_u16(payload.ptr);
	ret->field_count = wire_get_u16(payload.ptr + 2);
	cut(&payload, HEAD_HEADER_BYTES);
	ret->fields = rest = payload;
	if (ret->status != 103 && (ret->status < 200 || ret->status > 599)) {
		*ret_why = "bad status in the worker's answer";
		return -EPROTO;
	}
	while ((got = wire_get_pair(&rest, &name, &value)) == 1) {
		const char *why =
		    ++fields > WIRE_FIELDS_MAX ? "too many fields in the worker's answer" : field_refused(name, value, ret);

		if (why) {
			*ret_why = why;
			return -EPROTO;
		}
	}
	return got == 0 && fields == ret->field_count ? 0 : -EPROTO;
}

int wire_get_file(struct slice payload, struct wire_file *ret)
{
	if (payload.len != WIRE_FILE_BYTES)
		return -EPROTO;
	ret->offset = wire_get_u64(payload.ptr);
	ret->length = wire_get_u64(payload.ptr + 8);
	if (ret->length == 0 || ret->offset > INT64_MAX || ret->length > INT64_MAX - ret->offset)
		return -EPROTO;
	return 0;
}

void wire_put_file(char *to, const struct wire_file *file)
{
	wire_put_u64(to, file->offset);
	wire_put_u64(to + 8, file->length);
}
