/*
 * worker_main: a worker process from its first step to its last: set up, found fit, serving, gone.
 * Never: outlives its master.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WORKER_MAIN_H
#define FOREBAY_UPSTREAM_WORKER_WORKER_MAIN_H

#include "upstream/worker/runtime.h"

/* main() of a worker that loads the application itself: argv is what args_write made. Returns the exit status. */
int worker_main(int argc, char **argv, const struct worker_app *app);

/* What load() returned: one line of log, but for -ENOEXEC: the application has said itself what is wrong with it. */
void worker_say_not_loaded(int err);

/* The same for one that was forked with the application in it; `page` is all of the started page. */
int worker_life(const struct worker_args *args, const struct worker_app *app, void *app_ctx, struct started_line *page);

/* What worker and zygote begin with. NULL, said on standard error: it was not started by forebay. `args` is the caller's to end. */
MUST_USE struct started_line *worker_set_up(
    int argc, char **argv, enum args_role role, const struct worker_app *app, struct worker_args *args);

#endif
