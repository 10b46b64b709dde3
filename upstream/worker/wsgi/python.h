/*
 * python: CPython's header, which has to come before all others.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_PYTHON_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* A method by its C function, whatever its arguments are. */
#define PYTHON_METHOD(f) ((PyCFunction)(void (*)(void))(f))

#endif
