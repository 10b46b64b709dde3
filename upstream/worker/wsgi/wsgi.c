#include "upstream/worker/wsgi/python.h"

#include "upstream/worker/wsgi/wsgi.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "upstream/worker/wsgi/call.h"
#include "upstream/worker/wsgi/environ.h"
#include "upstream/worker/wsgi/failure.h"
#include "upstream/worker/wsgi/file_wrapper.h"
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
	if (w->app)
		return 0;
	failure_log("the application could not be loaded");
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

/* What the application returned, or NULL with an exception. */
static PyObject *call_app(const struct wsgi *w, struct call *c)
{
	PyObject *args[3] = { NULL, environ_new(c), NULL }, *result;

	if (!args[1])
		return NULL;
	args[2] = start_begin(c);
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

/* ---- in a zygote ---- */

/* One call of a module's function, whose result nobody needs. What goes wrong is said, and goes on. */
static void call_module(const char *module, const char *function)
{
	PyObject *m = PyImport_ImportModule(module), *result = m ? PyObject_CallMethod(m, function, NULL) : NULL;

	if (!result)
		PyErr_Print();
	Py_XDECREF(result);
	Py_XDECREF(m);
}

/* What is there now is never looked through again by the collector, so that workers share it. */
static void wsgi_freeze(void *ctx)
{
	struct wsgi *w = ctx;

	PyEval_RestoreThread(w->main);
	(void)PyGC_Collect();
	call_module("gc", "freeze");
	w->main = PyEval_SaveThread();
}

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

/* "Python thread Ticker, Python thread Mailer", without this one; or NULL with an exception. */
static PyObject *name_threads(void)
{
	static const char code[] =
	    "', '.join('Python thread ' + t.name for t in threading.enumerate() if t is not threading.main_thread())";
	PyObject *names = PyDict_New(), *threading = PyImport_ImportModule("threading"), *text = NULL;

	if (names && threading && PyDict_SetItemString(names, "threading", threading) == 0 &&
	    PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) == 0)
		text = PyRun_String(code, Py_eval_input, names, names);
	Py_XDECREF(threading);
	Py_XDECREF(names);
	return text;
}

static char *wsgi_unforkable(void *ctx)
{
	struct wsgi *w = ctx;
	const char *text;
	char *said = NULL;
	PyObject *names;

	PyEval_RestoreThread(w->main);
	names = name_threads();
	text = names ? PyUnicode_AsUTF8(names) : NULL;
	if (!text)
		PyErr_Print();
	else if (*text)
		said = strdup(text);
	Py_XDECREF(names);
	w->main = PyEval_SaveThread();
	return said;
}

/* ---- in a worker ---- */

static void wsgi_watch_stack(void *ctx)
{
	struct wsgi *w = ctx;
	PyObject *faulthandler, *result = NULL;

	PyEval_RestoreThread(w->main);
	faulthandler = PyImport_ImportModule("faulthandler");
	if (faulthandler)
		result = PyObject_CallMethod(faulthandler, "register", "iii", SIGURG, STDERR_FILENO, 1);
	if (!result)
		PyErr_Print();
	Py_XDECREF(result);
	Py_XDECREF(faulthandler);
	w->main = PyEval_SaveThread();
}

const struct worker_app wsgi_app = {
	.name = "wsgi",
	.load = wsgi_load,
	.serve = wsgi_serve,
	.unload = wsgi_unload,
	.freeze = wsgi_freeze,
	.before_fork = wsgi_before_fork,
	.after_fork = wsgi_after_fork,
	.unforkable = wsgi_unforkable,
	.watch_stack = wsgi_watch_stack,
};
