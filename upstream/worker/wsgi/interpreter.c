#include "upstream/worker/wsgi/interpreter.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"

/*
 * The program that Python takes itself for: it finds its library from there, and what the application starts by sys.executable is a Python. A virtualenv's
 * has a pyvenv.cfg beside it, which Python's own start-up code follows.
 */
static bool executable(char *ret, size_t size)
{
	const char *venv = getenv("VIRTUAL_ENV");
	int n;

	if (!venv || !*venv) {
		n = snprintf(ret, size, "%s", FOREBAY_PYTHON);
		return n > 0 && (size_t)n < size;
	}
	n = snprintf(ret, size, "%s/lib/python%d.%d/site-packages", venv, PY_MAJOR_VERSION, PY_MINOR_VERSION);
	if (n < 0 || (size_t)n >= size || access(ret, R_OK | X_OK) == -1) {
		log_error("virtualenv=%s what=\"not a virtualenv of Python %d.%d: it has no lib/python%d.%d/site-packages\"",
		    venv, PY_MAJOR_VERSION, PY_MINOR_VERSION, PY_MAJOR_VERSION, PY_MINOR_VERSION);
		return false;
	}
	n = snprintf(ret, size, "%s/bin/python", venv);
	return n > 0 && (size_t)n < size;
}

static PyStatus configure(PyConfig *config, const char *program)
{
	PyStatus status;
	static wchar_t name[] = L"forebay-wsgi";
	static wchar_t *argv[] = { name };

	config->parse_argv = 0;
	/* Signals are the supervisor's language; the application's own handlers would wait for a main thread that never runs Python. */
	config->install_signal_handlers = 0;
	status = PyConfig_SetBytesString(config, &config->executable, program);
	if (!PyStatus_Exception(status))
		status = PyConfig_SetArgv(config, 1, argv);
	return PyStatus_Exception(status) ? status : Py_InitializeFromConfig(config);
}

static bool initialize(const char *program)
{
	PyConfig config;
	PyStatus status;

	PyConfig_InitPythonConfig(&config);
	status = configure(&config, program);
	PyConfig_Clear(&config);
	if (!PyStatus_Exception(status))
		return true;
	log_error("what=\"Python could not be started\" error=\"%s\"", status.err_msg ? status.err_msg : "it wants to end");
	return false;
}

/* As `python3 -m` has it. */
static bool look_here_first(void)
{
	PyObject *path = PySys_GetObject("path"), *here;
	char text[PATH_MAX];
	bool ok = false;

	if (!path || !PyList_Check(path) || !getcwd(text, sizeof(text)))
		return false;
	here = PyUnicode_DecodeFSDefault(text);
	if (here)
		ok = PyList_Insert(path, 0, here) == 0;
	Py_XDECREF(here);
	return ok;
}

bool interpreter_start(void)
{
	char program[PATH_MAX];

	/* What Python does about them in a program of its own: a write to nobody is an error, not the end. */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN);
	return executable(program, sizeof(program)) && initialize(program) && look_here_first();
}

void interpreter_end(void)
{
	(void)Py_FinalizeEx();
}
