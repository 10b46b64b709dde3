#include "core/wheel.h"

/* The first tick at or after due_ms. */
static uint64_t due_tick(uint64_t due_ms)
{
	return due_ms / WHEEL_TICK_MS + (due_ms % WHEEL_TICK_MS != 0);
}

static void link_timer(struct timer **list, struct timer *t)
{
	t->next = *list;
	t->prev = list;
	if (t->next)
		t->next->prev = &t->next;
	*list = t;
}

static void unlink_timer(struct timer *t)
{
	*t->prev = t->next;
	if (t->next)
		t->next->prev = t->prev;
	t->next = NULL;
	t->prev = NULL;
}

void wheel_init(struct wheel *w, uint64_t now_ms)
{
	*w = (struct wheel){ .tick = now_ms / WHEEL_TICK_MS };
}

void wheel_set(struct wheel *w, struct timer *t, uint64_t due_ms)
{
	uint64_t tick = due_tick(due_ms);

	assert(t->fire);
	wheel_clear(w, t);
	t->due_ms = due_ms;
	/* The ticks up to w->tick are over: what is due already waits for the next one. */
	link_timer(&w->slots[MAX(tick, w->tick + 1) % WHEEL_SLOTS], t);
	w->count++;
}

void wheel_clear(struct wheel *w, struct timer *t)
{
	if (!timer_is_set(t))
		return;
	unlink_timer(t);
	w->count--;
}

/* Moves what is due at `tick` from a slot to *due; the rest of the slot waits for a later turn. */
static void collect(struct timer **slot, uint64_t tick, struct timer **due)
{
	struct timer *next;

	for (struct timer *t = *slot; t; t = next) {
		next = t->next;
		if (due_tick(t->due_ms) > tick)
			continue;
		unlink_timer(t);
		link_timer(due, t);
	}
}

static void collect_all(struct wheel *w, uint64_t tick)
{
	uint64_t turns = MIN(tick - w->tick, (uint64_t)WHEEL_SLOTS);

	for (uint64_t i = 1; i <= turns; i++)
		collect(&w->slots[(w->tick + i) % WHEEL_SLOTS], tick, &w->due);
	w->tick = tick;
}

bool wheel_advance(struct wheel *w, uint64_t now_ms, unsigned at_most)
{
	uint64_t tick = now_ms / WHEEL_TICK_MS;

	if (!w->due && tick > w->tick)
		collect_all(w, tick);
	/* Those that are due are still set, so that one's fire can clear another and free its struct. */
	for (; w->due && at_most > 0; at_most--) {
		struct timer *t = w->due;

		wheel_clear(w, t);
		t->fire(t);
	}
	return w->due || tick > w->tick;
}
