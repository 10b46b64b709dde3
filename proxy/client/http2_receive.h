/*
 * http2_receive: bytes of a connection to frames, and frames to exchanges: the library's callbacks, which judge what a peer may do.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_HTTP2_RECEIVE_H
#define FOREBAY_PROXY_HTTP2_RECEIVE_H

#include "proxy/client/http2_life.h"

/* The library's session, and what we say first. 0 or -ENOMEM. */
MUST_USE int http2_session_new(struct http2_client *c);

/* Reads what there is. False: c was freed. */
bool http2_read(struct http2_client *c);

/* Gives back windows that were kept while memory was short. */
void http2_feed(struct http2_client *c);

#endif
