/*
 * pattern: the HOST/PATH of a [route HOST/PATH].
 * Pure functions.
 */
#ifndef FOREBAY_CONF_PATTERN_H
#define FOREBAY_CONF_PATTERN_H

#include "conf/conf.h"

/*
 * Sets host, path and pattern of *ret, yours to free: the host in lower case, the path without a slash at its end. 0, -ENOMEM, or
 * -EINVAL with *ret_why a literal that says what is expected.
 */
MUST_USE int pattern_parse(struct slice text, struct conf_route *ret, const char **ret_why);

#endif
