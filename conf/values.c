#include "conf/values.h"

#include <stdio.h>
#include <stdlib.h>

#include "conf/address.h"
#include "core/buf.h"

struct scale {
	const char *suffix;
	uint64_t factor;
};

/* The largest first, so that a number is said in the largest unit that divides it; "" is what a bare number counts. */
static const struct scale bytes_scale[] = { { "G", 1 << 30 }, { "M", 1 << 20 }, { "K", 1 << 10 }, { "", 1 } };
static const struct scale time_scale[] = {
	{ "d", 86400000 },
	{ "h", 3600000 },
	{ "m", 60000 },
	{ "s", 1000 },
	{ "", 1000 },
	{ "ms", 1 },
};
static const struct scale count_scale[] = { { "", 1 } };

struct scales {
	const struct scale *of;
	size_t count;
};
static const struct scales type_scales[OPTION_TIME + 1] = {
	[OPTION_UINT] = { count_scale, ARRAY_LEN(count_scale) },
	[OPTION_U64] = { count_scale, ARRAY_LEN(count_scale) },
	[OPTION_SIZE] = { bytes_scale, ARRAY_LEN(bytes_scale) },
	[OPTION_RATE] = { bytes_scale, ARRAY_LEN(bytes_scale) },
	[OPTION_TIME] = { time_scale, ARRAY_LEN(time_scale) },
};

static const char *const bool_words[] = { "off", "on", "no", "yes", "false", "true", NULL };

static void *field_of(const struct option *o, void *target)
{
	return (char *)target + o->offset;
}

static size_t *count_of(const struct option *o, void *target)
{
	return (size_t *)(void *)((char *)target + o->count_offset);
}

bool name_ok(struct slice s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
		        (i > 0 && (c == '-' || c == '.'))))
			return false;
	}
	return s.len > 0 && s.len <= NAME_BYTES_MAX;
}

/* Words */

static int word_index(const char *const *words, struct slice value)
{
	for (int i = 0; words[i]; i++)
		if (slice_eq(value, slice_str(words[i])))
			return i;
	return -1;
}

static void suggest(struct refusal *r, struct slice text)
{
	snprintf(r->nearest, sizeof(r->nearest), "%.*s", SLICE_ARG(text));
}

static void suggest_word(const char *const *words, struct slice value, struct refusal *r)
{
	struct nearest n = { .word = value };

	for (int i = 0; words[i]; i++)
		nearest_offer(&n, slice_str(words[i]));
	suggest(r, n.best);
}

static void describe_words(const char *const *words, struct buf *out)
{
	for (int i = 0; words[i]; i++) {
		if (i > 0)
			buf_add(out, words[i + 1] ? SLICE(", ") : SLICE(" or "));
		buf_add(out, slice_str(words[i]));
	}
}

/* Numbers */

static bool parse_scaled(const struct option *o, struct slice value, uint64_t *ret)
{
	const struct scales *scales = &type_scales[o->type];
	struct slice digits = value, suffix;
	uint64_t number;

	while (digits.len > 0 && !(digits.ptr[digits.len - 1] >= '0' && digits.ptr[digits.len - 1] <= '9'))
		digits.len--;
	suffix = slice_of(value.ptr + digits.len, value.len - digits.len);
	if (!slice_to_u64(digits, &number))
		return false;
	for (size_t i = 0; i < scales->count; i++)
		if (slice_eq(suffix, slice_str(scales->of[i].suffix)))
			return !__builtin_mul_overflow(number, scales->of[i].factor, ret);
	return false;
}

static void describe_scaled(const struct option *o, uint64_t number, struct buf *out)
{
	const struct scales *scales = &type_scales[o->type];
	const struct scale *s = scales->of, *end = s + scales->count - 1;

	while (s < end && (number == 0 || number % s->factor != 0))
		s++;
	buf_u64(out, number / s->factor);
	if (number > 0)
		buf_add(out, slice_str(s->suffix));
}

