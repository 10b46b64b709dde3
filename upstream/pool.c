#include "upstream/pool.h"

#include <limits.h>
#include <stdlib.h>

#include "upstream/slots.h"

#define OVERSTATED_TELL_US (60u * 1000 * 1000)

static enum pool_answer queue_join(struct pool *p, struct waiter *w, bool again)
{
	if (again) {
		queue_push_head(&p->queue, w);
		return POOL_QUEUED;
	}
	if (p->queue.count >= p->conf->queue_limit) {
		p->refused_full++;
		return POOL_FULL;
	}
	queue_push(&p->queue, w);
	return POOL_QUEUED;
}

static void slot_take(struct slot *s, struct loop *loop)
{
	slot_enter(s, SLOT_BUSY);
	s->to = loop;
	s->pool->grants++;
}

/* Requests that are in work or wait. */
static unsigned load_now(const struct pool *p)
{
	return p->in_state[SLOT_BUSY] + p->in_state[SLOT_GRANTED] + p->queue.count;
}

static enum pool_answer acquire(struct pool *p, struct waiter *w, bool again, struct slot **ret)
{
	enum pool_answer answer = POOL_QUEUED;
	struct outbox out = { 0 };
	struct slot *s;

	assert(w->state == WAITER_IDLE);
	if (w->since_us == 0)
		w->since_us = loop_now_us(w->loop);
	pthread_mutex_lock(&p->mutex);
	s = slot_pick(p, w->loop);
	if (!s) {
		answer = queue_join(p, w, again);
	} else {
		slot_free_remove(s);
		if (s->link && s->home != w->loop) {
			slot_grant(s, w, &out);
		} else {
			slot_take(s, w->loop);
			answer = POOL_GRANTED;
			*ret = s;
		}
	}
	p->load_peak = MAX(p->load_peak, load_now(p));
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
		queue_remove(&p->queue, w);
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

void pool_give_up(struct slot *slot, pid_t worker_pid)
{
	struct pool *p = slot->pool;

	if (worker_pid == 0)
		return;
	pthread_mutex_lock(&p->mutex);
	p->given_up += slot->given_up_pid == 0;
	slot->given_up_pid = worker_pid;
	pthread_mutex_unlock(&p->mutex);
}

void pool_release_given_up(struct slot *slot)
{
	pool_give_up(slot, slot->worker_pid);
	pool_release_lost(slot);
}

bool pool_next_given_up(struct pool *p, unsigned *ret_index, pid_t *ret_pid)
{
	bool found = false;

	pthread_mutex_lock(&p->mutex);
	for (unsigned i = 0; p->given_up > 0 && !found && i < p->slot_count; i++) {
		if (p->slots[i].given_up_pid == 0)
			continue;
		*ret_pid = p->slots[i].given_up_pid;
		p->slots[i].given_up_pid = 0;
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
		slot_free_remove(s);
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
			slot_free_remove(slot);
		slot->link = NULL;
		slot->home = NULL;
		if (slot->state == SLOT_FREE && pool_is_own(p))
			slot_enter(slot, SLOT_ABSENT);
		else if (slot->state == SLOT_FREE)
			slot_free_append(slot);
	}
	pthread_mutex_unlock(&p->mutex);
	return idle;
}

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

bool pool_overstated(struct pool *p)
{
	uint64_t now_us = clock_mono_us(p->clock);
	bool tell;

	pthread_mutex_lock(&p->mutex);
	p->slots_overstated++;
	tell = p->overstated_told_us == 0 || now_us - p->overstated_told_us >= OVERSTATED_TELL_US;
	if (tell)
		p->overstated_told_us = now_us;
	pthread_mutex_unlock(&p->mutex);
	return tell;
}

const struct conf_pool *pool_conf(const struct pool *p)
{
	return p->conf;
}

bool pool_is_waited_for(const struct pool *p)
{
	return atomic_load_explicit(&p->queue.count, memory_order_relaxed) > 0;
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
		.queued = p->queue.count,
		.queue_peak = p->queue.peak,
		.streams = p->streams,
		.sockets_down = pool_sockets_down(p),
		.grants = p->grants,
		.moves = p->moves,
		.refused_full = p->refused_full,
		.slots_overstated = p->slots_overstated,
		/* a waiter of another thread may have come after our look at the clock */
		.oldest_wait_us = p->queue.head && now_us > p->queue.head->since_us ? now_us - p->queue.head->since_us : 0,
	};
	pthread_mutex_unlock(&p->mutex);
}

void pool_load(struct pool *p, struct pool_load *ret)
{
	uint64_t now_us = clock_mono_us(p->clock), waits_us = 0;

	pthread_mutex_lock(&p->mutex);
	if (p->queue.head && now_us > p->queue.head->since_us)
		waits_us = now_us - p->queue.head->since_us;
	*ret = (struct pool_load){ .delay_us = MAX(p->delay_peak_us, waits_us), .requests = p->load_peak };
	p->delay_peak_us = 0;
	p->load_peak = load_now(p);
	pthread_mutex_unlock(&p->mutex);
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
		slot_free_append(s);
	}
}

static int pool_size(struct pool *p)
{
	const struct conf_pool *c = p->conf;
	unsigned a = pool_is_own(p) ? c->processes : c->slots;
	unsigned b = pool_is_own(p) ? c->threads : (unsigned)c->socket_count;
	unsigned slots;

	if (__builtin_mul_overflow(a, b, &slots) || slots == 0 || slots > UINT_MAX / 2)
		return -EINVAL;
	p->slot_count = conf_pool_places(c);
	p->socket_count = pool_is_own(p) ? 0 : (unsigned)c->socket_count;
	p->streams_max = conf_pool_streams(c);
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
	pool_sockets_init(p);
	slots_init(p);
	*ret = p;
	return 0;
}

void pool_free(struct pool **p)
{
	struct pool *it = *p;

	if (!it)
		return;
	assert(it->in_state[SLOT_GRANTED] == 0 && it->in_state[SLOT_BUSY] == 0 && it->queue.count == 0);
	for (unsigned i = 0; i < it->socket_count; i++)
		if (it->sockets[i].loop)
			loop_timer_clear(it->sockets[i].loop, &it->sockets[i].timer);
	for (unsigned i = 0; i < it->slot_count; i++)
		if (it->slots[i].link)
			it->links->close(it->slots[i].link);
	pool_drop(it);
	*p = NULL;
}
