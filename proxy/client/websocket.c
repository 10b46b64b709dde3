/* SHA-1 as it is: by a provider it would come with OpenSSL's own start, which reads files. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "proxy/client/websocket.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <sys/random.h>

#define KEY_BYTES 16

static const struct slice guid = SLICE_INIT("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");

bool websocket_key(char text[static WEBSOCKET_KEY_LEN + 1])
{
	unsigned char key[KEY_BYTES];

	if (getrandom(key, sizeof(key), 0) != sizeof(key))
		return false;
	EVP_EncodeBlock((unsigned char *)text, key, sizeof(key));
	return true;
}

void websocket_accept(struct slice key, char text[static WEBSOCKET_ACCEPT_LEN + 1])
{
	unsigned char hash[SHA_DIGEST_LENGTH];
	SHA_CTX sha;

	SHA1_Init(&sha);
	SHA1_Update(&sha, key.ptr, key.len);
	SHA1_Update(&sha, guid.ptr, guid.len);
	SHA1_Final(hash, &sha);
	EVP_EncodeBlock((unsigned char *)text, hash, sizeof(hash));
}

bool websocket_is_accepted(const struct head *response, struct slice key)
{
	char expected[WEBSOCKET_ACCEPT_LEN + 1];
	unsigned accepts = 0;

	websocket_accept(key, expected);
	for (unsigned i = 0; i < response->field_count; i++) {
		if (!slice_eq_nocase(head_name(response, i), SLICE("Sec-WebSocket-Accept")))
			continue;
		if (!slice_eq(head_value(response, i), slice_of(expected, WEBSOCKET_ACCEPT_LEN)))
			return false;
		accepts++;
	}
	return accepts == 1;
}
