#include "proxy/daemon/master.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "proxy/client/tls.h"
#include "proxy/daemon/ground.h"
#include "proxy/daemon/keeper.h"
#include "proxy/daemon/notify.h"
#include "proxy/daemon/quarantine.h"
#include "proxy/daemon/sandbox.h"
#include "proxy/daemon/sources.h"
#include "proxy/daemon/trigger.h"
#include "upstream/supervisor.h"

#define STATUS_EVERY_MS 2000
#define TICK_MOST_MS    500
#define TICK_LEAST_MS   100  /* the event threads show a sign of life no more often */
#define END_TIMEOUT_MS  5000 /* for workers, once no request is left; from then on SIGKILL */

enum master_state {
	MASTER_STARTING, /* the first front or the first workers are not ready yet */
	MASTER_SERVING,
	MASTER_DRAINING, /* the front ends what it has begun */
	MASTER_CUTTING,  /* the front is told to end, whatever it has */
	MASTER_STOPPING, /* the front has gone, the workers end */
	MASTER_ENDED,
	MASTER_STATE_COUNT,
};

static const unsigned may_follow[] = {
	[MASTER_STARTING] = TO(MASTER_SERVING) | TO(MASTER_DRAINING) | TO(MASTER_CUTTING) | TO(MASTER_STOPPING),
	[MASTER_SERVING] = TO(MASTER_DRAINING) | TO(MASTER_CUTTING) | TO(MASTER_STOPPING),
	[MASTER_DRAINING] = TO(MASTER_CUTTING) | TO(MASTER_STOPPING),
	[MASTER_CUTTING] = TO(MASTER_STOPPING),
	[MASTER_STOPPING] = TO(MASTER_ENDED),
	[MASTER_ENDED] = 0,
};
static_assert(ARRAY_LEN(may_follow) == MASTER_STATE_COUNT, "a row for each state");

static const int signals[] = { SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGCHLD };

/* A pool of forebay's own workers. */
struct staff {
	struct supervisor *supervisor; /* NULL: somebody else's pool */
	bool ready;                    /* a worker has been ready for a request */
	struct trigger *trigger;       /* restart_on_change; NULL: none */
	struct master *master;         /* with a trigger */
};

struct master {
	struct master_options o;
	enum master_state state;
	int status;       /* to exit with */
	bool out_of_time; /* drain_timeout is over: no patience with the workers */
	bool now;         /* nor with the front: a second signal */
	struct event_base *base;
	struct event signals[ARRAY_LEN(signals)];
	struct event drain_timer, watchdog_timer;
	struct notify notify;
	struct sources *sources; /* NULL: nobody waits for them to change */
	struct ground ground;
	struct keeper *keeper;
	struct quarantine *quarantine;
	bool front_serves;
	struct staff *staff; /* by conf_pool.index */
	uint64_t status_ms;  /* the last STATUS= was sent */
};

static size_t pool_count(const struct master *m)
{
	return m->o.conf->pool_count;
}

static unsigned workers_alive(const struct master *m)
{
	unsigned n = 0;

	for (size_t i = 0; i < pool_count(m); i++)
		if (m->staff[i].supervisor)
			n += supervisor_alive(m->staff[i].supervisor);
	return n;
}

static void stop_workers(struct master *m)
{
	for (size_t i = 0; i < pool_count(m); i++)
		if (m->staff[i].supervisor)
			supervisor_stop(m->staff[i].supervisor, m->out_of_time || m->now);
}

static void set_timer(struct event *timer, uint64_t after_ms)
{
	const struct timeval tv = { (time_t)(after_ms / 1000), (suseconds_t)(after_ms % 1000) * 1000 };

	event_add(timer, &tv);
}

static void say_ready(struct master *m);

/* The only writer of m->state. */
static void enter(struct master *m, enum master_state next)
{
	assert(may_follow[m->state] & TO(next));
	m->state = next;
	switch (next) {
	case MASTER_SERVING:
		say_ready(m);
		break;
	case MASTER_DRAINING:
		notify_send(&m->notify, "STOPPING=1\nSTATUS=draining");
		keeper_drain(m->keeper);
		/* The front still has what the kernel accepted for it; nobody else gets in. */
		listeners_done(&m->ground.listeners);
		set_timer(&m->drain_timer, m->o.conf->daemon.drain_timeout_ms);
		break;
	case MASTER_CUTTING:
		event_del(&m->drain_timer);
		keeper_end(m->keeper, m->now);
		break;
	case MASTER_STOPPING:
		event_del(&m->drain_timer);
		notify_send(&m->notify, "STOPPING=1\nSTATUS=ending the workers");
		stop_workers(m);
		if (workers_alive(m) == 0)
			enter(m, MASTER_ENDED);
		break;
	case MASTER_ENDED:
		event_base_loopbreak(m->base);
		break;
	case MASTER_STARTING:
	case MASTER_STATE_COUNT:
		break;
	}
}

