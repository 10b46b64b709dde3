#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "upstream/pool.h"

/*
 * Loops A and B are two threads' loops that one thread plays: mail() delivers what was posted to one of them. The clock stands
 * unless moved.
 */
enum { A, B, LOOPS };

struct link {
	struct loop *loop; /* hooked to */
	bool closed;
	unsigned hooks;
};

static struct clock_test clk;
static struct budget budget;
static struct loop *loops[LOOPS];
static struct pool *pool;
static struct conf_address addresses[2];
static struct conf_pool conf;
static struct link links[4];

struct visitor {
	struct waiter waiter;
	struct slot *slot; /* granted */
	unsigned turn;     /* when: 1 is the first of all */
};
static unsigned turns;

static void fake_unhook(struct link *l)
{
	assert_non_null(l->loop);
	l->loop = NULL;
}

static void fake_hook(struct link *l, struct loop *loop)
{
	assert_null(l->loop);
	l->loop = loop;
	l->hooks++;
}

static void fake_close(struct link *l)
{
	assert_false(l->closed);
	l->closed = true;
}

static const struct pool_links fake_links = { .unhook = fake_unhook, .hook = fake_hook, .close = fake_close };

static void on_granted(struct waiter *w, struct slot *slot)
{
	struct visitor *v = CONTAINER_OF(w, struct visitor, waiter);

	assert_null(v->slot);
	assert_int_equal(slot->state, SLOT_BUSY);
	if (slot->link)
		assert_ptr_equal(slot->link->loop, w->loop);
	v->slot = slot;
	v->turn = ++turns;
}

static struct visitor visitor_at(unsigned loop)
{
	return (struct visitor){ .waiter = { .loop = loops[loop], .granted = on_granted } };
}

static enum pool_answer come(struct visitor *v)
{
	return pool_acquire(pool, &v->waiter, &v->slot);
}

static enum pool_answer come_again(struct visitor *v)
{
	v->slot = NULL;
	return pool_acquire_again(pool, &v->waiter, &v->slot);
}

static void leave(struct visitor *v)
{
	struct slot *slot = v->slot;

	v->slot = NULL;
	pool_release(slot);
}

/* A connection is made and kept with the slot. */
static void keep(struct visitor *v, struct link *l)
{
	fake_hook(l, v->waiter.loop);
	v->slot->link = l;
	v->slot->home = v->waiter.loop;
}

static size_t mail(unsigned loop)
{
	return mailbox_drain(&loops[loop]->mailbox);
}

static void mail_all(void)
{
	while (mail(A) + mail(B) > 0)
		;
}

static void pass_ms(uint64_t ms)
{
	clock_test_advance(&clk, ms * 1000);
	for (unsigned i = 0; i < LOOPS; i++)
		wheel_advance(&loops[i]->wheel, loop_now_ms(loops[i]), UINT_MAX);
}

static struct pool_figures figures(void)
{
	struct pool_figures f;

	pool_figures(pool, &f);
	assert_int_equal(f.slots, f.absent + f.free + f.granted + f.busy);
	return f;
}

static void start(const struct conf_pool *c)
{
	conf = *c;
	conf.sockets = addresses;
	assert_int_equal(pool_new(&conf, &fake_links, &clk.clock, &pool), 0);
}

static void start_slots(unsigned slots)
{
	start(&(struct conf_pool){ .socket_count = 1, .slots = slots, .queue_limit = 10 });
}

static void start_app(unsigned processes, unsigned threads)
{
	start(&(struct conf_pool){ .app = APP_DEMO, .processes = processes, .threads = threads, .queue_limit = 10 });
}

static int setup(void **state UNUSED)
{
	clock_test_init(&clk);
	clock_test_advance(&clk, 1000000);
	budget_init(&budget, 64u << 20);
	memset(links, 0, sizeof(links));
	turns = 0;
	for (unsigned i = 0; i < LOOPS; i++)
		if (loop_new(i, &clk.clock, &budget, NULL, &loops[i]))
			return -1;
	return 0;
}

