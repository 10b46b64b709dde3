#include "upstream/nursery.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/log.h"

#define TEXT_MAX         (4 * ZYGOTE_TEXT_MAX)
#define MESSAGES_AT_ONCE 64 /* the others of the master have their turn, whatever it says */

static const unsigned may_follow[] = {
	[NURSERY_LOADING] = TO(NURSERY_OPEN) | TO(NURSERY_KILLED) | TO(NURSERY_GONE),
	[NURSERY_OPEN] = TO(NURSERY_KILLED) | TO(NURSERY_GONE),
	[NURSERY_KILLED] = TO(NURSERY_GONE),
	[NURSERY_GONE] = 0,
};
static_assert(ARRAY_LEN(may_follow) == NURSERY_STATE_COUNT, "a row for each state");

static const char *pool_of(const struct nursery *n)
{
	return n->house->conf->name;
}

static void drop_control(struct nursery *n)
{
	if (n->control_event)
		event_free(n->control_event);
	n->control_event = NULL;
	if (n->control != -1)
		close(n->control);
	n->control = -1;
}

static void send_kill(struct nursery *n)
{
	const struct worker_house *h = n->house;
	int err = h->kill ? h->kill(h->ctx, n->pid, SIGKILL) : kill(n->pid, SIGKILL) == -1 ? -errno : 0;

	if (err)
		log_warning(
		    "pool=%s zygote=%d what=\"could not be killed\" error=%s", pool_of(n), (int)n->pid, strerrorname_np(-err));
}

/* The only writer of n->state, but for its beginning. */
static void enter(struct nursery *n, enum nursery_state next)
{
	assert(may_follow[n->state] & TO(next));
	n->state = next;
	switch (next) {
	case NURSERY_OPEN:
		n->due_us = CHILD_NEVER;
		break;
	case NURSERY_KILLED:
		n->due_us = CHILD_NEVER;
		drop_control(n);
		send_kill(n);
		break;
	case NURSERY_GONE:
		n->due_us = CHILD_NEVER;
		drop_control(n);
		output_end(n->output);
		output_free(&n->output);
		n->pid = 0;
		break;
	case NURSERY_LOADING:
	case NURSERY_STATE_COUNT:
		break;
	}
}

void nursery_kill(struct nursery *n, const char *why)
{
	if (n->state != NURSERY_LOADING && n->state != NURSERY_OPEN)
		return;
	(void)snprintf(n->why, sizeof(n->why), "%s", why);
	enter(n, NURSERY_KILLED);
}

static void misbehaved(struct nursery *n, const char *what)
{
	log_error("pool=%s zygote=%d what=\"zygote killed\" why=\"%s\"", pool_of(n), (int)n->pid, what);
	nursery_kill(n, what);
}

void nursery_reaped(struct nursery *n)
{
	enter(n, NURSERY_GONE);
}

/* What it says. Its application may say it in its place. */

static void take_unforkable(struct nursery *n, struct zygote_message *m)
{
	char text[TEXT_MAX + 1];

	m->text[sizeof(m->text) - 1] = '\0';
	(void)log_escape(slice_str(m->text), text, sizeof(text));
	nursery_kill(n, "it is of no use");
	n->events->unforkable(n->house->ctx, n, text);
}

static void take(struct nursery *n, struct zygote_message *m)
{
	if (m->type == ZYGOTE_READY && n->state == NURSERY_LOADING) {
		enter(n, NURSERY_OPEN);
		log_info("pool=%s zygote=%d load_ms=%" PRIu64 " what=\"the application is loaded\"", pool_of(n), (int)n->pid,
		    (clock_mono_us(n->house->clock) - n->born_us) / 1000);
		n->events->open(n->house->ctx, n);
	} else if (m->type == ZYGOTE_UNFORKABLE && n->state == NURSERY_LOADING) {
		take_unforkable(n, m);
	} else if (m->type == ZYGOTE_NO_FORK && n->state == NURSERY_OPEN) {
		n->events->no_fork(n->house->ctx, n, m->place, (int)MIN(m->error, 4095));
	} else {
		misbehaved(n, "unknown control message");
	}
}

