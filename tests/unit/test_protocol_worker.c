#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "upstream/protocol/protocol.h"
#include "upstream/worker/wire.h"

/* An attempt that writes down what it is told. */

struct attempt {
	struct loop *loop;
	struct request request;
	struct link link;
	struct buf out;
	int out_fd;
	bool body_sent;
	struct buf told; /* heads, files, the end: in words */
	struct buf content;
	uint64_t raw_left;
	bool whole, reusable;
	_Alignas(max_align_t) char state[256];
};

const struct request *attempt_request(const struct attempt *a)
{
	return &a->request;
}

const struct conf_pool *attempt_pool_conf(const struct attempt *a UNUSED)
{
	return NULL;
}

struct link *attempt_link(struct attempt *a)
{
	return &a->link;
}

struct buf *attempt_out(struct attempt *a)
{
	return &a->out;
}

void attempt_send_fd(struct attempt *a, int *fd)
{
	a->out_fd = *fd;
	*fd = -1;
}

void attempt_body_sent(struct attempt *a)
{
	a->body_sent = true;
}

void attempt_got_head(struct attempt *a, struct head *h, const struct http1_message *m)
{
	buf_printf(&a->told, "head %u %u", h->status, h->field_count);
	if (m->framing == FRAMING_LENGTH)
		buf_printf(&a->told, " length %" PRIu64, m->length);
	else if (m->framing == FRAMING_NONE)
		buf_printf(&a->told, " none");
	buf_printf(&a->told, ";");
	head_done(h);
}

void attempt_got_content(struct attempt *a, struct slice bytes)
{
	buf_add(&a->content, bytes);
}

void attempt_got_raw(struct attempt *a, uint64_t n)
{
	a->raw_left = n;
}

int attempt_got_file(struct attempt *a, int *fd, uint64_t offset, uint64_t len)
{
	struct stat st;
	int err = fstat(*fd, &st) == -1 || (uint64_t)st.st_size < offset + len ? -EPROTO : 0;

	buf_printf(&a->told, "file %" PRIu64 "+%" PRIu64 ";", offset, len);
	close(*fd);
	*fd = -1;
	return err;
}

void attempt_got_whole(struct attempt *a, bool reusable)
{
	buf_printf(&a->told, "whole%s;", reusable ? "" : " last");
	a->whole = true;
	a->reusable = reusable;
}

/* The linker puts this before the real one. */
static int export_error;
int __real_body_export(struct body *b, int *ret_fd);
int __wrap_body_export(struct body *b, int *ret_fd);

int __wrap_body_export(struct body *b, int *ret_fd)
{
	return export_error ? export_error : __real_body_export(b, ret_fd);
}

static struct clock_test test_clock;
static struct budget budget;

static void set_up(struct attempt *a, const char *method)
{
	memset(a, 0, sizeof(*a));
	a->out_fd = -1;
	buf_init(&a->out, 512u << 10);
	buf_init(&a->told, 4096);
	buf_init(&a->content, 4u << 20);
	clock_test_init(&test_clock);
	budget_init(&budget, 64u << 20);
	assert_int_equal(loop_new(0, &test_clock.clock, &budget, NULL, &a->loop), 0);
	assert_int_equal(head_put(&a->request.head, slice_str(method), &a->request.head.method_text), 0);
	assert_int_equal(head_put(&a->request.head, SLICE("/path"), &a->request.head.path), 0);
	a->request.head.method = (uint8_t)method_from(slice_str(method));
	a->request.length_known = true;
	a->link.serial = 41;
}

static void tear_down(struct attempt *a)
{
	protocol_worker.done(a->state);
	body_free(&a->request.body);
	head_done(&a->request.head);
	loop_free(&a->loop);
	if (a->out_fd != -1)
		close(a->out_fd);
	buf_done(&a->out);
	buf_done(&a->told);
	buf_done(&a->content);
}

