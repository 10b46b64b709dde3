/*
 * values: one option's text turned into its field, and said again in words.
 * Owns:  nothing; what it allocates is the section's struct's, freed by option_free.
 * Never: looks at another option, the network or the disk.
 */
#ifndef FOREBAY_CONF_VALUES_H
#define FOREBAY_CONF_VALUES_H

#include "conf/nearest.h"
#include "conf/options.h"

/* Why a value was not taken. */
struct refusal {
	char expected[320]; /* "a number of threads from 1 to 64" */
	char nearest[NEAREST_MAX + 1];
};

/*
 * Sets the row's field in `target`, the struct of its section; a list gets one element more. A field that is set again frees
 * what it had. Returns 0, -EINVAL with *ret_why and the field as it was, or -ENOMEM.
 */
MUST_USE int option_set(const struct option *o, void *target, struct slice value, struct refusal *ret_why);

/* The row's default; for an option without one, 0 and NULL. 0 or -ENOMEM. */
MUST_USE int option_set_initial(const struct option *o, void *target);

void option_free(const struct option *o, void *target);

#define NAME_BYTES_MAX 64

/* What a section, a user or a pool may be called: 1 to 64 letters, digits and "_", behind the first also "-" and ".". */
bool name_ok(struct slice name);

#define LIST_MAX 1024 /* values of one list option in one section */

/* What the row takes, in words. */
struct buf;
void option_describe(const struct option *o, struct buf *out);

#endif
