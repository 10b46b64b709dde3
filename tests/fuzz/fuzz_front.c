/*
 * The whole front on one thread: any bytes from clients and from workers, in any order, over real Unix sockets, with a clock that
 * only the input moves. What must hold whatever they say:
 * - a worker gets whole requests only, one at a time, each as a client sent it; one that is not idempotent reaches a worker once;
 * - a client gets no more answers than it sent requests, each what a worker said to that very request or one of forebay's own, and a
 *   request is lost only when its client is told;
 * - the front comes to rest after each step, and at the end every slot is free and every byte of memory, spool and budget given back.
 *
 * The input is a script of readable bytes. The first says how the front is set up (enum setup, from '@' on), then come steps: '~', a
 * letter (run_step), a digit for whose turn it is, and bytes up to the next '~'.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/client/guard.h"
#include "proxy/client/server.h"
#include "tests/fuzz/rig.h"
#include "tests/fuzz/transcript.h"
#include "upstream/link.h"

#define CLIENTS_MAX 64 /* connections, an input */
#define LINKS_MAX   64
#define NAMES       3 /* clients at once */
#define FILLS_MAX   40
#define FILL_BYTES  (16u << 10)
#define TIMES_MAX   100  /* moves of the clock, an input */
#define ENDS_MAX    2000 /* an input of pipelined requests, each tried three times */
#define MEMORY_LOW  (96u << 10)

enum setup { SETUP_STRICT = 1, SETUP_FULL_DISK = 2, SETUP_LOW = 4, SETUP_TRUSTED = 8 };

enum pool_name { POOL_PLAIN, POOL_KEPT, POOL_STREAM, POOL_COUNT };

static const char conf_text[] =
    "[listen plain]\naddress = unix:/plain\n"
    "[listen strict]\naddress = unix:/strict\nhead_limit = 1K\nfields_max = 8\nkeepalive_requests = 3\nhalf_close = on\n"
    "early_hints = on\nmin_rate_grace = 1s\nhead_timeout = 1s\nidle_timeout = 5s\n"
    "[pool plain]\nsocket = /w-plain\nslots = 2\nqueue_limit = 2\ntimeout = 20s\nrelease_timeout = 20s\n"
    "[pool kept]\nsocket = /w-kept\nslots = 2\nkeepalive = on\nreplay_unread = on\nretries = 2\ntimeout = 20s\nrelease_timeout = 20s\n"
    "[pool stream]\nsocket = /w-stream\nslots = 2\nrequire_length = on\nstream_idle_timeout = 20s\nstreams = 2\n"
    "[route *]\npool = plain\nbody_memory = 1K\nhold = 1K\nbody_limit = 64K\n"
    "[route */k]\npool = kept\n"
    "[route */s]\npool = stream\nbuffer = off\nbody_limit = 64K\n";

static const struct http1_limits link_limits = {
	.head_max_bytes = 256u << 10, .line_max_bytes = 256u << 10, .fields_max = 1000
};
/* What the front takes from a worker (upstream/protocol/http.c), so that both end in the same place. */
static const struct http1_limits answer_limits = {
	.head_max_bytes = 64u << 10, .line_max_bytes = 16u << 10, .fields_max = 500
};

/* A client's connection; kept to the end, for what was said over it. */
struct client {
	int fd;       /* -1: closed by the script */
	bool stalled; /* does not read just now */
	bool was_stalled, shut;
	bool ended;                /* by the front */
	struct transcript out, in; /* requests, responses */
};

/* A worker's end of a link. */
struct worker {
	int fd;
	enum pool_name pool;
	bool stalled, shut, ended;
	bool blind;                /* it was closed before it had read what it may have answered */
	struct transcript in, out; /* requests, responses */
};

