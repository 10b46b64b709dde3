/*
 * http1_respond: the sending half of an HTTP/1.x connection: what the exchange says becomes bytes.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_HTTP1_RESPOND_H
#define FOREBAY_PROXY_HTTP1_RESPOND_H

#include "proxy/client/http1_life.h"

/* For exchange_new; ctx is the client. */
extern const struct exchange_events client_exchange_events;

/* For the turn's `look`. */
void client_looked(struct loop_look *k);

/* Sends what there is. False: c was freed. */
bool client_flush(struct http1_client *c);

/* Bytes that the peer has taken since the last look, also of responses before: what went in, less what the socket grew by. */
uint64_t client_newly_acked(struct http1_client *c);

#endif
