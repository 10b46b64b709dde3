/* keys: what is read from files, in which words the rest is refused, and what becomes of files that change. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/ocsp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "proxy/daemon/keyfiles.h"
#include "proxy/daemon/keys.h"
#include "tests/unit/made_certs.h"

#define DAY_US    (INT64_C(86400) * 1000000)
#define WAIT_MOST 60 /* seconds: a hopeless failure */

static struct {
	struct made ca, other_ca, leaf, newer, expired, coming, small, other, locked;
} all;

static const struct made_plan plans[] = {
	{ .cn = "authority" },
	{ .cn = "another authority" },
	{ .issuer = &all.ca, .cn = "leaf", .names = "DNS:example.test", .serial = 17, .from_s = -3600, .until_s = 90 * 86400 },
	{ .issuer = &all.ca, .cn = "newer", .names = "DNS:example.test", .serial = 18, .from_s = -3600, .until_s = 90 * 86400 },
	{ .issuer = &all.ca, .cn = "expired", .serial = 19, .from_s = -7200, .until_s = -3600 },
	{ .issuer = &all.ca, .cn = "coming", .serial = 20, .from_s = 3600, .until_s = 7200 },
	{ .issuer = &all.ca, .kind = MADE_RSA_SMALL, .cn = "small", .serial = 21 },
	{ .issuer = &all.other_ca, .kind = MADE_ED25519, .cn = "other", .serial = 22, .from_s = -3600, .until_s = 90 * 86400 },
	{ .issuer = &all.ca, .cn = "locked", .serial = 23 },
};

/* A folder of its own for each test. */
struct site {
	char folder[64];
	struct conf *conf;
	struct keys *keys;
	struct event_base *base;
	unsigned changes;
	struct buf log; /* all lines */
};

static int make_certificates(void **state UNUSED)
{
	struct made *to = &all.ca;

	static_assert(sizeof(all) == ARRAY_LEN(plans) * sizeof(struct made), "a plan for each");
	for (size_t i = 0; i < ARRAY_LEN(plans); i++)
		to[i] = made(&plans[i]);
	return 0;
}

static int drop_certificates(void **state UNUSED)
{
	struct made *of = &all.ca;

	for (size_t i = 0; i < ARRAY_LEN(plans); i++)
		made_done(&of[i]);
	return 0;
}

/* ---- files ---- */

static const char *path_in(const struct site *s, const char *name)
{
	static char paths[8][PATH_MAX];
	static unsigned next;
	char *path = paths[next++ % ARRAY_LEN(paths)];

	snprintf(path, PATH_MAX, "%s/%s", s->folder, name);
	return path;
}

