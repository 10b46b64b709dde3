#include "upstream/worker/wsgi/variables.h"

#define BUCKETS         512 /* a power of two */
#define ENTRIES_MAX     256
#define PROBES_MAX      8
#define NAME_MAX_BYTES  64  /* of what is kept */
#define VALUE_MAX_BYTES 512 /* of what is kept */

struct entry {
	PyObject *name; /* interned; NULL: free */
	PyObject *last; /* the value that came last; NULL: none, or not kept */
	bool keeps;     /* values */
};

static struct entry table[BUCKETS];
static unsigned entries;

/* Those whose values are mostly the same. Nothing secret: what is kept outlives its request. */
static const char *const repeating[] = { "CONTENT_TYPE", "GATEWAY_INTERFACE", "HTTPS", "HTTP_ACCEPT", "HTTP_ACCEPT_CHARSET",
	"HTTP_ACCEPT_ENCODING", "HTTP_ACCEPT_LANGUAGE", "HTTP_CACHE_CONTROL", "HTTP_DNT", "HTTP_HOST", "HTTP_ORIGIN",
	"HTTP_PRAGMA", "HTTP_SEC_CH_UA", "HTTP_SEC_CH_UA_MOBILE", "HTTP_SEC_CH_UA_PLATFORM", "HTTP_SEC_FETCH_DEST",
	"HTTP_SEC_FETCH_MODE", "HTTP_SEC_FETCH_SITE", "HTTP_SEC_FETCH_USER", "HTTP_UPGRADE_INSECURE_REQUESTS",
	"HTTP_USER_AGENT", "HTTP_VIA", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PORT",
	"HTTP_X_FORWARDED_PROTO", "HTTP_X_REAL_IP", "HTTP_X_REQUESTED_WITH", "REMOTE_ADDR", "REQUEST_METHOD", "REQUEST_SCHEME",
	"SCRIPT_NAME", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "SERVER_SOFTWARE", "SSL_PROTOCOL" };
static const char *const changing[] = { "CONTENT_LENGTH", "HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_IF_MODIFIED_SINCE",
	"HTTP_IF_NONE_MATCH", "HTTP_RANGE", "HTTP_REFERER", "HTTP_X_CSRFTOKEN", "HTTP_X_REQUEST_ID", "PATH_INFO",
	"QUERY_STRING", "REMOTE_PORT", "REQUEST_URI" };

/* FNV-1a over the length, both ends and the middle: what names differ in. */
static unsigned hash(struct slice name)
{
	uint32_t h = 2166136261u ^ (uint32_t)name.len;

	for (size_t i = name.len > 12 ? name.len - 12 : 0; i < name.len; i++)
		h = (h ^ (unsigned char)name.ptr[i]) * 16777619u;
	return (h ^ h >> 15) & (BUCKETS - 1);
}

/* These are this text, in ASCII or latin-1. */
static bool same(PyObject *text, struct slice s)
{
	return (size_t)PyUnicode_GET_LENGTH(text) == s.len && memcmp(PyUnicode_1BYTE_DATA(text), s.ptr, s.len) == 0;
}

/* A new string. */
static PyObject *decode(struct slice s)
{
	return PyUnicode_DecodeLatin1(s.ptr, (Py_ssize_t)s.len, NULL);
}

/* The name's entry, a free one for it, or NULL: it is not kept. */
static struct entry *find(struct slice name)
{
	unsigned at = hash(name);

	if (name.len > NAME_MAX_BYTES)
		return NULL;
	for (unsigned i = 0; i < PROBES_MAX; i++) {
		struct entry *e = &table[(at + i) & (BUCKETS - 1)];

		if (!e->name)
			return entries < ENTRIES_MAX ? e : NULL;
		if (same(e->name, name))
			return e;
	}
	return NULL;
}

/* 0, or -1 with an exception. */
static int fill(struct entry *e, struct slice name)
{
	PyObject *text = decode(name);

	if (!text)
		return -1;
	PyUnicode_InternInPlace(&text);
	e->name = text;
	entries++;
	return 0;
}

static int keep(const char *name, bool values)
{
	struct entry *e = find(slice_str(name));

	if (!e || (!e->name && fill(e, slice_str(name)) == -1))
		return -1;
	e->keeps = values;
	return 0;
}

int variables_setup(void)
{
	for (size_t i = 0; i < ARRAY_LEN(repeating); i++)
		if (keep(repeating[i], true) == -1)
			return -1;
	for (size_t i = 0; i < ARRAY_LEN(changing); i++)
		if (keep(changing[i], false) == -1)
			return -1;
	return 0;
}

/* A new reference. */
static PyObject *value_of(struct entry *e, struct slice value)
{
	PyObject *made;

	if (!e->keeps || value.len > VALUE_MAX_BYTES)
		return decode(value);
	if (e->last && same(e->last, value)) {
		Py_INCREF(e->last);
		return e->last;
	}
	made = decode(value);
	if (!made)
		return NULL;
	Py_INCREF(made);
	Py_XSETREF(e->last, made);
	return made;
}

/* One that nobody will ask for again. */
static int put_once(PyObject *dict, struct slice name, struct slice value)
{
	PyObject *key = decode(name), *text = key ? decode(value) : NULL;
	int got = text ? PyDict_SetItem(dict, key, text) : -1;

	Py_XDECREF(key);
	Py_XDECREF(text);
	return got;
}

int variables_put(PyObject *dict, struct slice name, struct slice value)
{
	struct entry *e = find(name);
	PyObject *text;
	int got;

	if (!e)
		return put_once(dict, name, value);
	if (!e->name && fill(e, name) == -1)
		return -1;
	text = value_of(e, value);
	if (!text)
		return -1;
	got = PyDict_SetItem(dict, e->name, text);
	Py_DECREF(text);
	return got;
}