static struct fixture {
	/* for all inputs */
	struct rig rig;
	struct spool *spools[2]; /* the second takes next to nothing */
	struct conf *confs[2];   /* the second trusts its clients */
	struct access_log *access[2];
	int doors[2]; /* where clients come in, by listen */
	struct sockaddr_un door_names[2];
	socklen_t door_lens[2];
	int sockets[POOL_COUNT]; /* where workers are met */
	struct sockaddr_un socket_names[POOL_COUNT];
	/* for one */
	unsigned setup;
	struct conf *conf;
	struct route_table *routes;
	struct guard *guard;
	struct pool *pools[POOL_COUNT];
	struct server *server;
	struct client clients[CLIENTS_MAX];
	size_t client_count;
	struct client *named[NAMES];
	struct worker workers[LINKS_MAX];
	size_t worker_count;
	unsigned fills, times;
	bool deaf;  /* workers do not accept */
	bool hasty; /* somebody left, waited or was kept waiting, at some time */
	bool draining, drained;
	uint64_t lines; /* of the access log */
} fx;

/* ---- what the front is linked with in place of the logger: each line is looked at ---- */

static void check_line(struct slice line)
{
	must(line.len > 1 && line.len < LOGGER_LINE_MAX && line.ptr[line.len - 1] == '\n');
	for (size_t i = 0; i + 1 < line.len; i++)
		must((unsigned char)line.ptr[i] >= ' ' && line.ptr[i] != 0x7f);
}

bool logger_write(struct logger_channel *c UNUSED, enum logger_to to, enum log_level level UNUSED, struct slice line)
{
	must(to == LOGGER_ACCESS);
	check_line(line);
	fx.lines++;
	return true;
}

static void log_checked(void *ctx UNUSED, enum log_level level UNUSED, struct slice line)
{
	check_line(line);
}

/* ---- the loop, until it rests ---- */

static void pump(void);

static void pass_time(uint64_t ms)
{
	rig_pass_time(&fx.rig, ms * 1000);
	pump();
}

/* ---- what reaches a worker ---- */

static bool same_target(const struct head *a, const struct head *b)
{
	return slice_eq(head_text(a, a->method_text), head_text(b, b->method_text)) &&
	       slice_eq(head_text(a, a->path), head_text(b, b->path)) && a->has_query == b->has_query &&
	       slice_eq(head_text(a, a->query), head_text(b, b->query));
}

/* Some client has sent this: the whole of it, or, for a stream, its beginning. */
static bool was_sent(const struct message *o, bool whole, bool with_content)
{
	for (size_t i = 0; i < fx.client_count; i++) {
		const struct transcript *out = &fx.clients[i].out;

		for (size_t j = 0; j < out->count; j++) {
			const struct message *s = &out->messages[j];

			if (!same_target(&s->head, &o->head) || (whole && !s->whole))
				continue;
			if (o->m.framing != FRAMING_CHUNKED && s->m.framing != FRAMING_CHUNKED && s->m.length != o->m.length)
				continue;
			if (s->whole && o->m.framing != FRAMING_CHUNKED && s->content.len != o->m.length)
				continue;
			if (!with_content || slice_eq(buf_slice(&s->content), buf_slice(&o->content)))
				return true;
		}
	}
	return false;
}

static size_t times_seen(struct slice id)
{
	size_t n = 0;

	for (size_t i = 0; i < fx.worker_count; i++)
		for (size_t j = 0; j < fx.workers[i].in.count; j++)
			n += slice_eq(head_get(&fx.workers[i].in.messages[j].head, FIELD_X_REQUEST_ID), id);
	return n;
}

static void check_request_head(const struct worker *w, const struct message *o)
{
	const struct head *h = &o->head;
	int length = head_find(h, FIELD_CONTENT_LENGTH, 0);

	must(h->version == 11 && h->field_count > 0 && h->fields[0].id == FIELD_HOST);
	must(length < 0 || head_find(h, FIELD_CONTENT_LENGTH, (unsigned)length + 1) < 0);
	must(o->m.framing != FRAMING_CHUNKED || w->pool == POOL_STREAM);
	must(was_sent(o, w->pool != POOL_STREAM, false));
	must(head_get(h, FIELD_X_REQUEST_ID).len > 0);
	/* With trusted clients the ids are theirs. */
	if (!(fx.setup & SETUP_TRUSTED) && !method_is_idempotent(h->method))
		must(times_seen(head_get(h, FIELD_X_REQUEST_ID)) == 1);
}

