/*
 * keywatch: tells when a file may have changed that is known by its path, wherever its symbolic links lead and however it is replaced.
 * Owns:   one inotify descriptor.
 * Never:  opens the files.
 * Thread: its base's.
 */
#ifndef FOREBAY_PROXY_KEYWATCH_H
#define FOREBAY_PROXY_KEYWATCH_H

#include <event2/event.h>

#include "core/base.h"

struct keywatch;

/* Watches nothing yet. 0 or -ENOMEM. */
MUST_USE int keywatch_new(struct event_base *base, void (*changed)(void *ctx), void *ctx, struct keywatch **ret);
void keywatch_free(struct keywatch **w);

/*
 * From now on these, in place of those before: to be called anew after `changed`, before the files are read, since paths may lead
 * elsewhere. 0, or -errno with none watched.
 */
MUST_USE int keywatch_set(struct keywatch *w, const char *const *paths, size_t count);

#endif
