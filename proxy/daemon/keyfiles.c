#include "proxy/daemon/keyfiles.h"

#include <fcntl.h>
#include <openssl/asn1.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"

#define SECOND_US           INT64_C(1000000)
#define PASSWORD_MAX        1024
#define RSA_BITS_MIN        2048
#define STAPLE_UNTIL_US     (7 * 24 * 3600 * SECOND_US) /* of one that does not say when there is a newer one */
#define STAPLE_CLOCK_SKEW_S 300

struct reading {
	const struct conf_tls *t;
	const struct clock *clock;
	struct buf *errors, *warnings;
	struct tls_material *m;
};

/* A whole file. */
struct content {
	char *ptr; /* NUL-terminated */
	size_t len;
	mode_t mode;
};

static void say(
    struct buf *to, const struct reading *r, const char *option, const char *file, const char *found, const char *expected)
{
	char name[512];

	buf_printf(to, "tls %s.%s: %s: found %s, expected %s\n", r->t->name, option,
	    log_escape(slice_str(file), name, sizeof(name)), found, expected);
}

static int refuse(const struct reading *r, const char *option, const char *file, const char *found, const char *expected)
{
	ERR_clear_error();
	say(r->errors, r, option, file, found, expected);
	return -EINVAL;
}

/* ---- files ---- */

static void content_done(struct content *c)
{
	OPENSSL_clear_free(c->ptr, c->len + 1);
	*c = (struct content){ 0 };
}

static int read_whole(int fd, struct content *ret)
{
	struct stat st;
	size_t len = 0;
	ssize_t n = 0;

	if (fstat(fd, &st) == -1)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EISDIR;
	if (st.st_size > (off_t)KEYFILE_MAX)
		return -EFBIG;
	*ret = (struct content){ .ptr = OPENSSL_malloc((size_t)st.st_size + 1), .len = (size_t)st.st_size, .mode = st.st_mode };
	if (!ret->ptr)
		return -ENOMEM;
	while (len < ret->len && (n = read(fd, ret->ptr + len, ret->len - len)) > 0)
		len += (size_t)n;
	if (n == -1)
		return -errno;
	memset(ret->ptr + len, 0, ret->len + 1 - len); /* it became shorter meanwhile */
	return 0;
}

/* 0, -ENOMEM, or -EINVAL and said. *ret is to be done either way. */
static int read_file(const struct reading *r, const char *option, const char *file, struct content *ret)
{
	/* A pipe would be waited for. */
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int err = fd == -1 ? -errno : 0;
	char found[128];

	*ret = (struct content){ 0 };
	if (!err)
		err = read_whole(fd, ret);
	if (fd != -1)
		close(fd);
	if (!err || err == -ENOMEM)
		return err;
	if (err == -EISDIR)
		return refuse(r, option, file, "no regular file", "a file");
	if (err == -EFBIG)
		return refuse(r, option, file, "more than 1M", "a file of certificates or keys");
	snprintf(found, sizeof(found), "nothing to read (%s)", strerror(-err));
	return refuse(r, option, file, found, "a file that forebay's master may read");
}

/* ---- certificates ---- */

static int64_t time_us(const ASN1_TIME *t)
{
	struct tm tm;

	return t && ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) * SECOND_US : 0;
}

int64_t keyfiles_expiry_us(const X509 *x)
{
	return time_us(X509_get0_notAfter(x));
}

int64_t keyfiles_begin_us(const X509 *x)
{
	return time_us(X509_get0_notBefore(x));
}

/* What stands in a file besides certificates is passed over, as it is everywhere. */
static int parse_certificates(const struct content *c, int max, STACK_OF(X509) * *ret)
{
	BIO *in = BIO_new_mem_buf(c->ptr, (int)c->len);
	X509 *x = NULL;
	unsigned long end;
	int err = 0;

	*ret = sk_X509_new_null();
	if (!in || !*ret)
		err = -ENOMEM;
	while (!err && (x = PEM_read_bio_X509(in, NULL, NULL, NULL)) != NULL) {
		if (sk_X509_num(*ret) == max)
			err = -E2BIG;
		else if (sk_X509_push(*ret, x) > 0)
			x = NULL;
		else
			err = -ENOMEM;
		X509_free(x);
	}
	end = ERR_peek_last_error();
	if (!err && !(ERR_GET_LIB(end) == ERR_LIB_PEM && ERR_GET_REASON(end) == PEM_R_NO_START_LINE))
		err = -EBADMSG;
	ERR_clear_error();
	BIO_free(in);
	return err;
}

