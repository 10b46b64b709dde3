#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>

#include "upstream/protocol/cgi.h"

struct pairs {
	struct buf text; /* NAME=value, a line each */
	unsigned left;   /* fails after so many */
};

static int add_pair(void *ctx, struct slice name, struct slice value)
{
	struct pairs *p = ctx;

	if (p->left-- == 0)
		return -E2BIG;
	buf_add(&p->text, name);
	buf_char(&p->text, '=');
	buf_add(&p->text, value);
	buf_char(&p->text, '\n');
	return 0;
}

struct field_text {
	const char *name, *value;
};

#define FIELDS_MAX 6

static const struct {
	const char *path;
	const char *query; /* NULL: none */
	const char *authority;
	struct field_text fields[FIELDS_MAX];
	bool secure;
	uint16_t server_port;
	uint64_t length;
	const char *want[4];  /* lines that must be there */
	const char *never[2]; /* texts that must not */
} cases[] = {
	{ "/", NULL, "a.example", { { NULL, NULL } }, false, 8000, 0,
	    { "PATH_INFO=/\n", "QUERY_STRING=\n", "REQUEST_URI=/\n", "SCRIPT_NAME=\n" }, { "HTTPS", "CONTENT_LENGTH" } },
	{ "/a%20b%2Fc", "q=%20", "a.example:81", { { NULL, NULL } }, true, 0, 0,
	    { "PATH_INFO=/a b/c\n", "QUERY_STRING=q=%20\n", "REQUEST_URI=/a%20b%2Fc?q=%20\n",
	        "HTTPS=on\nSSL_PROTOCOL=TLSv1.3\n" },
	    { NULL, NULL } },
	{ "/", "", "[::1]:81", { { NULL, NULL } }, true, 0, 0,
	    { "REQUEST_URI=/?\n", "SERVER_NAME=[::1]\n", "SERVER_PORT=81\n", "REQUEST_SCHEME=https\n" }, { NULL, NULL } },
	{ "/", NULL, "a.example:81", { { NULL, NULL } }, false, 8000, 0,
	    { "SERVER_PORT=8000\n", "SERVER_NAME=a.example\n", "", "" }, { NULL, NULL } },
	{ "/", NULL, "a.example", { { NULL, NULL } }, true, 0, 0, { "SERVER_PORT=443\n", "", "", "" }, { NULL, NULL } },
	{ "/", NULL, "", { { NULL, NULL } }, false, 0, 0, { "SERVER_PORT=80\n", "SERVER_NAME=10.0.0.1\n", "", "" },
	    { NULL, NULL } },
	{ "/%", NULL, "a", { { NULL, NULL } }, false, 0, 0, { "PATH_INFO=/%\n", "", "", "" }, { NULL, NULL } },
	{ "/%4", NULL, "a", { { NULL, NULL } }, false, 0, 0, { "PATH_INFO=/%4\n", "", "", "" }, { NULL, NULL } },
	{ "/%4g%zz%%41", NULL, "a", { { NULL, NULL } }, false, 0, 0, { "PATH_INFO=/%4g%zz%A\n", "", "", "" }, { NULL, NULL } },
	{ "/%e9%FF", NULL, "a", { { NULL, NULL } }, false, 0, 0, { "PATH_INFO=/\xe9\xff\n", "", "", "" }, { NULL, NULL } },
	{ "*", NULL, "a", { { NULL, NULL } }, false, 0, 0, { "PATH_INFO=*\n", "REQUEST_URI=*\n", "", "" }, { NULL, NULL } },
	{ "/", NULL, "a", { { "Content-Type", "text/plain" }, { "Content-Length", "5" }, { "X-Some-Thing", "v" } }, false, 0, 5,
	    { "CONTENT_TYPE=text/plain\n", "CONTENT_LENGTH=5\n", "HTTP_X_SOME_THING=v\n", "" }, { "HTTP_CONTENT", NULL } },
	{ "/", NULL, "a", { { "Content-Length", "0" } }, false, 0, 0, { "CONTENT_LENGTH=0\n", "", "", "" }, { NULL, NULL } },
	{ "/", NULL, "a", { { "Accept", "a" }, { "X", "1" }, { "ACCEPT", "b" }, { "x", "2" }, { "Accept", "" } }, false, 0, 0,
	    { "HTTP_ACCEPT=a, b, \n", "HTTP_X=1, 2\n", "", "" }, { NULL, NULL } },
	{ "/", NULL, "a", { { "Cookie", "a=1" }, { "Cookie", "b=2" } }, false, 0, 0, { "HTTP_COOKIE=a=1; b=2\n", "", "", "" },
	    { NULL, NULL } },
	{ "/", NULL, "a", { { "X-Client-Verify", "SUCCESS" }, { "x-client-subject", "CN=a" }, { "X-Client-Verify", "NONE" } },
	    true, 0, 0, { "SSL_CLIENT_VERIFY=SUCCESS\n", "SSL_CLIENT_S_DN=CN=a\n", "HTTP_X_CLIENT_SUBJECT=CN=a\n", "" },
	    { "SSL_CLIENT_VERIFY=NONE", NULL } },
	{ "/", NULL, "a",
	    { { "X-Client-Verify", "SUCCESS" }, { "X-Client-Issuer", "CN=b" }, { "X-Client-Serial", "1F" },
	        { "X-Client-Fingerprint", "a0" } },
	    true, 0, 0,
	    { "SSL_CLIENT_VERIFY=SUCCESS\n", "SSL_CLIENT_I_DN=CN=b\n", "SSL_CLIENT_M_SERIAL=1F\n",
	        "SSL_CLIENT_FINGERPRINT=a0\n" },
	    { NULL, NULL } },
	{ "/", NULL, "a", { { "X-Client-Verify", "SUCCESS" } }, false, 0, 0, { "HTTP_X_CLIENT_VERIFY=SUCCESS\n", "", "", "" },
	    { "SSL_CLIENT", NULL } },
	{ "/", NULL, "a",
	    { { "Proxy", "evil" }, { "X_Forwarded_For", "evil" }, { "X!Y", "evil" }, { "Connection", "evil" },
	        { "Transfer-Encoding", "evil" }, { "Upgrade", "evil" } },
	    false, 0, 0, { "", "", "", "" }, { "evil", "HTTP_PROXY" } },
};

