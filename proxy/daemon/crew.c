#include "proxy/daemon/crew.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "core/log.h"
#include "core/spool.h"
#include "proxy/client/guard.h"
#include "proxy/client/server.h"
#include "proxy/client/tls_memory.h"
#include "proxy/client/tls_shop.h"
#include "proxy/daemon/account.h"
#include "proxy/daemon/spooldir.h"
#include "proxy/observe/access_log.h"
#include "proxy/serve/poison.h"
#include "proxy/serve/route.h"
#include "upstream/link.h"
#include "upstream/supervisor.h"

struct crew_thread {
	struct crew *crew;
	struct loop *loop;
	struct server *server;
	struct access_log *access;
	pthread_t thread;
	bool runs;
	/* from the main thread to this one */
	struct mail drain, end;
	/* and back */
	struct mail drained;
};

/* A pool's started page, mapped. */
struct crew_page {
	const char *bytes;
	size_t len;
	unsigned slots;
};

struct crew {
	struct crew_options o;
	struct mailbox mailbox; /* the main thread's */
	struct route_table *routes;
	struct budget budget;
	struct spool *spool;
	struct guard *guard;
	struct tls_shop *tls;
	struct pool **pools;
	struct crew_page *pages;
	size_t pool_count;
	struct crew_thread *threads;
	unsigned undrained;
	uint64_t id_seed;
};

/* ---- the event threads' side ---- */

static void on_server_drained(void *ctx)
{
	struct crew_thread *t = ctx;

	mailbox_post(&t->crew->mailbox, &t->drained);
}

static void deliver_drain(struct mail *m)
{
	struct crew_thread *t = CONTAINER_OF(m, struct crew_thread, drain);

	server_drain(t->server, on_server_drained, t);
}

static void deliver_end(struct mail *m)
{
	struct crew_thread *t = CONTAINER_OF(m, struct crew_thread, end);

	server_cut(t->server);
	loop_stop(t->loop);
}

static void deliver_poison(struct mail *m)
{
	struct poison *p = CONTAINER_OF(m, struct poison, mail);
	struct crew *c = p->owner;

	c->o.poison(c->o.ctx, &p);
}

static void on_poison(void *ctx, struct poison **p)
{
	struct crew_thread *t = ctx;
	struct poison *it = *p;

	*p = NULL;
	it->owner = t->crew;
	it->mail.deliver = deliver_poison;
	mailbox_post(&t->crew->mailbox, &it->mail);
}

static void *thread_main(void *ctx)
{
	struct crew_thread *t = ctx;
	char name[16];

	snprintf(name, sizeof(name), "loop-%u", t->loop->index);
	prctl(PR_SET_NAME, name, 0, 0, 0);
	logger_here(t->crew->o.logger, t->loop->index);
	tls_memory_here(&t->loop->pieces);
	loop_run(t->loop);
	tls_memory_here(NULL);
	return NULL;
}

/* ---- making ---- */

static void deliver_drained(struct mail *m)
{
	struct crew *c = CONTAINER_OF(m, struct crew_thread, drained)->crew;

	if (--c->undrained == 0)
		c->o.drained(c->o.ctx);
}

static int make_mailbox(struct crew *c)
{
	return mailbox_init(&c->mailbox, c->o.base);
}

static int make_seed(struct crew *c)
{
	return getrandom(&c->id_seed, sizeof(c->id_seed), 0) == sizeof(c->id_seed) ? 0 : -EIO;
}

static int make_routes(struct crew *c)
{
	return route_table_new(c->o.conf, &c->routes);
}

static int make_guard(struct crew *c)
{
	return guard_new(c->o.connections, &c->guard);
}

static int make_tls(struct crew *c)
{
	return tls_shop_new(c->o.conf, &clock_real, &c->tls);
}

static int make_spool(struct crew *c)
{
	const struct spool_options o = {
		.dir_fd = c->o.spool_dir,
		.limit_bytes = c->o.conf->daemon.spool_limit,
		.own_file_bytes = c->o.conf->daemon.spool_own_file,
		.own_files_max = c->o.own_files,
		.threads = c->o.conf->daemon.spool_threads,
	};
	int err = spooldir_check(c->o.spool_dir);

	return err ? err : spool_new(&o, &c->spool);
}

