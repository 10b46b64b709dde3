#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/log.h"
#include "upstream/output.h"
#include "upstream/spawn.h"
#include "upstream/supervisor.h"
#include "upstream/worker/demo.h"
#include "upstream/worker/wire.h"
#include "upstream/worker/worker_main.h"

#define WORKERS_MAX 64
#define SLOTS_MAX   16
#define END_MS      5000
#define TIMEOUT_MS  60000

struct fake {
	pid_t pid;
	int control, output;
	int killed; /* the signal */
	bool asked; /* for its stacks */
};

struct world {
	struct event_base *base;
	struct clock_test clock;
	struct conf_pool conf;
	struct supervisor *s;
	struct fake workers[WORKERS_MAX]; /* in the order of their starts */
	unsigned started;
	int spawn_error;
	int front[SLOTS_MAX];
	pid_t pid[SLOTS_MAX];
	unsigned ready, gone;
};

static struct buf said; /* by the log */

static void log_here(void *ctx UNUSED, enum log_level level UNUSED, struct slice line)
{
	buf_add(&said, line);
}

static bool was_said(const char *text)
{
	return said.len > 0 && memmem(said.ptr, said.len, text, strlen(text)) != NULL;
}

static void slot_ready(void *ctx, size_t pool_index, unsigned slot, int *front_fd, pid_t pid)
{
	struct world *w = ctx;

	assert_int_equal(pool_index, 3);
	assert_true(slot < SLOTS_MAX);
	assert_true(fcntl(*front_fd, F_GETFL) & O_NONBLOCK);
	if (w->front[slot] != -1)
		close(w->front[slot]);
	w->front[slot] = *front_fd;
	*front_fd = -1;
	w->pid[slot] = pid;
	w->ready++;
}

static void slot_gone(void *ctx, size_t pool_index UNUSED, unsigned slot, pid_t pid)
{
	struct world *w = ctx;

	assert_int_equal(w->pid[slot], pid);
	w->gone++;
}

static const struct supervisor_events events = { .slot_ready = slot_ready, .slot_gone = slot_gone };

static int fake_spawn(void *ctx, const struct spawn_plan *plan, pid_t *ret)
{
	struct world *w = ctx;
	struct fake *f = &w->workers[w->started];

	if (w->spawn_error)
		return w->spawn_error;
	assert_int_equal(plan->fd_count, WORKER_FD_COUNT);
	assert_int_equal(plan->fds[0], -1);
	*f = (struct fake){
		.pid = (pid_t)(1000 + w->started++), .control = dup(plan->fds[WORKER_FD_CONTROL]), .output = dup(plan->fds[1])
	};
	*ret = f->pid;
	return 0;
}

static int fake_kill(void *ctx, pid_t pid, int sig)
{
	struct world *w = ctx;

	assert_true(pid >= 1000 && pid < (pid_t)(1000 + w->started));
	if (sig == SIGURG)
		w->workers[pid - 1000].asked = true;
	else
		w->workers[pid - 1000].killed = sig;
	return 0;
}

static const char *test_user(void)
{
	return geteuid() == 0 ? "nobody" : NULL;
}

static char *environment[] = { "SETTING=a b", "PATH=/mine" };

static void set_up(struct world *w, unsigned processes, unsigned threads, bool real)
{
	struct supervisor_options o = { .clock = &w->clock.clock, .default_user = test_user(), .end_timeout_ms = END_MS };

	/* Under valgrind /proc/self/exe, which is started anew, is valgrind itself. */
	if (real && getenv("FOREBAY_UNDER_VALGRIND"))
		skip();
	*w = (struct world){ .conf = { .name = "blog",
		                 .app = APP_DEMO,
		                 .processes = processes,
		                 .threads = threads,
		                 .index = 3,
		                 .environment = environment,
		                 .environment_count = 2 } };
	for (unsigned i = 0; i < SLOTS_MAX; i++)
		w->front[i] = -1;
	if (!real) {
		o.spawn = fake_spawn;
		o.kill = fake_kill;
	}
	clock_test_init(&w->clock);
	buf_init(&said, 4u << 20);
	w->base = event_base_new();
	assert_non_null(w->base);
	assert_int_equal(supervisor_new(w->base, &w->conf, &o, &events, w, &w->s), 0);
}

static void tear_down(struct world *w)
{
	supervisor_free(&w->s);
	event_base_free(w->base);
	for (unsigned i = 0; i < w->started; i++) {
		close(w->workers[i].control);
		close(w->workers[i].output);
	}
	for (unsigned i = 0; i < SLOTS_MAX; i++)
		if (w->front[i] != -1)
			close(w->front[i]);
	buf_done(&said);
}

/* Whatever has come. */
static void pump(struct world *w)
{
	(void)event_base_loop(w->base, EVLOOP_NONBLOCK);
}

static void pass_ms(struct world *w, uint64_t ms)
{
	clock_test_advance(&w->clock, ms * 1000);
	supervisor_tick(w->s);
}

