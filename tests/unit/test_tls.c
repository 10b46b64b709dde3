/* tls: whole handshakes in memory: which certificate, which version, which protocol, who the client is, what is resumed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/ssl.h>
#include <stdlib.h>

#include "core/buf.h"
#include "proxy/client/tls_shop.h"
#include "tests/unit/made_certs.h"

#define CERTIFICATES 4
#define DAY_US       (INT64_C(86400) * 1000000)

/* Made once: RSA keys take their time. */
static struct {
	struct made ca, ec, rsa, other, bare; /* example.test with both keys, another name, a name in the subject alone */
	struct made stranger_ca, friend, stranger, gone;
} all;

static const struct made_plan plans[] = {
	{ .cn = "authority" },
	{ .issuer = &all.ca, .cn = "ec", .names = "DNS:example.test,DNS:*.example.test", .serial = 2 },
	{ .issuer = &all.ca, .kind = MADE_RSA, .cn = "rsa", .names = "DNS:Example.Test,DNS:rsa.example.test", .serial = 3 },
	{ .issuer = &all.ca, .cn = "other", .names = "DNS:other.test,DNS:example.test", .serial = 4 },
	{ .issuer = &all.ca, .cn = "bare.test", .serial = 5 },
	{ .cn = "another authority" },
	{ .issuer = &all.ca, .cn = "friend, \"1\"\r\nX-Evil: 1", .serial = 255 },
	{ .issuer = &all.stranger_ca, .cn = "stranger" },
	{ .issuer = &all.ca, .cn = "gone", .from_s = -7200, .until_s = -3600 },
};

static int make_certificates(void **state UNUSED)
{
	struct made *const to[] = { &all.ca, &all.ec, &all.rsa, &all.other, &all.bare, &all.stranger_ca, &all.friend,
		&all.stranger, &all.gone };

	assert_int_equal(tls_library_init(), 0);
	for (size_t i = 0; i < ARRAY_LEN(to); i++)
		*to[i] = made(&plans[i]);
	return 0;
}

static int drop_certificates(void **state UNUSED)
{
	struct made *const of[] = { &all.ca, &all.ec, &all.rsa, &all.other, &all.bare, &all.stranger_ca, &all.friend,
		&all.stranger, &all.gone };

	for (size_t i = 0; i < ARRAY_LEN(of); i++)
		made_done(of[i]);
	return 0;
}

/* A listener of these four certificates. */
struct site {
	struct conf_tls sections[CERTIFICATES];
	struct conf_word names[CERTIFICATES];
	struct conf_listen listen;
	struct conf conf;
	struct tls_material materials[CERTIFICATES];
	struct clock_test clock;
	struct tickets *tickets;
	struct tls *tls;
	bool http2;
};

static void site_init(struct site *s)
{
	static char names[CERTIFICATES][8] = { "ec", "rsa", "other", "bare" };
	const struct made *const of[] = { &all.ec, &all.rsa, &all.other, &all.bare };

	*s = (struct site){ .listen = { .tls = s->names, .tls_count = CERTIFICATES } };
	clock_test_init(&s->clock);
	s->clock.wall_us = clock_wall_us(&clock_real);
	for (size_t i = 0; i < CERTIFICATES; i++) {
		s->names[i].text = names[i];
		s->materials[i] = made_material(of[i], NULL);
		s->sections[i] = (struct conf_tls){
			.name = names[i],
			.certificate = names[i],
			.session_tickets = true,
			.session_cache = 100,
			.session_timeout_ms = 86400000,
			.index = i,
		};
	}
	s->conf = (struct conf){ .listens = &s->listen, .listen_count = 1, .tls = s->sections, .tls_count = CERTIFICATES };
	assert_int_equal(tickets_new(&s->clock.clock, &s->tickets), 0);
}

static int site_try(struct site *s, struct buf *errors)
{
	const struct tls_options o = {
		.conf = &s->conf,
		.listen = &s->listen,
		.materials = s->materials,
		.tickets = s->tickets,
		.clock = &s->clock.clock,
		.http2 = s->http2,
	};

	return tls_new(&o, errors, &s->tls);
}

static void site_make(struct site *s)
{
	struct buf errors;

	buf_init(&errors, 4096);
	if (site_try(s, &errors) != 0)
		fail_msg("%.*s", SLICE_ARG(buf_slice(&errors)));
	assert_int_equal(errors.len, 0);
	buf_done(&errors);
}

static void site_done(struct site *s)
{
	tls_drop(&s->tls);
	for (size_t i = 0; i < CERTIFICATES; i++)
		tls_material_done(&s->materials[i]);
	tickets_drop(&s->tickets);
}

