/*
 * variables: the names of CGI variables as Python strings, each made once, and the values that come again and again.
 * Owns:   the strings. Bounded: names of a client's own invention are kept up to a number, and their values never.
 * Thread: any, with the GIL.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_VARIABLES_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_VARIABLES_H

#include "upstream/worker/wsgi/python.h"

#include "core/slice.h"

/* 0, or -1 with an exception. Once, before all else. */
MUST_USE int variables_setup(void);

/* dict[name] = value, both as latin-1. 0, or -1 with an exception. */
MUST_USE int variables_put(PyObject *dict, struct slice name, struct slice value);

#endif
