#include "proxy/daemon/keeper.h"

#include <event2/event_struct.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "proxy/daemon/pulse.h"

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MOST_MS  5000
#define LONG_LIFE_MS     10000 /* who served for so long did not die of being started */
#define END_MS           5000  /* from the end of the control socket to SIGKILL */
#define START_MS         60000 /* for a start: one that hangs (a dead file system) would be waited for for ever */
#define QUEUE_MAX        65536 /* messages */

enum keeper_state {
	KEEPER_RESTING,  /* no process; the timer starts one, but before keeper_start */
	KEEPER_STARTING, /* it reads what we sent */
	KEEPER_SERVING,
	KEEPER_DRAINING,
	KEEPER_ENDING, /* the control socket is closed: it ends, or is killed by the timer */
	KEEPER_GONE,   /* no process, for good */
	KEEPER_STATE_COUNT,
};

static const unsigned may_follow[] = {
	[KEEPER_RESTING] = TO(KEEPER_STARTING) | TO(KEEPER_RESTING) | TO(KEEPER_GONE),
	[KEEPER_STARTING] = TO(KEEPER_SERVING) | TO(KEEPER_ENDING),
	[KEEPER_SERVING] = TO(KEEPER_DRAINING) | TO(KEEPER_ENDING),
	[KEEPER_DRAINING] = TO(KEEPER_ENDING),
	[KEEPER_ENDING] = TO(KEEPER_RESTING) | TO(KEEPER_GONE),
	[KEEPER_GONE] = 0,
};
static_assert(ARRAY_LEN(may_follow) == KEEPER_STATE_COUNT, "a row for each state");

struct keeper {
	struct keeper_options o;
	struct keeper_events events;
	void *ctx;
	enum keeper_state state;
	bool served;  /* one of them did */
	bool last;    /* no other one is to follow */
	bool crashed; /* the one that was reaped last */
	bool has_figures;
	pid_t pid; /* 0: none */
	int conf_fd;
	struct channel *channel; /* NULL: none */
	struct event timer;
	unsigned backoff_ms;
	uint64_t serving_since_ms;
	struct channel_message figures;
	struct pulse pulse;
};

static void set_timer(struct keeper *k, unsigned after_ms)
{
	const struct timeval tv = { after_ms / 1000, (after_ms % 1000) * 1000 };

	event_add(&k->timer, &tv);
}

static void enter(struct keeper *k, enum keeper_state next)
{
	assert(may_follow[k->state] & TO(next));
	/* Whatever ends one that drains: there is nothing left to drain, and no listener for another. */
	if (k->state == KEEPER_DRAINING)
		k->last = true;
	k->state = next;
	event_del(&k->timer);
	switch (next) {
	case KEEPER_RESTING:
		set_timer(k, k->backoff_ms);
		break;
	case KEEPER_STARTING:
		set_timer(k, START_MS);
		break;
	case KEEPER_SERVING:
		k->served = true;
		k->serving_since_ms = clock_mono_ms(k->o.clock);
		pulse_start(&k->pulse, k->o.limits->threads, k->serving_since_ms);
		set_timer(k, PULSE_LOOK_MS);
		break;
	case KEEPER_DRAINING:
		set_timer(k, PULSE_LOOK_MS);
		break;
	case KEEPER_ENDING:
		channel_free(&k->channel);
		k->has_figures = false;
		set_timer(k, END_MS);
		break;
	case KEEPER_GONE:
	case KEEPER_STATE_COUNT:
		break;
	}
}

static void kill_it(struct keeper *k)
{
	if (k->pid > 0)
		(void)kill(k->pid, SIGKILL);
}

/* It does not do what it should: closes the socket, kills, waits for the reaper. */
static void give_up(struct keeper *k)
{
	enter(k, KEEPER_ENDING);
	kill_it(k);
}

/* Sends one message with a duplicate of a descriptor that we keep. */
static int send_copy(struct keeper *k, const struct channel_message *m, int fd)
{
	int copy = fd == -1 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (fd != -1 && copy == -1)
		return -errno;
	return channel_send(k->channel, m, &copy);
}

static int send_logs(struct keeper *k)
{
	int err = 0;

	for (uint32_t to = 0; !err && to < LOGGER_TO_COUNT; to++) {
		struct channel_message m = { .type = CHANNEL_LOG, .u.log = { to, (uint32_t)k->o.logs[to].kind } };

		err = send_copy(k, &m, k->o.logs[to].fd);
	}
	return err;
}

