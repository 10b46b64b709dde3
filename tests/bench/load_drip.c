#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define STEPS      4u
#define STEP_BYTES 100u /* of the head that load has made, which is much longer */

struct drip {
	const struct load *load;
	unsigned open;
	int fds[CONNECTIONS_MAX];
};

/* The same piece to all the new ones, so that each head comes in as many pieces as there are steps. */
static void send_step(const struct drip *d, unsigned first, unsigned step)
{
	for (unsigned i = first; i < d->open; i++)
		if (send(d->fds[i], d->load->head + step * STEP_BYTES, STEP_BYTES, MSG_NOSIGNAL) != (ssize_t)STEP_BYTES)
			load_fail("a dripping connection ended", strerror(errno));
}

static void open_all(struct drip *d, unsigned wanted)
{
	unsigned first = d->open;

	while (d->open < wanted && d->open < CONNECTIONS_MAX)
		d->fds[d->open++] = load_connect(d->load, 0);
	for (unsigned step = 0; step < STEPS; step++)
		send_step(d, first, step);
}

/* Anything that comes is an answer to half a head, or the end. */
static unsigned answered(const struct drip *d)
{
	unsigned n = 0;
	char byte;

	for (unsigned i = 0; i < d->open; i++)
		n += recv(d->fds[i], &byte, 1, MSG_PEEK) != -1 || errno != EAGAIN;
	return n;
}

void drip_run(const struct load *l)
{
	static struct drip d;
	char line[128];
	unsigned n;

	d.load = l;
	if (l->head_bytes <= STEPS * STEP_BYTES)
		load_fail("too short a head to drip: --browser makes it longer", l->head);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "open %u", &n) == 1)
			open_all(&d, n);
		else if (strncmp(line, "status", 6) != 0)
			load_fail("no such command", line);
		printf("{\"open\": %u, \"bytes\": %u, \"lost\": %u}\n", d.open, STEPS * STEP_BYTES, answered(&d));
	}
}
