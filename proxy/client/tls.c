#include "proxy/client/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/buf.h"
#include "proxy/client/tickets.h"
#include "proxy/client/tls_memory.h"
#include "proxy/client/tls_names.h"
#include "proxy/client/tls_peer.h"

/* Mozilla's Server Side TLS, version 5.7. TLS 1.3 has OpenSSL's three ciphers, which are Mozilla's. */
#define INTERMEDIATE_CIPHERS                                                                                                   \
	"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
	"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:"       \
	"DHE-RSA-CHACHA20-POLY1305"
#define CURVES "X25519:prime256v1:secp384r1"

#define SET_MAX 5 /* certificates of one name: one for each kind of key that OpenSSL knows */

/* The certificates of some names: those that stand side by side. */
struct set {
	size_t of[SET_MAX]; /* in listen.tls */
	size_t count;
	SSL_CTX *ctx;
};

struct staple {
	unsigned char *bytes; /* NULL: none */
	size_t len;
	int64_t until_us;
	X509 *of;
};

struct tls {
	atomic_uint refs;
	const struct clock *clock;
	struct tickets *tickets; /* NULL: none are given */
	struct tls_names names;
	struct set *sets; /* the first is the default */
	size_t set_count;
	struct staple *staples; /* by the number in listen.tls */
	size_t staple_count;
	bool http2;
};

/* While one is made. */
struct making {
	struct tls *t;
	const struct tls_options *o;
	const struct conf_tls *policy;
	struct buf *errors;
};

/*
 * Places in an SSL, for what is to go with it. OpenSSL gives them out once in a process, so they are kept here, and never change
 * after tls_library_init.
 */
static int place_of_tls = -1, place_of_peer = -1;

static void free_tls(void *ssl UNUSED, void *ptr, CRYPTO_EX_DATA *data UNUSED, int place UNUSED, long l UNUSED, void *p UNUSED)
{
	struct tls *t = ptr;

	tls_drop(&t);
}

static void free_peer(void *ssl UNUSED, void *ptr, CRYPTO_EX_DATA *data UNUSED, int place UNUSED, long l UNUSED, void *p UNUSED)
{
	tls_peer_free(ptr);
}

int tls_library_init(void)
{
	if (place_of_peer >= 0)
		return 0;
	(void)CRYPTO_set_mem_functions(
	    tls_memory_take, tls_memory_resize, tls_memory_give); /* too late if OpenSSL was used before */
	if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS, NULL) != 1)
		return -ENOMEM;
	place_of_tls = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_tls);
	place_of_peer = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_peer);
	return place_of_tls < 0 || place_of_peer < 0 ? -ENOMEM : 0;
}

const char *tls_library_version(void)
{
	return OpenSSL_version(OPENSSL_VERSION);
}

/* Asked of a socket that is not connected: a kernel with TLS says so (ENOTCONN), one without does not know the name (ENOENT). */
bool tls_kernel_could(void)
{
#ifdef OPENSSL_NO_KTLS
	return false;
#else
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool could = fd != -1 && setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == -1 && errno == ENOTCONN;

	if (fd != -1)
		close(fd);
	return could;
#endif
}

/* ---- what is asked during a handshake ---- */

static struct tls *tls_of(const SSL *ssl)
{
	return SSL_get_ex_data(ssl, place_of_tls);
}

/* All sets of a listener have the same policy, so that certificates are all that changes here. */
static int on_server_name(SSL *ssl, int *alert UNUSED, void *arg UNUSED)
{
	struct tls *t = tls_of(ssl);
	const struct tls_name *found = tls_names_find(&t->names, tls_server_name(ssl));

	if (!found)
		return SSL_TLSEXT_ERR_NOACK;
	if (found->set != 0)
		(void)SSL_set_SSL_CTX(ssl, t->sets[found->set].ctx);
	return SSL_TLSEXT_ERR_OK;
}

/* A client that has none of ours is told so, and not served what it did not offer (RFC 7301, 3.2). */
static int on_alpn(
    SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len, void *arg UNUSED)
{
	static const unsigned char ours[] = "\x02h2\x08http/1.1";
	const unsigned skip = tls_of(ssl)->http2 ? 0 : 3;
	unsigned char *chosen;

	if (SSL_select_next_proto(&chosen, out_len, ours + skip, sizeof(ours) - 1 - skip, in, in_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static const struct staple *staple_for(const struct tls *t, const X509 *x)
{
	for (size_t i = 0; i < t->staple_count; i++)
		if (t->staples[i].of == x)
			return &t->staples[i];
	return NULL;
}

static int on_status(SSL *ssl, void *arg UNUSED)
{
	const struct tls *t = tls_of(ssl);
	const struct staple *s = staple_for(t, SSL_get_certificate(ssl));
	unsigned char *copy;

	if (!s || !s->bytes || clock_wall_us(t->clock) >= s->until_us)
		return SSL_TLSEXT_ERR_NOACK;
	copy = OPENSSL_memdup(s->bytes, s->len);
	if (!copy)
		return SSL_TLSEXT_ERR_NOACK;
	SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)s->len);
	return SSL_TLSEXT_ERR_OK;
}

static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypt)
{
	return tickets_crypt(tls_of(ssl)->tickets, ssl, name, iv, cipher, mac, encrypt);
}

