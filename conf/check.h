/*
 * check: what only the whole of a configuration shows: names that are missing, twice, or unknown, and options that contradict
 * each other.
 * Owns nothing.
 */
#ifndef FOREBAY_CONF_CHECK_H
#define FOREBAY_CONF_CHECK_H

#include "conf/sections.h"

/* Sets each route's pool on the way. 0 or -ENOMEM; what is wrong goes to `errors`. */
MUST_USE int check_conf(struct conf *c, const struct sections *sections, struct errors *errors);

#endif