static void make_request(struct request *r, size_t i)
{
	*r = (struct request){ .length_known = true,
		.length = cases[i].length,
		.secure = cases[i].secure,
		.tls_version = cases[i].secure ? "TLSv1.3" : NULL,
		.id = "id-1",
		.queue_us = 12034,
		.remote_addr = "192.0.2.7",
		.remote_port = 1234,
		.server_addr = "10.0.0.1",
		.server_port = cases[i].server_port };
	head_init(&r->head);
	r->head.version = 11;
	assert_int_equal(head_put(&r->head, SLICE("POST"), &r->head.method_text), 0);
	assert_int_equal(head_put(&r->head, slice_str(cases[i].path), &r->head.path), 0);
	assert_int_equal(head_put(&r->head, slice_str(cases[i].authority), &r->head.authority), 0);
	r->head.has_query = cases[i].query != NULL;
	assert_int_equal(head_put(&r->head, slice_str(cases[i].query), &r->head.query), 0);
	for (size_t k = 0; k < FIELDS_MAX && cases[i].fields[k].name; k++)
		assert_int_equal(
		    head_add(&r->head, slice_str(cases[i].fields[k].name), slice_str(cases[i].fields[k].value)), 0);
}

static bool has_line(struct slice text, const char *line)
{
	struct slice wanted = slice_str(line);

	for (size_t at = 0; text.len > 0 && at + wanted.len <= text.len; at++)
		if (memcmp(text.ptr + at, wanted.ptr, wanted.len) == 0 &&
		    (at == 0 || text.ptr[at - 1] == '\n' || wanted.len == 0))
			return true;
	return false;
}

static void a_request_becomes_variables(void **state)
{
	static const char *const always[] = { "GATEWAY_INTERFACE=CGI/1.1\n", "SERVER_SOFTWARE=forebay\n",
		"REQUEST_METHOD=POST\n", "SERVER_PROTOCOL=HTTP/1.1\n", "REMOTE_ADDR=192.0.2.7\n", "REMOTE_PORT=1234\n",
		"FOREBAY_REQUEST_ID=id-1\n", "FOREBAY_QUEUE_MS=12.034\n" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct pairs p = { .left = 100 };
		struct buf scratch;
		struct request r;

		buf_init(&scratch, 4096);
		buf_init(&p.text, 4096);
		make_request(&r, i);
		assert_int_equal(cgi_each(&r, &scratch, add_pair, &p), 0);
		for (size_t k = 0; k < ARRAY_LEN(always); k++)
			if (!has_line(buf_slice(&p.text), always[k]))
				fail_msg("row %zu: no %s in %.*s", i, always[k], SLICE_ARG(buf_slice(&p.text)));
		for (size_t k = 0; k < ARRAY_LEN(cases[i].want); k++)
			if (cases[i].want[k] && !has_line(buf_slice(&p.text), cases[i].want[k]))
				fail_msg("row %zu: no %s in %.*s", i, cases[i].want[k], SLICE_ARG(buf_slice(&p.text)));
		buf_char(&p.text, '\0');
		for (size_t k = 0; k < ARRAY_LEN(cases[i].never); k++)
			if (cases[i].never[k] && strstr(p.text.ptr, cases[i].never[k]))
				fail_msg("row %zu: %s in %s", i, cases[i].never[k], p.text.ptr);
		buf_done(&scratch);
		buf_done(&p.text);
		head_done(&r.head);
	}
}

