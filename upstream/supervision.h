/*
 * supervision: the inside of a supervisor, for supervisor.c, staffing.c and rollout.c only: which worker processes there should be, and of which
 * generation.
 * Owns:   nothing; supervisor.c does.
 * Thread: the master's.
 *
 * A post is the right of one worker to be there; a pool has `processes` posts, of which the first `posts_wanted` are to be held. There are twice as
 * many places as posts, so that successors stand beside those they take over from. A generation is what was loaded at one time.
 */
#ifndef FOREBAY_UPSTREAM_SUPERVISION_H
#define FOREBAY_UPSTREAM_SUPERVISION_H

#include "upstream/nursery.h"
#include "upstream/scaling.h"
#include "upstream/supervisor.h"
#include "upstream/worker_child.h"

#define BACKOFF_FIRST_MS    100
#define BACKOFF_MAX_MS      30000
#define LIVED_WELL_US       (10 * UINT64_C(1000000)) /* as long as this: its end is no crash loop */
#define CRASH_LOOP_FAILURES 5
#define POST_KEPT_US        (1 * UINT64_C(1000000)) /* by one that is to be replaced and has something to do yet */
#define PLACE_PAUSE_US      (50 * UINT64_C(1000))   /* until a place is looked for again, when all are taken */

struct post {
	unsigned index;
	struct worker_child *worker; /* who holds it; NULL: nobody */
	uint64_t due_us;             /* nobody: the next one is started, not before */
	unsigned failures;           /* deaths soon after a start, in a row */
	unsigned hasty;              /* replaced sooner than a first pause, in a row */
};

struct generation {
	unsigned number;         /* from 1 */
	bool forks;              /* its workers come from a zygote; else each loads the application */
	struct nursery *nursery; /* NULL: none, or none any more */
};

enum rollout_state {
	ROLLOUT_IDLE,    /* one generation, the present one */
	ROLLOUT_LOADING, /* the next one's zygote loads the application */
	ROLLOUT_PROVING, /* the next one's first worker is to be fit */
	ROLLOUT_TURNING, /* the next one has become the present one: the old workers are relieved, one at a time */
	ROLLOUT_STATE_COUNT,
};

struct rollout {
	enum rollout_state state;
	struct generation next;    /* LOADING, PROVING */
	struct worker_child *heir; /* who is to relieve a worker; NULL: it is still to be started, when that is due */
	struct post *post;         /* whom the heir is for */
	uint64_t due_us;
	unsigned failures; /* heirs lost, in a row */
	bool again;        /* asked for once more meanwhile */
	bool leaving;      /* all are relieved, and some of the old ones still answer what they have begun */
};

struct supervisor {
	struct event_base *base;
	const struct conf_pool *conf;
	struct supervisor_options options;
	const struct supervisor_events *events;
	void *ctx;
	struct launch launch;
	struct worker_house house;
	struct worker_child *places;
	unsigned place_count;
	struct post *posts; /* conf->processes */
	unsigned posts_wanted;
	struct scaling scaling;
	struct generation now;
	struct rollout rollout;
	struct nursery *nurseries; /* all that are not reaped yet */
	unsigned generations;      /* numbers given */
	bool stopping, started, served, crash_loop_said, start_failed_said;
	int start_error; /* the last worker could not even be made: said; 0: it could */
	int started_fd;
	struct event *timer;
	uint64_t random; /* state of the jitter */
};

static inline uint64_t supervision_now_us(const struct supervisor *s)
{
	return clock_mono_us(s->options.clock);
}

/* True if it holds a post, or will. */
static inline bool supervision_is_there(const struct worker_child *w)
{
	return w && w->state != WORKER_DOWN;
}

/* supervisor.c: what zygotes say. */
extern const struct nursery_events supervision_nursery_events;

/* ---- staffing.c: posts ---- */

/* A worker of the generation in a free place, `near` if that is one. NULL, and nothing said: there is none, or *ret_err. */
MUST_USE struct worker_child *staffing_start(struct supervisor *s, const struct generation *g, unsigned near, int *ret_err);

/* A process could not even be made. Said once, until one could. */
void staffing_say_error(struct supervisor *s, int err);
void staffing_say_born(struct supervisor *s);

/* The post whose holder this is; NULL: none's. */
struct post *staffing_post_of(struct supervisor *s, const struct worker_child *w);

/* Its holder has gone after so long: when the next one starts. */
void staffing_vacate(struct supervisor *s, struct post *p, const struct worker_child *gone, uint64_t lived_us);

/* What vacant posts are waiting for has failed: they wait longer. Nothing if they can be filled. */
void staffing_back_off(struct supervisor *s);

/* It has come: they are filled now. What has failed so far still counts, for the pause behind the next failure. */
void staffing_go_on(struct supervisor *s);

/* A pause after so many failures, a quarter more or less. */
uint64_t staffing_pause_us(struct supervisor *s, unsigned failures);

uint64_t staffing_due(const struct supervisor *s);
void staffing_tick(struct supervisor *s);

/* ---- rollout.c ---- */

/* Another generation takes the place of the present one; once more behind one that is under way. */
void rollout_ask(struct supervisor *s, const char *why);

/* True: one is under way that has not failed half-way. */
bool rollout_goes_on(const struct supervisor *s);

/* The present generation is loaded anew: nothing of it lives. */
void rollout_load_now(struct supervisor *s);

/* What has become of what it waits for; those that it does not wait for are no concern of it. */
void rollout_nursery_open(struct supervisor *s, struct nursery *n);
/* The next generation's workers load the application themselves. */
void rollout_unforkable(struct supervisor *s);
void rollout_nursery_gone(struct supervisor *s, struct nursery *n, const char *how);
void rollout_fit(struct supervisor *s, struct worker_child *w);
/* True if it was the heir. */
MUST_USE bool rollout_lost(struct supervisor *s, const struct worker_child *w, const char *how);

void rollout_stop(struct supervisor *s);

uint64_t rollout_due(const struct supervisor *s);
void rollout_tick(struct supervisor *s);

#endif
