/* print: the option table as text for `forebay --options`, and as mdoc for forebay.ini(5). What both say is in conf.h. */
#include "conf/conf.h"
#include "conf/values.h"
#include "core/buf.h"

#define HELP_COLUMNS 96
#define ROFF_COLUMNS 78

static const char *const type_names[] = {
	[OPTION_UINT] = "number",
	[OPTION_U64] = "number",
	[OPTION_SIZE] = "size",
	[OPTION_RATE] = "rate",
	[OPTION_TIME] = "time",
	[OPTION_OCTAL] = "octal number",
	[OPTION_NICENESS] = "number",
	[OPTION_BOOL] = "switch",
	[OPTION_WORD] = "word",
	[OPTION_NAME] = "name",
	[OPTION_PATH] = "path",
	[OPTION_APP] = "app",
	[OPTION_TOKENS] = "words",
	[OPTION_ADDRESSES] = "list of addresses",
	[OPTION_SOCKETS] = "list of sockets",
	[OPTION_NETWORKS] = "list of networks",
	[OPTION_ENVIRONMENT] = "list of variables",
	[OPTION_NAMES] = "list of names",
	[OPTION_PATHS] = "list of paths",
};
static_assert(ARRAY_LEN(type_names) == OPTION_TYPE_COUNT, "a name for each type");

static const char *unit_of(const struct option *o)
{
	if (o->type == OPTION_TIME)
		return "ms s m h d, a bare number is seconds";
	return o->unit && o->type != OPTION_TOKENS ? o->unit : "none";
}

static const char *initial_of(const struct option *o)
{
	return o->initial ? o->initial : "none";
}

static const char *change_of(const struct option *o)
{
	return o->change == RELOAD ? "reload" : "restart";
}

/* Plain text */

static bool next_word(struct slice *text, struct slice *ret)
{
	if (!slice_cut(text, ' ', ret)) {
		*ret = *text;
		text->len = 0;
	}
	return ret->len > 0;
}

static void print_wrapped(FILE *out, const char *text)
{
	struct slice rest = slice_str(text), word;
	size_t column = 0;

	while (next_word(&rest, &word)) {
		if (column == 0 || column + 1 + word.len > HELP_COLUMNS) {
			fputs(column == 0 ? "      " : "\n      ", out);
			column = 0;
		} else {
			fputc(' ', out);
		}
		fwrite(word.ptr, 1, word.len, out);
		column += word.len + 1;
	}
	fputc('\n', out);
}

static void print_row(FILE *out, const struct option *o)
{
	struct buf takes;

	buf_init(&takes, 512);
	option_describe(o, &takes);
	fprintf(out, "\n  %s\n", o->name);
	fprintf(out, "      type %s; unit %s; default %s; takes effect on %s\n", type_names[o->type], unit_of(o), initial_of(o),
	    change_of(o));
	fprintf(out, "      takes %.*s%s\n", SLICE_ARG(buf_slice(&takes)),
	    option_is_list(o) ? "; one a line, any number of lines" : "");
	print_wrapped(out, o->help);
	buf_done(&takes);
}

void conf_print_options(FILE *out)
{
	for (int s = 0; s < SECTION_COUNT; s++) {
		size_t count;
		const struct option *options = options_of((enum option_section)s, &count);

		fprintf(out, "%s%s\n", s > 0 ? "\n" : "", section_form((enum option_section)s));
		print_wrapped(out, section_help((enum option_section)s));
		for (size_t i = 0; i < count; i++)
			print_row(out, &options[i]);
	}
}

/* mdoc */

/* Text of ours in roff: a backslash, and a control character in the first column, would mean something else. */
static void print_roff_word(FILE *out, struct slice word, bool first)
{
	if (first && word.len > 0 && (word.ptr[0] == '.' || word.ptr[0] == '\''))
		fputs("\\&", out);
	for (size_t i = 0; i < word.len; i++) {
		if (word.ptr[i] == '\\')
			fputs("\\e", out);
		else
			fputc(word.ptr[i], out);
	}
}

/* Each sentence begins a line, as roff likes it. */
static void print_roff(FILE *out, struct slice text)
{
	struct slice word;
	size_t column = 0;
	bool ended = false;

	while (next_word(&text, &word)) {
		bool first = column == 0 || ended || column + 1 + word.len > ROFF_COLUMNS;

		if (first && column > 0)
			fputc('\n', out);
		if (!first)
			fputc(' ', out);
		column = first ? 0 : column + 1;
		print_roff_word(out, word, first);
		column += word.len;
		ended = word.ptr[word.len - 1] == '.';
	}
	fputc('\n', out);
}

static void print_row_mdoc(FILE *out, const struct option *o)
{
	struct buf takes;

	buf_init(&takes, 512);
	buf_add(&takes, SLICE("Takes "));
	option_describe(o, &takes);
	if (option_is_list(o))
		buf_add(&takes, SLICE("; one a line, any number of lines"));
	buf_printf(&takes, ". Default: %s. Takes effect on %s.", initial_of(o), change_of(o));
	fprintf(out, ".It Cm %s No = Ar %s\n", o->name, type_names[o->type]);
	print_roff(out, slice_str(o->help));
	print_roff(out, buf_slice(&takes));
	buf_done(&takes);
}

void conf_print_options_mdoc(FILE *out)
{
	for (int s = 0; s < SECTION_COUNT; s++) {
		size_t count;
		const struct option *options = options_of((enum option_section)s, &count);

		fprintf(out, ".Ss %s section\n", section_form((enum option_section)s));
		print_roff(out, slice_str(section_help((enum option_section)s)));
		fputs(".Bl -tag -width Ds\n", out);
		for (size_t i = 0; i < count; i++)
			print_row_mdoc(out, &options[i]);
		fputs(".El\n", out);
	}
}
