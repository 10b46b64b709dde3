#include "proxy/serve/route.h"

#include <stdlib.h>

#define HOST_MAX       255  /* bytes; longer ones fit "*" only */
#define ROUTE_PATH_MAX 4096 /* bytes of a route's path, as conf/ allows */

/* One route. Those of one host lie together, sorted by path. */
struct entry {
	struct slice host; /* a wildcard's without "*", so with its leading dot; empty for "*" */
	char *path;        /* in normal form; owned */
	size_t path_len;
	const struct conf_route *route;
	const struct entry *parent; /* of the same host, the longest path that is a prefix of this one; or NULL */
};

/* Of one host: `count` entries from `first`. */
struct host {
	struct slice name;
	const struct entry *first;
	size_t count;
};

struct hosts {
	struct host *list; /* sorted by name */
	size_t count;
	size_t longest; /* name, bytes */
};

struct route_table {
	struct entry *entries;
	size_t count;
	struct host *host_list; /* what the three below point into */
	struct hosts exact, wild, any;
};

/* The normal form of a path. */

struct normal {
	char text[ROUTE_PATH_MAX + 1]; /* "/a/b": the first segments, as many as fit */
	size_t len;
	size_t more; /* segments behind these that did not fit: no route is long enough to see them */
};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 3986, 2.3. */
static bool is_unreserved(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("-._~", c));
}

/* Takes one character off a segment, 1 to 3 bytes long in normal form. */
static size_t take_char(struct slice *s, char ret[3])
{
	static const char hex[] = "0123456789ABCDEF";
	size_t used = 1, made = 1;

	ret[0] = s->ptr[0];
	if (s->ptr[0] == '%' && s->len >= 3 && hex_digit(s->ptr[1]) >= 0 && hex_digit(s->ptr[2]) >= 0) {
		int high = hex_digit(s->ptr[1]), low = hex_digit(s->ptr[2]);

		used = 3;
		if (is_unreserved(high * 16 + low)) {
			ret[0] = (char)(high * 16 + low);
		} else {
			ret[1] = hex[high];
			ret[2] = hex[low];
			made = 3;
		}
	}
	*s = slice_of(s->ptr + used, s->len - used);
	return made;
}

/* 1: ".", 2: "..", also in any encoding; else 0. */
static unsigned dot_segment(struct slice segment)
{
	char c[3];

	for (unsigned dots = 0; dots < 3; dots++) {
		if (segment.len == 0)
			return dots;
		if (take_char(&segment, c) != 1 || c[0] != '.')
			return 0;
	}
	return 0;
}

static void normal_push(struct normal *n, struct slice segment)
{
	size_t len = n->len;

	if (n->more > 0 || len == sizeof(n->text))
		goto full;
	n->text[len++] = '/';
	while (segment.len > 0) {
		char c[3];
		size_t made = take_char(&segment, c);

		if (made > sizeof(n->text) - len)
			goto full;
		memcpy(n->text + len, c, made);
		len += made;
	}
	n->len = len;
	return;
full:
	n->more++;
}

/* False: there is nothing to go back from. */
static bool normal_pop(struct normal *n)
{
	if (n->more > 0) {
		n->more--;
		return true;
	}
	if (n->len == 0)
		return false;
	while (n->text[--n->len] != '/')
		;
	return true;
}

/* Nothing is encoded, no segment begins with a dot, and it fits: as nearly all are. */
static bool is_normal(struct slice path)
{
	const char *at = path.ptr, *end = path.ptr + path.len;

	if (path.len == 0 || path.ptr[0] != '/' || path.len > ROUTE_PATH_MAX || memchr(path.ptr, '%', path.len))
		return false;
	while ((at = memchr(at, '.', (size_t)(end - at))) && at[-1] != '/')
		at++;
	return !at;
}

