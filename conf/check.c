#include "conf/check.h"

#include <stdio.h>
#include <stdlib.h>

#include "conf/nearest.h"

#define NOTHING SLICE("")

struct check {
	struct conf *conf;
	const struct sections *sections;
	struct errors *errors;
};

/* Something that may be there once only. */
struct entry {
	struct slice key, shown;
	struct place where;
};

static struct place place_of(const struct section *s, const char *option)
{
	unsigned line = option ? section_said(s, option) : 0;

	return (struct place){ line ? line : s->line, s->title, slice_str(option) };
}

/* What may be there once */

static int by_key(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int order = memcmp(x->key.ptr, y->key.ptr, MIN(x->key.len, y->key.len));

	if (order != 0)
		return order;
	if (x->key.len != y->key.len)
		return x->key.len < y->key.len ? -1 : 1;
	return x->where.line < y->where.line ? -1 : x->where.line > y->where.line;
}

static void refuse_repeats(struct check *c, struct entry *entries, size_t count, const char *what)
{
	size_t first = 0;

	if (count == 0)
		return;
	qsort(entries, count, sizeof(*entries), by_key);
	for (size_t i = 1; i < count; i++) {
		if (!slice_eq(entries[i].key, entries[first].key))
			first = i;
		else
			errors_add(c->errors, entries[i].where, FOUND_QUOTED(entries[i].shown), NOTHING,
			    "each %s once: the first is in line %u", what, entries[first].where.line);
	}
}

static struct slice section_key(const struct conf *c, const struct section *s)
{
	/* A pattern that was refused is NULL and equals no other. */
	if (s->kind == SECTION_ROUTE)
		return slice_str(c->routes[s->index].pattern);
	return s->name;
}

static int check_sections_unique(struct check *c, enum option_section kind)
{
	size_t count = 0;
	struct entry *entries = calloc(c->sections->count + 1, sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < c->sections->count; i++) {
		const struct section *s = &c->sections->list[i];
		struct slice key = section_key(c->conf, s);

		if (s->kind == kind && (key.len > 0 || kind == SECTION_FOREBAY))
			entries[count++] = (struct entry){ key, s->title, place_of(s, NULL) };
	}
	refuse_repeats(c, entries, count, "section");
	free(entries);
	return 0;
}

static struct slice address_key(const struct conf_address *a)
{
	return slice_of((const char *)&a->addr, a->len);
}

static struct entry address_entry(const struct section *s, const struct conf_address *a)
{
	struct place where = { a->line, s->title, s->kind == SECTION_LISTEN ? SLICE("address") : SLICE("socket") };

	return (struct entry){ address_key(a), slice_str(a->text), where };
}

/* A pool that leads back to a listener would go round until something runs out. */
static void check_socket_is_not_ours(struct check *c, struct entry *ours, size_t count, struct entry socket)
{
	/* Line 0 finds the place before the first of this key; by_key() never says equal to it. */
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (by_key(&ours[middle], &(struct entry){ .key = socket.key }) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < count && slice_eq(ours[low].key, socket.key))
		errors_add(c->errors, socket.where, FOUND_QUOTED(socket.shown), NOTHING,
		    "another socket than forebay's own: it listens there by line %u", ours[low].where.line);
}

static int check_pool_sockets(struct check *c, struct entry *ours, size_t ours_count, const struct section *s)
{
	const struct conf_pool *p = &c->conf->pools[s->index];
	struct entry *entries = calloc(p->socket_count + 1, sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < p->socket_count; i++) {
		entries[i] = address_entry(s, &p->sockets[i]);
		check_socket_is_not_ours(c, ours, ours_count, entries[i]);
	}
	refuse_repeats(c, entries, p->socket_count, "socket");
	free(entries);
	return 0;
}

static size_t count_addresses(const struct conf *c)
{
	size_t count = 0;

	for (size_t i = 0; i < c->listen_count; i++)
		count += c->listens[i].address_count;
	return count;
}

static int check_addresses(struct check *c)
{
	struct entry *ours = calloc(count_addresses(c->conf) + 1, sizeof(*ours));
	size_t count = 0;
	int err = 0;

	if (!ours)
		return -ENOMEM;
	for (size_t i = 0; i < c->sections->count; i++) {
		const struct section *s = &c->sections->list[i];
		const struct conf_listen *l = s->kind == SECTION_LISTEN ? &c->conf->listens[s->index] : NULL;

		for (size_t j = 0; l && j < l->address_count; j++)
			ours[count++] = address_entry(s, &l->addresses[j]);
	}
	refuse_repeats(c, ours, count, "address");
	for (size_t i = 0; i < c->sections->count && err == 0; i++)
		if (c->sections->list[i].kind == SECTION_POOL)
			err = check_pool_sockets(c, ours, count, &c->sections->list[i]);
	free(ours);
	return err;
}

