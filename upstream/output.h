/*
 * output: what a child process writes to its standard output and error, as lines of the log.
 * A line that begins with OUTPUT_MARK, the id of a request and a space was written while that request was served.
 * Owns:   the reading end of the pipe, one unfinished line.
 * Never:  waits for a child; keeps a child waiting longer than the loop takes to come round.
 * Thread: the master's.
 */
#ifndef FOREBAY_UPSTREAM_OUTPUT_H
#define FOREBAY_UPSTREAM_OUTPUT_H

#include <event2/event.h>
#include <sys/types.h>

#include "core/base.h"

#define OUTPUT_MARK     '\x1f'
#define OUTPUT_ID_MAX   128  /* bytes; what is longer, or has other than visible ASCII in it, is no id */
#define OUTPUT_LINE_MAX 8192 /* bytes; a longer line is logged in pieces */

struct output;

/* Takes *fd, also on failure. `name` (borrowed for its life) and the pid head each line. 0 or -errno. */
MUST_USE int output_new(struct event_base *base, const char *name, int *fd, struct output **ret);
void output_set_pid(struct output *o, pid_t pid);

/* For somebody who develops: the lines as they are, without what the log says with each. */
void output_set_bare(struct output *o);

/* The child has ended: logs what is still in the pipe, also an unfinished line. Somebody else may hold the other end: it does not wait for that one. */
void output_end(struct output *o);

void output_free(struct output **o);

#endif
