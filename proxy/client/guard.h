/*
 * guard: what all threads together let in: the number of connections, and how many from one address.
 * Owns:   two counts: an atomic and a sharded table of addresses.
 * Thread: any.
 */
#ifndef FOREBAY_PROXY_GUARD_H
#define FOREBAY_PROXY_GUARD_H

#include <stdatomic.h>
#include <sys/socket.h>

#include "core/base.h"

struct guard;

MUST_USE int guard_new(unsigned connections_max, struct guard **ret);
void guard_free(struct guard **g);

enum guard_answer { GUARD_OK, GUARD_NO_MEMORY, GUARD_ADDRESS_FULL };

/* One of connections_max, before accept(): who has none waits in the kernel's queue. False: there is none. */
MUST_USE bool guard_take_place(struct guard *g);
void guard_return_place(struct guard *g);

/*
 * Counts in who has a place; if the answer is not GUARD_OK, the place is returned. per_address 0: not limited and not counted by address. An IPv6 client is counted by its /64,
 * which is what one customer gets; a v4-mapped one as IPv4; a Unix-socket peer in the whole only.
 */
MUST_USE enum guard_answer guard_enter(struct guard *g, const struct sockaddr *peer, unsigned per_address);

/* The same arguments as the guard_enter that said OK. */
void guard_leave(struct guard *g, const struct sockaddr *peer, unsigned per_address);

unsigned guard_connections(const struct guard *g);

#endif
