/*
 * budget: a ceiling for the bytes that all threads together hold, and each thread's lease on a part of it.
 * Everything that the front allocates for clients is charged here, kept for the time it is held, and given back.
 * Thread: budget any; a lease is its thread's.
 */
#ifndef FOREBAY_CORE_BUDGET_H
#define FOREBAY_CORE_BUDGET_H

#include <stdatomic.h>

#include "core/base.h"

#define BUDGET_LEASE_BYTES (1u << 20)

enum budget_pressure {
	BUDGET_EASY,  /* below half of the limit */
	BUDGET_SOFT,  /* above: what waits for a client goes to the spool at once */
	BUDGET_TIGHT, /* above 3/4: bodies are not read on, so that the rest is left for heads and small answers */
	BUDGET_HARD,  /* above 15/16: no new requests, the slowest clients go */
};

struct budget {
	_Alignas(64) atomic_size_t leased; /* bytes */
	size_t limit;                      /* bytes */
	atomic_size_t refused;             /* takes that failed, ever */
	atomic_size_t leases;              /* threads that share it */
};

struct lease {
	struct budget *budget;
	size_t held; /* bytes taken from the budget */
	size_t used; /* of these, bytes charged by this thread */
	size_t step; /* bytes leased at once, as of the last time */
};

void budget_init(struct budget *b, size_t limit_bytes);
enum budget_pressure budget_pressure(const struct budget *b);

void lease_init(struct lease *l, struct budget *b);

/* Gives all back; used must be 0 (assert). */
void lease_done(struct lease *l);

/* True: n bytes are charged. False: the ceiling is reached and nothing changed. The sum of all leases never exceeds the limit. */
MUST_USE bool lease_take(struct lease *l, size_t n);

/* Never more than was taken (assert). Keeps at most two leases' worth unused. A lease is BUDGET_LEASE_BYTES, or 1/64 of a small limit. */
void lease_give(struct lease *l, size_t n);

#endif
