#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "upstream/worker/demo.h"
#include "upstream/worker/runtime.h"
#include "upstream/worker/wire.h"

#define SEATS 4

/* An application whose every step the test decides. */

static struct {
	sem_t inside, go; /* a request is in the application; it may go on */
	atomic_int result;
} stage;

static bool begin_text(struct worker_request *r)
{
	return worker_status(r, 200) == 0 && worker_field(r, SLICE("Content-Type"), SLICE("text/plain")) == 0;
}

static void serve_ok(struct worker_request *r)
{
	if (begin_text(r))
		(void)!worker_write(r, "ok", 2);
}

static void serve_wait(struct worker_request *r)
{
	sem_post(&stage.inside);
	sem_wait(&stage.go);
	serve_ok(r);
}

/* Begins when the test says so. */
static void serve_late(struct worker_request *r)
{
	sem_post(&stage.inside);
	sem_wait(&stage.go);
	worker_begin(r);
	sem_post(&stage.inside);
	sem_wait(&stage.go);
	serve_ok(r);
}

static void serve_gone(struct worker_request *r)
{
	sem_post(&stage.inside);
	sem_wait(&stage.go);
	atomic_store(&stage.result, worker_client_gone(r));
	serve_ok(r);
}

static void serve_body(struct worker_request *r)
{
	char piece[1000];
	ssize_t n;

	if (!begin_text(r))
		return;
	while ((n = worker_body_read(r, piece, sizeof(piece))) > 0)
		if (worker_write(r, piece, (size_t)n) != 0)
			return;
}

static void serve_nothing(struct worker_request *r)
{
	(void)r;
}

static void serve_only_hints(struct worker_request *r)
{
	(void)!worker_status(r, 103);
}

static void serve_short(struct worker_request *r)
{
	if (worker_status(r, 200) == 0 && worker_field(r, SLICE("Content-Length"), SLICE("5")) == 0)
		(void)!worker_write(r, "1234", 4);
}

static void serve_too_much(struct worker_request *r)
{
	if (worker_status(r, 200) == 0 && worker_field(r, SLICE("Content-Length"), SLICE("2")) == 0 &&
	    worker_write(r, "ok!", 3) == -EINVAL)
		(void)!worker_write(r, "ok", 2);
}

static void serve_abort(struct worker_request *r)
{
	if (begin_text(r) && worker_flush(r) == 0)
		worker_abort(r);
}

static void serve_out_of_order(struct worker_request *r)
{
	bool ok = worker_field(r, SLICE("A"), SLICE("b")) == -EINVAL && worker_write(r, "x", 1) == -EINVAL &&
	          worker_flush(r) == -EINVAL && worker_status(r, 199) == -EINVAL && worker_status(r, 600) == -EINVAL &&
	          worker_status(r, 101) == -EINVAL && worker_status(r, 200) == 0 && worker_status(r, 200) == -EINVAL &&
	          worker_field(r, SLICE("A:"), SLICE("b")) == -EINVAL &&
	          worker_field(r, SLICE("A"), SLICE("b\r\nC: d")) == -EINVAL &&
	          worker_field(r, SLICE("Connection"), SLICE("close")) == -EINVAL &&
	          worker_field(r, SLICE("Content-Length"), SLICE("two")) == -EINVAL &&
	          worker_field(r, SLICE("Content-Length"), SLICE("2")) == 0 &&
	          worker_field(r, SLICE("Content-Length"), SLICE("2")) == -EINVAL && worker_write(r, "ok", 2) == 0 &&
	          worker_field(r, SLICE("A"), SLICE("b")) == -EINVAL && worker_status(r, 200) == -EINVAL;

	if (!ok)
		worker_abort(r);
}

static void serve_too_many_fields(struct worker_request *r)
{
	unsigned n = 0;

	if (worker_status(r, 200) != 0)
		return;
	while (worker_field(r, SLICE("A"), SLICE("b")) == 0)
		n++;
	if (n == WIRE_FIELDS_MAX && worker_field(r, SLICE("A"), SLICE("b")) == -E2BIG)
		(void)!worker_write(r, "ok", 2);
	else
		worker_abort(r);
}

static char filler[WIRE_HEAD_MAX];

static void serve_large_head(struct worker_request *r)
{
	/* Status and count, the lengths of two pairs, two names of one byte. */
	size_t room = WIRE_HEAD_MAX - 4 - 2 * (8 + 1);

	if (worker_status(r, 200) != 0 || worker_field(r, SLICE("A"), slice_of(filler, 10)) != 0)
		return;
	if (worker_field(r, SLICE("B"), slice_of(filler, room - 10 + 1)) == -E2BIG &&
	    worker_field(r, SLICE("B"), slice_of(filler, room - 10)) == 0)
		(void)!worker_write(r, "ok", 2);
	else
		worker_abort(r);
}

