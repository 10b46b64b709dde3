/*
 * proxy_header: the PROXY protocol's header, version 1 (text) and 2 (binary): who the client of a proxy before us is.
 * Pure.
 */
#ifndef FOREBAY_PROXY_HEADER_H
#define FOREBAY_PROXY_HEADER_H

#include "core/slice.h"
#include "proxy/client/arrival.h"

#define PROXY_HEADER_MAX 4096 /* bytes; of version 2 with what a proxy may add, by far more than any does */

enum proxy_result { PROXY_MORE, PROXY_OK, PROXY_BAD };

struct proxy_header {
	size_t len;      /* bytes of it; what comes behind is the client's */
	bool has_client; /* false: the proxy speaks for itself (LOCAL), or does not know (UNKNOWN, AF_UNSPEC, AF_UNIX) */
	union peer client;
};

/*
 * What stands at the beginning of `in`, which may be cut anywhere: PROXY_MORE, at less than PROXY_HEADER_MAX bytes only. PROXY_BAD: *ret_why, a
 * literal, says why.
 */
enum proxy_result proxy_header_parse(struct slice in, struct proxy_header *ret, const char **ret_why);

#endif
