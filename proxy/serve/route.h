/*
 * route: which [route HOST/PATH] a request belongs to. Compiled once per configuration.
 * Owns:   the compiled table. Borrows the conf and its routes.
 * Never:  allocates in a look-up; changes a path: what goes to the worker stays as it was received.
 * Thread: any, once made.
 *
 * Hosts: the exact name, then wildcards from the longest ("*.a.b" stands for one label or more before ".a.b"), then "*". Of one
 * host, the longest path that is a prefix by whole segments: "/blog" takes "/blog" and "/blog/x", not "/blogs". A host none of
 * whose paths fits does not end the search: the next less specific one is asked, so that `[route example.org/blog]` beside
 * `[route *]` leaves the rest of example.org to `*`.
 *
 * A path is compared in a normal form, since that is how an application will read it: dot segments removed and percent-encoded
 * unreserved characters decoded (RFC 3986, 6.2.2; these never change what a path means), hex digits in upper case. All other
 * encodings, "%2F" above all, and empty segments stay what they are.
 */
#ifndef FOREBAY_PROXY_ROUTE_H
#define FOREBAY_PROXY_ROUTE_H

#include "conf/conf.h"

struct route_table;

enum route_result {
	ROUTE_FOUND,
	ROUTE_NONE,    /* 404 */
	ROUTE_ESCAPES, /* dot segments lead out of the root: 400 */
};

/* 0, -ENOMEM, or -EINVAL if a route's own path leads out of the root. `c` is borrowed for the table's life. */
MUST_USE int route_table_new(const struct conf *c, struct route_table **ret);
void route_table_free(struct route_table **t);

/*
 * `host` is without port, in any case, a dot at its end does not count; empty: only "*" fits. `path` is without query; one that
 * does not begin with a slash (the "*" of OPTIONS) fits only routes without a path. *ret is set with ROUTE_FOUND only.
 */
MUST_USE enum route_result route_find(
    const struct route_table *t, struct slice host, struct slice path, const struct conf_route **ret);

#endif
