#include "upstream/supervisor.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/log.h"
#include "upstream/output.h"
#include "upstream/program.h"
#include "upstream/spawn.h"

#define BACKOFF_FIRST_MS    100
#define BACKOFF_MAX_MS      30000
#define LIVED_WELL_US       (10 * UINT64_C(1000000)) /* as long as this: its end is no crash loop */
#define CRASH_LOOP_FAILURES 5
#define SLOT_PAUSE_US       (100 * UINT64_C(1000)) /* between two sockets for one seat: no loop between a front and a worker spins */
#define END_TIMEOUT_MS      30000
#define MESSAGES_AT_ONCE    64
#define NEVER               UINT64_MAX

enum worker_state {
	WORKER_DOWN,     /* no process; one is started when it is due */
	WORKER_STARTING, /* it has not asked for a slot socket yet */
	WORKER_UP,
	WORKER_ENDING, /* it was told to end, or said that it does; killed when that is due */
	WORKER_STATE_COUNT,
};

static const unsigned may_follow[] = {
	[WORKER_DOWN] = TO(WORKER_STARTING),
	[WORKER_STARTING] = TO(WORKER_UP) | TO(WORKER_ENDING) | TO(WORKER_DOWN),
	[WORKER_UP] = TO(WORKER_ENDING) | TO(WORKER_DOWN),
	[WORKER_ENDING] = TO(WORKER_DOWN),
};
static_assert(ARRAY_LEN(may_follow) == WORKER_STATE_COUNT, "a row for each state");

struct seat {
	bool wanted;     /* it waits for a slot socket */
	bool given;      /* it has got one since its process started */
	uint64_t due_us; /* the next one, not before */
};

struct worker {
	struct supervisor *supervisor;
	unsigned index;
	enum worker_state state;
	uint64_t due_us; /* DOWN: the start; ENDING: the kill */
	uint64_t born_us;
	unsigned failures; /* deaths soon after a start, in a row */
	unsigned hasty;    /* replaced sooner than a first pause, in a row */
	bool replaced;     /* it ends because it was told to, or has done its share: its successor starts at once */
	pid_t pid;
	int control; /* -1: none */
	struct event *control_event;
	struct output *output;
	struct seat *seats;
	unsigned wanted; /* seats */
};

struct supervisor {
	struct event_base *base;
	const struct conf_pool *conf;
	struct supervisor_options options;
	const struct supervisor_events *events;
	void *ctx;
	struct spawn_user user;
	bool has_user;
	char program[PATH_MAX]; /* what workers are; "": this one */
	bool front_there, stopping, started, crash_loop_said;
	int started_fd;
	struct event *timer;
	struct worker *workers; /* conf->processes */
	unsigned alive;
	uint64_t random; /* state of the jitter */
};

static const char *state_name(enum worker_state state)
{
	static const char *const names[] = { "down", "starting", "up", "ending" };

	return names[state];
}

/* The only writer of w->state. */
static void worker_enter(struct worker *w, enum worker_state next, uint64_t due_us)
{
	assert(may_follow[w->state] & TO(next));
	log_debug("pool=%s worker=%u pid=%d state=%s was=%s", w->supervisor->conf->name, w->index, (int)w->pid,
	    state_name(next), state_name(w->state));
	w->state = next;
	w->due_us = due_us;
}

static uint64_t now_us(const struct supervisor *s)
{
	return clock_mono_us(s->options.clock);
}

static bool is_alive(const struct worker *w)
{
	return w->state != WORKER_DOWN;
}

/* A quarter more or less, so that what died together does not start together (xorshift64). */
static uint64_t with_jitter(struct supervisor *s, uint64_t n)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return n - n / 4 + s->random % (n / 2 + 1);
}

static void send_signal(struct worker *w, int sig)
{
	struct supervisor *s = w->supervisor;
	int err = s->options.kill ? s->options.kill(s->ctx, w->pid, sig) : kill(w->pid, sig) == -1 ? -errno : 0;

	if (err)
		log_warning("pool=%s worker=%u pid=%d what=\"could not be killed\" error=%s", s->conf->name, w->index,
		    (int)w->pid, strerrorname_np(-err));
}

