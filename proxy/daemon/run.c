#include "proxy/daemon/run.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "conf/conf.h"
#include "core/buf.h"
#include "proxy/daemon/ground.h"
#include "proxy/daemon/master.h"

#define TEXT_MAX   (16u << 10)
#define ERRORS_MAX (64u << 10)

#define DEMO_PROCESSES 2
#define DEMO_THREADS   4
#define APP_PROCESSES  1 /* who develops may keep things in memory, and looks for them in one process */
#define APP_THREADS    4

enum exit_status { EXIT_USAGE = 2 };

/* Nothing that could end its line: the rest is conf's to judge. */
static bool is_one_line(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return false;
	return true;
}

static void compose_daemon(const struct run_options *o, const struct run_place *place, struct buf *ini)
{
	buf_printf(ini, "[forebay]\nspool_dir = %s\nlog = stderr\naccess_log = stderr\naccess_format = %s\n", place->spool_dir,
	    place->color ? "color" : "short");
	if (place->front_user)
		buf_printf(ini, "user = %s\n", place->front_user);
	buf_printf(ini, "[listen run]\naddress = %s\n[route *]\npool = run\n[pool run]\n", o->listen);
}

static void compose_who(const struct run_place *place, bool workers, struct buf *screen)
{
	if (!place->front_user)
		return;
	buf_printf(screen, "  started by root: clients are met as user \"%s\"", place->front_user);
	if (workers)
		buf_printf(screen, ", requests are answered as user \"%s\"", place->worker_user);
	buf_add(screen, SLICE("\n"));
}

/* What others' servers take for an address. `text` has the room. */
static const char *whole_address(const char *listen, char *text, size_t size)
{
	static const char localhost[] = "localhost:";
	uint64_t port;

	if (!listen)
		return RUN_LISTEN_DEFAULT;
	if (slice_to_u64(slice_str(listen), &port))
		(void)snprintf(text, size, "127.0.0.1:%s", listen);
	else if (listen[0] == ':')
		(void)snprintf(text, size, "0.0.0.0%s", listen);
	else if (slice_starts(slice_str(listen), SLICE("localhost:")))
		(void)snprintf(text, size, "127.0.0.1:%s", listen + sizeof(localhost) - 1);
	else
		return listen;
	return text;
}

/* A person types the address that a browser takes. */
static const char *address_to_try(const char *listen)
{
	static const struct {
		const char *any, *here;
	} anywhere[] = { { "0.0.0.0:", "127.0.0.1:" }, { "[::]:", "[::1]:" } };
	static const size_t count = ARRAY_LEN(anywhere);

	for (size_t i = 0; i < count; i++)
		if (slice_starts(slice_str(listen), slice_str(anywhere[i].any)))
			return anywhere[i].here;
	return "";
}

static void compose_url(const char *listen, struct buf *url)
{
	struct slice rest = slice_str(listen), path;
	const char *here = address_to_try(listen);

	if (slice_starts(rest, SLICE("unix:"))) {
		path = slice_of(rest.ptr + 5, rest.len - 5);
		buf_printf(url, "--unix-socket %.*s http://localhost", SLICE_ARG(path));
	} else if (*here) {
		buf_printf(url, "http://%s%s", here, strrchr(listen, ':') + 1);
	} else {
		buf_printf(url, "http://%s", listen);
	}
}

static void compose_processes(
    const char *what, const struct run_options *o, unsigned processes, unsigned threads, struct buf *screen)
{
	buf_printf(screen,
	    "\nforebay serves %s on %s\n  with %u worker process%s of %u thread%s: %u request%s at a time, more wait in the queue\n",
	    what, o->listen, processes, processes == 1 ? "" : "es", threads, threads == 1 ? "" : "s", processes * threads,
	    processes * threads == 1 ? "" : "s");
}

static void compose_demo(const struct run_options *o, const struct run_place *place, struct buf *ini, struct buf *screen)
{
	static const struct {
		const char *arguments, *path, *what;
	} tries[] = {
		{ "", "/", "the list of pages" },
		{ "", "/echo?any=thing", "what reached the worker" },
		{ "--data-binary @/bin/sh ", "/upload", "taken in whole before a worker sees it; how much came" },
		{ "-o /dev/null --limit-rate 100K ", "/big?bytes=10000000", "the worker is free long before you have it all" },
		{ "", "/sleep?ms=1000", "holds a worker for a second" },
		{ "", "/crash", "a worker crashes, and is replaced" },
	};
	unsigned processes = o->processes ? o->processes : DEMO_PROCESSES, threads = o->threads ? o->threads : DEMO_THREADS;
	struct buf url;

	buf_printf(ini, "app = demo\nprocesses = %u\nthreads = %u\n", processes, threads);
	if (place->worker_user)
		buf_printf(ini, "user = %s\n", place->worker_user);
	compose_processes("its demo", o, processes, threads, screen);
	compose_who(place, true, screen);
	buf_init(&url, TEXT_MAX);
	compose_url(o->listen, &url);
	buf_add(screen, SLICE("\nTry, in another terminal:\n"));
	for (size_t i = 0; i < ARRAY_LEN(tries); i++)
		buf_printf(screen, "  curl %s'%.*s%s'\n      %s\n", tries[i].arguments, SLICE_ARG(buf_slice(&url)),
		    tries[i].path, tries[i].what);
	buf_done(&url);
}

