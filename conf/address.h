/*
 * address: socket addresses and networks as a configuration writes them. What everybody may call is in conf.h.
 * Pure functions: numbers only, nothing is looked up.
 */
#ifndef FOREBAY_CONF_ADDRESS_H
#define FOREBAY_CONF_ADDRESS_H

#include "conf/conf.h"

/* What `trusted =` takes; 0, -ENOMEM, or -EINVAL with *ret_why a literal that says what is expected. */
MUST_USE int network_parse(struct slice text, struct conf_network *ret, const char **ret_why);

#endif