static const struct {
	const char *mount, *path, *script_name, *path_info;
} mounts[] = {
	{ "/blog", "/blog/a", "/blog", "/a" },
	{ "/blog", "/blog", "/blog", "" },
	{ "/blog", "/blog/", "/blog", "/" },
	{ "/blog", "/blog//a", "/blog", "//a" },
	{ "/a/b", "/a/b/c%20d", "/a/b", "/c d" },
	/* however it is encoded: SCRIPT_NAME is decoded, too */
	{ "/blog", "/%62lo%67/%61", "/blog", "/a" },
	{ "/a%20b", "/a%20b/c", "/a b", "/c" },
	{ "/a%2db", "/a-b/c", "/a-b", "/c" },
	{ "/caf%c3%a9", "/caf%C3%A9", "/caf\xc3\xa9", "" },
	{ "/100%", "/100%/x", "/100%", "/x" },
	/* not under it */
	{ "/blog", "/blogs", "", "/blogs" },
	{ "/blog", "/blo", "", "/blo" },
	{ "/blog", "/", "", "/" },
	{ "/blog", "*", "", "*" },
	{ "/blog", "/Blog/a", "", "/Blog/a" },
	{ "/blog", "/blog%2Fa", "", "/blog/a" }, /* that is one segment */
	{ "/a/b", "/a%2Fb/c", "", "/a/b/c" },
	{ "/a%2Fb", "/a/b", "", "/a/b" },
	{ "/a%2Fb", "/a%2fb/c", "/a/b", "/c" },
	{ "/blog", "/x/../blog/a", "", "/x/../blog/a" },
	{ "/blog", "//blog/a", "", "//blog/a" },
	{ "/blog", "/%", "", "/%" },
};

static void a_mount_is_cut_off_by_whole_segments(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(mounts); i++) {
		struct pairs p = { .left = 100 };
		char want[256];
		struct buf scratch;
		struct request r;

		buf_init(&scratch, 4096);
		buf_init(&p.text, 4096);
		make_request(&r, 0);
		r.mount = mounts[i].mount;
		assert_int_equal(head_put(&r.head, slice_str(mounts[i].path), &r.head.path), 0);
		assert_int_equal(cgi_each(&r, &scratch, add_pair, &p), 0);
		snprintf(want, sizeof(want), "SCRIPT_NAME=%s\nPATH_INFO=%s\n", mounts[i].script_name, mounts[i].path_info);
		if (!has_line(buf_slice(&p.text), want))
			fail_msg("row %zu: no %s in %.*s", i, want, SLICE_ARG(buf_slice(&p.text)));
		snprintf(want, sizeof(want), "REQUEST_URI=%s\n", mounts[i].path);
		assert_true(has_line(buf_slice(&p.text), want));
		buf_done(&scratch);
		buf_done(&p.text);
		head_done(&r.head);
	}
}

static void what_does_not_fit_is_an_error(void **state)
{
	struct pairs p = { .left = 5 };
	struct buf scratch;
	struct request r;

	(void)state;
	buf_init(&p.text, 4096);
	make_request(&r, 1);
	buf_init(&scratch, 64);
	assert_int_equal(cgi_each(&r, &scratch, add_pair, &p), -E2BIG); /* what the sink says */
	buf_done(&scratch);
	buf_init(&scratch, 8); /* less than the path */
	p.left = 100;
	assert_int_equal(cgi_each(&r, &scratch, add_pair, &p), -ENOMEM);
	buf_done(&scratch);
	buf_done(&p.text);
	head_done(&r.head);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_becomes_variables),
		cmocka_unit_test(a_mount_is_cut_off_by_whole_segments),
		cmocka_unit_test(what_does_not_fit_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
