#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "conf/conf.h"
#include "core/buf.h"
#include "proxy/daemon/run.h"

static const struct run_place here = { .spool_dir = "/tmp/x/spool", .here = "/srv", .directory = "/srv/app" };
static const struct run_place root = { .spool_dir = "/tmp/x/spool",
	.here = "/srv",
	.directory = "/srv/app",
	.virtualenv = "/venv",
	.color = true,
	.front_user = "fore",
	.worker_user = "work" };

/* The configuration that the words make; the screen ends in NUL. */
static struct conf *composed(const struct run_options *o, const struct run_place *place, struct buf *screen)
{
	struct buf ini, errors;
	struct conf *conf = NULL;
	const char *why = NULL;

	buf_init(&ini, 1 << 14);
	buf_init(screen, 1 << 14);
	buf_init(&errors, 1 << 14);
	if (run_compose(o, place, &ini, screen, &why) != 0)
		fail_msg("%s: %s", o->target, why);
	if (conf_parse("command line", buf_slice(&ini), &errors, &conf) != 0)
		fail_msg("%s: %.*s", o->target, SLICE_ARG(buf_slice(&errors)));
	buf_char(screen, '\0');
	buf_done(&errors);
	buf_done(&ini);
	return conf;
}

static void same(const char *is, const char *shall_be)
{
	if ((is == NULL) != (shall_be == NULL) || (is && strcmp(is, shall_be) != 0))
		fail_msg("%s instead of %s", is ? is : "NULL", shall_be ? shall_be : "NULL");
}