static void put_bytes(const struct site *s, const char *name, const void *bytes, size_t len, mode_t mode)
{
	FILE *f = fopen(path_in(s, name), "w");

	assert_non_null(f);
	assert_int_equal(fchmod(fileno(f), mode), 0);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void put_text(const struct site *s, const char *name, const char *text)
{
	put_bytes(s, name, text, strlen(text), 0600);
}

static void put_certificate(const struct site *s, const char *name, const struct made *m)
{
	made_write_certificate(path_in(s, name), m);
}

static void put_key(const struct site *s, const char *name, const struct made *m)
{
	made_write_key(path_in(s, name), m, NULL);
}

/* As a careful program does it. */
static void replace(const struct site *s, const char *name, const struct made *certificate, const struct made *key)
{
	char next[PATH_MAX];

	snprintf(next, sizeof(next), "%s.next", path_in(s, name));
	if (certificate)
		made_write_certificate(next, certificate);
	else
		made_write_key(next, key, NULL);
	assert_int_equal(rename(next, path_in(s, name)), 0);
}

static void append_issuer(const struct site *s, const char *name, const struct made *m)
{
	char issuer[PATH_MAX], command[2 * PATH_MAX + 32];

	snprintf(issuer, sizeof(issuer), "%s", path_in(s, "issuer.tmp"));
	made_write_certificate(issuer, m);
	snprintf(command, sizeof(command), "cat %s >>%s", issuer, path_in(s, name));
	assert_int_equal(system(command), 0);
}

/* ---- a site ---- */

static void keep_line(void *ctx, enum log_level level UNUSED, struct slice line)
{
	buf_add(&((struct site *)ctx)->log, line);
}

static void site_init(struct site *s)
{
	*s = (struct site){ .folder = "/tmp/forebay-keys-XXXXXX" };
	assert_non_null(mkdtemp(s->folder));
	buf_init(&s->log, 1 << 20);
	log_setup("test", LOG_LEVEL_INFO, keep_line, s);
	put_certificate(s, "c.pem", &all.leaf);
	put_key(s, "k.pem", &all.leaf);
}

static void site_done(struct site *s)
{
	char command[128];

	keys_free(&s->keys);
	conf_drop(&s->conf);
	if (s->base)
		event_base_free(s->base);
	buf_done(&s->log);
	log_setup("test", LOG_LEVEL_INFO, NULL, NULL);
	snprintf(command, sizeof(command), "rm -r %s", s->folder);
	assert_int_equal(system(command), 0);
}

/* `options` of [tls main] besides certificate and key; "@" is the folder. */
static void site_conf(struct site *s, const char *certificate, const char *key, const char *options)
{
	struct buf text, errors;

	buf_init(&text, 1 << 16);
	buf_init(&errors, 1 << 16);
	buf_printf(
	    &text, "[listen x]\naddress = 127.0.0.1:1\ntls = main\n[pool p]\napp = demo\n[route *]\npool = p\n[tls main]\n");
	buf_printf(&text, "certificate = %s/%s\nkey = %s/%s\n", s->folder, certificate, s->folder, key);
	for (const char *c = options; *c; c++) {
		if (*c == '@')
			buf_printf(&text, "%s/", s->folder);
		else
			buf_char(&text, *c);
	}
	if (conf_parse("f", buf_slice(&text), &errors, &s->conf) != 0)
		fail_msg("%.*s", SLICE_ARG(buf_slice(&errors)));
	buf_done(&text);
	buf_done(&errors);
}

static void on_changed(void *ctx)
{
	((struct site *)ctx)->changes++;
}

static void site_start(struct site *s, const struct clock *clock)
{
	struct buf errors, warnings;

	buf_init(&errors, 1 << 16);
	buf_init(&warnings, 1 << 16);
	if (keys_new(s->conf, clock, &errors, &warnings, &s->keys) != 0)
		fail_msg("%.*s", SLICE_ARG(buf_slice(&errors)));
	assert_int_equal(warnings.len, 0);
	buf_done(&errors);
	buf_done(&warnings);
	s->base = event_base_new();
	assert_int_equal(keys_watch(s->keys, s->base, on_changed, s), 0);
}

static bool said(const struct site *s, const char *words)
{
	return s->log.len > 0 && memmem(s->log.ptr, s->log.len, words, strlen(words));
}

/* Until it has been logged. */
static void wait_said(struct site *s, const char *words)
{
	uint64_t end = clock_mono_ms(&clock_real) + 1000ull * WAIT_MOST;

	while (!said(s, words)) {
		assert_int_equal(event_base_loop(s->base, EVLOOP_ONCE), 0);
		if (clock_mono_ms(&clock_real) > end)
			fail_msg("waited in vain for %s:\n%.*s", words, SLICE_ARG(buf_slice(&s->log)));
	}
}

/* Which certificate the front has been given. */
static long serial_given(const struct site *s, struct tls_materials *ret)
{
	static char bytes[1 << 20];
	ssize_t n = pread(keys_fd(s->keys), bytes, sizeof(bytes), 0);

	assert_true(n > 0);
	assert_int_equal(tls_materials_parse(slice_of(bytes, (size_t)n), s->conf->tls_count, ret), 0);
	return ASN1_INTEGER_get(X509_get0_serialNumber(sk_X509_value(ret->all[0].chain, 0)));
}

static long serial_now(const struct site *s)
{
	struct tls_materials m;
	long serial = serial_given(s, &m);

	tls_materials_done(&m);
	return serial;
}

/* ---- reading ---- */

struct reading {
	const char *name; /* of the row */
	void (*prepare)(const struct site *s);
	const char *options;
	const char *errors, *warnings; /* without "tls main."; "@" is the folder */
};

static void no_file(const struct site *s)
{
	assert_int_equal(unlink(path_in(s, "c.pem")), 0);
}
static void no_pem(const struct site *s)
{
	put_text(s, "c.pem", "hello\n");
}
static void broken_pem(const struct site *s)
{
	append_issuer(s, "c.pem", &all.ca);
	assert_int_equal(truncate(path_in(s, "c.pem"), 900), 0);
}
static void a_folder(const struct site *s)
{
	no_file(s);
	assert_int_equal(mkdir(path_in(s, "c.pem"), 0700), 0);
}
static void a_pipe(const struct site *s)
{
	no_file(s);
	assert_int_equal(mkfifo(path_in(s, "c.pem"), 0600), 0);
}
static void too_large(const struct site *s)
{
	assert_int_equal(truncate(path_in(s, "c.pem"), KEYFILE_MAX + 1), 0);
}
static void largest(const struct site *s)
{
	char *text = malloc(KEYFILE_MAX);

	memset(text, '\n', KEYFILE_MAX);
	put_bytes(s, "tail", text, KEYFILE_MAX, 0600);
	free(text);
	put_certificate(s, "c.pem", &all.leaf);
	assert_int_equal(truncate(path_in(s, "tail"), KEYFILE_MAX - 1024), 0);
}
static void long_chain(const struct site *s)
{
	for (int i = 0; i < TLS_CHAIN_MAX; i++)
		append_issuer(s, "c.pem", &all.ca);
}
static void longest_chain(const struct site *s)
{
	append_issuer(s, "c.pem", &all.ca);
	for (int i = 2; i < TLS_CHAIN_MAX; i++)
		append_issuer(s, "c.pem", &all.ca); /* an authority has issued itself */
}
static void wrong_order(const struct site *s)
{
	append_issuer(s, "c.pem", &all.other_ca);
}
static void not_yet(const struct site *s)
{
	put_certificate(s, "c.pem", &all.coming);
	put_key(s, "k.pem", &all.coming);
}
static void other_key(const struct site *s)
{
	put_key(s, "k.pem", &all.newer);
}
static void no_key(const struct site *s)
{
	put_certificate(s, "k.pem", &all.leaf);
}
static void small_key(const struct site *s)
{
	put_certificate(s, "c.pem", &all.small);
	put_key(s, "k.pem", &all.small);
}
static void open_key(const struct site *s)
{
	assert_int_equal(chmod(path_in(s, "k.pem"), 0644), 0);
}
static void group_key(const struct site *s)
{
	assert_int_equal(chmod(path_in(s, "k.pem"), 0640), 0);
}
static void locked_key(const struct site *s)
{
	put_certificate(s, "c.pem", &all.locked);
	made_write_key(path_in(s, "k.pem"), &all.locked, "open sesame");
	put_text(s, "right", "open sesame\r\nnot this\n");
	put_text(s, "bare", "open sesame");
	put_text(s, "wrong", "sesame\n");
}
static void ticket_files(const struct site *s)
{
	char bytes[81] = "0123456789abcdef";

	put_bytes(s, "t80", bytes, 80, 0600);
	put_bytes(s, "t48", bytes, 48, 0640);
	put_bytes(s, "t81", bytes, 81, 0600);
	put_bytes(s, "t47", bytes, 47, 0600);
	put_bytes(s, "topen", bytes, 80, 0604);
}
static void many_ticket_files(const struct site *s)
{
	char bytes[80] = "", name[16];

	for (int i = 1; i <= TLS_TICKET_KEYS_MAX + 1; i++) {
		snprintf(name, sizeof(name), "t%d", i);
		put_bytes(s, name, bytes, sizeof(bytes), 0600);
	}
}
static void authorities(const struct site *s)
{
	put_certificate(s, "ca", &all.ca);
	append_issuer(s, "ca", &all.other_ca);
	put_text(s, "none", "");
}

static void staple(
    const struct site *s, const struct made *about, const struct made *issuer, int status, long from_s, long until_s)
{
	unsigned char *bytes;
	size_t len = made_staple(about, issuer, status, from_s, until_s, &bytes);

	append_issuer(s, "c.pem", &all.ca);
	put_bytes(s, "staple", bytes, len, 0600);
	OPENSSL_free(bytes);
}
static void good_staple(const struct site *s)
{
	staple(s, &all.leaf, &all.ca, V_OCSP_CERTSTATUS_GOOD, -60, 3600);
}
static void endless_staple(const struct site *s)
{
	staple(s, &all.leaf, &all.ca, V_OCSP_CERTSTATUS_GOOD, -6 * 86400, 0);
}
static void old_endless_staple(const struct site *s)
{
	staple(s, &all.leaf, &all.ca, V_OCSP_CERTSTATUS_GOOD, -8 * 86400, 0);
}
static void old_staple(const struct site *s)
{
	staple(s, &all.leaf, &all.ca, V_OCSP_CERTSTATUS_GOOD, -7200, -60);
}
static void early_staple(const struct site *s)
{
	staple(s, &all.leaf, &all.ca, V_OCSP_CERTSTATUS_GOOD, 3600, 7200);
}
static void revoked_staple(const struct site *s)
{
	staple(s, &all.leaf, &all.ca, V_OCSP_CERTSTATUS_REVOKED, -60, 3600);
}
static void others_staple(const struct site *s)
{
	staple(s, &all.newer, &all.ca, V_OCSP_CERTSTATUS_GOOD, -60, 3600);
}
static void forged_staple(const struct site *s)
{
	unsigned char *bytes;
	OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
	OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha1(), all.leaf.x, all.ca.x);
	ASN1_TIME *from = X509_gmtime_adj(NULL, -60), *until = X509_gmtime_adj(NULL, 3600);
	OCSP_RESPONSE *r;
	int len;

	OCSP_basic_add1_status(basic, id, V_OCSP_CERTSTATUS_GOOD, 0, NULL, from, until);
	assert_int_equal(OCSP_basic_sign(basic, all.other_ca.x, all.other_ca.key, EVP_sha256(), NULL, 0), 1);
	r = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
	bytes = NULL;
	len = i2d_OCSP_RESPONSE(r, &bytes);
	append_issuer(s, "c.pem", &all.ca);
	put_bytes(s, "staple", bytes, (size_t)len, 0600);
	OPENSSL_free(bytes);
	OCSP_RESPONSE_free(r);
	OCSP_BASICRESP_free(basic);
	OCSP_CERTID_free(id);
	ASN1_TIME_free(from);
	ASN1_TIME_free(until);
}
static void refused_staple(const struct site *s)
{
	OCSP_RESPONSE *r = OCSP_response_create(OCSP_RESPONSE_STATUS_TRYLATER, NULL);
	unsigned char *bytes = NULL;
	int len = i2d_OCSP_RESPONSE(r, &bytes);

	put_bytes(s, "staple", bytes, (size_t)len, 0600);
	OPENSSL_free(bytes);
	OCSP_RESPONSE_free(r);
}
static void large_staple(const struct site *s)
{
	char *text = calloc(1, TLS_STAPLE_MAX + 1);

	put_bytes(s, "staple", text, TLS_STAPLE_MAX + 1, 0600);
	free(text);
}

