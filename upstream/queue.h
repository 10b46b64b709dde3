/*
 * queue: the requests that wait for a slot of one pool, first in first out.
 * Owns:   nothing; a waiter lies in the struct of whoever waits.
 * Thread: under its pool's mutex.
 */
#ifndef FOREBAY_UPSTREAM_QUEUE_H
#define FOREBAY_UPSTREAM_QUEUE_H

#include "upstream/pool.h"

/* All zero to begin. */
struct queue {
	struct waiter *head, *tail;
	_Atomic unsigned count; /* to be read without the pool's mutex, too */
	unsigned peak;
};

/* w is WAITER_QUEUED after these, */
void queue_push(struct queue *q, struct waiter *w);
void queue_push_head(struct queue *q, struct waiter *w);

/* and WAITER_IDLE after these. */
void queue_remove(struct queue *q, struct waiter *w);
struct waiter *queue_pop(struct queue *q); /* NULL: empty */

#endif