static void serve_file(struct worker_request *r)
{
	int fd = memfd_create("file", MFD_CLOEXEC), same;
	bool ok = write(fd, "xokx", 4) == 4 && begin_text(r);

	same = dup(fd);
	ok = ok && worker_write_file(r, &same, 1, 4) == -EINVAL && same == -1; /* beyond its end */
	ok = ok && worker_write(r, "<", 1) == 0 && worker_write_file(r, &fd, 1, 2) == 0 && fd == -1 &&
	     worker_write(r, ">", 1) == 0;
	if (!ok)
		worker_abort(r);
}

/* More than the front takes as descriptors: the rest comes as bytes, in order. */
static void serve_files(struct worker_request *r)
{
	int fd = memfd_create("files", MFD_CLOEXEC),
	    err = write(fd, "abcdefghijklmnopqr", 18) == 18 && begin_text(r) ? 0 : -EIO;

	for (uint64_t i = 0; i < WIRE_FILES_MAX + 2 && !err; i++) {
		int same = dup(fd);

		err = worker_write_file(r, &same, i, 1);
	}
	close(fd);
	if (err)
		worker_abort(r);
}

static void serve_large(struct worker_request *r)
{
	size_t len = 3 * WIRE_DATA_MAX + 17;
	char *content = malloc(len);

	memset(content, 'c', len);
	if (begin_text(r) && worker_write(r, "a", 1) == 0 && worker_write(r, content, len) == 0)
		(void)!worker_write(r, "b", 1);
	free(content);
}

static void serve_hints(struct worker_request *r)
{
	int err = 0;

	for (unsigned i = 0; i < WIRE_INTERIM_MAX && !err; i++)
		err = worker_status(r, 103);
	if (!err && worker_write(r, "x", 1) == -EINVAL && worker_status(r, 103) == -EINVAL)
		serve_ok(r);
}

static const struct {
	const char *path;
	void (*serve)(struct worker_request *r);
} pages[] = {
	{ "/ok", serve_ok },
	{ "/wait", serve_wait },
	{ "/late", serve_late },
	{ "/gone", serve_gone },
	{ "/body", serve_body },
	{ "/nothing", serve_nothing },
	{ "/only-hints", serve_only_hints },
	{ "/short", serve_short },
	{ "/too-much", serve_too_much },
	{ "/abort", serve_abort },
	{ "/out-of-order", serve_out_of_order },
	{ "/fields", serve_too_many_fields },
	{ "/head", serve_large_head },
	{ "/file", serve_file },
	{ "/files", serve_files },
	{ "/large", serve_large },
	{ "/hints", serve_hints },
};

static void app_serve(void *ctx UNUSED, struct worker_request *r)
{
	for (size_t i = 0; i < ARRAY_LEN(pages); i++)
		if (slice_eq(worker_get(r, "PATH_INFO"), slice_str(pages[i].path)))
			pages[i].serve(r);
}

static const struct worker_app app = { .name = "test", .serve = app_serve };

static const struct worker_app late_app = { .name = "late", .serve = app_serve, .says_begun = true };

/* The master and the front of one worker. */

struct world {
	struct runtime_plan plan;
	struct started_line *started;
	pthread_t thread;
	int control;
	int result;
	int front[SEATS]; /* -1: none */
};

static unsigned look_ms; /* of the next world's worker; 0: as ever */

static void *run(void *ctx)
{
	struct world *w = ctx;

	w->result = runtime_run(&w->plan);
	return NULL;
}

static struct control_message hear(struct world *w)
{
	struct control_message m = { 0 };
	size_t fds;

	assert_int_equal(fdpass_recv(w->control, &m, sizeof(m), NULL, 0, &fds, 0), sizeof(m));
	return m;
}

static void expect_want(struct world *w, unsigned seat)
{
	struct control_message m = hear(w);

	assert_int_equal(m.type, CONTROL_WANT);
	assert_int_equal(m.seat, seat);
}

static void give(struct world *w, unsigned seat)
{
	const struct control_message m = { .type = CONTROL_SLOT, .seat = seat };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(fdpass_send(w->control, &m, sizeof(m), &pair[1], 1, 0), sizeof(m));
	close(pair[1]);
	w->front[seat] = pair[0];
}

