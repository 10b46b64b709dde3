/*
 * target: the application's callable, found by its name: MODULE[:CALLABLE].
 * Thread: the main one, with the GIL.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_TARGET_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_TARGET_H

#include "upstream/worker/wsgi/python.h"

/*
 * "package.module:callable": an attribute, maybe of an attribute; followed by "()": a function without arguments that makes the application. Without a name it is
 * `application`, or `app`. A new reference, or NULL with an exception.
 */
PyObject *target_load(const char *target);

#endif