static int make_pools(struct crew *c)
{
	size_t count = c->o.conf->pool_count;
	int err = 0;

	c->pools = calloc(MAX(count, 1), sizeof(struct pool *));
	c->pages = calloc(MAX(count, 1), sizeof(*c->pages));
	if (!c->pools || !c->pages)
		return -ENOMEM;
	for (; !err && c->pool_count < count; c->pool_count += !err)
		err = pool_new(&c->o.conf->pools[c->pool_count], &link_pool_links, &clock_real, &c->pools[c->pool_count]);
	return err;
}

static int make_thread(struct crew *c, unsigned i)
{
	struct crew_thread *t = &c->threads[i];
	struct server_options o = {
		.conf = c->o.conf,
		.routes = c->routes,
		.pools = c->pools,
		.guard = c->guard,
		.tls = c->tls,
		.id_seed = c->id_seed,
		.poison = on_poison,
		.poison_ctx = t,
	};
	int err;

	t->crew = c;
	t->drain.deliver = deliver_drain;
	t->end.deliver = deliver_end;
	t->drained.deliver = deliver_drained;
	err = loop_new(i, &clock_real, &c->budget, c->spool, &t->loop);
	if (!err)
		err = access_log_new(logger_channel(c->o.logger, i), c->o.conf->daemon.access_format, &t->access);
	o.loop = t->loop;
	o.access = strcmp(c->o.conf->daemon.access_log, "off") == 0 ? NULL : t->access;
	return err ? err : server_new(&o, &t->server);
}

static int make_threads(struct crew *c)
{
	int err = 0;

	c->threads = calloc(c->o.threads, sizeof(*c->threads));
	if (!c->threads)
		return -ENOMEM;
	for (unsigned i = 0; !err && i < c->o.threads; i++)
		err = make_thread(c, i);
	return err;
}

/* In this order; each stands on those before it. */
static const struct step {
	const char *what;
	int (*make)(struct crew *c);
} steps[] = {
	{ "mailbox", make_mailbox },
	{ "random numbers", make_seed },
	{ "routes", make_routes },
	{ "guard", make_guard },
	{ "TLS", make_tls },
	{ "spool directory", make_spool },
	{ "pools", make_pools },
	{ "event threads", make_threads },
};

int crew_new(const struct crew_options *o, struct crew **ret, const char **ret_what)
{
	struct crew *c = calloc(1, sizeof(*c));
	int err = 0;

	*ret_what = "crew";
	if (!c)
		return -ENOMEM;
	*c = (struct crew){ .o = *o, .mailbox.fd = -1 };
	budget_init(&c->budget, o->memory_bytes);
	for (size_t i = 0; !err && i < ARRAY_LEN(steps); i++) {
		*ret_what = steps[i].what;
		err = steps[i].make(c);
	}
	if (err)
		crew_free(&c);
	else
		*ret = c;
	return err;
}

/* ---- what the master sends ---- */

int crew_listen(struct crew *c, unsigned thread, size_t listen, size_t address, int *fd)
{
	const struct conf_listen *l;

	if (thread >= c->o.threads || listen >= c->o.conf->listen_count || address >= c->o.conf->listens[listen].address_count)
		return -EINVAL;
	l = &c->o.conf->listens[listen];
	return server_listen(c->threads[thread].server, l, &l->addresses[address], fd);
}

int crew_tls(struct crew *c, struct slice bytes, struct buf *errors)
{
	return tls_shop_adopt(c->tls, bytes, errors);
}

int crew_start(struct crew *c)
{
	int err = 0;

	for (unsigned i = 0; !err && i < c->o.threads; i++) {
		struct crew_thread *t = &c->threads[i];

		err = -pthread_create(&t->thread, NULL, thread_main, t);
		t->runs = !err;
	}
	return err;
}

