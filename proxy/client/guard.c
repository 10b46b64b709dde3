#include "proxy/client/guard.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define GUARD_SHARDS      64
#define GUARD_BUCKETS_MIN 16   /* of one shard */
#define GUARD_BUCKETS_MAX 2048 /* of one shard: beyond some 100,000 addresses the chains grow */

/* What is one address: an IPv4 address, or the first half of an IPv6 one. */
struct key {
	uint64_t bits;
	bool v6;
};

struct place {
	struct place *next;
	struct key key;
	unsigned count;
};

/* A mutex for each, held for a walk along one chain and never across a system call. */
struct shard {
	_Alignas(64) pthread_mutex_t mutex;
	struct place **buckets;
};

struct guard {
	_Alignas(64) atomic_uint connections;
	unsigned connections_max;
	unsigned bucket_mask;
	uint64_t secret[2]; /* so that nobody can choose addresses that share a chain */
	struct shard shards[GUARD_SHARDS];
};

static unsigned buckets_for(unsigned connections_max)
{
	unsigned n = GUARD_BUCKETS_MIN;

	while (n < GUARD_BUCKETS_MAX && n < connections_max / GUARD_SHARDS)
		n *= 2;
	return n;
}

int guard_new(unsigned connections_max, struct guard **ret)
{
	struct guard *g = aligned_alloc(_Alignof(struct guard), sizeof(*g));
	unsigned buckets = buckets_for(connections_max);

	if (!g)
		return -ENOMEM;
	memset(g, 0, sizeof(*g));
	g->connections_max = connections_max;
	g->bucket_mask = buckets - 1;
	for (size_t i = 0; i < GUARD_SHARDS; i++)
		pthread_mutex_init(&g->shards[i].mutex, NULL);
	if (getrandom(g->secret, sizeof(g->secret), 0) != sizeof(g->secret)) {
		guard_free(&g);
		return -EIO;
	}
	for (size_t i = 0; i < GUARD_SHARDS; i++) {
		g->shards[i].buckets = calloc(buckets, sizeof(*g->shards[i].buckets));
		if (!g->shards[i].buckets) {
			guard_free(&g);
			return -ENOMEM;
		}
	}
	*ret = g;
	return 0;
}

static void chain_free(struct place *p)
{
	while (p) {
		struct place *next = p->next;

		free(p);
		p = next;
	}
}

void guard_free(struct guard **guard)
{
	struct guard *g = *guard;

	*guard = NULL;
	if (!g)
		return;
	for (size_t i = 0; i < GUARD_SHARDS; i++) {
		struct shard *s = &g->shards[i];

		for (size_t b = 0; s->buckets && b <= g->bucket_mask; b++)
			chain_free(s->buckets[b]);
		free(s->buckets);
		pthread_mutex_destroy(&s->mutex);
	}
	free(g);
}

static struct key key_of_v4(const void *four_bytes)
{
	uint32_t bits;

	memcpy(&bits, four_bytes, sizeof(bits));
	return (struct key){ .bits = bits };
}

static struct key key_of_v6(const struct in6_addr *addr)
{
	struct key key = { .v6 = true };

	if (IN6_IS_ADDR_V4MAPPED(addr))
		return key_of_v4(addr->s6_addr + 12);
	memcpy(&key.bits, addr->s6_addr, sizeof(key.bits));
	return key;
}

/* False: peers of this kind have no address to count by. */
static bool key_from(const struct sockaddr *peer, struct key *ret)
{
	switch (peer->sa_family) {
	case AF_INET:
		*ret = key_of_v4(&((const struct sockaddr_in *)(const void *)peer)->sin_addr);
		return true;
	case AF_INET6:
		*ret = key_of_v6(&((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr);
		return true;
	default:
		return false;
	}
}

static bool key_eq(struct key a, struct key b)
{
	return a.bits == b.bits && a.v6 == b.v6;
}

/* Two rounds of multiply and fold, each with a secret of its own. */
static uint64_t key_hash(const struct guard *g, struct key key)
{
	uint64_t x = (key.bits ^ g->secret[0]) + key.v6;

	x = (x ^ (x >> 32)) * UINT64_C(0xd6e8feb86659fd93);
	x = ((x ^ (x >> 32)) + g->secret[1]) * UINT64_C(0xd6e8feb86659fd93);
	return x ^ (x >> 32);
}

static struct shard *shard_of(struct guard *g, uint64_t hash)
{
	return &g->shards[hash % GUARD_SHARDS];
}

/* Where the pointer to the key's place stands, or would stand. */
static struct place **find(const struct guard *g, const struct shard *s, struct key key, uint64_t hash)
{
	struct place **at = &s->buckets[(hash / GUARD_SHARDS) & g->bucket_mask];

	while (*at && !key_eq((*at)->key, key))
		at = &(*at)->next;
	return at;
}

static enum guard_answer address_enter(struct guard *g, struct key key, unsigned per_address)
{
	uint64_t hash = key_hash(g, key);
	struct shard *s = shard_of(g, hash);
	struct place *fresh = malloc(sizeof(*fresh)); /* before the lock: it may ask the kernel */
	struct place **at;
	enum guard_answer answer = GUARD_OK;

	pthread_mutex_lock(&s->mutex);
	at = find(g, s, key, hash);
	if (!*at && fresh) {
		*fresh = (struct place){ .key = key };
		*at = fresh;
		fresh = NULL;
	}
	if (!*at)
		answer = GUARD_NO_MEMORY;
	else if ((*at)->count >= per_address)
		answer = GUARD_ADDRESS_FULL;
	else
		(*at)->count++;
	pthread_mutex_unlock(&s->mutex);
	free(fresh);
	return answer;
}

static void address_leave(struct guard *g, struct key key)
{
	uint64_t hash = key_hash(g, key);
	struct shard *s = shard_of(g, hash);
	struct place **at, *gone = NULL;

	pthread_mutex_lock(&s->mutex);
	at = find(g, s, key, hash);
	assert(*at && (*at)->count > 0);
	if (--(*at)->count == 0) {
		gone = *at;
		*at = gone->next;
	}
	pthread_mutex_unlock(&s->mutex);
	free(gone);
}

/* The number never goes above the maximum, not even for a moment. */
bool guard_take_place(struct guard *g)
{
	unsigned n = atomic_load_explicit(&g->connections, memory_order_relaxed);

	do {
		if (n >= g->connections_max)
			return false;
	} while (
	    !atomic_compare_exchange_weak_explicit(&g->connections, &n, n + 1, memory_order_relaxed, memory_order_relaxed));
	return true;
}

void guard_return_place(struct guard *g)
{
	unsigned before UNUSED = atomic_fetch_sub_explicit(&g->connections, 1, memory_order_relaxed);

	assert(before > 0);
}

enum guard_answer guard_enter(struct guard *g, const struct sockaddr *peer, unsigned per_address)
{
	struct key key;
	enum guard_answer answer;

	if (per_address == 0 || !key_from(peer, &key))
		return GUARD_OK;
	answer = address_enter(g, key, per_address);
	if (answer != GUARD_OK)
		guard_return_place(g);
	return answer;
}

void guard_leave(struct guard *g, const struct sockaddr *peer, unsigned per_address)
{
	struct key key;

	if (per_address != 0 && key_from(peer, &key))
		address_leave(g, key);
	guard_return_place(g);
}

unsigned guard_connections(const struct guard *g)
{
	return atomic_load_explicit(&g->connections, memory_order_relaxed);
}