static void start(struct world *w, const struct worker_app *what, unsigned threads, uint64_t max_requests)
{
	bool wanted[SEATS] = { false };
	int pair[2];

	*w = (struct world){ .plan = {
		                 .app = what,
		                 .threads = threads,
		                 .max_requests = max_requests,
		                 .look_ms = look_ms,
		                 .report_ms = look_ms,
		             } };
	for (unsigned i = 0; i < SEATS; i++)
		w->front[i] = -1;
	if (what->load)
		assert_int_equal(what->load(&(struct worker_setting){ .target = "" }, &w->plan.app_ctx), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	w->control = pair[0];
	w->plan.control = pair[1];
	w->started = aligned_alloc(STARTED_LINE_BYTES, SEATS * STARTED_LINE_BYTES);
	memset((void *)w->started, 0, SEATS * STARTED_LINE_BYTES);
	w->plan.started = w->started;
	sem_init(&stage.inside, 0, 0);
	sem_init(&stage.go, 0, 0);
	assert_int_equal(pthread_create(&w->thread, NULL, run, w), 0);
	for (unsigned i = 0; i < threads; i++) {
		struct control_message m = hear(w);

		assert_int_equal(m.type, CONTROL_WANT);
		assert_true(m.seat < threads && !wanted[m.seat]);
		wanted[m.seat] = true;
	}
	for (unsigned i = 0; i < threads; i++)
		give(w, i);
}

static void join(struct world *w)
{
	pthread_join(w->thread, NULL);
	assert_int_equal(w->result, 0);
	for (unsigned i = 0; i < SEATS; i++)
		if (w->front[i] != -1)
			close(w->front[i]);
	close(w->control);
	close(w->plan.control);
	free(w->started);
	sem_destroy(&stage.inside);
	sem_destroy(&stage.go);
}

static void say_end(struct world *w)
{
	const struct control_message m = { .type = CONTROL_END };

	assert_int_equal(fdpass_send(w->control, &m, sizeof(m), NULL, 0, 0), sizeof(m));
}

static void stop(struct world *w)
{
	say_end(w);
	join(w);
}

static void send_buf(int fd, struct buf *b, const int *file)
{
	size_t at = 0;

	assert_false(b->failed);
	while (at < b->len) {
		ssize_t n = fdpass_send(fd, b->ptr + at, b->len - at, file, file && at == 0 ? 1 : 0, 0);

		assert_true(n > 0);
		at += (size_t)n;
	}
	buf_done(b);
}

static void put_frame(struct buf *b, uint8_t type, uint8_t flags, uint64_t serial, struct slice payload)
{
	char *to = buf_room(b, WIRE_HEADER_BYTES);

	assert_non_null(to);
	wire_put_header(
	    to, &(struct wire_frame){ .type = type, .flags = flags, .length = (uint32_t)payload.len, .serial = serial });
	b->len += WIRE_HEADER_BYTES;
	buf_add(b, payload);
}

/* body NULL: `length` is a descriptor's. */
static void put_request(struct buf *b, uint64_t serial, const char *method, const char *path, const char *body, uint64_t length)
{
	struct buf payload, variables;
	char number[8];

	buf_init(&payload, WIRE_REQUEST_MAX);
	buf_init(&variables, WIRE_VARIABLES_MAX);
	wire_put_pair(&variables, SLICE("REQUEST_METHOD"), slice_str(method));
	wire_put_pair(&variables, SLICE("PATH_INFO"), slice_str(path));
	wire_put_pair(&variables, SLICE("QUERY_STRING"), SLICE("bytes=100&ms=0&parts=2"));
	wire_put_u32(number, (uint32_t)variables.len);
	buf_add(&payload, slice_of(number, 4));
	buf_add(&payload, buf_slice(&variables));
	wire_put_u64(number, length);
	buf_add(&payload, body ? slice_of(body, (size_t)length) : slice_of(number, 8));
	put_frame(b, WIRE_REQUEST, body ? 0 : WIRE_DESCRIPTOR, serial, buf_slice(&payload));
	buf_done(&payload);
	buf_done(&variables);
}

static void ask(struct world *w, unsigned seat, uint64_t serial, const char *method, const char *path)
{
	struct buf b;

	buf_init(&b, WIRE_REQUEST_MAX);
	if (serial == 1)
		wire_put_hello(&b);
	put_request(&b, serial, method, path, "", 0);
	send_buf(w->front[seat], &b, NULL);
}

/* What came as the answer. */
struct answer {
	unsigned heads, interim, status;
	bool hello, whole, last;
	struct buf content; /* of DATA and FILE */
	unsigned files;
	size_t data_max; /* the longest DATA */
};

static bool read_all(int fd, char *to, size_t n, int *file)
{
	while (n > 0) {
		size_t fds;
		int got_fd;
		ssize_t got = fdpass_recv(fd, to, n, &got_fd, 1, &fds, 0);

		if (got <= 0)
			return false;
		if (fds == 1)
			*file = got_fd;
		to += got;
		n -= (size_t)got;
	}
	return true;
}

static void take_file(struct answer *a, struct slice payload, int *file)
{
	struct wire_file f;
	char *to;

	assert_int_equal(wire_get_file(payload, &f), 0);
	assert_int_not_equal(*file, -1);
	to = buf_room(&a->content, f.length);
	assert_non_null(to);
	assert_int_equal(pread(*file, to, f.length, (off_t)f.offset), (ssize_t)f.length);
	a->content.len += f.length;
	a->files++;
	close(*file);
	*file = -1;
}

static void take_frame(struct answer *a, const struct wire_frame *f, struct slice payload, int *file)
{
	struct wire_head h;
	const char *why;

	switch (f->type) {
	case WIRE_HELLO:
		assert_int_equal(wire_check_hello(payload), 0);
		a->hello = true;
		break;
	case WIRE_HEAD:
		assert_int_equal(wire_get_head(payload, &h, &why), 0);
		a->heads++;
		a->interim += h.status < 200;
		a->status = h.status;
		break;
	case WIRE_DATA:
		a->data_max = MAX(a->data_max, payload.len);
		buf_add(&a->content, payload);
		break;
	case WIRE_FILE:
		take_file(a, payload, file);
		break;
	case WIRE_END:
		a->whole = true;
		a->last = f->flags & WIRE_LAST;
		break;
	default:
		fail_msg("type %u", f->type);
	}
}

/* Up to END or the end of the socket. */
static struct answer hear_answer(struct world *w, unsigned seat, uint64_t serial)
{
	struct answer a = { 0 };
	char header[WIRE_HEADER_BYTES];
	char *payload = malloc(WIRE_DATA_MAX);
	struct wire_frame f;
	int file = -1;

	buf_init(&a.content, 8u << 20);
	while (!a.whole && read_all(w->front[seat], header, sizeof(header), &file)) {
		assert_int_equal(wire_get_header(slice_of(header, sizeof(header)), &f), 1);
		assert_int_equal(f.serial, f.type == WIRE_HELLO ? 0 : serial);
		assert_true(read_all(w->front[seat], payload, f.length, &file));
		take_frame(&a, &f, slice_of(payload, f.length), &file);
	}
	assert_int_equal(file, -1);
	free(payload);
	return a;
}

static void expect_ok(struct world *w, unsigned seat, uint64_t serial, bool last)
{
	struct answer a = hear_answer(w, seat, serial);

	assert_true(a.whole);
	assert_int_equal(a.last, last);
	assert_int_equal(a.status, 200);
	assert_true(slice_eq(buf_slice(&a.content), SLICE("ok")));
	buf_done(&a.content);
}

static void expect_closed(struct world *w, unsigned seat)
{
	char byte;

	assert_int_equal(recv(w->front[seat], &byte, 1, 0), 0);
	close(w->front[seat]);
	w->front[seat] = -1;
}

/* The seat asked again, and serves again. */
static void expect_fresh(struct world *w, unsigned seat)
{
	expect_want(w, seat);
	give(w, seat);
	ask(w, seat, 1, "GET", "/ok");
	expect_ok(w, seat, 1, false);
}

static void each_seat_serves_one_request_after_another(void **state)
{
	struct world w;

	(void)state;
	start(&w, &app, SEATS, 0);
	for (uint64_t serial = 1; serial <= 50; serial++) {
		for (unsigned i = 0; i < SEATS; i++)
			ask(&w, i, serial, "GET", "/ok");
		for (unsigned i = 0; i < SEATS; i++)
			expect_ok(&w, i, serial, false);
	}
	stop(&w);
}

static void an_idle_socket_is_silent(void **state)
{
	struct world w;
	struct pollfd p;

	(void)state;
	start(&w, &app, 1, 0);
	p = (struct pollfd){ .fd = w.front[0], .events = POLLIN };
	assert_int_equal(poll(&p, 1, 0), 0);
	ask(&w, 0, 1, "GET", "/ok");
	expect_ok(&w, 0, 1, false);
	assert_int_equal(poll(&p, 1, 0), 0);
	stop(&w);
}

static void the_started_page_tells_what_is_in_the_application(void **state)
{
	struct world w;

	(void)state;
	start(&w, &app, 2, 0);
	ask(&w, 1, 1, "GET", "/ok");
	expect_ok(&w, 1, 1, false);
	assert_int_equal(atomic_load(&w.started[1].serial), 1);
	ask(&w, 1, 7, "GET", "/wait");
	sem_wait(&stage.inside);
	assert_int_equal(atomic_load(&w.started[1].serial), 7);
	assert_int_equal(atomic_load(&w.started[0].serial), 0);
	sem_post(&stage.go);
	expect_ok(&w, 1, 7, false);
	stop(&w);
}

/* It may have been waiting for something that others hold. */
static void an_application_may_say_itself_when_a_request_is_begun(void **state)
{
	struct world w;

	(void)state;
	start(&w, &late_app, 1, 0);
	ask(&w, 0, 1, "GET", "/late");
	sem_wait(&stage.inside);
	assert_int_equal(atomic_load(&w.started[0].serial), 0);
	sem_post(&stage.go);
	sem_wait(&stage.inside);
	assert_int_equal(atomic_load(&w.started[0].serial), 1);
	sem_post(&stage.go);
	expect_ok(&w, 0, 1, false);
	stop(&w);
}

static const struct {
	const char *method, *path;
	bool whole;
	unsigned heads, status;
	struct slice content;
	unsigned files;
} answers[] = {
	{ "GET", "/ok", true, 1, 200, SLICE_INIT("ok"), 0 },
	{ "HEAD", "/ok", true, 1, 200, SLICE_INIT(""), 0 },
	{ "HEAD", "/file", true, 1, 200, SLICE_INIT(""), 0 },
	{ "GET", "/files", true, 1, 200, SLICE_INIT("abcdefghijklmnopqr"), WIRE_FILES_MAX },
	{ "HEAD", "/short", true, 1, 200, SLICE_INIT(""), 0 }, /* its content is dropped, so it cannot be short */
	{ "GET", "/nothing", true, 1, 500, SLICE_INIT("The application gave no answer.\n"), 0 },
	{ "GET", "/only-hints", true, 2, 500, SLICE_INIT("The application gave no answer.\n"), 0 },
	{ "GET", "/short", false, 0, 0, SLICE_INIT(""), 0 },
	{ "GET", "/abort", false, 1, 200, SLICE_INIT(""), 0 },
	{ "GET", "/too-much", true, 1, 200, SLICE_INIT("ok"), 0 },
	{ "GET", "/out-of-order", true, 1, 200, SLICE_INIT("ok"), 0 },
	{ "GET", "/fields", true, 1, 200, SLICE_INIT("ok"), 0 },
	{ "GET", "/head", true, 1, 200, SLICE_INIT("ok"), 0 },
	{ "GET", "/file", true, 1, 200, SLICE_INIT("<ok>"), 1 },
	{ "GET", "/hints", true, 1 + WIRE_INTERIM_MAX, 200, SLICE_INIT("ok"), 0 },
};

static void what_an_application_does_and_what_the_front_hears(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		struct world w;
		struct answer a;

		start(&w, &app, 1, 0);
		ask(&w, 0, 1, answers[i].method, answers[i].path);
		a = hear_answer(&w, 0, 1);
		if (a.whole != answers[i].whole || a.heads != answers[i].heads || a.status != answers[i].status ||
		    a.files != answers[i].files || !slice_eq(buf_slice(&a.content), answers[i].content))
			fail_msg("row %zu: whole=%d heads=%u status=%u content=\"%.*s\"", i, a.whole, a.heads, a.status,
			    SLICE_ARG(buf_slice(&a.content)));
		if (!a.whole)
			expect_fresh(&w, 0);
		buf_done(&a.content);
		stop(&w);
	}
}

