#include "proxy/client/http2_fields.h"

#include "core/fields.h"

#define COOKIE_MAX   (64u << 10)
#define FLOOD_FACTOR 4 /* times the limits */

enum pseudo { PSEUDO_METHOD, PSEUDO_SCHEME, PSEUDO_AUTHORITY, PSEUDO_PATH, PSEUDO_PROTOCOL, PSEUDO_COUNT };

static const struct slice pseudo_names[PSEUDO_COUNT] = {
	[PSEUDO_METHOD] = SLICE_INIT(":method"),
	[PSEUDO_SCHEME] = SLICE_INIT(":scheme"),
	[PSEUDO_AUTHORITY] = SLICE_INIT(":authority"),
	[PSEUDO_PATH] = SLICE_INIT(":path"),
	[PSEUDO_PROTOCOL] = SLICE_INIT(":protocol"),
};

void http2_fields_begin(struct http2_fields *f, bool trailers, uint64_t bytes_max, unsigned count_max)
{
	*f = (struct http2_fields){ .trailers = trailers, .bytes_max = bytes_max, .count_max = count_max };
	head_init(&f->head);
	f->head.version = 20;
	buf_init(&f->cookie, COOKIE_MAX);
}

void http2_fields_done(struct http2_fields *f)
{
	head_done(&f->head);
	buf_done(&f->cookie);
}

static void malformed(struct http2_fields *f, const char *why)
{
	if (!f->malformed)
		f->malformed = why;
}

static void put(struct http2_fields *f, struct slice text, struct span *ret)
{
	if (head_put(&f->head, text, ret) != 0)
		f->no_memory = true;
}

static void take_method(struct http2_fields *f, struct slice value)
{
	if (!slice_is_token(value)) {
		malformed(f, ":method is no token");
		return;
	}
	put(f, value, &f->head.method_text);
	f->head.method = (uint8_t)method_from(value);
}

static void take_scheme(struct http2_fields *f, struct slice value)
{
	if (slice_eq_nocase(value, SLICE("http")) || slice_eq_nocase(value, SLICE("https")))
		put(f, value, &f->head.scheme);
	else
		malformed(f, ":scheme is neither http nor https");
}

/* Origin-form or "*", as in HTTP/1.1 (RFC 9113, 8.3.1). */
static void take_path(struct http2_fields *f, struct slice value)
{
	struct head *h = &f->head;
	const char *mark;

	if (!field_target_ok(value) || (value.ptr[0] != '/' && !slice_eq(value, SLICE("*")))) {
		malformed(f, ":path is no path");
		return;
	}
	put(f, value, &h->target);
	if (f->no_memory)
		return;
	h->path = h->target;
	mark = memchr(value.ptr, '?', value.len);
	if (!mark)
		return;
	h->has_query = true;
	h->path.len = (uint32_t)(mark - value.ptr);
	h->query = (struct span){ h->target.at + h->path.len + 1, h->target.len - h->path.len - 1 };
}

static void take_authority(struct http2_fields *f, struct slice value)
{
	if (!field_host_ok(value))
		malformed(f, ":authority is no host");
	else
		put(f, value, &f->head.authority);
}

static void take_pseudo(struct http2_fields *f, struct slice name, struct slice value)
{
	unsigned which = 0;

	while (which < PSEUDO_COUNT && !slice_eq(name, pseudo_names[which]))
		which++;
	if (f->trailers || which == PSEUDO_COUNT || (f->seen & TO(which)) || f->regular) {
		malformed(f, f->trailers             ? "pseudo-field in trailers"
		             : which == PSEUDO_COUNT ? "unknown pseudo-field"
		             : f->regular            ? "pseudo-field behind a field"
		                                     : "pseudo-field twice");
		return;
	}
	f->seen |= TO(which);
	switch ((enum pseudo)which) {
	case PSEUDO_METHOD:
		take_method(f, value);
		return;
	case PSEUDO_SCHEME:
		take_scheme(f, value);
		return;
	case PSEUDO_AUTHORITY:
		take_authority(f, value);
		return;
	case PSEUDO_PATH:
		take_path(f, value);
		return;
	case PSEUDO_PROTOCOL:
		if (slice_is_token(value))
			put(f, value, &f->protocol);
		else
			malformed(f, ":protocol is no token");
		return;
	case PSEUDO_COUNT:
		return;
	}
}

static bool has_upper(struct slice name)
{
	for (size_t i = 0; i < name.len; i++)
		if (name.ptr[i] >= 'A' && name.ptr[i] <= 'Z')
			return true;
	return false;
}

