#include "proxy/client/listener.h"

#include <event2/event_struct.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "proxy/client/crowd.h"
#include "proxy/client/door.h"
#include "proxy/client/guard.h"
#include "proxy/client/http1_client.h"

#define ACCEPTS_AT_ONCE 64
#define FULL_RETRY_MS   500

struct listener {
	struct context *cx;
	const struct conf_listen *conf;
	const struct conf_address *local;
	int fd;
	struct event ev;
	struct timer retry; /* set: accepting has stopped */
	uint64_t told_ms;   /* when it was last said that there is no room */
};

static void listener_stop(struct listener *l, const char *why)
{
	uint64_t now = loop_now_ms(l->cx->loop);

	event_del(&l->ev);
	loop_timer_set(l->cx->loop, &l->retry, FULL_RETRY_MS);
	if (l->told_ms && now - l->told_ms < 10000)
		return;
	l->told_ms = now;
	log_warning("listen=%s address=%s accepting stops for a moment: %s", l->conf->name, l->local->text, why);
}

void listener_room(struct listener *l)
{
	if (!timer_is_set(&l->retry))
		return;
	loop_timer_clear(l->cx->loop, &l->retry);
	(void)event_add(&l->ev, NULL);
}

static void retry_fired(struct timer *t)
{
	struct listener *l = CONTAINER_OF(t, struct listener, retry);

	(void)event_add(&l->ev, NULL);
}

static bool somebody_waits(const struct listener *l)
{
	struct pollfd p = { .fd = l->fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* One less of our own connections, for who waits: the one that was idle longest, then the slowest. */
static bool make_room(struct listener *l)
{
	struct context *cx = l->cx;
	uint64_t now = loop_now_ms(cx->loop);

	return crowd_evict_idle(cx->crowd, now, "connections") ||
	       crowd_evict_slowest(cx->crowd, now, l->conf->min_rate_grace_ms, "connections");
}

/* False: not now; accepting has stopped if somebody waits. */
static bool take_place(struct listener *l)
{
	struct guard *guard = l->cx->guard;

	if (guard_take_place(guard))
		return true;
	if (!somebody_waits(l))
		return false;
	if (make_room(l) && guard_take_place(guard))
		return true;
	listener_stop(l, "all connections are in use");
	return false;
}

/* True: another one may be tried at once. */
static bool accept_failed(struct listener *l, int err)
{
	if (err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM) {
		if (!crowd_evict_idle(l->cx->crowd, loop_now_ms(l->cx->loop), "descriptors"))
			listener_stop(l, "no free descriptors");
	}
	return err == EINTR || err == ECONNABORTED;
}

/* Room for one more must be known before it is accepted: a connection that cannot be served waits in the kernel's queue instead. */
static bool accept_one(struct listener *l)
{
	struct guard *guard = l->cx->guard;
	unsigned per_address = door_learns_client(l->conf) ? 0 : l->conf->connections_per_address;
	struct arrival a = { .listen = l->conf, .local = l->local };
	socklen_t len = sizeof(a.peer); /* a Unix socket's name is cut: nobody asks for it */
	int fd, err;

	if (!take_place(l))
		return false;
	fd = accept4(l->fd, &a.peer.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd == -1) {
		err = errno;
		guard_return_place(guard);
		return accept_failed(l, err);
	}
	if (len < sizeof(sa_family_t))
		a.peer.any.sa_family = AF_UNIX;
	if (guard_enter(guard, &a.peer.any, per_address) != GUARD_OK) {
		log_debug("listen=%s connection refused: connections_per_address", l->conf->name);
		close(fd);
		return true;
	}
	stream_init(&a.stream, &fd);
	if ((door_is_needed(l->conf) ? door_new(l->cx, &a) : http1_client_new(l->cx, &a)) != 0) {
		stream_close(&a.stream);
		guard_leave(guard, &a.peer.any, per_address);
	}
	return true;
}

static void listener_event(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct listener *l = ctx;

	loop_callback(l->cx->loop);
	for (int i = 0; i < ACCEPTS_AT_ONCE; i++)
		if (!accept_one(l))
			return;
}

void listener_take_all(struct listener *l)
{
	for (unsigned i = 0; i < l->conf->backlog && accept_one(l); i++)
		;
}

int listener_new(
    struct context *cx, const struct conf_listen *listen, const struct conf_address *local, int *fd, struct listener **ret)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (!l) {
		close(*fd);
		*fd = -1;
		return -ENOMEM;
	}
	l->cx = cx;
	l->conf = listen;
	l->local = local;
	l->fd = *fd;
	*fd = -1;
	l->retry.fire = retry_fired;
	event_assign(&l->ev, cx->loop->base, l->fd, EV_READ | EV_PERSIST, listener_event, l);
	if (event_add(&l->ev, NULL) == -1) {
		listener_free(&l);
		return -ENOMEM;
	}
	*ret = l;
	return 0;
}

void listener_free(struct listener **l)
{
	struct listener *old = *l;

	*l = NULL;
	if (!old)
		return;
	loop_timer_clear(old->cx->loop, &old->retry);
	event_del(&old->ev);
	close(old->fd);
	free(old);
}