/* One request at a time: behind a whole one nothing comes before its answer. */
static void check_turn(struct worker *w)
{
	size_t answered;

	transcript_responses(&w->out, &w->in);
	answered = transcript_whole(&w->out);
	must(answered >= w->in.count || answered == w->in.count - 1);
	for (size_t i = 0; i + 1 < w->in.count; i++)
		must(w->pool == POOL_KEPT && w->out.messages[i].m.keep_alive);
	if (!w->in.bad && !transcript_open(&w->in) && transcript_rest(&w->in).len > 0)
		must(w->pool == POOL_KEPT && answered >= w->in.count);
}

static void read_requests(struct worker *w)
{
	transcript_responses(&w->out, &w->in);
	if (w->out.tunnel)
		return;
	transcript_requests(&w->in);
	must(!w->in.bad);
	for (size_t i = 0; i < w->in.count; i++) {
		struct message *o = &w->in.messages[i];

		if (!o->head_checked)
			check_request_head(w, o);
		if (o->whole && !o->whole_checked)
			must(was_sent(o, true, true));
		o->head_checked = true;
		o->whole_checked = o->whole;
	}
	if (w->in.count > 0)
		check_turn(w);
}

/* ---- both ends of the front ---- */

/* All that is there. False: nothing was. */
static bool receive(int fd, struct transcript *into, bool *ret_ended)
{
	static char bytes[64u << 10];
	bool any = false;
	ssize_t n;

	while ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
		transcript_add(into, slice_of(bytes, (size_t)n));
		any = true;
	}
	if (n == -1 && errno == EAGAIN)
		return any;
	*ret_ended = true;
	return true;
}

static bool client_reads(struct client *c)
{
	if (c->fd == -1 || c->stalled || c->ended)
		return false;
	return receive(c->fd, &c->in, &c->ended);
}

/* Our end is still open, nobody was in a hurry, and the worker had said nothing: the request came to its end. */
static void check_not_cut(const struct worker *w)
{
	if (w->pool == POOL_STREAM || w->shut || w->out.bytes.len > 0 || fx.times > 0 || (fx.setup & SETUP_LOW))
		return;
	must(!transcript_open(&w->in) && transcript_rest(&w->in).len == 0);
}

static bool worker_reads(struct worker *w)
{
	bool any;

	if (w->fd == -1 || w->stalled || w->ended)
		return false;
	any = receive(w->fd, &w->in, &w->ended);
	if (any)
		read_requests(w);
	if (w->ended)
		check_not_cut(w);
	return any;
}