/* Both ends of a connection. */
struct pair {
	SSL *server, *client;
	int client_error; /* the reason, or 0 */
	int server_error;
};

struct client {
	const char *name;       /* SNI */
	const char *algorithms; /* of signatures */
	const char *protocols;  /* ALPN, as on the wire */
	int version;            /* the only one; 0: any */
	const struct made *as;  /* its certificate */
	SSL_SESSION *session;   /* to be resumed */
	bool no_ticket, staple;
};

static int reason(SSL *ssl, int n)
{
	int how = SSL_get_error(ssl, n);
	unsigned long code = ERR_peek_error();

	ERR_clear_error();
	return how == SSL_ERROR_WANT_READ || how == SSL_ERROR_WANT_WRITE ? 0 : code ? ERR_GET_REASON(code) : -1;
}

static void join(SSL *a, SSL *b)
{
	BIO *x, *y;

	assert_int_equal(BIO_new_bio_pair(&x, 65536, &y, 65536), 1);
	SSL_set_bio(a, x, x);
	SSL_set_bio(b, y, y);
}

static void client_set(SSL *ssl, const struct client *c)
{
	if (c->name)
		SSL_set_tlsext_host_name(ssl, c->name);
	if (c->algorithms)
		assert_int_equal(SSL_set1_sigalgs_list(ssl, c->algorithms), 1);
	if (c->protocols)
		assert_int_equal(
		    SSL_set_alpn_protos(ssl, (const unsigned char *)c->protocols, (unsigned)strlen(c->protocols)), 0);
	if (c->version) {
		SSL_set_min_proto_version(ssl, c->version);
		SSL_set_max_proto_version(ssl, c->version);
	}
	if (c->as) {
		SSL_use_certificate(ssl, c->as->x);
		SSL_use_PrivateKey(ssl, c->as->key);
	}
	if (c->session)
		SSL_set_session(ssl, c->session);
	if (c->no_ticket)
		SSL_set_options(ssl, SSL_OP_NO_TICKET);
	if (c->staple)
		SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp);
}

/* What either sends is read by the other, until both have nothing more to say. */
static void talk(struct pair *p)
{
	char byte;

	for (int i = 0; i < 8; i++) {
		int n = SSL_read(p->client, &byte, 1);

		p->client_error = p->client_error ? p->client_error : reason(p->client, n);
		n = SSL_read(p->server, &byte, 1);
		p->server_error = p->server_error ? p->server_error : reason(p->server, n);
	}
}

static struct pair meet(struct tls *t, const struct client *c)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	struct pair p = { .server = tls_session(t) };

	assert_non_null(p.server);
	SSL_CTX_set_security_level(ctx, 0);
	p.client = SSL_new(ctx);
	SSL_CTX_free(ctx);
	client_set(p.client, c);
	SSL_set_connect_state(p.client);
	join(p.server, p.client);
	talk(&p);
	return p;
}

/* In good order: a session that was not is not resumed. */
static void part(struct pair *p)
{
	SSL_shutdown(p->client);
	SSL_shutdown(p->server);
	SSL_free(p->client);
	SSL_free(p->server);
}

static bool is_open(const struct pair *p)
{
	return SSL_is_init_finished(p->client) && SSL_is_init_finished(p->server) && !p->client_error && !p->server_error;
}

/* ---- certificates ---- */

#define EC_ONLY  "ECDSA+SHA256"
#define RSA_ONLY "rsa_pss_rsae_sha256:RSA+SHA256"

static const struct {
	const char *name, *algorithms;
	const struct made *expected; /* NULL: no handshake */
} choices[] = {
	{ "example.test", NULL, &all.ec },
	{ "example.test", EC_ONLY, &all.ec },
	{ "example.test", RSA_ONLY, &all.rsa }, /* of the same name */
	{ "EXAMPLE.TEST", RSA_ONLY, &all.rsa },
	{ "example.test.", RSA_ONLY, &all.rsa },
	{ "www.example.test", EC_ONLY, &all.ec },
	{ "www.example.test", RSA_ONLY, NULL }, /* the wildcard is the ECDSA certificate's alone */
	{ "rsa.example.test", RSA_ONLY, &all.rsa },
	{ "rsa.example.test", EC_ONLY, NULL },      /* exact goes before wildcard */
	{ "a.www.example.test", EC_ONLY, &all.ec }, /* a star is one label: the default */
	{ "other.test", NULL, &all.other },
	{ "other.test", RSA_ONLY, NULL },
	{ "bare.test", NULL, &all.bare }, /* no alternative names */
	{ "unknown.test", NULL, &all.ec },
	{ "unknown.test", RSA_ONLY, &all.rsa }, /* what stands beside the default */
	{ "test", NULL, &all.ec },
	{ "*.example.test", EC_ONLY, &all.ec },
	{ "192.0.2.1", NULL, &all.ec },
	{ NULL, NULL, &all.ec },
	{ NULL, RSA_ONLY, &all.rsa },
};

