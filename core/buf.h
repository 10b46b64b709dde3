/*
 * buf: text or bytes that grow, up to a maximum given when it is made.
 * Owns: its memory.
 */
#ifndef FOREBAY_CORE_BUF_H
#define FOREBAY_CORE_BUF_H

#include "core/slice.h"

struct buf {
	char *ptr;
	size_t len, size, max; /* bytes */
	bool failed;           /* sticky: something did not fit or had no memory */
};

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b);

/* Forgets the content and `failed`, keeps the memory. */
void buf_clear(struct buf *b);

/* Room for n more bytes at ptr + len, or NULL and `failed` is set. */
char *buf_room(struct buf *b, size_t n);

/* Each appends whole or not at all; a failure sets `failed`, so that a chain of calls needs one look at its end. */
void buf_add(struct buf *b, struct slice s);
void buf_char(struct buf *b, char c);
void buf_u64(struct buf *b, uint64_t n);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

static inline struct slice buf_slice(const struct buf *b)
{
	return (struct slice){ b->ptr, b->len };
}

#endif
