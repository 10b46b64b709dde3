#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proxy/daemon/notify.h"

#define SELF 77

static int listen_at(struct sockaddr_un *at, socklen_t len)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)at, len), 0);
	return fd;
}

static void a_word_comes_to_an_abstract_socket_too(void **state)
{
	char name[64], heard[64] = { 0 };
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct notify n;
	int n_bytes = snprintf(name, sizeof(name), "@forebay-test-%ld", (long)getpid()), fd;

	(void)state;
	memcpy(at.sun_path + 1, name + 1, (size_t)n_bytes - 1);
	fd = listen_at(&at, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n_bytes));
	notify_init(&n, name, NULL, NULL, SELF);
	notify_send(&n, "READY=%d", 1);
	assert_int_equal(recv(fd, heard, sizeof(heard), 0), 7);
	assert_string_equal(heard, "READY=1");
	notify_done(&n);
	close(fd);
}

/* The manager reads nothing: what its queue does not take is lost, and nobody waits. */
static void nobody_waits_for_the_manager(void **state)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct notify n;
	int fd;

	(void)state;
	snprintf(at.sun_path, sizeof(at.sun_path), "/tmp/forebay-test-%ld", (long)getpid());
	fd = listen_at(&at, sizeof(at));
	notify_init(&n, at.sun_path, NULL, NULL, SELF);
	for (unsigned i = 0; i < 10000; i++)
		notify_send(&n, "STATUS=%u", i);
	notify_done(&n);
	close(fd);
	unlink(at.sun_path);
}

static void what_is_not_understood_counts_as_not_said(void **state)
{
	static char too_long[200];
	static const struct {
		const char *path, *usec, *pid;
		bool told;
		uint64_t watchdog_us;
	} cases[] = {
		{ NULL, "1000000", NULL, false, 0 },
		{ "/run/x", NULL, NULL, true, 0 },
		{ "/run/x", "1000000", NULL, true, 1000000 },
		{ "/run/x", "1000000", "77", true, 1000000 },
		{ "/run/x", "1000000", "78", true, 0 }, /* somebody else is watched */
		{ "/run/x", "1000000", "x", true, 0 },
		{ "/run/x", "-1", NULL, true, 0 },
		{ "relative", "1", NULL, false, 0 },
		{ "@", "1", NULL, false, 0 },
		{ "", "1", NULL, false, 0 },
		{ too_long, "1", NULL, false, 0 },
	};

	(void)state;
	memset(too_long, '/', sizeof(too_long) - 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct notify n;

		notify_init(&n, cases[i].path, cases[i].usec, cases[i].pid, SELF);
		if ((n.fd != -1) != cases[i].told || n.watchdog_us != cases[i].watchdog_us)
			fail_msg("row %zu: %d %lu", i, n.fd, (unsigned long)n.watchdog_us);
		notify_send(&n, "READY=1");
		notify_done(&n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_word_comes_to_an_abstract_socket_too),
		cmocka_unit_test(nobody_waits_for_the_manager),
		cmocka_unit_test(what_is_not_understood_counts_as_not_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
