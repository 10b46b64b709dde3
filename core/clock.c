#include "core/clock.h"

#include <time.h>

static int64_t kernel_us(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static uint64_t real_mono_us(const struct clock *c UNUSED)
{
	return (uint64_t)kernel_us(CLOCK_MONOTONIC);
}

static int64_t real_wall_us(const struct clock *c UNUSED)
{
	return kernel_us(CLOCK_REALTIME);
}

const struct clock clock_real = { .mono_us = real_mono_us, .wall_us = real_wall_us };

static const struct clock_test *test_of(const struct clock *c)
{
	return (const struct clock_test *)(const void *)((const char *)c - offsetof(struct clock_test, clock));
}

static uint64_t test_mono_us(const struct clock *c)
{
	return test_of(c)->mono_us;
}

static int64_t test_wall_us(const struct clock *c)
{
	return test_of(c)->wall_us;
}

void clock_test_init(struct clock_test *t)
{
	/* Neither 0 nor a whole tick, so that code which counts on one of these is found out. */
	*t = (struct clock_test){
		.clock = { .mono_us = test_mono_us, .wall_us = test_wall_us },
		.mono_us = 1000012345,
		.wall_us = 1700000000000000,
	};
}

void clock_test_advance(struct clock_test *t, uint64_t us)
{
	t->mono_us += us;
	t->wall_us += (int64_t)us;
}