/* What a few words mean is what a file that says so would mean. */
static void a_few_words_make_a_configuration(void **state)
{
	static const struct {
		struct run_options o;
		const struct run_place *place;
		const char *address;
		const char *socket; /* NULL: demo */
		unsigned slots;
		const char *curl;
	} cases[] = {
		{ { .target = "demo" }, &here, "127.0.0.1:8000", NULL, 8, "curl 'http://127.0.0.1:8000/'" },
		{ { .target = "demo", .processes = 3, .threads = 2 }, &root, "127.0.0.1:8000", NULL, 6,
		    "curl 'http://127.0.0.1:8000/'" },
		{ { .target = "demo", .listen = "0.0.0.0:81", .processes = 1, .threads = 1 }, &here, "0.0.0.0:81", NULL, 1,
		    "curl 'http://127.0.0.1:81/'" },
		{ { .target = "demo", .listen = "[::]:81", .processes = 1, .threads = 1 }, &here, "[::]:81", NULL, 1,
		    "curl 'http://[::1]:81/'" },
		{ { .target = "socket:/run/a.sock" }, &here, "127.0.0.1:8000", "/run/a.sock", 1,
		    "curl http://127.0.0.1:8000/" },
		{ { .target = "socket:a.sock", .processes = 4, .threads = 2 }, &root, "127.0.0.1:8000", "/srv/a.sock", 8,
		    "curl http://127.0.0.1:8000/" },
		{ { .target = "socket:/a", .listen = "unix:/run/f" }, &here, "unix:/run/f", "/a", 1,
		    "curl --unix-socket /run/f http://localhost/" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf screen;
		struct conf *conf = composed(&cases[i].o, cases[i].place, &screen);

		if (!strstr(screen.ptr, cases[i].curl))
			fail_msg("row %zu: no \"%s\" in %s", i, cases[i].curl, screen.ptr);
		assert_string_equal(conf->listens[0].addresses[0].text, cases[i].address);
		assert_string_equal(conf->daemon.spool_dir, "/tmp/x/spool");
		assert_int_equal(conf_pool_slots(&conf->pools[0]), cases[i].slots);
		if (cases[i].socket)
			assert_string_equal(conf->pools[0].sockets[0].text, cases[i].socket);
		else
			assert_int_equal(conf->pools[0].app, APP_DEMO);
		if (cases[i].place->front_user)
			assert_string_equal(conf->daemon.user, "fore");
		if (cases[i].place->front_user && !cases[i].socket)
			assert_string_equal(conf->pools[0].user, "work");
		conf_drop(&conf);
		buf_done(&screen);
	}
}

/* One's own application: the words of `app =`, and where it is. */
static void an_application_is_served_from_its_folder(void **state)
{
	static const struct {
		struct run_options o;
		const struct run_place *place;
		unsigned app;
		const char *program, *target, *virtualenv, *said;
		unsigned processes, threads;
	} cases[] = {
		{ { .target = "wsgi:a.b:c" }, &here, APP_WSGI, NULL, "a.b:c", NULL, "1 worker process of 4 threads: 4 requests",
		    1, 4 },
		{ { .target = "wsgi:a", .processes = 3, .threads = 1, .reload = true }, &root, APP_WSGI, NULL, "a", "/venv",
		    "when a .py file there changes", 3, 1 },
		{ { .target = "worker:/x/lines" }, &root, APP_WORKER, "/x/lines", NULL, NULL, "from /srv/app\n", 1, 4 },
		{ { .target = "worker:./lines a b" }, &here, APP_WORKER, "/srv/./lines", "a b", NULL,
		    "serves worker:./lines a b on", 1, 4 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf screen;
		struct conf *conf = composed(&cases[i].o, cases[i].place, &screen);
		const struct conf_pool *pool = &conf->pools[0];

		assert_int_equal(pool->app, cases[i].app);
		same(pool->app_program, cases[i].program);
		same(pool->app_target, cases[i].target);
		same(pool->virtualenv, cases[i].virtualenv);
		same(pool->directory, "/srv/app");
		same(pool->user, cases[i].place->worker_user);
		assert_int_equal(pool->processes, cases[i].processes);
		assert_int_equal(pool->threads, cases[i].threads);
		assert_int_equal(conf->daemon.access_format, cases[i].place->color ? ACCESS_COLOR : ACCESS_SHORT);
		if (!strstr(screen.ptr, cases[i].said))
			fail_msg("row %zu: no \"%s\" in %s", i, cases[i].said, screen.ptr);
		conf_drop(&conf);
		buf_done(&screen);
	}
}

static void an_address_is_taken_as_others_take_it(void **state)
{
	static const struct {
		const char *said, *meant;
	} cases[] = {
		{ NULL, "127.0.0.1:8000" },
		{ "8080", "127.0.0.1:8080" },
		{ ":8080", "0.0.0.0:8080" },
		{ "localhost:8080", "127.0.0.1:8080" },
		{ "[::]:8080", "[::]:8080" },
		{ "unix:/run/f", "unix:/run/f" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct run_options o = { .target = "demo", .listen = cases[i].said };
		struct buf screen;
		struct conf *conf = composed(&o, &here, &screen);

		assert_string_equal(conf->listens[0].addresses[0].text, cases[i].meant);
		conf_drop(&conf);
		buf_done(&screen);
	}
}

static void that_nobody_listens_is_said(void **state)
{
	static const struct run_options o = { .target = "socket:/run/a.sock" };
	struct run_place place = here;

	(void)state;
	for (int nobody = 0; nobody < 2; nobody++) {
		struct buf ini, screen;
		const char *why = NULL;

		buf_init(&ini, 1 << 14);
		buf_init(&screen, 1 << 14);
		place.nobody_there = nobody;
		assert_int_equal(run_compose(&o, &place, &ini, &screen, &why), 0);
		buf_char(&screen, '\0');
		assert_int_equal(strstr(screen.ptr, "nobody listens on /run/a.sock") != NULL, nobody);
		buf_done(&screen);
		buf_done(&ini);
	}
}

static void other_words_are_refused(void **state)
{
	static char long_path[1 << 15];
	static const struct run_options cases[] = {
		{ .target = "dem" },
		{ .target = "" },
		{ .target = "socket:" },
		{ .target = "wsgi" },
		{ .target = "wsgi:a\nuser = root" },
		{ .target = "socket:/a\n[forebay]" },
		{ .target = "demo", .listen = "1.2.3.4:5\nuser = root" },
		{ .target = long_path },
	};

	(void)state;
	memset(long_path, 'a', sizeof(long_path) - 1);
	memcpy(long_path, "socket:/", 8);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf ini, screen;
		const char *why = NULL;

		buf_init(&ini, 1 << 14);
		buf_init(&screen, 1 << 14);
		if (run_compose(&cases[i], &here, &ini, &screen, &why) != -EINVAL || !why)
			fail_msg("row %zu", i);
		buf_done(&screen);
		buf_done(&ini);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_few_words_make_a_configuration),
		cmocka_unit_test(an_application_is_served_from_its_folder),
		cmocka_unit_test(an_address_is_taken_as_others_take_it),
		cmocka_unit_test(that_nobody_listens_is_said),
		cmocka_unit_test(other_words_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