int crew_page(struct crew *c, size_t pool, unsigned slots, int fd)
{
	struct stat st;
	void *bytes;

	if (pool >= c->pool_count || c->pages[pool].bytes)
		return -EINVAL;
	if (fstat(fd, &st) == -1)
		return -errno;
	if (st.st_size < (off_t)slots * STARTED_LINE_BYTES)
		return -EINVAL;
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED)
		return -errno;
	c->pages[pool] = (struct crew_page){ .bytes = bytes, .len = (size_t)st.st_size, .slots = slots };
	return 0;
}

int crew_slot(struct crew *c, size_t pool, unsigned slot, pid_t pid, int *fd)
{
	const _Atomic uint64_t *started;
	struct link *link;
	int err;

	if (pool >= c->pool_count || slot >= c->pages[pool].slots)
		return -EINVAL;
	started = (const void *)(c->pages[pool].bytes + (size_t)slot * STARTED_LINE_BYTES);
	/* Serials go on above all that an earlier front has used. */
	err = link_wrap(fd, started, (uint64_t)clock_wall_us(&clock_real), &link);
	if (err)
		return err;
	pool_attach(c->pools[pool], slot, link, c->threads[slot % c->o.threads].loop, pid);
	return 0;
}

bool crew_next_given_up(struct crew *c, struct channel_message *ret)
{
	unsigned slot;
	pid_t pid;

	for (size_t i = 0; i < c->pool_count; i++) {
		if (!pool_next_given_up(c->pools[i], &slot, &pid))
			continue;
		*ret = (struct channel_message){ .type = CHANNEL_REPLACE, .u.replace = { (uint32_t)i, slot, pid } };
		return true;
	}
	return false;
}

static bool pool_varies(const struct pool *p)
{
	const struct conf_pool *conf = pool_conf(p);

	return conf->app != APP_NONE && conf_pool_processes_min(conf) < conf->processes;
}

bool crew_has_load(const struct crew *c)
{
	for (size_t i = 0; i < c->pool_count; i++)
		if (pool_varies(c->pools[i]))
			return true;
	return false;
}

bool crew_next_load(struct crew *c, size_t *pool, bool all, struct channel_message *ret)
{
	struct pool_load load;

	for (size_t i = *pool; i < c->pool_count; i++) {
		if (!pool_varies(c->pools[i]))
			continue;
		pool_load(c->pools[i], &load);
		if (!all && load.requests == 0)
			continue;
		*ret =
		    (struct channel_message){ .type = CHANNEL_LOAD, .u.load = { load.delay_us, (uint32_t)i, load.requests } };
		*pool = i + 1;
		return true;
	}
	return false;
}

void crew_drain(struct crew *c)
{
	c->undrained = c->o.threads;
	for (unsigned i = 0; i < c->o.threads; i++)
		mailbox_post(&c->threads[i].loop->mailbox, &c->threads[i].drain);
}

void crew_figures(struct crew *c, struct channel_message *ret)
{
	struct spool_figures spool;

	*ret = (struct channel_message){ .type = CHANNEL_TICK };
	for (unsigned i = 0; i < c->o.threads; i++) {
		ret->u.tick.ticks[i] = atomic_load_explicit(&c->threads[i].loop->ticks, memory_order_relaxed);
		ret->u.tick.stalls += atomic_load_explicit(&c->threads[i].loop->stalls, memory_order_relaxed);
	}
	for (size_t i = 0; i < c->pool_count; i++) {
		struct pool_figures p;

		pool_figures(c->pools[i], &p);
		ret->u.tick.queued += p.queued;
		ret->u.tick.busy += p.busy + p.granted;
		ret->u.tick.slots += conf_pool_slots(pool_conf(c->pools[i]));
	}
	spool_figures(c->spool, &spool);
	ret->u.tick.spool_bytes = spool.bytes;
	ret->u.tick.memory_bytes = atomic_load_explicit(&c->budget.leased, memory_order_relaxed);
	ret->u.tick.log_dropped = logger_dropped(c->o.logger);
	ret->u.tick.connections = guard_connections(c->guard);
}

/* ---- the end ---- */

static void tell_stalls(const struct crew *c)
{
	unsigned stalls = 0;

	for (unsigned i = 0; i < c->o.threads; i++)
		stalls += atomic_load_explicit(&c->threads[i].loop->stalls, memory_order_relaxed);
	if (stalls > 0)
		log_warning("event=loop_stalls count=%u", stalls);
}

