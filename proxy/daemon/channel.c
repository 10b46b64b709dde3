#include "proxy/daemon/channel.h"

#include <event2/event_struct.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/fdpass.h"

#define CHANNEL_RETRY_MS  10 /* the kernel holds too many descriptors in flight: there is no event for their end */
#define CHANNEL_PER_EVENT 64 /* messages read in one go, so that nobody can keep a loop to himself */

/* On the wire: the type and as much of the union as the type has. */
#define HEAD_BYTES offsetof(struct channel_message, u)

/* How many descriptors a message may carry. */
enum fd_rule { FD_NONE, FD_ONE, FD_MAY };

static const struct rule {
	enum channel_side from;
	enum fd_rule fd;
	size_t bytes; /* of the union; 0: none */
	bool is_text; /* any number up to `bytes`, at least one, NUL at the end */
} rules[] = {
#define SIZE(member) sizeof(((struct channel_message *)0)->u.member)
	[CHANNEL_LIMITS] = { CHANNEL_MASTER, FD_NONE, SIZE(limits), false },
	[CHANNEL_CONF] = { CHANNEL_MASTER, FD_ONE, SIZE(text), true },
	[CHANNEL_LOG] = { CHANNEL_MASTER, FD_MAY, SIZE(log), false },
	[CHANNEL_SPOOL] = { CHANNEL_MASTER, FD_ONE, 0, false },
	[CHANNEL_TLS] = { CHANNEL_MASTER, FD_ONE, 0, false },
	[CHANNEL_LISTENER] = { CHANNEL_MASTER, FD_ONE, SIZE(listener), false },
	[CHANNEL_GO] = { CHANNEL_MASTER, FD_NONE, 0, false },
	[CHANNEL_PAGE] = { CHANNEL_MASTER, FD_ONE, SIZE(page), false },
	[CHANNEL_SLOT] = { CHANNEL_MASTER, FD_ONE, SIZE(slot), false },
	[CHANNEL_DRAIN] = { CHANNEL_MASTER, FD_NONE, 0, false },
	[CHANNEL_ADOPTED] = { CHANNEL_FRONT, FD_NONE, 0, false },
	[CHANNEL_REFUSED] = { CHANNEL_FRONT, FD_NONE, SIZE(text), true },
	[CHANNEL_TICK] = { CHANNEL_FRONT, FD_NONE, SIZE(tick), false },
	[CHANNEL_DRAINED] = { CHANNEL_FRONT, FD_NONE, 0, false },
	[CHANNEL_REPLACE] = { CHANNEL_FRONT, FD_NONE, SIZE(replace), false },
	[CHANNEL_POISON] = { CHANNEL_FRONT, FD_ONE, SIZE(poison), false },
	[CHANNEL_POISON_BODY] = { CHANNEL_FRONT, FD_ONE, 0, false },
	[CHANNEL_LOAD] = { CHANNEL_FRONT, FD_NONE, SIZE(load), false },
#undef SIZE
};
static_assert(ARRAY_LEN(rules) == CHANNEL_TYPE_COUNT, "a row for each type");

struct waiting {
	struct waiting *next;
	int fd;
	size_t len;
	char bytes[]; /* the message as it goes on the wire */
};

struct channel {
	int fd;
	enum channel_side side;
	struct event in, out, retry;
	struct waiting *first, **last;
	size_t waiting, queue_max;
	struct channel_events events;
	void *ctx;
	bool *freed; /* set while events are being called: freed within */
};

static void close_fd(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

int channel_pair(int *ret_master, int *ret_front)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == -1)
		return -errno;
	*ret_master = fds[0];
	*ret_front = fds[1];
	return 0;
}

/* Bytes on the wire, or 0 for a message that breaks its rule. */
static size_t message_bytes(const struct channel_message *m)
{
	const struct rule *rule;

	if (m->type >= ARRAY_LEN(rules))
		return 0;
	rule = &rules[m->type];
	if (!rule->is_text)
		return HEAD_BYTES + rule->bytes;
	return HEAD_BYTES + strnlen(m->u.text, rule->bytes - 1) + 1;
}

/* What came: one whole message of a type that the other side may send, with the descriptors it must have. */
static bool message_is_right(enum channel_side us, const struct channel_message *m, size_t len, int fd)
{
	const struct rule *rule;

	if (len < HEAD_BYTES || m->type >= ARRAY_LEN(rules))
		return false;
	rule = &rules[m->type];
	len -= HEAD_BYTES;
	if (rule->from == us)
		return false;
	if ((rule->fd == FD_NONE && fd != -1) || (rule->fd == FD_ONE && fd == -1))
		return false;
	if (!rule->is_text)
		return len == rule->bytes;
	return len >= 1 && len <= rule->bytes && strnlen(m->u.text, len) == len - 1;
}

static void waiting_free(struct waiting *w)
{
	close_fd(&w->fd);
	free(w);
}

/* Tells the owner, once: no event is watched from here on. May free c. */
static void channel_end(struct channel *c, int err)
{
	event_del(&c->in);
	event_del(&c->out);
	event_del(&c->retry);
	close_fd(&c->fd);
	c->events.ended(c->ctx, err);
}

