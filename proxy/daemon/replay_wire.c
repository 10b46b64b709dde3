#include "proxy/daemon/replay_wire.h"

#include <limits.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the last call of the library complains of. */
static const char *complaint(void)
{
	unsigned long e = ERR_peek_error();
	const char *why = e ? ERR_reason_error_string(e) : NULL;

	ERR_clear_error();
	return why ? why : "the connection ended";
}

static int shake_hands(struct replay_wire *w, const char *server_name, const char **ret_why)
{
	ERR_clear_error();
	w->context = SSL_CTX_new(TLS_client_method());
	w->tls = w->context ? SSL_new(w->context) : NULL;
	if (!w->tls || SSL_set_fd(w->tls, w->fd) != 1 || (*server_name && SSL_set_tlsext_host_name(w->tls, server_name) != 1))
		return -ENOMEM;
	if (SSL_connect(w->tls) == 1)
		return 0;
	*ret_why = complaint();
	return -EPROTO;
}

int replay_wire_open(struct replay_wire *w, int *fd, const char *server_name, const char **ret_why)
{
	int err;

	*w = (struct replay_wire){ .fd = *fd };
	*fd = -1;
	err = server_name ? shake_hands(w, server_name, ret_why) : 0;
	if (err)
		replay_wire_close(w);
	return err;
}

static ssize_t send_some(struct replay_wire *w, struct slice bytes)
{
	int n;

	if (!w->tls)
		return send(w->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
	ERR_clear_error();
	n = SSL_write(w->tls, bytes.ptr, (int)MIN(bytes.len, INT_MAX));
	errno = EPIPE;
	return n > 0 ? n : -1;
}

void replay_wire_send(struct replay_wire *w, struct slice bytes)
{
	while (bytes.len > 0) {
		ssize_t n = send_some(w, bytes);

		if (n == -1 && errno != EINTR)
			return;
		if (n > 0)
			bytes = slice_of(bytes.ptr + n, bytes.len - (size_t)n);
	}
}

ssize_t replay_wire_recv(struct replay_wire *w, char *room, size_t size)
{
	ssize_t n;

	if (w->tls) {
		ERR_clear_error();
		n = SSL_read(w->tls, room, (int)MIN(size, INT_MAX));
		return n > 0 ? n : SSL_get_error(w->tls, (int)n) == SSL_ERROR_ZERO_RETURN ? 0 : -EPROTO;
	}
	do
		n = recv(w->fd, room, size, 0);
	while (n == -1 && errno == EINTR);
	return n == -1 ? -errno : n;
}

void replay_wire_close(struct replay_wire *w)
{
	SSL_free(w->tls);
	SSL_CTX_free(w->context);
	ERR_clear_error();
	if (w->fd != -1)
		close(w->fd);
	*w = (struct replay_wire){ .fd = -1 };
}