static bool accept_worker(enum pool_name pool)
{
	int fd = accept4(fx.sockets[pool], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct worker *w = &fx.workers[fx.worker_count];

	if (fd == -1)
		return false;
	if (fx.worker_count == LINKS_MAX) { /* dies on sight, as it were */
		close(fd);
		return true;
	}
	*w = (struct worker){ .fd = fd, .pool = pool };
	transcript_init(&w->in, &link_limits);
	w->in.empty_host_ok = true;
	transcript_init(&w->out, &answer_limits);
	fx.worker_count++;
	return true;
}

static bool accept_workers(void)
{
	struct pollfd p[POOL_COUNT];
	bool any = false;

	for (int i = 0; i < POOL_COUNT; i++)
		p[i] = (struct pollfd){ .fd = fx.sockets[i], .events = POLLIN };
	if (poll(p, POOL_COUNT, 0) > 0)
		for (int i = 0; i < POOL_COUNT; i++)
			while (accept_worker((enum pool_name)i))
				any = true;
	return any;
}

/* Until nobody has anything more to do. */
static void pump(void)
{
	bool any = true;

	while (any) {
		rig_turn(&fx.rig);
		any = false;
		any |= !fx.deaf && accept_workers();
		for (size_t i = 0; i < fx.worker_count; i++)
			any |= worker_reads(&fx.workers[i]);
		for (size_t i = 0; i < fx.client_count; i++)
			any |= client_reads(&fx.clients[i]);
	}
}

/* ---- the steps ---- */

static const struct conf_listen *listen_conf(void)
{
	return &fx.conf->listens[(fx.setup & SETUP_STRICT) ? 1 : 0];
}

/* The client of this name, connected anew if need be. NULL: there were too many. */
static struct client *client_of(unsigned name, bool connects)
{
	static const struct http1_limits plain = { 32u << 10, 32u << 10, 100 }, strict = { 1024, 1024, 8 };
	unsigned door = (fx.setup & SETUP_STRICT) ? 1 : 0;
	struct client **named = &fx.named[name % NAMES], *c = *named;

	if (c && c->fd != -1 && !c->ended)
		return c;
	if (!connects || fx.client_count == CLIENTS_MAX || fx.draining)
		return NULL;
	c = &fx.clients[fx.client_count];
	*c = (struct client){ .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) };
	must(c->fd != -1);
	must(connect(c->fd, (const void *)&fx.door_names[door], fx.door_lens[door]) == 0);
	transcript_init(&c->out, door ? &strict : &plain);
	transcript_init(&c->in, &link_limits);
	fx.client_count++;
	return *named = c;
}

static struct worker *worker_of(unsigned name)
{
	size_t open = 0, at = 0;

	for (size_t i = 0; i < fx.worker_count; i++)
		open += fx.workers[i].fd != -1;
	for (size_t i = 0; i < fx.worker_count; i++)
		if (fx.workers[i].fd != -1 && at++ == name % open)
			return &fx.workers[i];
	return NULL;
}

static void client_says(struct client *c, struct slice bytes)
{
	ssize_t n = c && !c->shut ? send(c->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL) : -1;

	if (n <= 0)
		return;
	transcript_add(&c->out, slice_of(bytes.ptr, (size_t)n));
	transcript_requests(&c->out);
}

static void worker_says(struct worker *w, struct slice bytes)
{
	ssize_t n = w && !w->shut ? send(w->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL) : -1;

	if (n > 0)
		transcript_add(&w->out, slice_of(bytes.ptr, (size_t)n));
}

static void client_closes(struct client *c)
{
	if (!c || c->fd == -1)
		return;
	close(c->fd);
	c->fd = -1;
}

static void worker_closes(struct worker *w)
{
	if (!w || w->fd == -1)
		return;
	w->blind = w->stalled;
	close(w->fd);
	w->fd = -1;
}

static void stall_client(struct client *c)
{
	if (!c)
		return;
	c->stalled = !c->stalled;
	c->was_stalled = true;
}

/* Fewer bytes than there are: its end is then a reset. */
static void worker_peeks(struct worker *w)
{
	char bytes[10];
	ssize_t n = w ? recv(w->fd, bytes, sizeof(bytes), MSG_DONTWAIT) : -1;

	if (n > 0)
		transcript_add(&w->in, slice_of(bytes, (size_t)n));
}

/* Where a pool's workers are met, or where nobody is: the kernel's names are of hexadecimal digits. */
static void set_socket(enum pool_name p, bool there)
{
	struct sockaddr_un *un = &fx.conf->pools[p].sockets[0].addr.un;

	*un = fx.socket_names[p];
	if (!there)
		un->sun_path[1] = '!';
}

static void toggle_socket(unsigned name)
{
	enum pool_name p = name % POOL_COUNT;

	set_socket(p, fx.conf->pools[p].sockets[0].addr.un.sun_path[1] == '!');
}

