#include "upstream/supervisor.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "upstream/supervision.h"

#define END_TIMEOUT_MS 30000

static uint64_t now_us(const struct supervisor *s)
{
	return supervision_now_us(s);
}

/* Time. */

static uint64_t all_due(const struct supervisor *s)
{
	uint64_t due = MIN(staffing_due(s), rollout_due(s));

	for (unsigned i = 0; i < s->place_count; i++)
		due = MIN(due, worker_child_due(&s->places[i]));
	for (const struct nursery *n = s->nurseries; n; n = n->next)
		due = MIN(due, nursery_due(n));
	return due;
}

static void arm_timer(struct supervisor *s)
{
	uint64_t due = all_due(s), now = now_us(s), wait;
	struct timeval tv;

	if (due == CHILD_NEVER) {
		(void)event_del(s->timer);
		return;
	}
	wait = due > now ? due - now : 0;
	tv = (struct timeval){ .tv_sec = (time_t)(wait / 1000000), .tv_usec = (suseconds_t)(wait % 1000000) };
	(void)event_add(s->timer, &tv); /* could fail without memory only; whatever happens next tries again */
}

void supervisor_tick(struct supervisor *s)
{
	if (!s->started)
		return;
	for (struct nursery *n = s->nurseries; n; n = n->next)
		nursery_tick(n);
	for (unsigned i = 0; i < s->place_count; i++)
		worker_child_tick(&s->places[i]);
	rollout_tick(s);
	staffing_tick(s);
	arm_timer(s);
}

static void on_timer(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	supervisor_tick(ctx);
}

/* What workers and zygotes say. */

static void say_start_failed(struct supervisor *s)
{
	if (s->served || s->stopping || s->start_failed_said)
		return;
	s->start_failed_said = true;
	if (s->events->start_failed)
		s->events->start_failed(s->ctx, s->conf->index);
}

static void on_slot_ready(void *ctx, struct worker_child *w, unsigned slot, int *front_fd)
{
	struct supervisor *s = ctx;

	s->events->slot_ready(s->ctx, s->conf->index, slot, front_fd, w->pid);
}

static struct worker_child *worker_of(const struct supervisor *s, pid_t pid)
{
	for (unsigned i = 0; i < s->place_count; i++)
		if (s->places[i].pid == pid)
			return &s->places[i];
	return NULL;
}

static struct nursery *nursery_of(const struct supervisor *s, pid_t pid)
{
	for (struct nursery *n = s->nurseries; n; n = n->next)
		if (n->pid == pid)
			return n;
	return NULL;
}

static bool is_child(const struct supervisor *s, pid_t pid)
{
	siginfo_t info;

	if (s->options.is_child)
		return s->options.is_child(s->ctx, pid);
	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0;
}

static bool on_announced(void *ctx, struct worker_child *w UNUSED, pid_t pid)
{
	struct supervisor *s = ctx;
	bool taken = supervisor_knows(s, pid) || (s->events->is_taken && s->events->is_taken(s->ctx, pid));

	if (taken || !is_child(s, pid))
		return false;
	staffing_say_born(s);
	return true;
}

/* A fork takes no time: whoever was asked for it does not get on. That of the next generation goes with it. */
static void on_late(void *ctx, struct worker_child *w)
{
	struct supervisor *s = ctx;

	if (s->now.nursery && w->generation == s->now.number)
		nursery_kill(s->now.nursery, "it does not fork any more");
}

static void on_fit(void *ctx, struct worker_child *w)
{
	struct supervisor *s = ctx;

	s->served = true;
	rollout_fit(s, w);
}

static void on_lost(void *ctx, struct worker_child *w)
{
	struct supervisor *s = ctx;
	struct post *p = staffing_post_of(s, w);

	if (s->stopping || rollout_lost(s, w, w->why) || !p)
		return;
	staffing_vacate(s, p, w, 0);
	/* What is tried in vain was said the first time. */
	log_line(s->start_error ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING,
	    "pool=%s worker=%u what=\"worker lost\" why=\"%s\" restart_after_ms=%" PRIu64, s->conf->name, w->place, w->why,
	    p->due_us > now_us(s) ? (p->due_us - now_us(s)) / 1000 : 0);
	say_start_failed(s);
}

static void on_stirred(void *ctx)
{
	supervisor_tick(ctx);
}

static const struct worker_child_events worker_events = { .slot_ready = on_slot_ready,
	.announced = on_announced,
	.late = on_late,
	.fit = on_fit,
	.lost = on_lost,
	.stirred = on_stirred };

static void on_open(void *ctx, struct nursery *n)
{
	rollout_nursery_open(ctx, n);
}