#define STAPLE "ocsp_staple = @staple\n"
#define CA     "client_verify = require\nclient_ca = "

static const struct reading readings[] = {
	{ "as it should be", NULL, "", "", "" },
	{ "missing", no_file, "",
	    "certificate: @c.pem: found nothing to read (No such file or directory), expected a file that forebay's master may read\n",
	    "" },
	{ "no PEM", no_pem, "",
	    "certificate: @c.pem: found no certificate (no \"-----BEGIN CERTIFICATE-----\"), expected the certificate in PEM, then those"
	    " that lead from it to a root, at most 16\n",
	    "" },
	{ "broken PEM", broken_pem, "",
	    "certificate: @c.pem: found something broken behind 1 certificates, expected the certificate in PEM, then those that lead"
	    " from it to a root, at most 16\n",
	    "" },
	{ "folder", a_folder, "", "certificate: @c.pem: found no regular file, expected a file\n", "" },
	{ "pipe", a_pipe, "", "certificate: @c.pem: found no regular file, expected a file\n", "" },
	{ "large", too_large, "", "certificate: @c.pem: found more than 1M, expected a file of certificates or keys\n", "" },
	{ "largest", largest, "", "", "" },
	{ "long chain", long_chain, "",
	    "certificate: @c.pem: found more than 16 certificates, expected the certificate in PEM, then those that lead from it to a"
	    " root, at most 16\n",
	    "" },
	{ "longest chain", longest_chain, "", "", "" },
	{ "order", wrong_order, "", "",
	    "certificate: @c.pem: found certificates that do not lead from one to the next, expected the certificate first, then its"
	    " issuer, then that one's\n" },
	{ "not yet", not_yet, "", "",
	    "certificate: @c.pem: found a certificate that is not valid yet, expected one that is, or a clock that is right\n" },
	{ "other key", other_key, "", "key: @k.pem: found the key of another certificate, expected the key of @c.pem\n", "" },
	{ "no key", no_key, "",
	    "key: @k.pem: found no key that OpenSSL can read, expected a private key in PEM (\"-----BEGIN PRIVATE KEY-----\")\n",
	    "" },
	{ "small key", small_key, "", "key: @k.pem: found an RSA key of 1024 bits, expected 2048 bits or more\n", "" },
	{ "open key", open_key, "", "",
	    "key: @k.pem: found a key file that every user of this machine may open, expected chmod 600\n" },
	{ "group's key", group_key, "", "", "" },
	{ "locked key", locked_key, "", "key: @k.pem: found an encrypted key, expected key_password_file with it\n", "" },
	{ "right password", locked_key, "key_password_file = @right\n", "", "" },
	{ "bare password", locked_key, "key_password_file = @bare\n", "", "" },
	{ "wrong password", locked_key, "key_password_file = @wrong\n",
	    "key: @k.pem: found a key that the first line of key_password_file does not open, expected the key's password\n",
	    "" },
	{ "no password file", locked_key, "key_password_file = @gone\n",
	    "key_password_file: @gone: found nothing to read (No such file or directory), expected a file that forebay's master may"
	    " read\n",
	    "" },
	{ "ticket keys", ticket_files, "ticket_key_file = @t80\nticket_key_file = @t48\n", "", "" },
	{ "long ticket key", ticket_files, "ticket_key_file = @t81\n",
	    "ticket_key_file: @t81: found 81 bytes, expected 80 or 48 random bytes (openssl rand -out FILE 80)\n", "" },
	{ "short ticket key", ticket_files, "ticket_key_file = @t80\nticket_key_file = @t47\n",
	    "ticket_key_file: @t47: found 47 bytes, expected 80 or 48 random bytes (openssl rand -out FILE 80)\n", "" },
	{ "open ticket key", ticket_files, "ticket_key_file = @topen\n", "",
	    "ticket_key_file: @topen: found a key file that every user of this machine may open, expected chmod 600\n" },
	{ "ticket keys to the limit", many_ticket_files,
	    "ticket_key_file = @t1\nticket_key_file = @t2\nticket_key_file = @t3\nticket_key_file = @t4\nticket_key_file = @t5\n"
	    "ticket_key_file = @t6\nticket_key_file = @t7\nticket_key_file = @t8\nticket_key_file = @t9\nticket_key_file = @t10\n"
	    "ticket_key_file = @t11\nticket_key_file = @t12\nticket_key_file = @t13\nticket_key_file = @t14\nticket_key_file = @t15\n"
	    "ticket_key_file = @t16\n",
	    "", "" },
	{ "one ticket key more", many_ticket_files,
	    "ticket_key_file = @t1\nticket_key_file = @t2\nticket_key_file = @t3\nticket_key_file = @t4\nticket_key_file = @t5\n"
	    "ticket_key_file = @t6\nticket_key_file = @t7\nticket_key_file = @t8\nticket_key_file = @t9\nticket_key_file = @t10\n"
	    "ticket_key_file = @t11\nticket_key_file = @t12\nticket_key_file = @t13\nticket_key_file = @t14\nticket_key_file = @t15\n"
	    "ticket_key_file = @t16\nticket_key_file = @t17\n",
	    "ticket_key_file: @t17: found one key more, expected at most 16\n", "" },
	{ "authorities", authorities, CA "@ca\n", "", "" },
	{ "no authority", authorities, CA "@none\n",
	    "client_ca: @none: found no certificate (no \"-----BEGIN CERTIFICATE-----\"), expected certificates of authorities in PEM,"
	    " at most 1024\n",
	    "" },
	{ "staple", good_staple, STAPLE, "", "" },
	{ "endless staple", endless_staple, STAPLE, "", "" },
	{ "old endless staple", old_endless_staple, STAPLE, "",
	    "ocsp_staple: @staple: found an answer whose time is over, expected a newer one\n" },
	{ "old staple", old_staple, STAPLE, "",
	    "ocsp_staple: @staple: found an answer whose time is over, expected a newer one\n" },
	{ "early staple", early_staple, STAPLE, "",
	    "ocsp_staple: @staple: found an answer of a time to come, expected one of now, or a clock that is right\n" },
	{ "revoked", revoked_staple, STAPLE, "",
	    "ocsp_staple: @staple: found that the certificate is revoked, expected the status \"good\"\n" },
	{ "another's staple", others_staple, STAPLE, "",
	    "ocsp_staple: @staple: found an answer about another certificate, expected one about this certificate\n" },
	{ "forged staple", forged_staple, STAPLE, "",
	    "ocsp_staple: @staple: found a signature that is not the issuer's, expected the issuer's, or that of its responder\n" },
	{ "refused staple", refused_staple, STAPLE, "",
	    "ocsp_staple: @staple: found no successful OCSP response, expected one, in DER\n" },
	{ "large staple", large_staple, STAPLE, "", "ocsp_staple: @staple: found more than 64K, expected an OCSP response\n" },
	{ "no staple", NULL, STAPLE, "",
	    "ocsp_staple: @staple: found nothing to read (No such file or directory), expected a file that forebay's master may read\n" },
};

