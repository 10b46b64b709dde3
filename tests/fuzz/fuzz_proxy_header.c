/*
 * Any bytes as a PROXY header: cut anywhere, the answer is "more" until it is that of the whole and stays so; what is taken lies within
 * the bytes, and what comes behind it changes nothing; a client's address can be written as a header that says the same.
 */
#include "proxy/serve/address_text.h"
#include "proxy/client/proxy_header.h"
#include "tests/fuzz/must.h"

/* In a block that ends with its last byte. */
static enum proxy_result parse(const uint8_t *data, size_t size, struct proxy_header *ret)
{
	char *block = malloc(MAX(size, (size_t)1));
	const char *why = NULL;
	enum proxy_result r;

	must(block);
	if (size > 0)
		memcpy(block, data, size);
	r = proxy_header_parse(slice_of(block, size), ret, &why);
	must((r == PROXY_BAD) == (why != NULL));
	free(block);
	return r;
}

static void must_be_same(const struct proxy_header *a, const struct proxy_header *b)
{
	must(a->len == b->len && a->has_client == b->has_client);
	must(memcmp(&a->client, &b->client, sizeof(a->client)) == 0);
}

/* As version 1, by the text that logs and workers get. */
static void must_say_the_same(const struct proxy_header *h)
{
	struct proxy_header again;
	char text[INET6_ADDRSTRLEN], line[200];
	uint16_t port;
	bool v6;
	int n;

	address_text(&h->client.any, text, &port);
	v6 = strchr(text, ':') != NULL;
	n = snprintf(line, sizeof(line), "PROXY TCP%c %s %s %u 443\r\n", v6 ? '6' : '4', text, v6 ? "::1" : "127.0.0.1", port);
	must(parse((const uint8_t *)line, (size_t)n, &again) == PROXY_OK && again.has_client && again.len == (size_t)n);
	address_text(&again.client.any, line, &port);
	must(strcmp(line, text) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header whole, part;
	enum proxy_result result, r = PROXY_MORE;
	size_t n = 0;

	size = MIN(size, (size_t)PROXY_HEADER_MAX);
	result = parse(data, size, &whole);
	must(result != PROXY_MORE || size < PROXY_HEADER_MAX);
	while (n <= size && (r = parse(data, n, &part)) == PROXY_MORE)
		n++;
	must(result == PROXY_MORE ? n == size + 1 : r == result);
	if (result != PROXY_OK)
		return 0;
	must(whole.len > 0 && whole.len <= size && whole.len == n);
	must_be_same(&whole, &part);
	if (whole.has_client)
		must_say_the_same(&whole);
	return 0;
}