/* False: there is nothing more. */
static bool take_message(struct nursery *n)
{
	struct zygote_message m;
	size_t fds;
	ssize_t got = fdpass_recv(n->control, &m, sizeof(m), NULL, 0, &fds, MSG_DONTWAIT);

	if (got == -EAGAIN)
		return false;
	if (got == 0 || got == -ECONNRESET)
		drop_control(n); /* how it ended, if it has, is about to be known; if not, it is of no use */
	else if (got != (ssize_t)sizeof(m))
		misbehaved(n, "not a control message");
	else
		take(n, &m);
	return n->control != -1;
}

static void on_control(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct nursery *n = ctx;

	for (int i = 0; i < MESSAGES_AT_ONCE && take_message(n); i++)
		;
	/* One that closed it and lives on: a while for the end that most likely has come already. */
	if (n->control == -1 && n->state != NURSERY_KILLED)
		n->due_us = clock_mono_us(n->house->clock) + n->house->end_timeout_ms * 1000;
	n->house->events->stirred(n->house->ctx);
}

static int watch(struct nursery *n, struct launch_pipes *p)
{
	n->control = p->control[0];
	p->control[0] = -1;
	n->control_event = event_new(n->house->base, n->control, EV_READ | EV_PERSIST, on_control, n);
	if (!n->control_event || event_add(n->control_event, NULL) == -1)
		return -ENOMEM;
	return output_new(n->house->base, pool_of(n), &p->output[0], &n->output);
}

static int start(struct nursery *n, const struct launch *launch)
{
	struct launch_pipes p;
	int err = launch_pipes_make(&p);

	if (err)
		return err;
	err = watch(n, &p);
	if (!err)
		err = launch_process(launch, ARGS_ZYGOTE, 0, &p, &n->pid);
	launch_pipes_close(&p);
	return err;
}

int nursery_new(
    struct worker_house *house, const struct launch *launch, const struct nursery_events *events, struct nursery **ret)
{
	struct nursery *n = calloc(1, sizeof(*n));
	uint64_t limit_ms = house->conf->start_timeout_ms;
	int err;

	if (!n)
		return -ENOMEM;
	*n = (struct nursery){ .house = house, .events = events, .control = -1, .due_us = CHILD_NEVER };
	err = start(n, launch);
	if (err) {
		n->pid = 0;
		nursery_free(&n);
		return err;
	}
	output_set_pid(n->output, n->pid);
	if (house->debug)
		output_set_bare(n->output);
	n->born_us = clock_mono_us(house->clock);
	if (limit_ms > 0)
		n->due_us = n->born_us + limit_ms * 1000;
	log_info("pool=%s zygote=%d what=\"zygote started\"", pool_of(n), (int)n->pid);
	*ret = n;
	return 0;
}

void nursery_free(struct nursery **pn)
{
	struct nursery *n = *pn;

	*pn = NULL;
	if (!n)
		return;
	if (n->pid != 0)
		send_kill(n);
	drop_control(n);
	output_free(&n->output);
	free(n);
}

int nursery_spawn(struct nursery *n, unsigned place, const struct launch_pipes *p)
{
	const struct zygote_message m = { .type = ZYGOTE_SPAWN, .place = place };
	const int fds[] = { p->control[1], p->output[1] };
	ssize_t sent;

	if (n->state != NURSERY_OPEN || n->control == -1)
		return -ESRCH;
	sent = fdpass_send(n->control, &m, sizeof(m), fds, ARRAY_LEN(fds), MSG_DONTWAIT);
	return sent == (ssize_t)sizeof(m) ? 0 : sent < 0 ? (int)sent : -EIO;
}

uint64_t nursery_due(const struct nursery *n)
{
	return n->due_us;
}

void nursery_tick(struct nursery *n)
{
	if (n->due_us > clock_mono_us(n->house->clock))
		return;
	misbehaved(n, n->control == -1 ? "it does not listen any more" : "it took longer than start_timeout");
}
