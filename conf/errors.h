/*
 * errors: what is wrong in a configuration file, collected while it is read, told in the order of its lines.
 * Owns:  the texts.
 * Never: stops at the first; lets a byte of the file through unescaped.
 */
#ifndef FOREBAY_CONF_ERRORS_H
#define FOREBAY_CONF_ERRORS_H

#include "core/slice.h"

#define ERRORS_MAX 1000 /* told; the rest is counted */

struct buf;
struct error_line;

struct errors {
	struct error_line *lines;
	size_t count, size;
	size_t dropped; /* beyond ERRORS_MAX */
	bool failed;    /* no memory for one of them */
};

/* Where in the file: "FILE:LINE: SECTION.OPTION". Section and option may be empty. */
struct place {
	unsigned line; /* 0: the file as a whole */
	struct slice section, option;
};

/* Something found, as it stands there. With `quoted` it is the file's bytes: quoted, escaped, and cut where they are many. */
struct found {
	struct slice text;
	bool quoted;
};

#define FOUND_QUOTED(slice) ((struct found){ (slice), true })
#define FOUND(literal)      ((struct found){ SLICE(literal), false })

void errors_init(struct errors *e);
void errors_done(struct errors *e);

/* "PLACE: found FOUND, expected EXPECTED; did you mean NEAREST?", the last part only with a NEAREST that is not empty. */
void errors_add(struct errors *e, struct place where, struct found what, struct slice nearest, const char *expected_fmt, ...)
    PRINTF_LIKE(5, 6);

static inline bool errors_any(const struct errors *e)
{
	return e->count > 0;
}

/* Appends all of them to `out`, one a line, each headed by `file`. */
void errors_write(struct errors *e, const char *file, struct buf *out);

#endif
