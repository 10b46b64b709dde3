#include "proxy/observe/ring.h"

#include <stdlib.h>

#define UNIT sizeof(struct ring_record)

int ring_init(struct ring *r, size_t size)
{
	assert(size >= 2 * UNIT && (size & (size - 1)) == 0);
	*r = (struct ring){ .data = malloc(size), .size = size };
	return r->data ? 0 : -ENOMEM;
}

void ring_done(struct ring *r)
{
	free(r->data);
	r->data = NULL;
}

/* What a record with this text takes, in whole units. */
static size_t place_bytes(size_t text_bytes)
{
	return UNIT + (text_bytes + UNIT - 1) / UNIT * UNIT;
}

static void copy_in(struct ring *r, size_t at, struct slice text)
{
	size_t offset = at & (r->size - 1);
	size_t first = MIN(text.len, r->size - offset);

	if (text.len == 0)
		return;
	memcpy(r->data + offset, text.ptr, first);
	memcpy(r->data, text.ptr + first, text.len - first);
}

static void copy_out(const struct ring *r, size_t at, char *out, size_t len)
{
	size_t offset = at & (r->size - 1);
	size_t first = MIN(len, r->size - offset);

	memcpy(out, r->data + offset, first);
	memcpy(out + first, r->data, len - first);
}

bool ring_put(struct ring *r, uint32_t epoch, uint32_t level, struct slice text)
{
	size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	size_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
	struct ring_record record = { .len = (uint32_t)text.len, .epoch = epoch, .level = level };

	/* The first look keeps place_bytes() from overflowing. */
	if (text.len > r->size || place_bytes(text.len) > r->size - (head - tail)) {
		atomic_fetch_add_explicit(&r->dropped, 1, memory_order_relaxed);
		return false;
	}
	copy_in(r, head, slice_of((const char *)&record, sizeof(record)));
	copy_in(r, head + UNIT, text);
	/* Sequentially consistent: who sleeps until there is a record says so first and looks here after. */
	atomic_store(&r->head, head + place_bytes(text.len));
	return true;
}

bool ring_front(const struct ring *r, struct ring_record *ret)
{
	size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

	if (ring_is_empty(r))
		return false;
	copy_out(r, tail, (char *)ret, sizeof(*ret));
	return true;
}

void ring_take(struct ring *r, const struct ring_record *front, char *out)
{
	size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

	copy_out(r, tail + UNIT, out, front->len);
	atomic_store_explicit(&r->tail, tail + place_bytes(front->len), memory_order_release);
}

bool ring_is_empty(const struct ring *r)
{
	return atomic_load(&r->head) == atomic_load_explicit(&r->tail, memory_order_relaxed);
}

uint64_t ring_dropped(const struct ring *r)
{
	return atomic_load_explicit(&r->dropped, memory_order_relaxed);
}
