#include "upstream/attempt_read.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_READ_BYTES  (16u << 10) /* read at a time until the head is there: content behind it is copied once */
#define READ_BYTES       (256u << 10)
#define READS_AT_ONCE    8 /* before the other connections have their turn */
#define PIECES           8
#define STARVED_RETRY_MS 100

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
	    (!a->sent_any || (attempt_is_unix(a) && a->sender.body_sent == 0 && err == ECONNRESET)))
		begun = BEGUN_NO;
	attempt_decide(a, begun == BEGUN_NO ? ATTEMPT_UNREAD : ATTEMPT_LOST, why);
}

void attempt_starved_over(struct timer *t)
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
		assert(all.ptr); /* a protocol leaves a part of what it was given */
		memmove(a->in.ptr, all.ptr, all.len);
		a->in.len = all.len;
	} else {
		buf_add(&a->in, all);
		if (a->in.failed)
			attempt_decide(a, ATTEMPT_GARBAGE, "answer's head is too large");
	}
}

/*
 * An answer that was read in place stays there if it was all of it and the link is for another: taking it out would wake the worker, which
 * sleeps in recv(), for nothing. Large ones are not read twice.
 */
static void answer_in_place(struct attempt *a)
{
	bool whole = a->ended && a->how == ATTEMPT_WHOLE && a->reusable;

	a->link->peeks = whole;
	if (!whole)
		link_take_out(a->link);
}

static void read_framed(struct attempt *a)
{
	/* A worker that gets its next request at once may as well wake as its answer is taken out. */
	bool first = !a->got_byte, in_place = first && a->link->peeks && a->sent_all && !pool_is_waited_for(a->slot->pool);
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
	link_was_read(a->link, n > 0 && (size_t)n < asked);
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
	size_t want = (size_t)MIN(a->raw_left, READ_BYTES), room = 0, behind = 0, content;
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
		behind = HEAD_READ_BYTES;
	if (behind > 0)
		iov[n++] = (struct iovec){ a->loop->scratch, behind };
	link_take_out(a->link);
	got = receive(a, iov, n, false, &fd);
	link_was_read(a->link, got > 0 && (size_t)got < room + behind);
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

void attempt_progress(struct attempt *a)
{
	if (!a->grew || !a->events || a->ended)
		return;
	a->grew = false;
	a->events->progress(a->ctx);
}

void attempt_read(struct attempt *a)
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

/* What the protocol tells. */

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