static void the_name_and_the_algorithms_choose(void **state UNUSED)
{
	struct site s;

	site_init(&s);
	site_make(&s);
	for (size_t i = 0; i < ARRAY_LEN(choices); i++)
		for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
			const struct client c = {
				.name = choices[i].name, .algorithms = choices[i].algorithms, .version = version
			};
			struct pair p = meet(s.tls, &c);
			const X509 *got = is_open(&p) ? SSL_get0_peer_certificate(p.client) : NULL;
			const X509 *want = choices[i].expected ? choices[i].expected->x : NULL;

			if (!got != !want)
				fail_msg("row %zu: %s", i, got ? "a handshake" : "no handshake");
			if (got && want && X509_cmp(got, want) != 0)
				fail_msg("row %zu: another certificate", i);
			if (got)
				assert_true(slice_eq(tls_server_name(p.server), slice_str(choices[i].name)));
			part(&p);
		}
	site_done(&s);
}

static void the_chain_goes_with_the_certificate(void **state UNUSED)
{
	struct site s;
	struct pair p;

	site_init(&s);
	tls_material_done(&s.materials[0]);
	s.materials[0] = made_material(&all.ec, &all.ca);
	site_make(&s);
	p = meet(s.tls, &(struct client){ .name = NULL });
	assert_true(is_open(&p));
	assert_int_equal(sk_X509_num(SSL_get_peer_cert_chain(p.client)), 2);
	part(&p);
	site_done(&s);
}

/* ---- versions, ciphers, protocols ---- */

static void versions_are_the_profiles(void **state UNUSED)
{
	static const struct {
		unsigned profile;
		int version;
		bool open;
	} rows[] = {
		{ TLS_PROFILE_INTERMEDIATE, TLS1_VERSION, false },
		{ TLS_PROFILE_INTERMEDIATE, TLS1_1_VERSION, false },
		{ TLS_PROFILE_INTERMEDIATE, TLS1_2_VERSION, true },
		{ TLS_PROFILE_INTERMEDIATE, TLS1_3_VERSION, true },
		{ TLS_PROFILE_MODERN, TLS1_2_VERSION, false },
		{ TLS_PROFILE_MODERN, TLS1_3_VERSION, true },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct site s;
		struct pair p;

		site_init(&s);
		s.sections[0].profile = rows[i].profile;
		site_make(&s);
		p = meet(s.tls, &(struct client){ .version = rows[i].version });
		if (is_open(&p) != rows[i].open)
			fail_msg("row %zu", i);
		part(&p);
		site_done(&s);
	}
}

static const char *cipher_with(struct tls *t, const char *ciphers, char *ret, size_t size)
{
	SSL_CTX *client = SSL_CTX_new(TLS_client_method());
	struct pair p = { .server = tls_session(t) };

	SSL_CTX_set_security_level(client, 0);
	SSL_CTX_set_max_proto_version(client, TLS1_2_VERSION);
	assert_int_equal(SSL_CTX_set_cipher_list(client, ciphers), 1);
	p.client = SSL_new(client);
	SSL_CTX_free(client);
	SSL_set_connect_state(p.client);
	join(p.server, p.client);
	talk(&p);
	snprintf(ret, size, "%s", is_open(&p) ? SSL_get_cipher_name(p.client) : "none");
	part(&p);
	return ret;
}

static void ciphers_are_mozillas_and_the_client_prefers(void **state UNUSED)
{
	static const struct {
		const char *offered, *chosen;
	} rows[] = {
		{ "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384" },
		{ "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256" },
		{ "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305" },
		{ "DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256" },
		{ "AES128-GCM-SHA256", "none" },       /* no forward secrecy */
		{ "ECDHE-RSA-AES128-SHA256", "none" }, /* CBC */
		{ "ECDHE-ECDSA-AES128-SHA", "none" },
		{ "ECDHE-ECDSA-AES128-CCM", "none" },
		{ "AECDH-AES128-SHA:ADH-AES128-GCM-SHA256", "none" },
	};
	struct site s;
	char got[64];

	site_init(&s);
	site_make(&s);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_string_equal(cipher_with(s.tls, rows[i].offered, got, sizeof(got)), rows[i].chosen);
	site_done(&s);
}

