/*
 * sources: a folder of Python source, watched with all folders in it: for `forebay run --reload`.
 * Owns:   the inotify descriptor, one watch for each folder.
 * Never:  opens a file; follows a symbolic link; watches more than SOURCES_FOLDERS_MAX folders (that it does not see all is said once).
 * Thread: the event loop's. Going through many folders takes its time: for somebody who develops, not for a site.
 */
#ifndef FOREBAY_PROXY_SOURCES_H
#define FOREBAY_PROXY_SOURCES_H

#include <event2/event.h>

#include "core/clock.h"

#define SOURCES_FOLDERS_MAX 4096
#define SOURCES_DEPTH_MAX   64
#define SOURCES_QUIET_MS    100  /* what is saved together is one change, */
#define SOURCES_MOST_MS     1000 /* however long it goes on */

struct sources;

/* A .py file was written, moved or deleted, or a folder moved: its path below the watched one. What changes together is one call, about the first. */
typedef void sources_changed(void *ctx, const char *path);

/*
 * Left out are hidden files and folders, __pycache__, node_modules, site-packages, and virtual environments (what has a pyvenv.cfg). Borrows clock.
 * 0 with *ret set, or -errno.
 */
MUST_USE int sources_new(struct event_base *base, const struct clock *clock, const char *folder, sources_changed *changed,
    void *ctx, struct sources **ret);
void sources_free(struct sources **s);

/* Folders that are watched. */
size_t sources_count(const struct sources *s);

#endif