/* When the next thing is due. */
static uint64_t worker_due(const struct worker *w)
{
	const struct supervisor *s = w->supervisor;
	uint64_t due = NEVER;

	if (w->state == WORKER_DOWN)
		return s->stopping ? NEVER : w->due_us;
	if (w->state == WORKER_ENDING)
		return w->due_us;
	if (!s->front_there || w->wanted == 0)
		return NEVER;
	for (unsigned i = 0; i < s->conf->threads; i++)
		if (w->seats[i].wanted)
			due = MIN(due, w->seats[i].due_us);
	return due;
}

static void arm_timer(struct supervisor *s)
{
	uint64_t due = NEVER, now = now_us(s), wait;
	struct timeval tv;

	for (unsigned i = 0; i < s->conf->processes; i++)
		due = MIN(due, worker_due(&s->workers[i]));
	if (due == NEVER) {
		(void)event_del(s->timer);
		return;
	}
	wait = due > now ? due - now : 0;
	tv = (struct timeval){ .tv_sec = (time_t)(wait / 1000000), .tv_usec = (suseconds_t)(wait % 1000000) };
	(void)event_add(s->timer, &tv); /* could fail without memory only; whatever happens next tries again */
}

/* Slot sockets. */

static int make_slot_pair(int pair[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == -1)
		return -errno;
	/* The worker blocks, the front never does. */
	if (fcntl(pair[0], F_SETFL, O_NONBLOCK) == -1) {
		close(pair[0]);
		close(pair[1]);
		return -EIO;
	}
	return 0;
}

/* What fails is tried again after a pause; a worker that does not listen any more is about to be reaped. */
static void give_slot(struct worker *w, unsigned index)
{
	struct supervisor *s = w->supervisor;
	struct seat *seat = &w->seats[index];
	const struct control_message m = { .type = CONTROL_SLOT, .seat = index };
	int pair[2], err;
	ssize_t n;

	seat->due_us = now_us(s) + SLOT_PAUSE_US;
	err = make_slot_pair(pair);
	if (err) {
		log_error("pool=%s worker=%u what=\"no slot socket\" error=%s", s->conf->name, w->index, strerrorname_np(-err));
		return;
	}
	n = fdpass_send(w->control, &m, sizeof(m), &pair[1], 1, MSG_DONTWAIT);
	close(pair[1]);
	if (n != (ssize_t)sizeof(m)) {
		close(pair[0]);
		return;
	}
	seat->wanted = false;
	seat->given = true;
	w->wanted--;
	s->events->slot_ready(s->ctx, s->conf->index, w->index * s->conf->threads + index, &pair[0], w->pid);
	if (pair[0] != -1)
		close(pair[0]);
}

static void give_slots(struct worker *w)
{
	const struct supervisor *s = w->supervisor;
	uint64_t now = now_us(s);

	for (unsigned i = 0; i < s->conf->threads && w->wanted > 0 && w->control != -1; i++)
		if (w->seats[i].wanted && w->seats[i].due_us <= now)
			give_slot(w, i);
}

/* The control socket. */

static void drop_control(struct worker *w)
{
	if (w->control_event)
		event_free(w->control_event);
	w->control_event = NULL;
	if (w->control != -1)
		close(w->control);
	w->control = -1;
	for (unsigned i = 0; i < w->supervisor->conf->threads; i++)
		w->seats[i].wanted = false;
	w->wanted = 0;
}

/* Gives it until the time limit to end by itself. */
static void worker_ends(struct worker *w)
{
	if (w->state == WORKER_STARTING || w->state == WORKER_UP)
		worker_enter(w, WORKER_ENDING, now_us(w->supervisor) + w->supervisor->options.end_timeout_ms * 1000);
}

/* What comes from a worker can be the work of its application: nothing of it is trusted. */
static void misbehaved(struct worker *w, const char *what)
{
	log_error("pool=%s worker=%u pid=%d what=\"worker killed\" why=\"%s\"", w->supervisor->conf->name, w->index,
	    (int)w->pid, what);
	send_signal(w, SIGKILL);
	drop_control(w);
	worker_ends(w);
}

