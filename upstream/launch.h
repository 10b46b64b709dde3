/*
 * launch: starts the processes of one pool: as whom, where, with which command line and environment.
 * Owns:   the environment.
 * Thread: the master's.
 */
#ifndef FOREBAY_UPSTREAM_LAUNCH_H
#define FOREBAY_UPSTREAM_LAUNCH_H

#include <limits.h>

#include "upstream/environment.h"
#include "upstream/spawn.h"
#include "upstream/worker/args.h"

struct launch {
	const struct conf_pool *conf;
	struct spawn_user user;
	bool has_user;
	bool debug;
	char program[PATH_MAX]; /* "": this one */
	struct environment environment;
	int started_fd;            /* borrowed */
	struct rlimit descriptors; /* what we were started with; rlim_cur is 0: nothing is known of that */
	/* For tests; NULL: spawn_child(). */
	int (*spawn)(void *ctx, const struct spawn_plan *plan, pid_t *ret);
	void *ctx;
};

/* Ours, the child's; read, write. All close-on-exec; -1: none. */
struct launch_pipes {
	int control[2], output[2];
};

/*
 * Borrows conf. default_user: for a pool without `user` under a root master, or NULL. 0, or -errno, said in the log: -EPERM (root without a user),
 * -EACCES (niceness), -ENOENT (unknown user or group, no directory, no program), -ENOTSUP (an app that is not built in), -EINVAL (environment_file).
 */
MUST_USE int launch_init(struct launch *l, const struct conf_pool *conf, const char *default_user);
void launch_done(struct launch *l);

/* Reads environment_file again. 0, or -errno, said in the log: what was there stays. */
MUST_USE int launch_refresh(struct launch *l);

MUST_USE int launch_pipes_make(struct launch_pipes *p);
void launch_pipes_close(struct launch_pipes *p);

/* A process with the child's ends of `p`, which stay open here. 0 or -errno. */
MUST_USE int launch_process(
    const struct launch *l, enum args_role role, unsigned place, const struct launch_pipes *p, pid_t *ret);

#endif
