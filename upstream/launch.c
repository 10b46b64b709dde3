#include "upstream/launch.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "upstream/program.h"
#include "upstream/worker/control.h"

#define FDS_FIXED      64 /* the runtime's, a language's own, and some for the application */
#define FDS_PER_THREAD 4  /* its slot, a body, a file that it answers with, and one to spare */

/* Whom the processes run as. */
static int choose_user(struct launch *l, const char *default_user)
{
	const char *name = l->conf->user ? l->conf->user : default_user;
	int err;

	if (geteuid() == 0 && !name) {
		log_error("pool=%s what=\"forebay runs as root and the pool has no user\"", l->conf->name);
		return -EPERM;
	}
	if (!name || (geteuid() != 0 && !l->conf->user))
		return 0;
	err = spawn_find_user(name, &l->user);
	if (err) {
		log_error("pool=%s user=%s what=\"no such user\" error=%s", l->conf->name, name, strerrorname_np(-err));
		return err;
	}
	if (geteuid() != 0 && l->user.uid != geteuid()) {
		log_error("pool=%s user=%s what=\"only root can start workers as another user\"", l->conf->name, name);
		return -EPERM;
	}
	l->has_user = geteuid() == 0;
	return 0;
}

static int choose_group(struct launch *l)
{
	struct spawn_user other = l->user;
	int err;

	if (!l->conf->group)
		return 0;
	err = spawn_find_group(l->conf->group, &other);
	if (err) {
		log_error(
		    "pool=%s group=%s what=\"no such group\" error=%s", l->conf->name, l->conf->group, strerrorname_np(-err));
		return err;
	}
	if (!l->has_user && other.gid != getegid()) {
		log_error(
		    "pool=%s group=%s what=\"only root can start workers as another group\"", l->conf->name, l->conf->group);
		return -EPERM;
	}
	l->user = other;
	return 0;
}

static int choose_given_program(struct launch *l)
{
	if (access(l->conf->app_program, X_OK) == -1) {
		log_error("pool=%s program=%s what=\"it is not there, or not to be run\" error=%s", l->conf->name,
		    l->conf->app_program, strerrorname_np(errno));
		return -ENOENT;
	}
	(void)snprintf(l->program, sizeof(l->program), "%s", l->conf->app_program);
	return 0;
}

static int choose_program(struct launch *l)
{
	int err;

	if (l->conf->app == APP_DEMO)
		return 0;
	if (l->conf->app == APP_WORKER)
		return choose_given_program(l);
	if (l->conf->app != APP_WSGI) {
		log_error("pool=%s what=\"this kind of app is not built in\"", l->conf->name);
		return -ENOTSUP;
	}
	err = program_find(PROGRAM_WSGI, l->program, sizeof(l->program));
	if (err)
		log_error(
		    "pool=%s program=%s what=\"it is not there: forebay was built or installed without its WSGI worker\" error=%s",
		    l->conf->name, l->program, strerrorname_np(-err));
	return err;
}

static int check_directory(const struct launch *l)
{
	struct stat st;

	if (!l->conf->directory || (stat(l->conf->directory, &st) == 0 && S_ISDIR(st.st_mode)))
		return 0;
	log_error("pool=%s directory=%s what=\"no such directory\"", l->conf->name, l->conf->directory);
	return -ENOENT;
}

/* Who may not give way less than others cannot start anybody who does: tried here, since no worker could say it as clearly. */
static int check_niceness(const struct launch *l)
{
	int ours = getpriority(PRIO_PROCESS, 0), err;

	if (l->conf->niceness >= 0)
		return 0;
	if (setpriority(PRIO_PROCESS, 0, ours + l->conf->niceness) == -1) {
		err = -errno;
		log_error("pool=%s niceness=%d what=\"below 0 takes CAP_SYS_NICE, or systemd's LimitNICE=\" error=%s",
		    l->conf->name, l->conf->niceness, strerrorname_np(-err));
		return err;
	}
	(void)setpriority(PRIO_PROCESS, 0, ours);
	return 0;
}

