#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

/*
 * A client's turn comes every half second. All are dealt out to so many parts that each is short: many clients who move at once, and in step
 * with an application that takes 5 ms, would be no crowd of strangers.
 */
#define PARTS           500u
#define PART_NS         1000000u
#define UPLOAD          (64u << 10)
#define UPLOAD_STEP     1024u /* bytes a turn: 2 kB/s */
#define UPLOAD_SNDBUF   (128 << 10)
#define DOWNLOAD        (256u << 10)
#define DOWNLOAD_STEP   1536u /* bytes a turn: 3 kB/s */
#define DOWNLOAD_RCVBUF 4096
#define SPREAD          61u  /* has no factor in common with the numbers of steps: neighbours are far apart */
#define AHEAD_MAX       256u /* answers that are awaited while clients come in: people come one by one */
#define SETTLED_MAX     16u  /* uploads end all the time, so somebody always waits for an answer */
#define AHEAD_NS        5000000000u

enum state { CRAWL_SENDING, CRAWL_AWAITING, CRAWL_READING, CRAWL_LOST };

struct crawler {
	int fd;
	enum state state;
	bool upload;    /* or a download */
	uint32_t done;  /* bytes of this state */
	uint32_t limit; /* bytes that its pace lets it send so far */
	uint32_t all;   /* bytes to send or to read */
};

struct crawl {
	const struct load *load;
	unsigned open, awaiting;
	unsigned lost, refused; /* clients whose connection ended, or who were told anything but 200 */
	uint64_t served;        /* requests */
	unsigned part;          /* the next, and when it is due */
	uint64_t due_ns, late_ns;
	char upload_head[256];
	size_t upload_head_bytes;
	char scratch[4096];
	struct crawler all[CONNECTIONS_MAX];
};

/* The only writer of state. */
static void enter(struct crawl *k, struct crawler *c, enum state next, uint32_t bytes)
{
	k->awaiting -= c->state == CRAWL_AWAITING;
	k->awaiting += next == CRAWL_AWAITING;
	c->state = next;
	c->done = 0;
	c->all = bytes;
	if (next == CRAWL_LOST)
		close(c->fd);
}

static void lose(struct crawl *k, struct crawler *c)
{
	k->lost++;
	enter(k, c, CRAWL_LOST, 0);
}

static bool failed(ssize_t n)
{
	return n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR);
}

/* The head and the body, of which the pace allows c->limit bytes. */
static void send_upload(struct crawl *k, struct crawler *c)
{
	uint32_t head = (uint32_t)k->upload_head_bytes, limit = c->limit < c->all ? c->limit : c->all;
	ssize_t n;

	while (c->done < limit) {
		if (c->done < head)
			n = send(c->fd, k->upload_head + c->done, head - c->done, MSG_NOSIGNAL | MSG_MORE);
		else
			n = send(c->fd, load_bytes, limit - c->done, MSG_NOSIGNAL);
		if (failed(n))
			lose(k, c);
		if (n <= 0)
			return;
		c->done += (uint32_t)n;
	}
	if (c->done == c->all)
		enter(k, c, CRAWL_AWAITING, 0);
}

static void begin_upload(struct crawl *k, struct crawler *c, uint32_t ahead)
{
	enter(k, c, CRAWL_SENDING, (uint32_t)k->upload_head_bytes + UPLOAD);
	c->limit = (uint32_t)k->upload_head_bytes + UPLOAD_STEP + ahead;
	send_upload(k, c);
}

static void begin_download(struct crawl *k, struct crawler *c, uint32_t bytes)
{
	char path[32], head[256];
	size_t len;

	snprintf(path, sizeof(path), "/bytes/%" PRIu32, bytes);
	len = load_write_head(k->load, path, 0, head, sizeof(head));
	enter(k, c, CRAWL_AWAITING, 0);
	/* So little fits into the socket, or it is broken. */
	if (send(c->fd, head, len, MSG_NOSIGNAL) != (ssize_t)len)
		lose(k, c);
}

static void served(struct crawl *k, struct crawler *c)
{
	k->served++;
	if (c->upload)
		begin_upload(k, c, 0);
	else
		begin_download(k, c, DOWNLOAD);
}

/* Has the answer begun? Only its head is taken. */
static void look_for_answer(struct crawl *k, struct crawler *c)
{
	ssize_t n = recv(c->fd, k->scratch, sizeof(k->scratch) - 1, MSG_PEEK);
	uint64_t body;
	size_t head;

	if (failed(n))
		lose(k, c);
	if (n <= 0)
		return;
	k->scratch[n] = '\0';
	if (n < 13)
		return;
	if (strncmp(k->scratch, "HTTP/1.1 200 ", 13) != 0) {
		k->refused++;
		enter(k, c, CRAWL_LOST, 0);
		return;
	}
	head = load_parse_head(k->scratch, &body);
	if (head > 0 && recv(c->fd, k->scratch, head, 0) == (ssize_t)head)
		enter(k, c, CRAWL_READING, (uint32_t)body);
}

