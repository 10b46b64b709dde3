#include "upstream/supervision.h"

#include <string.h>

#include "core/log.h"

static const unsigned may_follow[] = {
	[ROLLOUT_IDLE] = TO(ROLLOUT_LOADING) | TO(ROLLOUT_PROVING),
	[ROLLOUT_LOADING] = TO(ROLLOUT_PROVING) | TO(ROLLOUT_IDLE),
	[ROLLOUT_PROVING] = TO(ROLLOUT_TURNING) | TO(ROLLOUT_IDLE),
	[ROLLOUT_TURNING] = TO(ROLLOUT_IDLE),
};
static_assert(ARRAY_LEN(may_follow) == ROLLOUT_STATE_COUNT, "a row for each state");

/* The only writer of rollout.state. */
static void enter(struct supervisor *s, enum rollout_state next)
{
	assert(may_follow[s->rollout.state] & TO(next));
	s->rollout.state = next;
	s->rollout.heir = NULL;
	s->rollout.due_us = next == ROLLOUT_PROVING || next == ROLLOUT_TURNING ? supervision_now_us(s) : CHILD_NEVER;
	s->rollout.failures = 0;
	if (next == ROLLOUT_IDLE)
		s->rollout.next = (struct generation){ 0 };
}

static void kill_nursery(struct generation *g, const char *why)
{
	if (g->nursery)
		nursery_kill(g->nursery, why);
	g->nursery = NULL;
}

static void begin(struct supervisor *s, const char *why);

/* One that was asked for meanwhile. */
static void begin_again(struct supervisor *s)
{
	bool again = s->rollout.again;

	s->rollout.again = false;
	if (again && !s->stopping)
		begin(s, "it was asked for once more");
}

/* The heir is nobody's any more. */
static void give_up(struct supervisor *s)
{
	struct worker_child *heir = s->rollout.heir;

	enter(s, ROLLOUT_IDLE);
	if (supervision_is_there(heir))
		worker_child_kill(heir);
}

static void fail(struct supervisor *s, const char *why)
{
	log_error("pool=%s generation=%u what=\"rolling restart failed: the workers that are there go on\" why=\"%s\" "
	          "todo=\"mend the application, then send SIGHUP to forebay once more\"",
	    s->conf->name, s->rollout.next.number, why);
	kill_nursery(&s->rollout.next, "its generation is given up");
	give_up(s);
	staffing_back_off(s);
	begin_again(s);
}

static int load(struct supervisor *s, struct generation *g);

/* With s->rollout idle. */
static void begin(struct supervisor *s, const char *why)
{
	int err;

	s->rollout.next = (struct generation){ .number = ++s->generations, .forks = s->conf->preload };
	log_info(
	    "pool=%s generation=%u what=\"rolling restart begins\" why=\"%s\"", s->conf->name, s->rollout.next.number, why);
	err = load(s, &s->rollout.next);
	enter(s, s->rollout.next.forks ? ROLLOUT_LOADING : ROLLOUT_PROVING);
	if (err)
		fail(s, strerrordesc_np(-err));
}

/* Fresh words for the application, and whoever loads it, if somebody does for all. */
static int load(struct supervisor *s, struct generation *g)
{
	int err = launch_refresh(&s->launch);

	if (!err && g->forks)
		err = nursery_new(&s->house, &s->launch, &supervision_nursery_events, &g->nursery);
	if (!err && g->nursery) {
		g->nursery->next = s->nurseries;
		s->nurseries = g->nursery;
	}
	return err;
}

bool rollout_goes_on(const struct supervisor *s)
{
	return s->rollout.state != ROLLOUT_IDLE && (s->rollout.state != ROLLOUT_TURNING || s->rollout.failures == 0);
}

void rollout_ask(struct supervisor *s, const char *why)
{
	if (s->stopping || !s->started)
		return;
	if (!rollout_goes_on(s)) {
		if (s->rollout.state != ROLLOUT_IDLE)
			give_up(s); /* it was the last one's turn to get it right */
		begin(s, why);
		return;
	}
	s->rollout.again = true;
	log_info("pool=%s what=\"a rolling restart is under way; another one follows it\"", s->conf->name);
}

void rollout_load_now(struct supervisor *s)
{
	int err;

	s->now = (struct generation){ .number = ++s->generations, .forks = s->conf->preload };
	err = load(s, &s->now);
	if (err) {
		staffing_say_error(s, err);
		staffing_back_off(s);
	}
}

/* ---- heirs ---- */

static struct generation *source(struct supervisor *s)
{
	return s->rollout.state == ROLLOUT_PROVING ? &s->rollout.next : &s->now;
}

static bool is_old(const struct supervisor *s, const struct worker_child *w)
{
	return supervision_is_there(w) && w->state != WORKER_ENDING && w->generation != s->now.number;
}

/* Whom the next heir is for; NULL: nobody is left. The first one of all fills what is empty. */
static struct post *next_post(struct supervisor *s)
{
	struct post *found = NULL;

	for (unsigned i = 0; i < s->posts_wanted; i++) {
		struct post *p = &s->posts[i];

		if (s->rollout.state == ROLLOUT_PROVING && !p->worker)
			return p;
		if (!found && (s->rollout.state == ROLLOUT_PROVING || is_old(s, p->worker)))
			found = p;
	}
	return found;
}