static void tell(struct world *w, unsigned worker, uint32_t type, uint32_t seat)
{
	const struct control_message m = { .type = type, .seat = seat };

	assert_int_equal(fdpass_send(w->workers[worker].control, &m, sizeof(m), NULL, 0, 0), sizeof(m));
	pump(w);
}

/* What the master said to a worker; type 0: nothing. A slot socket is in *ret_fd. */
static struct control_message hear(struct world *w, unsigned worker, int *ret_fd)
{
	struct control_message m = { 0 };
	size_t fds;

	*ret_fd = -1;
	if (fdpass_recv(w->workers[worker].control, &m, sizeof(m), ret_fd, 1, &fds, MSG_DONTWAIT) <= 0)
		m.type = 0;
	return m;
}

static void expect_slot(struct world *w, unsigned worker, unsigned seat, unsigned slot)
{
	int fd;
	struct control_message m = hear(w, worker, &fd);
	char byte = 0;

	assert_int_equal(m.type, CONTROL_SLOT);
	assert_int_equal(m.seat, seat);
	assert_int_equal(w->pid[slot], w->workers[worker].pid);
	assert_int_equal(send(w->front[slot], "x", 1, 0), 1);
	assert_int_equal(recv(fd, &byte, 1, 0), 1);
	assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	close(fd);
}

static void expect_nothing(struct world *w, unsigned worker)
{
	int fd;

	assert_int_equal(hear(w, worker, &fd).type, 0);
}

static void expect_end(struct world *w, unsigned worker)
{
	int fd;

	assert_int_equal(hear(w, worker, &fd).type, CONTROL_END);
}

static void expect_end_without(struct world *w, unsigned worker, unsigned seat)
{
	int fd;
	struct control_message m = hear(w, worker, &fd);

	assert_int_equal(m.type, CONTROL_END_WITHOUT);
	assert_int_equal(m.seat, seat);
}

static void die(struct world *w, unsigned worker, int status)
{
	assert_true(supervisor_reaped(w->s, w->workers[worker].pid, status));
}

#define SIGNALED(sig) (sig)
#define EXITED(code)  ((code) << 8)

static void slots_are_handed_out_when_worker_and_front_are_there(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 2, 3, false);
	assert_int_equal(supervisor_slots(w.s), 12); /* both generations */
	assert_int_equal(w.started, 0);
	supervisor_start(w.s);
	assert_int_equal(w.started, 2);
	assert_int_equal(supervisor_alive(w.s), 2);
	tell(&w, 1, CONTROL_WANT, 2);
	tell(&w, 0, CONTROL_WANT, 0);
	assert_int_equal(w.ready, 0);
	supervisor_fresh_slots(w.s);
	assert_int_equal(w.ready, 2);
	expect_slot(&w, 0, 0, 0);
	expect_slot(&w, 1, 2, 5);
	tell(&w, 1, CONTROL_WANT, 0);
	expect_slot(&w, 1, 0, 3);
	tear_down(&w);
}

static void a_slot_that_is_lost_at_once_comes_again_after_a_pause(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 1, 1, false);
	supervisor_start(w.s);
	supervisor_fresh_slots(w.s);
	tell(&w, 0, CONTROL_WANT, 0);
	expect_slot(&w, 0, 0, 0);
	tell(&w, 0, CONTROL_WANT, 0);
	expect_nothing(&w, 0);
	pass_ms(&w, 99);
	expect_nothing(&w, 0);
	pass_ms(&w, 1);
	expect_slot(&w, 0, 0, 0);
	pass_ms(&w, 100);
	tell(&w, 0, CONTROL_WANT, 0);
	expect_slot(&w, 0, 0, 0);
	tear_down(&w);
}

static void a_new_front_gets_the_slots_that_are_free(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 1, 2, false);
	supervisor_start(w.s);
	supervisor_fresh_slots(w.s);
	tell(&w, 0, CONTROL_WANT, 0);
	tell(&w, 0, CONTROL_WANT, 1);
	expect_slot(&w, 0, 0, 0);
	expect_slot(&w, 0, 1, 1);
	supervisor_front_lost(w.s);
	tell(&w, 0, CONTROL_WANT, 0); /* it saw the end of its socket; the other one is in the application */
	pass_ms(&w, 1000);
	expect_nothing(&w, 0);
	supervisor_fresh_slots(w.s);
	expect_slot(&w, 0, 0, 0);
	expect_nothing(&w, 0);
	assert_int_equal(w.ready, 3);
	tell(&w, 0, CONTROL_WANT, 1);
	expect_slot(&w, 0, 1, 1);
	tear_down(&w);
}

/* The n-th successor comes after this many milliseconds, a quarter more or less. */
static const uint64_t pauses_ms[] = { 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000 };

static void expect_successor_after(struct world *w, uint64_t ms)
{
	unsigned started = w->started;

	pass_ms(w, ms - ms / 4 - 1);
	assert_int_equal(w->started, started);
	pass_ms(w, ms / 2 + 2);
	assert_int_equal(w->started, started + 1);
}

