#include "upstream/slots.h"

static const unsigned may_follow[] = {
	[SLOT_ABSENT] = TO(SLOT_FREE) | TO(SLOT_GRANTED),
	[SLOT_FREE] = TO(SLOT_ABSENT) | TO(SLOT_GRANTED) | TO(SLOT_BUSY),
	[SLOT_GRANTED] = TO(SLOT_BUSY), /* also when its waiter has gone: the receiver releases it */
	[SLOT_BUSY] = TO(SLOT_ABSENT) | TO(SLOT_FREE) | TO(SLOT_GRANTED),
};
static_assert(ARRAY_LEN(may_follow) == SLOT_STATE_COUNT, "a row for each state");

void slot_enter(struct slot *s, enum slot_state next)
{
	assert(may_follow[s->state] & TO(next));
	s->pool->in_state[s->state]--;
	s->pool->in_state[next]++;
	s->state = next;
}

static struct slot_list *slot_list_of(struct slot *s)
{
	return s->link ? &s->pool->linked : &s->pool->bare;
}

static void slot_free_push(struct slot *s)
{
	struct slot_list *list = slot_list_of(s);

	s->prev = NULL;
	s->next = list->first;
	*(list->first ? &list->first->prev : &list->last) = s;
	list->first = s;
}

void slot_free_append(struct slot *s)
{
	struct slot_list *list = slot_list_of(s);

	s->next = NULL;
	s->prev = list->last;
	*(list->last ? &list->last->next : &list->first) = s;
	list->last = s;
}

void slot_free_remove(struct slot *s)
{
	struct slot_list *list = slot_list_of(s);

	*(s->prev ? &s->prev->next : &list->first) = s->next;
	*(s->next ? &s->next->prev : &list->last) = s->prev;
	s->next = s->prev = NULL;
}

struct slot *slot_pick(struct pool *p, const struct loop *loop)
{
	for (struct slot *s = p->linked.first; s; s = s->next)
		if (s->home == loop)
			return s;
	return p->bare.first ? p->bare.first : p->linked.first;
}

static void outbox_add(struct outbox *out, struct slot *s)
{
	s->next = NULL;
	*(out->last ? &out->last->next : &out->first) = s;
	out->last = s;
}

void slot_grant(struct slot *s, struct waiter *w, struct outbox *out)
{
	struct pool *p = s->pool;

	slot_enter(s, SLOT_GRANTED);
	s->waiter = w;
	s->to = w->loop;
	w->state = WAITER_GRANTED;
	w->slot = s;
	p->grants++;
	p->moves += s->link && s->home && s->home != s->to;
	outbox_add(out, s);
}

void slot_send_idle(struct slot *s, struct loop *loop, struct outbox *out)
{
	slot_enter(s, SLOT_GRANTED);
	s->waiter = NULL;
	s->to = loop;
	outbox_add(out, s);
}

static bool slot_rests(const struct slot *s)
{
	const struct socket *k;

	if (pool_is_own(s->pool))
		return !s->link;
	k = &s->pool->sockets[s->socket];
	return k->state == SOCKET_RESTING || (k->state == SOCKET_PROBING && k->probe != s);
}

static bool slot_is_probe(const struct slot *s)
{
	return !pool_is_own(s->pool) && s->pool->sockets[s->socket].probe == s;
}

static void note_delay(struct pool *p, const struct waiter *w)
{
	uint64_t now_us = pool_is_own(p) ? clock_mono_us(p->clock) : 0;

	if (now_us > w->since_us)
		p->delay_peak_us = MAX(p->delay_peak_us, now_us - w->since_us);
}

void slot_place(struct slot *s, struct outbox *out)
{
	struct waiter *w;

	if (slot_rests(s)) {
		if (s->state != SLOT_ABSENT)
			slot_enter(s, SLOT_ABSENT);
		return;
	}
	w = queue_pop(&s->pool->queue);
	if (w) {
		note_delay(s->pool, w);
		slot_grant(s, w, out);
	} else if (s->link && !s->home) {
		slot_send_idle(s, s->fresh_home, out);
	} else {
		slot_enter(s, SLOT_FREE);
		/* No request tries a doubtful socket while a good one is free. */
		if (slot_is_probe(s))
			slot_free_append(s);
		else
			slot_free_push(s);
	}
}

/* A GRANTED slot on its next step; its link is let go of at home first. */
static void slot_post(struct slot *s, const struct loop *here)
{
	if (s->link && s->home && s->home != s->to) {
		if (s->home != here) {
			mailbox_post(&s->home->mailbox, &s->mail);
			return;
		}
		s->pool->links->unhook(s->link);
		s->home = NULL;
	}
	if (s->to == here)
		mailbox_post_here(&s->to->mailbox, &s->mail);
	else
		mailbox_post(&s->to->mailbox, &s->mail);
}

void outbox_post(struct outbox *out, const struct loop *here)
{
	struct slot *next;

	for (struct slot *s = out->first; s; s = next) {
		next = s->next; /* once posted it is not ours any more */
		slot_post(s, here);
	}
}

/* On s->to's thread. */
static void slot_arrive(struct slot *s)
{
	struct pool *p = s->pool;
	struct waiter *w;

	pthread_mutex_lock(&p->mutex);
	w = s->waiter;
	s->waiter = NULL;
	if (w) {
		w->state = WAITER_IDLE;
		w->slot = NULL;
	}
	slot_enter(s, SLOT_BUSY);
	pthread_mutex_unlock(&p->mutex);
	if (s->link && !s->home) {
		p->links->hook(s->link, s->to);
		s->home = s->to;
	}
	if (w)
		w->granted(w, s);
	else
		pool_release(s);
}

void slot_deliver(struct mail *m)
{
	struct slot *s = CONTAINER_OF(m, struct slot, mail);

	if (s->link && s->home && s->home != s->to)
		slot_post(s, s->home); /* this was its home */
	else
		slot_arrive(s);
}
