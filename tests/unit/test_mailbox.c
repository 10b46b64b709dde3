#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "core/loop.h"
#include "core/mailbox.h"

struct letter {
	struct mail mail;
	unsigned from, number;
	struct post_office *office;
};

#define POSTERS 4
#define LETTERS 20000

struct post_office {
	struct mailbox box;
	unsigned next[POSTERS]; /* the number that must come next from each */
	size_t delivered;
	struct letter letters[POSTERS][LETTERS];
};

static struct post_office office; /* too large for the stack */

static bool has_wake(const struct mailbox *m)
{
	struct pollfd p = { .fd = m->fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void on_letter(struct mail *m)
{
	struct letter *l = CONTAINER_OF(m, struct letter, mail);

	assert_int_equal(l->number, l->office->next[l->from]);
	l->office->next[l->from]++;
	l->office->delivered++;
}

static struct letter *letter(unsigned from, unsigned number)
{
	struct letter *l = &office.letters[from][number];

	*l = (struct letter){ .mail.deliver = on_letter, .from = from, .number = number, .office = &office };
	return l;
}

static void *post_all(void *arg)
{
	unsigned from = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; i < LETTERS; i++)
		mailbox_post(&office.box, &letter(from, i)->mail);
	return NULL;
}

static int setup(void **state UNUSED)
{
	memset(&office, 0, sizeof(office));
	return mailbox_init(&office.box, NULL);
}

static int teardown(void **state UNUSED)
{
	mailbox_done(&office.box);
	mailbox_done(&office.box); /* twice is fine */
	return 0;
}

static void an_empty_box_delivers_nothing(void **state UNUSED)
{
	assert_false(has_wake(&office.box));
	assert_int_equal(mailbox_drain(&office.box), 0);
}

static void mails_come_in_order_and_wake_once(void **state UNUSED)
{
	uint64_t wakes = 0;

	for (unsigned i = 0; i < 3; i++)
		mailbox_post(&office.box, &letter(0, i)->mail);
	assert_true(has_wake(&office.box));
	assert_int_equal(read(office.box.fd, &wakes, sizeof(wakes)), sizeof(wakes));
	assert_int_equal(wakes, 1);
	assert_int_equal(mailbox_drain(&office.box), 3);
	assert_int_equal(office.delivered, 3);
	assert_false(has_wake(&office.box));
}

static void on_repost(struct mail *m)
{
	struct letter *l = CONTAINER_OF(m, struct letter, mail);

	l->office->delivered++;
	if (l->number-- > 0)
		mailbox_post(&l->office->box, m);
}

static void a_mail_may_be_posted_again_from_its_delivery(void **state UNUSED)
{
	struct letter *l = letter(0, 2);

	l->mail.deliver = on_repost;
	mailbox_post(&office.box, &l->mail);
	/* One a drain: who posts for ever does not keep the loop from its other events. */
	for (size_t i = 1; i <= 3; i++) {
		assert_true(has_wake(&office.box));
		assert_int_equal(mailbox_drain(&office.box), 1);
		assert_int_equal(office.delivered, i);
	}
	assert_false(has_wake(&office.box));
}

static void threads_post_and_nothing_is_lost_or_out_of_order(void **state UNUSED)
{
	pthread_t threads[POSTERS];

	for (uintptr_t i = 0; i < POSTERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, post_all, (void *)i), 0);
	while (office.delivered < POSTERS * LETTERS) {
		struct pollfd p = { .fd = office.box.fd, .events = POLLIN };

		if (poll(&p, 1, 60000) != 1)
			fail_msg("no wake after %zu", office.delivered);
		mailbox_drain(&office.box);
	}
	for (unsigned i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < POSTERS; i++)
		assert_int_equal(office.next[i], LETTERS);
	mailbox_drain(&office.box);
	assert_false(has_wake(&office.box));
}

struct stop_mail {
	struct mail mail;
	struct loop *loop;
	unsigned delivered;
};

static void on_stop(struct mail *m)
{
	struct stop_mail *s = CONTAINER_OF(m, struct stop_mail, mail);

	s->delivered++;
	s->loop->awaited = 0;
	loop_stop(s->loop);
}

