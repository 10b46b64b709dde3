#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/fdpass.h"
#include "core/log.h"
#include "upstream/spawn.h"
#include "upstream/supervisor.h"
#include "upstream/worker/control.h"

#define FAKES_MAX  512
#define PIDS_FROM  5000000 /* no real process has such a number */
#define START_MS   5000
#define END_MS     3000
#define FORK_FAILS 7777 /* a place that no worker has */

/* A process of ours: a zygote, or a worker that was made by exec. A forked one is what SPAWN brought. */
struct fake {
	bool zygote;
	int control, output;
	int killed;
};

struct world {
	struct event_base *base;
	struct clock_test clock;
	struct conf_pool conf;
	struct supervisor *s;
	struct fake fakes[FAKES_MAX];
	unsigned started;
	int spawn_error;
	bool is_child;
	void (*on_kill)(struct world *w, pid_t pid); /* by SIGKILL; may be NULL */
	unsigned ready, start_failed;
	pid_t last_slot_pid;
	uint64_t room; /* memory; 0: not known */
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

static void slot_ready(void *ctx, size_t pool_index UNUSED, unsigned slot UNUSED, int *front_fd UNUSED, pid_t pid)
{
	struct world *w = ctx;

	w->ready++;
	w->last_slot_pid = pid;
}

static void start_failed(void *ctx, size_t pool_index UNUSED)
{
	struct world *w = ctx;

	w->start_failed++;
}

static uint64_t memory_room(void *ctx)
{
	const struct world *w = ctx;

	return w->room ? w->room : UINT64_MAX;
}

static const struct supervisor_events events = {
	.slot_ready = slot_ready, .start_failed = start_failed, .memory_room = memory_room
};

static int fake_spawn(void *ctx, const struct spawn_plan *plan, pid_t *ret)
{
	struct world *w = ctx;

	if (w->spawn_error)
		return w->spawn_error;
	w->fakes[w->started] = (struct fake){
		.zygote = strcmp(plan->argv[1], "zygote") == 0, .control = dup(plan->fds[3]), .output = dup(plan->fds[1])
	};
	*ret = (pid_t)(PIDS_FROM + w->started++);
	return 0;
}

static int fake_kill(void *ctx, pid_t pid, int sig)
{
	struct world *w = ctx;

	if (pid >= PIDS_FROM && pid < (pid_t)(PIDS_FROM + w->started))
		w->fakes[pid - PIDS_FROM].killed = sig;
	if (w->on_kill && sig == SIGKILL)
		w->on_kill(w, pid);
	return 0;
}

static bool fake_is_child(void *ctx, pid_t pid UNUSED)
{
	return ((struct world *)ctx)->is_child;
}

static void set_up(struct world *w, unsigned processes, bool preload)
{
	struct supervisor_options o = { .clock = &w->clock.clock,
		.default_user = geteuid() == 0 ? "nobody" : NULL,
		.end_timeout_ms = END_MS,
		.spawn = fake_spawn,
		.kill = fake_kill,
		.is_child = fake_is_child };

	*w = (struct world){ .conf = { .name = "blog",
		                 .app = APP_DEMO,
		                 .processes = processes,
		                 .threads = 1,
		                 .preload = preload,
		                 .start_timeout_ms = START_MS,
		                 .scale_up_delay_ms = 100,
		                 .scale_down_after_ms = 60000 },
		.is_child = true };
	clock_test_init(&w->clock);
	buf_init(&said, 4u << 20);
	w->base = event_base_new();
	assert_int_equal(supervisor_new(w->base, &w->conf, &o, &events, w, &w->s), 0);
}

static void tear_down(struct world *w)
{
	supervisor_free(&w->s);
	event_base_free(w->base);
	for (unsigned i = 0; i < w->started; i++) {
		close(w->fakes[i].control);
		close(w->fakes[i].output);
	}
	buf_done(&said);
}

static void pump(struct world *w)
{
	(void)event_base_loop(w->base, EVLOOP_NONBLOCK);
	supervisor_tick(w->s);
}

static void pass_ms(struct world *w, uint64_t ms)
{
	clock_test_advance(&w->clock, ms * 1000);
	supervisor_tick(w->s);
}

static void tell(struct world *w, unsigned fake, uint32_t type, uint64_t value)
{
	const struct control_message m = { .type = type, .value = value };

	assert_int_equal(fdpass_send(w->fakes[fake].control, &m, sizeof(m), NULL, 0, 0), sizeof(m));
	pump(w);
}

static void zygote_says(struct world *w, unsigned fake, uint32_t type, const char *text)
{
	struct zygote_message m = { .type = type };

	strcpy(m.text, text);
	assert_int_equal(fdpass_send(w->fakes[fake].control, &m, sizeof(m), NULL, 0, 0), sizeof(m));
	pump(w);
}

/* What the zygote is asked for next: the control socket of a worker, whose place is in *ret_place. -1: nothing. */
static int next_birth(struct world *w, unsigned zygote, unsigned *ret_place)
{
	struct zygote_message m;
	int fds[2];
	size_t count;

	if (fdpass_recv(w->fakes[zygote].control, &m, sizeof(m), fds, 2, &count, MSG_DONTWAIT) <= 0)
		return -1;
	assert_int_equal(m.type, ZYGOTE_SPAWN);
	assert_int_equal(count, 2);
	close(fds[1]);
	*ret_place = m.place;
	return fds[0];
}

static bool heard_end(struct world *w, unsigned fake)
{
	struct control_message m;
	size_t fds;
	int fd = -1;
	bool end = false;

	while (fdpass_recv(w->fakes[fake].control, &m, sizeof(m), &fd, 1, &fds, MSG_DONTWAIT) > 0) {
		end = end || m.type == CONTROL_END;
		if (fd != -1)
			close(fd);
		fd = -1;
	}
	return end;
}

static void die(struct world *w, unsigned fake, int status)
{
	assert_true(supervisor_reaped(w->s, (pid_t)(PIDS_FROM + (int)fake), status));
	pump(w);
}

#define EXITED(code) ((code) << 8)

/* Without a zygote. */

static void up_and_serving(struct world *w, unsigned processes)
{
	set_up(w, processes, false);
	supervisor_start(w->s);
	supervisor_fresh_slots(w->s);
	for (unsigned i = 0; i < processes; i++)
		tell(w, i, CONTROL_WANT, 0);
	assert_int_equal(w->ready, processes);
}

static void the_new_relieve_the_old_one_by_one(void **state)
{
	struct world w;

	(void)state;
	up_and_serving(&w, 2);
	supervisor_restart(w.s, "test");
	assert_int_equal(w.started, 3); /* one at a time */
	assert_false(heard_end(&w, 0));
	tell(&w, 2, CONTROL_WANT, 0);
	assert_true(heard_end(&w, 0)); /* before the front is told of the new one */
	assert_int_equal(w.last_slot_pid, PIDS_FROM + 2);
	assert_int_equal(w.started, 4);
	assert_false(heard_end(&w, 1));
	die(&w, 0, EXITED(0));
	assert_int_equal(w.started, 4); /* nobody in its place */
	tell(&w, 3, CONTROL_WANT, 0);
	assert_true(heard_end(&w, 1));
	assert_false(was_said("rolling restart done")); /* the old one is at its last request still */
	die(&w, 1, EXITED(0));
	assert_true(was_said("rolling restart done"));
	assert_int_equal(supervisor_alive(w.s), 2);
	assert_int_equal(w.ready, 4);
	tear_down(&w);
}

/* What it has begun before the deploy does not fail through it. */
static void the_old_ones_may_take_as_long_as_a_request_may(void **state)
{
	struct world w;

	(void)state;
	up_and_serving(&w, 1);
	w.conf.timeout_ms = 60000;
	supervisor_restart(w.s, "test");
	tell(&w, 1, CONTROL_WANT, 0);
	assert_true(heard_end(&w, 0));
	pass_ms(&w, 60000 + END_MS - 1);
	assert_int_equal(w.fakes[0].killed, 0);
	assert_false(was_said("rolling restart done"));
	pass_ms(&w, 1);
	assert_int_equal(w.fakes[0].killed, SIGKILL);
	die(&w, 0, SIGKILL);
	assert_true(was_said("rolling restart done"));
	assert_int_equal(w.started, 2);
	tear_down(&w);
}

/* What becomes of the first new worker, and what is said. */
static const struct {
	uint32_t type;
	uint64_t value;
	int exit; /* -1: it lives */
	uint64_t after_ms;
	const char *why;
} broken[] = {
	{ 0, 0, 1, 0, "why=\"exit 1\"" },
	{ CONTROL_UNFIT, 500, 1, 0, "why=\"health_path was answered with status 500\"" },
	{ CONTROL_UNFIT, 0, 1, 0, "why=\"health_path was not answered\"" },
	{ 0, 0, -1, START_MS, "why=\"it took longer than start_timeout\"" },
};

static void what_fails_leaves_the_old_ones_serving(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
		struct world w;

		up_and_serving(&w, 2);
		supervisor_restart(w.s, "test");
		if (broken[i].type)
			tell(&w, 2, broken[i].type, broken[i].value);
		pass_ms(&w, broken[i].after_ms);
		if (broken[i].exit < 0)
			assert_int_equal(w.fakes[2].killed, SIGKILL);
		die(&w, 2, broken[i].exit < 0 ? SIGKILL : EXITED(broken[i].exit));
		if (!was_said("rolling restart failed") || !was_said(broken[i].why))
			fail_msg("row %zu: %.*s", i, SLICE_ARG(buf_slice(&said)));
		pass_ms(&w, 60000);
		assert_false(heard_end(&w, 0) || heard_end(&w, 1));
		assert_int_equal(w.started, 3); /* not tried again by itself */
		assert_int_equal(supervisor_alive(w.s), 2);
		supervisor_restart(w.s, "again");
		tell(&w, 3, CONTROL_WANT, 0);
		assert_true(heard_end(&w, 0));
		tear_down(&w);
	}
}

