/*
 * exchange_response: what a worker answers to an exchange, and what becomes of it when it does not.
 * Only for those that exchange_life.h names.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_EXCHANGE_RESPONSE_H
#define FOREBAY_PROXY_EXCHANGE_RESPONSE_H

#include "proxy/serve/exchange_life.h"

/* For an attempt whose ctx is the exchange. */
extern const struct attempt_events exchange_attempt_events;

/* A body for the response, of about so many bytes (0: nobody knows). 0 or -ENOMEM. */
MUST_USE int exchange_response_new(struct exchange *ex, uint64_t expected);

/* None of it has come. */
void exchange_response_reset(struct exchange *ex);

#endif