static int send_listeners(struct keeper *k)
{
	int err = 0;

	for (size_t i = 0; !err && i < k->o.listeners->count; i++) {
		const struct listener *l = &k->o.listeners->all[i];
		struct channel_message m = { .type = CHANNEL_LISTENER, .u.listener = { l->listen, l->address, l->thread } };

		err = send_copy(k, &m, l->fd);
	}
	return err;
}

static int send_keys(struct keeper *k)
{
	const struct channel_message m = { .type = CHANNEL_TLS };
	int fd = keys_fd(k->o.keys);

	return fd == -1 ? 0 : send_copy(k, &m, fd);
}

/* Everything that a front needs to serve, in the order that it wants it. */
static int send_all(struct keeper *k)
{
	const struct limits *l = k->o.limits;
	struct channel_message m = {
		.type = CHANNEL_LIMITS,
		.u.limits = {
			.memory_bytes = l->memory_bytes,
			.log_ring_bytes = LIMITS_LOG_RING_BYTES,
			.threads = l->threads,
			.tick_ms = k->o.tick_ms,
			.connections = l->connections,
			.own_files = l->own_files,
			.log_level = k->o.conf->daemon.log_level,
			.log_stamps = k->o.log_stamps,
		},
	};
	int err = channel_send(k->channel, &m, NULL);

	if (!err)
		err = send_logs(k);
	m.type = CHANNEL_SPOOL;
	if (!err)
		err = send_copy(k, &m, k->o.spool_dir);
	channel_text(&m, CHANNEL_CONF, slice_str(k->o.conf->file));
	if (!err)
		err = send_copy(k, &m, k->conf_fd);
	if (!err)
		err = send_keys(k);
	if (!err)
		err = send_listeners(k);
	m.type = CHANNEL_GO;
	return err ? err : channel_send(k->channel, &m, NULL);
}

/* What of our environment the front may see: where it is, and how a build for tests reports. */
static size_t choose_environment(const char **env, char texts[][256], size_t max)
{
	static const char *const names[] = { "TZ", "ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS",
		"GCOV_PREFIX", "GCOV_PREFIX_STRIP" };
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(names) && n < max; i++) {
		const char *value = getenv(names[i]);

		if (value && (size_t)snprintf(texts[n], sizeof(texts[n]), "%s=%s", names[i], value) < sizeof(texts[n])) {
			env[n] = texts[n];
			n++;
		}
	}
	env[n] = NULL;
	return n;
}

/* What the C library keeps at hand of each small size: by default so few that a dozen clients at once are too many. */
#define MALLOC_TUNING "GLIBC_TUNABLES=glibc.malloc.tcache_count=200"

static int spawn(struct keeper *k, int channel_fd)
{
	static const char *const argv[] = { "forebay: front", "front", NULL };
	char texts[8][256];
	const char *env[10] = { MALLOC_TUNING };
	const struct spawn_plan plan = {
		.argv = argv,
		.envp = env,
		.fds = { -1, -1, STDERR_FILENO, channel_fd },
		.fd_count = 4,
		.user = k->o.user,
	};

	choose_environment(env + 1, texts, ARRAY_LEN(texts));
	return spawn_child(&plan, &k->pid);
}

static void on_message(void *ctx, const struct channel_message *m, int *fd)
{
	struct keeper *k = ctx;
	char text[2048];

	switch (m->type) {
	case CHANNEL_ADOPTED:
		if (k->state != KEEPER_STARTING)
			break;
		enter(k, KEEPER_SERVING);
		k->events.serving(k->ctx);
		return;
	case CHANNEL_REFUSED:
		log_error("event=front_refused why=\"%s\"", log_escape(slice_str(m->u.text), text, sizeof(text)));
		enter(k, KEEPER_ENDING);
		return;
	case CHANNEL_TICK:
		k->figures = *m;
		k->has_figures = true;
		pulse_heard(&k->pulse, m->u.tick.ticks, clock_mono_ms(k->o.clock));
		k->events.tick(k->ctx);
		return;
	case CHANNEL_DRAINED:
		if (k->state != KEEPER_DRAINING)
			break;
		k->events.drained(k->ctx);
		return;
	case CHANNEL_REPLACE:
		k->events.replace(k->ctx, m->u.replace.pool, m->u.replace.slot, m->u.replace.pid);
		return;
	case CHANNEL_LOAD:
		k->events.load(k->ctx, m->u.load.pool, m->u.load.delay_us, m->u.load.requests);
		return;
	case CHANNEL_POISON:
	case CHANNEL_POISON_BODY:
		k->events.poison(k->ctx, m, fd);
		return;
	default:
		break;
	}
	log_error("event=front_nonsense message=%" PRIu32, m->type);
	give_up(k);
}

