/*
 * clock: the time, as an argument, so that tests can move it.
 */
#ifndef FOREBAY_CORE_CLOCK_H
#define FOREBAY_CORE_CLOCK_H

#include "core/base.h"

struct clock {
	uint64_t (*mono_us)(const struct clock *c); /* since some start, never backwards */
	int64_t (*wall_us)(const struct clock *c);  /* since 1970, may jump */
};

/* The kernel's. */
extern const struct clock clock_real;

/* Stands still until moved. */
struct clock_test {
	struct clock clock;
	uint64_t mono_us;
	int64_t wall_us;
};
void clock_test_init(struct clock_test *t);
void clock_test_advance(struct clock_test *t, uint64_t us);

static inline uint64_t clock_mono_us(const struct clock *c)
{
	return c->mono_us(c);
}
static inline uint64_t clock_mono_ms(const struct clock *c)
{
	return c->mono_us(c) / 1000;
}
static inline int64_t clock_wall_us(const struct clock *c)
{
	return c->wall_us(c);
}

#endif
