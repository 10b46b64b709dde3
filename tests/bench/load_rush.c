#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "load.h"

#define EVENTS        256
#define LATENCIES_MAX (1u << 22)
#define ANSWER_HEAD   8192u
#define NO_SLOT       (-1)
#define NO_END        UINT64_MAX

/* Which connection a slot takes next. */
enum order { ORDER_FIXED, ORDER_ROTATE, ORDER_OPEN };

/* The right to have one request in flight, and that request. */
struct slot {
	bool busy, head_done;
	unsigned connection;
	uint64_t begin_ns;
	uint64_t sent;    /* of head and body */
	uint64_t left;    /* of the answer's body */
	size_t head_have; /* bytes in head[] */
	char head[ANSWER_HEAD + 1];
};

struct rush {
	const struct load *load;
	int epoll;
	struct wire wires[CONNECTIONS_MAX];
	int slot_of[CONNECTIONS_MAX]; /* who uses them, or NO_SLOT */
	unsigned open;
	unsigned cursor; /* ORDER_ROTATE: the next to be used */
	struct slot slots[IN_FLIGHT_MAX];
	unsigned busy;

	/* The command's */
	enum order order;
	uint64_t to_begin; /* requests */
	uint64_t end_ns;   /* and none later than this */
	uint64_t done;
	uint32_t latencies_us[LATENCIES_MAX];
	char scratch[READ_BYTES];
};

static void fail_errno(const char *what)
{
	load_fail(what, strerror(errno));
}

static void record(struct rush *r, uint64_t ns)
{
	if (r->done < LATENCIES_MAX)
		r->latencies_us[r->done] = ns / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 1000);
	r->done++;
}

static unsigned open_one(struct rush *r)
{
	unsigned c = r->open;
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = c };

	r->wires[c] = load_wire_open(r->load);
	r->slot_of[c] = NO_SLOT;
	if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->wires[c].fd, &ev) == -1)
		fail_errno("epoll_ctl");
	r->open++;
	return c;
}

static unsigned next_connection(struct rush *r, unsigned slot)
{
	unsigned c;

	switch (r->order) {
	case ORDER_OPEN:
		return open_one(r);
	case ORDER_FIXED:
		return slot;
	case ORDER_ROTATE:
		break;
	}
	do {
		c = r->cursor;
		r->cursor = (c + 1) % r->open;
	} while (r->slot_of[c] != NO_SLOT);
	return c;
}

/* As much of the request as the socket takes. */
static void push(struct rush *r, struct slot *s)
{
	const struct load *l = r->load;
	uint64_t all = l->head_bytes + l->body, body_sent, left, from;
	struct iovec iov[2];
	int pieces;
	ssize_t n;

	while (s->sent < all) {
		pieces = 0;
		if (s->sent < l->head_bytes)
			iov[pieces++] = (struct iovec){ (char *)l->head + s->sent, l->head_bytes - s->sent };
		body_sent = s->sent < l->head_bytes ? 0 : s->sent - l->head_bytes;
		left = l->body - body_sent;
		from = l->form ? body_sent : 0; /* a form is not longer than that, other bodies are all alike */
		if (left > 0)
			iov[pieces++] = (struct iovec){ load_bytes + from, left < READ_BYTES ? (size_t)left : READ_BYTES };
		n = load_wire_send(&r->wires[s->connection], iov, pieces);
		if (n == -1 && errno == EAGAIN)
			return;
		if (n == -1)
			fail_errno("send");
		s->sent += (uint64_t)n;
	}
}

static void begin(struct rush *r, unsigned slot)
{
	struct slot *s = &r->slots[slot];
	unsigned c = next_connection(r, slot);

	r->to_begin--;
	r->slot_of[c] = (int)slot;
	r->busy++;
	s->busy = true;
	s->head_done = false;
	s->connection = c;
	s->sent = s->head_have = 0;
	s->begin_ns = load_now_ns();
	push(r, s);
}

static void answered(struct rush *r, unsigned slot)
{
	struct slot *s = &r->slots[slot];
	uint64_t now = load_now_ns();

	if (s->sent < r->load->head_bytes + r->load->body)
		load_fail("an answer before the request was sent", s->head);
	r->slot_of[s->connection] = NO_SLOT;
	s->busy = false;
	r->busy--;
	record(r, now - s->begin_ns);
	if (r->to_begin > 0 && now < r->end_ns)
		begin(r, slot);
}

/* Takes n bytes at the end of the slot's head. */
static void take_head(struct rush *r, struct slot *s, size_t n)
{
	uint64_t body;
	size_t head;

	s->head_have += n;
	s->head[s->head_have] = '\0';
	head = load_parse_head(s->head, &body);
	if (head == 0 && s->head_have == ANSWER_HEAD)
		load_fail("an answer's head is too long", s->head);
	if (head == 0)
		return;
	if (body != r->load->answer || s->head_have - head > body)
		load_fail("an answer of another length", s->head);
	s->head_done = true;
	s->left = body - (s->head_have - head);
}

