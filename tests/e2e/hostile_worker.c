/*
 * A worker program (app = worker:PROGRAM) that does not keep to the protocol: what it says to a request is the request's path, /do/ and a letter for
 * each thing. It knows the protocol by forebay's own headers and shares no code with forebay.
 *
 * h hello unless it was said before, G hello, H head, L head with Content-Length 5, I 103, d DATA, E END, s END with another serial, R REQUEST, X nonsense, F FILE without a descriptor, f
 * FILE with one, p FILE with a pipe, t head with two descriptors, u head with one, n nine 103s in a row, m many FILEs; c: the application is called;
 * C: closes, S: closes the sending half only, K: dies, W: waits until it is killed, w: waits until the front has closed. At the end it closes, and asks for
 * another socket; g before it: it never does, and does not end when it is told to.
 */
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "upstream/worker/control.h"
#include "upstream/worker/wire.h"

static int slot, greeted;
static uint64_t serial;
static volatile uint64_t *page;
static size_t lines;

static void number(unsigned char *to, uint64_t n, int bytes)
{
	for (int i = 0; i < bytes; i++)
		to[i] = (unsigned char)(n >> (8 * i));
}

static void send_with(const void *bytes, size_t n, const int *fds, int count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = { (void *)(uintptr_t)bytes, n };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count > 0) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fds, (size_t)count * sizeof(int));
	}
	(void)!sendmsg(slot, &m, MSG_NOSIGNAL);
}

static void say(int type, int flags, uint64_t of, const void *payload, size_t n, const int *fds, int count)
{
	unsigned char frame[256] = { (unsigned char)type, (unsigned char)flags };

	number(frame + 4, n, 4);
	number(frame + 8, of, 8);
	if (n > 0)
		memcpy(frame + WIRE_HEADER_BYTES, payload, n);
	send_with(frame, WIRE_HEADER_BYTES + n, fds, count);
}

static void say_hello(void)
{
	unsigned char hello[WIRE_HELLO_BYTES] = { 0 };

	number(hello, WIRE_MAGIC, 4);
	number(hello + 4, WIRE_VERSION, 4);
	number(hello + 8, WIRE_DATA_MAX, 4);
	say(WIRE_HELLO, 0, 0, hello, sizeof(hello), NULL, 0);
}

static void say_head(unsigned status, const char *length, const int *fds, int count)
{
	unsigned char head[64] = { 0 };
	size_t n = 4;

	number(head, status, 2);
	number(head + 2, length ? 1 : 0, 2);
	if (length) {
		number(head + 4, 14, 4);
		number(head + 8, strlen(length), 4);
		memcpy(head + 12, "Content-Length", 14);
		memcpy(head + 26, length, strlen(length));
		n = 26 + strlen(length);
	}
	say(WIRE_HEAD, 0, serial, head, n, fds, count);
}

static void say_file(int fd)
{
	unsigned char file[WIRE_FILE_BYTES] = { 0 };

	number(file + 8, 3, 8);
	say(WIRE_FILE, WIRE_DESCRIPTOR, serial, file, sizeof(file), &fd, fd != -1);
}

static void wait_for_end(void)
{
	char bytes[4096];

	while (recv(slot, bytes, sizeof(bytes), 0) > 0)
		;
}