static int teardown(void **state UNUSED)
{
	pool_free(&pool);
	for (unsigned i = 0; i < LOOPS; i++)
		loop_free(&loops[i]);
	return 0;
}

static void no_more_are_granted_than_there_are_slots(void **state UNUSED)
{
	struct visitor v[3] = { visitor_at(A), visitor_at(B), visitor_at(A) };

	start_slots(2);
	assert_int_equal(come(&v[0]), POOL_GRANTED);
	assert_int_equal(come(&v[1]), POOL_GRANTED);
	assert_ptr_not_equal(v[0].slot, v[1].slot);
	assert_int_equal(come(&v[2]), POOL_QUEUED);
	mail_all();
	assert_null(v[2].slot);
	leave(&v[1]);
	assert_int_equal(figures().granted, 1);
	assert_null(v[2].slot); /* never from within a pool_ call */
	mail_all();
	assert_non_null(v[2].slot);
	leave(&v[0]);
	leave(&v[2]);
	assert_int_equal(figures().free, 2);
	assert_int_equal(figures().grants, 3);
}

static void the_queue_is_first_in_first_out(void **state UNUSED)
{
	struct visitor first = visitor_at(A), v[8];

	start_slots(1);
	assert_int_equal(come(&first), POOL_GRANTED);
	for (unsigned i = 0; i < ARRAY_LEN(v); i++) {
		v[i] = visitor_at(i % 2 ? B : A);
		assert_int_equal(come(&v[i]), POOL_QUEUED);
	}
	leave(&first);
	for (unsigned i = 0; i < ARRAY_LEN(v); i++) {
		mail_all();
		assert_int_equal(v[i].turn, i + 1);
		leave(&v[i]);
	}
	assert_int_equal(figures().queue_peak, ARRAY_LEN(v));
	assert_int_equal(figures().free, 1);
}

static void the_queue_has_a_limit(void **state UNUSED)
{
	struct visitor busy = visitor_at(A), v[3] = { visitor_at(A), visitor_at(A), visitor_at(A) };

	start(&(struct conf_pool){ .socket_count = 1, .slots = 1, .queue_limit = 2 });
	assert_int_equal(come(&busy), POOL_GRANTED);
	assert_int_equal(come(&v[0]), POOL_QUEUED);
	assert_int_equal(come(&v[1]), POOL_QUEUED);
	assert_int_equal(come(&v[2]), POOL_FULL);
	assert_int_equal(come_again(&v[2]), POOL_QUEUED); /* had its turn before: no limit */
	assert_int_equal(figures().queued, 3);
	assert_int_equal(figures().refused_full, 1);
	pool_cancel(pool, &v[0].waiter);
	pool_cancel(pool, &v[1].waiter);
	assert_int_equal(come(&v[0]), POOL_QUEUED);
	assert_int_equal(come(&v[1]), POOL_FULL);
	pool_cancel(pool, &v[0].waiter);
	pool_cancel(pool, &v[2].waiter);
	leave(&busy);
}

static void without_a_queue_the_busy_pool_refuses(void **state UNUSED)
{
	struct visitor v[2] = { visitor_at(A), visitor_at(A) };

	start(&(struct conf_pool){ .socket_count = 1, .slots = 1, .queue_limit = 0 });
	assert_int_equal(come(&v[0]), POOL_GRANTED);
	assert_int_equal(come(&v[1]), POOL_FULL);
	leave(&v[0]);
}

static void who_lost_its_worker_goes_to_the_head_and_keeps_its_age(void **state UNUSED)
{
	struct visitor v[3] = { visitor_at(A), visitor_at(A), visitor_at(B) };

	start_slots(1);
	assert_int_equal(come(&v[0]), POOL_GRANTED);
	assert_int_equal(v[0].waiter.since_us, loop_now_us(loops[A]));
	pass_ms(5);
	assert_int_equal(come(&v[1]), POOL_QUEUED);
	assert_int_equal(come(&v[2]), POOL_QUEUED);
	assert_int_equal(figures().oldest_wait_us, 0);
	pass_ms(5);
	assert_int_equal(figures().oldest_wait_us, 5000);
	leave(&v[0]);
	mail_all();
	assert_int_equal(v[1].turn, 1);
	assert_int_equal(come_again(&v[0]), POOL_QUEUED);
	assert_int_equal(figures().oldest_wait_us, 10000);
	leave(&v[1]);
	mail_all();
	assert_int_equal(v[0].turn, 2);
	assert_null(v[2].slot);
	leave(&v[0]);
	mail_all();
	assert_int_equal(v[2].turn, 3);
	leave(&v[2]);
}

