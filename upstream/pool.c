#include "upstream/pool.h"

#include <stdlib.h>

/*
 * A socket of others' workers. RESTING: a connect was refused, the backoff runs, none of its slots is out but those in use.
 * PROBING: the backoff is over, one slot (the probe) may try.
 */
enum socket_state { SOCKET_UP, SOCKET_RESTING, SOCKET_PROBING };

struct socket {
	struct pool *pool;
	atomic_uchar state; /* enum socket_state; written under the mutex */
	unsigned backoff_ms;
	uint64_t until_ms;  /* RESTING: the backoff's end */
	struct slot *probe; /* PROBING: the one that may try */
	struct loop *loop;  /* whose wheel has `timer`; NULL: not set */
	struct timer timer; /* touched by `loop`'s thread only; may outlast the rest, see socket_timer */
};

/* Doubly linked, newest first. */
struct slot_list {
	struct slot *first, *last;
};

struct pool {
	/* constant */
	const struct conf_pool *conf;
	const struct pool_links *links;
	const struct clock *clock;
	struct slot *slots;
	unsigned slot_count;
	struct socket *sockets;
	unsigned socket_count;
	unsigned streams_max;
	/* under the mutex */
	pthread_mutex_t mutex;
	struct slot_list linked, bare; /* the FREE slots, with and without a link */
	struct waiter *head, *tail;    /* the queue */
	unsigned queued, queue_peak, streams, given_up;
	unsigned in_state[SLOT_STATE_COUNT];
	uint64_t grants, moves, refused_full;
	uint32_t random; /* for the jitter */
};

/* GRANTED slots that are still to be posted, once the mutex is free. They are in no other list. */
struct outbox {
	struct slot *first, *last;
};

static const unsigned may_follow[] = {
	[SLOT_ABSENT] = TO(SLOT_FREE) | TO(SLOT_GRANTED),
	[SLOT_FREE] = TO(SLOT_ABSENT) | TO(SLOT_GRANTED) | TO(SLOT_BUSY),
	[SLOT_GRANTED] = TO(SLOT_BUSY), /* also when its waiter has gone: the receiver releases it */
	[SLOT_BUSY] = TO(SLOT_ABSENT) | TO(SLOT_FREE) | TO(SLOT_GRANTED),
};
static_assert(ARRAY_LEN(may_follow) == SLOT_STATE_COUNT, "a row for each state");

/* The only writer of slot->state. Under the mutex. */
static void slot_enter(struct slot *s, enum slot_state next)
{
	assert(may_follow[s->state] & TO(next));
	s->pool->in_state[s->state]--;
	s->pool->in_state[next]++;
	s->state = next;
}

static bool pool_is_own(const struct pool *p)
{
	return p->conf->app != APP_NONE;
}

/* The lists. All under the mutex. */

static struct slot_list *slot_list_of(struct slot *s)
{
	return s->link ? &s->pool->linked : &s->pool->bare;
}

static void free_push(struct slot *s)
{
	struct slot_list *list = slot_list_of(s);

	s->prev = NULL;
	s->next = list->first;
	*(list->first ? &list->first->prev : &list->last) = s;
	list->first = s;
}

static void free_append(struct slot *s)
{
	struct slot_list *list = slot_list_of(s);

	s->next = NULL;
	s->prev = list->last;
	*(list->last ? &list->last->next : &list->first) = s;
	list->last = s;
}

static void free_remove(struct slot *s)
{
	struct slot_list *list = slot_list_of(s);

	*(s->prev ? &s->prev->next : &list->first) = s->next;
	*(s->next ? &s->next->prev : &list->last) = s->prev;
	s->next = s->prev = NULL;
}

/* The one used last whose link is at home here, then one without a link, then one that must move. */
static struct slot *free_pick(struct pool *p, const struct loop *loop)
{
	for (struct slot *s = p->linked.first; s; s = s->next)
		if (s->home == loop)
			return s;
	return p->bare.first ? p->bare.first : p->linked.first;
}

static void queue_count(struct pool *p, struct waiter *w)
{
	w->state = WAITER_QUEUED;
	p->queued++;
	p->queue_peak = MAX(p->queue_peak, p->queued);
}