static void long_content_comes_in_frames_that_are_not_too_long(void **state)
{
	struct world w;
	struct answer a;

	(void)state;
	start(&w, &app, 1, 0);
	ask(&w, 0, 1, "GET", "/large");
	a = hear_answer(&w, 0, 1);
	assert_true(a.whole);
	assert_int_equal(a.content.len, 3 * WIRE_DATA_MAX + 19);
	assert_int_equal(a.data_max, WIRE_DATA_MAX);
	assert_int_equal(a.content.ptr[0], 'a');
	assert_int_equal(a.content.ptr[a.content.len - 1], 'b');
	buf_done(&a.content);
	stop(&w);
}

/* A request with a body: inline, or in a file of which `length` bytes are said to be it. */
static struct answer send_body(struct world *w, const char *body, size_t bytes, bool as_file, uint64_t length)
{
	struct buf b;
	int file = -1;

	buf_init(&b, 2 * WIRE_REQUEST_MAX);
	wire_put_hello(&b);
	put_request(&b, 1, "POST", "/body", as_file ? NULL : body, length);
	if (as_file) {
		file = memfd_create("body", MFD_CLOEXEC);
		assert_int_equal(write(file, body, bytes), (ssize_t)bytes);
	}
	send_buf(w->front[0], &b, as_file ? &file : NULL);
	if (as_file)
		close(file);
	return hear_answer(w, 0, 1);
}

