/*
 * load: the clients of the benchmarks, and what their kinds have in common. Commands come on standard input, one a line;
 * each is answered with one line of JSON.
 */
#ifndef FOREBAY_BENCH_LOAD_H
#define FOREBAY_BENCH_LOAD_H

#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define CONNECTIONS_MAX 20000u
#define IN_FLIGHT_MAX   1024u
#define READ_BYTES      (256u << 10)

struct load {
	struct sockaddr_in address;
	const char *host, *path;
	uint64_t answer;    /* bytes that a response's body must have */
	uint64_t body;      /* bytes of each request's; above 0 makes it a POST */
	unsigned in_flight; /* requests at once */
	bool browser;       /* with the fields that a browser sends */
	bool form;          /* bodies are what a browser sends of a form */
	bool tls;

	char head[4096]; /* of each request */
	size_t head_bytes;
};

/* A connection that is open: plain, or TLS with its handshake done. */
struct wire {
	int fd;
	struct ssl_st *ssl; /* NULL: plain */
};

/* What is sent as bodies, again and again; READ_BYTES of it. */
extern char load_bytes[READ_BYTES];

uint64_t load_now_ns(void);

/* Says what went wrong and ends the program: a figure from a run that had errors is worth nothing. */
_Noreturn void load_fail(const char *what, const char *about);

/* A request's head for this path, with room for it in to[]; returns its length. */
size_t load_write_head(const struct load *l, const char *path, uint64_t body, char *to, size_t room);

/* A connected non-blocking socket; rcvbuf 0 leaves the receive buffer as the system makes it. Does not return without one. */
int load_connect(const struct load *l, int rcvbuf);

/* Does not return without one. */
struct wire load_wire_open(const struct load *l);

/* As sendmsg() and recv(): non-blocking, -1 with errno; TLS may send less than the socket would take. */
ssize_t load_wire_send(const struct wire *w, const struct iovec *iov, int n);
ssize_t load_wire_recv(const struct wire *w, void *to, size_t room);

/*
 * A response's head, NUL behind it: its length with the empty line, 0 if it has not come whole. *ret_body is its Content-
 * Length; anything but a 200 with one ends the program.
 */
size_t load_parse_head(const char *head, uint64_t *ret_body);

/*
 * As many requests as fit, each connection's next after the last was answered:
 *     open N        connects until N are open, one request on each
 *     go N          N requests, always on the first connections
 *     rotate N      N requests, on all the connections in turn
 *     for MS        requests for so long; what is unanswered then is counted at its age
 */
void rush_run(const struct load *l);

/*
 * TLS handshakes, as many at once as fit, each on a connection of its own that asks for nothing and is closed in good order by
 * both ends:
 *     full N        N of them
 *     resume N      N that go on with the session that the one before was given
 */
void shake_run(const struct load *l);

/*
 * Clients that take their time, until the end of the input. drip: heads that do not end. crawl: every second one uploads 64 kB
 * at 2 kB/s, the others download 256 kB at 3 kB/s, again and again.
 *     open N        connects until N are open
 *     status        how they fare
 */
void drip_run(const struct load *l);
void crawl_run(const struct load *l);

#endif
