#include "upstream/supervision.h"

#include "core/log.h"

/* xorshift64: what died together does not start together. */
static uint64_t with_jitter(struct supervisor *s, uint64_t n)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return n - n / 4 + s->random % (n / 2 + 1);
}

uint64_t staffing_pause_us(struct supervisor *s, unsigned failures)
{
	unsigned doublings = failures > 0 ? MIN(failures - 1, 20) : 0;
	uint64_t ms = MIN((uint64_t)BACKOFF_FIRST_MS << doublings, BACKOFF_MAX_MS);

	return with_jitter(s, ms * 1000);
}

/* ---- places ---- */

static struct worker_child *free_place(struct supervisor *s, unsigned near)
{
	if (s->places[near].state == WORKER_DOWN)
		return &s->places[near];
	for (unsigned i = 0; i < s->place_count; i++)
		if (s->places[i].state == WORKER_DOWN)
			return &s->places[i];
	return NULL;
}

static int fill_place(struct supervisor *s, const struct generation *g, struct worker_child *w)
{
	struct launch_pipes pipes;
	pid_t pid = 0;
	int err = launch_pipes_make(&pipes);

	if (err)
		return err;
	err = worker_child_prepare(w, &pipes);
	if (!err) {
		err = g->forks ? nursery_spawn(g->nursery, w->place, &pipes)
		               : launch_process(&s->launch, ARGS_WORKER, w->place, &pipes, &pid);
		if (err)
			worker_child_abandon(w);
		else
			worker_child_begin(w, pid, g->number);
		if (!err && pid != 0)
			staffing_say_born(s);
	}
	launch_pipes_close(&pipes);
	return err;
}

struct worker_child *staffing_start(struct supervisor *s, const struct generation *g, unsigned near, int *ret_err)
{
	struct worker_child *w = free_place(s, near);

	*ret_err = w ? fill_place(s, g, w) : 0;
	return *ret_err ? NULL : w;
}

void staffing_say_error(struct supervisor *s, int err)
{
	enum log_level level = s->start_error == err ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR;

	s->start_error = err;
	log_line(level,
	    "pool=%s what=\"a worker could not be started\" error=%s then=\"it is tried again with growing pauses; this is not said again\"",
	    s->conf->name, strerrorname_np(-err));
}

void staffing_say_born(struct supervisor *s)
{
	if (s->start_error)
		log_info("pool=%s what=\"workers can be started again\"", s->conf->name);
	s->start_error = 0;
}

/* ---- posts ---- */

struct post *staffing_post_of(struct supervisor *s, const struct worker_child *w)
{
	for (unsigned i = 0; i < s->conf->processes; i++)
		if (s->posts[i].worker == w)
			return &s->posts[i];
	return NULL;
}

static void say_crash_loop(struct supervisor *s, const struct post *p)
{
	if (p->failures < CRASH_LOOP_FAILURES || s->crash_loop_said)
		return;
	s->crash_loop_said = true;
	log_error(
	    "pool=%s what=\"workers end again and again soon after their start; they are started with growing pauses (at most %d s)\"",
	    s->conf->name, BACKOFF_MAX_MS / 1000);
}

static void fail_post(struct supervisor *s, struct post *p)
{
	p->failures++;
	p->due_us = supervision_now_us(s) + staffing_pause_us(s, p->failures);
}

void staffing_vacate(struct supervisor *s, struct post *p, const struct worker_child *gone, uint64_t lived_us)
{
	uint64_t now = supervision_now_us(s);

	p->worker = NULL;
	if (lived_us >= LIVED_WELL_US) {
		p->failures = 0;
		s->crash_loop_said = false;
	}
	/* At once; but of those that say so again and again as soon as they are there no loop spins. */
	p->hasty = gone->replaced && lived_us < BACKOFF_FIRST_MS * 1000 ? p->hasty + 1 : 0;
	if (gone->replaced) {
		p->due_us = p->hasty < CRASH_LOOP_FAILURES ? now : gone->born_us + BACKOFF_FIRST_MS * 1000;
		return;
	}
	if (lived_us < LIVED_WELL_US)
		fail_post(s, p);
	else
		p->due_us = now + staffing_pause_us(s, 0);
	say_crash_loop(s, p);
}