static void on_ended(void *ctx, int err)
{
	struct keeper *k = ctx;

	if (err)
		log_error("event=channel_lost error=\"%s\"", strerror(-err));
	give_up(k);
}

static const struct channel_events channel_events = { on_message, on_ended };

static int open_channel(struct keeper *k, int *ret_front)
{
	int ours, err = channel_pair(&ours, ret_front);

	if (err)
		return err;
	err = channel_new(k->o.base, &ours, CHANNEL_MASTER, QUEUE_MAX, &channel_events, k, &k->channel);
	if (err)
		close(*ret_front);
	return err;
}

/* The next one, after a pause, or never. */
static void rest_or_go(struct keeper *k)
{
	bool unfit = !k->last && !k->served;

	if (unfit)
		log_error("the front could not start: forebay ends");
	if (k->last || unfit) {
		enter(k, KEEPER_GONE);
		k->events.gone(k->ctx, unfit || k->crashed);
		return;
	}
	if (k->serving_since_ms && clock_mono_ms(k->o.clock) - k->serving_since_ms >= LONG_LIFE_MS)
		k->backoff_ms = 0;
	k->serving_since_ms = 0;
	k->backoff_ms = k->backoff_ms ? MIN(k->backoff_ms * 2, BACKOFF_MOST_MS) : BACKOFF_FIRST_MS;
	enter(k, KEEPER_RESTING);
	log_warning("event=front_restart after_ms=%u what=\"another front is started; connections of the last one are lost\"",
	    k->backoff_ms);
	k->events.lost(k->ctx);
}

void keeper_start(struct keeper *k)
{
	int front = -1, err = open_channel(k, &front);

	if (!err) {
		err = spawn(k, front);
		close(front);
	}
	if (err) {
		log_error("event=front_not_started error=\"%s\"", strerror(-err));
		channel_free(&k->channel);
		rest_or_go(k);
		return;
	}
	enter(k, KEEPER_STARTING);
	log_debug("event=front_started pid=%ld", (long)k->pid);
	err = send_all(k);
	if (err) {
		log_error("event=front_not_started error=\"%s\"", strerror(-err));
		give_up(k);
	}
}

/* Nobody else would end it: its clients would wait for ever. */
static void look_for_life(struct keeper *k)
{
	unsigned thread;

	if (!pulse_stands_still(&k->pulse, clock_mono_ms(k->o.clock), &thread)) {
		set_timer(k, PULSE_LOOK_MS);
		return;
	}
	log_error("event=front_killed pid=%ld why=\"event thread %u has stood still for %u s\"", (long)k->pid, thread,
	    PULSE_STILL_MS / 1000);
	give_up(k);
}

static void on_timer(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct keeper *k = ctx;

	switch (k->state) {
	case KEEPER_RESTING:
		if (k->last)
			rest_or_go(k);
		else
			keeper_start(k);
		break;
	case KEEPER_SERVING:
	case KEEPER_DRAINING:
		look_for_life(k);
		break;
	case KEEPER_ENDING:
		log_warning("event=front_killed pid=%ld why=\"it did not end by itself\"", (long)k->pid);
		kill_it(k);
		break;
	case KEEPER_STARTING:
		log_error("event=front_killed pid=%ld why=\"it was not ready within %u s\"", (long)k->pid, START_MS / 1000);
		give_up(k);
		break;
	case KEEPER_GONE:
	case KEEPER_STATE_COUNT:
		break;
	}
}

