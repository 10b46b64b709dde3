#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"
#include "proxy/daemon/inherited.h"
#include "proxy/daemon/listeners.h"

#define THREADS 3

/* One [listen] of one address, and what came of binding it. */
struct fixture {
	struct conf conf;
	struct conf_listen listen;
	struct conf_address address;
	struct inherited in;
	struct buf errors;
	struct listeners got;
	char dir[32];
};

static void fixture_init(struct fixture *f)
{
	*f = (struct fixture){ .dir = "/tmp/test_listeners-XXXXXX" };
	assert_non_null(mkdtemp(f->dir));
	f->listen = (struct conf_listen){ .name = (char *)"main", .addresses = &f->address, .address_count = 1, .backlog = 64 };
	f->conf = (struct conf){ .listens = &f->listen, .listen_count = 1 };
	buf_init(&f->errors, 4096);
}

static void fixture_done(struct fixture *f)
{
	listeners_done(&f->got);
	inherited_done(&f->in);
	buf_done(&f->errors);
	rmdir(f->dir);
}

static int bind_all(struct fixture *f)
{
	int err;

	buf_clear(&f->errors);
	err = listeners_bind(&f->conf, THREADS, &f->in, &f->errors, &f->got);
	buf_char(&f->errors, '\0');
	return err;
}

static void use_unix(struct fixture *f, const char *name)
{
	f->address.text = (char *)"unix:it";
	f->address.addr.un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(f->address.addr.un.sun_path, sizeof(f->address.addr.un.sun_path), "%s/%s", f->dir, name);
	f->address.len = sizeof(f->address.addr.un);
}

/* A loopback port that the kernel finds free. */
static int use_tcp(struct fixture *f, bool share_port)
{
	socklen_t len = sizeof(f->address.addr.in4);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	assert_true(fd >= 0);
	f->address.text = (char *)"tcp";
	f->address.addr.in4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	f->address.len = len;
	if (share_port)
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, &f->address.addr.any, len), 0);
	assert_int_equal(getsockname(fd, &f->address.addr.any, &len), 0);
	return fd;
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

static ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static bool is_there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static void each_thread_has_a_tcp_socket_of_its_own(void **state)
{
	struct fixture f;

	(void)state;
	fixture_init(&f);
	close(use_tcp(&f, false));
	assert_int_equal(bind_all(&f), 0);
	assert_int_equal(f.got.count, THREADS);
	for (size_t i = 0; i < f.got.count; i++) {
		int fd = f.got.all[i].fd;

		assert_int_equal(f.got.all[i].thread, i);
		assert_int_equal(option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
		assert_int_equal(option(fd, SOL_SOCKET, SO_REUSEPORT), 1);
		assert_int_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
		assert_int_equal(option(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP), LISTENERS_WINDOW_BYTES);
		assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		for (size_t k = 0; k < i; k++)
			assert_int_not_equal(inode(fd), inode(f.got.all[k].fd));
	}
	fixture_done(&f);
}

/* Another program of ours with SO_REUSEPORT would share the port without a word. */
static void an_address_in_use_is_an_error(void **state)
{
	struct fixture f;

	(void)state;
	for (int share_port = 0; share_port < 2; share_port++) {
		int other;

		fixture_init(&f);
		other = use_tcp(&f, share_port);
		assert_int_equal(listen(other, 1), 0);
		assert_int_equal(bind_all(&f), -EADDRINUSE);
		assert_non_null(strstr(f.errors.ptr, "[listen main] tcp: bind"));
		assert_int_equal(f.got.count, 0);
		close(other);
		fixture_done(&f);
	}
}

static void an_address_of_another_machine_is_an_error(void **state)
{
	struct fixture f;

	(void)state;
	fixture_init(&f);
	close(use_tcp(&f, false));
	f.address.addr.in4.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1 */
	assert_int_equal(bind_all(&f), -EADDRNOTAVAIL);
	fixture_done(&f);
}

static void a_unix_socket_is_shared_and_its_file_goes_with_it(void **state)
{
	struct fixture f;
	struct stat st;
	char path[sizeof(f.address.addr.un.sun_path)];

	(void)state;
	fixture_init(&f);
	use_unix(&f, "s");
	strcpy(path, f.address.addr.un.sun_path);
	assert_int_equal(bind_all(&f), 0);
	assert_int_equal(f.got.count, THREADS);
	assert_int_equal(inode(f.got.all[0].fd), inode(f.got.all[THREADS - 1].fd));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	listeners_done(&f.got);
	assert_false(is_there(path));
	fixture_done(&f);
}

static void a_file_that_somebody_else_put_there_stays(void **state)
{
	struct fixture f;

	(void)state;
	fixture_init(&f);
	use_unix(&f, "s");
	assert_int_equal(bind_all(&f), 0);
	assert_int_equal(unlink(f.address.addr.un.sun_path), 0);
	close(open(f.address.addr.un.sun_path, O_WRONLY | O_CREAT | O_EXCL, 0600));
	listeners_done(&f.got);
	assert_true(is_there(f.address.addr.un.sun_path));
	/* and it is not taken for a stale socket */
	assert_int_equal(bind_all(&f), -EEXIST);
	assert_true(is_there(f.address.addr.un.sun_path));
	unlink(f.address.addr.un.sun_path);
	fixture_done(&f);
}

static void a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
	struct fixture f;
	int other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	fixture_init(&f);
	use_unix(&f, "s");
	assert_int_equal(bind(other, &f.address.addr.any, f.address.len), 0);
	assert_int_equal(listen(other, 1), 0);
	assert_int_equal(bind_all(&f), -EADDRINUSE);
	assert_true(is_there(f.address.addr.un.sun_path));
	close(other);
	assert_int_equal(bind_all(&f), 0);
	fixture_done(&f);
}

