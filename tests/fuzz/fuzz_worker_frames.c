/*
 * Frames of the worker protocol, both ends: any bytes are taken or refused, and in one piece or in many they mean the same.
 * The first byte of the input says which end, and whether the rest are the bytes themselves or a recipe for frames. What the worker's end answers,
 * whatever its application does, the front's end takes.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "upstream/protocol/protocol.h"
#include "upstream/worker/talk.h"
#include "upstream/worker/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SERIAL    7
#define BYTES_MAX (128u << 10)

/* The front's end: an attempt that notes what it is told. */

struct attempt {
	struct request request;
	struct link link;
	struct buf out, told, content;
	uint64_t raw_left, content_bytes;
	bool whole;
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

void attempt_send_fd(struct attempt *a UNUSED, int *fd)
{
	close(*fd);
	*fd = -1;
}

void attempt_body_sent(struct attempt *a UNUSED)
{
}

void attempt_got_head(struct attempt *a, struct head *h, const struct http1_message *m)
{
	if (a->whole || h->status < 100 || h->status > 599)
		abort();
	for (unsigned i = 0; i < h->field_count; i++)
		if (memchr(head_value(h, i).ptr, '\n', head_value(h, i).len) || head_name(h, i).len == 0)
			abort();
	buf_printf(&a->told, "head %u %u %d %" PRIu64 ";", h->status, h->field_count, (int)m->framing, m->length);
	head_done(h);
}

static void add_content(struct attempt *a, struct slice bytes)
{
	if (a->whole)
		abort();
	a->content_bytes += bytes.len;
	buf_add(&a->content, bytes);
}

void attempt_got_content(struct attempt *a, struct slice bytes)
{
	add_content(a, bytes);
}

void attempt_got_raw(struct attempt *a, uint64_t n)
{
	if (n == 0 || n > WIRE_DATA_MAX)
		abort();
	a->raw_left = n;
}

int attempt_got_file(struct attempt *a, int *fd, uint64_t offset, uint64_t len)
{
	if (len == 0 || offset + len > INT64_MAX)
		abort();
	buf_printf(&a->told, "file %" PRIu64 "+%" PRIu64 ";", offset, len);
	close(*fd);
	*fd = -1;
	return 0;
}

void attempt_got_whole(struct attempt *a, bool reusable)
{
	buf_printf(&a->told, "whole %d;", reusable);
	a->whole = true;
}

static void attempt_start(struct attempt *a, bool is_head)
{
	memset(a, 0, sizeof(*a));
	buf_init(&a->told, BYTES_MAX);
	buf_init(&a->content, BYTES_MAX);
	a->request.head.method = is_head ? METHOD_HEAD : METHOD_GET;
	a->link.serial = SERIAL;
}

static void attempt_stop(struct attempt *a)
{
	protocol_worker.done(a->state);
	buf_done(&a->told);
	buf_done(&a->content);
}

/* 0: all was taken or waits for more; else what take() said. */
static int feed(struct attempt *a, struct slice all, size_t step, int fd)
{
	size_t have = 0, taken = 0;
	int err = 0;

	while (!err && !a->whole && have < all.len) {
		have += MIN(step, all.len - have);
		for (;;) {
			struct slice in = { all.ptr + taken, have - taken };
			size_t raw = (size_t)MIN(a->raw_left, in.len), before;
			const char *why = NULL;

			add_content(a, slice_of(in.ptr, raw));
			a->raw_left -= raw;
			taken += raw;
			if (a->raw_left > 0 || have == taken)
				break;
			in = slice_of(all.ptr + taken, have - taken);
			before = in.len;
			err = protocol_worker.take(a, a->state, &in, &fd, &why);
			if (err && !why)
				abort();
			taken += before - in.len;
			if (err || a->whole || a->raw_left == 0)
				break;
		}
	}
	if (fd != -1)
		close(fd);
	return err;
}

static void try_front(struct slice bytes, bool is_head, bool with_fd)
{
	static const size_t steps[] = { 1, 13 };
	struct attempt whole, pieces;
	int fd = with_fd ? memfd_create("f", MFD_CLOEXEC) : -1, err;

	attempt_start(&whole, is_head);
	err = feed(&whole, bytes, bytes.len, fd);
	for (size_t i = 0; !with_fd && i < ARRAY_LEN(steps); i++) {
		attempt_start(&pieces, is_head);
		/* What follows END is seen only if it came with it: then, and only then, pieces say less. */
		if (feed(&pieces, bytes, steps[i], -1) != err && !pieces.whole)
			abort();
		if (!err && (!slice_eq(buf_slice(&whole.told), buf_slice(&pieces.told)) ||
		                !slice_eq(buf_slice(&whole.content), buf_slice(&pieces.content))))
			abort();
		attempt_stop(&pieces);
	}
	attempt_stop(&whole);
}

/* The worker's end: an application that looks at everything, and answers as its request's bytes tell it to. */

#define OPERATIONS_MAX 48
#define REQUESTS_MAX   16

/* What the application was asked and did, in order. */
static struct served {
	uint64_t serial;
	bool is_head;
	bool cut; /* it said so itself, or its answer is shorter than it said */
} served[REQUESTS_MAX];
static size_t served_count;
static _Atomic uint64_t started;

static void look_at_request(struct worker_request *r)
{
	struct slice name, value;
	uint64_t got = 0;
	char piece[100];
	ssize_t n;

	for (size_t i = worker_variable_count(r); i > 0; i--) {
		worker_variable(r, i - 1, &name, &value);
		if (name.len == 0)
			abort();
	}
	while ((n = worker_body_read(r, piece, sizeof(piece))) > 0)
		got += (uint64_t)n;
	if (n == 0 && got != worker_body_bytes(r))
		abort();
}

static void write_file(struct worker_request *r, unsigned char size)
{
	int fd = memfd_create("f", MFD_CLOEXEC);

	if (fd == -1 || ftruncate(fd, 100) == -1)
		abort();
	(void)!worker_write_file(r, &fd, size & 15, size >> 4);
	if (fd != -1)
		abort(); /* it is taken, always */
}

/* A byte for what, one for how much; a field's name and value are the bytes behind them. */
static void run_operation(struct worker_request *r, unsigned char what, unsigned char size, struct slice rest)
{
	static const unsigned statuses[] = { 200, 204, 304, 404, 599, 103, 100, 600 };
	struct slice bytes = slice_of(rest.ptr, MIN(size & 31u, rest.len));

	switch (what & 15) {
	case 0:
	case 1:
		(void)!worker_status(r, statuses[size & 7]);
		break;
	case 2:
		(void)!worker_field(r, bytes, slice_of(rest.ptr, MIN(size >> 5, rest.len)));
		break;
	case 3:
		(void)!worker_field(r, SLICE("Content-Length"), slice_of("1234567890", size % 3));
		break;
	case 4:
		(void)!worker_field(r, SLICE("Name"), bytes);
		break;
	case 5:
	case 6:
		(void)!worker_write(r, bytes.ptr, bytes.len);
		break;
	case 7:
		write_file(r, size);
		break;
	case 8:
		(void)!worker_flush(r);
		break;
	case 9:
		(void)!worker_reset(r);
		break;
	case 10:
		(void)worker_client_gone(r);
		break;
	case 11:
		if (size == 255) {
			worker_abort(r);
			served[served_count - 1].cut = true;
		}
		break;
	default:
		break;
	}
}

static void serve(void *ctx UNUSED, struct worker_request *r)
{
	struct slice program = worker_get(r, "A");

	if (served_count == REQUESTS_MAX) {
		worker_abort(r);
		return;
	}
	served[served_count++] = (struct served){ .serial = atomic_load(&started),
		.is_head = slice_eq(worker_get(r, "REQUEST_METHOD"), SLICE("HEAD")) };
	look_at_request(r);
	for (unsigned i = 0; i < OPERATIONS_MAX && program.len >= 2; i++) {
		run_operation(r, (unsigned char)program.ptr[0], (unsigned char)program.ptr[1],
		    slice_of(program.ptr + 2, program.len - 2));
		program = slice_of(program.ptr + 2, program.len - 2);
	}
}

/* Whatever the application did, the front takes the frames that came of it: one answer's, from *in on. */
static void check_answer(struct slice *in, const struct served *s, bool greeted)
{
	struct attempt a;
	struct wire_frame f;
	const char *why = NULL;

	attempt_start(&a, s->is_head);
	a.link.serial = s->serial;
	a.link.greeted = greeted;
	while (!a.whole && wire_get_header(*in, &f) == 1 && in->len - WIRE_HEADER_BYTES >= f.length &&
	       (f.type == WIRE_HELLO || f.serial == s->serial)) {
		struct slice frame = slice_of(in->ptr, WIRE_HEADER_BYTES + f.length);
		int fd = f.type == WIRE_FILE ? memfd_create("f", MFD_CLOEXEC) : -1;

		*in = slice_of(in->ptr + frame.len, in->len - frame.len);
		if (protocol_worker.take(&a, a.state, &frame, &fd, &why) != 0 || fd != -1 || frame.len > 0)
			abort();
	}
	if (s->cut && a.whole)
		abort();
	attempt_stop(&a);
}

static void check_answers(int sock)
{
	struct buf all;
	struct slice in;
	ssize_t n;

	buf_init(&all, 1u << 20);
	do {
		char *room = buf_room(&all, 64u << 10);

		n = room ? recv(sock, room, 64u << 10, MSG_DONTWAIT) : -1; /* descriptors are closed by the kernel */
		if (n > 0)
			all.len += (size_t)n;
	} while (n > 0);
	in = buf_slice(&all);
	for (size_t i = 0; i < served_count; i++)
		check_answer(&in, &served[i], i > 0);
	/* Nobody else's bytes are among them; and a HELLO alone, where no request came. */
	if (in.len > 0 && served_count > 0 && served_count < REQUESTS_MAX && !all.failed)
		abort();
	buf_done(&all);
}

/* A descriptor rides on a byte in the middle as well: there it begins a frame, or is one too many. */
static void send_parts(int sock, struct slice bytes, size_t at, bool with_fd)
{
	int fd = with_fd ? memfd_create("f", MFD_CLOEXEC) : -1;

	/* No more than a socket holds: nobody reads at the other end while we write. */
	bytes.len = MIN(bytes.len, 8192);
	at = MIN(at, bytes.len);
	if (fd != -1 && ftruncate(fd, 40) == -1)
		abort();
	if (at > 0)
		(void)!send(sock, bytes.ptr, at, MSG_NOSIGNAL);
	if (at < bytes.len)
		(void)!fdpass_send(sock, bytes.ptr + at, bytes.len - at, &fd, fd != -1, 0);
	if (fd != -1)
		close(fd);
}

static void try_worker(struct slice bytes, size_t at, bool with_fd)
{
	static const struct worker_app app = { .name = "fuzz", .serve = serve };
	atomic_bool ending = false;
	const struct talk_plan plan = { .app = &app, .started = &started, .ending = &ending };
	int pair[2];

	served_count = 0;
	atomic_store(&started, 0);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == -1)
		abort();
	send_parts(pair[0], bytes, at, with_fd);
	if (shutdown(pair[0], SHUT_WR) == 0)
		(void)!talk_serve(pair[1], &plan);
	for (size_t i = 1; i < served_count; i++)
		if (served[i].serial <= served[i - 1].serial)
			abort();
	check_answers(pair[0]);
	close(pair[0]);
	close(pair[1]);
}

