/*
 * wsgi: Python applications (PEP 3333) on forebay's own workers.
 * Thread: load and unload are the main one's, serve any number's at once.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_WSGI_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_WSGI_H

#include "upstream/worker/worker.h"

extern const struct worker_app wsgi_app;

#endif