static void asked_for_while_one_runs_it_runs_once_more(void **state)
{
	struct world w;

	(void)state;
	up_and_serving(&w, 1);
	for (int i = 0; i < 3; i++)
		supervisor_restart(w.s, "test");
	assert_int_equal(w.started, 2);
	tell(&w, 1, CONTROL_WANT, 0);
	assert_true(heard_end(&w, 0));
	die(&w, 0, EXITED(0));
	pass_ms(&w, 60); /* its place is seen to be free */
	assert_int_equal(w.started, 3);
	tell(&w, 2, CONTROL_WANT, 0);
	assert_true(heard_end(&w, 1));
	die(&w, 1, EXITED(0));
	pass_ms(&w, 60000);
	assert_int_equal(w.started, 3);
	tear_down(&w);
}

static void a_place_is_waited_for(void **state)
{
	struct world w;

	(void)state;
	up_and_serving(&w, 1);
	supervisor_restart(w.s, "test");
	tell(&w, 1, CONTROL_WANT, 0);
	supervisor_restart(w.s, "again"); /* the first one is still at its last request: both places are taken */
	assert_int_equal(w.started, 2);
	pass_ms(&w, 60);
	assert_int_equal(w.started, 2);
	die(&w, 0, EXITED(0));
	pass_ms(&w, 60);
	assert_int_equal(w.started, 3);
	tear_down(&w);
}

