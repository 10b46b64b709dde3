#include "proxy/daemon/inherited.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int inherited_read(struct inherited *ret, const char *pid, const char *fds, const char *names, pid_t self)
{
	struct slice rest = slice_str(names);
	uint64_t owner, count;

	ret->count = 0;
	if (!pid || !fds)
		return 0;
	if (!slice_to_u64(slice_str(pid), &owner) || !slice_to_u64(slice_str(fds), &count))
		return -EINVAL;
	if (owner != (uint64_t)self)
		return 0; /* meant for somebody else, whose environment we inherited */
	if (count > INHERITED_MAX)
		return -E2BIG;
	for (; ret->count < count; ret->count++) {
		struct inherited_socket *s = &ret->sockets[ret->count];

		s->fd = INHERITED_FIRST_FD + (int)ret->count;
		if (!slice_cut(&rest, ':', &s->name)) {
			s->name = rest;
			rest.len = 0;
		}
	}
	return 0;
}

int inherited_take(struct inherited *ret)
{
	int err = inherited_read(ret, getenv("LISTEN_PID"), getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES"), getpid());

	if (err)
		return err;
	for (size_t i = 0; i < ret->count; i++)
		if (fcntl(ret->sockets[i].fd, F_SETFD, FD_CLOEXEC) == -1)
			return -EBADF;
	/* LISTEN_FDNAMES stays where it is: the names point into it. Without the other two it means nothing. */
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	return 0;
}

void inherited_done(struct inherited *in)
{
	for (size_t i = 0; i < in->count; i++)
		if (in->sockets[i].fd != -1)
			close(in->sockets[i].fd);
	in->count = 0;
}