/* The pool does without a zygote, this time. */
static void on_unforkable(void *ctx, struct nursery *n, const char *text)
{
	struct supervisor *s = ctx;
	struct generation *g = n == s->now.nursery ? &s->now : n == s->rollout.next.nursery ? &s->rollout.next : NULL;

	log_warning("pool=%s what=\"the application cannot be forked: each worker loads it, as with preload = off\" "
	            "why=\"a fork would lose or share %s\"",
	    s->conf->name, text);
	if (!g)
		return;
	g->forks = false;
	g->nursery = NULL;
	if (g == &s->rollout.next)
		rollout_unforkable(s);
	else
		staffing_go_on(s);
}

static void on_no_fork(void *ctx, struct nursery *n, unsigned place, int err)
{
	struct supervisor *s = ctx;

	if (place >= s->place_count || s->places[place].state != WORKER_CALLED)
		return;
	log_debug("pool=%s zygote=%d worker=%u what=\"could not be forked\"", s->conf->name, (int)n->pid, place);
	staffing_say_error(s, -err);
	worker_child_not_born(&s->places[place], "it could not be forked");
}

const struct nursery_events supervision_nursery_events = {
	.open = on_open, .unforkable = on_unforkable, .no_fork = on_no_fork
};

/* Ends. */

static void describe_end(int status, char *text, size_t size)
{
	if (WIFSIGNALED(status))
		(void)snprintf(text, size, "signal %d (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)),
		    WCOREDUMP(status) ? ", core dumped" : "");
	else
		(void)snprintf(text, size, "exit %d", WEXITSTATUS(status));
}

static void tell_slots_gone(struct supervisor *s, const struct worker_child *w, pid_t pid)
{
	for (unsigned i = 0; s->events->slot_gone && i < s->conf->threads; i++)
		if (w->seats[i].given)
			s->events->slot_gone(s->ctx, s->conf->index, w->place * s->conf->threads + i, pid);
}

static void log_end(const struct supervisor *s, const struct worker_child *w, pid_t pid, const char *how, uint64_t lived_us,
    bool expected, const struct post *p)
{
	char next[48] = "";
	uint64_t now = now_us(s);

	if (p && p->index < s->posts_wanted && !s->stopping)
		(void)snprintf(
		    next, sizeof(next), " restart_after_ms=%" PRIu64, p->due_us > now ? (p->due_us - now) / 1000 : 0);
	log_line(expected ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
	    "pool=%s worker=%u pid=%d what=\"worker ended\" how=\"%s\" lived_ms=%" PRIu64 "%s", s->conf->name, w->place,
	    (int)pid, how, lived_us / 1000, next);
}

static void worker_reaped(struct supervisor *s, struct worker_child *w, int status)
{
	struct post *p = staffing_post_of(s, w);
	uint64_t lived_us = now_us(s) - w->born_us;
	pid_t pid = w->pid;
	bool expected = (w->replaced || s->stopping) && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	bool was_fit = w->state == WORKER_UP || (w->state == WORKER_ENDING && w->replaced);
	char how[96];

	worker_child_reaped(w);
	if (p)
		staffing_vacate(s, p, w, lived_us);
	describe_end(status, how, sizeof(how));
	log_end(s, w, pid, how, lived_us, expected, p);
	tell_slots_gone(s, w, pid);
	if (!rollout_lost(s, w, w->why[0] ? w->why : how) && p && !was_fit)
		say_start_failed(s);
}

static void forget_nursery(struct supervisor *s, struct nursery *n)
{
	struct nursery **at = &s->nurseries;

	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	nursery_free(&n);
}

static void nursery_ended(struct supervisor *s, struct nursery *n, int status)
{
	bool present = n == s->now.nursery, was_open = n->state == NURSERY_OPEN,
	     unwanted = !present && n != s->rollout.next.nursery;
	pid_t pid = n->pid;
	char how[96], why[CHILD_WHY_MAX + 96];

	describe_end(status, how, sizeof(how));
	nursery_reaped(n); /* its last words first */
	(void)snprintf(
	    why, sizeof(why), "%s%s", was_open ? "" : "the application could not be loaded: ", n->why[0] ? n->why : how);
	log_line(unwanted ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR,
	    "pool=%s zygote=%d what=\"zygote ended\" how=\"%s\" why=\"%s\"%s", s->conf->name, (int)pid, how, why,
	    present && was_open ? " then=\"the workers go on; the next one that is needed starts a rolling restart\"" : "");
	rollout_nursery_gone(s, n, why);
	forget_nursery(s, n);
	if (present)
		say_start_failed(s);
}

bool supervisor_knows(const struct supervisor *s, pid_t pid)
{
	return pid > 0 && (worker_of(s, pid) || nursery_of(s, pid));
}

