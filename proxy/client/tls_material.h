/*
 * tls_material: what one [tls NAME] stands on, in memory: certificates, key, client CA, staple, ticket keys. The master reads it from
 * files, the front gets the same from the master as bytes.
 * Owns:   all of it; key bytes are cleansed before their memory is given back.
 * Never:  opens a file.
 * Thread: whoever holds it.
 */
#ifndef FOREBAY_PROXY_TLS_MATERIAL_H
#define FOREBAY_PROXY_TLS_MATERIAL_H

#include <openssl/types.h>
#include <openssl/x509.h>

#include "core/slice.h"
#include "proxy/client/tickets.h"

#define TLS_CHAIN_MAX       16   /* certificates */
#define TLS_CLIENT_CA_MAX   1024 /* certificates */
#define TLS_TICKET_KEYS_MAX 16
#define TLS_STAPLE_MAX      65536 /* bytes */

struct tls_material {
	STACK_OF(X509) * chain; /* the certificate first */
	EVP_PKEY *key;
	STACK_OF(X509) * client_ca; /* NULL: none */
	unsigned char *staple;      /* NULL: none */
	size_t staple_len;
	int64_t staple_until_us; /* it is not sent from then on */
	struct ticket_key ticket_keys[TLS_TICKET_KEYS_MAX];
	size_t ticket_key_count;
};

void tls_material_done(struct tls_material *m);

struct buf;

/* Appends what tls_material_parse reads. 0 or -ENOMEM. */
MUST_USE int tls_material_write(const struct tls_material *m, struct buf *out);

/* Cuts one off *bytes. 0, -EBADMSG or -ENOMEM; *ret is to be done either way. */
MUST_USE int tls_material_parse(struct slice *bytes, struct tls_material *ret);

/* The material of all [tls NAME] of a configuration, in its order, and the ticket keys of those who have none of files. */
struct tls_materials {
	struct ticket_key own[TICKETS_OWN]; /* the first encrypts */
	size_t own_count;                   /* at least 1 */
	struct tls_material *all;
	size_t count;
};
MUST_USE int tls_materials_write(const struct tls_materials *m, struct buf *out);
/* What comes before the first tls_material_write. 0 or -ENOMEM. */
MUST_USE int tls_materials_begin(const struct ticket_key *own, size_t count, struct buf *out);
/* As above; everything must be there, and nothing behind it. */
MUST_USE int tls_materials_parse(struct slice bytes, size_t count, struct tls_materials *ret);
void tls_materials_done(struct tls_materials *m);

#endif
