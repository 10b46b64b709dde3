/*
 * floor: what the kernel takes for the bytes alone. It passes them between each client and a process of an application server, and
 * knows nothing of what they mean: a proxy whose own work took no time at all would cost as much.
 *     floor IP PORT SOCKET
 * Each client has a connection of its own to the server for as long as it stays, as many clients as the server has processes. Sends
 * wait: requests and responses are small and are read at once.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DESCRIPTORS 1024
#define EVENTS      64

static int other_end[DESCRIPTORS]; /* by descriptor: to where its bytes go; 0: nowhere */
static int epoll = -1;

static void fail(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static void watch(int fd)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.fd = fd };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == -1)
		fail("epoll_ctl");
}

static int listen_at(const char *ip, const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

	if (inet_pton(AF_INET, ip, &a.sin_addr) != 1) {
		errno = EINVAL;
		fail(ip);
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* inherited */
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) == -1 || listen(fd, SOMAXCONN) == -1)
		fail("listen");
	return fd;
}

static int connect_to(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == -1)
		fail(path);
	return fd;
}

static void take_in(int listener, const char *server)
{
	int client;

	while ((client = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) != -1) {
		int process = connect_to(server);

		if (client >= DESCRIPTORS || process >= DESCRIPTORS) {
			errno = EMFILE;
			fail("accept4");
		}
		other_end[client] = process;
		other_end[process] = client;
		watch(client);
		watch(process);
	}
}

static void end_both(int fd)
{
	int other = other_end[fd];

	other_end[fd] = other_end[other] = 0;
	close(fd);
	close(other);
}

static void send_all(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);

		if (sent == -1)
			return; /* it has gone, and its own event tells */
		bytes += sent;
		n -= (size_t)sent;
	}
}

static void pass_on(int fd)
{
	static char bytes[64u << 10];
	ssize_t n = sizeof(bytes);

	while (n == (ssize_t)sizeof(bytes)) {
		n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n > 0)
			send_all(other_end[fd], bytes, (size_t)n);
	}
	if (n == 0 || (n == -1 && errno != EAGAIN))
		end_both(fd);
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];
	int listener;

	if (argc != 4) {
		fprintf(stderr, "usage: floor IP PORT SOCKET\n");
		return EXIT_FAILURE;
	}
	epoll = epoll_create1(EPOLL_CLOEXEC);
	listener = listen_at(argv[1], argv[2]);
	watch(listener);
	for (;;) {
		int n = epoll_wait(epoll, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			if (fd == listener)
				take_in(listener, argv[3]);
			else if (other_end[fd] != 0) /* else it was closed in this very turn */
				pass_on(fd);
		}
	}
}
