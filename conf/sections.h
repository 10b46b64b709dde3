/*
 * sections: what was said where in the file: what the checks need beside struct conf, while it is made.
 * Owns: its list. All text is a piece of conf.text.
 */
#ifndef FOREBAY_CONF_SECTIONS_H
#define FOREBAY_CONF_SECTIONS_H

#include "conf/errors.h"
#include "conf/options.h"

struct section {
	enum option_section kind;
	unsigned line;
	struct slice title, name;
	size_t index;                               /* of its struct, in the array of its kind in struct conf */
	unsigned option_lines[SECTION_OPTIONS_MAX]; /* where each option was said first; 0: it was not */
};

#define SECTIONS_MAX 16384

struct sections {
	struct section *list;
	size_t count, size;
};

/* A further section, all zero but for its kind; valid until the next. NULL without memory. */
struct section *sections_add(struct sections *s, enum option_section kind);
void sections_done(struct sections *s);

/* Where an option of the section was said first; 0: it was not. The name is one of the table's. */
unsigned section_said(const struct section *s, const char *option);

#endif