static void log_end(const struct keeper *k, pid_t pid, int status)
{
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	bool expected = k->last && (killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
	enum log_level level = expected ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR;

	if (WIFSIGNALED(status))
		log_line(level, "event=front_died pid=%ld how=\"signal %d (%s)\"", (long)pid, WTERMSIG(status),
		    strsignal(WTERMSIG(status)));
	else
		log_line(level, "event=front_died pid=%ld how=\"exit %d\"", (long)pid, WEXITSTATUS(status));
}

bool keeper_knows(const struct keeper *k, pid_t pid)
{
	return pid != 0 && k->pid == pid;
}

bool keeper_reaped(struct keeper *k, pid_t pid, int status)
{
	if (pid != k->pid || pid == 0)
		return false;
	k->pid = 0;
	/* SIGKILL is ours, or whoever sent it knows. Exit 1 is one that was lost for words with us. */
	k->crashed = WIFSIGNALED(status) ? WTERMSIG(status) != SIGKILL : WEXITSTATUS(status) > 1;
	if (k->channel)
		channel_poll(k->channel); /* its last words */
	log_end(k, pid, status);
	if (k->state != KEEPER_ENDING)
		enter(k, KEEPER_ENDING);
	rest_or_go(k);
	return true;
}

static bool takes_slots(const struct keeper *k)
{
	return k->state == KEEPER_SERVING || k->state == KEEPER_DRAINING;
}

static void send_or_close(struct keeper *k, const struct channel_message *m, int *fd)
{
	int err = 0;

	if (takes_slots(k))
		err = channel_send(k->channel, m, fd);
	else
		close(*fd);
	*fd = -1;
	if (err)
		log_error("event=channel_full error=\"%s\"", strerror(-err));
}

void keeper_send_keys(struct keeper *k)
{
	/* One that starts has those before these by now, or will have these at once. */
	int err = k->channel ? send_keys(k) : 0;

	if (err)
		log_error("event=keys_not_sent error=\"%s\"", strerror(-err));
}

void keeper_send_page(struct keeper *k, size_t pool_index, unsigned slots, int *fd)
{
	struct channel_message m = { .type = CHANNEL_PAGE, .u.page = { (uint32_t)pool_index, slots } };

	send_or_close(k, &m, fd);
}

void keeper_send_slot(struct keeper *k, size_t pool_index, unsigned slot, int *fd, pid_t pid)
{
	struct channel_message m = { .type = CHANNEL_SLOT, .u.slot = { (uint32_t)pool_index, slot, pid } };

	send_or_close(k, &m, fd);
}

void keeper_send_logs(struct keeper *k)
{
	if (takes_slots(k) || k->state == KEEPER_STARTING)
		if (send_logs(k) != 0)
			log_error("event=logs_not_sent");
}

void keeper_drain(struct keeper *k)
{
	struct channel_message m = { .type = CHANNEL_DRAIN };

	if (k->state != KEEPER_SERVING) {
		keeper_end(k, false); /* nobody was let in yet */
		return;
	}
	enter(k, KEEPER_DRAINING);
	if (channel_send(k->channel, &m, NULL) != 0)
		keeper_end(k, false);
}

/* So that `gone` comes from the loop also when there is nobody to wait for. */
static void end_without_front(struct keeper *k)
{
	k->backoff_ms = 0;
	enter(k, KEEPER_RESTING);
}

void keeper_end(struct keeper *k, bool kill_now)
{
	k->last = true;
	if (kill_now)
		kill_it(k);
	if (k->state == KEEPER_RESTING)
		end_without_front(k);
	else if (k->state != KEEPER_ENDING && k->state != KEEPER_GONE)
		enter(k, KEEPER_ENDING);
}

const struct channel_message *keeper_figures(const struct keeper *k)
{
	return k->has_figures ? &k->figures : NULL;
}

bool keeper_pulse(struct keeper *k)
{
	return k->has_figures && pulse_all_beat(&k->pulse);
}

/* The bytes that the master checked are those that every front parses. */
static int conf_memfd(const struct conf *conf)
{
	int fd = memfd_create("forebay.ini", MFD_CLOEXEC | MFD_ALLOW_SEALING), err = 0;

	if (fd == -1)
		return -errno;
	for (size_t done = 0; !err && done < conf->text_len;) {
		ssize_t n = write(fd, conf->text + done, conf->text_len - done);

		if (n == -1)
			err = -errno;
		else
			done += (size_t)n;
	}
	if (!err && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == -1)
		err = -errno;
	if (err)
		close(fd);
	return err ? err : fd;
}

int keeper_new(const struct keeper_options *o, const struct keeper_events *events, void *ctx, struct keeper **ret)
{
	struct keeper *k = calloc(1, sizeof(*k));
	int fd;

	if (!k)
		return -ENOMEM;
	*k = (struct keeper){ .o = *o, .events = *events, .ctx = ctx, .state = KEEPER_RESTING };
	fd = conf_memfd(o->conf);
	k->conf_fd = fd;
	if (fd < 0 || event_assign(&k->timer, o->base, -1, 0, on_timer, k)) {
		if (fd >= 0)
			close(fd);
		free(k);
		return fd < 0 ? fd : -ENOMEM;
	}
	*ret = k;
	return 0;
}

void keeper_free(struct keeper **pk)
{
	struct keeper *k = *pk;

	if (!k)
		return;
	kill_it(k);
	channel_free(&k->channel);
	event_del(&k->timer);
	close(k->conf_fd);
	free(k);
	*pk = NULL;
}
