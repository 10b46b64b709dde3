/*
 * again: whether a request whose attempt failed is tried again, at another worker.
 * Never:  looks at a worker; how an attempt ended is what attempt says of it.
 * Pure.
 *
 * What no worker has begun is tried again whatever its method; what one has begun, or may have, only if its method is idempotent. Neither once a
 * byte of an answer has gone to the client. None of it for ever: see the limits.
 */
#ifndef FOREBAY_PROXY_AGAIN_H
#define FOREBAY_PROXY_AGAIN_H

#include "conf/conf.h"
#include "core/head.h"
#include "upstream/attempt.h"

/*
 * Workers that were lost, one after the other, with a request that none of them had begun. Each of these was free a moment before, so it takes a
 * pool whose workers die of being handed a request to come here. The time a request spends waiting for slots is bounded by queue_timeout, its time
 * at each worker by `timeout`.
 */
#define AGAIN_UNREAD_MAX 32

/* Of one request. All zero to begin. */
struct again {
	unsigned unread; /* attempts that ended before the application was called */
	unsigned lost;   /* attempts that ended behind that, or that may have */
};

/*
 * Counts the end of an attempt. True: try again. `sent`: the request cannot be sent twice (a stream's), or part of an answer, be it early
 * hints, has gone to the client.
 */
bool again_may(struct again *a, const struct conf_pool *pool, enum method method, enum attempt_end how, bool sent);

/* How often a request is tried again at most once it was begun: `retries`, of forebay's own workers no more than `replay_max`. */
unsigned again_lost_max(const struct conf_pool *pool);

#endif
