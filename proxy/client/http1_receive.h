/*
 * http1_receive: the receiving half of an HTTP/1.x connection: bytes become heads and bodies of exchanges.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_HTTP1_RECEIVE_H
#define FOREBAY_PROXY_HTTP1_RECEIVE_H

#include "proxy/client/http1_life.h"

/* Reads what there is and the state asks for. False: c was freed. */
bool client_read(struct http1_client *c);

/* The head, or the lack of one, is answered by forebay itself, and the connection ends with it. False: c was freed. */
bool client_refuse(struct http1_client *c, struct slice bytes, unsigned status, const char *reason);

/* A turn with its exchange, for a request whose head has begun. False: no memory. */
bool client_turn_new(struct http1_client *c);

#endif