static void who_cancels_is_not_granted(void **state UNUSED)
{
	struct visitor busy = visitor_at(A), v[3] = { visitor_at(B), visitor_at(B), visitor_at(B) };

	start_slots(1);
	assert_int_equal(come(&busy), POOL_GRANTED);
	for (unsigned i = 0; i < ARRAY_LEN(v); i++)
		assert_int_equal(come(&v[i]), POOL_QUEUED);
	pool_cancel(pool, &v[1].waiter); /* in the middle */
	pool_cancel(pool, &v[1].waiter); /* idle: nothing */
	leave(&busy);
	pool_cancel(pool, &v[0].waiter); /* granted, not delivered: the receiver passes it on */
	assert_int_equal(figures().granted, 1);
	mail_all();
	assert_null(v[0].slot);
	assert_null(v[1].slot);
	assert_int_equal(v[2].turn, 1);
	leave(&v[2]);
	assert_int_equal(figures().free, 1);
	pool_cancel(pool, &v[2].waiter); /* was delivered: nothing */
}

static void who_cancelled_may_come_back_while_the_grant_is_still_under_way(void **state UNUSED)
{
	struct visitor busy = visitor_at(A), v = visitor_at(B);

	start_slots(1);
	assert_int_equal(come(&busy), POOL_GRANTED);
	assert_int_equal(come(&v), POOL_QUEUED);
	leave(&busy);
	pool_cancel(pool, &v.waiter);
	assert_int_equal(come(&v), POOL_QUEUED);
	mail_all();
	assert_int_equal(v.turn, 1);
	leave(&v);
}

static void the_slot_is_the_last_used_at_home_else_a_bare_one_else_one_that_moves(void **state UNUSED)
{
	struct visitor v[4] = { visitor_at(A), visitor_at(A), visitor_at(B), visitor_at(B) };
	struct slot *slot[4];

	start_slots(4);
	for (unsigned i = 0; i < ARRAY_LEN(v); i++) {
		assert_int_equal(come(&v[i]), POOL_GRANTED);
		slot[i] = v[i].slot;
	}
	keep(&v[0], &links[0]);
	keep(&v[1], &links[1]);
	keep(&v[2], &links[2]);
	for (unsigned i = 0; i < ARRAY_LEN(v); i++)
		leave(&v[i]);
	for (unsigned i = 0; i < ARRAY_LEN(v); i++)
		v[i] = visitor_at(A);
	assert_int_equal(come(&v[0]), POOL_GRANTED);
	assert_ptr_equal(v[0].slot, slot[1]); /* at home, released last */
	assert_int_equal(come(&v[1]), POOL_GRANTED);
	assert_ptr_equal(v[1].slot, slot[0]);
	assert_int_equal(come(&v[2]), POOL_GRANTED);
	assert_ptr_equal(v[2].slot, slot[3]); /* bare */
	assert_int_equal(come(&v[3]), POOL_QUEUED);
	assert_int_equal(figures().moves, 1);
	assert_int_equal(mail(A), 0); /* first B lets go of it */
	assert_ptr_equal(links[2].loop, loops[B]);
	assert_int_equal(mail(B), 1);
	assert_null(links[2].loop);
	assert_int_equal(mail(A), 1);
	assert_ptr_equal(v[3].slot, slot[2]);
	assert_ptr_equal(links[2].loop, loops[A]);
	assert_ptr_equal(slot[2]->home, loops[A]);
	for (unsigned i = 0; i < ARRAY_LEN(v); i++)
		leave(&v[i]);
	assert_int_equal(links[0].hooks, 1);
	assert_int_equal(links[2].hooks, 2);
}

