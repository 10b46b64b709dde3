#include "core/budget.h"

void budget_init(struct budget *b, size_t limit_bytes)
{
	atomic_init(&b->leased, 0);
	atomic_init(&b->refused, 0);
	atomic_init(&b->leases, 0);
	b->limit = limit_bytes;
}

enum budget_pressure budget_pressure(const struct budget *b)
{
	size_t leased = atomic_load_explicit(&b->leased, memory_order_relaxed);

	if (leased >= b->limit - b->limit / 16)
		return BUDGET_HARD;
	if (leased >= b->limit - b->limit / 4)
		return BUDGET_TIGHT;
	return leased >= b->limit - b->limit / 2 ? BUDGET_SOFT : BUDGET_EASY;
}

/* What is leased at once: a megabyte, but so little of a small limit that the threads' unused leases do not use it up. */
static size_t lease_bytes(const struct budget *b)
{
	size_t leases = MAX(atomic_load_explicit(&b->leases, memory_order_relaxed), (size_t)1);

	/* All that lies unused, two of them a thread, is an eighth of the limit at most. */
	return MAX(MIN(MIN(b->limit / 64, b->limit / 16 / leases), (size_t)BUDGET_LEASE_BYTES), (size_t)1);
}

/* Leases at least n more bytes: whole leases as long as the limit has room for them. */
static bool lease_grow(struct lease *l, size_t n)
{
	struct budget *b = l->budget;
	size_t step = l->step = lease_bytes(b);
	size_t leased = atomic_load_explicit(&b->leased, memory_order_relaxed), take;

	do {
		size_t left = b->limit - leased;

		if (n > left) {
			atomic_fetch_add_explicit(&b->refused, 1, memory_order_relaxed);
			return false;
		}
		take = MIN(MAX(n, step), left);
	} while (!atomic_compare_exchange_weak_explicit(
	    &b->leased, &leased, leased + take, memory_order_relaxed, memory_order_relaxed));
	l->held += take;
	return true;
}

static void lease_shrink(struct lease *l, size_t n)
{
	atomic_fetch_sub_explicit(&l->budget->leased, n, memory_order_relaxed);
	l->held -= n;
}

void lease_init(struct lease *l, struct budget *b)
{
	*l = (struct lease){ .budget = b };
	atomic_fetch_add_explicit(&b->leases, 1, memory_order_relaxed);
}

void lease_done(struct lease *l)
{
	assert(l->used == 0);
	if (!l->budget)
		return;
	lease_shrink(l, l->held);
	atomic_fetch_sub_explicit(&l->budget->leases, 1, memory_order_relaxed);
	l->budget = NULL;
}

bool lease_take(struct lease *l, size_t n)
{
	size_t unused = l->held - l->used;

	if (n > unused && !lease_grow(l, n - unused))
		return false;
	l->used += n;
	return true;
}

void lease_give(struct lease *l, size_t n)
{
	size_t unused;

	assert(n <= l->used);
	l->used -= n;
	unused = l->held - l->used;
	/* Back to one lease, not two, so that a charge that comes and goes at the edge stays off the shared counter. */
	if (unused > 2 * l->step)
		lease_shrink(l, unused - l->step);
}
