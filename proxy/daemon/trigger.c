#include "proxy/daemon/trigger.h"

#include <event2/event_struct.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/log.h"
#include "proxy/daemon/keywatch.h"

struct trigger {
	const char *path;
	void (*pulled)(void *ctx);
	void *ctx;
	struct keywatch *watch;
	struct event quiet;
	bool was_there;
	struct stat was;
};

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void on_quiet(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct trigger *t = ctx;
	struct stat now;
	bool changed;

	if (stat(t->path, &now) == -1)
		return; /* it will come again */
	changed = !t->was_there || !same(&now, &t->was);
	t->was = now;
	t->was_there = true;
	if (changed)
		t->pulled(t->ctx);
}

static int watch(struct trigger *t)
{
	return keywatch_set(t->watch, &t->path, 1);
}

static void on_changed(void *ctx)
{
	static const struct timeval quiet = { 0, TRIGGER_QUIET_MS * 1000 };
	struct trigger *t = ctx;
	int err = watch(t); /* the path may lead elsewhere */

	if (err)
		log_error("event=watch_lost file=%s error=\"%s\"", t->path, strerrordesc_np(-err));
	(void)event_add(&t->quiet, &quiet);
}

int trigger_new(struct event_base *base, const char *path, void (*pulled)(void *ctx), void *ctx, struct trigger **ret)
{
	struct trigger *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	*t = (struct trigger){ .path = path, .pulled = pulled, .ctx = ctx };
	err = event_assign(&t->quiet, base, -1, 0, on_quiet, t) ? -ENOMEM : keywatch_new(base, on_changed, t, &t->watch);
	if (!err)
		err = watch(t);
	t->was_there = stat(path, &t->was) == 0;
	if (err)
		trigger_free(&t);
	else
		*ret = t;
	return err;
}

void trigger_free(struct trigger **pt)
{
	struct trigger *t = *pt;

	*pt = NULL;
	if (!t)
		return;
	if (event_initialized(&t->quiet))
		event_del(&t->quiet);
	keywatch_free(&t->watch);
	free(t);
}