static void take_want(struct worker *w, unsigned index)
{
	struct supervisor *s = w->supervisor;

	if (index >= s->conf->threads || w->seats[index].wanted) {
		misbehaved(w, "asked for a slot out of turn");
		return;
	}
	w->seats[index].wanted = true;
	w->wanted++;
	if (w->state == WORKER_STARTING)
		worker_enter(w, WORKER_UP, NEVER);
	if (s->front_there && w->state == WORKER_UP)
		give_slots(w);
}

/* False: there is nothing more. */
static bool take_message(struct worker *w)
{
	struct control_message m;
	size_t fds;
	ssize_t n = fdpass_recv(w->control, &m, sizeof(m), NULL, 0, &fds, MSG_DONTWAIT);

	if (n == -EAGAIN)
		return false;
	if (n == 0 || n == -ECONNRESET) {
		/* It has ended, or will not hear us any more. */
		drop_control(w);
		worker_ends(w);
	} else if (n != (ssize_t)sizeof(m)) {
		misbehaved(w, "not a control message");
	} else if (m.type == CONTROL_WANT) {
		take_want(w, m.seat);
	} else if (m.type == CONTROL_SPENT) {
		w->replaced = true;
		worker_ends(w);
	} else {
		misbehaved(w, "unknown control message");
	}
	return w->control != -1;
}

static void on_control(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct worker *w = ctx;

	for (int i = 0; i < MESSAGES_AT_ONCE && take_message(w); i++)
		;
	arm_timer(w->supervisor);
}

/* Where it fails, the time limit ends it. */
static void send_end(struct worker *w, enum control_type type, unsigned seat)
{
	const struct control_message m = { .type = type, .seat = seat };

	if (w->control != -1)
		(void)!fdpass_send(w->control, &m, sizeof(m), NULL, 0, MSG_DONTWAIT);
	worker_ends(w);
}

static void ask_to_end(struct worker *w)
{
	if (w->state == WORKER_STARTING || w->state == WORKER_UP)
		send_end(w, CONTROL_END, 0);
}

/* Starting. */

#define ENV_MAX 16

/* NAME=value of the master's own environment, or nothing. */
static char *inherit(const char *name)
{
	const char *value = getenv(name);
	char *entry = NULL;

	return value && asprintf(&entry, "%s=%s", name, value) != -1 ? entry : NULL;
}

static char *entry_of(const char *name, const char *value)
{
	char *entry = NULL;

	return asprintf(&entry, "%s=%s", name, value) != -1 ? entry : NULL;
}

/* True if the configuration says it, so that ours is not wanted. */
static bool is_configured(const struct conf_pool *conf, const char *entry)
{
	size_t name_len = strcspn(entry, "=") + 1;

	for (size_t i = 0; i < conf->environment_count; i++)
		if (strncmp(conf->environment[i], entry, name_len) == 0)
			return true;
	return false;
}

static void free_environment(const char **envp, size_t own)
{
	for (size_t i = 0; i < own; i++)
		free((char *)(uintptr_t)envp[i]);
	free(envp);
}

/* Nothing of the master's but language and time zone; the user's home; what the configuration says. *ret_own of the first are ours to free. */
static const char **make_environment(const struct supervisor *s, size_t *ret_own)
{
	const struct conf_pool *conf = s->conf;
	char *own[] = {
		entry_of("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
		inherit("LANG"),
		inherit("LC_ALL"),
		inherit("TZ"),
		s->has_user ? entry_of("HOME", s->user.home) : inherit("HOME"),
		s->has_user ? entry_of("USER", s->user.name) : inherit("USER"),
		s->has_user ? entry_of("LOGNAME", s->user.name) : inherit("LOGNAME"),
	};
	const char **envp = calloc(ARRAY_LEN(own) + conf->environment_count + 1, sizeof(*envp));
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		if (envp && own[i] && !is_configured(conf, own[i]))
			envp[n++] = own[i];
		else
			free(own[i]);
	}
	*ret_own = n;
	for (size_t i = 0; envp && i < conf->environment_count; i++)
		envp[n++] = conf->environment[i];
	return envp;
}

