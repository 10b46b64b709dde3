/*
 * A whole HTTP/2 session against the front on one thread: any frames and bytes from one client, over a real Unix socket, with workers
 * that answer as the input says and a clock that only the input moves. What must hold whatever comes:
 * - a worker gets whole requests only, each of which a strict parser takes;
 * - what the client gets are frames that a server may send, of no more than the size allowed, none on a stream that has ended;
 * - the front comes to rest after each step, and at the end every slot is free and all memory and every descriptor given back.
 *
 * The input: a byte of setup, then steps of a letter (run_step), an argument, a length (both bytes) and so many bytes.
 */
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proxy/client/guard.h"
#include "proxy/client/http2_client.h"
#include "proxy/client/server.h"
#include "proxy/client/websocket.h"
#include "tests/fuzz/rig.h"
#include "tests/fuzz/transcript.h"
#include "upstream/link.h"

#define WORKERS_MAX 64
#define STREAMS_MAX 256 /* that are looked at */
#define FRAME_MAX   (16u << 10)
#define STEPS_MAX   200
#define MEMORY_LOW  (256u << 10)

enum setup { SETUP_LOW = 1, SETUP_STRICT = 2, SETUP_SILENT = 4 };

static const char conf_text[] =
    "[listen wide]\naddress = unix:/a\nhttp2 = on\n"
    "[listen strict]\naddress = unix:/b\nhttp2 = on\nhead_limit = 1K\nfields_max = 8\nhttp2_max_streams = 3\nhttp2_window = 1K\n"
    "http2_connection_window = 64K\nhttp2_allowance = 10\nkeepalive_requests = 5\nhalf_close = on\nmin_rate_grace = 1s\n"
    "head_timeout = 1s\nidle_timeout = 5s\n"
    "[pool p]\nsocket = /w\nslots = 2\nqueue_limit = 4\ntimeout = 20s\nrelease_timeout = 20s\nstream_idle_timeout = 20s\nstreams = 2\n"
    "[route *]\npool = p\nbody_memory = 1K\nhold = 1K\nbody_limit = 64K\n"
    "[route */s]\npool = p\nbuffer = off\nbody_limit = 64K\n";

static const struct http1_limits limits = { .head_max_bytes = 256u << 10, .line_max_bytes = 256u << 10, .fields_max = 1000 };

struct worker {
	int fd;
	struct transcript in;
	size_t answered;
};

static struct fixture {
	/* for all inputs */
	struct rig rig;
	struct spool *spool;
	struct conf *conf;
	int doors[2], socket;
	struct sockaddr_un door_names[2];
	socklen_t door_lens[2];
	/* for one */
	unsigned setup;
	struct route_table *routes;
	struct guard *guard;
	struct pool *pool;
	struct server *server;
	int client;
	bool stalled, draining, drained, ended;
	struct worker workers[WORKERS_MAX];
	size_t worker_count;
	/* what the client got */
	struct buf in;
	size_t at, frames;
	bool stream_ended[STREAMS_MAX];
} fx;

/* What the front is linked with in place of the logger. */
bool logger_write(
    struct logger_channel *c UNUSED, enum logger_to to UNUSED, enum log_level level UNUSED, struct slice line UNUSED)
{
	return true;
}

static void log_nothing(void *ctx UNUSED, enum log_level level UNUSED, struct slice line UNUSED)
{
}

/* ---- the loop, until it rests ---- */

/* ---- what the client gets ---- */

static uint32_t number(const uint8_t *at, unsigned bytes)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < bytes; i++)
		n = n << 8 | at[i];
	return n;
}

/* Streams are counted from the client's first. */
static void check_stream(uint32_t id, uint8_t type, uint8_t flags)
{
	bool *ended = id / 2 < STREAMS_MAX ? &fx.stream_ended[id / 2] : NULL;

	if (type > 1 || !ended)
		return;
	must(id % 2 == 1 && !*ended);
	*ended = flags & 1;
}

static void check_frame(uint32_t length, uint8_t type, uint8_t flags, uint32_t id)
{
	static const uint8_t allowed[] = { 0, 1, 3, 4, 6, 7, 8, 9 };

	must(length <= FRAME_MAX && memchr(allowed, type, sizeof(allowed)));
	must(fx.frames > 0 || (type == 4 && !(flags & 1)));
	must((type == 4 || type == 6 || type == 7) == (id == 0) || type == 8);
	check_stream(id, type, flags);
	fx.frames++;
}

