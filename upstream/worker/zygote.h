/*
 * zygote: a process that loads the application once and forks workers with it in them, whose memory is then shared.
 * Owns:   the application, until a worker is forked: there it is the worker's.
 * Never:  serves but for a rehearsal; has more than one thread; is a worker's parent: it forks twice, so that the master is.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_ZYGOTE_H
#define FOREBAY_UPSTREAM_WORKER_ZYGOTE_H

#include "upstream/worker/worker.h"

/* main() of a zygote, and of every worker that it forks: argv is what args_write made. Returns the exit status. */
int zygote_main(int argc, char **argv, const struct worker_app *app);

#endif
