#include "upstream/link.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* An idle link that becomes readable has ended, or its worker spoke out of turn: neither serves another request. */
static void link_ended_idle(struct link *l)
{
	struct slot *slot = l->slot;
	pid_t spoke = l->pinned && !link_is_dead(l) ? slot->worker_pid : 0;

	if (!pool_link_ended(slot))
		return;
	pool_give_up(slot, spoke);
	link_free(&l);
}

static bool nothing_unread(const struct link *l)
{
	char byte;

	return recv(l->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == -1 && errno == EAGAIN;
}

static void link_event(evutil_socket_t fd UNUSED, short what, void *ctx)
{
	struct link *l = ctx;

	loop_callback(l->loop);
	/* libevent tells an error as readable and writable, wanted or not. */
	if ((what & EV_WRITE) && !l->want_write)
		what |= EV_CLOSED;
	if (l->event)
		l->event(l->ctx, what);
	else if (!nothing_unread(l)) /* else the edge of what was read in place since */
		link_ended_idle(l);
}

static struct link *link_alloc(int fd)
{
	struct link *l = calloc(1, sizeof(*l));

	if (l)
		l->fd = fd;
	return l;
}

int link_connect(struct loop *loop, struct slot *slot, struct link **ret, bool *ret_connected)
{
	const struct conf_address *to = slot->address;
	struct link *l;
	int err, fd;

	fd = socket(to->addr.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -errno;
	*ret_connected = connect(fd, &to->addr.any, to->len) == 0;
	if (!*ret_connected && errno != EINPROGRESS) {
		err = -errno;
		close(fd);
		return err;
	}
	if (to->addr.any.sa_family != AF_UNIX)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	l = link_alloc(fd);
	if (!l) {
		close(fd);
		return -ENOMEM;
	}
	l->slot = slot;
	l->can_peek = to->addr.any.sa_family == AF_UNIX && pool_conf(slot->pool)->keepalive &&
	              setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &(int){ 0 }, sizeof(int)) == 0;
	l->want_write = !*ret_connected;
	link_hook(l, loop);
	*ret = l;
	return 0;
}

int link_connected(struct link *l)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1)
		return -errno;
	return -err;
}

int link_wrap(int *fd, const _Atomic uint64_t *started, uint64_t serial, struct link **ret)
{
	struct link *l = link_alloc(*fd);

	if (!l) {
		close(*fd);
		*fd = -1;
		return -ENOMEM;
	}
	*fd = -1;
	l->pinned = true;
	l->started = started;
	l->serial = serial;
	*ret = l;
	return 0;
}

void link_free(struct link **l)
{
	struct link *old = *l;

	*l = NULL;
	if (!old)
		return;
	link_unhook(old);
	link_take_out(old); /* what lies unread makes a reset of our end */
	close(old->fd);
	free(old);
}

void link_use(struct link *l, void (*event)(void *ctx, short what), void *ctx)
{
	l->event = event;
	l->ctx = ctx;
}

void link_idle(struct link *l)
{
	link_want_write(l, false);
	l->event = NULL;
	l->ctx = NULL;
	l->used = true;
	l->idle_since_ms = loop_now_ms(l->loop);
}

void link_hook(struct link *l, struct loop *loop)
{
	short what = EV_READ | EV_CLOSED | EV_ET | EV_PERSIST | (l->want_write ? EV_WRITE : 0);

	assert(!l->loop);
	l->loop = loop;
	link_was_read(l, true); /* what is there already makes an edge as well */
	event_assign(&l->ev, loop->base, l->fd, what, link_event, l);
	/* Fails only without memory or with a bad descriptor; then nothing is heard and the attempt's time limit ends it. */
	(void)event_add(&l->ev, NULL);
}

void link_unhook(struct link *l)
{
	if (!l->loop)
		return;
	event_del(&l->ev);
	l->loop = NULL;
}

void link_want_write(struct link *l, bool want)
{
	struct loop *loop = l->loop;

	if (l->want_write == want)
		return;
	l->want_write = want;
	link_unhook(l);
	link_hook(l, loop);
}

void link_again(struct link *l, short what)
{
	event_active(&l->ev, what, 0);
}

void link_was_read(struct link *l, bool emptied)
{
	l->emptied = emptied;
	l->emptied_turn = loop_turn(l->loop);
}

/* Whatever comes to an emptied link is an edge, which the loop was told of by now: it was heard, or waits to be. */
static bool no_edge_since(const struct link *l)
{
	return l->emptied && l->loop && loop_has_asked(l->loop, l->emptied_turn) &&
	       !(l->ev.ev_evcallback.evcb_flags & EVLIST_ACTIVE);
}

bool link_is_quiet(const struct link *l)
{
	return no_edge_since(l) || nothing_unread(l);
}

bool link_is_dead(const struct link *l)
{
	struct pollfd p = { .fd = l->fd };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

ssize_t link_recv(struct link *l, void *to, size_t size, bool in_place)
{
	ssize_t got = recv(l->fd, to, size, MSG_DONTWAIT | (in_place ? MSG_PEEK : 0));

	if (got == -1)
		return -errno;
	if (in_place) {
		l->peeked += (uint32_t)got;
		l->peeked_answers++;
	}
	return got;
}

void link_take_out(struct link *l)
{
	/* Not the loop's scratch: there the pipelined requests lie behind the one that is being sent just now. */
	char away[16u << 10];

	while (l->peeked > 0) {
		ssize_t got = recv(l->fd, away, MIN((size_t)l->peeked, sizeof(away)), MSG_DONTWAIT);

		if (got == -1 && errno == EINTR)
			continue;
		assert(got > 0); /* it was there, and nobody else reads */
		l->peeked -= (uint32_t)got;
	}
	l->peeked_answers = 0;
}

static void pool_closes(struct link *l)
{
	link_free(&l);
}

static void pool_attaches(struct link *l, struct slot *slot)
{
	l->slot = slot;
}

const struct pool_links link_pool_links = {
	.attached = pool_attaches,
	.unhook = link_unhook,
	.hook = link_hook,
	.close = pool_closes,
};