static void a_bare_slot_is_the_one_used_last(void **state UNUSED)
{
	struct visitor v[3] = { visitor_at(A), visitor_at(A), visitor_at(A) };
	struct slot *last;

	start_slots(3);
	for (unsigned i = 0; i < ARRAY_LEN(v); i++)
		assert_int_equal(come(&v[i]), POOL_GRANTED);
	last = v[1].slot;
	leave(&v[0]);
	leave(&v[2]);
	leave(&v[1]);
	assert_int_equal(come(&v[0]), POOL_GRANTED);
	assert_ptr_equal(v[0].slot, last);
	leave(&v[0]);
}

static void a_kept_link_goes_along_to_the_waiter_of_another_thread(void **state UNUSED)
{
	struct visitor a = visitor_at(A), b = visitor_at(B);

	start_slots(1);
	assert_int_equal(come(&a), POOL_GRANTED);
	keep(&a, &links[0]);
	assert_int_equal(come(&b), POOL_QUEUED);
	leave(&a);
	assert_null(links[0].loop);
	assert_int_equal(mail(A), 0);
	assert_int_equal(mail(B), 1);
	assert_ptr_equal(links[0].loop, loops[B]);
	assert_ptr_equal(b.slot->link, &links[0]);
	leave(&b);
	assert_int_equal(figures().moves, 1);
	pool_free(&pool);
	assert_true(links[0].closed);
}

/* Cancelled before its home let go of it, or after: the link ends up at the receiver's, FREE. */
static void a_link_on_the_move_to_nobody_is_free_where_it_arrives(void **state UNUSED)
{
	for (unsigned steps = 0; steps < 2; steps++) {
		struct visitor a = visitor_at(A), b = visitor_at(B);

		start_slots(1);
		assert_int_equal(come(&a), POOL_GRANTED);
		keep(&a, &links[steps]);
		leave(&a);
		assert_int_equal(come(&b), POOL_QUEUED);
		if (steps)
			assert_int_equal(mail(A), 1);
		pool_cancel(pool, &b.waiter);
		mail_all();
		assert_ptr_equal(links[steps].loop, loops[B]);
		assert_int_equal(figures().free, 1);
		assert_int_equal(come(&b), POOL_GRANTED);
		leave(&b);
		pool_free(&pool);
	}
}

static void an_idle_link_that_ends_leaves_a_bare_slot(void **state UNUSED)
{
	struct visitor a = visitor_at(A), b = visitor_at(B);
	struct slot *slot;

	start_slots(1);
	assert_int_equal(come(&a), POOL_GRANTED);
	slot = a.slot;
	keep(&a, &links[0]);
	assert_false(pool_link_ended(slot)); /* in use: its user will see */
	leave(&a);
	assert_true(pool_link_ended(slot));
	assert_null(slot->link);
	assert_int_equal(come(&b), POOL_GRANTED); /* nothing has to move */
	keep(&b, &links[1]);
	leave(&b);
	assert_int_equal(come(&a), POOL_QUEUED);
	assert_false(pool_link_ended(slot)); /* just granted elsewhere */
	mail_all();
	assert_ptr_equal(a.slot->link, &links[1]);
	leave(&a);
}

