/*
 * http2_client: one connection that speaks HTTP/2, from its preface to close(): many streams, each an exchange. One member of the crowd.
 * Owns:   the stream below, the library's session, the exchanges at hand.
 * Never:  lets a request begin before it is whole (but for streams that pass through); lets one stream stop another, or hold more than the
 *         windows it was given.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_HTTP2_CLIENT_H
#define FOREBAY_PROXY_HTTP2_CLIENT_H

#include "proxy/client/arrival.h"
#include "proxy/serve/context.h"

/* What the first bytes of such a connection are (RFC 9113, 3.4). */
#define HTTP2_PREFACE       "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define HTTP2_PREFACE_BYTES (sizeof(HTTP2_PREFACE) - 1)

/*
 * Starts to serve a connection that guard_enter has let in. Takes its stream; on failure it stays the caller's. Borrows what the
 * rest points to, which must outlive the client; that frees itself.
 * Returns 0 or -errno.
 */
MUST_USE int http2_client_new(struct context *cx, struct arrival *a);

#endif
