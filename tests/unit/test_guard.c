#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/un.h>

#include "proxy/client/guard.h"

union address {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

/* Numeric text; with a '/' it is a Unix socket's. The port differs each time: it must not matter. */
static union address address(const char *text)
{
	static in_port_t port;
	union address a = { 0 };

	if (strchr(text, '/')) {
		a.un.sun_family = AF_UNIX;
	} else if (strchr(text, ':')) {
		a.in6.sin6_family = AF_INET6;
		a.in6.sin6_port = ++port;
		assert_int_equal(inet_pton(AF_INET6, text, &a.in6.sin6_addr), 1);
	} else {
		a.in4.sin_family = AF_INET;
		a.in4.sin_port = ++port;
		assert_int_equal(inet_pton(AF_INET, text, &a.in4.sin_addr), 1);
	}
	return a;
}

/* After `first` has come twice with a limit of two: is `second` another? */
static const struct {
	const char *first, *second;
	enum guard_answer answer;
} pairs[] = {
	{ "192.0.2.1", "192.0.2.1", GUARD_ADDRESS_FULL },
	{ "192.0.2.1", "192.0.2.2", GUARD_OK },
	{ "192.0.2.1", "::ffff:192.0.2.1", GUARD_ADDRESS_FULL },
	{ "::ffff:192.0.2.1", "192.0.2.1", GUARD_ADDRESS_FULL },
	{ "::ffff:192.0.2.1", "::ffff:192.0.2.2", GUARD_OK },
	{ "2001:db8::1", "2001:db8::1", GUARD_ADDRESS_FULL },
	{ "2001:db8::1", "2001:db8::ffff:1:2:3", GUARD_ADDRESS_FULL },
	{ "2001:db8:0:1::1", "2001:db8:0:2::1", GUARD_OK },
	{ "0.0.0.0", "::", GUARD_OK },
	{ "/a", "/a", GUARD_OK },
};

#define FULL ((int)GUARD_ADDRESS_FULL + 1) /* no place in all */

static int enter(struct guard *g, const struct sockaddr *peer, unsigned per_address)
{
	return guard_take_place(g) ? (int)guard_enter(g, peer, per_address) : FULL;
}

static void an_address_has_its_limit(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		union address first = address(pairs[i].first), second = address(pairs[i].second);
		struct guard *g;

		assert_int_equal(guard_new(10, &g), 0);
		for (int n = 0; n < 2; n++)
			assert_int_equal(enter(g, &first.any, 2), GUARD_OK);
		if (enter(g, &second.any, 2) != (int)pairs[i].answer)
			fail_msg("row %zu: %s after %s", i, pairs[i].second, pairs[i].first);
		if (guard_connections(g) != (pairs[i].answer == GUARD_OK ? 3 : 2))
			fail_msg("row %zu: a refused one was counted", i);
		/* One that goes makes room for one. */
		guard_leave(g, &first.any, 2);
		assert_int_equal(enter(g, &first.any, 2), GUARD_OK);
		guard_free(&g);
		assert_null(g);
	}
}

static void all_together_have_a_limit(void **state UNUSED)
{
	union address a = address("192.0.2.1"), b = address("192.0.2.2");
	struct guard *g;

	assert_int_equal(guard_new(3, &g), 0);
	assert_int_equal(enter(g, &a.any, 0), GUARD_OK);
	assert_int_equal(enter(g, &a.any, 0), GUARD_OK);
	assert_int_equal(enter(g, &b.any, 1), GUARD_OK);
	assert_int_equal(enter(g, &a.any, 0), FULL);
	assert_int_equal(enter(g, &b.any, 1), FULL);
	assert_int_equal(guard_connections(g), 3);
	guard_leave(g, &b.any, 1);
	/* 0 means not counted: the two others from this address are no obstacle to one that is. */
	assert_int_equal(enter(g, &a.any, 1), GUARD_OK);
	guard_leave(g, &a.any, 1);
	guard_leave(g, &a.any, 0);
	guard_leave(g, &a.any, 0);
	assert_int_equal(guard_connections(g), 0);
	guard_free(&g);
}

static void none_at_all_may_be_let_in(void **state UNUSED)
{
	union address a = address("192.0.2.1");
	struct guard *g;

	assert_int_equal(guard_new(0, &g), 0);
	assert_int_equal(enter(g, &a.any, 0), FULL);
	guard_free(&g);
	guard_free(&g);
}

/* More addresses than there are chains: each still has its own count. */
static void many_addresses_are_kept_apart(void **state UNUSED)
{
	const uint32_t many = 200000;
	union address a = address("10.0.0.0");
	struct guard *g;

	assert_int_equal(guard_new(2 * many, &g), 0);
	for (uint32_t i = 0; i < many; i++) {
		a.in4.sin_addr.s_addr = htonl(0x0a000000 + i);
		assert_int_equal(enter(g, &a.any, 1), GUARD_OK);
	}
	for (uint32_t i = 0; i < many; i++) {
		a.in4.sin_addr.s_addr = htonl(0x0a000000 + i);
		assert_int_equal(enter(g, &a.any, 1), GUARD_ADDRESS_FULL);
		if (i % 2)
			guard_leave(g, &a.any, 1);
	}
	assert_int_equal(guard_connections(g), many / 2);
	for (uint32_t i = 0; i < many; i++) {
		a.in4.sin_addr.s_addr = htonl(0x0a000000 + i);
		if (enter(g, &a.any, 1) != (i % 2 ? GUARD_OK : GUARD_ADDRESS_FULL))
			fail_msg("address %u", (unsigned)i);
	}
	guard_free(&g);
}

#define CROWD_THREADS 4
#define CROWD_LIMIT   5 /* from one address */
#define CROWD_ALL     12

struct crowd {
	struct guard *guard;
	atomic_int inside, from_one;
	atomic_bool broken;
};

static void *come_and_go(void *ctx)
{
	struct crowd *c = ctx;
	union address one = { .in4 = { .sin_family = AF_INET, .sin_addr = { 1 } } };
	union address other = { .in4 = { .sin_family = AF_INET, .sin_addr = { 2 } } };

	for (int i = 0; i < 20000; i++) {
		union address *a = i % 3 ? &one : &other;
		int held = 0;

		while (held < 4 && enter(c->guard, &a->any, CROWD_LIMIT) == GUARD_OK) {
			held++;
			if (atomic_fetch_add(&c->inside, 1) >= CROWD_ALL)
				atomic_store(&c->broken, true);
			if (a == &one && atomic_fetch_add(&c->from_one, 1) >= CROWD_LIMIT)
				atomic_store(&c->broken, true);
		}
		for (; held > 0; held--) {
			if (a == &one)
				atomic_fetch_sub(&c->from_one, 1);
			atomic_fetch_sub(&c->inside, 1);
			guard_leave(c->guard, &a->any, CROWD_LIMIT);
		}
	}
	return NULL;
}

static void the_limits_hold_among_threads(void **state UNUSED)
{
	struct crowd c = { 0 };
	pthread_t threads[CROWD_THREADS];

	assert_int_equal(guard_new(CROWD_ALL, &c.guard), 0);
	for (size_t i = 0; i < CROWD_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &c), 0);
	for (size_t i = 0; i < CROWD_THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_false(atomic_load(&c.broken));
	assert_int_equal(guard_connections(c.guard), 0);
	guard_free(&c.guard);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_has_its_limit),
		cmocka_unit_test(all_together_have_a_limit),
		cmocka_unit_test(none_at_all_may_be_let_in),
		cmocka_unit_test(many_addresses_are_kept_apart),
		cmocka_unit_test(the_limits_hold_among_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
