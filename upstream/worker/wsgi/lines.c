#include "upstream/worker/wsgi/lines.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "upstream/worker/wsgi/call.h"

#define MARK       "\x1f"
#define BATCH_SIZE 4096 /* bytes of short lines that go in one write: whole, on a pipe */

/* What a thread has begun to say. */
struct begun {
	size_t len;
	char text[LINES_MAX];
};

struct batch {
	size_t len;
	char text[LINES_MAX + CALL_ID_BYTES + 4];
};
static_assert(sizeof(((struct batch *)NULL)->text) > BATCH_SIZE, "a batch holds a line of any length");

static pthread_key_t key;
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER; /* lines longer than a pipe takes in one piece */

static void write_whole(const char *from, size_t n)
{
	pthread_mutex_lock(&writing);
	while (n > 0) {
		ssize_t put = write(STDERR_FILENO, from, n);

		if (put == -1 && errno == EINTR)
			continue;
		if (put <= 0)
			break; /* nobody reads: the master has gone, and this process is about to */
		from += put;
		n -= (size_t)put;
	}
	pthread_mutex_unlock(&writing);
}

/* The pipe may be full. */
static void send_batch(struct batch *b)
{
	PyThreadState *saved;

	if (b->len == 0)
		return;
	saved = PyEval_SaveThread();
	write_whole(b->text, b->len);
	PyEval_RestoreThread(saved);
	b->len = 0;
}

static void append(struct batch *b, struct slice s)
{
	memcpy(b->text + b->len, s.ptr, s.len);
	b->len += s.len;
}

/* One line without its end, in two pieces. */
static void add_line(struct batch *b, struct slice first, struct slice rest)
{
	const struct call *c = call_here();
	struct slice id = slice_str(c ? c->id : "");

	if (b->len > 0 && b->len + first.len + rest.len + id.len + 3 > BATCH_SIZE)
		send_batch(b);
	if (id.len > 0) {
		append(b, SLICE(MARK));
		append(b, id);
		append(b, SLICE(" "));
	}
	append(b, first);
	append(b, rest);
	append(b, SLICE("\n"));
}

static void begun_done(void *ctx)
{
	struct begun *begun = ctx;

	if (begun->len > 0 && begun->len < sizeof(begun->text)) {
		begun->text[begun->len++] = '\n';
		write_whole(begun->text, begun->len);
	}
	free(begun);
}

static struct begun *begun_here(void)
{
	struct begun *begun = pthread_getspecific(key);

	if (begun)
		return begun;
	begun = malloc(sizeof(*begun));
	if (!begun)
		return NULL;
	begun->len = 0;
	if (pthread_setspecific(key, begun) != 0) {
		free(begun);
		return NULL;
	}
	return begun;
}

/* The beginning of a line whose end has not come; a part of one that is too long counts as a line. */
static void hold_back(struct batch *b, struct begun *begun, struct slice text)
{
	while (text.len > 0) {
		size_t n = MIN(text.len, LINES_MAX - 1 - begun->len);

		memcpy(begun->text + begun->len, text.ptr, n);
		begun->len += n;
		text = slice_of(text.ptr + n, text.len - n);
		if (begun->len < LINES_MAX - 1)
			continue;
		add_line(b, slice_of(begun->text, begun->len), slice_of("", 0));
		begun->len = 0;
	}
}

static void take(struct slice text)
{
	struct begun *begun = begun_here();
	struct batch b;
	struct slice line;

	if (!begun)
		return;
	b.len = 0;
	while (slice_cut(&text, '\n', &line)) {
		if (begun->len + line.len < LINES_MAX) {
			add_line(&b, slice_of(begun->text, begun->len), line);
			begun->len = 0;
			continue;
		}
		hold_back(&b, begun, line);
		add_line(&b, slice_of(begun->text, begun->len), slice_of("", 0));
		begun->len = 0;
	}
	hold_back(&b, begun, text);
	send_batch(&b);
}