static void an_old_one_that_dies_meanwhile_is_replaced_too(void **state)
{
	struct world w;

	(void)state;
	up_and_serving(&w, 2);
	supervisor_restart(w.s, "test");
	die(&w, 1, SIGKILL);
	tell(&w, 2, CONTROL_WANT, 0);
	assert_true(heard_end(&w, 0));
	pass_ms(&w, 130);
	assert_int_equal(w.started, 4); /* in its place, of the new generation */
	tell(&w, 3, CONTROL_WANT, 0);
	pass_ms(&w, 60000);
	assert_int_equal(w.started, 4);
	tear_down(&w);
}

static void a_start_that_cannot_be_is_said_once(void **state)
{
	struct world w;
	size_t len;

	(void)state;
	up_and_serving(&w, 1);
	w.spawn_error = -EAGAIN;
	die(&w, 0, SIGKILL);
	pass_ms(&w, 130);
	assert_true(was_said("could not be started\" error=EAGAIN"));
	len = said.len;
	for (int i = 0; i < 4; i++)
		pass_ms(&w, 40000);
	assert_int_equal(memmem(said.ptr + len, said.len - len, "EAGAIN", 6) == NULL, 1);
	w.spawn_error = 0;
	pass_ms(&w, 40000);
	assert_int_equal(w.started, 2);
	tear_down(&w);
}

/* With a zygote. */

static int born(struct world *w, unsigned zygote, unsigned want_place)
{
	unsigned place = FORK_FAILS;
	int control = next_birth(w, zygote, &place);

	assert_int_not_equal(control, -1);
	assert_int_equal(place, want_place);
	return control;
}

static void says(struct world *w, int control, uint32_t type)
{
	const struct control_message m = { .type = type };

	assert_int_equal(fdpass_send(control, &m, sizeof(m), NULL, 0, 0), sizeof(m));
	pump(w);
}

static void workers_are_forked_once_the_application_is_loaded(void **state)
{
	struct world w;
	unsigned place;
	int one, two;

	(void)state;
	set_up(&w, 2, true);
	supervisor_start(w.s);
	supervisor_fresh_slots(w.s);
	assert_int_equal(w.started, 1);
	assert_true(w.fakes[0].zygote);
	pass_ms(&w, 1000);
	assert_int_equal(next_birth(&w, 0, &place), -1);
	zygote_says(&w, 0, ZYGOTE_READY, "");
	one = born(&w, 0, 0);
	two = born(&w, 0, 1);
	says(&w, one, CONTROL_HERE); /* the kernel says that it is this very process */
	says(&w, one, CONTROL_WANT);
	assert_int_equal(w.ready, 1);
	assert_int_equal(w.last_slot_pid, getpid());
	assert_true(supervisor_knows(w.s, getpid()));
	says(&w, two, CONTROL_HERE); /* two of the same process: that cannot be */
	assert_true(was_said("no child of forebay's, or another one"));
	close(one);
	close(two);
	assert_true(supervisor_reaped(w.s, getpid(), EXITED(0)));
	tear_down(&w);
}

