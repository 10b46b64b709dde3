/*
 * worker: the front's side of a slot socket of forebay's own workers (upstream/worker/wire.h).
 * Never: carries a request that is not complete; trusts a worker, which may be anybody's application.
 */
#include <unistd.h>

#include "upstream/protocol/cgi.h"
#include "upstream/protocol/protocol.h"
#include "upstream/worker/wire.h"

#define VALUE_MAX_BYTES WIRE_VARIABLES_MAX

enum expect {
	EXPECT_HEAD,
	EXPECT_CONTENT,
	EXPECT_NOTHING, /* END has come */
};

struct worker_state {
	enum expect expect;
	uint8_t interim, files;
	bool has_length, no_content;
	uint64_t left; /* of Content-Length */
	int fd_plus_1; /* a descriptor whose frame is not all there yet; 0: none */
};

/* The request. */

static int put_variable(void *ctx, struct slice name, struct slice value)
{
	wire_put_pair(ctx, name, value);
	return 0;
}

/* Room for a header, filled in when the length is known; its offset in `out`. */
static size_t reserve(struct buf *out, size_t n)
{
	size_t at = out->len;

	if (buf_room(out, n))
		out->len += n;
	return at;
}

/* The variables with their length before them. 0 or -errno. */
static int put_variables(const struct request *r, struct buf *out)
{
	size_t at = reserve(out, 4);
	struct buf scratch;
	int err;

	buf_init(&scratch, VALUE_MAX_BYTES);
	err = cgi_each(r, &scratch, put_variable, out);
	buf_done(&scratch);
	if (err || out->failed)
		return -ENOMEM;
	if (out->len - at - 4 > WIRE_VARIABLES_MAX)
		return -E2BIG;
	wire_put_u32(out->ptr + at, (uint32_t)(out->len - at - 4));
	return 0;
}

/* A short body goes into `out` whole: what is said later (CANCEL) can never come to stand inside it. */
static int put_inline(const struct request *r, struct buf *out)
{
	struct body_cursor c;
	struct body_file file;
	enum body_peek what;
	struct iovec iov[8];
	int n;

	body_cursor_init(&c, r->body);
	while ((what = body_peek(&c, WIRE_INLINE_MAX, iov, (int)ARRAY_LEN(iov), &n, &file)) == BODY_MEMORY) {
		size_t bytes = 0;

		for (int i = 0; i < n; i++) {
			buf_add(out, slice_of(iov[i].iov_base, iov[i].iov_len));
			bytes += iov[i].iov_len;
		}
		body_advance(&c, bytes);
	}
	if (what == BODY_FAILED)
		return body_failure(r->body);
	return what == BODY_END ? 0 : -EIO;
}

/*
 * Where it is not in one file of its own there is no other way to the worker: -EXDEV (too many such files at once), -EAGAIN (it is
 * being written just now), -ENODATA (it was given to somebody else already), the spool's failure, or no descriptor for it.
 */
static int put_exported(struct attempt *a, const struct request *r, struct buf *out)
{
	size_t at = reserve(out, 8);
	int fd, err = body_export(r->body, &fd);

	if (err)
		return err;
	if (!out->failed)
		wire_put_u64(out->ptr + at, r->length);
	attempt_send_fd(a, &fd);
	return 0;
}

/* 0 with *ret_flags, or -errno. */
static int put_body(struct attempt *a, const struct request *r, struct buf *out, uint8_t *ret_flags)
{
	if (!r->body || r->upgrade || r->length == 0) {
		attempt_body_sent(a);
		return 0;
	}
	if (!body_is_finished(r->body) || body_bytes(r->body) != r->length)
		return -ENOTSUP; /* workers take whole requests only */
	if (body_was_spooled(r->body) || r->length > WIRE_INLINE_MAX) {
		*ret_flags = WIRE_DESCRIPTOR;
		return put_exported(a, r, out);
	}
	attempt_body_sent(a);
	return put_inline(r, out);
}

static int worker_start(struct attempt *a, void *state UNUSED)
{
	const struct request *r = attempt_request(a);
	struct link *l = attempt_link(a);
	struct buf *out = attempt_out(a);
	uint8_t flags = 0;
	size_t at;
	int err;

	if (!r->length_known && r->body && !r->upgrade)
		return -ENOTSUP;
	if (!l->greeted)
		wire_put_hello(out);
	l->serial++;
	at = reserve(out, WIRE_HEADER_BYTES);
	err = put_variables(r, out);
	if (!err)
		err = put_body(a, r, out, &flags);
	if (err || out->failed)
		return err ? err : -ENOMEM;
	wire_put_header(out->ptr + at, &(struct wire_frame){ .type = WIRE_REQUEST,
	                                   .flags = flags,
	                                   .length = (uint32_t)(out->len - at - WIRE_HEADER_BYTES),
	                                   .serial = l->serial });
	return 0;
}