static void give_body(struct attempt *a, size_t bytes, bool finished)
{
	const struct body_options o = { .memory_max = 8u << 20, .expected = bytes };
	char *content = malloc(bytes + 1);

	for (size_t i = 0; i < bytes; i++)
		content[i] = (char)(i * 7 + i / 251);
	assert_int_equal(body_new(a->loop, &o, &a->request.body), 0);
	assert_int_equal(body_append(a->request.body, slice_of(content, bytes)), 0);
	if (finished)
		body_finish(a->request.body);
	a->request.length = bytes;
	free(content);
}

/* The REQUEST that stands in a->out behind `at`. */
static void read_request(const struct attempt *a, size_t at, struct wire_frame *f, struct wire_request *r)
{
	struct slice in = slice_of(a->out.ptr + at, a->out.len - at);

	assert_int_equal(wire_get_header(in, f), 1);
	assert_int_equal(f->type, WIRE_REQUEST);
	assert_int_equal(f->length, in.len - WIRE_HEADER_BYTES);
	assert_int_equal(wire_get_request(f, slice_of(in.ptr + WIRE_HEADER_BYTES, f->length), r), 0);
}

static const struct {
	size_t bytes;
	bool descriptor;
} bodies[] = {
	{ 0, false },
	{ 1, false },
	{ 70000, false },
	{ WIRE_INLINE_MAX, false },
	{ WIRE_INLINE_MAX + 1, true },
	{ 1u << 20, true },
};

static void a_request_is_one_frame(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
		struct attempt a;
		struct wire_frame f;
		struct wire_request r;
		struct slice name, value;
		struct stat st;

		set_up(&a, "POST");
		give_body(&a, bodies[i].bytes, true);
		assert_int_equal(protocol_worker.start(&a, a.state), 0);
		assert_int_equal(a.link.serial, 42);
		assert_int_equal(wire_get_header(buf_slice(&a.out), &f), 1);
		assert_int_equal(f.type, WIRE_HELLO);
		read_request(&a, WIRE_HEADER_BYTES + WIRE_HELLO_BYTES, &f, &r);
		assert_int_equal(f.serial, 42);
		assert_int_equal(r.length, bodies[i].bytes);
		assert_int_equal(wire_get_pair(&r.variables, &name, &value), 1);
		assert_true(slice_eq(name, SLICE("GATEWAY_INTERFACE")));
		if ((a.out_fd != -1) != bodies[i].descriptor || (f.flags & WIRE_DESCRIPTOR) != bodies[i].descriptor)
			fail_msg("row %zu: a descriptor", i);
		if (a.out_fd == -1) {
			assert_true(a.body_sent);
			for (size_t k = 0; k < r.body.len; k++)
				assert_int_equal(r.body.ptr[k], (char)(k * 7 + k / 251));
		} else {
			assert_int_equal(fstat(a.out_fd, &st), 0);
			assert_int_equal(st.st_size, (off_t)bodies[i].bytes);
			assert_int_equal(pwrite(a.out_fd, "x", 1, 0), -1);
		}
		tear_down(&a);
	}
}

static void only_the_first_request_of_a_link_is_greeted(void **state)
{
	struct attempt a;
	struct wire_frame f;
	struct wire_request r;

	(void)state;
	set_up(&a, "GET");
	a.link.greeted = true;
	assert_int_equal(protocol_worker.start(&a, a.state), 0);
	read_request(&a, 0, &f, &r);
	assert_int_equal(r.length, 0);
	tear_down(&a);
}

