/*
 * trigger: tells when a file was written, replaced or touched, once it has been quiet about it for a moment.
 * Owns:   a watch on the file's path and a timer.
 * Never:  opens the file; tells of one that is not there, or that is as it was.
 * Thread: its base's.
 */
#ifndef FOREBAY_PROXY_TRIGGER_H
#define FOREBAY_PROXY_TRIGGER_H

#include <event2/event.h>

#include "core/base.h"

#define TRIGGER_QUIET_MS 100

struct trigger;

/* Borrows path for its life. 0 or -errno. */
MUST_USE int trigger_new(struct event_base *base, const char *path, void (*pulled)(void *ctx), void *ctx, struct trigger **ret);
void trigger_free(struct trigger **t);

#endif
