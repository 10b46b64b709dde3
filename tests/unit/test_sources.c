#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "proxy/daemon/sources.h"

static struct event_base *base;
static struct sources *sources;
static char root[PATH_MAX], changed[PATH_MAX], said[4096];
static unsigned calls;

static void on_changed(void *ctx UNUSED, const char *path)
{
	calls++;
	(void)snprintf(changed, sizeof(changed), "%s", path);
}

static void log_here(void *ctx UNUSED, enum log_level level UNUSED, struct slice line)
{
	size_t len = strlen(said);

	(void)snprintf(said + len, sizeof(said) - len, "%.*s", SLICE_ARG(line));
}

static char *at(const char *path)
{
	static char full[PATH_MAX + 300];

	(void)snprintf(full, sizeof(full), "%s/%s", root, path);
	return full;
}

static void make_folder(const char *path)
{
	assert_int_equal(mkdir(at(path), 0700), 0);
}

static void write_file(const char *path)
{
	int fd = open(at(path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	assert_true(fd >= 0 && write(fd, "x", 1) == 1);
	close(fd);
}

static void move(const char *from, const char *to)
{
	char old[PATH_MAX + 300];

	strcpy(old, at(from));
	assert_int_equal(rename(old, at(to)), 0);
}

static void begin(void)
{
	assert_int_equal(sources_new(base, &clock_real, root, on_changed, NULL, &sources), 0);
}

/* A change that is seen for certain, behind all that came before: the first one told of is what is asked about. */
static void expect(const char *path)
{
	calls = 0;
	changed[0] = '\0';
	write_file("last.py");
	while (calls == 0)
		assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
	assert_string_equal(changed, path);
	assert_int_equal(calls, 1);
}

static int set_up(void **state UNUSED)
{
	strcpy(root, "/tmp/forebay-sources-XXXXXX");
	said[0] = '\0';
	base = event_base_new();
	return base && mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state UNUSED)
{
	char *const argv[] = { (char *)(uintptr_t) "rm", (char *)(uintptr_t) "-rf", root, NULL };
	pid_t pid;
	int status;

	sources_free(&sources);
	event_base_free(base);
	pid = fork();
	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(1);
	}
	return waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -1;
}

static void what_is_python_is_seen_wherever_it_lies(void **state UNUSED)
{
	make_folder("a");
	make_folder("a/b");
	write_file("a/b/old.py");
	begin();
	assert_int_equal(sources_count(sources), 3);
	write_file("text.txt");
	expect("last.py");
	write_file("a/b/new.py");
	expect("a/b/new.py");
	write_file("a/b/old.py");
	expect("a/b/old.py");
	assert_int_equal(unlink(at("a/b/old.py")), 0);
	expect("a/b/old.py");
	move("text.txt", "a/c.py"); /* as editors save */
	expect("a/c.py");
	move("a/c.py", "text.txt");
	expect("a/c.py");
}

static void folders_that_come_are_watched_and_those_that_go_are_not(void **state UNUSED)
{
	char outside[PATH_MAX + 8];

	begin();
	make_folder("new");
	make_folder("new/er");
	write_file("new/er/x.py"); /* perhaps before its folder is watched */
	expect("new/er/x.py");
	write_file("new/er/y.py");
	expect("new/er/y.py");
	assert_int_equal(sources_count(sources), 3);
	move("new", "other");
	expect("new");
	write_file("other/er/y.py");
	expect("other/er/y.py");
	assert_int_equal(sources_count(sources), 3);
	assert_int_equal(unlink(at("other/er/y.py")), 0);
	expect("other/er/y.py");
	(void)snprintf(outside, sizeof(outside), "%s.out", root);
	assert_int_equal(rename(at("other"), outside), 0);
	expect("other");
	assert_int_equal(sources_count(sources), 1);
	assert_int_equal(rename(outside, at("back")), 0);
	expect("back/er/x.py");
	assert_int_equal(unlink(at("back/er/x.py")) | rmdir(at("back/er")) | rmdir(at("back")), 0);
	expect("back/er/x.py");
	assert_int_equal(sources_count(sources), 1);
}

static void what_nobody_edits_is_left_out(void **state UNUSED)
{
	static const char *const out[] = { ".git", "__pycache__", "node_modules", "site-packages", "venv" };
	char path[64];

	for (size_t i = 0; i < ARRAY_LEN(out); i++)
		make_folder(out[i]);
	write_file("venv/pyvenv.cfg");
	make_folder("venv/lib");
	begin();
	assert_int_equal(sources_count(sources), 1);
	for (size_t i = 0; i < ARRAY_LEN(out); i++) {
		(void)snprintf(path, sizeof(path), "%s/x.py", out[i]);
		write_file(path);
	}
	write_file(".#lock.py"); /* an editor's */
	write_file("py");
	write_file(".py");
	expect("last.py");
	/* What is made a virtual environment while it is watched. */
	make_folder("later");
	make_folder("later/lib");
	expect("last.py");
	assert_int_equal(sources_count(sources), 3);
	write_file("later/pyvenv.cfg");
	expect("last.py");
	assert_int_equal(sources_count(sources), 1);
	write_file("later/lib/x.py");
	expect("last.py");
}

static void links_are_not_followed(void **state UNUSED)
{
	assert_int_equal(symlink(".", at("loop")), 0);
	assert_int_equal(symlink("/", at("all")), 0);
	begin();
	assert_int_equal(sources_count(sources), 1);
}

static void there_are_only_so_many_watches(void **state UNUSED)
{
	char path[64];

	for (int i = 0; i < SOURCES_FOLDERS_MAX; i++) {
		(void)snprintf(path, sizeof(path), "d%d", i);
		make_folder(path);
	}
	begin();
	assert_int_equal(sources_count(sources), SOURCES_FOLDERS_MAX);
	assert_non_null(strstr(said, "too many folders"));
	said[0] = '\0';
	make_folder("more");
	write_file("x.py");
	expect("x.py");
	assert_string_equal(said, ""); /* it was said */
}

static void there_is_only_so_much_depth(void **state UNUSED)
{
	char path[4 * SOURCES_DEPTH_MAX] = "";

	for (int i = 0; i <= SOURCES_DEPTH_MAX; i++) {
		strcat(path, i ? "/d" : "d");
		make_folder(path);
	}
	begin();
	assert_int_equal(sources_count(sources), SOURCES_DEPTH_MAX + 1);
	assert_non_null(strstr(said, "too deep"));
}

static void a_folder_that_is_not_there_is_an_error(void **state UNUSED)
{
	assert_int_equal(sources_new(base, &clock_real, at("none"), on_changed, NULL, &sources), -ENOENT);
	write_file("file");
	assert_int_equal(sources_new(base, &clock_real, at("file"), on_changed, NULL, &sources), -ENOENT);
	assert_null(sources);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_python_is_seen_wherever_it_lies, set_up, tear_down),
		cmocka_unit_test_setup_teardown(folders_that_come_are_watched_and_those_that_go_are_not, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_nobody_edits_is_left_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(links_are_not_followed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(there_are_only_so_many_watches, set_up, tear_down),
		cmocka_unit_test_setup_teardown(there_is_only_so_much_depth, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_folder_that_is_not_there_is_an_error, set_up, tear_down),
	};

	alarm(120); /* a hang is a failure */
	log_setup("test", LOG_LEVEL_INFO, log_here, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
