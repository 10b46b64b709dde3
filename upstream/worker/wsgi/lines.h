/*
 * lines: sys.stdout, sys.stderr and wsgi.errors: text that goes to the master line by line, each line with the id of the request that said it.
 * What the worker itself has to say of a request goes the same way.
 *
 * A line of a request is "\x1f" ID " " text "\n" on the worker's output, in one write.
 * Owns:   what threads have begun to say and not ended with a line's end, up to LINES_MAX bytes each.
 * Thread: any, with the GIL.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_LINES_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_LINES_H

#include "upstream/worker/wsgi/python.h"

#include "core/base.h"

#define LINES_MAX 8192 /* bytes of a line; a longer one is several */

/* Puts itself in the place of sys.stdout and sys.stderr. 0 with the stream for wsgi.errors (borrowed for ever), or -1 with an exception. */
MUST_USE int lines_setup(PyObject **ret_errors);

/* Text of ours, that ends in '\n'. */
void lines_say(const char *text);

/* The same for a str. An exception that was set stays; one that comes up is dropped. */
void lines_say_str(PyObject *text);

/* This thread's request is over: what it has begun to say is a line. */
void lines_end(void);

#endif
