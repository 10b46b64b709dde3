/*
 * rig: what fuzzers of the whole front run it on: one loop on this thread, a clock that only the input moves, a budget, sockets.
 * Owns:   all of these, for all inputs.
 * Thread: one.
 */
#ifndef FOREBAY_TESTS_RIG_H
#define FOREBAY_TESTS_RIG_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/loop.h"
#include "core/slice.h"
#include "core/spool.h"
#include "tests/fuzz/must.h"

#define RIG_PASSES_MAX 20000
#define RIG_MEMORY     (64u << 20)

struct rig {
	struct clock_test clock;
	struct budget budget;
	struct loop *loop;
	int epoll; /* the loop's */
};

/* libevent keeps it to itself: it is the loop's only one. */
static inline int rig_find_epoll(void)
{
	char path[64], to[64];

	for (int fd = 0; fd < 1024; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, to, sizeof(to));
		if (n > 0 && slice_eq(slice_of(to, (size_t)n), SLICE("anon_inode:[eventpoll]")))
			return fd;
	}
	return -1;
}

static inline void rig_init(struct rig *r)
{
	(void)signal(SIGPIPE, SIG_IGN);
	clock_test_init(&r->clock);
	budget_init(&r->budget, RIG_MEMORY);
	must(loop_new(0, &r->clock.clock, &r->budget, NULL, &r->loop) == 0);
	r->epoll = rig_find_epoll();
	must(r->epoll != -1);
}

/* What an input may use. */
static inline void rig_set_memory(struct rig *r, size_t bytes)
{
	lease_done(&r->loop->lease);
	budget_init(&r->budget, bytes);
	lease_init(&r->loop->lease, &r->budget);
}

static inline bool rig_is_ready(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

/* What spool threads have in hand comes by itself. */
static inline void rig_await_mail(const struct rig *r)
{
	struct pollfd p = { .fd = r->loop->mailbox.fd, .events = POLLIN };

	/* The fuzzer's own alarm interrupts; its time limit is the one that counts. */
	while (r->loop->awaited > 0 && poll(&p, 1, -1) == -1)
		must(errno == EINTR);
}

/* Until the loop rests. */
static inline void rig_turn(const struct rig *r)
{
	unsigned passes = 0;

	do {
		must(++passes < RIG_PASSES_MAX); /* it never spins */
		event_base_loop(r->loop->base, EVLOOP_NONBLOCK);
		rig_await_mail(r);
	} while (r->loop->awaited > 0 || event_base_get_num_events(r->loop->base, EVENT_BASE_COUNT_ACTIVE) > 0 ||
	         rig_is_ready(r->epoll));
}

static inline void rig_pass_time(struct rig *r, uint64_t us)
{
	clock_test_advance(&r->clock, us);
	wheel_advance(&r->loop->wheel, loop_now_ms(r->loop), UINT_MAX);
}

/* A Unix socket with a name of the kernel's. */
static inline int rig_listen(struct sockaddr_un *ret_name, socklen_t *ret_len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*ret_name = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*ret_len = sizeof(*ret_name);
	must(fd != -1 && bind(fd, (const void *)ret_name, sizeof(sa_family_t)) == 0 && listen(fd, 128) == 0);
	must(getsockname(fd, (void *)ret_name, ret_len) == 0);
	return fd;
}

/* Where spools lie. */
static inline int rig_folder(void)
{
	const char *dir = getenv("TMPDIR");
	int fd = open(dir ? dir : "/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	must(fd != -1);
	return fd;
}

/* A descriptor that is not given back moves the lowest free one. */
static inline void rig_check_descriptors(const struct rig *r)
{
	static int lowest;
	int fd = dup(r->epoll);

	must(fd != -1);
	close(fd);
	lowest = lowest ? lowest : fd;
	must(fd <= lowest + 4);
}

#endif
