#include "upstream/worker_child.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/log.h"

#define SLOT_PAUSE_US    (100 * UINT64_C(1000)) /* between two sockets for one seat: no loop between a front and a worker spins */
#define MESSAGES_AT_ONCE 64

static const unsigned may_follow[] = {
	[WORKER_DOWN] = TO(WORKER_CALLED) | TO(WORKER_STARTING),
	[WORKER_CALLED] = TO(WORKER_STARTING) | TO(WORKER_DOWN),
	[WORKER_STARTING] = TO(WORKER_UP) | TO(WORKER_ENDING) | TO(WORKER_DOWN),
	[WORKER_UP] = TO(WORKER_ENDING) | TO(WORKER_DOWN),
	[WORKER_ENDING] = TO(WORKER_DOWN),
};
static_assert(ARRAY_LEN(may_follow) == WORKER_STATE_COUNT, "a row for each state");

static const char *state_name(enum worker_state state)
{
	static const char *const names[] = { "down", "called", "starting", "up", "ending" };

	return names[state];
}

/* The only writer of w->state. */
static void enter(struct worker_child *w, enum worker_state next, uint64_t due_us)
{
	assert(may_follow[w->state] & TO(next));
	log_debug("pool=%s worker=%u pid=%d state=%s was=%s", w->house->conf->name, w->place, (int)w->pid, state_name(next),
	    state_name(w->state));
	w->state = next;
	w->due_us = due_us;
}

static uint64_t now_us(const struct worker_child *w)
{
	return clock_mono_us(w->house->clock);
}

static unsigned threads_of(const struct worker_child *w)
{
	return w->house->conf->threads;
}

static void send_signal(struct worker_child *w, int sig)
{
	const struct worker_house *h = w->house;
	int err = h->kill ? h->kill(h->ctx, w->pid, sig) : kill(w->pid, sig) == -1 ? -errno : 0;

	if (err)
		log_warning("pool=%s worker=%u pid=%d signal=SIG%s what=\"could not be sent\" error=%s", h->conf->name,
		    w->place, (int)w->pid, sigabbrev_np(sig), strerrorname_np(-err));
}

