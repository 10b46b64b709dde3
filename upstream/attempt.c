#include "upstream/attempt.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "upstream/attempt_read.h"
#include "upstream/attempt_send.h"

#define OUT_MAX_BYTES (512u << 10) /* a rebuilt head, or a REQUEST frame's variables */
#define IN_MAX_BYTES  (192u << 10) /* a response head or frame that is not all there yet */

static const unsigned may_follow[] = {
	[STATE_CONNECTING] = TO(STATE_SENDING) | TO(STATE_DISCARDING) | TO(STATE_GONE),
	[STATE_SENDING] = TO(STATE_WAITING) | TO(STATE_READING) | TO(STATE_DISCARDING) | TO(STATE_GONE),
	[STATE_WAITING] = TO(STATE_READING) | TO(STATE_DISCARDING) | TO(STATE_GONE),
	[STATE_READING] = TO(STATE_DISCARDING) | TO(STATE_GONE),
	[STATE_DISCARDING] = TO(STATE_GONE),
	[STATE_GONE] = 0,
};
static_assert(ARRAY_LEN(may_follow) == STATE_COUNT, "a row for each state");

static void attempt_event(void *ctx, short what);

void attempt_enter(struct attempt *a, enum attempt_state next)
{
	assert(may_follow[a->state] & TO(next));
	a->state = next;
}

void attempt_decide(struct attempt *a, enum attempt_end how, const char *why)
{
	if (a->ended)
		return;
	a->ended = true;
	a->how = how;
	a->why = why;
}

static void attempt_socket_down(struct attempt *a)
{
	const struct conf_pool *conf = attempt_conf(a);
	const char *socket = a->slot->address->text;

	if (pool_socket_down(a->slot, a->loop))
		log_warning("pool=%s socket=%s what=\"cannot be reached, requests wait: %s\"", conf->name, socket, a->why);
}

/* The link goes back with its slot, or is closed. */
static void attempt_release(struct attempt *a)
{
	bool keep = a->ended && a->reusable && a->how == ATTEMPT_WHOLE && a->sent_all && a->in.len == 0 &&
	            (a->link->pinned || attempt_conf(a)->keepalive);
	bool pinned = a->link && a->link->pinned;

	if (keep || (pinned && a->untouched)) {
		link_idle(a->link);
		a->slot->link = a->link;
		a->slot->home = a->loop;
		a->link = NULL;
		pool_release(a->slot);
		return;
	}
	link_free(&a->link);
	a->slot->link = NULL;
	a->slot->home = NULL;
	/* One that does not keep to the protocol is not used again: neither its link, nor its process. */
	if (pinned && (a->given_up || a->misled || (a->ended && a->how == ATTEMPT_GARBAGE)))
		pool_release_given_up(a->slot);
	else if (pinned)
		pool_release_lost(a->slot);
	else if (a->how == ATTEMPT_UNREACHABLE)
		attempt_socket_down(a);
	else
		pool_release(a->slot);
}

/* The end: the slot is given back first, so that what the owner does next cannot delay it. Frees a. */
static void attempt_finish(struct attempt *a)
{
	const struct attempt_events *events = a->events;

	attempt_enter(a, STATE_GONE);
	loop_timer_clear(a->loop, &a->limit);
	loop_timer_clear(a->loop, &a->starved);
	loop_timer_clear(a->loop, &a->unread);
	attempt_release(a);
	if (a->protocol->done)
		a->protocol->done(a->protocol_state);
	if (a->out_fd != -1)
		close(a->out_fd);
	if (events) {
		if (a->how == ATTEMPT_WHOLE || a->how == ATTEMPT_WHOLE_EOF)
			body_finish(a->into);
		events->end(a->ctx, a->how, a->why);
	}
	/* A refused exchange keeps the body longer than we live. */
	if (!events && a->request->body)
		body_set_events(a->request->body, NULL, NULL);
	sender_done(&a->sender);
	buf_done(&a->in);
	request_drop(&a->request);
	lease_give(&a->loop->lease, sizeof(*a));
	pieces_give(&a->loop->pieces, a, sizeof(*a) + a->protocol->state_bytes);
}

/* After each piece of work of the loop's. May free a. */
static void attempt_settle(struct attempt *a)
{
	attempt_progress(a);
	if (a->ended && !a->end_posted)
		attempt_finish(a);
}

static void end_delivered(struct mail *m)
{
	attempt_finish(CONTAINER_OF(m, struct attempt, end_mail));
}