/* The response. */

static void framing_of(const struct worker_state *s, const struct wire_head *w, struct http1_message *ret)
{
	*ret = (struct http1_message){ .keep_alive = true, .has_length = w->has_length, .length = w->length };
	if (s->no_content)
		ret->framing = FRAMING_NONE;
	else
		ret->framing = w->has_length ? FRAMING_LENGTH : FRAMING_CHUNKED; /* its end is said, not guessed */
}

static int build_head(const struct wire_head *w, struct head *h)
{
	struct slice rest = w->fields, name, value;
	int err = head_reserve(h, w->fields.len, w->field_count);

	h->status = (uint16_t)w->status;
	h->version = 11;
	if (!err)
		err = head_put(h, status_reason(w->status), &h->reason);
	while (!err && wire_get_pair(&rest, &name, &value) == 1)
		err = head_add(h, name, value);
	return err;
}

static int take_head(struct attempt *a, struct worker_state *s, struct slice payload, const char **ret_why)
{
	enum method method = attempt_request(a)->head.method;
	struct http1_message m;
	struct wire_head w;
	struct head h;

	if (s->expect != EXPECT_HEAD || wire_get_head(payload, &w, ret_why) != 0)
		return -EPROTO;
	if (w.status < 200 && ++s->interim > WIRE_INTERIM_MAX) {
		*ret_why = "too many interim responses";
		return -EPROTO;
	}
	s->no_content = w.status < 200 || method == METHOD_HEAD || w.status == 204 || w.status == 304;
	head_init(&h);
	if (build_head(&w, &h) != 0) {
		head_done(&h);
		*ret_why = "memory_limit";
		return -ENOMEM;
	}
	if (w.status >= 200) {
		s->expect = EXPECT_CONTENT;
		s->has_length = w.has_length && !s->no_content;
		s->left = w.length;
	}
	framing_of(s, &w, &m);
	attempt_got_head(a, &h, &m);
	head_done(&h);
	return 0;
}

/* n bytes of content are about to come. */
static int count_content(struct worker_state *s, uint64_t n, const char **ret_why)
{
	if (s->expect != EXPECT_CONTENT)
		return -EPROTO;
	if (s->no_content || (s->has_length && n > s->left)) {
		*ret_why = s->no_content ? "content where there is none" : "more content than Content-Length";
		return -EPROTO;
	}
	s->left -= s->has_length ? n : 0;
	return 0;
}

static int take_file(struct attempt *a, struct worker_state *s, struct slice payload, const char **ret_why)
{
	struct wire_file file;
	int fd = s->fd_plus_1 - 1, err;

	s->fd_plus_1 = 0;
	if (fd == -1 || wire_get_file(payload, &file) != 0 || count_content(s, file.length, ret_why) != 0) {
		if (fd != -1)
			close(fd);
		return -EPROTO;
	}
	if (++s->files > WIRE_FILES_MAX) {
		close(fd);
		*ret_why = "too many files";
		return -EPROTO;
	}
	err = attempt_got_file(a, &fd, file.offset, file.length);
	if (err)
		*ret_why = "not a file that can be sent";
	return err;
}

static int take_end(
    struct attempt *a, struct worker_state *s, const struct wire_frame *f, struct slice rest, const char **ret_why)
{
	if (s->expect != EXPECT_CONTENT)
		return -EPROTO;
	if (s->fd_plus_1 != 0) {
		*ret_why = "unexpected descriptor";
		return -EPROTO;
	}
	if ((s->has_length && s->left > 0) || rest.len > 0) {
		*ret_why = rest.len > 0 ? "bytes behind the response" : "less content than Content-Length";
		return -EPROTO;
	}
	s->expect = EXPECT_NOTHING;
	attempt_got_whole(a, !(f->flags & WIRE_LAST));
	return 0;
}

static int take_hello(struct link *l, struct slice payload)
{
	if (l->greeted || wire_check_hello(payload) != 0)
		return -EPROTO;
	l->greeted = true;
	return 0;
}

/* One frame with all of its payload; `rest` is what stands behind it. */
static int take_frame(struct attempt *a, struct worker_state *s, const struct wire_frame *f, struct slice payload,
    struct slice rest, const char **ret_why)
{
	switch ((enum wire_type)f->type) {
	case WIRE_HELLO:
		return take_hello(attempt_link(a), payload);
	case WIRE_HEAD:
		return take_head(a, s, payload, ret_why);
	case WIRE_FILE:
		return take_file(a, s, payload, ret_why);
	case WIRE_END:
		return take_end(a, s, f, rest, ret_why);
	case WIRE_REQUEST:
	case WIRE_DATA: /* take_data */
	case WIRE_CANCEL:
	case WIRE_TYPE_COUNT:
		break;
	}
	return -EPROTO;
}

