#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "proxy/serve/refusal.h"

#define PAGE_MAX (64 << 10)

/* A whole answer, the page ended by a NUL. */
struct answer {
	struct head head;
	struct buf page;
};

static void answer_init(struct answer *a, const struct refusal *r)
{
	head_init(&a->head);
	buf_init(&a->page, PAGE_MAX);
	assert_int_equal(refusal_make(r, &a->head, &a->page), 0);
	buf_char(&a->page, '\0');
	assert_false(a->page.failed);
}

static void answer_done(struct answer *a)
{
	head_done(&a->head);
	buf_done(&a->page);
}

#define HTML "text/html; charset=utf-8"
#define JSON "application/json"
#define TEXT "text/plain; charset=utf-8"

static const struct {
	struct slice accept;
	const char *content_type;
} accepts[] = {
	{ SLICE_INIT(""), HTML },
	{ SLICE_INIT("*/*"), HTML },
	{ SLICE_INIT("text/html"), HTML },
	{ SLICE_INIT("text/plain"), TEXT },
	{ SLICE_INIT("application/json"), JSON },
	{ SLICE_INIT("APPLICATION/Json"), JSON },
	{ SLICE_INIT("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"), HTML },
	{ SLICE_INIT("application/json, text/plain, */*"), JSON },
	{ SLICE_INIT("application/json, */*;q=0.5"), JSON },
	{ SLICE_INIT("text/*"), HTML },
	{ SLICE_INIT("application/*"), JSON },
	{ SLICE_INIT("text/*, text/html;q=0"), TEXT },
	{ SLICE_INIT("*/*, text/html;q=0"), JSON },
	{ SLICE_INIT("*/*;q=0.5, text/plain;q=0.4, text/html;q=0.3"), JSON },
	{ SLICE_INIT("text/html;q=0.2, application/json;q=0.3, text/plain;q=0.1"), JSON },
	{ SLICE_INIT("text/html;q=0.001,text/plain;q=0.002"), TEXT },
	{ SLICE_INIT("text/html;q=1.000,text/plain;q=1"), HTML },
	{ SLICE_INIT("text/html ; q=0.1 , text/plain ; q=0.2"), TEXT },
	{ SLICE_INIT("text/html;level=1;q=0.1,text/plain;Q=0.2"), TEXT },
	/* Nothing of ours. */
	{ SLICE_INIT("image/png"), HTML },
	{ SLICE_INIT("text/html;q=0"), HTML },
	{ SLICE_INIT("*/*;q=0"), HTML },
	/* Not a weight: the range says nothing. */
	{ SLICE_INIT("text/plain;q=2"), HTML },
	{ SLICE_INIT("text/plain;q=1.001"), HTML },
	{ SLICE_INIT("text/plain;q=0.1234"), HTML },
	{ SLICE_INIT("text/plain;q="), HTML },
	{ SLICE_INIT("text/plain;q=-1"), HTML },
	{ SLICE_INIT("text/plain;q=0x1"), HTML },
	{ SLICE_INIT("text/plain;q=1a"), HTML },
	/* Hostile. */
	{ SLICE_INIT(",,,;;;===///"), HTML },
	{ SLICE_INIT("\0\xff\"unended, application/json"), HTML },
	{ SLICE_INIT("application/json\0"), HTML },
	{ SLICE_INIT("json"), HTML },
	{ SLICE_INIT("*/json"), HTML },
	{ SLICE_INIT("/"), HTML },
	{ SLICE_INIT(";q=1"), HTML },
};

static void the_client_chooses_the_format(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(accepts); i++) {
		const struct refusal r = { .status = 404, .accept = accepts[i].accept };
		struct answer a;

		answer_init(&a, &r);
		if (!slice_eq(head_get(&a.head, FIELD_CONTENT_TYPE), slice_str(accepts[i].content_type)))
			fail_msg("row %zu: %.*s got %.*s", i, SLICE_ARG(accepts[i].accept),
			    SLICE_ARG(head_get(&a.head, FIELD_CONTENT_TYPE)));
		answer_done(&a);
	}
}

static void the_head_is_complete(void **state UNUSED)
{
	const struct refusal r = { .status = 503, .retry_after_s = 30 }, no_retry = { .status = 404 };
	struct answer a;
	uint64_t length;

	answer_init(&a, &r);
	assert_int_equal(a.head.status, 503);
	assert_true(slice_eq(head_text(&a.head, a.head.reason), SLICE("Service Unavailable")));
	assert_true(slice_to_u64(head_get(&a.head, FIELD_CONTENT_LENGTH), &length));
	assert_int_equal(length, strlen(a.page.ptr));
	assert_true(slice_eq(head_get(&a.head, FIELD_RETRY_AFTER), SLICE("30")));
	answer_done(&a);
	answer_init(&a, &no_retry);
	assert_int_equal(head_find(&a.head, FIELD_RETRY_AFTER, 0), -1);
	answer_done(&a);
}

