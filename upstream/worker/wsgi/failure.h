/*
 * failure: an exception that nobody caught: its whole traceback goes into the log, and a page to the client where that can still be.
 * Thread: the serving one, or the main one at the start, with the GIL and an exception set, which is cleared.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_FAILURE_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_FAILURE_H

#include "upstream/worker/wsgi/call.h"

/* Pages show the traceback: for development. Once. */
void failure_setup(bool debug);

/* Logs it. `what` is a line's beginning. */
void failure_log(const char *what);

/* Logs it, and answers 500; if some of an answer has left already, that is cut. */
void failure_answer(struct call *c);

#endif