/* Who is replaced keeps the post only for as long as that takes by itself: not for the longest of its requests. */
static uint64_t leaves_due(const struct post *p)
{
	const struct worker_child *w = p->worker;

	return w && w->state == WORKER_ENDING && w->replaced ? w->ends_us + POST_KEPT_US : CHILD_NEVER;
}

static void let_leave(struct supervisor *s, struct post *p)
{
	uint64_t now = supervision_now_us(s);

	if (leaves_due(p) <= now)
		staffing_vacate(s, p, p->worker, now - p->worker->born_us);
}

static bool is_vacant(const struct supervisor *s, const struct post *p)
{
	return p->index < s->posts_wanted && !p->worker;
}

/* The present generation can make workers: they are forked, or load the application themselves. */
static bool has_source(const struct supervisor *s)
{
	return !s->now.forks || (s->now.nursery && s->now.nursery->state == NURSERY_OPEN);
}

void staffing_back_off(struct supervisor *s)
{
	for (unsigned i = 0; !has_source(s) && i < s->conf->processes; i++) {
		struct post *p = &s->posts[i];

		if (!is_vacant(s, p))
			continue;
		fail_post(s, p);
		say_crash_loop(s, p);
	}
}

void staffing_go_on(struct supervisor *s)
{
	uint64_t now = supervision_now_us(s);

	for (unsigned i = 0; i < s->conf->processes; i++)
		s->posts[i].due_us = MIN(s->posts[i].due_us, now);
}

static bool is_loading(const struct supervisor *s)
{
	return s->now.forks && s->now.nursery && s->now.nursery->state == NURSERY_LOADING;
}

static bool anybody_there(const struct supervisor *s)
{
	for (unsigned i = 0; i < s->conf->processes; i++)
		if (supervision_is_there(s->posts[i].worker))
			return true;
	return false;
}

static bool anybody_serves(const struct supervisor *s)
{
	for (unsigned i = 0; i < s->conf->processes; i++)
		if (s->posts[i].worker && s->posts[i].worker->state == WORKER_UP)
			return true;
	return false;
}

/* All places are taken by those that take their time to leave. Before nobody is served at all, the first of them has to go. */
static void make_room(struct supervisor *s)
{
	struct worker_child *first = NULL;

	for (unsigned i = 0; i < s->place_count; i++) {
		struct worker_child *w = &s->places[i];

		if (w->state == WORKER_ENDING && (!first || w->ends_us < first->ends_us))
			first = w;
	}
	if (first && !anybody_serves(s))
		worker_child_end_soon(first);
}

static void fill_post(struct supervisor *s, struct post *p)
{
	int err;

	p->worker = staffing_start(s, &s->now, p->index, &err);
	if (p->worker)
		return;
	if (err) {
		fail_post(s, p);
		staffing_say_error(s, err);
	} else {
		p->due_us = supervision_now_us(s) + PLACE_PAUSE_US;
		make_room(s);
	}
}

/* Of the present generation nobody can be made; what is under way brings somebody who can, or fails and says so. */
static bool waits_for_somebody(const struct supervisor *s)
{
	return !has_source(s) && (is_loading(s) || rollout_goes_on(s));
}

static void tend_post(struct supervisor *s, struct post *p)
{
	if (!is_vacant(s, p) || p->due_us > supervision_now_us(s) || waits_for_somebody(s))
		return;
	if (has_source(s))
		fill_post(s, p);
	else if (anybody_there(s))
		rollout_ask(s, "a worker is needed and the zygote is not there any more");
	else
		rollout_load_now(s);
}

uint64_t staffing_due(const struct supervisor *s)
{
	uint64_t due = CHILD_NEVER;

	for (unsigned i = 0; !s->stopping && i < s->conf->processes; i++) {
		due = MIN(due, leaves_due(&s->posts[i]));
		if (is_vacant(s, &s->posts[i]) && !waits_for_somebody(s))
			due = MIN(due, s->posts[i].due_us);
	}
	return due;
}

void staffing_tick(struct supervisor *s)
{
	for (unsigned i = 0; !s->stopping && i < s->conf->processes; i++) {
		let_leave(s, &s->posts[i]);
		tend_post(s, &s->posts[i]);
	}
}
