#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "core/sender.h"

/* A socket that takes so many bytes a call, and every other call nothing. */
struct narrow {
	size_t at_once;
	bool full;
	struct buf got;
};

static ssize_t narrow_pieces(void *ctx, const struct iovec *iov, int n, bool more)
{
	struct narrow *w = ctx;
	size_t left = w->at_once;

	(void)more;
	w->full = !w->full;
	if (w->full)
		return -EAGAIN;
	for (int i = 0; i < n && left > 0; i++) {
		size_t take = MIN(left, iov[i].iov_len);

		buf_add(&w->got, slice_of(iov[i].iov_base, take));
		left -= take;
	}
	return (ssize_t)(w->at_once - left);
}

static ssize_t narrow_file(void *ctx, int fd, off_t offset, size_t len)
{
	(void)ctx;
	(void)fd;
	(void)offset;
	(void)len;
	fail_msg("nothing is in the spool here");
	return -EIO;
}

static const struct sender_sink narrow = { .pieces = narrow_pieces, .file = narrow_file };

static const struct {
	const char *out;
	const char *parts[3]; /* appended one after the other, each sent before the next */
	bool body, chunked;
	const char *expected;
} cases[] = {
	{ "head", { NULL }, false, false, "head" },
	{ "head", { NULL }, true, false, "head" },
	{ "head", { NULL }, true, true, "head0\r\n\r\n" },
	{ "head", { "abc" }, true, false, "headabc" },
	{ "head", { "abc" }, true, true, "head3\r\nabc\r\n0\r\n\r\n" },
	{ "", { "0123456789", "abc", "d" }, true, false, "0123456789abcd" },
	{ "h", { "0123456789abcdef", "abc", "d" }, true, true, "h10\r\n0123456789abcdef\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n" },
};

static struct clock_test test_clock;
static struct budget budget;
static struct loop *loop;

static void nothing(void *ctx)
{
	(void)ctx;
}

static void failed(void *ctx, int err)
{
	(void)ctx;
	fail_msg("body failed: %d", err);
}

static const struct body_events events = { .room = nothing, .ready = nothing, .failed = failed };

static enum sender_step step_until_not_full(struct sender *s, struct narrow *w)
{
	enum sender_step step;
	int err = 0;

	do
		step = sender_step(s, &narrow, w, &err);
	while (step == SENDER_ON || step == SENDER_FULL);
	assert_int_equal(err, 0);
	return step;
}

static void send_case(size_t row, size_t at_once)
{
	struct body_options o = { .memory_max = 65536, .events = &events };
	struct narrow w = { .at_once = at_once };
	struct body *body = NULL;
	struct sender s;

	buf_init(&w.got, 4096);
	sender_init(&s, 4096);
	buf_add(&s.out, slice_str(cases[row].out));
	if (cases[row].body) {
		assert_int_equal(body_new(loop, &o, &body), 0);
		sender_body(&s, body, cases[row].chunked);
	}
	for (size_t i = 0; i < ARRAY_LEN(cases[row].parts) && cases[row].parts[i]; i++) {
		assert_int_equal(body_append(body, slice_str(cases[row].parts[i])), 0);
		assert_int_equal(step_until_not_full(&s, &w), SENDER_WAIT);
	}
	if (body)
		body_finish(body);
	if (step_until_not_full(&s, &w) != SENDER_ENDED)
		fail_msg("row %zu: not ended", row);
	if (!slice_eq(buf_slice(&w.got), slice_str(cases[row].expected)))
		fail_msg("row %zu, %zu at once: %.*s", row, at_once, SLICE_ARG(buf_slice(&w.got)));
	sender_done(&s);
	buf_done(&w.got);
	body_free(&body);
}

static void head_and_body_go_out_whole_however_little_the_socket_takes(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		for (size_t at_once = 1; at_once < 8; at_once++)
			send_case(i, at_once);
}

static int setup(void **state)
{
	(void)state;
	clock_test_init(&test_clock);
	budget_init(&budget, 64u << 20);
	return loop_new(0, &test_clock.clock, &budget, NULL, &loop);
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(loop->lease.used, 0);
	loop_free(&loop);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(head_and_body_go_out_whole_however_little_the_socket_takes) };

	return cmocka_run_group_tests(tests, setup, teardown);
}
