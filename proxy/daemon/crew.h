/*
 * crew: the event threads of a front, and what they share: routes, pools, the spool, the budget, the guard.
 * Owns:   all of these. Borrows configuration and logger.
 * Never:  talks to the master.
 * Thread: the front's main thread; what it wants of the others goes by mail.
 */
#ifndef FOREBAY_PROXY_CREW_H
#define FOREBAY_PROXY_CREW_H

#include <event2/event.h>

#include "conf/conf.h"
#include "proxy/daemon/channel.h"
#include "proxy/observe/logger.h"

struct crew;
struct poison;

struct crew_options {
	struct event_base *base; /* the main thread's */
	struct conf *conf;
	struct logger *logger;
	int spool_dir;
	unsigned threads;
	unsigned connections;
	unsigned own_files;
	uint64_t memory_bytes;
	void (*drained)(void *ctx);                   /* on the main thread, once after crew_drain: nothing is left */
	void (*poison)(void *ctx, struct poison **p); /* on the main thread: a request that is to be kept; takes *p */
	void *ctx;
};

/* 0, or -errno with *ret_what a literal that says what could not be made. */
MUST_USE int crew_new(const struct crew_options *o, struct crew **ret, const char **ret_what);

/* Before crew_start: thread `thread` accepts on *fd. Takes *fd, also on failure. -EINVAL: there is no such thread, listener or address. */
MUST_USE int crew_listen(struct crew *c, unsigned thread, size_t listen, size_t address, int *fd);

/* Certificates and keys as the master sends them; those before stay after an error, which is a line in `errors` or none. */
struct buf;
MUST_USE int crew_tls(struct crew *c, struct slice bytes, struct buf *errors);

MUST_USE int crew_start(struct crew *c);

/* A pool's started page, once, before its slots. Borrows fd for the call. -EINVAL: no such pool, or it has one, or the file is too small. */
MUST_USE int crew_page(struct crew *c, size_t pool, unsigned slots, int fd);

/* An own worker's slot. Takes *fd, also on failure (the worker then asks again). -EINVAL: no such slot. */
MUST_USE int crew_slot(struct crew *c, size_t pool, unsigned slot, pid_t pid, int *fd);

/* A slot of an own worker whose request took too long, once for each; fills a CHANNEL_REPLACE. False: no more. */
bool crew_next_given_up(struct crew *c, struct channel_message *ret);

/* True if a pool has a variable number of workers. */
bool crew_has_load(const struct crew *c);

/*
 * Fills a CHANNEL_LOAD for the first pool from *pool on that has a variable number of workers and something to say: all have, where `all` is true,
 * else those that have requests. *pool is where to look on. False: no more.
 */
bool crew_next_load(struct crew *c, size_t *pool, bool all, struct channel_message *ret);

void crew_drain(struct crew *c);

/* Fills a CHANNEL_TICK. */
void crew_figures(struct crew *c, struct channel_message *ret);

/* Cuts what clients still have and ends the threads. */
void crew_end(struct crew *c);

/* After crew_end: no request is left at a worker. Those that are hold what crew_free would free. */
bool crew_is_at_rest(const struct crew *c);

/*
 * After crew_end, if it is at rest: says in the log what was taken for clients and not given back, which is a mistake of our own. Returns how
 * many such things there are; 0: only crew_free is left to do.
 */
unsigned crew_account(struct crew *c);

/* After crew_end, if it is at rest. Takes a NULL. Sets *c to NULL. */
void crew_free(struct crew **c);

#endif