static void ciphers_and_curves_may_be_said(void **state UNUSED)
{
	struct site s;
	struct pair p;
	char got[64];

	site_init(&s);
	s.sections[0].ciphers = (char *)"ECDHE-ECDSA-AES256-GCM-SHA384";
	s.sections[0].curves = (char *)"P-384";
	site_make(&s);
	assert_string_equal(cipher_with(s.tls, "ECDHE-ECDSA-AES128-GCM-SHA256", got, sizeof(got)), "none");
	assert_string_equal(
	    cipher_with(s.tls, "ECDHE-ECDSA-AES256-GCM-SHA384", got, sizeof(got)), "ECDHE-ECDSA-AES256-GCM-SHA384");
	p = meet(s.tls, &(struct client){ .version = TLS1_3_VERSION });
	assert_true(is_open(&p));
	assert_int_equal(SSL_get_negotiated_group(p.client), NID_secp384r1);
	part(&p);
	site_done(&s);
	site_init(&s);
	site_make(&s);
	p = meet(s.tls, &(struct client){ .version = TLS1_3_VERSION });
	assert_int_equal(SSL_get_negotiated_group(p.client), NID_X25519);
	part(&p);
	site_done(&s);
}

static void what_openssl_does_not_take_is_told(void **state UNUSED)
{
	struct site s;
	struct buf errors;

	buf_init(&errors, 4096);
	site_init(&s);
	s.sections[0].ciphers = (char *)"NONSENSE";
	assert_int_equal(site_try(&s, &errors), -EINVAL);
	assert_true(
	    slice_starts(buf_slice(&errors), SLICE("tls ec.ciphers: found \"NONSENSE\", which OpenSSL does not take: ")));
	s.sections[0].ciphers = NULL;
	s.sections[0].curves = (char *)"X25519:P-257";
	buf_clear(&errors);
	assert_int_equal(site_try(&s, &errors), -EINVAL);
	assert_true(
	    slice_starts(buf_slice(&errors), SLICE("tls ec.curves: found \"X25519:P-257\", which OpenSSL does not take: ")));
	assert_null(s.tls);
	assert_int_equal(ERR_peek_error(), 0);
	buf_done(&errors);
	site_done(&s);
}

static const struct {
	bool http2;
	const char *offered;
	const char *chosen; /* NULL: refused */
} protocols[] = {
	{ false, "\x08http/1.1", "http/1.1" },
	{ false, "\x02h2\x08http/1.1", "http/1.1" },
	{ false, "\x02h2", NULL },
	{ false, "\x08http/1.0", NULL },
	{ true, "\x02h2\x08http/1.1", "h2" },
	{ true, "\x08http/1.1\x02h2", "h2" },
	{ true, "\x08http/1.1", "http/1.1" },
	{ true, "\x02h3\x02h2", "h2" },
	{ true, "\x06spdy/3", NULL },
	{ true, NULL, "" },
};

static void the_protocol_is_one_that_both_have(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(protocols); i++) {
		const unsigned char *chosen;
		unsigned len;
		struct site s;
		struct pair p;

		site_init(&s);
		s.http2 = protocols[i].http2;
		site_make(&s);
		p = meet(s.tls, &(struct client){ .name = "other.test", .protocols = protocols[i].offered });
		SSL_get0_alpn_selected(p.client, &chosen, &len);
		if (is_open(&p) != (protocols[i].chosen != NULL))
			fail_msg("row %zu", i);
		if (protocols[i].chosen && !slice_eq(slice_of((const char *)chosen, len), slice_str(protocols[i].chosen)))
			fail_msg("row %zu: %.*s", i, (int)len, chosen);
		if (!protocols[i].chosen)
			assert_int_equal(p.client_error, SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
		part(&p);
		site_done(&s);
	}
}

static void nobody_renegotiates(void **state UNUSED)
{
	struct site s;
	struct pair p;

	site_init(&s);
	site_make(&s);
	p = meet(s.tls, &(struct client){ .version = TLS1_2_VERSION });
	assert_true(is_open(&p));
	assert_int_equal(SSL_renegotiate(p.client), 1);
	(void)SSL_do_handshake(p.client);
	talk(&p);
	assert_int_equal(p.client_error, SSL_R_NO_RENEGOTIATION);
	part(&p);
	site_done(&s);
}

/* ---- clients' certificates ---- */

static void site_asks(struct site *s, unsigned verify)
{
	s->sections[0].client_verify = verify;
	s->materials[0].client_ca = sk_X509_new_null();
	X509_up_ref(all.ca.x);
	assert_true(sk_X509_push(s->materials[0].client_ca, all.ca.x) > 0);
}