/* Content need not be all there. True in *ret_more: the rest comes as raw bytes. */
static int take_data(struct attempt *a, struct worker_state *s, const struct wire_frame *f, struct slice *in, bool *ret_more,
    const char **ret_why)
{
	size_t here = MIN(f->length, in->len - WIRE_HEADER_BYTES);

	if (count_content(s, f->length, ret_why) != 0)
		return -EPROTO;
	if (here > 0)
		attempt_got_content(a, slice_of(in->ptr + WIRE_HEADER_BYTES, here));
	*in = slice_of(in->ptr + WIRE_HEADER_BYTES + here, in->len - WIRE_HEADER_BYTES - here);
	*ret_more = here < f->length;
	if (*ret_more)
		attempt_got_raw(a, f->length - here);
	return 0;
}

/* The header, and whether it belongs to this request at all. */
static int look(struct attempt *a, struct slice in, struct wire_frame *f)
{
	const struct link *l = attempt_link(a);
	int got = wire_get_header(in, f);

	if (got != 1)
		return got;
	if (f->type != WIRE_HELLO && (!l->greeted || f->serial != l->serial))
		return -EPROTO;
	return 1;
}

/* Takes frames until one is not complete, or the response is. */
static int take_frames(struct attempt *a, struct worker_state *s, struct slice *in, const char **ret_why)
{
	struct wire_frame f;
	bool more = false;
	int got = 0;

	while (s->expect != EXPECT_NOTHING && !more && (got = look(a, *in, &f)) == 1) {
		struct slice payload = { in->ptr + WIRE_HEADER_BYTES, f.length };
		int err;

		if (f.type == WIRE_DATA) {
			err = take_data(a, s, &f, in, &more, ret_why);
		} else {
			if (in->len - WIRE_HEADER_BYTES < f.length)
				return 0;
			*in = slice_of(payload.ptr + f.length, in->len - WIRE_HEADER_BYTES - f.length);
			err = take_frame(a, s, &f, payload, *in, ret_why);
		}
		if (err)
			return err;
	}
	return got < 0 ? got : 0;
}

static int worker_take(struct attempt *a, void *state, struct slice *in, int *fd, const char **ret_why)
{
	struct worker_state *s = state;
	int err;

	*ret_why = "not the worker protocol";
	if (*fd != -1) {
		if (s->fd_plus_1 != 0)
			return -EPROTO;
		s->fd_plus_1 = *fd + 1;
		*fd = -1;
	}
	err = take_frames(a, s, in, ret_why);
	if (err)
		return err;
	/* One that came with these bytes belongs to a frame that is among them, if only in part. */
	if (s->fd_plus_1 != 0 && in->len == 0) {
		*ret_why = "unexpected descriptor";
		return -EPROTO;
	}
	return 0;
}

/* END says when a response is complete. */
static int worker_eof(struct attempt *a UNUSED, void *state UNUSED)
{
	return -EPROTO;
}

static enum begun worker_begun(struct attempt *a, void *state UNUSED)
{
	const struct link *l = attempt_link(a);

	if (!l->started)
		return BEGUN_UNKNOWN;
	return atomic_load_explicit(l->started, memory_order_acquire) == l->serial ? BEGUN_YES : BEGUN_NO;
}

static void worker_cancel(struct attempt *a, void *state)
{
	const struct worker_state *s = state;
	struct buf *out = attempt_out(a);
	char *to;

	if (s->expect == EXPECT_NOTHING)
		return;
	to = buf_room(out, WIRE_HEADER_BYTES);
	if (!to)
		return; /* a worker that is not told is merely late */
	wire_put_header(to, &(struct wire_frame){ .type = WIRE_CANCEL, .serial = attempt_link(a)->serial });
	out->len += WIRE_HEADER_BYTES;
}

static void worker_done(void *state)
{
	struct worker_state *s = state;

	if (s->fd_plus_1 != 0)
		close(s->fd_plus_1 - 1);
	s->fd_plus_1 = 0;
}

const struct protocol protocol_worker = {
	.name = "worker",
	.state_bytes = sizeof(struct worker_state),
	.descriptors = true,
	.start = worker_start,
	.take = worker_take,
	.eof = worker_eof,
	.begun = worker_begun,
	.cancel = worker_cancel,
	.done = worker_done,
};
