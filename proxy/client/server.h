/*
 * server: what one event thread serves with: its loop, the configuration's snapshot, routes, pools, logs; and its clients.
 * Owns:   the thread's listeners and client connections. Borrows the rest, which outlives it.
 * Thread: its loop's, but for server_new and server_free (before and after the loop runs).
 */
#ifndef FOREBAY_PROXY_SERVER_H
#define FOREBAY_PROXY_SERVER_H

#include "conf/conf.h"
#include "core/loop.h"
#include "proxy/observe/access_log.h"
#include "proxy/serve/route.h"
#include "upstream/pool.h"

struct server;
struct tls_shop;
struct poison;
struct guard; /* proxy/client/guard.h: connections of the whole front */

struct server_options {
	struct loop *loop;
	struct conf *conf;
	const struct route_table *routes;
	struct pool **pools;       /* by conf_pool.index */
	struct access_log *access; /* NULL: off */
	struct guard *guard;
	struct tls_shop *tls;
	uint64_t id_seed;                             /* random; request ids are made of it, the thread and a count */
	void (*poison)(void *ctx, struct poison **p); /* takes a request that is to be kept for study; NULL: nobody does */
	void *poison_ctx;
};

MUST_USE int server_new(const struct server_options *o, struct server **ret);
/* Closes what is still open. */
void server_free(struct server **s);

/* Accepts on *fd from now on. Takes it, also on failure. `listen` is one of conf's. */
MUST_USE int server_listen(struct server *s, const struct conf_listen *listen, const struct conf_address *address, int *fd);

/* Stops accepting, closes idle connections, ends each other after its response; `drained` is called once when nothing is left. */
void server_drain(struct server *s, void (*drained)(void *ctx), void *ctx);

/* Cuts all that is left. */
void server_cut(struct server *s);

/* Connections. */
unsigned server_clients(const struct server *s);

#endif
