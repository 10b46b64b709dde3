#include "proxy/daemon/listeners.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"

/* A Unix listener's file, known again by its inode: somebody may have put another in its place. */
struct listener_file {
	const struct conf_address *address;
	dev_t dev;
	ino_t ino;
};

/* What it takes to bind one address. */
struct binding {
	const struct conf_listen *listen;
	const struct conf_address *address;
	unsigned listen_index, address_index, threads;
	struct listeners *into;
	struct buf *errors;
};

static int fail(const struct binding *b, int err, const char *what, const char *hint)
{
	buf_printf(b->errors, "[listen %s] %s: %s: %s%s%s\n", b->listen->name, b->address->text, what, strerror(-err),
	    hint ? ": " : "", hint ? hint : "");
	return err;
}

static const char *bind_hint(int err)
{
	switch (err) {
	case -EADDRINUSE:
		return "another program listens there";
	case -EACCES:
		return "ports below 1024 need root or CAP_NET_BIND_SERVICE";
	case -EADDRNOTAVAIL:
		return "this machine does not have that address";
	default:
		return NULL;
	}
}

static void set_option(int fd, int level, int name, int value)
{
	/* None of these is worth not starting: without them it is slower, or the kernel's own limits hold. */
	(void)setsockopt(fd, level, name, &value, sizeof(value));
}

/* Accepted sockets inherit all of this. */
static void set_options(int fd, int family)
{
	if (family == AF_UNIX)
		return;
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	/*
	 * Buffers of a fixed size would be too small for fast clients far away, and each byte sent into a full one costs a wake-up: the
	 * kernel fits them to the connection, up to tcp_wmem, and tcp_rmem or this window.
	 */
	set_option(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, LISTENERS_WINDOW_BYTES);
	/* No TCP_DEFER_ACCEPT: nobody sees a connection that it holds back, neither head_timeout nor who drains. */
}

/* A bound socket that does not listen yet; *fd is set also when bind fails: the caller's to close. */
static int bind_socket(const struct conf_address *a, bool share_port, int *ret_fd)
{
	int family = a->addr.any.sa_family, one = 1, fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;

	if (fd == -1)
		return -errno;
	if (family != AF_UNIX)
		set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (family == AF_INET6)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	if (share_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) == -1)
		goto fail;
	if (bind(fd, &a->addr.any, a->len) == -1)
		goto fail;
	*ret_fd = fd;
	return 0;
fail:
	err = -errno;
	close(fd);
	return err;
}

/* The list has room: it was made for all. Takes fd. */
static void add(const struct binding *b, int fd, unsigned thread)
{
	b->into->all[b->into->count++] = (struct listener){
		.fd = fd,
		.listen = b->listen_index,
		.address = b->address_index,
		.thread = thread,
	};
}

/* Every thread from `first` on gets the same socket. fd stays the caller's. */
static int share(const struct binding *b, int fd, unsigned first)
{
	for (unsigned t = first; t < b->threads; t++) {
		int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

		if (copy == -1)
			return fail(b, -errno, "sharing the socket", NULL);
		add(b, copy, t);
	}
	return 0;
}

/* One more socket on the address that listens; -errno untold. */
static int listen_sibling(const struct binding *b, unsigned thread)
{
	int fd, err = bind_socket(b->address, true, &fd);

	if (err)
		return err;
	set_options(fd, b->address->addr.any.sa_family);
	if (listen(fd, (int)b->listen->backlog) == -1) {
		err = -errno;
		close(fd);
		return err;
	}
	add(b, fd, thread);
	return 0;
}

static int bind_tcp(const struct binding *b)
{
	/* With SO_REUSEPORT a second forebay of the same user would get half of the first one's connections. */
	int fd, err = bind_socket(b->address, false, &fd);

	if (err)
		return fail(b, err, "bind", bind_hint(err));
	close(fd);
	for (unsigned t = 0; t < b->threads; t++) {
		err = listen_sibling(b, t);
		if (err)
			return fail(b, err, "listen", bind_hint(err));
	}
	return 0;
}

/* Removes what an earlier life left there: a socket that nobody answers on. Anything else stays. */
static int remove_stale(const struct binding *b)
{
	const char *path = b->address->addr.un.sun_path;
	struct stat st;
	int fd, err = 0;

	if (lstat(path, &st) == -1)
		return errno == ENOENT ? 0 : fail(b, -errno, "looking for an old socket", NULL);
	if (!S_ISSOCK(st.st_mode))
		return fail(b, -EEXIST, "bind", "it is there and no socket");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return fail(b, -errno, "looking for an old socket", NULL);
	if (connect(fd, &b->address->addr.any, b->address->len) == 0 || errno != ECONNREFUSED)
		err = fail(b, -EADDRINUSE, "bind", bind_hint(-EADDRINUSE));
	else if (unlink(path) == -1)
		err = fail(b, -errno, "removing an old socket", NULL);
	close(fd);
	return err;
}

static void remember_file(const struct binding *b)
{
	struct listener_file *f = &b->into->files[b->into->file_count];
	struct stat st;

	if (lstat(b->address->addr.un.sun_path, &st) == -1)
		return;
	*f = (struct listener_file){ .address = b->address, .dev = st.st_dev, .ino = st.st_ino };
	b->into->file_count++;
}

static int bind_unix(const struct binding *b)
{
	int fd, err = remove_stale(b);

	if (err)
		return err;
	err = bind_socket(b->address, false, &fd);
	if (err)
		return fail(b, err, "bind", NULL);
	remember_file(b);
	set_options(fd, AF_UNIX);
	/* A door, as open as a TCP port is; who shall not come to it is kept out by its directory. */
	if (chmod(b->address->addr.un.sun_path, 0666) == -1)
		err = fail(b, -errno, "chmod", NULL);
	else if (listen(fd, (int)b->listen->backlog) == -1)
		err = fail(b, -errno, "listen", NULL);
	else
		err = share(b, fd, 0);
	close(fd);
	return err;
}