/* ---- getting ready ---- */

/* "http://127.0.0.1:8000, unix:/run/x.sock" */
static void list_addresses(const struct conf *conf, char *text, size_t size)
{
	size_t len = 0;

	text[0] = '\0';
	for (size_t i = 0; i < conf->listen_count; i++) {
		for (size_t k = 0; k < conf->listens[i].address_count && len < size; k++) {
			int n = snprintf(text + len, size - len, "%s%s", len ? ", " : "", conf->listens[i].addresses[k].text);

			len += n > 0 ? (size_t)n : 0;
		}
	}
}

static void print_screen(const struct master *m)
{
	if (!m->o.screen)
		return;
	fputs(m->o.screen, stdout);
	fflush(stdout);
}

static void say_ready(struct master *m)
{
	const struct limits *l = &m->ground.limits;
	char addresses[1024];

	list_addresses(m->o.conf, addresses, sizeof(addresses));
	log_info("forebay " PACKAGE_VERSION " ready: listening on %s, %u threads, up to %u connections (%" PRIu64
	         " open files), %" PRIu64 "M memory, spool %s",
	    addresses, l->threads, l->connections, l->descriptors, l->memory_bytes >> 20, m->ground.spool_path);
	if (m->o.conf->tls_count > 0)
		log_info("event=tls library=\"%s\" ktls=%s", tls_library_version(),
		    tls_kernel_could() ? "available,unused" : "unavailable");
	notify_send(&m->notify, "READY=1\nSTATUS=serving %s", addresses);
	print_screen(m);
}

static void look_if_ready(struct master *m)
{
	if (m->state != MASTER_STARTING || !m->front_serves)
		return;
	for (size_t i = 0; i < pool_count(m); i++)
		if (m->staff[i].supervisor && !m->staff[i].ready)
			return;
	enter(m, MASTER_SERVING);
}

/* ---- what the front does ---- */

static void send_page(struct master *m, size_t pool_index)
{
	struct supervisor *s = m->staff[pool_index].supervisor;
	int fd = supervisor_started_fd(s);

	if (fd < 0)
		log_error("event=page_lost error=\"%s\"", strerror(-fd));
	else
		keeper_send_page(m->keeper, pool_index, supervisor_slots(s), &fd);
}

static void on_serving(void *ctx)
{
	struct master *m = ctx;

	m->front_serves = true;
	for (size_t i = 0; i < pool_count(m); i++) {
		if (!m->staff[i].supervisor)
			continue;
		send_page(m, i);
		supervisor_fresh_slots(m->staff[i].supervisor);
	}
	look_if_ready(m);
}

static void on_lost(void *ctx)
{
	struct master *m = ctx;

	m->front_serves = false;
	for (size_t i = 0; i < pool_count(m); i++)
		if (m->staff[i].supervisor)
			supervisor_front_lost(m->staff[i].supervisor);
}

static void on_tick(void *ctx)
{
	struct master *m = ctx;
	const struct channel_message *f = keeper_figures(m->keeper);
	uint64_t now_ms = clock_mono_ms(&clock_real);

	if (m->state != MASTER_SERVING || now_ms - m->status_ms < STATUS_EVERY_MS)
		return;
	m->status_ms = now_ms;
	notify_send(&m->notify,
	    "STATUS=%" PRIu32 " connections, %" PRIu32 " requests queued, %" PRIu32 " of %" PRIu32 " slots busy, %" PRIu64
	    "M memory, %" PRIu64 "M spool",
	    f->u.tick.connections, f->u.tick.queued, f->u.tick.busy, f->u.tick.slots, f->u.tick.memory_bytes >> 20,
	    f->u.tick.spool_bytes >> 20);
}

static void on_drained(void *ctx)
{
	struct master *m = ctx;

	if (m->state == MASTER_DRAINING)
		enter(m, MASTER_CUTTING);
}

static void on_gone(void *ctx, bool failed)
{
	struct master *m = ctx;

	m->front_serves = false;
	if (failed)
		m->status = 1;
	if (m->state < MASTER_STOPPING)
		enter(m, MASTER_STOPPING);
}

