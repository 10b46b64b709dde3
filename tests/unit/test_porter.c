#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/http1.h"
#include "proxy/serve/porter.h"

static void parse(const char *line, const char *host, struct head *ret)
{
	struct http1_message m;
	char text[512];
	int n = snprintf(text, sizeof(text), "%s HTTP/1.%d\r\n%s%s%s\r\n", line, host ? 1 : 0, host ? "Host: " : "",
	    host ? host : "", host ? "\r\n" : "");

	head_init(ret);
	assert_int_equal(http1_request(slice_of(text, (size_t)n), ret, &m), HTTP1_OK);
}

static const struct {
	const char *line, *host, *location; /* NULL: 400 */
} redirections[] = {
	{ "GET /", "example.org", "https://example.org/" },
	{ "GET /a/b?c=d&e", "example.org", "https://example.org/a/b?c=d&e" },
	{ "GET /a?", "example.org", "https://example.org/a?" },
	{ "GET /%2e%2E/a//b/../c", "example.org", "https://example.org/%2e%2E/a//b/../c" },
	{ "POST /form", "example.org:8080", "https://example.org/form" },
	{ "GET /", "[2001:db8::1]:80", "https://[2001:db8::1]/" },
	{ "GET //evil.example/x", "example.org", "https://example.org//evil.example/x" },
	{ "GET http://other.example/x?y", "example.org", "https://other.example/x?y" },
	{ "OPTIONS *", "example.org", "https://example.org/" },
	{ "POST /.well-known/acme-challenge/abc", "example.org", "https://example.org/.well-known/acme-challenge/abc" },
	{ "GET /.well-known/acme-challenge", "example.org", "https://example.org/.well-known/acme-challenge" },
	{ "GET /", NULL, NULL },
};

static void a_redirection_names_the_port_unless_it_is_the_usual_one(void **state UNUSED)
{
	struct conf_listen listen = { .redirect_https = true, .redirect_https_port = 8443 };
	static const char *const hosts[][2] = {
		{ "example.org", "https://example.org:8443/a" },
		{ "example.org:8080", "https://example.org:8443/a" },
		{ "[2001:db8::1]:80", "https://[2001:db8::1]:8443/a" },
	};

	for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
		struct porter_answer a;
		struct head h;

		parse("GET /a", hosts[i][0], &h);
		porter_ask(&listen, false, &h, &a);
		if (a.status != 308 || !slice_eq(buf_slice(&a.location), slice_str(hosts[i][1])))
			fail_msg("row %zu: %u %.*s", i, a.status, SLICE_ARG(buf_slice(&a.location)));
		porter_answer_done(&a);
		head_done(&h);
	}
}

static void a_redirection_keeps_host_and_target(void **state UNUSED)
{
	struct conf_listen listen = {
		.redirect_https = true, .redirect_https_port = 443, .acme_challenge = (char *)"/nonexistent"
	};

	for (size_t i = 0; i < ARRAY_LEN(redirections); i++) {
		struct porter_answer a;
		struct head h;

		parse(redirections[i].line, redirections[i].host, &h);
		porter_ask(&listen, false, &h, &a);
		if (a.status != (redirections[i].location ? 308 : 400))
			fail_msg("row %zu: status %u", i, a.status);
		if (redirections[i].location && !slice_eq(buf_slice(&a.location), slice_str(redirections[i].location)))
			fail_msg("row %zu: %.*s", i, SLICE_ARG(buf_slice(&a.location)));
		porter_answer_done(&a);
		porter_ask(&listen, true, &h, &a);
		if (a.status != 0)
			fail_msg("row %zu: over TLS status %u", i, a.status);
		porter_answer_done(&a);
		head_done(&h);
	}
}

/* A folder with one challenge, "good_Token-1"; one of more than the most; a link, a folder, and what lies outside. */
struct site {
	char folder[64], challenges[128];
	struct conf_listen listen;
};