static void describe_number(const struct option *o, struct buf *out)
{
	if (option_may_be_auto(o))
		buf_add(out, SLICE("auto or "));
	switch (o->type) {
	case OPTION_SIZE:
		buf_add(out, SLICE("a size from "));
		break;
	case OPTION_RATE:
		buf_add(out, SLICE("a number of bytes per second from "));
		break;
	case OPTION_TIME:
		buf_add(out, SLICE("a time from "));
		break;
	default:
		buf_printf(out, "a number of %s from ", o->unit);
		break;
	}
	describe_scaled(o, o->min, out);
	buf_add(out, SLICE(" to "));
	describe_scaled(o, o->max, out);
}

/* "64k" for "64K", "5S" for "5s": the same in the other case, if that can be taken. */
static void suggest_scaled(const struct option *o, struct slice value, struct refusal *r)
{
	uint64_t number;
	char text[24];

	if (option_may_be_auto(o)) {
		static const char *const auto_word[] = { "auto", NULL };

		suggest_word(auto_word, value, r);
	}
	if (value.len == 0 || value.len >= sizeof(text))
		return;
	for (size_t i = 0; i < value.len; i++) {
		bool letter = (value.ptr[i] | 0x20) >= 'a' && (value.ptr[i] | 0x20) <= 'z';

		text[i] = letter ? (char)(o->type == OPTION_TIME ? value.ptr[i] | 0x20 : value.ptr[i] & ~0x20) : value.ptr[i];
	}
	if (parse_scaled(o, slice_of(text, value.len), &number) && number >= o->min && number <= o->max)
		suggest(r, slice_of(text, value.len));
}

static int set_number(const struct option *o, void *target, struct slice value, struct refusal *r)
{
	uint64_t number;

	if (option_may_be_auto(o) && slice_eq(value, SLICE("auto")))
		number = 0;
	else if (!parse_scaled(o, value, &number)) {
		suggest_scaled(o, value, r);
		return -EINVAL;
	} else if (number < o->min || number > o->max)
		return -EINVAL;
	if (o->type == OPTION_UINT)
		*(unsigned *)field_of(o, target) = (unsigned)number;
	else
		*(uint64_t *)field_of(o, target) = number;
	return 0;
}

static int set_word(const struct option *o, void *target, struct slice value, struct refusal *r)
{
	const char *const *words = o->type == OPTION_BOOL ? bool_words : o->words;
	int index = word_index(words, value);

	if (index < 0) {
		suggest_word(words, value, r);
		return -EINVAL;
	}
	if (o->type == OPTION_BOOL)
		*(bool *)field_of(o, target) = index % 2 == 1;
	else
		*(unsigned *)field_of(o, target) = (unsigned)index;
	return 0;
}

/* Strings */

static int set_text(const struct option *o, void *target, struct slice value)
{
	char **field = field_of(o, target);
	char *text = slice_dup(value);

	if (!text)
		return -ENOMEM;
	free(*field);
	*field = text;
	return 0;
}

static int set_name(const struct option *o, void *target, struct slice value)
{
	return name_ok(value) ? set_text(o, target, value) : -EINVAL;
}

static int set_path(const struct option *o, void *target, struct slice value, struct refusal *r)
{
	if (word_index(o->words, value) < 0 && value.ptr[0] != '/') {
		suggest_word(o->words, value, r);
		return -EINVAL;
	}
	return set_text(o, target, value);
}

/* One word of printable characters; which ones mean something, OpenSSL knows. */
static int set_tokens(const struct option *o, void *target, struct slice value)
{
	for (size_t i = 0; i < value.len; i++)
		if (value.ptr[i] <= ' ' || value.ptr[i] > '~')
			return -EINVAL;
	return set_text(o, target, value);
}

static bool is_variable_name(struct slice s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (i > 0 && c >= '0' && c <= '9')))
			return false;
	}
	return s.len > 0;
}

static int set_octal(const struct option *o, void *target, struct slice value)
{
	uint64_t number = 0;

	for (size_t i = 0; i < value.len; i++) {
		if (value.ptr[i] < '0' || value.ptr[i] > '7')
			return -EINVAL;
		number = number << 3 | (uint64_t)(value.ptr[i] - '0');
		if (number > o->max)
			return -EINVAL;
	}
	*(unsigned *)field_of(o, target) = (unsigned)number;
	return 0;
}

