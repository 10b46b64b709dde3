#include "upstream/worker/wsgi/file_wrapper.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_DEFAULT 65536

struct wrapper {
	PyObject ob;
	PyObject *file, *read;
	Py_ssize_t block;
	bool begun; /* some of it was iterated */
};

static PyTypeObject *buffered_reader, *buffered_random, *file_io; /* io's */

static PyObject *wrapper_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
	static char *names[] = { "filelike", "blksize", NULL };
	PyObject *file;
	Py_ssize_t block = BLOCK_DEFAULT;
	struct wrapper *w;

	if (!PyArg_ParseTupleAndKeywords(args, named, "O|n:file_wrapper", names, &file, &block))
		return NULL;
	w = (struct wrapper *)type->tp_alloc(type, 0);
	if (!w)
		return NULL;
	Py_INCREF(file);
	w->file = file;
	w->block = block > 0 ? block : BLOCK_DEFAULT;
	w->read = PyObject_GetAttrString(file, "read");
	if (!w->read)
		Py_CLEAR(w);
	return (PyObject *)w;
}

static PyObject *wrapper_next(PyObject *self)
{
	struct wrapper *w = (struct wrapper *)self;
	PyObject *size, *data;
	int empty;

	w->begun = true;
	size = PyLong_FromSsize_t(w->block);
	data = size ? PyObject_CallOneArg(w->read, size) : NULL;
	Py_XDECREF(size);
	empty = data ? PyObject_Not(data) : -1;
	if (empty != 0)
		Py_CLEAR(data);
	return data;
}

static PyObject *wrapper_close(PyObject *self, PyObject *none UNUSED)
{
	PyObject *close = PyObject_GetAttrString(((struct wrapper *)self)->file, "close"), *got;

	if (!close && PyErr_ExceptionMatches(PyExc_AttributeError)) {
		PyErr_Clear();
		Py_RETURN_NONE;
	}
	got = close ? PyObject_CallNoArgs(close) : NULL;
	Py_XDECREF(close);
	return got;
}

static int wrapper_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(((struct wrapper *)self)->file);
	Py_VISIT(((struct wrapper *)self)->read);
	return 0;
}

static int wrapper_clear(PyObject *self)
{
	Py_CLEAR(((struct wrapper *)self)->file);
	Py_CLEAR(((struct wrapper *)self)->read);
	return 0;
}

static void wrapper_dealloc(PyObject *self)
{
	PyObject_GC_UnTrack(self);
	(void)wrapper_clear(self);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef methods[] = {
	{ "close", wrapper_close, METH_NOARGS, "Closes the file." },
	{ NULL, NULL, 0, NULL },
};

static PyTypeObject type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "forebay.file_wrapper",
	.tp_basicsize = sizeof(struct wrapper),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_new = wrapper_new,
	.tp_dealloc = wrapper_dealloc,
	.tp_traverse = wrapper_traverse,
	.tp_clear = wrapper_clear,
	.tp_iter = PyObject_SelfIter,
	.tp_iternext = wrapper_next,
	.tp_methods = methods,
	.tp_doc = "file_wrapper(filelike[, blksize])",
};

/* A type of a module. NULL with an exception. */
static PyTypeObject *type_of(PyObject *module, const char *name)
{
	PyObject *found = PyObject_GetAttrString(module, name);

	if (found && !PyType_Check(found)) {
		PyErr_Format(PyExc_TypeError, "%s is no type", name);
		Py_CLEAR(found);
	}
	return (PyTypeObject *)found;
}

PyObject *file_wrapper_setup(void)
{
	PyObject *io = PyImport_ImportModule("io");

	if (!io || PyType_Ready(&type) == -1)
		return NULL;
	buffered_reader = type_of(io, "BufferedReader");
	buffered_random = buffered_reader ? type_of(io, "BufferedRandom") : NULL;
	file_io = buffered_random ? type_of(io, "FileIO") : NULL;
	Py_DECREF(io);
	return file_io ? (PyObject *)&type : NULL;
}

static bool is_buffered(PyObject *file)
{
	return Py_IS_TYPE(file, buffered_reader) || Py_IS_TYPE(file, buffered_random);
}

