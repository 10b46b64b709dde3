#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "conf/conf.h"
#include "core/buf.h"
#include "proxy/daemon/run.h"

static const struct run_place here = { .spool_dir = "/tmp/x/spool", .directory = "/srv" };
static const struct run_place root = {
	.spool_dir = "/tmp/x/spool", .directory = "/srv", .front_user = "fore", .worker_user = "work"
};

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
		{ { "demo", NULL, 0, 0 }, &here, "127.0.0.1:8000", NULL, 8, "curl 'http://127.0.0.1:8000/'" },
		{ { "demo", NULL, 3, 2 }, &root, "127.0.0.1:8000", NULL, 6, "curl 'http://127.0.0.1:8000/'" },
		{ { "demo", "0.0.0.0:81", 1, 1 }, &here, "0.0.0.0:81", NULL, 1, "curl 'http://127.0.0.1:81/'" },
		{ { "demo", "[::]:81", 1, 1 }, &here, "[::]:81", NULL, 1, "curl 'http://[::1]:81/'" },
		{ { "socket:/run/a.sock", NULL, 0, 0 }, &here, "127.0.0.1:8000", "/run/a.sock", 1,
		    "curl http://127.0.0.1:8000/" },
		{ { "socket:a.sock", NULL, 4, 2 }, &root, "127.0.0.1:8000", "/srv/a.sock", 8, "curl http://127.0.0.1:8000/" },
		{ { "socket:/a", "unix:/run/f", 0, 0 }, &here, "unix:/run/f", "/a", 1,
		    "curl --unix-socket /run/f http://localhost/" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf ini, screen, errors;
		struct conf *conf = NULL;
		const char *why = NULL;

		buf_init(&ini, 1 << 14);
		buf_init(&screen, 1 << 14);
		buf_init(&errors, 1 << 14);
		if (run_compose(&cases[i].o, cases[i].place, &ini, &screen, &why) != 0)
			fail_msg("row %zu: %s", i, why);
		if (conf_parse("command line", buf_slice(&ini), &errors, &conf) != 0)
			fail_msg("row %zu: %.*s", i, SLICE_ARG(buf_slice(&errors)));
		buf_char(&screen, '\0');
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
		buf_done(&errors);
		buf_done(&screen);
		buf_done(&ini);
	}
}

static void that_nobody_listens_is_said(void **state)
{
	static const struct run_options o = { "socket:/run/a.sock", NULL, 0, 0 };
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
		{ "dem", NULL, 0, 0 },
		{ "", NULL, 0, 0 },
		{ "socket:", NULL, 0, 0 },
		{ "socket:/a\n[forebay]", NULL, 0, 0 },
		{ "demo", "1.2.3.4:5\nuser = root", 0, 0 },
		{ long_path, NULL, 0, 0 },
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
		cmocka_unit_test(that_nobody_listens_is_said),
		cmocka_unit_test(other_words_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
