#include "upstream/worker/talk.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fdpass.h"
#include "core/fields.h"
#include "core/head.h"
#include "upstream/worker/intake.h"

#define OUT_BYTES     (64u << 10)                                          /* of an answer, collected before they are sent */
#define OUT_MAX_BYTES (OUT_BYTES + WIRE_HEAD_MAX + 16 * WIRE_HEADER_BYTES) /* a head comes on top, and frames around it all */
#define NO_DATA_FRAME SIZE_MAX
#define HEAD_HEADER   (WIRE_HEADER_BYTES + 4)

enum answer_state {
	ANSWER_NONE,    /* no status yet */
	ANSWER_FIELDS,  /* a status, and fields may follow */
	ANSWER_CONTENT, /* the final head is in `out` or sent */
	ANSWER_STATE_COUNT,
};

static const unsigned may_follow[] = {
	[ANSWER_NONE] = TO(ANSWER_FIELDS),
	[ANSWER_FIELDS] = TO(ANSWER_NONE) /* behind early hints */ | TO(ANSWER_CONTENT),
	[ANSWER_CONTENT] = TO(ANSWER_NONE), /* the next request */
};
static_assert(ARRAY_LEN(may_follow) == ANSWER_STATE_COUNT, "a row for each state");

struct worker_request {
	int sock;
	const struct talk_plan *plan;
	bool greeted;
	uint64_t serial; /* of this request, or of the last */
	/* the request */
	struct intake in;
	struct wire_request request;
	int body_fd;
	uint64_t body_at; /* read by worker_body_read so far */
	bool head_only;   /* HEAD */
	size_t walk;      /* where worker_variable stands: the index of the pair at walk_rest */
	struct slice walk_rest;
	/* the answer */
	enum answer_state state;
	unsigned status, field_count, interim, files;
	struct buf fields;
	bool has_length, no_content;
	uint64_t left;  /* of Content-Length */
	size_t head_at; /* where the final head is in `out`, while none of it was sent */
	bool head_sent; /* some of it was */
	struct buf out;
	int out_fd;     /* rides on the first byte of `out`; -1: none */
	size_t data_at; /* in `out`: the header of a DATA frame that may still grow */
	int err;        /* sticky: the answer cannot be completed */
	bool gone;
};

/* The only writer of r->state. */
static void answer_enter(struct worker_request *r, enum answer_state next)
{
	assert(may_follow[r->state] & TO(next));
	r->state = next;
}

