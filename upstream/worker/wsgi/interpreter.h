/*
 * interpreter: CPython in this process: started with the paths of the system's Python or of a virtualenv, ended once.
 * Thread: the main one.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_INTERPRETER_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_INTERPRETER_H

#include "upstream/worker/wsgi/python.h"

#include "core/base.h"

/* With the GIL from here on. The working directory is the first place modules are looked for; VIRTUAL_ENV in the environment is honoured. False: said why. */
MUST_USE bool interpreter_start(void);

/* With the GIL, and no other thread of ours in Python: what the application asked to be done at the end is done. */
void interpreter_end(void);

#endif