/* The words with what stands for names put in. */
static void expand(const struct site *s, const char *words, struct buf *out)
{
	buf_clear(out);
	if (words[0])
		buf_add(out, SLICE("tls main."));
	for (const char *c = words; *c; c++) {
		if (*c == '@')
			buf_printf(out, "%s/", s->folder);
		else
			buf_char(out, *c);
	}
}

static void expect(const struct site *s, const struct reading *r, const struct buf *got, const char *words)
{
	struct buf want;

	buf_init(&want, 1 << 16);
	expand(s, words, &want);
	if (!slice_eq(buf_slice(got), buf_slice(&want)))
		fail_msg("%s: got\n%.*swanted\n%.*s", r->name, SLICE_ARG(buf_slice(got)), SLICE_ARG(buf_slice(&want)));
	buf_done(&want);
}

static void files_are_taken_or_refused_in_clear_words(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(readings); i++) {
		const struct reading *r = &readings[i];
		struct buf errors, warnings;
		struct tls_material m = { 0 };
		struct site s;
		int err;

		site_init(&s);
		if (r->prepare)
			r->prepare(&s);
		site_conf(&s, "c.pem", "k.pem", r->options);
		buf_init(&errors, 1 << 16);
		buf_init(&warnings, 1 << 16);
		err = keyfiles_read(&s.conf->tls[0], &clock_real, &errors, &warnings, &m);
		expect(&s, r, &errors, r->errors);
		expect(&s, r, &warnings, r->warnings);
		if (err != (r->errors[0] ? -EINVAL : 0))
			fail_msg("%s: %d", r->name, err);
		if ((m.staple != NULL) != (s.conf->tls[0].ocsp_staple && !r->warnings[0]))
			fail_msg("%s: staple", r->name);
		tls_material_done(&m);
		buf_done(&errors);
		buf_done(&warnings);
		site_done(&s);
	}
}

