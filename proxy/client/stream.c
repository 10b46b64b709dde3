#include "proxy/client/stream.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

void stream_init(struct stream *s, int *fd)
{
	*s = (struct stream){ .fd = *fd };
	*fd = -1;
}

void stream_move(struct stream *to, struct stream *from)
{
	*to = *from;
	*from = (struct stream){ .fd = -1 };
}

ssize_t stream_recv(struct stream *s, const struct iovec *iov, int n)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
	/* The plain call costs the kernel less. */
	ssize_t got = n == 1 ? recv(s->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT) : recvmsg(s->fd, &msg, MSG_DONTWAIT);

	return got == -1 ? -errno : got;
}

bool stream_pending(const struct stream *s UNUSED)
{
	return false;
}

bool stream_is_quiet(const struct stream *s)
{
	char byte;

	return !stream_pending(s) && recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

static ssize_t stream_pieces(void *ctx, const struct iovec *iov, int n, bool more)
{
	struct stream *s = ctx;

	return sender_socket.pieces(&s->fd, iov, n, more);
}

static ssize_t stream_file(void *ctx, int fd, off_t offset, size_t len)
{
	struct stream *s = ctx;

	return sender_socket.file(&s->fd, fd, offset, len);
}

const struct sender_sink stream_sink = { .pieces = stream_pieces, .file = stream_file };

void stream_say(struct stream *s, struct slice words)
{
	(void)send(s->fd, words.ptr, words.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

uint64_t stream_queued(const struct stream *s)
{
	int queued = 0;

	return ioctl(s->fd, SIOCOUTQ, &queued) == 0 && queued > 0 ? (uint64_t)queued : 0;
}

bool stream_is_broken(const struct stream *s)
{
	int err = 0;
	socklen_t len = sizeof(err);

	return getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1 || err != 0;
}

int stream_end(struct stream *s)
{
	return shutdown(s->fd, SHUT_WR) == -1 ? -errno : 0;
}

void stream_cut(struct stream *s)
{
	(void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
}

void stream_close(struct stream *s)
{
	if (s->fd != -1)
		close(s->fd);
	s->fd = -1;
}