static void the_page_comes_behind_what_is_there(void **state UNUSED)
{
	const struct refusal r = { .status = 404, .accept = SLICE("text/plain") };
	struct head h;
	struct buf page;
	uint64_t length;

	head_init(&h);
	buf_init(&page, PAGE_MAX);
	buf_add(&page, SLICE("before"));
	assert_int_equal(refusal_make(&r, &h, &page), 0);
	assert_true(slice_to_u64(head_get(&h, FIELD_CONTENT_LENGTH), &length));
	assert_int_equal(page.len, length + 6);
	assert_true(slice_starts(buf_slice(&page), SLICE("before404 Not Found\n")));
	head_done(&h);
	buf_done(&page);
}

static const char *const formats[] = { "text/html", "application/json", "text/plain" };

static void every_status_has_a_sentence(void **state UNUSED)
{
	static const unsigned statuses[] = { 400, 403, 404, 408, 413, 414, 417, 431, 500, 501, 502, 503, 504, 505, 507, 599 };

	for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
		for (size_t f = 0; f < ARRAY_LEN(formats); f++) {
			const struct refusal r = {
				.status = statuses[i], .accept = slice_str(formats[f]), .id = SLICE("id-17")
			};
			struct answer a;
			char number[8];

			answer_init(&a, &r);
			snprintf(number, sizeof(number), "%u", statuses[i]);
			if (!strstr(a.page.ptr, number) || !strstr(a.page.ptr, ".") || !strstr(a.page.ptr, "id-17"))
				fail_msg("%u as %s: %s", statuses[i], formats[f], a.page.ptr);
			answer_done(&a);
		}
	}
}

static const struct {
	unsigned status;
	bool shown;
} reasons[] = { { 400, true }, { 499, true }, { 500, false }, { 502, false }, { 503, false } };

static void a_reason_is_shown_for_4xx_only(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
		for (size_t f = 0; f < ARRAY_LEN(formats); f++) {
			const struct refusal r = { .status = reasons[i].status,
				.reason = "bare LF in the request head",
				.accept = slice_str(formats[f]) };
			struct answer a;

			answer_init(&a, &r);
			if (!!strstr(a.page.ptr, "bare LF in the request head") != reasons[i].shown)
				fail_msg("row %zu as %s", i, formats[f]);
			answer_done(&a);
		}
	}
}

static const struct {
	const char *accept, *shown;
} escaped[] = {
	{ "text/html", "&lt;script&gt;&amp;&quot;&#39;\\?? ??" },
	{ "application/json", "<script>&\\\"'\\\\?? ??" },
	{ "text/plain", "<script>&\"'\\?? ??" },
};

static void an_id_cannot_break_out(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(escaped); i++) {
		const struct refusal r = {
			.status = 400, .accept = slice_str(escaped[i].accept), .id = SLICE("<script>&\"'\\\n\0 \xc3\xa9")
		};
		struct answer a;

		answer_init(&a, &r);
		if (!strstr(a.page.ptr, escaped[i].shown))
			fail_msg("row %zu: %s", i, a.page.ptr);
		if (strstr(a.page.ptr, "<script>") && i == 0)
			fail_msg("row %zu: not escaped", i);
		answer_done(&a);
	}
}

static void the_whole_text_page(void **state UNUSED)
{
	const struct refusal r = { .status = 404, .reason = "no route", .accept = SLICE("text/plain"), .id = SLICE("a-1") };
	struct answer a;

	answer_init(&a, &r);
	assert_string_equal(a.page.ptr, "404 Not Found\n\nThere is nothing at this address.\nReason: no route\nRequest: a-1\n");
	answer_done(&a);
}

static void the_whole_json_page(void **state UNUSED)
{
	const struct refusal r = {
		.status = 503, .reason = "queue full", .accept = SLICE("application/json"), .id = SLICE("a-1")
	};
	struct answer a;

	answer_init(&a, &r);
	assert_string_equal(a.page.ptr,
	    "{\"status\":503,\"title\":\"Service Unavailable\",\"detail\":\"The server is too busy to answer right now. "
	    "Please try again in a moment.\",\"request_id\":\"a-1\"}\n");
	answer_done(&a);
}

static void a_page_without_room_leaves_nothing(void **state UNUSED)
{
	const struct refusal r = { .status = 404 };
	struct head h;
	struct buf page;

	head_init(&h);
	buf_init(&page, 100);
	assert_int_equal(refusal_make(&r, &h, &page), -ENOMEM);
	assert_int_equal(page.len, 0);
	assert_int_equal(h.field_count, 0);
	head_done(&h);
	buf_done(&page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_client_chooses_the_format),
		cmocka_unit_test(the_head_is_complete),
		cmocka_unit_test(the_page_comes_behind_what_is_there),
		cmocka_unit_test(every_status_has_a_sentence),
		cmocka_unit_test(a_reason_is_shown_for_4xx_only),
		cmocka_unit_test(an_id_cannot_break_out),
		cmocka_unit_test(the_whole_text_page),
		cmocka_unit_test(the_whole_json_page),
		cmocka_unit_test(a_page_without_room_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
