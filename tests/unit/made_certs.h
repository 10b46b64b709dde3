/* made_certs: keys and certificates for unit tests, made on the spot. */
#ifndef FOREBAY_TESTS_MADE_CERTS_H
#define FOREBAY_TESTS_MADE_CERTS_H

#include <openssl/types.h>
#include <openssl/x509.h>

#include "proxy/client/tls_material.h"

struct made {
	X509 *x;
	EVP_PKEY *key;
};

enum made_kind { MADE_EC, MADE_RSA, MADE_RSA_SMALL, MADE_ED25519 };

struct made_plan {
	const struct made *issuer; /* NULL: itself, an authority */
	enum made_kind kind;
	const char *cn;
	const char *names;    /* "DNS:a.test,DNS:*.a.test"; NULL: no alternative names */
	long from_s, until_s; /* from now; 0 and 0: an hour each way */
	long serial;
};

struct made made(const struct made_plan *p);
void made_done(struct made *m);

/* Its chain is the certificate and, if it is not NULL, its issuer's. To be done by tls_material_done. */
struct tls_material made_material(const struct made *m, const struct made *issuer);

/* In files, as PEM. */
void made_write_certificate(const char *path, const struct made *m);
void made_write_key(const char *path, const struct made *m, const char *password);

/* An OCSP response about `about`, signed by its issuer. */
size_t made_staple(
    const struct made *about, const struct made *issuer, int status, long from_s, long until_s, unsigned char **ret);

#endif
