/* intake: frames off a slot socket, whatever pieces they come in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "upstream/worker/intake.h"

struct world {
	struct intake in;
	int front;
};

static void begin(struct world *w)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	intake_init(&w->in, pair[1]);
	w->front = pair[0];
}

static void end(struct world *w)
{
	close(w->in.sock);
	intake_done(&w->in);
	if (w->front != -1)
		close(w->front);
}

static void put(struct buf *b, enum wire_type type, uint64_t serial, size_t length)
{
	char *to = buf_room(b, WIRE_HEADER_BYTES + length);

	assert_non_null(to);
	wire_put_header(to, &(struct wire_frame){ .type = (uint8_t)type, .length = (uint32_t)length, .serial = serial });
	memset(to + WIRE_HEADER_BYTES, (int)serial, length);
	b->len += WIRE_HEADER_BYTES + length;
}

static void say(const struct world *w, const char *from, size_t n)
{
	assert_int_equal(send(w->front, from, n, 0), (ssize_t)n);
}

static void say_with_file(const struct world *w, const char *from, size_t n)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_int_equal(fdpass_send(w->front, from, n, &fd, 1, 0), (ssize_t)n);
	close(fd);
}

static void expect(struct world *w, enum wire_type type, uint64_t serial, size_t length)
{
	struct wire_frame f;
	struct slice payload;

	assert_int_equal(intake_frame(&w->in, &f, &payload), 1);
	assert_int_equal(f.type, type);
	assert_int_equal(f.serial, serial);
	assert_int_equal(payload.len, length);
	for (size_t i = 0; i < length; i++)
		if (payload.ptr[i] != (char)serial)
			fail_msg("byte %zu of %zu", i, length);
}

static void frames_that_come_together_are_given_one_by_one(void **state)
{
	static const size_t lengths[] = { 4, 5, 1000, (64u << 10) - WIRE_HEADER_BYTES, 64u << 10, (64u << 10) + 1, 100000 };
	struct world w;
	struct buf b;
	pid_t pid;

	(void)state;
	begin(&w);
	buf_init(&b, 1u << 20);
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++)
		put(&b, WIRE_REQUEST, i + 1, lengths[i]);
	pid = fork();
	if (pid == 0) {
		/* More than the socket holds. */
		say(&w, b.ptr, b.len);
		_exit(0);
	}
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++)
		expect(&w, WIRE_REQUEST, i + 1, lengths[i]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	buf_done(&b);
	end(&w);
}

static void bytes_one_by_one_make_the_same_frames(void **state)
{
	struct world w;
	struct buf b;
	struct wire_frame f;

	(void)state;
	begin(&w);
	buf_init(&b, 1000);
	put(&b, WIRE_REQUEST, 1, 10);
	say(&w, b.ptr, b.len);
	expect(&w, WIRE_REQUEST, 1, 10);
	for (size_t i = 0; i < WIRE_HEADER_BYTES; i++) {
		assert_int_equal(intake_look(&w.in, &f), 0);
		say(&w, b.ptr + i, 1);
	}
	assert_int_equal(intake_look(&w.in, &f), 1);
	assert_int_equal(f.type, WIRE_REQUEST);
	say(&w, b.ptr + WIRE_HEADER_BYTES, 10);
	expect(&w, WIRE_REQUEST, 1, 10);
	buf_done(&b);
	end(&w);
}

