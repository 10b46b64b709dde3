#include "proxy/daemon/front.h"

#include <fcntl.h>
#include <event2/event_struct.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "proxy/daemon/account.h"
#include "proxy/daemon/channel.h"
#include "proxy/daemon/crew.h"
#include "proxy/daemon/sandbox.h"
#include "proxy/observe/logger.h"
#include "proxy/serve/poison.h"

#define LOG_FLUSH_MS   1000
#define LOAD_TICK_MS   100
#define LOAD_ALL_EVERY 10   /* of these */
#define QUEUE_MAX      1024 /* messages to the master */
#define POISON_BEHIND  64   /* messages wait already: requests that are to be kept are not */
#define ERRORS_MAX     (64u << 10)
#define STORM_BYTES    (8u << 20) /* that were held and are not any more: worth to be given back */
#define CALM_TICKS     3

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

struct front {
	enum front_state state;
	int status; /* to exit with */
	struct event_base *base;
	struct event tick, load_tick;
	unsigned load_ticks;
	struct channel *channel;
	struct channel_message limits; /* threads 0: not come yet */
	struct logger *logger;
	int spool_dir;
	struct conf *conf;
	struct crew *crew;
	struct {
		uint64_t peak; /* bytes charged, since memory last went back */
		unsigned calm; /* ticks since they were many */
	} storm;
};

/* The only writer of f->state. */
static void enter(struct front *f, enum front_state next)
{
	assert(may_follow[f->state] & TO(next));
	f->state = next;
	if (next == FRONT_ENDING)
		event_base_loopbreak(f->base);
}

/* What is there is taken down by front_main. */
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

/* ---- what the master says ---- */

