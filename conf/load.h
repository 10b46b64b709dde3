/*
 * load: the text of a configuration into a struct conf, by way of reader and table.
 * Owns:  what sections become: their structs, with names and defaults.
 * Never: judges the whole; that is check's.
 */
#ifndef FOREBAY_CONF_LOAD_H
#define FOREBAY_CONF_LOAD_H

#include "conf/sections.h"

/* Sets the defaults of what stands outside of named sections. 0 or -ENOMEM. */
MUST_USE int load_defaults(struct conf *c);

/* Reads c->text into *c. The sections are the caller's to end, also on failure. 0 or -errno; what is wrong goes to `errors`. */
MUST_USE int load_text(struct conf *c, struct sections *ret_sections, struct errors *errors);

/* Frees all that came of sections. */
void load_free(struct conf *c);

#endif
