#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/fdpass.h"

#define SEND_MAX (FDPASS_MAX + 1)

struct fixture {
	int sock[2];
	int files[SEND_MAX];
	size_t open_before;
};

static size_t open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void set_up(struct fixture *f, int type)
{
	assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, f->sock), 0);
	for (size_t i = 0; i < SEND_MAX; i++) {
		f->files[i] = memfd_create("file", MFD_CLOEXEC);
		assert_int_equal(write(f->files[i], &i, sizeof(i)), (ssize_t)sizeof(i));
	}
	f->open_before = open_fds();
}

static void tear_down(struct fixture *f)
{
	assert_int_equal(open_fds(), f->open_before);
	for (size_t i = 0; i < SEND_MAX; i++)
		close(f->files[i]);
	close(f->sock[0]);
	close(f->sock[1]);
}

static const struct {
	const char *text;
	size_t send, room;
	ssize_t want_send, want_recv;
} cases[] = {
	{ "a", 0, 0, 1, 1 },
	{ "ab", 0, 4, 2, 2 },
	{ "one", 1, 1, 3, 3 },
	{ "all", FDPASS_MAX, FDPASS_MAX, 3, 3 },
	{ "not expected", 1, 0, 12, -EPROTO },
	{ "one too many", 4, 3, 12, -EPROTO },
	{ "most into one", FDPASS_MAX, 1, 13, -EPROTO },
	{ "above the maximum", SEND_MAX, FDPASS_MAX, -EINVAL, 0 },
	{ "", 1, 1, -EINVAL, 0 },
};

static void check_received(const struct fixture *f UNUSED, const int *fds, size_t count, size_t row)
{
	for (size_t k = 0; k < count; k++) {
		size_t got = SIZE_MAX;

		if (pread(fds[k], &got, sizeof(got), 0) != (ssize_t)sizeof(got) || got != k)
			fail_msg("row %zu: descriptor %zu is another file", row, k);
		if (!(fcntl(fds[k], F_GETFD) & FD_CLOEXEC))
			fail_msg("row %zu: descriptor %zu would be inherited", row, k);
		close(fds[k]);
	}
}

static void run_row(const struct fixture *f, size_t i)
{
	char buf[64];
	int fds[FDPASS_MAX];
	size_t count = 99;
	ssize_t n = fdpass_send(f->sock[0], cases[i].text, strlen(cases[i].text), f->files, cases[i].send, 0);

	if (n != cases[i].want_send)
		fail_msg("row %zu: sent %zd", i, n);
	if (n < 0)
		return;
	n = fdpass_recv(f->sock[1], buf, sizeof(buf), fds, cases[i].room, &count, MSG_DONTWAIT);
	if (n != cases[i].want_recv)
		fail_msg("row %zu: received %zd", i, n);
	if (count != (n < 0 ? 0 : cases[i].send))
		fail_msg("row %zu: %zu descriptors", i, count);
	if (n > 0 && memcmp(buf, cases[i].text, (size_t)n) != 0)
		fail_msg("row %zu: other bytes", i);
	check_received(f, fds, count, i);
}

static void messages_with_descriptors(void **state)
{
	static const int types[] = { SOCK_SEQPACKET, SOCK_STREAM };

	(void)state;
	for (size_t t = 0; t < ARRAY_LEN(types); t++)
		for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
			struct fixture f;

			set_up(&f, types[t]);
			run_row(&f, i);
			tear_down(&f);
		}
}

/* The kernel sends up to 253 at once; what our control buffer cannot take is cut off there. */
static void more_than_the_kernel_can_deliver_leaves_nothing_open(void **state)
{
	struct fixture f;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(SEND_MAX * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = "x", .iov_len = 1 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int fds[FDPASS_MAX];
	size_t count;
	char byte;

	(void)state;
	set_up(&f, SOCK_SEQPACKET);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(SEND_MAX * sizeof(int));
	memcpy(CMSG_DATA(c), f.files, SEND_MAX * sizeof(int));
	assert_int_equal(sendmsg(f.sock[0], &m, 0), 1);
	assert_int_equal(fdpass_recv(f.sock[1], &byte, 1, fds, FDPASS_MAX, &count, MSG_DONTWAIT), -EPROTO);
	assert_int_equal(count, 0);
	tear_down(&f);
}

static void a_packet_that_does_not_fit_is_refused_with_its_descriptors(void **state)
{
	struct fixture f;
	int fds[FDPASS_MAX];
	size_t count;
	char buf[4];

	(void)state;
	set_up(&f, SOCK_SEQPACKET);
	assert_int_equal(fdpass_send(f.sock[0], "12345", 5, f.files, 2, 0), 5);
	assert_int_equal(fdpass_recv(f.sock[1], buf, sizeof(buf), fds, FDPASS_MAX, &count, MSG_DONTWAIT), -EPROTO);
	assert_int_equal(count, 0);
	tear_down(&f);
}

static void the_other_end(void **state)
{
	static const int types[] = { SOCK_SEQPACKET, SOCK_STREAM };
	size_t count;
	char buf[4];
	int pair[2];

	(void)state;
	for (size_t t = 0; t < ARRAY_LEN(types); t++) {
		assert_int_equal(socketpair(AF_UNIX, types[t], 0, pair), 0);
		assert_int_equal(fdpass_recv(pair[0], buf, sizeof(buf), NULL, 0, &count, MSG_DONTWAIT), -EAGAIN);
		close(pair[1]);
		assert_int_equal(fdpass_recv(pair[0], buf, sizeof(buf), NULL, 0, &count, 0), 0);
		assert_int_equal(fdpass_send(pair[0], "x", 1, NULL, 0, 0), -EPIPE); /* and no signal */
		close(pair[0]);
	}
}

static void who_sent_it_is_the_kernels_to_say(void **state)
{
	static const int on = 1;
	int pair[2], file = open("/dev/null", O_RDONLY | O_CLOEXEC);
	pid_t pid = 1;
	char byte;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(fdpass_send(pair[0], "a", 1, NULL, 0, 0), 1);
	assert_int_equal(fdpass_recv_from(pair[1], &byte, 1, &pid, 0), 1);
	assert_int_equal(pid, 0); /* nobody has asked for it */
	assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	assert_int_equal(fdpass_send(pair[0], "a", 1, NULL, 0, 0), 1);
	assert_int_equal(fdpass_recv_from(pair[1], &byte, 1, &pid, 0), 1);
	assert_int_equal(pid, getpid());
	assert_int_equal(fdpass_send(pair[0], "a", 1, &file, 1, 0), 1);
	assert_int_equal(fdpass_recv_from(pair[1], &byte, 1, &pid, 0), -EPROTO); /* a descriptor too */
	close(pair[0]);
	close(pair[1]);
	close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_sent_it_is_the_kernels_to_say),
		cmocka_unit_test(messages_with_descriptors),
		cmocka_unit_test(more_than_the_kernel_can_deliver_leaves_nothing_open),
		cmocka_unit_test(a_packet_that_does_not_fit_is_refused_with_its_descriptors),
		cmocka_unit_test(the_other_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