static void fill(struct client *c, struct worker *w)
{
	static char bytes[FILL_BYTES];

	if (fx.fills++ >= FILLS_MAX)
		return;
	memset(bytes, 'x', sizeof(bytes));
	if (c)
		client_says(c, slice_of(bytes, sizeof(bytes)));
	if (w)
		worker_says(w, slice_of(bytes, sizeof(bytes)));
}

static void drained(void *ctx UNUSED)
{
	must(!fx.drained);
	fx.drained = true;
}

static void drain(void)
{
	if (fx.draining)
		return;
	fx.draining = true;
	server_drain(fx.server, drained, NULL);
}

static void move_clock(unsigned name)
{
	static const uint64_t ms[] = { 10, 100, 200, 500, 1000, 1100, 2000, 5000, 10000, 20100, 31000, 61000 };

	if (fx.times++ < TIMES_MAX)
		pass_time(ms[name % ARRAY_LEN(ms)]);
}

static void run_step(char what, unsigned name, struct slice bytes)
{
	fx.hasty |= what != 'c' && what != 'f' && what != 'b' && what != 'g';
	switch (what) {
	case 'c': /* the client says these bytes */
		client_says(client_of(name, true), bytes);
		break;
	case 'f': /* it says many */
		fill(client_of(name, true), NULL);
		break;
	case 's': { /* it will say no more */
		struct client *c = client_of(name, false);

		if (c)
			c->shut = shutdown(c->fd, SHUT_WR) == 0 || c->shut;
		break;
	}
	case 'x': /* it leaves */
		client_closes(client_of(name, false));
		break;
	case 'z': /* it stops reading, or goes on */
		stall_client(client_of(name, false));
		break;
	case 'b': /* the worker says these bytes */
		worker_says(worker_of(name), bytes);
		break;
	case 'g': /* it says many */
		fill(NULL, worker_of(name));
		break;
	case 'e': { /* it will say no more */
		struct worker *w = worker_of(name);

		if (w)
			w->shut = shutdown(w->fd, SHUT_WR) == 0 || w->shut;
		break;
	}
	case 'k': /* it dies */
		worker_closes(worker_of(name));
		break;
	case 'q': { /* it stops reading, or goes on */
		struct worker *w = worker_of(name);

		if (w)
			w->stalled = !w->stalled;
		break;
	}
	case 'p': /* it reads a little */
		worker_peeks(worker_of(name));
		break;
	case 'a': /* no worker accepts, or they do again */
		fx.deaf = !fx.deaf;
		break;
	case 'u': /* a pool's socket goes, or comes back */
		toggle_socket(name);
		break;
	case 't':
		move_clock(name);
		break;
	case 'd':
		drain();
		break;
	default:
		return;
	}
	pump();
}

/* Ends with bytes that must not be waited for: those of the last step. */
static void run(struct slice script)
{
	struct slice rest = script, step;

	(void)slice_cut(&rest, '~', &step); /* before the first one */
	while (rest.len > 0) {
		if (!slice_cut(&rest, '~', &step)) {
			step = rest;
			rest.len = 0;
		}
		if (step.len >= 2)
			run_step(step.ptr[0], (unsigned char)(step.ptr[1] - '0'), slice_of(step.ptr + 2, step.len - 2));
	}
}

/* ---- what clients got ---- */

/* Those that forebay gives in its own name. */
static bool is_own_status(const struct head *request, unsigned status)
{
	static const unsigned own[] = { 400, 404, 405, 408, 413, 414, 417, 431, 501, 502, 503, 504, 505, 507 };

	if (status == 204)
		return request && request->method == METHOD_OPTIONS;
	for (size_t i = 0; i < ARRAY_LEN(own); i++)
		if (status == own[i])
			return true;
	return false;
}

static bool is_prefix(struct slice part, struct slice of)
{
	return part.len <= of.len && slice_eq(part, slice_of(of.ptr, part.len));
}

