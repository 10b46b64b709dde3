#include "core/extents.h"

#include <stdlib.h>
#include <unistd.h>

static void push(struct extents_stack *s, uint32_t number)
{
	s->numbers[s->count++] = number;
}

static uint32_t pop(struct extents_stack *s)
{
	assert(s->count > 0);
	return s->numbers[--s->count];
}

void extents_init(struct extents *x, uint64_t limit_bytes)
{
	uint64_t each;

	/* An extent's number has 32 bits: 256T are the most, whatever the limit says. */
	*x = (struct extents){ .max = MIN(limit_bytes / SPOOL_EXTENT_BYTES, (uint64_t)UINT32_MAX - EXTENTS_ARENAS_MAX) };
	each = (x->max + EXTENTS_ARENAS_MAX - 1) / EXTENTS_ARENAS_MAX;
	x->arena_extents = (uint32_t)MAX(each, (uint64_t)EXTENTS_ARENA_MIN);
}

void extents_done(struct extents *x)
{
	while (x->arena_count > 0)
		extents_arena_free(&x->arenas[--x->arena_count]);
}

struct arena *extents_arena_new(const struct extents *x, int *fd)
{
	/* An extent is on one stack at most. Pages of these that are never needed are never touched. */
	struct arena *a = malloc(sizeof(*a) + 3 * (size_t)x->arena_extents * sizeof(a->numbers[0]));

	if (!a) {
		close(*fd);
	} else {
		*a = (struct arena){ .fd = *fd };
		a->recycled.numbers = a->numbers;
		a->leaving.numbers = a->numbers + x->arena_extents;
		a->holes.numbers = a->numbers + 2 * (size_t)x->arena_extents;
	}
	*fd = -1;
	return a;
}

void extents_arena_free(struct arena **a)
{
	if (!*a)
		return;
	close((*a)->fd);
	free(*a);
	*a = NULL;
}

static bool has_new(const struct extents *x, const struct arena *a)
{
	return a->holes.count > 0 || a->fresh < x->arena_extents;
}

bool extents_want_arena(const struct extents *x)
{
	for (unsigned i = 0; i < x->arena_count; i++) {
		if (has_new(x, x->arenas[i]))
			return false;
	}
	return x->recycled == 0 && x->arena_count < EXTENTS_ARENAS_MAX;
}

void extents_add(struct extents *x, struct arena **a)
{
	if (!extents_want_arena(x))
		return;
	x->arenas[x->arena_count++] = *a;
	*a = NULL;
}

static struct extent extent_of(const struct extents *x, unsigned arena, uint32_t number)
{
	return (struct extent){
		.fd = x->arenas[arena]->fd,
		.number = arena * x->arena_extents + number,
		.offset = (off_t)number * SPOOL_EXTENT_BYTES,
	};
}

static bool take_recycled(struct extents *x, struct extent *ret)
{
	for (unsigned i = 0; x->recycled > 0 && i < x->arena_count; i++) {
		if (x->arenas[i]->recycled.count == 0)
			continue;
		*ret = extent_of(x, i, pop(&x->arenas[i]->recycled));
		x->recycled--;
		return true;
	}
	return false;
}

static bool take_new(struct extents *x, struct extent *ret)
{
	for (unsigned i = 0; i < x->arena_count; i++) {
		struct arena *a = x->arenas[i];

		if (!has_new(x, a))
			continue;
		*ret = extent_of(x, i, a->holes.count > 0 ? pop(&a->holes) : a->fresh++);
		return true;
	}
	return false;
}

bool extents_leave(struct extents *x, struct extent *ret)
{
	for (unsigned i = 0; x->leaving > 0 && i < x->arena_count; i++) {
		if (x->arenas[i]->leaving.count == 0)
			continue;
		*ret = extent_of(x, i, pop(&x->arenas[i]->leaving));
		x->leaving--;
		return true;
	}
	return false;
}

int extents_take(struct extents *x, struct extent *ret)
{
	if (x->used >= x->max)
		return -ENOSPC;
	if (!take_recycled(x, ret) && !take_new(x, ret))
		/* With all arenas there, what is missing is just being given back to the disk. */
		return x->arena_count < EXTENTS_ARENAS_MAX ? -EAGAIN : -ENOSPC;
	x->used++;
	return 0;
}

static struct arena *arena_of(const struct extents *x, const struct extent *e)
{
	return x->arenas[e->number / x->arena_extents];
}

void extents_give(struct extents *x, const struct extent *e, bool leaves)
{
	struct arena *a = arena_of(x, e);

	assert(x->used > 0);
	push(leaves ? &a->leaving : &a->recycled, e->number % x->arena_extents);
	x->used--;
	*(leaves ? &x->leaving : &x->recycled) += 1;
}

/* From the last arena on, so that it is the first ones that stay in use. */
void extents_reclaim(struct extents *x, uint64_t n)
{
	assert(n <= x->recycled);
	x->recycled -= n;
	x->leaving += n;
	for (unsigned i = x->arena_count; n > 0 && i > 0; i--) {
		struct arena *a = x->arenas[i - 1];

		for (; n > 0 && a->recycled.count > 0; n--)
			push(&a->leaving, pop(&a->recycled));
	}
}

void extents_left(struct extents *x, const struct extent *e)
{
	push(&arena_of(x, e)->holes, e->number % x->arena_extents);
}
