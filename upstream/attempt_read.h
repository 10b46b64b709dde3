/*
 * attempt_read: the worker's answer on its way into an attempt's body. Here is also what protocol.h lets a protocol tell of it.
 * Only for those that attempt_life.h names.
 * Thread: its loop's.
 */
#ifndef FOREBAY_UPSTREAM_ATTEMPT_READ_H
#define FOREBAY_UPSTREAM_ATTEMPT_READ_H

#include "upstream/attempt_life.h"

/* As much as has come and there is room for. */
void attempt_read(struct attempt *a);

/* Tells the owner that the response has grown. It may say pause, or detach, in answer. */
void attempt_progress(struct attempt *a);

/* For a->starved: there may be room again. */
void attempt_starved_over(struct timer *t);

#endif
