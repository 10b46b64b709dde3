/*
 * fdpass: one message with descriptors over a Unix socket.
 * Thread: any.
 */
#ifndef FOREBAY_CORE_FDPASS_H
#define FOREBAY_CORE_FDPASS_H

#include <sys/types.h>

#include "core/base.h"

#define FDPASS_MAX 16

/*
 * Sends msg with borrowed fds in one sendmsg (flags as for send(2); MSG_NOSIGNAL is added). Returns bytes sent or -errno; -EINVAL for more than
 * FDPASS_MAX fds, or for fds without a byte to ride on.
 */
MUST_USE ssize_t fdpass_send(int sock, const void *msg, size_t len, const int *fds, size_t fd_count, int flags);

/*
 * Receives one message: bytes, 0 at the end, or -errno. Descriptors (close-on-exec) are given in fds, *ret_count of them.
 * -EPROTO, and all that came closed, if some were cut off (MSG_CTRUNC), there are more than fd_max, or a packet was longer than size (MSG_TRUNC).
 */
MUST_USE ssize_t fdpass_recv(int sock, void *buf, size_t size, int *fds, size_t fd_max, size_t *ret_count, int flags);

/*
 * The same from a socket with SO_PASSCRED, without descriptors (some that come are closed, and -EPROTO): *ret_pid is the sender's process as the
 * kernel has it, 0 if it did not say.
 */
MUST_USE ssize_t fdpass_recv_from(int sock, void *buf, size_t size, pid_t *ret_pid, int flags);

#endif
