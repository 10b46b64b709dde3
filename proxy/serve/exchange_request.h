/*
 * exchange_request: an exchange from its request's head to the slot that it is granted.
 * Only for those that exchange_life.h names.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_EXCHANGE_REQUEST_H
#define FOREBAY_PROXY_EXCHANGE_REQUEST_H

#include "proxy/serve/exchange_life.h"

/* Here are also exchange_request(), exchange_body_grew(), exchange_body_failed() and exchange_received(), of exchange.h. */

/* For what comes from the client, into ex->body. 0 or -ENOMEM. */
MUST_USE int exchange_body_new(struct exchange *ex);

/* In line for a slot, anew or again. */
void exchange_queue(struct exchange *ex, bool again);

#endif