static void a_fork_that_cannot_be_is_said_once(void **state)
{
	const struct zygote_message no_fork = { .type = ZYGOTE_NO_FORK, .error = EAGAIN };
	struct world w;
	size_t len = 0;

	(void)state;
	set_up(&w, 1, true);
	supervisor_start(w.s);
	zygote_says(&w, 0, ZYGOTE_READY, "");
	for (int i = 0; i < 10; i++) {
		int control = born(&w, 0, 0);

		assert_int_equal(fdpass_send(w.fakes[0].control, &no_fork, sizeof(no_fork), NULL, 0, 0), sizeof(no_fork));
		close(control);
		pump(&w);
		if (i == 0)
			len = said.len;
		pass_ms(&w, 40000);
	}
	assert_true(was_said("could not be started\" error=EAGAIN"));
	assert_null(memmem(said.ptr + len, said.len - len, "EAGAIN", 6));
	assert_null(memmem(said.ptr, said.len, "worker lost", 11));
	says(&w, born(&w, 0, 0), CONTROL_HERE);
	assert_true(was_said("workers can be started again"));
	tear_down(&w);
}

static void nobody_else_is_believed(void **state)
{
	struct world w;
	int control;

	(void)state;
	set_up(&w, 1, true);
	supervisor_start(w.s);
	zygote_says(&w, 0, ZYGOTE_READY, "");
	control = born(&w, 0, 0);
	w.is_child = false;
	says(&w, control, CONTROL_HERE);
	assert_true(was_said("no child of forebay's"));
	assert_false(supervisor_knows(w.s, getpid()));
	close(control);
	pass_ms(&w, 130);
	control = born(&w, 0, 0); /* another one is asked for */
	w.is_child = true;
	says(&w, control, CONTROL_WANT); /* it did not say who it is */
	assert_true(was_said("did not say that it is there"));
	close(control);
	pass_ms(&w, 260);
	control = born(&w, 0, 0);
	close(control); /* it ended before it could say a word */
	pump(&w);
	assert_true(was_said("it ended before it was there"));
	tear_down(&w);
}

static void what_cannot_be_forked_is_loaded_by_each(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 2, true);
	supervisor_start(w.s);
	zygote_says(&w, 0, ZYGOTE_UNFORKABLE, "thread \"ticker\"");
	assert_int_equal(w.fakes[0].killed, SIGKILL);
	assert_true(was_said("as with preload = off"));
	assert_true(was_said("thread \\x22ticker\\x22"));
	assert_int_equal(w.started, 3);
	assert_false(w.fakes[1].zygote || w.fakes[2].zygote);
	die(&w, 0, SIGKILL);
	tell(&w, 1, CONTROL_WANT, 0);
	pass_ms(&w, 60000);
	assert_int_equal(w.started, 3);
	tear_down(&w);
}

static void an_application_that_cannot_be_loaded_is_tried_again_and_told_of(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 1, true);
	supervisor_start(w.s);
	assert_int_equal(write(w.fakes[0].output, "Traceback: no such module\n", 26), 26);
	die(&w, 0, EXITED(1));
	assert_true(was_said("output=\"Traceback: no such module\""));
	assert_true(was_said("the application could not be loaded: exit 1"));
	assert_int_equal(w.start_failed, 1);
	assert_int_equal(w.started, 1);
	for (unsigned i = 1; i < 6; i++) {
		pass_ms(&w, 40000);
		assert_int_equal(w.started, i + 1);
		die(&w, i, EXITED(1));
	}
	assert_true(was_said("again and again"));
	assert_int_equal(w.start_failed, 1);
	tear_down(&w);
}

static void a_zygote_that_hangs_or_talks_nonsense_is_killed(void **state)
{
	static const char *const why[] = { "longer than start_timeout", "unknown control message", "not a control message" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(why); i++) {
		struct world w;

		set_up(&w, 1, true);
		supervisor_start(w.s);
		if (i == 0)
			pass_ms(&w, START_MS);
		else if (i == 1)
			zygote_says(&w, 0, ZYGOTE_NO_FORK, ""); /* it has not said that it is ready */
		else
			assert_int_equal(send(w.fakes[0].control, "x", 1, 0), 1);
		pump(&w);
		assert_int_equal(w.fakes[0].killed, SIGKILL);
		assert_true(was_said(why[i]));
		die(&w, 0, SIGKILL);
		pass_ms(&w, 130);
		assert_int_equal(w.started, 2);
		tear_down(&w);
	}
}

/* As many as the socket takes. */
static unsigned fill(struct world *w, unsigned fake, const struct zygote_message *m)
{
	unsigned n = 0;

	while (fdpass_send(w->fakes[fake].control, m, sizeof(*m), NULL, 0, MSG_DONTWAIT) > 0)
		n++;
	return n;
}

static void a_zygote_that_does_not_stop_talking_is_not_listened_to_for_ever(void **state)
{
	const struct zygote_message m = { .type = ZYGOTE_NO_FORK, .place = 1, .error = EAGAIN };
	struct world w;
	unsigned most;

	(void)state;
	set_up(&w, 1, true);
	supervisor_start(w.s);
	zygote_says(&w, 0, ZYGOTE_READY, "");
	most = fill(&w, 0, &m);
	assert_true(most > 64);
	(void)event_base_loop(w.base, EVLOOP_ONCE | EVLOOP_NONBLOCK); /* one turn of everybody's */
	assert_int_equal(fill(&w, 0, &m), 64);
	assert_int_equal(w.fakes[0].killed, 0);
	tear_down(&w);
}