/* client_verify = optional: what is wrong is the worker's to judge. */
static int on_verify_optional(int ok UNUSED, X509_STORE_CTX *store UNUSED)
{
	return 1;
}

/* ---- making ---- */

/* The last thing that OpenSSL found wrong. */
static int refuse(struct making *m, const char *section, const char *what, const char *value)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(code);

	buf_printf(m->errors, "tls %s.%s: found \"%s\", which OpenSSL does not take: %s\n", section, what, value,
	    reason ? reason : "nothing in it can be used");
	ERR_clear_error();
	return -EINVAL;
}

static const struct conf_tls *section_at(const struct making *m, size_t i)
{
	return conf_listen_tls(m->o->conf, m->o->listen, i);
}

static const struct tls_material *material_at(const struct making *m, size_t i)
{
	return &m->o->materials[section_at(m, i)->index];
}

static int set_versions(struct making *m, SSL_CTX *ctx)
{
	bool modern = m->policy->profile == TLS_PROFILE_MODERN;

	SSL_CTX_set_security_level(ctx, 2);
	SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
	                          SSL_MODE_NO_AUTO_CHAIN);
	return SSL_CTX_set_min_proto_version(ctx, modern ? TLS1_3_VERSION : TLS1_2_VERSION) == 1 ? 0 : -ENOMEM;
}

/* RFC 7919's, as Mozilla has it. */
static int set_dh(SSL_CTX *ctx)
{
	EVP_PKEY *key = NULL;
	EVP_PKEY_CTX *maker = EVP_PKEY_CTX_new_from_name(NULL, "DH", NULL);
	bool ok = maker && EVP_PKEY_keygen_init(maker) == 1 && EVP_PKEY_CTX_set_group_name(maker, "ffdhe2048") == 1 &&
	          EVP_PKEY_generate(maker, &key) == 1 && SSL_CTX_set0_tmp_dh_pkey(ctx, key) == 1;

	if (!ok)
		EVP_PKEY_free(key);
	EVP_PKEY_CTX_free(maker);
	return ok ? 0 : -ENOMEM;
}

static int set_ciphers(struct making *m, SSL_CTX *ctx)
{
	const struct conf_tls *p = m->policy;

	if (SSL_CTX_set_cipher_list(ctx, p->ciphers ? p->ciphers : INTERMEDIATE_CIPHERS) != 1)
		return refuse(m, p->name, "ciphers", p->ciphers ? p->ciphers : INTERMEDIATE_CIPHERS);
	if (SSL_CTX_set1_groups_list(ctx, p->curves ? p->curves : CURVES) != 1)
		return refuse(m, p->name, "curves", p->curves ? p->curves : CURVES);
	return p->profile == TLS_PROFILE_MODERN ? 0 : set_dh(ctx);
}

static int set_client_ca(const STACK_OF(X509) * list, SSL_CTX *ctx)
{
	for (int i = 0; i < sk_X509_num(list); i++) {
		X509 *x = sk_X509_value(list, i);

		if (SSL_CTX_add_client_CA(ctx, x) != 1 || X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), x) != 1)
			return -ENOMEM;
	}
	return 0;
}

static int set_client_verify(struct making *m, SSL_CTX *ctx)
{
	const STACK_OF(X509) *list = material_at(m, 0)->client_ca;

	if (m->policy->client_verify == CLIENT_VERIFY_OFF)
		return 0;
	if (m->policy->client_verify == CLIENT_VERIFY_REQUIRE)
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	else
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, on_verify_optional);
	return list ? set_client_ca(list, ctx) : -EINVAL;
}

static void digest_number(EVP_MD_CTX *md, uint64_t n)
{
	(void)EVP_DigestUpdate(md, &n, sizeof(n));
}

/* The authorities decide whether a session was with somebody known. */
static int digest_client_ca(EVP_MD_CTX *md, const STACK_OF(X509) * list)
{
	for (int i = 0; list && i < sk_X509_num(list); i++) {
		unsigned char hash[EVP_MAX_MD_SIZE];
		unsigned len;

		if (X509_digest(sk_X509_value(list, i), EVP_sha256(), hash, &len) != 1 || EVP_DigestUpdate(md, hash, len) != 1)
			return -ENOMEM;
	}
	return 0;
}

/*
 * A session is resumed only where it would have been begun: not at a listener of other certificates or of other clients. The same on all
 * machines of the same configuration, which may share ticket keys.
 */