static void retry_later(struct supervisor *s)
{
	s->rollout.failures++;
	s->rollout.due_us = supervision_now_us(s) + staffing_pause_us(s, s->rollout.failures);
}

/* Somebody who waits for the end of a deploy wants to hear of it when the old code answers nobody any more. */
static void look_at_leavers(struct supervisor *s)
{
	for (unsigned i = 0; i < s->place_count; i++)
		if (s->places[i].pid != 0 && s->places[i].generation != s->now.number)
			return;
	s->rollout.leaving = false;
	log_info("pool=%s generation=%u what=\"rolling restart done\"", s->conf->name, s->now.number);
}

static void all_relieved(struct supervisor *s)
{
	enter(s, ROLLOUT_IDLE);
	s->rollout.leaving = true;
	begin_again(s);
}

/* The next heir, or the end. */
static void turn(struct supervisor *s)
{
	struct rollout *r = &s->rollout;
	const struct generation *g = source(s);
	int err = 0;

	r->post = next_post(s);
	if (!r->post) {
		all_relieved(s);
		return;
	}
	if (g->forks && !g->nursery) {
		enter(s, ROLLOUT_IDLE);
		begin(s, "the zygote has ended half-way");
		return;
	}
	r->heir = staffing_start(s, g, r->post->index, &err);
	r->due_us = CHILD_NEVER;
	if (r->heir) {
		r->heir->held = true;
	} else if (err && r->state == ROLLOUT_PROVING) {
		fail(s, strerrordesc_np(-err));
	} else if (err) {
		staffing_say_error(s, err);
		retry_later(s);
	} else {
		r->due_us = supervision_now_us(s) + PLACE_PAUSE_US;
	}
}

/* The next generation is the present one from here on. */
static void promote(struct supervisor *s)
{
	struct generation next = s->rollout.next;
	struct worker_child *heir = s->rollout.heir;

	kill_nursery(&s->now, "its generation is over");
	s->now = next;
	s->rollout.next = (struct generation){ 0 }; /* its zygote is the present one's alone */
	s->crash_loop_said = false;
	s->rollout.leaving = false; /* the end of this one is the end of that one */
	enter(s, ROLLOUT_TURNING);
	s->rollout.heir = heir;
	staffing_go_on(s);
}

void rollout_fit(struct supervisor *s, struct worker_child *w)
{
	struct post *p = s->rollout.post;
	struct worker_child *old;

	if (w != s->rollout.heir)
		return;
	if (s->rollout.state == ROLLOUT_PROVING)
		promote(s);
	s->rollout.heir = NULL;
	s->rollout.failures = 0;
	old = p->worker;
	p->worker = w;
	p->failures = 0;
	if (supervision_is_there(old)) {
		old->replaced = true;
		worker_child_end(old);
	}
	worker_child_release(w);
	s->rollout.due_us = supervision_now_us(s);
}

bool rollout_lost(struct supervisor *s, const struct worker_child *w, const char *how)
{
	if (w != s->rollout.heir || s->rollout.state == ROLLOUT_IDLE)
		return false;
	s->rollout.heir = NULL;
	if (s->rollout.state == ROLLOUT_PROVING) {
		fail(s, how);
	} else if (s->rollout.again) {
		enter(s, ROLLOUT_IDLE);
		begin_again(s);
	} else {
		retry_later(s);
		log_error(
		    "pool=%s generation=%u what=\"a worker of the new generation was lost: the old one stays in its place\" "
		    "why=\"%s\" again_after_ms=%" PRIu64,
		    s->conf->name, s->now.number, how, (s->rollout.due_us - supervision_now_us(s)) / 1000);
	}
	return true;
}

/* ---- zygotes ---- */

void rollout_nursery_open(struct supervisor *s, struct nursery *n)
{
	if (s->rollout.state == ROLLOUT_LOADING && n == s->rollout.next.nursery)
		enter(s, ROLLOUT_PROVING);
	else if (n == s->now.nursery)
		staffing_go_on(s);
}

void rollout_unforkable(struct supervisor *s)
{
	if (s->rollout.state == ROLLOUT_LOADING)
		enter(s, ROLLOUT_PROVING);
}

void rollout_nursery_gone(struct supervisor *s, struct nursery *n, const char *how)
{
	if (n == s->rollout.next.nursery) {
		s->rollout.next.nursery = NULL;
		fail(s, how);
	} else if (n == s->now.nursery) {
		s->now.nursery = NULL;
		staffing_back_off(s);
	}
}

void rollout_stop(struct supervisor *s)
{
	if (s->rollout.state != ROLLOUT_IDLE)
		enter(s, ROLLOUT_IDLE);
	s->rollout.again = s->rollout.leaving = false;
}

/* ---- time ---- */

uint64_t rollout_due(const struct supervisor *s)
{
	return s->rollout.heir ? CHILD_NEVER : s->rollout.due_us;
}

void rollout_tick(struct supervisor *s)
{
	if (!s->stopping && rollout_due(s) <= supervision_now_us(s) &&
	    (s->rollout.state == ROLLOUT_PROVING || s->rollout.state == ROLLOUT_TURNING))
		turn(s);
	if (s->rollout.leaving)
		look_at_leavers(s);
}