static void a_crash_loop_is_said_once(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 1, 1, false);
	supervisor_start(w.s);
	for (size_t i = 0; i < ARRAY_LEN(pauses_ms); i++) {
		buf_clear(&said);
		die(&w, w.started - 1, SIGNALED(SIGSEGV));
		assert_int_equal(supervisor_alive(w.s), 0);
		assert_int_equal(was_said("again and again"), i == 4);
		expect_successor_after(&w, pauses_ms[i]);
	}
	tear_down(&w);
}

static void the_pauses_end_at_half_a_minute_and_begin_anew(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 1, 1, false);
	supervisor_start(w.s);
	for (size_t i = 0; i < ARRAY_LEN(pauses_ms); i++) {
		die(&w, w.started - 1, EXITED(1));
		expect_successor_after(&w, pauses_ms[i]);
	}
	pass_ms(&w, 10000); /* it has lived well */
	die(&w, w.started - 1, EXITED(1));
	expect_successor_after(&w, 100);
	die(&w, w.started - 1, EXITED(1));
	expect_successor_after(&w, 100);
	die(&w, w.started - 1, EXITED(1));
	expect_successor_after(&w, 200);
	tear_down(&w);
}

static const struct {
	int status;
	const char *said;
} ends[] = {
	{ SIGNALED(SIGKILL), "how=\"signal 9 (Killed)\"" },
	{ SIGNALED(SIGABRT) | 0x80, "how=\"signal 6 (Aborted), core dumped\"" },
	{ EXITED(0), "how=\"exit 0\"" },
	{ EXITED(126), "how=\"exit 126\"" },
};

static void how_a_worker_ended_is_said(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
		struct world w;

		set_up(&w, 1, 1, false);
		supervisor_start(w.s);
		supervisor_fresh_slots(w.s);
		tell(&w, 0, CONTROL_WANT, 0);
		assert_false(supervisor_reaped(w.s, 999, ends[i].status));
		die(&w, 0, ends[i].status);
		assert_false(supervisor_reaped(w.s, 1000, ends[i].status));
		assert_int_equal(w.gone, 1);
		if (!was_said(ends[i].said))
			fail_msg("row %zu: %.*s", i, SLICE_ARG(buf_slice(&said)));
		tear_down(&w);
	}
}

static void a_worker_that_has_done_its_share_is_replaced_at_once(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 1, 1, false);
	supervisor_start(w.s);
	tell(&w, 0, CONTROL_WANT, 0);
	tell(&w, 0, CONTROL_SPENT, 0);
	assert_int_equal(w.started, 1);
	die(&w, 0, EXITED(0));
	assert_int_equal(w.started, 2);
	tell(&w, 1, CONTROL_SPENT, 0); /* one that never ends */
	pass_ms(&w, END_MS - 1);
	assert_int_equal(w.workers[1].killed, 0);
	pass_ms(&w, 1);
	assert_int_equal(w.workers[1].killed, SIGKILL);
	tear_down(&w);
}

static void workers_that_have_done_their_share_at_once_do_not_spin(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 1, 1, false);
	supervisor_start(w.s);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(w.started, i + 1);
		tell(&w, i, CONTROL_SPENT, 0);
		die(&w, i, EXITED(0));
	}
	assert_int_equal(w.started, 5); /* the fifth in a row that did not live for 100 ms */
	pass_ms(&w, 99);
	assert_int_equal(w.started, 5);
	pass_ms(&w, 1);
	assert_int_equal(w.started, 6);
	tear_down(&w);
}

static void a_worker_that_is_stuck_is_ended_and_replaced(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 2, 2, false);
	supervisor_start(w.s);
	tell(&w, 0, CONTROL_WANT, 0);
	tell(&w, 1, CONTROL_WANT, 0);
	supervisor_replace(w.s, 0, 1001); /* there was another worker when that was said */
	supervisor_replace(w.s, 2, 1001); /* the second process's first slot */
	assert_true(w.workers[1].asked);
	supervisor_replace(w.s, 3, 0); /* the same process */
	supervisor_replace(w.s, 4, 0); /* nobody has it */
	supervisor_replace(w.s, 8, 0); /* no slot at all */
	expect_nothing(&w, 0);
	expect_end_without(&w, 1, 0);
	expect_end_without(&w, 1, 1);
	expect_nothing(&w, 1);
	assert_true(was_said("longer than timeout"));
	supervisor_fresh_slots(w.s);
	expect_nothing(&w, 1); /* it gets no slots any more */
	pass_ms(&w, END_MS);
	assert_int_equal(w.workers[0].killed, 0);
	assert_int_equal(w.workers[1].killed, SIGKILL);
	assert_int_equal(w.started, 3); /* beside it: it took its time */
	die(&w, 1, SIGNALED(SIGKILL));
	assert_int_equal(w.started, 3);
	supervisor_replace(w.s, 4, 0); /* a successor that still starts */
	expect_end_without(&w, 2, 0);
	tear_down(&w);
}

