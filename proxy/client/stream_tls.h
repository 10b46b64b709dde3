/*
 * stream_tls: the TLS half of a stream: records in and out of a non-blocking socket, through OpenSSL.
 * Owns:   the SSL, and the records that the socket did not take yet. Borrows the socket and the loop.
 * Never:  counts bytes as sent that the socket has not; sends a close_notify but in stream_tls_end() and stream_tls_farewell().
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_STREAM_TLS_H
#define FOREBAY_PROXY_STREAM_TLS_H

#include <openssl/types.h>
#include <sys/uio.h>

#include "core/loop.h"
#include "core/slice.h"

struct stream_tls;

/* Takes the SSL, in accept state and without BIOs, also on failure. 0 or -ENOMEM. */
MUST_USE int stream_tls_new(struct loop *loop, int fd, SSL *ssl, struct stream_tls **ret);

/* The socket stays open. */
void stream_tls_free(struct stream_tls **t);

/* 0: done. -EAGAIN: at the next event. -EPROTO: `ret_why`, if not NULL, says why: OpenSSL's word, or what became of the socket. */
MUST_USE int stream_tls_handshake(struct stream_tls *t, const char **ret_why);

/* As stream_recv, stream_sink, stream_end and so on. */
ssize_t stream_tls_recv(struct stream_tls *t, const struct iovec *iov, int n);
ssize_t stream_tls_pieces(struct stream_tls *t, const struct iovec *iov, int n);
ssize_t stream_tls_file(struct stream_tls *t, int fd, off_t offset, size_t len);
void stream_tls_edge(struct stream_tls *t, bool closed);
bool stream_tls_pending(const struct stream_tls *t);
void stream_tls_say(struct stream_tls *t, struct slice words);
MUST_USE int stream_tls_end(struct stream_tls *t);
void stream_tls_farewell(struct stream_tls *t);
/* Sealed, and not yet in the socket. */
size_t stream_tls_unsent(const struct stream_tls *t);
SSL *stream_tls_ssl(const struct stream_tls *t);

#endif
