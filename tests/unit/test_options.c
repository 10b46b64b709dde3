/* options: every row of the table, the values of each type, and how the table is printed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "conf/reader.h"
#include "conf/values.h"
#include "core/buf.h"

/* Any section's struct. */
union target {
	struct conf_daemon daemon;
	struct conf_listen listen;
	struct conf_pool pool;
	struct conf_route route;
};

typedef void row_test(const struct option *o);

static void each_row(row_test *test)
{
	for (int s = 0; s < SECTION_COUNT; s++) {
		size_t count;
		const struct option *options = options_of((enum option_section)s, &count);

		assert_true(count > 0);
		for (size_t i = 0; i < count; i++)
			test(&options[i]);
	}
}

static uint64_t number_in(const struct option *o, const union target *t)
{
	uint64_t number;
	unsigned small;

	if (o->type == OPTION_UINT) {
		memcpy(&small, (const char *)t + o->offset, sizeof(small));
		return small;
	}
	memcpy(&number, (const char *)t + o->offset, sizeof(number));
	return number;
}

static bool is_number(const struct option *o)
{
	return o->type <= OPTION_TIME;
}

static int try(const struct option *o, const char *value)
{
	union target t;
	struct refusal why;
	int err;

	memset(&t, 0, sizeof(t));
	err = option_set(o, &t, slice_str(value), &why);
	if (err == -EINVAL && !why.expected[0])
		fail_msg("%s: no word of what is expected", o->name);
	option_free(o, &t);
	return err;
}

static void row_has_help(const struct option *o)
{
	struct slice help = slice_str(o->help);

	if (help.len < 10 || !slice_ends(help, SLICE(".")))
		fail_msg("%s.%s: help is no sentence", section_kind(o->section), o->name);
	if (slice_starts(help, SLICE(" ")) || memmem(help.ptr, help.len, "  ", 2))
		fail_msg("%s.%s: two spaces", section_kind(o->section), o->name);
	if (is_number(o) && !o->unit)
		fail_msg("%s.%s: no unit", section_kind(o->section), o->name);
}

static void each_row_has_help(void **state UNUSED)
{
	each_row(row_has_help);
}

static void row_is_found_by_its_name(const struct option *o)
{
	assert_ptr_equal(option_find(o->section, slice_str(o->name)), o);
	assert_true(strlen(o->name) <= READER_NAME_MAX);
	for (const char *c = o->name; *c; c++)
		assert_true((*c >= 'a' && *c <= 'z') || *c == '_' || (c > o->name && *c >= '0' && *c <= '9'));
}

static void each_row_is_found_by_its_name(void **state UNUSED)
{
	each_row(row_is_found_by_its_name);
	assert_null(option_find(SECTION_POOL, SLICE("slot")));
	assert_null(option_find(SECTION_POOL, SLICE("slotss")));
	assert_null(option_find(SECTION_POOL, SLICE("")));
	assert_int_equal(section_find(SLICE("pool")), SECTION_POOL);
	assert_int_equal(section_find(SLICE("poo")), SECTION_COUNT);
	assert_int_equal(section_find(SLICE("Pool")), SECTION_COUNT);
}

static void default_is_taken(const struct option *o)
{
	union target t;
	struct refusal why;

	memset(&t, 0, sizeof(t));
	if (o->initial && option_set(o, &t, slice_str(o->initial), &why) != 0)
		fail_msg("%s.%s: default %s: expected %s", section_kind(o->section), o->name, o->initial, why.expected);
	if (o->initial && is_number(o) && !option_may_be_auto(o)) {
		assert_true(number_in(o, &t) >= o->min);
		assert_true(number_in(o, &t) <= o->max);
	}
	if (o->initial && option_may_be_auto(o))
		assert_int_equal(number_in(o, &t), 0);
	option_free(o, &t);
	assert_int_equal(option_set_initial(o, &t), 0);
	option_free(o, &t);
}

static void each_default_is_within_its_bounds(void **state UNUSED)
{
	each_row(default_is_taken);
}

/* As a file would have to write it. */
static const char *written(const struct option *o, uint64_t number, char *out, size_t size)
{
	snprintf(out, size, "%" PRIu64 "%s", number, o->type == OPTION_TIME ? "ms" : "");
	return out;
}

