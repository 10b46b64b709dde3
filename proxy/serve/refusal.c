#include "proxy/serve/refusal.h"

#include <stdio.h>

/* What a person is told. In words that fit whoever reads them: the client's user more often than its author. */
static const struct sentence {
	unsigned status;
	const char *text;
} sentences[] = {
	{ 400, "The server could not understand this request, so it was not passed on." },
	{ 403, "This request is not allowed." },
	{ 404, "There is nothing at this address." },
	{ 408, "The request did not arrive in time. Please try again." },
	{ 413, "What was sent is larger than the server takes." },
	{ 414, "The address of this request is longer than the server takes." },
	{ 417, "The request expects something that the server cannot do." },
	{ 431, "The header of this request is larger than the server takes. Clearing this site's cookies may help." },
	{ 500, "The server made a mistake. It is not yours." },
	{ 501, "The server does not know how to do what was asked." },
	{ 502, "The application behind this server gave no proper answer. Please try again in a moment." },
	{ 503, "The server is too busy to answer right now. Please try again in a moment." },
	{ 504, "The application behind this server took too long to answer. Please try again in a moment." },
	{ 505, "The server does not speak this version of HTTP." },
	{ 507, "The server has no room to store this request right now. Please try again later." },
};

static struct slice sentence_of(unsigned status)
{
	for (size_t i = 0; i < ARRAY_LEN(sentences); i++)
		if (sentences[i].status == status)
			return slice_str(sentences[i].text);
	return status < 500 ? SLICE("The server refused this request.") : SLICE("The server could not answer this request.");
}

static struct slice title_of(unsigned status)
{
	struct slice title = status_reason(status);

	return title.len ? title : SLICE("Error");
}

/* Accept (RFC 9110, 12.5.1). The order is what decides where the client leaves the choice. */
enum format { FORMAT_HTML, FORMAT_JSON, FORMAT_TEXT, FORMAT_COUNT };

static const struct {
	struct slice type, subtype, content_type;
} formats[FORMAT_COUNT] = {
	[FORMAT_HTML] = { SLICE_INIT("text"), SLICE_INIT("html"), SLICE_INIT("text/html; charset=utf-8") },
	[FORMAT_JSON] = { SLICE_INIT("application"), SLICE_INIT("json"), SLICE_INIT("application/json") },
	[FORMAT_TEXT] = { SLICE_INIT("text"), SLICE_INIT("plain"), SLICE_INIT("text/plain; charset=utf-8") },
};

/* How well a format does: by the most specific range that names it, which also decides between equal weights. */
struct rank {
	unsigned specific; /* 0: not named, 1: * / *, 2: type / *, 3: type/subtype */
	unsigned weight;   /* thousandths */
};

/* qvalue (RFC 9110, 12.4.2): 0 to 1 with at most three decimals. */
static bool weight_parse(struct slice text, unsigned *ret)
{
	unsigned weight = 0, scale = 1000;

	if (text.len == 0 || text.len > 5 || (text.len > 1 && text.ptr[1] != '.'))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (i == 1)
			continue;
		if (text.ptr[i] < '0' || text.ptr[i] > '9')
			return false;
		weight += (unsigned)(text.ptr[i] - '0') * scale;
		scale /= 10;
	}
	*ret = weight;
	return weight <= 1000;
}

/* The weight among a range's parameters, 1 if there is none. False: what claims to be one is not. */
static bool weight_of(struct slice parameters, unsigned *ret)
{
	struct slice one;
	bool more = true;

	*ret = 1000;
	while (more) {
		struct slice name;

		more = slice_cut(&parameters, ';', &one);
		one = slice_trim_ows(more ? one : parameters);
		if (slice_cut(&one, '=', &name) && slice_eq_nocase(name, SLICE("q")))
			return weight_parse(one, ret);
	}
	return true;
}

static unsigned how_specific(enum format f, struct slice type, struct slice subtype)
{
	bool any_subtype = slice_eq(subtype, SLICE("*"));

	if (slice_eq(type, SLICE("*")))
		return any_subtype ? 1 : 0;
	if (!slice_eq_nocase(type, formats[f].type))
		return 0;
	if (any_subtype)
		return 2;
	return slice_eq_nocase(subtype, formats[f].subtype) ? 3 : 0;
}

/* One media-range with its parameters. What cannot be read says nothing. */
static void rank_by_range(struct rank ranks[FORMAT_COUNT], struct slice range)
{
	struct slice before, type, parameters = slice_of("", 0);
	unsigned weight;

	if (slice_cut(&range, ';', &before)) {
		parameters = range;
		range = slice_trim_ows(before);
	}
	if (!slice_cut(&range, '/', &type) || !weight_of(parameters, &weight))
		return;
	for (enum format f = 0; f < FORMAT_COUNT; f++) {
		unsigned specific = how_specific(f, type, range);

		if (specific > ranks[f].specific || (specific > 0 && specific == ranks[f].specific && weight > ranks[f].weight))
			ranks[f] = (struct rank){ .specific = specific, .weight = weight };
	}
}

static bool is_better(struct rank a, struct rank b)
{
	return a.weight > b.weight || (a.weight == b.weight && a.weight > 0 && a.specific > b.specific);
}

/* HTML where nothing is asked for, and where nothing of ours is: an answer beats none. */
static enum format format_for(struct slice accept)
{
	struct rank ranks[FORMAT_COUNT] = { { 0 } };
	enum format best = FORMAT_HTML;
	struct slice range;

	while (slice_next_element(&accept, &range))
		rank_by_range(ranks, range);
	for (enum format f = 1; f < FORMAT_COUNT; f++)
		if (is_better(ranks[f], ranks[best]))
			best = f;
	return best;
}

