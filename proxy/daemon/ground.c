#include "proxy/daemon/ground.h"

#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "proxy/daemon/spooldir.h"
#include "upstream/launch.h"

#define ERRORS_MAX (64u << 10)

const char *ground_default_user(void)
{
	static const char *const names[] = { "forebay", "nobody" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (getpwnam(names[i]))
			return names[i];
	return NULL;
}

/* -1: there is none. */
static uid_t uid_of(const char *name)
{
	const struct passwd *p = getpwnam(name);

	return p ? p->pw_uid : (uid_t)-1;
}

const char *ground_default_worker_user(const char *front)
{
	static const char *const names[] = { "www-data", "daemon", "nobody" };
	const uid_t front_uid = uid_of(front);

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const uid_t uid = uid_of(names[i]);

		if (uid != (uid_t)-1 && uid != 0 && uid != front_uid)
			return names[i];
	}
	return NULL;
}

/* ---- whom the front and the workers run as ---- */

/* Not as root we cannot become another: then the front runs as we do. */
static int stay_who_we_are(const struct conf *conf)
{
	const struct passwd *p = conf->daemon.user ? getpwnam(conf->daemon.user) : NULL;

	if (conf->daemon.user && !p)
		log_warning("forebay.user: there is no user \"%s\"; not started by root, forebay runs as uid %u",
		    conf->daemon.user, (unsigned)geteuid());
	else if (p && p->pw_uid != geteuid())
		log_warning("forebay.user: not started by root, forebay cannot become \"%s\" and runs as uid %u",
		    conf->daemon.user, (unsigned)geteuid());
	return 0;
}

/* A worker could look into a front of the same user. */
static int check_pool_user(const struct ground *g, const struct conf_pool *p)
{
	if (!p->user && p->app == APP_DEMO && g->worker_user) {
		log_info("[pool %s] user is not set: its workers run as \"%s\"", p->name, g->worker_user);
	} else if (!p->user) {
		log_error(
		    "[pool %s] user: forebay was started by root: say which user the workers shall run as, an unprivileged one "
		    "that is not the front's (\"%s\")",
		    p->name, g->user_found.name);
		return -EINVAL;
	} else if (uid_of(p->user) == (uid_t)-1) {
		log_error("[pool %s] user: \"%s\": there is no such user", p->name, p->user);
		return -ENOENT;
	} else if (uid_of(p->user) == g->user->uid) {
		log_error("[pool %s] user: \"%s\" is the front's user; workers need another one", p->name, p->user);
		return -EINVAL;
	}
	return 0;
}

static int check_pool_users(struct ground *g, const char *front)
{
	int last = 0;

	g->worker_user = ground_default_worker_user(front);
	for (size_t i = 0; i < g->conf->pool_count; i++) {
		int err = g->conf->pools[i].app == APP_NONE ? 0 : check_pool_user(g, &g->conf->pools[i]);

		last = err ? err : last;
	}
	return last;
}

static int find_user(struct ground *g)
{
	const char *name = g->conf->daemon.user;
	int err;

	if (geteuid() != 0)
		return stay_who_we_are(g->conf);
	if (!name)
		name = ground_default_user();
	if (!name) {
		log_error("forebay.user: say which unprivileged user the front shall run as");
		return -EINVAL;
	}
	err = spawn_find_user(name, &g->user_found);
	if (err) {
		log_error("forebay.user: user \"%s\": %s", name, err == -ENOENT ? "there is none" : strerror(-err));
		return err;
	}
	if (g->user_found.uid == 0) {
		log_error("forebay.user: \"%s\" is root; the front runs as an unprivileged user only", name);
		return -EINVAL;
	}
	g->user = &g->user_found;
	if (!g->conf->daemon.user)
		log_info("forebay.user is not set: the front runs as \"%s\"", name);
	return check_pool_users(g, name);
}

bool ground_check(const struct conf *conf)
{
	struct ground g = { .conf = conf };
	bool ok = geteuid() != 0 || find_user(&g) == 0;

	for (size_t i = 0; geteuid() == 0 && i < conf->pool_count; i++) {
		struct launch l;

		if (conf->pools[i].app == APP_NONE)
			continue;
		if (launch_init(&l, &conf->pools[i], g.worker_user) == 0)
			launch_done(&l);
		else
			ok = false;
	}
	return ok;
}

/* ---- limits ---- */

static int find_limits(struct ground *g)
{
	struct limits_have have;
	int err;

	if (getrlimit(RLIMIT_NOFILE, &g->given) == -1)
		g->given.rlim_cur = 0;
	limits_look(&have);
	err = limits_compute(&have, g->conf, &g->limits);
	if (err) {
		log_error("too few open files are allowed: %" PRIu64 ", and %" PRIu64
		          " are the least for this configuration (ulimit -n, LimitNOFILE=)",
		    have.descriptors, g->limits.descriptors);
		return err;
	}
	if (g->limits.connections_refused)
		log_warning("forebay.connections: %" PRIu64 " cannot be had with %" PRIu64 " open files and %" PRIu64
		            " MB of memory: it is %u",
		    g->limits.connections_refused, g->limits.descriptors, g->limits.memory_bytes >> 20, g->limits.connections);
	return 0;
}

/* ---- logs ---- */

static const char *log_target(const struct conf *conf, enum logger_to to)
{
	return to == LOGGER_ERROR ? conf->daemon.log : conf->daemon.access_log;
}

