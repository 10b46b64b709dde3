#include "upstream/worker/wsgi/python.h"

#include "upstream/worker/wsgi/wsgi.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"
#include "upstream/worker/wsgi/call.h"
#include "upstream/worker/wsgi/environ.h"
#include "upstream/worker/wsgi/failure.h"
#include "upstream/worker/wsgi/file_wrapper.h"
#include "upstream/worker/wsgi/fork.h"
#include "upstream/worker/wsgi/gone.h"
#include "upstream/worker/wsgi/input.h"
#include "upstream/worker/wsgi/interpreter.h"
#include "upstream/worker/wsgi/lines.h"
#include "upstream/worker/wsgi/respond.h"
#include "upstream/worker/wsgi/start.h"
#include "upstream/worker/wsgi/target.h"
#include "upstream/worker/wsgi/variables.h"

struct wsgi {
	PyObject *app;
	PyThreadState *main; /* the main thread's, while that is not in Python */
};

/* All that has to be there before the application's code runs. 0, or -1 with an exception. */
static int set_up(const struct worker_setting *setting)
{
	struct environ_plan plan = { .multithread = setting->threads > 1, .multiprocess = setting->processes > 1 };

	if (lines_setup(&plan.errors) == -1 || variables_setup() == -1 || gone_setup() == -1 || input_setup() == -1 ||
	    start_setup() == -1 || respond_setup() == -1)
		return -1;
	plan.file_wrapper = file_wrapper_setup();
	return plan.file_wrapper ? environ_setup(&plan) : -1;
}

/* A module that is not found is most often looked for in the wrong place. */
static void say_where(const char *target)
{
	char text[400], *here = getcwd(NULL, 0);

	(void)snprintf(
	    text, sizeof(text), "the application could not be loaded: wsgi:%s, in the folder %s", target, here ? here : "?");
	free(here);
	failure_log(text);
}

/* 0 or -errno: it was said why. */
static int load_app(struct wsgi *w, const struct worker_setting *setting)
{
	if (call_adopt_main() != 0)
		return -ENOMEM;
	if (set_up(setting) == -1) {
		PyErr_Print();
		return -EIO;
	}
	w->app = target_load(setting->target);
	lines_end();
	if (w->app)
		return 0;
	say_where(setting->target);
	return -ENOEXEC;
}

static int wsgi_load(const struct worker_setting *setting, void **ret_ctx)
{
	struct wsgi *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	failure_setup(setting->debug);
	err = interpreter_start() ? load_app(w, setting) : -EIO;
	if (err) {
		free(w); /* the process is about to end, and Python with it */
		return err;
	}
	w->main = PyEval_SaveThread();
	*ret_ctx = w;
	return 0;
}

static void wsgi_unload(void *ctx)
{
	struct wsgi *w = ctx;

	PyEval_RestoreThread(w->main);
	Py_CLEAR(w->app);
	interpreter_end();
	free(w);
}

/* Without memory the thread's first request says so. */
static void wsgi_prepare_thread(void *ctx UNUSED)
{
	(void)call_enter_thread();
}

static void wsgi_leave_thread(void *ctx UNUSED)
{
	call_leave_thread();
}

static void wsgi_freeze(void *ctx)
{
	struct wsgi *w = ctx;

	PyEval_RestoreThread(w->main);
	fork_freeze();
	w->main = PyEval_SaveThread();
}

/* The GIL is held from here until the fork is over, on both sides. */
static void wsgi_before_fork(void *ctx)
{
	struct wsgi *w = ctx;

	PyEval_RestoreThread(w->main);
	PyOS_BeforeFork();
}

static void wsgi_after_fork(void *ctx, bool child)
{
	struct wsgi *w = ctx;

	if (child)
		PyOS_AfterFork_Child();
	else
		PyOS_AfterFork_Parent();
	w->main = PyEval_SaveThread();
}

static char *wsgi_unforkable(void *ctx)
{
	struct wsgi *w = ctx;
	char *said;

	PyEval_RestoreThread(w->main);
	said = fork_threads();
	w->main = PyEval_SaveThread();
	return said;
}

/* faulthandler writes from the signal's handler: it needs neither the GIL nor a thread that gets on. */
static void wsgi_watch_stack(void *ctx)
{
	struct wsgi *w = ctx;
	PyObject *module, *got = NULL;

	PyEval_RestoreThread(w->main);
	module = PyImport_ImportModule("faulthandler");
	if (module)
		got = PyObject_CallMethod(module, "register", "iii", SIGURG, STDERR_FILENO, 1);
	if (!got)
		failure_log("stacks of requests that take too long will not be shown");
	Py_XDECREF(got);
	Py_XDECREF(module);
	w->main = PyEval_SaveThread();
}

/* What the application returned, or NULL with an exception. */
static PyObject *call_app(const struct wsgi *w, struct call *c)
{
	PyObject *args[3] = { NULL, environ_new(c), NULL }, *result;

	if (!args[1])
		return NULL;
	args[2] = start_begin(c);
	/* Not before: until here it may have waited long, for a GIL that others held. */
	if (args[2])
		worker_begin(c->r);
	result = args[2] ? PyObject_Vectorcall(w->app, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL) : NULL;
	Py_DECREF(args[1]);
	return result;
}

static void wsgi_serve(void *ctx, struct worker_request *r)
{
	struct call *c = call_enter_thread();

	if (!c) {
		log_error("what=\"no memory for a thread's Python state\"");
		return;
	}
	call_begin(c, r);
	respond(c, call_app(ctx, c));
	lines_end();
	call_end(c);
}

const struct worker_app wsgi_app = {
	.name = "wsgi",
	.load = wsgi_load,
	.serve = wsgi_serve,
	.says_begun = true,
	.unload = wsgi_unload,
	.prepare_thread = wsgi_prepare_thread,
	.leave_thread = wsgi_leave_thread,
	.freeze = wsgi_freeze,
	.before_fork = wsgi_before_fork,
	.after_fork = wsgi_after_fork,
	.unforkable = wsgi_unforkable,
	.watch_stack = wsgi_watch_stack,
};