static void a_zygote_that_does_not_fork_any_more_is_replaced(void **state)
{
	struct world w;
	int control, first;

	(void)state;
	set_up(&w, 2, true);
	supervisor_start(w.s);
	zygote_says(&w, 0, ZYGOTE_READY, "");
	control = born(&w, 0, 0);
	says(&w, control, CONTROL_HERE);
	says(&w, control, CONTROL_WANT);
	first = control;
	close(born(&w, 0, 1));
	pump(&w); /* the first one that was asked for is lost */
	pass_ms(&w, 130);
	control = born(&w, 0, 1); /* and nobody comes */
	pass_ms(&w, START_MS - 1);
	assert_int_equal(w.fakes[0].killed, 0);
	pass_ms(&w, 1);
	assert_int_equal(w.fakes[0].killed, SIGKILL);
	die(&w, 0, SIGKILL);
	assert_true(was_said("it does not fork any more"));
	pass_ms(&w, 1000);
	assert_true(was_said("rolling restart begins"));
	assert_int_equal(w.started, 2);
	close(control);
	close(first);
	tear_down(&w);
}

/* Both are forked by the first zygote; the other one has not said yet that it is there. */
static void one_of_two_serves(struct world *w, int *ret_one, int *ret_two)
{
	set_up(w, 2, true);
	supervisor_start(w->s);
	supervisor_fresh_slots(w->s);
	zygote_says(w, 0, ZYGOTE_READY, "");
	*ret_one = born(w, 0, 0);
	*ret_two = born(w, 0, 1);
	says(w, *ret_one, CONTROL_HERE);
	says(w, *ret_one, CONTROL_WANT);
}

static void a_dead_zygote_is_not_loaded_anew_behind_anybodys_back(void **state)
{
	struct world w;
	unsigned place;
	int one, two, three;

	(void)state;
	one_of_two_serves(&w, &one, &two);
	die(&w, 0, SIGKILL);
	assert_true(was_said("the next one that is needed starts a rolling restart"));
	assert_int_equal(w.started, 1);
	close(two); /* nobody to fork it any more */
	pump(&w);
	pass_ms(&w, 130);
	assert_int_equal(w.started, 2); /* one is needed */
	assert_true(w.fakes[1].zygote);
	assert_true(was_said("rolling restart begins"));
	die(&w, 1, EXITED(1)); /* the code is broken by now: who is there goes on */
	assert_true(was_said("rolling restart failed"));
	assert_int_equal(w.started, 2);
	pass_ms(&w, 1000);
	assert_int_equal(w.started, 3); /* but somebody is still needed */
	zygote_says(&w, 2, ZYGOTE_READY, "");
	three = born(&w, 2, 1); /* in the place that is empty */
	assert_int_equal(next_birth(&w, 2, &place), -1);
	close(one);
	close(three);
	assert_true(supervisor_reaped(w.s, getpid(), EXITED(0)));
	tear_down(&w);
}

/* The first of the new ones serves, the others are still to come. */
static void a_zygote_that_dies_half_way_is_followed_by_another(void **state)
{
	struct world w;
	int one, two, first, second;

	(void)state;
	one_of_two_serves(&w, &one, &two);
	supervisor_restart(w.s, "test");
	zygote_says(&w, 1, ZYGOTE_READY, "");
	first = born(&w, 1, 2);
	assert_true(supervisor_reaped(w.s, getpid(), EXITED(0))); /* its number is wanted for the new one */
	says(&w, first, CONTROL_HERE);
	says(&w, first, CONTROL_WANT);
	pass_ms(&w, 0);
	second = born(&w, 1, 0);
	die(&w, 1, SIGKILL);
	assert_false(was_said("rolling restart failed"));
	close(second);
	pump(&w);
	assert_int_equal(w.started, 2);
	pass_ms(&w, 130);
	assert_true(was_said("the zygote has ended half-way"));
	assert_int_equal(w.started, 3);
	assert_true(w.fakes[2].zygote);
	pass_ms(&w, 1000); /* nobody is asked of the one that is gone */
	assert_int_equal(w.started, 3);
	close(one);
	close(two);
	close(first);
	assert_true(supervisor_reaped(w.s, getpid(), EXITED(0)));
	tear_down(&w);
}

/* The deploy that mends a crash loop: nobody waits out the pauses of what it mends. */
static void a_deploy_that_works_ends_the_pauses(void **state)
{
	struct world w;

	(void)state;
	up_and_serving(&w, 3);
	for (unsigned i = 0; i < 9; i++) {
		die(&w, w.started - 1, SIGKILL);
		pass_ms(&w, 40000);
	}
	die(&w, w.started - 1, SIGKILL);
	die(&w, 1, SIGKILL);
	assert_int_equal(w.started, 12);
	supervisor_restart(w.s, "mended");
	assert_int_equal(w.started, 13);
	tell(&w, 12, CONTROL_WANT, 0);
	assert_int_equal(w.started, 15); /* the other empty one, and the one that relieves the old one */
	tear_down(&w);
}

