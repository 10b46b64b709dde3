#include "core/http1.h"

#include "core/fields.h"

/* Every answer's status and phrase. A worker's bad response is 502 whatever stands here: its reader says so. */
static const struct {
	uint16_t status;
	const char *reason;
} results[] = {
	[HTTP1_OK] = { 0, "well-formed" },
	[HTTP1_MORE] = { 0, "not complete" },
	[HTTP1_BAD_LINE_END] = { 400, "bare CR or LF in the head" },
	[HTTP1_BAD_BYTE] = { 400, "control byte in the head" },
	[HTTP1_BAD_REQUEST_LINE] = { 400, "malformed request line" },
	[HTTP1_BAD_METHOD] = { 400, "method is not a token" },
	[HTTP1_BAD_TARGET] = { 400, "invalid request target" },
	[HTTP1_BAD_VERSION] = { 400, "malformed HTTP version" },
	[HTTP1_VERSION_NOT_SUPPORTED] = { 505, "HTTP version not supported" },
	[HTTP1_TARGET_TOO_LONG] = { 414, "first line too long" },
	[HTTP1_HEAD_TOO_LARGE] = { 431, "head too large or too many fields" },
	[HTTP1_BAD_FIELD_NAME] = { 400, "invalid field name" },
	[HTTP1_BAD_FIELD_VALUE] = { 400, "invalid field value" },
	[HTTP1_OBS_FOLD] = { 400, "folded field line" },
	[HTTP1_BAD_HOST] = { 400, "missing, repeated or invalid Host" },
	[HTTP1_HOST_DIFFERS] = { 400, "Host differs from the authority" },
	[HTTP1_BAD_CONTENT_LENGTH] = { 400, "invalid or repeated Content-Length" },
	[HTTP1_LENGTH_AND_CHUNKED] = { 400, "both Content-Length and Transfer-Encoding" },
	[HTTP1_BAD_TRANSFER_ENCODING] = { 400, "invalid Transfer-Encoding" },
	[HTTP1_UNKNOWN_TRANSFER_ENCODING] = { 501, "transfer coding not supported" },
	[HTTP1_BAD_EXPECT] = { 417, "unknown expectation" },
	[HTTP1_CONNECT_REFUSED] = { 501, "CONNECT not supported" },
	[HTTP1_BAD_CHUNK] = { 400, "malformed chunk" },
	[HTTP1_CHUNK_EXTENSION_TOO_LONG] = { 400, "chunk extension too long" },
	[HTTP1_CHUNK_TOO_LARGE] = { 400, "chunk size too large" },
	[HTTP1_BAD_TRAILER] = { 400, "malformed or too large trailer section" },
	[HTTP1_BAD_STATUS_LINE] = { 502, "malformed status line" },
	[HTTP1_NO_MEMORY] = { 503, "out of memory" },
};
static_assert(ARRAY_LEN(results) == HTTP1_RESULT_COUNT, "a row for each result");

unsigned http1_status(enum http1_result r)
{
	return results[r].status;
}

const char *http1_reason(enum http1_result r)
{
	return results[r].reason;
}

static enum http1_result from_errno(int err)
{
	return err == -E2BIG ? HTTP1_HEAD_TOO_LARGE : HTTP1_NO_MEMORY;
}

/* Lines. `rest` is what of the head's own text has not been read. */

static struct span span_of(const struct head *h, struct slice s)
{
	return (struct span){ s.len ? (uint32_t)(s.ptr - h->text) : 0, (uint32_t)s.len };
}

/* The next line, without its end. A CR or LF that ends no line stays in it and is refused with the line. */
static bool next_line(struct slice *rest, struct slice *ret)
{
	struct slice line;

	if (!slice_cut(rest, '\n', &line) || line.len == 0 || line.ptr[line.len - 1] != '\r')
		return false;
	*ret = (struct slice){ line.ptr, line.len - 1 };
	return true;
}

static size_t count_lines(struct slice text)
{
	size_t n = 0;

	for (struct slice line; slice_cut(&text, '\n', &line);)
		n++;
	return n;
}

static enum http1_result parse_field(struct head *h, struct slice line)
{
	size_t name_len = slice_token_len(line);
	struct slice value;
	int err;

