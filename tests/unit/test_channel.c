#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "proxy/daemon/channel.h"

#define QUEUE_MAX 500

/* One end of a channel, and what it heard. */
struct end {
	struct channel *channel;
	unsigned messages, ended, descriptors;
	struct channel_message last;
	int err;
	bool free_in_message, keep_fd;
	int kept;
};

struct pair {
	struct event_base *base;
	struct end master, front;
	int raw; /* the front's bare socket instead of a channel; -1: none */
};

static void on_message(void *ctx, const struct channel_message *m, int *fd)
{
	struct end *e = ctx;

	e->messages++;
	e->last = *m;
	if (*fd != -1)
		e->descriptors++;
	if (e->keep_fd) {
		e->kept = *fd;
		*fd = -1;
	}
	if (e->free_in_message)
		channel_free(&e->channel);
}

static void on_ended(void *ctx, int err)
{
	struct end *e = ctx;

	e->ended++;
	e->err = err;
	channel_free(&e->channel);
}

static const struct channel_events events = { on_message, on_ended };

static void pair_init(struct pair *p, bool raw_front)
{
	int master, front;

	*p = (struct pair){ .base = event_base_new(), .raw = -1 };
	assert_non_null(p->base);
	assert_int_equal(channel_pair(&master, &front), 0);
	assert_int_equal(channel_new(p->base, &master, CHANNEL_MASTER, QUEUE_MAX, &events, &p->master, &p->master.channel), 0);
	assert_int_equal(master, -1);
	if (raw_front)
		p->raw = front;
	else
		assert_int_equal(
		    channel_new(p->base, &front, CHANNEL_FRONT, QUEUE_MAX, &events, &p->front, &p->front.channel), 0);
}

static void pair_done(struct pair *p)
{
	channel_free(&p->master.channel);
	channel_free(&p->front.channel);
	if (p->raw != -1)
		close(p->raw);
	event_base_free(p->base);
}

static void turn(struct pair *p)
{
	for (unsigned i = 0; i < 50; i++)
		event_base_loop(p->base, EVLOOP_NONBLOCK);
}

static int some_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) != -1;
}

