#include "upstream/worker/runtime.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/fdpass.h"
#include "core/log.h"
#include "upstream/worker/footprint.h"
#include "upstream/worker/offspring.h"
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
	pthread_mutex_t lock; /* of all seats */
	struct seat *seats;
	unsigned running;   /* threads; under lock */
	unsigned given_up;  /* of these; under lock */
	int done_fd;        /* eventfd: no thread is running any more that is waited for */
	int stir_fd;        /* eventfd: requests come again */
	atomic_bool asleep; /* the main thread waits without a limit: the next request writes to stir_fd */
	atomic_bool ending;
	_Atomic uint64_t served;
	uint64_t served_max; /* 0: any number */
	bool is_copy;        /* in a process that the application has forked */
	/* the main thread's */
	uint64_t looked_at;   /* `served` at its last look */
	uint64_t reported_at; /* `served` at its last report, made at: */
	uint64_t reported_ms;
};

/* Fails when the master has gone, which the main thread sees, or when there is no control socket any more. */
static void tell_master(const struct runtime *rt, enum control_type type, unsigned seat, uint64_t value)
{
	const struct control_message m = { .type = type, .seat = seat, .value = value };
	ssize_t n = fdpass_send(rt->plan->control, &m, sizeof(m), NULL, 0, 0);

	if (n != -EBADF && n != -ENOTSOCK)
		return;
	/* The main thread may sleep on what the descriptor was, and nobody would ever know. */
	log_error("what=\"the application has closed descriptors that are not its own: this worker ends\"");
	_exit(1);
}

/*
 * What the application forks. A child that kept the slot sockets would hide from the front, and so from the client, that the worker behind them has
 * died; one that comes back from the application would answer in its place.
 */

/* The number stays taken, or the child's next file would have it. */
static void put_away(int fd, int dead)
{
	if (fd != -1 && dead != -1)
		(void)dup3(dead, fd, O_CLOEXEC);
	else if (fd != -1)
		close(fd);
}

static void cut_off(struct runtime *rt)
{
	int dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* of nobody */

	for (unsigned i = 0; i < rt->plan->threads; i++) {
		put_away(rt->seats[i].sock, dead);
		put_away(rt->seats[i].next, dead);
	}
	put_away(rt->plan->control, dead);
	if (dead != -1)
		close(dead);
	rt->is_copy = true;
}

static void before_fork(void *ctx)
{
	struct runtime *rt = ctx;

	pthread_mutex_lock(&rt->lock);
}

static void after_fork(void *ctx, bool child)
{
	struct runtime *rt = ctx;

	if (child)
		cut_off(rt);
	pthread_mutex_unlock(&rt->lock);
}

static const struct offspring_events offspring_events = { .before = before_fork, .after = after_fork };

static _Noreturn void end_copy(void)
{
	log_warning("what=\"a process that the application has forked came back from it: it ends\" pid=%d", (int)getpid());
	_exit(1);
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

static void raise_event(int fd)
{
	const uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

static void request_begun(void *ctx)
{
	struct runtime *rt = ctx;
	uint64_t n = atomic_fetch_add(&rt->served, 1) + 1;

	if (atomic_load(&rt->asleep) && atomic_exchange(&rt->asleep, false))
		raise_event(rt->stir_fd);
	if (rt->served_max == 0 || n != rt->served_max)
		return;
	tell_master(rt, CONTROL_SPENT, 0, 0);
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
		.app_ctx = rt->plan->app_ctx,
		.started = &rt->plan->started[seat->index].serial,
		.ending = &rt->ending,
		.begun = request_begun,
		.ctx = rt,
	};
	int err = talk_serve(seat->sock, &talk);

	if (rt->is_copy)
		end_copy();
	if (err && err != -EPIPE)
		log_warning("seat=%u what=\"slot socket closed\" error=%s", seat->index, strerrorname_np(-err));
}

/*
 * Where front and workers share a core, a request that wakes a worker would take the core from the event loop at once, in the middle of its
 * round: two changes of process for each request, and the loop's other clients wait for the application. Threads of SCHED_BATCH come on when
 * the loop sleeps; their share of the time is the same. What the application starts is not touched. Where this is refused, it is only slower.
 */
static void let_loops_go_first(void)
{
	const struct sched_param none = { .sched_priority = 0 };

	(void)!sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none);
}

