/*
 * http: HTTP/1.1 to a worker, one request at a time on a connection.
 * Never: lets pass what RFC 9112 calls invalid; keeps a connection on which more came than the response.
 */
#include "upstream/protocol/protocol.h"

#define INTERIM_MAX 16 /* 1xx responses before a final one; RFC 9110, 15.2 has no number */

static const struct http1_limits limits = { .head_max_bytes = 64u << 10, .line_max_bytes = 16u << 10, .fields_max = 500 };

struct http_state {
	struct http1_scan scan;
	struct http1_message message;
	struct chunked chunked;
	uint64_t left; /* of a response with a length */
	uint8_t interim;
	bool head_seen;
};

static int http_start(struct attempt *a, void *state UNUSED)
{
	struct buf *out = attempt_out(a);

	buf_borrow(out, buf_slice(&attempt_request(a)->wire), out->max); /* the attempt holds the request */
	return 0;
}

/* A response has ended: what stands behind it nobody asked for. A worker that sends it cannot be trusted with its length either. */
static int http_whole(struct attempt *a, const struct http_state *s, const struct slice *in, const char **ret_why)
{
	if (in->len > 0) {
		*ret_why = "bytes behind the response";
		return -EPROTO;
	}
	attempt_got_whole(a, s->message.keep_alive);
	return 0;
}

static int take_length(struct attempt *a, struct http_state *s, struct slice *in, const char **ret_why)
{
	size_t n = (size_t)MIN(s->left, in->len);

	attempt_got_content(a, slice_of(in->ptr, n));
	in->ptr += n;
	in->len -= n;
	s->left -= n;
	if (s->left == 0)
		return http_whole(a, s, in, ret_why);
	attempt_got_raw(a, s->left);
	s->left = 0;
	return 0;
}

static int take_chunks(struct attempt *a, struct http_state *s, struct slice *in, const char **ret_why)
{
	enum http1_result r;
	struct slice data;

	while ((r = chunked_decode(&s->chunked, in, &data)) == HTTP1_MORE && data.len > 0)
		attempt_got_content(a, data);
	if (r == HTTP1_OK)
		return http_whole(a, s, in, ret_why);
	if (r != HTTP1_MORE) {
		*ret_why = http1_reason(r);
		return -EPROTO;
	}
	if (chunked_data_left(&s->chunked) > 0) {
		attempt_got_raw(a, chunked_data_left(&s->chunked));
		chunked_skip(&s->chunked, chunked_data_left(&s->chunked));
	}
	return 0;
}

/* A response of which nothing tells the end but the connection's, or that is no HTTP any more. */
static int take_all(struct attempt *a, struct slice *in)
{
	attempt_got_content(a, *in);
	in->ptr += in->len;
	in->len = 0;
	attempt_got_raw(a, UINT64_MAX);
	return 0;
}

static int take_content(struct attempt *a, struct http_state *s, struct slice *in, const char **ret_why)
{
	switch (s->message.framing) {
	case FRAMING_NONE:
		if (s->message.has_length && s->message.length == 0)
			return http_whole(a, s, in, ret_why);
		/*
		 * HEAD, 204 and 304: applications yield content all the same, and gunicorn sends it (20.1, tried). It is nobody's
		 * answer, not the next request's either, so the link goes.
		 */
		attempt_got_whole(a, false); /* it may still be on its way: nobody else's answer may stand behind it */
		return 0;
	case FRAMING_LENGTH:
		return take_length(a, s, in, ret_why);
	case FRAMING_CHUNKED:
		return take_chunks(a, s, in, ret_why);
	case FRAMING_CLOSE:
	case FRAMING_TUNNEL:
		return take_all(a, in);
	}
	return -EPROTO;
}

static const char *head_refused(struct attempt *a, struct http_state *s, const struct head *h)
{
	if (h->status == 101 && !attempt_request(a)->upgrade)
		return "101 that nobody asked for";
	if (h->status < 200 && h->status != 101 && ++s->interim > INTERIM_MAX)
		return "too many interim responses";
	if (s->message.framing == FRAMING_CLOSE && attempt_pool_conf(a)->require_length)
		return "response without a length (require_length)";
	return NULL;
}

/* True: the final head is seen. */
static int take_head(struct attempt *a, struct http_state *s, struct slice *in, const char **ret_why)
{
	struct head h;
	size_t len;
	enum http1_result r = http1_scan(&s->scan, *in, &limits, &len);
	bool interim;

	if (r == HTTP1_MORE)
		return -EAGAIN;
	head_init(&h);
	if (r == HTTP1_OK && head_reserve(&h, len + 1, s->scan.lines) != 0)
		r = HTTP1_NO_MEMORY;
	if (r == HTTP1_OK)
		r = http1_response(slice_of(in->ptr, len), attempt_request(a)->head.method, &h, &s->message);
	*ret_why = r == HTTP1_OK ? head_refused(a, s, &h) : http1_reason(r);
	if (*ret_why) {
		head_done(&h);
		return -EPROTO;
	}
	in->ptr += len;
	in->len -= len;
	s->scan = (struct http1_scan){ 0 };
	interim = h.status < 200 && h.status != 101;
	s->head_seen = !interim;
	s->left = s->message.length;
	attempt_got_head(a, &h, &s->message);
	return 0;
}

static int http_take(struct attempt *a, void *state, struct slice *in, int *fd UNUSED, const char **ret_why)
{
	struct http_state *s = state;
	int err;

	while (!s->head_seen) {
		err = take_head(a, s, in, ret_why);
		if (err)
			return err == -EAGAIN ? 0 : err;
	}
	return take_content(a, s, in, ret_why);
}

static int http_eof(struct attempt *a UNUSED, void *state)
{
	const struct http_state *s = state;

	return s->head_seen && (s->message.framing == FRAMING_CLOSE || s->message.framing == FRAMING_TUNNEL) ? 0 : -EPROTO;
}

static enum begun http_begun(struct attempt *a UNUSED, void *state UNUSED)
{
	return BEGUN_UNKNOWN; /* only the kernel knows (attempt.c) */
}

const struct protocol protocol_http = {
	.name = "http",
	.state_bytes = sizeof(struct http_state),
	.start = http_start,
	.take = http_take,
	.eof = http_eof,
	.begun = http_begun,
};
