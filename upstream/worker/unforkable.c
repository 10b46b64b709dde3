#include "upstream/worker/unforkable.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"

#define LOOKS   100 /* for threads that were joined, and that the kernel still shows for a moment */
#define LOOK_NS 5000000

/* The second and further ones get a comma. */
static void add(struct buf *found, const char *what, const char *name)
{
	buf_printf(found, "%s%s %s", found->len > 0 ? ", " : "", what, name);
}

static void name_of_task(const char *tid, char name[32])
{
	char path[64];
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", tid);
	f = fopen(path, "re");
	if (!f || !fgets(name, 32, f))
		(void)snprintf(name, 32, "%.20s", tid);
	if (f)
		fclose(f);
	name[strcspn(name, "\n")] = '\0';
}

/* All but this one. */
static unsigned find_threads(struct buf *found)
{
	DIR *d = opendir("/proc/self/task");
	unsigned n = 0;

	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		char name[32];

		if (e->d_name[0] == '.' || atoi(e->d_name) == (int)getpid())
			continue;
		name_of_task(e->d_name, name);
		add(found, "thread", name);
		n++;
	}
	if (d)
		closedir(d);
	return n;
}

static void find_lasting_threads(struct buf *found)
{
	const struct timespec pause = { .tv_nsec = LOOK_NS };

	for (int i = 0; i < LOOKS && find_threads(found) > 0; i++) {
		if (i == LOOKS - 1)
			return;
		buf_clear(found);
		(void)nanosleep(&pause, NULL);
	}
}

/* "socket to 127.0.0.1:5432" */
static void describe_socket(int fd, struct buf *found)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	} at = { 0 };
	socklen_t len = sizeof(at);
	bool peer = getpeername(fd, &at.any, &len) == 0;
	char address[INET6_ADDRSTRLEN] = "", text[160];

	if (!peer) {
		len = sizeof(at);
		(void)getsockname(fd, &at.any, &len);
	}
	switch (at.any.sa_family) {
	case AF_INET:
		(void)inet_ntop(AF_INET, &at.in4.sin_addr, address, sizeof(address));
		(void)snprintf(text, sizeof(text), "%s %s:%u", peer ? "to" : "at", address, ntohs(at.in4.sin_port));
		break;
	case AF_INET6:
		(void)inet_ntop(AF_INET6, &at.in6.sin6_addr, address, sizeof(address));
		(void)snprintf(text, sizeof(text), "%s [%s]:%u", peer ? "to" : "at", address, ntohs(at.in6.sin6_port));
		break;
	case AF_UNIX:
		(void)snprintf(text, sizeof(text), "%s %.*s", peer ? "to" : "at", (int)MIN(sizeof(at.un.sun_path), 108),
		    at.un.sun_path[0] ? at.un.sun_path : "(unnamed)");
		break;
	default:
		(void)snprintf(text, sizeof(text), "%d", fd);
		break;
	}
	add(found, "socket", text);
}

static void find_sockets(int own_socket, struct buf *found)
{
	DIR *d = opendir("/proc/self/fd");

	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		int fd = atoi(e->d_name), type;
		socklen_t len = sizeof(type);

		/* Where standard output goes is nobody's connection. */
		if (e->d_name[0] == '.' || fd == own_socket || fd <= STDERR_FILENO ||
		    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == -1)
			continue;
		describe_socket(fd, found);
	}
	if (d)
		closedir(d);
}

bool unforkable_find(const struct worker_app *app, void *app_ctx, int own_socket, char *ret, size_t size)
{
	char *said = app->unforkable ? app->unforkable(app_ctx) : NULL;
	struct buf found;
	bool any;

	buf_init(&found, 64u << 10);
	find_lasting_threads(&found);
	find_sockets(own_socket, &found);
	if (said)
		buf_printf(&found, "%s%s", found.len > 0 ? ", " : "", said);
	free(said);
	any = found.len > 0;
	slice_to_str(buf_slice(&found), ret, size);
	buf_done(&found);
	return any;
}