/* Serving on all seats. */
static void up_with_slots(struct world *w, unsigned worker, unsigned threads)
{
	int fd;

	for (unsigned i = 0; i < threads; i++)
		tell(w, worker, CONTROL_WANT, i);
	for (unsigned i = 0; i < threads; i++) {
		assert_int_equal(hear(w, worker, &fd).type, CONTROL_SLOT);
		close(fd);
	}
}

static void start_patient(struct world *w, unsigned threads)
{
	set_up(w, 1, threads, false);
	w->conf.timeout_ms = TIMEOUT_MS;
	supervisor_start(w->s);
	supervisor_fresh_slots(w->s);
	up_with_slots(w, 0, threads);
}

/* What it has begun may take as long as a request may take; it is relieved long before. */
static void whoever_ends_has_time_for_its_requests(void **state)
{
	static const enum control_type why[] = { CONTROL_SPENT, CONTROL_SWOLLEN };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(why); i++) {
		struct world w;

		start_patient(&w, 2);
		tell(&w, 0, why[i], 0);
		pass_ms(&w, 999);
		assert_int_equal(w.started, 1);
		pass_ms(&w, 1);
		assert_int_equal(w.started, 2);
		pass_ms(&w, TIMEOUT_MS + END_MS - 1001);
		assert_int_equal(w.workers[0].killed, 0);
		pass_ms(&w, 1);
		assert_int_equal(w.workers[0].killed, SIGKILL);
		die(&w, 0, SIGNALED(SIGKILL));
		pass_ms(&w, 60000);
		assert_int_equal(w.started, 2);
		tear_down(&w);
	}
}

static void those_that_leave_do_not_take_all_places(void **state)
{
	struct world w;

	(void)state;
	start_patient(&w, 2);
	tell(&w, 0, CONTROL_SPENT, 0);
	pass_ms(&w, 1000);
	up_with_slots(&w, 1, 2);
	tell(&w, 1, CONTROL_SPENT, 0);
	pass_ms(&w, 1000);
	assert_int_equal(w.started, 2); /* there is no place for a third one, and nobody serves */
	pass_ms(&w, END_MS - 1);
	assert_int_equal(w.workers[0].killed, 0);
	pass_ms(&w, 1);
	assert_int_equal(w.workers[0].killed, SIGKILL);
	assert_int_equal(w.workers[1].killed, 0);
	die(&w, 0, SIGNALED(SIGKILL));
	pass_ms(&w, 50);
	assert_int_equal(w.started, 3);
	tear_down(&w);
}

static void nobody_waits_for_one_whose_requests_are_all_given_up(void **state)
{
	struct world w;

	(void)state;
	start_patient(&w, 2);
	supervisor_replace(w.s, 0, 0);
	pass_ms(&w, 2 * END_MS);
	assert_int_equal(w.workers[0].killed, 0); /* the other one's */
	supervisor_replace(w.s, 1, 0);
	pass_ms(&w, END_MS - 1);
	assert_int_equal(w.workers[0].killed, 0);
	pass_ms(&w, 1);
	assert_int_equal(w.workers[0].killed, SIGKILL);
	tear_down(&w);
}

static void at_the_very_end_nobody_waits_for_long(void **state)
{
	struct world w;

	(void)state;
	start_patient(&w, 1);
	tell(&w, 0, CONTROL_SPENT, 0); /* it ends already, and takes its time */
	pass_ms(&w, 1000);
	up_with_slots(&w, 1, 1);
	supervisor_stop(w.s, false); /* no front, no requests */
	pass_ms(&w, END_MS - 1);
	assert_int_equal(w.workers[0].killed, 0);
	assert_int_equal(w.workers[1].killed, 0);
	pass_ms(&w, 1);
	assert_int_equal(w.workers[0].killed, SIGKILL);
	assert_int_equal(w.workers[1].killed, SIGKILL);
	assert_int_equal(w.started, 2);
	tear_down(&w);
}

static void at_the_end_workers_are_asked_then_killed_and_not_replaced(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 3, 1, false);
	supervisor_start(w.s);
	tell(&w, 0, CONTROL_WANT, 0);
	tell(&w, 1, CONTROL_WANT, 0);
	die(&w, 2, SIGNALED(SIGSEGV));
	supervisor_stop(w.s, false);
	expect_end(&w, 0);
	expect_end(&w, 1);
	die(&w, 0, EXITED(0));
	assert_int_equal(supervisor_alive(w.s), 1);
	pass_ms(&w, END_MS - 1);
	assert_int_equal(w.workers[1].killed, 0);
	pass_ms(&w, 1);
	assert_int_equal(w.workers[1].killed, SIGKILL);
	die(&w, 1, SIGNALED(SIGKILL));
	assert_int_equal(supervisor_alive(w.s), 0);
	pass_ms(&w, 60000);
	assert_int_equal(w.started, 3);
	tear_down(&w);
}

static void a_second_word_kills_at_once(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 2, 1, false);
	supervisor_start(w.s);
	tell(&w, 0, CONTROL_WANT, 0);
	supervisor_stop(w.s, false);
	supervisor_stop(w.s, true);
	assert_int_equal(w.workers[0].killed, SIGKILL);
	assert_int_equal(w.workers[1].killed, SIGKILL);
	tear_down(&w);
}