static int read_certificates(
    const struct reading *r, const char *option, const char *file, int max, const char *expected, STACK_OF(X509) * *ret)
{
	struct content c;
	char found[96];
	int err = read_file(r, option, file, &c);

	if (!err)
		err = parse_certificates(&c, max, ret);
	content_done(&c);
	if (err == -E2BIG) {
		snprintf(found, sizeof(found), "more than %d certificates", max);
		return refuse(r, option, file, found, expected);
	}
	if (err == -EBADMSG) {
		snprintf(found, sizeof(found), "something broken behind %d certificates", sk_X509_num(*ret));
		return refuse(r, option, file, found, expected);
	}
	if (!err && sk_X509_num(*ret) == 0)
		return refuse(r, option, file, "no certificate (no \"-----BEGIN CERTIFICATE-----\")", expected);
	return err;
}

static void warn_of_order(const struct reading *r)
{
	const STACK_OF(X509) *chain = r->m->chain;

	for (int i = 0; i + 1 < sk_X509_num(chain); i++)
		if (X509_check_issued(sk_X509_value(chain, i + 1), sk_X509_value(chain, i)) != X509_V_OK) {
			say(r->warnings, r, "certificate", r->t->certificate,
			    "certificates that do not lead from one to the next",
			    "the certificate first, then its issuer, then that one's");
			return;
		}
}

static int read_chain(const struct reading *r)
{
	static const char expected[] = "the certificate in PEM, then those that lead from it to a root, at most 16";
	int err = read_certificates(r, "certificate", r->t->certificate, TLS_CHAIN_MAX, expected, &r->m->chain);

	if (err)
		return err;
	warn_of_order(r);
	if (keyfiles_begin_us(sk_X509_value(r->m->chain, 0)) > clock_wall_us(r->clock))
		say(r->warnings, r, "certificate", r->t->certificate, "a certificate that is not valid yet",
		    "one that is, or a clock that is right");
	return 0;
}

/* ---- the key ---- */

struct password {
	struct content file;
	bool asked, given;
};

/* The first line. */
static int on_password(char *out, int size, int writing UNUSED, void *ctx)
{
	struct password *p = ctx;
	struct slice rest = slice_of(p->file.ptr, p->file.len), line = rest;

	p->asked = true;
	if (!p->given)
		return -1;
	if (slice_cut(&rest, '\n', &line) && line.len > 0 && line.ptr[line.len - 1] == '\r')
		line.len--;
	if (line.len > (size_t)size)
		return -1;
	memcpy(out, line.ptr, line.len);
	return (int)line.len;
}

static int parse_key(const struct reading *r, const struct content *c, struct password *p)
{
	static const char expected[] = "a private key in PEM (\"-----BEGIN PRIVATE KEY-----\")";
	BIO *in = BIO_new_mem_buf(c->ptr, (int)c->len);
	const char *file = r->t->key;

	if (!in)
		return -ENOMEM;
	r->m->key = PEM_read_bio_PrivateKey(in, NULL, on_password, p);
	BIO_free(in);
	if (r->m->key)
		return 0;
	if (p->asked && !p->given)
		return refuse(r, "key", file, "an encrypted key", "key_password_file with it");
	if (p->asked)
		return refuse(
		    r, "key", file, "a key that the first line of key_password_file does not open", "the key's password");
	return refuse(r, "key", file, "no key that OpenSSL can read", expected);
}

