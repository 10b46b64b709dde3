#include "proxy/client/tls_material.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "core/buf.h"

/* On the wire: groups of items, each `u32 count`, then `u32 length` and the bytes of each. */

static void put_u32(struct buf *out, uint32_t n)
{
	buf_add(out, slice_of((const char *)&n, sizeof(n)));
}

static void put_item(struct buf *out, const void *bytes, size_t len)
{
	put_u32(out, (uint32_t)len);
	buf_add(out, slice_of(bytes, len));
}

static bool take_u32(struct slice *bytes, uint32_t *ret)
{
	if (bytes->len < sizeof(*ret))
		return false;
	memcpy(ret, bytes->ptr, sizeof(*ret));
	*bytes = slice_of(bytes->ptr + sizeof(*ret), bytes->len - sizeof(*ret));
	return true;
}

static bool take_item(struct slice *bytes, struct slice *ret)
{
	uint32_t len;

	if (!take_u32(bytes, &len) || len > bytes->len)
		return false;
	*ret = slice_of(bytes->ptr, len);
	*bytes = slice_of(bytes->ptr + len, bytes->len - len);
	return true;
}

/* Certificates */

static void put_certificates(struct buf *out, const STACK_OF(X509) * list)
{
	int count = list ? sk_X509_num(list) : 0;

	put_u32(out, (uint32_t)count);
	for (int i = 0; i < count; i++) {
		unsigned char *der = NULL;
		int len = i2d_X509(sk_X509_value(list, i), &der);

		if (len > 0)
			put_item(out, der, (size_t)len);
		else
			out->failed = true;
		OPENSSL_free(der);
	}
}

static int take_certificate(struct slice *bytes, STACK_OF(X509) * list)
{
	struct slice item;
	const unsigned char *p;
	X509 *x;

	if (!take_item(bytes, &item))
		return -EBADMSG;
	p = (const unsigned char *)item.ptr;
	x = d2i_X509(NULL, &p, (long)item.len);
	if (!x)
		return -EBADMSG;
	if (sk_X509_push(list, x) > 0)
		return 0;
	X509_free(x);
	return -ENOMEM;
}

static int take_certificates(struct slice *bytes, uint32_t max, STACK_OF(X509) * *ret)
{
	uint32_t count;
	int err = 0;

	if (!take_u32(bytes, &count) || count > max)
		return -EBADMSG;
	if (count == 0)
		return 0;
	*ret = sk_X509_new_null();
	if (!*ret)
		return -ENOMEM;
	while (count-- > 0 && !err)
		err = take_certificate(bytes, *ret);
	return err;
}

/* The key */

static void put_key(struct buf *out, const EVP_PKEY *key)
{
	unsigned char *der = NULL;
	int len = i2d_PrivateKey(key, &der);

	if (len > 0) {
		put_item(out, der, (size_t)len);
		OPENSSL_clear_free(der, (size_t)len);
	} else {
		out->failed = true;
	}
}

static int take_key(struct slice *bytes, EVP_PKEY **ret)
{
	struct slice item;
	const unsigned char *p;

	if (!take_item(bytes, &item))
		return -EBADMSG;
	p = (const unsigned char *)item.ptr;
	*ret = d2i_AutoPrivateKey(NULL, &p, (long)item.len);
	return *ret ? 0 : -EBADMSG;
}

/* The rest */

static void put_staple(struct buf *out, const struct tls_material *m)
{
	put_item(out, m->staple, m->staple ? m->staple_len : 0);
	put_item(out, &m->staple_until_us, sizeof(m->staple_until_us));
}

static int take_staple(struct slice *bytes, struct tls_material *m)
{
	struct slice item, until;

	if (!take_item(bytes, &item) || item.len > TLS_STAPLE_MAX || !take_item(bytes, &until) ||
	    until.len != sizeof(m->staple_until_us))
		return -EBADMSG;
	memcpy(&m->staple_until_us, until.ptr, until.len);
	if (item.len == 0)
		return 0;
	m->staple = malloc(item.len);
	if (!m->staple)
		return -ENOMEM;
	memcpy(m->staple, item.ptr, item.len);
	m->staple_len = item.len;
	return 0;
}

static void put_ticket_keys(struct buf *out, const struct ticket_key *keys, size_t count)
{
	put_item(out, keys, count * sizeof(*keys));
}

static int take_ticket_keys(struct slice *bytes, size_t max, struct ticket_key *ret, size_t *ret_count)
{
	struct slice item;

	if (!take_item(bytes, &item) || item.len > max * sizeof(*ret) || item.len % sizeof(*ret) != 0)
		return -EBADMSG;
	memcpy(ret, item.ptr, item.len);
	*ret_count = item.len / sizeof(*ret);
	for (size_t i = 0; i < *ret_count; i++)
		if (ret[i].bytes != 16 && ret[i].bytes != 32)
			return -EBADMSG;
	return 0;
}

int tls_material_write(const struct tls_material *m, struct buf *out)
{
	put_certificates(out, m->chain);
	put_key(out, m->key);
	put_certificates(out, m->client_ca);
	put_staple(out, m);
	put_ticket_keys(out, m->ticket_keys, m->ticket_key_count);
	return out->failed ? -ENOMEM : 0;
}

int tls_material_parse(struct slice *bytes, struct tls_material *ret)
{
	int err;

	*ret = (struct tls_material){ 0 };
	err = take_certificates(bytes, TLS_CHAIN_MAX, &ret->chain);
	if (!err && !ret->chain)
		err = -EBADMSG;
	if (!err)
		err = take_key(bytes, &ret->key);
	if (!err)
		err = take_certificates(bytes, TLS_CLIENT_CA_MAX, &ret->client_ca);
	if (!err)
		err = take_staple(bytes, ret);
	if (!err)
		err = take_ticket_keys(bytes, TLS_TICKET_KEYS_MAX, ret->ticket_keys, &ret->ticket_key_count);
	return err;
}

void tls_material_done(struct tls_material *m)
{
	sk_X509_pop_free(m->chain, X509_free);
	EVP_PKEY_free(m->key);
	sk_X509_pop_free(m->client_ca, X509_free);
	free(m->staple);
	OPENSSL_cleanse(m->ticket_keys, sizeof(m->ticket_keys));
	*m = (struct tls_material){ 0 };
}

int tls_materials_begin(const struct ticket_key *own, size_t count, struct buf *out)
{
	put_ticket_keys(out, own, count);
	return out->failed ? -ENOMEM : 0;
}

int tls_materials_write(const struct tls_materials *m, struct buf *out)
{
	int err = tls_materials_begin(m->own, m->own_count, out);

	for (size_t i = 0; i < m->count && !err; i++)
		err = tls_material_write(&m->all[i], out);
	return err;
}

int tls_materials_parse(struct slice bytes, size_t count, struct tls_materials *ret)
{
	int err = 0;

	*ret = (struct tls_materials){ .all = calloc(MAX(count, 1), sizeof(*ret->all)) };
	if (!ret->all)
		return -ENOMEM;
	err = take_ticket_keys(&bytes, TICKETS_OWN, ret->own, &ret->own_count);
	if (!err && ret->own_count == 0)
		err = -EBADMSG;
	while (ret->count < count && !err)
		err = tls_material_parse(&bytes, &ret->all[ret->count++]);
	return !err && bytes.len > 0 ? -EBADMSG : err;
}

void tls_materials_done(struct tls_materials *m)
{
	for (size_t i = 0; i < m->count; i++)
		tls_material_done(&m->all[i]);
	free(m->all);
	OPENSSL_cleanse(m->own, sizeof(m->own));
	*m = (struct tls_materials){ 0 };
}