static const struct {
	const char *bytes;
	size_t len;
	bool with_fd;
	struct control_message before; /* said twice is once too often */
} nonsense[] = {
	{ "short", 5, false, { 0 } },
	{ "longer than a message", 21, false, { 0 } },
	{ "\1\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0", 16, false, { 0 } }, /* no such seat */
	{ "\1\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0", 16, false, { 0 } },
	{ "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, true, { 0 } }, /* a descriptor */
	{ "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, false, { CONTROL_WANT, 0, 0 } },
	{ "\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, false, { 0 } }, /* what masters say */
	{ "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, false, { 0 } },
};

static void a_worker_that_talks_nonsense_is_killed(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(nonsense); i++) {
		struct world w;

		set_up(&w, 1, 2, false);
		supervisor_start(w.s);
		if (nonsense[i].before.type)
			tell(&w, 0, nonsense[i].before.type, nonsense[i].before.seat);
		assert_true(fdpass_send(w.workers[0].control, nonsense[i].bytes, nonsense[i].len, &w.workers[0].output,
		                nonsense[i].with_fd ? 1 : 0, 0) > 0);
		pump(&w);
		if (w.workers[0].killed != SIGKILL)
			fail_msg("row %zu: it lives", i);
		die(&w, 0, SIGNALED(SIGKILL));
		expect_successor_after(&w, 100); /* no way around the pause */
		tear_down(&w);
	}
}

static void a_worker_that_closes_its_control_socket_has_to_end(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 1, 1, false);
	supervisor_start(w.s);
	(void)shutdown(w.workers[0].control, SHUT_RDWR);
	pump(&w);
	pass_ms(&w, END_MS - 1);
	assert_int_equal(w.workers[0].killed, 0);
	pass_ms(&w, 1);
	assert_int_equal(w.workers[0].killed, SIGKILL);
	tear_down(&w);
}

static void what_cannot_be_started_is_tried_again(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 1, 1, false);
	w.spawn_error = -EAGAIN;
	supervisor_start(w.s);
	assert_true(was_said("error=EAGAIN"));
	assert_int_equal(supervisor_alive(w.s), 0);
	w.spawn_error = 0;
	expect_successor_after(&w, 100);
	tear_down(&w);
}

static void write_output(struct world *w, const char *text, size_t len)
{
	assert_int_equal(write(w->workers[0].output, text, len), (ssize_t)len);
	for (int i = 0; i < 4; i++)
		pump(w);
}

static void what_workers_write_becomes_lines_of_the_log(void **state)
{
	struct world w;
	char line[OUTPUT_LINE_MAX + 10];

	(void)state;
	set_up(&w, 1, 1, false);
	supervisor_start(w.s);
	write_output(&w, "one\ntwo", 7);
	assert_true(was_said("pool=blog pid=1000 output=\"one\"\n"));
	assert_false(was_said("two"));
	write_output(&w, " more\n\n", 7);
	assert_true(was_said("output=\"two more\"\n"));
	write_output(&w, "\33[31m\"\\\xff\n", 9);
	assert_true(was_said("output=\"\\x1b[31m\\x22\\x5c\\xff\"\n"));

	memset(line, 'a', sizeof(line)); /* longer than a line may be: pieces, and not a byte lost */
	buf_clear(&said);
	write_output(&w, line, sizeof(line));
	write_output(&w, "\n", 1);
	size_t count = 0;
	for (size_t i = 0; i < said.len; i++)
		count += said.ptr[i] == 'a';
	assert_in_range(count, sizeof(line), sizeof(line) + 100); /* the keys have some too */

	write_output(&w, "last words", 10);
	assert_false(was_said("last words"));
	die(&w, 0, EXITED(1));
	assert_true(was_said("output=\"last words\"\n"));
	tear_down(&w);
}

static void the_started_page_is_for_reading(void **state)
{
	struct world w;
	struct stat st;
	int fd;

	(void)state;
	set_up(&w, 2, 4, false);
	fd = supervisor_started_fd(w.s);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 16 * STARTED_LINE_BYTES);
	assert_int_equal(supervisor_started_bytes(w.s), 16 * STARTED_LINE_BYTES);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(write(fd, "x", 1), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_ptr_equal(mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	close(fd);
	tear_down(&w);
}

static const struct {
	struct conf_pool conf;
	bool default_user;
	int as_root, as_other;
} refused[] = {
	{ { .name = "p", .app = APP_DEMO, .processes = 1, .threads = 1 }, false, -EPERM, 0 },
	{ { .name = "p", .app = APP_EXEC, .processes = 1, .threads = 1 }, true, -ENOTSUP, -ENOTSUP },
	{ { .name = "p", .app = APP_DEMO, .processes = 1, .threads = 1, .user = "no-such-user-here" }, true, -ENOENT, -ENOENT },
	{ { .name = "p", .app = APP_DEMO, .processes = 1, .threads = 1, .user = "root" }, true, 0, -EPERM },
	{ { .name = "p", .app = APP_DEMO, .processes = 1, .threads = 1, .directory = "/nowhere/at/all" }, true, -ENOENT,
	    -ENOENT },
};

static void a_pool_that_cannot_be_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		struct supervisor_options o = { .clock = &clock_real,
			.default_user = refused[i].default_user ? test_user() : NULL };
		struct event_base *base = event_base_new();
		struct supervisor *s = NULL;
		int want = geteuid() == 0 ? refused[i].as_root : refused[i].as_other, got;

		buf_init(&said, 1u << 16);
		got = supervisor_new(base, &refused[i].conf, &o, &events, NULL, &s);
		if (got != want || (want && (s || said.len == 0)))
			fail_msg("row %zu: %d", i, got);
		supervisor_free(&s);
		event_base_free(base);
		buf_done(&said);
	}
}