void lines_end(void)
{
	const struct begun *begun = pthread_getspecific(key);

	if (begun && begun->len > 0)
		take(SLICE("\n"));
}

void lines_say(const char *text)
{
	lines_end();
	take(slice_str(text));
}

void lines_say_str(PyObject *text)
{
	PyObject *type, *value, *tb, *bytes;

	PyErr_Fetch(&type, &value, &tb);
	bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
	if (bytes) {
		lines_end();
		take(slice_of(PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)));
		Py_DECREF(bytes);
		lines_end();
	}
	PyErr_Restore(type, value, tb);
}

/* The raw stream below Python's text streams. */

static PyObject *raw_write(PyObject *self UNUSED, PyObject *bytes)
{
	Py_buffer view;
	Py_ssize_t n;

	if (PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE) == -1)
		return NULL;
	n = view.len;
	take(slice_of(view.buf, (size_t)n));
	PyBuffer_Release(&view);
	return PyLong_FromSsize_t(n);
}

static PyObject *raw_yes(PyObject *self UNUSED, PyObject *none UNUSED)
{
	return PyBool_FromLong(1);
}

static PyObject *raw_fileno(PyObject *self, PyObject *none UNUSED)
{
	return PyObject_GetAttrString(self, "fd");
}

static PyMethodDef raw_methods[] = {
	{ "write", raw_write, METH_O, NULL },
	{ "writable", raw_yes, METH_NOARGS, NULL },
	{ "fileno", raw_fileno, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot raw_slots[] = { { Py_tp_methods, raw_methods }, { 0, NULL } };
static PyType_Spec raw_spec = { .name = "forebay.Lines", .flags = Py_TPFLAGS_DEFAULT, .slots = raw_slots };

/* A text stream over a raw one. NULL with an exception. */
static PyObject *stream_new(PyObject *io, PyObject *raw_type, int fd, const char *name)
{
	PyObject *raw = PyObject_CallNoArgs(raw_type), *text_type = PyObject_GetAttrString(io, "TextIOWrapper");
	PyObject *number = PyLong_FromLong(fd), *text = PyUnicode_FromString(name), *stream = NULL, *args = NULL, *named = NULL;

	if (raw && text_type && number && text && PyObject_SetAttrString(raw, "fd", number) == 0 &&
	    PyObject_SetAttrString(raw, "name", text) == 0) {
		args = PyTuple_Pack(1, raw);
		named = Py_BuildValue(
		    "{sssssssO}", "encoding", "utf-8", "errors", "backslashreplace", "newline", "\n", "write_through", Py_True);
		if (args && named)
			stream = PyObject_Call(text_type, args, named);
	}
	Py_XDECREF(raw);
	Py_XDECREF(text_type);
	Py_XDECREF(number);
	Py_XDECREF(text);
	Py_XDECREF(args);
	Py_XDECREF(named);
	return stream;
}

/* Under both names that it has in sys. */
static int put_in_sys(const char *name, const char *original, PyObject *stream)
{
	return stream && PySys_SetObject(name, stream) == 0 && PySys_SetObject(original, stream) == 0 ? 0 : -1;
}

int lines_setup(PyObject **ret_errors)
{
	PyObject *io = PyImport_ImportModule("io"), *base = io ? PyObject_GetAttrString(io, "RawIOBase") : NULL;
	PyObject *raw_type = base ? PyType_FromSpecWithBases(&raw_spec, base) : NULL, *out = NULL, *err = NULL;
	int got = -1;

	if (raw_type && pthread_key_create(&key, begun_done) == 0) {
		out = stream_new(io, raw_type, STDOUT_FILENO, "<stdout>");
		err = stream_new(io, raw_type, STDERR_FILENO, "<stderr>");
		if (put_in_sys("stdout", "__stdout__", out) == 0 && put_in_sys("stderr", "__stderr__", err) == 0)
			got = 0;
	}
	Py_XDECREF(io);
	Py_XDECREF(base);
	Py_XDECREF(raw_type);
	Py_XDECREF(out);
	*ret_errors = err; /* this reference is for ever */
	return got;
}
