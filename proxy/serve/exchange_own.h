/*
 * exchange_own: what forebay itself says to a request: the porter's word, a page, or nothing but the end of a response that has begun.
 * Only for those that exchange_life.h names.
 * Thread: its loop's. The client's side hears of it from the loop, not from within a call of its own.
 */
#ifndef FOREBAY_PROXY_EXCHANGE_OWN_H
#define FOREBAY_PROXY_EXCHANGE_OWN_H

#include "proxy/serve/exchange_life.h"

/* Here is also exchange_refuse(), of exchange.h. */

/* True: the listener itself has an answer, and has given it. */
MUST_USE bool exchange_porter_answered(struct exchange *ex);

/* The response has begun, and will not come to its end. */
void exchange_cut_later(struct exchange *ex, const char *reason);

#endif
