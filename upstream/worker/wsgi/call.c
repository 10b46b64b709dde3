#include "upstream/worker/wsgi/call.h"

#include <stdlib.h>

#include "upstream/worker/wsgi/flusher.h"
#include "upstream/worker/wsgi/gone.h"
#include "upstream/worker/wsgi/input.h"
#include "upstream/worker/wsgi/start.h"

static _Thread_local struct call *of_thread;

static struct call *call_new(void)
{
	struct call *c = calloc(1, sizeof(*c));

	if (c)
		pthread_mutex_init(&c->lock, NULL);
	return c;
}

int call_adopt_main(void)
{
	struct call *c = call_new();

	if (!c)
		return -ENOMEM;
	c->python = PyThreadState_Get();
	c->of_main = true;
	of_thread = c;
	return 0;
}

struct call *call_enter_thread(void)
{
	struct call *c = of_thread;

	if (c)
		return c;
	c = call_new();
	if (!c)
		return NULL;
	c->python = PyThreadState_New(PyInterpreterState_Main());
	if (!c->python) {
		free(c);
		return NULL;
	}
	flusher_know(c);
	of_thread = c;
	return c;
}

void call_leave_thread(void)
{
	struct call *c = of_thread;

	if (!c || c->of_main)
		return;
	PyEval_RestoreThread(c->python);
	start_drop(&c->start);
	input_drop(&c->input);
	gone_drop(&c->gone);
	PyThreadState_Clear(c->python);
	PyThreadState_DeleteCurrent();
	c->python = NULL;
	of_thread = NULL;
}

struct call *call_here(void)
{
	return of_thread && of_thread->r ? of_thread : NULL;
}

void call_begin(struct call *c, struct worker_request *r)
{
	PyEval_RestoreThread(c->python);
	c->r = r;
	c->answer = (struct answer){ 0 };
	c->id[0] = '\0';
}

void call_end(struct call *c)
{
	/* Whoever asks about this request from now on finds that it is over. */
	call_lock(c);
	start_end(&c->start);
	input_end(&c->input);
	gone_end(&c->gone);
	c->r = NULL;
	atomic_store(&c->waits_since_us, 0);
	call_unlock(c);
	(void)PyEval_SaveThread();
}

void call_lock(struct call *c)
{
	PyThreadState *saved;

	if (pthread_mutex_trylock(&c->lock) == 0)
		return;
	/* Its holder may be waiting for the GIL. */
	saved = PyEval_SaveThread();
	pthread_mutex_lock(&c->lock);
	PyEval_RestoreThread(saved);
}

void call_unlock(struct call *c)
{
	pthread_mutex_unlock(&c->lock);
}
