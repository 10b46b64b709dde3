/*
 * input: wsgi.input: the request's body as a readable stream, from memory or from its descriptor.
 * Owns:   a descriptor of its own, and at most INPUT_BUFFER_BYTES of memory for lines.
 * Never:  holds the whole body, unless the application asks for it in one piece.
 * Thread: any, with the GIL, but one at a time. Good until the request is over.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_INPUT_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_INPUT_H

#include "upstream/worker/wsgi/call.h"

#define INPUT_BUFFER_BYTES (64u << 10)

/* 0, or -1 with an exception. Once, before all else. */
MUST_USE int input_setup(void);

/* The object for a request that begins: borrowed; NULL with an exception. */
PyObject *input_begin(struct call *c);

/* The request is over: the object raises from here on. One that the application kept is let go of. */
void input_end(struct input **in);
void input_drop(struct input **in);

#endif