static void take_limits(struct front *f, const struct channel_message *m, int *fd UNUSED)
{
	int err;

	if (f->logger || m->u.limits.threads == 0 || m->u.limits.threads > CHANNEL_THREADS_MAX) {
		broken(f, "limits");
		return;
	}
	f->limits = *m;
	err = logger_new(m->u.limits.threads, m->u.limits.log_ring_bytes, &f->logger);
	if (err) {
		refuse_errno(f, "log thread", err);
		return;
	}
	log_setup("front", (enum log_level)m->u.limits.log_level, logger_sink, f->logger);
	log_stamps(m->u.limits.log_stamps);
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
static int read_file(int fd, struct buf *text)
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

static void on_drained(void *ctx)
{
	struct front *f = ctx;
	struct channel_message m = { .type = CHANNEL_DRAINED };

	if (f->state != FRONT_DRAINING)
		return; /* told to end meanwhile */
	enter(f, FRONT_DRAINED);
	if (channel_send(f->channel, &m, NULL) != 0)
		end(f, 1);
}

/* To the master, who opens paths. Nothing of what it has to do hangs on it: behind others it is left out. */
static void on_poison(void *ctx, struct poison **p)
{
	struct front *f = ctx;
	struct channel_message m = { .type = CHANNEL_POISON,
		.u.poison = { .body_bytes = (*p)->body_bytes,
		    .wall_us = (*p)->wall_us,
		    .pool = (uint32_t)(*p)->pool,
		    .pid = (*p)->pid,
		    .tries = (*p)->tries,
		    .body_follows = (*p)->body_fd != -1 } };
	struct channel_message body = { .type = CHANNEL_POISON_BODY };
	int err = channel_waiting(f->channel) > POISON_BEHIND ? -ENOBUFS : 0;

	slice_to_str(slice_str((*p)->id), m.u.poison.id, sizeof(m.u.poison.id));
	if (!err)
		err = channel_send(f->channel, &m, &(*p)->head_fd);
	if (!err && (*p)->body_fd != -1)
		err = channel_send(f->channel, &body, &(*p)->body_fd);
	if (err)
		log_warning("event=not_quarantined id=%s error=%s", m.u.poison.id, strerrorname_np(-err));
	poison_free(p);
}

static void build(struct front *f)
{
	const struct crew_options o = {
		.base = f->base,
		.conf = f->conf,
		.logger = f->logger,
		.spool_dir = f->spool_dir,
		.threads = f->limits.u.limits.threads,
		.connections = f->limits.u.limits.connections,
		.own_files = f->limits.u.limits.own_files,
		.memory_bytes = f->limits.u.limits.memory_bytes,
		.drained = on_drained,
		.poison = on_poison,
		.ctx = f,
	};
	const char *what;
	int err = crew_new(&o, &f->crew, &what);

	if (err)
		refuse_errno(f, what, err);
	else
		enter(f, FRONT_BUILT);
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
	err = read_file(*fd, &text);
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

/* At the start there is nothing else to serve with; later what was there stays. */
static void refuse_tls(struct front *f, int err, const struct buf *errors)
{
	struct slice why = errors->len > 0 ? buf_slice(errors) : slice_str(strerror(-err));
	char text[512];

	if (f->state == FRONT_BUILT)
		refuse(f, why);
	else
		log_error("event=tls_refused old=stays why=\"%s\"", log_escape(why, text, sizeof(text)));
}

static void take_tls(struct front *f, const struct channel_message *m UNUSED, int *fd)
{
	struct buf bytes, errors;
	int err;

	if (f->state < FRONT_BUILT) {
		broken(f, "tls");
		return;
	}
	buf_init(&bytes, SIZE_MAX);
	buf_init(&errors, ERRORS_MAX);
	err = read_file(*fd, &bytes);
	if (!err)
		err = crew_tls(f->crew, buf_slice(&bytes), &errors);
	if (err)
		refuse_tls(f, err, &errors);
	if (bytes.len > 0)
		OPENSSL_cleanse(bytes.ptr, bytes.len);
	buf_done(&bytes);
	buf_done(&errors);
}

static void take_listener(struct front *f, const struct channel_message *m, int *fd)
{
	int err;

	if (f->state != FRONT_BUILT) {
		broken(f, "listener");
		return;
	}
	err = crew_listen(f->crew, m->u.listener.thread, m->u.listener.listen, m->u.listener.address, fd);
	if (err)
		refuse_errno(f, "listener", err);
}

static void take_go(struct front *f, const struct channel_message *m UNUSED, int *fd UNUSED)
{
	const uint32_t tick_ms = f->limits.u.limits.tick_ms;
	static const struct timeval load_every = { 0, LOAD_TICK_MS * 1000 };
	const struct timeval every = { tick_ms / 1000, (tick_ms % 1000) * 1000 };
	struct channel_message adopted = { .type = CHANNEL_ADOPTED };
	int err;

	if (f->state != FRONT_BUILT) {
		broken(f, "go");
		return;
	}
	err = crew_start(f->crew);
	if (!err)
		err = channel_send(f->channel, &adopted, NULL);
	if (!err && crew_has_load(f->crew) && event_add(&f->load_tick, &load_every))
		err = -ENOMEM;
	if (!err && event_add(&f->tick, &every))
		err = -ENOMEM;
	if (err)
		refuse_errno(f, "event threads", err);
	else
		enter(f, FRONT_SERVING);
}

static void take_page(struct front *f, const struct channel_message *m, int *fd)
{
	int err = f->state < FRONT_SERVING ? -EINVAL : crew_page(f->crew, m->u.page.pool, m->u.page.slots, *fd);

	if (err) {
		log_error("event=page_lost error=\"%s\"", strerror(-err));
		end(f, 1);
	}
}

static void take_slot(struct front *f, const struct channel_message *m, int *fd)
{
	int err = f->state < FRONT_SERVING ? -EINVAL : crew_slot(f->crew, m->u.slot.pool, m->u.slot.slot, m->u.slot.pid, fd);

	if (err == -EINVAL)
		broken(f, "slot");
	else if (err) /* the worker sees the end of its socket, and asks for another */
		log_error("event=slot_lost pool=%" PRIu32 " slot=%" PRIu32 " error=\"%s\"", m->u.slot.pool, m->u.slot.slot,
		    strerror(-err));
}

static void take_drain(struct front *f, const struct channel_message *m UNUSED, int *fd UNUSED)
{
	if (f->state != FRONT_SERVING) {
		broken(f, "drain");
		return;
	}
	enter(f, FRONT_DRAINING);
	crew_drain(f->crew);
}

static void on_message(void *ctx, const struct channel_message *m, int *fd)
{
	static void (*const take[CHANNEL_TYPE_COUNT])(struct front * f, const struct channel_message *m, int *fd) = {
		[CHANNEL_LIMITS] = take_limits,
		[CHANNEL_CONF] = take_conf,
		[CHANNEL_LOG] = take_log,
		[CHANNEL_SPOOL] = take_spool,
		[CHANNEL_TLS] = take_tls,
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

static const struct channel_events channel_events = { on_message, on_ended };

/* Whoever starts workers hears at once of requests that wait, and of quiet now and then. */
static void tell_load(struct front *f)
{
	bool all = ++f->load_ticks % LOAD_ALL_EVERY == 0;
	struct channel_message m;
	size_t pool = 0;

	while (channel_waiting(f->channel) == 0 && crew_next_load(f->crew, &pool, all, &m))
		if (channel_send(f->channel, &m, NULL) != 0)
			log_error("event=load_lost pool=%" PRIu32, m.u.load.pool);
}

static void on_load_tick(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	tell_load(ctx);
}

/* What does not fit now stays with the pools until the next tick. */
static void tell_given_up(struct front *f)
{
	struct channel_message m;

	while (channel_waiting(f->channel) == 0 && crew_next_given_up(f->crew, &m))
		if (channel_send(f->channel, &m, NULL) != 0)
			log_error("event=replace_lost pool=%" PRIu32 " slot=%" PRIu32, m.u.replace.pool, m.u.replace.slot);
}

/* After a storm: the C library keeps what it had from the system unless it is told. */
static void look_for_calm(struct front *f, uint64_t held)
{
	f->storm.peak = MAX(f->storm.peak, held);
	if (f->storm.peak - held < STORM_BYTES || held > f->storm.peak / 2) {
		f->storm.calm = 0;
	} else if (++f->storm.calm == CALM_TICKS) {
		f->storm.peak = held;
		f->storm.calm = 0;
		(void)malloc_trim(0);
	}
}

static void on_tick(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct front *f = ctx;
	struct channel_message m;

	tell_given_up(f);
	crew_figures(f->crew, &m);
	look_for_calm(f, m.u.tick.memory_bytes);
	if (channel_waiting(f->channel) > 0)
		return; /* the master is behind: newer figures will do */
	if (channel_send(f->channel, &m, NULL) != 0)
		log_error("event=tick_lost");
}

/* ---- from the first to the last ---- */

/* But those that a thread's own fault raises, for the sanitizers' reports. */
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
	int fd = FRONT_CHANNEL_FD;

	*f = (struct front){ .spool_dir = -1, .status = 1 };
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	f->base = event_base_new();
	if (!f->base || event_assign(&f->tick, f->base, -1, EV_PERSIST, on_tick, f) ||
	    event_assign(&f->load_tick, f->base, -1, EV_PERSIST, on_load_tick, f))
		return -ENOMEM;
	return channel_new(f->base, &fd, CHANNEL_FRONT, QUEUE_MAX, &channel_events, f, &f->channel);
}

/* The threads that log are gone: what is said from here on goes to standard error. */
static void end_logger(struct front *f)
{
	log_setup("front", LOG_LEVEL_ERROR, NULL, NULL);
	logger_free(&f->logger, LOG_FLUSH_MS);
}

static void take_down(struct front *f)
{
	if (f->crew)
		crew_end(f->crew);
	/* Requests that are still at workers hold slots and more: the kernel takes all of it back at once. */
	if (f->crew && !crew_is_at_rest(f->crew)) {
		end_logger(f);
		_exit(f->status);
	}
	if (ACCOUNT_ON && f->crew && crew_account(f->crew) > 0) {
		end_logger(f);
		_exit(ACCOUNT_EXIT);
	}
	crew_free(&f->crew);
	end_logger(f);
	conf_drop(&f->conf);
	if (f->spool_dir != -1)
		close(f->spool_dir);
	channel_free(&f->channel);
	if (event_initialized(&f->tick))
		event_del(&f->tick);
	if (event_initialized(&f->load_tick))
		event_del(&f->load_tick);
	if (f->base)
		event_base_free(f->base);
	if (ACCOUNT_ON && account_descriptors(FRONT_CHANNEL_FD) > 0)
		f->status = ACCOUNT_EXIT;
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
