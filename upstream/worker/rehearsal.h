/*
 * rehearsal: one request that nobody sent: through the application in this very process, its answer thrown away but for the status.
 * Owns:   a socket pair and a thread that reads the answer, both gone when it returns.
 * Thread: any that may call the application's serve(); it is the one that serves.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_REHEARSAL_H
#define FOREBAY_UPSTREAM_WORKER_REHEARSAL_H

#include "upstream/worker/worker.h"

/* A GET of `target` ("/path?query"). 0 with the answer's status in *ret_status, 0 if it was none or cut; or -errno. */
MUST_USE int rehearse(const struct worker_app *app, void *app_ctx, const char *target, unsigned *ret_status);

#endif