/* NULL: may stand in an HTTP/2 message (RFC 9113, 8.2.2). */
static const char *connection_specific(enum field_id id, struct slice value)
{
	switch (id) {
	case FIELD_CONNECTION:
	case FIELD_KEEP_ALIVE:
	case FIELD_PROXY_CONNECTION:
	case FIELD_TRANSFER_ENCODING:
	case FIELD_UPGRADE:
		return "connection-specific field";
	case FIELD_TE:
		return slice_eq_nocase(value, SLICE("trailers")) ? NULL : "TE other than trailers";
	default:
		return NULL;
	}
}

static void take_cookie(struct http2_fields *f, struct slice value)
{
	if (f->cookie.len > 0)
		buf_add(&f->cookie, SLICE("; "));
	buf_add(&f->cookie, value);
	if (f->cookie.failed)
		f->no_memory = true;
}

static void take_field(struct http2_fields *f, struct slice name, struct slice value)
{
	enum field_id id;
	const char *why;

	f->regular = true;
	if (!field_name_ok(name) || has_upper(name)) {
		malformed(f, "field name");
		return;
	}
	if (!field_value_ok(value)) {
		malformed(f, "field value");
		return;
	}
	id = field_id_from(name);
	why = connection_specific(id, value);
	if (why) {
		malformed(f, why);
		return;
	}
	if (f->trailers)
		return; /* nobody reads them */
	if (id == FIELD_COOKIE) {
		take_cookie(f, value);
		return;
	}
	if (head_add_id(&f->head, id, name, value) != 0) {
		f->no_memory = true;
		return;
	}
	if (id == FIELD_OTHER && slice_eq(name, SLICE("priority")))
		f->priority = f->head.fields[f->head.field_count - 1].value;
}

void http2_fields_add(struct http2_fields *f, struct slice name, struct slice value)
{
	f->bytes += name.len + value.len + HTTP2_FIELD_OVERHEAD;
	f->count++;
	if (f->bytes > f->bytes_max || f->count > f->count_max)
		f->too_large = true;
	if (f->too_large || f->no_memory || f->malformed)
		return;
	if (name.len > 0 && name.ptr[0] == ':')
		take_pseudo(f, name, value);
	else
		take_field(f, name, value);
}

bool http2_fields_flooded(const struct http2_fields *f)
{
	return f->bytes / FLOOD_FACTOR > f->bytes_max || f->count / FLOOD_FACTOR > f->count_max;
}

/* The end. */

static unsigned count_of(const struct head *h, enum field_id id)
{
	unsigned n = 0;

	for (int i = head_find(h, id, 0); i >= 0; i = head_find(h, id, (unsigned)i + 1))
		n++;
	return n;
}

/* :authority and Host name one and the same (RFC 9113, 8.3.1); one of them is there. */
static const char *check_authority(struct head *h)
{
	unsigned count = count_of(h, FIELD_HOST);
	struct slice host = head_get(h, FIELD_HOST);

	if (count > 1)
		return "Host twice";
	if (count == 1 && !field_host_ok(host))
		return "Host is no host";
	if (h->authority.len == 0 && count == 0)
		return "neither :authority nor Host";
	if (h->authority.len == 0)
		h->authority = h->fields[head_find(h, FIELD_HOST, 0)].value;
	else if (count == 1 && !slice_eq_nocase(host, head_text(h, h->authority)))
		return "Host differs from :authority";
	return NULL;
}

/* What there must and must not be (RFC 9113, 8.3.1 and 8.5; RFC 8441, 4). */
static const char *check_pseudo(const struct http2_fields *f)
{
	const unsigned target = TO(PSEUDO_SCHEME) | TO(PSEUDO_PATH);
	unsigned seen = f->seen;

	if (!(seen & TO(PSEUDO_METHOD)))
		return "no :method";
	if (f->head.method == METHOD_CONNECT && !(seen & TO(PSEUDO_PROTOCOL)))
		return (seen & target) || !(seen & TO(PSEUDO_AUTHORITY)) ? "CONNECT with a :path or :scheme" : NULL;
	if (f->head.method != METHOD_CONNECT && (seen & TO(PSEUDO_PROTOCOL)))
		return ":protocol without CONNECT";
	if ((seen & target) != target)
		return "no :path or no :scheme";
	if (slice_eq(head_text(&f->head, f->head.path), SLICE("*")) && f->head.method != METHOD_OPTIONS)
		return ":path is no path";
	return NULL;
}

static const char *check_length(const struct head *h, bool ended, struct http1_message *m)
{
	unsigned count = count_of(h, FIELD_CONTENT_LENGTH);

	if (count > 1)
		return "Content-Length twice";
	if (count == 1) {
		if (!slice_to_u64(head_get(h, FIELD_CONTENT_LENGTH), &m->length) || m->length > INT64_MAX)
			return "Content-Length is no number";
		m->has_length = true;
	}
	if (ended && m->length > 0)
		return "Content-Length and no content";
	if (ended)
		m->framing = FRAMING_NONE;
	else
		m->framing = m->has_length ? FRAMING_LENGTH : FRAMING_CHUNKED;
	return NULL;
}

