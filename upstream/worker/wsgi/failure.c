#include "upstream/worker/wsgi/failure.h"

#include <stdio.h>

#include "upstream/worker/wsgi/content.h"
#include "upstream/worker/wsgi/lines.h"

static bool shows_tracebacks;

void failure_setup(bool debug)
{
	shows_tracebacks = debug;
}

/* traceback.format_exception() of these, as one str. NULL: it failed, without an exception. */
static PyObject *format(PyObject *type, PyObject *value, PyObject *tb)
{
	PyObject *module = PyImport_ImportModule("traceback"), *parts = NULL, *empty = NULL, *text = NULL;

	if (module)
		parts =
		    PyObject_CallMethod(module, "format_exception", "OOO", type, value ? value : Py_None, tb ? tb : Py_None);
	empty = parts ? PyUnicode_FromString("") : NULL;
	if (empty)
		text = PyUnicode_Join(empty, parts);
	PyErr_Clear();
	Py_XDECREF(module);
	Py_XDECREF(parts);
	Py_XDECREF(empty);
	return text;
}

/* The traceback of the exception that is set, which is cleared. NULL: there is no text to be had. */
static PyObject *take_traceback(void)
{
	PyObject *type, *value, *tb, *text;

	PyErr_Fetch(&type, &value, &tb);
	if (!type)
		return NULL;
	PyErr_NormalizeException(&type, &value, &tb);
	if (tb && value)
		(void)PyException_SetTraceback(value, tb);
	text = format(type, value, tb);
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(tb);
	PyErr_Clear();
	return text;
}

static void say(const char *what, PyObject *text)
{
	char line[512];

	(void)snprintf(line, sizeof(line), "forebay: %.400s\n", what);
	lines_say(line);
	if (text)
		lines_say_str(text);
	else
		lines_say("forebay: (the exception cannot be shown)\n");
}

void failure_log(const char *what)
{
	PyObject *text = take_traceback();

	say(what, text);
	Py_XDECREF(text);
}

static int write_text(struct call *c, const char *text)
{
	return worker_write(c->r, text, strlen(text));
}

/* With what stands for the characters that mean something in HTML. */
static void write_escaped(struct call *c, PyObject *text)
{
	PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
	const char *from = bytes ? PyBytes_AS_STRING(bytes) : "";

	for (; *from; from++) {
		size_t plain = strcspn(from, "<>&");

		if (plain > 0 && worker_write(c->r, from, plain) != 0)
			break;
		from += plain;
		if (!*from || write_text(c, *from == '<' ? "&lt;" : *from == '>' ? "&gt;" : "&amp;") != 0)
			break;
	}
	Py_XDECREF(bytes);
	PyErr_Clear();
}

/* With the lock. What cannot be sent is nobody's loss. */
static void write_page(struct call *c, PyObject *traceback)
{
	if (worker_status(c->r, 500) != 0 ||
	    worker_field(c->r, SLICE("Content-Type"), SLICE("text/html; charset=utf-8")) != 0 ||
	    worker_field(c->r, SLICE("Cache-Control"), SLICE("no-store")) != 0)
		return;
	(void)!write_text(c, "<!DOCTYPE html>\n<html lang=\"en\"><head><title>500 Internal Server Error</title></head><body>\n"
	                     "<h1>Internal Server Error</h1>\n<p>The application failed.</p>\n");
	if (shows_tracebacks && traceback) {
		(void)!write_text(c, "<pre>");
		write_escaped(c, traceback);
		(void)!write_text(c, "</pre>\n");
	}
	(void)!write_text(c, "</body></html>\n");
}

void failure_answer(struct call *c)
{
	PyObject *text;
	bool taken;

	/* First: what waits must not leave while the traceback is put together. */
	call_lock(c);
	taken = content_take_back(c);
	if (!taken)
		worker_abort(c->r);
	call_unlock(c);
	text = take_traceback();
	say("the application failed", text);
	call_lock(c);
	if (taken)
		write_page(c, text);
	c->answer.over = true;
	call_unlock(c);
	Py_XDECREF(text);
}
