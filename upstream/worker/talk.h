/*
 * talk: the worker's side of one slot socket: takes in a REQUEST, has it served, sends the answer.
 * Owns:   a request's memory, descriptors and unsent answer.
 * Never:  runs two requests at once; reads on while the application runs, but for CANCEL.
 * Thread: the one that serves the slot.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_TALK_H
#define FOREBAY_UPSTREAM_WORKER_TALK_H

#include <stdatomic.h>

#include "upstream/worker/worker.h"

struct talk_plan {
	const struct worker_app *app;
	void *app_ctx;
	_Atomic uint64_t *started; /* this slot's word: gets the serial the moment the application is called */
	/* No request is taken behind the one that is being answered: said with its END. Set by another thread or by `begun`. */
	const atomic_bool *ending;
	/* A request is about to be served. May be NULL. */
	void (*begun)(void *ctx);
	void *ctx;
};

/*
 * Serves requests on the blocking socket until it ends. Borrows both. 0: the front closed it, or an answer was said to be the last one. -EPROTO: what
 * came is not the protocol; -EPIPE: an answer could not be sent, or was cut; -ENOMEM. In every case the socket is of no use any more.
 */
MUST_USE int talk_serve(int sock, const struct talk_plan *plan);

#endif