static const struct {
	unsigned verify;
	const struct made *as;
	const char *said; /* NULL: no handshake */
} clients[] = {
	{ CLIENT_VERIFY_REQUIRE, &all.friend, "SUCCESS" },
	{ CLIENT_VERIFY_REQUIRE, NULL, NULL },
	{ CLIENT_VERIFY_REQUIRE, &all.stranger, NULL },
	{ CLIENT_VERIFY_REQUIRE, &all.gone, NULL },
	{ CLIENT_VERIFY_OPTIONAL, &all.friend, "SUCCESS" },
	{ CLIENT_VERIFY_OPTIONAL, NULL, "NONE" },
	{ CLIENT_VERIFY_OPTIONAL, &all.stranger, "FAILED:unable to verify the first certificate" },
	{ CLIENT_VERIFY_OPTIONAL, &all.gone, "FAILED:certificate has expired" },
};

static void clients_are_who_they_show_to_be(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
		const struct tls_peer *peer;
		struct site s;
		struct pair p;

		site_init(&s);
		site_asks(&s, clients[i].verify);
		site_make(&s);
		/* By a name whose certificate is another one: the door is the same. */
		p = meet(s.tls, &(struct client){ .name = "other.test", .as = clients[i].as });
		if (is_open(&p) != (clients[i].said != NULL))
			fail_msg("row %zu: %d %d", i, p.client_error, p.server_error);
		if (clients[i].said) {
			peer = tls_peer_of(p.server);
			assert_string_equal(peer->verify, clients[i].said);
			assert_ptr_equal(peer, tls_peer_of(p.server));
			if (strcmp(peer->verify, "SUCCESS") != 0) {
				assert_string_equal(peer->subject, "");
				assert_string_equal(peer->fingerprint, "");
				assert_string_equal(peer->serial, "");
			}
		}
		part(&p);
		site_done(&s);
	}
}

static void a_clients_name_is_told_so_that_it_deceives_nobody(void **state UNUSED)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	const struct tls_peer *peer;
	char hex[65];
	struct site s;
	struct pair p;

	site_init(&s);
	site_asks(&s, CLIENT_VERIFY_REQUIRE);
	site_make(&s);
	p = meet(s.tls, &(struct client){ .as = &all.friend });
	peer = tls_peer_of(p.server);
	assert_string_equal(peer->subject, "CN=friend\\, \\\"1\\\"\\0D\\0AX-Evil: 1");
	assert_string_equal(peer->issuer, "CN=authority");
	assert_string_equal(peer->serial, "FF");
	assert_int_equal(X509_digest(all.friend.x, EVP_sha256(), hash, NULL), 1);
	for (size_t i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", hash[i]);
	assert_string_equal(peer->fingerprint, hex);
	part(&p);
	site_done(&s);
}

static void nobody_is_asked_without_client_verify(void **state UNUSED)
{
	struct site s;
	struct pair p;

	site_init(&s);
	site_make(&s);
	p = meet(s.tls, &(struct client){ .as = &all.friend });
	assert_true(is_open(&p));
	assert_null(tls_peer_of(p.server));
	assert_null(SSL_get0_peer_certificate(p.server));
	part(&p);
	site_done(&s);
}

/* ---- staples ---- */

static bool has_staple(const struct pair *p)
{
	const unsigned char *bytes;

	return SSL_get_tlsext_status_ocsp_resp(p->client, &bytes) > 0;
}

static void a_staple_is_its_certificates_and_of_its_time(void **state UNUSED)
{
	static const struct {
		const char *name, *algorithms;
		bool asks, expected;
	} rows[] = {
		{ "example.test", RSA_ONLY, true, true },
		{ "rsa.example.test", RSA_ONLY, true, true },
		{ "example.test", RSA_ONLY, false, false },
		{ "example.test", EC_ONLY, true, false },
		{ "other.test", NULL, true, false },
	};
	struct site s;
	struct pair p;

	site_init(&s);
	s.materials[1].staple_len = made_staple(&all.rsa, &all.ca, V_OCSP_CERTSTATUS_GOOD, -60, 3600, &s.materials[1].staple);
	s.materials[1].staple_until_us = s.clock.wall_us + 1000;
	site_make(&s);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		p = meet(
		    s.tls, &(struct client){ .name = rows[i].name, .algorithms = rows[i].algorithms, .staple = rows[i].asks });
		assert_true(is_open(&p));
		if (has_staple(&p) != rows[i].expected)
			fail_msg("row %zu", i);
		part(&p);
	}
	s.clock.wall_us += 1000;
	p = meet(s.tls, &(struct client){ .name = "example.test", .algorithms = RSA_ONLY, .staple = true });
	assert_true(is_open(&p));
	assert_false(has_staple(&p));
	part(&p);
	site_done(&s);
}