/* The client's answer is this worker's. What ends with the connection can be cut without a trace, on a Unix socket. */
static bool is_answer(const struct message *got, const struct message *said)
{
	if (got->head.status != said->head.status)
		return false;
	if (!got->whole || got->m.framing == FRAMING_CLOSE)
		return is_prefix(buf_slice(&got->content), buf_slice(&said->content));
	return said->whole && slice_eq(buf_slice(&got->content), buf_slice(&said->content));
}

static bool was_said(const struct message *got)
{
	struct slice id = head_get(&got->head, FIELD_X_REQUEST_ID);

	for (size_t i = 0; i < fx.worker_count; i++) {
		const struct worker *w = &fx.workers[i];

		for (size_t j = 0; j < w->in.count && j < w->out.count; j++)
			if (slice_eq(head_get(&w->in.messages[j].head, FIELD_X_REQUEST_ID), id) &&
			    is_answer(got, &w->out.messages[j]))
				return true;
	}
	return false;
}

/* Which request a worker answers that reads nothing, nobody knows. */
static bool all_was_read(void)
{
	for (size_t i = 0; i < fx.worker_count; i++)
		if (fx.workers[i].blind)
			return false;
	return true;
}

static void check_answers(const struct client *c)
{
	size_t begun = c->out.count + (transcript_rest(&c->out).len > 0 && !transcript_open(&c->out));

	must(c->in.count <= begun);
	for (size_t i = 0; i < c->in.count; i++) {
		const struct message *got = &c->in.messages[i];
		const struct head *request = i < c->out.count ? &c->out.messages[i].head : NULL;

		if (got->m.framing == FRAMING_TUNNEL || is_own_status(request, got->head.status))
			continue;
		must(!all_was_read() || was_said(got));
	}
	/* Whatever ends inside an answer, the end of that answer is the last that is heard. */
	must(!c->in.bad);
}

/* A client that only waited has an answer to each request, or was told that there will be none. */
static void check_told(const struct client *c)
{
	const struct message *last = c->in.count > 0 ? &c->in.messages[c->in.count - 1] : NULL;

	if (c->fd == -1 || c->was_stalled || c->shut || fx.draining || (fx.setup & SETUP_LOW) || c->in.tunnel)
		return;
	if (c->in.count >= transcript_whole(&c->out))
		return;
	must(c->ended && last && (!last->whole || !last->m.keep_alive));
}

static bool was_heard(const struct message *said, struct slice id)
{
	for (size_t i = 0; i < fx.client_count; i++) {
		const struct transcript *in = &fx.clients[i].in;

		for (size_t j = 0; j < in->count; j++)
			if (slice_eq(head_get(&in->messages[j].head, FIELD_X_REQUEST_ID), id) &&
			    is_answer(&in->messages[j], said) &&
			    (in->messages[j].whole || in->messages[j].m.framing == FRAMING_CLOSE))
				return true;
	}
	return false;
}

/* Where everybody only spoke, what a worker answered, and nothing behind it, has come to the client. */
static void check_heard(const struct worker *w)
{
	const struct message *said = w->out.count > 0 ? &w->out.messages[w->out.count - 1] : NULL;

	if (fx.hasty || (fx.setup & (SETUP_LOW | SETUP_FULL_DISK | SETUP_TRUSTED)) || !said || w->out.count > w->in.count)
		return;
	if (!said->whole || said->m.framing == FRAMING_CLOSE || w->out.interims > 0 || transcript_rest(&w->out).len > 0)
		return;
	must(was_heard(said, head_get(&w->in.messages[w->out.count - 1].head, FIELD_X_REQUEST_ID)));
}

/* ---- the end of an input ---- */

static bool pools_rest(void)
{
	struct pool_figures f;

	for (enum pool_name p = 0; p < POOL_COUNT; p++) {
		pool_figures(fx.pools[p], &f);
		if (f.busy + f.granted + f.queued + f.streams > 0)
			return false;
	}
	return true;
}

