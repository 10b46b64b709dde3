#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proxy/observe/access_log.h"

/* 2026-11-23 01:20:21.000042 UTC */
#define WHEN INT64_C(1795396821000042)

/* What one record looks like in a log: yours to free. */
static char *written(enum conf_access_format format, const struct access_record *r)
{
	struct logger *logger;
	struct access_log *log;
	int fd = memfd_create("log", MFD_CLOEXEC), kept = dup(fd);
	off_t len;
	char *text;

	assert_int_equal(logger_new(1, 1 << 17, &logger), 0);
	logger_set(logger, LOGGER_ACCESS, LOGGER_FILE, &fd);
	assert_int_equal(access_log_new(logger_channel(logger, 0), format, &log), 0);
	access_log_write(log, r);
	access_log_free(&log);
	assert_null(log);
	assert_int_equal(logger_dropped(logger), 0);
	logger_free(&logger, 60000);
	len = lseek(kept, 0, SEEK_END);
	text = calloc(1, (size_t)len + 1);
	assert_int_equal(pread(kept, text, (size_t)len, 0), len);
	/* One line, and no NUL that would hide a part of it. */
	assert_true(len > 0);
	assert_int_equal(strlen(text), len);
	assert_ptr_equal(strchr(text, '\n'), text + len - 1);
	close(kept);
	return text;
}

static void request_init(struct head *h, struct slice target, struct slice referer, struct slice user_agent)
{
	head_init(h);
	h->method = METHOD_GET;
	h->version = 11;
	assert_int_equal(head_put(h, SLICE("GET"), &h->method_text), 0);
	assert_int_equal(head_put(h, target, &h->target), 0);
	assert_int_equal(head_put(h, SLICE("example.org:8000"), &h->authority), 0);
	assert_int_equal(head_add(h, SLICE("Referer"), referer), 0);
	assert_int_equal(head_add(h, SLICE("User-Agent"), user_agent), 0);
}

static struct access_record plain_record(const struct head *request)
{
	return (struct access_record){
		.wall_us = WHEN,
		.request = request,
		.id = SLICE("67f0c1d2-1"),
		.client = SLICE("192.0.2.7"),
		.peer = SLICE("10.0.0.1"),
		.listen = "main",
		.tls = "TLSv1.3",
		.pool = "shop",
		.worker_pid = 4711,
		.status = 200,
		.request_bytes = 12,
		.response_bytes = 34567,
		.receive_us = 1,
		.queue_us = 20,
		.hold_us = 12345,
		.drain_us = 2000000,
		.total_us = UINT64_MAX - 1,
		.attempts = 1,
		.response_spooled = true,
	};
}

static void a_request_in_each_format(void **state UNUSED)
{
	static const char *const expected[] = {
		[ACCESS_COMBINED] = ("192.0.2.7 - - [23/Nov/2026:01:20:21 +0000] \"GET /a?b=c HTTP/1.1\" 200 34567"
		                     " \"http://r/\" \"curl/7\"\n"),
		[ACCESS_JSON] =
		    ("{\"time\":\"2026-11-23T01:20:21.000042Z\",\"id\":\"67f0c1d2-1\",\"client\":\"192.0.2.7\",\"peer\":\"10.0.0.1\","
		     "\"listen\":\"main\",\"tls\":\"TLSv1.3\",\"method\":\"GET\",\"target\":\"/a?b=c\",\"host\":\"example.org:8000\","
		     "\"protocol\":\"HTTP/1.1\",\"status\":200,\"request_bytes\":12,\"response_bytes\":34567,"
		     "\"receive_ms\":0.001,\"queue_ms\":0.020,\"hold_ms\":12.345,\"drain_ms\":2000.000,"
		     "\"total_ms\":18446744073709551.614,\"attempts\":1,\"pool\":\"shop\",\"worker\":4711,"
		     "\"request_spooled\":false,\"response_spooled\":true,\"eof\":false,\"cut\":false,\"reason\":null,"
		     "\"referer\":\"http://r/\",\"user_agent\":\"curl/7\"}\n"),
		[ACCESS_TIMING] = ("2026-11-23T01:20:21.000042Z 67f0c1d2-1 192.0.2.7 \"GET /a?b=c\" 200 34567 receive=0.001"
		                   " queue=0.020 hold=12.345 drain=2000.000 total=18446744073709551.614 pool=shop worker=4711"
		                   " reason=-\n"),
		[ACCESS_SHORT] = "200 GET /a?b=c 34567B total=18446744073709551.614 hold=12.345 queue=0.020\n",
		[ACCESS_COLOR] = "\x1b[32m200\x1b[0m GET /a?b=c 34567B total=18446744073709551.614 hold=12.345 queue=0.020\n",
	};

	for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
		struct head request;
		struct access_record r = plain_record(&request);
		char *line;

		request_init(&request, SLICE("/a?b=c"), SLICE("http://r/"), SLICE("curl/7"));
		line = written((enum conf_access_format)i, &r);
		assert_string_equal(line, expected[i]);
		free(line);
		head_done(&request);
	}
}