static void a_body_comes_inline_or_as_a_file(void **state)
{
	size_t len = WIRE_INLINE_MAX;
	char *body = malloc(len);
	struct answer a;
	struct world w;

	(void)state;
	for (size_t i = 0; i < len; i++)
		body[i] = demo_byte(i);
	for (int as_file = 0; as_file < 2; as_file++) {
		start(&w, &app, 1, 0);
		a = send_body(&w, body, len, as_file, len);
		assert_true(a.whole);
		assert_int_equal(a.content.len, len);
		assert_memory_equal(a.content.ptr, body, len);
		buf_done(&a.content);
		stop(&w);
	}
	start(&w, &app, 1, 0); /* a file that is shorter than it is said to be */
	a = send_body(&w, body, len, true, len + 1);
	assert_false(a.hello || a.whole);
	buf_done(&a.content);
	expect_fresh(&w, 0);
	stop(&w);
	free(body);
}

/* What a front never sends: the slot socket is closed, and the seat asks for another. */
enum fault {
	NO_HELLO,
	TWO_HELLOS,
	OTHER_VERSION,
	SAME_SERIAL,
	OLDER_SERIAL,
	WRONG_TYPE,
	TOO_LONG,
	CANCEL_OF_NOTHING,
	CANCEL_OF_ANOTHER,
	FILE_NOT_SENT,
	FILE_NOT_EXPECTED,
	NOT_A_FILE,
	BAD_PAIRS,
	FAULT_COUNT,
};

