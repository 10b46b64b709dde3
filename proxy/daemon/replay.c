#include "proxy/daemon/replay.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fields.h"
#include "core/http1.h"
#include "proxy/daemon/replay_wire.h"

#define ERRORS_MAX  (64u << 10)
#define FIELDS_MAX  2000
#define ANSWER_HEAD (512u << 10)
#define PIECE_BYTES (64u << 10)

static const struct http1_limits answer_limits = {
	.head_max_bytes = ANSWER_HEAD, .line_max_bytes = ANSWER_HEAD, .fields_max = FIELDS_MAX
};

/* ---- the file ---- */

struct reading {
	const char *file;
	struct slice rest;
	unsigned line;
	struct buf *out, *errors;
	bool failed;
	bool has_host;
	bool has_length;
	uint64_t length;
	unsigned length_line;
	struct replay_asks *asks;
};

static void PRINTF_LIKE(3, 4) complain(struct reading *r, unsigned line, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	buf_printf(r->errors, "%s:%u: %s\n", r->file, line, text);
	r->failed = true;
}

/* The next line without its end. False: there is none. */
static bool next_line(struct reading *r, struct slice *ret)
{
	if (r->rest.len == 0)
		return false;
	r->line++;
	if (!slice_cut(&r->rest, '\n', ret)) {
		*ret = r->rest;
		r->rest.len = 0;
	}
	if (ret->len > 0 && ret->ptr[ret->len - 1] == '\r')
		ret->len--;
	return true;
}

static bool is_target(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.ptr[i] <= ' ' || s.ptr[i] == 0x7f)
			return false;
	return s.len > 0;
}

static void take_request_line(struct reading *r, struct slice line)
{
	struct slice method, target, version = line;
	bool ok = slice_cut(&version, ' ', &method) && slice_cut(&version, ' ', &target);

	if (!ok || !field_name_ok(method) || !is_target(target) ||
	    !(slice_eq(version, SLICE("HTTP/1.1")) || slice_eq(version, SLICE("HTTP/1.0")))) {
		complain(
		    r, r->line, "this is no request line: METHOD, path and HTTP/1.1 are expected, such as \"GET / HTTP/1.1\"");
		return;
	}
	r->asks->is_head = slice_eq(method, SLICE("HEAD"));
	buf_add(r->out, line);
	buf_add(r->out, SLICE("\r\n"));
}

static void take_length(struct reading *r, struct slice value)
{
	uint64_t length = 0;

	if (!slice_to_u64(value, &length))
		complain(r, r->line, "Content-Length is no number");
	else if (r->has_length && length != r->length)
		complain(r, r->line, "a second Content-Length, which differs from that in line %u", r->length_line);
	r->has_length = true;
	r->length = length;
	r->length_line = r->line;
}

/* The name that TLS is asked for: no address has one (RFC 6066, 3). */
static void take_host(struct reading *r, struct slice value)
{
	struct in_addr v4;
	struct slice name = value;

	(void)slice_cut(&value, ':', &name);
	if (name.len >= sizeof(r->asks->host) || (name.len > 0 && name.ptr[0] == '['))
		return;
	memcpy(r->asks->host, name.ptr, name.len);
	r->asks->host[name.len] = '\0';
	if (inet_pton(AF_INET, r->asks->host, &v4) == 1)
		r->asks->host[0] = '\0';
}

static void take_field(struct reading *r, struct slice line)
{
	struct slice name, value = line;

	if (!slice_cut(&value, ':', &name) || !field_name_ok(name)) {
		complain(
		    r, r->line, "this is no field: a name, a colon and a value are expected, or an empty line before the body");
		return;
	}
	value = slice_trim_ows(value);
	if (!field_value_ok(value)) {
		complain(r, r->line, "a byte that no field may have");
		return;
	}
	switch (field_id_from(name)) {
	case FIELD_CONTENT_LENGTH:
		take_length(r, value);
		return;
	case FIELD_TRANSFER_ENCODING:
		complain(r, r->line,
		    "Transfer-Encoding: the body is sent as it stands here, all bytes behind the empty line; leave this out");
		return;
	case FIELD_CONNECTION:
	case FIELD_EXPECT:
	case FIELD_HTTP2_SETTINGS:
	case FIELD_KEEP_ALIVE:
	case FIELD_PROXY_CONNECTION:
	case FIELD_TE:
	case FIELD_TRAILER:
	case FIELD_UPGRADE:
		return;
	case FIELD_HOST:
		r->has_host = true;
		take_host(r, value);
		break;
	default:
		break;
	}
	http1_write_field(r->out, name, value);
}

