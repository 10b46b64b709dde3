/*
 * kit: what include/forebay/worker.h promises to programs that are not forebay's: libforebay-worker.a. Names for strangers in front of our own.
 * Owns:   nothing but which application this process is.
 * Thread: as worker.h has it.
 */
#include "include/forebay/worker.h"

#include <stdio.h>

#include "upstream/worker/worker_main.h"
#include "upstream/worker/zygote.h"

/* A request is the same object on both sides of this file. */
static struct worker_request *ours(struct forebay_request *r)
{
	return (struct worker_request *)r;
}

static const struct worker_request *ours_const(const struct forebay_request *r)
{
	return (const struct worker_request *)r;
}

static struct forebay_text theirs(struct slice s)
{
	return (struct forebay_text){ s.ptr, s.len };
}

/* ---- the process ---- */

/* One process is one application: it is set once, before there are threads. */
static const struct forebay_app *kit_app;

static int kit_load(const struct worker_setting *given, void **ret_ctx)
{
	const struct forebay_setting setting = {
		.target = given->target, .processes = given->processes, .threads = given->threads, .debug = given->debug
	};

	*ret_ctx = NULL;
	return kit_app->load ? kit_app->load(&setting, ret_ctx) : 0;
}

static void kit_serve(void *ctx, struct worker_request *r)
{
	kit_app->serve(ctx, (struct forebay_request *)r);
}

int forebay_worker_main(int argc, char **argv, const struct forebay_app *app)
{
	const struct worker_app adapter = {
		.name = "worker",
		.load = kit_load,
		.serve = kit_serve,
		.says_begun = app->says_begun,
		.unload = app->unload,
		.prepare_thread = app->prepare_thread,
		.leave_thread = app->leave_thread,
		.freeze = app->freeze,
		.before_fork = app->before_fork,
		.after_fork = app->after_fork,
		.unforkable = app->unforkable,
		.watch_stack = app->watch_stack,
	};

	kit_app = app;
	if (argc > 1 && strcmp(argv[1], "worker") == 0)
		return worker_main(argc, argv, &adapter);
	if (argc > 1 && strcmp(argv[1], "zygote") == 0)
		return zygote_main(argc, argv, &adapter);
	fprintf(stderr, "%s: a worker of forebay, which starts it: app = worker:/path/of/this/program\n",
	    argc > 0 ? argv[0] : app->name);
	return 2;
}

/* ---- the request ---- */

void forebay_begin(struct forebay_request *r)
{
	worker_begin(ours(r));
}

struct forebay_text forebay_variable(const struct forebay_request *r, const char *name)
{
	return theirs(worker_get(ours_const(r), name));
}

size_t forebay_variable_count(const struct forebay_request *r)
{
	return worker_variable_count(ours_const(r));
}

void forebay_variable_at(struct forebay_request *r, size_t i, struct forebay_text *ret_name, struct forebay_text *ret_value)
{
	struct slice name, value;

	worker_variable(ours(r), i, &name, &value);
	*ret_name = theirs(name);
	*ret_value = theirs(value);
}

uint64_t forebay_body_bytes(const struct forebay_request *r)
{
	return worker_body_bytes(ours_const(r));
}

struct forebay_text forebay_body_memory(const struct forebay_request *r)
{
	return theirs(worker_body_memory(ours_const(r)));
}

int forebay_body_fd(const struct forebay_request *r)
{
	return worker_body_fd(ours_const(r));
}

ssize_t forebay_body_read(struct forebay_request *r, void *buf, size_t size)
{
	return worker_body_read(ours(r), buf, size);
}

/* ---- the response ---- */

int forebay_status(struct forebay_request *r, unsigned status)
{
	return worker_status(ours(r), status);
}

int forebay_field(struct forebay_request *r, const char *name, const char *value)
{
	return worker_field(ours(r), slice_str(name), slice_str(value));
}

int forebay_field_text(struct forebay_request *r, struct forebay_text name, struct forebay_text value)
{
	return worker_field(ours(r), slice_of(name.ptr, name.len), slice_of(value.ptr, value.len));
}

int forebay_write(struct forebay_request *r, const void *data, size_t len)
{
	return worker_write(ours(r), data, len);
}

int forebay_write_file(struct forebay_request *r, int *fd, uint64_t offset, uint64_t len)
{
	return worker_write_file(ours(r), fd, offset, len);
}

int forebay_flush(struct forebay_request *r)
{
	return worker_flush(ours(r));
}

int forebay_reset(struct forebay_request *r)
{
	return worker_reset(ours(r));
}

void forebay_abort(struct forebay_request *r)
{
	worker_abort(ours(r));
}

bool forebay_client_gone(struct forebay_request *r)
{
	return worker_client_gone(ours(r));
}
