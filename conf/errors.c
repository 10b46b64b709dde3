#include "conf/errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/buf.h"
#include "core/log.h"

#define FOUND_MAX   100  /* bytes of the file in one message */
#define MESSAGE_MAX 4096 /* bytes */

struct error_line {
	unsigned line;
	size_t order; /* qsort is not stable */
	char *text;
};

void errors_init(struct errors *e)
{
	*e = (struct errors){ 0 };
}

void errors_done(struct errors *e)
{
	for (size_t i = 0; i < e->count; i++)
		free(e->lines[i].text);
	free(e->lines);
	errors_init(e);
}

static struct error_line *errors_room(struct errors *e)
{
	struct error_line *lines;
	size_t size = e->size ? e->size * 2 : 16;

	if (e->count < e->size)
		return &e->lines[e->count];
	lines = reallocarray(e->lines, size, sizeof(*lines));
	if (!lines)
		return NULL;
	e->lines = lines;
	e->size = size;
	return &e->lines[e->count];
}

static void add_escaped(struct buf *out, struct slice text)
{
	char escaped[FOUND_MAX * 4 + 1];
	bool cut = text.len > FOUND_MAX;

	if (cut)
		text.len = FOUND_MAX;
	buf_add(out, slice_str(log_escape(text, escaped, sizeof(escaped))));
	if (cut)
		buf_add(out, SLICE("..."));
}

static void add_place(struct buf *out, struct place where)
{
	if (where.line > 0) {
		buf_char(out, ':');
		buf_u64(out, where.line);
	}
	buf_add(out, SLICE(": "));
	add_escaped(out, where.section);
	if (where.section.len > 0 && where.option.len > 0)
		buf_char(out, '.');
	add_escaped(out, where.option);
	if (where.section.len > 0 || where.option.len > 0)
		buf_add(out, SLICE(": "));
}

static void add_quoted(struct buf *out, struct slice text)
{
	buf_char(out, '"');
	add_escaped(out, text);
	buf_char(out, '"');
}

static void add_message(struct buf *out, struct place where, struct found what, struct slice nearest, const char *expected)
{
	add_place(out, where);
	buf_add(out, SLICE("found "));
	if (what.quoted)
		add_quoted(out, what.text);
	else
		buf_add(out, what.text);
	buf_add(out, SLICE(", expected "));
	buf_add(out, slice_str(expected));
	if (nearest.len > 0) {
		buf_add(out, SLICE("; did you mean "));
		add_quoted(out, nearest);
		buf_char(out, '?');
	}
}

void errors_add(struct errors *e, struct place where, struct found what, struct slice nearest, const char *expected_fmt, ...)
{
	char expected[1024];
	struct error_line *line;
	struct buf text;
	va_list args;

	if (e->count == ERRORS_MAX) {
		e->dropped++;
		return;
	}
	va_start(args, expected_fmt);
	vsnprintf(expected, sizeof(expected), expected_fmt, args);
	va_end(args);
	buf_init(&text, MESSAGE_MAX);
	add_message(&text, where, what, nearest, expected);
	line = errors_room(e);
	if (line && !text.failed)
		*line = (struct error_line){ where.line, e->count, slice_dup(buf_slice(&text)) };
	if (line && !text.failed && line->text)
		e->count++;
	else
		e->failed = true;
	buf_done(&text);
}

static int by_line(const void *a, const void *b)
{
	const struct error_line *x = a, *y = b;

	if (x->line != y->line)
		return x->line < y->line ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

void errors_write(struct errors *e, const char *file, struct buf *out)
{
	if (e->count > 0)
		qsort(e->lines, e->count, sizeof(*e->lines), by_line);
	for (size_t i = 0; i < e->count; i++)
		buf_printf(out, "%s%s\n", file, e->lines[i].text);
	if (e->dropped > 0)
		buf_printf(out, "%s: found %zu more errors than the %d above, expected none\n", file, e->dropped, ERRORS_MAX);
}
