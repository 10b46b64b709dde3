#include "conf/load.h"

#include <stdlib.h>

#include "conf/nearest.h"
#include "conf/pattern.h"
#include "conf/reader.h"
#include "conf/values.h"

#define NOTHING SLICE("")

struct loader {
	struct conf *conf;
	struct sections *sections;
	struct errors *errors;
	struct section *section; /* at hand; NULL: none, or one whose options are passed over */
	bool pass_over;
};

/* Where the structs of a kind are. */
static void *struct_of(struct conf *c, enum option_section kind, size_t index)
{
	switch (kind) {
	case SECTION_FOREBAY:
		return &c->daemon;
	case SECTION_LISTEN:
		return &c->listens[index];
	case SECTION_TLS:
		return &c->tls[index];
	case SECTION_POOL:
		return &c->pools[index];
	case SECTION_ROUTE:
		return &c->routes[index];
	case SECTION_COUNT:
		break;
	}
	return NULL;
}

static int set_defaults(enum option_section kind, void *target)
{
	size_t count;
	const struct option *options = options_of(kind, &count);
	int err = 0;

	for (size_t i = 0; i < count && err == 0; i++)
		err = option_set_initial(&options[i], target);
	return err;
}

static void free_options(enum option_section kind, void *target)
{
	size_t count;
	const struct option *options = options_of(kind, &count);

	for (size_t i = 0; i < count; i++)
		option_free(&options[i], target);
}

int load_defaults(struct conf *c)
{
	return set_defaults(SECTION_FOREBAY, &c->daemon);
}

void load_free(struct conf *c)
{
	free_options(SECTION_FOREBAY, &c->daemon);
	for (size_t i = 0; i < c->listen_count; i++) {
		free(c->listens[i].name);
		free_options(SECTION_LISTEN, &c->listens[i]);
	}
	for (size_t i = 0; i < c->tls_count; i++) {
		free(c->tls[i].name);
		free_options(SECTION_TLS, &c->tls[i]);
	}
	for (size_t i = 0; i < c->pool_count; i++) {
		free(c->pools[i].name);
		free_options(SECTION_POOL, &c->pools[i]);
	}
	for (size_t i = 0; i < c->route_count; i++) {
		free(c->routes[i].host);
		free(c->routes[i].path);
		free(c->routes[i].pattern);
		free_options(SECTION_ROUTE, &c->routes[i]);
	}
	free(c->listens);
	free(c->tls);
	free(c->pools);
	free(c->routes);
}

/* Sections */

/* Room for one more at the end of an array of `count`, which is full at a power of two. NULL without memory. */
static void *grown(void *array, size_t count, size_t size)
{
	return count & (count - 1) ? array : reallocarray(array, count ? count * 2 : 1, size);
}

static int add_listen(struct conf *c, struct slice name)
{
	struct conf_listen *list = grown(c->listens, c->listen_count, sizeof(*list));

	if (!list)
		return -ENOMEM;
	c->listens = list;
	list[c->listen_count++] = (struct conf_listen){ .name = slice_dup(name) };
	return list[c->listen_count - 1].name ? (int)c->listen_count - 1 : -ENOMEM;
}

static int add_tls(struct conf *c, struct slice name)
{
	struct conf_tls *list = grown(c->tls, c->tls_count, sizeof(*list));

	if (!list)
		return -ENOMEM;
	c->tls = list;
	list[c->tls_count] = (struct conf_tls){ .name = slice_dup(name), .index = c->tls_count };
	c->tls_count++;
	return list[c->tls_count - 1].name ? (int)c->tls_count - 1 : -ENOMEM;
}

static int add_pool(struct conf *c, struct slice name)
{
	struct conf_pool *list = grown(c->pools, c->pool_count, sizeof(*list));

	if (!list)
		return -ENOMEM;
	c->pools = list;
	list[c->pool_count] = (struct conf_pool){ .name = slice_dup(name), .index = c->pool_count };
	c->pool_count++;
	return list[c->pool_count - 1].name ? (int)c->pool_count - 1 : -ENOMEM;
}