static void queue_push(struct pool *p, struct waiter *w)
{
	w->next = NULL;
	w->prev = p->tail;
	*(p->tail ? &p->tail->next : &p->head) = w;
	p->tail = w;
	queue_count(p, w);
}

static void queue_push_head(struct pool *p, struct waiter *w)
{
	w->prev = NULL;
	w->next = p->head;
	*(p->head ? &p->head->prev : &p->tail) = w;
	p->head = w;
	queue_count(p, w);
}

static void queue_remove(struct pool *p, struct waiter *w)
{
	*(w->prev ? &w->prev->next : &p->head) = w->next;
	*(w->next ? &w->next->prev : &p->tail) = w->prev;
	w->next = w->prev = NULL;
	w->state = WAITER_IDLE;
	p->queued--;
}

static struct waiter *queue_pop(struct pool *p)
{
	struct waiter *w = p->head;

	if (w)
		queue_remove(p, w);
	return w;
}

static void outbox_add(struct outbox *out, struct slot *s)
{
	s->next = NULL;
	*(out->last ? &out->last->next : &out->first) = s;
	out->last = s;
}

/* Grants. */

/* Under the mutex; w is in no list. */
static void slot_grant(struct slot *s, struct waiter *w, struct outbox *out)
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

/* Under the mutex: to `loop`'s thread, which releases it (and hooks its link, if that is still to be done). */
static void slot_send_idle(struct slot *s, struct loop *loop, struct outbox *out)
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

/* Under the mutex: a slot that nobody uses any more, or that has come back, goes where it belongs. */
static void slot_place(struct slot *s, struct outbox *out)
{
	struct waiter *w;

	if (slot_rests(s)) {
		if (s->state != SLOT_ABSENT)
			slot_enter(s, SLOT_ABSENT);
		return;
	}
	w = queue_pop(s->pool);
	if (w) {
		slot_grant(s, w, out);
	} else if (s->link && !s->home) {
		slot_send_idle(s, s->fresh_home, out);
	} else {
		slot_enter(s, SLOT_FREE);
		/* No request tries a doubtful socket while a good one is free. */
		if (slot_is_probe(s))
			free_append(s);
		else
			free_push(s);
	}
}

/* Without the mutex: a GRANTED slot on its next step; its link is let go of at home first. `here`: this thread's loop, if known. */
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
	mailbox_post(&s->to->mailbox, &s->mail);
}

static void outbox_post(struct outbox *out, const struct loop *here)
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

static void slot_deliver(struct mail *m)
{
	struct slot *s = CONTAINER_OF(m, struct slot, mail);

	if (s->link && s->home && s->home != s->to)
		slot_post(s, s->home); /* this was its home */
	else
		slot_arrive(s);
}

/* What the outside calls. */

static enum pool_answer queue_join(struct pool *p, struct waiter *w, bool again)
{
	if (again) {
		queue_push_head(p, w);
		return POOL_QUEUED;
	}
	if (p->queued >= p->conf->queue_limit) {
		p->refused_full++;
		return POOL_FULL;
	}
	queue_push(p, w);
	return POOL_QUEUED;
}

static void slot_take(struct slot *s, struct loop *loop)
{
	slot_enter(s, SLOT_BUSY);
	s->to = loop;
	s->pool->grants++;
}

static enum pool_answer acquire(struct pool *p, struct waiter *w, bool again, struct slot **ret)
{
	enum pool_answer answer = POOL_QUEUED;
	struct outbox out = { 0 };
	struct slot *s;

	assert(w->state == WAITER_IDLE);
	if (w->since_us == 0)
		w->since_us = clock_mono_us(p->clock);
	pthread_mutex_lock(&p->mutex);
	s = free_pick(p, w->loop);
	if (!s) {
		answer = queue_join(p, w, again);
	} else {
		free_remove(s);
		if (s->link && s->home != w->loop) {
			slot_grant(s, w, &out);
		} else {
			slot_take(s, w->loop);
			answer = POOL_GRANTED;
			*ret = s;
		}
	}
	pthread_mutex_unlock(&p->mutex);
	outbox_post(&out, w->loop);
	return answer;
}

enum pool_answer pool_acquire(struct pool *p, struct waiter *w, struct slot **ret)
{
	return acquire(p, w, false, ret);
}

enum pool_answer pool_acquire_again(struct pool *p, struct waiter *w, struct slot **ret)
{
	return acquire(p, w, true, ret);
}

