#include "proxy/client/tickets.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct tickets {
	atomic_uint refs;
	pthread_mutex_t mutex;
	const struct clock *clock; /* NULL: the keys stay */
	uint64_t turned_ms;        /* the current key has been in use since */
	EVP_CIPHER *small, *large; /* fetched once: by name it is a search for each handshake */
	size_t count;              /* of keys; the first one encrypts */
	struct ticket_key keys[];
};

bool ticket_key_parse(const void *bytes, size_t len, struct ticket_key *ret)
{
	const unsigned char *b = bytes;

	if (len != TICKET_SMALL_BYTES && len != TICKET_LARGE_BYTES)
		return false;
	*ret = (struct ticket_key){ .bytes = (unsigned char)((len - TICKET_NAME_BYTES) / 2) };
	memcpy(ret->name, b, TICKET_NAME_BYTES);
	b += TICKET_NAME_BYTES;
	/* The two sizes differ in what comes first, so that their files are nginx's. */
	memcpy(len == TICKET_LARGE_BYTES ? ret->hmac : ret->aes, b, ret->bytes);
	memcpy(len == TICKET_LARGE_BYTES ? ret->aes : ret->hmac, b + ret->bytes, ret->bytes);
	return true;
}

static bool make_key(struct ticket_key *ret)
{
	unsigned char bytes[TICKET_LARGE_BYTES];
	bool ok = RAND_priv_bytes(bytes, sizeof(bytes)) == 1 && ticket_key_parse(bytes, sizeof(bytes), ret);

	OPENSSL_cleanse(bytes, sizeof(bytes));
	return ok;
}

static int make(size_t count, struct tickets **ret)
{
	struct tickets *t = calloc(1, sizeof(*t) + count * sizeof(t->keys[0]));

	if (!t)
		return -ENOMEM;
	atomic_init(&t->refs, 1);
	pthread_mutex_init(&t->mutex, NULL);
	t->small = EVP_CIPHER_fetch(NULL, "AES-128-CBC", NULL);
	t->large = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
	t->count = count;
	*ret = t;
	if (t->small && t->large)
		return 0;
	tickets_drop(ret);
	return -ENOMEM;
}

int tickets_new(const struct clock *clock, struct tickets **ret)
{
	struct tickets *t;
	int err = make(TICKETS_OWN, &t);

	if (err)
		return err;
	t->clock = clock;
	t->turned_ms = clock_mono_ms(clock);
	t->count = 1;
	if (!make_key(&t->keys[0])) {
		tickets_drop(&t);
		return -EIO;
	}
	*ret = t;
	return 0;
}

int tickets_new_fixed(const struct ticket_key *keys, size_t count, struct tickets **ret)
{
	int err = make(count, ret);

	if (!err)
		memcpy((*ret)->keys, keys, count * sizeof(*keys));
	return err;
}

