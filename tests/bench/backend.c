/*
 * backend: a blocking pre-fork application server for the benchmarks: one request at a time in each process, on a Unix socket.
 *     backend --socket PATH --processes N --stamps FILE
 * GET or POST /bytes/N answers with N bytes; ?ms=M sleeps for so long before, as an application that computes. A request's
 * body is read whole, by its Content-Length.
 * Owns:   the stamps: when each process was taken and when it was free again, in a file that the bench maps.
 * Never:  waits for anything but its one connection: whoever keeps that waiting holds a worker, and the stamps show it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG       2048 /* gunicorn's */
#define PROCESSES_MAX 1024
#define HEAD_MAX      (64u << 10)
#define PIECE_BYTES   (1u << 20)
#define STAMPS        (1u << 18)

struct stamp {
	uint64_t begin_ns, end_ns; /* CLOCK_MONOTONIC */
	uint64_t ms;               /* the application's own part */
};

/* The file: stamp number n is at n % STAMPS. */
struct stamps {
	_Atomic uint64_t count;
	uint64_t capacity;
	struct stamp ring[STAMPS];
};

struct request {
	uint64_t begin_ns; /* 0: nothing of it has come */
	uint64_t body, answer, ms;
	bool keep;
};

/* The processes, as their parent knows them. */
struct crew {
	unsigned count, wanted;
	sigset_t signals; /* SIGTERM and SIGCHLD, which wait until they are asked for */
	pid_t pids[PROCESSES_MAX];
};

struct worker {
	struct stamps *stamps;
	size_t have; /* bytes in head[] */
	char head[HEAD_MAX + 1];
};

static char piece[PIECE_BYTES];

static void fail(const char *what)
{
	fprintf(stderr, "backend: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void stamp(struct stamps *s, const struct request *r)
{
	uint64_t n = atomic_fetch_add_explicit(&s->count, 1, memory_order_relaxed);

	s->ring[n % STAMPS] = (struct stamp){ .begin_ns = r->begin_ns, .end_ns = now_ns(), .ms = r->ms };
}

/* Up to and with the empty line: its length, or 0 if the connection ended before or the head is too long. */
static size_t read_head(struct worker *w, int fd, struct request *r)
{
	const char *end;
	ssize_t n;

	for (;;) {
		w->head[w->have] = '\0';
		end = memmem(w->head, w->have, "\r\n\r\n", 4);
		if (end)
			return (size_t)(end + 4 - w->head);
		if (w->have == HEAD_MAX)
			return 0;
		n = recv(fd, w->head + w->have, HEAD_MAX - w->have, 0);
		if (n <= 0)
			return 0;
		/* On a kept connection nobody has claimed the worker before this. */
		if (!r->begin_ns)
			r->begin_ns = now_ns();
		w->have += (size_t)n;
	}
}

/* The field's value in a head that ends in NUL, or NULL. */
static const char *field(const char *head, const char *name)
{
	size_t len = strlen(name);

	for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, len) == 0 && line[len] == ':')
			return line + len + 1 + strspn(line + len + 1, " \t");
	}
	return NULL;
}

/* False: it is not what the bench sends. */
static bool parse(char *head, size_t len, struct request *r)
{
	const char *line_end, *length, *connection, *ms;
	char after = head[len - 2];
	int used = 0;

	head[len - 2] = '\0'; /* the fields end here; what follows is the body */
	line_end = strstr(head, "\r\n");
	if (!line_end || sscanf(head, "%*s /bytes/%" SCNu64 "%n", &r->answer, &used) != 1)
		return false;
	ms = strncmp(head + used, "?ms=", 4) == 0 ? head + used + 4 : NULL;
	r->ms = ms ? strtoull(ms, NULL, 10) : 0;
	length = field(line_end, "Content-Length");
	r->body = length ? strtoull(length, NULL, 10) : 0;
	connection = field(line_end, "Connection");
	r->keep = line_end[-1] == '1' ? !connection || strncasecmp(connection, "close", 5) != 0
	                              : connection && strncasecmp(connection, "keep-alive", 10) == 0;
	head[len - 2] = after;
	return true;
}

/* The body, of which a part may have come with the head; what is behind it stays for the next request. */
static bool read_body(struct worker *w, int fd, size_t head_bytes, uint64_t body)
{
	size_t there = w->have - head_bytes;
	ssize_t n;

	if (there > body)
		there = (size_t)body;
	w->have -= head_bytes + there;
	memmove(w->head, w->head + head_bytes + there, w->have);
	for (body -= there; body > 0; body -= (uint64_t)n) {
		n = recv(fd, piece, body < sizeof(piece) ? (size_t)body : sizeof(piece), 0);
		if (n <= 0)
			return false;
	}
	return true;
}