void pool_cancel(struct pool *p, struct waiter *w)
{
	pthread_mutex_lock(&p->mutex);
	switch ((enum waiter_state)w->state) {
	case WAITER_IDLE:
		break;
	case WAITER_QUEUED:
		queue_remove(p, w);
		break;
	case WAITER_GRANTED:
		w->slot->waiter = NULL;
		w->slot = NULL;
		w->state = WAITER_IDLE;
		break;
	}
	pthread_mutex_unlock(&p->mutex);
}

/* Under the mutex: what was attached takes its place. Gives the old link, or NULL. */
static struct link *slot_refresh(struct slot *s)
{
	struct link *old;

	if (!s->fresh)
		return NULL;
	old = s->link;
	s->link = s->fresh;
	s->home = NULL;
	s->worker_pid = s->fresh_pid;
	s->fresh = NULL;
	return old;
}

void pool_release(struct slot *slot)
{
	struct pool *p = slot->pool;
	struct loop *here = slot->to;
	struct outbox out = { 0 };
	struct link *old;

	slot->home = slot->link ? here : NULL;
	pthread_mutex_lock(&p->mutex);
	old = slot_refresh(slot);
	slot_place(slot, &out);
	pthread_mutex_unlock(&p->mutex);
	if (old)
		p->links->close(old);
	outbox_post(&out, here);
}

void pool_release_lost(struct slot *slot)
{
	assert(pool_is_own(slot->pool) && !slot->link);
	slot->worker_pid = 0;
	pool_release(slot);
}

void pool_release_given_up(struct slot *slot)
{
	struct pool *p = slot->pool;

	pthread_mutex_lock(&p->mutex);
	p->given_up += !slot->given_up;
	slot->given_up = true;
	pthread_mutex_unlock(&p->mutex);
	pool_release_lost(slot);
}

bool pool_next_given_up(struct pool *p, unsigned *ret_index)
{
	bool found = false;

	pthread_mutex_lock(&p->mutex);
	for (unsigned i = 0; p->given_up > 0 && !found && i < p->slot_count; i++) {
		if (!p->slots[i].given_up)
			continue;
		p->slots[i].given_up = false;
		p->given_up--;
		*ret_index = i;
		found = true;
	}
	pthread_mutex_unlock(&p->mutex);
	return found;
}

void pool_attach(struct pool *p, unsigned index, struct link *link, struct loop *home, pid_t worker_pid)
{
	struct slot *s = &p->slots[index];
	struct outbox out = { 0 };
	struct link *unused;

	assert(pool_is_own(p) && index < p->slot_count && link && home);
	if (p->links->attached)
		p->links->attached(link, s);
	pthread_mutex_lock(&p->mutex);
	unused = s->fresh;
	s->fresh = link;
	s->fresh_home = home;
	s->fresh_pid = worker_pid;
	if (s->state == SLOT_ABSENT) {
		(void)slot_refresh(s);
		slot_place(s, &out);
	} else if (s->state == SLOT_FREE) {
		/* The old link can be closed on its own thread only, so it is released there once more. */
		free_remove(s);
		slot_send_idle(s, s->home, &out);
	}
	pthread_mutex_unlock(&p->mutex);
	if (unused)
		p->links->close(unused);
	outbox_post(&out, NULL);
}

bool pool_link_ended(struct slot *slot)
{
	struct pool *p = slot->pool;
	bool idle;

	pthread_mutex_lock(&p->mutex);
	idle = slot->state == SLOT_FREE || slot->state == SLOT_ABSENT;
	if (idle) {
		if (slot->state == SLOT_FREE)
			free_remove(slot);
		slot->link = NULL;
		slot->home = NULL;
		if (slot->state == SLOT_FREE && pool_is_own(p))
			slot_enter(slot, SLOT_ABSENT);
		else if (slot->state == SLOT_FREE)
			free_append(slot);
	}
	pthread_mutex_unlock(&p->mutex);
	return idle;
}

/* Sockets that rest. */

/* xorshift32: jitter needs no more. */
static uint32_t pool_random(struct pool *p)
{
	p->random ^= p->random << 13;
	p->random ^= p->random >> 17;
	p->random ^= p->random << 5;
	return p->random;
}

