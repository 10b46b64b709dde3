/*
 * gone: environ["forebay.client_gone"]: a callable that says whether the request's client has left.
 * Thread: any, with the GIL.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_GONE_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_GONE_H

#include "upstream/worker/wsgi/call.h"

/* 0, or -1 with an exception. Once, before all else. */
MUST_USE int gone_setup(void);

/* The object for a request that begins: borrowed; NULL with an exception. */
PyObject *gone_begin(struct call *c);

/* The request is over: the object says True from here on. One that the application kept is let go of. */
void gone_end(struct gone **g);
void gone_drop(struct gone **g);

#endif
