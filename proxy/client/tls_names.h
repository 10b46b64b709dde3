/*
 * tls_names: which certificate a name asks for: exact, then the wildcard one label up.
 * Owns:   copies of the names.
 * Never:  looks into a certificate but for its names.
 * Thread: made by one, read by any.
 */
#ifndef FOREBAY_PROXY_TLS_NAMES_H
#define FOREBAY_PROXY_TLS_NAMES_H

#include <openssl/types.h>

#include "core/slice.h"

#define TLS_NAME_MAX 255 /* bytes */

struct tls_name {
	char *text; /* "example.org", "*.example.org"; lower case, without a dot at the end */
	size_t set; /* the caller's */
	size_t of;  /* the certificate's number */
};

struct tls_names {
	struct tls_name *all; /* sorted by text, then by certificate, once tls_names_sort was called */
	size_t count, size;
};

/* All DNS names of a certificate; its common name if it has no alternative names. What is no host name is passed over. 0 or -ENOMEM. */
MUST_USE int tls_names_add(struct tls_names *n, const X509 *x, size_t of);
/* One name; false: it is none. */
MUST_USE int tls_names_add_text(struct tls_names *n, struct slice text, size_t of);
void tls_names_sort(struct tls_names *n);
void tls_names_done(struct tls_names *n);

/* The first of those with the best match, or NULL. `text` is whatever a client sent. */
const struct tls_name *tls_names_find(const struct tls_names *n, struct slice text);

#endif
