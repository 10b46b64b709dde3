#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "proxy/serve/route.h"

#define ROUTES_MAX 2000

static struct conf_route routes[ROUTES_MAX];

/* NULL if the table was refused. */
static struct route_table *table(const char *const (*patterns)[2], size_t count)
{
	struct conf conf = { .routes = routes, .route_count = count };
	struct route_table *t = NULL;

	for (size_t i = 0; i < count; i++)
		routes[i] = (struct conf_route){ .host = (char *)patterns[i][0], .path = (char *)patterns[i][1] };
	if (route_table_new(&conf, &t) != 0)
		return NULL;
	return t;
}

/* The number of the route, -1: none, -2: it escapes. */
static int find(const struct route_table *t, struct slice host, struct slice path)
{
	const struct conf_route *r = NULL;

	switch (route_find(t, host, path, &r)) {
	case ROUTE_FOUND:
		return (int)(r - routes);
	case ROUTE_NONE:
		assert_null(r);
		return -1;
	case ROUTE_ESCAPES:
		assert_null(r);
		return -2;
	}
	return -3;
}

struct lookup {
	const char *host, *path;
	int route;
};

static void check(const struct route_table *t, const struct lookup *cases, size_t count)
{
	assert_non_null(t);
	for (size_t i = 0; i < count; i++) {
		int got = find(t, slice_str(cases[i].host), slice_str(cases[i].path));

		if (got != cases[i].route)
			fail_msg("row %zu: %s%s goes to %d, not %d", i, cases[i].host, cases[i].path, got, cases[i].route);
	}
}

static void hosts_are_exact_then_the_longest_wildcard_then_any(void **state UNUSED)
{
	static const char *const patterns[][2] = {
		{ "example.org", "" },
		{ "*.example.org", "" },
		{ "*.deep.example.org", "" },
		{ "*", "" },
		{ "-odd.example", "" }, /* sorts before a dot */
		{ "[2001:db8::1]", "" },
		{ "127.0.0.1", "" },
	};
	static const struct lookup cases[] = {
		{ "example.org", "/", 0 },
		{ "EXAMPLE.Org", "/", 0 },
		{ "example.org.", "/", 0 },
		{ "www.example.org", "/", 1 },
		{ "a.b.example.org", "/", 1 },
		{ "deep.example.org", "/", 1 }, /* a wildcard does not stand for nothing */
		{ "x.deep.example.org", "/", 2 },
		{ "x.y.Deep.example.org", "/", 2 },
		{ "notexample.org", "/", 3 },
		{ ".example.org", "/", 3 },
		{ "org", "/", 3 },
		{ "", "/", 3 },
		{ ".", "/", 3 },
		{ "-odd.example", "/", 4 },
		{ "[2001:DB8::1]", "/", 5 },
		{ "127.0.0.1", "/", 6 },
		{ "example.org.evil.test", "/", 3 },
	};
	struct route_table *t = table(patterns, ARRAY_LEN(patterns));

	check(t, cases, ARRAY_LEN(cases));
	route_table_free(&t);
	assert_null(t);
}

static void paths_are_the_longest_prefix_by_whole_segments(void **state UNUSED)
{
	static const char *const patterns[][2] = {
		{ "a", "/blog" },
		{ "a", "" },
		{ "a", "/blog/admin/x" },
		{ "a", "/blog!" }, /* sorts between /blog and /blog/ by bytes */
		{ "a", "/blogs/old" },
		{ "a", "/Blog" },
		{ "a", "/blog/admin" },
	};
	static const struct lookup cases[] = {
		{ "a", "/", 1 },
		{ "a", "", 1 },
		{ "a", "*", 1 },
		{ "a", "/blog", 0 },
		{ "a", "/blog/", 0 },
		{ "a", "/blog/x", 0 },
		{ "a", "/blog//", 0 },
		{ "a", "/blogs", 1 },
		{ "a", "/blogs/old", 4 },
		{ "a", "/blogs/older", 1 },
		{ "a", "/blog!", 3 },
		{ "a", "/blog!/x", 3 },
		{ "a", "/blog!x", 1 },
		{ "a", "/Blog", 5 },
		{ "a", "/blog/admin", 6 },
		{ "a", "/blog/admin/y", 6 },
		{ "a", "/blog/admin/x/y", 2 },
		{ "a", "/blog/admins", 0 },
		{ "a", "/blog/z/admin", 0 },
		{ "a", "//blog", 1 }, /* an empty segment is one */
		{ "b", "/blog", -1 },
	};
	struct route_table *t = table(patterns, ARRAY_LEN(patterns));

	check(t, cases, ARRAY_LEN(cases));
	route_table_free(&t);
}

