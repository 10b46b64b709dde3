/*
 * tls: what one listener speaks TLS with: its certificates by name, versions, ciphers, ALPN, staples, tickets, the session cache.
 * Owns:   one SSL_CTX for each set of certificates; the materials' objects as far as these hold them.
 * Never:  opens a file or a socket. Changes once made: another one takes its place (tls_shop), connections keep theirs.
 * Thread: made by one; tls_hold, tls_drop and tls_session any.
 */
#ifndef FOREBAY_PROXY_TLS_H
#define FOREBAY_PROXY_TLS_H

#include <openssl/types.h>

#include "conf/conf.h"
#include "core/clock.h"
#include "proxy/client/tls_material.h"
#include "proxy/client/tls_peer.h"

struct tls;
struct tickets;
struct buf;

/* Borrowed for the call, but for clock and tickets, which outlive the struct tls. */
struct tls_options {
	const struct conf *conf;
	const struct conf_listen *listen;     /* with at least one [tls NAME] */
	const struct tls_material *materials; /* by conf_tls.index */
	struct tickets *tickets;              /* forebay's own keys; not used with ticket_key_file */
	const struct clock *clock;
	bool http2; /* ALPN: h2 before http/1.1 */
};

/* Once in a process, before its first use of OpenSSL: no configuration file is read. 0 or -ENOMEM. */
MUST_USE int tls_library_init(void);

/* OpenSSL's version as it runs, and whether it and the kernel could do records in the kernel (kTLS, which forebay does not use yet). */
const char *tls_library_version(void);
bool tls_kernel_could(void);

/* 0, -ENOMEM, or -EINVAL with a line in `errors` that says which option or file OpenSSL does not take. */
MUST_USE int tls_new(const struct tls_options *o, struct buf *errors, struct tls **ret);
struct tls *tls_hold(struct tls *t);
void tls_drop(struct tls **t);

/* A session in accept state without a socket; it holds `t` until SSL_free. NULL without memory. */
SSL *tls_session(struct tls *t);

/* After the handshake; made once for an SSL. NULL: its listener asks for no certificate. */
const struct tls_peer *tls_peer_of(SSL *ssl);

/* What it asked for by SNI; "" if nothing. */
struct slice tls_server_name(const SSL *ssl);

#endif
