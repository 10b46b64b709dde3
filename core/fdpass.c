#include "core/fdpass.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* More than that many may come where room for a sender's name is not used. */
#define COLLECT_MAX (FDPASS_MAX + CMSG_SPACE(sizeof(struct ucred)) / sizeof(int))

/* Space for the most descriptors and a sender's name, aligned as the kernel's cmsghdr wants it. */
union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(FDPASS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
};

static void close_all(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
}

static void put_fds(struct msghdr *m, union control *control, const int *fds, size_t fd_count)
{
	struct cmsghdr *c;

	memset(control, 0, sizeof(*control));
	m->msg_control = control->bytes;
	m->msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
	c = CMSG_FIRSTHDR(m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
}

ssize_t fdpass_send(int sock, const void *msg, size_t len, const int *fds, size_t fd_count, int flags)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg, .iov_len = len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control;
	ssize_t n;

	/* Descriptors without a byte to ride on are dropped by the kernel without a word. */
	if (fd_count > FDPASS_MAX || (fd_count > 0 && len == 0))
		return -EINVAL;
	if (fd_count > 0)
		put_fds(&m, &control, fds, fd_count);
	do
		n = sendmsg(sock, &m, flags | MSG_NOSIGNAL);
	while (n == -1 && errno == EINTR);
	return n == -1 ? -errno : n;
}

/* All descriptors of the message, also of a second control message, into `all`, which has room for what `control` can hold. */
static size_t collect_fds(struct msghdr *m, int *all)
{
	size_t count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = MIN((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), COLLECT_MAX - count);
		memcpy(all + count, CMSG_DATA(c), n * sizeof(int));
		count += n;
	}
	return count;
}

/* Who sent it; 0: not said. */
static pid_t find_sender(struct msghdr *m)
{
	struct ucred who;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS && c->cmsg_len == CMSG_LEN(sizeof(who))) {
			memcpy(&who, CMSG_DATA(c), sizeof(who));
			return who.pid;
		}
	return 0;
}

static ssize_t receive(int sock, void *buf, size_t size, int *fds, size_t fd_max, size_t *ret_count, pid_t *ret_pid, int flags)
{
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	union control control;
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	int all[COLLECT_MAX];
	size_t count;
	ssize_t n;

	*ret_count = 0;
	do {
		m.msg_control = control.bytes;
		m.msg_controllen = sizeof(control.bytes);
		n = recvmsg(sock, &m, flags | MSG_CMSG_CLOEXEC);
	} while (n == -1 && errno == EINTR);
	if (n == -1)
		return -errno;
	*ret_pid = find_sender(&m);
	count = collect_fds(&m, all);
	if ((m.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) || count > fd_max) {
		close_all(all, count);
		return -EPROTO;
	}
	if (count > 0)
		memcpy(fds, all, count * sizeof(int));
	*ret_count = count;
	return n;
}

ssize_t fdpass_recv(int sock, void *buf, size_t size, int *fds, size_t fd_max, size_t *ret_count, int flags)
{
	pid_t pid;

	return receive(sock, buf, size, fds, fd_max, ret_count, &pid, flags);
}

ssize_t fdpass_recv_from(int sock, void *buf, size_t size, pid_t *ret_pid, int flags)
{
	size_t count;

	*ret_pid = 0;
	return receive(sock, buf, size, NULL, 0, &count, ret_pid, flags);
}