static int set_niceness(const struct option *o, void *target, struct slice value)
{
	bool negative = value.ptr[0] == '-';
	uint64_t number;

	if (!slice_to_u64(slice_of(value.ptr + negative, value.len - negative), &number) || number > (negative ? 20 : 19))
		return -EINVAL;
	*(int *)field_of(o, target) = negative ? -(int)number : (int)number;
	return 0;
}

/* Names with dots between them. */
static bool is_dotted(struct slice s)
{
	struct slice name;
	bool more = true;

	while (more) {
		more = slice_cut(&s, '.', &name);
		if (!more)
			name = s;
		if (!is_variable_name(name))
			return false;
	}
	return true;
}

/* MODULE, MODULE:CALLABLE, or MODULE:FACTORY(). */
static bool is_wsgi_target(struct slice s)
{
	struct slice module;

	if (!slice_cut(&s, ':', &module))
		return is_dotted(s);
	if (s.len > 2 && memcmp(s.ptr + s.len - 2, "()", 2) == 0)
		s.len -= 2;
	return is_dotted(module) && is_dotted(s);
}

static int keep_text(char **text, struct slice value)
{
	free(*text);
	*text = slice_dup(value);
	return *text ? 0 : -ENOMEM;
}

static int set_wsgi(struct conf_pool *pool, struct slice value, struct refusal *r)
{
	if (!is_wsgi_target(value)) {
		snprintf(r->expected, sizeof(r->expected), "wsgi:MODULE or wsgi:MODULE:CALLABLE, such as wsgi:mysite.wsgi");
		return -EINVAL;
	}
	pool->app = APP_WSGI;
	return keep_text(&pool->app_target, value);
}

/* PROGRAM, or PROGRAM TARGET. */
static int set_program(struct conf_pool *pool, struct slice value, struct refusal *r)
{
	struct slice target = value, program;
	int err;

	if (!slice_cut(&target, ' ', &program)) {
		program = value;
		target.len = 0;
	}
	if (program.len < 2 || program.ptr[0] != '/') {
		snprintf(r->expected, sizeof(r->expected),
		    "worker: and the path of a program, such as worker:/usr/local/libexec/lua-host site.lua");
		return -EINVAL;
	}
	pool->app = APP_WORKER;
	err = keep_text(&pool->app_program, program);
	return err || target.len == 0 ? err : keep_text(&pool->app_target, slice_trim_ows(target));
}

static int set_app(void *target, struct slice value, struct refusal *r)
{
	static const char *const apps[] = { "demo", "wsgi:", "worker:", NULL };
	struct conf_pool *pool = target;
	struct slice rest = value, kind = slice_of("", 0);

	if (slice_eq(value, SLICE("demo"))) {
		pool->app = APP_DEMO;
		return 0;
	}
	(void)slice_cut(&rest, ':', &kind);
	if (slice_eq(kind, SLICE("wsgi")))
		return set_wsgi(pool, rest, r);
	if (slice_eq(kind, SLICE("worker")))
		return set_program(pool, rest, r);
	suggest_word(apps, value, r);
	return -EINVAL;
}

/* Lists */

/* The lists differ in the type of their elements, so their pointers are read and written as bytes. */
static void *list_of(const struct option *o, void *target)
{
	void *list;

	memcpy(&list, field_of(o, target), sizeof(list));
	return list;
}

/* Room for one element more at the end of a list of elements of `size` bytes; NULL without memory. */
static void *list_room(const struct option *o, void *target, size_t size)
{
	size_t count = *count_of(o, target);
	void *list = list_of(o, target), *larger;

	/* At a power of two it is full. */
	if ((count & (count - 1)) == 0) {
		larger = reallocarray(list, count ? count * 2 : 1, size);
		if (!larger)
			return NULL;
		list = larger;
		memcpy(field_of(o, target), &list, sizeof(list));
	}
	return (char *)list + count * size;
}

static bool list_is_full(const struct option *o, void *target, struct refusal *r)
{
	if (*count_of(o, target) < LIST_MAX)
		return false;
	snprintf(r->expected, sizeof(r->expected), "at most %d values", LIST_MAX);
	return true;
}

