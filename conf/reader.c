#include "conf/reader.h"

#include <ini.h>
#include <stdio.h>

#include "core/buf.h"

/*
 * inih trims what it is given. A value goes through it between two of these, which no line may contain, so it comes out as it
 * went in; one that is longer than inih's line goes in pieces, and is put together again.
 */
#define GUARD '\001'

#define NOTHING SLICE("")

struct reader {
	const struct reader_events *events;
	void *ctx;
	struct errors *errors;
	struct slice rest;  /* of the text */
	unsigned line;      /* of the last raw line taken from it */
	struct slice title; /* of the section at hand */
	struct slice name;  /* of the option on its way through inih; empty: none */
	struct slice value; /* of it, what inih has not had yet */
	bool fed;           /* inih has a piece and has not handed it back */
	struct buf joined;  /* what has come back */
	int failure;        /* -errno: the end of all reading */
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_comment(char c)
{
	return c == ';' || c == '#';
}

static bool is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

static bool is_option_name(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!is_name_byte(s.ptr[i]))
			return false;
	return s.len > 0 && s.len <= READER_NAME_MAX;
}

static void refuse_option(struct reader *r, struct slice option, struct slice found, struct slice nearest, const char *expected)
{
	struct place where = { r->line, r->title, option };

	errors_add(r->errors, where, FOUND_QUOTED(found), nearest, "%s", expected);
}

static void refuse(struct reader *r, struct slice found, const char *expected)
{
	refuse_option(r, NOTHING, found, NOTHING, expected);
}

/* The next raw line, without LF or CRLF. */
static bool next_raw(struct reader *r, struct slice *ret)
{
	if (r->rest.len == 0)
		return false;
	if (!slice_cut(&r->rest, '\n', ret)) {
		*ret = r->rest;
		r->rest.len = 0;
	}
	if (ret->len > 0 && ret->ptr[ret->len - 1] == '\r')
		ret->len--;
	r->line++;
	return true;
}

/* What no line may contain, comments included. */
static bool line_is_sound(struct reader *r, struct slice line)
{
	if (line.len > READER_LINE_MAX) {
		errors_add(r->errors, (struct place){ r->line, r->title, NOTHING }, FOUND_QUOTED(line), NOTHING,
		    "a line of at most %d bytes", READER_LINE_MAX);
		return false;
	}
	if (line.len > 0 && memchr(line.ptr, '\0', line.len)) {
		refuse(r, line, "text without NUL bytes");
		return false;
	}
	for (size_t i = 0; i < line.len; i++) {
		unsigned char c = (unsigned char)line.ptr[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f) {
			refuse(r, line, "text without control characters");
			return false;
		}
	}
	return true;
}

static void fail_on(struct reader *r, int err)
{
	if (err < 0)
		r->failure = err;
}

static void tell_section(struct reader *r, struct slice kind, struct slice name)
{
	fail_on(r, r->events->section(r->ctx, r->line, r->title, kind, name));
}

/*
 * Section headers do not go to inih: it keeps 49 bytes of them, passes over what stands behind the bracket, and does not tell of
 * a section without options.
 */
static void read_section(struct reader *r, struct slice line)
{
	struct slice title, kind;

	r->title = NOTHING;
	if (line.ptr[line.len - 1] != ']') {
		refuse(r, line, "[KIND NAME] with nothing behind it");
		tell_section(r, NOTHING, NOTHING);
		return;
	}
	title = slice_trim_ows(slice_of(line.ptr + 1, line.len - 2));
	if (title.len == 0) {
		refuse(r, line, "[KIND NAME]");
		tell_section(r, NOTHING, NOTHING);
		return;
	}
	r->title = title;
	kind = title;
	for (size_t i = 0; i < title.len; i++)
		if (is_space(title.ptr[i])) {
			kind.len = i;
			break;
		}
	tell_section(r, kind, slice_trim_ows(slice_of(title.ptr + kind.len, title.len - kind.len)));
}

/* Where a comment seems to begin inside a value; inih cuts there without a word. The value's length: nowhere. */
static size_t find_comment(struct slice value)
{
	for (size_t i = 0; i < value.len; i++)
		if (is_comment(value.ptr[i]) && (i == 0 || is_space(value.ptr[i - 1])))
			return i;
	return value.len;
}

static bool value_is_sound(struct reader *r, struct slice name, struct slice value)
{
	struct place where = { r->line, r->title, name };

	if (value.len == 0) {
		errors_add(r->errors, where, FOUND("nothing"), NOTHING, "a value behind \"=\"");
		return false;
	}
	if (value.ptr[0] == '"' || value.ptr[0] == '\'') {
		refuse_option(r, name, value, NOTHING, "a value without quotes");
		return false;
	}
	if (find_comment(value) < value.len) {
		refuse_option(r, name, value, NOTHING, "a value alone, since comments stand on lines of their own");
		return false;
	}
	return true;
}

