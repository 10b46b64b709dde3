/*
 * replay_wire: a connection to a daemon, plain or by TLS, that blocks.
 * Owns:   its socket.
 * Never:  asks whether the certificate is a good one: the address is this machine's, by its own configuration or by hand.
 */
#ifndef FOREBAY_PROXY_REPLAY_WIRE_H
#define FOREBAY_PROXY_REPLAY_WIRE_H

#include <openssl/ssl.h>

#include "core/slice.h"

struct replay_wire {
	int fd; /* connected */
	SSL_CTX *context;
	SSL *tls; /* NULL: plain */
};

/* Takes *fd, also on failure, and sets it to -1. server_name: NULL: no TLS; "": none is said. 0, -ENOMEM, or -EPROTO with *ret_why set. */
MUST_USE int replay_wire_open(struct replay_wire *w, int *fd, const char *server_name, const char **ret_why);

/* All of it, or as much as the other side takes. */
void replay_wire_send(struct replay_wire *w, struct slice bytes);

/* As recv(): 0 is an end, which by TLS was said, or -errno. */
MUST_USE ssize_t replay_wire_recv(struct replay_wire *w, char *room, size_t size);

void replay_wire_close(struct replay_wire *w);

#endif
