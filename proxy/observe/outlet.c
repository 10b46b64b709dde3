#include "proxy/observe/outlet.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYSLOG_DAEMON    (3 << 3) /* the facility, RFC 5424, 6.2.1 */
#define SYSLOG_HEAD_ROOM 48       /* bytes for "<30>forebay[4194304]: " */

enum way {
	WAY_NONE,     /* nowhere */
	WAY_FILE,     /* a regular file: always ready */
	WAY_POLLED,   /* a pipe or terminal, perhaps shared with others: asked before each small write */
	WAY_STREAM,   /* a stream socket */
	WAY_DATAGRAM, /* syslog: a line each */
};

int outlet_init(struct outlet *o)
{
	*o = (struct outlet){ .fd = -1, .way = WAY_NONE, .staged = malloc(OUTLET_BYTES) };
	return o->staged ? 0 : -ENOMEM;
}

void outlet_done(struct outlet *o)
{
	if (o->fd != -1)
		close(o->fd);
	o->fd = -1;
	free(o->staged);
	o->staged = NULL;
}

static enum way way_of(enum logger_kind kind, int fd)
{
	struct stat st;

	if (kind == LOGGER_OFF || fd == -1)
		return WAY_NONE;
	if (kind == LOGGER_SYSLOG)
		return WAY_DATAGRAM;
	if (fstat(fd, &st) == -1 || S_ISREG(st.st_mode))
		return WAY_FILE;
	return S_ISSOCK(st.st_mode) ? WAY_STREAM : WAY_POLLED;
}

/* A syslog server that was started anew is found where the old one was. */
static void remember_peer(struct outlet *o)
{
	o->peer_len = sizeof(o->peer);
	if (getpeername(o->fd, (struct sockaddr *)&o->peer, &o->peer_len) == -1 || o->peer_len > sizeof(o->peer))
		o->peer_len = 0;
	/* An unnamed socket's address is its family alone. */
	if (o->peer_len <= offsetof(struct sockaddr_un, sun_path))
		o->peer_len = 0;
}

static size_t lines_in(const char *ptr, size_t len)
{
	const char *end = ptr + len, *at;
	size_t lines = 0;

	while (ptr < end && (at = memchr(ptr, '\n', (size_t)(end - ptr)))) {
		lines++;
		ptr = at + 1;
	}
	return lines;
}

/* Each line counts by its newline, which a datagram keeps until it is sent. The one that ends a cut line counts for none. */
static void lose_staged(struct outlet *o)
{
	size_t lines = lines_in(o->staged + o->begin, o->end - o->begin);

	if (lines > 0 && o->midline && o->begin == 0)
		lines--;
	atomic_fetch_add_explicit(&o->lost, lines, memory_order_relaxed);
	o->begin = o->end = 0;
}

void outlet_point(struct outlet *o, enum logger_kind kind, int *fd)
{
	lose_staged(o);
	if (o->fd != -1)
		close(o->fd);
	o->fd = *fd;
	*fd = -1;
	o->way = way_of(kind, o->fd);
	o->midline = o->given_up = false;
	o->failure = 0;
	o->peer_len = 0;
	if (o->way == WAY_DATAGRAM)
		remember_peer(o);
}

bool outlet_is_empty(const struct outlet *o)
{
	return o->begin == o->end;
}

bool outlet_has_room(const struct outlet *o, size_t line_bytes)
{
	if (o->way == WAY_DATAGRAM)
		return outlet_is_empty(o);
	/* What was all written is staged no more, wherever it ended. 1: to end a line that was cut. */
	return OUTLET_BYTES - (outlet_is_empty(o) ? 0 : o->end) >= line_bytes + 1;
}

static void start_stage(struct outlet *o)
{
	o->begin = o->end = 0;
	if (o->midline)
		o->staged[o->end++] = '\n';
}

