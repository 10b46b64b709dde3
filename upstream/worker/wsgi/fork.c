#include "upstream/worker/wsgi/fork.h"

#include <string.h>

/* module.name(). A new reference; NULL with an exception. */
static PyObject *call(const char *module, const char *name)
{
	PyObject *m = PyImport_ImportModule(module), *got = m ? PyObject_CallMethod(m, name, NULL) : NULL;

	Py_XDECREF(m);
	return got;
}

void fork_freeze(void)
{
	Py_XDECREF(call("gc", "collect"));
	Py_XDECREF(call("gc", "freeze"));
	PyErr_Clear();
}

/* "Python thread A, Python thread B". A new reference; NULL: there are none, or an exception. */
static PyObject *describe(PyObject *threads, PyObject *main)
{
	PyObject *text = NULL;

	for (Py_ssize_t i = 0; i < PyList_GET_SIZE(threads); i++) {
		PyObject *thread = PyList_GET_ITEM(threads, i), *name, *longer = NULL;

		if (thread == main)
			continue;
		name = PyObject_GetAttrString(thread, "name");
		if (name)
			longer = text ? PyUnicode_FromFormat("%U, Python thread %S", text, name)
			              : PyUnicode_FromFormat("Python thread %S", name);
		Py_XDECREF(name);
		Py_XDECREF(text);
		if (!longer)
			return NULL;
		text = longer;
	}
	return text;
}

char *fork_threads(void)
{
	PyObject *threads = call("threading", "enumerate"), *main = threads ? call("threading", "main_thread") : NULL,
	         *text = NULL;
	const char *utf8 = NULL;
	char *copy;

	if (main && PyList_Check(threads))
		text = describe(threads, main);
	if (text)
		utf8 = PyUnicode_AsUTF8(text);
	copy = utf8 ? strdup(utf8) : NULL;
	Py_XDECREF(text);
	Py_XDECREF(main);
	Py_XDECREF(threads);
	PyErr_Clear();
	return copy;
}
