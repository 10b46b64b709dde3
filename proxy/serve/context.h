/*
 * context: what one event thread serves with. Plain data, made by server, read by everything that handles its clients.
 * Owns: nothing; server does.
 */
#ifndef FOREBAY_PROXY_CONTEXT_H
#define FOREBAY_PROXY_CONTEXT_H

#include "conf/conf.h"
#include "core/date.h"
#include "core/loop.h"
#include "proxy/observe/access_log.h"
#include "proxy/serve/request_id.h"
#include "proxy/serve/route.h"
#include "upstream/pool.h"

struct guard;
struct crowd;
struct tls_shop;
struct poison;

/* Connections that failed before they spoke HTTP, for the log. */
struct door_floods {
	uint64_t since_ms;
	unsigned count;
};

struct context {
	struct loop *loop;
	struct conf *conf;
	const struct route_table *routes;
	struct pool **pools;       /* by conf_pool.index */
	struct access_log *access; /* NULL: off */
	struct guard *guard;
	struct tls_shop *tls; /* what listeners speak TLS with */
	struct crowd *crowd;
	struct request_ids ids;
	struct date date;
	/* A request that is to be kept for study; takes *p. NULL: nobody keeps it. */
	void (*poison)(void *ctx, struct poison **p);
	void *poison_ctx;
	bool draining;
	struct door_floods floods;
	/* A connection of this thread was closed: there may be a free descriptor, and a drain may be over. */
	void (*left)(void *ctx);
	void *left_ctx;
};

#endif
