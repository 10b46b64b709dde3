/*
 * Any bytes as chunked content: in one piece, in two, and byte by byte the content and the answer are the same, and what was
 * decoded is what comes back when it is written as chunks again.
 */
#include <stdlib.h>

#include "core/http1.h"

struct outcome {
	enum http1_result result;
	size_t used;
	struct buf content;
};

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void decode_piece(struct chunked *c, struct slice piece, struct outcome *o)
{
	struct slice in = piece, data;

	do {
		o->result = chunked_decode(c, &in, &data);
		buf_add(&o->content, data);
	} while (o->result == HTTP1_MORE && data.len);
	must(o->result != HTTP1_MORE || in.len == 0);
	o->used += piece.len - in.len;
}

/* `first` bytes, then `step` at a time. */
static void decode(struct slice bytes, size_t first, size_t step, struct outcome *o)
{
	struct chunked c = { 0 };
	size_t at = 0, n = first;

	*o = (struct outcome){ .result = HTTP1_MORE };
	buf_init(&o->content, bytes.len);
	do {
		decode_piece(&c, slice_of(bytes.ptr + at, n), o);
		at += n;
		n = MIN(step, bytes.len - at);
	} while (o->result == HTTP1_MORE && n);
	must(!o->content.failed);
}

static void must_be_same(const struct outcome *a, const struct outcome *b)
{
	must(a->result == b->result && a->used == b->used);
	must(slice_eq(buf_slice(&a->content), buf_slice(&b->content)));
}

static void check_written(const struct outcome *o)
{
	struct outcome again;
	struct buf text;

	buf_init(&text, o->content.len + 100);
	if (o->content.len)
		buf_printf(&text, "%zx\r\n", o->content.len);
	buf_add(&text, buf_slice(&o->content));
	buf_add(&text, o->content.len ? SLICE("\r\n0\r\n\r\n") : SLICE("0\r\n\r\n"));
	decode(buf_slice(&text), text.len, 1, &again);
	must(again.result == HTTP1_OK && slice_eq(buf_slice(&again.content), buf_slice(&o->content)));
	buf_done(&again.content);
	buf_done(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, two, bytewise;
	struct slice bytes;

	if (size < 2)
		return 0;
	bytes = (struct slice){ (const char *)data + 1, size - 1 };
	decode(bytes, bytes.len, 1, &whole);
	decode(bytes, MIN((size_t)data[0], bytes.len), bytes.len, &two);
	decode(bytes, 0, 1, &bytewise);
	must_be_same(&whole, &two);
	must_be_same(&whole, &bytewise);
	if (whole.result == HTTP1_OK)
		check_written(&whole);
	buf_done(&whole.content);
	buf_done(&two.content);
	buf_done(&bytewise.content);
	return 0;
}
