/*
 * A parsed head written again as it is, to be parsed once more: for the tests of the parser.
 */
#ifndef FOREBAY_TESTS_WRITE_HEAD_H
#define FOREBAY_TESTS_WRITE_HEAD_H

#include "core/http1.h"

static inline void write_fields(const struct head *h, struct buf *out)
{
	for (unsigned i = 0; i < h->field_count; i++)
		http1_write_field(out, head_name(h, i), head_value(h, i));
	http1_write_end(out);
}

static inline void write_request(const struct head *h, struct buf *out)
{
	http1_write_request_line(out, head_text(h, h->method_text), head_text(h, h->target), NULL);
	write_fields(h, out);
}

static inline void write_response(const struct head *h, struct buf *out)
{
	http1_write_status_line(out, h->status, head_text(h, h->reason));
	write_fields(h, out);
}

#endif
