/*
 * extents: which extents of the spool's arenas are in use, which are free, and which of the free ones take up disk all the same.
 * Owns:   the arenas and their descriptors.
 * Never:  locks, reads or writes; its caller, spool.c, does.
 */
#ifndef FOREBAY_CORE_EXTENTS_H
#define FOREBAY_CORE_EXTENTS_H

#include "core/spool.h"

/* So many arenas hold the limit, but none is smaller than 64M: each costs a descriptor. */
#define EXTENTS_ARENAS_MAX 16
#define EXTENTS_ARENA_MIN  1024u

/* Extents of one arena, by number: last in, first out, for the page cache's sake. */
struct extents_stack {
	uint32_t *numbers;
	uint32_t count;
};

struct arena {
	int fd;
	uint32_t fresh;                /* extents from here on were never in use */
	struct extents_stack recycled; /* free, with disk behind them */
	struct extents_stack leaving;  /* free, their disk is about to be given back */
	struct extents_stack holes;    /* free, without disk */
	uint32_t numbers[];
};

struct extents {
	uint32_t arena_extents;
	uint64_t max;
	struct arena *arenas[EXTENTS_ARENAS_MAX];
	unsigned arena_count;
	uint64_t used;
	uint64_t recycled; /* in all arenas */
	uint64_t leaving;
};

void extents_init(struct extents *x, uint64_t limit_bytes);
void extents_done(struct extents *x);

/* An arena for *fd (takes it, also on failure), to be added or freed. NULL without memory. */
struct arena *extents_arena_new(const struct extents *x, int *fd);
void extents_arena_free(struct arena **a);

/* Nothing is free, and another arena would help. */
bool extents_want_arena(const struct extents *x);

/* Takes *a and sets it to NULL, unless none is wanted. */
void extents_add(struct extents *x, struct arena **a);

/* Free ones with disk first. 0, -ENOSPC, or -EAGAIN: an arena must be added. */
MUST_USE int extents_take(struct extents *x, struct extent *ret);
/* leaves: its disk and pages must be given back before it is used again. */
void extents_give(struct extents *x, const struct extent *e, bool leaves);

/* n of the recycled ones, which must be there, are to leave the disk. */
void extents_reclaim(struct extents *x, uint64_t n);

/* The next that is to leave: nobody's until extents_left. False: none. */
bool extents_leave(struct extents *x, struct extent *ret);
void extents_left(struct extents *x, const struct extent *e);

#endif
