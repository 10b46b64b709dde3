#include "upstream/worker/wsgi/environ.h"

#include <stdlib.h>

#include "upstream/worker/wsgi/gone.h"
#include "upstream/worker/wsgi/input.h"
#include "upstream/worker/wsgi/variables.h"

#define KEYS_EXPECTED 60 /* a dictionary that grows is copied each time */

static PyObject *template;
static PyObject *key_input, *key_scheme, *key_id, *key_queue_ms, *key_gone;
static PyObject *text_http, *text_https, *no_delay;

static int set_bool(const char *key, bool value)
{
	return PyDict_SetItemString(template, key, value ? Py_True : Py_False);
}

/* What the front says with every request stands here too, so that a copy has room for it: a value that is replaced is cheap. */
static int fill_texts(void)
{
	static const char *const texts[][2] = { { "GATEWAY_INTERFACE", "CGI/1.1" }, { "SERVER_SOFTWARE", "forebay" },
		{ "REQUEST_METHOD", "GET" }, { "SCRIPT_NAME", "" }, { "PATH_INFO", "" }, { "QUERY_STRING", "" },
		{ "REQUEST_URI", "" }, { "SERVER_NAME", "localhost" }, { "SERVER_PORT", "80" },
		{ "SERVER_PROTOCOL", "HTTP/1.1" }, { "REMOTE_ADDR", "" } };

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (variables_put(template, slice_str(texts[i][0]), slice_str(texts[i][1])) == -1)
			return -1;
	return 0;
}

static int fill_template(const struct environ_plan *plan)
{
	PyObject *version = Py_BuildValue("(ii)", 1, 0);
	int got = version ? PyDict_SetItemString(template, "wsgi.version", version) : -1;

	Py_XDECREF(version);
	if (got == -1 || set_bool("wsgi.multithread", plan->multithread) == -1 ||
	    set_bool("wsgi.multiprocess", plan->multiprocess) == -1 || set_bool("wsgi.run_once", false) == -1 ||
	    set_bool("wsgi.input_terminated", true) == -1)
		return -1;
	if (PyDict_SetItemString(template, "wsgi.errors", plan->errors) == -1 ||
	    PyDict_SetItemString(template, "wsgi.file_wrapper", plan->file_wrapper) == -1 ||
	    PyDict_SetItem(template, key_scheme, text_http) == -1 || PyDict_SetItem(template, key_queue_ms, no_delay) == -1)
		return -1;
	return fill_texts();
}

/* With the room for all that is to come. */
static PyObject *roomy_dict(void)
{
#if PY_VERSION_HEX < 0x030c0000
	return _PyDict_NewPresized(KEYS_EXPECTED);
#else
	return PyDict_New();
#endif
}

int environ_setup(const struct environ_plan *plan)
{
	key_input = PyUnicode_InternFromString("wsgi.input");
	key_scheme = PyUnicode_InternFromString("wsgi.url_scheme");
	key_id = PyUnicode_InternFromString("forebay.request_id");
	key_queue_ms = PyUnicode_InternFromString("forebay.queue_ms");
	key_gone = PyUnicode_InternFromString("forebay.client_gone");
	text_http = PyUnicode_InternFromString("http");
	text_https = PyUnicode_InternFromString("https");
	no_delay = PyFloat_FromDouble(0.0);
	template = roomy_dict();
	if (!key_input || !key_scheme || !key_id || !key_queue_ms || !key_gone || !text_http || !text_https || !no_delay ||
	    !template)
		return -1;
	return fill_template(plan);
}

static int put_id(PyObject *env, struct call *c, struct slice value)
{
	PyObject *text = PyUnicode_DecodeLatin1(value.ptr, (Py_ssize_t)value.len, NULL);
	int got = text ? PyDict_SetItem(env, key_id, text) : -1;

	Py_XDECREF(text);
	slice_to_str(value, c->id, sizeof(c->id));
	return got;
}

/* How long it waited for a free worker. */
static int put_delay(PyObject *env, struct slice value)
{
	char text[32];
	PyObject *ms;
	int got;

	slice_to_str(value, text, sizeof(text));
	ms = PyFloat_FromDouble(PyOS_string_to_double(text, NULL, NULL));
	if (PyErr_Occurred())
		PyErr_Clear(); /* it is -1, which nobody takes for a time */
	got = ms ? PyDict_SetItem(env, key_queue_ms, ms) : -1;
	Py_XDECREF(ms);
	return got;
}

/* One of the few that do not stand in the dictionary as they came. *ret_taken: it is done. */
static int put_special(PyObject *env, struct call *c, struct slice name, struct slice value, bool *ret_taken)
{
	*ret_taken = false;
	switch (name.len) {
	case 5:
		if (slice_eq(name, SLICE("HTTPS")) && slice_eq(value, SLICE("on")))
			return PyDict_SetItem(env, key_scheme, text_https);
		break;
	case 14:
		if (slice_eq(name, SLICE("REQUEST_METHOD")))
			c->is_head = slice_eq(value, SLICE("HEAD"));
		break;
	case 16:
		*ret_taken = slice_eq(name, SLICE("FOREBAY_QUEUE_MS"));
		return *ret_taken ? put_delay(env, value) : 0;
	case 18:
		*ret_taken = slice_eq(name, SLICE("FOREBAY_REQUEST_ID"));
		return *ret_taken ? put_id(env, c, value) : 0;
	default:
		break;
	}
	return 0;
}

static int put_variables(PyObject *env, struct call *c)
{
	size_t count = worker_variable_count(c->r);

	for (size_t i = 0; i < count; i++) {
		struct slice name, value;
		bool taken;

		worker_variable(c->r, i, &name, &value);
		if (put_special(env, c, name, value, &taken) == -1)
			return -1;
		if (!taken && variables_put(env, name, value) == -1)
			return -1;
	}
	return 0;
}

PyObject *environ_new(struct call *c)
{
	PyObject *env = PyDict_Copy(template), *input = env ? input_begin(c) : NULL, *gone = input ? gone_begin(c) : NULL;

	c->is_head = false;
	if (gone && PyDict_SetItem(env, key_input, input) == 0 && PyDict_SetItem(env, key_gone, gone) == 0 &&
	    put_variables(env, c) == 0)
		return env;
	Py_XDECREF(env);
	return NULL;
}
