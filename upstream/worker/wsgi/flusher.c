#include "upstream/worker/wsgi/flusher.h"

#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#define IDLE_TICKS  20 /* without anything that waits: then it sleeps until it is called */
#define STACK_BYTES (256u << 10)

static _Atomic(struct call *) known; /* all of them, by next_known */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t called = PTHREAD_COND_INITIALIZER;
static enum { THREAD_NONE, THREAD_RUNS, THREAD_FAILED } thread; /* under lock */
static atomic_bool awake;

uint64_t flusher_now_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void flusher_know(struct call *c)
{
	c->next_known = atomic_load(&known);
	while (!atomic_compare_exchange_weak(&known, &c->next_known, c))
		;
}

/* An error is found again by whoever writes next. */
static void flush(struct call *c)
{
	pthread_mutex_lock(&c->lock);
	/* Only while something waits is there a request, which stays there until call_end has the lock. */
	if (atomic_load(&c->waits_since_us) != 0) {
		(void)!worker_flush(c->r);
		c->answer.waiting = 0;
		atomic_store(&c->waits_since_us, 0);
	}
	pthread_mutex_unlock(&c->lock);
}

/* True: something waits, or has. */
static bool look_at_all(void)
{
	uint64_t now = flusher_now_us();
	bool some = false;

	for (struct call *c = atomic_load(&known); c; c = c->next_known) {
		uint64_t since = atomic_load(&c->waits_since_us);

		if (since == 0)
			continue;
		some = true;
		if (now - since >= FLUSHER_DELAY_MS * 1000 / 2)
			flush(c);
	}
	return some;
}

static void sleep_until_called(void)
{
	atomic_store(&awake, false);
	/* Who saw it awake just before does not call. */
	if (look_at_all()) {
		atomic_store(&awake, true);
		return;
	}
	pthread_mutex_lock(&lock);
	while (!atomic_load(&awake))
		pthread_cond_wait(&called, &lock);
	pthread_mutex_unlock(&lock);
}

static void *flusher_main(void *ctx UNUSED)
{
	const struct timespec tick = { .tv_nsec = FLUSHER_DELAY_MS * 1000000L / 2 };
	unsigned idle = 0;

	for (;;) {
		(void)nanosleep(&tick, NULL);
		idle = look_at_all() ? 0 : idle + 1;
		if (idle < IDLE_TICKS)
			continue;
		sleep_until_called();
		idle = 0;
	}
	return NULL;
}

/* With the lock. Signals are for threads that may run Python. */
static void start_thread(void)
{
	sigset_t all, before;
	pthread_attr_t how;
	pthread_t id;

	thread = THREAD_FAILED;
	if (pthread_attr_init(&how) != 0)
		return;
	(void)pthread_attr_setdetachstate(&how, PTHREAD_CREATE_DETACHED);
	(void)pthread_attr_setstacksize(&how, STACK_BYTES);
	sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, &before);
	if (pthread_create(&id, &how, flusher_main, NULL) == 0)
		thread = THREAD_RUNS;
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	(void)pthread_attr_destroy(&how);
}

static bool wake(void)
{
	bool runs;

	pthread_mutex_lock(&lock);
	if (thread == THREAD_NONE)
		start_thread();
	runs = thread == THREAD_RUNS;
	atomic_store(&awake, runs);
	pthread_cond_signal(&called);
	pthread_mutex_unlock(&lock);
	return runs;
}

bool flusher_watch(struct call *c, uint64_t now_us)
{
	/* The main thread serves nothing but rehearsals, in a process that is going to fork: a thread would be in the way. */
	if (c->of_main)
		return false;
	if (atomic_load(&c->waits_since_us) == 0)
		atomic_store(&c->waits_since_us, now_us);
	if (atomic_load(&awake) || wake())
		return true;
	atomic_store(&c->waits_since_us, 0);
	return false;
}