/* "name: value", which inih takes as well. */
static void refuse_without_equals(struct reader *r, struct slice line)
{
	static const char expected[] = "NAME = VALUE with a \"=\" between the two";
	struct slice rest = line, name;
	struct buf better;

	buf_init(&better, 2 * READER_LINE_MAX);
	if (slice_cut(&rest, ':', &name) && is_option_name(slice_trim_ows(name))) {
		buf_add(&better, slice_trim_ows(name));
		buf_add(&better, SLICE(" = "));
		buf_add(&better, slice_trim_ows(rest));
	}
	refuse_option(r, NOTHING, line, buf_slice(&better), expected);
	buf_done(&better);
}

/* An option's line that is sound is left in name and value, to go through inih. */
static void read_option(struct reader *r, struct slice line)
{
	struct slice value = line, name;
	const char *colon = memchr(line.ptr, ':', line.len);

	if (!slice_cut(&value, '=', &name) || (colon && colon < name.ptr + name.len)) {
		refuse_without_equals(r, line);
		return;
	}
	name = slice_trim_ows(name);
	if (!is_option_name(name)) {
		errors_add(r->errors, (struct place){ r->line, r->title, NOTHING }, FOUND_QUOTED(name), NOTHING,
		    "an option's name of 1 to %d letters, digits and \"_\"", READER_NAME_MAX);
		return;
	}
	value = slice_trim_ows(value);
	if (!value_is_sound(r, name, value)) {
		fail_on(r, r->events->refused(r->ctx, r->line, name));
		return;
	}
	r->name = name;
	r->value = value;
	buf_clear(&r->joined);
}

static void read_line(struct reader *r, struct slice raw)
{
	struct slice line = slice_trim_ows(raw);

	if (!line_is_sound(r, raw) || line.len == 0 || is_comment(line.ptr[0]))
		return;
	if (is_space(raw.ptr[0]))
		refuse(r, line, "it at the start of the line, since lines are not continued");
	else if (line.ptr[0] == '[')
		read_section(r, line);
	else
		read_option(r, line);
}

/* The fgets() of inih: gives it "name=value" and nothing else, in pieces that fit in its line. */
static char *feed(char *str, int num, void *ctx)
{
	struct reader *r = ctx;
	struct slice piece, raw;
	size_t room = num > 0 ? (size_t)num : 0;

	/* An inih built to read other lines than ours would lose options in silence; this one never does. */
	if (r->fed)
		r->failure = -EIO;
	while (!r->failure && r->name.len == 0 && next_raw(r, &raw))
		read_line(r, raw);
	if (r->failure || r->name.len == 0)
		return NULL;
	if (room < r->name.len + sizeof("=??\n?")) {
		r->failure = -EIO;
		return NULL;
	}
	piece = slice_of(r->value.ptr, MIN(r->value.len, room - r->name.len - sizeof("=??\n")));
	r->value = slice_of(r->value.ptr + piece.len, r->value.len - piece.len);
	snprintf(str, room, "%.*s=%c%.*s%c\n", SLICE_ARG(r->name), GUARD, SLICE_ARG(piece), GUARD);
	r->fed = true;
	return str;
}

/* What came back of a piece is the piece, guarded. The last one makes the option. */
static int take(void *ctx, const char *section UNUSED, const char *name, const char *value)
{
	struct reader *r = ctx;
	struct slice piece = slice_str(value);

	r->fed = false;
	if (piece.len < 2 || piece.ptr[0] != GUARD || piece.ptr[piece.len - 1] != GUARD) {
		r->failure = -EIO;
		return 0;
	}
	buf_add(&r->joined, slice_of(piece.ptr + 1, piece.len - 2));
	if (r->value.len > 0)
		return 1;
	r->name.len = 0;
	if (r->joined.failed)
		r->failure = -ENOMEM;
	else
		fail_on(r, r->events->option(r->ctx, r->line, slice_str(name), buf_slice(&r->joined)));
	return 1;
}

int reader_run(struct slice text, const struct reader_events *events, void *ctx, struct errors *errors)
{
	struct reader r = { .events = events, .ctx = ctx, .errors = errors, .rest = text };
	int answer;

	if (slice_starts(text, SLICE("\xef\xbb\xbf")))
		r.rest = slice_of(text.ptr + 3, text.len - 3);
	buf_init(&r.joined, READER_LINE_MAX);
	answer = ini_parse_stream(feed, &r, take, &r);
	buf_done(&r.joined);
	if (r.failure)
		return r.failure;
	if (answer == -2)
		return -ENOMEM;
	return answer == 0 && !r.fed ? 0 : -EIO;
}