/* Under the mutex. */
static void socket_rest(struct socket *k)
{
	struct pool *p = k->pool;

	k->backoff_ms = k->backoff_ms ? MIN(k->backoff_ms * 2, POOL_BACKOFF_MAX_MS) : POOL_BACKOFF_MIN_MS;
	k->until_ms = clock_mono_ms(p->clock) + k->backoff_ms + pool_random(p) % (k->backoff_ms / 4 + 1);
	k->state = SOCKET_RESTING;
	k->probe = NULL;
	for (unsigned i = 0; i < p->slot_count; i++) {
		struct slot *s = &p->slots[i];

		if (&p->sockets[s->socket] == k && s->state == SLOT_FREE) {
			free_remove(s);
			slot_enter(s, SLOT_ABSENT);
		}
	}
}

/* Under the mutex: the backoff is over. The probe has no link, so that it must connect; the slot that was refused is one. */
static void socket_probe(struct socket *k, struct outbox *out)
{
	struct pool *p = k->pool;

	for (unsigned i = 0; i < p->slot_count; i++) {
		struct slot *s = &p->slots[i];

		if (&p->sockets[s->socket] == k && s->state == SLOT_ABSENT && !s->link) {
			k->state = SOCKET_PROBING;
			k->probe = s;
			slot_place(s, out);
			return;
		}
	}
	assert(!"a resting socket has an absent slot");
}

/* On k->loop's thread. A rest that began again elsewhere while the timer stood leaves it here and only moves its end. */
static void socket_timer(struct timer *t)
{
	struct socket *k = CONTAINER_OF(t, struct socket, timer);
	struct pool *p = k->pool;
	struct loop *here = k->loop;
	struct outbox out = { 0 };
	uint64_t left_ms = 0;
	uint64_t now_ms = clock_mono_ms(p->clock);

	pthread_mutex_lock(&p->mutex);
	if (k->state == SOCKET_RESTING && now_ms < k->until_ms) {
		left_ms = k->until_ms - now_ms;
	} else {
		k->loop = NULL;
		if (k->state == SOCKET_RESTING)
			socket_probe(k, &out);
	}
	pthread_mutex_unlock(&p->mutex);
	if (left_ms)
		loop_timer_set(here, t, left_ms);
	outbox_post(&out, here);
}

void pool_socket_down(struct slot *slot, struct loop *loop)
{
	struct pool *p = slot->pool;
	struct socket *k = &p->sockets[slot->socket];
	uint64_t rest_ms = 0;

	assert(!pool_is_own(p) && !slot->link);
	slot->home = NULL;
	pthread_mutex_lock(&p->mutex);
	if (k->state == SOCKET_UP || k->probe == slot) {
		socket_rest(k);
		if (!k->loop) {
			k->loop = loop;
			rest_ms = k->until_ms - clock_mono_ms(p->clock);
		}
	}
	slot_enter(slot, SLOT_ABSENT);
	pthread_mutex_unlock(&p->mutex);
	if (rest_ms)
		loop_timer_set(loop, &k->timer, rest_ms);
}

void pool_socket_up(struct slot *slot)
{
	struct pool *p = slot->pool;
	struct outbox out = { 0 };
	struct socket *k;

	if (pool_is_own(p))
		return;
	k = &p->sockets[slot->socket];
	if (atomic_load_explicit(&k->state, memory_order_relaxed) == SOCKET_UP)
		return;
	pthread_mutex_lock(&p->mutex);
	k->state = SOCKET_UP;
	k->probe = NULL;
	k->backoff_ms = 0;
	for (unsigned i = 0; i < p->slot_count; i++)
		if (p->slots[i].socket == slot->socket && p->slots[i].state == SLOT_ABSENT)
			slot_place(&p->slots[i], &out);
	pthread_mutex_unlock(&p->mutex);
	outbox_post(&out, slot->to);
}

/* Streams, figures, life. */

bool pool_stream_enter(struct pool *p)
{
	bool fits;

	pthread_mutex_lock(&p->mutex);
	fits = p->streams < p->streams_max;
	p->streams += fits;
	pthread_mutex_unlock(&p->mutex);
	return fits;
}

void pool_stream_leave(struct pool *p)
{
	pthread_mutex_lock(&p->mutex);
	assert(p->streams > 0);
	p->streams--;
	pthread_mutex_unlock(&p->mutex);
}