static void a_refusal_of_what_was_not_understood(void **state UNUSED)
{
	static const char *const expected[] = {
		[ACCESS_COMBINED] = ("192.0.2.7 - - [23/Nov/2026:01:20:21 +0000] \"GE\\x00T \\x22/\\xFF\" 400 0 \"-\" \"-\"\n"),
		[ACCESS_JSON] =
		    ("{\"time\":\"2026-11-23T01:20:21.000042Z\",\"id\":null,\"client\":\"192.0.2.7\",\"peer\":null,"
		     "\"listen\":null,\"tls\":null,\"method\":null,\"target\":\"GE\\u0000T \\\"/\\u00ff\",\"host\":null,"
		     "\"protocol\":null,\"status\":400,\"request_bytes\":0,\"response_bytes\":0,"
		     "\"receive_ms\":null,\"queue_ms\":null,\"hold_ms\":null,\"drain_ms\":null,"
		     "\"total_ms\":1.000,\"attempts\":0,\"pool\":null,\"worker\":null,"
		     "\"request_spooled\":false,\"response_spooled\":false,\"eof\":false,\"cut\":true,"
		     "\"reason\":\"bad \\\"byte\\\"\",\"referer\":null,\"user_agent\":null}\n"),
		[ACCESS_TIMING] = ("2026-11-23T01:20:21.000042Z - 192.0.2.7 \"GE\\x00T \\x22/\\xFF\" 400 0 receive=- queue=-"
		                   " hold=- drain=- total=1.000 pool=- worker=- reason=\"bad \\x22byte\\x22\"\n"),
		[ACCESS_SHORT] = "400 \"GE\\x00T \\x22/\\xFF\" 0B total=1.000 hold=- queue=- \"bad \\x22byte\\x22\"\n",
		[ACCESS_COLOR] =
		    "\x1b[33m400\x1b[0m \"GE\\x00T \\x22/\\xFF\" 0B total=1.000 hold=- queue=- \"bad \\x22byte\\x22\"\n",
	};
	const struct access_record r = {
		.wall_us = WHEN,
		.request_line = SLICE("GE\0T \"/\xff"),
		.client = SLICE("192.0.2.7"),
		.status = 400,
		.receive_us = UINT64_MAX,
		.queue_us = UINT64_MAX,
		.hold_us = UINT64_MAX,
		.drain_us = UINT64_MAX,
		.total_us = 1000,
		.cut = true,
		.reason = "bad \"byte\"",
	};

	for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
		char *line = written((enum conf_access_format)i, &r);

		assert_string_equal(line, expected[i]);
		free(line);
	}
}