	/* Folding is how one parser's value is the next one's field (RFC 9112, 5.2); before the first field it is no better (2.2). */
	if (line.ptr[0] == ' ' || line.ptr[0] == '\t')
		return HTTP1_OBS_FOLD;
	/* A blank before the colon is in the name, and no token (RFC 9112, 5.1). A worker's is not mended either. */
	if (name_len == 0 || name_len == line.len || line.ptr[name_len] != ':')
		return HTTP1_BAD_FIELD_NAME;
	value = slice_trim_ows(slice_of(line.ptr + name_len + 1, line.len - name_len - 1));
	if (!field_text_ok(value))
		return HTTP1_BAD_FIELD_VALUE;
	err = head_add_spans(h, span_of(h, slice_of(line.ptr, name_len)), span_of(h, value));
	return err ? from_errno(err) : HTTP1_OK;
}

/* Field lines up to the empty one, which must be the end of the text. */
static enum http1_result parse_fields(struct head *h, struct slice rest)
{
	enum http1_result result;
	struct slice line;

	while (next_line(&rest, &line)) {
		if (line.len == 0)
			return rest.len ? HTTP1_BAD_LINE_END : HTTP1_OK;
		result = parse_field(h, line);
		if (result != HTTP1_OK)
			return result;
	}
	return HTTP1_BAD_LINE_END;
}

/* The one copy of the text that is made; all spans point into it. One byte to spare: a path of "*" may be put behind it. */
static enum http1_result take_text(struct head *h, struct slice text, struct slice *ret)
{
	struct span all;
	int err = head_reserve(h, text.len + 1, h->fields ? 0 : MIN(count_lines(text), (size_t)UINT16_MAX));

	if (!err)
		err = head_put(h, text, &all);
	if (err)
		return from_errno(err);
	*ret = head_text(h, all);
	return HTTP1_OK;
}

/* "HTTP/" DIGIT "." DIGIT, in capitals (RFC 9112, 2.3). A higher minor version is spoken to as 1.1 (RFC 9110, 2.5). */
static enum http1_result parse_version(struct slice s, uint8_t *ret)
{
	unsigned major, minor;

	if (s.len != 8 || !slice_starts(s, SLICE("HTTP/")) || s.ptr[6] != '.')
		return HTTP1_BAD_VERSION;
	major = (unsigned)(unsigned char)s.ptr[5] - '0';
	minor = (unsigned)(unsigned char)s.ptr[7] - '0';
	if (major > 9 || minor > 9)
		return HTTP1_BAD_VERSION;
	if (major != 1)
		return HTTP1_VERSION_NOT_SUPPORTED;
	*ret = minor == 0 ? 10 : 11;
	return HTTP1_OK;
}

/* The request's target (RFC 9112, 3.2). */

static void set_path_and_query(struct head *h, struct slice path_and_query)
{
	struct slice path;

	h->has_query = slice_cut(&path_and_query, '?', &path);
	h->path = span_of(h, h->has_query ? path : path_and_query);
	if (h->has_query)
		h->query = span_of(h, path_and_query);
}

static enum http1_result asterisk_path(struct head *h)
{
	int err = head_put(h, SLICE("*"), &h->path);

	return err ? from_errno(err) : HTTP1_OK;
}

/* Cuts "http://" or "https://" off; the scheme in *ret. */
static bool cut_scheme(struct slice *target, struct slice *ret)
{
	struct slice rest = *target;

	if (!slice_cut(&rest, ':', ret) || !slice_starts(rest, SLICE("//")))
		return false;
	if (!slice_eq_nocase(*ret, SLICE("http")) && !slice_eq_nocase(*ret, SLICE("https")))
		return false;
	*target = (struct slice){ rest.ptr + 2, rest.len - 2 };
	return true;
}

static size_t authority_len(struct slice s)
{
	size_t n = 0;

	while (n < s.len && s.ptr[n] != '/' && s.ptr[n] != '?')
		n++;
	return n;
}

static enum http1_result parse_absolute_form(struct head *h, struct slice target)
{
	struct slice scheme, authority, rest;

	if (!cut_scheme(&target, &scheme))
		return HTTP1_BAD_TARGET;
	authority = (struct slice){ target.ptr, authority_len(target) };
	rest = (struct slice){ target.ptr + authority.len, target.len - authority.len };
	if (!field_host_ok(authority))
		return HTTP1_BAD_TARGET;
	h->scheme = span_of(h, scheme);
	h->authority = span_of(h, authority);
	set_path_and_query(h, rest);
	if (h->path.len)
		return HTTP1_OK;
	if (h->method == METHOD_OPTIONS && !h->has_query)
		return asterisk_path(h);                   /* RFC 9112, 3.2.4 */
	h->path = (struct span){ h->authority.at - 1, 1 }; /* "/": the one before the authority will do */
	return HTTP1_OK;
}

