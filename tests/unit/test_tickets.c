/* tickets: keys that turn by themselves, and keys of files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "proxy/client/tickets.h"

static enum ticket_found find(struct tickets *t, const struct ticket_key *key)
{
	struct ticket_key got = { 0 };
	enum ticket_found found = tickets_find(t, key->name, &got);

	if (found != TICKET_UNKNOWN)
		assert_memory_equal(&got, key, sizeof(got));
	return found;
}

static void turn(struct clock_test *c, unsigned times)
{
	clock_test_advance(c, times * TICKETS_TURN_MS * 1000);
}

static void a_key_serves_and_is_known_for_two_turns_more(void **state UNUSED)
{
	struct ticket_key keys[4], all[TICKETS_OWN];
	struct clock_test clock;
	struct tickets *t;

	clock_test_init(&clock);
	assert_int_equal(tickets_new(&clock.clock, &t), 0);
	assert_true(tickets_current(t, &keys[0]));
	clock_test_advance(&clock, (TICKETS_TURN_MS - 1) * 1000);
	assert_true(tickets_current(t, &keys[1]));
	assert_memory_equal(&keys[0], &keys[1], sizeof(keys[0]));
	clock_test_advance(&clock, 1000);
	assert_true(tickets_current(t, &keys[1]));
	assert_memory_not_equal(keys[0].name, keys[1].name, TICKET_NAME_BYTES);
	assert_memory_not_equal(keys[0].aes, keys[1].aes, sizeof(keys[0].aes));
	assert_memory_not_equal(keys[0].hmac, keys[1].hmac, sizeof(keys[0].hmac));
	assert_int_equal(find(t, &keys[0]), TICKET_OLD);
	assert_int_equal(find(t, &keys[1]), TICKET_CURRENT);
	turn(&clock, 1);
	assert_true(tickets_current(t, &keys[2]));
	assert_int_equal(find(t, &keys[0]), TICKET_OLD);
	turn(&clock, 1);
	/* Looking is enough: nobody need encrypt for an old key to go. */
	assert_int_equal(find(t, &keys[0]), TICKET_UNKNOWN);
	assert_int_equal(find(t, &keys[1]), TICKET_OLD);
	assert_int_equal(find(t, &keys[2]), TICKET_OLD);
	assert_int_equal(tickets_all(t, all), TICKETS_OWN);
	assert_memory_equal(&all[1], &keys[2], sizeof(all[1]));
	assert_memory_equal(&all[2], &keys[1], sizeof(all[2]));
	assert_int_equal(find(t, &all[0]), TICKET_CURRENT);
	tickets_drop(&t);
}

static void turns_that_nobody_saw_count(void **state UNUSED)
{
	for (unsigned turns = 1; turns <= 5; turns++) {
		struct ticket_key first;
		struct clock_test clock;
		struct tickets *t;

		clock_test_init(&clock);
		assert_int_equal(tickets_new(&clock.clock, &t), 0);
		assert_true(tickets_current(t, &first));
		turn(&clock, turns);
		assert_int_equal(find(t, &first), turns <= TICKETS_OLD ? TICKET_OLD : TICKET_UNKNOWN);
		tickets_drop(&t);
	}
	struct ticket_key key;
	struct clock_test clock;
	struct tickets *t;

	clock_test_init(&clock);
	assert_int_equal(tickets_new(&clock.clock, &t), 0);
	turn(&clock, 100000); /* 136 years */
	assert_true(tickets_current(t, &key));
	assert_int_equal(find(t, &key), TICKET_CURRENT);
	tickets_drop(&t);
}

static void keys_of_files_stay(void **state UNUSED)
{
	struct ticket_key keys[2], got;
	unsigned char bytes[TICKET_LARGE_BYTES];
	struct tickets *t, *held;

	for (size_t i = 0; i < 2; i++) {
		memset(bytes, 'a' + (int)i, sizeof(bytes));
		assert_true(ticket_key_parse(bytes, sizeof(bytes), &keys[i]));
	}
	assert_int_equal(tickets_new_fixed(keys, 2, &t), 0);
	assert_true(tickets_current(t, &got));
	assert_memory_equal(&got, &keys[0], sizeof(got));
	held = tickets_hold(t);
	tickets_drop(&t);
	assert_null(t);
	assert_int_equal(find(held, &keys[0]), TICKET_CURRENT);
	assert_int_equal(find(held, &keys[1]), TICKET_OLD);
	keys[1].name[15]++;
	assert_int_equal(find(held, &keys[1]), TICKET_UNKNOWN);
	tickets_drop(&held);
}

static void a_key_file_has_one_of_two_sizes(void **state UNUSED)
{
	unsigned char bytes[TICKET_LARGE_BYTES + 1];
	struct ticket_key k;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)i;
	for (size_t len = 0; len <= sizeof(bytes); len++)
		assert_int_equal(ticket_key_parse(bytes, len, &k), len == 48 || len == 80);
	assert_true(ticket_key_parse(bytes, 80, &k));
	assert_memory_equal(k.name, bytes, 16);
	assert_memory_equal(k.hmac, bytes + 16, 32);
	assert_memory_equal(k.aes, bytes + 48, 32);
	assert_int_equal(k.bytes, 32);
	assert_true(ticket_key_parse(bytes, 48, &k));
	assert_memory_equal(k.aes, bytes + 16, 16);
	assert_memory_equal(k.hmac, bytes + 32, 16);
	assert_int_equal(k.bytes, 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_serves_and_is_known_for_two_turns_more),
		cmocka_unit_test(turns_that_nobody_saw_count),
		cmocka_unit_test(keys_of_files_stay),
		cmocka_unit_test(a_key_file_has_one_of_two_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
