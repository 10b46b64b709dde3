/* A host that tells what it was told: the order of its callbacks, in the answer. Built by test_worker_kit.py against the installed kit. */
#include <forebay/worker.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct host {
	pid_t loaded_by;
	pthread_mutex_t lock; /* of told: threads are prepared at once */
	char told[1024];
};

static void tell(struct host *h, const char *what)
{
	size_t len;

	pthread_mutex_lock(&h->lock);
	len = strlen(h->told);
	snprintf(h->told + len, sizeof(h->told) - len, "%s\n", what);
	pthread_mutex_unlock(&h->lock);
}

static int load(const struct forebay_setting *s, void **ret_ctx)
{
	struct host *h = calloc(1, sizeof(*h));
	char text[200];

	if (!h || strcmp(s->target, "fail") == 0) {
		free(h);
		return -2; /* ENOENT */
	}
	h->loaded_by = getpid();
	pthread_mutex_init(&h->lock, NULL);
	snprintf(text, sizeof(text), "load target=%s processes=%u threads=%u debug=%d", s->target, s->processes, s->threads,
	    s->debug);
	tell(h, text);
	*ret_ctx = h;
	return 0;
}

/* The first who takes the mark away dies, before or behind the moment at which the request has begun. */
static void die_once(struct forebay_request *r, const char *path)
{
	struct forebay_text at = forebay_variable(r, "PATH_INFO"), mark = forebay_variable(r, "HTTP_X_MARK");
	char name[4096];

	if (at.len != strlen(path) || memcmp(at.ptr, path, at.len) != 0)
		return;
	snprintf(name, sizeof(name), "%.*s", (int)mark.len, mark.ptr);
	if (unlink(name) == 0)
		kill(getpid(), SIGKILL);
}

static void serve(void *ctx, struct forebay_request *r)
{
	struct host *h = ctx;

	die_once(r, "/before");
	forebay_begin(r);
	die_once(r, "/behind");
	forebay_status(r, 200);
	if (forebay_variable(r, "QUERY_STRING").len > 0) {
		forebay_write(r, "first thought", 13);
		forebay_reset(r);
		forebay_status(r, 202);
	}
	pthread_mutex_lock(&h->lock);
	forebay_write(r, h->told, strlen(h->told));
	pthread_mutex_unlock(&h->lock);
	forebay_write(r, h->loaded_by == getpid() ? "here\n" : "forked\n", h->loaded_by == getpid() ? 5 : 7);
}

static void prepare_thread(void *ctx)
{
	tell(ctx, "prepare_thread");
}

static void freeze(void *ctx)
{
	tell(ctx, "freeze");
}

static void before_fork(void *ctx)
{
	tell(ctx, "before_fork");
}

static void after_fork(void *ctx, bool child)
{
	tell(ctx, child ? "after_fork child" : "after_fork parent");
}

static void unload(void *ctx)
{
	struct host *h = ctx;

	pthread_mutex_destroy(&h->lock);
	free(h);
}

static char *unforkable(void *ctx)
{
	return strstr(((struct host *)ctx)->told, "target=threads") ? strdup("a thread of its own") : NULL;
}

int main(int argc, char **argv)
{
	static const struct forebay_app app = { .name = "host",
		.load = load,
		.serve = serve,
		.unload = unload,
		.says_begun = true,
		.prepare_thread = prepare_thread,
		.freeze = freeze,
		.before_fork = before_fork,
		.after_fork = after_fork,
		.unforkable = unforkable };

	return forebay_worker_main(argc, argv, &app);
}