static void check_frames(void)
{
	while (fx.in.len - fx.at >= 9) {
		const uint8_t *head = (const uint8_t *)fx.in.ptr + fx.at;
		uint32_t length = number(head, 3);

		if (fx.in.len - fx.at < 9 + length)
			return;
		check_frame(length, head[3], head[4], number(head + 5, 4));
		fx.at += 9 + length;
	}
}

static bool client_reads(void)
{
	static char bytes[64u << 10];
	bool any = false;
	ssize_t n;

	if (fx.client == -1 || fx.stalled || fx.ended)
		return false;
	while ((n = recv(fx.client, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
		buf_add(&fx.in, slice_of(bytes, (size_t)n));
		must(!fx.in.failed);
		any = true;
	}
	fx.ended = n == 0 || errno != EAGAIN;
	/* Without the preface it is HTTP/1.1 that answers. */
	if (fx.in.len > 0 && fx.in.ptr[0] != 'H')
		check_frames();
	return any;
}

/* ---- workers ---- */

static bool worker_reads(struct worker *w)
{
	static char bytes[64u << 10];
	bool any = false;
	ssize_t n;

	if (w->fd == -1)
		return false;
	while ((n = recv(w->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
		transcript_add(&w->in, slice_of(bytes, (size_t)n));
		any = true;
	}
	if (w->answered == 0 || !w->in.count || !w->in.messages[0].m.upgrade)
		transcript_requests(&w->in);
	must(!w->in.bad && w->in.count <= 1); /* keepalive = off */
	if (w->in.count == 1 && w->in.messages[0].whole)
		must(head_find(&w->in.messages[0].head, FIELD_HOST, 0) == 0);
	return any;
}

static bool accept_worker(void)
{
	int fd = accept4(fx.socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct worker *w = &fx.workers[fx.worker_count];

	if (fd == -1)
		return false;
	if (fx.worker_count == WORKERS_MAX) {
		close(fd);
		return true;
	}
	*w = (struct worker){ .fd = fd };
	transcript_init(&w->in, &limits);
	w->in.empty_host_ok = true;
	fx.worker_count++;
	return true;
}

static void worker_closes(struct worker *w)
{
	if (w->fd != -1)
		close(w->fd);
	w->fd = -1;
}

static void pump(void)
{
	bool any = true;

	while (any) {
		rig_turn(&fx.rig);
		any = client_reads();
		while (accept_worker())
			any = true;
		for (size_t i = 0; i < fx.worker_count; i++)
			any |= worker_reads(&fx.workers[i]);
	}
}

static void pass_time(uint64_t ms)
{
	rig_pass_time(&fx.rig, ms * 1000);
	pump();
}

/* ---- steps ---- */

static void client_says(struct slice bytes)
{
	if (fx.client != -1)
		(void)send(fx.client, bytes.ptr, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void client_closes(void)
{
	if (fx.client != -1)
		close(fx.client);
	fx.client = -1;
}

/* The first byte is the type, the second the flags; its stream is the argument. */
static void say_frame(unsigned arg, struct slice bytes)
{
	char frame[9 + 255];
	uint32_t id = arg ? (arg - 1) * 2 + 1 : 0;
	size_t len = bytes.len - 2;

	memcpy(frame, (const char[]){ 0, 0, (char)len, bytes.ptr[0], bytes.ptr[1], 0, 0, (char)(id >> 8), (char)id }, 9);
	memcpy(frame + 9, bytes.ptr + 2, len);
	client_says(slice_of(frame, 9 + len));
}

static void add_field(struct buf *b, struct slice name, struct slice value)
{
	buf_char(b, 0);
	buf_char(b, (char)name.len);
	buf_add(b, name);
	buf_char(b, (char)value.len);
	buf_add(b, value);
}

/* A request of good form on stream `arg`; the first byte says which, the rest is one more field's value. */
static void say_request(unsigned arg, struct slice bytes)
{
	unsigned kind = bytes.len ? (unsigned char)bytes.ptr[0] : 0;
	char room[512];
	struct buf b;
	uint32_t id = arg * 2 + 1;

	buf_init_in(&b, room, sizeof(room), sizeof(room));
	buf_add(&b, slice_of("\0\0\0\1\0\0\0\0\0", 9));
	add_field(&b, SLICE(":method"), kind & 1 ? SLICE("POST") : kind & 8 ? SLICE("CONNECT") : SLICE("GET"));
	add_field(&b, SLICE(":scheme"), SLICE("http"));
	add_field(&b, SLICE(":authority"), SLICE("a"));
	add_field(&b, SLICE(":path"), kind & 2 ? SLICE("/s") : SLICE("/"));
	if (kind & 8)
		add_field(&b, SLICE(":protocol"), SLICE("websocket"));
	if (bytes.len > 1)
		add_field(&b,
		    kind & 16   ? SLICE("priority")
		    : kind & 32 ? SLICE("cookie")
		                : SLICE("x"),
		    slice_of(bytes.ptr + 1, MIN(bytes.len - 1, 100u)));
	b.ptr[1] = (char)((b.len - 9) >> 8);
	b.ptr[2] = (char)(b.len - 9);
	b.ptr[4] = (char)(4 | (kind & 4 ? 0 : 1));
	b.ptr[7] = (char)(id >> 8);
	b.ptr[8] = (char)id;
	client_says(buf_slice(&b));
	buf_done(&b);
}

/* To who asks for a WebSocket, as that wants it; to others as it may be. */
static void worker_switches(const struct worker *w)
{
	char accept[WEBSOCKET_ACCEPT_LEN + 1] = "x", text[200];
	const struct head *h = &w->in.messages[0].head;

	for (unsigned i = 0; i < h->field_count; i++)
		if (slice_eq_nocase(head_name(h, i), SLICE("Sec-WebSocket-Key")))
			websocket_accept(head_value(h, i), accept);
	snprintf(text, sizeof(text),
	    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\nhello",
	    accept);
	(void)send(w->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void worker_answers(unsigned arg)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nto the end",
		"HTTP/1.1 204 No Content\r\n\r\n",
		NULL, /* worker_switches */
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut short",
	};
	static char many[48u << 10];

	for (size_t i = 0; i < fx.worker_count; i++) {
		struct worker *w = &fx.workers[i];

		if (w->fd == -1 || w->in.count == 0 || (w->answered > 0 && !(arg & 16)))
			continue;
		if (arg & 8 && w->answered == 0)
			(void)send(w->fd, "HTTP/1.1 200 OK\r\n\r\n", 19, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (arg & 8)
			(void)send(w->fd, many, sizeof(many), MSG_NOSIGNAL | MSG_DONTWAIT);
		else if (!answers[arg % 8])
			worker_switches(w);
		else
			(void)send(w->fd, answers[arg % 8], strlen(answers[arg % 8]), MSG_NOSIGNAL | MSG_DONTWAIT);
		w->answered++;
		if (arg & 32)
			worker_closes(w);
		return;
	}
}

static void drained(void *ctx UNUSED)
{
	fx.drained = true;
}

static void drain(void)
{
	if (fx.draining)
		return;
	fx.draining = true;
	server_drain(fx.server, drained, NULL);
}

static void give_windows(unsigned arg)
{
	char frame[13] = { 0, 0, 4, 8 };

	frame[8] = (char)(arg ? arg * 2 - 1 : 0);
	frame[10] = (char)0x10;
	client_says(slice_of(frame, sizeof(frame)));
}

static void run_step(char what, unsigned arg, struct slice bytes)
{
	static const uint64_t ms[] = { 10, 100, 500, 1000, 1100, 2000, 5000, 10000, 20100, 31000, 61000 };

	switch (what) {
	case 'f':
		if (bytes.len >= 2)
			say_frame(arg, bytes);
		break;
	case 'r':
		say_request(arg, bytes);
		break;
	case 'b':
		client_says(bytes);
		break;
	case 'w':
		worker_answers(arg);
		break;
	case 'k':
		if (fx.worker_count > 0)
			worker_closes(&fx.workers[arg % fx.worker_count]);
		break;
	case 'u':
		give_windows(arg);
		break;
	case 'z':
		fx.stalled = !fx.stalled;
		break;
	case 's':
		if (fx.client != -1)
			(void)shutdown(fx.client, SHUT_WR);
		break;
	case 'x':
		client_closes();
		break;
	case 't':
		pass_time(ms[arg % ARRAY_LEN(ms)]);
		return;
	case 'd':
		drain();
		break;
	default:
		return;
	}
	pump();
}

static void run(const uint8_t *data, size_t size)
{
	for (unsigned step = 0; step < STEPS_MAX && size >= 3; step++) {
		size_t len = MIN(data[2], size - 3);

		run_step((char)data[0], data[1], slice_of((const char *)data + 3, len));
		data += 3 + len;
		size -= 3 + len;
	}
}

/* ---- the end of an input ---- */

static bool pool_rests(void)
{
	struct pool_figures f;

	pool_figures(fx.pool, &f);
	return f.busy + f.granted + f.queued + f.streams == 0;
}

static void end(void)
{
	struct spool_figures s;

	fx.stalled = false;
	pump();
	for (int i = 0; i < 200 && !(i > 0 && pool_rests()); i++) {
		for (size_t j = 0; j < fx.worker_count; j++)
			worker_closes(&fx.workers[j]);
		pass_time(5500);
	}
	client_closes();
	pump();
	for (int i = 0; i < 4 && !(pool_rests() && fx.rig.loop->wheel.count == 1); i++)
		pass_time(20100);
	must(pool_rests() && guard_connections(fx.guard) == 0);
	drain();
	pump();
	must(fx.drained);
	server_free(&fx.server);
	must(fx.rig.loop->wheel.count == 0);
	pool_free(&fx.pool);
	guard_free(&fx.guard);
	route_table_free(&fx.routes);
	must(atomic_load(&fx.conf->refs) == 1);
	must(fx.rig.loop->lease.used == 0);
	spool_figures(fx.spool, &s);
	must(s.extents == 0 && s.jobs == 0);
	for (size_t i = 0; i < fx.worker_count; i++)
		transcript_done(&fx.workers[i].in);
	buf_done(&fx.in);
}

/* ---- the beginning ---- */

static void begin(unsigned setup)
{
	struct server_options o = { .loop = fx.rig.loop, .pools = &fx.pool, .conf = fx.conf, .id_seed = 1 };
	unsigned door = setup & SETUP_STRICT ? 1 : 0;
	int fd = dup(fx.doors[door]);

	fx.setup = setup;
	fx.worker_count = 0;
	fx.stalled = fx.draining = fx.drained = fx.ended = false;
	fx.at = fx.frames = 0;
	memset(fx.stream_ended, 0, sizeof(fx.stream_ended));
	buf_init(&fx.in, 64u << 20);
	rig_set_memory(&fx.rig, setup & SETUP_LOW ? MEMORY_LOW : RIG_MEMORY);
	must(route_table_new(fx.conf, &fx.routes) == 0);
	must(guard_new(4, &fx.guard) == 0);
	must(pool_new(&fx.conf->pools[0], &link_pool_links, &fx.rig.clock.clock, &fx.pool) == 0);
	o.routes = fx.routes;
	o.guard = fx.guard;
	must(server_new(&o, &fx.server) == 0);
	must(server_listen(fx.server, &fx.conf->listens[door], &fx.conf->listens[door].addresses[0], &fd) == 0);
	fx.client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	must(fx.client != -1 && connect(fx.client, (const void *)&fx.door_names[door], fx.door_lens[door]) == 0);
	if (!(setup & SETUP_SILENT))
		client_says(SLICE(HTTP2_PREFACE "\0\0\0\4\0\0\0\0\0"));
	pump();
}

static void make_conf(void)
{
	struct buf errors;
	struct sockaddr_un name;
	socklen_t len;

	buf_init(&errors, 1u << 20);
	if (conf_parse("fuzz", slice_str(conf_text), &errors, &fx.conf) != 0)
		fprintf(stderr, "%.*s", (int)errors.len, errors.ptr);
	must(fx.conf);
	buf_done(&errors);
	fx.socket = rig_listen(&name, &len);
	fx.conf->pools[0].sockets[0].addr.un = name;
	fx.conf->pools[0].sockets[0].len = len;
	for (int i = 0; i < 2; i++)
		fx.doors[i] = rig_listen(&fx.door_names[i], &fx.door_lens[i]);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
	struct spool_options o = { .limit_bytes = 16u << 20, .own_file_bytes = 8u << 20, .own_files_max = 4, .threads = 1 };

	log_setup("fuzz", LOG_LEVEL_ERROR, log_nothing, NULL);
	rig_init(&fx.rig);
	o.dir_fd = rig_folder();
	must(spool_new(&o, &fx.spool) == 0);
	fx.rig.loop->spool = fx.spool;
	make_conf();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	begin(data[0] & 7);
	run(data + 1, size - 1);
	end();
	rig_check_descriptors(&fx.rig);
	return 0;
}
