#include "upstream/attempt_send.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/log.h"

#define PEEKED_BYTES (16u << 10) /* of answers read in place that may lie in a link */
/*
 * And so many: a worker's socket (208K, if nobody has changed it) counts 768 bytes or more for each piece that it was given, and when
 * those are all of it the worker waits for room. How many pieces an answer has, nobody tells: what is left is found by attempt_still_unread().
 * To read one in place the kernel steps over those before it: 16 are dearer than 8 (tried), and so are 4, for each emptying wakes the worker.
 */
#define PEEKED_ANSWERS 8

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
	if (attempt_is_unix(a) && !a->link->pinned)
		loop_timer_set(a->loop, &a->unread, POOL_OVERSTATED_MS);
}

void attempt_still_unread(struct timer *t)
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

void attempt_send(struct attempt *a)
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