/* Every worker dies, as often as another is asked; time goes by until all that waits has been told. */
static void end_workers(void)
{
	for (int i = 0; i < ENDS_MAX && !(i > 0 && pools_rest()); i++) {
		for (size_t j = 0; j < fx.worker_count; j++) {
			(void)worker_reads(&fx.workers[j]);
			worker_closes(&fx.workers[j]);
		}
		pass_time(5500);
	}
}

/* All that is left then is the server's own timer. */
static void end_clients(void)
{
	pump();
	for (size_t i = 0; i < fx.client_count; i++) {
		transcript_responses(&fx.clients[i].in, &fx.clients[i].out);
		check_told(&fx.clients[i]);
		client_closes(&fx.clients[i]);
	}
	pump();
	for (int i = 0; i < 4 && !(pools_rest() && fx.rig.loop->wheel.count == 1); i++)
		pass_time(20100);
}

static void check_all(void)
{
	size_t answers = 0;

	for (size_t i = 0; i < fx.worker_count; i++) {
		struct worker *w = &fx.workers[i];

		transcript_responses(&w->out, &w->in);
		check_heard(w);
		transcript_end(&w->out);
	}
	for (size_t i = 0; i < fx.client_count; i++) {
		struct client *c = &fx.clients[i];

		check_answers(c);
		answers += c->in.count;
	}
	/* Each was logged, unless there was no memory even for what a line tells. */
	must(answers <= fx.lines || atomic_load(&fx.rig.budget.refused) > 0);
}

/* Whom a full front left in the kernel's queue: the next input's has nothing to do with them. */
static void empty_door(int door)
{
	int fd;

	while ((fd = accept4(door, NULL, NULL, SOCK_CLOEXEC)) != -1)
		close(fd);
}

static void check_given_back(void)
{
	struct spool_figures s;

	must(pools_rest() && guard_connections(fx.guard) == 0);
	drain();
	pump();
	must(fx.drained);
	server_free(&fx.server);
	must(fx.rig.loop->wheel.count == 0);
	for (enum pool_name p = 0; p < POOL_COUNT; p++)
		pool_free(&fx.pools[p]);
	guard_free(&fx.guard);
	route_table_free(&fx.routes);
	must(atomic_load(&fx.conf->refs) == 1);
	must(fx.rig.loop->lease.used == 0);
	spool_figures(fx.rig.loop->spool, &s);
	must(s.extents == 0 && s.jobs == 0);
}

static void end(void)
{
	for (size_t i = 0; i < fx.client_count; i++)
		fx.clients[i].stalled = false;
	for (size_t i = 0; i < fx.worker_count; i++)
		fx.workers[i].stalled = false;
	for (enum pool_name p = 0; p < POOL_COUNT; p++)
		set_socket(p, true);
	fx.deaf = false;
	pump();
	end_workers();
	end_clients();
	check_all();
	check_given_back();
	empty_door(fx.doors[(fx.setup & SETUP_STRICT) ? 1 : 0]);
	for (size_t i = 0; i < fx.client_count; i++) {
		transcript_done(&fx.clients[i].in);
		transcript_done(&fx.clients[i].out);
	}
	for (size_t i = 0; i < fx.worker_count; i++) {
		worker_closes(&fx.workers[i]);
		transcript_done(&fx.workers[i].in);
		transcript_done(&fx.workers[i].out);
	}
}

/* ---- the beginning ---- */

/* The same time of day, as it were, for each input: the next turn of the wheel. */
static void set_clock(void)
{
	const uint64_t turn_us = (uint64_t)WHEEL_SLOTS * WHEEL_TICK_MS * 1000;

	rig_pass_time(&fx.rig, turn_us - (fx.rig.clock.mono_us - 12345) % turn_us);
}