static void act(char letter)
{
	int fds[2] = { memfd_create("file", MFD_CLOEXEC), -1 }, pipes[2];

	if (ftruncate(fds[0], 10) == -1 || pipe(pipes) == -1)
		_exit(3);
	fds[1] = pipes[0];
	switch (letter) {
	case 'h':
		if (greeted++)
			break;
		/* fall through */
	case 'G': say_hello(); break;
	case 'H': say_head(200, NULL, NULL, 0); break;
	case 'L': say_head(200, "5", NULL, 0); break;
	case 'I': say_head(103, NULL, NULL, 0); break;
	case 'n': for (int i = 0; i < WIRE_INTERIM_MAX + 1; i++) say_head(103, NULL, NULL, 0); break;
	case 't': say_head(200, NULL, fds, 2); break;
	case 'u': say_head(200, NULL, fds, 1); break;
	case 'd': say(WIRE_DATA, 0, serial, "12345", 5, NULL, 0); break;
	case 'E': say(WIRE_END, 0, serial, NULL, 0, NULL, 0); break;
	case 's': say(WIRE_END, 0, serial - 1, NULL, 0, NULL, 0); break;
	case 'R': say(WIRE_REQUEST, 0, serial, "\0\0\0", 4, NULL, 0); break;
	case 'X': send_with("HTTP/1.1 200 OK\r\n\r\n", 19, NULL, 0); break;
	case 'F': say_file(-1); break;
	case 'f': say_file(fds[0]); break;
	case 'p': say_file(fds[1]); break;
	case 'm': for (int i = 0; i < 2000; i++) say_file(fds[0]); break;
	case 'c': for (size_t i = 0; i < lines; i++) page[i * STARTED_LINE_BYTES / sizeof(*page)] = serial; break;
	case 'C': close(slot); slot = -1; break;
	case 'S': shutdown(slot, SHUT_WR); break;
	case 'K': kill(getpid(), SIGKILL); break;
	case 'W': for (;;) pause();
	case 'w': wait_for_end(); break;
	case 'g': signal(SIGTERM, SIG_IGN); wait_for_end(); for (;;) pause();
	default: _exit(4);
	}
	close(fds[0]);
	close(pipes[0]);
	close(pipes[1]);
}

static int read_all(unsigned char *to, size_t n)
{
	for (size_t have = 0; have < n;) {
		ssize_t got = recv(slot, to + have, n - have, 0);

		if (got <= 0)
			return 0;
		have += (size_t)got;
	}
	return 1;
}

/* One request, and what its path says. 0: the front has closed. */
static int serve(void)
{
	static unsigned char payload[WIRE_REQUEST_MAX];
	unsigned char header[WIRE_HEADER_BYTES];
	const char *path;
	uint32_t length;

	do {
		struct pollfd p[] = { { .fd = slot, .events = POLLIN }, { .fd = WORKER_FD_CONTROL, .events = POLLIN } };

		if (poll(p, 2, -1) == -1 || p[1].revents)
			_exit(0); /* told to end */
		if (!read_all(header, sizeof(header)))
			return 0;
		length = header[4] | header[5] << 8 | header[6] << 16;
		if (length > sizeof(payload) || !read_all(payload, length))
			return 0;
	} while (header[0] != WIRE_REQUEST);
	serial = 0;
	for (int i = 7; i >= 0; i--)
		serial = serial << 8 | header[8 + i];
	path = memmem(payload, length, "/do/", 4);
	if (!path)
		_exit(5);
	for (path += 4; *path >= 'A' && slot != -1; path++)
		act(*path);
	return slot != -1 && path[-1] == 'E';
}

static int next_slot(void)
{
	struct control_message want = { .type = CONTROL_WANT }, got;
	char bytes[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &got, sizeof(got) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = bytes, .msg_controllen = sizeof(bytes) };

	if (send(WORKER_FD_CONTROL, &want, sizeof(want), MSG_NOSIGNAL) == -1 || recvmsg(WORKER_FD_CONTROL, &m, 0) <= 0 ||
	    got.type != CONTROL_SLOT || !CMSG_FIRSTHDR(&m))
		return 0; /* it is over, or we are told to end */
	greeted = 0;
	memcpy(&slot, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(slot));
	return 1;
}

int main(void)
{
	struct stat st;

	if (fstat(WORKER_FD_STARTED, &st) == -1)
		return 1;
	lines = (size_t)st.st_size / STARTED_LINE_BYTES;
	page = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, WORKER_FD_STARTED, 0);
	if (page == MAP_FAILED)
		return 1;
	while (next_slot()) {
		while (serve())
			;
		if (slot != -1)
			close(slot);
	}
	return 0;
}
