#include "upstream/attempt.h"

#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/sender.h"
#include "core/log.h"
#include "upstream/protocol/protocol.h"

#define OUT_MAX_BYTES    (512u << 10) /* a rebuilt head, or a REQUEST frame's variables */
#define IN_MAX_BYTES     (192u << 10) /* a response head or frame that is not all there yet */
#define HEAD_READ_BYTES  (16u << 10)  /* read at a time until the head is there: content behind it is copied once */
#define READ_BYTES       (256u << 10)
#define READS_AT_ONCE    8 /* before the other connections have their turn */
#define PIECES           8
#define STARVED_RETRY_MS 100
#define PEEKED_BYTES     (16u << 10) /* of answers read in place that may lie in a link */
/*
 * And so many: a worker's socket (208K, if nobody has changed it) counts 768 bytes or more for each piece that it was given, and when
 * those are all of it the worker waits for room. How many pieces an answer has, nobody tells: what is left is found by still_unread().
 */
#define PEEKED_ANSWERS 16
#define QUIET_US       1000 /* after a look at a link, it is not looked at again */

enum attempt_state {
	STATE_CONNECTING,
	STATE_SENDING,
	STATE_WAITING, /* all is sent */
	STATE_READING, /* the response has begun, the request may still be under way */
	STATE_DISCARDING,
	STATE_GONE,
	STATE_COUNT,
};

static const unsigned may_follow[] = {
	[STATE_CONNECTING] = TO(STATE_SENDING) | TO(STATE_DISCARDING) | TO(STATE_GONE),
	[STATE_SENDING] = TO(STATE_WAITING) | TO(STATE_READING) | TO(STATE_DISCARDING) | TO(STATE_GONE),
	[STATE_WAITING] = TO(STATE_READING) | TO(STATE_DISCARDING) | TO(STATE_GONE),
	[STATE_READING] = TO(STATE_DISCARDING) | TO(STATE_GONE),
	[STATE_DISCARDING] = TO(STATE_GONE),
	[STATE_GONE] = 0,
};
static_assert(ARRAY_LEN(may_follow) == STATE_COUNT, "a row for each state");

struct attempt {
	struct loop *loop;
	struct slot *slot;
	struct link *link;
	struct request *request;
	const struct protocol *protocol;
	const struct attempt_events *events; /* NULL: detached */
	void *ctx;
	struct body *into; /* NULL: detached */
	enum attempt_state state;
	struct timer limit; /* connect_timeout, timeout, release_timeout: one after the other */
	struct timer starved;
	struct timer unread;  /* set while the worker may not have read the head */
	struct mail end_mail; /* brings an end that was decided outside the loop's callbacks */
	uint64_t begun_us;
	/* sending */
	struct sender sender;
	int out_fd; /* rides on the first byte; -1: none */
	/* reading */
	struct buf in;
	uint64_t raw_left;
	/* how it ended, once that is known */
	enum attempt_end how;
	const char *why;
	bool ended, end_posted;
	bool reusable;
	bool link_connected;
	bool body_held; /* until the head is known to have been read (replay_unread) */
	bool sent_any, sent_all;
	bool untouched;   /* nothing was sent */
	bool given_up;    /* at the time limit */
	bool misled;      /* the worker closed one half of its link only */
	bool send_failed; /* the worker does not take any more; it may have answered all the same */
	bool readable, paused;
	bool got_byte, got_final, grew, tunnel, is_stream;
	uint8_t interim;
	_Alignas(max_align_t) char protocol_state[];
};

static void attempt_event(void *ctx, short what);

static const struct conf_pool *attempt_conf(const struct attempt *a)
{
	return pool_conf(a->slot->pool);
}

/* The only writer of a->state. */
static void attempt_enter(struct attempt *a, enum attempt_state next)
{
	assert(may_follow[a->state] & TO(next));
	a->state = next;
}

/* The first that is decided stays. */
static void attempt_decide(struct attempt *a, enum attempt_end how, const char *why)
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
	free(a);
}

