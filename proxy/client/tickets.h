/*
 * tickets: the keys of session tickets (RFC 5077, RFC 8446): forebay's own, which change by themselves, or those of files. Forebay's own are
 * made by the master, so that a front that takes a lost one's place knows the tickets that were given; the front has them as given.
 * Owns:   its keys, which are cleansed when they go.
 * Thread: any; they are shared by all threads.
 */
#ifndef FOREBAY_PROXY_TICKETS_H
#define FOREBAY_PROXY_TICKETS_H

#include <openssl/types.h>

#include "core/clock.h"

#define TICKETS_TURN_MS ((uint64_t)12 * 3600 * 1000)
#define TICKETS_OLD     2 /* kept for what was encrypted with them */
#define TICKETS_OWN     (1 + TICKETS_OLD)

#define TICKET_NAME_BYTES  16
#define TICKET_SMALL_BYTES 48 /* of a key in a file: name, AES-128 key, HMAC key of 16 bytes */
#define TICKET_LARGE_BYTES 80 /* name, HMAC key of 32 bytes, AES-256 key */

struct ticket_key {
	unsigned char name[TICKET_NAME_BYTES];
	unsigned char hmac[32], aes[32];
	unsigned char bytes; /* of each of the two: 16 or 32 */
};

/* From the bytes of a key file. False: not 48 or 80. */
bool ticket_key_parse(const void *bytes, size_t len, struct ticket_key *ret);

struct tickets;

/* With keys of its own: a new one every TICKETS_TURN_MS. Borrows the clock. 0, -ENOMEM or -EIO (no random numbers). */
MUST_USE int tickets_new(const struct clock *clock, struct tickets **ret);
/* With these for ever; the first encrypts. */
MUST_USE int tickets_new_fixed(const struct ticket_key *keys, size_t count, struct tickets **ret);
/* Shared by those who hold it. */
struct tickets *tickets_hold(struct tickets *t);
void tickets_drop(struct tickets **t);

/* All keys, of one with keys of its own: the one that encrypts first. How many; 0 without random numbers. */
size_t tickets_all(struct tickets *t, struct ticket_key ret[TICKETS_OWN]);

/* The key to encrypt with. False without random numbers. */
bool tickets_current(struct tickets *t, struct ticket_key *ret);

enum ticket_found { TICKET_UNKNOWN, TICKET_CURRENT, TICKET_OLD };
enum ticket_found tickets_find(struct tickets *t, const unsigned char name[TICKET_NAME_BYTES], struct ticket_key *ret);

/* What SSL_CTX_set_tlsext_ticket_key_evp_cb's callback returns; `t` does the rest. */
int tickets_crypt(struct tickets *t, SSL *ssl, unsigned char name[TICKET_NAME_BYTES], unsigned char *iv, EVP_CIPHER_CTX *cipher,
    EVP_MAC_CTX *mac, int encrypt);

#endif
