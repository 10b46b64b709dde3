/*
 * options: the one table of all options. Parser, checks, `forebay --options` and forebay.ini(5) read it, and nothing else says
 * what an option is called, takes or is by default.
 * Pure: constant data and look-ups.
 */
#ifndef FOREBAY_CONF_OPTIONS_H
#define FOREBAY_CONF_OPTIONS_H

#include "conf/conf.h"

enum option_section { SECTION_FOREBAY, SECTION_LISTEN, SECTION_TLS, SECTION_POOL, SECTION_ROUTE, SECTION_COUNT };

/* What a value looks like, and with it what the field is in C. */
enum option_type {
	OPTION_UINT,        /* unsigned */
	OPTION_U64,         /* uint64_t */
	OPTION_SIZE,        /* uint64_t, bytes; K M G */
	OPTION_RATE,        /* uint64_t, bytes per second; K M G */
	OPTION_TIME,        /* uint64_t, milliseconds; ms s m h d, a bare number is seconds */
	OPTION_OCTAL,       /* unsigned: octal digits */
	OPTION_NICENESS,    /* int: may be negative */
	OPTION_BOOL,        /* bool */
	OPTION_WORD,        /* unsigned: the index in `words` */
	OPTION_NAME,        /* char *: a user or a pool */
	OPTION_PATH,        /* char *: an absolute path, or one of `words` */
	OPTION_APP,         /* unsigned: enum conf_app; what stands behind its colon goes to app_program and app_target */
	OPTION_TOKENS,      /* char *: printable characters, `unit` says what; who gets them judges them */
	OPTION_ADDRESSES,   /* lists: one value a line; a pointer and a count */
	OPTION_SOCKETS,     /* */
	OPTION_NETWORKS,    /* */
	OPTION_ENVIRONMENT, /* */
	OPTION_NAMES,       /* struct conf_word */
	OPTION_PATHS,       /* struct conf_word */
	OPTION_TYPE_COUNT,
};

/* When a changed value takes effect. */
enum option_change { RELOAD, RESTART };

struct option {
	enum option_section section;
	enum option_type type;
	enum option_change change;
	const char *name;
	const char *unit;    /* of a number: what is counted */
	uint64_t min, max;   /* of a number, in the field's unit */
	const char *initial; /* the default as in a file; NULL: none. A number that is "auto" may also be set to it: field 0 */
	const char *const *words; /* ends in NULL */
	size_t offset;            /* of the field in its section's struct */
	size_t count_offset;      /* of a list's count */
	const char *help;
};

#define SECTION_OPTIONS_MAX 64 /* rows of one section */

/* What section `s` is called, how it is written, and what it is for. */
const char *section_kind(enum option_section s);
const char *section_form(enum option_section s);
const char *section_help(enum option_section s);

/* SECTION_COUNT: there is no such kind. */
enum option_section section_find(struct slice kind);

/* The rows of one section. */
const struct option *options_of(enum option_section s, size_t *ret_count);

/* NULL: not an option of this section. */
const struct option *option_find(enum option_section s, struct slice name);

/* A row's place among those of its section. */
size_t option_index(const struct option *o);

bool option_is_list(const struct option *o);
bool option_may_be_auto(const struct option *o);

#endif
