#include "proxy/daemon/sources.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"

#define VENV_MARK "pyvenv.cfg"
#define MASK      (IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_ONLYDIR | IN_DONT_FOLLOW)

struct folder {
	int wd;
	char *path; /* below the root, with a slash behind it; "" is the root */
};

struct sources {
	char root[PATH_MAX]; /* with a slash behind it */
	int fd;
	const struct clock *clock;
	struct event *readable, *quiet;
	struct folder *folders;
	size_t count;
	bool incomplete; /* said */
	sources_changed *changed;
	void *ctx;
	char first[PATH_MAX]; /* what changed since the last call; "": nothing */
	uint64_t first_ms;
};

static bool is_python(const char *name)
{
	size_t len = strlen(name);

	return len > 3 && strcmp(name + len - 3, ".py") == 0;
}

static bool is_left_out(const char *name)
{
	static const char *const names[] = { "__pycache__", "node_modules", "site-packages" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return name[0] == '.';
}

static void say_incomplete(struct sources *s, const char *path, const char *why)
{
	char text[1024];

	if (s->incomplete)
		return;
	s->incomplete = true;
	log_warning("event=reload_incomplete folder=\"%s\" what=\"changes there, and in others, are not seen: %s\"",
	    log_escape(slice_str(*path ? path : s->root), text, sizeof(text)), why);
}

/* Silence decides that it is over; or the time that it has taken. */
static void note_change(struct sources *s, const char *folder, const char *name)
{
	const struct timeval quiet = { 0, SOURCES_QUIET_MS * 1000 };
	uint64_t now_ms = clock_mono_ms(s->clock);

	if (!*s->first) {
		(void)snprintf(s->first, sizeof(s->first), "%s%s", folder, name);
		s->first_ms = now_ms;
	}
	if (now_ms - s->first_ms < SOURCES_MOST_MS - SOURCES_QUIET_MS || !event_pending(s->quiet, EV_TIMEOUT, NULL))
		(void)event_add(s->quiet, &quiet);
}

static struct folder *find(struct sources *s, int wd)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->folders[i].wd == wd)
			return &s->folders[i];
	return NULL;
}

static void forget(struct sources *s, struct folder *f)
{
	struct folder *last = &s->folders[--s->count];

	free(f->path);
	*f = *last;
	last->path = NULL;
}

/* A folder and all in it; `path` as in struct folder. */
static void leave(struct sources *s, const char *path)
{
	size_t len = strlen(path);

	for (size_t i = 0; i < s->count;) {
		if (strncmp(s->folders[i].path, path, len) != 0) {
			i++;
			continue;
		}
		(void)inotify_rm_watch(s->fd, s->folders[i].wd);
		forget(s, &s->folders[i]);
	}
}

/* Takes path (malloc'ed). A folder may have its watch already. */
static void remember(struct sources *s, int wd, char *path)
{
	struct folder *f = find(s, wd);

	if (!f) {
		f = &s->folders[s->count++];
		f->wd = wd;
	} else {
		free(f->path);
	}
	f->path = path;
}

/* The watch of one folder. `full` has the root before it. False: it is not watched. */
static bool watch(struct sources *s, const char *full)
{
	const char *below = full + strlen(s->root);
	char *path = strdup(below);
	int wd;

	if (!path)
		return false;
	if (s->count == SOURCES_FOLDERS_MAX) {
		say_incomplete(s, below, "there are too many folders");
		free(path);
		return false;
	}
	wd = inotify_add_watch(s->fd, full, MASK);
	if (wd == -1) {
		if (errno == ENOSPC)
			say_incomplete(s, below, "the system gives no more watches (fs.inotify.max_user_watches)");
		else if (errno != ENOENT && errno != ENOTDIR)
			say_incomplete(s, below, strerror(errno));
		free(path);
		return false;
	}
	remember(s, wd, path);
	return true;
}