/* ---- sessions ---- */

static SSL_SESSION *session_of(struct tls *t, struct client c)
{
	struct pair p = meet(t, &c);
	SSL_SESSION *session = SSL_get1_session(p.client);

	assert_true(is_open(&p));
	part(&p);
	return session;
}

/* Also gives the session of the connection that was made with it. */
static bool resumes(struct tls *t, struct client c, SSL_SESSION **session)
{
	struct pair p;
	bool reused;

	c.session = *session;
	p = meet(t, &c);
	assert_true(is_open(&p));
	reused = SSL_session_reused(p.server) == 1;
	assert_int_equal(SSL_session_reused(p.client), reused);
	SSL_SESSION_free(*session);
	*session = SSL_get1_session(p.client);
	part(&p);
	return reused;
}

static const struct client ways[] = {
	{ .name = "example.test", .version = TLS1_3_VERSION },
	{ .name = "example.test", .version = TLS1_2_VERSION },
	{ .name = "other.test", .version = TLS1_3_VERSION },
	{ .name = "other.test", .version = TLS1_2_VERSION },
};

static void a_ticket_outlives_two_turns_of_the_keys(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		SSL_SESSION *session, *copy;
		struct site s;

		site_init(&s);
		site_make(&s);
		session = session_of(s.tls, ways[i]);
		copy = SSL_SESSION_dup(session);
		assert_true(resumes(s.tls, ways[i], &session));
		clock_test_advance(&s.clock, 2 * TICKETS_TURN_MS * 1000);
		assert_true(resumes(s.tls, ways[i], &copy));
		/* What was given now is of the new key. */
		clock_test_advance(&s.clock, TICKETS_TURN_MS * 1000);
		assert_true(resumes(s.tls, ways[i], &copy));
		/* What was given at first is of a key that is not there any more. */
		assert_false(resumes(s.tls, ways[i], &session));
		SSL_SESSION_free(session);
		SSL_SESSION_free(copy);
		site_done(&s);
	}
}

static void a_handshake_gives_one_ticket(void **state UNUSED)
{
	struct site s;
	struct pair p;

	site_init(&s);
	site_make(&s);
	p = meet(s.tls, &(struct client){ .version = TLS1_3_VERSION });
	assert_int_equal(SSL_get_num_tickets(p.server), 1);
	part(&p);
	site_done(&s);
}

/* The same keys on two machines: their files are all that they share. */
static void machines_with_the_same_key_file_know_each_others_tickets(void **state UNUSED)
{
	unsigned char bytes[3][TICKET_LARGE_BYTES];

	for (size_t i = 0; i < ARRAY_LEN(ways); i++)
		for (size_t size = TICKET_SMALL_BYTES; size <= TICKET_LARGE_BYTES; size += 32) {
			SSL_SESSION *session;
			struct site a, b;

			memset(bytes, 'k' + (int)i, sizeof(bytes));
			bytes[1][0] = bytes[2][1] = 'x';
			site_init(&a);
			site_init(&b);
			for (size_t k = 0; k < 2; k++) {
				assert_true(ticket_key_parse(bytes[k], size, &a.materials[0].ticket_keys[k]));
				assert_true(ticket_key_parse(bytes[k + 1], size, &b.materials[0].ticket_keys[k]));
			}
			a.materials[0].ticket_key_count = b.materials[0].ticket_key_count = 2;
			site_make(&a);
			site_make(&b);
			session = session_of(b.tls, ways[i]); /* by bytes[1], the second of a */
			assert_true(resumes(a.tls, ways[i], &session));
			/* By bytes[0], which b has not. */
			assert_false(resumes(b.tls, ways[i], &session));
			SSL_SESSION_free(session);
			site_done(&a);
			site_done(&b);
		}
}

static void a_broken_ticket_is_a_full_handshake(void **state UNUSED)
{
	struct site s, other;
	SSL_SESSION *session;

	site_init(&s);
	site_make(&s);
	site_init(&other);
	site_make(&other);
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		session = session_of(s.tls, ways[i]);
		assert_false(resumes(other.tls, ways[i], &session));
		SSL_SESSION_free(session);
	}
	site_done(&s);
	site_done(&other);
}