/* The pages. What is not printable ASCII has no business in an id or a reason: it is shown as '?'. */

static struct slice html_entity(char c)
{
	switch (c) {
	case '<':
		return SLICE("&lt;");
	case '>':
		return SLICE("&gt;");
	case '&':
		return SLICE("&amp;");
	case '"':
		return SLICE("&quot;");
	case '\'':
		return SLICE("&#39;");
	}
	return slice_of("", 0);
}

static bool is_printable(char c)
{
	return c >= 0x20 && c <= 0x7e;
}

static void add_plain(struct buf *b, struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		buf_char(b, is_printable(text.ptr[i]) ? text.ptr[i] : '?');
}

static void add_html(struct buf *b, struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		struct slice entity = html_entity(text.ptr[i]);

		if (entity.len)
			buf_add(b, entity);
		else
			add_plain(b, slice_of(text.ptr + i, 1));
	}
}

static void add_json(struct buf *b, struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] == '"' || text.ptr[i] == '\\')
			buf_char(b, '\\');
		add_plain(b, slice_of(text.ptr + i, 1));
	}
}

/* A client is told what was wrong with what it sent, and nothing about what stands behind. */
static struct slice shown_reason(const struct refusal *r)
{
	return r->status >= 400 && r->status < 500 ? slice_str(r->reason) : slice_of("", 0);
}

static void html_paragraph(struct buf *b, const char *class, const char *before, struct slice text)
{
	if (text.len == 0)
		return;
	buf_printf(b, "<p class=\"%s\">%s", class, before);
	add_html(b, text);
	buf_add(b, SLICE("</p>\n"));
}

static void write_html(const struct refusal *r, struct buf *b)
{
	buf_add(b, SLICE("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
	                 "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>"));
	buf_printf(b, "%u ", r->status);
	add_html(b, title_of(r->status));
	buf_add(b,
	    SLICE(
	        "</title>\n<style>\n"
	        ":root { color-scheme: light dark; }\n"
	        "body { max-width: 34rem; margin: 18vh auto 2rem; padding: 0 1.5rem; font: 1.05rem/1.6 system-ui, sans-serif; }\n"
	        "h1 { margin: 0 0 1rem; font-size: 1.5rem; line-height: 1.3; }\n"
	        ".small { margin: .4rem 0; font-size: .85rem; opacity: .75; overflow-wrap: anywhere; }\n"
	        "</style>\n</head>\n<body>\n<h1>"));
	buf_printf(b, "%u ", r->status);
	add_html(b, title_of(r->status));
	buf_add(b, SLICE("</h1>\n"));
	html_paragraph(b, "what", "", sentence_of(r->status));
	html_paragraph(b, "small", "Reason: ", shown_reason(r));
	html_paragraph(b, "small", "Request: ", r->id);
	buf_add(b, SLICE("</body>\n</html>\n"));
}

static void json_member(struct buf *b, const char *name, struct slice text)
{
	if (text.len == 0)
		return;
	buf_printf(b, ",\"%s\":\"", name);
	add_json(b, text);
	buf_char(b, '"');
}

static void write_json(const struct refusal *r, struct buf *b)
{
	buf_printf(b, "{\"status\":%u", r->status);
	json_member(b, "title", title_of(r->status));
	json_member(b, "detail", sentence_of(r->status));
	json_member(b, "reason", shown_reason(r));
	json_member(b, "request_id", r->id);
	buf_add(b, SLICE("}\n"));
}

static void text_line(struct buf *b, const char *before, struct slice text)
{
	if (text.len == 0)
		return;
	buf_add(b, slice_str(before));
	add_plain(b, text);
	buf_char(b, '\n');
}

static void write_text(const struct refusal *r, struct buf *b)
{
	buf_printf(b, "%u ", r->status);
	text_line(b, "", title_of(r->status));
	text_line(b, "\n", sentence_of(r->status));
	text_line(b, "Reason: ", shown_reason(r));
	text_line(b, "Request: ", r->id);
}

static void write_page(const struct refusal *r, enum format f, struct buf *page)
{
	switch (f) {
	case FORMAT_HTML:
		write_html(r, page);
		break;
	case FORMAT_JSON:
		write_json(r, page);
		break;
	case FORMAT_TEXT:
		write_text(r, page);
		break;
	case FORMAT_COUNT:
		break;
	}
}

static int add_number(struct head *h, struct slice name, uint64_t n)
{
	char text[24];
	int len = snprintf(text, sizeof(text), "%" PRIu64, n);

	return head_add(h, name, slice_of(text, (size_t)len));
}

static int fill_head(const struct refusal *r, enum format f, size_t page_bytes, struct head *h)
{
	int err = head_put(h, status_reason(r->status), &h->reason);

	h->status = (uint16_t)r->status;
	h->version = 11;
	if (err == 0)
		err = head_add(h, SLICE("Content-Type"), formats[f].content_type);
	if (err == 0)
		err = add_number(h, SLICE("Content-Length"), page_bytes);
	if (err == 0)
		err = head_add(h, SLICE("Cache-Control"), SLICE("no-store"));
	if (err == 0 && r->retry_after_s != 0)
		err = add_number(h, SLICE("Retry-After"), r->retry_after_s);
	return err;
}

int refusal_make(const struct refusal *r, struct head *ret_head, struct buf *page)
{
	enum format f = format_for(r->accept);
	size_t before = page->len;
	int err;

	write_page(r, f, page);
	err = page->failed ? -ENOMEM : fill_head(r, f, page->len - before, ret_head);
	if (err == 0)
		return 0;
	page->len = before;
	head_done(ret_head);
	head_init(ret_head);
	return -ENOMEM;
}