static void what_is_not_whole_or_too_large_is_not_sent(void **state)
{
	struct attempt a;
	char *value;

	(void)state;
	set_up(&a, "POST"); /* of unknown length */
	give_body(&a, 5, true);
	a.request.length_known = false;
	assert_int_equal(protocol_worker.start(&a, a.state), -ENOTSUP);
	tear_down(&a);

	set_up(&a, "POST"); /* not all there */
	give_body(&a, 5, false);
	assert_int_equal(protocol_worker.start(&a, a.state), -ENOTSUP);
	tear_down(&a);

	set_up(&a, "GET"); /* wants another protocol: it is asked without */
	give_body(&a, 5, false);
	a.request.upgrade = true;
	assert_int_equal(protocol_worker.start(&a, a.state), 0);
	assert_true(a.body_sent);
	tear_down(&a);

	value = malloc(WIRE_VARIABLES_MAX);
	memset(value, 'v', WIRE_VARIABLES_MAX);
	set_up(&a, "GET");
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(head_add(&a.request.head,
		                     i == 0   ? SLICE("A")
		                     : i == 1 ? SLICE("B")
		                              : SLICE("C"),
		                     slice_of(value, WIRE_VARIABLES_MAX / 3)),
		    0);
	assert_int_equal(protocol_worker.start(&a, a.state), -E2BIG);
	tear_down(&a);
	free(value);
}

static const int export_errors[] = { -EXDEV, -EAGAIN, -ENODATA, -ENOSPC, -EIO, -EMFILE, -ENOMEM };

static void a_body_that_cannot_be_handed_over_is_told_at_once(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(export_errors); i++) {
		struct attempt a;
		int got;

		set_up(&a, "POST");
		give_body(&a, WIRE_INLINE_MAX + 1, true);
		export_error = export_errors[i];
		got = protocol_worker.start(&a, a.state);
		export_error = 0;
		if (got != export_errors[i] || a.out_fd != -1 || a.body_sent)
			fail_msg("row %zu: %d", i, got);
		tear_down(&a);
	}
}

static void whether_it_began_is_what_the_page_says(void **state)
{
	_Atomic uint64_t line;
	struct attempt a;

	(void)state;
	set_up(&a, "GET");
	assert_int_equal(protocol_worker.start(&a, a.state), 0);
	assert_int_equal(protocol_worker.begun(&a, a.state), BEGUN_UNKNOWN);
	a.link.started = &line;
	atomic_init(&line, 41); /* the one before */
	assert_int_equal(protocol_worker.begun(&a, a.state), BEGUN_NO);
	atomic_store(&line, 42);
	assert_int_equal(protocol_worker.begun(&a, a.state), BEGUN_YES);
	tear_down(&a);
}

/* Answers. */

static void put_frame(struct buf *b, uint8_t type, uint8_t flags, uint64_t serial, struct slice payload)
{
	char *to = buf_room(b, WIRE_HEADER_BYTES);

	assert_non_null(to);
	wire_put_header(
	    to, &(struct wire_frame){ .type = type, .flags = flags, .length = (uint32_t)payload.len, .serial = serial });
	b->len += WIRE_HEADER_BYTES;
	buf_add(b, payload);
}

/* A HEAD; length NULL: no Content-Length. */
static void put_head(struct buf *b, uint64_t serial, unsigned status, const char *length)
{
	struct buf payload;
	char start[4];

	buf_init(&payload, 256);
	wire_put_u16(start, (uint16_t)status);
	wire_put_u16(start + 2, length ? 2 : 1);
	buf_add(&payload, slice_of(start, 4));
	wire_put_pair(&payload, SLICE("Server"), SLICE("test"));
	if (length)
		wire_put_pair(&payload, SLICE("Content-Length"), slice_str(length));
	put_frame(b, WIRE_HEAD, 0, serial, buf_slice(&payload));
	buf_done(&payload);
}

static void put_file(struct buf *b, uint64_t offset, uint64_t length)
{
	struct wire_file file = { offset, length };
	char payload[WIRE_FILE_BYTES];

	wire_put_file(payload, &file);
	put_frame(b, WIRE_FILE, WIRE_DESCRIPTOR, 42, slice_of(payload, sizeof(payload)));
}

/*
 * An answer, a letter a frame: h hello, H head, L head with Content-Length 5, N 204, I 103, C the head of another request, d "12345", e "1", E END, Z END and
 * last, D DATA of another request, f FILE of bytes 1 to 3, g FILE beyond the end, R REQUEST, x a byte too few of a header, X nonsense. '*' before a
 * frame: a descriptor comes with it.
 */
