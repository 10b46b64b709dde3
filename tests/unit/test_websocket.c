/* websocket: keys are new ones, and only the answer to a key counts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/http1.h"
#include "proxy/client/websocket.h"

/* RFC 6455, 1.3 */
#define KEY    SLICE("dGhlIHNhbXBsZSBub25jZQ==")
#define ACCEPT "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

static const struct {
	const char *fields;
	bool ok;
} cases[] = {
	{ ACCEPT, true },
	{ "X: y\r\nsec-websocket-accept:  s3pPLMBiTxaQ9kYGzzhZRbK+xOo=  \r\n", true },
	{ "", false },
	{ ACCEPT ACCEPT, false },
	{ "Sec-WebSocket-Accept:\r\n", false },
	{ "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo\r\n", false },
	{ "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=x\r\n", false },
	{ "Sec-WebSocket-Accept: S3PPLMBITXAQ9KYGZZHZRBK+XOO=\r\n", false },
	{ "Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==\r\n", false },
	{ "Sec-WebSocket-Key: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", false },
};

static void only_the_answer_to_the_key_counts(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct http1_message m;
		struct head h;
		char text[512];
		int n = snprintf(text, sizeof(text), "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n%s\r\n",
		    cases[i].fields);

		head_init(&h);
		assert_int_equal(http1_response(slice_of(text, (size_t)n), METHOD_GET, &h, &m), HTTP1_OK);
		if (websocket_is_accepted(&h, KEY) != cases[i].ok)
			fail_msg("row %zu", i);
		assert_false(websocket_is_accepted(&h, SLICE("")));
		head_done(&h);
	}
}

static void the_answer_is_the_rfcs(void **state UNUSED)
{
	char text[WEBSOCKET_ACCEPT_LEN + 1];

	websocket_accept(KEY, text);
	assert_string_equal(text, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

static void a_key_is_a_new_one(void **state UNUSED)
{
	char keys[2][WEBSOCKET_KEY_LEN + 1];

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		assert_true(websocket_key(keys[i]));
		assert_int_equal(strlen(keys[i]), WEBSOCKET_KEY_LEN);
		assert_memory_equal(keys[i] + WEBSOCKET_KEY_LEN - 2, "==", 2); /* 16 bytes */
	}
	assert_string_not_equal(keys[0], keys[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_answer_to_the_key_counts),
		cmocka_unit_test(the_answer_is_the_rfcs),
		cmocka_unit_test(a_key_is_a_new_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