/* A head that is right or nearly so: without fields, with a length, with one field, or whatever the bytes are. */
static void cook_head(struct slice from, struct buf *to)
{
	static const uint16_t statuses[] = { 103, 200, 200, 204, 304, 404, 99, 600 };
	unsigned char choice = from.len > 0 ? (unsigned char)from.ptr[0] : 0;
	struct slice rest = from.len > 1 ? slice_of(from.ptr + 1, from.len - 1) : slice_of("", 0);
	char start[4];

	wire_put_u16(start, statuses[choice >> 2 & 7]);
	wire_put_u16(start + 2, (choice & 3) == 0 ? 0 : 1);
	buf_add(to, slice_of(start, sizeof(start)));
	if ((choice & 3) == 1)
		wire_put_pair(to, SLICE("Content-Length"), (choice & 32) ? rest : slice_of("1234567890", 1 + (choice >> 6)));
	else if ((choice & 3) == 2)
		wire_put_pair(to, SLICE("Name"), rest);
	else if ((choice & 3) == 3)
		buf_add(to, rest);
}

/* Variables that are right, and a body behind them; or whatever the bytes are. */
static void cook_request(struct slice from, bool descriptor, struct buf *to)
{
	char number[8] = { 0 };

	if (from.len == 0 || from.ptr[0] & 1) {
		buf_add(to, from);
		return;
	}
	wire_put_u32(number, (uint32_t)(8 + 14 + 4 + 8 + 1 + from.len));
	buf_add(to, slice_of(number, 4));
	wire_put_pair(to, SLICE("REQUEST_METHOD"), from.ptr[0] & 2 ? SLICE("HEAD") : SLICE("POST"));
	wire_put_pair(to, SLICE("A"), from);
	wire_put_u64(number, from.len);
	buf_add(to, descriptor ? slice_of(number, 8) : from);
}

