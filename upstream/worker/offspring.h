/*
 * offspring: a word before and after this process is forked by whoever runs in it, an application that nobody has asked not to.
 * Owns:   the process's one pthread_atfork(3) of forebay's. There is no other way to hear of a fork, hence what is hidden here.
 * Thread: any; the words come on the one that forks.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_OFFSPRING_H
#define FOREBAY_UPSTREAM_WORKER_OFFSPRING_H

#include "core/base.h"

struct offspring_events {
	void (*before)(void *ctx);
	/* On both sides. In a child nothing is safe but system calls. */
	void (*after)(void *ctx, bool child);
};

/* From now on. Borrows both until offspring_unwatch. Not while it is watched already. 0 or -errno. */
MUST_USE int offspring_watch(const struct offspring_events *events, void *ctx);

/* Not while anybody forks. */
void offspring_unwatch(void);

#endif