static void what_waits_for_the_application_goes_on_once_it_is_loaded(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 3, true);
	supervisor_start(w.s);
	for (unsigned i = 0; i < 6; i++) {
		die(&w, i, EXITED(1));
		pass_ms(&w, 40000);
	}
	die(&w, 6, EXITED(1));
	while (w.started == 7) /* the first one's pause is over */
		pass_ms(&w, 10);
	zygote_says(&w, 7, ZYGOTE_READY, "");
	for (unsigned i = 0; i < 3; i++)
		close(born(&w, 7, i));
	pump(&w);
	tear_down(&w);
}

static void nothing_is_left_at_the_end(void **state)
{
	struct world w;

	(void)state;
	set_up(&w, 1, true);
	supervisor_start(w.s);
	zygote_says(&w, 0, ZYGOTE_READY, "");
	supervisor_restart(w.s, "test");
	supervisor_stop(w.s, false);
	assert_int_equal(w.fakes[0].killed, SIGKILL);
	assert_int_equal(w.fakes[1].killed, SIGKILL);
	assert_int_equal(supervisor_alive(w.s), 2);
	die(&w, 0, SIGKILL);
	die(&w, 1, SIGKILL);
	assert_int_equal(supervisor_alive(w.s), 0);
	pass_ms(&w, 60000);
	assert_int_equal(w.started, 2);
	tear_down(&w);
}

/* ---- any order of events ---- */

#define STORMS       300 /* fewer under valgrind */
#define STORM_STEPS  150
#define STORM_CALM   400 /* steps until all is well again */
#define STORM_FORKED 256

/* A process that a zygote has forked: it says that it is there and ends, and stays a zombie, so that its number is no other's, until it is reaped. */
struct forked {
	pid_t pid; /* 0: nobody, or reaped */
	int control;
	bool up, killed, told_to_end;
};

struct storm {
	struct world w;
	uint64_t random;
	struct forked forked[STORM_FORKED];
	unsigned forked_count;
	bool dead[FAKES_MAX], ready[FAKES_MAX], up[FAKES_MAX], told_to_end[FAKES_MAX];
};

static unsigned one_of(struct storm *s, unsigned n)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (unsigned)(s->random % n);
}

static void forked_is_killed(struct world *w, pid_t pid)
{
	struct storm *s = CONTAINER_OF(w, struct storm, w);

	for (unsigned i = 0; i < s->forked_count; i++)
		if (s->forked[i].pid == pid)
			s->forked[i].killed = true;
}

/* It has spoken before this returns. */
static pid_t fork_speaker(int control)
{
	const struct control_message m = { .type = CONTROL_HERE };
	siginfo_t info;
	pid_t pid = fork();

	assert_int_not_equal(pid, -1);
	if (pid == 0)
		_exit(fdpass_send(control, &m, sizeof(m), NULL, 0, 0) == sizeof(m) ? 0 : 1);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	return pid;
}

