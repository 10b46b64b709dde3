#include "upstream/worker/runtime.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/log.h"
#include "upstream/worker/talk.h"

struct runtime;

/* One thread and the slot it serves. */
struct seat {
	struct runtime *runtime;
	pthread_t thread;
	unsigned index;
	pthread_cond_t given; /* a socket, or the end */
	int next;             /* the socket the master sent, not begun with yet; -1: none */
	int sock;             /* being served; -1: none */
	bool given_up;        /* nobody waits for what it does, nor for its end; under the runtime's lock */
	bool left;            /* runtime_run's, at its end: not to be joined */
};

struct runtime {
	const struct runtime_plan *plan;
	void *app_ctx;
	pthread_mutex_t lock; /* of all seats */
	struct seat *seats;
	unsigned running;  /* threads; under lock */
	unsigned given_up; /* of these; under lock */
	int done_fd;       /* eventfd: no thread is running any more that is waited for */
	atomic_bool ending;
	_Atomic uint64_t served;
	uint64_t served_max; /* 0: any number */
};

/* Fails only when the master has gone, which the main thread sees. */
static void tell_master(const struct runtime *rt, enum control_type type, unsigned seat)
{
	const struct control_message m = { .type = type, .seat = seat };

	(void)!fdpass_send(rt->plan->control, &m, sizeof(m), NULL, 0, 0);
}

/*
 * Nothing new is begun. A thread that waits for a request wakes up to the end of its socket; what had been sent to it before is served: the front
 * took it for given.
 */
static void end_all(struct runtime *rt)
{
	pthread_mutex_lock(&rt->lock);
	atomic_store_explicit(&rt->ending, true, memory_order_release);
	for (unsigned i = 0; i < rt->plan->threads; i++) {
		if (rt->seats[i].sock != -1)
			(void)shutdown(rt->seats[i].sock, SHUT_RD);
		pthread_cond_signal(&rt->seats[i].given);
	}
	pthread_mutex_unlock(&rt->lock);
}

static void request_begun(void *ctx)
{
	struct runtime *rt = ctx;
	uint64_t n = atomic_fetch_add_explicit(&rt->served, 1, memory_order_relaxed) + 1;

	if (rt->served_max == 0 || n != rt->served_max)
		return;
	tell_master(rt, CONTROL_SPENT, 0);
	end_all(rt);
}

/* The next slot socket, also set as seat->sock; -1: the end. */
static int seat_wait(struct seat *seat)
{
	struct runtime *rt = seat->runtime;

	pthread_mutex_lock(&rt->lock);
	while (seat->next == -1 && !atomic_load_explicit(&rt->ending, memory_order_relaxed))
		pthread_cond_wait(&seat->given, &rt->lock);
	seat->sock = seat->next;
	seat->next = -1;
	/* It came together with the end: what the front may have put into it is still answered. */
	if (seat->sock != -1 && atomic_load_explicit(&rt->ending, memory_order_relaxed))
		(void)shutdown(seat->sock, SHUT_RD);
	pthread_mutex_unlock(&rt->lock);
	return seat->sock;
}

static void seat_leave(struct seat *seat)
{
	struct runtime *rt = seat->runtime;
	int sock;

	pthread_mutex_lock(&rt->lock);
	sock = seat->sock;
	seat->sock = -1;
	pthread_mutex_unlock(&rt->lock);
	close(sock);
}

static void seat_serve(struct seat *seat)
{
	struct runtime *rt = seat->runtime;
	const struct talk_plan talk = {
		.app = rt->plan->app,
		.app_ctx = rt->app_ctx,
		.started = &rt->plan->started[seat->index].serial,
		.ending = &rt->ending,
		.begun = request_begun,
		.ctx = rt,
	};
	int err = talk_serve(seat->sock, &talk);

	if (err && err != -EPIPE)
		log_warning("seat=%u what=\"slot socket closed\" error=%s", seat->index, strerrorname_np(-err));
}

static void say_done(struct runtime *rt)
{
	const uint64_t one = 1;

	(void)!write(rt->done_fd, &one, sizeof(one));
}

static void *seat_thread(void *ctx)
{
	struct seat *seat = ctx;
	struct runtime *rt = seat->runtime;
	bool last;

	for (;;) {
		tell_master(rt, CONTROL_WANT, seat->index);
		if (seat_wait(seat) == -1)
			break;
		seat_serve(seat);
		seat_leave(seat);
		if (atomic_load_explicit(&rt->ending, memory_order_acquire))
			break;
	}
	pthread_mutex_lock(&rt->lock);
	rt->running--;
	rt->given_up -= seat->given_up;
	seat->given_up = false;
	last = rt->running == rt->given_up;
	pthread_mutex_unlock(&rt->lock);
	if (last)
		say_done(rt);
	return NULL;
}

