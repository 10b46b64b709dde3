/*
 * stream: the bytes of a client's connection, as its protocol sees them. Neither http1 nor http2 knows what it stands on.
 * Owns:   the socket.
 * Never:  waits; watches the socket (who reads and writes does that).
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_STREAM_H
#define FOREBAY_PROXY_STREAM_H

#include <sys/uio.h>

#include "core/sender.h"

/* Lies in its user's struct; stream_move() takes it from one to another. */
struct stream {
	int fd; /* -1: closed, or moved */
};

/* Takes *fd and sets it to -1. */
void stream_init(struct stream *s, int *fd);
void stream_move(struct stream *to, struct stream *from);

/*
 * Bytes into iov[], as many as there are. 0: the peer has ended its side in good order. -EAGAIN, -EINTR, or -errno: what it had not
 * finished is cut. Less than asked for means that what comes next is an edge of its own.
 */
ssize_t stream_recv(struct stream *s, const struct iovec *iov, int n);

/* True: there are bytes to be received that no event will tell of. */
bool stream_pending(const struct stream *s);

/* True: no bytes are there to be received. Asks the kernel. */
bool stream_is_quiet(const struct stream *s);

/* For core/sender; ctx is the stream. After -EAGAIN the next call's bytes begin with the same ones. */
extern const struct sender_sink stream_sink;

/* A few last words, if there is room for them just now. */
void stream_say(struct stream *s, struct slice words);

/* Bytes sent that the peer has not acknowledged. */
uint64_t stream_queued(const struct stream *s);

/* Where nothing is read, a reset must be asked for: libevent tells it as readable and writable. */
bool stream_is_broken(const struct stream *s);

/* Ends our side in good order. 0, -EAGAIN: again when there is room, or -errno. */
MUST_USE int stream_end(struct stream *s);

/* What was sent must not look whole: stream_close() will be a reset. */
void stream_cut(struct stream *s);

/* After the event's deletion. Does nothing to one that is closed. */
void stream_close(struct stream *s);

#endif
