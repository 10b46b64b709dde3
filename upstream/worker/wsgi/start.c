#include "upstream/worker/wsgi/start.h"

#include "core/fields.h"
#include "upstream/worker/wsgi/content.h"

struct start {
	PyObject ob;
	vectorcallfunc vectorcall;
	struct call *call; /* NULL: its request is over */
};

/* write(), of one start_response. */
struct writer {
	PyObject ob;
	vectorcallfunc vectorcall;
	struct start *start;
};

static PyObject *name_exc_info;
static PyTypeObject writer_type;
static PyObject *writer_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names);

/* The call, or NULL with an exception. */
static struct call *call_of(const struct start *s, const char *what)
{
	if (!s->call)
		PyErr_Format(PyExc_RuntimeError, "%s was called after the end of its request", what);
	else if (s->call != call_here())
		PyErr_Format(PyExc_RuntimeError, "%s was called on another thread than its application", what);
	else
		return s->call;
	return NULL;
}

/* A native string's bytes (PEP 3333, "Unicode Issues"). 0, or -1 with an exception. */
static int latin1(PyObject *text, const char *what, struct slice *ret)
{
	if (!PyUnicode_Check(text)) {
		PyErr_Format(PyExc_TypeError, "%s must be str, not %.100s", what, Py_TYPE(text)->tp_name);
		return -1;
	}
	if (PyUnicode_READY(text) == -1)
		return -1;
	if (PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND) {
		PyErr_Format(PyExc_ValueError, "%s has characters that are not in latin-1: %R", what, text);
		return -1;
	}
	*ret = slice_of((const char *)PyUnicode_1BYTE_DATA(text), (size_t)PyUnicode_GET_LENGTH(text));
	return 0;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "200 OK". 0 with *ret, or -1 with an exception. */
static int parse_status(PyObject *text, unsigned *ret)
{
	struct slice s;

	if (latin1(text, "the status", &s) == -1)
		return -1;
	if (s.len >= 3 && is_digit(s.ptr[0]) && is_digit(s.ptr[1]) && is_digit(s.ptr[2]) && (s.len == 3 || s.ptr[3] == ' ') &&
	    field_text_ok(s)) {
		*ret = (unsigned)((s.ptr[0] - '0') * 100 + (s.ptr[1] - '0') * 10 + s.ptr[2] - '0');
		if (*ret >= 200 && *ret <= 599)
			return 0;
	}
	PyErr_Format(PyExc_ValueError, "the status must be like '200 OK', from 200 to 599, not %R", text);
	return -1;
}

/* Nobody listens any more: what the application says is taken, and dropped. */
static int not_heard(struct call *c)
{
	c->answer.over = true;
	return 0;
}

static int field_refused(PyObject *name, PyObject *value, int err)
{
	if (err == -E2BIG)
		PyErr_Format(PyExc_ValueError, "too many or too large header fields, at %R", name);
	else
		PyErr_Format(PyExc_ValueError, "a header field that cannot be sent: %R: %R", name, value);
	return -1;
}

/* As the front sees it too (proxy/serve/exchange_response). */
static bool asks_for_stream(struct slice name, struct slice value)
{
	static const struct slice type = SLICE_INIT("text/event-stream");

	if (name.len == 17)
		return slice_eq_nocase(name, SLICE("X-Accel-Buffering")) && slice_eq_nocase(value, SLICE("no"));
	return name.len == 12 && value.len >= type.len && slice_eq_nocase(name, SLICE("Content-Type")) &&
	       slice_eq_nocase(slice_of(value.ptr, type.len), type);
}

static int put_field(struct call *c, PyObject *name, PyObject *value)
{
	struct slice n, v;
	uint64_t length;
	int err;

	if (latin1(name, "the name of a header field", &n) == -1 || latin1(value, "the value of a header field", &v) == -1)
		return -1;
	v = slice_trim_ows(v);
	err = worker_field(c->r, n, v);
	if (err == -EINVAL || err == -E2BIG)
		return field_refused(name, value, err);
	if (err)
		return not_heard(c);
	if (n.len == 14 && slice_eq_nocase(n, SLICE("Content-Length")) && slice_to_u64(v, &length)) {
		c->answer.has_length = true;
		c->answer.left = length;
	}
	c->answer.is_stream = c->answer.is_stream || asks_for_stream(n, v);
	return 0;
}

static int put_fields(struct call *c, PyObject *headers)
{
	if (!PyList_Check(headers)) {
		PyErr_Format(PyExc_TypeError, "the headers must be a list, not %.100s", Py_TYPE(headers)->tp_name);
		return -1;
	}
	for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
		PyObject *pair = PyList_GET_ITEM(headers, i);

		if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
			PyErr_Format(PyExc_TypeError, "a header must be a tuple (name, value), not %R", pair);
			return -1;
		}
		if (put_field(c, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)) == -1)
			return -1;
	}
	return 0;
}

static int put_head(struct call *c, PyObject *status, PyObject *headers)
{
	unsigned number;

	if (parse_status(status, &number) == -1)
		return -1;
	if (c->answer.over || worker_status(c->r, number) != 0)
		return not_heard(c);
	c->answer.status = number;
	c->answer.no_content = c->is_head || number == 204 || number == 304;
	return put_fields(c, headers);
}