/* The front has closed its end: whatever this thread is at, nobody takes it. */
static bool front_has_left(const struct seat *seat)
{
	struct pollfd p = { .fd = seat->sock };

	return seat->sock != -1 && poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

/* A thread that came back by itself meanwhile, and has the next request, is waited for like the others. */
static int end_without(struct runtime *rt, unsigned index)
{
	struct seat *seat;
	bool last;

	if (index >= rt->plan->threads)
		return -EPROTO;
	seat = &rt->seats[index];
	pthread_mutex_lock(&rt->lock);
	if (!seat->given_up && front_has_left(seat)) {
		seat->given_up = true;
		rt->given_up++;
	}
	last = rt->running == rt->given_up;
	pthread_mutex_unlock(&rt->lock);
	end_all(rt);
	if (last)
		say_done(rt);
	return 0;
}

/* Takes *fd. A master that hands out what nobody asked for is not one. */
static int give_slot(struct runtime *rt, unsigned index, int *fd)
{
	struct seat *seat;
	int err = 0;

	if (index >= rt->plan->threads)
		return -EPROTO;
	seat = &rt->seats[index];
	pthread_mutex_lock(&rt->lock);
	if (seat->next != -1) {
		err = -EPROTO;
	} else {
		seat->next = *fd;
		*fd = -1;
		pthread_cond_signal(&seat->given);
	}
	pthread_mutex_unlock(&rt->lock);
	return err;
}

/* 0, or -errno: it is over. */
static int take_message(struct runtime *rt)
{
	struct control_message m;
	int fd = -1, err = -EPROTO;
	size_t fds;
	ssize_t n = fdpass_recv(rt->plan->control, &m, sizeof(m), &fd, 1, &fds, 0);

	if (n <= 0)
		return -ECONNRESET;
	if ((size_t)n == sizeof(m) && m.type == CONTROL_SLOT && fds == 1) {
		err = give_slot(rt, m.seat, &fd);
	} else if ((size_t)n == sizeof(m) && m.type == CONTROL_END && fds == 0) {
		end_all(rt);
		err = 0;
	} else if ((size_t)n == sizeof(m) && m.type == CONTROL_END_WITHOUT && fds == 0) {
		err = end_without(rt, m.seat);
	}
	if (fd != -1)
		close(fd);
	return err;
}

/* Until all threads have ended. */
static int wait_for_end(struct runtime *rt)
{
	struct pollfd p[] = { { .fd = rt->plan->control, .events = POLLIN }, { .fd = rt->done_fd, .events = POLLIN } };
	int err = 0;

	while (err == 0) {
		if (poll(p, ARRAY_LEN(p), -1) == -1) {
			if (errno != EINTR)
				return -errno;
			continue;
		}
		if (p[1].revents)
			return 0;
		if (p[0].revents)
			err = take_message(rt);
	}
	return err;
}

static int start_threads(struct runtime *rt)
{
	int err = 0;

	/* None is seen to end before all are there. */
	pthread_mutex_lock(&rt->lock);
	while (!err && rt->running < rt->plan->threads) {
		struct seat *seat = &rt->seats[rt->running];

		err = -pthread_create(&seat->thread, NULL, seat_thread, seat);
		if (!err)
			rt->running++;
	}
	pthread_mutex_unlock(&rt->lock);
	return err;
}

static int make_seats(struct runtime *rt)
{
	rt->done_fd = eventfd(0, EFD_CLOEXEC);
	if (rt->done_fd == -1)
		return -ENOMEM;
	rt->seats = calloc(rt->plan->threads, sizeof(*rt->seats));
	if (!rt->seats)
		return -ENOMEM;
	for (unsigned i = 0; i < rt->plan->threads; i++) {
		struct seat *seat = &rt->seats[i];

		*seat = (struct seat){ .runtime = rt, .index = i, .next = -1, .sock = -1 };
		pthread_cond_init(&seat->given, NULL);
	}
	return 0;
}

/* Workers that were started together do not end together. */
static uint64_t with_jitter(uint64_t max)
{
	uint64_t random;

	if (max == 0 || getrandom(&random, sizeof(random), GRND_NONBLOCK) != (ssize_t)sizeof(random))
		return max;
	return max + random % (max / 10 + 1);
}

/* Lets go of the threads that were given up, and buries the others. False: there are none to let go of. */
static bool leave_given_up(struct runtime *rt)
{
	bool some = false;

	pthread_mutex_lock(&rt->lock);
	for (unsigned i = 0; i < rt->plan->threads; i++) {
		rt->seats[i].left = rt->seats[i].given_up;
		if (!rt->seats[i].left)
			continue;
		pthread_detach(rt->seats[i].thread);
		some = true;
	}
	pthread_mutex_unlock(&rt->lock);
	for (unsigned i = 0; some && i < rt->plan->threads; i++)
		if (!rt->seats[i].left)
			pthread_join(rt->seats[i].thread, NULL);
	return some;
}

/* No thread of it runs. */
static void runtime_free(struct runtime *rt)
{
	for (unsigned i = 0; rt->seats && i < rt->plan->threads; i++) {
		pthread_cond_destroy(&rt->seats[i].given);
		if (rt->seats[i].next != -1)
			close(rt->seats[i].next);
	}
	pthread_mutex_destroy(&rt->lock);
	free(rt->seats);
	if (rt->done_fd != -1)
		close(rt->done_fd);
	free(rt);
}

static void join_all(struct runtime *rt)
{
	for (unsigned i = 0; i < rt->plan->threads; i++)
		pthread_join(rt->seats[i].thread, NULL);
}

int runtime_run(const struct runtime_plan *plan)
{
	/* On the heap, so that threads which are still in the application find it when this function has left. */
	struct runtime *rt = calloc(1, sizeof(*rt));
	int err;

	if (!rt)
		return -ENOMEM;
	rt->plan = plan;
	rt->served_max = with_jitter(plan->max_requests);
	pthread_mutex_init(&rt->lock, NULL);
	err = make_seats(rt);
	if (!err)
		err = plan->app->load(plan->target, &rt->app_ctx);
	if (err) {
		runtime_free(rt);
		return err;
	}
	err = start_threads(rt);
	if (!err)
		err = wait_for_end(rt);
	if (!err && leave_given_up(rt))
		err = -ETIME;
	if (err)
		return err;
	join_all(rt);
	if (plan->app->unload)
		plan->app->unload(rt->app_ctx);
	runtime_free(rt);
	return 0;
}

/* The process. */

static const struct worker_app *find_app(const struct worker_app *const *apps, const char *name)
{
	for (; *apps; apps++)
		if (strcmp((*apps)->name, name) == 0)
			return *apps;
	return NULL;
}

/* forebay worker APP TARGET THREADS FIRST_SLOT MAX_REQUESTS */
static bool read_arguments(
    int argc, char **argv, const struct worker_app *const *apps, struct runtime_plan *plan, uint64_t *ret_first_slot)
{
	uint64_t threads;

	if (argc != 7)
		return false;
	plan->app = find_app(apps, argv[2]);
	plan->target = argv[3];
	if (!plan->app || !slice_to_u64(slice_str(argv[4]), &threads) || threads < 1 || threads > RUNTIME_THREADS_MAX)
		return false;
	plan->threads = (unsigned)threads;
	return slice_to_u64(slice_str(argv[5]), ret_first_slot) && *ret_first_slot <= UINT32_MAX &&
	       slice_to_u64(slice_str(argv[6]), &plan->max_requests);
}

/* The lines of this process. The descriptor is not needed any more, and nothing the application starts inherits it. */
static struct started_line *map_started(uint64_t first_slot, unsigned threads)
{
	struct stat st;
	struct started_line *page;

	if (fstat(WORKER_FD_STARTED, &st) == -1 || (uint64_t)st.st_size < (first_slot + threads) * STARTED_LINE_BYTES)
		return NULL;
	page = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, WORKER_FD_STARTED, 0);
	close(WORKER_FD_STARTED);
	return page == MAP_FAILED ? NULL : page + first_slot;
}

static bool is_control_socket(int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET &&
	       fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

int worker_main(int argc, char **argv, const struct worker_app *const *apps)
{
	struct runtime_plan plan = { .control = WORKER_FD_CONTROL };
	uint64_t first_slot;
	int err;

	(void)prctl(PR_SET_NAME, "forebay-worker");
	if (!read_arguments(argc, argv, apps, &plan, &first_slot) || !is_control_socket(WORKER_FD_CONTROL)) {
		fputs("forebay: 'worker' is how forebay starts its own workers; it is of no use by hand.\n", stderr);
		return 2;
	}
	plan.started = map_started(first_slot, plan.threads);
	if (!plan.started) {
		log_error("what=\"no started page\"");
		return 1;
	}
	err = runtime_run(&plan);
	if (err == 0)
		return 0;
	/* Threads may be anywhere in the application. */
	if (err == -ECONNRESET || err == -ETIME)
		_exit(0);
	log_error("what=\"worker could not go on\" error=%s", strerrorname_np(-err));
	_exit(1);
}