static bool same_address(const struct sockaddr_storage *got, const struct conf_address *a)
{
	const struct sockaddr_in *in4 = (const void *)got;
	const struct sockaddr_in6 *in6 = (const void *)got;
	const struct sockaddr_un *un = (const void *)got;

	if (got->ss_family != a->addr.any.sa_family)
		return false;
	switch (got->ss_family) {
	case AF_INET:
		return in4->sin_port == a->addr.in4.sin_port && in4->sin_addr.s_addr == a->addr.in4.sin_addr.s_addr;
	case AF_INET6:
		return in6->sin6_port == a->addr.in6.sin6_port &&
		       memcmp(&in6->sin6_addr, &a->addr.in6.sin6_addr, sizeof(in6->sin6_addr)) == 0;
	case AF_UNIX:
		return strncmp(un->sun_path, a->addr.un.sun_path, sizeof(un->sun_path)) == 0;
	default:
		return false;
	}
}

/* The socket that was opened for this address: under the listener's name, or under no listener's. */
static int *find_inherited(const struct binding *b, const struct conf *conf, struct inherited *in)
{
	for (size_t i = 0; i < in->count; i++) {
		struct inherited_socket *s = &in->sockets[i];
		struct sockaddr_storage at = { 0 };
		socklen_t len = sizeof(at);
		bool is_others = false;

		for (size_t k = 0; k < conf->listen_count; k++)
			if (&conf->listens[k] != b->listen && slice_eq(s->name, slice_str(conf->listens[k].name)))
				is_others = true;
		if (s->fd == -1 || is_others || getsockname(s->fd, (struct sockaddr *)&at, &len) == -1)
			continue;
		if (same_address(&at, b->address))
			return &s->fd;
	}
	return NULL;
}

static int get_option(int fd, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 ? value : 0;
}

/* The first thread gets the socket itself, the others siblings if it was bound for that (ReusePort=yes), else the same. Takes *fd. */
static int take_over(const struct binding *b, int *taken)
{
	int fd = *taken, family = b->address->addr.any.sa_family, flags = fcntl(fd, F_GETFL);

	*taken = -1;
	add(b, fd, 0);
	if (get_option(fd, SO_TYPE) != SOCK_STREAM || !get_option(fd, SO_ACCEPTCONN))
		return fail(b, -EINVAL, "inherited socket", "it is no listening stream socket (Accept=no, ListenStream=)");
	if (flags == -1 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == -1)
		return fail(b, -errno, "inherited socket", NULL);
	set_options(fd, family);
	for (unsigned t = 1; t < b->threads; t++) {
		if (family == AF_UNIX || !get_option(fd, SO_REUSEPORT) || listen_sibling(b, t) != 0)
			return share(b, fd, t);
	}
	return 0;
}

static int bind_one(const struct binding *b, const struct conf *conf, struct inherited *in)
{
	int *taken = find_inherited(b, conf, in);

	if (taken)
		return take_over(b, taken);
	return b->address->addr.any.sa_family == AF_UNIX ? bind_unix(b) : bind_tcp(b);
}

/* A socket that nobody asked for would take connections that nobody accepts. */
static int refuse_strangers(const struct inherited *in, struct buf *errors)
{
	int err = 0;

	for (size_t i = 0; i < in->count; i++) {
		if (in->sockets[i].fd == -1)
			continue;
		buf_printf(errors, "inherited socket \"%.*s\": its address is no `address` of a [listen %.*s]\n",
		    SLICE_ARG(in->sockets[i].name), SLICE_ARG(in->sockets[i].name));
		err = -EINVAL;
	}
	return err;
}

static int make_room(const struct conf *conf, unsigned threads, struct listeners *ret)
{
	size_t addresses = 0;

	for (size_t i = 0; i < conf->listen_count; i++)
		addresses += conf->listens[i].address_count;
	*ret = (struct listeners){
		.all = calloc(MAX(addresses * threads, 1), sizeof(*ret->all)),
		.files = calloc(MAX(addresses, 1), sizeof(*ret->files)),
	};
	return ret->all && ret->files ? 0 : -ENOMEM;
}

int listeners_bind(const struct conf *conf, unsigned threads, struct inherited *in, struct buf *errors, struct listeners *ret)
{
	struct listeners made;
	int last = make_room(conf, threads, &made), err;

	for (unsigned i = 0; last != -ENOMEM && i < conf->listen_count; i++) {
		for (unsigned k = 0; k < conf->listens[i].address_count; k++) {
			struct binding b = { &conf->listens[i], &conf->listens[i].addresses[k], i, k, threads, &made, errors };

			err = bind_one(&b, conf, in);
			last = err ? err : last;
		}
	}
	err = refuse_strangers(in, errors);
	last = err ? err : last;
	if (last)
		listeners_done(&made);
	else
		*ret = made;
	return last;
}

void listeners_done(struct listeners *l)
{
	struct stat st;

	for (size_t i = 0; i < l->count; i++)
		close(l->all[i].fd);
	for (size_t i = 0; i < l->file_count; i++) {
		const struct listener_file *f = &l->files[i];
		const char *path = f->address->addr.un.sun_path;

		if (lstat(path, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino)
			(void)unlink(path);
	}
	free(l->all);
	free(l->files);
	*l = (struct listeners){ 0 };
}