static void *seat_thread(void *ctx)
{
	struct seat *seat = ctx;
	struct runtime *rt = seat->runtime;
	const struct worker_app *app = rt->plan->app;
	bool last;

	let_loops_go_first();
	if (app->prepare_thread)
		app->prepare_thread(rt->plan->app_ctx);
	for (;;) {
		tell_master(rt, CONTROL_WANT, seat->index, 0);
		if (seat_wait(seat) == -1)
			break;
		seat_serve(seat);
		seat_leave(seat);
		if (atomic_load_explicit(&rt->ending, memory_order_acquire))
			break;
	}
	if (app->leave_thread)
		app->leave_thread(rt->plan->app_ctx);
	pthread_mutex_lock(&rt->lock);
	rt->running--;
	rt->given_up -= seat->given_up;
	seat->given_up = false;
	last = rt->running == rt->given_up;
	pthread_mutex_unlock(&rt->lock);
	if (last)
		raise_event(rt->done_fd);
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
		raise_event(rt->done_fd);
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

/* It ends as with max_requests: between requests. */
static void swollen(struct runtime *rt, uint64_t pss)
{
	tell_master(rt, CONTROL_SWOLLEN, 0, pss);
	end_all(rt);
}

static void look_at_memory(struct runtime *rt, uint64_t served, uint64_t now_ms)
{
	uint64_t max = rt->plan->max_memory, report_ms = rt->plan->report_ms ? rt->plan->report_ms : RUNTIME_REPORT_MS, pss;
	bool ending = atomic_load_explicit(&rt->ending, memory_order_relaxed);
	bool due = served != rt->reported_at && (rt->reported_at == 0 || now_ms - rt->reported_ms >= report_ms);

	/* The part is never more than the whole, which costs less to know. */
	if (ending || (!due && (max == 0 || footprint_rss() <= max)))
		return;
	pss = footprint_pss();
	if (due && pss > 0)
		tell_master(rt, CONTROL_MEMORY, 0, pss);
	if (due) {
		rt->reported_at = served;
		rt->reported_ms = now_ms;
	}
	if (max > 0 && pss > max)
		swollen(rt, pss);
}

static int look_ms(const struct runtime *rt)
{
	return (int)(rt->plan->look_ms ? rt->plan->look_ms : RUNTIME_LOOK_MS);
}

/* For how long the main thread may sleep, in poll's terms. One that has nothing to do is not woken for nothing. */
static int look_around(struct runtime *rt)
{
	uint64_t served = atomic_load(&rt->served);

	look_at_memory(rt, served, clock_mono_ms(&clock_real));
	if (served != rt->looked_at || served != rt->reported_at) {
		rt->looked_at = served;
		return look_ms(rt);
	}
	atomic_store(&rt->asleep, true);
	/* One that began before it saw this. */
	return atomic_load(&rt->served) == served ? -1 : look_ms(rt);
}

static void wake_up(struct runtime *rt)
{
	uint64_t n;

	(void)!read(rt->stir_fd, &n, sizeof(n));
}

/* Until all threads have ended. */
static int wait_for_end(struct runtime *rt)
{
	struct pollfd p[] = {
		{ .fd = rt->plan->control, .events = POLLIN },
		{ .fd = rt->done_fd, .events = POLLIN },
		{ .fd = rt->stir_fd, .events = POLLIN },
	};
	int err = 0, sleep_ms = -1;

	atomic_store(&rt->asleep, true);
	while (err == 0) {
		int n = poll(p, ARRAY_LEN(p), sleep_ms);

		if (n == -1 && errno != EINTR)
			return -errno;
		if (n > 0 && p[1].revents)
			return 0;
		if (n > 0 && p[2].revents) {
			wake_up(rt);
			sleep_ms = look_ms(rt);
		}
		if (n > 0 && p[0].revents)
			err = take_message(rt);
		/* Messages do not make it look more often. */
		if (n == 0)
			sleep_ms = look_around(rt);
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
	rt->stir_fd = eventfd(0, EFD_CLOEXEC);
	if (rt->done_fd == -1 || rt->stir_fd == -1)
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
	if (rt->stir_fd != -1)
		close(rt->stir_fd);
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
	rt->done_fd = rt->stir_fd = -1;
	err = make_seats(rt);
	if (!err)
		err = offspring_watch(&offspring_events, rt);
	if (err) {
		runtime_free(rt);
		return err;
	}
	err = start_threads(rt);
	if (!err)
		err = wait_for_end(rt);
	if (!err && leave_given_up(rt))
		err = -ETIME;
	offspring_unwatch();
	if (err)
		return err;
	join_all(rt);
	if (plan->app->unload)
		plan->app->unload(plan->app_ctx);
	runtime_free(rt);
	return 0;
}
