/*
 * sender: bytes of our own, then a body, to a non-blocking socket: one system call at a time, chunked if the length is unknown.
 * For requests to workers and responses to clients alike.
 * Owns:   the bytes that go first (`out`) and its place in the body. Borrows the body.
 * Never:  waits; watches a socket; frees what was sent (the body's owner drops it).
 */
#ifndef FOREBAY_CORE_SENDER_H
#define FOREBAY_CORE_SENDER_H

#include "core/body.h"
#include "core/buf.h"

/* Where it goes. Each returns bytes taken (at least one) or -errno; `more`: another call follows at once. */
struct sender_sink {
	ssize_t (*pieces)(void *ctx, const struct iovec *iov, int n, bool more);
	ssize_t (*file)(void *ctx, int fd, off_t offset, size_t len);
};

/* A plain socket; ctx points to its descriptor. */
extern const struct sender_sink sender_socket;

struct sender {
	struct buf out; /* more may be added at any time; it goes before the next byte of the body */
	size_t out_sent;
	struct body_cursor cursor;
	bool body;    /* there is one to be sent, from the cursor to its end */
	bool chunked; /* in chunks (RFC 9112, 7.1) */
	bool ended;   /* the body's last byte is out or in `out` */
	uint64_t chunk_left;
	uint64_t body_sent; /* bytes, without chunk framing */
};

void sender_init(struct sender *s, size_t out_max_bytes);
void sender_done(struct sender *s);

/* The body to send behind `out`; borrowed. */
void sender_body(struct sender *s, struct body *b, bool chunked);

enum sender_step {
	SENDER_ON,    /* something went out; call again */
	SENDER_FULL,  /* the socket takes no more now */
	SENDER_WAIT,  /* all that there is was sent; the body is not finished */
	SENDER_COLD,  /* the body is being read in; it will tell */
	SENDER_ENDED, /* everything was sent */
	SENDER_LOST,  /* the body failed (body_failure) or there is no memory */
	SENDER_ERROR, /* *ret_err: what the socket said, -errno */
};

enum sender_step sender_step(struct sender *s, const struct sender_sink *sink, void *ctx, int *ret_err);

/* Bytes of `out` not sent yet. */
static inline size_t sender_out_left(const struct sender *s)
{
	return s->out.len - s->out_sent;
}

#endif
