/*
 * Any bytes as what the master sends the front of its certificates and keys: they are taken whole or refused whole; what is taken comes
 * through once more as the same; and listeners are made of it, or it is said why not.
 * The first byte says how many [tls NAME] there are.
 */
#include <openssl/err.h>

#include "tests/fuzz/key_site.h"

static void must_be_within_limits(const struct tls_materials *m)
{
	must(m->own_count >= 1 && m->own_count <= TICKETS_OWN);
	for (size_t i = 0; i < m->count; i++) {
		const struct tls_material *one = &m->all[i];

		must(sk_X509_num(one->chain) >= 1 && sk_X509_num(one->chain) <= TLS_CHAIN_MAX && one->key);
		must(!one->client_ca || (sk_X509_num(one->client_ca) >= 1 && sk_X509_num(one->client_ca) <= TLS_CLIENT_CA_MAX));
		must((one->staple != NULL) == (one->staple_len > 0) && one->staple_len <= TLS_STAPLE_MAX);
		must(one->ticket_key_count <= TLS_TICKET_KEYS_MAX);
	}
}

/* Of what was taken, nothing less is: a front never serves with a part. */
static void must_need_all(struct slice bytes, size_t count)
{
	struct tls_materials part;
	const size_t cuts[] = { 0, bytes.len / 2, bytes.len - 1 };

	for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
		must(tls_materials_parse(slice_of(bytes.ptr, cuts[i]), count, &part) == -EBADMSG);
		tls_materials_done(&part);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tls_materials m;
	struct key_site site;
	struct slice bytes;
	struct buf written;
	size_t count;
	int err;

	if (size < 1)
		return 0;
	count = 1 + data[0] % KEY_SITE_SECTIONS;
	bytes = slice_of((const char *)data + 1, size - 1);
	key_site_init(&site, count);
	err = tls_materials_parse(bytes, count, &m);
	must(err == 0 || err == -EBADMSG);
	if (!err) {
		must(m.count == count);
		must_be_within_limits(&m);
		must_need_all(bytes, count);
		must_come_through(&m, &written);
		if (m.all[0].client_ca)
			site.sections[0].client_verify = CLIENT_VERIFY_REQUIRE;
		must_be_adopted_or_refused(&site, buf_slice(&written));
		buf_done(&written);
	}
	tls_materials_done(&m);
	ERR_clear_error();
	return 0;
}

/* Else OpenSSL reads this machine's configuration. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
	must(tls_library_init() == 0);
	return 0;
}
