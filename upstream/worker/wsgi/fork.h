/*
 * fork: what Python wants to be told when its process forks, and what of an application would not survive it.
 * Thread: the main one, with the GIL.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_FORK_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_FORK_H

#include "upstream/worker/wsgi/python.h"

#include "core/base.h"

/* All that there is now is kept out of garbage collections to come, so that they do not write to pages that are shared. */
void fork_freeze(void);

/* The names of the application's threads, malloc'd; NULL: it has none. */
char *fork_threads(void);

#endif