/* False: it leads out of the root. */
static bool normal_make(struct normal *n, struct slice path)
{
	bool more = true;
	struct slice segment;
	unsigned dots;

	n->len = 0;
	n->more = 0;
	if (path.len == 0 || path.ptr[0] != '/')
		return true;
	path = slice_of(path.ptr + 1, path.len - 1);
	while (more) {
		more = slice_cut(&path, '/', &segment);
		if (!more)
			segment = path;
		dots = dot_segment(segment);
		if (dots == 0)
			normal_push(n, segment);
		else if (dots == 2 && !normal_pop(n))
			return false;
		if (dots > 0 && !more)
			normal_push(n, SLICE("")); /* "/a/." is "/a/" (RFC 3986, 5.2.4) */
	}
	return true;
}

/* Paths. */

/* '/' before all others, so that what lies under a path follows it directly. */
static int path_byte(char c)
{
	return c == '/' ? 0 : (unsigned char)c + 1;
}

static int path_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t len = MIN(a_len, b_len), i = 0;

	while (i < len && a[i] == b[i])
		i++;
	if (i < len)
		return path_byte(a[i]) - path_byte(b[i]);
	return a_len < b_len ? -1 : a_len > b_len;
}

/* By whole segments. */
static bool is_path_prefix(const struct entry *e, const char *path, size_t len)
{
	return e->path_len <= len && memcmp(e->path, path, e->path_len) == 0 &&
	       (e->path_len == len || path[e->path_len] == '/');
}

/*
 * The last entry not behind `path` is the longest prefix itself or lies under it: from there it is up the parents.
 */
static const struct entry *path_find(const struct host *h, struct slice path)
{
	const struct entry *e;
	size_t low = 0, high = h->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		e = &h->first[mid];
		if (path_compare(e->path, e->path_len, path.ptr, path.len) <= 0)
			low = mid + 1;
		else
			high = mid;
	}
	e = low > 0 ? &h->first[low - 1] : NULL;
	while (e && !is_path_prefix(e, path.ptr, path.len))
		e = e->parent;
	return e;
}

/* Hosts. */

static int slice_compare(struct slice a, struct slice b)
{
	size_t len = MIN(a.len, b.len);
	int order = len > 0 ? memcmp(a.ptr, b.ptr, len) : 0;

	return order ? order : (a.len > b.len) - (a.len < b.len);
}