static void on_replace(void *ctx, size_t pool_index, unsigned slot, pid_t pid)
{
	struct master *m = ctx;

	if (pool_index < pool_count(m) && m->staff[pool_index].supervisor)
		supervisor_replace(m->staff[pool_index].supervisor, slot, pid);
}

static void on_load(void *ctx, size_t pool_index, uint64_t delay_us, unsigned requests)
{
	const struct supervisor_load load = { .delay_us = delay_us, .busy = requests };
	struct master *m = ctx;

	if (m->state < MASTER_CUTTING && pool_index < pool_count(m) && m->staff[pool_index].supervisor)
		supervisor_scale(m->staff[pool_index].supervisor, &load);
}

static void on_poison(void *ctx, const struct channel_message *message, int *fd)
{
	struct master *m = ctx;

	quarantine_hear(m->quarantine, message, fd);
}

static const struct keeper_events keeper_events = { on_serving, on_lost, on_tick, on_drained, on_replace, on_load, on_poison,
	on_gone };

/* ---- what the workers do ---- */

static void on_slot_ready(void *ctx, size_t pool_index, unsigned slot, int *front_fd, pid_t pid)
{
	struct master *m = ctx;

	keeper_send_slot(m->keeper, pool_index, slot, front_fd, pid);
	m->staff[pool_index].ready = true;
	look_if_ready(m);
}

/* Whoever has started `forebay run` is there to mend it; a daemon goes on trying. */
static void on_start_failed(void *ctx, size_t pool_index)
{
	struct master *m = ctx;

	if (!m->o.screen || m->state != MASTER_STARTING)
		return;
	log_error("pool=%s what=\"the application could not be started: forebay ends\"", m->o.conf->pools[pool_index].name);
	m->status = 1;
	enter(m, MASTER_CUTTING);
}

static bool on_is_taken(void *ctx, pid_t pid)
{
	struct master *m = ctx;

	for (size_t i = 0; i < pool_count(m); i++)
		if (m->staff[i].supervisor && supervisor_knows(m->staff[i].supervisor, pid))
			return true;
	return keeper_knows(m->keeper, pid);
}

static uint64_t on_memory_room(void *ctx UNUSED)
{
	return limits_look_for_room();
}

static const struct supervisor_events supervisor_events = {
	.slot_ready = on_slot_ready, .start_failed = on_start_failed, .is_taken = on_is_taken, .memory_room = on_memory_room
};

static void on_pulled(void *ctx)
{
	struct staff *staff = ctx;

	if (staff->master->state < MASTER_DRAINING)
		supervisor_restart(staff->supervisor, "the file of restart_on_change has changed");
}

static int new_trigger(struct master *m, struct staff *staff, const struct conf_pool *conf)
{
	int err;

	if (!conf->restart_on_change)
		return 0;
	staff->master = m;
	err = trigger_new(m->base, conf->restart_on_change, on_pulled, staff, &staff->trigger);
	if (err)
		log_error("pool=%s restart_on_change=%s what=\"it cannot be watched\" error=\"%s\"", conf->name,
		    conf->restart_on_change, strerror(-err));
	return err;
}

static int new_supervisor(struct master *m, const struct supervisor_options *o, size_t i)
{
	const struct conf_pool *conf = &m->o.conf->pools[i];
	int err;

	if (conf->app == APP_NONE)
		return 0;
	err = supervisor_new(m->base, conf, o, &supervisor_events, m, &m->staff[i].supervisor);
	return err ? err : new_trigger(m, &m->staff[i], conf);
}

static int new_supervisors(struct master *m)
{
	const struct supervisor_options o = {
		.clock = &clock_real,
		.default_user = m->ground.worker_user,
		.end_timeout_ms = END_TIMEOUT_MS,
		.debug = m->o.screen != NULL,
		.descriptors = m->ground.given,
	};
	int err = 0;

	m->staff = calloc(MAX(pool_count(m), 1), sizeof(*m->staff));
	if (!m->staff)
		return -ENOMEM;
	for (size_t i = 0; !err && i < pool_count(m); i++)
		err = new_supervisor(m, &o, i);
	return err;
}

/* The next one that has ended, not buried yet; 0: none. */
static pid_t next_dead(void)
{
	siginfo_t info = { 0 };

	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 ? info.si_pid : 0;
}

