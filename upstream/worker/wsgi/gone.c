#include "upstream/worker/wsgi/gone.h"

struct gone {
	PyObject ob;
	vectorcallfunc vectorcall;
	struct call *call;
	struct worker_request *of; /* NULL: it is over */
};

/* With the call's lock. */
static bool has_gone(const struct gone *g)
{
	return !g->of || worker_client_gone(g->of);
}

static PyObject *ask(PyObject *self, PyObject *const *args UNUSED, size_t nargs, PyObject *names)
{
	struct gone *g = (struct gone *)self;
	bool yes;

	if (PyVectorcall_NARGS(nargs) != 0 || names) {
		PyErr_SetString(PyExc_TypeError, "forebay.client_gone takes no arguments");
		return NULL;
	}
	call_lock(g->call);
	yes = has_gone(g);
	call_unlock(g->call);
	return PyBool_FromLong(yes);
}

static PyTypeObject type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "forebay.client_gone",
	.tp_basicsize = sizeof(struct gone),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_vectorcall_offset = offsetof(struct gone, vectorcall),
	.tp_call = PyVectorcall_Call,
	.tp_doc = "client_gone(): True once the client of this request has left.",
};

int gone_setup(void)
{
	return PyType_Ready(&type);
}

PyObject *gone_begin(struct call *c)
{
	struct gone *g = c->gone;

	if (!g) {
		g = PyObject_New(struct gone, &type);
		if (!g)
			return NULL;
		g->vectorcall = ask;
		g->call = c;
		c->gone = g;
	}
	g->of = c->r;
	return (PyObject *)g;
}

void gone_end(struct gone **g)
{
	if (!*g)
		return;
	(*g)->of = NULL;
	if (Py_REFCNT(*g) > 1)
		gone_drop(g);
}

void gone_drop(struct gone **g)
{
	struct gone *old = *g;

	*g = NULL;
	Py_XDECREF((PyObject *)old);
}
