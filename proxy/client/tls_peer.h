/*
 * tls_peer: who a client with a certificate is, in words for the worker.
 * Owns:   the words.
 * Thread: the SSL's.
 */
#ifndef FOREBAY_PROXY_TLS_PEER_H
#define FOREBAY_PROXY_TLS_PEER_H

#include <openssl/types.h>

#include "proxy/serve/forward.h"

#define TLS_PEER_NAME_MAX 2048 /* bytes of a subject or an issuer; a longer one is no SUCCESS */

/* Of a finished handshake. NULL without memory. */
struct tls_peer *tls_peer_new(const SSL *ssl);
void tls_peer_free(struct tls_peer *p);

/* For want of memory: nobody. */
extern const struct tls_peer tls_peer_unknown;

#endif