/* An application of one's own: the words of `app =`, and a program by a path that may begin here. */
static void compose_app(const struct run_options *o, const struct run_place *place, struct buf *ini, struct buf *screen)
{
	static const struct slice program = SLICE_INIT("worker:");
	unsigned processes = o->processes ? o->processes : APP_PROCESSES, threads = o->threads ? o->threads : APP_THREADS;
	bool relative = slice_starts(slice_str(o->target), program) && o->target[program.len] && o->target[program.len] != '/';
	struct buf url;

	if (relative)
		buf_printf(ini, "app = worker:%s/%s\n", place->here, o->target + program.len);
	else
		buf_printf(ini, "app = %s\n", o->target);
	buf_printf(ini, "processes = %u\nthreads = %u\ndirectory = %s\n", processes, threads, place->directory);
	if (place->virtualenv && slice_starts(slice_str(o->target), SLICE("wsgi:")))
		buf_printf(ini, "virtualenv = %s\n", place->virtualenv);
	if (place->worker_user)
		buf_printf(ini, "user = %s\n", place->worker_user);
	compose_processes(o->target, o, processes, threads, screen);
	buf_printf(screen, "  from %s%s\n", place->directory,
	    o->reload ? "; when a .py file there changes, new workers take over" : "");
	if (place->virtualenv && slice_starts(slice_str(o->target), SLICE("wsgi:")))
		buf_printf(screen, "  with the virtual environment %s\n", place->virtualenv);
	buf_add(screen, SLICE("  errors are shown to whoever asks: this is for developing, not for a site\n"));
	compose_who(place, true, screen);
	buf_init(&url, TEXT_MAX);
	compose_url(o->listen, &url);
	buf_printf(screen, "\nTry, in a browser or in another terminal:\n  curl %.*s/\n", SLICE_ARG(buf_slice(&url)));
	buf_done(&url);
}

static int compose_socket(
    const struct run_options *o, const struct run_place *place, struct buf *ini, struct buf *screen, const char **ret_why)
{
	const char *path = strchr(o->target, ':') + 1;
	unsigned slots = MAX(o->processes, 1) * MAX(o->threads, 1);
	bool relative = path[0] != '/';
	struct buf url;

	if (!*path) {
		*ret_why = "socket: is followed by the path of a socket, as in socket:/run/app.sock";
		return -EINVAL;
	}
	buf_printf(ini, "socket = %s%s%s\nslots = %u\n", relative ? place->here : "", relative ? "/" : "", path, slots);
	buf_printf(screen, "\nforebay serves %s on %s\n  with %u request%s at a time, more wait in the queue%s\n", path,
	    o->listen, slots, slots == 1 ? "" : "s",
	    o->processes || o->threads ? "" : " (say what the server can do: --processes N --threads N)");
	compose_who(place, false, screen);
	if (place->nobody_there)
		buf_printf(screen, "  nobody listens on %s yet: requests wait for it, for a while\n", path);
	buf_init(&url, TEXT_MAX);
	compose_url(o->listen, &url);
	buf_printf(screen, "\nTry, in another terminal:\n  curl %.*s/\n", SLICE_ARG(buf_slice(&url)));
	buf_done(&url);
	return 0;
}

int run_compose(
    const struct run_options *given, const struct run_place *place, struct buf *ini, struct buf *screen, const char **ret_why)
{
	struct run_options o = *given;
	char address[256];
	int err = 0;

	o.listen = whole_address(o.listen, address, sizeof(address));
	if (!is_one_line(o.target) || !is_one_line(o.listen) || !is_one_line(place->here) || !is_one_line(place->directory)) {
		*ret_why = "there is a control character in it";
		return -EINVAL;
	}
	compose_daemon(&o, place, ini);
	if (strcmp(o.target, "demo") == 0) {
		compose_demo(&o, place, ini, screen);
	} else if (slice_starts(slice_str(o.target), SLICE("socket:"))) {
		err = compose_socket(&o, place, ini, screen, ret_why);
	} else if (slice_starts(slice_str(o.target), SLICE("wsgi:")) || slice_starts(slice_str(o.target), SLICE("worker:"))) {
		compose_app(&o, place, ini, screen);
	} else {
		*ret_why = "the target is wsgi:MODULE, wsgi:MODULE:CALLABLE, worker:PROGRAM, demo or socket:/path/of/a/socket";
		err = -EINVAL;
	}
	if (!err && (ini->failed || screen->failed)) {
		*ret_why = "it is too long";
		err = -EINVAL;
	}
	buf_add(screen, SLICE("\nCtrl-C ends it. Each request is a line below.\n\n"));
	return err;
}