/* What is left in `rest` behind the empty line is the body. */
static void take_body(struct reading *r)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%zu", r->rest.len);

	if (r->has_length && r->length != r->rest.len)
		complain(r, r->length_line,
		    "Content-Length says %" PRIu64
		    ", but %zu bytes stand behind the empty line; without the field, so many are sent",
		    r->length, r->rest.len);
	if (r->has_length || r->rest.len > 0)
		http1_write_field(r->out, SLICE("Content-Length"), slice_of(text, (size_t)n));
	http1_write_end(r->out);
	buf_add(r->out, r->rest);
}

int replay_compose(const char *file, struct slice text, struct buf *message, struct replay_asks *ret_asks, struct buf *errors)
{
	struct reading r = { .file = file, .rest = text, .out = message, .errors = errors, .asks = ret_asks };
	struct slice line = { "", 0 };
	unsigned first;
	bool more;

	do
		more = next_line(&r, &line);
	while (more && line.len > 0 && line.ptr[0] == '#');
	first = r.line;
	if (!more) {
		complain(&r, r.line + 1, "there is no request in this file");
		return -EINVAL;
	}
	*ret_asks = (struct replay_asks){ 0 };
	take_request_line(&r, line);
	for (unsigned n = 0; !r.failed && next_line(&r, &line) && line.len > 0; n++) {
		if (n == FIELDS_MAX)
			complain(&r, r.line, "more than %d fields", FIELDS_MAX);
		else
			take_field(&r, line);
	}
	if (!r.failed && !r.has_host)
		complain(&r, first, "there is no Host field");
	if (r.failed)
		return -EINVAL;
	http1_write_field(message, SLICE("Connection"), SLICE("close"));
	take_body(&r);
	if (r.failed)
		return -EINVAL;
	return message->failed ? -ENOMEM : 0;
}

static int read_file(const char *file, struct buf *text)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC), err = 0;
	ssize_t n = 1;

	if (fd == -1)
		return -errno;
	while (!err && n > 0) {
		char *room = buf_room(text, PIECE_BYTES);

		n = room ? read(fd, room, PIECE_BYTES) : 0;
		if (!room)
			err = -EFBIG;
		else if (n == -1 && errno != EINTR)
			err = -errno;
		else if (n > 0)
			text->len += (size_t)n;
		else if (n == -1)
			n = 1;
	}
	close(fd);
	return err;
}

/* ---- the daemon ---- */

/* All of a listener's agree in this. */
static bool wants_certificate(const struct conf *conf, const struct conf_listen *l)
{
	return l->tls_count > 0 && conf_listen_tls(conf, l, 0)->client_verify == CLIENT_VERIFY_REQUIRE;
}

static const struct conf_listen *first_listener(const struct conf *conf, bool tls)
{
	for (size_t i = 0; i < conf->listen_count; i++) {
		const struct conf_listen *l = &conf->listens[i];

		if ((l->tls_count > 0) == tls && !l->redirect_https && l->address_count > 0 && !wants_certificate(conf, l))
			return l;
	}
	return NULL;
}

bool replay_choose(const struct conf *conf, struct replay_door *ret)
{
	const struct conf_listen *plain = first_listener(conf, false), *l = plain ? plain : first_listener(conf, true);

	if (!l)
		return false;
	*ret =
	    (struct replay_door){ .address = &l->addresses[0], .proxy_protocol = l->proxy_protocol, .tls = l->tls_count > 0 };
	return true;
}

static int say(const char *what, int err)
{
	fprintf(stderr, "forebay: %s%s%s\n", what, err ? ": " : "", err ? strerror(-err) : "");
	return EXIT_FAILURE;
}

struct hearing {
	struct replay_wire *wire;
	struct buf in; /* not looked at yet */
};

/* More bytes. 1, 0: the end, or -errno. */
static int hear(struct hearing *h)
{
	char *room = buf_room(&h->in, PIECE_BYTES);
	ssize_t n;

	if (!room)
		return -ENOMEM;
	n = replay_wire_recv(h->wire, room, PIECE_BYTES);
	if (n > 0)
		h->in.len += (size_t)n;
	return n < 0 ? (int)n : n > 0;
}

static void forget(struct hearing *h, size_t n)
{
	memmove(h->in.ptr, h->in.ptr + n, h->in.len - n);
	h->in.len -= n;
}

static void print(struct slice s)
{
	fwrite(s.ptr, 1, s.len, stdout);
}

/* One head, printed. 0, or -EPROTO. */
static int hear_one_head(struct hearing *h, enum method method, unsigned *ret_status, struct http1_message *ret)
{
	struct http1_scan scan = { 0 };
	enum http1_result result;
	struct head head;
	size_t len;

	while ((result = http1_scan(&scan, buf_slice(&h->in), &answer_limits, &len)) == HTTP1_MORE)
		if (hear(h) != 1)
			return -EPROTO;
	head_init(&head);
	if (result == HTTP1_OK)
		result = http1_response(slice_of(h->in.ptr, len), method, &head, ret);
	*ret_status = head.status;
	head_done(&head);
	if (result != HTTP1_OK)
		return -EPROTO;
	print(slice_of(h->in.ptr, len));
	forget(h, len);
	return 0;
}