static void what_cannot_be_read_is_no_start(void **state UNUSED)
{
	struct buf errors, warnings;
	struct site s;

	site_init(&s);
	other_key(&s);
	site_conf(&s, "c.pem", "k.pem", "");
	buf_init(&errors, 1 << 16);
	buf_init(&warnings, 1 << 16);
	assert_int_equal(keys_new(s.conf, &clock_real, &errors, &warnings, &s.keys), -EINVAL);
	assert_null(s.keys);
	assert_true(errors.len > 0);
	put_key(&s, "k.pem", &all.leaf);
	conf_drop(&s.conf);
	/* The files are right, the option is not. */
	site_conf(&s, "c.pem", "k.pem", "ciphers = NONSENSE\n");
	buf_clear(&errors);
	assert_int_equal(keys_new(s.conf, &clock_real, &errors, &warnings, &s.keys), -EINVAL);
	assert_true(slice_starts(buf_slice(&errors), SLICE("tls main.ciphers: found \"NONSENSE\"")));
	buf_done(&errors);
	buf_done(&warnings);
	site_done(&s);
}

static void nobody_can_change_what_the_front_gets(void **state UNUSED)
{
	struct site s;
	int fd;

	site_init(&s);
	site_conf(&s, "c.pem", "k.pem", "");
	site_start(&s, &clock_real);
	fd = keys_fd(s.keys);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	assert_int_equal(serial_now(&s), 17);
	site_done(&s);
}

