#include "upstream/queue.h"

static void queue_count(struct queue *q, struct waiter *w)
{
	w->state = WAITER_QUEUED;
	q->count++;
	q->peak = MAX(q->peak, q->count);
}

void queue_push(struct queue *q, struct waiter *w)
{
	w->next = NULL;
	w->prev = q->tail;
	*(q->tail ? &q->tail->next : &q->head) = w;
	q->tail = w;
	queue_count(q, w);
}

void queue_push_head(struct queue *q, struct waiter *w)
{
	w->prev = NULL;
	w->next = q->head;
	*(q->head ? &q->head->prev : &q->tail) = w;
	q->head = w;
	queue_count(q, w);
}

void queue_remove(struct queue *q, struct waiter *w)
{
	*(w->prev ? &w->prev->next : &q->head) = w->next;
	*(w->next ? &w->next->prev : &q->tail) = w->prev;
	w->next = w->prev = NULL;
	w->state = WAITER_IDLE;
	q->count--;
}

struct waiter *queue_pop(struct queue *q)
{
	struct waiter *w = q->head;

	if (w)
		queue_remove(q, w);
	return w;
}
