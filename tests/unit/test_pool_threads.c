#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <poll.h>

#include "upstream/pool.h"

/*
 * Four threads fight for two slots: they come, cancel, release with and without a kept link, as their random numbers say, until
 * a million grants are done (a tenth with sanitizers, and of own workers' slots, which are lost and attached anew). At any
 * moment a slot is one thread's; at the end all are FREE and nobody waits.
 */
#define THREADS  4
#define SLOTS    2
#define VISITORS 3 /* of each thread at once */

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define GRANTS 100000u
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define GRANTS 100000u
#endif
#endif
#ifndef GRANTS
#define GRANTS 1000000u
#endif

struct link {
	struct loop *loop; /* not atomic: that the pool hands it over safely is what the thread sanitizer checks */
	unsigned uses;
};

static struct link links[SLOTS];

struct thread;

struct visitor {
	struct waiter waiter;
	struct thread *thread;
	struct slot *slot;
	bool waiting;
};

struct arena {
	struct pool *pool;
	bool own;        /* own workers' pool: links come by pool_attach */
	unsigned enough; /* grants */
	atomic_uint grants;
	atomic_uint owned[SLOTS]; /* how many have it just now */
	atomic_uint wrong;        /* claims that did not hold; cmocka's asserts are for the main thread */
	atomic_uint idle;         /* threads that have nothing any more */
};

struct thread {
	struct arena *arena;
	struct loop loop; /* its mailbox is all that is used */
	pthread_t id;
	uint32_t random;
	unsigned cancels;
	struct visitor visitors[VISITORS];
};

static uint32_t roll(struct thread *t, uint32_t sides)
{
	t->random = t->random * 1664525 + 1013904223;
	return (t->random >> 16) % sides;
}

static void claim(struct arena *a, bool holds)
{
	if (!holds)
		atomic_fetch_add(&a->wrong, 1);
}

static void fake_unhook(struct link *l)
{
	l->loop = NULL;
}

static void fake_hook(struct link *l, struct loop *loop)
{
	l->loop = loop;
}

static void fake_close(struct link *l)
{
	l->loop = NULL;
}

static const struct pool_links fake_links = { .unhook = fake_unhook, .hook = fake_hook, .close = fake_close };

static void got(struct visitor *v, struct slot *slot)
{
	struct arena *a = v->thread->arena;

	v->slot = slot;
	v->waiting = false;
	claim(a, atomic_fetch_add(&a->owned[slot->index], 1) == 0);
	claim(a, !slot->link || slot->link->loop == v->waiter.loop);
	if (slot->link)
		slot->link->uses++;
	atomic_fetch_add(&a->grants, 1);
}

static void on_granted(struct waiter *w, struct slot *slot)
{
	struct visitor *v = CONTAINER_OF(w, struct visitor, waiter);

	claim(v->thread->arena, v->waiting);
	got(v, slot);
}

static void come(struct visitor *v)
{
	struct arena *a = v->thread->arena;
	struct slot *slot = NULL;
	enum pool_answer answer;

	v->waiter.since_us = 0;
	answer = roll(v->thread, 8) ? pool_acquire(a->pool, &v->waiter, &slot) : pool_acquire_again(a->pool, &v->waiter, &slot);
	claim(a, answer != POOL_FULL);
	if (answer == POOL_GRANTED)
		got(v, slot);
	else
		v->waiting = true;
}

/* Connects, or closes, or keeps what is there: others' workers. Own ones are lost now and then, and attached anew. */
static void change_link(struct thread *t, struct slot *slot)
{
	uint32_t what = roll(t, 4);

	if (what == 0 && slot->link) {
		fake_close(slot->link);
		slot->link = NULL;
	} else if (what == 1 && !slot->link && !t->arena->own) {
		slot->link = &links[slot->index];
		fake_hook(slot->link, &t->loop);
	}
}

static void leave(struct visitor *v)
{
	struct arena *a = v->thread->arena;
	struct slot *slot = v->slot;
	unsigned index = slot->index;
	bool lost;

	change_link(v->thread, slot);
	lost = a->own && !slot->link;
	v->slot = NULL;
	claim(a, atomic_fetch_sub(&a->owned[index], 1) == 1);
	if (lost) {
		pool_release_lost(slot);
		pool_attach(a->pool, index, &links[index], &v->thread->loop, 1);
	} else {
		pool_release(slot);
	}
}

static void act(struct visitor *v, bool end)
{
	if (v->slot) {
		leave(v);
	} else if (v->waiting && (end || roll(v->thread, 4) == 0)) {
		pool_cancel(v->thread->arena->pool, &v->waiter);
		v->waiting = false;
		v->thread->cancels++;
	} else if (!v->waiting && !end) {
		come(v);
	}
}