/* ---- changes ---- */

#define RENEWED "event=certificate_renewed tls=main file="

/* Each way makes the path's files those of `newer`. */
static void by_rename(const struct site *s)
{
	replace(s, "k.pem", NULL, &all.newer);
	replace(s, "c.pem", &all.newer, NULL);
}
static void in_place(const struct site *s)
{
	put_key(s, "k.pem", &all.newer);
	put_certificate(s, "c.pem", &all.newer);
}
static void taken_away_and_put_there(const struct site *s)
{
	assert_int_equal(unlink(path_in(s, "k.pem")), 0);
	assert_int_equal(unlink(path_in(s, "c.pem")), 0);
	in_place(s);
}

/* certbot: live/site/c.pem -> ../../archive/site/c1.pem, then c2.pem */
static void live_and_archive(const struct site *s)
{
	assert_int_equal(mkdir(path_in(s, "archive"), 0700), 0);
	assert_int_equal(mkdir(path_in(s, "live"), 0700), 0);
	put_certificate(s, "archive/c1.pem", &all.leaf);
	put_key(s, "archive/k1.pem", &all.leaf);
	assert_int_equal(symlink("../archive/c1.pem", path_in(s, "live/c.pem")), 0);
	assert_int_equal(symlink("../archive/k1.pem", path_in(s, "live/k.pem")), 0);
}
static void links_swapped(const struct site *s)
{
	put_certificate(s, "archive/c2.pem", &all.newer);
	put_key(s, "archive/k2.pem", &all.newer);
	assert_int_equal(unlink(path_in(s, "live/k.pem")), 0);
	assert_int_equal(symlink("../archive/k2.pem", path_in(s, "live/k.pem")), 0);
	assert_int_equal(unlink(path_in(s, "live/c.pem")), 0);
	assert_int_equal(symlink("../archive/c2.pem", path_in(s, "live/c.pem")), 0);
}
static void behind_the_links(const struct site *s)
{
	put_certificate(s, "archive/c1.pem", &all.newer);
	put_key(s, "archive/k1.pem", &all.newer);
}

/* As a volume of Kubernetes: c.pem -> ..data/c.pem, ..data -> ..1, replaced by another folder at once. */
static void volume(const struct site *s)
{
	assert_int_equal(mkdir(path_in(s, "v"), 0700), 0);
	assert_int_equal(mkdir(path_in(s, "v/..1"), 0700), 0);
	put_certificate(s, "v/..1/c.pem", &all.leaf);
	put_key(s, "v/..1/k.pem", &all.leaf);
	assert_int_equal(symlink("..1", path_in(s, "v/..data")), 0);
	assert_int_equal(symlink("..data/c.pem", path_in(s, "v/c.pem")), 0);
	assert_int_equal(symlink("..data/k.pem", path_in(s, "v/k.pem")), 0);
}
static void volume_swapped(const struct site *s)
{
	assert_int_equal(mkdir(path_in(s, "v/..2"), 0700), 0);
	put_certificate(s, "v/..2/c.pem", &all.newer);
	put_key(s, "v/..2/k.pem", &all.newer);
	assert_int_equal(symlink("..2", path_in(s, "v/..tmp")), 0);
	assert_int_equal(rename(path_in(s, "v/..tmp"), path_in(s, "v/..data")), 0);
}

static void subfolder(const struct site *s)
{
	assert_int_equal(mkdir(path_in(s, "d"), 0700), 0);
	put_certificate(s, "d/c.pem", &all.leaf);
	put_key(s, "d/k.pem", &all.leaf);
}
static void folder_replaced(const struct site *s)
{
	assert_int_equal(mkdir(path_in(s, "e"), 0700), 0);
	put_certificate(s, "e/c.pem", &all.newer);
	put_key(s, "e/k.pem", &all.newer);
	assert_int_equal(rename(path_in(s, "d"), path_in(s, "old")), 0);
	assert_int_equal(rename(path_in(s, "e"), path_in(s, "d")), 0);
}

static const struct {
	const char *name;
	void (*before)(const struct site *s);
	const char *certificate, *key;
	void (*change)(const struct site *s);
} changes[] = {
	{ "rename", NULL, "c.pem", "k.pem", by_rename },
	{ "in place", NULL, "c.pem", "k.pem", in_place },
	{ "anew", NULL, "c.pem", "k.pem", taken_away_and_put_there },
	{ "links", live_and_archive, "live/c.pem", "live/k.pem", links_swapped },
	{ "behind links", live_and_archive, "live/c.pem", "live/k.pem", behind_the_links },
	{ "by way of links and dots", live_and_archive, "live/../live/./c.pem", "archive/../live//k.pem", links_swapped },
	{ "volume", volume, "v/c.pem", "v/k.pem", volume_swapped },
	{ "folder", subfolder, "d/c.pem", "d/k.pem", folder_replaced },
};

