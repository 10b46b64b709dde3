/*
 * door: a connection until its protocol is known: the PROXY header, the TLS handshake and what was agreed on there. Then it goes on to
 * http1 or http2.
 * Owns:   the socket, the session.
 * Never:  takes a byte of the protocol out of the stream; lasts longer than its listener's handshake_timeout.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_DOOR_H
#define FOREBAY_PROXY_DOOR_H

#include "proxy/client/arrival.h"
#include "proxy/serve/context.h"

/* True: connections of this listener come in by door_new(); those of others are HTTP/1 from their first byte. */
bool door_is_needed(const struct conf_listen *listen);

/* True: who its clients are is said by a PROXY header only; guard_enter without per_address is enough, the rest is the door's. */
bool door_learns_client(const struct conf_listen *listen);

/*
 * Starts with a connection that guard_enter has let in. Takes its stream; on failure it stays the caller's. Borrows what the rest points
 * to, which must outlive the door and what comes behind it. 0 or -errno.
 */
MUST_USE int door_new(struct context *cx, struct arrival *a);

#endif
