#include "proxy/daemon/keywatch.h"

#include <event2/event_struct.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/slice.h"

#define LINKS_MAX 40 /* the kernel's */
#define EVENTS                                                                                                                 \
	(IN_CREATE | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF |    \
	    IN_ONLYDIR)
#define OF_THE_FOLDER (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED | IN_Q_OVERFLOW)

/* A name in a folder on the way to a file. */
struct step {
	int wd;
	char *name;
};

struct keywatch {
	struct event_base *base;
	void (*changed)(void *ctx);
	void *ctx;
	int fd; /* -1: none */
	struct event ev;
	struct step *steps;
	size_t count, size;
};

static void forget_all(struct keywatch *w)
{
	if (event_initialized(&w->ev))
		event_del(&w->ev);
	if (w->fd != -1)
		close(w->fd);
	w->fd = -1;
	for (size_t i = 0; i < w->count; i++)
		free(w->steps[i].name);
	w->count = 0;
}

static bool has_step(const struct keywatch *w, int wd, struct slice name)
{
	for (size_t i = 0; i < w->count; i++)
		if (w->steps[i].wd == wd && slice_eq(slice_str(w->steps[i].name), name))
			return true;
	return false;
}

static bool concerns_us(const struct keywatch *w, const struct inotify_event *e)
{
	return (e->mask & OF_THE_FOLDER) || (e->len > 0 && has_step(w, e->wd, slice_str(e->name)));
}

static void on_events(evutil_socket_t fd, short what UNUSED, void *ctx)
{
	struct keywatch *w = ctx;
	_Alignas(struct inotify_event) char bytes[16384];
	bool any = false;
	ssize_t n;

	while ((n = read(fd, bytes, sizeof(bytes))) > 0)
		for (const char *p = bytes; p < bytes + n;) {
			const struct inotify_event *e = (const void *)p;

			any = any || concerns_us(w, e);
			p += sizeof(*e) + e->len;
		}
	if (any)
		w->changed(w->ctx);
}

static int watch(struct keywatch *w, const char *folder, struct slice name)
{
	int wd = inotify_add_watch(w->fd, folder, EVENTS);

	/* It has gone this moment, or is not ours to look into: whatever is above it is watched. */
	if (wd == -1)
		return errno == ENOSPC || errno == ENOMEM ? -errno : 0;
	if (has_step(w, wd, name))
		return 0;
	if (w->count == w->size) {
		size_t size = w->size ? w->size * 2 : 16;
		struct step *more = reallocarray(w->steps, size, sizeof(*more));

		if (!more)
			return -ENOMEM;
		w->steps = more;
		w->size = size;
	}
	w->steps[w->count] = (struct step){ .wd = wd, .name = slice_dup(name) };
	return w->steps[w->count].name ? (w->count++, 0) : -ENOMEM;
}

/* A walk along a path. `folder` has no links in it, so that its parent is what stands before the last "/". */
struct walk {
	struct keywatch *w;
	char folder[PATH_MAX];
	char rest[PATH_MAX];
	unsigned links;
};

/* Cuts the first name off the rest; false at its end. */
static bool next_name(struct walk *k, char name[NAME_MAX + 1])
{
	size_t from = strspn(k->rest, "/"), len = strcspn(k->rest + from, "/");

	if (len == 0 || len > NAME_MAX)
		return false;
	memcpy(name, k->rest + from, len);
	name[len] = '\0';
	memmove(k->rest, k->rest + from + len, strlen(k->rest + from + len) + 1);
	return true;
}

static bool is_last(const struct walk *k)
{
	return k->rest[strspn(k->rest, "/")] == '\0';
}

static bool join(const char *folder, const char *name, char ret[PATH_MAX])
{
	return (size_t)snprintf(ret, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
}

static void go_up(struct walk *k)
{
	char *last = strrchr(k->folder, '/');

	if (last)
		*last = '\0';
}

/* The link's target takes its place. False: it is none, or too long. */
static bool follow(struct walk *k, const char *path)
{
	char target[PATH_MAX], all[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n <= 0 || ++k->links > LINKS_MAX)
		return false;
	target[n] = '\0';
	if (!join(target, k->rest, all))
		return false;
	if (target[0] == '/')
		k->folder[0] = '\0';
	memcpy(k->rest, all, sizeof(k->rest));
	return true;
}

/* 1: further. */
static int step(struct walk *k, const char *name)
{
	char path[PATH_MAX];
	struct stat st;
	bool there;
	int err = 0;

	if (strcmp(name, ".") == 0)
		return 1;
	if (strcmp(name, "..") == 0) {
		go_up(k);
		return 1;
	}
	if (!join(k->folder, name, path))
		return 0;
	there = lstat(path, &st) == 0;
	/* Each place where another file can come in: links, the file itself, and where something is missing. */
	if (!there || S_ISLNK(st.st_mode) || is_last(k))
		err = watch(k->w, k->folder[0] ? k->folder : "/", slice_str(name));
	if (err || !there)
		return err;
	if (S_ISLNK(st.st_mode))
		return follow(k, path);
	memcpy(k->folder, path, sizeof(path));
	return 1;
}

static int watch_path(struct keywatch *w, const char *path)
{
	struct walk k = { .w = w };
	char name[NAME_MAX + 1];
	int more = 1;

	if (strlen(path) >= sizeof(k.rest))
		return 0;
	memcpy(k.rest, path, strlen(path) + 1);
	while (more == 1 && next_name(&k, name))
		more = step(&k, name);
	return more < 0 ? more : 0;
}

int keywatch_set(struct keywatch *w, const char *const *paths, size_t count)
{
	int err = 0;

	forget_all(w);
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->fd == -1)
		return -errno;
	if (event_assign(&w->ev, w->base, w->fd, EV_READ | EV_PERSIST, on_events, w) || event_add(&w->ev, NULL))
		err = -ENOMEM;
	for (size_t i = 0; i < count && !err; i++)
		err = watch_path(w, paths[i]);
	if (err)
		forget_all(w);
	return err;
}

int keywatch_new(struct event_base *base, void (*changed)(void *ctx), void *ctx, struct keywatch **ret)
{
	struct keywatch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = (struct keywatch){ .base = base, .changed = changed, .ctx = ctx, .fd = -1 };
	*ret = w;
	return 0;
}

void keywatch_free(struct keywatch **pw)
{
	struct keywatch *w = *pw;

	*pw = NULL;
	if (!w)
		return;
	forget_all(w);
	free(w->steps);
	free(w);
}
