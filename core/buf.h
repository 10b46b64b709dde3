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
	bool lent;             /* ptr is the caller's */
	bool borrowed;         /* and not to be written to */
};

void buf_init(struct buf *b, size_t max);
/* Begins in memory of the caller's, which outlives it; what does not fit there moves to the heap. */
void buf_init_in(struct buf *b, char *first, size_t first_bytes, size_t max);
/* Begins as bytes of the caller's, which outlive it and are never written to: what is added takes all to the heap. */
void buf_borrow(struct buf *b, struct slice bytes, size_t max);
void buf_done(struct buf *b);

/* Forgets the content and `failed`, keeps the memory, but for what was borrowed. */
void buf_clear(struct buf *b);

/* Room for n more bytes at ptr + len, or NULL and `failed` is set. */
char *buf_room(struct buf *b, size_t n);

/* Each appends whole or not at all; a failure sets `failed`, so that a chain of calls needs one look at its end. */
static inline void buf_add(struct buf *b, struct slice s);
void buf_char(struct buf *b, char c);
void buf_u64(struct buf *b, uint64_t n);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

static inline struct slice buf_slice(const struct buf *b)
{
#ifdef __clang_analyzer__
	assert(b->ptr || b->len == 0); /* of one that it has not seen grow it cannot know */
#endif
	return (struct slice){ b->ptr, b->len };
}

static inline void buf_add(struct buf *b, struct slice s)
{
	char *to;

	if (s.len == 0)
		return;
	to = s.len <= b->size - b->len ? b->ptr + b->len : buf_room(b, s.len);
	if (!to)
		return;
	memcpy(to, s.ptr, s.len);
	b->len += s.len;
}

#endif