/* Reads what has come. */
static void pull(struct rush *r, unsigned slot)
{
	struct slot *s = &r->slots[slot];
	const struct wire *w = &r->wires[s->connection];
	ssize_t n;

	for (;;) {
		if (s->head_done)
			n = load_wire_recv(w, r->scratch, READ_BYTES);
		else
			n = load_wire_recv(w, s->head + s->head_have, ANSWER_HEAD - s->head_have);
		if (n == -1 && errno == EAGAIN)
			return;
		if (n <= 0)
			load_fail("a connection ended before its answer", n == 0 ? "end of file" : strerror(errno));
		if (!s->head_done)
			take_head(r, s, (size_t)n);
		else if ((uint64_t)n > s->left)
			load_fail("an answer of another length", s->head);
		else
			s->left -= (uint64_t)n;
		if (s->head_done && s->left == 0) {
			answered(r, slot);
			return;
		}
	}
}

static void on_event(struct rush *r, unsigned connection, uint32_t events)
{
	int slot = r->slot_of[connection];

	if (slot == NO_SLOT) {
		if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
			load_fail("an idle connection was closed", "");
		return;
	}
	push(r, &r->slots[slot]);
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		pull(r, (unsigned)slot);
}

static void fill_slots(struct rush *r)
{
	unsigned slots = r->load->in_flight;

	if (r->order != ORDER_OPEN && slots > r->open)
		slots = r->open;
	for (unsigned i = 0; i < slots && r->to_begin > 0; i++)
		if (!r->slots[i].busy)
			begin(r, i);
}

/* Until all has been answered, or the time is over. */
static void turn(struct rush *r)
{
	struct epoll_event events[EVENTS];
	int n, wait_ms = -1;
	uint64_t now;

	while (r->busy > 0) {
		if (r->end_ns != NO_END) {
			now = load_now_ns();
			if (now >= r->end_ns)
				return;
			wait_ms = (int)((r->end_ns - now) / 1000000) + 1;
		}
		n = epoll_wait(r->epoll, events, EVENTS, wait_ms);
		if (n == -1 && errno != EINTR)
			fail_errno("epoll_wait");
		for (int i = 0; i < n; i++)
			on_event(r, events[i].data.u32, events[i].events);
	}
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void report(struct rush *r, uint64_t requests, double seconds)
{
	uint64_t n = r->done < LATENCIES_MAX ? r->done : LATENCIES_MAX;
	const uint32_t *us = r->latencies_us;

	qsort(r->latencies_us, n, sizeof(*us), by_size);
	printf("{\"open\": %u, \"requests\": %" PRIu64 ", \"pending\": %u, \"seconds\": %.6f", r->open, requests, r->busy,
	    seconds);
	if (n > 0)
		printf(", \"p50_us\": %" PRIu32 ", \"p99_us\": %" PRIu32 ", \"max_us\": %" PRIu32, us[n / 2], us[n * 99 / 100],
		    us[n - 1]);
	puts("}");
}

/* Requests that nobody answered in time weigh with the age they have reached. */
static void record_pending(struct rush *r)
{
	uint64_t now = load_now_ns();

	for (unsigned i = 0; i < r->load->in_flight; i++)
		if (r->slots[i].busy)
			record(r, now - r->slots[i].begin_ns);
}

static void command(struct rush *r, enum order order, uint64_t requests, uint64_t duration_ms)
{
	uint64_t start = load_now_ns(), seconds_ns, done;

	r->order = order;
	r->to_begin = requests;
	r->end_ns = duration_ms > 0 ? start + duration_ms * 1000000u : NO_END;
	r->done = 0;
	fill_slots(r);
	turn(r);
	seconds_ns = load_now_ns() - start;
	done = r->done;
	record_pending(r);
	report(r, done, (double)seconds_ns / 1e9);
}

static void obey(struct rush *r, const char *line)
{
	uint64_t n;

	if (sscanf(line, "open %" SCNu64, &n) == 1 && n <= CONNECTIONS_MAX)
		command(r, ORDER_OPEN, n > r->open ? n - r->open : 0, 0);
	else if (r->open == 0)
		load_fail("nothing is open for this", line);
	else if (sscanf(line, "go %" SCNu64, &n) == 1)
		command(r, ORDER_FIXED, n, 0);
	else if (sscanf(line, "rotate %" SCNu64, &n) == 1)
		command(r, ORDER_ROTATE, n, 0);
	else if (sscanf(line, "for %" SCNu64, &n) == 1 && n > 0)
		command(r, ORDER_FIXED, UINT64_MAX, n);
	else
		load_fail("no such command", line);
}

void rush_run(const struct load *l)
{
	static struct rush r;
	char line[128];

	r.load = l;
	r.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (r.epoll == -1)
		fail_errno("epoll_create");
	while (fgets(line, sizeof(line), stdin))
		obey(&r, line);
}