static int a_file(void)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_int_equal(write(fd, "body", 4), 4);
	return fd;
}

static void send_fault(int sock, enum fault fault)
{
	struct buf b;
	int file = -1, pair[2] = { -1, -1 };

	buf_init(&b, WIRE_REQUEST_MAX);
	if (fault != NO_HELLO)
		wire_put_hello(&b);
	switch (fault) {
	case NO_HELLO:
		put_request(&b, 1, "GET", "/ok", "", 0);
		break;
	case TWO_HELLOS:
		wire_put_hello(&b);
		break;
	case OTHER_VERSION:
		b.ptr[WIRE_HEADER_BYTES + 4] = 2;
		break;
	case SAME_SERIAL:
	case OLDER_SERIAL:
		put_request(&b, 5, "GET", "/ok", "", 0);
		put_request(&b, fault == SAME_SERIAL ? 5 : 4, "GET", "/ok", "", 0);
		break;
	case WRONG_TYPE:
		put_frame(&b, WIRE_END, 0, 1, SLICE(""));
		break;
	case TOO_LONG:
		put_frame(&b, WIRE_REQUEST, 0, 1, SLICE("\0\0\0\0"));
		wire_put_u32(b.ptr + b.len - 16, WIRE_REQUEST_MAX + 1);
		break;
	case CANCEL_OF_NOTHING:
		put_frame(&b, WIRE_CANCEL, 0, 1, SLICE(""));
		break;
	case CANCEL_OF_ANOTHER:
		put_request(&b, 5, "GET", "/ok", "", 0);
		put_frame(&b, WIRE_CANCEL, 0, 4, SLICE(""));
		break;
	case FILE_NOT_SENT:
		put_request(&b, 1, "POST", "/body", NULL, 4);
		break;
	case FILE_NOT_EXPECTED:
		put_request(&b, 1, "POST", "/body", "body", 4);
		file = a_file();
		break;
	case NOT_A_FILE:
		put_request(&b, 1, "POST", "/body", NULL, 0);
		assert_int_equal(pipe(pair), 0);
		file = pair[0];
		break;
	case BAD_PAIRS:
		put_frame(&b, WIRE_REQUEST, 0, 1, SLICE("\1\0\0\0x"));
		break;
	case FAULT_COUNT:
		break;
	}
	send_buf(sock, &b, file == -1 ? NULL : &file);
	if (file != -1)
		close(file);
	if (pair[1] != -1)
		close(pair[1]);
}

static void a_front_that_breaks_the_protocol_loses_the_slot(void **state)
{
	struct world w;

	(void)state;
	start(&w, &app, 1, 0);
	for (int fault = 0; fault < FAULT_COUNT; fault++) {
		struct answer a;

		send_fault(w.front[0], (enum fault)fault);
		a = hear_answer(&w, 0, 5);
		if (a.whole != (fault == SAME_SERIAL || fault == OLDER_SERIAL || fault == CANCEL_OF_ANOTHER))
			fail_msg("fault %d was answered", fault);
		buf_done(&a.content);
		expect_closed(&w, 0);
		expect_fresh(&w, 0);
		close(w.front[0]);
		expect_want(&w, 0);
		give(&w, 0);
	}
	stop(&w);
}

static void an_application_hears_that_its_client_has_gone(void **state)
{
	struct world w;
	struct buf b;

	(void)state;
	start(&w, &app, 1, 0);
	ask(&w, 0, 1, "GET", "/gone");
	sem_wait(&stage.inside);
	sem_post(&stage.go);
	expect_ok(&w, 0, 1, false);
	assert_int_equal(stage.result, false);

	ask(&w, 0, 2, "GET", "/gone");
	sem_wait(&stage.inside);
	buf_init(&b, 64);
	put_frame(&b, WIRE_CANCEL, 0, 2, SLICE(""));
	send_buf(w.front[0], &b, NULL);
	sem_post(&stage.go);
	expect_ok(&w, 0, 2, false); /* the answer is whole all the same: the slot lives on */
	assert_int_equal(stage.result, true);

	buf_init(&b, 64); /* one that crosses END on its way */
	put_frame(&b, WIRE_CANCEL, 0, 2, SLICE(""));
	send_buf(w.front[0], &b, NULL);
	ask(&w, 0, 3, "GET", "/ok");
	expect_ok(&w, 0, 3, false);
	stop(&w);
}

static void when_the_front_dies_the_answer_is_thrown_away(void **state)
{
	struct world w;

	(void)state;
	start(&w, &app, 1, 0);
	ask(&w, 0, 1, "GET", "/gone");
	sem_wait(&stage.inside);
	close(w.front[0]);
	sem_post(&stage.go);
	expect_fresh(&w, 0);
	assert_int_equal(stage.result, true);
	stop(&w);
}