/* The owner may say pause, or detach, in answer. */
static void attempt_progress(struct attempt *a)
{
	if (!a->grew || !a->events || a->ended)
		return;
	a->grew = false;
	a->events->progress(a->ctx);
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

static bool is_unix(const struct attempt *a)
{
	return !a->slot->address || a->slot->address->addr.any.sa_family == AF_UNIX;
}

/*
 * The link broke. Not begun, provably, is what the started page says or, on a Unix socket, a reset while there was nothing of ours
 * but the head, of which something was still unread (the kernel tells a clean end otherwise).
 */
static void attempt_lost(struct attempt *a, int err, const char *why)
{
	enum begun begun = a->protocol->begun(a, a->protocol_state);

	/* What it says is final only once nobody reads any more what was sent. */
	if (begun == BEGUN_NO && !link_is_dead(a->link)) {
		a->misled = true;
		attempt_decide(a, ATTEMPT_LOST, "worker closed half of its connection");
		return;
	}
	if (begun == BEGUN_UNKNOWN && !a->got_byte &&
	    (!a->sent_any || (is_unix(a) && a->sender.body_sent == 0 && err == ECONNRESET)))
		begun = BEGUN_NO;
	attempt_decide(a, begun == BEGUN_NO ? ATTEMPT_UNREAD : ATTEMPT_LOST, why);
}

/* Sending. */

/* The first bytes carry the descriptor; the body is not sent then. */
static enum sender_step send_with_fd(struct attempt *a, int *ret_err)
{
	ssize_t got = fdpass_send(a->link->fd, a->sender.out.ptr, a->sender.out.len, &a->out_fd, 1, MSG_DONTWAIT);

	if (got == -EAGAIN)
		return SENDER_FULL;
	if (got < 0) {
		*ret_err = (int)got;
		return SENDER_ERROR;
	}
	close(a->out_fd);
	a->out_fd = -1;
	a->sender.out_sent = (size_t)got;
	return SENDER_ON;
}

static bool head_unread(struct attempt *a)
{
	int unread = 0;

	/* sock_wfree() makes the edge while it still holds the last byte of the account: 1 is nothing. */
	return ioctl(a->link->fd, SIOCOUTQ, &unread) == 0 && unread > 1;
}

static enum sender_step send_step(struct attempt *a)
{
	enum sender_step step;
	int err = 0;

	if (a->out_fd != -1)
		step = send_with_fd(a, &err);
	else
		step = sender_step(&a->sender, &sender_socket, &a->link->fd, &err);
	if (step == SENDER_ON)
		a->sent_any = true;
	return step;
}

/* The head is out, alone: the body follows once the worker has read it, so that until then a loss proves that it was not begun. */
static bool send_on_after_head(struct attempt *a)
{
	if (head_unread(a)) {
		link_want_write(a->link, true);
		return false;
	}
	a->body_held = false;
	sender_body(&a->sender, a->request->body, !a->request->length_known);
	return true;
}

/* Everything is on its way. */
static void attempt_sent_all(struct attempt *a)
{
	link_want_write(a->link, false);
	a->sent_all = true;
	if (a->tunnel)
		(void)shutdown(a->link->fd, SHUT_WR);
	if (a->state != STATE_SENDING)
		return;
	attempt_enter(a, STATE_WAITING);
	if (is_unix(a) && !a->link->pinned)
		loop_timer_set(a->loop, &a->unread, POOL_OVERSTATED_MS);
}

/* A worker that was free would have read the head long ago; and one that has, may be waiting for room to answer. */
static void still_unread(struct timer *t)
{
	struct attempt *a = CONTAINER_OF(t, struct attempt, unread);

	if (a->got_byte)
		return;
	link_take_out(a->link);
	/* With a body under way, what lies unread may be that. */
	if (a->sender.body_sent > 0 || !head_unread(a) || !pool_overstated(a->slot->pool))
		return;
	log_warning(
	    "pool=%s socket=%s slots=%u what=\"a request lies unread in the socket: the server has fewer workers than slots\"",
	    attempt_conf(a)->name, a->slot->address->text, attempt_conf(a)->slots);
}

static void attempt_send(struct attempt *a)
{
	uint64_t before = a->sender.body_sent;
	enum sender_step step = SENDER_ON;

	if (!a->link_connected || a->send_failed || a->ended || a->sent_all)
		return;
	while (step == SENDER_ON) {
		step = send_step(a);
		if (step == SENDER_ENDED && a->body_held && send_on_after_head(a))
			step = SENDER_ON;
	}
	/* Who waits here while the worker waits for room to answer would wait for ever. */
	if (step != SENDER_ENDED || a->link->peeked > PEEKED_BYTES || a->link->peeked_answers >= PEEKED_ANSWERS)
		link_take_out(a->link);
	if (a->request->streams && a->request->body)
		body_drop(a->request->body, a->sender.cursor.offset);
	/* The worker's time does not run while it waits for the client. */
	if (a->request->streams && a->events && !a->is_stream && a->sender.body_sent != before)
		loop_timer_set(a->loop, &a->limit, attempt_conf(a)->timeout_ms);
	switch (step) {
	case SENDER_FULL:
		link_want_write(a->link, true);
		break;
	case SENDER_ENDED:
		if (!a->body_held)
			attempt_sent_all(a);
		break;
	case SENDER_LOST:
		attempt_decide(a, ATTEMPT_NO_SPOOL, "request lost in the spool");
		break;
	case SENDER_ERROR:
		/* It may have answered before it stopped reading (413 at once): what it said is still to be read. */
		a->send_failed = true;
		link_again(a->link, EV_READ);
		break;
	case SENDER_ON:
	case SENDER_WAIT: /* for the owner's kick */
	case SENDER_COLD: /* the same */
		break;
	}
}

/* Reading. */

static void starved_over(struct timer *t)
{
	struct attempt *a = CONTAINER_OF(t, struct attempt, starved);

	link_again(a->link, EV_READ);
}

/* The memory ceiling: what is there goes to the spool, and the worker waits for the room that makes. */
static void attempt_starved(struct attempt *a, int err)
{
	if (err != -ENOMEM) {
		attempt_decide(a, ATTEMPT_NO_SPOOL, "response body lost in the spool");
		return;
	}
	body_spill(a->into);
	loop_timer_set(a->loop, &a->starved, STARVED_RETRY_MS);
}

static void attempt_eof(struct attempt *a)
{
	a->readable = false;
	if (a->protocol->eof(a, a->protocol_state) == 0)
		attempt_decide(a, ATTEMPT_WHOLE_EOF, NULL);
	else if (!a->got_byte)
		attempt_lost(a, 0, "worker closed the connection without an answer");
	else
		attempt_lost(a, 0, "worker closed the connection inside its answer");
}

/* n of a recv: true if there are bytes. A short read is no end: what broke the link may stand behind it, told by the same edge. */
static bool received(struct attempt *a, ssize_t n)
{
	if (n > 0) {
		a->got_byte = true;
		if (a->state == STATE_SENDING || a->state == STATE_WAITING)
			attempt_enter(a, STATE_READING);
		return true;
	}
	if (n == 0)
		attempt_eof(a);
	else if (n == -EAGAIN)
		a->readable = false;
	else if (n == -EMFILE)
		attempt_decide(a, ATTEMPT_NO_MEMORY, "no descriptor for the answer's file");
	else if (n == -EPROTO)
		/* We are the ones who end this: its worker lives, and may begin yet. */
		attempt_decide(a, ATTEMPT_GARBAGE, "more descriptors than one");
	else if (n != -EINTR)
		attempt_lost(a, (int)-n, "worker reset the connection");
	return false;
}

/* A read that takes at most one descriptor where the protocol passes them. */
static ssize_t receive(struct attempt *a, struct iovec *iov, int n, bool in_place, int *ret_fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = {
		.msg_iov = iov,
		.msg_iovlen = (size_t)n,
		.msg_control = &control,
		.msg_controllen = CMSG_LEN(sizeof(int)), /* CMSG_SPACE has room for two */
	};
	struct cmsghdr *c;
	ssize_t got;

	*ret_fd = -1;
	if (!a->protocol->descriptors) {
		if (n == 1)
			return link_recv(a->link, iov->iov_base, iov->iov_len, in_place);
		got = readv(a->link->fd, iov, n);
		return got == -1 ? -errno : got;
	}
	got = recvmsg(a->link->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (got == -1)
		return -errno;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(c), sizeof(*ret_fd));
	if (msg.msg_flags & MSG_CTRUNC) {
		int first = *ret_fd;

		/* Without a single one it was us who had no number for it. */
		*ret_fd = -1;
		if (first == -1)
			return -EMFILE;
		close(first);
		return -EPROTO;
	}
	return got;
}

/* Hands bytes to the protocol and keeps what it leaves. `bytes` may lie in a->in. */
static void attempt_take(struct attempt *a, struct slice bytes, int fd)
{
	const char *why = "bad answer";
	struct slice all = bytes;
	int err;

	if (a->in.len > 0 && bytes.ptr != a->in.ptr) {
		buf_add(&a->in, bytes);
		all = buf_slice(&a->in);
	}
	if (a->in.failed) {
		attempt_decide(a, ATTEMPT_GARBAGE, "answer's head is too large");
	} else if ((err = a->protocol->take(a, a->protocol_state, &all, &fd, &why)) != 0) {
		attempt_decide(a, err == -ENOMEM ? ATTEMPT_NO_MEMORY : ATTEMPT_GARBAGE, why);
	} else if (fd != -1) {
		attempt_decide(a, ATTEMPT_GARBAGE, "unexpected descriptor");
	}
	if (fd != -1)
		close(fd);
	if (a->ended && a->how == ATTEMPT_WHOLE && all.len > 0)
		a->reusable = false;
	if (all.len == 0) {
		a->in.len = 0;
	} else if (a->in.len > 0) {
		memmove(a->in.ptr, all.ptr, all.len);
		a->in.len = all.len;
	} else {
		buf_add(&a->in, all);
		if (a->in.failed)
			attempt_decide(a, ATTEMPT_GARBAGE, "answer's head is too large");
	}
}

/* An answer that was read in place stays there if it was all of it and the link is for another. Large ones are not read twice. */
static void answer_in_place(struct attempt *a)
{
	bool whole = a->ended && a->how == ATTEMPT_WHOLE && a->reusable;

	a->link->peeks = whole;
	if (!whole)
		link_take_out(a->link);
}

static void read_framed(struct attempt *a)
{
	bool first = !a->got_byte, in_place = first && a->link->peeks && a->sent_all;
	size_t asked = a->got_final && a->in.len == 0 ? READ_BYTES : HEAD_READ_BYTES;
	struct iovec iov = { a->loop->scratch, asked };
	struct iovec probe;
	ssize_t n;
	int fd;

	/* Content is about to come: see that there is room before it is read and cannot be put back. */
	if (a->got_final && a->into) {
		int err = body_room(a->into, 4096, &probe, 1);

		if (err < 0) {
			attempt_starved(a, err);
			return;
		}
		body_commit(a->into, 0);
	}
	if (!in_place)
		link_take_out(a->link);
	n = receive(a, &iov, 1, in_place, &fd);
	if (n > 0 && (size_t)n < asked)
		a->link->emptied_us = loop_now_us(a->loop);
	if (!received(a, n))
		return;
	attempt_take(a, slice_of(a->loop->scratch, (size_t)n), fd);
	if (in_place)
		answer_in_place(a);
	else if (first)
		a->link->peeks = a->link->can_peek && a->ended && a->how == ATTEMPT_WHOLE;
}

/* Content verbatim goes straight into the body; what may stand behind it, into the scratch. */
static void read_raw(struct attempt *a)
{
	struct iovec iov[PIECES + 1];
	size_t want = (size_t)MIN(a->raw_left, READ_BYTES), room = 0, content;
	int n = 0, fd;
	ssize_t got;

	if (a->into) {
		n = body_room(a->into, want, iov, PIECES);
		if (n < 0) {
			attempt_starved(a, n);
			return;
		}
	} else {
		iov[n++] = (struct iovec){ a->loop->scratch, want };
	}
	for (int i = 0; i < n; i++)
		room += iov[i].iov_len;
	want = MIN(room, want);
	if (a->into && want == a->raw_left)
		iov[n++] = (struct iovec){ a->loop->scratch, HEAD_READ_BYTES };
	link_take_out(a->link);
	got = receive(a, iov, n, false, &fd);
	if (!received(a, got)) {
		if (a->into)
			body_commit(a->into, 0);
		return;
	}
	content = MIN((size_t)got, want);
	if (a->into)
		body_commit(a->into, content);
	a->grew = true;
	if (a->raw_left != UINT64_MAX)
		a->raw_left -= content;
	if (a->raw_left == 0 || fd != -1)
		attempt_take(a, slice_of(a->loop->scratch, (size_t)got - content), fd);
}

static void attempt_read(struct attempt *a)
{
	for (int turn = 0; a->readable && !a->paused && !a->ended && !timer_is_set(&a->starved); turn++) {
		if (turn == READS_AT_ONCE) {
			link_again(a->link, EV_READ);
			return;
		}
		if (a->got_final && a->into && budget_pressure(a->loop->lease.budget) >= BUDGET_TIGHT)
			attempt_starved(a, -ENOMEM);
		else if (a->raw_left > 0)
			read_raw(a);
		else
			read_framed(a);
		attempt_progress(a);
	}
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

/* Nothing has come since the last response: its end, of which the edge may be over, or bytes that nobody asked for. */
static bool was_quiet(const struct link *l)
{
	return (l->loop && loop_now_us(l->loop) - l->emptied_us < QUIET_US) || link_is_quiet(l);
}

/* The slot's kept link, or a new one. */
static int attempt_take_link(struct attempt *a)
{
	struct slot *slot = a->slot;
	struct link *kept = slot->link;
	uint64_t idle_max = attempt_conf(a)->keepalive_idle_ms;

	slot->link = NULL;
	if (kept && !kept->pinned && (loop_now_ms(a->loop) - kept->idle_since_ms >= idle_max || !was_quiet(kept)))
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
	a = malloc(sizeof(*a) + protocol->state_bytes);
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
		.starved = { .fire = starved_over },
		.unread = { .fire = still_unread },
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

/* What the protocol asks and tells. */

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

static void got_upgrade(struct attempt *a)
{
	if (!a->events) {
		attempt_decide(a, ATTEMPT_ABORTED, "upgraded for a client that has gone");
		return;
	}
	a->tunnel = true;
	attempt_is_stream(a);
	/* It may detach in answer: hence the look afterwards. */
	/* cppcheck-suppress nullPointerRedundantCheck */
	a->events->upgraded(a->ctx);
	if (!a->events || !a->request->body)
		return;
	sender_body(&a->sender, a->request->body, false);
	a->body_held = a->sent_all = false;
	link_again(a->link, EV_WRITE);
}

void attempt_got_head(struct attempt *a, struct head *h, const struct http1_message *m)
{
	bool interim = h->status < 200 && h->status != 101;

	if (!interim)
		a->got_final = true;
	if (a->events && (!interim || h->status == 103))
		a->events->head(a->ctx, h, m);
	head_done(h);
	if (m->framing == FRAMING_TUNNEL)
		got_upgrade(a);
}

void attempt_got_content(struct attempt *a, struct slice bytes)
{
	int err;

	if (!a->into || bytes.len == 0)
		return;
	err = body_append(a->into, bytes);
	if (err)
		attempt_decide(a, err == -ENOMEM ? ATTEMPT_NO_MEMORY : ATTEMPT_NO_SPOOL, "no room for the response");
	a->grew = true;
}

void attempt_got_raw(struct attempt *a, uint64_t n)
{
	a->raw_left = n;
}

int attempt_got_file(struct attempt *a, int *fd, uint64_t offset, uint64_t len)
{
	int mine = *fd, err = 0;
	struct stat st;

	*fd = -1;
	if (fstat(mine, &st) == -1 || !S_ISREG(st.st_mode) || offset > (uint64_t)st.st_size ||
	    len > (uint64_t)st.st_size - offset) {
		close(mine);
		return -EPROTO;
	}
	if (!a->into || len == 0) {
		close(mine);
		return 0;
	}
	err = body_append_file(a->into, &mine, offset, len);
	if (err)
		attempt_decide(a, err == -ENOMEM ? ATTEMPT_NO_MEMORY : ATTEMPT_NO_SPOOL, "no room for the response");
	a->grew = true;
	return 0;
}

void attempt_got_whole(struct attempt *a, bool reusable)
{
	a->reusable = reusable;
	attempt_decide(a, ATTEMPT_WHOLE, NULL);
}