static int open_log(struct ground *g, enum logger_to to)
{
	static const char *const names[] = { [LOGGER_ERROR] = "log", [LOGGER_ACCESS] = "access_log" };
	struct keeper_log opened;
	int err = logs_open(log_target(g->conf, to), &opened.kind, &opened.fd);

	if (err) {
		log_error("forebay.%s: %s: %s", names[to], log_target(g->conf, to), strerror(-err));
		return err;
	}
	if (g->outputs[to].fd != -1)
		close(g->outputs[to].fd);
	g->outputs[to] = opened;
	return 0;
}

/* The master writes to a descriptor of its own, so that either can be closed. */
static void use_log(struct ground *g)
{
	int fd = fcntl(g->outputs[LOGGER_ERROR].fd, F_DUPFD_CLOEXEC, 3);

	if (fd != -1)
		logs_set(&g->logs, g->outputs[LOGGER_ERROR].kind, &fd);
}

/* Syslog and the journal have a time of their own for each line. */
static bool wants_stamps(const struct ground *g)
{
	bool to_stderr = strcmp(log_target(g->conf, LOGGER_ERROR), "stderr") == 0;

	return g->outputs[LOGGER_ERROR].kind == LOGGER_FILE && !(to_stderr && getenv("JOURNAL_STREAM"));
}

static int open_logs(struct ground *g)
{
	int err = open_log(g, LOGGER_ERROR), err2 = open_log(g, LOGGER_ACCESS);

	return err ? err : err2;
}

bool ground_reopen_logs(struct ground *g)
{
	int err = open_logs(g); /* each has said what it could not do, and is as it was */

	use_log(g);
	return !err;
}

/* ---- the rest ---- */

static int open_spool(struct ground *g)
{
	const char *path = g->conf->daemon.spool_dir;
	int err = spooldir_open(path, g->user, &g->spool_dir, g->spool_path, sizeof(g->spool_path));

	if (err)
		log_error("forebay.spool_dir: %s: %s", g->spool_path, strerror(-err));
	else if (strcmp(path, g->spool_path) != 0)
		log_warning("forebay.spool_dir: %s cannot be used: the spool is in %s", path, g->spool_path);
	return err;
}

static void log_lines(enum log_level level, struct slice text)
{
	struct slice line;

	while (slice_cut(&text, '\n', &line))
		log_line(level, "%.*s", SLICE_ARG(line));
}

static int bind_listeners(struct ground *g)
{
	struct inherited in;
	struct buf errors;
	int err = inherited_take(&in);

	if (err) {
		log_error("LISTEN_PID, LISTEN_FDS: %s", strerror(-err));
		return err;
	}
	buf_init(&errors, ERRORS_MAX);
	err = listeners_bind(g->conf, g->limits.threads, &in, &errors, &g->listeners);
	log_lines(LOG_LEVEL_ERROR, buf_slice(&errors));
	if (err && errors.len == 0)
		log_error("listeners: %s", strerror(-err));
	buf_done(&errors);
	inherited_done(&in);
	return err;
}

static int read_keys(struct ground *g)
{
	struct buf errors, warnings;
	int err;

	buf_init(&errors, ERRORS_MAX);
	buf_init(&warnings, ERRORS_MAX);
	err = keys_new(g->conf, &clock_real, &errors, &warnings, &g->keys);
	log_lines(LOG_LEVEL_WARNING, buf_slice(&warnings));
	log_lines(LOG_LEVEL_ERROR, buf_slice(&errors));
	if (err && errors.len == 0)
		log_error("certificates and keys: %s", strerror(-err));
	buf_done(&errors);
	buf_done(&warnings);
	return err;
}

static int write_pid_file(struct ground *g)
{
	const char *path = g->conf->daemon.pid_file;
	int fd, err = 0;

	if (!path)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd == -1)
		err = -errno;
	g->wrote_pid_file = fd != -1;
	if (!err && dprintf(fd, "%ld\n", (long)getpid()) < 0)
		err = -EIO;
	if (fd != -1)
		close(fd);
	if (err)
		log_error("forebay.pid_file: %s: %s", path, strerror(-err));
	return err;
}

/* In this order: the limit on descriptors before they are opened; nothing is written before the addresses are known to be ours. */
int ground_lay(struct ground *g, const struct conf *conf)
{
	static int (*const steps[])(
	    struct ground *) = { find_user, find_limits, read_keys, bind_listeners, open_logs, open_spool, write_pid_file };
	int err = 0;

	*g = (struct ground){ .conf = conf, .spool_dir = -1, .logs.fd = -1, .logs.kind = LOGGER_FILE };
	for (size_t i = 0; i < LOGGER_TO_COUNT; i++)
		g->outputs[i].fd = -1;
	log_setup("master", (enum log_level)conf->daemon.log_level, logs_sink, &g->logs);
	for (size_t i = 0; !err && i < ARRAY_LEN(steps); i++)
		err = steps[i](g);
	/* Until here all that went wrong was told where forebay was started. */
	if (err)
		return err;
	use_log(g);
	g->log_stamps = wants_stamps(g);
	log_stamps(g->log_stamps);
	return 0;
}

void ground_done(struct ground *g)
{
	listeners_done(&g->listeners);
	keys_free(&g->keys);
	if (g->spool_dir != -1)
		close(g->spool_dir);
	if (g->wrote_pid_file)
		(void)unlink(g->conf->daemon.pid_file);
	for (size_t i = 0; i < LOGGER_TO_COUNT; i++)
		if (g->outputs[i].fd != -1)
			close(g->outputs[i].fd);
	log_setup("master", (enum log_level)g->conf->daemon.log_level, NULL, NULL);
	logs_done(&g->logs);
}