static void sleep_ms(uint64_t ms)
{
	struct timespec left = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&left, &left) == -1 && errno == EINTR)
		;
}

static bool send_answer(int fd, const struct request *r)
{
	char head[160];
	int len =
	    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %" PRIu64 "\r\n%s\r\n",
	        r->answer, r->keep ? "" : "Connection: close\r\n");
	struct iovec iov[2] = { { head, (size_t)len }, { piece, r->answer < PIECE_BYTES ? (size_t)r->answer : PIECE_BYTES } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);
	uint64_t left;

	/* A blocking socket takes the head with the first piece, or the other end has gone. */
	if (n < len)
		return false;
	for (left = r->answer - (uint64_t)(n - len); left > 0; left -= (uint64_t)n) {
		n = send(fd, piece, left < PIECE_BYTES ? (size_t)left : PIECE_BYTES, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
	}
	return true;
}

/* One request. False: it was the connection's last. */
static bool serve_request(struct worker *w, int fd, struct request *r)
{
	size_t head_bytes = read_head(w, fd, r);

	if (head_bytes == 0 || !parse(w->head, head_bytes, r) || !read_body(w, fd, head_bytes, r->body)) {
		r->begin_ns = 0;
		return false;
	}
	if (r->ms > 0)
		sleep_ms(r->ms);
	return send_answer(fd, r) && r->keep;
}

static void serve_connection(struct worker *w, int fd)
{
	struct request r = { .begin_ns = now_ns() };

	w->have = 0;
	while (serve_request(w, fd, &r)) {
		stamp(w->stamps, &r);
		r = (struct request){ 0 };
	}
	close(fd);
	if (r.begin_ns)
		stamp(w->stamps, &r);
}

static void work(int listener, struct stamps *stamps)
{
	static struct worker worker;
	int fd;

	worker.stamps = stamps;
	for (;;) {
		fd = accept(listener, NULL, NULL);
		if (fd != -1)
			serve_connection(&worker, fd);
		else if (errno != EINTR && errno != ECONNABORTED)
			fail("accept");
	}
}

static int listen_at(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(a.sun_path)) {
		errno = ENAMETOOLONG;
		fail(path);
	}
	strcpy(a.sun_path, path);
	/* Every proxy runs as a user of its own. */
	if (fd == -1 || bind(fd, (struct sockaddr *)&a, sizeof(a)) == -1 || chmod(path, 0666) == -1 ||
	    listen(fd, BACKLOG) == -1)
		fail(path);
	return fd;
}

static struct stamps *map_stamps(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct stamps *s;

	if (fd == -1 || ftruncate(fd, sizeof(*s)) == -1)
		fail(path);
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED)
		fail(path);
	close(fd);
	s->capacity = STAMPS;
	return s;
}

/* Whoever started this has gone: so does it. */
static void end_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		exit(EXIT_FAILURE);
}

static void fork_workers(struct crew *crew, int listener, struct stamps *stamps)
{
	pid_t parent = getpid(), pid;

	for (; crew->count < crew->wanted; crew->count++) {
		pid = fork();
		if (pid == -1)
			fail("fork");
		if (pid == 0) {
			sigprocmask(SIG_UNBLOCK, &crew->signals, NULL);
			end_with(parent);
			work(listener, stamps);
		}
		crew->pids[crew->count] = pid;
	}
}

/* Until SIGTERM, or until a worker ends, which none does by itself. */
static int wait_and_end(const struct crew *crew)
{
	int sig;

	sigwait(&crew->signals, &sig);
	for (unsigned i = 0; i < crew->count; i++)
		kill(crew->pids[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	if (sig == SIGTERM)
		return EXIT_SUCCESS;
	fputs("backend: a worker ended\n", stderr);
	return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "processes", required_argument, NULL, 'p' },
		{ "stamps", required_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 },
	};
	const char *path = NULL, *stamps = NULL;
	static struct crew crew;
	int c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			path = optarg;
		else if (c == 'p')
			crew.wanted = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 't')
			stamps = optarg;
	}
	if (!path || !stamps || crew.wanted < 1 || crew.wanted > PROCESSES_MAX) {
		fprintf(stderr, "usage: backend --socket PATH --processes 1..%d --stamps FILE\n", PROCESSES_MAX);
		return 2;
	}
	memset(piece, 'x', sizeof(piece));
	sigemptyset(&crew.signals);
	sigaddset(&crew.signals, SIGTERM);
	sigaddset(&crew.signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &crew.signals, NULL);
	fork_workers(&crew, listen_at(path), map_stamps(stamps));
	puts("ready");
	fflush(stdout);
	return wait_and_end(&crew);
}
