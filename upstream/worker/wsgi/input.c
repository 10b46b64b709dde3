#include "upstream/worker/wsgi/input.h"

#include <fcntl.h>
#include <unistd.h>

struct input {
	PyObject ob;
	bool open;          /* its request is not over */
	bool busy;          /* a thread reads from the descriptor, without the GIL */
	uint64_t at, bytes; /* handed out, and all of them */
	const char *memory; /* all of it, or NULL */
	int fd;             /* of the whole body; -1 with memory */
	char *buffer;       /* what was read ahead for a line, from `at` on; NULL: never needed */
	size_t buffer_at, buffer_end;
};

static uint64_t left(const struct input *in)
{
	return in->bytes - in->at;
}

static size_t read_ahead(const struct input *in)
{
	return in->buffer_end - in->buffer_at;
}

/* 0, or -1 with an exception. */
static int check(const struct input *in)
{
	if (!in->open)
		PyErr_SetString(PyExc_ValueError, "wsgi.input was read after the end of its request");
	else if (in->busy)
		PyErr_SetString(PyExc_RuntimeError, "wsgi.input is being read by another thread");
	else
		return 0;
	return -1;
}

/* All n bytes at this offset. 0, or -1 with an exception. */
static int read_file(struct input *in, char *to, size_t n, uint64_t offset)
{
	PyThreadState *saved;
	int fd = in->fd;
	ssize_t got = 0;

	/* The descriptor is closed only by the object's end, and whoever reads holds a reference. */
	in->busy = true;
	saved = PyEval_SaveThread();
	while (n > 0) {
		got = pread(fd, to, n, (off_t)offset);
		if (got == -1 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		to += got;
		offset += (uint64_t)got;
		n -= (size_t)got;
	}
	PyEval_RestoreThread(saved);
	in->busy = false;
	if (n == 0)
		return 0;
	if (got == 0)
		errno = EIO; /* the file is shorter than it was */
	PyErr_SetFromErrno(PyExc_OSError);
	return -1;
}

/* The next n bytes, which are there. 0, or -1 with an exception. */
static int take(struct input *in, char *to, size_t n)
{
	size_t ahead = MIN(n, read_ahead(in));

	if (in->memory) {
		memcpy(to, in->memory + in->at, n);
		in->at += n;
		return 0;
	}
	if (ahead > 0)
		memcpy(to, in->buffer + in->buffer_at, ahead);
	if (n > ahead && read_file(in, to + ahead, n - ahead, in->at + ahead) == -1)
		return -1;
	in->buffer_at += ahead;
	in->at += n;
	return 0;
}

static PyObject *take_bytes(struct input *in, uint64_t n)
{
	PyObject *bytes;

	n = MIN(n, left(in));
	if (n > PY_SSIZE_T_MAX) {
		PyErr_NoMemory();
		return NULL;
	}
	bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
	if (bytes && n > 0 && take(in, PyBytes_AS_STRING(bytes), (size_t)n) == -1)
		Py_CLEAR(bytes);
	return bytes;
}

/* The one argument there may be: a number of bytes; none, None or a negative one is all of them. 0, or -1 with an exception. */
static int size_argument(PyObject *const *args, Py_ssize_t nargs, uint64_t *ret)
{
	Py_ssize_t n;

	*ret = UINT64_MAX;
	if (nargs > 1) {
		PyErr_SetString(PyExc_TypeError, "wsgi.input takes one size at most");
		return -1;
	}
	if (nargs == 0 || args[0] == Py_None)
		return 0;
	n = PyNumber_AsSsize_t(args[0], NULL); /* what is too large is cut to the largest */
	if (n == -1 && PyErr_Occurred())
		return -1;
	if (n >= 0)
		*ret = (uint64_t)n;
	return 0;
}

static PyObject *input_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	uint64_t n;

	if (size_argument(args, nargs, &n) == -1 || check((struct input *)self) == -1)
		return NULL;
	return take_bytes((struct input *)self, n);
}

/* More of the file behind what was read ahead already. 1: there is more now; 0: the buffer is full; -1 with an exception. */
static int fill(struct input *in)
{
	size_t have = read_ahead(in), n;

	if (!in->buffer) {
		in->buffer = PyMem_RawMalloc(INPUT_BUFFER_BYTES);
		if (!in->buffer) {
			PyErr_NoMemory();
			return -1;
		}
	}
	n = (size_t)MIN(INPUT_BUFFER_BYTES - have, left(in) - have);
	if (n == 0)
		return 0;
	if (have > 0)
		memmove(in->buffer, in->buffer + in->buffer_at, have);
	in->buffer_at = 0;
	in->buffer_end = have;
	if (read_file(in, in->buffer + have, n, in->at + have) == -1)
		return -1;
	in->buffer_end += n;
	return 1;
}

