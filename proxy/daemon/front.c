#include "proxy/daemon/front.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/spool.h"
#include "proxy/client/guard.h"
#include "proxy/daemon/channel.h"
#include "proxy/daemon/sandbox.h"
#include "proxy/daemon/spooldir.h"
#include "proxy/observe/access_log.h"
#include "proxy/observe/logger.h"
#include "proxy/serve/route.h"
#include "proxy/client/server.h"
#include "upstream/link.h"
#include "upstream/supervisor.h"

#define TICK_MS      500
#define LOG_FLUSH_MS 1000
#define QUEUE_MAX    1024 /* messages to the master */
#define ERRORS_MAX   (64u << 10)

/* What the master has sent decides what may come next. */
enum front_state {
	FRONT_WAITING,  /* for limits, logs, spool directory, configuration */
	FRONT_BUILT,    /* all is there but the listeners */
	FRONT_SERVING,  /* the threads run */
	FRONT_DRAINING, /* no new connections */
	FRONT_DRAINED,  /* nothing left: the master ends us */
	FRONT_ENDING,
	FRONT_STATE_COUNT,
};

static const unsigned may_follow[] = {
	[FRONT_WAITING] = TO(FRONT_BUILT) | TO(FRONT_ENDING),
	[FRONT_BUILT] = TO(FRONT_SERVING) | TO(FRONT_ENDING),
	[FRONT_SERVING] = TO(FRONT_DRAINING) | TO(FRONT_ENDING),
	[FRONT_DRAINING] = TO(FRONT_DRAINED) | TO(FRONT_ENDING),
	[FRONT_DRAINED] = TO(FRONT_ENDING),
	[FRONT_ENDING] = 0,
};
static_assert(ARRAY_LEN(may_follow) == FRONT_STATE_COUNT, "a row for each state");

struct front_thread {
	struct front *front;
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
struct front_page {
	const char *bytes;
	size_t len;
	unsigned slots;
};

struct front {
	enum front_state state;
	int status; /* to exit with */
	struct event_base *base;
	struct event tick;
	struct mailbox mailbox; /* the main thread's */
	struct channel *channel;
	struct channel_message limits;
	struct conf *conf;
	struct route_table *routes;
	struct logger *logger;
	struct budget budget;
	int spool_dir;
	struct spool *spool;
	struct guard *guard;
	struct pool **pools;
	struct front_page *pages;
	size_t pool_count;
	struct front_thread *threads;
	unsigned thread_count, undrained;
	uint64_t id_seed;
};

static void enter(struct front *f, enum front_state next)
{
	assert(may_follow[f->state] & TO(next));
	f->state = next;
	if (next == FRONT_ENDING)
		event_base_loopbreak(f->base);
}

/* The main thread's end: what is there is taken down in front_main. */
static void end(struct front *f, int status)
{
	if (f->state == FRONT_ENDING)
		return;
	f->status = status;
	enter(f, FRONT_ENDING);
}

static void refuse(struct front *f, struct slice why)
{
	struct channel_message m;

	channel_text(&m, CHANNEL_REFUSED, why);
	if (channel_send(f->channel, &m, NULL) != 0)
		log_error("event=refused why=\"%.*s\"", SLICE_ARG(why));
	end(f, 1);
}

static void refuse_errno(struct front *f, const char *what, int err)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "%s: %s", what, strerror(-err));

	refuse(f, slice_of(text, MIN((size_t)n, sizeof(text) - 1)));
}

/* The master does not keep to what was agreed: a mistake of our own. */
static void broken(struct front *f, const char *what)
{
	log_error("event=channel_broken what=\"%s\" state=%d", what, (int)f->state);
	end(f, 1);
}

/* ---- the event threads' side ---- */

static void on_server_drained(void *ctx)
{
	struct front_thread *t = ctx;

	mailbox_post(&t->front->mailbox, &t->drained);
}

static void deliver_drain(struct mail *m)
{
	struct front_thread *t = CONTAINER_OF(m, struct front_thread, drain);

	server_drain(t->server, on_server_drained, t);
}

static void deliver_end(struct mail *m)
{
	struct front_thread *t = CONTAINER_OF(m, struct front_thread, end);

	server_cut(t->server);
	loop_stop(t->loop);
}