/* A session begun where nobody was asked who he is opens no door where that matters. */
static void a_session_is_resumed_at_its_own_door_only(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		struct site open, asks;
		SSL_SESSION *session;

		site_init(&open);
		site_make(&open);
		site_init(&asks);
		tickets_drop(&asks.tickets);
		asks.tickets = tickets_hold(open.tickets);
		site_asks(&asks, CLIENT_VERIFY_OPTIONAL);
		site_make(&asks);
		session = session_of(open.tls, ways[i]);
		assert_false(resumes(asks.tls, ways[i], &session));
		assert_true(resumes(asks.tls, ways[i], &session));
		SSL_SESSION_free(session);
		site_done(&open);
		site_done(&asks);
	}
}

static void a_resumed_session_has_its_client(void **state UNUSED)
{
	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		struct client c = { .version = version, .as = &all.friend };
		struct site s;
		struct pair p;

		site_init(&s);
		site_asks(&s, CLIENT_VERIFY_REQUIRE);
		site_make(&s);
		c.session = session_of(s.tls, c);
		c.as = NULL;
		p = meet(s.tls, &c);
		assert_true(SSL_session_reused(p.server));
		assert_string_equal(tls_peer_of(p.server)->verify, "SUCCESS");
		assert_string_equal(tls_peer_of(p.server)->serial, "FF");
		part(&p);
		SSL_SESSION_free(c.session);
		site_done(&s);
	}
}

static void without_tickets_the_cache_remembers_and_has_an_end(void **state UNUSED)
{
	const struct client c = { .version = TLS1_2_VERSION, .no_ticket = true };
	SSL_SESSION *sessions[4];
	struct site s;
	struct pair p;

	site_init(&s);
	s.sections[0].session_cache = 3;
	site_make(&s);
	for (size_t i = 0; i < ARRAY_LEN(sessions); i++)
		sessions[i] = session_of(s.tls, c);
	p = meet(s.tls, &c);
	assert_int_equal(SSL_CTX_sess_number(SSL_get_SSL_CTX(p.server)), 3);
	part(&p);
	assert_false(resumes(s.tls, c, &sessions[0]));
	assert_true(resumes(s.tls, c, &sessions[3]));
	for (size_t i = 0; i < ARRAY_LEN(sessions); i++)
		SSL_SESSION_free(sessions[i]);
	site_done(&s);
}

static void nothing_is_resumed_where_that_is_off(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		SSL_SESSION *session;
		struct site s;

		site_init(&s);
		s.sections[0].session_tickets = false;
		s.sections[0].session_cache = 0;
		site_make(&s);
		session = session_of(s.tls, ways[i]);
		assert_false(resumes(s.tls, ways[i], &session));
		SSL_SESSION_free(session);
		site_done(&s);
	}
}

static void a_session_ends_at_its_time(void **state UNUSED)
{
	struct site s;
	SSL_SESSION *session;

	site_init(&s);
	s.sections[0].session_timeout_ms = 5000;
	site_make(&s);
	session = session_of(s.tls, ways[0]);
	assert_int_equal(SSL_SESSION_get_ticket_lifetime_hint(session), 5);
	SSL_SESSION_free(session);
	site_done(&s);
}

/* ---- renewal ---- */

static void write_materials(const struct site *s, struct buf *out)
{
	struct tls_materials m = { .all = (struct tls_material *)(uintptr_t)s->materials, .count = CERTIFICATES };

	m.own_count = tickets_all(s->tickets, m.own);
	buf_init(out, 1 << 20);
	assert_int_equal(tls_materials_write(&m, out), 0);
}

static void connections_keep_what_they_have(void **state UNUSED)
{
	struct tls_shop *shop;
	struct buf bytes, errors;
	struct tls *t;
	struct pair p;
	struct site s;
	SSL_SESSION *session;

	buf_init(&errors, 4096);
	site_init(&s);
	assert_int_equal(tls_shop_new(&s.conf, &s.clock.clock, &shop), 0);
	assert_null(tls_shop_get(shop, &s.listen));
	write_materials(&s, &bytes);
	assert_int_equal(tls_shop_adopt(shop, buf_slice(&bytes), &errors), 0);
	buf_done(&bytes);
	t = tls_shop_get(shop, &s.listen);
	session = session_of(t, (struct client){ .name = NULL });
	p = meet(t, &(struct client){ .name = NULL });
	assert_true(is_open(&p));
	tls_drop(&t);
	/* Another first certificate. */
	tls_material_done(&s.materials[0]);
	s.materials[0] = made_material(&all.other, NULL);
	write_materials(&s, &bytes);
	assert_int_equal(tls_shop_adopt(shop, buf_slice(&bytes), &errors), 0);
	/* The connection outlives all that it was made of. */
	assert_int_equal(SSL_write(p.server, "x", 1), 1);
	talk(&p);
	assert_int_equal(X509_cmp(SSL_get0_peer_certificate(p.client), all.ec.x), 0);
	t = tls_shop_get(shop, &s.listen);
	part(&p);
	p = meet(t, &(struct client){ .name = NULL });
	assert_int_equal(X509_cmp(SSL_get0_peer_certificate(p.client), all.other.x), 0);
	part(&p);
	/* The keys of tickets are not the certificate's. */
	assert_true(resumes(t, (struct client){ .name = NULL }, &session));
	SSL_SESSION_free(session);
	/* What cannot be used takes nobody's place. */
	bytes.len--;
	assert_int_equal(tls_shop_adopt(shop, buf_slice(&bytes), &errors), -EBADMSG);
	tls_drop(&t);
	t = tls_shop_get(shop, &s.listen);
	assert_non_null(t);
	tls_shop_free(&shop);
	p = meet(t, &(struct client){ .name = NULL });
	tls_drop(&t);
	assert_true(is_open(&p));
	part(&p);
	buf_done(&bytes);
	buf_done(&errors);
	site_done(&s);
}