static bool has_nothing(const struct thread *t)
{
	for (size_t i = 0; i < VISITORS; i++)
		if (t->visitors[i].slot || t->visitors[i].waiting)
			return false;
	return true;
}

/* Slots on their way to this thread's cancelled waiters arrive late: it goes on delivering until all threads have nothing. */
static void finish(struct thread *t)
{
	struct pollfd wake = { .fd = t->loop.mailbox.fd, .events = POLLIN };
	struct pool_figures f;

	while (!has_nothing(t))
		for (size_t i = 0; i < VISITORS; i++)
			act(&t->visitors[i], true);
	atomic_fetch_add(&t->arena->idle, 1);
	do {
		poll(&wake, 1, 1);
		mailbox_drain(&t->loop.mailbox);
		pool_figures(t->arena->pool, &f);
		claim(t->arena, f.absent + f.free + f.granted + f.busy == f.slots);
	} while (atomic_load(&t->arena->idle) < THREADS || f.granted > 0 || f.busy > 0);
}

static bool all_wait(const struct thread *t)
{
	for (size_t i = 0; i < VISITORS; i++)
		if (!t->visitors[i].waiting)
			return false;
	return true;
}

/* When all its visitors wait, some slot is another's or on its way: this thread can sleep until its mailbox wakes it. */
static void *run(void *arg)
{
	struct thread *t = arg;
	struct pollfd wake = { .fd = t->loop.mailbox.fd, .events = POLLIN };
	struct pool_figures f;

	while (atomic_load(&t->arena->grants) < t->arena->enough) {
		act(&t->visitors[roll(t, VISITORS)], false);
		if (all_wait(t))
			poll(&wake, 1, -1);
		if (roll(t, 4) == 0 || all_wait(t))
			mailbox_drain(&t->loop.mailbox);
		if (roll(t, 64) == 0) {
			pool_figures(t->arena->pool, &f);
			claim(t->arena, f.absent + f.free + f.granted + f.busy == f.slots);
		}
	}
	finish(t);
	return NULL;
}

static void thread_start(struct thread *t, struct arena *a, unsigned index)
{
	*t = (struct thread){ .arena = a, .random = index * 7919 + 1, .loop = { .index = index, .clock = &clock_real } };
	assert_int_equal(mailbox_init(&t->loop.mailbox, NULL), 0);
	for (size_t i = 0; i < VISITORS; i++)
		t->visitors[i] = (struct visitor){ .thread = t, .waiter = { .loop = &t->loop, .granted = on_granted } };
}

static void fight(const struct conf_pool *conf, unsigned grants)
{
	static struct thread threads[THREADS];
	struct arena a = { .own = conf->app != APP_NONE, .enough = grants };
	struct pool_figures f;
	unsigned cancels = 0;

	memset(links, 0, sizeof(links));
	assert_int_equal(pool_new(conf, &fake_links, &clock_real, &a.pool), 0);
	for (unsigned i = 0; i < THREADS; i++)
		thread_start(&threads[i], &a, i);
	for (unsigned i = 0; a.own && i < SLOTS; i++)
		pool_attach(a.pool, i, &links[i], &threads[i].loop, 1);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i].id, NULL, run, &threads[i]), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i].id, NULL);
		cancels += threads[i].cancels;
	}
	pool_figures(a.pool, &f);
	assert_int_equal(atomic_load(&a.wrong), 0);
	assert_int_equal(f.free, SLOTS);
	assert_int_equal(f.queued, 0);
	assert_true(f.grants >= grants);
	assert_true(f.moves > 0);
	assert_true(cancels > 0);
	pool_free(&a.pool);
	for (unsigned i = 0; i < THREADS; i++)
		mailbox_done(&threads[i].loop.mailbox);
}

static void others_workers_slots_stay_as_many_as_they_were(void **state UNUSED)
{
	static struct conf_address address;

	fight(&(struct conf_pool){ .sockets = &address, .socket_count = 1, .slots = SLOTS, .queue_limit = THREADS * VISITORS },
	    GRANTS);
}

static void own_workers_slots_stay_as_many_as_they_were(void **state UNUSED)
{
	fight(&(struct conf_pool){ .app = APP_DEMO, .processes = 1, .threads = SLOTS, .queue_limit = THREADS * VISITORS },
	    GRANTS / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(others_workers_slots_stay_as_many_as_they_were),
		cmocka_unit_test(own_workers_slots_stay_as_many_as_they_were),
	};

	return cmocka_run_group_tests_name("pool_threads", tests, NULL, NULL);
}
