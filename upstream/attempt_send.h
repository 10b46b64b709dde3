/*
 * attempt_send: an attempt's request on its way to the worker.
 * Only for those that attempt_life.h names.
 * Thread: its loop's.
 */
#ifndef FOREBAY_UPSTREAM_ATTEMPT_SEND_H
#define FOREBAY_UPSTREAM_ATTEMPT_SEND_H

#include "upstream/attempt_life.h"

/* As much as the link takes. */
void attempt_send(struct attempt *a);

/* For a->unread. A worker that was free would have read the head long ago; and one that has, may be waiting for room to answer. */
void attempt_still_unread(struct timer *t);

#endif