static void *thread_main(void *ctx)
{
	struct front_thread *t = ctx;
	char name[16];

	snprintf(name, sizeof(name), "loop-%u", t->loop->index);
	prctl(PR_SET_NAME, name, 0, 0, 0);
	logger_here(t->front->logger, t->loop->index);
	loop_run(t->loop);
	return NULL;
}

/* ---- building ---- */

static void deliver_drained(struct mail *m)
{
	struct front_thread *t = CONTAINER_OF(m, struct front_thread, drained);
	struct front *f = t->front;
	struct channel_message message = { .type = CHANNEL_DRAINED };

	f->undrained--;
	if (f->undrained > 0 || f->state != FRONT_DRAINING)
		return;
	enter(f, FRONT_DRAINED);
	if (channel_send(f->channel, &message, NULL) != 0)
		end(f, 1);
}

static int build_spool(struct front *f)
{
	const struct spool_options o = {
		.dir_fd = f->spool_dir,
		.limit_bytes = f->conf->daemon.spool_limit,
		.own_file_bytes = f->conf->daemon.spool_own_file,
		.own_files_max = f->limits.u.limits.own_files,
		.threads = f->conf->daemon.spool_threads,
	};
	int err = spooldir_check(f->spool_dir);

	return err ? err : spool_new(&o, &f->spool);
}

static int build_pools(struct front *f)
{
	int err = 0;

	f->pools = calloc(MAX(f->conf->pool_count, 1), sizeof(*f->pools));
	f->pages = calloc(MAX(f->conf->pool_count, 1), sizeof(*f->pages));
	if (!f->pools || !f->pages)
		return -ENOMEM;
	for (; !err && f->pool_count < f->conf->pool_count; f->pool_count += !err)
		err = pool_new(&f->conf->pools[f->pool_count], &link_pool_links, &clock_real, &f->pools[f->pool_count]);
	return err;
}

static int build_thread(struct front *f, unsigned i)
{
	struct front_thread *t = &f->threads[i];
	struct server_options o = {
		.conf = f->conf,
		.routes = f->routes,
		.pools = f->pools,
		.guard = f->guard,
		.id_seed = f->id_seed,
	};
	int err;

	t->front = f;
	t->drain.deliver = deliver_drain;
	t->end.deliver = deliver_end;
	t->drained.deliver = deliver_drained;
	err = loop_new(i, &clock_real, &f->budget, f->spool, &t->loop);
	if (!err)
		err = access_log_new(logger_channel(f->logger, i), f->conf->daemon.access_format, &t->access);
	o.loop = t->loop;
	o.access = strcmp(f->conf->daemon.access_log, "off") == 0 ? NULL : t->access;
	return err ? err : server_new(&o, &t->server);
}

static int build_threads(struct front *f)
{
	int err = 0;

	for (unsigned i = 0; !err && i < f->thread_count; i++)
		err = build_thread(f, i);
	return err;
}

static int build_seed(struct front *f)
{
	return getrandom(&f->id_seed, sizeof(f->id_seed), 0) == sizeof(f->id_seed) ? 0 : -EIO;
}

static int build_routes(struct front *f)
{
	return route_table_new(f->conf, &f->routes);
}

static int build_guard(struct front *f)
{
	return guard_new(f->limits.u.limits.connections, &f->guard);
}

/* In this order; each stands on those before it. */
static const struct build_step {
	const char *what;
	int (*build)(struct front *f);
} build_steps[] = {
	{ "random numbers", build_seed },
	{ "routes", build_routes },
	{ "guard", build_guard },
	{ "spool directory", build_spool },
	{ "pools", build_pools },
	{ "event threads", build_threads },
};

static void build(struct front *f)
{
	budget_init(&f->budget, f->limits.u.limits.memory_bytes);
	for (size_t i = 0; i < ARRAY_LEN(build_steps); i++) {
		int err = build_steps[i].build(f);

		if (err) {
			refuse_errno(f, build_steps[i].what, err);
			return;
		}
	}
	enter(f, FRONT_BUILT);
}

/* ---- what the master says ---- */