static void a_host_without_a_fitting_path_leaves_it_to_the_next(void **state UNUSED)
{
	static const char *const patterns[][2] = {
		{ "www.example.org", "/a" },
		{ "*.example.org", "/b" },
		{ "*.org", "/c" },
		{ "*", "/d" },
	};
	static const struct lookup cases[] = {
		{ "www.example.org", "/a", 0 },
		{ "www.example.org", "/b", 1 },
		{ "www.example.org", "/c", 2 },
		{ "www.example.org", "/d", 3 },
		{ "www.example.org", "/e", -1 },
		{ "www.example.org", "*", -1 },
		{ "x.test", "/a", -1 },
	};
	struct route_table *t = table(patterns, ARRAY_LEN(patterns));

	check(t, cases, ARRAY_LEN(cases));
	route_table_free(&t);
}

/* RFC 3986, 5.2.4 and 6.2.2; what differs is ROUTE_ESCAPES, where the RFC would stay at the root. */
static void a_path_is_compared_in_its_normal_form(void **state UNUSED)
{
	static const char *const patterns[][2] = {
		{ "*", "" },
		{ "*", "/admin" },
		{ "*", "/a%2fb" },
		{ "*", "/%7Eme" },
	};
	static const struct lookup cases[] = {
		{ "h", "/%61dmin", 1 }, { "h", "/%61%64%6D%69%6e/x", 1 }, { "h", "/x/../admin", 1 },
		{ "h", "/x/%2e%2e/admin", 1 }, { "h", "/x/.%2E/./admin", 1 }, { "h", "/./admin/.", 1 }, { "h", "/admin/..", 0 },
		{ "h", "/admin/../", 0 }, { "h", "/admin/%2E%2e/x", 0 }, { "h", "/admin/x/..", 1 },
		{ "h", "/x/y/../../admin", 1 }, { "h", "/admin//..", 1 }, /* it is the empty segment that goes */
		{ "h", "/...", 0 }, { "h", "/admin/...", 1 }, { "h", "/admin/.../..", 1 }, { "h", "/..admin", 0 },
		{ "h", "/..", -2 }, { "h", "/../admin", -2 }, { "h", "/%2e%2e/admin", -2 }, { "h", "/a/../../admin", -2 },
		{ "h", "/a/../..", -2 }, { "h", "/admin/../x/../..", -2 },
		{ "h", "/a%2Fb", 2 }, /* no slash: another name for itself only */
		{ "h", "/a/b", 0 }, { "h", "/x%2F..%2Fadmin", 0 }, { "h", "/..%2Fadmin", 0 }, { "h", "/admin%2F..", 0 },
		{ "h", "/~me", 3 }, { "h", "/%7eme/x", 3 }, { "h", "/%", 0 }, { "h", "/%6", 0 }, { "h", "/%61dmi%6", 0 },
		{ "h", "/%zzadmin", 0 }, { "h", "/%00admin", 0 }, { "h", "/%2561dmin", 0 }, /* decoded once */
	};
	struct route_table *t = table(patterns, ARRAY_LEN(patterns));

	check(t, cases, ARRAY_LEN(cases));
	route_table_free(&t);
}

/* n times `unit` behind `head`, then `tail`. */
static char *path_of(const char *head, const char *unit, size_t n, const char *tail)
{
	char *path = malloc(strlen(head) + n * strlen(unit) + strlen(tail) + 1);
	char *at;

	assert_non_null(path);
	at = stpcpy(path, head);
	for (size_t i = 0; i < n; i++)
		at = stpcpy(at, unit);
	stpcpy(at, tail);
	return path;
}

static void paths_of_any_length_are_compared(void **state UNUSED)
{
	static const struct {
		const char *head, *unit;
		size_t n;
		const char *tail;
		int route;
	} cases[] = {
		{ "/admin", "/x", 100000, "", 1 },
		{ "", "/x", 100000, "/admin", 0 },
		{ "/admin/", "x", 100000, "", 1 },
		{ "/admin", "x", 100000, "", 0 },
		{ "", "/x/..", 100000, "/admin", 1 },
		{ "/admin/y/z", "/%78", 100000, "", 1 },
		{ "/admin", "/..", 100000, "", -2 },
		{ "/", "%61", 4095, "", 2 }, /* the longest path that a route can have */
		{ "/", "%61", 4095, "/x", 2 },
		{ "/", "a", 4096, "", 0 },
		{ "/", "%2f", 100000, "", 0 },
	};
	char *longest = path_of("/", "a", 4095, "");
	const char *const patterns[][2] = { { "*", "" }, { "*", "/admin" }, { "*", longest } };
	struct route_table *t = table(patterns, ARRAY_LEN(patterns));

	assert_non_null(t);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *path = path_of(cases[i].head, cases[i].unit, cases[i].n, cases[i].tail);
		int got = find(t, SLICE("h"), slice_str(path));

		free(path);
		if (got != cases[i].route)
			fail_msg("row %zu: %d", i, got);
	}
	route_table_free(&t);
	free(longest);
}