static int add_address(const struct option *o, void *target, struct slice value, struct refusal *r)
{
	struct conf_address *a = list_room(o, target, sizeof(*a));
	const char *why;
	int err;

	if (!a)
		return -ENOMEM;
	err = conf_address_parse(value, o->type == OPTION_ADDRESSES, a, &why);
	if (err == -EINVAL)
		snprintf(r->expected, sizeof(r->expected), "%s", why);
	if (err == 0)
		(*count_of(o, target))++;
	return err;
}

static int add_network(const struct option *o, void *target, struct slice value, struct refusal *r)
{
	struct conf_network *n = list_room(o, target, sizeof(*n));
	const char *why;
	int err;

	if (!n)
		return -ENOMEM;
	err = network_parse(value, n, &why);
	if (err == -EINVAL)
		snprintf(r->expected, sizeof(r->expected), "%s", why);
	if (err == 0)
		(*count_of(o, target))++;
	return err;
}

static bool has_word(const struct conf_word *list, size_t count, struct slice text)
{
	for (size_t i = 0; i < count; i++)
		if (slice_eq(slice_str(list[i].text), text))
			return true;
	return false;
}

static int add_word(const struct option *o, void *target, struct slice value, struct refusal *r)
{
	struct conf_word *w;

	if (o->type == OPTION_NAMES ? !name_ok(value) : value.ptr[0] != '/')
		return -EINVAL;
	if (has_word(list_of(o, target), *count_of(o, target), value)) {
		snprintf(r->expected, sizeof(r->expected), "each of them once");
		return -EINVAL;
	}
	w = list_room(o, target, sizeof(*w));
	if (w)
		*w = (struct conf_word){ .text = slice_dup(value) };
	if (!w || !w->text)
		return -ENOMEM;
	(*count_of(o, target))++;
	return 0;
}

static bool has_variable(char *const *list, size_t count, struct slice name)
{
	for (size_t i = 0; i < count; i++)
		if (strncmp(list[i], name.ptr, name.len) == 0 && list[i][name.len] == '=')
			return true;
	return false;
}

static int add_variable(const struct option *o, void *target, struct slice value, struct refusal *r)
{
	struct slice rest = value, name;
	char **place;

	if (!slice_cut(&rest, '=', &name) || !is_variable_name(name))
		return -EINVAL;
	if (has_variable(list_of(o, target), *count_of(o, target), name)) {
		snprintf(r->expected, sizeof(r->expected), "each variable once");
		return -EINVAL;
	}
	place = list_room(o, target, sizeof(*place));
	if (place)
		*place = slice_dup(value);
	if (!place || !*place)
		return -ENOMEM;
	(*count_of(o, target))++;
	return 0;
}

static int set_by_type(const struct option *o, void *target, struct slice value, struct refusal *r)
{
	switch (o->type) {
	case OPTION_UINT:
	case OPTION_U64:
	case OPTION_SIZE:
	case OPTION_RATE:
	case OPTION_TIME:
		return set_number(o, target, value, r);
	case OPTION_BOOL:
	case OPTION_WORD:
		return set_word(o, target, value, r);
	case OPTION_NAME:
		return set_name(o, target, value);
	case OPTION_PATH:
		return set_path(o, target, value, r);
	case OPTION_OCTAL:
		return set_octal(o, target, value);
	case OPTION_NICENESS:
		return set_niceness(o, target, value);
	case OPTION_APP:
		return set_app(target, value, r);
	case OPTION_TOKENS:
		return set_tokens(o, target, value);
	case OPTION_ADDRESSES:
	case OPTION_SOCKETS:
		return add_address(o, target, value, r);
	case OPTION_NETWORKS:
		return add_network(o, target, value, r);
	case OPTION_ENVIRONMENT:
		return add_variable(o, target, value, r);
	case OPTION_NAMES:
	case OPTION_PATHS:
		return add_word(o, target, value, r);
	case OPTION_TYPE_COUNT:
		break;
	}
	return -EINVAL;
}