/* What must be there */

static void check_there(struct check *c, enum option_section kind, size_t count, const char *example)
{
	struct place where = { 1, slice_str(section_kind(kind)), NOTHING };

	if (count == 0)
		errors_add(c->errors, where, FOUND("no such section"), NOTHING, "at least one %s, such as %s",
		    section_form(kind), example);
}

static void check_said(struct check *c, const struct section *s, const char *option, const char *expected)
{
	if (!section_said(s, option))
		errors_add(c->errors, place_of(s, option), FOUND("nothing"), NOTHING, "%s", expected);
}

/* TLS */

/* What the sections of one listener must agree on; the first of them decides. */
static const char *const of_the_listener[] = { "profile", "ciphers", "curves", "client_ca", "client_verify", "ticket_key_file",
	"session_tickets", "session_cache", "session_timeout", NULL };

static const struct section *tls_section(const struct check *c, struct slice name)
{
	for (size_t i = 0; i < c->sections->count; i++)
		if (c->sections->list[i].kind == SECTION_TLS && slice_eq(c->sections->list[i].name, name))
			return &c->sections->list[i];
	return NULL;
}

static void refuse_tls(struct check *c, const struct section *s, const struct conf_word *w)
{
	struct nearest n = { .word = slice_str(w->text) };

	for (size_t i = 0; i < c->conf->tls_count; i++)
		nearest_offer(&n, slice_str(c->conf->tls[i].name));
	errors_add(c->errors, (struct place){ w->line, s->title, SLICE("tls") }, FOUND_QUOTED(slice_str(w->text)), n.best,
	    "the name of a [tls NAME]");
}

static bool same_value(const struct option *o, const struct conf_tls *a, const struct conf_tls *b)
{
	const char *x = (const char *)a + o->offset, *y = (const char *)b + o->offset;
	char *text[2];

	switch (o->type) {
	case OPTION_PATH:
	case OPTION_TOKENS:
		memcpy(&text[0], x, sizeof(text[0]));
		memcpy(&text[1], y, sizeof(text[1]));
		return slice_eq(slice_str(text[0]), slice_str(text[1]));
	case OPTION_PATHS:
		if (a->ticket_key_file_count != b->ticket_key_file_count)
			return false;
		for (size_t i = 0; i < a->ticket_key_file_count; i++)
			if (strcmp(a->ticket_key_files[i].text, b->ticket_key_files[i].text) != 0)
				return false;
		return true;
	case OPTION_BOOL:
		return memcmp(x, y, sizeof(bool)) == 0;
	case OPTION_TIME:
		return memcmp(x, y, sizeof(uint64_t)) == 0;
	default:
		return memcmp(x, y, sizeof(unsigned)) == 0;
	}
}

/* A name that asks for client certificates beside one that does not could be reached through the other's door. */
static void check_agreement(struct check *c, const struct section *first, const struct section *s)
{
	const struct conf_tls *a = &c->conf->tls[first->index], *b = &c->conf->tls[s->index];

	for (size_t i = 0; of_the_listener[i]; i++) {
		const char *name = of_the_listener[i];

		if (section_said(s, name) && !same_value(option_find(SECTION_TLS, slice_str(name)), a, b))
			errors_add(c->errors, place_of(s, name), FOUND("another value"), NOTHING,
			    "what the listener's first, [tls NAME] in line %u, has", place_of(first, NULL).line);
	}
}

static void check_listen_tls(struct check *c, const struct section *s)
{
	const struct conf_listen *l = &c->conf->listens[s->index];
	const struct section *first = NULL;

	for (size_t i = 0; i < l->tls_count; i++) {
		const struct section *of = tls_section(c, slice_str(l->tls[i].text));

		if (!of)
			refuse_tls(c, s, &l->tls[i]);
		else if (first)
			check_agreement(c, first, of);
		if (i == 0)
			first = of;
	}
}

static void check_tls(struct check *c, const struct section *s)
{
	const struct conf_tls *t = &c->conf->tls[s->index];

	check_said(
	    c, s, "certificate", "the file with the certificate, such as /etc/letsencrypt/live/example.org/fullchain.pem");
	check_said(c, s, "key", "the file with its key, such as /etc/letsencrypt/live/example.org/privkey.pem");
	if (t->client_verify != CLIENT_VERIFY_OFF && !t->client_ca)
		check_said(c, s, "client_ca", "the authorities of clients' certificates, with client_verify");
	if (t->client_ca && t->client_verify == CLIENT_VERIFY_OFF)
		errors_add(c->errors, place_of(s, "client_ca"), FOUND("client_ca alone"), NOTHING,
		    "client_verify = optional or require with it");
	if (t->profile == TLS_PROFILE_MODERN && t->ciphers)
		errors_add(c->errors, place_of(s, "ciphers"), FOUND("ciphers"), NOTHING,
		    "none with profile = modern: TLS 1.3 has ciphers of its own");
}