/* Segments that do not fit are counted, and gone back from, too. */
static void one_may_go_deep_and_come_back(void **state UNUSED)
{
	static const char *const patterns[][2] = { { "*", "" }, { "*", "/a/b" } };
	struct route_table *t = table(patterns, ARRAY_LEN(patterns));
	size_t depth = 5000;
	char *down = path_of("/a", "/long-segment", depth, "");

	for (size_t up = depth - 1; up <= depth + 2; up++) {
		char *path = path_of(down, "/..", up, "/b");
		int want = up == depth ? 1 : up == depth + 2 ? -2 : 0;

		if (find(t, SLICE("h"), slice_str(path)) != want)
			fail_msg("%zu up", up);
		free(path);
	}
	free(down);
	route_table_free(&t);
}

static void hosts_of_any_length_are_compared(void **state UNUSED)
{
	static const char *const patterns[][2] = { { "*", "" }, { "*.a", "" } };
	struct route_table *t = table(patterns, ARRAY_LEN(patterns));
	char *host = path_of("", "a.", 127, "a");

	assert_int_equal(find(t, slice_str(host), SLICE("/")), 1); /* 255 */
	free(host);
	host = path_of("", "a.", 50000, "a");
	assert_int_equal(find(t, slice_str(host), SLICE("/")), 0);
	free(host);
	route_table_free(&t);
}

static void of_two_that_mean_the_same_the_first_counts(void **state UNUSED)
{
	static const char *const patterns[][2] = { { "a", "/b%6c" }, { "a", "/bl" }, { "a", "/%62l" } };
	struct route_table *t = table(patterns, ARRAY_LEN(patterns));

	assert_int_equal(find(t, SLICE("a"), SLICE("/bl/x")), 0);
	route_table_free(&t);
}

static void a_route_that_escapes_is_refused(void **state UNUSED)
{
	static const char *const patterns[][2] = { { "a", "" }, { "a", "/%2e%2e" } };

	assert_null(table(patterns, ARRAY_LEN(patterns)));
}

static void no_route_at_all_finds_none(void **state UNUSED)
{
	struct route_table *t = table(NULL, 0);

	assert_non_null(t);
	assert_int_equal(find(t, SLICE("a"), SLICE("/")), -1);
	route_table_free(&t);
}

/* What the search says of many routes is what looking at each of them says. */
static void many_routes_are_found_as_one_by_one(void **state UNUSED)
{
	static char paths[ROUTES_MAX][32];
	static const char *patterns[ROUTES_MAX][2];
	static const char *const segments[] = { "/a", "/b", "/a-", "/ab", "/a!" };
	uint32_t random = 1;
	struct route_table *t;

	for (size_t i = 0; i < ROUTES_MAX; i++) {
		paths[i][0] = '\0';
		for (unsigned n = i < ROUTES_MAX / 2 ? 1 + i % 4 : 6; n > 0; n--) {
			random = random * 1664525 + 1013904223;
			strcat(paths[i], segments[(random >> 16) % ARRAY_LEN(segments)]);
		}
		patterns[i][0] = i % 2 ? "x.y" : "*";
		patterns[i][1] = paths[i];
	}
	t = table(patterns, ROUTES_MAX / 2);
	assert_non_null(t);
	for (size_t i = ROUTES_MAX / 2; i < ROUTES_MAX; i++) {
		int best = -1, got = find(t, SLICE("x.y"), slice_str(paths[i]));
		size_t best_len = 0;

		for (size_t j = 0; j < ROUTES_MAX / 2; j++) {
			size_t len = strlen(paths[j]);
			bool fits = strncmp(paths[i], paths[j], len) == 0 && (paths[i][len] == '/' || paths[i][len] == '\0');

			/* an exact host's before any, then the longest, then the first */
			if (fits && len + (j % 2) * 1000 > best_len) {
				best_len = len + (j % 2) * 1000;
				best = (int)j;
			}
		}
		if (got != best)
			fail_msg("%s: %d, not %d", paths[i], got, best);
	}
	route_table_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hosts_are_exact_then_the_longest_wildcard_then_any),
		cmocka_unit_test(paths_are_the_longest_prefix_by_whole_segments),
		cmocka_unit_test(a_host_without_a_fitting_path_leaves_it_to_the_next),
		cmocka_unit_test(a_path_is_compared_in_its_normal_form),
		cmocka_unit_test(paths_of_any_length_are_compared),
		cmocka_unit_test(one_may_go_deep_and_come_back),
		cmocka_unit_test(hosts_of_any_length_are_compared),
		cmocka_unit_test(of_two_that_mean_the_same_the_first_counts),
		cmocka_unit_test(a_route_that_escapes_is_refused),
		cmocka_unit_test(no_route_at_all_finds_none),
		cmocka_unit_test(many_routes_are_found_as_one_by_one),
	};

	return cmocka_run_group_tests_name("route", tests, NULL, NULL);
}