static enum http1_result parse_target(struct head *h, struct slice target)
{
	if (!field_target_ok(target))
		return HTTP1_BAD_TARGET;
	h->target = span_of(h, target);
	if (h->method == METHOD_CONNECT)
		return HTTP1_CONNECT_REFUSED;
	if (target.ptr[0] == '/') {
		set_path_and_query(h, target);
		return HTTP1_OK;
	}
	if (!slice_eq(target, SLICE("*")))
		return parse_absolute_form(h, target);
	if (h->method != METHOD_OPTIONS)
		return HTTP1_BAD_TARGET;
	h->path = h->target;
	return HTTP1_OK;
}

/* method SP request-target SP HTTP-version (RFC 9112, 3), one space each: the lenient reading of 3 is not ours. */
static enum http1_result parse_request_line(struct head *h, struct slice line)
{
	struct slice method, target;
	enum http1_result result;

	if (!slice_cut(&line, ' ', &method) || !slice_cut(&line, ' ', &target))
		return HTTP1_BAD_REQUEST_LINE;
	if (method.len == 0 || target.len == 0 || (line.len && memchr(line.ptr, ' ', line.len)))
		return HTTP1_BAD_REQUEST_LINE;
	if (!slice_is_token(method))
		return HTTP1_BAD_METHOD;
	h->method_text = span_of(h, method);
	h->method = (uint8_t)method_from(method);
	result = parse_version(line, &h->version);
	return result == HTTP1_OK ? parse_target(h, target) : result;
}

/* What the fields say of the message. */

static unsigned count_fields(const struct head *h, enum field_id id)
{
	unsigned n = 0;

	for (int i = head_find(h, id, 0); i >= 0; i = head_find(h, id, (unsigned)i + 1))
		n++;
	return n;
}

/* Exactly one in HTTP/1.1, at most one in HTTP/1.0, and never an empty or invalid one (RFC 9112, 3.2). */
static enum http1_result check_host(struct head *h)
{
	unsigned count = count_fields(h, FIELD_HOST);
	struct slice host = head_get(h, FIELD_HOST);

	if (count > 1 || (count == 0 && h->version >= 11))
		return HTTP1_BAD_HOST;
	if (count && !field_host_ok(host))
		return HTTP1_BAD_HOST;
	if (h->authority.len == 0) /* an absolute-form's goes before (RFC 9112, 3.2.2) */
		h->authority = span_of(h, host);
	return HTTP1_OK;
}

/* One field of digits, once. Identical repeats would be allowed by RFC 9112, 6.3, but nobody honest sends them. */
static enum http1_result read_content_length(const struct head *h, struct http1_message *m)
{
	unsigned count = count_fields(h, FIELD_CONTENT_LENGTH);

	if (count == 0)
		return HTTP1_OK;
	if (count > 1 || !slice_to_u64(head_get(h, FIELD_CONTENT_LENGTH), &m->length) || m->length > INT64_MAX)
		return HTTP1_BAD_CONTENT_LENGTH;
	m->has_length = true;
	return HTTP1_OK;
}

/* One element of a Transfer-Encoding: its name, without parameters. False if that is no token. */
static bool coding_name(struct slice element, struct slice *ret)
{
	if (!slice_cut(&element, ';', ret))
		*ret = element;
	*ret = slice_trim_ows(*ret);
	return slice_is_token(*ret);
}

/* Everything but one plain "chunked". 501 only where chunked ends what we do not know; else no length could be told (6.3). */
static enum http1_result judge_codings(const struct head *h)
{
	bool chunked_last = false;

	for (int i = head_find(h, FIELD_TRANSFER_ENCODING, 0); i >= 0;
	     i = head_find(h, FIELD_TRANSFER_ENCODING, (unsigned)i + 1)) {
		struct slice list = head_value(h, (unsigned)i), element, name;

		if (list.len == 0 || slice_starts(list, SLICE(",")) || slice_ends(list, SLICE(",")))
			return HTTP1_BAD_TRANSFER_ENCODING;
		while (slice_next_element(&list, &element)) {
			if (chunked_last || !coding_name(element, &name))
				return HTTP1_BAD_TRANSFER_ENCODING;
			chunked_last = slice_eq_nocase(name, SLICE("chunked"));
			if (chunked_last && name.len != element.len) /* it has no parameters (RFC 9112, 7.1) */
				return HTTP1_BAD_TRANSFER_ENCODING;
		}
	}
	return chunked_last ? HTTP1_UNKNOWN_TRANSFER_ENCODING : HTTP1_BAD_TRANSFER_ENCODING;
}

