/*
 * rate: whether a peer keeps to the least speed. Each byte buys time, and more than the grace is never in hand: so a fast beginning
 * does not pay for a stop later on.
 * Pure: times are given.
 */
#ifndef FOREBAY_PROXY_RATE_H
#define FOREBAY_PROXY_RATE_H

#include "core/base.h"

struct rate {
	uint64_t deadline_ms; /* monotonic */
};

static inline void rate_begin(struct rate *r, uint64_t now_ms, uint64_t grace_ms)
{
	r->deadline_ms = now_ms + grace_ms;
}

/* n bytes came. min_rate is bytes per second, not 0. */
static inline void rate_credit(struct rate *r, uint64_t n, uint64_t now_ms, uint64_t min_rate, uint64_t grace_ms)
{
	uint64_t most = now_ms + grace_ms;
	uint64_t bought = n > UINT64_MAX / 1000 ? grace_ms : n * 1000 / min_rate;

	r->deadline_ms = bought >= grace_ms ? most : MIN(r->deadline_ms + bought, most);
}

static inline bool rate_broken(const struct rate *r, uint64_t now_ms)
{
	return now_ms > r->deadline_ms;
}

#endif
