/*
 * respond: what an application returned becomes its answer's content; close() is called in any case.
 * Thread: the serving one, with the GIL.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_RESPOND_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_RESPOND_H

#include "upstream/worker/wsgi/call.h"

/* 0, or -1 with an exception. Once, before all else. */
MUST_USE int respond_setup(void);

/* Takes `result`; NULL: the application raised an exception, which is set. None is set when this returns. */
void respond(struct call *c, PyObject *result);

#endif