static int set_session_context(struct making *m, SSL_CTX *ctx)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	int err = -ENOMEM;

	if (md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1) {
		(void)EVP_DigestUpdate(md, m->policy->name, strlen(m->policy->name) + 1);
		digest_number(md, m->policy->client_verify);
		err = digest_client_ca(md, material_at(m, 0)->client_ca);
		if (!err && EVP_DigestFinal_ex(md, hash, &len) != 1)
			err = -ENOMEM;
	}
	EVP_MD_CTX_free(md);
	if (!err && SSL_CTX_set_session_id_context(ctx, hash, MIN(len, SSL_MAX_SID_CTX_LENGTH)) != 1)
		err = -ENOMEM;
	return err;
}

static int set_sessions(struct making *m, SSL_CTX *ctx)
{
	const struct conf_tls *p = m->policy;

	SSL_CTX_set_timeout(ctx, (long)(p->session_timeout_ms / 1000));
	SSL_CTX_set_num_tickets(ctx, p->session_tickets ? 1 : 0);
	if (!p->session_tickets)
		SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	else
		SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
	/* OpenSSL takes 0 for any number, and keeps one less than it is told. */
	SSL_CTX_set_session_cache_mode(ctx, p->session_cache > 0 ? SSL_SESS_CACHE_SERVER : SSL_SESS_CACHE_OFF);
	SSL_CTX_sess_set_cache_size(ctx, (long)p->session_cache + 1);
	return set_session_context(m, ctx);
}

static void set_callbacks(SSL_CTX *ctx)
{
	SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
	SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
	SSL_CTX_set_tlsext_status_cb(ctx, on_status);
}

/* The chain without the certificate itself. */
static STACK_OF(X509) * rest_of(const STACK_OF(X509) * chain)
{
	STACK_OF(X509) *rest = sk_X509_dup(chain);

	if (rest)
		(void)sk_X509_shift(rest);
	return rest;
}

static int set_certificate(struct making *m, SSL_CTX *ctx, size_t of)
{
	const struct tls_material *material = material_at(m, of);
	const struct conf_tls *section = section_at(m, of);
	STACK_OF(X509) *rest = rest_of(material->chain);
	int err = 0;

	if (!rest)
		return -ENOMEM;
	if (SSL_CTX_use_cert_and_key(ctx, sk_X509_value(material->chain, 0), material->key, rest, 1) != 1)
		err = refuse(m, section->name, "certificate", section->certificate);
	sk_X509_free(rest);
	return err;
}

static int make_ctx(struct making *m, struct set *s)
{
	int err;

	s->ctx = SSL_CTX_new(TLS_server_method());
	err = s->ctx ? set_versions(m, s->ctx) : -ENOMEM;
	if (!err)
		err = set_ciphers(m, s->ctx);
	if (!err)
		err = set_client_verify(m, s->ctx);
	if (!err)
		err = set_sessions(m, s->ctx);
	for (size_t i = 0; !err && i < s->count; i++)
		err = set_certificate(m, s->ctx, s->of[i]);
	if (!err)
		set_callbacks(s->ctx);
	return err;
}

/* ---- which certificates stand side by side ---- */

static int kind_of_key(const struct making *m, size_t of)
{
	return EVP_PKEY_get_base_id(material_at(m, of)->key);
}

/* One more, unless there is one of its kind, which comes before it in the configuration. */
static void set_add(const struct making *m, struct set *s, size_t of)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->of[i] == of || kind_of_key(m, s->of[i]) == kind_of_key(m, of))
			return;
	if (s->count < SET_MAX)
		s->of[s->count++] = of;
}

static bool same_set(const struct set *a, const struct set *b)
{
	return a->count == b->count && memcmp(a->of, b->of, a->count * sizeof(a->of[0])) == 0;
}

