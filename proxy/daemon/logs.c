#include "proxy/daemon/logs.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#define SYSLOG_LINE_BYTES 2048

static int give(int fd, enum logger_kind kind, enum logger_kind *ret_kind, int *ret_fd)
{
	if (fd == -1)
		return -errno;
	*ret_kind = kind;
	*ret_fd = fd;
	return 0;
}

static int open_syslog(enum logger_kind *ret_kind, int *ret_fd)
{
	static const struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;

	if (fd != -1 && connect(fd, (const struct sockaddr *)&to, sizeof(to)) == -1) {
		err = -errno;
		close(fd);
		return err;
	}
	return give(fd, LOGGER_SYSLOG, ret_kind, ret_fd);
}

static int open_path(const char *path, enum logger_kind *ret_kind, int *ret_fd)
{
	/* Not waiting for the reader of a pipe: without one, that is an error. */
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);

	if (fd != -1)
		(void)fcntl(fd, F_SETFL, O_APPEND);
	return give(fd, LOGGER_FILE, ret_kind, ret_fd);
}

int logs_open(const char *target, enum logger_kind *ret_kind, int *ret_fd)
{
	struct slice name = slice_str(target);

	if (slice_eq(name, SLICE("off"))) {
		*ret_kind = LOGGER_OFF;
		*ret_fd = -1;
		return 0;
	}
	if (slice_eq(name, SLICE("stderr")))
		return give(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3), LOGGER_FILE, ret_kind, ret_fd);
	if (slice_eq(name, SLICE("syslog")))
		return open_syslog(ret_kind, ret_fd);
	return open_path(target, ret_kind, ret_fd);
}

void logs_set(struct logs *l, enum logger_kind kind, int *fd)
{
	logs_done(l);
	l->kind = kind;
	l->fd = *fd;
	*fd = -1;
}

void logs_done(struct logs *l)
{
	if (l->fd > STDERR_FILENO)
		close(l->fd);
	l->fd = -1;
}

static bool write_syslog(int fd, enum log_level level, struct slice line)
{
	static const int priorities[] = {
		[LOG_LEVEL_ERROR] = LOG_ERR,
		[LOG_LEVEL_WARNING] = LOG_WARNING,
		[LOG_LEVEL_INFO] = LOG_INFO,
		[LOG_LEVEL_DEBUG] = LOG_DEBUG,
	};
	char text[SYSLOG_LINE_BYTES];
	int n = snprintf(
	    text, sizeof(text), "<%d>forebay[%ld]: %.*s", LOG_DAEMON | priorities[level], (long)getpid(), SLICE_ARG(line));

	return n > 0 && send(fd, text, MIN((size_t)n, sizeof(text) - 1), MSG_NOSIGNAL | MSG_DONTWAIT) != -1;
}

/* A pipe that poll finds writable takes a page: a line is shorter. Setting O_NONBLOCK would change standard error for others. */
static bool write_file(int fd, struct slice line)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) && write(fd, line.ptr, line.len) == (ssize_t)line.len;
}

static bool write_line(const struct logs *l, enum log_level level, struct slice line)
{
	if (l->kind == LOGGER_OFF)
		return true;
	if (l->kind == LOGGER_SYSLOG)
		return write_syslog(l->fd, level, line);
	return write_file(l->fd == -1 ? STDERR_FILENO : l->fd, line);
}

void logs_sink(void *ctx, enum log_level level, struct slice line)
{
	struct logs *l = ctx;
	char text[80];

	if (l->dropped > 0) {
		int n = snprintf(text, sizeof(text), "master: log_lines_lost=%" PRIu64 "\n", l->dropped);

		if (!write_line(l, LOG_LEVEL_WARNING, slice_of(text, (size_t)n))) {
			l->dropped++;
			return;
		}
		l->dropped = 0;
	}
	if (!write_line(l, level, line))
		l->dropped++;
}