static const struct {
	unsigned threads;
	struct rlimit given;
	rlim_t soft;
} open_files[] = {
	{ 1, { 0, 0 }, 0 },                                           /* nothing is known: ours stays */
	{ 1, { 1024, 4096 }, 1024 },                                  /* not what the front has made of it */
	{ 1, { 20, 4096 }, 68 },                                      /* 64, and 4 for each thread, are needed */
	{ 500, { 1024, 4096 }, 2064 }, { 500, { 1024, 2000 }, 2000 }, /* and are not to be had */
};

static int note_descriptors(void *ctx, const struct spawn_plan *plan, pid_t *ret UNUSED)
{
	*(struct rlimit *)ctx = plan->descriptors;
	return -EAGAIN;
}

static void processes_have_the_open_files_that_we_were_given(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(open_files); i++) {
		struct conf_pool conf = { .name = "p", .app = APP_DEMO, .processes = 1, .threads = open_files[i].threads };
		struct supervisor_options o = { .clock = &clock_real,
			.default_user = test_user(),
			.descriptors = open_files[i].given,
			.spawn = note_descriptors };
		struct event_base *base = event_base_new();
		struct supervisor *s = NULL;
		struct rlimit got = { 1, 1 };

		buf_init(&said, 1u << 16);
		assert_int_equal(supervisor_new(base, &conf, &o, &events, &got, &s), 0);
		supervisor_start(s);
		if (got.rlim_cur != open_files[i].soft || got.rlim_max != open_files[i].given.rlim_max)
			fail_msg("row %zu: %lu of %lu", i, (unsigned long)got.rlim_cur, (unsigned long)got.rlim_max);
		supervisor_free(&s);
		event_base_free(base);
		buf_done(&said);
	}
}

/* With real processes: this very program, which is a worker when its arguments say so (main). */

static void wait_for_slots(struct world *w, unsigned count)
{
	while (w->ready < count)
		assert_int_equal(event_base_loop(w->base, EVLOOP_ONCE), 0);
}

static void ask(int fd, uint64_t serial, const char *path)
{
	struct buf b, variables;
	char length[4], header[WIRE_HEADER_BYTES];

	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	buf_init(&b, 4096);
	buf_init(&variables, 4096);
	wire_put_pair(&variables, SLICE("PATH_INFO"), slice_str(path));
	if (serial == 1)
		wire_put_hello(&b);
	wire_put_header(
	    header, &(struct wire_frame){ .type = WIRE_REQUEST, .length = (uint32_t)(4 + variables.len), .serial = serial });
	wire_put_u32(length, (uint32_t)variables.len);
	buf_add(&b, slice_of(header, sizeof(header)));
	buf_add(&b, slice_of(length, 4));
	buf_add(&b, buf_slice(&variables));
	assert_int_equal(send(fd, b.ptr, b.len, MSG_NOSIGNAL), (ssize_t)b.len);
	buf_done(&b);
	buf_done(&variables);
}

/* True if END came. */
static bool hear_whole(int fd, struct buf *content)
{
	char bytes[4096];
	struct wire_frame f;

	while (recv(fd, bytes, WIRE_HEADER_BYTES, MSG_WAITALL) == WIRE_HEADER_BYTES) {
		assert_int_equal(wire_get_header(slice_of(bytes, WIRE_HEADER_BYTES), &f), 1);
		assert_in_range(f.length, 0, sizeof(bytes));
		if (f.length > 0)
			assert_int_equal(recv(fd, bytes, f.length, MSG_WAITALL), (ssize_t)f.length);
		if (f.type == WIRE_DATA)
			buf_add(content, slice_of(bytes, f.length));
		if (f.type == WIRE_END)
			return true;
	}
	return false;
}