struct worker_pipes {
	int control[2], output[2]; /* ours, the worker's; read, write */
};

static void close_pipes(struct worker_pipes *p)
{
	const int all[] = { p->control[0], p->control[1], p->output[0], p->output[1] };

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (all[i] != -1)
			close(all[i]);
}

static int make_pipes(struct worker_pipes *p)
{
	int err;

	*p = (struct worker_pipes){ { -1, -1 }, { -1, -1 } };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->control) == -1 || pipe2(p->output, O_CLOEXEC) == -1) {
		err = -errno;
		close_pipes(p);
		return err;
	}
	return 0;
}

static int spawn_worker(struct worker *w, const struct worker_pipes *p)
{
	struct supervisor *s = w->supervisor;
	const struct conf_pool *conf = s->conf;
	char title[96], threads[16], first[16], requests[24];
	const char *argv[] = { title, "worker",
		conf->app == APP_WSGI     ? "wsgi"
		: conf->app == APP_WORKER ? "worker"
		                          : "demo",
		conf->app_target ? conf->app_target : "", threads, first, requests, NULL };
	struct spawn_plan plan = { .argv = argv,
		.fds = { -1, p->output[1], p->output[1], p->control[1], s->started_fd },
		.fd_count = WORKER_FD_COUNT,
		.user = s->has_user ? &s->user : NULL,
		.directory = conf->directory,
		.program = s->program[0] ? s->program : NULL };
	size_t own;
	const char **envp = make_environment(s, &own);
	int err;

	if (!envp)
		return -ENOMEM;
	plan.envp = envp;
	(void)snprintf(title, sizeof(title), "forebay: worker %.64s %u", conf->name, w->index + 1);
	(void)snprintf(threads, sizeof(threads), "%u", conf->threads);
	(void)snprintf(first, sizeof(first), "%u", w->index * conf->threads);
	(void)snprintf(requests, sizeof(requests), "%" PRIu64, conf->max_requests);
	err = s->options.spawn ? s->options.spawn(s->ctx, &plan, &w->pid) : spawn_child(&plan, &w->pid);
	free_environment(envp, own);
	return err;
}

static int watch_control(struct worker *w, int *control)
{
	w->control = *control;
	*control = -1;
	w->control_event = event_new(w->supervisor->base, w->control, EV_READ | EV_PERSIST, on_control, w);
	return w->control_event && event_add(w->control_event, NULL) == 0 ? 0 : -ENOMEM;
}

static int start_process(struct worker *w, struct worker_pipes *p)
{
	int err = watch_control(w, &p->control[0]);

	if (!err)
		err = output_new(w->supervisor->base, w->supervisor->conf->name, &p->output[0], &w->output);
	return err ? err : spawn_worker(w, p);
}

static uint64_t backoff_us(struct worker *w)
{
	unsigned doublings = w->failures > 0 ? MIN(w->failures - 1, 20) : 0;
	uint64_t ms = MIN((uint64_t)BACKOFF_FIRST_MS << doublings, BACKOFF_MAX_MS);

	return with_jitter(w->supervisor, ms * 1000);
}

static void could_not_start(struct worker *w, int err)
{
	struct supervisor *s = w->supervisor;

	drop_control(w);
	output_free(&w->output);
	w->failures++;
	w->due_us = now_us(s) + backoff_us(w);
	log_error("pool=%s worker=%u what=\"could not be started\" error=%s again_after_ms=%" PRIu64, s->conf->name, w->index,
	    strerrorname_np(-err), (w->due_us - now_us(s)) / 1000);
}