static void bounds_hold(const struct option *o)
{
	char text[32];

	if (!is_number(o))
		return;
	assert_true(o->min <= o->max);
	assert_true(o->type != OPTION_UINT || o->max <= UINT32_MAX);
	/* 0 is what auto is in the field. */
	assert_true(!option_may_be_auto(o) || o->min > 0);
	if (try(o, written(o, o->min, text, sizeof(text))) != 0 || try(o, written(o, o->max, text, sizeof(text))) != 0)
		fail_msg("%s: a bound is refused", o->name);
	if (try(o, written(o, o->max + 1, text, sizeof(text))) != -EINVAL)
		fail_msg("%s: %s is taken", o->name, text);
	if (o->min > 0 && try(o, written(o, o->min - 1, text, sizeof(text))) != -EINVAL)
		fail_msg("%s: %s is taken", o->name, text);
	assert_int_equal(try(o, "18446744073709551616"), -EINVAL);
	assert_int_equal(try(o, "-1"), -EINVAL);
	assert_int_equal(try(o, ""), -EINVAL);
	assert_int_equal(try(o, "auto"), option_may_be_auto(o) ? 0 : -EINVAL);
}

static void each_bound_holds(void **state UNUSED)
{
	each_row(bounds_hold);
}

#define REFUSED UINT64_MAX

static const struct {
	enum option_section section;
	const char *option, *value;
	uint64_t number; /* REFUSED: it is */
	const char *nearest;
} numbers[] = {
	{ SECTION_LISTEN, "head_timeout", "10", 10000, "" },
	{ SECTION_LISTEN, "head_timeout", "100ms", 100, "" },
	{ SECTION_LISTEN, "head_timeout", "10s", 10000, "" },
	{ SECTION_LISTEN, "head_timeout", "2m", 120000, "" },
	{ SECTION_LISTEN, "idle_timeout", "2h", 7200000, "" },
	{ SECTION_LISTEN, "idle_timeout", "1d", 86400000, "" },
	{ SECTION_LISTEN, "head_timeout", "010", 10000, "" },
	{ SECTION_LISTEN, "head_timeout", "10S", REFUSED, "10s" },
	{ SECTION_LISTEN, "head_timeout", "10 s", REFUSED, "" },
	{ SECTION_LISTEN, "head_timeout", "10sec", REFUSED, "" },
	{ SECTION_LISTEN, "head_timeout", "1.5s", REFUSED, "" },
	{ SECTION_LISTEN, "head_timeout", "s", REFUSED, "" },
	{ SECTION_LISTEN, "head_timeout", "10K", REFUSED, "" },
	{ SECTION_LISTEN, "head_timeout", "1m30s", REFUSED, "" },
	{ SECTION_LISTEN, "head_timeout", "18446744073709551615d", REFUSED, "" },
	{ SECTION_ROUTE, "body_limit", "0", 0, "" },
	{ SECTION_ROUTE, "body_limit", "1", 1, "" },
	{ SECTION_ROUTE, "body_limit", "1K", 1024, "" },
	{ SECTION_ROUTE, "body_limit", "3M", 3145728, "" },
	{ SECTION_ROUTE, "body_limit", "2G", 2147483648, "" },
	{ SECTION_ROUTE, "body_limit", "2g", REFUSED, "2G" },
	{ SECTION_ROUTE, "body_limit", "2GB", REFUSED, "" },
	{ SECTION_ROUTE, "body_limit", "2s", REFUSED, "" },
	{ SECTION_ROUTE, "body_limit", "18014398509481985K", REFUSED, "" },
	{ SECTION_ROUTE, "body_limit", "0x10", REFUSED, "" },
	{ SECTION_LISTEN, "min_rate", "2K", 2048, "" },
	{ SECTION_LISTEN, "min_rate", "2K/s", REFUSED, "" },
	{ SECTION_LISTEN, "keepalive_requests", "10", 10, "" },
	{ SECTION_LISTEN, "keepalive_requests", "1K", REFUSED, "" },
	{ SECTION_LISTEN, "fields_max", "+5", REFUSED, "" },
	{ SECTION_FOREBAY, "threads", "atuo", REFUSED, "auto" },
	{ SECTION_FOREBAY, "threads", "4", 4, "" },
	{ SECTION_FOREBAY, "threads", "0", REFUSED, "" },
	{ SECTION_LISTEN, "backlog", "auto", REFUSED, "" },
};

static void a_number_is_taken_or_refused(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		const struct option *o = option_find(numbers[i].section, slice_str(numbers[i].option));
		union target t;
		struct refusal why;

		memset(&t, 0, sizeof(t));
		if ((option_set(o, &t, slice_str(numbers[i].value), &why) == 0) != (numbers[i].number != REFUSED))
			fail_msg("row %zu: %s", i, numbers[i].value);
		if (numbers[i].number != REFUSED && number_in(o, &t) != numbers[i].number)
			fail_msg("row %zu: %" PRIu64, i, number_in(o, &t));
		if (strcmp(why.nearest, numbers[i].nearest) != 0)
			fail_msg("row %zu: did you mean %s", i, why.nearest);
	}
}