/* *ret_chunked: there is one. The same for requests and responses: RFC 9112, 6.1 and 6.3, without the leave to guess. */
static enum http1_result read_transfer_encoding(const struct head *h, const struct http1_message *m, bool *ret_chunked)
{
	unsigned count = count_fields(h, FIELD_TRANSFER_ENCODING);

	*ret_chunked = count > 0;
	if (count == 0)
		return HTTP1_OK;
	if (h->version < 11)
		return HTTP1_BAD_TRANSFER_ENCODING;
	if (m->has_length)
		return HTTP1_LENGTH_AND_CHUNKED;
	if (count == 1 && slice_eq_nocase(head_get(h, FIELD_TRANSFER_ENCODING), SLICE("chunked")))
		return HTTP1_OK;
	return judge_codings(h);
}

/* Connection options, each a token (RFC 9110, 7.6.1): keep_alive and upgrade. */
static enum http1_result read_connection(const struct head *h, struct http1_message *m)
{
	bool closes = false, keeps = false, upgrades = false;

	for (int i = head_find(h, FIELD_CONNECTION, 0); i >= 0; i = head_find(h, FIELD_CONNECTION, (unsigned)i + 1)) {
		struct slice list = head_value(h, (unsigned)i), option;

		while (slice_next_element(&list, &option)) {
			if (!slice_is_token(option))
				return HTTP1_BAD_FIELD_VALUE;
			closes |= slice_eq_nocase(option, SLICE("close"));
			keeps |= slice_eq_nocase(option, SLICE("keep-alive"));
			upgrades |= slice_eq_nocase(option, SLICE("upgrade"));
		}
	}
	m->keep_alive = !closes && (h->version >= 11 || keeps); /* RFC 9112, 9.3 */
	m->upgrade = upgrades && h->version >= 11 && head_find(h, FIELD_UPGRADE, 0) >= 0;
	return HTTP1_OK;
}

/* In HTTP/1.0 the one we know is to be ignored (RFC 9110, 10.1.1); without content there is nothing to continue with. */
static enum http1_result read_expect(const struct head *h, struct http1_message *m)
{
	for (int i = head_find(h, FIELD_EXPECT, 0); i >= 0; i = head_find(h, FIELD_EXPECT, (unsigned)i + 1)) {
		if (!slice_eq_nocase(head_value(h, (unsigned)i), SLICE("100-continue")))
			return HTTP1_BAD_EXPECT;
		m->expect_continue = h->version >= 11 && m->framing != FRAMING_NONE;
	}
	return HTTP1_OK;
}

/* Lengths and codings of either kind of message; what they mean for its framing is left to the caller. */
static enum http1_result read_lengths(const struct head *h, struct http1_message *m, bool *ret_chunked)
{
	enum http1_result result = read_content_length(h, m);

	if (result == HTTP1_OK)
		result = read_transfer_encoding(h, m, ret_chunked);
	return result == HTTP1_OK ? read_connection(h, m) : result;
}

static enum http1_result frame_request(const struct head *h, struct http1_message *m)
{
	bool chunked;
	enum http1_result result = read_lengths(h, m, &chunked);

	if (result != HTTP1_OK)
		return result;
	if (chunked)
		m->framing = FRAMING_CHUNKED;
	else
		m->framing = m->length ? FRAMING_LENGTH : FRAMING_NONE;
	return read_expect(h, m);
}

static enum http1_result parse_request(struct slice text, struct head *h, struct http1_message *m)
{
	enum http1_result result;
	struct slice rest, line;

	if (slice_starts(text, SLICE("\r\n"))) /* one, from clients of old (RFC 9112, 2.2) */
		text = (struct slice){ text.ptr + 2, text.len - 2 };
	result = take_text(h, text, &rest);
	if (result != HTTP1_OK)
		return result;
	if (!next_line(&rest, &line))
		return HTTP1_BAD_REQUEST_LINE;
	result = parse_request_line(h, line);
	if (result == HTTP1_OK)
		result = parse_fields(h, rest);
	if (result == HTTP1_OK)
		result = check_host(h);
	return result == HTTP1_OK ? frame_request(h, m) : result;
}