static void start_worker(struct worker *w)
{
	struct supervisor *s = w->supervisor;
	struct worker_pipes pipes;
	int err = make_pipes(&pipes);

	memset(w->seats, 0, s->conf->threads * sizeof(*w->seats));
	w->wanted = 0;
	w->replaced = false;
	if (!err) {
		err = start_process(w, &pipes);
		close_pipes(&pipes);
	}
	if (err) {
		could_not_start(w, err);
		return;
	}
	output_set_pid(w->output, w->pid);
	w->born_us = now_us(s);
	s->alive++;
	worker_enter(w, WORKER_STARTING, NEVER);
	log_info("pool=%s worker=%u pid=%d what=\"worker started\"", s->conf->name, w->index, (int)w->pid);
}

/* Ending. */

static void describe_end(int status, char *text, size_t size)
{
	if (WIFSIGNALED(status))
		(void)snprintf(text, size, "signal %d (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)),
		    WCOREDUMP(status) ? ", core dumped" : "");
	else
		(void)snprintf(text, size, "exit %d", WEXITSTATUS(status));
}

static void say_crash_loop(struct worker *w)
{
	struct supervisor *s = w->supervisor;

	if (w->failures < CRASH_LOOP_FAILURES || s->crash_loop_said)
		return;
	s->crash_loop_said = true;
	log_error(
	    "pool=%s what=\"workers end again and again soon after their start; they are started with growing pauses (at most %d s)\"",
	    s->conf->name, BACKOFF_MAX_MS / 1000);
}

/* When its successor starts. */
static uint64_t plan_successor(struct worker *w, uint64_t lived_us)
{
	struct supervisor *s = w->supervisor;

	if (lived_us >= LIVED_WELL_US) {
		w->failures = 0;
		s->crash_loop_said = false;
	}
	/* At once; but of those that say so again and again as soon as they are there no loop spins. */
	w->hasty = w->replaced && lived_us < BACKOFF_FIRST_MS * 1000 ? w->hasty + 1 : 0;
	if (w->replaced)
		return w->hasty < CRASH_LOOP_FAILURES ? now_us(s) : w->born_us + BACKOFF_FIRST_MS * 1000;
	if (lived_us < LIVED_WELL_US)
		w->failures++;
	return now_us(s) + backoff_us(w);
}

static struct worker *worker_of(struct supervisor *s, pid_t pid)
{
	for (unsigned i = 0; i < s->conf->processes; i++)
		if (is_alive(&s->workers[i]) && s->workers[i].pid == pid)
			return &s->workers[i];
	return NULL;
}

static void tell_slots_gone(struct worker *w)
{
	struct supervisor *s = w->supervisor;

	for (unsigned i = 0; s->events->slot_gone && i < s->conf->threads; i++)
		if (w->seats[i].given)
			s->events->slot_gone(s->ctx, s->conf->index, w->index * s->conf->threads + i, w->pid);
}

bool supervisor_reaped(struct supervisor *s, pid_t pid, int status)
{
	struct worker *w = worker_of(s, pid);
	bool expected;
	uint64_t lived_us, due_us, now;
	char how[96], next[48] = "";

	if (!w)
		return false;
	lived_us = now_us(s) - w->born_us;
	expected = (w->replaced || s->stopping) && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	drop_control(w);
	output_end(w->output);
	output_free(&w->output);
	s->alive--;
	due_us = plan_successor(w, lived_us);
	now = now_us(s); /* by now it may be due */
	describe_end(status, how, sizeof(how));
	if (!s->stopping)
		(void)snprintf(next, sizeof(next), " restart_after_ms=%" PRIu64, due_us > now ? (due_us - now) / 1000 : 0);
	log_line(expected ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
	    "pool=%s worker=%u pid=%d what=\"worker ended\" how=\"%s\" lived_ms=%" PRIu64 "%s", s->conf->name, w->index,
	    (int)pid, how, lived_us / 1000, next);
	say_crash_loop(w);
	worker_enter(w, WORKER_DOWN, due_us);
	tell_slots_gone(w);
	w->pid = 0;
	supervisor_tick(s);
	return true;
}

/* What others call. */

