#include "tests/unit/made_certs.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/stat.h>

#define HOUR_S 3600

static EVP_PKEY *make_key(enum made_kind kind)
{
	switch (kind) {
	case MADE_EC:
		return EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	case MADE_RSA:
		return EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
	case MADE_RSA_SMALL:
		return EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)1024);
	case MADE_ED25519:
		return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	}
	return NULL;
}

static void add_extension(X509 *x, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;

	X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(e);
	assert_int_equal(X509_add_ext(x, e, -1), 1);
	X509_EXTENSION_free(e);
}

struct made made(const struct made_plan *p)
{
	struct made m = { .x = X509_new(), .key = make_key(p->kind) };
	const struct made *issuer = p->issuer ? p->issuer : &m;
	bool times = p->from_s || p->until_s;

	assert_non_null(m.x);
	assert_non_null(m.key);
	X509_set_version(m.x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(m.x), p->serial ? p->serial : 1);
	X509_gmtime_adj(X509_getm_notBefore(m.x), times ? p->from_s : -HOUR_S);
	X509_gmtime_adj(X509_getm_notAfter(m.x), times ? p->until_s : HOUR_S);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(m.x), "CN", MBSTRING_UTF8, (const unsigned char *)p->cn, -1, -1, 0);
	X509_set_issuer_name(m.x, X509_get_subject_name(issuer->x));
	X509_set_pubkey(m.x, m.key);
	add_extension(m.x, NID_basic_constraints, p->issuer ? "critical,CA:FALSE" : "critical,CA:TRUE");
	if (p->names)
		add_extension(m.x, NID_subject_alt_name, p->names);
	assert_true(X509_sign(m.x, issuer->key, EVP_sha256()) > 0);
	return m;
}

void made_done(struct made *m)
{
	X509_free(m->x);
	EVP_PKEY_free(m->key);
	*m = (struct made){ 0 };
}

struct tls_material made_material(const struct made *m, const struct made *issuer)
{
	struct tls_material ret = { .chain = sk_X509_new_null(), .key = m->key };

	EVP_PKEY_up_ref(m->key);
	X509_up_ref(m->x);
	assert_true(sk_X509_push(ret.chain, m->x) > 0);
	if (issuer) {
		X509_up_ref(issuer->x);
		assert_true(sk_X509_push(ret.chain, issuer->x) > 0);
	}
	return ret;
}

void made_write_certificate(const char *path, const struct made *m)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(PEM_write_X509(f, m->x), 1);
	assert_int_equal(fclose(f), 0);
}

void made_write_key(const char *path, const struct made *m, const char *password)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fchmod(fileno(f), 0600), 0);
	assert_int_equal(PEM_write_PKCS8PrivateKey(
	                     f, m->key, password ? EVP_aes_256_cbc() : NULL, NULL, 0, NULL, (void *)(uintptr_t)password),
	    1);
	assert_int_equal(fclose(f), 0);
}

size_t made_staple(
    const struct made *about, const struct made *issuer, int status, long from_s, long until_s, unsigned char **ret)
{
	OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
	OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha1(), about->x, issuer->x);
	ASN1_TIME *from = X509_gmtime_adj(NULL, from_s), *until = until_s ? X509_gmtime_adj(NULL, until_s) : NULL;
	ASN1_TIME *revoked = status == V_OCSP_CERTSTATUS_REVOKED ? X509_gmtime_adj(NULL, -HOUR_S) : NULL;
	OCSP_RESPONSE *response;
	int len;

	assert_non_null(OCSP_basic_add1_status(basic, id, status, 0, revoked, from, until));
	assert_int_equal(OCSP_basic_sign(basic, issuer->x, issuer->key, EVP_sha256(), NULL, 0), 1);
	response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
	*ret = NULL;
	len = i2d_OCSP_RESPONSE(response, ret);
	assert_true(len > 0);
	OCSP_RESPONSE_free(response);
	OCSP_BASICRESP_free(basic);
	OCSP_CERTID_free(id);
	ASN1_TIME_free(from);
	ASN1_TIME_free(until);
	ASN1_TIME_free(revoked);
	return (size_t)len;
}