int launch_refresh(struct launch *l)
{
	char why[ENVIRONMENT_WHY_MAX], text[ENVIRONMENT_WHY_MAX];
	struct environment fresh;
	int err = environment_make(l->conf, l->has_user ? &l->user : NULL, &fresh, why);

	if (err) {
		log_error("pool=%s what=\"no environment\" why=\"%s\"", l->conf->name,
		    log_escape(slice_str(why), text, sizeof(text)));
		return err;
	}
	environment_done(&l->environment);
	l->environment = fresh;
	return 0;
}

int launch_init(struct launch *l, const struct conf_pool *conf, const char *default_user)
{
	int err;

	*l = (struct launch){ .conf = conf, .started_fd = -1 };
	err = choose_program(l);
	if (!err)
		err = check_directory(l);
	if (!err)
		err = check_niceness(l);
	if (!err)
		err = choose_user(l, default_user);
	if (!err)
		err = choose_group(l);
	return err ? err : launch_refresh(l);
}

void launch_done(struct launch *l)
{
	environment_done(&l->environment);
}

void launch_pipes_close(struct launch_pipes *p)
{
	int *const all[] = { &p->control[0], &p->control[1], &p->output[0], &p->output[1] };

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		if (*all[i] != -1)
			close(*all[i]);
		*all[i] = -1;
	}
}

int launch_pipes_make(struct launch_pipes *p)
{
	int err;

	*p = (struct launch_pipes){ { -1, -1 }, { -1, -1 } };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->control) == -1 || pipe2(p->output, O_CLOEXEC) == -1) {
		err = -errno;
		launch_pipes_close(p);
		return err;
	}
	return 0;
}

static const char *app_name(const struct conf_pool *conf)
{
	return conf->app == APP_WSGI ? "wsgi" : conf->app == APP_WORKER ? "worker" : "demo";
}

/*
 * As many open files as we were given, not as many as the front has made of them: programs that use select() break beyond 1024, and some look at
 * each there might be. But enough for what the runtime itself needs.
 */
static struct rlimit choose_descriptors(const struct launch *l)
{
	struct rlimit r = l->descriptors;

	if (r.rlim_cur > 0)
		r.rlim_cur = MIN(MAX(r.rlim_cur, FDS_FIXED + (rlim_t)FDS_PER_THREAD * l->conf->threads), r.rlim_max);
	return r;
}

static int start(const struct launch *l, const struct args_list *list, const struct launch_pipes *p, pid_t *ret)
{
	const struct conf_pool *conf = l->conf;
	const struct spawn_plan plan = {
		.program = l->program[0] ? l->program : NULL,
		.argv = (const char *const *)list->argv,
		.envp = (const char *const *)l->environment.envp,
		.fds = { -1, p->output[1], p->output[1], p->control[1], l->started_fd },
		.fd_count = WORKER_FD_COUNT,
		.user = l->has_user ? &l->user : NULL,
		.directory = conf->directory,
		.niceness = conf->niceness,
		.has_umask = true,
		.umask = conf->umask,
		.descriptors = choose_descriptors(l),
	};

	return l->spawn ? l->spawn(l->ctx, &plan, ret) : spawn_child(&plan, ret);
}

int launch_process(const struct launch *l, enum args_role role, unsigned place, const struct launch_pipes *p, pid_t *ret)
{
	const struct conf_pool *conf = l->conf;
	const struct worker_args args = {
		.role = role,
		.app = app_name(conf),
		.pool = conf->name,
		.setting = { .target = conf->app_target,
		    .virtualenv = conf->virtualenv,
		    .processes = conf->processes,
		    .threads = conf->threads,
		    .debug = l->debug },
		.place = place,
		.max_requests = conf->max_requests,
		.max_memory = conf->max_memory,
		.health_path = conf->health_path,
		.preload_request = conf->preload_request,
	};
	struct args_list list;
	int err = args_write(&args, &list);

	if (err)
		return err;
	err = start(l, &list, p, ret);
	args_list_done(&list);
	return err;
}