struct tickets *tickets_hold(struct tickets *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

void tickets_drop(struct tickets **pt)
{
	struct tickets *t = *pt;

	*pt = NULL;
	if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	EVP_CIPHER_free(t->small);
	EVP_CIPHER_free(t->large);
	OPENSSL_cleanse(t->keys, t->count * sizeof(t->keys[0]));
	pthread_mutex_destroy(&t->mutex);
	free(t);
}

/* A key whose time is over takes the others one place further; the last one is forgotten. */
static bool turn(struct tickets *t)
{
	struct ticket_key fresh;

	if (!make_key(&fresh))
		return false;
	if (t->count < TICKETS_OWN)
		t->count++;
	memmove(&t->keys[1], &t->keys[0], (t->count - 1) * sizeof(t->keys[0]));
	t->keys[0] = fresh;
	OPENSSL_cleanse(&fresh, sizeof(fresh));
	return true;
}

/* As many turns as were due, so that no key lives longer for want of handshakes. */
static bool turn_if_due(struct tickets *t)
{
	uint64_t now_ms, due;

	if (!t->clock)
		return true;
	now_ms = clock_mono_ms(t->clock);
	due = (now_ms - t->turned_ms) / TICKETS_TURN_MS;
	t->turned_ms += due * TICKETS_TURN_MS;
	for (due = MIN(due, (uint64_t)TICKETS_OWN); due > 0; due--)
		if (!turn(t))
			return false;
	return true;
}

size_t tickets_all(struct tickets *t, struct ticket_key ret[TICKETS_OWN])
{
	size_t count = 0;

	pthread_mutex_lock(&t->mutex);
	assert(t->count <= TICKETS_OWN);
	if (turn_if_due(t)) {
		count = t->count;
		memcpy(ret, t->keys, count * sizeof(*ret));
	}
	pthread_mutex_unlock(&t->mutex);
	return count;
}

bool tickets_current(struct tickets *t, struct ticket_key *ret)
{
	bool ok;

	pthread_mutex_lock(&t->mutex);
	ok = turn_if_due(t);
	*ret = t->keys[0];
	pthread_mutex_unlock(&t->mutex);
	return ok;
}

enum ticket_found tickets_find(struct tickets *t, const unsigned char name[TICKET_NAME_BYTES], struct ticket_key *ret)
{
	enum ticket_found found = TICKET_UNKNOWN;

	pthread_mutex_lock(&t->mutex);
	if (turn_if_due(t))
		for (size_t i = 0; i < t->count && found == TICKET_UNKNOWN; i++) {
			if (memcmp(t->keys[i].name, name, TICKET_NAME_BYTES) != 0)
				continue;
			*ret = t->keys[i];
			found = i == 0 ? TICKET_CURRENT : TICKET_OLD;
		}
	pthread_mutex_unlock(&t->mutex);
	return found;
}

static bool set_mac(EVP_MAC_CTX *mac, struct ticket_key *key)
{
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->hmac, key->bytes),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
		OSSL_PARAM_construct_end(),
	};

	return EVP_MAC_CTX_set_params(mac, params) == 1;
}

static const EVP_CIPHER *cipher_for(const struct tickets *t, const struct ticket_key *key)
{
	return key->bytes == 32 ? t->large : t->small;
}

static int encrypt_with(
    struct tickets *t, struct ticket_key *key, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
	const EVP_CIPHER *c;

	if (!tickets_current(t, key))
		return -1;
	c = cipher_for(t, key);
	memcpy(name, key->name, TICKET_NAME_BYTES);
	if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(c)) != 1 || EVP_EncryptInit_ex2(cipher, c, key->aes, iv, NULL) != 1 ||
	    !set_mac(mac, key))
		return -1;
	return 1;
}

static int decrypt_with(struct tickets *t, struct ticket_key *key, SSL *ssl, const unsigned char *name, const unsigned char *iv,
    EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
	enum ticket_found found = tickets_find(t, name, key);

	if (found == TICKET_UNKNOWN)
		return 0; /* a full handshake */
	if (!set_mac(mac, key) || EVP_DecryptInit_ex2(cipher, cipher_for(t, key), key->aes, iv, NULL) != 1)
		return -1;
	/* 2: with a new ticket. In TLS 1.3 always, as one should be used once only (RFC 8446, C.4). */
	return found == TICKET_OLD || SSL_version(ssl) == TLS1_3_VERSION ? 2 : 1;
}

int tickets_crypt(struct tickets *t, SSL *ssl, unsigned char name[TICKET_NAME_BYTES], unsigned char *iv, EVP_CIPHER_CTX *cipher,
    EVP_MAC_CTX *mac, int encrypt)
{
	struct ticket_key key = { 0 };
	int result;

	if (encrypt)
		result = encrypt_with(t, &key, name, iv, cipher, mac);
	else
		result = decrypt_with(t, &key, ssl, name, iv, cipher, mac);
	OPENSSL_cleanse(&key, sizeof(key));
	return result;
}
