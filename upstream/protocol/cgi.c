#include "upstream/protocol/cgi.h"

#include "core/fields.h"

struct sink {
	const struct request *r;
	struct buf *scratch;
	int (*pair)(void *ctx, struct slice name, struct slice value);
	void *ctx;
	int err; /* of the first pair that failed */
};

static void put(struct sink *s, struct slice name, struct slice value)
{
	if (s->err)
		return;
	if (s->scratch->failed)
		s->err = -ENOMEM;
	else
		s->err = s->pair(s->ctx, name, value);
}

static void put_u64(struct sink *s, struct slice name, uint64_t n)
{
	buf_clear(s->scratch);
	buf_u64(s->scratch, n);
	put(s, name, buf_slice(s->scratch));
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void decode(struct slice path, struct buf *to)
{
	for (size_t i = 0; i < path.len; i++) {
		int high = -1, low = -1;

		if (path.ptr[i] == '%' && path.len - i > 2) {
			high = hex_digit(path.ptr[i + 1]);
			low = hex_digit(path.ptr[i + 2]);
		}
		if (high < 0 || low < 0) {
			buf_char(to, path.ptr[i]);
			continue;
		}
		buf_char(to, (char)(high << 4 | low));
		i += 2;
	}
}

#define ENCODED_SLASH 256 /* part of a segment, which '/' is not (RFC 3986, 2.2) */

/* One character of a path, decoded. */
static int take_char(struct slice *path)
{
	int c = (unsigned char)path->ptr[0];
	size_t used = 1;

	if (c == '%' && path->len > 2) {
		int high = hex_digit(path->ptr[1]), low = hex_digit(path->ptr[2]);

		if (high >= 0 && low >= 0) {
			c = high << 4 | low;
			used = 3;
		}
		if (used == 3 && c == '/')
			c = ENCODED_SLASH;
	}
	*path = slice_of(path->ptr + used, path->len - used);
	return c;
}

/* What of the path the mount takes up, by whole segments, however either is encoded; 0: the path does not lie under it. */
static size_t mounted_bytes(struct slice path, const char *mount)
{
	struct slice rest = path, m = slice_str(mount);

	while (m.len > 0)
		if (rest.len == 0 || take_char(&rest) != take_char(&m))
			return 0;
	return rest.len == 0 || rest.ptr[0] == '/' ? path.len - rest.len : 0;
}

static void put_decoded(struct sink *s, struct slice name, struct slice path)
{
	buf_clear(s->scratch);
	decode(path, s->scratch);
	put(s, name, buf_slice(s->scratch));
}

static void put_path(struct sink *s)
{
	const struct head *h = &s->r->head;
	struct slice path = head_text(h, h->path);
	size_t mounted = s->r->mount ? mounted_bytes(path, s->r->mount) : 0;

	put_decoded(s, SLICE("SCRIPT_NAME"), slice_of(path.ptr, mounted));
	put_decoded(s, SLICE("PATH_INFO"), slice_of(path.ptr + mounted, path.len - mounted));
	put(s, SLICE("QUERY_STRING"), h->has_query ? head_text(h, h->query) : slice_of("", 0));
	buf_clear(s->scratch);
	buf_add(s->scratch, head_text(h, h->path));
	if (h->has_query) {
		buf_char(s->scratch, '?');
		buf_add(s->scratch, head_text(h, h->query));
	}
	put(s, SLICE("REQUEST_URI"), buf_slice(s->scratch));
}

static struct slice protocol_text(uint8_t version)
{
	switch (version) {
	case 10:
		return SLICE("HTTP/1.0");
	case 20:
		return SLICE("HTTP/2.0");
	default:
		return SLICE("HTTP/1.1");
	}
}

/* Name and port by which the client reached us: the host it named, the port it came in at. */
static void put_server(struct sink *s)
{
	struct slice authority = head_text(&s->r->head, s->r->head.authority), host = { "", 0 }, port = { "", 0 };

	if (authority.len > 0)
		field_host_split(authority, &host, &port);
	if (host.len == 0)
		host = slice_str(s->r->server_addr);
	put(s, SLICE("SERVER_NAME"), host.len > 0 ? host : SLICE("localhost"));
	if (s->r->server_port != 0)
		put_u64(s, SLICE("SERVER_PORT"), s->r->server_port);
	else if (port.len > 0)
		put(s, SLICE("SERVER_PORT"), port);
	else
		put(s, SLICE("SERVER_PORT"), s->r->secure ? SLICE("443") : SLICE("80"));
}

/* Milliseconds, to the microsecond. */
static void put_queue_time(struct sink *s)
{
	uint64_t us = s->r->queue_us % 1000;

	buf_clear(s->scratch);
	buf_u64(s->scratch, s->r->queue_us / 1000);
	buf_char(s->scratch, '.');
	buf_char(s->scratch, (char)('0' + us / 100));
	buf_char(s->scratch, (char)('0' + us / 10 % 10));
	buf_char(s->scratch, (char)('0' + us % 10));
	put(s, SLICE("FOREBAY_QUEUE_MS"), buf_slice(s->scratch));
}

static void put_client(struct sink *s)
{
	put(s, SLICE("REMOTE_ADDR"), slice_str(s->r->remote_addr));
	if (s->r->remote_port != 0)
		put_u64(s, SLICE("REMOTE_PORT"), s->r->remote_port);
	put(s, SLICE("REQUEST_SCHEME"), s->r->secure ? SLICE("https") : SLICE("http"));
	if (s->r->secure)
		put(s, SLICE("HTTPS"), SLICE("on"));
	if (s->r->secure && s->r->tls_version)
		put(s, SLICE("SSL_PROTOCOL"), slice_str(s->r->tls_version));
	if (s->r->id[0])
		put(s, SLICE("FOREBAY_REQUEST_ID"), slice_str(s->r->id));
	put_queue_time(s);
}

static void put_content(struct sink *s)
{
	const struct head *h = &s->r->head;
	int type = head_find(h, FIELD_CONTENT_TYPE, 0);

	if (type >= 0)
		put(s, SLICE("CONTENT_TYPE"), head_value(h, (unsigned)type));
	if (s->r->length_known && (s->r->length > 0 || head_find(h, FIELD_CONTENT_LENGTH, 0) >= 0))
		put_u64(s, SLICE("CONTENT_LENGTH"), s->r->length);
}

static bool is_letter_or_digit(char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static bool becomes_variable(const struct head *h, unsigned i)
{
	struct slice name = head_name(h, i);

	if (field_is_of_connection(h->fields[i].id))
		return false;
	switch (h->fields[i].id) {
	case FIELD_CONTENT_LENGTH:
	case FIELD_CONTENT_TYPE:
	case FIELD_EXPECT:
	case FIELD_PROXY:
		return false;
	default:
		break;
	}
	for (size_t k = 0; k < name.len; k++)
		if (!is_letter_or_digit(name.ptr[k]) && name.ptr[k] != '-')
			return false;
	return true;
}

static bool same_field(const struct head *h, unsigned a, unsigned b)
{
	return h->fields[a].id == h->fields[b].id && slice_eq_nocase(head_name(h, a), head_name(h, b));
}

static bool came_before(const struct head *h, unsigned i)
{
	for (unsigned k = 0; k < i; k++)
		if (same_field(h, k, i))
			return true;
	return false;
}

/* The names that applications know, for what the front says of a client's certificate. */
static void put_certificate(struct sink *s)
{
	static const struct {
		struct slice field, variable;
	} known[] = {
		{ SLICE_INIT("X-Client-Verify"), SLICE_INIT("SSL_CLIENT_VERIFY") },
		{ SLICE_INIT("X-Client-Subject"), SLICE_INIT("SSL_CLIENT_S_DN") },
		{ SLICE_INIT("X-Client-Issuer"), SLICE_INIT("SSL_CLIENT_I_DN") },
		{ SLICE_INIT("X-Client-Serial"), SLICE_INIT("SSL_CLIENT_M_SERIAL") },
		{ SLICE_INIT("X-Client-Fingerprint"), SLICE_INIT("SSL_CLIENT_FINGERPRINT") },
	};
	const struct head *h = &s->r->head;

	for (unsigned i = 0; s->r->secure && i < h->field_count; i++)
		for (size_t k = 0; h->fields[i].id == FIELD_OTHER && k < ARRAY_LEN(known); k++)
			if (slice_eq_nocase(head_name(h, i), known[k].field) && !came_before(h, i))
				put(s, known[k].variable, head_value(h, i));
}

/* HTTP_NAME and, behind it in the same memory, all values of that name. */
static void put_field(struct sink *s, unsigned i)
{
	const struct head *h = &s->r->head;
	struct slice name = head_name(h, i), separator = h->fields[i].id == FIELD_COOKIE ? SLICE("; ") : SLICE(", ");
	size_t name_len;

	buf_clear(s->scratch);
	buf_add(s->scratch, SLICE("HTTP_"));
	for (size_t k = 0; k < name.len; k++) {
		char c = name.ptr[k];

		buf_char(s->scratch, c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c);
	}
	name_len = s->scratch->len;
	buf_add(s->scratch, head_value(h, i));
	for (unsigned k = i + 1; k < h->field_count; k++) {
		if (!same_field(h, i, k))
			continue;
		buf_add(s->scratch, separator);
		buf_add(s->scratch, head_value(h, k));
	}
	put(s, slice_of(s->scratch->ptr, name_len), slice_of(s->scratch->ptr + name_len, s->scratch->len - name_len));
}

int cgi_each(
    const struct request *r, struct buf *scratch, int (*pair)(void *ctx, struct slice name, struct slice value), void *ctx)
{
	struct sink s = { .r = r, .scratch = scratch, .pair = pair, .ctx = ctx };
	const struct head *h = &r->head;

	buf_clear(scratch);
	put(&s, SLICE("GATEWAY_INTERFACE"), SLICE("CGI/1.1"));
	put(&s, SLICE("SERVER_SOFTWARE"), SLICE("forebay"));
	put(&s, SLICE("REQUEST_METHOD"), head_text(h, h->method_text));
	put_path(&s);
	put(&s, SLICE("SERVER_PROTOCOL"), protocol_text(h->version));
	put_server(&s);
	put_client(&s);
	put_certificate(&s);
	put_content(&s);
	for (unsigned i = 0; i < h->field_count && !s.err; i++)
		if (becomes_variable(h, i) && !came_before(h, i))
			put_field(&s, i);
	return s.err;
}
