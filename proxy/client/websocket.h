/*
 * websocket: the opening of a WebSocket (RFC 6455, 4) that forebay asks a worker for, when its client has asked by HTTP/2 (RFC 8441) and
 * neither sends a key nor looks at what the worker makes of one.
 * Thread: any.
 */
#ifndef FOREBAY_PROXY_WEBSOCKET_H
#define FOREBAY_PROXY_WEBSOCKET_H

#include "core/head.h"

#define WEBSOCKET_KEY_LEN    24 /* 16 random bytes in base64 */
#define WEBSOCKET_ACCEPT_LEN 28 /* a SHA-1 in base64 */

/* A Sec-WebSocket-Key. False without random numbers. */
bool websocket_key(char text[static WEBSOCKET_KEY_LEN + 1]);

/* The Sec-WebSocket-Accept that answers a key. */
void websocket_accept(struct slice key, char text[static WEBSOCKET_ACCEPT_LEN + 1]);

/* The response to a request with `key` says that whoever has answered knows what a WebSocket is. */
bool websocket_is_accepted(const struct head *response, struct slice key);

#endif