static void worker_tick(struct worker *w)
{
	const struct supervisor *s = w->supervisor;

	if (worker_due(w) > now_us(s))
		return;
	switch (w->state) {
	case WORKER_DOWN:
		start_worker(w);
		break;
	case WORKER_UP:
		give_slots(w);
		break;
	case WORKER_ENDING:
		log_warning("pool=%s worker=%u pid=%d what=\"worker killed\" why=\"did not end in time\"", s->conf->name,
		    w->index, (int)w->pid);
		w->due_us = NEVER;
		send_signal(w, SIGKILL);
		break;
	case WORKER_STARTING:
	case WORKER_STATE_COUNT:
		break;
	}
}

void supervisor_tick(struct supervisor *s)
{
	if (!s->started)
		return;
	for (unsigned i = 0; i < s->conf->processes; i++)
		worker_tick(&s->workers[i]);
	arm_timer(s);
}

static void on_timer(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	supervisor_tick(ctx);
}

/* Whom the workers run as. */
static int choose_user(struct supervisor *s)
{
	const char *name = s->conf->user ? s->conf->user : s->options.default_user;
	int err;

	if (geteuid() == 0 && !name) {
		log_error("pool=%s what=\"forebay runs as root and the pool has no user\"", s->conf->name);
		return -EPERM;
	}
	if (!name || (geteuid() != 0 && !s->conf->user))
		return 0;
	err = spawn_find_user(name, &s->user);
	if (err) {
		log_error("pool=%s user=%s what=\"no such user\" error=%s", s->conf->name, name, strerrorname_np(-err));
		return err;
	}
	if (geteuid() != 0 && s->user.uid != geteuid()) {
		log_error("pool=%s user=%s what=\"only root can start workers as another user\"", s->conf->name, name);
		return -EPERM;
	}
	s->has_user = geteuid() == 0;
	return 0;
}

static int check_pool(struct supervisor *s)
{
	struct stat st;

	if (s->conf->app == APP_WSGI && program_find(PROGRAM_WSGI, s->program, sizeof(s->program)) != 0) {
		log_error("pool=%s program=%s what=\"WSGI applications are not built in: there is no such program\"",
		    s->conf->name, s->program);
		return -ENOENT;
	}
	if (s->conf->app == APP_WORKER) {
		if (access(s->conf->app_program, X_OK) == -1) {
			log_error("pool=%s program=%s what=\"it is not there, or not to be run\" error=%s", s->conf->name,
			    s->conf->app_program, strerrorname_np(errno));
			return -ENOENT;
		}
		(void)snprintf(s->program, sizeof(s->program), "%s", s->conf->app_program);
	}
	if (s->conf->app == APP_EXEC) {
		log_error("pool=%s what=\"this kind of app is not built in\"", s->conf->name);
		return -ENOTSUP;
	}
	if (s->conf->directory && (stat(s->conf->directory, &st) == -1 || !S_ISDIR(st.st_mode))) {
		log_error("pool=%s directory=%s what=\"no such directory\"", s->conf->name, s->conf->directory);
		return -ENOENT;
	}
	return choose_user(s);
}