static void forked_ends(struct storm *s, struct forked *f, int status)
{
	pid_t pid = f->pid;

	close(f->control);
	f->control = -1;
	f->pid = 0;
	if (one_of(s, 2))
		pump(&s->w);                  /* the end of its socket is seen first */
	if (supervisor_look_for(s->w.s, pid)) /* not one that was given up before it spoke */
		assert_true(supervisor_reaped(s->w.s, pid, status));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void fake_ends(struct storm *s, unsigned i, int status)
{
	s->dead[i] = true;
	if (one_of(s, 2)) {
		(void)shutdown(s->w.fakes[i].control, SHUT_RDWR);
		pump(&s->w);
	}
	die(&s->w, i, status);
}

/* What a zygote was asked for. By `kind`, below 6 it forks, with 6 it says that it could not, else the child ends before it has spoken. */
static void answer_births(struct storm *s, unsigned zygote, unsigned (*kind)(struct storm *s))
{
	unsigned place;

	for (int control; (control = next_birth(&s->w, zygote, &place)) != -1;) {
		const struct zygote_message no_fork = { .type = ZYGOTE_NO_FORK, .place = place, .error = EAGAIN };
		unsigned k = kind(s);

		if (k < 6 && s->forked_count < STORM_FORKED) {
			s->forked[s->forked_count++] = (struct forked){ .pid = fork_speaker(control), .control = control };
			continue;
		}
		if (k == 6)
			(void)!fdpass_send(s->w.fakes[zygote].control, &no_fork, sizeof(no_fork), NULL, 0, MSG_DONTWAIT);
		close(control);
	}
	pump(&s->w);
}

static unsigned any_kind(struct storm *s)
{
	return one_of(s, 8);
}

static unsigned good_kind(struct storm *s UNUSED)
{
	return 0;
}

/* Or that nobody listens any more, which is the same to it. */
static bool control_heard_end(int control)
{
	struct control_message m;
	size_t fds;
	int fd = -1;
	bool end = false;
	ssize_t n;

	while ((n = fdpass_recv(control, &m, sizeof(m), &fd, 1, &fds, MSG_DONTWAIT)) > 0) {
		end = end || m.type == CONTROL_END || m.type == CONTROL_END_WITHOUT;
		if (fd != -1)
			close(fd);
		fd = -1;
	}
	return end || n != -EAGAIN;
}

/* One process of those that were started by exec: what it says or what becomes of it. `calm`: as in good order. */
static void storm_at_fake(struct storm *s, unsigned i, bool calm)
{
	struct fake *f = &s->w.fakes[i];
	unsigned what = calm ? 0 : one_of(s, 6);

	if (s->dead[i])
		return;
	if (f->killed == SIGKILL) {
		fake_ends(s, i, SIGKILL);
	} else if (what == 5) {
		fake_ends(s, i, one_of(s, 2) ? SIGKILL : EXITED(1));
	} else if (f->zygote && !s->ready[i]) {
		s->ready[i] = true;
		zygote_says(&s->w, i, what == 4 ? ZYGOTE_UNFORKABLE : ZYGOTE_READY, "");
	} else if (f->zygote) {
		answer_births(s, i, calm ? good_kind : any_kind);
	} else if (!s->up[i]) {
		s->up[i] = true;
		tell(&s->w, i, CONTROL_WANT, 0);
	} else if (control_heard_end(f->control) || s->told_to_end[i]) {
		s->told_to_end[i] = true;
		if (calm || what < 3)
			fake_ends(s, i, EXITED(0));
	}
}

static void storm_at_forked(struct storm *s, struct forked *f, bool calm)
{
	const struct control_message want = { .type = CONTROL_WANT };
	unsigned what = calm ? 0 : one_of(s, 6);

	if (f->pid == 0)
		return;
	if (f->killed || what == 5) {
		forked_ends(s, f, SIGKILL);
	} else if (!f->up) {
		f->up = true;
		(void)!fdpass_send(f->control, &want, sizeof(want), NULL, 0, MSG_DONTWAIT);
		pump(&s->w);
	} else if (control_heard_end(f->control) || f->told_to_end) {
		f->told_to_end = true;
		if (calm || what < 3)
			forked_ends(s, f, EXITED(0));
	}
}

static unsigned workers_there(const struct storm *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->w.started; i++)
		n += !s->dead[i] && !s->w.fakes[i].zygote;
	for (unsigned i = 0; i < s->forked_count; i++)
		n += s->forked[i].pid != 0;
	return n;
}

static unsigned zygotes_there(const struct storm *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->w.started; i++)
		n += !s->dead[i] && s->w.fakes[i].zygote;
	return n;
}

static void storm_scale(struct storm *s)
{
	const struct supervisor_load load = { one_of(s, 2) ? 200000 : 0, one_of(s, 5) };

	supervisor_scale(s->w.s, &load);
}

static void storm_step(struct storm *s)
{
	unsigned what = one_of(s, 12);

	if (what < 5 && s->w.started > 0)
		storm_at_fake(s, s->w.started - 1 - one_of(s, MIN(s->w.started, 8)), false);
	else if (what < 8 && s->forked_count > 0)
		storm_at_forked(s, &s->forked[s->forked_count - 1 - one_of(s, MIN(s->forked_count, 16))], false);
	else if (what == 8)
		pass_ms(&s->w, one_of(s, one_of(s, 8) ? 300 : 40000));
	else if (what == 9)
		supervisor_replace(s->w.s, one_of(s, supervisor_slots(s->w.s)), 0);
	else if (what == 10)
		storm_scale(s);
	else
		supervisor_restart(s->w.s, "storm");
}

static void calm_step(struct storm *s)
{
	for (unsigned i = 0; i < s->w.started; i++)
		storm_at_fake(s, i, true);
	for (unsigned i = 0; i < s->forked_count; i++)
		storm_at_forked(s, &s->forked[i], true);
	pass_ms(&s->w, 1000);
}

static bool is_well(const struct storm *s)
{
	unsigned there = workers_there(s);

	return there >= MAX(s->w.conf.processes_min, 1) && there <= s->w.conf.processes && zygotes_there(s) <= 1;
}

static void set_up_storm(struct storm *s, unsigned seed)
{
	memset(s, 0, sizeof(*s));
	s->random = seed * UINT64_C(0x9e3779b97f4a7c15);
	set_up(&s->w, 1 + seed % 3, seed % 4 != 0);
	s->w.conf.processes_min = seed % 5 == 0 ? 1 : s->w.conf.processes;
	s->w.on_kill = forked_is_killed;
	supervisor_start(s->w.s);
	supervisor_fresh_slots(s->w.s);
}

/*
 * Whatever happens in whatever order: nothing that has gone is used again, the supervisor waits where it can do nothing, once nothing more goes
 * wrong as many workers are there as should be, and at the end nobody.
 */