/* The exception goes on as if it had never been caught. */
static void raise_again(PyObject *exc_info)
{
	PyObject *type = PyTuple_GET_ITEM(exc_info, 0), *value = PyTuple_GET_ITEM(exc_info, 1),
	         *tb = PyTuple_GET_ITEM(exc_info, 2);

	if (type == Py_None) {
		PyErr_SetString(PyExc_AssertionError, "start_response was called when content had left already");
		return;
	}
	Py_INCREF(type);
	Py_INCREF(value);
	Py_INCREF(tb);
	if (tb == Py_None)
		Py_CLEAR(tb);
	PyErr_Restore(type, value, tb);
}

/* sys.exc_info() gives three times None where nothing was raised. */
static bool is_exc_info(PyObject *o)
{
	PyObject *type;

	if (!PyTuple_Check(o) || PyTuple_GET_SIZE(o) != 3)
		return false;
	type = PyTuple_GET_ITEM(o, 0);
	return type == Py_None || PyExceptionClass_Check(type);
}

/* May status and fields be said now? 0, or -1 with an exception. */
static int may_start(struct call *c, PyObject *exc_info)
{
	if (exc_info == Py_None) {
		if (!c->answer.called)
			return 0;
		PyErr_SetString(PyExc_AssertionError, "start_response was called a second time, without exc_info");
		return -1;
	}
	if (!is_exc_info(exc_info)) {
		PyErr_SetString(PyExc_TypeError, "exc_info must be what sys.exc_info() gave");
		return -1;
	}
	if (!c->answer.opened)
		return 0;
	raise_again(exc_info);
	return -1;
}

/* A new one. */
static PyObject *writer_new(struct start *s)
{
	struct writer *w;

	w = PyObject_New(struct writer, &writer_type);
	if (!w)
		return NULL;
	Py_INCREF((PyObject *)s);
	w->start = s;
	w->vectorcall = writer_call;
	return (PyObject *)w;
}

static PyObject *begin_answer(struct start *s, PyObject *status, PyObject *headers, PyObject *exc_info)
{
	struct call *c = call_of(s, "start_response");
	int got;

	if (!c || may_start(c, exc_info) == -1)
		return NULL;
	call_lock(c);
	if (c->answer.started)
		content_take_back(c);
	got = put_head(c, status, headers);
	if (got == -1)
		content_take_back(c);
	c->answer.called = true; /* also if it was refused (PEP 3333) */
	c->answer.started = got == 0;
	call_unlock(c);
	return got == 0 ? writer_new(s) : NULL;
}

static PyObject *start_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
	Py_ssize_t nargs = PyVectorcall_NARGS(nargsf), named = names ? PyTuple_GET_SIZE(names) : 0;
	PyObject *exc_info = nargs + named > 2 ? args[2] : Py_None;
	int same = named == 0;

	/* The first two have no names in PEP 3333; the third is given by its name now and then. */
	if (nargs == 2 && named == 1)
		same = PyObject_RichCompareBool(PyTuple_GET_ITEM(names, 0), name_exc_info, Py_EQ);
	if (same == -1)
		return NULL;
	if (!same || nargs < 2 || nargs + named > 3) {
		PyErr_SetString(PyExc_TypeError, "start_response takes a status, headers and, at will, exc_info");
		return NULL;
	}
	return begin_answer((struct start *)self, args[0], args[1], exc_info);
}

/* True with an exception: an application that writes on and on would never find out. */
static bool is_in_vain(struct call *c)
{
	if (!content_may_stop(c) || c->answer.no_content)
		return false;
	if (c->answer.too_much)
		PyErr_SetString(PyExc_ValueError, "write() was given more than the Content-Length");
	else
		PyErr_SetString(PyExc_BrokenPipeError, "nobody listens to write() any more: the client has gone");
	return true;
}

static PyObject *writer_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
	struct call *c = call_of(((struct writer *)self)->start, "write");

	if (!c)
		return NULL;
	if (PyVectorcall_NARGS(nargsf) != 1 || names) {
		PyErr_SetString(PyExc_TypeError, "write takes one block of bytes");
		return NULL;
	}
	if (content_give(c, args[0]) == -1)
		return NULL;
	content_part(c);
	if (is_in_vain(c))
		return NULL;
	Py_INCREF(Py_None);
	return Py_None;
}

static void writer_dealloc(PyObject *self)
{
	Py_DECREF((PyObject *)((struct writer *)self)->start);
	PyObject_Free(self);
}

static PyTypeObject type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "forebay.start_response",
	.tp_basicsize = sizeof(struct start),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_vectorcall_offset = offsetof(struct start, vectorcall),
	.tp_call = PyVectorcall_Call,
	.tp_doc = "start_response(status, headers[, exc_info]) -> write",
};

static PyTypeObject writer_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "forebay.write",
	.tp_basicsize = sizeof(struct writer),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_vectorcall_offset = offsetof(struct writer, vectorcall),
	.tp_call = PyVectorcall_Call,
	.tp_dealloc = writer_dealloc,
	.tp_doc = "write(bytes)",
};

int start_setup(void)
{
	name_exc_info = PyUnicode_InternFromString("exc_info");
	return name_exc_info && PyType_Ready(&type) == 0 ? PyType_Ready(&writer_type) : -1;
}

PyObject *start_begin(struct call *c)
{
	struct start *s = c->start;

	if (!s) {
		s = PyObject_New(struct start, &type);
		if (!s)
			return NULL;
		s->vectorcall = start_call;
		c->start = s;
	}
	s->call = c;
	return (PyObject *)s;
}

void start_end(struct start **s)
{
	if (!*s)
		return;
	(*s)->call = NULL;
	if (Py_REFCNT(*s) > 1)
		start_drop(s);
}

void start_drop(struct start **s)
{
	struct start *old = *s;

	*s = NULL;
	Py_XDECREF((PyObject *)old);
}
