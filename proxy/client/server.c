#include "proxy/client/server.h"

#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"
#include "proxy/client/crowd.h"
#include "proxy/client/listener.h"
#include "proxy/serve/context.h"

#define PRESSED_MS        250
#define CARE_MS           1000
#define EVICTIONS_AT_ONCE 64
#define TIGHT_GRACE_MS    10000
#define EVICT_GRACE_MS    1000

struct server {
	struct context cx;
	struct crowd crowd;
	struct listener **listeners;
	size_t listener_count;
	struct timer care;
	void (*drained)(void *ctx);
	void *drained_ctx;
	bool drain_told;
};

static void server_check_drained(struct server *s)
{
	if (!s->cx.draining || s->drain_told || s->crowd.count > 0)
		return;
	s->drain_told = true;
	if (s->drained)
		s->drained(s->drained_ctx);
}

static void client_left(void *ctx)
{
	struct server *s = ctx;

	for (size_t i = 0; i < s->listener_count; i++)
		listener_room(s->listeners[i]);
	server_check_drained(s);
}

/* One connection less: at the ceiling one that is idle, then the slowest; before it only one that is slow for long. */
static bool evict_one(struct server *s, enum budget_pressure pressure)
{
	uint64_t now = loop_now_ms(s->cx.loop);

	if (pressure == BUDGET_TIGHT)
		return crowd_evict_slowest(&s->crowd, now, TIGHT_GRACE_MS, "memory_limit");
	return crowd_evict_idle(&s->crowd, now, "memory_limit") ||
	       crowd_evict_slowest(&s->crowd, now, EVICT_GRACE_MS, "memory_limit");
}

/* Memory: what waits for clients goes to disk, then connections go (DESIGN: ceilings). */
static void server_care(struct timer *t)
{
	struct server *s = CONTAINER_OF(t, struct server, care);
	struct budget *budget = s->cx.loop->lease.budget;
	enum budget_pressure pressure = budget_pressure(budget);

	loop_timer_set(s->cx.loop, &s->care, pressure == BUDGET_EASY ? CARE_MS : PRESSED_MS);
	if (pressure == BUDGET_EASY)
		return;
	crowd_spill(&s->crowd);
	for (int i = 0; i < EVICTIONS_AT_ONCE; i++) {
		pressure = budget_pressure(budget);
		if (pressure < BUDGET_TIGHT || !evict_one(s, pressure))
			return;
	}
}

int server_new(const struct server_options *o, struct server **ret)
{
	struct server *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->cx = (struct context){
		.loop = o->loop,
		.conf = o->conf,
		.routes = o->routes,
		.pools = o->pools,
		.access = o->access,
		.guard = o->guard,
		.tls = o->tls,
		.crowd = &s->crowd,
		.poison = o->poison,
		.poison_ctx = o->poison_ctx,
		.left = client_left,
		.left_ctx = s,
	};
	request_ids_init(&s->cx.ids, o->id_seed, o->loop->index);
	crowd_init(&s->crowd);
	s->care.fire = server_care;
	loop_timer_set(o->loop, &s->care, CARE_MS);
	*ret = s;
	return 0;
}

static void server_stop_listening(struct server *s)
{
	for (size_t i = 0; i < s->listener_count; i++)
		listener_free(&s->listeners[i]);
	s->listener_count = 0;
}

void server_free(struct server **s)
{
	struct server *old = *s;

	*s = NULL;
	if (!old)
		return;
	old->drain_told = true;
	server_stop_listening(old);
	server_cut(old);
	loop_timer_clear(old->cx.loop, &old->care);
	free(old->listeners);
	free(old);
}

int server_listen(struct server *s, const struct conf_listen *listen, const struct conf_address *address, int *fd)
{
	struct listener **more = reallocarray(s->listeners, s->listener_count + 1, sizeof(*more));
	int err;

	if (!more) {
		close(*fd);
		*fd = -1;
		return -ENOMEM;
	}
	s->listeners = more;
	err = listener_new(&s->cx, listen, address, fd, &s->listeners[s->listener_count]);
	if (!err)
		s->listener_count++;
	return err;
}

void server_drain(struct server *s, void (*drained)(void *ctx), void *ctx)
{
	s->drained = drained;
	s->drained_ctx = ctx;
	s->cx.draining = true;
	s->drain_told = true; /* who makes room for one that is taken in may be the last, for a moment */
	for (size_t i = 0; i < s->listener_count; i++)
		listener_take_all(s->listeners[i]);
	server_stop_listening(s);
	s->drain_told = false;
	crowd_evict_quiet(&s->crowd, "drain");
	crowd_drain(&s->crowd);
	server_check_drained(s);
}

void server_cut(struct server *s)
{
	for (enum crowd_list which = CROWD_IDLE; which < CROWD_LIST_COUNT; which++)
		crowd_evict_all(&s->crowd, which, "cut at the end of drain_timeout");
}

unsigned server_clients(const struct server *s)
{
	return s->crowd.count;
}
