/*
 * pieces: small pieces of memory that one thread takes and gives back with each request or handshake, at hand again at once: in a fraction of the
 * steps that malloc() and free() need.
 * Owns:   what was given back, up to a maximum; what is of no use for a while goes.
 * Never:  charges a budget: its user does that. Keeps anything under AddressSanitizer, which is to see each use after the end.
 * Thread: its owner's. A piece may also go by free(), on any.
 */
#ifndef FOREBAY_CORE_PIECES_H
#define FOREBAY_CORE_PIECES_H

#include <malloc.h>
#include <stdlib.h>

#include "core/base.h"

#ifdef __has_feature
#define PIECES_HAS_FEATURE(x) __has_feature(x)
#else
#define PIECES_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || PIECES_HAS_FEATURE(address_sanitizer)
#define PIECES_ARE_KEPT false
#else
#define PIECES_ARE_KEPT true
#endif

/* The sizes are those that malloc() rounds to (glibc's: its own 8 bytes before each, the whole a multiple of 16). */
#define PIECES_STEP    16u /* bytes between two */
#define PIECES_FIRST   24u
#define PIECES_SIZES   128u
#define PIECES_LARGEST (PIECES_FIRST + PIECES_STEP * (PIECES_SIZES - 1)) /* what is larger is never kept */

struct piece;

struct pieces {
	struct piece *kept[PIECES_SIZES];
	size_t bytes, bytes_max; /* kept */
	size_t bytes_least;      /* since pieces_trim */
};

struct piece {
	struct piece *next;
};

static inline void pieces_init(struct pieces *p, size_t bytes_max)
{
	*p = (struct pieces){ .bytes_max = PIECES_ARE_KEPT ? bytes_max : 0 };
}

/* All that is kept. */
void pieces_done(struct pieces *p);

/* Now and then: half of what was of no use since the last time. */
void pieces_trim(struct pieces *p);

/* The number of the smallest size that is large enough. */
static inline size_t pieces_which(size_t size)
{
	return (MAX(size, PIECES_FIRST) - PIECES_FIRST + PIECES_STEP - 1) / PIECES_STEP;
}

static inline size_t pieces_size(size_t which)
{
	return PIECES_FIRST + which * PIECES_STEP;
}

/* NULL without memory. */
static inline void *pieces_take(struct pieces *p, size_t size)
{
	size_t which = pieces_which(size);
	struct piece *piece;

	if (which >= PIECES_SIZES)
		return malloc(size);
	piece = p->kept[which];
	if (!piece)
		return malloc(pieces_size(which));
	p->kept[which] = piece->next;
	p->bytes -= pieces_size(which);
	p->bytes_least = MIN(p->bytes_least, p->bytes);
	return piece;
}

/* `size` as it was taken with. */
static inline void pieces_give(struct pieces *p, void *memory, size_t size)
{
	size_t which = pieces_which(size);
	struct piece *piece = memory;

	if (which >= PIECES_SIZES || p->bytes + pieces_size(which) > p->bytes_max) {
		free(memory);
		return;
	}
	piece->next = p->kept[which];
	p->kept[which] = piece;
	p->bytes += pieces_size(which);
}

/* Of a size that only malloc() knows; also one that malloc() itself gave out. */
static inline void pieces_give_back(struct pieces *p, void *memory)
{
	size_t room = malloc_usable_size(memory);

	if (room < PIECES_FIRST)
		free(memory);
	else
		pieces_give(p, memory, room - (room - PIECES_FIRST) % PIECES_STEP);
}

#endif