static void read_some(struct crawl *k, struct crawler *c)
{
	uint32_t left = c->all - c->done;
	ssize_t n = recv(c->fd, k->scratch, left < DOWNLOAD_STEP ? left : DOWNLOAD_STEP, 0);

	if (failed(n))
		lose(k, c);
	if (n <= 0)
		return;
	c->done += (uint32_t)n;
	if (c->done == c->all)
		served(k, c);
}

static void turn(struct crawl *k, struct crawler *c)
{
	switch (c->state) {
	case CRAWL_SENDING:
		c->limit += UPLOAD_STEP;
		send_upload(k, c);
		break;
	case CRAWL_AWAITING:
		look_for_answer(k, c);
		break;
	case CRAWL_READING:
		read_some(k, c);
		break;
	case CRAWL_LOST:
		break;
	}
}

/* The parts that are due. Where the machine is too busy for all of them the clients become slower, and "late_ms" tells. */
static void turns(struct crawl *k)
{
	uint64_t now = load_now_ns();

	for (unsigned n = 0; n < PARTS && k->due_ns <= now; n++) {
		if (now - k->due_ns > k->late_ns)
			k->late_ns = now - k->due_ns;
		for (unsigned i = k->part; i < k->open; i += PARTS)
			turn(k, &k->all[i]);
		k->part = (k->part + 1) % PARTS;
		k->due_ns += PART_NS;
		now = load_now_ns();
	}
	if (k->due_ns + PARTS * PART_NS < now)
		k->due_ns = now;
}

/*
 * One more client. It joins a crowd that has been there for a while: its first upload is somewhere on its way, its first
 * download asks for what would be left of one.
 */
static void open_one(struct crawl *k)
{
	struct crawler *c = &k->all[k->open];
	unsigned number = k->open / 2;
	int size = UPLOAD_SNDBUF;

	c->upload = k->open % 2 == 0;
	c->fd = load_connect(k->load, c->upload ? 0 : DOWNLOAD_RCVBUF);
	k->open++;
	if (c->upload) {
		setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		begin_upload(k, c, number * SPREAD % (UPLOAD / UPLOAD_STEP) * UPLOAD_STEP);
	} else {
		begin_download(k, c, DOWNLOAD - number * SPREAD % (DOWNLOAD / DOWNLOAD_STEP) * DOWNLOAD_STEP);
	}
}

static void look_for_answers(struct crawl *k)
{
	for (unsigned i = 0; i < k->open; i++)
		if (k->all[i].state == CRAWL_AWAITING)
			look_for_answer(k, &k->all[i]);
}

static void wait_for_part(const struct crawl *k, struct pollfd *p, nfds_t n)
{
	uint64_t now = load_now_ns();

	if (k->due_ns > now)
		poll(p, n, (int)((k->due_ns - now) / 1000000) + 1);
	else
		poll(p, n, 0);
}

/* Until hardly anybody waits for an answer, or the proxy has had its time. */
static void catch_up(struct crawl *k, unsigned awaiting_max, uint64_t end_ns)
{
	while (k->awaiting > awaiting_max && load_now_ns() < end_ns) {
		wait_for_part(k, NULL, 0);
		turns(k);
		look_for_answers(k);
	}
}

static void report(struct crawl *k)
{
	printf("{\"open\": %u, \"awaiting\": %u, \"lost\": %u, \"refused\": %u, \"served\": %" PRIu64 ", \"late_ms\": %.1f}\n",
	    k->open, k->awaiting, k->lost, k->refused, k->served, (double)k->late_ns / 1e6);
	k->late_ns = 0;
}

static void open_all(struct crawl *k, unsigned wanted)
{
	uint64_t end_ns = load_now_ns() + AHEAD_NS;

	while (k->open < wanted && k->open < CONNECTIONS_MAX) {
		open_one(k);
		turns(k);
		catch_up(k, AHEAD_MAX, end_ns);
	}
	catch_up(k, SETTLED_MAX, end_ns);
}

static void obey(struct crawl *k, const char *line)
{
	unsigned n;

	if (sscanf(line, "open %u", &n) == 1)
		open_all(k, n);
	else if (strncmp(line, "status", 6) != 0)
		load_fail("no such command", line);
	report(k);
}

void crawl_run(const struct load *l)
{
	static struct crawl k;
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	char line[128];
	ssize_t n;

	k.load = l;
	k.upload_head_bytes = load_write_head(l, "/bytes/2", UPLOAD, k.upload_head, sizeof(k.upload_head));
	k.due_ns = load_now_ns();
	for (;;) {
		wait_for_part(&k, &input, 1);
		turns(&k);
		if (!(input.revents & (POLLIN | POLLHUP)))
			continue;
		/* Whoever sends commands waits for the answer to each, so a read is a line. */
		n = read(STDIN_FILENO, line, sizeof(line) - 1);
		if (n <= 0)
			return;
		line[n] = '\0';
		obey(&k, line);
		input.revents = 0;
	}
}
