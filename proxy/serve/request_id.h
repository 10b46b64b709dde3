/*
 * request_id: what a request is called in X-Request-Id and in the logs.
 * Pure.
 */
#ifndef FOREBAY_PROXY_REQUEST_ID_H
#define FOREBAY_PROXY_REQUEST_ID_H

#include "core/slice.h"

#define REQUEST_ID_MAX   128 /* bytes of one that is taken over from a trusted peer */
#define REQUEST_ID_BYTES 44  /* of one of ours: 16, 8 and 16 hexadecimal digits, two dashes, NUL */

/* SEED-THREAD-COUNT: the seed is random and the same for all threads of a front. */
void request_id_make(uint64_t seed, unsigned thread, uint64_t count, char ret[static REQUEST_ID_BYTES]);

/* May be taken over: nothing in it could mean something to a log, a header or a shell. */
bool request_id_ok(struct slice id);

#endif