static int check_key(const struct reading *r)
{
	const EVP_PKEY *key = r->m->key;
	char found[64], expected[512], name[400];

	if (X509_check_private_key(sk_X509_value(r->m->chain, 0), key) != 1) {
		snprintf(
		    expected, sizeof(expected), "the key of %s", log_escape(slice_str(r->t->certificate), name, sizeof(name)));
		return refuse(r, "key", r->t->key, "the key of another certificate", expected);
	}
	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA && EVP_PKEY_get_bits(key) < RSA_BITS_MIN) {
		snprintf(found, sizeof(found), "an RSA key of %d bits", EVP_PKEY_get_bits(key));
		return refuse(r, "key", r->t->key, found, "2048 bits or more");
	}
	return 0;
}

static int read_password(const struct reading *r, struct password *p)
{
	if (!r->t->key_password_file)
		return 0;
	p->given = true;
	return read_file(r, "key_password_file", r->t->key_password_file, &p->file);
}

static int read_key(const struct reading *r)
{
	struct password p = { .asked = false };
	struct content c = { 0 };
	int err = read_password(r, &p);

	if (!err)
		err = read_file(r, "key", r->t->key, &c);
	if (!err && c.mode & S_IRWXO)
		say(r->warnings, r, "key", r->t->key, "a key file that every user of this machine may open", "chmod 600");
	if (!err)
		err = parse_key(r, &c, &p);
	content_done(&c);
	content_done(&p.file);
	return err ? err : check_key(r);
}

/* ---- the staple ---- */

static int leave_out_staple(const struct reading *r, const char *found, const char *expected)
{
	ERR_clear_error();
	say(r->warnings, r, "ocsp_staple", r->t->ocsp_staple, found, expected);
	return 0;
}

static X509 *issuer_of(const struct tls_material *m)
{
	return sk_X509_num(m->chain) > 1 ? sk_X509_value(m->chain, 1) : sk_X509_value(m->chain, 0);
}

/* Is this the answer to a question about our certificate? With the hash that the responder chose. */
static bool is_about_us(OCSP_SINGLERESP *single, X509 *leaf, X509 *issuer)
{
	const OCSP_CERTID *theirs = OCSP_SINGLERESP_get0_id(single);
	ASN1_OBJECT *md = NULL;
	OCSP_CERTID *ours;
	bool same;

	(void)OCSP_id_get0_info(NULL, &md, NULL, NULL, (OCSP_CERTID *)(uintptr_t)theirs);
	ours = OCSP_cert_to_id(EVP_get_digestbyobj(md), leaf, issuer);
	same = ours && OCSP_id_cmp(ours, theirs) == 0;
	OCSP_CERTID_free(ours);
	return same;
}

static OCSP_SINGLERESP *find_single(OCSP_BASICRESP *basic, const struct tls_material *m)
{
	for (int i = 0; i < OCSP_resp_count(basic); i++) {
		OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);

		if (is_about_us(single, sk_X509_value(m->chain, 0), issuer_of(m)))
			return single;
	}
	return NULL;
}

/* By the issuer, or by somebody whom it lets sign such answers. */
static bool is_signed(OCSP_BASICRESP *basic, const struct tls_material *m)
{
	X509_STORE *store = X509_STORE_new();
	bool ok = store && X509_STORE_add_cert(store, issuer_of(m)) == 1 &&
	          X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1 &&
	          OCSP_basic_verify(basic, m->chain, store, 0) == 1;

	X509_STORE_free(store);
	return ok;
}

static int judge_single(const struct reading *r, OCSP_BASICRESP *basic)
{
	ASN1_GENERALIZEDTIME *this_update, *next_update;
	OCSP_SINGLERESP *single = find_single(basic, r->m);
	int status;

	if (!single)
		return leave_out_staple(r, "an answer about another certificate", "one about this certificate");
	if (!is_signed(basic, r->m))
		return leave_out_staple(r, "a signature that is not the issuer's", "the issuer's, or that of its responder");
	status = OCSP_single_get0_status(single, NULL, NULL, &this_update, &next_update);
	if (status != V_OCSP_CERTSTATUS_GOOD)
		return leave_out_staple(r,
		    status == V_OCSP_CERTSTATUS_REVOKED ? "that the certificate is revoked" : "no known status",
		    "the status \"good\"");
	if (time_us(this_update) / SECOND_US > clock_wall_us(r->clock) / SECOND_US + STAPLE_CLOCK_SKEW_S)
		return leave_out_staple(r, "an answer of a time to come", "one of now, or a clock that is right");
	r->m->staple_until_us = next_update ? time_us(next_update) : time_us(this_update) + STAPLE_UNTIL_US;
	if (r->m->staple_until_us <= clock_wall_us(r->clock))
		return leave_out_staple(r, "an answer whose time is over", "a newer one");
	return 1;
}