static void *post_stop(void *arg)
{
	struct stop_mail *s = arg;

	mailbox_post(&s->loop->mailbox, &s->mail);
	return NULL;
}

static void a_mail_wakes_a_running_loop(void **state UNUSED)
{
	struct budget budget;
	struct stop_mail stop = { .mail.deliver = on_stop };
	pthread_t thread;

	budget_init(&budget, 1 << 20);
	assert_int_equal(loop_new(0, &clock_real, &budget, NULL, &stop.loop), 0);
	assert_int_equal(pthread_create(&thread, NULL, post_stop, &stop), 0);
	loop_run(stop.loop);
	assert_int_equal(stop.delivered, 1);
	pthread_join(thread, NULL);
	loop_free(&stop.loop);
}

static void a_mail_posted_here_comes_with_the_loops_next_turn(void **state UNUSED)
{
	struct budget budget;
	struct stop_mail stop = { .mail.deliver = on_stop };

	budget_init(&budget, 1 << 20);
	assert_int_equal(loop_new(0, &clock_real, &budget, NULL, &stop.loop), 0);
	mailbox_post_here(&stop.loop->mailbox, &stop.mail);
	assert_int_equal(stop.delivered, 0);
	assert_false(has_wake(&stop.loop->mailbox)); /* the kernel has no part in it */
	loop_run(stop.loop);
	assert_int_equal(stop.delivered, 1);
	loop_free(&stop.loop);
}

/* As a peer does that sends faster than it is read. */
struct greedy {
	struct stop_mail stop;
	struct event ev;
	unsigned runs;
};

#define RUNS_MAX 1000000 /* far more than the loop lets one have before it looks at the others */

static void on_greed(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct greedy *g = ctx;

	if (g->runs == 0)
		mailbox_post(&g->stop.loop->mailbox, &g->stop.mail);
	if (++g->runs < RUNS_MAX)
		event_active(&g->ev, EV_READ, 0);
	else
		loop_stop(g->stop.loop);
}

static void an_event_that_always_has_more_to_do_keeps_no_mail_waiting(void **state UNUSED)
{
	struct budget budget;
	struct greedy g = { .stop.mail.deliver = on_stop };

	budget_init(&budget, 1 << 20);
	assert_int_equal(loop_new(0, &clock_real, &budget, NULL, &g.stop.loop), 0);
	assert_int_equal(event_assign(&g.ev, g.stop.loop->base, -1, 0, on_greed, &g), 0);
	event_active(&g.ev, EV_READ, 0);
	loop_run(g.stop.loop);
	assert_int_equal(g.stop.delivered, 1);
	assert_true(g.runs < RUNS_MAX);
	event_del(&g.ev);
	loop_free(&g.stop.loop);
}

static void freeing_a_loop_waits_for_what_is_awaited(void **state UNUSED)
{
	struct budget budget;
	struct stop_mail stop = { .mail.deliver = on_stop };
	struct loop *l = NULL;
	pthread_t thread;

	budget_init(&budget, 1 << 20);
	assert_int_equal(loop_new(0, &clock_real, &budget, NULL, &l), 0);
	stop.loop = l;
	l->awaited = 1;
	assert_int_equal(pthread_create(&thread, NULL, post_stop, &stop), 0);
	loop_free(&l);
	assert_int_equal(stop.delivered, 1);
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_empty_box_delivers_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(mails_come_in_order_and_wake_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mail_may_be_posted_again_from_its_delivery, setup, teardown),
		cmocka_unit_test_setup_teardown(threads_post_and_nothing_is_lost_or_out_of_order, setup, teardown),
		cmocka_unit_test(a_mail_wakes_a_running_loop),
		cmocka_unit_test(a_mail_posted_here_comes_with_the_loops_next_turn),
		cmocka_unit_test(an_event_that_always_has_more_to_do_keeps_no_mail_waiting),
		cmocka_unit_test(freeing_a_loop_waits_for_what_is_awaited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
