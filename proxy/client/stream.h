/*
 * stream: the bytes of a client's connection, plain or TLS, as its protocol sees them. Neither http1 nor http2 knows what it stands on.
 * Owns:   the socket, the TLS session.
 * Never:  waits; watches the socket (who reads and writes does that).
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_STREAM_H
#define FOREBAY_PROXY_STREAM_H

#include <openssl/types.h>
#include <sys/uio.h>

#include "core/loop.h"
#include "core/sender.h"
#include "proxy/client/stream_tls.h"

struct tls_peer;

/* Lies in its user's struct; stream_move() takes it from one to another. */
struct stream {
	int fd;                 /* -1: closed, or moved */
	struct stream_tls *tls; /* NULL: plain */
};

/* Takes *fd and sets it to -1. */
void stream_init(struct stream *s, int *fd);
void stream_move(struct stream *to, struct stream *from);

/* From here on TLS: with an SSL of tls_session(), which is taken, also on failure. 0 or -ENOMEM. */
MUST_USE int stream_secure(struct stream *s, struct loop *loop, SSL *ssl);

/* 0: done. -EAGAIN: at the next event. -EPROTO: *ret_why says why. */
MUST_USE int stream_handshake(struct stream *s, const char **ret_why);

/* NULL: plain. For what was agreed on, and who the peer is. */
SSL *stream_ssl(const struct stream *s);

/* "TLSv1.3" and the like, a literal; NULL: plain. */
const char *stream_tls_version(const struct stream *s);

/* Who showed a certificate; NULL: nobody was asked for one. Lives as long as the stream's TLS. */
const struct tls_peer *stream_tls_peer(const struct stream *s);

static inline bool stream_is_secure(const struct stream *s)
{
	return s->tls != NULL;
}

/* What each reading or closing event says first: `closed`, that the peer's end has come, behind whatever there is. */
static inline void stream_edge(struct stream *s, bool closed)
{
	if (s->tls)
		stream_tls_edge(s->tls, closed);
}

/*
 * Bytes into iov[], as many as there are. 0: the peer has ended its side in good order. -EAGAIN, -EINTR, or -errno: what it had not
 * finished is cut. Less than asked for means that what comes next is an edge of its own.
 */
ssize_t stream_recv(struct stream *s, const struct iovec *iov, int n);

/* True: there are bytes, or an end, to be received that no event will tell of. */
static inline bool stream_pending(const struct stream *s)
{
	return s->tls && stream_tls_pending(s->tls);
}

/* True: no bytes are there to be received. Asks the kernel. */
bool stream_is_quiet(const struct stream *s);

/* For core/sender; ctx is the stream. After -EAGAIN the next call's bytes begin with the same ones. */
extern const struct sender_sink stream_sink;

/*
 * A few last words before stream_close(), if there is room for them just now. What has come and was not read is thrown away, up to a bound: a
 * close would be a reset then, which can destroy the words on their way (RFC 9112, 9.6).
 */
void stream_say(struct stream *s, struct slice words);

/* Bytes sent that the peer has not acknowledged. Those that wait for the socket to take them are not told as sent. */
uint64_t stream_queued(const struct stream *s);

/* Where nothing is read, a reset must be asked for: libevent tells it as readable and writable. */
bool stream_is_broken(const struct stream *s);

/* Ends our side in good order. 0, -EAGAIN: again when there is room, or -errno. */
MUST_USE int stream_end(struct stream *s);

/* A connection that rests is about to be closed: TLS says so, as far as there is room and somebody to hear it. */
static inline void stream_farewell(struct stream *s)
{
	if (s->tls)
		stream_tls_farewell(s->tls);
}

/* What was sent must not look whole: stream_close() will be a reset, and there is no close_notify. */
void stream_cut(struct stream *s);

/* After the event's deletion. Does nothing to one that is closed. */
void stream_close(struct stream *s);

#endif