/* 1: it can be used. */
static int judge_staple(const struct reading *r, const struct content *c)
{
	const unsigned char *p = (const unsigned char *)c->ptr;
	OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &p, (long)c->len);
	OCSP_BASICRESP *basic = NULL;
	int use;

	if (response && OCSP_response_status(response) == OCSP_RESPONSE_STATUS_SUCCESSFUL)
		basic = OCSP_response_get1_basic(response);
	if (basic)
		use = judge_single(r, basic);
	else
		use = leave_out_staple(r, "no successful OCSP response", "one, in DER");
	OCSP_BASICRESP_free(basic);
	OCSP_RESPONSE_free(response);
	return use;
}

/* Nothing of a staple is worth a site: what is wrong with it is a warning. */
static int read_staple(const struct reading *r)
{
	struct reading soft = *r;
	struct content c;
	int err;

	if (!r->t->ocsp_staple)
		return 0;
	soft.errors = r->warnings;
	err = read_file(&soft, "ocsp_staple", r->t->ocsp_staple, &c);
	if (!err && c.len > TLS_STAPLE_MAX)
		err = leave_out_staple(r, "more than 64K", "an OCSP response");
	else if (!err && judge_staple(r, &c) == 1) {
		r->m->staple = malloc(c.len);
		r->m->staple_len = c.len;
		if (r->m->staple)
			memcpy(r->m->staple, c.ptr, c.len);
		else
			err = -ENOMEM;
	}
	content_done(&c);
	return err == -EINVAL ? 0 : err;
}

/* ---- the rest ---- */

static int read_client_ca(const struct reading *r)
{
	static const char expected[] = "certificates of authorities in PEM, at most 1024";

	if (!r->t->client_ca)
		return 0;
	return read_certificates(r, "client_ca", r->t->client_ca, TLS_CLIENT_CA_MAX, expected, &r->m->client_ca);
}

static int read_ticket_key(const struct reading *r, const char *file)
{
	struct content c;
	char found[32];
	int err = read_file(r, "ticket_key_file", file, &c);

	snprintf(found, sizeof(found), "%zu bytes", c.len);
	if (!err && r->m->ticket_key_count == TLS_TICKET_KEYS_MAX)
		err = refuse(r, "ticket_key_file", file, "one key more", "at most 16");
	if (!err && !ticket_key_parse(c.ptr, c.len, &r->m->ticket_keys[r->m->ticket_key_count]))
		err = refuse(r, "ticket_key_file", file, found, "80 or 48 random bytes (openssl rand -out FILE 80)");
	if (!err && c.mode & S_IRWXO)
		say(r->warnings, r, "ticket_key_file", file, "a key file that every user of this machine may open",
		    "chmod 600");
	if (!err)
		r->m->ticket_key_count++;
	content_done(&c);
	return err;
}

static int read_ticket_keys(const struct reading *r)
{
	int err = 0;

	for (size_t i = 0; i < r->t->ticket_key_file_count && !err; i++)
		err = read_ticket_key(r, r->t->ticket_key_files[i].text);
	return err;
}

int keyfiles_read(
    const struct conf_tls *t, const struct clock *clock, struct buf *errors, struct buf *warnings, struct tls_material *ret)
{
	static int (*const steps[])(
	    const struct reading *) = { read_chain, read_key, read_client_ca, read_ticket_keys, read_staple };
	const struct reading r = { t, clock, errors, warnings, ret };
	int err = 0;

	*ret = (struct tls_material){ 0 };
	ERR_clear_error();
	for (size_t i = 0; i < ARRAY_LEN(steps) && !err; i++)
		err = steps[i](&r);
	ERR_clear_error();
	if (err)
		tls_material_done(ret);
	return err;
}
