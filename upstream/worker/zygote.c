#include "upstream/worker/zygote.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/log.h"
#include "upstream/worker/rehearsal.h"
#include "upstream/worker/unforkable.h"
#include "upstream/worker/worker_main.h"

#define ADOPTED_LOOKS   50000 /* until a worker is the master's child: ten seconds, far more than an exit takes */
#define ADOPTED_LOOK_NS 200000

enum { EXIT_BY_HAND = 2 };

struct zygote {
	const struct worker_app *app;
	void *app_ctx;
	struct worker_args args;
	struct started_line *page;
	pid_t master;
	int argc;
	char **argv;
};

/* Of a SPAWN. */
enum { FD_CONTROL, FD_OUTPUT, SPAWN_FDS };

static bool say(const struct zygote_message *m)
{
	return fdpass_send(WORKER_FD_CONTROL, m, sizeof(*m), NULL, 0, 0) == (ssize_t)sizeof(*m);
}

/* Loading. */

static void rehearse_once(const struct zygote *z)
{
	unsigned status = 0;
	int err;

	if (!*z->args.preload_request)
		return;
	err = rehearse(z->app, z->app_ctx, z->args.preload_request, &status);
	if (err)
		log_warning("what=\"preload_request failed\" error=%s", strerrorname_np(-err));
	else if (status < 200 || status > 399)
		log_warning("what=\"preload_request was not answered well\" status=%u", status);
}

/* False: nothing can be forked, or there is no master any more. */
static bool get_ready(const struct zygote *z)
{
	struct zygote_message m = { .type = ZYGOTE_UNFORKABLE };

	rehearse_once(z);
	if (unforkable_find(z->app, z->app_ctx, WORKER_FD_CONTROL, m.text, sizeof(m.text))) {
		(void)say(&m);
		return false;
	}
	if (z->app->freeze)
		z->app->freeze(z->app_ctx);
	m = (struct zygote_message){ .type = ZYGOTE_READY };
	return say(&m);
}

/* Forking. */

/* What was between us and the master ends now. True: we are its child. */
static bool wait_for_adoption(pid_t between, pid_t master)
{
	const struct timespec pause = { .tv_nsec = ADOPTED_LOOK_NS };

	for (int i = 0; i < ADOPTED_LOOKS && getppid() == between; i++)
		(void)nanosleep(&pause, NULL);
	/* Set last, then looked at: a master that ended before is not told of. */
	return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == master;
}

/* In place of the zygote's own. */
static bool take_descriptors(const int fds[SPAWN_FDS])
{
	return dup2(fds[FD_OUTPUT], STDOUT_FILENO) != -1 && dup2(fds[FD_OUTPUT], STDERR_FILENO) != -1 &&
	       dup3(fds[FD_CONTROL], WORKER_FD_CONTROL, O_CLOEXEC) != -1 && close(fds[FD_OUTPUT]) == 0 &&
	       close(fds[FD_CONTROL]) == 0;
}

static bool announce(void)
{
	const struct control_message m = { .type = CONTROL_HERE };

	return fdpass_send(WORKER_FD_CONTROL, &m, sizeof(m), NULL, 0, 0) == (ssize_t)sizeof(m);
}

/* The whole life of a worker. */
static _Noreturn void be_worker(struct zygote *z, unsigned place, const int fds[SPAWN_FDS], pid_t between)
{
	struct worker_args args = z->args;
	char title[ARGS_TITLE_MAX];

	/* What it says goes to its own output, also what goes wrong here. */
	if (!take_descriptors(fds) || setpgid(0, 0) == -1 || !wait_for_adoption(between, z->master)) {
		log_error("what=\"worker could not be set up\" error=%s", strerrorname_np(errno));
		_exit(1);
	}
	args.role = ARGS_WORKER;
	args.place = place;
	args_title(&args, title);
	args_retitle(z->argc, z->argv, title);
	(void)prctl(PR_SET_NAME, "forebay-worker");
	if (!announce())
		_exit(0); /* nobody there to hear it */
	if (z->app->after_fork)
		z->app->after_fork(z->app_ctx, true);
	exit(worker_life(&args, z->app, z->app_ctx, z->page));
}

static void could_not_fork(unsigned place, int err)
{
	const struct zygote_message m = { .type = ZYGOTE_NO_FORK, .place = place, .error = (uint32_t)err };

	(void)say(&m);
}

/* The child of the zygote, which has nothing to do but to have a child and to end. Its exit status is an errno. */
static _Noreturn void be_between(struct zygote *z, unsigned place, const int fds[SPAWN_FDS])
{
	pid_t between = getpid(), pid = fork();

	if (pid == 0)
		be_worker(z, place, fds, between);
	_exit(pid == -1 ? errno : 0);
}

static void spawn(struct zygote *z, unsigned place, const int fds[SPAWN_FDS])
{
	int status = 0, err = 0;
	pid_t pid;

	/* What stands in a buffer would be written by both. */
	(void)fflush(NULL);
	if (z->app->before_fork)
		z->app->before_fork(z->app_ctx);
	pid = fork();
	if (pid == 0)
		be_between(z, place, fds);
	err = pid == -1 ? errno : 0;
	while (pid != -1 && waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	if (z->app->after_fork)
		z->app->after_fork(z->app_ctx, false);
	if (!err && status != 0)
		err = WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
	if (err)
		could_not_fork(place, err);
}

/* 0, or -errno: it is over. */
static int take_message(struct zygote *z)
{
	struct zygote_message m;
	int fds[SPAWN_FDS];
	size_t fd_count;
	ssize_t n = fdpass_recv(WORKER_FD_CONTROL, &m, sizeof(m), fds, SPAWN_FDS, &fd_count, 0);
	bool right = n == (ssize_t)sizeof(m) && m.type == ZYGOTE_SPAWN && fd_count == SPAWN_FDS;

	if (n <= 0)
		return -ECONNRESET;
	if (right)
		spawn(z, m.place, fds);
	for (size_t i = 0; i < fd_count; i++)
		close(fds[i]);
	return right ? 0 : -EPROTO;
}

int zygote_main(int argc, char **argv, const struct worker_app *app)
{
	struct zygote z = { .app = app, .argc = argc, .argv = argv, .master = getppid() };
	int err;

	z.page = worker_set_up(argc, argv, ARGS_ZYGOTE, app, &z.args);
	if (!z.page) {
		args_done(&z.args);
		return EXIT_BY_HAND;
	}
	err = app->load(&z.args.setting, &z.app_ctx);
	if (err) {
		worker_say_not_loaded(err);
		args_done(&z.args);
		return 1;
	}
	if (get_ready(&z))
		while (take_message(&z) == 0)
			;
	/* What the application would do at its end is its workers' business. */
	_exit(0);
}