static void put_letter(struct buf *b, char letter)
{
	switch (letter) {
	case 'h':
		wire_put_hello(b);
		break;
	case 'H':
		put_head(b, 42, 200, NULL);
		break;
	case 'L':
		put_head(b, 42, 200, "5");
		break;
	case 'N':
		put_head(b, 42, 204, NULL);
		break;
	case 'I':
		put_head(b, 42, 103, NULL);
		break;
	case 'C':
		put_head(b, 41, 200, NULL);
		break;
	case 'd':
		put_frame(b, WIRE_DATA, 0, 42, SLICE("12345"));
		break;
	case 'e':
		put_frame(b, WIRE_DATA, 0, 42, SLICE("1"));
		break;
	case 'D':
		put_frame(b, WIRE_DATA, 0, 43, SLICE("12345"));
		break;
	case 'E':
		put_frame(b, WIRE_END, 0, 42, SLICE(""));
		break;
	case 'Z':
		put_frame(b, WIRE_END, WIRE_LAST, 42, SLICE(""));
		break;
	case 'f':
		put_file(b, 1, 3);
		break;
	case 'g':
		put_file(b, 1, 300);
		break;
	case 'R':
		put_frame(b, WIRE_REQUEST, 0, 42, SLICE("\0\0\0\0"));
		break;
	case 'x':
		buf_add(b, SLICE("\6\0\0\0\0\0\0\0\x2a\0\0\0\0\0\0"));
		break;
	case 'X':
		buf_add(b, SLICE("HTTP/1.1 200 OK\r\n\r\n"));
		break;
	default:
		fail_msg("letter %c", letter);
	}
}

static const struct {
	const char *method, *frames, *told, *content;
	int want;
} answers[] = {
	{ "GET", "hHE", "head 200 1;whole;", "", 0 },
	{ "GET", "hHdE", "head 200 1;whole;", "12345", 0 },
	{ "GET", "hHdedE", "head 200 1;whole;", "12345112345", 0 },
	{ "GET", "hLdE", "head 200 2 length 5;whole;", "12345", 0 },
	{ "GET", "hLeeeeeE", "head 200 2 length 5;whole;", "11111", 0 },
	{ "GET", "hHdZ", "head 200 1;whole last;", "12345", 0 },
	{ "GET", "hIIHdE", "head 103 1 none;head 103 1 none;head 200 1;whole;", "12345", 0 },
	{ "GET", "hIIIIIIIIHE",
	    "head 103 1 none;head 103 1 none;head 103 1 none;head 103 1 none;head 103 1 none;head 103 1 none;head 103 1 none;"
	    "head 103 1 none;head 200 1;whole;",
	    "", 0 },
	{ "HEAD", "hLE", "head 200 2 none;whole;", "", 0 },
	{ "GET", "hNE", "head 204 1 none;whole;", "", 0 },
	{ "GET", "hH*fE", "head 200 1;file 1+3;whole;", "", 0 },
	{ "GET", "hHd*fe*fE", "head 200 1;file 1+3;file 1+3;whole;", "123451", 0 },
	{ "GET", "hLe*feE", "head 200 2 length 5;file 1+3;whole;", "11", 0 },
	/* not all there */
	{ "GET", "", "", "", -EAGAIN },
	{ "GET", "h", "", "", -EAGAIN },
	{ "GET", "hHd", "head 200 1;", "12345", -EAGAIN },
	{ "GET", "hHx", "head 200 1;", "", -EAGAIN },
	/* refused */
	{ "GET", "X", "", "", -EPROTO },
	{ "GET", "HE", "", "", -EPROTO }, /* no HELLO */
	{ "GET", "hhHE", "", "", -EPROTO },
	{ "GET", "hHhE", "head 200 1;", "", -EPROTO },
	{ "GET", "hC", "", "", -EPROTO }, /* another request's answer */
	{ "GET", "hHD", "head 200 1;", "", -EPROTO },
	{ "GET", "hE", "", "", -EPROTO },
	{ "GET", "hd", "", "", -EPROTO },
	{ "GET", "hIE", "head 103 1 none;", "", -EPROTO },
	{ "GET", "hId", "head 103 1 none;", "", -EPROTO },
	{ "GET", "hHHE", "head 200 1;", "", -EPROTO },         /* two heads */
	{ "GET", "hHIE", "head 200 1;", "", -EPROTO },         /* hints behind it */
	{ "GET", "hLE", "head 200 2 length 5;", "", -EPROTO }, /* too short */
	{ "GET", "hLeE", "head 200 2 length 5;", "1", -EPROTO },
	{ "GET", "hLde", "head 200 2 length 5;", "12345", -EPROTO }, /* too long */
	{ "GET", "hLed", "head 200 2 length 5;", "1", -EPROTO },
	{ "GET", "hLd*f", "head 200 2 length 5;", "12345", -EPROTO },
	{ "HEAD", "hLd", "head 200 2 none;", "", -EPROTO },
	{ "HEAD", "hH*f", "head 200 1 none;", "", -EPROTO },
	{ "GET", "hNe", "head 204 1 none;", "", -EPROTO },
	{ "GET", "hHf", "head 200 1;", "", -EPROTO },             /* no descriptor */
	{ "GET", "hH*g", "head 200 1;file 1+300;", "", -EPROTO }, /* beyond the file's end */
	{ "GET", "hH*dE", "head 200 1;", "12345", -EPROTO },      /* a descriptor without a FILE */
	{ "GET", "h*HE", "head 200 1;", "", -EPROTO },
	{ "GET", "hR", "", "", -EPROTO },
	{ "GET", "hIIIIIIIIIHE",
	    "head 103 1 none;head 103 1 none;head 103 1 none;head 103 1 none;head 103 1 none;head 103 1 none;head 103 1 none;"
	    "head 103 1 none;",
	    "", -EPROTO },
};