static void streams_have_a_cap(void **state UNUSED)
{
	static const struct {
		unsigned slots, streams, cap;
	} cases[] = {
		{ 1, 0, 1 },
		{ 3, 0, 1 },
		{ 8, 0, 2 },
		{ 8, 5, 5 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		start(&(struct conf_pool){ .socket_count = 1, .slots = cases[i].slots, .streams = cases[i].streams });
		for (unsigned n = 0; n < cases[i].cap; n++)
			if (!pool_stream_enter(pool))
				fail_msg("row %zu: refused at %u", i, n);
		if (pool_stream_enter(pool))
			fail_msg("row %zu: one too many", i);
		pool_stream_leave(pool);
		assert_true(pool_stream_enter(pool));
		assert_int_equal(figures().streams, cases[i].cap);
		pool_free(&pool);
	}
}

static void an_own_workers_slot_is_absent_until_attached(void **state UNUSED)
{
	struct visitor a = visitor_at(A), b = visitor_at(B);

	start_app(1, 2);
	assert_int_equal(figures().absent, 4); /* each has one more, for its successor */
	assert_int_equal(come(&a), POOL_QUEUED);
	pool_attach(pool, 1, &links[0], loops[B], 77); /* straight to who waits */
	assert_int_equal(mail(B), 0);
	assert_int_equal(mail(A), 1);
	assert_int_equal(a.slot->index, 1);
	assert_int_equal(a.slot->worker_pid, 77);
	assert_ptr_equal(links[0].loop, loops[A]);
	pool_attach(pool, 0, &links[1], loops[B], 78);
	mail_all();
	assert_ptr_equal(links[1].loop, loops[B]);
	assert_int_equal(figures().free, 1);
	assert_int_equal(come(&b), POOL_GRANTED);
	leave(&a);
	leave(&b);
	assert_int_equal(figures().free, 2);
}

static void a_lost_worker_takes_its_slot_away(void **state UNUSED)
{
	struct visitor a = visitor_at(A);
	struct slot *slot;

	start_app(1, 1);
	pool_attach(pool, 0, &links[0], loops[A], 77);
	mail_all();
	assert_int_equal(come(&a), POOL_GRANTED);
	slot = a.slot;
	fake_close(slot->link);
	slot->link = NULL;
	pool_release_lost(slot);
	assert_int_equal(figures().absent, 2);
	assert_int_equal(slot->worker_pid, 0);
	assert_int_equal(come_again(&a), POOL_QUEUED);
	mail_all();
	assert_null(a.slot);
	pool_attach(pool, 0, &links[1], loops[A], 78);
	mail_all();
	/* Granted just now; and what an assertion of cmocka's refuses does not come this far. */
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
	assert_ptr_equal(a.slot->link, &links[1]);
	leave(&a);
	assert_true(pool_link_ended(slot)); /* while idle */
	assert_int_equal(figures().absent, 2);
}

/* `timeout`: the master hears once of each slot whose worker is to be ended. */
static void a_worker_that_was_given_up_is_told_of_once(void **state UNUSED)
{
	struct visitor v[2] = { visitor_at(A), visitor_at(A) };
	unsigned index = 99;
	pid_t pid = 0, was;

	start_app(2, 1);
	pool_attach(pool, 0, &links[0], loops[A], 77);
	pool_attach(pool, 1, &links[1], loops[A], 78);
	mail_all();
	assert_false(pool_next_given_up(pool, &index, &pid));
	for (unsigned i = 0; i < ARRAY_LEN(v); i++) {
		assert_int_equal(come(&v[i]), POOL_GRANTED);
		fake_close(v[i].slot->link);
		v[i].slot->link = NULL;
	}
	was = v[0].slot->worker_pid;
	pool_release_given_up(v[0].slot);
	pool_release_lost(v[1].slot);
	assert_int_equal(figures().absent, 4);
	/* Whoever comes after it is not meant. */
	pool_attach(pool, v[0].slot->index, &links[2], loops[A], 79);
	mail_all();
	assert_true(pool_next_given_up(pool, &index, &pid));
	assert_int_equal(index, v[0].slot->index);
	assert_int_equal(pid, was);
	assert_false(pool_next_given_up(pool, &index, &pid));
	pool_give_up(v[1].slot, 0);
	assert_false(pool_next_given_up(pool, &index, &pid));
}

static void what_is_attached_replaces_an_idle_link_on_its_own_thread(void **state UNUSED)
{
	start_app(1, 1);
	pool_attach(pool, 0, &links[0], loops[A], 77);
	mail_all();
	pool_attach(pool, 0, &links[1], loops[B], 78);
	assert_int_equal(mail(B), 0);
	assert_false(links[0].closed);
	assert_int_equal(mail(A), 1);
	assert_true(links[0].closed);
	assert_int_equal(mail(B), 1);
	assert_ptr_equal(links[1].loop, loops[B]);
	assert_int_equal(figures().free, 1);
}

static void what_is_attached_to_a_slot_in_use_waits_for_its_release(void **state UNUSED)
{
	struct visitor a = visitor_at(A), b = visitor_at(B);

	start_app(1, 1);
	pool_attach(pool, 0, &links[0], loops[A], 77);
	mail_all();
	assert_int_equal(come(&a), POOL_GRANTED);
	pool_attach(pool, 0, &links[1], loops[B], 78);
	pool_attach(pool, 0, &links[2], loops[B], 79); /* and another: the one between is never used */
	assert_true(links[1].closed);
	assert_ptr_equal(a.slot->link, &links[0]);
	assert_int_equal(a.slot->worker_pid, 77);
	assert_int_equal(come(&b), POOL_QUEUED);
	leave(&a);
	assert_true(links[0].closed);
	mail_all();
	assert_ptr_equal(b.slot->link, &links[2]);
	assert_int_equal(b.slot->worker_pid, 79);
	/* the same with a lost one, and nobody who waits */
	pool_attach(pool, 0, &links[3], loops[A], 80);
	fake_close(b.slot->link);
	b.slot->link = NULL;
	pool_release_lost(b.slot);
	mail_all();
	assert_ptr_equal(links[3].loop, loops[A]);
	assert_int_equal(figures().free, 1);
}

static void a_refused_connect_rests_the_socket_and_one_slot_tries(void **state UNUSED)
{
	struct visitor v[3] = { visitor_at(A), visitor_at(B), visitor_at(A) };
	struct slot *slot;

	start_slots(3);
	assert_int_equal(come(&v[0]), POOL_GRANTED);
	pool_socket_down(v[0].slot, loops[A]);
	assert_int_equal(figures().absent, 3);
	assert_int_equal(figures().sockets_down, 1);
	assert_int_equal(come_again(&v[0]), POOL_QUEUED);
	assert_int_equal(come(&v[1]), POOL_QUEUED);
	assert_int_equal(come(&v[2]), POOL_QUEUED);
	pass_ms(POOL_BACKOFF_MIN_MS - 1);
	mail_all();
	assert_null(v[0].slot);
	pass_ms(2 * WHEEL_TICK_MS);
	mail_all();
	assert_non_null(v[0].slot);
	assert_int_equal(figures().absent, 2); /* exactly one */
	slot = v[0].slot;
	pool_socket_up(slot);
	assert_ptr_equal(v[0].slot, slot);
	assert_int_equal(figures().sockets_down, 0);
	mail_all();
	assert_non_null(v[1].slot);
	assert_non_null(v[2].slot);
	for (unsigned i = 0; i < ARRAY_LEN(v); i++)
		leave(&v[i]);
	assert_int_equal(figures().free, 3);
	pool_socket_up(slot); /* up already: nothing */
}

/* How long the socket rests after the probe was refused for the n-th time. */
static void the_backoff_doubles_up_to_a_second(void **state UNUSED)
{
	static const unsigned rests_ms[] = { 50, 100, 200, 400, 800, 1000, 1000 };
	struct visitor v = visitor_at(A);

	start_slots(2);
	assert_int_equal(come(&v), POOL_GRANTED);
	for (size_t i = 0; i < ARRAY_LEN(rests_ms); i++) {
		unsigned ms = 0;

		pool_socket_down(v.slot, loops[A]);
		assert_int_equal(come_again(&v), POOL_QUEUED);
		for (; !v.slot && ms < 5000; ms++) {
			pass_ms(1);
			mail_all();
		}
		if (ms < rests_ms[i] || ms > rests_ms[i] + rests_ms[i] / 4 + WHEEL_TICK_MS + 1)
			fail_msg("row %zu: %u ms", i, ms);
	}
	pool_socket_up(v.slot);
	pool_socket_down(v.slot, loops[A]); /* from the start again */
	assert_int_equal(come_again(&v), POOL_QUEUED);
	pass_ms(2 * WHEEL_TICK_MS);
	mail_all();
	assert_non_null(v.slot);
	leave(&v);
}

static void what_comes_back_to_a_resting_socket_rests_too(void **state UNUSED)
{
	struct visitor v[4] = { visitor_at(A), visitor_at(B), visitor_at(B), visitor_at(A) };
	struct slot *kept;

	start_slots(4);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(come(&v[i]), POOL_GRANTED);
	keep(&v[1], &links[0]);
	kept = v[1].slot;
	pool_socket_down(v[0].slot, loops[A]);
	leave(&v[1]);
	pool_socket_down(v[2].slot, loops[B]); /* refused as well: no second timer */
	assert_int_equal(figures().absent, 4);
	pass_ms(2 * WHEEL_TICK_MS);
	assert_int_equal(figures().absent, 3);
	assert_ptr_equal(kept->link, &links[0]); /* the probe is another: it must connect */
	assert_int_equal(kept->state, SLOT_ABSENT);
	v[0] = visitor_at(A);
	assert_int_equal(come(&v[0]), POOL_GRANTED);
	assert_null(v[0].slot->link);
	leave(&v[0]); /* neither up nor down: somebody else tries */
	assert_int_equal(come(&v[0]), POOL_GRANTED);
	assert_int_equal(come(&v[3]), POOL_QUEUED);
	assert_true(pool_link_ended(kept)); /* absent */
	assert_int_equal(figures().absent, 3);
	pool_socket_up(v[0].slot);
	mail_all();
	assert_non_null(v[3].slot);
	leave(&v[0]);
	leave(&v[3]);
	assert_int_equal(figures().free, 4);
}

/* A kept link that comes back into use when the socket is up again moves to who waits. */
static void a_rested_link_is_granted_through_its_home(void **state UNUSED)
{
	struct visitor v[2] = { visitor_at(A), visitor_at(B) }, waits = visitor_at(A);

	start_slots(2);
	assert_int_equal(come(&v[0]), POOL_GRANTED);
	assert_int_equal(come(&v[1]), POOL_GRANTED);
	keep(&v[1], &links[0]);
	leave(&v[1]);
	pool_socket_down(v[0].slot, loops[A]);
	assert_int_equal(come_again(&v[0]), POOL_QUEUED);
	assert_int_equal(come(&waits), POOL_QUEUED);
	pass_ms(2 * WHEEL_TICK_MS);
	mail_all();
	pool_socket_up(v[0].slot);
	assert_ptr_equal(links[0].loop, loops[B]);
	mail_all();
	assert_ptr_equal(waits.slot->link, &links[0]);
	assert_ptr_equal(links[0].loop, loops[A]);
	leave(&waits);
	leave(&v[0]);
}

static void other_sockets_serve_while_one_rests(void **state UNUSED)
{
	struct visitor v[3] = { visitor_at(A), visitor_at(A), visitor_at(A) };
	unsigned bad;

	start(&(struct conf_pool){ .socket_count = 2, .slots = 2, .queue_limit = 10 });
	assert_int_equal(come(&v[0]), POOL_GRANTED);
	bad = v[0].slot->socket;
	assert_ptr_equal(v[0].slot->address, &addresses[bad]);
	pool_socket_down(v[0].slot, loops[A]);
	for (unsigned i = 0; i < 2; i++) {
		v[i] = visitor_at(A);
		assert_int_equal(come(&v[i]), POOL_GRANTED);
		assert_int_not_equal(v[i].slot->socket, bad);
	}
	assert_int_equal(come(&v[2]), POOL_QUEUED);
	leave(&v[1]);
	mail_all();
	assert_int_not_equal(v[2].slot->socket, bad);
	leave(&v[2]);
	pass_ms(2 * WHEEL_TICK_MS);
	/* The probe is there, but no request tries it while another socket's slot is free. */
	assert_int_equal(figures().free, 2);
	v[1] = visitor_at(A);
	assert_int_equal(come(&v[1]), POOL_GRANTED);
	assert_int_not_equal(v[1].slot->socket, bad);
	v[2] = visitor_at(A);
	assert_int_equal(come(&v[2]), POOL_GRANTED);
	assert_int_equal(v[2].slot->socket, bad);
	for (unsigned i = 0; i < ARRAY_LEN(v); i++)
		leave(&v[i]);
}

/* The timer of the first rest still stands on loop A when the second begins on B: it must not shorten that. */
static void a_rest_that_begins_on_another_thread_has_its_full_length(void **state UNUSED)
{
	struct visitor a = visitor_at(A), b = visitor_at(B), c = visitor_at(B);

	start_slots(3);
	assert_int_equal(come(&a), POOL_GRANTED);
	assert_int_equal(come(&b), POOL_GRANTED);
	assert_int_equal(come(&c), POOL_GRANTED);
	pool_socket_down(a.slot, loops[A]);
	clock_test_advance(&clk, 99 * 1000); /* the loops are late */
	pool_socket_up(b.slot);
	assert_int_equal(figures().absent, 0);
	pool_socket_down(c.slot, loops[B]);
	pass_ms(1);
	assert_int_equal(figures().sockets_down, 1);
	assert_int_equal(figures().free, 0);
	pass_ms(48);
	assert_int_equal(figures().free, 0);
	pass_ms(2 * WHEEL_TICK_MS);
	assert_int_equal(figures().free, 1);
	pool_socket_up(b.slot);
	leave(&b);
}

static void a_pool_is_freed_while_a_socket_rests(void **state UNUSED)
{
	struct visitor v = visitor_at(A);

	start_slots(1);
	assert_int_equal(come(&v), POOL_GRANTED);
	pool_socket_down(v.slot, loops[A]);
	pool_free(&pool);
	assert_null(pool);
	assert_int_equal(loops[A]->wheel.count, 0);
	pass_ms(2 * WHEEL_TICK_MS);
}

static void impossible_numbers_are_refused(void **state UNUSED)
{
	static const struct conf_pool cases[] = {
		{ .socket_count = 1, .slots = 0 },
		{ .socket_count = 0, .slots = 1 },
		{ .socket_count = 2, .slots = 1u << 31 },
		{ .app = APP_DEMO, .processes = 1, .threads = 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (pool_new(&cases[i], &fake_links, &clk.clock, &pool) != -EINVAL)
			fail_msg("row %zu", i);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(no_more_are_granted_than_there_are_slots),
		TEST(the_queue_is_first_in_first_out),
		TEST(the_queue_has_a_limit),
		TEST(without_a_queue_the_busy_pool_refuses),
		TEST(who_lost_its_worker_goes_to_the_head_and_keeps_its_age),
		TEST(who_cancels_is_not_granted),
		TEST(who_cancelled_may_come_back_while_the_grant_is_still_under_way),
		TEST(the_slot_is_the_last_used_at_home_else_a_bare_one_else_one_that_moves),
		TEST(a_bare_slot_is_the_one_used_last),
		TEST(a_kept_link_goes_along_to_the_waiter_of_another_thread),
		TEST(a_link_on_the_move_to_nobody_is_free_where_it_arrives),
		TEST(an_idle_link_that_ends_leaves_a_bare_slot),
		TEST(streams_have_a_cap),
		TEST(an_own_workers_slot_is_absent_until_attached),
		TEST(a_lost_worker_takes_its_slot_away),
		TEST(a_worker_that_was_given_up_is_told_of_once),
		TEST(what_is_attached_replaces_an_idle_link_on_its_own_thread),
		TEST(what_is_attached_to_a_slot_in_use_waits_for_its_release),
		TEST(a_refused_connect_rests_the_socket_and_one_slot_tries),
		TEST(the_backoff_doubles_up_to_a_second),
		TEST(what_comes_back_to_a_resting_socket_rests_too),
		TEST(a_rested_link_is_granted_through_its_home),
		TEST(other_sockets_serve_while_one_rests),
		TEST(a_rest_that_begins_on_another_thread_has_its_full_length),
		TEST(a_pool_is_freed_while_a_socket_rests),
		TEST(impossible_numbers_are_refused),
	};

	return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