static const struct {
	enum option_section section;
	const char *option, *value;
	const char *nearest; /* NULL: it is taken */
} texts[] = {
	{ SECTION_LISTEN, "half_close", "on", NULL },
	{ SECTION_LISTEN, "half_close", "false", NULL },
	{ SECTION_LISTEN, "half_close", "1", "" },
	{ SECTION_LISTEN, "half_close", "ture", "true" },
	{ SECTION_LISTEN, "half_close", "ON", "on" },
	{ SECTION_FOREBAY, "log_level", "debug", NULL },
	{ SECTION_FOREBAY, "log_level", "warn", "" },
	{ SECTION_FOREBAY, "log_level", "waring", "warning" },
	{ SECTION_FOREBAY, "log", "/var/log/x", NULL },
	{ SECTION_FOREBAY, "log", "stderr", NULL },
	{ SECTION_FOREBAY, "log", "off", "" },
	{ SECTION_FOREBAY, "log", "sdterr", "stderr" },
	{ SECTION_FOREBAY, "log", "log/x", "" },
	{ SECTION_FOREBAY, "access_log", "off", NULL },
	{ SECTION_FOREBAY, "spool_dir", "stderr", "" },
	{ SECTION_FOREBAY, "user", "www-data", NULL },
	{ SECTION_FOREBAY, "user", "-x", "" },
	{ SECTION_FOREBAY, "user", "a b", "" },
	{ SECTION_POOL, "app", "demo", NULL },
	{ SECTION_POOL, "app", "dem", "demo" },
	{ SECTION_POOL, "app", "wsgi:a.b:c", NULL },
	{ SECTION_POOL, "app", "exec:gunicorn", "" },
	{ SECTION_POOL, "environment", "A=", NULL },
	{ SECTION_POOL, "environment", "_a1=b=c", NULL },
	{ SECTION_POOL, "environment", "1a=b", "" },
	{ SECTION_POOL, "environment", "A-B=c", "" },
	{ SECTION_POOL, "environment", "=b", "" },
	{ SECTION_POOL, "environment", "A", "" },
};

static void a_text_is_taken_or_refused(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		const struct option *o = option_find(texts[i].section, slice_str(texts[i].option));
		union target t;
		struct refusal why;

		memset(&t, 0, sizeof(t));
		if ((option_set(o, &t, slice_str(texts[i].value), &why) == 0) != !texts[i].nearest)
			fail_msg("row %zu: %s", i, texts[i].value);
		if (!slice_eq(slice_str(why.nearest), slice_str(texts[i].nearest)))
			fail_msg("row %zu: did you mean %s", i, why.nearest);
		option_free(o, &t);
	}
}

static void every_word_of_a_switch_means_what_it_says(void **state UNUSED)
{
	static const char *const words[] = { "off", "on", "no", "yes", "false", "true" };
	const struct option *o = option_find(SECTION_LISTEN, SLICE("half_close"));

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		struct conf_listen l = { .half_close = i % 2 == 0 };
		struct refusal why;

		assert_int_equal(option_set(o, &l, slice_str(words[i]), &why), 0);
		assert_int_equal(l.half_close, i % 2 == 1);
	}
}

static void a_list_ends_at_its_maximum(void **state UNUSED)
{
	const struct option *o = option_find(SECTION_POOL, SLICE("environment"));
	struct conf_pool p = { 0 };
	struct refusal why;
	char text[32];

	for (unsigned i = 0; i < LIST_MAX; i++) {
		snprintf(text, sizeof(text), "KEY_%u=%u", i, i);
		assert_int_equal(option_set(o, &p, slice_str(text), &why), 0);
	}
	assert_int_equal(p.environment_count, LIST_MAX);
	assert_string_equal(p.environment[LIST_MAX - 1], "KEY_1023=1023");
	assert_int_equal(option_set(o, &p, SLICE("MORE=1"), &why), -EINVAL);
	assert_string_equal(why.expected, "at most 1024 values");
	assert_int_equal(p.environment_count, LIST_MAX);
	option_free(o, &p);
	assert_null(p.environment);
}

