/*
 * master: the process that was started: keeps listeners, logs, front and workers, and handles signals.
 * Owns:   all of these.
 * Never:  touches a byte from a client. Blocks.
 * Thread: one. master_run is the process.
 *
 * SIGTERM, SIGINT: drain and end; a second one: end now. SIGUSR1: open the logs anew. SIGHUP: a rolling restart of
 * forebay's own workers (`forebay run`: drain and end, since its terminal was closed).
 */
#ifndef FOREBAY_PROXY_MASTER_H
#define FOREBAY_PROXY_MASTER_H

#include "conf/conf.h"

struct master_options {
	struct conf *conf;  /* borrowed */
	const char *screen; /* for somebody who develops: printed once it serves; NULL: this is a daemon */
	const char *reload; /* a folder: when Python source in it changes, the workers start anew; NULL: they do not */
};

/* Returns the exit status. */
int master_run(const struct master_options *o);

#endif