/* Its number, with a context that is made if it is new; or -errno. */
static ssize_t intern(struct making *m, struct set *s)
{
	struct tls *t = m->t;
	struct set *more;
	int err;

	for (size_t i = 0; i < t->set_count; i++)
		if (same_set(&t->sets[i], s))
			return (ssize_t)i;
	more = reallocarray(t->sets, t->set_count + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	t->sets = more;
	more[t->set_count] = *s;
	t->set_count++;
	err = make_ctx(m, &more[t->set_count - 1]);
	return err ? err : (ssize_t)t->set_count - 1;
}

/* Adds the certificates of the names from `first` on that are the same; returns what is behind the last of them. */
static size_t set_add_name(const struct making *m, size_t first, struct set *s)
{
	const struct tls_names *n = &m->t->names;
	size_t i = first;

	for (; i < n->count && strcmp(n->all[i].text, n->all[first].text) == 0; i++)
		set_add(m, s, n->all[i].of);
	return i;
}

/* For clients that ask for no name of ours: the first certificate, and what stands beside it under its names. */
static struct set default_set(const struct making *m)
{
	const struct tls_names *n = &m->t->names;
	struct set s = { .of = { 0 }, .count = 1 };

	for (size_t i = 0, end; i < n->count; i = end) {
		struct set of_name = { .count = 0 };

		end = set_add_name(m, i, &of_name);
		if (of_name.of[0] == 0)
			set_add_name(m, i, &s);
	}
	return s;
}

static int make_sets(struct making *m)
{
	struct tls_names *n = &m->t->names;
	struct set s = default_set(m);
	ssize_t number = intern(m, &s);
	size_t end;

	for (size_t i = 0; number >= 0 && i < n->count; i = end) {
		s = (struct set){ .count = 0 };
		end = set_add_name(m, i, &s);
		number = intern(m, &s);
		for (size_t k = i; number >= 0 && k < end; k++)
			n->all[k].set = (size_t)number;
	}
	return number < 0 ? (int)number : 0;
}

static int make_names(struct making *m)
{
	int err = 0;

	for (size_t i = 0; !err && i < m->o->listen->tls_count; i++)
		err = tls_names_add(&m->t->names, sk_X509_value(material_at(m, i)->chain, 0), i);
	tls_names_sort(&m->t->names);
	return err;
}

static int make_staples(struct making *m)
{
	struct tls *t = m->t;

	t->staples = calloc(m->o->listen->tls_count, sizeof(*t->staples));
	if (!t->staples)
		return -ENOMEM;
	t->staple_count = m->o->listen->tls_count;
	for (size_t i = 0; i < t->staple_count; i++) {
		const struct tls_material *material = material_at(m, i);
		struct staple *s = &t->staples[i];

		/* The context that holds the certificate lives as long as this. */
		*s = (struct staple){ .of = sk_X509_value(material->chain, 0), .until_us = material->staple_until_us };
		if (!material->staple)
			continue;
		s->bytes = OPENSSL_memdup(material->staple, material->staple_len);
		s->len = material->staple_len;
		if (!s->bytes)
			return -ENOMEM;
	}
	return 0;
}

static int make_tickets(struct making *m)
{
	const struct tls_material *material = material_at(m, 0);

	if (!m->policy->session_tickets)
		return 0;
	if (material->ticket_key_count > 0)
		return tickets_new_fixed(material->ticket_keys, material->ticket_key_count, &m->t->tickets);
	m->t->tickets = tickets_hold(m->o->tickets);
	return 0;
}

int tls_new(const struct tls_options *o, struct buf *errors, struct tls **ret)
{
	static int (*const steps[])(struct making *) = { make_tickets, make_names, make_staples, make_sets };
	struct making m = { .o = o, .errors = errors, .t = calloc(1, sizeof(*m.t)) };
	int err = 0;

	if (!m.t)
		return -ENOMEM;
	atomic_init(&m.t->refs, 1);
	m.t->clock = o->clock;
	m.t->http2 = o->http2;
	m.policy = conf_listen_tls(o->conf, o->listen, 0);
	ERR_clear_error();
	for (size_t i = 0; !err && i < ARRAY_LEN(steps); i++)
		err = steps[i](&m);
	ERR_clear_error();
	if (err)
		tls_drop(&m.t);
	else
		*ret = m.t;
	return err;
}

struct tls *tls_hold(struct tls *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

void tls_drop(struct tls **pt)
{
	struct tls *t = *pt;

	*pt = NULL;
	if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < t->set_count; i++)
		SSL_CTX_free(t->sets[i].ctx);
	free(t->sets);
	for (size_t i = 0; i < t->staple_count; i++)
		OPENSSL_free(t->staples[i].bytes);
	free(t->staples);
	tls_names_done(&t->names);
	tickets_drop(&t->tickets);
	free(t);
}

/* ---- sessions ---- */

SSL *tls_session(struct tls *t)
{
	SSL *ssl = SSL_new(t->sets[0].ctx);

	if (!ssl)
		return NULL;
	if (SSL_set_ex_data(ssl, place_of_tls, t) != 1) {
		SSL_free(ssl);
		return NULL;
	}
	tls_hold(t);
	SSL_set_accept_state(ssl);
	return ssl;
}

struct slice tls_server_name(const SSL *ssl)
{
	return slice_str(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
}

const struct tls_peer *tls_peer_of(SSL *ssl)
{
	struct tls_peer *peer = SSL_get_ex_data(ssl, place_of_peer);

	if (peer || !(SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER))
		return peer;
	peer = tls_peer_new(ssl);
	if (!peer)
		return &tls_peer_unknown;
	if (SSL_set_ex_data(ssl, place_of_peer, peer) == 1)
		return peer;
	tls_peer_free(peer);
	return &tls_peer_unknown;
}