/* For what was decided within a call of the owner's, who must not be called back from there. */
static void attempt_settle_later(struct attempt *a)
{
	if (!a->ended || a->end_posted)
		return;
	a->end_posted = true;
	a->end_mail.deliver = end_delivered;
	mailbox_post_here(&a->loop->mailbox, &a->end_mail);
}

/* Time. */

static void limit_passed(struct timer *t)
{
	struct attempt *a = CONTAINER_OF(t, struct attempt, limit);
	const struct attempt_events *events = a->events;
	void *ctx = a->ctx;

	if (a->state == STATE_CONNECTING && !a->link_connected) {
		attempt_decide(a, ATTEMPT_UNREACHABLE, "no connection within connect_timeout");
		attempt_settle(a);
		return;
	}
	if (!events) {
		a->given_up = true;
		attempt_decide(a, ATTEMPT_ABORTED, "release_timeout");
		attempt_settle(a);
		return;
	}
	/*
	 * The client hears now; the slot is taken until the worker has ended, or release_timeout says that it never will. An own
	 * worker is ended by the master, who hears of its slot.
	 */
	a->given_up = true;
	if (a->link->pinned)
		attempt_abort(a);
	else
		attempt_detach(a);
	events->end(ctx, ATTEMPT_TIMEOUT, "worker took longer than timeout");
}

static void attempt_connected(struct attempt *a)
{
	a->link_connected = true;
	if (!a->link->pinned && pool_socket_up(a->slot))
		log_info("pool=%s socket=%s what=\"can be reached again\"", attempt_conf(a)->name, a->slot->address->text);
	if (a->state == STATE_CONNECTING)
		attempt_enter(a, STATE_SENDING);
	loop_timer_set(a->loop, &a->limit, a->events ? attempt_conf(a)->timeout_ms : attempt_conf(a)->release_timeout_ms);
	attempt_send(a);
}

static void attempt_event(void *ctx, short what)
{
	struct attempt *a = ctx;
	int err;

	if (!a->link_connected) {
		err = link_connected(a->link);
		if (err) {
			attempt_decide(a, ATTEMPT_UNREACHABLE, strerrordesc_np(-err));
			attempt_settle(a);
			return;
		}
		link_want_write(a->link, false);
		attempt_connected(a);
	} else if (what & EV_WRITE) {
		attempt_send(a);
	}
	if (what & (EV_READ | EV_CLOSED))
		a->readable = true;
	attempt_read(a);
	attempt_settle(a);
}

/* The slot's kept link, or a new one. What has come since its last response is its end, or bytes that nobody asked for. */
static int attempt_take_link(struct attempt *a)
{
	struct slot *slot = a->slot;
	struct link *kept = slot->link;
	uint64_t idle_max = attempt_conf(a)->keepalive_idle_ms;

	slot->link = NULL;
	if (kept && !kept->pinned && (loop_now_ms(a->loop) - kept->idle_since_ms >= idle_max || !link_is_quiet(kept)))
		link_free(&kept);
	if (kept) {
		if (!kept->loop)
			link_hook(kept, a->loop);
		a->link = kept;
		a->link_connected = true;
		return 0;
	}
	return slot->address ? link_connect(a->loop, slot, &a->link, &a->link_connected) : -ENOTCONN;
}

/* The protocol could not put the request into its form. Nothing was sent: the link is as good as before. */
static void attempt_not_begun(struct attempt *a, int err)
{
	a->untouched = true;
	switch (err) {
	case -E2BIG:
		attempt_decide(a, ATTEMPT_TOO_LARGE, "request head does not fit the worker's protocol");
		break;
	case -ENOMEM:
		attempt_decide(a, ATTEMPT_NO_MEMORY, "memory_limit");
		break;
	case -EXDEV:
	case -EAGAIN:
	case -EMFILE:
	case -ENFILE:
		attempt_decide(a, ATTEMPT_NO_MEMORY, "no descriptor to hand the request's body over");
		break;
	default:
		attempt_decide(a, ATTEMPT_NO_SPOOL, "request's body cannot be handed over");
		break;
	}
}

static void attempt_start(struct attempt *a)
{
	int err = attempt_take_link(a);

	if (err) {
		attempt_decide(a, ATTEMPT_UNREACHABLE, strerrordesc_np(-err));
		return;
	}
	link_use(a->link, attempt_event, a);
	err = a->protocol->start(a, a->protocol_state);
	if (err) {
		attempt_not_begun(a, err);
		return;
	}
	if (a->link_connected)
		attempt_connected(a);
	else
		loop_timer_set(a->loop, &a->limit, attempt_conf(a)->connect_timeout_ms);
}

