/*
 * unforkable: what a fork of this process would not take along: threads, and connections that two would then use.
 * Thread: the only one there should be.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_UNFORKABLE_H
#define FOREBAY_UPSTREAM_WORKER_UNFORKABLE_H

#include "upstream/worker/worker.h"

/*
 * What the kernel knows of, and what the application says: named in `ret` (cut to size, always NUL-terminated). False: nothing. `own_socket` is
 * ours and does not count (-1: none).
 */
MUST_USE bool unforkable_find(const struct worker_app *app, void *app_ctx, int own_socket, char *ret, size_t size);

#endif