static int serve(const struct run_options *o, const struct run_place *place)
{
	struct buf ini, screen, errors;
	struct master_options m = { 0 };
	const char *why = NULL;
	int status = EXIT_USAGE;

	buf_init(&ini, TEXT_MAX);
	buf_init(&screen, TEXT_MAX);
	buf_init(&errors, ERRORS_MAX);
	if (run_compose(o, place, &ini, &screen, &why) != 0) {
		fprintf(stderr, "forebay run: %s: %s\n", o->target, why);
	} else if (conf_parse("command line", buf_slice(&ini), &errors, &m.conf) != 0) {
		fwrite(errors.ptr, 1, errors.len, stderr);
	} else {
		buf_char(&screen, '\0');
		m.screen = screen.failed ? NULL : screen.ptr;
		m.reload = o->reload ? place->directory : NULL;
		m.conf->pools[0].inherits = true;
		status = master_run(&m);
	}
	conf_drop(&m.conf);
	buf_done(&errors);
	buf_done(&screen);
	buf_done(&ini);
	return status;
}

/* Standard error, where the log goes. https://no-color.org */
static bool is_for_eyes(void)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(STDERR_FILENO) && !(no_color && *no_color) && !(term && strcmp(term, "dumb") == 0);
}

/* That of the shell. */
static const char *virtualenv(void)
{
	const char *path = getenv("VIRTUAL_ENV");

	return path && path[0] == '/' && is_one_line(path) ? path : NULL;
}

/* Worth a line on the screen, no more: the server may come later. */
static bool nobody_listens(const char *target)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	bool nobody;
	int fd;

	if (strncmp(target, "socket:", 7) != 0 || strlen(target + 7) >= sizeof(at.sun_path))
		return false;
	memcpy(at.sun_path, target + 7, strlen(target + 7));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return false;
	nobody = connect(fd, (const struct sockaddr *)&at, sizeof(at)) == -1 && (errno == ENOENT || errno == ECONNREFUSED);
	close(fd);
	return nobody;
}

static int find_users(struct run_place *place)
{
	if (geteuid() != 0)
		return 0;
	place->front_user = ground_default_user();
	place->worker_user = place->front_user ? ground_default_worker_user(place->front_user) : NULL;
	return place->worker_user ? 0 : -ENOENT;
}

/* The files in it have no names, so there is nothing but the directory to remove. */
static int make_spool(char *parent, size_t size, char *spool, size_t spool_size)
{
	const char *tmp = getenv("TMPDIR");
	int n = snprintf(parent, size, "%s/forebay-XXXXXX", tmp && tmp[0] == '/' ? tmp : "/tmp");

	if (n < 0 || (size_t)n >= size)
		return -ENAMETOOLONG;
	if (!mkdtemp(parent))
		return -errno;
	n = snprintf(spool, spool_size, "%s/spool", parent);
	return n < 0 || (size_t)n >= spool_size ? -ENAMETOOLONG : 0;
}

int run_main(const struct run_options *o)
{
	char parent[PATH_MAX / 2], spool[PATH_MAX / 2], here[PATH_MAX], directory[PATH_MAX];
	struct run_place place = { .spool_dir = spool, .here = here, .directory = directory, .color = is_for_eyes() };
	int status, err;

	if (!getcwd(here, sizeof(here)))
		snprintf(here, sizeof(here), "/");
	if (!realpath(o->directory ? o->directory : here, directory)) {
		fprintf(stderr, "forebay run: %s: %s\n", o->directory ? o->directory : here, strerror(errno));
		return EXIT_FAILURE;
	}
	place.virtualenv = virtualenv();
	if (find_users(&place) != 0) {
		fputs(
		    "forebay run: started by root, and two of the users forebay, nobody, www-data and daemon are not there to run as\n",
		    stderr);
		return EXIT_FAILURE;
	}
	place.nobody_there = nobody_listens(o->target);
	err = make_spool(parent, sizeof(parent), spool, sizeof(spool));
	if (err) {
		fprintf(stderr, "forebay run: %s: %s\n", parent, strerror(-err));
		return EXIT_FAILURE;
	}
	status = serve(o, &place);
	(void)rmdir(spool);
	(void)rmdir(parent);
	return status;
}