static void say_why(struct worker_child *w, const char *why)
{
	(void)snprintf(w->why, sizeof(w->why), "%s", why);
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
static void give_slot(struct worker_child *w, unsigned index)
{
	struct worker_house *h = w->house;
	struct worker_seat *seat = &w->seats[index];
	const struct control_message m = { .type = CONTROL_SLOT, .seat = index };
	int pair[2], err;
	ssize_t n;

	seat->due_us = now_us(w) + SLOT_PAUSE_US;
	err = make_slot_pair(pair);
	if (err) {
		log_error("pool=%s worker=%u what=\"no slot socket\" error=%s", h->conf->name, w->place, strerrorname_np(-err));
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
	h->events->slot_ready(h->ctx, w, w->place * threads_of(w) + index, &pair[0]);
	if (pair[0] != -1)
		close(pair[0]);
}

static bool takes_slots(const struct worker_child *w)
{
	return w->state == WORKER_UP && !w->held && w->house->front_there && w->wanted > 0;
}

static void give_slots(struct worker_child *w)
{
	uint64_t now = now_us(w);

	for (unsigned i = 0; i < threads_of(w) && takes_slots(w) && w->control != -1; i++)
		if (w->seats[i].wanted && w->seats[i].due_us <= now)
			give_slot(w, i);
}

void worker_child_release(struct worker_child *w)
{
	w->held = false;
	give_slots(w);
}

void worker_child_fresh_front(struct worker_child *w)
{
	for (unsigned i = 0; i < threads_of(w); i++)
		w->seats[i].due_us = 0;
}

/* Its end. */

static void drop_control(struct worker_child *w)
{
	if (w->control_event)
		event_free(w->control_event);
	w->control_event = NULL;
	if (w->control != -1)
		close(w->control);
	w->control = -1;
	for (unsigned i = 0; i < threads_of(w); i++)
		w->seats[i].wanted = false;
	w->wanted = 0;
}

static void forget(struct worker_child *w)
{
	drop_control(w);
	if (w->output)
		output_end(w->output);
	output_free(&w->output);
}

/* There is no process that anybody could wait for. One that comes yet finds its control socket closed. */
static void lose(struct worker_child *w, const char *why)
{
	say_why(w, why);
	forget(w);
	enter(w, WORKER_DOWN, CHILD_NEVER);
	w->house->events->lost(w->house->ctx, w);
}

/* For one without a request that anybody waits for. */
static uint64_t soon_us(const struct worker_child *w)
{
	return w->house->end_timeout_ms * 1000;
}

/* For one with requests: what takes longer than the pool's timeout is given up by the front. */
static uint64_t patience_us(const struct worker_child *w)
{
	return soon_us(w) + (w->state == WORKER_STARTING ? 0 : w->house->conf->timeout_ms * 1000);
}

/* Gives it so long to end by itself, if it has not less already. */
static void ends(struct worker_child *w, uint64_t limit_us)
{
	uint64_t now = now_us(w);

	if (w->state == WORKER_STARTING || w->state == WORKER_UP) {
		w->ends_us = now;
		enter(w, WORKER_ENDING, now + limit_us);
	} else if (w->state == WORKER_ENDING && w->due_us != CHILD_NEVER) {
		w->due_us = MIN(w->due_us, now + limit_us);
	}
}

/* What comes from a worker can be the work of its application: nothing of it is trusted. */
static void misbehaved(struct worker_child *w, const char *what)
{
	log_error(
	    "pool=%s worker=%u pid=%d what=\"worker killed\" why=\"%s\"", w->house->conf->name, w->place, (int)w->pid, what);
	if (w->state == WORKER_CALLED) {
		lose(w, what);
		return;
	}
	say_why(w, what);
	send_signal(w, SIGKILL);
	drop_control(w);
	ends(w, soon_us(w));
}

/* Where it fails, the time limit ends it. */
static void send_end(struct worker_child *w, enum control_type type, unsigned seat, uint64_t limit_us)
{
	const struct control_message m = { .type = type, .seat = seat };

	if (w->control != -1)
		(void)!fdpass_send(w->control, &m, sizeof(m), NULL, 0, MSG_DONTWAIT);
	ends(w, limit_us);
}

void worker_child_end(struct worker_child *w)
{
	if (w->state == WORKER_CALLED)
		lose(w, "it is not needed any more");
	else if (w->state == WORKER_STARTING || w->state == WORKER_UP)
		send_end(w, CONTROL_END, 0, patience_us(w));
}

void worker_child_end_soon(struct worker_child *w)
{
	worker_child_end(w);
	ends(w, soon_us(w));
}

/* Nobody waits for any of its threads that has ever had a slot. */
static bool is_given_up(const struct worker_child *w)
{
	for (unsigned i = 0; i < threads_of(w); i++)
		if (w->seats[i].given && !w->seats[i].given_up)
			return false;
	return true;
}

void worker_child_end_without(struct worker_child *w, unsigned seat)
{
	if (w->pid == 0)
		return;
	/* Ignored by default; an application host that can logs the stacks of its threads. */
	send_signal(w, SIGURG);
	w->seats[seat].given_up = true;
	/* Also to one that ends already: it may be waiting for this very thread. */
	send_end(w, CONTROL_END_WITHOUT, seat, is_given_up(w) ? soon_us(w) : patience_us(w));
}

void worker_child_kill(struct worker_child *w)
{
	if (w->state == WORKER_CALLED) {
		lose(w, "it is not needed any more");
	} else if (w->state != WORKER_DOWN) {
		send_signal(w, SIGKILL);
		ends(w, soon_us(w));
		w->due_us = CHILD_NEVER;
	}
}

void worker_child_not_born(struct worker_child *w, const char *why)
{
	if (w->state == WORKER_CALLED)
		lose(w, why);
}

void worker_child_reaped(struct worker_child *w)
{
	forget(w);
	enter(w, WORKER_DOWN, CHILD_NEVER);
	w->pid = 0;
}

/* What it says. */

static void take_want(struct worker_child *w, unsigned index)
{
	if (index >= threads_of(w) || w->seats[index].wanted) {
		misbehaved(w, "asked for a slot out of turn");
		return;
	}
	w->seats[index].wanted = true;
	w->wanted++;
	if (w->state == WORKER_STARTING) {
		enter(w, WORKER_UP, CHILD_NEVER);
		w->house->events->fit(w->house->ctx, w);
	}
	give_slots(w);
}

static void take_unfit(struct worker_child *w, uint64_t status)
{
	if (w->state != WORKER_STARTING) {
		misbehaved(w, "called itself unfit out of turn");
		return;
	}
	if (status > 0 && status <= 599)
		(void)snprintf(w->why, sizeof(w->why), "health_path was answered with status %u", (unsigned)status);
	else
		say_why(w, "health_path was not answered");
	log_error("pool=%s worker=%u pid=%d what=\"worker is not fit\" why=\"%s\"", w->house->conf->name, w->place, (int)w->pid,
	    w->why);
	ends(w, soon_us(w));
}

static void take_swollen(struct worker_child *w, uint64_t bytes)
{
	log_warning("pool=%s worker=%u pid=%d pss_bytes=%" PRIu64 " max_memory=%" PRIu64
	            " what=\"worker is replaced\" why=\"its memory is above max_memory\"",
	    w->house->conf->name, w->place, (int)w->pid, bytes, w->house->conf->max_memory);
	w->pss = bytes;
	w->replaced = true;
	ends(w, patience_us(w));
}

static void take(struct worker_child *w, const struct control_message *m)
{
	switch (m->type) {
	case CONTROL_WANT:
		take_want(w, m->seat);
		break;
	case CONTROL_SPENT:
		w->replaced = true;
		ends(w, patience_us(w));
		break;
	case CONTROL_UNFIT:
		take_unfit(w, m->value);
		break;
	case CONTROL_MEMORY:
		w->pss = m->value;
		break;
	case CONTROL_SWOLLEN:
		take_swollen(w, m->value);
		break;
	default:
		misbehaved(w, "unknown control message");
		break;
	}
}

/* What a worker says that a zygote has forked, and who the kernel says it is. */
static void take_announcement(struct worker_child *w, const struct control_message *m, pid_t pid)
{
	if (m->type != CONTROL_HERE || pid <= 0) {
		misbehaved(w, "it did not say that it is there");
		return;
	}
	if (!w->house->events->announced(w->house->ctx, w, pid)) {
		misbehaved(w, "who said that it is there is no child of forebay's, or another one");
		return;
	}
	w->pid = pid;
	output_set_pid(w->output, pid);
	enter(w, WORKER_STARTING, w->due_us);
	log_info("pool=%s worker=%u pid=%d what=\"worker started\"", w->house->conf->name, w->place, (int)pid);
}

/* False: there is nothing more. */
static bool take_message(struct worker_child *w)
{
	struct control_message m;
	pid_t pid = 0;
	ssize_t n = fdpass_recv_from(w->control, &m, sizeof(m), &pid, MSG_DONTWAIT);

	if (n == -EAGAIN)
		return false;
	if (n == 0 || n == -ECONNRESET) {
		/* It has ended, or will not hear us any more. */
		if (w->state == WORKER_CALLED) {
			lose(w, "it ended before it was there");
			return false;
		}
		drop_control(w);
		ends(w, soon_us(w));
	} else if (n != (ssize_t)sizeof(m)) {
		misbehaved(w, "not a control message");
	} else if (w->state == WORKER_CALLED) {
		take_announcement(w, &m, pid);
	} else {
		take(w, &m);
	}
	return w->control != -1;
}

void worker_child_look(struct worker_child *w)
{
	for (int i = 0; i < MESSAGES_AT_ONCE && w->control != -1 && take_message(w); i++)
		;
}

static void on_control(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct worker_child *w = ctx;

	worker_child_look(w);
	w->house->events->stirred(w->house->ctx);
}

/* Its beginning. */

int worker_child_init(struct worker_child *w, struct worker_house *house, unsigned place)
{
	*w = (struct worker_child){ .house = house, .place = place, .control = -1, .due_us = CHILD_NEVER };
	w->seats = calloc(house->conf->threads, sizeof(*w->seats));
	return w->seats ? 0 : -ENOMEM;
}

void worker_child_done(struct worker_child *w)
{
	if (!w->seats)
		return;
	if (w->pid != 0)
		send_signal(w, SIGKILL);
	drop_control(w);
	output_free(&w->output);
	free(w->seats);
	w->seats = NULL;
}

/* What a forked worker says comes with the number of its process, put there by the kernel. */
static int watch_control(struct worker_child *w, int *control)
{
	static const int on = 1;

	w->control = *control;
	*control = -1;
	if (setsockopt(w->control, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == -1)
		return -errno;
	w->control_event = event_new(w->house->base, w->control, EV_READ | EV_PERSIST, on_control, w);
	return w->control_event && event_add(w->control_event, NULL) == 0 ? 0 : -ENOMEM;
}

int worker_child_prepare(struct worker_child *w, struct launch_pipes *p)
{
	int err;

	assert(w->state == WORKER_DOWN && w->control == -1);
	memset(w->seats, 0, threads_of(w) * sizeof(*w->seats));
	w->wanted = 0;
	w->held = w->replaced = false;
	w->why[0] = '\0';
	w->pss = 0;
	err = watch_control(w, &p->control[0]);
	if (!err)
		err = output_new(w->house->base, w->house->conf->name, &p->output[0], &w->output);
	if (err)
		worker_child_abandon(w);
	else if (w->house->debug)
		output_set_bare(w->output);
	return err;
}

void worker_child_abandon(struct worker_child *w)
{
	drop_control(w);
	output_free(&w->output);
}

void worker_child_begin(struct worker_child *w, pid_t pid, unsigned generation)
{
	uint64_t limit_ms = w->house->conf->start_timeout_ms, due = CHILD_NEVER;

	w->pid = pid;
	w->generation = generation;
	w->born_us = now_us(w);
	if (limit_ms > 0)
		due = w->born_us + limit_ms * 1000;
	enter(w, pid == 0 ? WORKER_CALLED : WORKER_STARTING, due);
	if (pid == 0)
		return;
	output_set_pid(w->output, pid);
	log_info("pool=%s worker=%u pid=%d what=\"worker started\"", w->house->conf->name, w->place, (int)pid);
}

/* Time. */

static uint64_t slots_due(const struct worker_child *w)
{
	uint64_t due = CHILD_NEVER;

	for (unsigned i = 0; takes_slots(w) && i < threads_of(w); i++)
		if (w->seats[i].wanted)
			due = MIN(due, w->seats[i].due_us);
	return due;
}

uint64_t worker_child_due(const struct worker_child *w)
{
	return w->state == WORKER_UP ? slots_due(w) : w->due_us;
}

void worker_child_tick(struct worker_child *w)
{
	static const char late[] = "it took longer than start_timeout";

	if (worker_child_due(w) > now_us(w))
		return;
	switch (w->state) {
	case WORKER_CALLED:
		w->house->events->late(w->house->ctx, w);
		misbehaved(w, late);
		break;
	case WORKER_STARTING:
		log_error("pool=%s worker=%u pid=%d what=\"worker killed\" why=\"%s\"", w->house->conf->name, w->place,
		    (int)w->pid, late);
		say_why(w, late);
		worker_child_kill(w);
		break;
	case WORKER_UP:
		give_slots(w);
		break;
	case WORKER_ENDING:
		log_warning("pool=%s worker=%u pid=%d what=\"worker killed\" why=\"did not end in time\"", w->house->conf->name,
		    w->place, (int)w->pid);
		w->due_us = CHILD_NEVER;
		send_signal(w, SIGKILL);
		break;
	case WORKER_DOWN:
	case WORKER_STATE_COUNT:
		break;
	}
}
