/*
 * file_wrapper: wsgi.file_wrapper (PEP 3333, "Optional Platform-Specific File Handling"): an iterable over a file that goes to the front as a
 * descriptor where that gives the same bytes.
 * Thread: any, with the GIL.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_FILE_WRAPPER_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_FILE_WRAPPER_H

#include "upstream/worker/wsgi/python.h"

#include "core/base.h"

/* From a file's position to its end. */
struct file_piece {
	int fd;
	uint64_t offset, bytes;
};

/* The type that stands in environ: borrowed for ever; NULL with an exception. Once. */
PyObject *file_wrapper_setup(void);

/*
 * True with *ret, whose descriptor is the caller's: `result` is a wrapper, not read from yet, of a regular file of the file system. False without an
 * exception: it has to be iterated.
 */
bool file_wrapper_piece(PyObject *result, struct file_piece *ret);

void file_piece_done(struct file_piece *p);

#endif
