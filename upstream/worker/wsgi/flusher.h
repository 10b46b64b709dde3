/*
 * flusher: content that waits in a worker while its application computes leaves after FLUSHER_DELAY_MS at the latest, without the application.
 *
 * PEP 3333 ("Buffering and Streaming") allows no block to be held back while the next one is made, unless another thread sees to it that it goes
 * on its way: this is the thread. So the parts of a quick generator go together, in a few system calls, and those of a slow one one by one.
 * Owns:   one thread, started at the first need. It never runs Python, and sleeps while nothing waits.
 * Thread: any.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WSGI_FLUSHER_H
#define FOREBAY_UPSTREAM_WORKER_WSGI_FLUSHER_H

#include "upstream/worker/wsgi/call.h"

#define FLUSHER_DELAY_MS 5

/* Once for each call; it stays known for ever. */
void flusher_know(struct call *c);

/* c's content waits from now (on the monotonic clock) on; with the call's lock. False: there is no thread to be had, the caller sends it. */
MUST_USE bool flusher_watch(struct call *c, uint64_t now_us);

uint64_t flusher_now_us(void);

#endif