/* Bytes up to and with the next '\n', as far as they are at hand. */
static uint64_t line_at_hand(const struct input *in, uint64_t max, bool *ret_whole)
{
	uint64_t there = in->memory ? left(in) : read_ahead(in), n = MIN(there, max);
	const char *from = n == 0 ? "" : in->memory ? in->memory + in->at : in->buffer + in->buffer_at;
	const char *end = memchr(from, '\n', (size_t)n);

	*ret_whole = end || n == max || n == left(in);
	return end ? (uint64_t)(end - from) + 1 : n;
}

/* A line that is longer than the buffer comes together from pieces. */
static PyObject *long_line(struct input *in, uint64_t max)
{
	PyObject *line = PyBytes_FromStringAndSize(NULL, 0);
	bool whole = false;

	while (line && !whole) {
		PyObject *piece;
		uint64_t n = line_at_hand(in, max, &whole);

		if (!whole && n < INPUT_BUFFER_BYTES) {
			if (fill(in) == -1)
				Py_CLEAR(line);
			continue;
		}
		piece = take_bytes(in, n);
		max -= n;
		PyBytes_ConcatAndDel(&line, piece);
	}
	return line;
}

static PyObject *take_line(struct input *in, uint64_t max)
{
	bool whole;
	uint64_t n = line_at_hand(in, max, &whole);

	if (!whole && read_ahead(in) < INPUT_BUFFER_BYTES) {
		if (fill(in) == -1)
			return NULL;
		n = line_at_hand(in, max, &whole);
	}
	return whole ? take_bytes(in, n) : long_line(in, max);
}

static PyObject *input_readline(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	uint64_t max;

	if (size_argument(args, nargs, &max) == -1 || check((struct input *)self) == -1)
		return NULL;
	return take_line((struct input *)self, max);
}

/* Lines until there are `hint` bytes of them; 0 is no limit, as everywhere in Python. */
static PyObject *input_readlines(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	struct input *in = (struct input *)self;
	PyObject *lines;
	uint64_t hint, before;

	if (size_argument(args, nargs, &hint) == -1 || check(in) == -1)
		return NULL;
	hint = hint == 0 ? UINT64_MAX : hint;
	before = in->at;
	lines = PyList_New(0);
	while (lines && left(in) > 0 && in->at - before < hint) {
		PyObject *line = take_line(in, UINT64_MAX);

		if (!line || PyList_Append(lines, line) == -1)
			Py_CLEAR(lines);
		Py_XDECREF(line);
	}
	return lines;
}

static PyObject *input_next(PyObject *self)
{
	struct input *in = (struct input *)self;

	if (check(in) == -1 || left(in) == 0)
		return NULL;
	return take_line(in, UINT64_MAX);
}

static void close_file(struct input *in)
{
	if (in->fd != -1)
		close(in->fd);
	in->fd = -1;
}

static void input_dealloc(PyObject *self)
{
	struct input *in = (struct input *)self;

	close_file(in);
	PyMem_RawFree(in->buffer);
	PyObject_Free(self);
}

static PyMethodDef methods[] = {
	{ "read", PYTHON_METHOD(input_read), METH_FASTCALL, "read([size]): bytes, none at the end" },
	{ "readline", PYTHON_METHOD(input_readline), METH_FASTCALL, "readline([size]): bytes up to the end of the line" },
	{ "readlines", PYTHON_METHOD(input_readlines), METH_FASTCALL, "readlines([hint]): a list of lines" },
	{ NULL, NULL, 0, NULL },
};

static PyTypeObject type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "forebay.input",
	.tp_basicsize = sizeof(struct input),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_dealloc = input_dealloc,
	.tp_iter = PyObject_SelfIter,
	.tp_iternext = input_next,
	.tp_methods = methods,
	.tp_doc = "The body of a request.",
};

int input_setup(void)
{
	return PyType_Ready(&type);
}

static struct input *input_new(void)
{
	struct input *in = PyObject_New(struct input, &type);

	if (!in)
		return NULL;
	in->open = in->busy = false;
	in->fd = -1;
	in->buffer = NULL;
	return in;
}

PyObject *input_begin(struct call *c)
{
	int fd = worker_body_fd(c->r);
	struct input *in = c->input;

	if (!in)
		in = c->input = input_new();
	if (!in)
		return NULL;
	in->at = in->buffer_at = in->buffer_end = 0;
	in->bytes = worker_body_bytes(c->r);
	in->memory = fd == -1 ? worker_body_memory(c->r).ptr : NULL;
	in->fd = fd == -1 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (fd != -1 && in->fd == -1) {
		PyErr_SetFromErrno(PyExc_OSError);
		return NULL;
	}
	in->open = true;
	return (PyObject *)in;
}

void input_end(struct input **in)
{
	if (!*in)
		return;
	(*in)->open = false;
	(*in)->memory = NULL;
	if (Py_REFCNT(*in) > 1) {
		input_drop(in);
		return;
	}
	close_file(*in);
	PyMem_RawFree((*in)->buffer);
	(*in)->buffer = NULL;
}

void input_drop(struct input **in)
{
	struct input *old = *in;

	*in = NULL;
	Py_XDECREF((PyObject *)old);
}