/* The final one, behind early hints. */
static int hear_head(struct hearing *h, enum method method, unsigned *ret_status, struct http1_message *ret)
{
	int err;

	do
		err = hear_one_head(h, method, ret_status, ret);
	while (!err && *ret_status < 200);
	return err;
}

static int hear_length(struct hearing *h, uint64_t left)
{
	for (;;) {
		size_t n = (size_t)MIN(left, h->in.len);

		print(slice_of(h->in.ptr, n));
		forget(h, n);
		left -= n;
		if (left == 0)
			return 0;
		if (hear(h) != 1)
			return -EPROTO;
	}
}

static int hear_chunks(struct hearing *h)
{
	struct chunked c = { 0 };

	for (;;) {
		struct slice in = buf_slice(&h->in), data = { "", 0 };
		enum http1_result result;

		do {
			result = chunked_decode(&c, &in, &data);
			print(data);
		} while (result == HTTP1_MORE && data.len > 0);
		if (result != HTTP1_MORE)
			return result == HTTP1_OK ? 0 : -EPROTO;
		h->in.len = 0;
		if (hear(h) != 1)
			return -EPROTO;
	}
}

static int hear_rest(struct hearing *h)
{
	int more = 1;

	while (more == 1) {
		print(buf_slice(&h->in));
		h->in.len = 0;
		more = hear(h);
	}
	return more;
}

static int hear_answer(struct replay_wire *wire, bool is_head)
{
	struct hearing h = { .wire = wire };
	struct http1_message m = { 0 };
	unsigned status = 0;
	int err;

	buf_init(&h.in, ANSWER_HEAD + PIECE_BYTES);
	err = hear_head(&h, is_head ? METHOD_HEAD : METHOD_GET, &status, &m);
	if (err) {
		buf_done(&h.in);
		return say("there was no answer", 0);
	}
	if (m.framing == FRAMING_LENGTH)
		err = hear_length(&h, m.length);
	else if (m.framing == FRAMING_CHUNKED)
		err = hear_chunks(&h);
	else if (m.framing == FRAMING_CLOSE)
		err = hear_rest(&h);
	buf_done(&h.in);
	fflush(stdout);
	if (err)
		return say("the answer was cut", 0);
	return status < 500 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int send_plain(int fd, struct slice bytes)
{
	return send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL) == (ssize_t)bytes.len ? 0 : -EPIPE;
}

static int reach(const struct replay_door *to)
{
	int fd = socket(to->address->addr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd == -1 || connect(fd, &to->address->addr.any, to->address->len) == -1)
		err = -errno;
	/* Before TLS, and short enough for any fresh socket. */
	if (!err && to->proxy_protocol)
		err = send_plain(fd, SLICE("PROXY UNKNOWN\r\n"));
	if (err && fd != -1)
		close(fd);
	return err ? err : fd;
}

/* A daemon that refuses may close before it has read all: its answer is what counts. */
static int replay(const struct replay_door *to, struct slice message, const struct replay_asks *asks)
{
	const char *why = NULL;
	struct replay_wire wire;
	int fd = reach(to), status, err;

	if (fd < 0)
		return say(to->address->text, fd);
	err = replay_wire_open(&wire, &fd, to->tls ? asks->host : NULL, &why);
	if (err) {
		fprintf(stderr, "forebay: %s: TLS: %s\n", to->address->text, why ? why : strerror(-err));
		return EXIT_FAILURE;
	}
	replay_wire_send(&wire, message);
	status = hear_answer(&wire, asks->is_head);
	replay_wire_close(&wire);
	return status;
}

int replay_main(const char *file, const struct replay_door *to)
{
	struct buf text, message, errors;
	struct replay_asks asks;
	int status, err;

	(void)signal(SIGPIPE, SIG_IGN);
	buf_init(&text, REPLAY_FILE_MAX);
	buf_init(&message, (size_t)REPLAY_FILE_MAX + (1u << 20));
	buf_init(&errors, ERRORS_MAX);
	err = read_file(file, &text);
	if (err) {
		status = say(file, err);
	} else if ((err = replay_compose(file, buf_slice(&text), &message, &asks, &errors)) != 0) {
		fwrite(errors.ptr, 1, errors.len, stderr);
		status = err == -ENOMEM ? say(file, err) : EXIT_FAILURE;
	} else {
		status = replay(to, buf_slice(&message), &asks);
	}
	buf_done(&errors);
	buf_done(&message);
	buf_done(&text);
	return status;
}
