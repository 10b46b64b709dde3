/*
 * environ: the dictionary that an application gets (PEP 3333, "environ Variables").
 * Owns:   what is the same for every request.
 * Thread: any, with the GIL.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_ENVIRON_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_ENVIRON_H

#include "upstream/worker/wsgi/call.h"

struct environ_plan {
	bool multithread, multiprocess;
	PyObject *errors, *file_wrapper; /* borrowed for ever */
};

/* 0, or -1 with an exception. Once. */
MUST_USE int environ_setup(const struct environ_plan *plan);

/* A new dictionary for c's request, whose id and method are noted in c. NULL with an exception. */
PyObject *environ_new(struct call *c);

#endif