static void messages_come_as_they_were_sent(void **state)
{
	struct channel_message m = { .type = CHANNEL_LIMITS,
		.u.limits = { .threads = 7, .connections = 9, .memory_bytes = 11 } };
	struct pair p;
	int fd = some_fd(), was = fd;

	(void)state;
	pair_init(&p, false);
	assert_int_equal(channel_send(p.master.channel, &m, NULL), 0);
	turn(&p);
	assert_int_equal(p.front.messages, 1);
	assert_int_equal(p.front.last.u.limits.threads, 7);
	assert_int_equal(p.front.last.u.limits.memory_bytes, 11);

	m = (struct channel_message){ .type = CHANNEL_SLOT, .u.slot = { 1, 2, 3 } };
	assert_int_equal(channel_send(p.master.channel, &m, &fd), 0);
	assert_int_equal(fd, -1);
	assert_false(is_open(was)); /* nobody but the front holds it */
	p.front.keep_fd = true;
	turn(&p);
	assert_int_equal(p.front.descriptors, 1);
	assert_int_equal(p.front.last.u.slot.pid, 3);
	assert_int_equal(fcntl(p.front.kept, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(p.front.kept);

	m = (struct channel_message){ .type = CHANNEL_TICK, .u.tick = { .ticks = { 5, 6 }, .busy = 4 } };
	assert_int_equal(channel_send(p.front.channel, &m, NULL), 0);
	turn(&p);
	assert_int_equal(p.master.last.u.tick.ticks[1], 6);
	assert_int_equal(p.master.last.u.tick.busy, 4);

	m = (struct channel_message){ .type = CHANNEL_REPLACE, .u.replace = { .pool = 5, .slot = 6 } };
	assert_int_equal(channel_send(p.front.channel, &m, NULL), 0);
	turn(&p);
	assert_int_equal(p.master.last.u.replace.pool, 5);
	assert_int_equal(p.master.last.u.replace.slot, 6);
	pair_done(&p);
}

/* Between the type and what it says nothing is sent of what was in memory before. */
static void a_text_tells_nothing_but_itself(void **state)
{
	static const char zeros[offsetof(struct channel_message, u) - sizeof(uint32_t)];
	struct channel_message m;

	(void)state;
	memset(&m, 0xff, sizeof(m));
	channel_text(&m, CHANNEL_REFUSED, SLICE("why"));
	assert_int_equal(m.type, CHANNEL_REFUSED);
	assert_memory_equal((const char *)&m + sizeof(uint32_t), zeros, sizeof(zeros));
}

static void a_text_is_cut_to_what_fits(void **state)
{
	static char long_text[CHANNEL_TEXT_MAX + 10];
	struct channel_message m;
	struct pair p;

	(void)state;
	pair_init(&p, false);
	channel_text(&m, CHANNEL_REFUSED, SLICE("why\0not"));
	assert_int_equal(channel_send(p.front.channel, &m, NULL), 0);
	turn(&p);
	assert_string_equal(p.master.last.u.text, "why");
	channel_text(&m, CHANNEL_REFUSED, SLICE(""));
	assert_int_equal(channel_send(p.front.channel, &m, NULL), 0);
	turn(&p);
	assert_string_equal(p.master.last.u.text, "");
	memset(long_text, 'x', sizeof(long_text));
	channel_text(&m, CHANNEL_REFUSED, slice_of(long_text, sizeof(long_text)));
	assert_int_equal(channel_send(p.front.channel, &m, NULL), 0);
	turn(&p);
	assert_int_equal(strlen(p.master.last.u.text), CHANNEL_TEXT_MAX - 1);
	pair_done(&p);
}

/* The front meets strangers: what it says is not believed. */
static void a_message_that_breaks_its_rule_ends_the_channel(void **state)
{
	static const struct {
		uint32_t type;
		size_t bytes; /* behind the type */
		const char *fill;
		bool fd;
		bool ok;
	} cases[] = {
		{ CHANNEL_ADOPTED, 0, "", false, true },
		{ CHANNEL_ADOPTED, 1, "x", false, false },
		{ CHANNEL_ADOPTED, 0, "", true, false },
		{ CHANNEL_REFUSED, 4, "why", false, true },
		{ CHANNEL_REFUSED, 3, "why", false, false },     /* no NUL */
		{ CHANNEL_REFUSED, 6, "a\0b\0c", false, false }, /* more than one */
		{ CHANNEL_REFUSED, 0, "", false, false },
		{ CHANNEL_TICK, 5, "tick", false, false },
		{ CHANNEL_GO, 0, "", false, false }, /* the master's to say */
		{ CHANNEL_SLOT, 12, "0123456789a", true, false },
		{ CHANNEL_TYPE_COUNT, 0, "", false, false },
		{ UINT32_MAX, 0, "", false, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char bytes[64] = { 0 };
		struct pair p;
		size_t head = offsetof(struct channel_message, u);
		int fd = cases[i].fd ? some_fd() : -1;

		pair_init(&p, true);
		memcpy(bytes, &cases[i].type, sizeof(cases[i].type));
		memcpy(bytes + head, cases[i].fill, cases[i].bytes);
		assert_true(fdpass_send(p.raw, bytes, head + cases[i].bytes, &fd, fd != -1, 0) > 0);
		turn(&p);
		if ((p.master.messages == 1) != cases[i].ok || (p.master.ended == 1) == cases[i].ok)
			fail_msg("row %zu: %u messages, ended %u", i, p.master.messages, p.master.ended);
		if (!cases[i].ok && p.master.err != -EPROTO)
			fail_msg("row %zu: %d", i, p.master.err);
		if (fd != -1)
			close(fd);
		pair_done(&p);
	}
}

static void a_message_too_short_or_too_long_ends_the_channel(void **state)
{
	static char bytes[sizeof(struct channel_message) + 1];
	static const size_t lengths[] = { 1, 3, sizeof(bytes) };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		struct pair p;

		pair_init(&p, true);
		assert_true(send(p.raw, bytes, lengths[i], 0) == (ssize_t)lengths[i]);
		turn(&p);
		if (p.master.ended != 1 || p.master.err != -EPROTO)
			fail_msg("row %zu: %d", i, p.master.err);
		pair_done(&p);
	}
}

/* More than the socket takes: the rest waits in order, with its descriptors, up to the maximum. */
static void what_the_socket_does_not_take_waits(void **state)
{
	struct channel_message m = { .type = CHANNEL_SLOT };
	struct pair p;
	unsigned sent = 0;
	int fd, err;

	(void)state;
	pair_init(&p, false);
	for (;;) {
		fd = some_fd();
		m.u.slot.slot = sent;
		err = channel_send(p.master.channel, &m, &fd);
		assert_int_equal(fd, -1);
		if (err)
			break;
		sent++;
	}
	assert_int_equal(err, -ENOBUFS);
	assert_int_equal(channel_waiting(p.master.channel), QUEUE_MAX);
	while (p.front.messages < sent) {
		unsigned before = p.front.messages;

		event_base_loop(p.base, EVLOOP_ONCE);
		if (p.front.messages > before)
			assert_int_equal(p.front.last.u.slot.slot, p.front.messages - 1);
	}
	assert_int_equal(p.front.descriptors, sent);
	assert_int_equal(channel_waiting(p.master.channel), 0);
	pair_done(&p);
}

static void what_waits_is_closed_with_the_channel(void **state)
{
	struct channel_message m = { .type = CHANNEL_SLOT };
	struct pair p;
	int ends[2], fd;
	char byte;

	(void)state;
	pair_init(&p, false);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	while (channel_waiting(p.master.channel) < 3) {
		fd = fcntl(ends[0], F_DUPFD_CLOEXEC, 3);
		assert_int_equal(channel_send(p.master.channel, &m, &fd), 0);
	}
	close(ends[0]);
	channel_free(&p.master.channel);
	channel_free(&p.front.channel);
	assert_int_equal(read(ends[1], &byte, 1), 0); /* no duplicate is left anywhere */
	close(ends[1]);
	pair_done(&p);
}

static void the_last_words_are_heard_before_the_end(void **state)
{
	struct channel_message m = { .type = CHANNEL_GO };
	struct pair p;

	(void)state;
	pair_init(&p, false);
	/* Closing with something unread resets the connection: that must not hide what was said. */
	assert_int_equal(channel_send(p.master.channel, &m, NULL), 0);
	channel_text(&m, CHANNEL_REFUSED, SLICE("no spool"));
	assert_int_equal(channel_send(p.front.channel, &m, NULL), 0);
	channel_free(&p.front.channel);
	channel_poll(p.master.channel);
	assert_int_equal(p.master.messages, 1);
	assert_string_equal(p.master.last.u.text, "no spool");
	assert_int_equal(p.master.ended, 1);
	assert_int_equal(p.master.err, 0);
	pair_done(&p);
}

static void it_may_be_freed_by_who_hears_a_message(void **state)
{
	struct channel_message m = { .type = CHANNEL_ADOPTED };
	struct pair p;

	(void)state;
	pair_init(&p, false);
	p.master.free_in_message = true;
	assert_int_equal(channel_send(p.front.channel, &m, NULL), 0);
	assert_int_equal(channel_send(p.front.channel, &m, NULL), 0);
	turn(&p);
	assert_int_equal(p.master.messages, 1);
	assert_int_equal(p.front.ended, 1);
	pair_done(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_come_as_they_were_sent),
		cmocka_unit_test(a_text_is_cut_to_what_fits),
		cmocka_unit_test(a_text_tells_nothing_but_itself),
		cmocka_unit_test(a_message_that_breaks_its_rule_ends_the_channel),
		cmocka_unit_test(a_message_too_short_or_too_long_ends_the_channel),
		cmocka_unit_test(what_the_socket_does_not_take_waits),
		cmocka_unit_test(what_waits_is_closed_with_the_channel),
		cmocka_unit_test(the_last_words_are_heard_before_the_end),
		cmocka_unit_test(it_may_be_freed_by_who_hears_a_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