struct attempt *attempt_new(struct loop *loop, struct slot *slot, struct request *request, struct body *into,
    const struct attempt_events *events, void *ctx)
{
	const struct protocol *protocol = pool_conf(slot->pool)->app == APP_NONE ? &protocol_http : &protocol_worker;
	struct attempt *a;

	if (!lease_take(&loop->lease, sizeof(*a)))
		return NULL;
	a = pieces_take(&loop->pieces, sizeof(*a) + protocol->state_bytes);
	if (!a) {
		lease_give(&loop->lease, sizeof(*a));
		return NULL;
	}
	*a = (struct attempt){
		.loop = loop,
		.slot = slot,
		.request = request_hold(request),
		.protocol = protocol,
		.events = events,
		.ctx = ctx,
		.into = into,
		.limit = { .fire = limit_passed },
		.starved = { .fire = attempt_starved_over },
		.unread = { .fire = attempt_still_unread },
		.begun_us = loop_now_us(loop),
		.out_fd = -1,
	};
	memset(a->protocol_state, 0, protocol->state_bytes);
	sender_init(&a->sender, OUT_MAX_BYTES);
	buf_init(&a->in, IN_MAX_BYTES);
	a->body_held = request->body && pool_conf(slot->pool)->replay_unread && slot->address &&
	               slot->address->addr.any.sa_family == AF_UNIX;
	if (request->body && !a->body_held)
		sender_body(&a->sender, request->body, !request->length_known);
	attempt_start(a);
	attempt_settle_later(a);
	return a;
}

/* What the owner says. */

void attempt_pause(struct attempt *a)
{
	a->paused = true;
}

void attempt_resume(struct attempt *a)
{
	if (!a->paused)
		return;
	a->paused = false;
	if (a->link && a->link_connected)
		link_again(a->link, EV_READ);
}

void attempt_kick(struct attempt *a)
{
	if (a->link && a->link_connected)
		link_again(a->link, EV_WRITE);
}

static void body_ready(void *ctx)
{
	attempt_kick(ctx);
}

static void body_failed(void *ctx, int err UNUSED)
{
	attempt_kick(ctx); /* body_peek says so */
}

static const struct body_events orphan_body_events = { .room = body_ready, .ready = body_ready, .failed = body_failed };

void attempt_detach(struct attempt *a)
{
	if (!a->events)
		return;
	a->events = NULL;
	a->ctx = NULL;
	a->into = NULL;
	a->paused = false;
	loop_timer_clear(a->loop, &a->starved);
	if (a->request->body)
		body_set_events(a->request->body, &orphan_body_events, a);
	if (a->state == STATE_GONE || a->end_posted)
		return;
	if (a->link_connected)
		loop_timer_set(a->loop, &a->limit, attempt_conf(a)->release_timeout_ms);
	if (a->protocol->cancel && a->link && !a->ended) {
		a->protocol->cancel(a, a->protocol_state);
		a->sent_all = false;
	}
	attempt_enter(a, STATE_DISCARDING);
	/* Nothing was sent: there is nothing to wait for, and no worker that could mind. */
	if (!a->sent_any && a->link && !a->link->pinned) {
		attempt_decide(a, ATTEMPT_ABORTED, "not wanted any more");
		attempt_settle_later(a);
	} else if (a->link && a->link_connected) {
		link_again(a->link, EV_READ | EV_WRITE);
	}
}

void attempt_abort(struct attempt *a)
{
	attempt_detach(a);
	attempt_decide(a, ATTEMPT_ABORTED, "aborted");
	attempt_settle_later(a);
}

void attempt_is_stream(struct attempt *a)
{
	a->is_stream = true;
	loop_timer_clear(a->loop, &a->limit);
}

pid_t attempt_worker_pid(const struct attempt *a)
{
	return a->slot->worker_pid;
}

uint64_t attempt_begun_us(const struct attempt *a)
{
	return a->begun_us;
}

/* What the protocol asks. */

const struct request *attempt_request(const struct attempt *a)
{
	return a->request;
}

struct link *attempt_link(struct attempt *a)
{
	return a->link;
}

struct buf *attempt_out(struct attempt *a)
{
	return &a->sender.out;
}

const struct conf_pool *attempt_pool_conf(const struct attempt *a)
{
	return attempt_conf(a);
}

void attempt_send_fd(struct attempt *a, int *fd)
{
	assert(a->out_fd == -1 && !a->sent_any);
	a->out_fd = *fd;
	*fd = -1;
	a->sender.body = false;
}

void attempt_body_sent(struct attempt *a)
{
	a->sender.body = false;
}
