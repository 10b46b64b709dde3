#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "upstream/environment.h"

static char path[64];

/* A file with these bytes. */
static void write_file(const char *bytes, size_t len)
{
	int fd;

	strcpy(path, "/tmp/forebay-test-XXXXXX");
	fd = mkstemp(path);
	assert_int_not_equal(fd, -1);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

static const char *get(const struct environment *e, const char *name)
{
	const char *found = NULL;

	for (size_t i = 0; i < e->count; i++)
		if (strncmp(e->envp[i], name, strlen(name)) == 0 && e->envp[i][strlen(name)] == '=') {
			assert_null(found); /* each once */
			found = e->envp[i] + strlen(name) + 1;
		}
	assert_null(e->envp[e->count]);
	return found;
}

static void who_says_it_last_is_right(void **state)
{
	static char *said[] = { "B=conf", "LC_ALL=de_DE.UTF-8" };
	struct conf_pool conf = { .locale = "C.UTF-8", .environment = said, .environment_count = 2, .environment_file = path };
	struct spawn_user user = { .name = "me", .home = "/home/me" };
	struct environment e;
	char why[ENVIRONMENT_WHY_MAX];
	static const char text[] = "# a comment\n\nA=file\nB=file\r\nC==\"a b\"=\nA=again\nPATH=/file\nD=";

	(void)state;
	assert_int_equal(setenv("SECRET", "x", 1), 0);
	write_file(text, sizeof(text) - 1);
	assert_int_equal(environment_make(&conf, &user, &e, why), 0);
	assert_string_equal(get(&e, "A"), "again");
	assert_string_equal(get(&e, "B"), "conf");
	assert_string_equal(get(&e, "C"), "=\"a b\"=");
	assert_string_equal(get(&e, "D"), "");
	assert_string_equal(get(&e, "PATH"), "/file");
	assert_string_equal(get(&e, "LC_ALL"), "de_DE.UTF-8");
	assert_string_equal(get(&e, "HOME"), "/home/me");
	assert_string_equal(get(&e, "USER"), "me");
	assert_null(get(&e, "SECRET"));
	environment_done(&e);
	assert_int_equal(unlink(path), 0);
}

static void a_virtual_environment_comes_first(void **state)
{
	struct conf_pool conf = { .locale = "C.UTF-8", .virtualenv = "/srv/env" };
	struct environment e;
	char why[ENVIRONMENT_WHY_MAX];

	(void)state;
	assert_int_equal(environment_make(&conf, NULL, &e, why), 0);
	assert_string_equal(get(&e, "VIRTUAL_ENV"), "/srv/env");
	assert_true(slice_starts(slice_str(get(&e, "PATH")), SLICE("/srv/env/bin:/usr/")));
	assert_string_equal(get(&e, "LC_ALL"), "C.UTF-8");
	environment_done(&e);
}

#define LITERAL(s) s, sizeof(s) - 1
static const struct {
	const char *bytes;
	size_t len;
	const char *why;
} bad[] = {
	{ LITERAL("A=b\nnonsense\n"), ":2: this line is not KEY=VALUE" },
	{ LITERAL("=b"), ":1: this line is not KEY=VALUE" },
	{ LITERAL("A B=c"), ":1: this line is not KEY=VALUE" },
	{ LITERAL("export A=b"), ":1: this line is not KEY=VALUE" },
	{ LITERAL("1A=b"), ":1: this line is not KEY=VALUE" },
	{ LITERAL("\n\n A=b"), ":3: this line is not KEY=VALUE" },
	{ LITERAL("A=b\0c"), ":1: this line is not KEY=VALUE" },
};

static void a_bad_line_is_named(void **state)
{
	struct conf_pool conf = { .environment_file = path };
	struct environment e;
	char why[ENVIRONMENT_WHY_MAX], want[ENVIRONMENT_WHY_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		write_file(bad[i].bytes, bad[i].len);
		assert_int_equal(environment_make(&conf, NULL, &e, why), -EINVAL);
		(void)snprintf(want, sizeof(want), "%s%s", path, bad[i].why);
		assert_string_equal(why, want);
		assert_null(e.envp);
		assert_int_equal(unlink(path), 0);
	}
}

static void a_file_that_is_not_there_or_too_large_is_named(void **state)
{
	struct conf_pool conf = { .environment_file = path };
	struct environment e;
	char why[ENVIRONMENT_WHY_MAX];
	char *large = malloc(ENVIRONMENT_FILE_MAX + 1);

	(void)state;
	memset(large, '\n', ENVIRONMENT_FILE_MAX + 1);
	write_file(large, ENVIRONMENT_FILE_MAX);
	assert_int_equal(environment_make(&conf, NULL, &e, why), 0);
	environment_done(&e);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(environment_make(&conf, NULL, &e, why), -ENOENT);
	assert_non_null(strstr(why, "No such file"));
	write_file(large, ENVIRONMENT_FILE_MAX + 1);
	assert_int_equal(environment_make(&conf, NULL, &e, why), -EINVAL);
	assert_non_null(strstr(why, "more than 256K"));
	assert_int_equal(unlink(path), 0);
	free(large);
}

static void who_develops_has_the_shells_environment(void **state)
{
	static char *said[] = { "B=conf" };
	struct conf_pool conf = {
		.inherits = true, .environment = said, .environment_count = 1, .virtualenv = (char *)(uintptr_t) "/venv"
	};
	struct spawn_user user = { .name = "me", .home = "/home/me" };
	struct environment e;
	char why[ENVIRONMENT_WHY_MAX];

	(void)state;
	assert_int_equal(setenv("SHELLS_OWN", "a=b", 1) | setenv("B", "shell", 1) | setenv("PATH", "/venv/bin:/bin", 1), 0);
	assert_int_equal(setenv("NOTIFY_SOCKET", "/run/x", 1) | setenv("LISTEN_FDS", "1", 1), 0);
	assert_int_equal(environment_make(&conf, &user, &e, why), 0);
	assert_string_equal(get(&e, "SHELLS_OWN"), "a=b");
	assert_string_equal(get(&e, "B"), "conf");
	assert_string_equal(get(&e, "PATH"), "/venv/bin:/bin");
	assert_string_equal(get(&e, "VIRTUAL_ENV"), "/venv");
	assert_string_equal(get(&e, "HOME"), "/home/me");
	assert_null(get(&e, "NOTIFY_SOCKET"));
	assert_null(get(&e, "LISTEN_FDS"));
	environment_done(&e);
	assert_int_equal(unsetenv("NOTIFY_SOCKET") | unsetenv("LISTEN_FDS"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_says_it_last_is_right),
		cmocka_unit_test(who_develops_has_the_shells_environment),
		cmocka_unit_test(a_virtual_environment_comes_first),
		cmocka_unit_test(a_bad_line_is_named),
		cmocka_unit_test(a_file_that_is_not_there_or_too_large_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