const struct conf_pool *pool_conf(const struct pool *p)
{
	return p->conf;
}

static unsigned sockets_down(const struct pool *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->socket_count; i++)
		n += p->sockets[i].state != SOCKET_UP;
	return n;
}

void pool_figures(struct pool *p, struct pool_figures *ret)
{
	uint64_t now_us = clock_mono_us(p->clock);

	pthread_mutex_lock(&p->mutex);
	*ret = (struct pool_figures){
		.slots = p->slot_count,
		.absent = p->in_state[SLOT_ABSENT],
		.free = p->in_state[SLOT_FREE],
		.granted = p->in_state[SLOT_GRANTED],
		.busy = p->in_state[SLOT_BUSY],
		.queued = p->queued,
		.queue_peak = p->queue_peak,
		.streams = p->streams,
		.sockets_down = sockets_down(p),
		.grants = p->grants,
		.moves = p->moves,
		.refused_full = p->refused_full,
		/* a waiter of another thread may have come after our look at the clock */
		.oldest_wait_us = p->head && now_us > p->head->since_us ? now_us - p->head->since_us : 0,
	};
	pthread_mutex_unlock(&p->mutex);
}

static void sockets_init(struct pool *p)
{
	for (unsigned i = 0; i < p->socket_count; i++) {
		p->sockets[i].pool = p;
		p->sockets[i].timer.fire = socket_timer;
	}
}

/* Neighbours belong to different sockets, so that the first requests spread over all. */
static void slots_init(struct pool *p)
{
	for (unsigned i = 0; i < p->slot_count; i++) {
		struct slot *s = &p->slots[i];

		s->pool = p;
		s->index = i;
		s->mail.deliver = slot_deliver;
		p->in_state[SLOT_ABSENT]++; /* the zero that calloc gave */
		if (pool_is_own(p))
			continue;
		s->socket = i % p->socket_count;
		s->address = &p->conf->sockets[s->socket];
		slot_enter(s, SLOT_FREE);
		free_append(s);
	}
}

static int pool_size(struct pool *p)
{
	const struct conf_pool *c = p->conf;
	unsigned a = pool_is_own(p) ? c->processes : c->slots;
	unsigned b = pool_is_own(p) ? c->threads : (unsigned)c->socket_count;

	if (__builtin_mul_overflow(a, b, &p->slot_count) || p->slot_count == 0)
		return -EINVAL;
	p->socket_count = pool_is_own(p) ? 0 : (unsigned)c->socket_count;
	p->streams_max = c->streams ? c->streams : MAX(p->slot_count / 4, 1u);
	return 0;
}

static int pool_memory(struct pool *p)
{
	p->slots = calloc(p->slot_count, sizeof(*p->slots));
	p->sockets = calloc(MAX(p->socket_count, 1u), sizeof(*p->sockets));
	return p->slots && p->sockets ? 0 : -ENOMEM;
}

static void pool_drop(struct pool *p)
{
	pthread_mutex_destroy(&p->mutex);
	free(p->sockets);
	free(p->slots);
	free(p);
}

int pool_new(const struct conf_pool *conf, const struct pool_links *links, const struct clock *clock, struct pool **ret)
{
	struct pool *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->conf = conf;
	p->links = links;
	p->clock = clock;
	p->random = (uint32_t)clock_mono_us(clock) | 1; /* xorshift stands still at 0 */
	pthread_mutex_init(&p->mutex, NULL);            /* cannot fail without attributes */
	err = pool_size(p);
	if (!err)
		err = pool_memory(p);
	if (err) {
		pool_drop(p);
		return err;
	}
	sockets_init(p);
	slots_init(p);
	*ret = p;
	return 0;
}

void pool_free(struct pool **p)
{
	struct pool *it = *p;

	if (!it)
		return;
	assert(it->in_state[SLOT_GRANTED] == 0 && it->in_state[SLOT_BUSY] == 0 && it->queued == 0);
	for (unsigned i = 0; i < it->socket_count; i++)
		if (it->sockets[i].loop)
			loop_timer_clear(it->sockets[i].loop, &it->sockets[i].timer);
	for (unsigned i = 0; i < it->slot_count; i++)
		if (it->slots[i].link)
			it->links->close(it->slots[i].link);
	pool_drop(it);
	*p = NULL;
}