bool supervisor_look_for(struct supervisor *s, pid_t pid)
{
	for (unsigned i = 0; !supervisor_knows(s, pid) && i < s->place_count; i++)
		if (s->places[i].state == WORKER_CALLED)
			worker_child_look(&s->places[i]);
	return supervisor_knows(s, pid);
}

bool supervisor_reaped(struct supervisor *s, pid_t pid, int status)
{
	struct worker_child *w = pid > 0 ? worker_of(s, pid) : NULL;
	struct nursery *n = pid > 0 ? nursery_of(s, pid) : NULL;

	if (w)
		worker_reaped(s, w, status);
	else if (n)
		nursery_ended(s, n, status);
	else
		return false;
	supervisor_tick(s);
	return true;
}

/* Making. */

/* Workers write to it, so it cannot be sealed against that; but nobody makes it shorter under the front's feet. */
static int make_started_page(struct supervisor *s)
{
	s->started_fd = memfd_create("forebay-started", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (s->started_fd == -1 || ftruncate(s->started_fd, (off_t)supervisor_started_bytes(s)) == -1 ||
	    fchmod(s->started_fd, 0600) == -1 || /* or any user could open it for writing through /proc */
	    fcntl(s->started_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == -1)
		return -errno;
	s->launch.started_fd = s->started_fd;
	return 0;
}

/* The house speaks to us, a test's kill to the test. */
static int kill_for_house(void *ctx, pid_t pid, int sig)
{
	const struct supervisor *s = ctx;

	return s->options.kill ? s->options.kill(s->ctx, pid, sig) : kill(pid, sig) == -1 ? -errno : 0;
}

static void make_house(struct supervisor *s)
{
	s->house = (struct worker_house){
		.base = s->base,
		.conf = s->conf,
		.clock = s->options.clock,
		.end_timeout_ms = s->options.end_timeout_ms ? s->options.end_timeout_ms : END_TIMEOUT_MS,
		.debug = s->options.debug,
		.kill = kill_for_house,
		.events = &worker_events,
		.ctx = s,
	};
}

static int make_places(struct supervisor *s)
{
	int err = 0;

	make_house(s);
	s->posts = calloc(s->conf->processes, sizeof(*s->posts));
	s->places = calloc(2 * (size_t)s->conf->processes, sizeof(*s->places));
	if (!s->posts || !s->places)
		return -ENOMEM;
	for (unsigned i = 0; i < s->conf->processes; i++)
		s->posts[i].index = i;
	for (; !err && s->place_count < 2 * s->conf->processes; s->place_count += !err)
		err = worker_child_init(&s->places[s->place_count], &s->house, s->place_count);
	s->posts_wanted = conf_pool_processes_min(s->conf);
	return err;
}

static int make_timer(struct supervisor *s)
{
	s->timer = event_new(s->base, -1, 0, on_timer, s);
	return s->timer ? 0 : -ENOMEM;
}

static int make_launch(struct supervisor *s)
{
	int err = launch_init(&s->launch, s->conf, s->options.default_user);

	s->launch.spawn = s->options.spawn;
	s->launch.ctx = s->ctx;
	s->launch.debug = s->options.debug;
	s->launch.descriptors = s->options.descriptors;
	return err;
}

int supervisor_new(struct event_base *base, const struct conf_pool *conf, const struct supervisor_options *options,
    const struct supervisor_events *events, void *ctx, struct supervisor **ret)
{
	struct supervisor *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	*s = (struct supervisor){
		.base = base, .conf = conf, .options = *options, .events = events, .ctx = ctx, .started_fd = -1
	};
	s->rollout.due_us = CHILD_NEVER;
	if (getrandom(&s->random, sizeof(s->random), GRND_NONBLOCK) != (ssize_t)sizeof(s->random) || s->random == 0)
		s->random = 1;
	err = make_launch(s);
	if (!err)
		err = make_started_page(s);
	if (!err)
		err = make_places(s);
	if (!err)
		err = make_timer(s);
	if (err) {
		supervisor_free(&s);
		return err;
	}
	*ret = s;
	return 0;
}

void supervisor_free(struct supervisor **ps)
{
	struct supervisor *s = *ps;

	*ps = NULL;
	if (!s)
		return;
	while (s->nurseries) {
		struct nursery *n = s->nurseries;

		s->nurseries = n->next;
		nursery_free(&n);
	}
	for (unsigned i = 0; i < s->place_count; i++)
		worker_child_done(&s->places[i]);
	free(s->places);
	free(s->posts);
	if (s->timer)
		event_free(s->timer);
	if (s->started_fd != -1)
		close(s->started_fd);
	launch_done(&s->launch);
	free(s);
}

/* What others call. */

void supervisor_start(struct supervisor *s)
{
	s->started = true;
	rollout_load_now(s);
	supervisor_tick(s);
}

void supervisor_front_lost(struct supervisor *s)
{
	s->house.front_there = false;
	arm_timer(s);
}

void supervisor_fresh_slots(struct supervisor *s)
{
	s->house.front_there = true;
	/* A new front is not the loop that the pause is there for. */
	for (unsigned i = 0; i < s->place_count; i++)
		worker_child_fresh_front(&s->places[i]);
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

void supervisor_replace(struct supervisor *s, unsigned slot, pid_t pid)
{
	struct worker_child *w;

	if (slot >= supervisor_slots(s))
		return;
	w = &s->places[slot / s->conf->threads];
	if (w->pid == 0 || (pid != 0 && w->pid != pid))
		return;
	log_warning(
	    "pool=%s worker=%u pid=%d thread=%u what=\"worker is replaced\" why=\"its request took longer than timeout, or its answer was none\"",
	    s->conf->name, w->place, (int)w->pid, slot % s->conf->threads);
	w->replaced = true;
	worker_child_end_without(w, slot % s->conf->threads);
	arm_timer(s);
}

void supervisor_restart(struct supervisor *s, const char *why)
{
	rollout_ask(s, why);
	supervisor_tick(s);
}

void supervisor_stop(struct supervisor *s, bool force)
{
	s->stopping = true;
	rollout_stop(s);
	s->now.nursery = NULL;
	for (struct nursery *n = s->nurseries; n; n = n->next)
		nursery_kill(n, "forebay ends");
	for (unsigned i = 0; i < s->place_count; i++) {
		if (force)
			worker_child_kill(&s->places[i]);
		else
			worker_child_end_soon(&s->places[i]);
	}
	arm_timer(s);
}

unsigned supervisor_alive(const struct supervisor *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->place_count; i++)
		n += s->places[i].pid != 0;
	for (const struct nursery *z = s->nurseries; z; z = z->next)
		n++;
	return n;
}

unsigned supervisor_slots(const struct supervisor *s)
{
	return conf_pool_places(s->conf);
}

const struct conf_pool *supervisor_conf(const struct supervisor *s)
{
	return s->conf;
}

/* How many there are. */

static uint64_t mean_pss(const struct supervisor *s)
{
	uint64_t sum = 0, n = 0;

	for (unsigned i = 0; i < s->place_count; i++)
		if (s->places[i].pid != 0 && s->places[i].pss > 0) {
			sum += s->places[i].pss;
			n++;
		}
	return n > 0 ? sum / n : 0;
}

static unsigned posts_starting(const struct supervisor *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->posts_wanted; i++)
		n += !s->posts[i].worker || s->posts[i].worker->state != WORKER_UP;
	return n;
}

static void one_more(struct supervisor *s, const struct supervisor_load *load)
{
	struct post *p = &s->posts[s->posts_wanted++];

	p->due_us = now_us(s);
	p->failures = p->hasty = 0;
	log_info("pool=%s workers=%u delay_ms=%" PRIu64 " what=\"one worker more\" why=\"requests wait\"", s->conf->name,
	    s->posts_wanted, load->delay_us / 1000);
}

static void one_less(struct supervisor *s)
{
	struct post *p = &s->posts[--s->posts_wanted];

	log_info("pool=%s workers=%u what=\"one worker less\" why=\"so many were not needed\"", s->conf->name, s->posts_wanted);
	if (!p->worker)
		return;
	p->worker->replaced = true;
	worker_child_end(p->worker);
}

void supervisor_scale(struct supervisor *s, const struct supervisor_load *load)
{
	const struct conf_pool *c = s->conf;
	const struct scaling_rules rules = { .least = conf_pool_processes_min(c),
		.most = c->processes,
		.threads = c->threads,
		.up_delay_us = c->scale_up_delay_ms * 1000,
		.down_after_us = c->scale_down_after_ms * 1000 };
	const struct scaling_figures figures = {
		.wanted = s->posts_wanted,
		.starting = posts_starting(s),
		.delay_us = load->delay_us,
		.busy = load->busy,
		.worker_bytes = mean_pss(s),
		.room_bytes = s->events->memory_room ? s->events->memory_room(s->ctx) : UINT64_MAX,
	};

	/* While all are being replaced their number stays. */
	if (rules.least == rules.most || s->stopping || !s->started || s->rollout.state != ROLLOUT_IDLE)
		return;
	switch (scaling_look(&s->scaling, &rules, &figures, now_us(s))) {
	case SCALING_UP:
		one_more(s, load);
		break;
	case SCALING_DOWN:
		one_less(s);
		break;
	case SCALING_NO_ROOM:
		log_debug("pool=%s what=\"no memory for another worker\"", c->name);
		break;
	case SCALING_STAY:
		break;
	}
	supervisor_tick(s);
}
