#include "upstream/worker/offspring.h"

#include <pthread.h>

static struct {
	const struct offspring_events *events; /* NULL: nobody wants to know */
	void *ctx;
} watcher;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int register_error;

static void on_before(void)
{
	if (watcher.events)
		watcher.events->before(watcher.ctx);
}

static void on_parent(void)
{
	if (watcher.events)
		watcher.events->after(watcher.ctx, false);
}

static void on_child(void)
{
	if (watcher.events)
		watcher.events->after(watcher.ctx, true);
}

/* It cannot be taken back. */
static void register_once(void)
{
	register_error = -pthread_atfork(on_before, on_parent, on_child);
}

int offspring_watch(const struct offspring_events *events, void *ctx)
{
	assert(!watcher.events);
	(void)pthread_once(&once, register_once);
	if (register_error)
		return register_error;
	watcher.ctx = ctx;
	watcher.events = events;
	return 0;
}

void offspring_unwatch(void)
{
	watcher.events = NULL;
}