static void a_new_pair_is_taken_however_it_comes(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		struct site s;

		site_init(&s);
		if (changes[i].before)
			changes[i].before(&s);
		site_conf(&s, changes[i].certificate, changes[i].key, "");
		site_start(&s, &clock_real);
		assert_int_equal(serial_now(&s), 17);
		changes[i].change(&s);
		wait_said(&s, RENEWED);
		assert_int_equal(serial_now(&s), 18);
		assert_int_equal(s.changes, 1);
		assert_true(said(&s, "serial=12 ")); /* hexadecimal */
		assert_false(said(&s, "refused"));
		site_done(&s);
	}
}

/* And once it is whole, it is taken. */
static void a_broken_new_file_keeps_the_old_one_and_says_so(void **state UNUSED)
{
	struct site s;

	site_init(&s);
	site_conf(&s, "c.pem", "k.pem", "");
	site_start(&s, &clock_real);
	replace(&s, "c.pem", &all.newer, NULL);
	wait_said(&s, "error: event=tls_files_refused old=stays what=tls main.key: ");
	assert_true(said(&s, "found the key of another certificate, expected the key of "));
	assert_int_equal(serial_now(&s), 17);
	assert_int_equal(s.changes, 0);
	replace(&s, "k.pem", NULL, &all.newer);
	wait_said(&s, RENEWED);
	assert_int_equal(serial_now(&s), 18);
	buf_clear(&s.log);
	assert_int_equal(unlink(path_in(&s, "c.pem")), 0);
	wait_said(&s, "event=tls_files_refused");
	assert_int_equal(serial_now(&s), 18);
	assert_int_equal(s.changes, 1);
	site_done(&s);
}

static void an_expired_one_takes_no_valid_ones_place(void **state UNUSED)
{
	struct site s;

	site_init(&s);
	site_conf(&s, "c.pem", "k.pem", "");
	site_start(&s, &clock_real);
	replace(&s, "k.pem", NULL, &all.expired);
	replace(&s, "c.pem", &all.expired, NULL);
	wait_said(&s, "event=tls_files_refused old=stays what=tls main.certificate: ");
	assert_true(said(&s, "found a certificate that has expired ("));
	assert_int_equal(serial_now(&s), 17);
	site_done(&s);
	/* For want of any other it is served, and that is told. */
	site_init(&s);
	put_certificate(&s, "c.pem", &all.expired);
	put_key(&s, "k.pem", &all.expired);
	site_conf(&s, "c.pem", "k.pem", "");
	site_start(&s, &clock_real);
	assert_true(said(&s, "error: event=certificate_expired tls=main file="));
	assert_int_equal(serial_now(&s), 19);
	by_rename(&s);
	wait_said(&s, RENEWED);
	assert_int_equal(serial_now(&s), 18);
	site_done(&s);
}

/* One section's trouble is not another's. */
static void each_section_is_renewed_by_itself(void **state UNUSED)
{
	struct tls_materials m;
	struct site s;

	site_init(&s);
	put_certificate(&s, "c2.pem", &all.other);
	put_key(&s, "k2.pem", &all.other);
	site_conf(&s, "c.pem", "k.pem",
	    "[tls second]\ncertificate = @c2.pem\nkey = @k2.pem\n[listen y]\naddress = 127.0.0.1:2\ntls = second\n");
	site_start(&s, &clock_real);
	replace(&s, "c2.pem", &all.leaf, NULL);
	by_rename(&s);
	wait_said(&s, RENEWED);
	assert_int_equal(serial_given(&s, &m), 18);
	assert_int_equal(ASN1_INTEGER_get(X509_get0_serialNumber(sk_X509_value(m.all[1].chain, 0))), 22);
	tls_materials_done(&m);
	wait_said(&s, "event=tls_files_refused old=stays what=tls second.key: ");
	site_done(&s);
}

static void a_new_staple_is_taken_and_a_broken_one_is_not(void **state UNUSED)
{
	struct tls_materials m;
	unsigned char *bytes;
	size_t len, first;
	struct site s;

	site_init(&s);
	good_staple(&s);
	site_conf(&s, "c.pem", "k.pem", STAPLE);
	site_start(&s, &clock_real);
	(void)serial_given(&s, &m);
	first = m.all[0].staple_len;
	assert_true(first > 0);
	tls_materials_done(&m);
	/* The old one is of this certificate and of this time. */
	put_text(&s, "staple", "nonsense");
	append_issuer(&s, "c.pem", &all.ca); /* something else has changed */
	wait_said(&s, "event=tls_files_changed");
	assert_true(said(&s, "warning: event=tls_files_warning what=tls main.ocsp_staple: "));
	(void)serial_given(&s, &m);
	assert_int_equal(m.all[0].staple_len, first);
	tls_materials_done(&m);
	buf_clear(&s.log);
	len = made_staple(&all.leaf, &all.ca, V_OCSP_CERTSTATUS_GOOD, -30, 7200, &bytes);
	put_bytes(&s, "staple", bytes, len, 0600);
	wait_said(&s, "event=tls_files_changed");
	(void)serial_given(&s, &m);
	assert_int_equal(m.all[0].staple_len, len);
	assert_memory_equal(m.all[0].staple, bytes, len);
	tls_materials_done(&m);
	OPENSSL_free(bytes);
	/* A new certificate is not served with the old one's. */
	buf_clear(&s.log);
	by_rename(&s);
	wait_said(&s, RENEWED);
	(void)serial_given(&s, &m);
	assert_null(m.all[0].staple);
	tls_materials_done(&m);
	site_done(&s);
}