static int add_route(struct conf *c, unsigned line)
{
	struct conf_route *list = grown(c->routes, c->route_count, sizeof(*list));

	if (!list)
		return -ENOMEM;
	c->routes = list;
	list[c->route_count++] = (struct conf_route){ .line = line };
	return (int)c->route_count - 1;
}

/* Its struct, with defaults; the index in its array, or -ENOMEM. */
static int add_struct(struct conf *c, const struct section *s)
{
	int index = 0, err;

	if (s->kind == SECTION_LISTEN)
		index = add_listen(c, s->name);
	else if (s->kind == SECTION_TLS)
		index = add_tls(c, s->name);
	else if (s->kind == SECTION_POOL)
		index = add_pool(c, s->name);
	else if (s->kind == SECTION_ROUTE)
		index = add_route(c, s->line);
	/* [forebay] is there already, and what was said of it stays. */
	if (index < 0 || s->kind == SECTION_FOREBAY)
		return index;
	err = set_defaults(s->kind, struct_of(c, s->kind, (size_t)index));
	return err < 0 ? err : index;
}

static void refuse_kind(struct loader *l, unsigned line, struct slice title, struct slice kind)
{
	struct nearest n = { .word = kind };

	for (int k = 0; k < SECTION_COUNT; k++)
		nearest_offer(&n, slice_str(section_kind((enum option_section)k)));
	errors_add(l->errors, (struct place){ line, title, NOTHING }, FOUND_QUOTED(kind), n.best, "%s, %s, %s, %s or %s",
	    section_form(SECTION_FOREBAY), section_form(SECTION_LISTEN), section_form(SECTION_TLS), section_form(SECTION_POOL),
	    section_form(SECTION_ROUTE));
}

/* A refused name makes no difference to the section's options, which are looked at all the same. */
static int name_section(struct loader *l, const struct section *s)
{
	struct place where = { s->line, s->title, NOTHING };
	const char *why;
	int err = 0;

	if (s->kind == SECTION_FOREBAY) {
		if (s->name.len > 0)
			errors_add(l->errors, where, FOUND_QUOTED(s->name), NOTHING, "no name in %s", section_form(s->kind));
	} else if (s->name.len == 0) {
		errors_add(l->errors, where, FOUND("no name"), NOTHING, "%s", section_form(s->kind));
	} else if (s->kind == SECTION_ROUTE) {
		err = pattern_parse(s->name, &l->conf->routes[s->index], &why);
		if (err == -EINVAL)
			errors_add(l->errors, where, FOUND_QUOTED(s->name), NOTHING, "%s", why);
	} else if (!name_ok(s->name)) {
		errors_add(l->errors, where, FOUND_QUOTED(s->name), NOTHING,
		    "a name of at most %d letters, digits, \"_\", \"-\" and \".\"", NAME_BYTES_MAX);
	}
	return err == -EINVAL ? 0 : err;
}

static int on_section(void *ctx, unsigned line, struct slice title, struct slice kind, struct slice name)
{
	struct loader *l = ctx;
	enum option_section k = section_find(kind);
	int index;

	l->section = NULL;
	l->pass_over = true;
	if (kind.len == 0)
		return 0;
	if (k == SECTION_COUNT) {
		refuse_kind(l, line, title, kind);
		return 0;
	}
	if (l->sections->count == SECTIONS_MAX) {
		errors_add(l->errors, (struct place){ line, title, NOTHING }, FOUND("one section more"), NOTHING,
		    "at most %d sections", SECTIONS_MAX);
		return 0;
	}
	l->section = sections_add(l->sections, k);
	if (!l->section)
		return -ENOMEM;
	l->section->line = line;
	l->section->title = title;
	l->section->name = name;
	index = add_struct(l->conf, l->section);
	if (index < 0)
		return index;
	l->section->index = (size_t)index;
	return name_section(l, l->section);
}