/* Pools */

static void refuse_with(struct check *c, const struct section *s, const char *const *options, const char *other)
{
	for (size_t i = 0; options[i]; i++)
		if (section_said(s, options[i]))
			errors_add(c->errors, place_of(s, options[i]), FOUND_QUOTED(slice_str(options[i])), NOTHING,
			    "no %s in a pool with %s (line %u)", options[i], other, section_said(s, other));
}

static void check_pool_kind(struct check *c, const struct section *s)
{
	static const char *const with_socket_only[] = { "slots", "keepalive", "keepalive_idle", "replay_unread",
		"require_length", NULL };
	static const char *const with_app_only[] = { "processes", "threads", "processes_min", "scale_up_delay",
		"scale_down_after", "directory", "virtualenv", "user", "group", "umask", "niceness", "locale", "environment",
		"environment_file", "preload", "preload_request", "health_path", "start_timeout", "restart_on_change",
		"max_requests", "max_memory", "replay_max", "quarantine_dir", "quarantine_limit", NULL };
	unsigned socket = section_said(s, "socket"), app = section_said(s, "app");

	if (socket && app) {
		errors_add(c->errors, place_of(s, socket > app ? "socket" : "app"), FOUND("both socket and app"), NOTHING,
		    "one of the two: socket is in line %u, app in line %u", socket, app);
	} else if (socket) {
		check_said(c, s, "slots", "a number of slots: how many requests each socket's server works on at a time");
		refuse_with(c, s, with_app_only, "socket");
	} else if (app) {
		refuse_with(c, s, with_socket_only, "app");
	} else {
		errors_add(c->errors, place_of(s, NULL), FOUND("neither socket nor app"), NOTHING,
		    "one of the two: who serves this pool");
	}
}

static void check_pool_app(struct check *c, const struct section *s)
{
	const struct conf_pool *p = &c->conf->pools[s->index];
	char found[32];

	if (p->virtualenv && p->app != APP_WSGI)
		errors_add(c->errors, place_of(s, "virtualenv"), FOUND("virtualenv"), NOTHING,
		    "no virtualenv in a pool whose app (line %u) is not wsgi:MODULE", section_said(s, "app"));
	if (p->processes_min > p->processes) {
		snprintf(found, sizeof(found), "%u", p->processes_min);
		errors_add(c->errors, place_of(s, "processes_min"), FOUND_QUOTED(slice_str(found)), NOTHING,
		    "at most the pool's %u processes", p->processes);
	}
}

static uint64_t all_slots(const struct conf_pool *p)
{
	return p->app != APP_NONE ? (uint64_t)p->processes * p->threads : (uint64_t)p->slots * p->socket_count;
}

static void check_pool_slots(struct check *c, const struct section *s)
{
	const struct conf_pool *p = &c->conf->pools[s->index];
	uint64_t slots = all_slots(p);
	struct place where = place_of(s, p->app != APP_NONE ? "processes" : "slots");
	char found[32];

	if (slots > CONF_POOL_SLOTS_MAX) {
		snprintf(found, sizeof(found), "%" PRIu64 " slots", slots);
		errors_add(c->errors, where, (struct found){ slice_str(found), false }, NOTHING, "at most %d in one pool",
		    CONF_POOL_SLOTS_MAX);
	}
	if (slots > 0 && p->streams > slots) {
		snprintf(found, sizeof(found), "%u", p->streams);
		errors_add(c->errors, place_of(s, "streams"), FOUND_QUOTED(slice_str(found)), NOTHING,
		    "at most the pool's %" PRIu64 " slots", slots);
	}
}

static void check_pool_replay(struct check *c, const struct section *s)
{
	const struct conf_pool *p = &c->conf->pools[s->index];

	for (size_t i = 0; p->replay_unread && i < p->socket_count; i++)
		if (p->sockets[i].addr.any.sa_family != AF_UNIX)
			errors_add(c->errors, (struct place){ p->sockets[i].line, s->title, SLICE("socket") },
			    FOUND_QUOTED(slice_str(p->sockets[i].text)), NOTHING,
			    "a Unix socket with replay_unread = on (line %u): TCP does not show what was read",
			    section_said(s, "replay_unread"));
}

/* Routes */

