/*
 * start: start_response and the write() that it gives (PEP 3333).
 * Thread: the serving one, with the GIL. Good until the request is over.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_START_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_START_H

#include "upstream/worker/wsgi/call.h"

/* 0, or -1 with an exception. Once, before all else. */
MUST_USE int start_setup(void);

/* The object for a request that begins: borrowed; NULL with an exception. */
PyObject *start_begin(struct call *c);

/* The request is over: the object raises from here on. One that the application kept is let go of. */
void start_end(struct start **s);
void start_drop(struct start **s);

#endif
