/*
 * spawn: fork and exec of this program in another role, or of one that belongs to it, with a fixed list of descriptors and a fixed environment.
 * Owns:   nothing.
 * Thread: a process with one thread (the master): the child allocates between fork and exec no more than the C library does.
 */
#ifndef FOREBAY_UPSTREAM_SPAWN_H
#define FOREBAY_UPSTREAM_SPAWN_H

#include <sys/resource.h>
#include <sys/types.h>

#include "core/base.h"

#define SPAWN_FDS_MAX    16
#define SPAWN_GROUPS_MAX 64

/* Whom a child runs as. */
struct spawn_user {
	uid_t uid;
	gid_t gid;
	gid_t groups[SPAWN_GROUPS_MAX];
	size_t group_count;
	char name[64];
	char home[256];
};

struct spawn_plan {
	const char *const *argv; /* ends in NULL; argv[0] is what ps shows; argv[1] is the role main() looks at */
	const char *const *envp; /* all of the environment; ends in NULL */
	int fds[SPAWN_FDS_MAX];  /* become 0, 1, 2, ... in the child, not close-on-exec; -1: /dev/null. All others are closed */
	size_t fd_count;         /* at least 3 */
	const struct spawn_user *user; /* NULL: as the parent */
	const char *directory;         /* NULL: "/" */
	const char *program;           /* NULL: the one that runs */
	int niceness;                  /* added to ours, before the user changes */
	bool has_umask;                /* false: ours stays */
	mode_t umask;
	struct rlimit descriptors; /* RLIMIT_NOFILE; rlim_cur is 0: ours stays */
};

/* 0, -ENOENT for an unknown name, -E2BIG for more groups than fit, or -errno. */
MUST_USE int spawn_find_user(const char *name, struct spawn_user *ret);

/* That group in place of the user's own; its other groups stay. 0, -ENOENT for an unknown name, or -errno. */
MUST_USE int spawn_find_group(const char *name, struct spawn_user *user);

/*
 * The child leads a process group of its own, has default signals and an empty mask, and is killed when its parent ends (PR_SET_PDEATHSIG after
 * setuid, then getppid). A child that could not be set up exits with 126 and one line on its standard error. 0 or -errno.
 */
MUST_USE int spawn_child(const struct spawn_plan *plan, pid_t *ret);

#endif
