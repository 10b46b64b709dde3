/*
 * notify: a word to the service manager (sd_notify's protocol: datagrams to NOTIFY_SOCKET). Without one, nothing.
 * Owns:   its socket.
 * Never:  waits: what the manager does not take is lost.
 */
#ifndef FOREBAY_PROXY_NOTIFY_H
#define FOREBAY_PROXY_NOTIFY_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "core/base.h"

struct notify {
	int fd; /* -1: nobody to tell */
	struct sockaddr_un to;
	socklen_t to_len;
	uint64_t watchdog_us; /* 0: nobody watches */
};

/* The values of NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID; each may be NULL. What is not understood counts as not said. */
void notify_init(struct notify *n, const char *socket_path, const char *watchdog_usec, const char *watchdog_pid, pid_t self);
void notify_done(struct notify *n);

/* "READY=1", "STATUS=...": assignments, one a line. */
void notify_send(const struct notify *n, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