static void begin(unsigned setup)
{
	struct server_options o = { .loop = fx.rig.loop, .pools = fx.pools, .id_seed = 0xf0123456789abcde };
	unsigned door = (setup & SETUP_STRICT) ? 1 : 0;
	int fd = dup(fx.doors[door]);

	fx.setup = setup;
	fx.client_count = fx.worker_count = 0;
	fx.fills = fx.times = 0;
	fx.lines = 0;
	fx.deaf = fx.hasty = fx.draining = fx.drained = false;
	memset(fx.named, 0, sizeof(fx.named));
	set_clock();
	rig_set_memory(&fx.rig, setup & SETUP_LOW ? MEMORY_LOW : RIG_MEMORY);
	fx.rig.loop->spool = fx.spools[(setup & SETUP_FULL_DISK) ? 1 : 0];
	fx.conf = fx.confs[(setup & SETUP_TRUSTED) ? 1 : 0];
	must(route_table_new(fx.conf, &fx.routes) == 0);
	must(guard_new((setup & SETUP_LOW) ? 4 : CLIENTS_MAX, &fx.guard) == 0);
	for (enum pool_name p = 0; p < POOL_COUNT; p++)
		must(pool_new(&fx.conf->pools[p], &link_pool_links, &fx.rig.clock.clock, &fx.pools[p]) == 0);
	o.conf = fx.conf;
	o.routes = fx.routes;
	o.access = fx.access[(setup & SETUP_TRUSTED) ? 1 : 0];
	o.guard = fx.guard;
	must(server_new(&o, &fx.server) == 0);
	must(server_listen(fx.server, listen_conf(), &listen_conf()->addresses[0], &fd) == 0);
}

static struct conf *parse_conf(const char *more)
{
	struct conf *c = NULL;
	struct buf text, errors;

	buf_init(&text, 1u << 20);
	buf_init(&errors, 1u << 20);
	buf_printf(&text, "%s%s", more, conf_text);
	if (conf_parse("fuzz", buf_slice(&text), &errors, &c) != 0)
		fprintf(stderr, "%.*s", (int)errors.len, errors.ptr);
	must(c && c->pool_count == POOL_COUNT);
	buf_done(&text);
	buf_done(&errors);
	return c;
}

static void make_spools(void)
{
	struct spool_options o = { .limit_bytes = 16u << 20, .own_file_bytes = 8u << 20, .own_files_max = 4, .threads = 1 };

	o.dir_fd = rig_folder();
	must(spool_new(&o, &fx.spools[0]) == 0);
	o.limit_bytes = 2 * SPOOL_EXTENT_BYTES;
	must(spool_new(&o, &fx.spools[1]) == 0);
}

static void make_confs(void)
{
	socklen_t len;

	fx.confs[0] = parse_conf("");
	fx.confs[1] = parse_conf("[forebay]\ntrusted = unix\n");
	for (enum pool_name p = 0; p < POOL_COUNT; p++) {
		fx.sockets[p] = rig_listen(&fx.socket_names[p], &len);
		for (int i = 0; i < 2; i++) {
			fx.confs[i]->pools[p].sockets[0].addr.un = fx.socket_names[p];
			fx.confs[i]->pools[p].sockets[0].len = len;
		}
	}
	for (int i = 0; i < 2; i++)
		fx.doors[i] = rig_listen(&fx.door_names[i], &fx.door_lens[i]);
	must(access_log_new(NULL, ACCESS_TIMING, &fx.access[0]) == 0);
	must(access_log_new(NULL, ACCESS_JSON, &fx.access[1]) == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
	log_setup("fuzz", LOG_LEVEL_DEBUG, log_checked, NULL);
	rig_init(&fx.rig);
	make_spools();
	make_confs();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	begin(data[0] - (unsigned)'@');
	run(slice_of((const char *)data + 1, size - 1));
	end();
	rig_check_descriptors(&fx.rig);
	return 0;
}