int option_set(const struct option *o, void *target, struct slice value, struct refusal *ret_why)
{
	struct buf words;
	int err;

	*ret_why = (struct refusal){ 0 };
	if (value.len == 0 || (option_is_list(o) && list_is_full(o, target, ret_why)))
		err = -EINVAL;
	else
		err = set_by_type(o, target, value, ret_why);
	if (err != -EINVAL || ret_why->expected[0])
		return err;
	buf_init(&words, sizeof(ret_why->expected) - 1);
	option_describe(o, &words);
	snprintf(ret_why->expected, sizeof(ret_why->expected), "%.*s", SLICE_ARG(buf_slice(&words)));
	buf_done(&words);
	return err;
}

int option_set_initial(const struct option *o, void *target)
{
	struct refusal why;

	return o->initial ? option_set(o, target, slice_str(o->initial), &why) : 0;
}

static void free_list(const struct option *o, void *target)
{
	void *list = list_of(o, target);
	size_t *count = count_of(o, target);

	for (size_t i = 0; i < *count; i++) {
		if (o->type == OPTION_NETWORKS)
			free(((struct conf_network *)list)[i].text);
		else if (o->type == OPTION_ENVIRONMENT)
			free(((char **)list)[i]);
		else if (o->type == OPTION_NAMES || o->type == OPTION_PATHS)
			free(((struct conf_word *)list)[i].text);
		else
			free(((struct conf_address *)list)[i].text);
	}
	free(list);
	list = NULL;
	memcpy(field_of(o, target), &list, sizeof(list));
	*count = 0;
}

void option_free(const struct option *o, void *target)
{
	char **text;

	if (option_is_list(o)) {
		free_list(o, target);
	} else if (o->type == OPTION_NAME || o->type == OPTION_PATH || o->type == OPTION_TOKENS) {
		text = field_of(o, target);
		free(*text);
		*text = NULL;
	} else if (o->type == OPTION_APP) {
		struct conf_pool *pool = target;

		free(pool->app_program);
		free(pool->app_target);
		pool->app_program = pool->app_target = NULL;
	}
}

void option_describe(const struct option *o, struct buf *out)
{
	switch (o->type) {
	case OPTION_UINT:
	case OPTION_U64:
	case OPTION_SIZE:
	case OPTION_RATE:
	case OPTION_TIME:
		describe_number(o, out);
		break;
	case OPTION_OCTAL:
		buf_printf(out, "octal digits up to %o", (unsigned)o->max);
		break;
	case OPTION_NICENESS:
		buf_add(out, SLICE("a number from -20 to 19"));
		break;
	case OPTION_BOOL:
		buf_add(out, SLICE("on or off"));
		break;
	case OPTION_WORD:
		describe_words(o->words, out);
		break;
	case OPTION_NAME:
		buf_add(out, SLICE("a name of letters, digits, \"_\", \"-\" and \".\""));
		break;
	case OPTION_PATH:
		buf_add(out, SLICE("an absolute path"));
		for (int i = 0; o->words[i]; i++)
			buf_printf(out, "%s%s", o->words[i + 1] ? ", " : " or ", o->words[i]);
		break;
	case OPTION_APP:
		buf_add(out, SLICE("wsgi:MODULE, wsgi:MODULE:CALLABLE, worker:PROGRAM or demo"));
		break;
	case OPTION_TOKENS:
		buf_add(out, slice_str(o->unit));
		break;
	case OPTION_ADDRESSES:
		buf_add(out, SLICE("an address and port such as 127.0.0.1:8000, [::]:8000 or unix:/run/forebay.sock"));
		break;
	case OPTION_SOCKETS:
		buf_add(out, SLICE("a socket such as /run/app.sock, 127.0.0.1:9000 or [::1]:9000"));
		break;
	case OPTION_NETWORKS:
		buf_add(out, SLICE("a network such as 10.0.0.0/8 or fd00::/8, an address, or unix"));
		break;
	case OPTION_ENVIRONMENT:
		buf_add(out, SLICE("KEY=VALUE, KEY of letters, digits and \"_\""));
		break;
	case OPTION_NAMES:
		buf_add(out, SLICE("the name of a [tls NAME]"));
		break;
	case OPTION_PATHS:
		buf_add(out, SLICE("an absolute path"));
		break;
	case OPTION_TYPE_COUNT:
		break;
	}
}