static void cook_payload(uint8_t type, uint8_t flags, struct slice from, struct buf *to)
{
	char file[WIRE_FILE_BYTES] = { 0 };

	switch (type) {
	case WIRE_HEAD:
		cook_head(from, to);
		break;
	case WIRE_REQUEST:
		cook_request(from, flags & WIRE_DESCRIPTOR, to);
		break;
	case WIRE_FILE:
		memcpy(file, from.ptr, MIN(from.len, sizeof(file)));
		buf_add(to, slice_of(file, sizeof(file)));
		break;
	case WIRE_END:
	case WIRE_CANCEL:
		break;
	default:
		buf_add(to, from);
	}
}

/* Frames with proper headers, or nearly: a byte for the type, one for flags and serial, one for the length, then so many bytes to cook from. */
static void cook(struct slice recipe, struct buf *out)
{
	uint64_t serial = SERIAL;

	wire_put_hello(out);
	while (recipe.len >= 3) {
		const unsigned char *r = (const unsigned char *)recipe.ptr;
		struct wire_frame f = { .type = r[0] & 7, .flags = r[1] & 3 };
		size_t len = MIN(r[2], recipe.len - 3), at = out->len;
		char *to = buf_room(out, WIRE_HEADER_BYTES);

		if (!to)
			return;
		serial += r[1] >> 6;
		f.serial = serial;
		out->len += WIRE_HEADER_BYTES;
		cook_payload(f.type, f.flags, slice_of(recipe.ptr + 3, len), out);
		f.length = (uint32_t)(out->len - at - WIRE_HEADER_BYTES);
		wire_put_header(out->ptr + at, &f);
		recipe = slice_of(recipe.ptr + 3 + len, recipe.len - 3 - len);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf bytes;

	if (size < 1)
		return 0;
	buf_init(&bytes, BYTES_MAX);
	if (data[0] & 1)
		cook(slice_of((const char *)data + 1, size - 1), &bytes);
	else
		buf_add(&bytes, slice_of((const char *)data + 1, size - 1));
	if (data[0] & 2)
		try_worker(buf_slice(&bytes), (size_t)(data[0] >> 4) * 64, data[0] & 8);
	else
		try_front(buf_slice(&bytes), data[0] & 4, data[0] & 8);
	buf_done(&bytes);
	return 0;
}