/* ---- expiry ---- */

static void the_end_of_a_certificate_is_told_four_times(void **state UNUSED)
{
	static const struct {
		int64_t before_s;  /* before the end */
		const char *words; /* NULL: nothing */
		const char *count;
	} steps[] = {
		{ 40 * 86400, NULL, NULL },
		{ 30 * 86400 + 1, NULL, NULL },
		{ 30 * 86400, "info: event=certificate_expires tls=main file=", "expired=0 expiring=1 of=1" },
		{ 29 * 86400, NULL, NULL },
		{ 7 * 86400, "warning: event=certificate_expires tls=main file=", "expired=0 expiring=1 of=1" },
		{ 2 * 86400, NULL, NULL },
		{ 86400, "error: event=certificate_expires tls=main file=", "expired=0 expiring=1 of=1" },
		{ 1, NULL, NULL },
		{ 0, "error: event=certificate_expired tls=main file=", "expired=1 expiring=0 of=1" },
		{ -5 * 86400, NULL, NULL },
	};
	int64_t end_us = keyfiles_expiry_us(all.leaf.x);
	struct clock_test clock;
	struct site s;

	clock_test_init(&clock);
	clock.wall_us = end_us - 60 * DAY_US;
	site_init(&s);
	site_conf(&s, "c.pem", "k.pem", "");
	site_start(&s, &clock.clock);
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		buf_clear(&s.log);
		clock.wall_us = end_us - steps[i].before_s * 1000000;
		keys_tell_expiry(s.keys);
		if (steps[i].words ? !said(&s, steps[i].words) || !said(&s, steps[i].count) : s.log.len > 0)
			fail_msg("row %zu: %.*s", i, SLICE_ARG(buf_slice(&s.log)));
		keys_tell_expiry(s.keys);
	}
	site_done(&s);
}

/* ---- forebay's own ticket keys ---- */

static struct tls_materials given(const struct site *s)
{
	struct tls_materials m;

	(void)serial_given(s, &m);
	return m;
}

/* Whoever takes a lost front's place gets what that one had. */
static void ticket_keys_stay_until_it_is_time_for_new_ones(void **state UNUSED)
{
	struct tls_materials first, now;
	struct clock_test clock;
	struct site s;

	clock_test_init(&clock);
	clock.wall_us = keyfiles_expiry_us(all.leaf.x) - 60 * DAY_US;
	site_init(&s);
	site_conf(&s, "c.pem", "k.pem", "");
	site_start(&s, &clock.clock);
	first = given(&s);
	assert_int_equal(first.own_count, 1);
	clock_test_advance(&clock, (TICKETS_TURN_MS - 1) * 1000);
	keys_turn_tickets(s.keys);
	by_rename(&s);
	wait_said(&s, RENEWED);
	assert_int_equal(s.changes, 1); /* the certificate's */
	now = given(&s);
	assert_int_equal(now.own_count, 1);
	assert_memory_equal(now.own, first.own, sizeof(now.own[0]));
	tls_materials_done(&now);
	clock_test_advance(&clock, 1000);
	keys_turn_tickets(s.keys);
	keys_turn_tickets(s.keys);
	assert_int_equal(s.changes, 2);
	now = given(&s);
	assert_int_equal(now.own_count, 2);
	assert_memory_not_equal(now.own[0].name, first.own[0].name, TICKET_NAME_BYTES);
	assert_memory_equal(&now.own[1], &first.own[0], sizeof(now.own[1]));
	tls_materials_done(&now);
	tls_materials_done(&first);
	assert_int_equal(serial_now(&s), 18);
	site_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_are_taken_or_refused_in_clear_words),
		cmocka_unit_test(what_cannot_be_read_is_no_start),
		cmocka_unit_test(nobody_can_change_what_the_front_gets),
		cmocka_unit_test(a_new_pair_is_taken_however_it_comes),
		cmocka_unit_test(a_broken_new_file_keeps_the_old_one_and_says_so),
		cmocka_unit_test(an_expired_one_takes_no_valid_ones_place),
		cmocka_unit_test(each_section_is_renewed_by_itself),
		cmocka_unit_test(a_new_staple_is_taken_and_a_broken_one_is_not),
		cmocka_unit_test(the_end_of_a_certificate_is_told_four_times),
		cmocka_unit_test(ticket_keys_stay_until_it_is_time_for_new_ones),
	};

	return cmocka_run_group_tests(tests, make_certificates, drop_certificates);
}
