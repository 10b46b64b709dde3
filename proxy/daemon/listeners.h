/*
 * listeners: the sockets that clients connect to, bound once for the master's life.
 * Owns:   the sockets, and the files of the Unix ones.
 * Never:  accepts.
 * Thread: the master's.
 *
 * TCP: a probe without SO_REUSEPORT finds out whether the address is free, then each thread gets a socket of its own. Unix sockets, and inherited
 * ones that cannot have siblings, are one socket shared by the threads.
 */
#ifndef FOREBAY_PROXY_LISTENERS_H
#define FOREBAY_PROXY_LISTENERS_H

#include "conf/conf.h"
#include "proxy/daemon/inherited.h"

/* The window that is offered to a client at most: what it may have sent and we not read. */
#define LISTENERS_WINDOW_BYTES (1 << 20)

struct listener {
	int fd;
	unsigned listen, address, thread; /* indexes: conf's listens, their addresses, the front's threads */
};

struct listeners {
	struct listener *all;
	size_t count;
	struct listener_file *files;
	size_t file_count;
};

/*
 * Binds everything for `threads` threads; takes from `in` what belongs to conf. Every error is appended to `errors`, one a line.
 * 0, or -errno of the last one with nothing bound.
 */
struct buf;
MUST_USE int listeners_bind(
    const struct conf *conf, unsigned threads, struct inherited *in, struct buf *errors, struct listeners *ret);

/* Closes all and removes the files that are still ours. */
void listeners_done(struct listeners *l);

#endif