static size_t count_fds(pid_t pid)
{
	char path[64];
	size_t n = 0;
	DIR *d;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	assert_non_null(d);
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void read_file(pid_t pid, const char *name, struct buf *to)
{
	char path[64], bytes[4096];
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_not_equal(fd, -1);
	while ((n = read(fd, bytes, sizeof(bytes))) > 0)
		buf_add(to, slice_of(bytes, (size_t)n));
	close(fd);
}

static bool has(const struct buf *b, const char *text, size_t len)
{
	return memmem(b->ptr, b->len, text, len) != NULL;
}

static int reap(struct world *w, pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(supervisor_reaped(w->s, pid, status));
	return status;
}

static void a_real_worker_has_what_it_shall_have_and_no_more(void **state)
{
	struct world w;
	struct buf b;

	(void)state;
	assert_int_equal(setenv("SECRET_OF_THE_MASTER", "x", 1), 0);
	set_up(&w, 1, 2, true);
	w.conf.directory = "/usr";
	supervisor_start(w.s);
	supervisor_fresh_slots(w.s);
	wait_for_slots(&w, 2);
	buf_init(&b, 1u << 16);
	ask(w.front[1], 1, "/echo");
	assert_true(hear_whole(w.front[1], &b));
	assert_true(slice_starts(buf_slice(&b), SLICE("PATH_INFO=/echo\n")));
	buf_clear(&b);
	read_file(w.pid[0], "environ", &b);
	assert_true(has(&b, "SETTING=a b\0", 12));
	assert_true(has(&b, "PATH=/mine\0", 11));
	assert_false(has(&b, "SECRET", 6));
	buf_clear(&b);
	read_file(w.pid[0], "cmdline", &b);
	assert_true(slice_starts(buf_slice(&b), SLICE("forebay: worker blog 1\0worker\0interface=1\0app=demo\0pool=blog\0")));
	assert_int_equal(getpgid(w.pid[0]), w.pid[0]);
	/* Standard ones, control, the threads' end, the main thread's waking, two slots: nothing of ours. */
	assert_int_equal(count_fds(w.pid[0]), 8);
	if (geteuid() == 0) {
		buf_clear(&b);
		read_file(w.pid[0], "status", &b);
		assert_true(has(&b, "Uid:\t65534\t65534\t65534\t65534\n", 29));
		assert_true(has(&b, "CapEff:\t0000000000000000\n", 25));
	}
	buf_done(&b);
	supervisor_stop(w.s, false);
	assert_int_equal(reap(&w, w.pid[0]), 0);
	tear_down(&w);
	(void)unsetenv("SECRET_OF_THE_MASTER");
}

static void the_started_page_outlives_a_kill(void **state)
{
	const _Atomic uint64_t *page;
	struct world w;
	struct buf b;
	pid_t first;
	int fd;

	(void)state;
	set_up(&w, 1, 1, true);
	fd = supervisor_started_fd(w.s);
	page = mmap(NULL, supervisor_started_bytes(w.s), PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(page, MAP_FAILED);
	close(fd);
	supervisor_start(w.s);
	supervisor_fresh_slots(w.s);
	wait_for_slots(&w, 1);
	first = w.pid[0];
	buf_init(&b, 1u << 16);
	assert_int_equal(kill(first, SIGSTOP), 0);
	assert_int_equal(waitpid(first, NULL, WUNTRACED), first); /* it stands still */
	ask(w.front[0], 1, "/echo");
	assert_int_equal(kill(first, SIGKILL), 0);
	assert_false(hear_whole(w.front[0], &b));
	assert_int_equal(atomic_load(page), 0); /* it never began */
	assert_int_equal(reap(&w, first), SIGKILL);
	pass_ms(&w, 125);
	wait_for_slots(&w, 2);
	assert_int_not_equal(w.pid[0], first);
	ask(w.front[0], 1, "/exit");
	assert_false(hear_whole(w.front[0], &b));
	assert_int_equal(atomic_load(page), 1); /* it did */
	assert_int_equal(reap(&w, w.pid[0]), 0);
	pass_ms(&w, 250);
	wait_for_slots(&w, 3);
	ask(w.front[0], 1, "/echo");
	assert_true(hear_whole(w.front[0], &b));
	supervisor_stop(w.s, true);
	assert_int_equal(reap(&w, w.pid[0]), SIGKILL);
	buf_done(&b);
	assert_int_equal(munmap((void *)(uintptr_t)page, supervisor_started_bytes(w.s)), 0);
	tear_down(&w);
}

static void real_workers_take_a_new_front(void **state)
{
	struct world w;
	struct buf b;

	(void)state;
	set_up(&w, 2, 2, true);
	supervisor_start(w.s);
	supervisor_fresh_slots(w.s);
	wait_for_slots(&w, 4);
	supervisor_front_lost(w.s);
	for (unsigned i = 0; i < 4; i++) {
		close(w.front[i]);
		w.front[i] = -1;
	}
	supervisor_fresh_slots(w.s);
	wait_for_slots(&w, 8);
	buf_init(&b, 1u << 16);
	for (unsigned i = 0; i < 4; i++) {
		ask(w.front[i], 1, "/echo");
		assert_true(hear_whole(w.front[i], &b));
	}
	buf_done(&b);
	supervisor_stop(w.s, false);
	assert_int_equal(reap(&w, w.pid[0]), 0);
	assert_int_equal(reap(&w, w.pid[2]), 0);
	tear_down(&w);
}

static void what_is_let_go_of_is_ended(void **state)
{
	struct pollfd p;
	struct world w;

	(void)state;
	set_up(&w, 1, 1, true);
	supervisor_start(w.s);
	supervisor_fresh_slots(w.s);
	wait_for_slots(&w, 1);
	p = (struct pollfd){ .fd = w.front[0], .events = POLLIN };
	supervisor_free(&w.s);
	assert_int_equal(poll(&p, 1, -1), 1);
	assert_int_equal(waitpid(w.pid[0], NULL, 0), w.pid[0]);
	tear_down(&w);
}

static void a_worker_that_cannot_be_set_up_says_why(void **state)
{
	struct world w;
	char directory[] = "/tmp/forebay-test-XXXXXX", why[128];
	pid_t pid;
	int status;

	(void)state;
	assert_non_null(mkdtemp(directory));
	set_up(&w, 1, 1, true);
	w.conf.directory = directory;
	assert_int_equal(rmdir(directory), 0);
	(void)snprintf(why, sizeof(why), "could not be set up: directory %s: No such file or directory%s", directory,
	    geteuid() == 0 ? ", as user nobody" : "");
	supervisor_start(w.s);
	pid = waitpid(-1, &status, 0);
	assert_true(supervisor_reaped(w.s, pid, status));
	assert_int_equal(WEXITSTATUS(status), 126);
	assert_true(was_said(why));
	tear_down(&w);
}

static void a_worker_started_by_hand_refuses(void **state)
{
	static char *const calls[][16] = {
		{ "forebay", "worker", NULL },
		{ "forebay", "worker", "interface=1", "app=demo", "pool=p", "target=", "virtualenv=", "processes=1",
		    "threads=1", "debug=0", "place=0", "max_requests=0", "max_memory=0",
		    "health_path=", "preload_request=", NULL },
		{ "forebay", "worker", "interface=1", "app=none", "pool=p", "target=", "virtualenv=", "processes=1",
		    "threads=1", "debug=0", "place=0", "max_requests=0", "max_memory=0",
		    "health_path=", "preload_request=", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
		pid_t pid = fork();
		int argc = 0, status;

		if (pid == 0) {
			(void)close_range(3, ~0u, 0);
			(void)dup2(open("/dev/null", O_RDWR), STDERR_FILENO);
			while (calls[i][argc])
				argc++;
			_exit(worker_main(argc, (char **)(uintptr_t)calls[i], &demo_app));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 2)
			fail_msg("row %zu: status %x", i, (unsigned)status);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots_are_handed_out_when_worker_and_front_are_there),
		cmocka_unit_test(a_slot_that_is_lost_at_once_comes_again_after_a_pause),
		cmocka_unit_test(a_new_front_gets_the_slots_that_are_free),
		cmocka_unit_test(a_crash_loop_is_said_once),
		cmocka_unit_test(the_pauses_end_at_half_a_minute_and_begin_anew),
		cmocka_unit_test(how_a_worker_ended_is_said),
		cmocka_unit_test(a_worker_that_has_done_its_share_is_replaced_at_once),
		cmocka_unit_test(workers_that_have_done_their_share_at_once_do_not_spin),
		cmocka_unit_test(a_worker_that_is_stuck_is_ended_and_replaced),
		cmocka_unit_test(whoever_ends_has_time_for_its_requests),
		cmocka_unit_test(those_that_leave_do_not_take_all_places),
		cmocka_unit_test(nobody_waits_for_one_whose_requests_are_all_given_up),
		cmocka_unit_test(at_the_very_end_nobody_waits_for_long),
		cmocka_unit_test(at_the_end_workers_are_asked_then_killed_and_not_replaced),
		cmocka_unit_test(a_second_word_kills_at_once),
		cmocka_unit_test(a_worker_that_talks_nonsense_is_killed),
		cmocka_unit_test(a_worker_that_closes_its_control_socket_has_to_end),
		cmocka_unit_test(what_cannot_be_started_is_tried_again),
		cmocka_unit_test(what_workers_write_becomes_lines_of_the_log),
		cmocka_unit_test(the_started_page_is_for_reading),
		cmocka_unit_test(a_pool_that_cannot_be_is_refused),
		cmocka_unit_test(processes_have_the_open_files_that_we_were_given),
		cmocka_unit_test(a_real_worker_has_what_it_shall_have_and_no_more),
		cmocka_unit_test(the_started_page_outlives_a_kill),
		cmocka_unit_test(real_workers_take_a_new_front),
		cmocka_unit_test(what_is_let_go_of_is_ended),
		cmocka_unit_test(a_worker_that_cannot_be_set_up_says_why),
		cmocka_unit_test(a_worker_started_by_hand_refuses),
	};

	if (argc > 1 && strcmp(argv[1], "worker") == 0)
		return worker_main(argc, argv, &demo_app);
	alarm(120); /* a hang is a failure */
	log_setup("test", LOG_LEVEL_INFO, log_here, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
