/*
 * reader: the lines of an INI file. It sees each raw line before inih does, so that nothing inih 55 would cut, join or pass over
 * in silence reaches it.
 * Owns:  the rules for lines, section headers, comments.
 * Never: knows an option.
 */
#ifndef FOREBAY_CONF_READER_H
#define FOREBAY_CONF_READER_H

#include "conf/errors.h"

#define READER_LINE_MAX 8192 /* bytes of a line, without its end */
#define READER_NAME_MAX 49   /* bytes of an option's name: what inih keeps of one */

/* All slices but `title` and its parts die with the call; those are pieces of the text. Non-zero, -errno, ends the reading. */
struct reader_events {
	/* A well-formed "[KIND NAME]", title being all that stands between the brackets; or, with an empty kind, a broken one. */
	int (*section)(void *ctx, unsigned line, struct slice title, struct slice kind, struct slice name);
	int (*option)(void *ctx, unsigned line, struct slice name, struct slice value);
	/* An option whose value was refused already. */
	int (*refused)(void *ctx, unsigned line, struct slice name);
};

/* Reads all of `text`; what is wrong with lines goes to `errors`. 0, -ENOMEM, -EIO (an inih built otherwise), or what an event returned. */
MUST_USE int reader_run(struct slice text, const struct reader_events *events, void *ctx, struct errors *errors);

#endif
