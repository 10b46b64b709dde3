/*
 * Any bytes as a request: scanned whole and in two pieces by both scanners, parsed, written and parsed again.
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

static enum http1_result scan_pieces(struct slice bytes, size_t split, bool plain, size_t *ret_len)
{
	enum http1_result (*scan)(struct http1_scan *, struct slice, const struct http1_limits *, size_t *) =
	    plain ? http1_scan_plain : http1_scan;
	struct http1_scan s = { 0 };
	enum http1_result result = scan(&s, slice_of(bytes.ptr, split), &limits, ret_len);

	return result == HTTP1_MORE ? scan(&s, bytes, &limits, ret_len) : result;
}

static enum http1_result scan_every_way(struct slice bytes, size_t split, size_t *ret_len)
{
	enum http1_result result = scan_pieces(bytes, bytes.len, false, ret_len);
	size_t len = 0;

	must(scan_pieces(bytes, split, false, &len) == result && (result != HTTP1_OK || len == *ret_len));
	must(scan_pieces(bytes, split, true, &len) == result && (result != HTTP1_OK || len == *ret_len));
	return result;
}

/* What everybody behind the parser relies on. */
static void check_head(const struct head *h, const struct http1_message *m)
{
	must(slice_is_token(head_text(h, h->method_text)));
	must(field_target_ok(head_text(h, h->target)));
	must(h->path.len > 0 && h->version >= 10 && h->version <= 11);
	must(h->authority.len == 0 || field_host_ok(head_text(h, h->authority)));
	must(m->length <= INT64_MAX && (m->framing == FRAMING_LENGTH) == (m->length > 0));
	must(m->framing <= FRAMING_CHUNKED);
	for (unsigned i = 0; i < h->field_count; i++)
		must(field_name_ok(head_name(h, i)) && field_value_ok(head_value(h, i)));
}

static void check_written(const struct head *h, const struct http1_message *m)
{
	struct http1_message again_m;
	struct buf first, second;
	struct head again;

	if (head_find(h, FIELD_HOST, 0) < 0 || h->version < 11) /* written as HTTP/1.1, where other rules hold */
		return;
	head_init(&again);
	buf_init(&first, 1u << 20);
	buf_init(&second, 1u << 20);
	write_request(h, &first);
	must(http1_request(buf_slice(&first), &again, &again_m) == HTTP1_OK);
	must(again_m.framing == m->framing && again_m.length == m->length && again_m.keep_alive == m->keep_alive);
	write_request(&again, &second);
	must(slice_eq(buf_slice(&first), buf_slice(&second)));
	head_done(&again);
	buf_done(&first);
	buf_done(&second);
}

static void parse(struct slice text)
{
	struct http1_message m;
	struct head h;

	head_init(&h);
	if (http1_request(text, &h, &m) != HTTP1_OK)
		return;
	check_head(&h, &m);
	check_written(&h, &m);
	head_done(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice bytes;
	size_t len = 0, split;

	if (size < 1)
		return 0;
	split = MIN((size_t)data[0], size - 1);
	bytes = (struct slice){ (const char *)data + 1, size - 1 };
	if (scan_every_way(bytes, split, &len) == HTTP1_OK)
		parse(slice_of(bytes.ptr, len));
	parse(bytes); /* what no scanner has seen must not hurt either */
	return 0;
}