/* As attempt.c does it: what take() leaves comes again, raw bytes pass it by. 0 when whole, -EAGAIN when not, or what take() said. */
static int feed(struct attempt *a, struct buf *kept, struct slice bytes, int *fd)
{
	const char *why = NULL;

	buf_add(kept, bytes);
	while (!a->whole) {
		struct slice in = buf_slice(kept);
		size_t raw = (size_t)MIN(a->raw_left, in.len);
		int err = 0;

		attempt_got_content(a, slice_of(in.ptr, raw));
		a->raw_left -= raw;
		in = slice_of(in.ptr + raw, in.len - raw);
		if (a->raw_left == 0)
			err = protocol_worker.take(a, a->state, &in, fd, &why);
		if (err) {
			assert_non_null(why);
			return err;
		}
		if (kept->len == in.len)
			break;
		memmove(kept->ptr, in.ptr, in.len);
		kept->len = in.len;
		if (a->raw_left == 0 || in.len == 0)
			break;
	}
	return a->whole ? 0 : -EAGAIN;
}

static int new_file(void)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_int_equal(write(fd, "0123456789", 10), 10);
	return fd;
}

/*
 * A descriptor comes with the first byte of its frame, and at the latest with the last byte of a recv: so each part that is fed ends where the next
 * descriptor begins. step: bytes at a time.
 */
static int feed_all(struct attempt *a, const char *frames, size_t step)
{
	struct buf part, kept;
	int err = -EAGAIN;

	buf_init(&kept, 64u << 10);
	while (err == -EAGAIN && *frames) {
		int fd = *frames == '*' ? new_file() : -1;

		frames += *frames == '*';
		buf_init(&part, 64u << 10);
		do
			put_letter(&part, *frames++);
		while (*frames && *frames != '*');
		for (size_t at = 0; err == -EAGAIN && at < part.len; at += step)
			err = feed(a, &kept, slice_of(part.ptr + at, MIN(step, part.len - at)), &fd);
		if (fd != -1)
			close(fd);
		buf_done(&part);
	}
	buf_done(&kept);
	return err;
}