static void take_limits(struct front *f, const struct channel_message *m, int *fd UNUSED)
{
	int err;

	if (f->threads || m->u.limits.threads == 0 || m->u.limits.threads > CHANNEL_THREADS_MAX) {
		broken(f, "limits");
		return;
	}
	f->limits = *m;
	f->thread_count = m->u.limits.threads;
	f->threads = calloc(f->thread_count, sizeof(*f->threads));
	err = f->threads ? logger_new(f->thread_count, m->u.limits.log_ring_bytes, &f->logger) : -ENOMEM;
	if (err) {
		refuse_errno(f, "log thread", err);
		return;
	}
	log_setup("front", (enum log_level)m->u.limits.log_level, logger_sink, f->logger);
}

static void take_log(struct front *f, const struct channel_message *m, int *fd)
{
	if (!f->logger || m->u.log.to >= LOGGER_TO_COUNT || m->u.log.kind > LOGGER_SYSLOG)
		broken(f, "log");
	else
		logger_set(f->logger, (enum logger_to)m->u.log.to, (enum logger_kind)m->u.log.kind, fd);
}

static void take_spool(struct front *f, const struct channel_message *m UNUSED, int *fd)
{
	if (f->spool_dir != -1) {
		broken(f, "spool");
		return;
	}
	f->spool_dir = *fd;
	*fd = -1;
}

/* The whole file into `text`, which the caller has made. */
static int read_conf(int fd, struct buf *text)
{
	struct stat st;
	char *room;

	if (fstat(fd, &st) == -1)
		return -errno;
	room = st.st_size >= 0 ? buf_room(text, (size_t)st.st_size + 1) : NULL;
	if (!room)
		return -E2BIG;
	/* The offset is shared with the fronts before us. */
	while (text->len < (size_t)st.st_size) {
		ssize_t n = pread(fd, room + text->len, (size_t)st.st_size - text->len, (off_t)text->len);

		if (n <= 0)
			return n == 0 ? -EIO : -errno;
		text->len += (size_t)n;
	}
	return 0;
}

static void take_conf(struct front *f, const struct channel_message *m, int *fd)
{
	struct buf text, errors;
	int err;

	if (f->conf || !f->logger || f->spool_dir == -1) {
		broken(f, "conf");
		return;
	}
	buf_init(&text, CONF_FILE_MAX + 1);
	buf_init(&errors, ERRORS_MAX);
	err = read_conf(*fd, &text);
	if (!err)
		err = conf_parse(m->u.text, buf_slice(&text), &errors, &f->conf);
	if (err && errors.len > 0)
		refuse(f, buf_slice(&errors));
	else if (err)
		refuse_errno(f, "configuration", err);
	else
		build(f);
	buf_done(&errors);
	buf_done(&text);
}

static void take_listener(struct front *f, const struct channel_message *m, int *fd)
{
	const struct conf_listen *listen;
	int err;

	if (f->state != FRONT_BUILT || m->u.listener.thread >= f->thread_count ||
	    m->u.listener.listen >= f->conf->listen_count ||
	    m->u.listener.address >= f->conf->listens[m->u.listener.listen].address_count) {
		broken(f, "listener");
		return;
	}
	listen = &f->conf->listens[m->u.listener.listen];
	err = server_listen(f->threads[m->u.listener.thread].server, listen, &listen->addresses[m->u.listener.address], fd);
	if (err)
		refuse_errno(f, "listener", err);
}

static int start_threads(struct front *f)
{
	int err = 0;

	for (unsigned i = 0; !err && i < f->thread_count; i++) {
		struct front_thread *t = &f->threads[i];

		err = -pthread_create(&t->thread, NULL, thread_main, t);
		t->runs = !err;
	}
	return err;
}

static void take_go(struct front *f, const struct channel_message *m UNUSED, int *fd UNUSED)
{
	const struct timeval every = { .tv_usec = TICK_MS * 1000 };
	struct channel_message adopted = { .type = CHANNEL_ADOPTED };
	int err;

	if (f->state != FRONT_BUILT) {
		broken(f, "go");
		return;
	}
	err = start_threads(f);
	if (!err)
		err = channel_send(f->channel, &adopted, NULL);
	if (!err && event_add(&f->tick, &every))
		err = -ENOMEM;
	if (err)
		refuse_errno(f, "event threads", err);
	else
		enter(f, FRONT_SERVING);
}

