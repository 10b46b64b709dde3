#include "upstream/worker/wsgi/target.h"

#include "core/slice.h"

#define MAKES "()"

static PyObject *new_text(struct slice s)
{
	return PyUnicode_FromStringAndSize(s.ptr, (Py_ssize_t)s.len);
}

static PyObject *attribute(PyObject *object, struct slice name)
{
	PyObject *text = new_text(name), *got = text ? PyObject_GetAttr(object, text) : NULL;

	Py_XDECREF(text);
	return got;
}

/* "a.b.c" of an object. */
static PyObject *walk(PyObject *object, struct slice path)
{
	PyObject *at = object;
	struct slice name;
	bool more = true;

	Py_INCREF(at);
	while (at && more) {
		PyObject *next;

		more = slice_cut(&path, '.', &name);
		next = attribute(at, more ? name : path);
		Py_DECREF(at);
		at = next;
	}
	return at;
}

/* What most applications are called. */
static PyObject *usual(PyObject *module)
{
	static const char *const names[] = { "application", "app" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		PyObject *got = PyObject_GetAttrString(module, names[i]);

		if (got || !PyErr_ExceptionMatches(PyExc_AttributeError))
			return got;
		PyErr_Clear();
	}
	PyErr_Format(PyExc_AttributeError, "%R has neither `application` nor `app`", module);
	return NULL;
}

static PyObject *find(PyObject *module, struct slice path)
{
	struct slice name = path;
	PyObject *got, *made;

	if (path.len == 0)
		return usual(module);
	if (slice_ends(path, SLICE(MAKES)))
		name.len -= strlen(MAKES);
	got = walk(module, name);
	if (!got || name.len == path.len)
		return got;
	made = PyObject_CallNoArgs(got);
	Py_DECREF(got);
	return made;
}

PyObject *target_load(const char *target)
{
	struct slice path = slice_str(target), name;
	PyObject *text, *module, *app = NULL;

	if (!slice_cut(&path, ':', &name)) {
		name = path;
		path = slice_of("", 0);
	}
	text = new_text(name);
	module = text ? PyImport_Import(text) : NULL;
	if (module)
		app = find(module, path);
	if (app && !PyCallable_Check(app)) {
		PyErr_Format(PyExc_TypeError, "%s is no application: a %.100s cannot be called", target, Py_TYPE(app)->tp_name);
		Py_CLEAR(app);
	}
	Py_XDECREF(text);
	Py_XDECREF(module);
	return app;
}
