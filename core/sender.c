#include "core/sender.h"

#include <errno.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#define PIECES         8
#define STEP_BYTES     (512u << 10)
#define GATHERED_BYTES 4096

/* All of it in one place if that is little: copying costs less than what the kernel does for a vector. */
static bool gather(const struct iovec *iov, int n, char to[static GATHERED_BYTES], size_t *ret_len)
{
	size_t len = 0;

	for (int i = 0; i < n; i++) {
		if (iov[i].iov_len > GATHERED_BYTES - len)
			return false;
		memcpy(to + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	*ret_len = len;
	return true;
}

static ssize_t socket_pieces(void *ctx, const struct iovec *iov, int n, bool more)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
	int fd = *(const int *)ctx, flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0);
	char gathered[GATHERED_BYTES];
	size_t len;
	ssize_t got;

	if (n == 1)
		got = send(fd, iov->iov_base, iov->iov_len, flags);
	else if (gather(iov, n, gathered, &len))
		got = send(fd, gathered, len, flags);
	else
		got = sendmsg(fd, &msg, flags);
	return got == -1 ? -errno : got;
}

static ssize_t socket_file(void *ctx, int fd, off_t offset, size_t len)
{
	ssize_t got = sendfile(*(const int *)ctx, fd, &offset, len);

	return got == -1 ? -errno : got;
}

const struct sender_sink sender_socket = { .pieces = socket_pieces, .file = socket_file };

void sender_init(struct sender *s, size_t out_max_bytes)
{
	*s = (struct sender){ 0 };
	buf_init(&s->out, out_max_bytes);
}

void sender_done(struct sender *s)
{
	buf_done(&s->out);
}

void sender_body(struct sender *s, struct body *b, bool chunked)
{
	body_cursor_init(&s->cursor, b);
	s->body = true;
	s->chunked = chunked;
	s->ended = false;
}

static void sender_sent(struct sender *s, size_t n)
{
	size_t head = MIN(n, sender_out_left(s));

	s->out_sent += head;
	n -= head;
	if (s->out_sent == s->out.len) {
		buf_clear(&s->out);
		s->out_sent = 0;
	}
	if (n == 0)
		return;
	s->body_sent += n;
	body_advance(&s->cursor, n);
	if (!s->chunked)
		return;
	s->chunk_left -= n;
	if (s->chunk_left == 0)
		buf_add(&s->out, SLICE("\r\n"));
}

static enum sender_step sender_result(struct sender *s, ssize_t got, int *ret_err)
{
	if (got > 0) {
		sender_sent(s, (size_t)got);
		return SENDER_ON;
	}
	if (got == -EAGAIN)
		return SENDER_FULL;
	if (got == -EINTR)
		return SENDER_ON;
	*ret_err = (int)got;
	return got == 0 ? SENDER_LOST : SENDER_ERROR; /* a file that has become shorter */
}

/* What stands next in the body, framed if need be. */
struct next {
	enum body_peek what;
	struct iovec iov[1 + PIECES]; /* the first is for `out` */
	int n;
	struct body_file file;
	size_t bytes;
};

static void sender_next(struct sender *s, struct next *next)
{
	size_t max = s->chunked && s->chunk_left > 0 ? (size_t)MIN(s->chunk_left, STEP_BYTES) : STEP_BYTES;

	next->what = BODY_END;
	next->n = 0;
	next->bytes = 0;
	if (!s->body || s->ended)
		return;
	next->what = body_peek(&s->cursor, max, next->iov + 1, PIECES, &next->n, &next->file);
	if (next->what == BODY_MEMORY)
		for (int i = 1; i <= next->n; i++)
			next->bytes += next->iov[i].iov_len;
	else
		next->n = 0;
	if (next->what == BODY_FILE)
		next->bytes = MIN(next->file.len, max);
	if (next->what == BODY_END)
		s->ended = true;
	if (!s->chunked || s->chunk_left > 0)
		return;
	if (next->what == BODY_END) {
		buf_add(&s->out, SLICE("0\r\n\r\n"));
	} else if (next->bytes > 0) {
		buf_printf(&s->out, "%zx\r\n", next->bytes);
		s->chunk_left = next->bytes;
	}
}

enum sender_step sender_step(struct sender *s, const struct sender_sink *sink, void *ctx, int *ret_err)
{
	struct next next;
	bool more;

	sender_next(s, &next);
	if (s->out.failed || next.what == BODY_FAILED)
		return SENDER_LOST;
	if (sender_out_left(s) > 0 || next.what == BODY_MEMORY) {
		more = next.what == BODY_FILE;
		if (sender_out_left(s) == 0)
			return sender_result(s, sink->pieces(ctx, next.iov + 1, next.n, more), ret_err);
		next.iov[0] = (struct iovec){ s->out.ptr + s->out_sent, sender_out_left(s) };
		return sender_result(s, sink->pieces(ctx, next.iov, 1 + next.n, more), ret_err);
	}
	switch (next.what) {
	case BODY_FILE:
		return sender_result(s, sink->file(ctx, next.file.fd, next.file.offset, next.bytes), ret_err);
	case BODY_COLD:
		return SENDER_COLD;
	case BODY_WAIT:
		return SENDER_WAIT;
	default:
		return SENDER_ENDED;
	}
}
