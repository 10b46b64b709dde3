#include "proxy/client/stream.h"

#include <linux/sockios.h>
#include <openssl/ssl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/client/tls.h"

#define THROWN_MAX (64u << 10) /* bytes */

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

int stream_secure(struct stream *s, struct loop *loop, SSL *ssl)
{
	return stream_tls_new(loop, s->fd, ssl, &s->tls);
}

int stream_handshake(struct stream *s, const char **ret_why)
{
	return stream_tls_handshake(s->tls, ret_why);
}

SSL *stream_ssl(const struct stream *s)
{
	return s->tls ? stream_tls_ssl(s->tls) : NULL;
}

const char *stream_tls_version(const struct stream *s)
{
	return s->tls ? SSL_get_version(stream_tls_ssl(s->tls)) : NULL;
}

const struct tls_peer *stream_tls_peer(const struct stream *s)
{
	return s->tls ? tls_peer_of(stream_tls_ssl(s->tls)) : NULL;
}

ssize_t stream_recv(struct stream *s, const struct iovec *iov, int n)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
	ssize_t got;

	if (s->tls)
		return stream_tls_recv(s->tls, iov, n);
	/* The plain call costs the kernel less. */
	got = n == 1 ? recv(s->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT) : recvmsg(s->fd, &msg, MSG_DONTWAIT);

	return got == -1 ? -errno : got;
}

bool stream_is_quiet(const struct stream *s)
{
	char byte;

	return !stream_pending(s) && recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

static ssize_t stream_pieces(void *ctx, const struct iovec *iov, int n, bool more)
{
	struct stream *s = ctx;

	return s->tls ? stream_tls_pieces(s->tls, iov, n) : sender_socket.pieces(&s->fd, iov, n, more);
}

static ssize_t stream_file(void *ctx, int fd, off_t offset, size_t len)
{
	struct stream *s = ctx;

	return s->tls ? stream_tls_file(s->tls, fd, offset, len) : sender_socket.file(&s->fd, fd, offset, len);
}

const struct sender_sink stream_sink = { .pieces = stream_pieces, .file = stream_file };

static void throw_away(struct stream *s)
{
	char bytes[4096];

	for (size_t thrown = 0; thrown < THROWN_MAX; thrown += sizeof(bytes))
		if (recv(s->fd, bytes, sizeof(bytes), MSG_DONTWAIT) <= 0)
			return;
}

void stream_say(struct stream *s, struct slice words)
{
	throw_away(s);
	if (s->tls)
		stream_tls_say(s->tls, words);
	else
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
	int err = s->tls ? stream_tls_end(s->tls) : 0;

	if (err)
		return err;
	return shutdown(s->fd, SHUT_WR) == -1 ? -errno : 0;
}

void stream_cut(struct stream *s)
{
	(void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
}

void stream_close(struct stream *s)
{
	stream_tls_free(&s->tls);
	if (s->fd != -1)
		close(s->fd);
	s->fd = -1;
}