/* Made by tempfile, which the application imported then. */
static bool is_temporary(PyObject *file)
{
	PyObject *name = PyUnicode_FromString("tempfile"), *module = name ? PyImport_GetModule(name) : NULL;
	PyObject *wrapper = module ? PyObject_GetAttrString(module, "_TemporaryFileWrapper") : NULL;
	bool yes = wrapper && (PyObject *)Py_TYPE(file) == wrapper;

	Py_XDECREF(name);
	Py_XDECREF(module);
	Py_XDECREF(wrapper);
	PyErr_Clear();
	return yes;
}

/* What a method of io's classes was taken from: the method itself, not one that stands in its place. */
static PyObject *reads_from(PyObject *read)
{
	if (!PyCFunction_Check(read) || strcmp(((PyCFunctionObject *)read)->m_ml->ml_name, "read") != 0)
		return NULL;
	return PyCFunction_GET_SELF(read);
}

/*
 * The object of io's that the wrapper's read() reads from, if it reads from one and does nothing else: its bytes are the file's. Many a wrapper
 * (a decompressor) has the fileno() of a file with other bytes than its read() gives. A new reference, or NULL without an exception.
 */
static PyObject *plain_file(const struct wrapper *w)
{
	PyObject *file = reads_from(w->read); /* a Django File's read is that of what it holds */

	if (file) {
		Py_INCREF(file);
	} else if (is_temporary(w->file)) {
		/* It wraps each method of its file in a function. */
		file = PyObject_GetAttrString(w->file, "file");
		PyErr_Clear();
	}
	if (file && (is_buffered(file) || Py_IS_TYPE(file, file_io)))
		return file;
	Py_XDECREF(file);
	return NULL;
}

/* The integer that a method without arguments gives; -1 for anything else, without an exception. */
static int64_t ask(PyObject *object, const char *method)
{
	PyObject *got = PyObject_CallMethod(object, method, NULL);
	long long n = got ? PyLong_AsLongLong(got) : -1;

	Py_XDECREF(got);
	if (PyErr_Occurred()) {
		PyErr_Clear();
		return -1;
	}
	return n;
}

/* True if it reads straight from a descriptor. */
static bool is_of_descriptor(PyObject *file)
{
	PyObject *raw;
	bool yes;

	if (Py_IS_TYPE(file, file_io))
		return true;
	raw = PyObject_GetAttrString(file, "raw");
	yes = raw && Py_IS_TYPE(raw, file_io);
	Py_XDECREF(raw);
	PyErr_Clear();
	return yes;
}

static void flush(PyObject *file)
{
	Py_XDECREF(PyObject_CallMethod(file, "flush", NULL));
	PyErr_Clear();
}

static bool piece_of(PyObject *file, struct file_piece *ret)
{
	struct stat st;
	int64_t fd, at;

	if (!is_of_descriptor(file))
		return false;
	if (Py_IS_TYPE(file, buffered_random))
		flush(file); /* what was written is still in its buffer */
	fd = ask(file, "fileno");
	at = ask(file, "tell");
	if (fd < 0 || fd > INT_MAX || at < 0 || fstat((int)fd, &st) == -1 || !S_ISREG(st.st_mode) || st.st_size < at)
		return false;
	/* Files of /proc have no size, and some that are mapped have no content that could be passed on. */
	if (st.st_size == 0)
		return false;
	*ret = (struct file_piece){ .offset = (uint64_t)at, .bytes = (uint64_t)(st.st_size - at) };
	ret->fd = fcntl((int)fd, F_DUPFD_CLOEXEC, 3);
	return ret->fd != -1;
}

bool file_wrapper_piece(PyObject *result, struct file_piece *ret)
{
	struct wrapper *w = (struct wrapper *)result;
	PyObject *file;
	bool got;

	if (!Py_IS_TYPE(result, &type) || w->begun)
		return false;
	file = plain_file(w);
	got = file && piece_of(file, ret);
	Py_XDECREF(file);
	return got;
}

void file_piece_done(struct file_piece *p)
{
	if (p->fd != -1)
		close(p->fd);
	p->fd = -1;
}
