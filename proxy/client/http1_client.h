/*
 * http1_client: one connection that speaks HTTP/1.x, from accept() to close().
 * Owns:   the socket, what was read and not yet understood, the exchange at hand.
 * Never:  lets a request begin before it is whole (but for streams); reads on while a request is in work.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_HTTP1_CLIENT_H
#define FOREBAY_PROXY_HTTP1_CLIENT_H

#include "proxy/client/arrival.h"
#include "proxy/serve/context.h"

struct http1_client;

/*
 * Starts to serve a connection that guard_enter has let in. Takes its stream; on failure it stays the caller's. Borrows what the
 * rest points to, which must outlive the client; that frees itself.
 * Returns 0 or -errno.
 */
MUST_USE int http1_client_new(struct context *cx, struct arrival *a);

#endif
