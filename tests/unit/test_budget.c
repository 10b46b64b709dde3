#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "core/budget.h"

#define K (size_t)1024
#define M (1024 * K)

static size_t leased(struct budget *b)
{
	return atomic_load(&b->leased);
}

/* One thread's takes, the first that is refused, and what is leased in the end. */
static const struct {
	size_t limit, each;
	size_t fit; /* takes of `each` until the first refusal */
} ceilings[] = {
	{ 0, 1, 0 },
	{ 1, 1, 1 },
	{ 1, 2, 0 },
	{ 63, 1, 63 },
	{ 100 * K, 64 * K, 1 },
	{ 128 * K, 64 * K, 2 },
	{ 64 * M, 64 * K, 1024 },
	{ 64 * M, M, 64 },
	{ 64 * M, 3 * M, 21 },
	{ 64 * M, SIZE_MAX, 0 },
	{ 64 * M + 1, 64 * M + 1, 1 },
	{ 512 * M, 40 * M, 12 },
};

static void the_ceiling_is_exact_for_one_thread(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(ceilings); i++) {
		struct budget b;
		struct lease l;
		size_t fit = 0;

		budget_init(&b, ceilings[i].limit);
		lease_init(&l, &b);
		while (lease_take(&l, ceilings[i].each)) {
			fit++;
			if (leased(&b) > ceilings[i].limit || l.used > l.held)
				fail_msg("row %zu: over the limit", i);
		}
		if (fit != ceilings[i].fit || l.used != fit * ceilings[i].each)
			fail_msg("row %zu: %zu fit", i, fit);
		if (atomic_load(&b.refused) != 1)
			fail_msg("row %zu: refusals not counted", i);
		lease_give(&l, l.used);
		lease_done(&l);
		if (leased(&b) != 0)
			fail_msg("row %zu: %zu left", i, leased(&b));
	}
}

static void what_is_given_goes_back_but_for_two_leases(void **state UNUSED)
{
	struct budget b;
	struct lease l;

	budget_init(&b, 64 * M);
	lease_init(&l, &b);
	assert_true(lease_take(&l, 1));
	assert_int_equal(leased(&b), M);
	assert_true(lease_take(&l, M - 1));
	assert_int_equal(leased(&b), M);
	assert_true(lease_take(&l, 10 * M));
	for (size_t given = 0; given < 11 * M; given += 64 * K) {
		lease_give(&l, 64 * K);
		assert_true(l.held - l.used <= 2 * M);
		assert_int_equal(leased(&b), l.held);
	}
	assert_int_equal(l.used, 0);
	lease_done(&l);
	assert_int_equal(leased(&b), 0);
}

static void a_small_limit_is_not_used_up_by_unused_leases(void **state UNUSED)
{
	struct budget b;
	struct lease l[8];

	budget_init(&b, M);
	for (size_t i = 0; i < ARRAY_LEN(l); i++) {
		lease_init(&l[i], &b);
		assert_true(lease_take(&l[i], 100 * K)); /* 800K of 1M */
	}
	for (size_t i = 0; i < ARRAY_LEN(l); i++) {
		lease_give(&l[i], 100 * K);
		assert_true(l[i].held <= M / 32);
	}
	assert_true(lease_take(&l[0], 700 * K));
	lease_give(&l[0], 700 * K);
	for (size_t i = 0; i < ARRAY_LEN(l); i++)
		lease_done(&l[i]);
	assert_int_equal(leased(&b), 0);
}

static void many_unused_leases_hold_an_eighth_of_the_limit_at_most(void **state UNUSED)
{
	struct budget b;
	struct lease l[64];

	budget_init(&b, 16 * M);
	for (size_t i = 0; i < ARRAY_LEN(l); i++)
		lease_init(&l[i], &b);
	for (size_t i = 0; i < ARRAY_LEN(l); i++) {
		if (!lease_take(&l[i], 1))
			fail_msg("lease %zu: refused", i);
		lease_give(&l[i], 1);
	}
	assert_in_range(leased(&b), 1, 16 * M / 8);
	/* Nor if each had much more, one after the other. */
	for (size_t i = 0; i < ARRAY_LEN(l); i++) {
		if (!lease_take(&l[i], 8 * M))
			fail_msg("lease %zu: much refused", i);
		lease_give(&l[i], 8 * M);
	}
	assert_true(leased(&b) <= 16 * M / 8);
	for (size_t i = 0; i < ARRAY_LEN(l); i++)
		lease_done(&l[i]);
	assert_int_equal(leased(&b), 0);
}

