#include "upstream/slots.h"

/* The sockets of others' workers, and their rest when one refuses. */

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
			slot_free_remove(s);
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

bool pool_socket_down(struct slot *slot, struct loop *loop)
{
	struct pool *p = slot->pool;
	struct socket *k = &p->sockets[slot->socket];
	uint64_t rest_ms = 0;
	bool was_up;

	assert(!pool_is_own(p) && !slot->link);
	slot->home = NULL;
	pthread_mutex_lock(&p->mutex);
	was_up = k->state == SOCKET_UP;
	if (was_up || k->probe == slot) {
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
	return was_up;
}

bool pool_socket_up(struct slot *slot)
{
	struct pool *p = slot->pool;
	struct outbox out = { 0 };
	struct socket *k;
	bool was_down;

	if (pool_is_own(p))
		return false;
	k = &p->sockets[slot->socket];
	if (atomic_load_explicit(&k->state, memory_order_relaxed) == SOCKET_UP)
		return false;
	pthread_mutex_lock(&p->mutex);
	was_down = k->state != SOCKET_UP;
	k->state = SOCKET_UP;
	k->probe = NULL;
	k->backoff_ms = 0;
	for (unsigned i = 0; i < p->slot_count; i++)
		if (p->slots[i].socket == slot->socket && p->slots[i].state == SLOT_ABSENT)
			slot_place(&p->slots[i], &out);
	pthread_mutex_unlock(&p->mutex);
	outbox_post(&out, slot->to);
	return was_down;
}

unsigned pool_sockets_down(const struct pool *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->socket_count; i++)
		n += p->sockets[i].state != SOCKET_UP;
	return n;
}

void pool_sockets_init(struct pool *p)
{
	for (unsigned i = 0; i < p->socket_count; i++) {
		p->sockets[i].pool = p;
		p->sockets[i].timer.fire = socket_timer;
	}
}