static void material_comes_through_whole_or_not_at_all(void **state UNUSED)
{
	struct tls_materials got;
	struct buf bytes, again;
	struct site s;
	size_t step = getenv("FOREBAY_UNDER_VALGRIND") ? 97 : 1; /* keys are read each time */

	site_init(&s);
	site_asks(&s, CLIENT_VERIFY_REQUIRE);
	s.materials[1].staple_len = made_staple(&all.rsa, &all.ca, V_OCSP_CERTSTATUS_GOOD, -60, 3600, &s.materials[1].staple);
	assert_true(ticket_key_parse("0123456789abcdef0123456789abcdef0123456789abcdef", 48, &s.materials[0].ticket_keys[0]));
	s.materials[0].ticket_key_count = 1;
	write_materials(&s, &bytes);
	assert_int_equal(tls_materials_parse(buf_slice(&bytes), CERTIFICATES, &got), 0);
	buf_init(&again, 1 << 20);
	assert_int_equal(tls_materials_write(&got, &again), 0);
	assert_true(slice_eq(buf_slice(&bytes), buf_slice(&again)));
	tls_materials_done(&got);
	for (size_t len = 0; len < bytes.len; len += step) {
		int err = tls_materials_parse(slice_of(bytes.ptr, len), CERTIFICATES, &got);

		if (err != -EBADMSG)
			fail_msg("%zu bytes: %d", len, err);
		tls_materials_done(&got);
	}
	buf_add(&bytes, SLICE("x"));
	assert_int_equal(tls_materials_parse(buf_slice(&bytes), CERTIFICATES, &got), -EBADMSG);
	tls_materials_done(&got);
	buf_done(&bytes);
	buf_done(&again);
	ERR_clear_error();
	site_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_name_and_the_algorithms_choose),
		cmocka_unit_test(the_chain_goes_with_the_certificate),
		cmocka_unit_test(versions_are_the_profiles),
		cmocka_unit_test(ciphers_are_mozillas_and_the_client_prefers),
		cmocka_unit_test(ciphers_and_curves_may_be_said),
		cmocka_unit_test(what_openssl_does_not_take_is_told),
		cmocka_unit_test(the_protocol_is_one_that_both_have),
		cmocka_unit_test(nobody_renegotiates),
		cmocka_unit_test(clients_are_who_they_show_to_be),
		cmocka_unit_test(a_clients_name_is_told_so_that_it_deceives_nobody),
		cmocka_unit_test(nobody_is_asked_without_client_verify),
		cmocka_unit_test(a_staple_is_its_certificates_and_of_its_time),
		cmocka_unit_test(a_ticket_outlives_two_turns_of_the_keys),
		cmocka_unit_test(a_handshake_gives_one_ticket),
		cmocka_unit_test(machines_with_the_same_key_file_know_each_others_tickets),
		cmocka_unit_test(a_broken_ticket_is_a_full_handshake),
		cmocka_unit_test(a_session_is_resumed_at_its_own_door_only),
		cmocka_unit_test(a_resumed_session_has_its_client),
		cmocka_unit_test(without_tickets_the_cache_remembers_and_has_an_end),
		cmocka_unit_test(nothing_is_resumed_where_that_is_off),
		cmocka_unit_test(a_session_ends_at_its_time),
		cmocka_unit_test(connections_keep_what_they_have),
		cmocka_unit_test(material_comes_through_whole_or_not_at_all),
	};

	return cmocka_run_group_tests(tests, make_certificates, drop_certificates);
}