static const struct conf_pool *pool_named(const struct conf *c, struct slice name)
{
	for (size_t i = 0; i < c->pool_count; i++)
		if (slice_eq(name, slice_str(c->pools[i].name)))
			return &c->pools[i];
	return NULL;
}

static void refuse_pool(struct check *c, const struct section *s, struct slice name)
{
	struct nearest n = { .word = name };

	for (size_t i = 0; i < c->conf->pool_count; i++)
		nearest_offer(&n, slice_str(c->conf->pools[i].name));
	errors_add(c->errors, place_of(s, "pool"), FOUND_QUOTED(name), n.best, "the name of a [pool NAME]");
}

/* Whole segments of the route's path. */
static bool is_mounted(const struct conf_route *r)
{
	size_t len = strlen(r->mount);

	return r->path && len > 1 && r->mount[len - 1] != '/' && strncmp(r->path, r->mount, len) == 0 &&
	       (r->path[len] == '/' || r->path[len] == '\0');
}

static void check_mount(struct check *c, const struct section *s, const struct conf_route *r)
{
	if (!r->mount)
		return;
	if (r->pool && r->pool->app == APP_NONE)
		errors_add(c->errors, place_of(s, "mount"), FOUND("mount"), NOTHING,
		    "a pool with app: what others' servers are mounted at, they are told by their own configuration");
	if (r->path && !is_mounted(r))
		errors_add(c->errors, place_of(s, "mount"), FOUND_QUOTED(slice_str(r->mount)), NOTHING,
		    "the route's path%s%s, or the first segments of it", *r->path ? " " : " (which this one does not have)",
		    r->path);
}

static void check_route(struct check *c, const struct section *s)
{
	struct conf_route *r = &c->conf->routes[s->index];

	check_said(c, s, "pool", "the name of the [pool NAME] that serves it");
	if (!r->pool_name)
		return;
	r->pool = pool_named(c->conf, slice_str(r->pool_name));
	if (!r->pool)
		refuse_pool(c, s, slice_str(r->pool_name));
	check_mount(c, s, r);
}

static void check_proxy_protocol(struct check *c, const struct section *s)
{
	if (c->conf->listens[s->index].proxy_protocol && c->conf->daemon.trusted_count == 0)
		errors_add(c->errors, place_of(s, "proxy_protocol"), FOUND_QUOTED(SLICE("on")), NOTHING,
		    "trusted in [forebay] with it: the proxies whose word about their clients counts");
}

static void check_door(struct check *c, const struct section *s)
{
	const struct conf_listen *l = &c->conf->listens[s->index];

	if (l->redirect_https && l->tls_count > 0)
		errors_add(c->errors, place_of(s, "redirect_https"), FOUND_QUOTED(SLICE("on")), NOTHING,
		    "a listener without tls (line %u): there it is https already", section_said(s, "tls"));
	if (!l->redirect_https && section_said(s, "redirect_https_port"))
		errors_add(c->errors, place_of(s, "redirect_https_port"), FOUND("redirect_https_port"), NOTHING,
		    "redirect_https = on with it");
	if (l->hsts_ms > 0 && l->tls_count == 0)
		errors_add(c->errors, place_of(s, "hsts"), FOUND("hsts"), NOTHING,
		    "a listener with tls: browsers take no such word without (RFC 6797, 8.1)");
}

static void check_section(struct check *c, const struct section *s)
{
	switch (s->kind) {
	case SECTION_LISTEN:
		check_said(c, s, "address", "at least one address and port such as 127.0.0.1:8000");
		check_listen_tls(c, s);
		check_door(c, s);
		check_proxy_protocol(c, s);
		break;
	case SECTION_TLS:
		check_tls(c, s);
		break;
	case SECTION_POOL:
		check_pool_kind(c, s);
		check_pool_app(c, s);
		check_pool_slots(c, s);
		check_pool_replay(c, s);
		break;
	case SECTION_ROUTE:
		check_route(c, s);
		break;
	case SECTION_FOREBAY:
	case SECTION_COUNT:
		break;
	}
}

int check_conf(struct conf *conf, const struct sections *sections, struct errors *errors)
{
	struct check c = { conf, sections, errors };
	int err = 0;

	check_there(&c, SECTION_LISTEN, conf->listen_count, "[listen http] with address = 127.0.0.1:8000");
	check_there(&c, SECTION_POOL, conf->pool_count, "[pool main] with app = demo");
	check_there(&c, SECTION_ROUTE, conf->route_count, "[route *] with pool = main");
	for (size_t i = 0; i < sections->count; i++)
		check_section(&c, &sections->list[i]);
	for (int kind = 0; kind < SECTION_COUNT && err == 0; kind++)
		err = check_sections_unique(&c, (enum option_section)kind);
	return err < 0 ? err : check_addresses(&c);
}