/* A line's head is written in front of it when its level is known. */
char *outlet_room(struct outlet *o)
{
	if (o->way == WAY_DATAGRAM)
		return o->staged + SYSLOG_HEAD_ROOM;
	if (outlet_is_empty(o))
		start_stage(o);
	return o->staged + o->end;
}

static unsigned syslog_severity(enum log_level level)
{
	static const unsigned char severities[] = {
		[LOG_LEVEL_ERROR] = 3,
		[LOG_LEVEL_WARNING] = 4,
		[LOG_LEVEL_INFO] = 6,
		[LOG_LEVEL_DEBUG] = 7,
	};

	return severities[level];
}

static void add_datagram(struct outlet *o, enum log_level level, size_t line_bytes)
{
	char head[SYSLOG_HEAD_ROOM];
	int len = snprintf(head, sizeof(head), "<%u>forebay[%ld]: ", SYSLOG_DAEMON | syslog_severity(level), (long)getpid());

	o->begin = SYSLOG_HEAD_ROOM - (size_t)len;
	o->end = SYSLOG_HEAD_ROOM + line_bytes;
	memcpy(o->staged + o->begin, head, (size_t)len);
}

void outlet_add(struct outlet *o, enum log_level level, size_t line_bytes)
{
	if (o->way == WAY_DATAGRAM)
		add_datagram(o, level, line_bytes);
	else
		o->end += line_bytes;
}

/* Whole lines as far as they fit in what a pipe takes at once, else as much as it takes. */
static size_t small_piece(const char *ptr, size_t len)
{
	const char *last;

	if (len <= PIPE_BUF)
		return len;
	last = memrchr(ptr, '\n', PIPE_BUF);
	return last ? (size_t)(last - ptr) + 1 : PIPE_BUF;
}

static bool takes_more(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) == 1;
}

static ssize_t send_datagram(struct outlet *o, const char *ptr, size_t len)
{
	const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
	/* The newline stays behind. */
	ssize_t n = send(o->fd, ptr, len - 1, flags);

	if (n == -1 && (errno == ECONNREFUSED || errno == ENOTCONN || errno == ECONNRESET) && o->peer_len != 0 &&
	    connect(o->fd, (struct sockaddr *)&o->peer, o->peer_len) == 0)
		n = send(o->fd, ptr, len - 1, flags);
	return n == -1 ? -1 : (ssize_t)len;
}

/* One write of the kind that does not wait; -1 with EAGAIN: later. */
static ssize_t write_some(struct outlet *o, const char *ptr, size_t len)
{
	switch ((enum way)o->way) {
	case WAY_NONE:
		break;
	case WAY_FILE:
		return write(o->fd, ptr, len);
	case WAY_POLLED:
		if (takes_more(o->fd))
			return write(o->fd, ptr, small_piece(ptr, len));
		errno = EAGAIN;
		return -1;
	case WAY_STREAM:
		return send(o->fd, ptr, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	case WAY_DATAGRAM:
		return send_datagram(o, ptr, len);
	}
	return (ssize_t)len;
}

static void wrote(struct outlet *o, size_t n)
{
	o->failure = 0;
	o->begin += n;
	o->midline = n > 0 && o->way != WAY_DATAGRAM && o->staged[o->begin - 1] != '\n';
}

bool outlet_flush(struct outlet *o)
{
	while (!outlet_is_empty(o) && !o->given_up) {
		ssize_t n = write_some(o, o->staged + o->begin, o->end - o->begin);

		if (n > 0) {
			wrote(o, (size_t)n);
			continue;
		}
		if (n == -1 && errno == EAGAIN)
			return false;
		if (n == -1 && errno == EINTR)
			continue;
		o->failure = n == -1 ? errno : ENOSPC;
		lose_staged(o);
	}
	if (o->given_up)
		lose_staged(o);
	return true;
}

void outlet_give_up(struct outlet *o)
{
	o->given_up = true;
	lose_staged(o);
}

uint64_t outlet_lost(const struct outlet *o)
{
	return atomic_load_explicit(&o->lost, memory_order_relaxed);
}
