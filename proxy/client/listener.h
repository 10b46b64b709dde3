/*
 * listener: accepts connections on one socket, as long as there is room for them.
 * Owns:   the socket and its event.
 * Never:  spins: without descriptors or room it stops until a connection of its thread has ended, or a moment has passed.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_LISTENER_H
#define FOREBAY_PROXY_LISTENER_H

#include "proxy/serve/context.h"

struct listener;

/* Takes *fd, also on failure. Borrows the rest. */
MUST_USE int listener_new(
    struct context *cx, const struct conf_listen *listen, const struct conf_address *local, int *fd, struct listener **ret);

/* Accepts what the kernel holds by now: nobody else will. */
void listener_take_all(struct listener *l);

/* Stops accepting and closes its descriptor; the master keeps the socket. */
void listener_free(struct listener **l);

/* A connection has ended: if it had stopped for want of room, it goes on. */
void listener_room(struct listener *l);

#endif