static bool check_expect(const struct head *h, struct http1_message *m)
{
	for (int i = head_find(h, FIELD_EXPECT, 0); i >= 0; i = head_find(h, FIELD_EXPECT, (unsigned)i + 1)) {
		if (!slice_eq_nocase(head_value(h, (unsigned)i), SLICE("100-continue")))
			return false;
		m->expect_continue = m->framing != FRAMING_NONE;
	}
	return true;
}

static void refuse(struct http2_request *r, unsigned status, const char *why)
{
	if (r->why)
		return;
	r->status = status;
	r->why = why;
}

/* An extended CONNECT becomes the GET that it stands for (RFC 8441, 5). */
static void make_upgrade(struct http2_fields *f, struct slice key, struct http2_request *r)
{
	struct head *h = &f->head;

	if (!slice_eq_nocase(head_text(h, f->protocol), SLICE("websocket"))) {
		refuse(r, 501, "CONNECT to another protocol than websocket");
		return;
	}
	put(f, SLICE("GET"), &h->method_text);
	h->method = METHOD_GET;
	if (head_add_id(h, FIELD_UPGRADE, SLICE("upgrade"), SLICE("websocket")) != 0 ||
	    head_add_id(h, FIELD_CONNECTION, SLICE("connection"), SLICE("upgrade")) != 0 ||
	    head_add(h, SLICE("sec-websocket-key"), key) != 0)
		f->no_memory = true;
	r->message = (struct http1_message){ .framing = FRAMING_NONE, .upgrade = true, .keep_alive = true };
	r->connects = true;
}

static void judge(struct http2_fields *f, struct slice key, struct http2_request *r)
{
	struct head *h = &f->head;

	if (h->method == METHOD_CONNECT && !(f->seen & TO(PSEUDO_PROTOCOL)))
		refuse(r, 501, http1_reason(HTTP1_CONNECT_REFUSED));
	else if (!check_expect(h, &r->message))
		refuse(r, http1_status(HTTP1_BAD_EXPECT), http1_reason(HTTP1_BAD_EXPECT));
	else if (h->method == METHOD_CONNECT)
		make_upgrade(f, key, r);
	if (f->cookie.len > 0 && head_add_id(h, FIELD_COOKIE, SLICE("cookie"), buf_slice(&f->cookie)) != 0)
		f->no_memory = true;
	if (f->no_memory)
		refuse(r, http1_status(HTTP1_NO_MEMORY), "memory_limit");
	http2_priority_parse(head_text(h, f->priority), &r->urgency, &r->incremental);
}

static const char *check_whole(struct http2_fields *f, bool ended, struct http1_message *m)
{
	const char *why = f->malformed;

	if (f->trailers)
		return why ? why : ended ? NULL : "trailers that do not end the stream";
	if (!why)
		why = check_pseudo(f);
	if (!why)
		why = check_authority(&f->head);
	return why ? why : check_length(&f->head, ended, m);
}

enum http2_fields_result http2_fields_end(struct http2_fields *f, bool ended, struct slice key, struct http2_request *ret)
{
	*ret = (struct http2_request){ .urgency = 3, .message.keep_alive = true };
	if (f->too_large)
		refuse(ret, http1_status(HTTP1_HEAD_TOO_LARGE), http1_reason(HTTP1_HEAD_TOO_LARGE));
	else if (f->no_memory)
		refuse(ret, http1_status(HTTP1_NO_MEMORY), "memory_limit");
	if (ret->why)
		return HTTP2_FIELDS_REFUSED;
	ret->why = check_whole(f, ended, &ret->message);
	if (ret->why)
		return HTTP2_FIELDS_MALFORMED;
	if (!f->trailers)
		judge(f, key, ret);
	return ret->why ? HTTP2_FIELDS_REFUSED : HTTP2_FIELDS_OK;
}

/* One member of the dictionary (RFC 8941, 3.2), without what it may have for parameters. */
static void priority_member(struct slice member, uint8_t *urgency, bool *incremental)
{
	struct slice parameters = member, value;

	if (slice_cut(&parameters, ';', &value))
		member = slice_trim_ows(value);
	if (member.len == 3 && slice_starts(member, SLICE("u=")) && member.ptr[2] >= '0' && member.ptr[2] <= '7')
		*urgency = (uint8_t)(member.ptr[2] - '0');
	else if (slice_eq(member, SLICE("i")) || slice_eq(member, SLICE("i=?1")))
		*incremental = true;
	else if (slice_eq(member, SLICE("i=?0")))
		*incremental = false;
}

void http2_priority_parse(struct slice value, uint8_t *urgency, bool *incremental)
{
	struct slice member;

	while (slice_next_element(&value, &member))
		priority_member(member, urgency, incremental);
}