static void bury(struct master *m, pid_t pid)
{
	bool known = keeper_knows(m->keeper, pid);
	int status;

	/* Whoever it says it is, it must say before its number can be another one's. */
	for (size_t i = 0; !known && i < pool_count(m); i++)
		known = m->staff[i].supervisor && supervisor_look_for(m->staff[i].supervisor, pid);
	if (waitpid(pid, &status, WNOHANG) != pid)
		return;
	known = keeper_reaped(m->keeper, pid, status);
	for (size_t i = 0; !known && i < pool_count(m); i++)
		if (m->staff[i].supervisor)
			known = supervisor_reaped(m->staff[i].supervisor, pid, status);
	quarantine_reaped(m->quarantine, pid, status);
}

static void reap(struct master *m)
{
	pid_t pid;

	while ((pid = next_dead()) > 0)
		bury(m, pid);
	if (m->state == MASTER_STOPPING && workers_alive(m) == 0)
		enter(m, MASTER_ENDED);
}

static void restart_workers(struct master *m, const char *why)
{
	unsigned pools = 0;

	if (m->state >= MASTER_DRAINING) {
		log_info("event=no_restart what=\"forebay is ending: workers are not started anew\"");
		return;
	}
	for (size_t i = 0; i < pool_count(m); i++)
		if (m->staff[i].supervisor) {
			supervisor_restart(m->staff[i].supervisor, why);
			pools++;
		}
	if (pools == 0)
		log_warning("event=nothing_to_restart what=\"SIGHUP starts forebay's own workers anew, and there are none\"");
}

static void on_source_changed(void *ctx, const char *path)
{
	char text[1024];

	log_info("event=reload file=\"%s\"", log_escape(slice_str(path), text, sizeof(text)));
	restart_workers(ctx, "a source file has changed");
}

static int watch_sources(struct master *m)
{
	int err;

	if (!m->o.reload)
		return 0;
	err = sources_new(m->base, &clock_real, m->o.reload, on_source_changed, m, &m->sources);
	if (err)
		log_error("%s: it cannot be watched: %s", m->o.reload, strerror(-err));
	return err;
}

/* ---- signals and timers ---- */

static void end_now(struct master *m)
{
	log_warning("event=end_now what=\"a second signal: requests that are not done are cut\"");
	m->now = true;
	if (m->state == MASTER_STOPPING)
		stop_workers(m);
	else if (m->state == MASTER_CUTTING)
		keeper_end(m->keeper, true);
	else
		enter(m, MASTER_CUTTING);
}

static void end(struct master *m, int sig)
{
	if (m->state >= MASTER_DRAINING) {
		end_now(m);
		return;
	}
	log_info("event=draining signal=SIG%s timeout_ms=%" PRIu64
	         " what=\"requests that have begun are ended, no others are taken; a second signal ends it now\"",
	    sigabbrev_np(sig), m->o.conf->daemon.drain_timeout_ms);
	enter(m, MASTER_DRAINING);
}

static void reopen_logs(struct master *m)
{
	bool all = ground_reopen_logs(&m->ground);

	keeper_send_logs(m->keeper);
	if (all)
		log_info("event=logs_reopened");
}

static void on_signal(evutil_socket_t sig, short what UNUSED, void *ctx)
{
	struct master *m = ctx;

	switch ((int)sig) {
	case SIGTERM:
	case SIGINT:
		end(m, (int)sig);
		break;
	case SIGUSR1:
		reopen_logs(m);
		break;
	case SIGHUP:
		if (m->o.screen) {
			end(m, sig); /* `forebay run`: its terminal was closed */
			break;
		}
		restart_workers(m, "SIGHUP");
		break;
	case SIGCHLD:
		reap(m);
		break;
	}
}

static void on_drain_timer(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct master *m = ctx;

	log_warning("event=drain_timeout what=\"drain_timeout is over: requests that are not done are cut\"");
	m->out_of_time = true;
	event_del(&m->drain_timer);
	enter(m, MASTER_CUTTING);
}

/* The service manager is told that we live only while every event thread shows that it does. */
static void on_watchdog(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct master *m = ctx;

	if (m->state >= MASTER_CUTTING || keeper_pulse(m->keeper))
		notify_send(&m->notify, "WATCHDOG=1");
}

static int watch(struct master *m)
{
	const uint64_t half_us = m->notify.watchdog_us / 2;
	const struct timeval half = { (time_t)(half_us / 1000000), (suseconds_t)(half_us % 1000000) };

	for (size_t i = 0; i < ARRAY_LEN(signals); i++)
		if (evsignal_assign(&m->signals[i], m->base, signals[i], on_signal, m) || evsignal_add(&m->signals[i], NULL))
			return -ENOMEM;
	if (evtimer_assign(&m->drain_timer, m->base, on_drain_timer, m) ||
	    event_assign(&m->watchdog_timer, m->base, -1, EV_PERSIST, on_watchdog, m))
		return -ENOMEM;
	return half_us && event_add(&m->watchdog_timer, &half) ? -ENOMEM : 0;
}