enum http1_result http1_request(struct slice text, struct head *ret, struct http1_message *ret_message)
{
	struct http1_message message = { .framing = FRAMING_NONE };
	enum http1_result result = parse_request(text, ret, &message);

	if (result != HTTP1_OK)
		head_done(ret);
	else
		*ret_message = message;
	return result;
}

/*
 * HTTP-version SP status-code SP [ reason-phrase ] (RFC 9112, 4). The second space may be missing where there is no phrase:
 * there is only one way to read that, and frameworks exist that send it so.
 */
static enum http1_result parse_status_line(struct head *h, struct slice line)
{
	struct slice version, code, reason = line;
	enum http1_result result;
	uint64_t status;

	if (!slice_cut(&reason, ' ', &version))
		return HTTP1_BAD_STATUS_LINE;
	if (!slice_cut(&reason, ' ', &code)) {
		code = reason;
		reason = SLICE("");
	}
	result = parse_version(version, &h->version);
	if (result != HTTP1_OK)
		return result == HTTP1_BAD_VERSION ? HTTP1_BAD_STATUS_LINE : result;
	if (code.len != 3 || !slice_to_u64(code, &status) || status < 100 || status > 599 || !field_text_ok(reason))
		return HTTP1_BAD_STATUS_LINE;
	h->status = (uint16_t)status;
	h->reason = span_of(h, reason);
	return HTTP1_OK;
}

/* RFC 9112, 6.3, rules 1 to 8. */
static enum http1_framing response_framing(
    const struct head *h, const struct http1_message *m, enum method request_method, bool chunked)
{
	if (h->status == 101 || (request_method == METHOD_CONNECT && h->status / 100 == 2))
		return FRAMING_TUNNEL;
	if (request_method == METHOD_HEAD || h->status < 200 || h->status == 204 || h->status == 304)
		return FRAMING_NONE;
	if (chunked)
		return FRAMING_CHUNKED;
	if (!m->has_length)
		return FRAMING_CLOSE;
	return m->length ? FRAMING_LENGTH : FRAMING_NONE;
}

static enum http1_result frame_response(const struct head *h, enum method request_method, struct http1_message *m)
{
	bool chunked;
	enum http1_result result = read_lengths(h, m, &chunked);

	if (result != HTTP1_OK)
		return result;
	m->framing = response_framing(h, m, request_method, chunked);
	if (m->framing == FRAMING_CLOSE || m->framing == FRAMING_TUNNEL)
		m->keep_alive = false;
	return HTTP1_OK;
}

static enum http1_result parse_response(struct slice text, enum method request_method, struct head *h, struct http1_message *m)
{
	enum http1_result result;
	struct slice rest, line;

	result = take_text(h, text, &rest);
	if (result != HTTP1_OK)
		return result;
	if (!next_line(&rest, &line))
		return HTTP1_BAD_STATUS_LINE;
	result = parse_status_line(h, line);
	if (result == HTTP1_OK)
		result = parse_fields(h, rest);
	return result == HTTP1_OK ? frame_response(h, request_method, m) : result;
}

enum http1_result http1_response(
    struct slice text, enum method request_method, struct head *ret, struct http1_message *ret_message)
{
	struct http1_message message = { .framing = FRAMING_NONE };
	enum http1_result result = parse_response(text, request_method, ret, &message);

	if (result != HTTP1_OK)
		head_done(ret);
	else
		*ret_message = message;
	return result;
}

/* Writing. */

void http1_write_request_line(struct buf *out, struct slice method, struct slice path, const struct slice *query)
{
	buf_add(out, method);
	buf_char(out, ' ');
	buf_add(out, path);
	if (query) {
		buf_char(out, '?');
		buf_add(out, *query);
	}
	buf_add(out, SLICE(" HTTP/1.1\r\n"));
}

void http1_write_status_line(struct buf *out, unsigned status, struct slice reason)
{
	buf_add(out, SLICE("HTTP/1.1 "));
	buf_u64(out, status);
	buf_char(out, ' ');
	buf_add(out, reason.len ? reason : status_reason(status));
	buf_add(out, SLICE("\r\n"));
}