static void a_variable_is_set_once(void **state UNUSED)
{
	const struct option *o = option_find(SECTION_POOL, SLICE("environment"));
	struct conf_pool p = { 0 };
	struct refusal why;

	assert_int_equal(option_set(o, &p, SLICE("AB=1"), &why), 0);
	assert_int_equal(option_set(o, &p, SLICE("A=1"), &why), 0);
	assert_int_equal(option_set(o, &p, SLICE("ABC=1"), &why), 0);
	assert_int_equal(option_set(o, &p, SLICE("AB=2"), &why), -EINVAL);
	assert_string_equal(why.expected, "each variable once");
	option_free(o, &p);
}

static void a_name_is_ok_or_not(void **state UNUSED)
{
	char name[NAME_BYTES_MAX + 1];

	memset(name, 'a', sizeof(name));
	assert_true(name_ok(slice_of(name, NAME_BYTES_MAX)));
	assert_false(name_ok(slice_of(name, NAME_BYTES_MAX + 1)));
	assert_true(name_ok(SLICE("A_b-c.9")));
	assert_false(name_ok(SLICE("")));
	assert_false(name_ok(SLICE(".a")));
	assert_false(name_ok(SLICE("-a")));
	assert_false(name_ok(SLICE("a/b")));
	assert_false(name_ok(SLICE("a\0b")));
	assert_false(name_ok(SLICE("\xc3\xa4")));
}

static const struct {
	const char *a, *b;
	unsigned distance;
} distances[] = {
	{ "", "", 0 },
	{ "", "abc", 3 },
	{ "slots", "slots", 0 },
	{ "slots", "Slots", 0 },
	{ "slots", "slot", 1 },
	{ "slots", "lsots", 1 },
	{ "slots", "sltos", 1 },
	{ "slots", "sloots", 1 },
	{ "slots", "xxots", 2 },
	{ "kitten", "sitting", 3 },
	{ "abcd", "badc", 2 },
};

static void distance_counts_typing_errors(void **state UNUSED)
{
	char long_word[NEAREST_MAX + 1];

	for (size_t i = 0; i < ARRAY_LEN(distances); i++) {
		struct slice a = slice_str(distances[i].a), b = slice_str(distances[i].b);

		if (nearest_distance(a, b) != distances[i].distance || nearest_distance(b, a) != distances[i].distance)
			fail_msg("row %zu: %u", i, nearest_distance(a, b));
	}
	memset(long_word, 'a', sizeof(long_word));
	assert_int_equal(nearest_distance(slice_of(long_word, NEAREST_MAX), slice_of(long_word, NEAREST_MAX)), 0);
	assert_int_equal(nearest_distance(slice_of(long_word, NEAREST_MAX), SLICE("")), NEAREST_MAX);
	assert_int_equal(nearest_distance(slice_of(long_word, sizeof(long_word)), SLICE("a")), NEAREST_MAX + 1);
}

/* What a printer wrote, yours to free. */
static char *printed(void (*print)(FILE *out))
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	print(out);
	assert_int_equal(fclose(out), 0);
	return text;
}

static const char *print_text, *print_mdoc;

static void row_is_printed(const struct option *o)
{
	char head[64];

	snprintf(head, sizeof(head), "\n  %s\n", o->name);
	if (!strstr(print_text, head))
		fail_msg("%s is not in the text", o->name);
	snprintf(head, sizeof(head), "\n.It Cm %s No = Ar ", o->name);
	if (!strstr(print_mdoc, head))
		fail_msg("%s is not in the manual", o->name);
}

static void the_table_is_printed_whole(void **state UNUSED)
{
	char *text = printed(conf_print_options), *mdoc = printed(conf_print_options_mdoc);

	print_text = text;
	print_mdoc = mdoc;
	each_row(row_is_printed);
	assert_non_null(strstr(text, "      type size; unit bytes; default 32K; takes effect on reload\n"
	                             "      takes a size from 1K to 64K\n"));
	assert_non_null(
	    strstr(text, "default auto; takes effect on restart\n      takes auto or a number of threads from 1 to 64\n"));
	assert_non_null(strstr(text, "takes a time from 100ms to 10m\n"));
	free(text);
	free(mdoc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_row_has_help),
		cmocka_unit_test(each_row_is_found_by_its_name),
		cmocka_unit_test(each_default_is_within_its_bounds),
		cmocka_unit_test(each_bound_holds),
		cmocka_unit_test(a_number_is_taken_or_refused),
		cmocka_unit_test(a_text_is_taken_or_refused),
		cmocka_unit_test(every_word_of_a_switch_means_what_it_says),
		cmocka_unit_test(a_list_ends_at_its_maximum),
		cmocka_unit_test(a_variable_is_set_once),
		cmocka_unit_test(a_name_is_ok_or_not),
		cmocka_unit_test(distance_counts_typing_errors),
		cmocka_unit_test(the_table_is_printed_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
