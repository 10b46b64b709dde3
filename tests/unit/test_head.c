#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/head.h"

static void add(struct head *h, const char *name, const char *value)
{
	assert_int_equal(head_add(h, slice_str(name), slice_str(value)), 0);
}

static void fields_are_kept_in_order(void **state UNUSED)
{
	struct head h;
	char name[16], value[16];

	head_init(&h);
	assert_int_equal(head_memory(&h), 0);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		snprintf(value, sizeof(value), "%u", i);
		add(&h, name, i % 3 ? value : "");
	}
	assert_int_equal(h.field_count, 1000);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		snprintf(value, sizeof(value), "%u", i);
		if (!slice_eq(head_name(&h, i), slice_str(name)) || !slice_eq(head_value(&h, i), slice_str(i % 3 ? value : "")))
			fail_msg("field %u", i);
	}
	head_done(&h);
	head_done(&h);
	assert_int_equal(head_memory(&h), 0);
}

static void what_was_reserved_does_not_move(void **state UNUSED)
{
	struct head h;
	const char *text;

	head_init(&h);
	assert_int_equal(head_reserve(&h, 8, 2), 0);
	text = h.text;
	add(&h, "ab", "cd");
	add(&h, "ef", "gh");
	assert_ptr_equal(h.text, text);
	assert_int_equal(h.text_len, 8);
	assert_true(head_memory(&h) < 100);
	add(&h, "x", "y");
	assert_true(slice_eq(head_value(&h, 1), SLICE("gh")));
	head_done(&h);
}

static void a_field_is_small(void **state UNUSED)
{
	assert_true(sizeof(struct field) <= 20);
}

static void a_head_has_its_maxima(void **state UNUSED)
{
	struct head h;
	struct span span;
	struct slice much = { NULL, 16u << 20 };
	char *text = calloc(1, much.len);

	much.ptr = text;
	head_init(&h);
	assert_int_equal(head_put(&h, much, &span), 0);
	assert_int_equal(head_put(&h, SLICE("x"), &span), -E2BIG);
	assert_int_equal(head_add(&h, SLICE("x"), SLICE("")), -E2BIG);
	assert_int_equal(head_reserve(&h, 1, 0), -E2BIG);
	assert_int_equal(head_reserve(&h, SIZE_MAX, 0), -E2BIG);
	assert_int_equal(head_add(&h, slice_of(text, SIZE_MAX), slice_of(text, 1)), -E2BIG);
	head_done(&h);
	for (unsigned i = 0; i < 65535; i++)
		add(&h, "", "");
	assert_int_equal(head_add(&h, SLICE(""), SLICE("")), -E2BIG);
	assert_int_equal(head_add_spans(&h, (struct span){ 0, 0 }, (struct span){ 0, 0 }), -E2BIG);
	assert_int_equal(head_reserve(&h, 0, 1), -E2BIG);
	assert_int_equal(h.field_count, 65535);
	head_done(&h);
	free(text);
}

static void fields_are_found_by_id(void **state UNUSED)
{
	struct head h;

	head_init(&h);
	assert_int_equal(head_find(&h, FIELD_HOST, 0), -1);
	assert_int_equal(head_get(&h, FIELD_HOST).len, 0);
	add(&h, "X-Other", "1");
	add(&h, "CONNECTION", "a, Upgrade");
	add(&h, "connection", "\"close\" , te;x");
	assert_int_equal(head_find(&h, FIELD_CONNECTION, 0), 1);
	assert_int_equal(head_find(&h, FIELD_CONNECTION, 1), 1);
	assert_int_equal(head_find(&h, FIELD_CONNECTION, 2), 2);
	assert_int_equal(head_find(&h, FIELD_CONNECTION, 3), -1);
	assert_true(head_has_element(&h, FIELD_CONNECTION, SLICE("upgrade")));
	assert_true(head_has_element(&h, FIELD_CONNECTION, SLICE("TE;x")));
	assert_false(head_has_element(&h, FIELD_CONNECTION, SLICE("close")));
	assert_false(head_has_element(&h, FIELD_CONNECTION, SLICE("up")));
	assert_false(head_has_element(&h, FIELD_UPGRADE, SLICE("upgrade")));
	head_done(&h);
}

static void each_known_name_has_its_id_in_any_case(void **state UNUSED)
{
	for (unsigned id = FIELD_OTHER + 1; id < FIELD_ID_COUNT; id++) {
		struct slice name = field_id_name(id);
		char upper[32], other[33];

		assert_true(name.len > 0 && name.len < sizeof(upper));
		for (size_t i = 0; i < name.len; i++)
			upper[i] = (char)(name.ptr[i] >= 'a' && name.ptr[i] <= 'z' ? name.ptr[i] - 0x20 : name.ptr[i]);
		if (field_id_from(name) != id || field_id_from(slice_of(upper, name.len)) != id)
			fail_msg("%.*s", SLICE_ARG(name));
		/* One byte different or more is another name; above all '_' for '-'. */
		memcpy(other, name.ptr, name.len);
		other[name.len] = 'x';
		assert_int_equal(field_id_from(slice_of(other, name.len + 1)), FIELD_OTHER);
		for (size_t i = 0; i < name.len; i++) {
			memcpy(other, name.ptr, name.len);
			other[i] = '_';
			if (field_id_from(slice_of(other, name.len)) != FIELD_OTHER)
				fail_msg("%.*s", (int)name.len, other);
		}
	}
	assert_int_equal(field_id_from(SLICE("")), FIELD_OTHER);
	assert_int_equal(field_id_from(SLICE("X")), FIELD_OTHER);
	assert_int_equal(field_id_from(SLICE("A-Name-Longer-Than-All-Of-Them")), FIELD_OTHER);
}

static const struct {
	const char *text;
	enum method method;
	bool idempotent;
} methods[] = {
	{ "GET", METHOD_GET, true },
	{ "HEAD", METHOD_HEAD, true },
	{ "POST", METHOD_POST, false },
	{ "PUT", METHOD_PUT, true },
	{ "DELETE", METHOD_DELETE, true },
	{ "OPTIONS", METHOD_OPTIONS, true },
	{ "TRACE", METHOD_TRACE, true },
	{ "CONNECT", METHOD_CONNECT, false },
	{ "PATCH", METHOD_PATCH, false },
	{ "get", METHOD_OTHER, false },
	{ "GETS", METHOD_OTHER, false },
	{ "PROPFIND", METHOD_OTHER, false },
	{ "", METHOD_OTHER, false },
};

static void methods_are_known_by_their_exact_name(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
		enum method m = method_from(slice_str(methods[i].text));

		if (m != methods[i].method || method_is_idempotent(m) != methods[i].idempotent)
			fail_msg("row %zu: %s", i, methods[i].text);
	}
}

static void a_status_has_a_phrase_or_none(void **state UNUSED)
{
	assert_true(slice_eq(status_reason(200), SLICE("OK")));
	assert_true(slice_eq(status_reason(431), SLICE("Request Header Fields Too Large")));
	assert_int_equal(status_reason(299).len, 0);
	assert_int_equal(status_reason(0).len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_kept_in_order),
		cmocka_unit_test(what_was_reserved_does_not_move),
		cmocka_unit_test(a_field_is_small),
		cmocka_unit_test(a_head_has_its_maxima),
		cmocka_unit_test(fields_are_found_by_id),
		cmocka_unit_test(each_known_name_has_its_id_in_any_case),
		cmocka_unit_test(methods_are_known_by_their_exact_name),
		cmocka_unit_test(a_status_has_a_phrase_or_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