static void inherit(struct fixture *f, int fd, const char *name)
{
	f->in.sockets[f->in.count++] = (struct inherited_socket){ fd, slice_str(name) };
}

static void an_inherited_socket_is_taken_over_by_name(void **state)
{
	static const struct {
		const char *name;
		bool share_port, listening;
		int err;
		bool siblings;
	} cases[] = {
		{ "main", true, true, 0, true },
		{ "main", false, true, 0, false },
		{ "forebay.socket", false, true, 0, false }, /* unnamed: its address says whose it is */
		{ "main", false, false, -EINVAL, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct fixture f;
		int fd, err;

		fixture_init(&f);
		fd = use_tcp(&f, cases[i].share_port);
		if (cases[i].listening)
			assert_int_equal(listen(fd, 8), 0);
		inherit(&f, fd, cases[i].name);
		err = bind_all(&f);
		if (err != cases[i].err)
			fail_msg("row %zu: %d %s", i, err, f.errors.ptr);
		if (!err) {
			assert_int_equal(f.got.count, THREADS);
			assert_int_equal(f.got.all[0].fd, fd);
			assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
			if ((inode(fd) != inode(f.got.all[1].fd)) != cases[i].siblings)
				fail_msg("row %zu: siblings", i);
		}
		fixture_done(&f);
	}
}

static void an_inherited_socket_that_nobody_asked_for_is_an_error(void **state)
{
	struct fixture f, other;
	int fd;

	(void)state;
	fixture_init(&f);
	fixture_init(&other);
	fd = use_tcp(&other, false);
	assert_int_equal(listen(fd, 8), 0);
	close(use_tcp(&f, false));
	inherit(&f, fd, "main");
	assert_int_equal(bind_all(&f), -EINVAL);
	assert_non_null(strstr(f.errors.ptr, "inherited socket \"main\""));
	fixture_done(&f);
	fixture_done(&other);
}

static void the_variables_of_a_service_manager_are_read(void **state)
{
	static const struct {
		const char *pid, *fds, *names;
		int err;
		size_t count;
		const char *first, *last;
	} cases[] = {
		{ NULL, NULL, NULL, 0, 0, NULL, NULL },
		{ "77", NULL, NULL, 0, 0, NULL, NULL },
		{ "77", "1", NULL, 0, 1, "", "" },
		{ "77", "2", "http:https", 0, 2, "http", "https" },
		{ "77", "3", "http:https", 0, 3, "http", "" },
		{ "77", "1", "http:https", 0, 1, "http", "http" },
		{ "78", "2", "a:b", 0, 0, NULL, NULL }, /* somebody else's */
		{ "77", "64", "a", 0, INHERITED_MAX, "a", "" },
		{ "77", "65", "a", -E2BIG, 0, NULL, NULL },
		{ "77", "-1", "a", -EINVAL, 0, NULL, NULL },
		{ "x", "1", "a", -EINVAL, 0, NULL, NULL },
		{ "77", "99999999999999999999", "a", -EINVAL, 0, NULL, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct inherited got;
		int err = inherited_read(&got, cases[i].pid, cases[i].fds, cases[i].names, 77);

		if (err != cases[i].err || got.count != cases[i].count)
			fail_msg("row %zu: %d, %zu", i, err, got.count);
		if (got.count == 0)
			continue;
		if (!slice_eq(got.sockets[0].name, slice_str(cases[i].first)) ||
		    !slice_eq(got.sockets[got.count - 1].name, slice_str(cases[i].last)) ||
		    got.sockets[0].fd != INHERITED_FIRST_FD)
			fail_msg("row %zu: names", i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_thread_has_a_tcp_socket_of_its_own),
		cmocka_unit_test(an_address_in_use_is_an_error),
		cmocka_unit_test(an_address_of_another_machine_is_an_error),
		cmocka_unit_test(a_unix_socket_is_shared_and_its_file_goes_with_it),
		cmocka_unit_test(a_file_that_somebody_else_put_there_stays),
		cmocka_unit_test(a_stale_socket_is_replaced_and_a_live_one_is_not),
		cmocka_unit_test(an_inherited_socket_is_taken_over_by_name),
		cmocka_unit_test(an_inherited_socket_that_nobody_asked_for_is_an_error),
		cmocka_unit_test(the_variables_of_a_service_manager_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
