/*
 * front: the process that clients meet: event-loop threads, spool threads, a log thread, and a main thread that talks to the master.
 * Owns:   all that serves.
 * Never:  opens a path but in the spool's directory; starts a process; outlives the master.
 * Thread: front_main is the process.
 */
#ifndef FOREBAY_PROXY_FRONT_H
#define FOREBAY_PROXY_FRONT_H

#include "core/base.h"

#define FRONT_CHANNEL_FD 3 /* where the master has put the control socket */

/* Returns the exit status. */
int front_main(void);

#endif
