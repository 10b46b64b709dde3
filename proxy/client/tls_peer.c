#include "proxy/client/tls_peer.h"

#include <openssl/bn.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/slice.h"

#define FINGERPRINT_BYTES 32
#define SERIAL_MAX        64 /* hexadecimal digits; RFC 5280 has 40 at most */

const struct tls_peer tls_peer_unknown = { "FAILED:no memory", "", "", "", "" };

struct texts {
	struct tls_peer peer; /* first */
	char verify[128];
	char subject[TLS_PEER_NAME_MAX + 1], issuer[TLS_PEER_NAME_MAX + 1];
	char serial[SERIAL_MAX + 1];
	char fingerprint[2 * FINGERPRINT_BYTES + 1];
};

/* What is not printable ASCII is escaped, as RFC 2253 and this flag have it. */
static bool print_name(const X509_NAME *name, char ret[TLS_PEER_NAME_MAX + 1])
{
	BIO *out = BIO_new(BIO_s_mem());
	char *text;
	long len = -1;

	if (out && X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253) >= 0)
		len = BIO_get_mem_data(out, &text);
	if (len >= 0 && len <= TLS_PEER_NAME_MAX)
		slice_to_str(slice_of(text, (size_t)len), ret, TLS_PEER_NAME_MAX + 1);
	BIO_free(out);
	return len >= 0 && len <= TLS_PEER_NAME_MAX;
}

static bool print_serial(const X509 *x, char ret[SERIAL_MAX + 1])
{
	BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL);
	char *hex = n ? BN_bn2hex(n) : NULL;
	bool ok = hex && strlen(hex) <= SERIAL_MAX;

	if (ok)
		slice_to_str(slice_str(hex), ret, SERIAL_MAX + 1);
	OPENSSL_free(hex);
	BN_free(n);
	return ok;
}

static bool print_fingerprint(const X509 *x, char ret[2 * FINGERPRINT_BYTES + 1])
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned len;

	if (X509_digest(x, EVP_sha256(), hash, &len) != 1 || len != FINGERPRINT_BYTES)
		return false;
	for (unsigned i = 0; i < len; i++)
		snprintf(ret + 2 * (size_t)i, 3, "%02x", hash[i]);
	return true;
}

static bool print_all(const X509 *x, struct texts *t)
{
	return print_name(X509_get_subject_name(x), t->subject) && print_name(X509_get_issuer_name(x), t->issuer) &&
	       print_serial(x, t->serial) && print_fingerprint(x, t->fingerprint);
}

/* Who somebody says to be is told only if it is known to be true: a worker that looks no further is not deceived. */
static void tell(struct texts *t, const char *verify)
{
	snprintf(t->verify, sizeof(t->verify), "%s", verify);
	t->subject[0] = t->issuer[0] = t->serial[0] = t->fingerprint[0] = '\0';
}

struct tls_peer *tls_peer_new(const SSL *ssl)
{
	struct texts *t = calloc(1, sizeof(*t));
	const X509 *x = SSL_get0_peer_certificate(ssl);
	long result = SSL_get_verify_result(ssl);

	if (!t)
		return NULL;
	t->peer = (struct tls_peer){ t->verify, t->subject, t->issuer, t->serial, t->fingerprint };
	if (!x) {
		tell(t, "NONE");
	} else if (result != X509_V_OK) {
		tell(t, "");
		snprintf(t->verify, sizeof(t->verify), "FAILED:%s", X509_verify_cert_error_string(result));
	} else if (!print_all(x, t)) {
		tell(t, "FAILED:its names are too long");
	} else {
		snprintf(t->verify, sizeof(t->verify), "SUCCESS");
	}
	return &t->peer;
}

void tls_peer_free(struct tls_peer *p)
{
	free(p); /* the first member of what was allocated */
}
