/*
 * content: an answer's blocks on their way from the application to the front: counted against Content-Length, gathered, and sent.
 * Never:  keeps a block from leaving while the application works on the next one (PEP 3333, "Buffering and Streaming").
 * Thread: the serving one, with the GIL, which is let go of while something is sent.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_CONTENT_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_CONTENT_H

#include "upstream/worker/wsgi/call.h"

/* One block. 0, also when nobody listens any more; or -1 with an exception: it is not bytes, or came before start_response. What Content-Length does
 * not allow is dropped. */
MUST_USE int content_give(struct call *c, PyObject *block);

/* The application is about to work on: what it has given so far leaves, now or in FLUSHER_DELAY_MS. */
void content_part(struct call *c);

/* Nobody wants more: it is over, its answer has no content, or the client has left. */
bool content_may_stop(struct call *c);

/* All of the content is about to come, this many bytes: said as Content-Length if the application did not. start_response was called. */
void content_announce(struct call *c, uint64_t bytes);

/* A piece of a regular file. Takes *fd. */
void content_give_file(struct call *c, int *fd, uint64_t offset, uint64_t len);

/* The application is done: what there should have been more is said. */
void content_end(struct call *c);

/* What was said so far is unsaid. With the call's lock. False: some of it has left. */
bool content_take_back(struct call *c);

#endif