static bool is_folder(int dir, const struct dirent *e)
{
	struct stat st;

	if (e->d_type != DT_UNKNOWN)
		return e->d_type == DT_DIR;
	return fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* `full` ends in a slash, in room for PATH_MAX bytes, and is as it was again. */
static bool is_virtualenv(char *full, size_t len)
{
	bool is;

	memcpy(full + len, VENV_MARK, sizeof(VENV_MARK));
	is = access(full, F_OK) == 0;
	full[len] = '\0';
	return is;
}

static void walk(struct sources *s, char *full, unsigned depth, bool fresh);

static void walk_entry(struct sources *s, char *full, unsigned depth, bool fresh, int dir, const struct dirent *e)
{
	size_t len = strlen(full), name_len = strlen(e->d_name);

	if (is_left_out(e->d_name) || len + name_len + 2 > PATH_MAX)
		return;
	if (fresh && is_python(e->d_name))
		note_change(s, full + strlen(s->root), e->d_name);
	if (!is_folder(dir, e))
		return;
	memcpy(full + len, e->d_name, name_len);
	memcpy(full + len + name_len, "/", 2);
	walk(s, full, depth + 1, fresh);
	full[len] = '\0';
}

/* A folder and all in it; `full` as above. `fresh`: what it holds is a change. */
static void walk(struct sources *s, char *full, unsigned depth, bool fresh) /* NOLINT(misc-no-recursion): SOURCES_DEPTH_MAX */
{
	size_t len = strlen(full);
	const struct dirent *e;
	DIR *dir;

	if (depth > SOURCES_DEPTH_MAX || len + sizeof(VENV_MARK) > PATH_MAX) {
		say_incomplete(s, full + strlen(s->root), "it lies too deep");
		return;
	}
	if (depth > 0 && is_virtualenv(full, len))
		return;
	/* The watch first: what comes while we look is seen twice, not never. */
	dir = watch(s, full) ? opendir(full) : NULL;
	while (dir && (e = readdir(dir)))
		walk_entry(s, full, depth, fresh, dirfd(dir), e);
	if (dir)
		closedir(dir);
}

static unsigned depth_of(const char *path)
{
	unsigned n = 0;

	for (; *path; path++)
		n += *path == '/';
	return n;
}

static void take_folder(struct sources *s, const char *parent, const char *name)
{
	char full[PATH_MAX];
	int n;

	if (is_left_out(name))
		return;
	n = snprintf(full, sizeof(full), "%s%s%s/", s->root, parent, name);
	if (n > 0 && (size_t)n < sizeof(full))
		walk(s, full, depth_of(parent) + 1, true);
}

/* Nobody knows what was missed. */
static void take_overflow(struct sources *s)
{
	char full[PATH_MAX];

	strcpy(full, s->root);
	walk(s, full, 0, false);
	note_change(s, "", "(many)");
}

/* A folder came or went in `parent`. */
static void take_folder_event(struct sources *s, const char *parent, const struct inotify_event *e)
{
	char path[PATH_MAX + NAME_MAX + 2];

	if (e->mask & (IN_CREATE | IN_MOVED_TO)) {
		take_folder(s, parent, e->name);
	} else if (e->mask & IN_MOVED_FROM && !is_left_out(e->name)) {
		(void)snprintf(path, sizeof(path), "%s%s/", parent, e->name);
		note_change(s, parent, e->name);
		leave(s, path);
	}
}

static void take_file_event(struct sources *s, const char *parent, const struct inotify_event *e)
{
	/* What was created is written to, or has come by a link; then it is closed. */
	if (strcmp(e->name, VENV_MARK) == 0 && *parent)
		leave(s, parent);
	else if (is_python(e->name) && !is_left_out(e->name) && !(e->mask & IN_CREATE))
		note_change(s, parent, e->name);
}

static void take(struct sources *s, const struct inotify_event *e)
{
	struct folder *f = find(s, e->wd);
	char parent[PATH_MAX];

	if (e->mask & IN_Q_OVERFLOW)
		take_overflow(s);
	if (!f)
		return;
	if (e->mask & IN_IGNORED) {
		forget(s, f);
		return;
	}
	(void)snprintf(parent, sizeof(parent), "%s", f->path); /* which may go meanwhile */
	if (e->mask & IN_ISDIR)
		take_folder_event(s, parent, e);
	else if (e->len > 0)
		take_file_event(s, parent, e);
}

static void on_readable(evutil_socket_t fd, short what UNUSED, void *ctx)
{
	_Alignas(struct inotify_event) char bytes[16384];
	struct sources *s = ctx;
	ssize_t n = read(fd, bytes, sizeof(bytes));

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *e = (const struct inotify_event *)(const void *)(bytes + at);

		take(s, e);
		at += (ssize_t)(sizeof(*e) + e->len);
	}
}

static void on_quiet(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct sources *s = ctx;
	char path[PATH_MAX];

	strcpy(path, s->first);
	s->first[0] = '\0';
	s->changed(s->ctx, path);
}

static int begin(struct sources *s, struct event_base *base, const char *folder)
{
	char full[PATH_MAX];
	int n = snprintf(s->root, sizeof(s->root), "%s%s", folder, folder[strlen(folder) - 1] == '/' ? "" : "/");

	if (n < 0 || (size_t)n >= sizeof(s->root))
		return -ENAMETOOLONG;
	s->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (s->fd == -1)
		return -errno;
	s->folders = calloc(SOURCES_FOLDERS_MAX, sizeof(*s->folders));
	s->readable = event_new(base, s->fd, EV_READ | EV_PERSIST, on_readable, s);
	s->quiet = event_new(base, -1, 0, on_quiet, s);
	if (!s->folders || !s->readable || !s->quiet || event_add(s->readable, NULL) == -1)
		return -ENOMEM;
	strcpy(full, s->root);
	walk(s, full, 0, false);
	return s->count > 0 ? 0 : -ENOENT;
}

int sources_new(struct event_base *base, const struct clock *clock, const char *folder, sources_changed *changed, void *ctx,
    struct sources **ret)
{
	struct sources *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->fd = -1;
	s->clock = clock;
	s->changed = changed;
	s->ctx = ctx;
	err = begin(s, base, folder);
	if (err) {
		sources_free(&s);
		return err;
	}
	*ret = s;
	return 0;
}

void sources_free(struct sources **sources)
{
	struct sources *s = *sources;

	*sources = NULL;
	if (!s)
		return;
	if (s->readable)
		event_free(s->readable);
	if (s->quiet)
		event_free(s->quiet);
	if (s->fd != -1)
		close(s->fd);
	while (s->count > 0)
		forget(s, &s->folders[0]);
	free(s->folders);
	free(s);
}

size_t sources_count(const struct sources *s)
{
	return s->count;
}