static void the_end_waits_for_what_was_begun(void **state)
{
	struct world w;

	(void)state;
	start(&w, &app, 2, 0);
	ask(&w, 0, 1, "GET", "/gone");
	sem_wait(&stage.inside);
	say_end(&w);
	expect_closed(&w, 1);
	sem_post(&stage.go);
	expect_ok(&w, 0, 1, true);
	assert_int_equal(stage.result, false); /* its own end is not the client's */
	expect_closed(&w, 0);
	join(&w);
}

/* In a process of its own, where threads may stay behind. Gives what runtime_run did. */
static int end_without(unsigned threads, unsigned seat, bool front_leaves)
{
	const struct control_message m = { .type = CONTROL_END_WITHOUT, .seat = seat };
	struct world w;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(60);
		start(&w, &app, threads, 0);
		ask(&w, 0, 1, "GET", "/gone");
		sem_wait(&stage.inside);
		if (front_leaves)
			close(w.front[0]);
		assert_int_equal(fdpass_send(w.control, &m, sizeof(m), NULL, 0, 0), sizeof(m));
		if (threads > 1)
			expect_closed(&w, 1);
		if (!front_leaves || seat != 0)
			sem_post(&stage.go);
		if (!front_leaves)
			expect_ok(&w, 0, 1, true);
		pthread_join(w.thread, NULL);
		_exit(-w.result);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static const struct {
	unsigned threads, seat;
	bool front_leaves;
	int result;
} given_up[] = {
	{ 1, 0, true, ETIME }, { 2, 0, true, ETIME }, { 2, 0, false, 0 }, /* it has come back, and serves somebody else */
	{ 2, 1, true, 0 }, /* idle by now; the busy one was not given up: a front that died */
};

static void the_end_does_not_wait_for_what_was_given_up(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(given_up); i++) {
		int got = end_without(given_up[i].threads, given_up[i].seat, given_up[i].front_leaves);

		if (got != given_up[i].result)
			fail_msg("row %zu: %d", i, got);
	}
}

static void a_request_that_was_sent_before_the_end_is_served(void **state)
{
	struct world w;
	struct answer a;

	(void)state;
	start(&w, &app, 1, 0);
	ask(&w, 0, 1, "GET", "/wait");
	sem_wait(&stage.inside);
	sem_post(&stage.go);
	expect_ok(&w, 0, 1, false);
	ask(&w, 0, 2, "GET", "/ok");
	say_end(&w);
	a = hear_answer(&w, 0, 2); /* the last one or not: END may come before or behind it */
	assert_true(a.whole);
	assert_true(slice_eq(buf_slice(&a.content), SLICE("ok")));
	buf_done(&a.content);
	join(&w);
}

static void a_worker_ends_after_its_share(void **state)
{
	struct world w;
	bool spent = false;
	uint64_t serial = 0;

	(void)state;
	start(&w, &app, 1, 20);
	while (!spent) {
		struct answer a;

		ask(&w, 0, ++serial, "GET", "/ok");
		a = hear_answer(&w, 0, serial);
		assert_true(a.whole);
		spent = a.last;
		buf_done(&a.content);
	}
	assert_true(serial >= 20 && serial <= 22);
	assert_int_equal(hear(&w).type, CONTROL_SPENT);
	expect_closed(&w, 0);
	join(&w);
}

static void a_worker_that_serves_says_how_much_memory_it_has(void **state)
{
	struct world w;

	(void)state;
	look_ms = 1;
	start(&w, &app, 1, 0);
	look_ms = 0;
	for (uint64_t serial = 1; serial <= 3; serial++) {
		struct control_message m;

		ask(&w, 0, serial, "GET", "/ok");
		expect_ok(&w, 0, serial, false);
		m = hear(&w);
		assert_int_equal(m.type, CONTROL_MEMORY);
		assert_true(m.value > 4096);
	}
	stop(&w);
}