void crew_end(struct crew *c)
{
	for (unsigned i = 0; i < c->o.threads; i++)
		if (c->threads[i].runs)
			mailbox_post(&c->threads[i].loop->mailbox, &c->threads[i].end);
	for (unsigned i = 0; i < c->o.threads; i++)
		if (c->threads[i].runs)
			pthread_join(c->threads[i].thread, NULL);
	mailbox_drain(&c->mailbox); /* the last that they posted */
	tell_stalls(c);
}

bool crew_is_at_rest(const struct crew *c)
{
	struct pool_figures p;

	for (size_t i = 0; i < c->pool_count; i++) {
		pool_figures(c->pools[i], &p);
		if (p.granted + p.busy + p.queued > 0)
			return false;
	}
	return true;
}

/* The mails of one may be for another, and the disk's are still to come. */
static void settle(struct crew *c)
{
	size_t delivered;

	do {
		delivered = 0;
		for (unsigned i = 0; i < c->o.threads; i++)
			delivered += loop_settle(c->threads[i].loop);
	} while (delivered > 0);
	spool_stop(c->spool);
}

static unsigned account_thread(struct crew_thread *t, size_t *ret_unused)
{
	const struct loop *l = t->loop;

	*ret_unused = l->lease.held - l->lease.used;
	return account("thread", l->index, "clients", server_clients(t->server)) +
	       account("thread", l->index, "memory", l->lease.used) + account("thread", l->index, "blocks", l->blocks_out);
}

static unsigned account_pool(struct pool *p)
{
	struct pool_figures f;

	pool_figures(p, &f);
	return account("pool", pool_conf(p)->index, "slots", f.slots - f.free - f.absent) +
	       account("pool", pool_conf(p)->index, "queue", f.queued) +
	       account("pool", pool_conf(p)->index, "streams", f.streams);
}

static unsigned account_spool(struct crew *c)
{
	struct spool_figures f;

	spool_figures(c->spool, &f);
	return account("spool", 0, "bytes", f.bytes) + account("spool", 0, "extents", f.extents) +
	       account("spool", 0, "own_files", f.own_files) + account("spool", 0, "jobs", f.jobs);
}

unsigned crew_account(struct crew *c)
{
	size_t leased, unused;
	unsigned wrong = 0;

	settle(c);
	leased = atomic_load_explicit(&c->budget.leased, memory_order_relaxed);
	for (unsigned i = 0; i < c->o.threads; i++) {
		wrong += account_thread(&c->threads[i], &unused);
		leased -= unused;
	}
	for (size_t i = 0; i < c->pool_count; i++)
		wrong += account_pool(c->pools[i]);
	wrong += account_spool(c);
	wrong += account("budget", 0, "leased", leased);
	wrong += account("guard", 0, "connections", guard_connections(c->guard));
	/* Ours and the front's, or more where an exchange has kept it. */
	wrong += account("conf", 0, "references", atomic_load(&c->o.conf->refs) - 1);
	return wrong;
}

static void free_threads(struct crew *c)
{
	for (unsigned i = 0; c->threads && i < c->o.threads; i++)
		server_free(&c->threads[i].server);
	for (size_t i = 0; i < c->pool_count; i++)
		pool_free(&c->pools[i]);
	for (unsigned i = 0; c->threads && i < c->o.threads; i++) {
		access_log_free(&c->threads[i].access);
		loop_free(&c->threads[i].loop);
	}
	free(c->threads);
}

void crew_free(struct crew **crew)
{
	struct crew *c = *crew;

	if (!c)
		return;
	free_threads(c);
	for (size_t i = 0; i < c->pool_count; i++)
		if (c->pages[i].bytes)
			munmap((void *)(uintptr_t)c->pages[i].bytes, c->pages[i].len);
	free(c->pages);
	free(c->pools);
	spool_free(&c->spool);
	guard_free(&c->guard);
	tls_shop_free(&c->tls);
	route_table_free(&c->routes);
	mailbox_done(&c->mailbox);
	free(c);
	*crew = NULL;
}
