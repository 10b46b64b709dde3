/*
 * Any bytes as a worker's response to some method: scanned, parsed, written and parsed again.
 */
#include <stdlib.h>

#include "core/fields.h"
#include "core/http1.h"
#include "tests/write_head.h"

static const struct http1_limits limits = { .head_max_bytes = 4096, .line_max_bytes = 2048, .fields_max = 50 };

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_head(const struct head *h, const struct http1_message *m, enum method method)
{
	must(h->status >= 100 && h->status <= 599 && h->version >= 10 && h->version <= 11);
	must(field_text_ok(head_text(h, h->reason)));
	must(m->framing != FRAMING_LENGTH || (m->has_length && m->length > 0));
	must(m->framing != FRAMING_CLOSE || !m->keep_alive);
	must(method != METHOD_HEAD || m->framing == FRAMING_NONE || m->framing == FRAMING_TUNNEL);
	for (unsigned i = 0; i < h->field_count; i++)
		must(field_name_ok(head_name(h, i)) && field_value_ok(head_value(h, i)));
}

static void check_written(const struct head *h, const struct http1_message *m, enum method method)
{
	struct http1_message again_m;
	struct buf first, second;
	struct head again;

	head_init(&again);
	buf_init(&first, 1u << 20);
	buf_init(&second, 1u << 20);
	write_response(h, &first);
	must(http1_response(buf_slice(&first), method, &again, &again_m) == HTTP1_OK);
	must(again_m.framing == m->framing && again_m.length == m->length);
	write_response(&again, &second);
	must(slice_eq(buf_slice(&first), buf_slice(&second)));
	head_done(&again);
	buf_done(&first);
	buf_done(&second);
}

static void parse(struct slice text, enum method method)
{
	struct http1_message m;
	struct head h;

	head_init(&h);
	if (http1_response(text, method, &h, &m) != HTTP1_OK)
		return;
	check_head(&h, &m, method);
	check_written(&h, &m, method);
	head_done(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http1_scan s = { 0 };
	struct slice bytes;
	enum method method;
	size_t len = 0;

	if (size < 1)
		return 0;
	method = data[0] % METHOD_COUNT;
	bytes = (struct slice){ (const char *)data + 1, size - 1 };
	if (http1_scan(&s, bytes, &limits, &len) == HTTP1_OK)
		parse(slice_of(bytes.ptr, len), method);
	parse(bytes, method); /* what no scanner has seen must not hurt either */
	return 0;
}