/* Workers write to it, so it cannot be sealed against that; but nobody makes it shorter under the front's feet. */
static int make_started_page(struct supervisor *s)
{
	s->started_fd = memfd_create("forebay-started", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (s->started_fd == -1 || ftruncate(s->started_fd, (off_t)supervisor_started_bytes(s)) == -1 ||
	    fchmod(s->started_fd, 0600) == -1 || /* or any user could open it for writing through /proc */
	    fcntl(s->started_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == -1)
		return -errno;
	return 0;
}

static int make_workers(struct supervisor *s)
{
	s->workers = calloc(s->conf->processes, sizeof(*s->workers));
	if (!s->workers)
		return -ENOMEM;
	for (unsigned i = 0; i < s->conf->processes; i++)
		s->workers[i] = (struct worker){ .supervisor = s, .index = i, .control = -1 };
	for (unsigned i = 0; i < s->conf->processes; i++) {
		s->workers[i].seats = calloc(s->conf->threads, sizeof(struct seat));
		if (!s->workers[i].seats)
			return -ENOMEM;
	}
	return 0;
}

static int make_timer(struct supervisor *s)
{
	s->timer = event_new(s->base, -1, 0, on_timer, s);
	return s->timer ? 0 : -ENOMEM;
}

int supervisor_new(struct event_base *base, const struct conf_pool *conf, const struct supervisor_options *options,
    const struct supervisor_events *events, void *ctx, struct supervisor **ret)
{
	struct supervisor *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->base = base;
	s->conf = conf;
	s->options = *options;
	if (s->options.end_timeout_ms == 0)
		s->options.end_timeout_ms = END_TIMEOUT_MS;
	s->events = events;
	s->ctx = ctx;
	s->started_fd = -1;
	if (getrandom(&s->random, sizeof(s->random), GRND_NONBLOCK) != (ssize_t)sizeof(s->random) || s->random == 0)
		s->random = 1;
	err = check_pool(s);
	if (!err)
		err = make_started_page(s);
	if (!err)
		err = make_workers(s);
	if (!err)
		err = make_timer(s);
	if (err) {
		supervisor_free(&s);
		return err;
	}
	*ret = s;
	return 0;
}

static void free_worker(struct worker *w)
{
	if (is_alive(w))
		send_signal(w, SIGKILL);
	if (w->seats)
		drop_control(w);
	output_free(&w->output);
	free(w->seats);
}

void supervisor_free(struct supervisor **s)
{
	struct supervisor *old = *s;

	*s = NULL;
	if (!old)
		return;
	for (unsigned i = 0; old->workers && i < old->conf->processes; i++)
		free_worker(&old->workers[i]);
	free(old->workers);
	if (old->timer)
		event_free(old->timer);
	if (old->started_fd != -1)
		close(old->started_fd);
	free(old);
}

void supervisor_start(struct supervisor *s)
{
	s->started = true;
	supervisor_tick(s);
}

void supervisor_front_lost(struct supervisor *s)
{
	s->front_there = false;
	arm_timer(s);
}

void supervisor_fresh_slots(struct supervisor *s)
{
	s->front_there = true;
	/* A new front is not the loop that the pause is there for. */
	for (unsigned i = 0; i < s->conf->processes; i++)
		for (unsigned k = 0; k < s->conf->threads; k++)
			s->workers[i].seats[k].due_us = 0;
	supervisor_tick(s);
}

int supervisor_started_fd(const struct supervisor *s)
{
	char path[40];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", s->started_fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd == -1 ? -errno : fd;
}

size_t supervisor_started_bytes(const struct supervisor *s)
{
	return (size_t)supervisor_slots(s) * STARTED_LINE_BYTES;
}

void supervisor_replace(struct supervisor *s, unsigned slot)
{
	struct worker *w;

	if (slot >= supervisor_slots(s))
		return;
	w = &s->workers[slot / s->conf->threads];
	if (!is_alive(w))
		return;
	log_warning(
	    "pool=%s worker=%u pid=%d thread=%u what=\"worker is replaced\" why=\"its request took longer than timeout\"",
	    s->conf->name, w->index, (int)w->pid, slot % s->conf->threads);
	w->replaced = true;
	/* Also to one that ends already: it may be waiting for this very thread. */
	send_end(w, CONTROL_END_WITHOUT, slot % s->conf->threads);
	arm_timer(s);
}

void supervisor_stop(struct supervisor *s, bool force)
{
	s->stopping = true;
	for (unsigned i = 0; i < s->conf->processes; i++) {
		struct worker *w = &s->workers[i];

		if (!is_alive(w))
			continue;
		ask_to_end(w);
		if (!force)
			continue;
		send_signal(w, SIGKILL);
		w->due_us = NEVER;
	}
	arm_timer(s);
}

unsigned supervisor_alive(const struct supervisor *s)
{
	return s->alive;
}

unsigned supervisor_slots(const struct supervisor *s)
{
	return s->conf->processes * s->conf->threads;
}

const struct conf_pool *supervisor_conf(const struct supervisor *s)
{
	return s->conf;
}