static const struct host *host_find(const struct hosts *hosts, struct slice name)
{
	size_t low = 0, high = hosts->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = slice_compare(name, hosts->list[mid].name);

		if (order == 0)
			return &hosts->list[mid];
		if (order < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

static const struct entry *find_in(const struct hosts *hosts, struct slice name, struct slice path)
{
	const struct host *h = host_find(hosts, name);

	return h ? path_find(h, path) : NULL;
}

/* Longest first. */
static const struct entry *find_wild(const struct route_table *t, struct slice name, struct slice path)
{
	const struct entry *e = NULL;
	size_t skip = name.len > t->wild.longest ? name.len - t->wild.longest : 0;

	for (size_t i = MAX(skip, 1u); i < name.len && !e; i++)
		if (name.ptr[i] == '.')
			e = find_in(&t->wild, slice_of(name.ptr + i, name.len - i), path);
	return e;
}

static void to_lower(struct slice from, char *to)
{
	for (size_t i = 0; i < from.len; i++)
		to[i] = from.ptr[i] >= 'A' && from.ptr[i] <= 'Z' ? (char)(from.ptr[i] | 0x20) : from.ptr[i];
}

enum route_result route_find(const struct route_table *t, struct slice host, struct slice path, const struct conf_route **ret)
{
	struct normal normal;
	char lower[HOST_MAX];
	struct slice name;
	const struct entry *e = NULL;

	if (!is_normal(path)) {
		if (!normal_make(&normal, path))
			return ROUTE_ESCAPES;
		path = slice_of(normal.text, normal.len);
	}
	if (host.len > 0 && host.ptr[host.len - 1] == '.')
		host.len--;
	if (host.len > 0 && host.len <= HOST_MAX) {
		to_lower(host, lower);
		name = slice_of(lower, host.len);
		e = find_in(&t->exact, name, path);
		if (!e)
			e = find_wild(t, name, path);
	}
	if (!e)
		e = find_in(&t->any, SLICE(""), path);
	if (!e)
		return ROUTE_NONE;
	*ret = e->route;
	return ROUTE_FOUND;
}

/* Compiling. */

static struct slice host_name(const char *pattern)
{
	return slice_str(pattern[0] == '*' ? pattern + 1 : pattern);
}

/* Told by the name: empty "*", a leading dot a wildcard, else exact. */
static struct hosts *hosts_of_kind(struct route_table *t, struct slice name)
{
	if (name.len == 0)
		return &t->any;
	return name.ptr[0] == '.' ? &t->wild : &t->exact;
}

static int kind_order(struct slice name)
{
	return name.len == 0 ? 0 : 1 + (name.ptr[0] == '.');
}

static int entry_make(struct entry *e, const struct conf_route *route)
{
	struct normal normal;

	if (!normal_make(&normal, slice_str(route->path)) || normal.more > 0)
		return -EINVAL;
	e->path = slice_dup(slice_of(normal.text, normal.len));
	if (!e->path)
		return -ENOMEM;
	e->path_len = normal.len;
	e->host = host_name(route->host);
	e->route = route;
	return 0;
}

/* By kind of host, host, path. Of two that say the same the first in the file comes last, which is the one that path_find takes. */
static int entry_compare(const void *x, const void *y)
{
	const struct entry *a = x, *b = y;
	int order = kind_order(a->host) - kind_order(b->host);

	if (!order)
		order = slice_compare(a->host, b->host);
	if (!order)
		order = path_compare(a->path, a->path_len, b->path, b->path_len);
	return order ? order : (a->route < b->route) - (a->route > b->route);
}

/* The nearest before it that is a prefix; its own parents' chain has it. */
static const struct entry *entry_parent(const struct host *h, size_t index)
{
	const struct entry *e = &h->first[index], *p = index > 0 ? e - 1 : NULL;

	while (p && !is_path_prefix(p, e->path, e->path_len))
		p = p->parent;
	return p;
}

static void hosts_add(struct route_table *t, struct host *h, const struct entry *e)
{
	struct hosts *hosts = hosts_of_kind(t, e->host);

	*h = (struct host){ .name = e->host, .first = e };
	if (hosts->count++ == 0)
		hosts->list = h;
	hosts->longest = MAX(hosts->longest, e->host.len);
}

/* The entries are sorted: each run of one host becomes a struct host, those of one kind lie together. */
static void hosts_make(struct route_table *t)
{
	struct host *h = t->host_list;

	for (size_t i = 0; i < t->count; i++) {
		struct entry *e = &t->entries[i];

		if (i > 0 && !slice_eq(e->host, e[-1].host))
			h++;
		if (i == 0 || !slice_eq(e->host, e[-1].host))
			hosts_add(t, h, e);
		h->count++;
		e->parent = entry_parent(h, h->count - 1);
	}
}

static int entries_make(struct route_table *t, const struct conf *c)
{
	int err = 0;

	t->entries = calloc(c->route_count + 1, sizeof(*t->entries));
	t->host_list = calloc(c->route_count + 1, sizeof(*t->host_list));
	if (!t->entries || !t->host_list)
		return -ENOMEM;
	for (; t->count < c->route_count && !err; t->count++)
		err = entry_make(&t->entries[t->count], &c->routes[t->count]);
	return err;
}

int route_table_new(const struct conf *c, struct route_table **ret)
{
	struct route_table *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	err = entries_make(t, c);
	if (err) {
		route_table_free(&t);
		return err;
	}
	qsort(t->entries, t->count, sizeof(*t->entries), entry_compare);
	hosts_make(t);
	*ret = t;
	return 0;
}

void route_table_free(struct route_table **table)
{
	struct route_table *t = *table;

	if (!t)
		return;
	for (size_t i = 0; t->entries && i < t->count; i++)
		free(t->entries[i].path);
	free(t->entries);
	free(t->host_list);
	free(t);
	*table = NULL;
}