/* A user agent, and what stands for it in JSON and in the others. */
static const struct {
	struct slice bytes;
	const char *json, *text;
} agents[] = {
	{ SLICE_INIT("plain"), "plain", "plain" }, { SLICE_INIT("a\"b\\c"), "a\\\"b\\\\c", "a\\x22b\\x5Cc" },
	{ SLICE_INIT("a\r\nb\tc\x1b[0m"), "a\\u000d\\u000ab\\u0009c\\u001b[0m", "a\\x0D\\x0Ab\\x09c\\x1B[0m" },
	{ SLICE_INIT("\x7f"), "\\u007f", "\\x7F" }, { SLICE_INIT("caf\xc3\xa9"), "caf\xc3\xa9", "caf\\xC3\\xA9" },
	{ SLICE_INIT("\xe2\x82\xac\xf0\x9f\x98\x80"), "\xe2\x82\xac\xf0\x9f\x98\x80", "\\xE2\\x82\\xAC\\xF0\\x9F\\x98\\x80" },
	{ SLICE_INIT("caf\xe9"), "caf\\u00e9", "caf\\xE9" },
	{ SLICE_INIT("\xc2\x9b"), "\\u009b", "\\xC2\\x9B" },                                        /* a control */
	{ SLICE_INIT("\xc2"), "\\u00c2", "\\xC2" },                                                 /* cut */
	{ SLICE_INIT("\xe2\x82"), "\\u00e2\\u0082", "\\xE2\\x82" },                                 /* cut */
	{ SLICE_INIT("\xc0\xaf"), "\\u00c0\\u00af", "\\xC0\\xAF" },                                 /* overlong */
	{ SLICE_INIT("\xe0\x80\xaf"), "\\u00e0\\u0080\\u00af", "\\xE0\\x80\\xAF" },                 /* overlong */
	{ SLICE_INIT("\xf0\x80\x80\xaf"), "\\u00f0\\u0080\\u0080\\u00af", "\\xF0\\x80\\x80\\xAF" }, /* overlong */
	{ SLICE_INIT("\xed\xa0\x80"), "\\u00ed\\u00a0\\u0080", "\\xED\\xA0\\x80" },                 /* surrogate */
	{ SLICE_INIT("\xf4\x90\x80\x80"), "\\u00f4\\u0090\\u0080\\u0080", "\\xF4\\x90\\x80\\x80" }, /* beyond */
	{ SLICE_INIT("\xf5\x80\x80\x80"), "\\u00f5\\u0080\\u0080\\u0080", "\\xF5\\x80\\x80\\x80" }, /* beyond */
};

static void bytes_from_outside_are_escaped(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(agents); i++) {
		for (enum conf_access_format f = ACCESS_COMBINED; f <= ACCESS_JSON; f++) {
			struct head request;
			struct access_record r = plain_record(&request);
			const char *bytes = f == ACCESS_JSON ? agents[i].json : agents[i].text;
			char *line, *at;

			request_init(&request, SLICE("/"), SLICE("-"), agents[i].bytes);
			line = written(f, &r);
			at = strstr(line, f == ACCESS_JSON ? "\"user_agent\":\"" : "\"-\" \"");
			assert_non_null(at);
			at += f == ACCESS_JSON ? 14 : 5;
			if (strncmp(at, bytes, strlen(bytes)) != 0 || at[strlen(bytes)] != '"')
				fail_msg("row %zu: %s", i, at);
			free(line);
			head_done(&request);
		}
	}
}

static void long_texts_are_cut_and_marked(void **state UNUSED)
{
	static const char fillers[] = { 'a', '\xff', '"', '\0' };
	char *text = malloc(1 << 16);

	for (size_t i = 0; i < ARRAY_LEN(fillers); i++) {
		for (enum conf_access_format f = ACCESS_COMBINED; f <= ACCESS_SHORT; f++) {
			struct slice huge = slice_of(text, 1 << 16);
			struct head request;
			struct access_record r = plain_record(&request);
			char *line;

			memset(text, fillers[i], huge.len);
			request_init(&request, huge, huge, huge);
			assert_int_equal(head_put(&request, huge, &request.method_text), 0);
			assert_int_equal(head_put(&request, huge, &request.authority), 0);
			r.id = r.client = r.peer = huge;
			line = written(f, &r);
			assert_true(strlen(line) < LOGGER_LINE_MAX);
			assert_non_null(strstr(line, f == ACCESS_SHORT ? "... " : "...\""));
			free(line);
			head_done(&request);
		}
	}
	free(text);
}

/* A reader of JSON strict enough to tell what others would refuse: returns where the value ends, NULL if it is none. */
static const char *json_value(const char *p);

