/*
 * ground: what the master looks up, opens and binds before it starts anybody.
 * Owns:   listeners, keys, logs, spool directory, the pid file.
 * Never:  starts a process. Goes on after an error: each is logged, then it is over.
 * Thread: the master's.
 */
#ifndef FOREBAY_PROXY_GROUND_H
#define FOREBAY_PROXY_GROUND_H

#include <limits.h>
#include <sys/resource.h>

#include "conf/conf.h"
#include "proxy/daemon/keeper.h"
#include "proxy/daemon/keys.h"
#include "proxy/daemon/limits.h"
#include "proxy/daemon/listeners.h"
#include "proxy/daemon/logs.h"
#include "upstream/spawn.h"

struct ground {
	const struct conf *conf; /* borrowed */
	struct limits limits;
	struct rlimit given; /* RLIMIT_NOFILE as we were started with it */
	struct spawn_user user_found;
	const struct spawn_user *user; /* the front's; NULL: the master's own */
	const char *worker_user; /* for own pools without `user`, started by root; NULL: none is needed, or there is none */
	bool log_stamps;         /* nobody else puts the time before our lines */
	struct keeper_log outputs[LOGGER_TO_COUNT];
	struct logs logs; /* the master's own lines; a duplicate of outputs[LOGGER_ERROR] */
	int spool_dir;
	char spool_path[PATH_MAX];
	struct listeners listeners;
	struct keys *keys;
	bool wrote_pid_file;
};

/* 0, or -errno after saying in the log what is wrong; then ground_done() is still due. `logs_sink` of `g` is the log's sink from here on. */
MUST_USE int ground_lay(struct ground *g, const struct conf *conf);

/*
 * For `forebay -t`: whom the front and the workers run as, their folders and programs. For root, as who else starts a daemon with workers may
 * not see all that root sees. False: what is wrong stands in the log.
 */
MUST_USE bool ground_check(const struct conf *conf);

/* Opens the logs anew, by SIGUSR1. What cannot be opened stays as it was, and that is logged: false. */
bool ground_reopen_logs(struct ground *g);

void ground_done(struct ground *g);

/* The name of the user that a front started by root runs as, if the configuration does not say it: NULL: there is none. */
const char *ground_default_user(void);

/* The same for workers: somebody who is neither the front nor root. */
const char *ground_default_worker_user(const char *front);

#endif