static void unwatch(struct master *m)
{
	for (size_t i = 0; i < ARRAY_LEN(signals); i++)
		if (event_initialized(&m->signals[i]))
			event_del(&m->signals[i]);
	if (event_initialized(&m->drain_timer))
		event_del(&m->drain_timer);
	if (event_initialized(&m->watchdog_timer))
		event_del(&m->watchdog_timer);
}

/* ---- from the first to the last ---- */

/* Twice for each word to the service manager, which is two for each time that it waits. */
static unsigned tick_ms(const struct master *m)
{
	uint64_t quarter_ms = m->notify.watchdog_us / 4000;

	return m->notify.watchdog_us ? (unsigned)MAX(TICK_LEAST_MS, MIN(quarter_ms, TICK_MOST_MS)) : TICK_MOST_MS;
}

static void on_keys_changed(void *ctx)
{
	struct master *m = ctx;

	keeper_send_keys(m->keeper);
}

static int new_keeper(struct master *m)
{
	const struct keeper_options o = {
		.base = m->base,
		.clock = &clock_real,
		.conf = m->o.conf,
		.limits = &m->ground.limits,
		.listeners = &m->ground.listeners,
		.keys = m->ground.keys,
		.logs = m->ground.outputs,
		.log_stamps = m->ground.log_stamps,
		.user = m->ground.user,
		.spool_dir = m->ground.spool_dir,
		.tick_ms = tick_ms(m),
	};

	return keeper_new(&o, &keeper_events, m, &m->keeper);
}

/* Some pool's workers are to come before other processes. */
static bool hurries(const struct master *m)
{
	for (size_t i = 0; i < pool_count(m); i++)
		if (m->staff[i].supervisor && m->o.conf->pools[i].niceness < 0)
			return true;
	return false;
}

/* What cannot be told yet, for want of anybody who would come to an end, is an error of the start. */
static int start(struct master *m)
{
	int err;

	m->base = event_base_new();
	err = m->base ? watch(m) : -ENOMEM;
	if (!err)
		err = keys_watch(m->ground.keys, m->base, on_keys_changed, m);
	if (!err)
		err = new_keeper(m);
	if (!err)
		err = new_supervisors(m);
	if (!err)
		err = quarantine_new(m->base, m->o.conf, &clock_real, &m->quarantine);
	if (!err)
		err = watch_sources(m);
	if (err) {
		log_error("forebay cannot start: %s", strerror(-err));
		return err;
	}
	/* Everything that needed more is open. */
	if (!sandbox_master(hurries(m)))
		log_debug("event=capabilities_kept");
	err = quarantine_check(m->quarantine);
	if (err)
		return err;
	for (size_t i = 0; i < pool_count(m); i++)
		if (m->staff[i].supervisor)
			supervisor_start(m->staff[i].supervisor);
	keeper_start(m->keeper);
	return 0;
}

static void take_down(struct master *m)
{
	sources_free(&m->sources);
	keeper_free(&m->keeper);
	for (size_t i = 0; m->staff && i < pool_count(m); i++) {
		trigger_free(&m->staff[i].trigger);
		supervisor_free(&m->staff[i].supervisor);
	}
	free(m->staff);
	quarantine_free(&m->quarantine);
	unwatch(m);
	if (m->base)
		event_base_free(m->base);
	notify_done(&m->notify);
	ground_done(&m->ground);
}

int master_run(const struct master_options *o)
{
	struct master m = { .o = *o };

	(void)signal(SIGPIPE, SIG_IGN);
	/* Until they are watched: what tells a daemon to go on otherwise does not end one that starts. */
	(void)signal(SIGUSR1, SIG_IGN);
	if (!o->screen)
		(void)signal(SIGHUP, SIG_IGN);
	/* Whoever loses its parent among our children's children comes to us and is buried. */
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	notify_init(&m.notify, getenv("NOTIFY_SOCKET"), getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"), getpid());
	if (ground_lay(&m.ground, o->conf) != 0 || start(&m) != 0)
		m.status = 1;
	else if (m.state != MASTER_ENDED)
		event_base_loop(m.base, EVLOOP_NO_EXIT_ON_EMPTY);
	if (m.status == 0)
		log_info("event=ended");
	take_down(&m);
	return m.status;
}
