/*
 * link: one connection to a worker: connected anew for a request, kept for the next, or an own worker's slot socket.
 * Owns:   the socket and its event.
 * Never:  knows a protocol. Chooses a slot.
 * Thread: that of the loop it is hooked to; free of any while it is unhooked.
 */
#ifndef FOREBAY_UPSTREAM_LINK_H
#define FOREBAY_UPSTREAM_LINK_H

#include <event2/event_struct.h>

#include "upstream/pool.h"

struct link {
	int fd;
	struct event ev;   /* EV_READ | EV_PERSIST, added for as long as it is hooked */
	struct event out;  /* EV_WRITE, added while a send is short */
	struct loop *loop; /* hooked to; NULL: unhooked */
	struct slot *slot;
	/* Who uses it just now; NULL while idle, when the end of the connection is all that is watched for. May free the link. */
	void (*event)(void *ctx, short what);
	void *ctx;
	uint64_t idle_since_ms;
	bool pinned;                     /* an own worker's slot socket: not to be replaced by a new connect */
	bool used;                       /* served a request before */
	bool greeted;                    /* worker protocol: HELLO has come */
	uint64_t serial;                 /* worker protocol: of the last request sent */
	const _Atomic uint64_t *started; /* worker protocol: this slot's line of the started page; NULL else */
};

/* Connects without waiting. 0 with *ret hooked (in progress or connected, *ret_connected says), or -errno (-EAGAIN: backlog full). */
MUST_USE int link_connect(struct loop *loop, struct slot *slot, struct link **ret, bool *ret_connected);

/*
 * Wraps an own worker's slot socket, unhooked. Takes *fd, also on failure. `serial` is where its serials start: above all that were ever used
 * on this slot (microseconds of wall time do).
 */
MUST_USE int link_wrap(int *fd, const _Atomic uint64_t *started, uint64_t serial, struct link **ret);

/* Any state, unhooked or on its thread. Sets *l to NULL. */
void link_free(struct link **l);

void link_use(struct link *l, void (*event)(void *ctx, short what), void *ctx);
void link_idle(struct link *l);
void link_hook(struct link *l, struct loop *loop);
void link_unhook(struct link *l);
void link_want_write(struct link *l, bool want);

/* For pool_new. */
extern const struct pool_links link_pool_links;

#endif
