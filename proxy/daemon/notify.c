#include "proxy/daemon/notify.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "core/slice.h"

#define NOTIFY_BYTES 1024

/* A path, or "@name" for an abstract socket. */
static bool set_address(struct notify *n, const char *path)
{
	size_t len = strlen(path);

	if ((path[0] != '/' && path[0] != '@') || len < 2 || len >= sizeof(n->to.sun_path))
		return false;
	n->to.sun_family = AF_UNIX;
	memcpy(n->to.sun_path, path, len);
	if (path[0] == '@')
		n->to.sun_path[0] = '\0';
	n->to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '/'));
	return true;
}

static uint64_t watchdog_us(const char *usec, const char *pid, pid_t self)
{
	uint64_t n;

	if (pid && (!slice_to_u64(slice_str(pid), &n) || n != (uint64_t)self))
		return 0;
	return usec && slice_to_u64(slice_str(usec), &n) ? n : 0;
}

void notify_init(struct notify *n, const char *socket_path, const char *watchdog_usec, const char *watchdog_pid, pid_t self)
{
	*n = (struct notify){ .fd = -1 };
	if (!socket_path || !set_address(n, socket_path))
		return;
	n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (n->fd != -1)
		n->watchdog_us = watchdog_us(watchdog_usec, watchdog_pid, self);
}

void notify_done(struct notify *n)
{
	if (n->fd != -1)
		close(n->fd);
	n->fd = -1;
}

void notify_send(const struct notify *n, const char *fmt, ...)
{
	char text[NOTIFY_BYTES];
	va_list args;
	int len;

	if (n->fd == -1)
		return;
	va_start(args, fmt);
	len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (len > 0)
		(void)sendto(
		    n->fd, text, MIN((size_t)len, sizeof(text) - 1), MSG_NOSIGNAL, (const struct sockaddr *)&n->to, n->to_len);
}
