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
	/*
	 * Edge-triggered: added once with EV_READ; EV_WRITE only while somebody waits for room, since the peer's every read of a Unix
	 * socket is an edge of writability.
	 */
	struct event ev;
	struct loop *loop; /* hooked to; NULL: unhooked */
	struct slot *slot;
	/*
	 * Who uses it just now, told EV_READ, EV_WRITE and EV_CLOSED (the peer has ended: read on to the end of file); NULL while
	 * idle, when only its end is watched for. May free the link.
	 */
	void (*event)(void *ctx, short what);
	void *ctx;
	uint64_t idle_since_ms;
	uint64_t emptied_turn; /* loop_turn() of the last read */
	/*
	 * A blocking worker that has answered sleeps in recv() on this connection, and taking the answer out of a Unix socket wakes it for
	 * nothing: the kernel tells of free room whoever waits. So short answers are read in place, and taken out several at once behind a
	 * request, which wakes the worker anyhow.
	 */
	uint32_t peeked;         /* bytes that were read and still lie in the socket */
	uint32_t peeked_answers; /* in so many reads: what an answer takes up there may be far more than its bytes */
	bool emptied;            /* by the last read, or it was hooked since */
	bool peeks;              /* the next answer is read so */
	bool can_peek;           /* SO_PEEK_OFF is set: a look at what comes looks behind what was peeked */
	bool want_write;
	bool pinned;                     /* an own worker's slot socket: not to be replaced by a new connect */
	bool used;                       /* served a request before */
	bool greeted;                    /* worker protocol: HELLO has come */
	uint64_t serial;                 /* worker protocol: of the last request sent */
	const _Atomic uint64_t *started; /* worker protocol: this slot's line of the started page; NULL else */
};

/* Connects without waiting. 0 with *ret hooked (in progress or connected, *ret_connected says), or -errno (-EAGAIN: backlog full). */
MUST_USE int link_connect(struct loop *loop, struct slot *slot, struct link **ret, bool *ret_connected);

/* After the first EV_WRITE of a link in progress: 0 connected, or -errno. */
MUST_USE int link_connected(struct link *l);

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

/* EV_WRITE edges from now on, or no more. */
void link_want_write(struct link *l, bool want);

/* Tells its user again, from the loop: for one that stopped reading before the end. */
void link_again(struct link *l, short what);

/* A read has left nothing behind (`emptied`), or perhaps something. */
void link_was_read(struct link *l, bool emptied);

/*
 * Nothing is there that was not read yet, neither bytes nor the end. Asks the kernel, unless the loop has done so since the link was
 * emptied and has no event of it: then this is how it was when the turn began.
 */
bool link_is_quiet(const struct link *l);

/* The peer has closed both ways, or died: nobody will read what was sent and not read yet. Asks the kernel. */
bool link_is_dead(const struct link *l);

/* A read of the connection's next bytes, in place (`peeked`) if wanted. Bytes, 0 at the end, or -errno. */
ssize_t link_recv(struct link *l, void *to, size_t size, bool in_place);

/* Takes out what was peeked. Whoever reads otherwise calls it first. */
void link_take_out(struct link *l);

/* For pool_new. */
extern const struct pool_links link_pool_links;

#endif