static void take_page(struct front *f, const struct channel_message *m, int *fd)
{
	struct front_page *page;
	struct stat st;
	void *bytes;

	if (f->state < FRONT_SERVING || m->u.page.pool >= f->pool_count || f->pages[m->u.page.pool].bytes ||
	    fstat(*fd, &st) == -1 || st.st_size < (off_t)m->u.page.slots * STARTED_LINE_BYTES) {
		broken(f, "page");
		return;
	}
	page = &f->pages[m->u.page.pool];
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, *fd, 0);
	if (bytes == MAP_FAILED) {
		broken(f, "page");
		return;
	}
	*page = (struct front_page){ .bytes = bytes, .len = (size_t)st.st_size, .slots = m->u.page.slots };
}

static void take_slot(struct front *f, const struct channel_message *m, int *fd)
{
	const struct front_page *page;
	const _Atomic uint64_t *started;
	struct link *link;
	int err;

	if (f->state < FRONT_SERVING || m->u.slot.pool >= f->pool_count || m->u.slot.slot >= f->pages[m->u.slot.pool].slots) {
		broken(f, "slot");
		return;
	}
	page = &f->pages[m->u.slot.pool];
	started = (const void *)(page->bytes + (size_t)m->u.slot.slot * STARTED_LINE_BYTES);
	/* Serials go on above all that an earlier front has used. */
	err = link_wrap(fd, started, (uint64_t)clock_wall_us(&clock_real), &link);
	if (err) {
		/* The worker sees the end of its socket and asks for another. */
		log_error("event=slot_lost pool=%s slot=%" PRIu32 " error=\"%s\"", pool_conf(f->pools[m->u.slot.pool])->name,
		    m->u.slot.slot, strerror(-err));
		return;
	}
	pool_attach(
	    f->pools[m->u.slot.pool], m->u.slot.slot, link, f->threads[m->u.slot.slot % f->thread_count].loop, m->u.slot.pid);
}

static void take_drain(struct front *f, const struct channel_message *m UNUSED, int *fd UNUSED)
{
	if (f->state != FRONT_SERVING) {
		broken(f, "drain");
		return;
	}
	enter(f, FRONT_DRAINING);
	f->undrained = f->thread_count;
	for (unsigned i = 0; i < f->thread_count; i++)
		mailbox_post(&f->threads[i].loop->mailbox, &f->threads[i].drain);
}

static void on_message(void *ctx, const struct channel_message *m, int *fd)
{
	static void (*const take[CHANNEL_TYPE_COUNT])(struct front * f, const struct channel_message *m, int *fd) = {
		[CHANNEL_LIMITS] = take_limits,
		[CHANNEL_CONF] = take_conf,
		[CHANNEL_LOG] = take_log,
		[CHANNEL_SPOOL] = take_spool,
		[CHANNEL_LISTENER] = take_listener,
		[CHANNEL_GO] = take_go,
		[CHANNEL_PAGE] = take_page,
		[CHANNEL_SLOT] = take_slot,
		[CHANNEL_DRAIN] = take_drain,
	};
	struct front *f = ctx;

	/* After a refusal the rest of what was sent means nothing. The other types are ours to send: channel lets none through. */
	if (f->state != FRONT_ENDING && take[m->type])
		take[m->type](f, m, fd);
}

/* The master has told us to end by closing, or it is dead. */
static void on_ended(void *ctx, int err)
{
	struct front *f = ctx;

	if (err)
		log_error("event=channel_lost error=\"%s\"", strerror(-err));
	end(f, err ? 1 : 0);
}

static void on_tick(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct front *f = ctx;
	struct channel_message m = { .type = CHANNEL_TICK };
	struct spool_figures spool;

	if (channel_waiting(f->channel) > 0)
		return; /* the master is behind: newer figures will do */
	for (unsigned i = 0; i < f->thread_count; i++) {
		m.u.tick.ticks[i] = atomic_load_explicit(&f->threads[i].loop->ticks, memory_order_relaxed);
		m.u.tick.stalls += atomic_load_explicit(&f->threads[i].loop->stalls, memory_order_relaxed);
	}
	for (size_t i = 0; i < f->pool_count; i++) {
		struct pool_figures p;

		pool_figures(f->pools[i], &p);
		m.u.tick.queued += p.queued;
		m.u.tick.busy += p.busy + p.granted;
		m.u.tick.slots += p.slots;
	}
	spool_figures(f->spool, &spool);
	m.u.tick.spool_bytes = spool.bytes;
	m.u.tick.memory_bytes = atomic_load_explicit(&f->budget.leased, memory_order_relaxed);
	m.u.tick.log_dropped = logger_dropped(f->logger);
	m.u.tick.connections = guard_connections(f->guard);
	if (channel_send(f->channel, &m, NULL) != 0)
		log_error("event=tick_lost");
}