/* 0: sent, or never to be (then the socket's end is seen by reading). -EAGAIN: later, and the event for it is set. */
static int send_one(struct channel *c, const void *bytes, size_t len, int fd)
{
	static const struct timeval retry = { .tv_usec = CHANNEL_RETRY_MS * 1000 };
	ssize_t n = fdpass_send(c->fd, bytes, len, &fd, fd != -1, MSG_DONTWAIT);

	switch (n) {
	case -EAGAIN:
		event_add(&c->out, NULL);
		return -EAGAIN;
	case -ETOOMANYREFS:
	case -ENOBUFS:
	case -ENOMEM:
		event_add(&c->retry, &retry);
		return -EAGAIN;
	default:
		return 0;
	}
}

static void send_waiting(struct channel *c)
{
	struct waiting *w;

	while ((w = c->first) != NULL) {
		if (send_one(c, w->bytes, w->len, w->fd) == -EAGAIN)
			return;
		c->first = w->next;
		if (!c->first)
			c->last = &c->first;
		c->waiting--;
		waiting_free(w);
	}
}

static int wait_to_send(struct channel *c, const struct channel_message *m, size_t len, int *fd)
{
	struct waiting *w;

	if (c->waiting >= c->queue_max)
		return -ENOBUFS;
	w = malloc(sizeof(*w) + len);
	if (!w)
		return -ENOMEM;
	*w = (struct waiting){ .fd = *fd, .len = len };
	memcpy(w->bytes, m, len);
	*fd = -1;
	*c->last = w;
	c->last = &w->next;
	c->waiting++;
	return 0;
}

int channel_send(struct channel *c, const struct channel_message *m, int *fd)
{
	size_t len = message_bytes(m);
	int none = -1, err = 0;

	assert(len > 0 && rules[m->type].from == c->side);
	if (!fd)
		fd = &none;
	if (c->fd == -1)
		; /* it has ended, and that was told */
	else if (c->first || send_one(c, m, len, *fd) == -EAGAIN)
		err = wait_to_send(c, m, len, fd);
	close_fd(fd);
	return err;
}

size_t channel_waiting(const struct channel *c)
{
	return c->waiting;
}

/* Reads one and tells it. False: nothing more now, or c has ended or is freed. */
static bool read_one(struct channel *c)
{
	struct channel_message m;
	size_t fd_count;
	bool freed = false;
	int fd = -1;
	ssize_t n = fdpass_recv(c->fd, &m, sizeof(m), &fd, 1, &fd_count, MSG_DONTWAIT);

	/* The other end closed without reading all of ours: told before what it sent, which may say why. */
	if (n == -ECONNRESET)
		return true;
	if (n == -EAGAIN)
		return false;
	if (n > 0 && !message_is_right(c->side, &m, (size_t)n, fd))
		n = -EPROTO;
	if (n <= 0) {
		close_fd(&fd);
		channel_end(c, (int)n);
		return false;
	}
	/* Put back below, unless c has gone. */
	/* cppcheck-suppress autoVariables */
	c->freed = &freed;
	c->events.message(c->ctx, &m, &fd);
	close_fd(&fd);
	if (freed)
		return false;
	c->freed = NULL;
	return true;
}

void channel_poll(struct channel *c)
{
	for (unsigned i = 0; i < CHANNEL_PER_EVENT && read_one(c); i++)
		;
}

static void on_in(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	channel_poll(ctx);
}

static void on_out(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	send_waiting(ctx);
}

int channel_new(struct event_base *base, int *fd, enum channel_side side, size_t queue_max, const struct channel_events *events,
    void *ctx, struct channel **ret)
{
	struct channel *c = calloc(1, sizeof(*c));

	if (!c) {
		close_fd(fd);
		return -ENOMEM;
	}
	*c = (struct channel){ .fd = *fd, .side = side, .queue_max = queue_max, .events = *events, .ctx = ctx };
	*fd = -1;
	c->last = &c->first;
	if (event_assign(&c->in, base, c->fd, EV_READ | EV_PERSIST, on_in, c) ||
	    event_assign(&c->out, base, c->fd, EV_WRITE, on_out, c) || event_assign(&c->retry, base, -1, 0, on_out, c) ||
	    event_add(&c->in, NULL)) {
		close_fd(&c->fd);
		free(c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

void channel_free(struct channel **pc)
{
	struct channel *c = *pc;

	if (!c)
		return;
	event_del(&c->in);
	event_del(&c->out);
	event_del(&c->retry);
	close_fd(&c->fd);
	while (c->first) {
		struct waiting *next = c->first->next;

		waiting_free(c->first);
		c->first = next;
	}
	if (c->freed)
		*c->freed = true;
	free(c);
	*pc = NULL;
}

void channel_text(struct channel_message *m, enum channel_type type, struct slice text)
{
	size_t len = MIN(text.len, sizeof(m->u.text) - 1);
	const char *nul = memchr(text.ptr, '\0', len);

	m->type = type;
	m->reserved = 0;
	len = nul ? (size_t)(nul - text.ptr) : len;
	memcpy(m->u.text, text.ptr, len);
	m->u.text[len] = '\0';
}