static void a_look_finds_what_came_with_the_frame_before_it(void **state)
{
	struct world w;
	struct buf b;
	struct wire_frame f;
	struct slice payload;

	(void)state;
	begin(&w);
	buf_init(&b, 1000);
	put(&b, WIRE_REQUEST, 7, 10);
	put(&b, WIRE_CANCEL, 7, 0);
	say(&w, b.ptr, b.len);
	assert_int_equal(intake_frame(&w.in, &f, &payload), 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(intake_look(&w.in, &f), 1);
		assert_int_equal(f.type, WIRE_CANCEL);
		assert_memory_equal(payload.ptr, "\7\7\7\7\7\7\7\7\7\7", 10); /* it is still there */
	}
	expect(&w, WIRE_CANCEL, 7, 0);
	assert_int_equal(intake_look(&w.in, &f), 0);
	close(w.front);
	w.front = -1;
	assert_int_equal(intake_look(&w.in, &f), -ECONNRESET);
	assert_int_equal(intake_frame(&w.in, &f, &payload), 0);
	buf_done(&b);
	end(&w);
}

static void a_descriptor_comes_with_the_beginning_of_a_frame(void **state)
{
	struct world w;
	struct buf b;

	(void)state;
	begin(&w);
	buf_init(&b, 1000);
	put(&b, WIRE_REQUEST, 1, 10);
	say_with_file(&w, b.ptr, 1);
	say(&w, b.ptr + 1, b.len - 1);
	expect(&w, WIRE_REQUEST, 1, 10);
	assert_int_not_equal(w.in.fd, -1);
	buf_done(&b);
	end(&w);
}

/* The beginning has been taken before: what comes with the rest is not the frame's. */
static void a_descriptor_inside_a_frame_or_a_second_one_is_refused(void **state)
{
	(void)state;
	for (int second = 0; second < 2; second++) {
		struct world w;
		struct buf b;
		struct wire_frame f;
		struct slice payload;

		begin(&w);
		buf_init(&b, 1000);
		put(&b, WIRE_REQUEST, 1, 10);
		if (second)
			say_with_file(&w, b.ptr, b.len);
		else
			say(&w, b.ptr, b.len);
		expect(&w, WIRE_REQUEST, 1, 10);
		if (!second) {
			say(&w, b.ptr, 5);
			assert_int_equal(intake_look(&w.in, &f), 0);
		}
		say_with_file(&w, b.ptr + (second ? 0 : 5), b.len - (second ? 0 : 5));
		assert_int_equal(intake_frame(&w.in, &f, &payload), -EPROTO);
		buf_done(&b);
		end(&w);
	}
}

static void what_is_no_frame_is_refused(void **state)
{
	struct world w;
	struct wire_frame f;
	struct slice payload;

	(void)state;
	begin(&w);
	say(&w, "this is no frame", 16);
	assert_int_equal(intake_frame(&w.in, &f, &payload), -EPROTO);
	end(&w);
}

static void memory_of_a_large_frame_goes_back(void **state)
{
	struct world w;
	struct buf b;

	(void)state;
	begin(&w);
	buf_init(&b, 1u << 20);
	put(&b, WIRE_REQUEST, 1, 100000);
	say(&w, b.ptr, b.len);
	expect(&w, WIRE_REQUEST, 1, 100000);
	assert_true(w.in.size > 100000);
	intake_forget(&w.in);
	assert_int_equal(w.in.size, 0);
	buf_clear(&b);
	put(&b, WIRE_REQUEST, 2, 100);
	put(&b, WIRE_CANCEL, 2, 0);
	say(&w, b.ptr, b.len);
	expect(&w, WIRE_REQUEST, 2, 100);
	intake_forget(&w.in); /* not what is still to be handed out */
	expect(&w, WIRE_CANCEL, 2, 0);
	buf_done(&b);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_that_come_together_are_given_one_by_one),
		cmocka_unit_test(bytes_one_by_one_make_the_same_frames),
		cmocka_unit_test(a_look_finds_what_came_with_the_frame_before_it),
		cmocka_unit_test(a_descriptor_comes_with_the_beginning_of_a_frame),
		cmocka_unit_test(a_descriptor_inside_a_frame_or_a_second_one_is_refused),
		cmocka_unit_test(what_is_no_frame_is_refused),
		cmocka_unit_test(memory_of_a_large_frame_goes_back),
	};

	alarm(60); /* a hang is a failure */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