/* ---- from the first to the last ---- */

/* What cannot be blocked by a thread's own fault stays as it is, for the sanitizers' reports. */
static void block_signals(void)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP };
	sigset_t all;

	sigfillset(&all);
	for (size_t i = 0; i < ARRAY_LEN(faults); i++)
		sigdelset(&all, faults[i]);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
}

static int set_up(struct front *f)
{
	static const struct channel_events events = { on_message, on_ended };
	int fd = FRONT_CHANNEL_FD, err;

	*f = (struct front){ .spool_dir = -1, .mailbox.fd = -1, .status = 1 };
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	f->base = event_base_new();
	if (!f->base || event_assign(&f->tick, f->base, -1, EV_PERSIST, on_tick, f))
		return -ENOMEM;
	err = mailbox_init(&f->mailbox, f->base);
	return err ? err : channel_new(f->base, &fd, CHANNEL_FRONT, QUEUE_MAX, &events, f, &f->channel);
}

/* Ends the event threads: what clients have left is cut. */
static void join_threads(struct front *f)
{
	for (unsigned i = 0; i < f->thread_count; i++)
		if (f->threads[i].runs)
			mailbox_post(&f->threads[i].loop->mailbox, &f->threads[i].end);
	for (unsigned i = 0; i < f->thread_count; i++)
		if (f->threads[i].runs)
			pthread_join(f->threads[i].thread, NULL);
}

/* Requests that are still at workers hold slots and more: then the kernel takes all of it back at once. */
static bool is_at_rest(const struct front *f)
{
	struct pool_figures p;

	for (size_t i = 0; i < f->pool_count; i++) {
		pool_figures(f->pools[i], &p);
		if (p.granted + p.busy + p.queued > 0)
			return false;
	}
	return true;
}

static void free_threads(struct front *f)
{
	for (unsigned i = 0; i < f->thread_count; i++)
		server_free(&f->threads[i].server);
	for (size_t i = 0; i < f->pool_count; i++)
		pool_free(&f->pools[i]);
	for (unsigned i = 0; i < f->thread_count; i++) {
		access_log_free(&f->threads[i].access);
		loop_free(&f->threads[i].loop);
	}
}

static void free_rest(struct front *f)
{
	for (size_t i = 0; i < f->pool_count; i++)
		if (f->pages[i].bytes)
			munmap((void *)(uintptr_t)f->pages[i].bytes, f->pages[i].len);
	free(f->pages);
	free(f->pools);
	free(f->threads);
	spool_free(&f->spool);
	guard_free(&f->guard);
	route_table_free(&f->routes);
	conf_drop(&f->conf);
	if (f->spool_dir != -1)
		close(f->spool_dir);
}

static void take_down(struct front *f)
{
	bool at_rest;

	join_threads(f);
	at_rest = is_at_rest(f);
	log_setup("front", LOG_LEVEL_ERROR, NULL, NULL);
	if (!at_rest) {
		logger_free(&f->logger, LOG_FLUSH_MS);
		_exit(f->status);
	}
	free_threads(f);
	logger_free(&f->logger, LOG_FLUSH_MS);
	free_rest(f);
	channel_free(&f->channel);
	if (event_initialized(&f->tick))
		event_del(&f->tick);
	mailbox_done(&f->mailbox);
	if (f->base)
		event_base_free(f->base);
}

int front_main(void)
{
	struct front f;
	int err;

	prctl(PR_SET_NAME, "forebay-front", 0, 0, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	block_signals();
	if (!sandbox_front())
		log_warning("event=front_not_sandboxed");
	err = set_up(&f);
	if (err)
		log_error("event=front_not_started error=\"%s\"", strerror(-err));
	else
		event_base_loop(f.base, EVLOOP_NO_EXIT_ON_EMPTY);
	take_down(&f);
	return f.status;
}