static void close_fd(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

/* Receiving. */

static int take_hello(struct worker_request *r, struct slice payload)
{
	if (r->greeted || wire_check_hello(payload) != 0)
		return -EPROTO;
	r->greeted = true;
	wire_put_hello(&r->out);
	return r->out.failed ? -ENOMEM : 0;
}

/* The body's file, if it is what the front says. A front is our own program: this finds a mistake before it becomes a wrong answer. */
static int take_body_fd(struct worker_request *r, const struct wire_frame *f)
{
	struct stat st;

	if (!(f->flags & WIRE_DESCRIPTOR))
		return r->in.fd == -1 ? 0 : -EPROTO;
	if (r->in.fd == -1 || fstat(r->in.fd, &st) == -1 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < r->request.length)
		return -EPROTO;
	r->body_fd = r->in.fd;
	r->in.fd = -1;
	return 0;
}

static int take_request(struct worker_request *r, const struct wire_frame *f, struct slice payload)
{
	if (!r->greeted || f->serial <= r->serial)
		return -EPROTO;
	if (wire_get_request(f, payload, &r->request) != 0 || take_body_fd(r, f) != 0)
		return -EPROTO;
	r->serial = f->serial;
	r->walk = 0;
	r->walk_rest = r->request.variables;
	r->head_only = slice_eq(worker_get(r, "REQUEST_METHOD"), SLICE("HEAD"));
	return 0;
}

/* 1: a request is there; 0: the end; -errno. */
static int next_request(struct worker_request *r)
{
	struct wire_frame f;
	struct slice payload;
	int err;

	for (;;) {
		err = intake_frame(&r->in, &f, &payload);
		if (err != 1)
			return err;
		if (f.type == WIRE_REQUEST) {
			err = take_request(r, &f, payload);
			return err ? err : 1;
		}
		if (f.type == WIRE_HELLO)
			err = take_hello(r, payload);
		else
			/* It crossed our END. */
			err = f.type == WIRE_CANCEL && f.serial == r->serial && r->in.fd == -1 ? 0 : -EPROTO;
		if (err)
			return err;
	}
}

/* Sending. */

/* Nobody listens any more. */
static int fail(struct worker_request *r, int err)
{
	if (!r->err)
		r->err = err;
	return r->err;
}

static int send_all(struct worker_request *r, const char *from, size_t n)
{
	while (n > 0) {
		ssize_t sent = fdpass_send(r->sock, from, n, &r->out_fd, r->out_fd == -1 ? 0 : 1, 0);

		if (sent < 0)
			return fail(r, -EPIPE);
		close_fd(&r->out_fd);
		from += sent;
		n -= (size_t)sent;
	}
	return 0;
}

static int send_out(struct worker_request *r)
{
	int err;

	if (r->err || r->out.failed)
		return fail(r, -ENOMEM);
	err = send_all(r, r->out.ptr, r->out.len);
	r->head_sent = r->state == ANSWER_CONTENT;
	buf_clear(&r->out);
	r->data_at = NO_DATA_FRAME;
	return err;
}

static void put_header(struct worker_request *r, enum wire_type type, uint8_t flags, size_t length)
{
	char *to = buf_room(&r->out, WIRE_HEADER_BYTES);

	if (!to)
		return;
	wire_put_header(
	    to, &(struct wire_frame){ .type = (uint8_t)type, .flags = flags, .length = (uint32_t)length, .serial = r->serial });
	r->out.len += WIRE_HEADER_BYTES;
	r->data_at = NO_DATA_FRAME;
}

/* The head that status and fields made. */
static int put_head(struct worker_request *r)
{
	char start[4];

	if (r->out.len > OUT_BYTES && send_out(r) != 0)
		return r->err;
	r->head_at = r->out.len;
	r->head_sent = false;
	wire_put_u16(start, (uint16_t)r->status);
	wire_put_u16(start + 2, (uint16_t)r->field_count);
	put_header(r, WIRE_HEAD, 0, sizeof(start) + r->fields.len);
	buf_add(&r->out, slice_of(start, sizeof(start)));
	buf_add(&r->out, buf_slice(&r->fields));
	buf_clear(&r->fields);
	r->field_count = 0;
	return r->out.failed ? fail(r, -ENOMEM) : 0;
}

/* Content is about to come: the final head goes before it. */
static int open_content(struct worker_request *r)
{
	if (r->err)
		return r->err;
	if (r->state == ANSWER_CONTENT)
		return 0;
	if (r->state != ANSWER_FIELDS || r->status < 200)
		return -EINVAL;
	r->no_content = r->head_only || r->status == 204 || r->status == 304;
	answer_enter(r, ANSWER_CONTENT);
	return put_head(r);
}

/* n bytes of content, as far as Content-Length allows. */
static int count_content(struct worker_request *r, uint64_t n)
{
	if (!r->has_length)
		return 0;
	if (n > r->left)
		return -EINVAL;
	r->left -= n;
	return 0;
}

/* Behind what is in `out` already, in the same DATA frame if one is open. */
static int collect(struct worker_request *r, const char *data, size_t n)
{
	size_t so_far = 0;

	if (r->data_at == NO_DATA_FRAME) {
		size_t at = r->out.len;

		put_header(r, WIRE_DATA, 0, 0);
		r->data_at = at;
	} else {
		so_far = r->out.len - r->data_at - WIRE_HEADER_BYTES;
	}
	buf_add(&r->out, slice_of(data, n));
	if (r->out.failed)
		return fail(r, -ENOMEM);
	wire_put_header(r->out.ptr + r->data_at,
	    &(struct wire_frame){ .type = WIRE_DATA, .length = (uint32_t)(so_far + n), .serial = r->serial });
	return 0;
}

/* Without a copy. */
static int send_data(struct worker_request *r, const char *data, size_t len)
{
	while (len > 0) {
		size_t n = MIN(len, WIRE_DATA_MAX);

		put_header(r, WIRE_DATA, 0, n);
		if (send_out(r) != 0 || send_all(r, data, n) != 0)
			return r->err;
		data += n;
		len -= n;
	}
	return 0;
}

static void put_refusal(struct worker_request *r)
{
	static const char text[] = "The application gave no answer.\n";

	if (worker_status(r, 500) == 0 && worker_field(r, SLICE("Content-Type"), SLICE("text/plain; charset=utf-8")) == 0)
		(void)!worker_write(r, text, sizeof(text) - 1);
}

/* serve() has returned. 0: the socket may be used again; 1: this was the last answer; -errno. */
static int finish(struct worker_request *r)
{
	bool last;

	if (!r->err && (r->state == ANSWER_NONE || r->status < 200))
		put_refusal(r);
	if (open_content(r) != 0)
		return -EPIPE;
	if (r->has_length && !r->no_content && r->left > 0)
		return -EPIPE; /* the front sees the end of the socket instead of END: the answer is cut */
	last = atomic_load_explicit(r->plan->ending, memory_order_acquire);
	put_header(r, WIRE_END, last ? WIRE_LAST : 0, 0);
	return send_out(r) != 0 ? -EPIPE : last;
}

/* Ready for the next request. */
static void forget(struct worker_request *r)
{
	close_fd(&r->body_fd);
	close_fd(&r->out_fd);
	intake_forget(&r->in);
	if (r->state == ANSWER_CONTENT)
		answer_enter(r, ANSWER_NONE);
	r->status = r->interim = r->field_count = r->files = 0;
	r->has_length = r->no_content = r->gone = false;
	r->left = r->body_at = 0;
	buf_clear(&r->fields);
}

static int answer(struct worker_request *r)
{
	const struct talk_plan *plan = r->plan;
	int err;

	if (plan->begun)
		plan->begun(plan->ctx);
	if (!plan->app->says_begun)
		worker_begin(r);
	plan->app->serve(plan->app_ctx, r);
	err = finish(r);
	forget(r);
	return err;
}

int talk_serve(int sock, const struct talk_plan *plan)
{
	struct worker_request r = { .sock = sock, .plan = plan, .body_fd = -1, .out_fd = -1, .data_at = NO_DATA_FRAME };
	int err;

	intake_init(&r.in, sock);
	buf_init(&r.fields, WIRE_HEAD_MAX - 4);
	buf_init(&r.out, OUT_MAX_BYTES);
	do {
		err = next_request(&r);
		if (err == 1)
			err = answer(&r);
		else if (err == 0)
			break;
	} while (err == 0);
	close_fd(&r.body_fd);
	close_fd(&r.out_fd);
	intake_done(&r.in);
	buf_done(&r.fields);
	buf_done(&r.out);
	return err == 1 ? 0 : err;
}

/* What worker.h promises. */

void worker_begin(struct worker_request *r)
{
	atomic_store_explicit(r->plan->started, r->serial, memory_order_release);
}

size_t worker_variable_count(const struct worker_request *r)
{
	return r->request.variable_count;
}

void worker_variable(struct worker_request *r, size_t i, struct slice *ret_name, struct slice *ret_value)
{
	*ret_name = *ret_value = slice_of("", 0);
	if (i >= r->request.variable_count)
		return;
	if (i < r->walk) {
		r->walk = 0;
		r->walk_rest = r->request.variables;
	}
	for (; r->walk <= i; r->walk++)
		if (wire_get_pair(&r->walk_rest, ret_name, ret_value) != 1)
			return;
}

struct slice worker_get(const struct worker_request *r, const char *name)
{
	struct slice rest = r->request.variables, wanted = slice_str(name), got, value;

	while (wire_get_pair(&rest, &got, &value) == 1)
		if (slice_eq(got, wanted))
			return value;
	return slice_of("", 0);
}

uint64_t worker_body_bytes(const struct worker_request *r)
{
	return r->request.length;
}

struct slice worker_body_memory(const struct worker_request *r)
{
	return r->request.body;
}

int worker_body_fd(const struct worker_request *r)
{
	return r->body_fd;
}

ssize_t worker_body_read(struct worker_request *r, void *buf, size_t size)
{
	size_t n = (size_t)MIN(size, r->request.length - r->body_at);
	ssize_t got;

	if (n == 0)
		return 0;
	if (r->body_fd == -1) {
		memcpy(buf, r->request.body.ptr + r->body_at, n);
		r->body_at += n;
		return (ssize_t)n;
	}
	do
		got = pread(r->body_fd, buf, n, (off_t)r->body_at);
	while (got == -1 && errno == EINTR);
	if (got == -1)
		return -errno;
	if (got == 0)
		return -EIO; /* the file is shorter than it was */
	r->body_at += (uint64_t)got;
	return got;
}

/* Early hints are complete: sends them. */
static int send_interim(struct worker_request *r)
{
	if (r->state != ANSWER_FIELDS || r->status >= 200)
		return -EINVAL;
	answer_enter(r, ANSWER_NONE);
	r->has_length = false;
	return put_head(r) != 0 ? r->err : send_out(r);
}

int worker_status(struct worker_request *r, unsigned status)
{
	if (r->err)
		return r->err;
	if (status != 103 && (status < 200 || status > 599))
		return -EINVAL;
	if (r->state != ANSWER_NONE) {
		int err = send_interim(r);

		if (err)
			return err;
	}
	if (status == 103 && ++r->interim > WIRE_INTERIM_MAX)
		return -EINVAL;
	r->status = status;
	answer_enter(r, ANSWER_FIELDS);
	return 0;
}

static int take_length(struct worker_request *r, struct slice value)
{
	uint64_t length;

	if (r->has_length || !slice_to_u64(value, &length) || length > INT64_MAX)
		return -EINVAL;
	r->has_length = true;
	r->left = length;
	return 0;
}

int worker_field(struct worker_request *r, struct slice name, struct slice value)
{
	if (r->err)
		return r->err;
	if (r->state != ANSWER_FIELDS || !field_name_ok(name) || !field_value_ok(value) ||
	    field_is_of_connection(field_id_from(name)))
		return -EINVAL;
	if (r->field_count >= WIRE_FIELDS_MAX || name.len + value.len + 8 > r->fields.max - r->fields.len)
		return -E2BIG;
	if (field_id_from(name) == FIELD_CONTENT_LENGTH && take_length(r, value) != 0)
		return -EINVAL;
	wire_put_pair(&r->fields, name, value);
	if (r->fields.failed)
		return fail(r, -ENOMEM);
	r->field_count++;
	return 0;
}

int worker_write(struct worker_request *r, const void *data, size_t len)
{
	int err = open_content(r);

	if (err || len == 0 || r->no_content)
		return err;
	err = count_content(r, len);
	if (err)
		return err;
	if (len >= OUT_BYTES)
		return send_data(r, data, len);
	if (r->out.len + len > OUT_BYTES && send_out(r) != 0)
		return r->err;
	return collect(r, data, len);
}

static int put_file(struct worker_request *r, int *fd, uint64_t offset, uint64_t len)
{
	char payload[WIRE_FILE_BYTES];
	int err = count_content(r, len);

	if (!err)
		err = send_out(r); /* a descriptor rides on a first byte */
	if (err)
		return err;
	r->files++;
	wire_put_file(payload, &(struct wire_file){ .offset = offset, .length = len });
	put_header(r, WIRE_FILE, WIRE_DESCRIPTOR, sizeof(payload));
	buf_add(&r->out, slice_of(payload, sizeof(payload)));
	if (r->out.failed)
		return fail(r, -ENOMEM);
	r->out_fd = *fd;
	*fd = -1;
	return 0;
}

/* As content like any other: the front takes so many descriptors and no more. */
static int copy_file(struct worker_request *r, int fd, uint64_t offset, uint64_t len)
{
	char piece[16u << 10];
	int err = r->has_length && len > r->left ? -EINVAL : 0;

	while (!err && len > 0) {
		ssize_t n = pread(fd, piece, (size_t)MIN(sizeof(piece), len), (off_t)offset);

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail(r, n == 0 ? -EIO : -errno); /* it is shorter than it was: the answer is cut */
		err = worker_write(r, piece, (size_t)n);
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return err;
}

int worker_write_file(struct worker_request *r, int *fd, uint64_t offset, uint64_t len)
{
	struct stat st;
	int err = open_content(r);

	if (!err && (fstat(*fd, &st) == -1 || !S_ISREG(st.st_mode) || offset > INT64_MAX || len > INT64_MAX - offset ||
	                (uint64_t)st.st_size < offset + len))
		err = -EINVAL;
	if (!err && len > 0 && !r->no_content) {
		if (r->files >= WIRE_FILES_MAX)
			err = copy_file(r, *fd, offset, len);
		else
			err = put_file(r, fd, offset, len);
	}
	close_fd(fd);
	return err;
}

int worker_flush(struct worker_request *r)
{
	int err = open_content(r);

	return err || r->out.len == 0 ? err : send_out(r);
}

int worker_reset(struct worker_request *r)
{
	if (r->err)
		return r->err;
	if (r->state == ANSWER_CONTENT && r->head_sent)
		return -EALREADY;
	if (r->state == ANSWER_CONTENT) {
		r->out.len = r->head_at;
		r->data_at = NO_DATA_FRAME;
		close_fd(&r->out_fd);
	}
	if (r->state != ANSWER_NONE)
		answer_enter(r, ANSWER_NONE);
	r->status = r->field_count = 0;
	r->has_length = r->no_content = false;
	r->left = 0;
	buf_clear(&r->fields);
	return 0;
}

void worker_abort(struct worker_request *r)
{
	(void)fail(r, -ECONNABORTED);
}

bool worker_client_gone(struct worker_request *r)
{
	struct wire_frame f;
	int got;

	if (r->gone || r->err)
		return true;
	got = intake_look(&r->in, &f);
	if (got == -ECONNRESET)
		/* This process shuts the reading side itself when it is about to end. */
		r->gone = !atomic_load_explicit(r->plan->ending, memory_order_acquire);
	else
		r->gone = got < 0 || (got == 1 && f.type == WIRE_CANCEL && f.serial == r->serial);
	return r->gone;
}