static const char *json_string_end(const char *p)
{
	for (p++; *p != '"'; p++) {
		if ((unsigned char)*p < 0x20)
			return NULL;
		if (*p != '\\')
			continue;
		p++;
		if (*p == 'u') {
			if (strspn(p + 1, "0123456789abcdef") < 4)
				return NULL;
			p += 4;
		} else if (*p == '\0' || !strchr("\"\\/bfnrt", *p)) {
			return NULL;
		}
	}
	return p + 1;
}

static const char *json_object_end(const char *p)
{
	do {
		p++;
		if (*p != '"' || !(p = json_string_end(p)) || *p++ != ':' || !(p = json_value(p)))
			return NULL;
	} while (*p == ',');
	return *p == '}' ? p + 1 : NULL;
}

static const char *json_value(const char *p)
{
	static const char *const words[] = { "true", "false", "null" };
	size_t digits = strspn(p, "0123456789.");

	if (*p == '{')
		return json_object_end(p);
	if (*p == '"')
		return json_string_end(p);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strncmp(p, words[i], strlen(words[i])) == 0)
			return p + strlen(words[i]);
	return digits > 0 ? p + digits : NULL;
}

/* Each call gives other bytes, the same in each run of the test. */
static struct slice hostile_bytes(uint64_t *seed, char *out, size_t max)
{
	static const char spice[] = "\"\\\r\n\0{}[],:\x1b\x7f\xc2\xe2\xed\xf4\x80";
	size_t len;

	*seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	len = (size_t)(*seed >> 33) % max;
	for (size_t i = 0; i < len; i++) {
		*seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		out[i] = *seed >> 63 ? (char)(*seed >> 40) : spice[(*seed >> 40) % (sizeof(spice) - 1)];
	}
	return slice_of(out, len);
}

static void no_bytes_break_a_line(void **state UNUSED)
{
	char bytes[4][512];
	uint64_t seed = 1;

	for (int round = 0; round < 500; round++) {
		struct head request;
		struct access_record r = plain_record(round % 5 ? &request : NULL);
		char *line;
		const char *end;

		request_init(&request, hostile_bytes(&seed, bytes[0], 512), hostile_bytes(&seed, bytes[1], 512),
		    hostile_bytes(&seed, bytes[2], 512));
		r.request_line = hostile_bytes(&seed, bytes[0], 512);
		r.id = hostile_bytes(&seed, bytes[3], 512);
		line = written((enum conf_access_format)(round % 4), &r);
		if (round % 4 == ACCESS_JSON && (!(end = json_value(line)) || strcmp(end, "\n") != 0))
			fail_msg("round %d: %s", round, line);
		for (const char *c = line; *c; c++)
			if (((unsigned char)*c < 0x20 && *c != '\n') || *c == 0x7f)
				fail_msg("round %d: a control byte", round);
		free(line);
		head_done(&request);
	}
}

static void each_class_of_status_has_a_color(void **state UNUSED)
{
	static const struct {
		unsigned status;
		const char *start;
	} cases[] = {
		{ 200, "\x1b[32m200\x1b[0m " },
		{ 304, "\x1b[36m304\x1b[0m " },
		{ 499, "\x1b[33m499\x1b[0m " },
		{ 599, "\x1b[1;31m599\x1b[0m " },
		{ 101, "\x1b[0m101\x1b[0m " },
		{ 999, "\x1b[0m999\x1b[0m " },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct access_record r = { .status = cases[i].status, .request_line = SLICE("\x1b[31mGET") };
		char *line = written(ACCESS_COLOR, &r);

		if (strncmp(line, cases[i].start, strlen(cases[i].start)) != 0 || strstr(line + 10, "\x1b[31m"))
			fail_msg("row %zu: %s", i, line);
		free(line);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_in_each_format),
		cmocka_unit_test(a_refusal_of_what_was_not_understood),
		cmocka_unit_test(bytes_from_outside_are_escaped),
		cmocka_unit_test(long_texts_are_cut_and_marked),
		cmocka_unit_test(each_class_of_status_has_a_color),
		cmocka_unit_test(no_bytes_break_a_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