static const struct {
	size_t limit, taken;
	enum budget_pressure pressure;
} pressures[] = {
	{ 64 * M, 0, BUDGET_EASY },
	{ 64 * M, 31 * M, BUDGET_EASY },
	{ 64 * M, 32 * M, BUDGET_SOFT },
	{ 64 * M, 47 * M, BUDGET_SOFT },
	{ 64 * M, 48 * M, BUDGET_TIGHT },
	{ 64 * M, 59 * M, BUDGET_TIGHT },
	{ 64 * M, 60 * M, BUDGET_HARD },
	{ 64 * M, 64 * M, BUDGET_HARD },
	{ 16, 7, BUDGET_EASY },
	{ 16, 8, BUDGET_SOFT },
	{ 16, 12, BUDGET_TIGHT },
	{ 16, 15, BUDGET_HARD },
	{ 0, 0, BUDGET_HARD },
};

static void pressure_rises_with_what_is_leased(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(pressures); i++) {
		struct budget b;
		struct lease l;

		budget_init(&b, pressures[i].limit);
		lease_init(&l, &b);
		if (!lease_take(&l, pressures[i].taken))
			fail_msg("row %zu: refused", i);
		if (budget_pressure(&b) != pressures[i].pressure)
			fail_msg("row %zu: pressure %d", i, budget_pressure(&b));
		lease_give(&l, l.used);
		lease_done(&l);
	}
}

#define THREADS 4
#define ROUNDS  20000

struct taker {
	pthread_t thread;
	struct budget *budget;
	pthread_barrier_t *start;
	_Atomic(size_t) *sum; /* of what all hold */
	unsigned seed;
	size_t refused, over;
};

static void *take_and_give(void *arg)
{
	struct taker *t = arg;
	struct lease l;
	size_t mine[16] = { 0 };

	lease_init(&l, t->budget);
	pthread_barrier_wait(t->start);
	for (size_t i = 0; i < ROUNDS; i++) {
		size_t *m = &mine[(size_t)rand_r(&t->seed) % ARRAY_LEN(mine)];
		size_t n = (size_t)rand_r(&t->seed) % (600 * K);

		atomic_fetch_sub(t->sum, *m);
		lease_give(&l, *m);
		*m = 0;
		if (lease_take(&l, n)) {
			*m = n;
			t->over += atomic_fetch_add(t->sum, n) + n > t->budget->limit;
		} else {
			t->refused++;
		}
		t->over += atomic_load(&t->budget->leased) > t->budget->limit;
	}
	for (size_t i = 0; i < ARRAY_LEN(mine); i++) {
		atomic_fetch_sub(t->sum, mine[i]);
		lease_give(&l, mine[i]);
	}
	lease_done(&l);
	return NULL;
}

static void four_threads_never_pass_the_limit(void **state UNUSED)
{
	struct budget b;
	struct taker takers[THREADS];
	_Atomic(size_t) sum = 0;
	pthread_barrier_t start;
	size_t refused = 0;

	budget_init(&b, 4 * M + 1); /* less than one alone would take: it is reached even if they run one after the other */
	assert_int_equal(pthread_barrier_init(&start, NULL, THREADS), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		takers[i] = (struct taker){ .budget = &b, .start = &start, .sum = &sum, .seed = i };
		assert_int_equal(pthread_create(&takers[i].thread, NULL, take_and_give, &takers[i]), 0);
	}
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(takers[i].thread, NULL);
		assert_int_equal(takers[i].over, 0);
		refused += takers[i].refused;
	}
	pthread_barrier_destroy(&start);
	assert_true(refused > 0); /* the limit was reached */
	assert_int_equal(atomic_load(&b.refused), refused);
	assert_int_equal(leased(&b), 0);
	assert_int_equal(atomic_load(&sum), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_ceiling_is_exact_for_one_thread),
		cmocka_unit_test(what_is_given_goes_back_but_for_two_leases),
		cmocka_unit_test(a_small_limit_is_not_used_up_by_unused_leases),
		cmocka_unit_test(many_unused_leases_hold_an_eighth_of_the_limit_at_most),
		cmocka_unit_test(pressure_rises_with_what_is_leased),
		cmocka_unit_test(four_threads_never_pass_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