/* Options */

/* An option that another section has was put in the wrong one; else a typing error is likely. */
static void refuse_name(struct loader *l, struct place where)
{
	enum option_section kind = l->section->kind;
	struct nearest n = { .word = where.option };
	size_t count;
	const struct option *options = options_of(kind, &count);

	for (int k = 0; k < SECTION_COUNT; k++)
		if (option_find((enum option_section)k, where.option)) {
			errors_add(l->errors, where, FOUND_QUOTED(where.option), NOTHING, "an option of %s; this is one of %s",
			    section_form(kind), section_form((enum option_section)k));
			return;
		}
	for (size_t i = 0; i < count; i++)
		nearest_offer(&n, slice_str(options[i].name));
	errors_add(l->errors, where, FOUND_QUOTED(where.option), n.best, "an option of %s", section_form(kind));
}

/* Checks tell the line of an address or a name, since a section may have many. */
static void mark_line(struct conf *c, const struct section *s, const struct option *o, unsigned line)
{
	struct conf_listen *listen = s->kind == SECTION_LISTEN ? &c->listens[s->index] : NULL;
	struct conf_pool *pool = s->kind == SECTION_POOL ? &c->pools[s->index] : NULL;

	if (listen && o->type == OPTION_ADDRESSES)
		listen->addresses[listen->address_count - 1].line = line;
	else if (pool && o->type == OPTION_SOCKETS)
		pool->sockets[pool->socket_count - 1].line = line;
	else if (listen && o->type == OPTION_NAMES)
		listen->tls[listen->tls_count - 1].line = line;
}

/* The row of an option of the section at hand, whose first line is noted; NULL: it was refused. */
static const struct option *note_option(struct loader *l, struct place where, struct slice value)
{
	const struct option *o;
	unsigned *said;

	if (!l->section) {
		if (!l->pass_over)
			errors_add(l->errors, where, FOUND_QUOTED(value), NOTHING,
			    "a section such as [forebay] before the first option");
		return NULL;
	}
	o = option_find(l->section->kind, where.option);
	if (!o) {
		refuse_name(l, where);
		return NULL;
	}
	said = &l->section->option_lines[option_index(o)];
	if (*said && !option_is_list(o)) {
		errors_add(l->errors, where, FOUND_QUOTED(value), NOTHING, "it once: %s is in line %u already", o->name, *said);
		return NULL;
	}
	if (!*said)
		*said = where.line;
	return o;
}

static struct place place_at(const struct loader *l, unsigned line, struct slice name)
{
	return (struct place){ line, l->section ? l->section->title : NOTHING, name };
}

static int on_option(void *ctx, unsigned line, struct slice name, struct slice value)
{
	struct loader *l = ctx;
	struct place where = place_at(l, line, name);
	const struct option *o = note_option(l, where, value);
	struct refusal why;
	int err;

	if (!o)
		return 0;
	err = option_set(o, struct_of(l->conf, l->section->kind, l->section->index), value, &why);
	if (err == 0)
		mark_line(l->conf, l->section, o, line);
	else if (err == -EINVAL)
		errors_add(l->errors, where, FOUND_QUOTED(value), slice_str(why.nearest), "%s", why.expected);
	return err == -EINVAL ? 0 : err;
}

/* Only its name is left to judge. */
static int on_refused(void *ctx, unsigned line, struct slice name)
{
	struct loader *l = ctx;

	note_option(l, place_at(l, line, name), NOTHING);
	return 0;
}

int load_text(struct conf *c, struct sections *ret_sections, struct errors *errors)
{
	static const struct reader_events events = { on_section, on_option, on_refused };
	struct loader l = { .conf = c, .sections = ret_sections, .errors = errors };

	*ret_sections = (struct sections){ 0 };
	return reader_run(slice_of(c->text, c->text_len), &events, &l, errors);
}