/* In a process of its own: threads stay behind. */
static int in_a_child(struct runtime_plan *plan, const struct control_message *m, bool with_fd)
{
	struct started_line *page = aligned_alloc(STARTED_LINE_BYTES, STARTED_LINE_BYTES);
	int pair[2], status;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	plan->started = page;
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		plan->control = pair[1];
		_exit(-runtime_run(plan));
	}
	close(pair[1]);
	if (m)
		assert_int_equal(fdpass_send(pair[0], m, sizeof(*m), &pair[0], with_fd ? 1 : 0, 0), sizeof(*m));
	if (!m)
		close(pair[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (m)
		close(pair[0]);
	free(page);
	return WEXITSTATUS(status);
}

static const struct {
	struct control_message m;
	bool with_fd;
} bad_orders[] = {
	{ { CONTROL_SLOT, 2, 0 }, true }, /* no such seat */
	{ { CONTROL_SLOT, UINT32_MAX, 0 }, true },
	{ { CONTROL_SLOT, 0, 0 }, false }, /* no socket */
	{ { CONTROL_END, 0, 0 }, true },
	{ { CONTROL_END_WITHOUT, 0, 0 }, true },
	{ { CONTROL_END_WITHOUT, 2, 0 }, false },
	{ { CONTROL_WANT, 0, 0 }, false },
	{ { 99, 0, 0 }, false },
};

static void a_worker_without_a_proper_master_ends(void **state)
{
	struct runtime_plan plan = { .app = &app, .threads = 2 };

	(void)state;
	assert_int_equal(in_a_child(&plan, NULL, false), ECONNRESET);
	for (size_t i = 0; i < ARRAY_LEN(bad_orders); i++)
		if (in_a_child(&plan, &bad_orders[i].m, bad_orders[i].with_fd) != EPROTO)
			fail_msg("row %zu", i);
}

static const struct {
	const char *path;
	unsigned status;
	size_t bytes;
	struct slice begin;
} demo_pages[] = {
	{ "/", 200, 0, SLICE_INIT("<!DOCTYPE html>") },
	{ "/echo", 200, 0, SLICE_INIT("REQUEST_METHOD=GET\nPATH_INFO=/echo\n") },
	{ "/sleep", 200, 0, SLICE_INIT("Slept for 0 ms.\n") },
	{ "/big", 200, 100,
	    SLICE_INIT("0000000000000000...............................................\n0000000000000040....") },
	{ "/file", 200, 100,
	    SLICE_INIT("0000000000000000...............................................\n0000000000000040....") },
	{ "/upload", 200, 0, SLICE_INIT("bytes=0\ncrc32=00000000\nbody=memory\n") },
	{ "/stream", 200, 0, SLICE_INIT("data: part 1 of 2\n\ndata: part 2 of 2\n\n") },
	{ "/slow", 200, 128, SLICE_INIT("0000000000000000..") },
	{ "/hints", 200, 0, SLICE_INIT("A 103 came") },
	{ "/nowhere", 404, 0, SLICE_INIT("No such page.") },
	{ "", 404, 0, SLICE_INIT("No such page.") },
};

static void the_pages_of_the_demo(void **state)
{
	struct world w;

	(void)state;
	start(&w, &demo_app, 1, 0);
	for (size_t i = 0; i < ARRAY_LEN(demo_pages); i++) {
		struct answer a;

		ask(&w, 0, i + 1, "GET", demo_pages[i].path);
		a = hear_answer(&w, 0, i + 1);
		if (!a.whole || a.status != demo_pages[i].status ||
		    (demo_pages[i].bytes && a.content.len != demo_pages[i].bytes) ||
		    !slice_starts(buf_slice(&a.content), demo_pages[i].begin))
			fail_msg("row %zu: status %u, %zu bytes: %.*s", i, a.status, a.content.len,
			    SLICE_ARG(buf_slice(&a.content)));
		buf_done(&a.content);
	}
	ask(&w, 0, 99, "GET", "/cut");
	struct answer a = hear_answer(&w, 0, 99);

	assert_int_equal(a.status, 200);
	assert_false(a.whole);
	buf_done(&a.content);
	expect_want(&w, 0);
	stop(&w);
}

static void the_checksum_is_the_one_that_everybody_has(void **state)
{
	(void)state;
	assert_int_equal(demo_crc32(0, "123456789", 9), 0xcbf43926);
	assert_int_equal(demo_crc32(demo_crc32(0, "1234", 4), "56789", 5), 0xcbf43926);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_seat_serves_one_request_after_another),
		cmocka_unit_test(an_idle_socket_is_silent),
		cmocka_unit_test(the_started_page_tells_what_is_in_the_application),
		cmocka_unit_test(an_application_may_say_itself_when_a_request_is_begun),
		cmocka_unit_test(what_an_application_does_and_what_the_front_hears),
		cmocka_unit_test(long_content_comes_in_frames_that_are_not_too_long),
		cmocka_unit_test(a_body_comes_inline_or_as_a_file),
		cmocka_unit_test(a_front_that_breaks_the_protocol_loses_the_slot),
		cmocka_unit_test(an_application_hears_that_its_client_has_gone),
		cmocka_unit_test(when_the_front_dies_the_answer_is_thrown_away),
		cmocka_unit_test(the_end_waits_for_what_was_begun),
		cmocka_unit_test(the_end_does_not_wait_for_what_was_given_up),
		cmocka_unit_test(a_request_that_was_sent_before_the_end_is_served),
		cmocka_unit_test(a_worker_ends_after_its_share),
		cmocka_unit_test(a_worker_that_serves_says_how_much_memory_it_has),
		cmocka_unit_test(a_worker_without_a_proper_master_ends),
		cmocka_unit_test(the_pages_of_the_demo),
		cmocka_unit_test(the_checksum_is_the_one_that_everybody_has),
	};

	alarm(120); /* a hang is a failure */
	memset(filler, 'f', sizeof(filler));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
