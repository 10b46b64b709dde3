#include "upstream/spawn.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PASSWD_BYTES      (16u << 10)
#define EXIT_NOT_SET_UP   126
#define ABOVE_ALL_TARGETS 64 /* where descriptors wait before they are put in place */

int spawn_find_user(const char *name, struct spawn_user *ret)
{
	char text[PASSWD_BYTES];
	struct passwd entry, *found;
	int err = getpwnam_r(name, &entry, text, sizeof(text), &found);
	int count = SPAWN_GROUPS_MAX;

	if (err || !found)
		return err && err != ENOENT && err != ESRCH ? -err : -ENOENT;
	if (strlen(entry.pw_name) >= sizeof(ret->name) || strlen(entry.pw_dir) >= sizeof(ret->home))
		return -E2BIG;
	*ret = (struct spawn_user){ .uid = entry.pw_uid, .gid = entry.pw_gid };
	strcpy(ret->name, entry.pw_name);
	strcpy(ret->home, entry.pw_dir);
	if (getgrouplist(name, entry.pw_gid, ret->groups, &count) == -1)
		return -E2BIG;
	ret->group_count = (size_t)count;
	return 0;
}

int spawn_find_group(const char *name, struct spawn_user *user)
{
	char text[PASSWD_BYTES];
	struct group entry, *found;
	int err = getgrnam_r(name, &entry, text, sizeof(text), &found);

	if (err || !found)
		return err && err != ENOENT && err != ESRCH ? -err : -ENOENT;
	user->gid = entry.gr_gid;
	return 0;
}

static int put_fds(const struct spawn_plan *plan)
{
	int moved[SPAWN_FDS_MAX];

	for (size_t i = 0; i < plan->fd_count; i++) {
		int from = plan->fds[i] == -1 ? open("/dev/null", O_RDWR | O_CLOEXEC) : plan->fds[i];

		moved[i] = fcntl(from, F_DUPFD_CLOEXEC, ABOVE_ALL_TARGETS);
		if (moved[i] == -1)
			return -errno;
	}
	for (size_t i = 0; i < plan->fd_count; i++)
		if (dup2(moved[i], (int)i) == -1)
			return -errno;
	return close_range((unsigned)plan->fd_count, ~0u, 0) == -1 ? -errno : 0;
}

static void reset_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		(void)signal(sig, SIG_DFL); /* fails for those that cannot be changed */
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int become(const struct spawn_user *user)
{
	if (setgroups(user->group_count, user->groups) == -1 || setresgid(user->gid, user->gid, user->gid) == -1 ||
	    setresuid(user->uid, user->uid, user->uid) == -1)
		return -errno;
	/* There is no way back, or it is no change. */
	return user->uid != 0 && setuid(0) == 0 ? -EPERM : 0;
}

/* The step that failed, with errno; NULL: all is done. */
static const char *set_up(const struct spawn_plan *plan, pid_t parent)
{
	int err = put_fds(plan);

	errno = -err;
	if (err)
		return "descriptors";
	reset_signals();
	if (setpgid(0, 0) == -1)
		return "process group";
	/* A master that may bind low ports does not hand that on. An old kernel without ambient capabilities has none to clear. */
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	errno = 0;
	if (plan->niceness != 0 && nice(plan->niceness) == -1 && errno)
		return "niceness";
	if (plan->descriptors.rlim_cur > 0 && setrlimit(RLIMIT_NOFILE, &plan->descriptors) == -1)
		return "limit of open files";
	if (plan->has_umask)
		(void)umask(plan->umask);
	err = plan->user ? become(plan->user) : 0;
	errno = -err;
	if (err)
		return "user";
	if (chdir(plan->directory ? plan->directory : "/") == -1)
		return "directory";
	/* Last: a change of user clears it. The parent may have ended before. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1)
		return "parent death signal";
	if (getppid() != parent)
		_exit(EXIT_NOT_SET_UP);
	return NULL;
}

/* A folder may be there for whoever looks, and not for the user that the process has become. */
static void say_not_set_up(const struct spawn_plan *plan, const char *step)
{
	bool place = strcmp(step, "directory") == 0 && plan->directory;

	(void)dprintf(STDERR_FILENO, "forebay: this process could not be set up: %s%s%s: %s%s%s\n", step, place ? " " : "",
	    place ? plan->directory : "", strerror(errno), plan->user ? ", as user " : "", plan->user ? plan->user->name : "");
}

static _Noreturn void child(const struct spawn_plan *plan, pid_t parent)
{
	const char *step = set_up(plan, parent);

	if (!step) {
		step = plan->program ? plan->program : "/proc/self/exe";
		execve(step, (char *const *)(uintptr_t)plan->argv, (char *const *)(uintptr_t)plan->envp);
	}
	say_not_set_up(plan, step);
	_exit(EXIT_NOT_SET_UP);
}

int spawn_child(const struct spawn_plan *plan, pid_t *ret)
{
	pid_t parent = getpid(), pid;

	assert(plan->fd_count >= 3 && plan->fd_count <= SPAWN_FDS_MAX);
	pid = fork();
	if (pid == -1)
		return -errno;
	if (pid == 0)
		child(plan, parent);
	*ret = pid;
	return 0;
}