static void put(const struct site *s, const char *name, size_t bytes)
{
	char path[256];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", s->challenges, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

static int set_up(void **state)
{
	struct site *s = calloc(1, sizeof(*s));
	char path[256];

	assert_non_null(s);
	strcpy(s->folder, "/tmp/forebay-porter-XXXXXX");
	assert_non_null(mkdtemp(s->folder));
	(void)snprintf(path, sizeof(path), "%s/.well-known", s->folder);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(s->challenges, sizeof(s->challenges), "%s/.well-known/acme-challenge", s->folder);
	assert_int_equal(mkdir(s->challenges, 0700), 0);
	put(s, "good_Token-1", 87);
	put(s, "empty", 0);
	put(s, "most", PORTER_FILE_MAX);
	put(s, "more", PORTER_FILE_MAX + 1);
	put(s, "with.dot", 10);
	put(s, "../outside", 10);
	(void)snprintf(path, sizeof(path), "%s/folder", s->challenges);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/pipe", s->challenges);
	assert_int_equal(mkfifo(path, 0600), 0);
	(void)snprintf(path, sizeof(path), "%s/link", s->challenges);
	assert_int_equal(symlink("good_Token-1", path), 0);
	s->listen = (struct conf_listen){ .redirect_https = true, .redirect_https_port = 443, .acme_challenge = s->folder };
	*state = s;
	return 0;
}

static int tear_down(void **state)
{
	static const char *const names[] = { "good_Token-1", "empty", "most", "more", "with.dot", "../outside", "folder",
		"pipe", "link" };
	struct site *s = *state;
	char path[256];

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", s->challenges, names[i]);
		(void)remove(path);
	}
	(void)rmdir(s->challenges);
	(void)snprintf(path, sizeof(path), "%s/.well-known", s->folder);
	(void)rmdir(path);
	(void)rmdir(s->folder);
	free(s);
	return 0;
}

#define TEN "0123456789"

static const struct {
	const char *name;
	unsigned status;
	uint64_t len;
	const char *reason;
} challenges[] = {
	{ "good_Token-1", 200, 87, "acme_challenge" },
	{ "empty", 200, 0, "acme_challenge" },
	{ "most", 200, PORTER_FILE_MAX, "acme_challenge" },
	{ "more", 404, 0, "challenge is too large" },
	{ "with.dot", 404, 0, "no name of a challenge" },
	{ "", 404, 0, "no name of a challenge" },
	{ "../outside", 404, 0, "no name of a challenge" },
	{ "%2e%2e/outside", 404, 0, "no name of a challenge" },
	{ "good_Token-1/", 404, 0, "no name of a challenge" },
	{ "folder", 404, 0, "challenge is no regular file" },
	{ "pipe", 404, 0, "challenge is no regular file" },
	{ "link", 404, 0, "no such challenge" },
	{ "none", 404, 0, "no such challenge" },
	{ TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "12345678", 404, 0, "no such challenge" },
	{ TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "123456789", 404, 0, "no name of a challenge" },
};

static void a_challenge_is_found_or_not(void **state)
{
	const struct site *s = *state;

	for (size_t i = 0; i < ARRAY_LEN(challenges); i++) {
		struct porter_answer a;
		struct head h;
		char line[300];

		(void)snprintf(line, sizeof(line), "GET " PORTER_PATH "%s?x=y", challenges[i].name);
		parse(line, "example.org", &h);
		porter_ask(&s->listen, false, &h, &a);
		if (a.status != challenges[i].status || strcmp(a.reason, challenges[i].reason) != 0 ||
		    (a.status == 200 && a.len != challenges[i].len))
			fail_msg("row %zu: %u %s, %" PRIu64 " bytes", i, a.status, a.reason, a.len);
		assert_true(a.status != 200 || a.fd >= 0);
		porter_answer_done(&a);
		assert_int_equal(a.fd, -1);
		head_done(&h);
	}
}

static void hsts_is_said_once_and_over_tls_only(void **state UNUSED)
{
	const struct conf_listen listen = { .hsts_ms = 90000 }, silent = { .hsts_ms = 0 };
	struct head h;

	head_init(&h);
	assert_int_equal(porter_hsts(&listen, false, &h), 0);
	assert_int_equal(porter_hsts(&silent, true, &h), 0);
	assert_int_equal(h.field_count, 0);
	assert_int_equal(porter_hsts(&listen, true, &h), 0);
	assert_int_equal(porter_hsts(&listen, true, &h), 0);
	assert_int_equal(h.field_count, 1);
	assert_true(slice_eq(head_value(&h, 0), SLICE("max-age=90")));
	head_done(&h);
	head_init(&h);
	assert_int_equal(head_add(&h, SLICE("strict-transport-security"), SLICE("max-age=0")), 0);
	assert_int_equal(porter_hsts(&listen, true, &h), 0);
	assert_int_equal(h.field_count, 1);
	head_done(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_redirection_keeps_host_and_target),
		cmocka_unit_test(a_redirection_names_the_port_unless_it_is_the_usual_one),
		cmocka_unit_test_setup_teardown(a_challenge_is_found_or_not, set_up, tear_down),
		cmocka_unit_test(hsts_is_said_once_and_over_tls_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