static void an_answer_is_taken_or_refused(void **state)
{
	static const size_t steps[] = { SIZE_MAX, 1, 7, 17 };

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(steps); k++)
		for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
			struct attempt a;
			size_t step = MIN(steps[k], 60000);
			int got;

			set_up(&a, answers[i].method);
			assert_int_equal(protocol_worker.start(&a, a.state), 0);
			got = feed_all(&a, answers[i].frames, step);
			if (got != answers[i].want)
				fail_msg("row %zu, step %zu: %d", i, step, got);
			if (!slice_eq(buf_slice(&a.told), slice_str(answers[i].told)))
				fail_msg("row %zu, step %zu: %.*s", i, step, SLICE_ARG(buf_slice(&a.told)));
			if (got != -EPROTO && !slice_eq(buf_slice(&a.content), slice_str(answers[i].content)))
				fail_msg("row %zu, step %zu: content %.*s", i, step, SLICE_ARG(buf_slice(&a.content)));
			assert_int_equal(protocol_worker.eof(&a, a.state), -EPROTO);
			tear_down(&a);
		}
}

static void nothing_may_stand_behind_the_end(void **state)
{
	struct attempt a;
	struct buf b;
	struct slice in;
	const char *why = NULL;
	int fd = -1;

	(void)state;
	set_up(&a, "GET");
	assert_int_equal(protocol_worker.start(&a, a.state), 0);
	buf_init(&b, 4096);
	for (const char *letter = "hHEH"; *letter; letter++)
		put_letter(&b, *letter);
	in = buf_slice(&b);
	assert_int_equal(protocol_worker.take(&a, a.state, &in, &fd, &why), -EPROTO);
	assert_string_equal(why, "bytes behind the response");
	assert_false(a.whole);
	buf_done(&b);
	tear_down(&a);
}

static void long_content_passes_by_as_raw_bytes(void **state)
{
	struct attempt a;
	struct buf b;
	struct slice in;
	const char *why = NULL;
	char *content = calloc(1, WIRE_DATA_MAX);
	int fd = -1;

	(void)state;
	set_up(&a, "GET");
	assert_int_equal(protocol_worker.start(&a, a.state), 0);
	buf_init(&b, 2 * WIRE_DATA_MAX);
	put_letter(&b, 'h');
	put_letter(&b, 'H');
	put_frame(&b, WIRE_DATA, 0, 42, slice_of(content, WIRE_DATA_MAX));
	in = slice_of(b.ptr, b.len - WIRE_DATA_MAX + 100);
	assert_int_equal(protocol_worker.take(&a, a.state, &in, &fd, &why), 0);
	assert_int_equal(in.len, 0);
	assert_int_equal(a.content.len, 100);
	assert_int_equal(a.raw_left, WIRE_DATA_MAX - 100);
	buf_done(&b);
	tear_down(&a);
	free(content);
}

static void a_worker_is_told_that_its_client_has_gone(void **state)
{
	struct attempt a;
	struct wire_frame f;
	size_t at;

	(void)state;
	set_up(&a, "GET");
	assert_int_equal(protocol_worker.start(&a, a.state), 0);
	at = a.out.len;
	protocol_worker.cancel(&a, a.state);
	assert_int_equal(a.out.len, at + WIRE_HEADER_BYTES);
	assert_int_equal(wire_get_header(slice_of(a.out.ptr + at, WIRE_HEADER_BYTES), &f), 1);
	assert_int_equal(f.type, WIRE_CANCEL);
	assert_int_equal(f.serial, 42);
	tear_down(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_is_one_frame),
		cmocka_unit_test(only_the_first_request_of_a_link_is_greeted),
		cmocka_unit_test(what_is_not_whole_or_too_large_is_not_sent),
		cmocka_unit_test(a_body_that_cannot_be_handed_over_is_told_at_once),
		cmocka_unit_test(whether_it_began_is_what_the_page_says),
		cmocka_unit_test(an_answer_is_taken_or_refused),
		cmocka_unit_test(nothing_may_stand_behind_the_end),
		cmocka_unit_test(long_content_passes_by_as_raw_bytes),
		cmocka_unit_test(a_worker_is_told_that_its_client_has_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
