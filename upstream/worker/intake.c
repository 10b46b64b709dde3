#include "upstream/worker/intake.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/fdpass.h"

#define KEPT_BYTES (64u << 10) /* of memory, for the next frame */

void intake_init(struct intake *in, int sock)
{
	*in = (struct intake){ .sock = sock, .fd = -1 };
}

void intake_done(struct intake *in)
{
	if (in->fd != -1)
		close(in->fd);
	in->fd = -1;
	free(in->bytes);
	in->bytes = NULL;
}

static size_t there(const struct intake *in)
{
	return in->end - in->at;
}

/* Room for a frame of n bytes where the next one begins, and for a header behind it. */
static int make_room(struct intake *in, size_t n)
{
	size_t wanted = MAX(n + WIRE_HEADER_BYTES, KEPT_BYTES);
	char *bytes;

	if (in->at > 0 && there(in) > 0)
		memmove(in->bytes, in->bytes + in->at, there(in));
	in->end -= in->at;
	in->at = 0;
	if (wanted <= in->size)
		return 0;
	bytes = realloc(in->bytes, wanted);
	if (!bytes)
		return -ENOMEM;
	in->bytes = bytes;
	in->size = wanted;
	return 0;
}

static void sleep_until_readable(const struct intake *in)
{
	struct pollfd p = { .fd = in->sock, .events = POLLIN };

	while (poll(&p, 1, -1) == -1 && errno == EINTR)
		;
}

/* Some more bytes, at most n; a descriptor may come if the first of them begins a frame. 1, 0: the end, or -errno. */
static int receive(struct intake *in, size_t n)
{
	bool begins = there(in) == 0;
	int fd = -1;
	size_t fds;
	ssize_t got;

	if (begins)
		sleep_until_readable(in);
	got = fdpass_recv(in->sock, in->bytes + in->end, n, &fd, 1, &fds, 0);
	if (got == 0 || got == -ECONNRESET)
		return 0;
	if (got < 0)
		return (int)got;
	if (fds == 1 && (!begins || in->fd != -1)) {
		close(fd);
		return -EPROTO;
	}
	if (fds == 1)
		in->fd = fd;
	in->end += (size_t)got;
	return 1;
}

/* Until n bytes of a frame are there. Whatever else has come is taken along, but never the beginning of a frame by its end. */
static int fill(struct intake *in, size_t n)
{
	int got = make_room(in, n);

	while (got >= 0 && there(in) < n) {
		got = receive(in, there(in) == 0 ? in->size : n - there(in));
		if (got != 1)
			return got;
	}
	return got < 0 ? got : 1;
}

int intake_frame(struct intake *in, struct wire_frame *ret, struct slice *ret_payload)
{
	int got = fill(in, WIRE_HEADER_BYTES);

	if (got != 1)
		return got;
	if (wire_get_header(slice_of(in->bytes + in->at, WIRE_HEADER_BYTES), ret) != 1)
		return -EPROTO;
	if (ret->length > 0)
		got = fill(in, WIRE_HEADER_BYTES + ret->length);
	if (got != 1)
		return got;
	*ret_payload = slice_of(in->bytes + in->at + WIRE_HEADER_BYTES, ret->length);
	in->at += WIRE_HEADER_BYTES + ret->length;
	return 1;
}

/* There is room: make_room() saw to it. */
int intake_look(struct intake *in, struct wire_frame *ret)
{
	if (there(in) < WIRE_HEADER_BYTES && in->size - in->at >= WIRE_HEADER_BYTES) {
		ssize_t got = recv(in->sock, in->bytes + in->end, WIRE_HEADER_BYTES - there(in), MSG_DONTWAIT);

		if (got == 0)
			return -ECONNRESET;
		if (got == -1)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		in->end += (size_t)got;
	}
	if (there(in) < WIRE_HEADER_BYTES)
		return 0;
	if (wire_get_header(slice_of(in->bytes + in->at, WIRE_HEADER_BYTES), ret) != 1)
		return -EPROTO;
	return 1;
}

void intake_forget(struct intake *in)
{
	if (in->size <= KEPT_BYTES + WIRE_HEADER_BYTES || there(in) > 0)
		return;
	free(in->bytes);
	in->bytes = NULL;
	in->size = in->at = in->end = 0;
}
