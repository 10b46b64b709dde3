/*
 * inherited: the listening sockets that a service manager opened for us (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES).
 * Owns:   the descriptors that nobody has taken yet.
 * Thread: start-up's.
 */
#ifndef FOREBAY_PROXY_INHERITED_H
#define FOREBAY_PROXY_INHERITED_H

#include <sys/types.h>

#include "core/slice.h"

#define INHERITED_MAX      64
#define INHERITED_FIRST_FD 3

struct inherited {
	struct inherited_socket {
		int fd;            /* -1: taken */
		struct slice name; /* of the text given to inherited_read */
	} sockets[INHERITED_MAX];
	size_t count;
};

/*
 * The three variables' values, each may be NULL; `names` is borrowed. 0 (also with none), -EINVAL: they are not as the protocol says,
 * or -E2BIG: more than INHERITED_MAX. Touches no descriptor.
 */
MUST_USE int inherited_read(struct inherited *ret, const char *pid, const char *fds, const char *names, pid_t self);

/* From the environment, which forgets them; the descriptors become close-on-exec. */
MUST_USE int inherited_take(struct inherited *ret);

/* Closes what nobody has taken. */
void inherited_done(struct inherited *i);

#endif
