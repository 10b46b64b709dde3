#include "upstream/worker/worker_main.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/log.h"
#include "upstream/worker/rehearsal.h"

enum { EXIT_BY_HAND = 2 };

static bool is_control_socket(int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET &&
	       fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

/* All of it. The descriptor is not needed any more, and nothing the application starts inherits it. */
static struct started_line *map_started(const struct worker_args *args)
{
	uint64_t slots = ((uint64_t)args->place + 1) * args->setting.threads;
	struct stat st;
	void *page;

	if (fstat(WORKER_FD_STARTED, &st) == -1 || (uint64_t)st.st_size < slots * STARTED_LINE_BYTES)
		return NULL;
	page = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, WORKER_FD_STARTED, 0);
	close(WORKER_FD_STARTED);
	return page == MAP_FAILED ? NULL : page;
}

struct started_line *worker_set_up(
    int argc, char **argv, enum args_role role, const struct worker_app *app, struct worker_args *args)
{
	struct started_line *page;

	*args = (struct worker_args){ 0 };
	(void)prctl(PR_SET_NAME, role == ARGS_ZYGOTE ? "forebay-zygote" : "forebay-worker");
	if (args_are_anothers(argc, argv)) {
		fputs("forebay: this program and the forebay that starts it are of different versions that do not fit.\n",
		    stderr);
		return NULL;
	}
	if (!args_read(argc, argv, args) || args->role != role || strcmp(args->app, app->name) != 0 ||
	    !is_control_socket(WORKER_FD_CONTROL)) {
		fputs("forebay: this is how forebay starts its own workers; it is of no use by hand.\n", stderr);
		return NULL;
	}
	page = map_started(args);
	if (!page)
		log_error("what=\"no started page\"");
	return page;
}

static void tell_unfit(unsigned status)
{
	const struct control_message m = { .type = CONTROL_UNFIT, .value = status };

	(void)!fdpass_send(WORKER_FD_CONTROL, &m, sizeof(m), NULL, 0, 0);
}

/* True if a real request is answered well, or none is asked for. */
static bool is_fit(const struct worker_args *args, const struct worker_app *app, void *app_ctx)
{
	unsigned status = 0;
	int err;

	if (!*args->health_path)
		return true;
	err = rehearse(app, app_ctx, args->health_path, &status);
	if (err)
		log_error("what=\"health_path could not be asked for\" error=%s", strerrorname_np(-err));
	if (!err && status >= 200 && status <= 399)
		return true;
	tell_unfit(status);
	return false;
}

/* Whatever the application has blocked when it was loaded. */
static void hear_signal(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	(void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int worker_life(const struct worker_args *args, const struct worker_app *app, void *app_ctx, struct started_line *page)
{
	const struct runtime_plan plan = {
		.app = app,
		.app_ctx = app_ctx,
		.threads = args->setting.threads,
		.control = WORKER_FD_CONTROL,
		.started = page + (size_t)args->place * args->setting.threads,
		.max_requests = args->max_requests,
		.max_memory = args->max_memory,
	};
	int err;

	if (app->watch_stack) {
		hear_signal(SIGURG);
		app->watch_stack(app_ctx);
	}
	if (!is_fit(args, app, app_ctx))
		_exit(1);
	err = runtime_run(&plan);
	if (err == 0)
		return 0;
	/* Threads may be anywhere in the application. */
	if (err == -ECONNRESET || err == -ETIME)
		_exit(0);
	log_error("what=\"worker could not go on\" error=%s", strerrorname_np(-err));
	_exit(1);
}

void worker_say_not_loaded(int err)
{
	/* Whoever has nothing more to say than that it is no application has shown why. */
	if (err != -ENOEXEC)
		log_error("what=\"the application could not be loaded\" error=%s", strerrorname_np(-err));
}

int worker_main(int argc, char **argv, const struct worker_app *app)
{
	struct worker_args args;
	struct started_line *page = worker_set_up(argc, argv, ARGS_WORKER, app, &args);
	void *app_ctx;
	int status;

	if (!page) {
		args_done(&args);
		return EXIT_BY_HAND;
	}
	status = app->load(&args.setting, &app_ctx);
	if (status == 0) {
		status = worker_life(&args, app, app_ctx, page);
	} else {
		worker_say_not_loaded(status);
		status = 1;
	}
	args_done(&args);
	return status;
}
