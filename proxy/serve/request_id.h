/*
 * request_id: what a request is called in X-Request-Id and in the logs: SEED-THREAD-COUNT, in hexadecimal digits.
 * Pure.
 */
#ifndef FOREBAY_PROXY_REQUEST_ID_H
#define FOREBAY_PROXY_REQUEST_ID_H

#include "core/slice.h"

#define REQUEST_ID_MAX   128 /* bytes of one that is taken over from a trusted peer */
#define REQUEST_ID_BYTES 44  /* of one of ours: 16, 8 and 16 hexadecimal digits, two dashes, NUL */

/* A thread's: all but the count is the same for each. */
struct request_ids {
	uint64_t count; /* the next one's */
	char start[REQUEST_ID_BYTES];
	uint8_t start_bytes;
};

/* The seed is random, and the same for all threads of a front. */
void request_ids_init(struct request_ids *ids, uint64_t seed, unsigned thread);

void request_id_next(struct request_ids *ids, char ret[static REQUEST_ID_BYTES]);

/* May be taken over: nothing in it could mean something to a log, a header or a shell. */
bool request_id_ok(struct slice id);

#endif