static void all_is_well_behind_any_storm(void **state)
{
	static struct storm s;
	unsigned storms = getenv("FOREBAY_UNDER_VALGRIND") ? STORMS / 20 : STORMS;

	(void)state;
	for (unsigned seed = 1; seed <= storms; seed++) {
		unsigned calm = 0;

		set_up_storm(&s, seed);
		for (unsigned i = 0; i < STORM_STEPS && s.w.started < FAKES_MAX / 2 && s.forked_count < STORM_FORKED / 2; i++)
			storm_step(&s);
		do
			calm_step(&s);
		while (++calm < STORM_CALM && (calm < 100 || !is_well(&s)));
		if (!is_well(&s))
			fail_msg("storm %u: %u workers of %u, %u zygotes", seed, workers_there(&s), s.w.conf.processes,
			    zygotes_there(&s));
		supervisor_stop(s.w.s, seed % 2);
		for (calm = 0; calm < 10; calm++)
			calm_step(&s);
		if (supervisor_alive(s.w.s) + workers_there(&s) + zygotes_there(&s) > 0)
			fail_msg("storm %u: %u are left", seed, supervisor_alive(s.w.s));
		tear_down(&s.w);
	}
}

/* More and fewer. */

static void workers_come_while_requests_wait_and_go_when_they_are_not_needed(void **state)
{
	const struct supervisor_load waits = { 200000, 5 }, quiet = { 0, 0 };
	struct world w;

	(void)state;
	up_and_serving(&w, 3);
	tear_down(&w);
	set_up(&w, 3, false);
	w.conf.processes_min = 1;
	supervisor_free(&w.s);
	assert_int_equal(supervisor_new(w.base, &w.conf,
	                     &(struct supervisor_options){ .clock = &w.clock.clock,
	                         .default_user = geteuid() == 0 ? "nobody" : NULL,
	                         .end_timeout_ms = END_MS,
	                         .spawn = fake_spawn,
	                         .kill = fake_kill,
	                         .is_child = fake_is_child },
	                     &events, &w, &w.s),
	    0);
	supervisor_start(w.s);
	supervisor_fresh_slots(w.s);
	assert_int_equal(w.started, 1);
	tell(&w, 0, CONTROL_WANT, 0);
	tell(&w, 0, CONTROL_MEMORY, 1000000);
	w.room = 2000000; /* one more of that size, and nothing would be left */
	supervisor_scale(w.s, &waits);
	assert_int_equal(w.started, 1);
	w.room = 2000002;
	supervisor_scale(w.s, &waits);
	assert_int_equal(w.started, 2);
	supervisor_scale(w.s, &waits);
	assert_int_equal(w.started, 2); /* it is on its way */
	tell(&w, 1, CONTROL_WANT, 0);
	supervisor_scale(w.s, &waits);
	tell(&w, 2, CONTROL_WANT, 0);
	supervisor_scale(w.s, &waits);
	assert_int_equal(w.started, 3);
	pass_ms(&w, 60000);
	supervisor_scale(w.s, &quiet);
	assert_true(heard_end(&w, 2));
	assert_false(heard_end(&w, 1));
	die(&w, 2, EXITED(0));
	pass_ms(&w, 1000);
	assert_int_equal(w.started, 3);
	supervisor_scale(w.s, &waits); /* and back again */
	assert_int_equal(w.started, 4);
	tear_down(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_new_relieve_the_old_one_by_one),
		cmocka_unit_test(the_old_ones_may_take_as_long_as_a_request_may),
		cmocka_unit_test(what_fails_leaves_the_old_ones_serving),
		cmocka_unit_test(asked_for_while_one_runs_it_runs_once_more),
		cmocka_unit_test(a_place_is_waited_for),
		cmocka_unit_test(an_old_one_that_dies_meanwhile_is_replaced_too),
		cmocka_unit_test(a_start_that_cannot_be_is_said_once),
		cmocka_unit_test(workers_are_forked_once_the_application_is_loaded),
		cmocka_unit_test(a_fork_that_cannot_be_is_said_once),
		cmocka_unit_test(nobody_else_is_believed),
		cmocka_unit_test(what_cannot_be_forked_is_loaded_by_each),
		cmocka_unit_test(an_application_that_cannot_be_loaded_is_tried_again_and_told_of),
		cmocka_unit_test(a_zygote_that_hangs_or_talks_nonsense_is_killed),
		cmocka_unit_test(a_zygote_that_does_not_stop_talking_is_not_listened_to_for_ever),
		cmocka_unit_test(a_zygote_that_does_not_fork_any_more_is_replaced),
		cmocka_unit_test(a_dead_zygote_is_not_loaded_anew_behind_anybodys_back),
		cmocka_unit_test(a_zygote_that_dies_half_way_is_followed_by_another),
		cmocka_unit_test(a_deploy_that_works_ends_the_pauses),
		cmocka_unit_test(what_waits_for_the_application_goes_on_once_it_is_loaded),
		cmocka_unit_test(nothing_is_left_at_the_end),
		cmocka_unit_test(all_is_well_behind_any_storm),
		cmocka_unit_test(workers_come_while_requests_wait_and_go_when_they_are_not_needed),
	};

	alarm(500); /* a hang is a failure */
	log_setup("test", LOG_LEVEL_INFO, log_here, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
