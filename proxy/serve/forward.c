#include "proxy/serve/forward.h"

#include "core/buf.h"
#include "core/fields.h"
#include "core/http1.h"
#include "proxy/serve/request_id.h"

#define TEXT_MAX     (1u << 20) /* bytes of one composed value */
#define TEXT_FIRST   256        /* of these, bytes on the stack */
#define OWN_REQUEST  384 /* bytes that forebay adds to a request's head, about, but for the authority and the client's address */
#define OWN_RESPONSE 192 /* to a response's */
#define START_BYTES  40

/* What becomes of a field that is passed through; all else is kept. */
enum rule {
	KEEP,
	DROP,      /* hop-by-hop, or written afresh from what the caller knows */
	UNTRUSTED, /* tells of the client: written afresh */
};

static const uint8_t request_rules[FIELD_ID_COUNT] = {
	[FIELD_CONNECTION] = DROP,
	[FIELD_CONTENT_LENGTH] = DROP,
	[FIELD_EXPECT] = DROP,
	[FIELD_FORWARDED] = UNTRUSTED,
	[FIELD_HOST] = DROP,
	[FIELD_HTTP2_SETTINGS] = DROP,
	[FIELD_KEEP_ALIVE] = DROP,
	[FIELD_PROXY] = DROP, /* HTTP_PROXY names a proxy to many a library */
	[FIELD_PROXY_AUTHENTICATE] = DROP,
	[FIELD_PROXY_AUTHORIZATION] = DROP,
	[FIELD_PROXY_CONNECTION] = DROP,
	[FIELD_TE] = DROP,
	[FIELD_TRAILER] = DROP,
	[FIELD_TRANSFER_ENCODING] = DROP,
	[FIELD_UPGRADE] = DROP,
	[FIELD_VIA] = DROP, /* continued */
	[FIELD_X_FORWARDED_FOR] = UNTRUSTED,
	[FIELD_X_FORWARDED_HOST] = UNTRUSTED,
	[FIELD_X_FORWARDED_PROTO] = UNTRUSTED,
	[FIELD_X_REQUEST_ID] = UNTRUSTED,
	[FIELD_X_REQUEST_START] = UNTRUSTED,
};

static const uint8_t response_rules[FIELD_ID_COUNT] = {
	[FIELD_CONNECTION] = DROP,
	[FIELD_CONTENT_LENGTH] = DROP,
	[FIELD_HTTP2_SETTINGS] = DROP,
	[FIELD_KEEP_ALIVE] = DROP,
	[FIELD_PROXY_AUTHENTICATE] = DROP,
	[FIELD_PROXY_AUTHORIZATION] = DROP,
	[FIELD_PROXY_CONNECTION] = DROP,
	[FIELD_TE] = DROP,
	[FIELD_TRAILER] = DROP,
	[FIELD_TRANSFER_ENCODING] = DROP,
	[FIELD_UPGRADE] = DROP,
	[FIELD_X_ACCEL_BUFFERING] = DROP,
};

/* The elements of Connection, found once: fields that are named by one are not passed on (RFC 9110, 7.6.1). */
struct options {
	struct slice list[FORWARD_OPTIONS_MAX];
	size_t count;
	bool overflow; /* there are more */
};

static void options_find(const struct head *in, struct options *ret)
{
	struct slice value, element;

	ret->count = 0;
	ret->overflow = false;
	for (int i = head_find(in, FIELD_CONNECTION, 0); i >= 0; i = head_find(in, FIELD_CONNECTION, (unsigned)i + 1)) {
		value = head_value(in, (unsigned)i);
		while (slice_next_element(&value, &element)) {
			if (ret->count == ARRAY_LEN(ret->list)) {
				ret->overflow = true;
				return;
			}
			ret->list[ret->count++] = element;
		}
	}
}

static bool options_name(const struct options *o, const struct head *in, struct slice name)
{
	if (o->overflow)
		return head_has_element(in, FIELD_CONNECTION, name);
	for (size_t i = 0; i < o->count; i++)
		if (slice_eq_nocase(o->list[i], name))
			return true;
	return false;
}

/* A head in the making, as what it means, as bytes of HTTP/1.1 or as a list of fields. The first error sticks. */
struct build {
	const struct head *in;
	struct head *out;          /* either this */
	struct buf *wire;          /* or this */
	struct forward_list *list; /* or this */
	uint64_t ids;              /* of the fields that are in it: a bit for each enum field_id */
	int err;
	/* the field whose value is being composed: on the wire where it will stand */
	enum field_id id;
	struct slice name;
	struct buf *value;
	size_t value_at, field_at; /* in *value */
	struct buf text;           /* *value for `out` */
	struct options options;
	char first[TEXT_FIRST]; /* for `text` */
};

static_assert(FIELD_ID_COUNT <= 64, "build.ids");

/* Its room is large, and is not cleared. */
static void build_init(struct build *b, struct head *out, struct buf *wire, struct forward_list *list)
{
	b->out = out;
	b->wire = wire;
	b->list = list;
}

static void build_start(struct build *b, const struct head *in, size_t own_bytes)
{
	size_t fields = in->field_count + FORWARD_OWN_FIELDS, bytes = in->text_len + own_bytes;

	b->in = in;
	b->ids = 0;
	b->err = 0;
	buf_init_in(&b->text, b->first, sizeof(b->first), TEXT_MAX);
	b->value = b->wire ? b->wire : &b->text;
	options_find(in, &b->options);
	if (b->out) {
		b->out->version = 11;
		b->err = head_reserve(b->out, bytes, fields);
	} else if (b->wire && bytes + 4 * fields <= b->wire->max - b->wire->len) {
		(void)buf_room(b->wire, bytes + 4 * fields); /* at once, not bit by bit */
	}
}

static int build_end(struct build *b)
{
	buf_done(&b->text);
	if (b->wire) {
		http1_write_end(b->wire);
		if (b->wire->failed && !b->err)
			b->err = -ENOMEM;
	} else if (b->out && b->err) {
		head_done(b->out);
	}
	return b->err;
}

static NEVER_INLINE void add_elsewhere(struct build *b, enum field_id id, struct slice name, struct slice value)
{
	if (b->list)
		b->list->fields[b->list->count++] = (struct forward_field){ name, value, id };
	else if (!b->err)
		b->err = head_add_id(b->out, id, name, value);
}

/* Inline: the names that forebay writes are known where it is called, and are then stores. */
static ALWAYS_INLINE void add(struct build *b, enum field_id id, struct slice name, struct slice value)
{
	b->ids |= 1ull << id;
	if (b->wire)
		http1_write_field(b->wire, name, value);
	else
		add_elsewhere(b, id, name, value);
}

static bool has(const struct build *b, enum field_id id)
{
	return b->ids & 1ull << id;
}

static void put(struct build *b, struct slice text, struct span *ret)
{
	if (!b->err)
		b->err = head_put(b->out, text, ret);
}

static ALWAYS_INLINE void value_begin(struct build *b, enum field_id id, struct slice name)
{
	b->id = id;
	b->name = name;
	if (b->wire) {
		b->field_at = b->wire->len;
		buf_add(b->wire, name);
		buf_add(b->wire, SLICE(": "));
	} else {
		buf_clear(&b->text);
	}
	b->value_at = b->value->len;
}

static size_t value_len(const struct build *b)
{
	return b->value->len - b->value_at;
}

static void value_end(struct build *b)
{
	if (b->wire) {
		buf_add(b->wire, SLICE("\r\n"));
		b->ids |= 1ull << b->id;
	} else if (b->text.failed) {
		b->err = b->err ? b->err : -ENOMEM;
	} else {
		add(b, b->id, b->name, buf_slice(&b->text));
	}
}

/* There is no such field. */
static void value_drop(struct build *b)
{
	if (b->wire)
		b->wire->len = b->field_at;
}

static void add_u64(struct build *b, enum field_id id, struct slice name, uint64_t n)
{
	struct buf digits;

	if (b->list) {
		assert(!b->wire);
		buf_init_in(&digits, b->list->length, sizeof(b->list->length), sizeof(b->list->length));
		buf_u64(&digits, n);
		add(b, id, name, buf_slice(&digits));
		return;
	}
	value_begin(b, id, name);
	buf_u64(b->value, n);
	value_end(b);
}

/* All values of the field as one list, with a comma behind if there are any. */
static void value_list(struct build *b)
{
	for (int i = head_find(b->in, b->id, 0); i >= 0; i = head_find(b->in, b->id, (unsigned)i + 1)) {
		struct slice value = head_value(b->in, (unsigned)i);

		if (value.len == 0)
			continue;
		buf_add(b->value, value);
		buf_add(b->value, SLICE(", "));
	}
}

/* Takes the comma back that is behind the last of a list. False: the list is empty. */
static bool value_list_end(struct build *b)
{
	if (value_len(b) < 2)
		return false;
	b->value->len -= 2;
	return true;
}

static void keep_field(struct build *b, unsigned i)
{
	add(b, b->in->fields[i].id, head_name(b->in, i), head_value(b->in, i));
}

/* The only value of this field, or an empty slice. */
static struct slice only_value(const struct head *in, enum field_id id)
{
	int i = head_find(in, id, 0);

	if (i < 0 || head_find(in, id, (unsigned)i + 1) >= 0)
		return slice_of("", 0);
	return head_value(in, (unsigned)i);
}

/* Requests. */

static bool starts_nocase(struct slice s, struct slice prefix)
{
	return s.len >= prefix.len && slice_eq_nocase(slice_of(s.ptr, prefix.len), prefix);
}

/* What is told of a client's certificate. */
static const struct {
	struct slice name;
	size_t offset; /* in struct tls_peer */
} certificate_fields[] = {
	{ SLICE_INIT("X-Client-Verify"), offsetof(struct tls_peer, verify) },
	{ SLICE_INIT("X-Client-Subject"), offsetof(struct tls_peer, subject) },
	{ SLICE_INIT("X-Client-Issuer"), offsetof(struct tls_peer, issuer) },
	{ SLICE_INIT("X-Client-Serial"), offsetof(struct tls_peer, serial) },
	{ SLICE_INIT("X-Client-Fingerprint"), offsetof(struct tls_peer, fingerprint) },
};

static bool tells_of_certificate(struct slice name)
{
	if (name.len < strlen("X-Client-Verify") || !starts_nocase(name, SLICE("X-Client-")))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(certificate_fields); i++)
		if (slice_eq_nocase(name, certificate_fields[i].name))
			return true;
	return false;
}

/* Those without an id. */
static enum rule rule_by_name(struct slice name, const struct forward_client *client)
{
	if (tells_of_certificate(name))
		return client->tls ? DROP : UNTRUSTED;
	if (memchr(name.ptr, '_', name.len))
		return DROP;
	if (starts_nocase(name, SLICE("X-Forwarded-")) || slice_eq_nocase(name, SLICE("X-Real-IP")))
		return UNTRUSTED;
	return slice_eq_nocase(name, SLICE("Proxy-Authentication-Info")) ? DROP : KEEP;
}

/* One forward less (RFC 9110, 7.6.2). False: not such a field. What is 0 never comes here: forebay answers it. */
static bool count_forward(struct build *b, unsigned i)
{
	enum method m = b->in->method;
	uint64_t left;

	if (b->in->fields[i].id != FIELD_MAX_FORWARDS || (m != METHOD_TRACE && m != METHOD_OPTIONS))
		return false;
	if (!slice_to_u64(head_value(b->in, i), &left) || left == 0)
		return false;
	add_u64(b, FIELD_MAX_FORWARDS, SLICE("Max-Forwards"), left - 1);
	return true;
}

static void pass_request_fields(struct build *b, const struct forward_client *client, bool trusted)
{
	for (unsigned i = 0; i < b->in->field_count; i++) {
		enum field_id id = b->in->fields[i].id;
		struct slice name = head_name(b->in, i);
		enum rule rule = id == FIELD_OTHER ? rule_by_name(name, client) : request_rules[id];

		/* of what has an id, the trusted ones are continued or checked further down */
		if (rule == UNTRUSTED && id == FIELD_OTHER && trusted)
			rule = KEEP;
		if (rule == KEEP && !options_name(&b->options, b->in, name) && !count_forward(b, i))
			keep_field(b, i);
	}
}

/* The target stays as it was received, but in origin-form; an empty path of an absolute-form is "/" (RFC 9112, 3.2.1). */
static void put_target(struct build *b)
{
	const struct head *in = b->in;
	struct head *out = b->out;
	struct slice path = head_text(in, in->path);
	struct span mark;

	put(b, path.len > 0 ? path : SLICE("/"), &out->path);
	out->target = out->path;
	out->has_query = in->has_query;
	if (!in->has_query)
		return;
	put(b, SLICE("?"), &mark);
	put(b, head_text(in, in->query), &out->query);
	out->target.len += 1 + out->query.len; /* what is put lies behind what was put before */
}

static void put_control(struct build *b)
{
	const struct head *in = b->in;
	struct slice path = head_text(in, in->path), query = head_text(in, in->query);

	if (b->wire) {
		http1_write_request_line(
		    b->wire, head_text(in, in->method_text), path.len > 0 ? path : SLICE("/"), in->has_query ? &query : NULL);
		return;
	}
	b->out->method = b->in->method;
	put(b, head_text(b->in, b->in->method_text), &b->out->method_text);
	put(b, head_text(b->in, b->in->scheme), &b->out->scheme);
	put(b, head_text(b->in, b->in->authority), &b->out->authority);
	put_target(b);
}

static void add_request_framing(struct build *b, const struct forward_request *r)
{
	enum method m = b->in->method;

	if (r->chunked)
		add(b, FIELD_TRANSFER_ENCODING, SLICE("Transfer-Encoding"), SLICE("chunked"));
	else if (r->has_body_length)
		add_u64(b, FIELD_CONTENT_LENGTH, SLICE("Content-Length"), r->body_length);
	else if (m == METHOD_POST || m == METHOD_PUT || m == METHOD_PATCH)
		add(b, FIELD_CONTENT_LENGTH, SLICE("Content-Length"), SLICE("0")); /* RFC 9110, 8.6 */
}

/* All Upgrade fields as one; false if there is none. */
static bool add_upgrade(struct build *b)
{
	value_begin(b, FIELD_UPGRADE, SLICE("Upgrade"));
	value_list(b);
	if (!value_list_end(b)) {
		value_drop(b);
		return false;
	}
	value_end(b);
	return true;
}

static void add_request_connection(struct build *b, const struct forward_request *r)
{
	if (r->upgrade && add_upgrade(b))
		add(b, FIELD_CONNECTION, SLICE("Connection"), SLICE("upgrade"));
	else
		add(b, FIELD_CONNECTION, SLICE("Connection"), r->keepalive ? SLICE("keep-alive") : SLICE("close"));
}

static void add_via(struct build *b)
{
	const char version[] = { (char)('0' + b->in->version / 10), '.', (char)('0' + b->in->version % 10) };

	value_begin(b, FIELD_VIA, SLICE("Via"));
	value_list(b);
	buf_add(b->value, slice_of(version, sizeof(version)));
	buf_add(b->value, SLICE(" forebay"));
	value_end(b);
}

/* A Unix socket has no address to add. */
static void add_forwarded_for(struct build *b, struct slice peer, bool trusted)
{
	value_begin(b, FIELD_X_FORWARDED_FOR, SLICE("X-Forwarded-For"));
	if (trusted)
		value_list(b);
	if (peer.len > 0)
		buf_add(b->value, peer);
	else
		(void)value_list_end(b);
	if (value_len(b) > 0 || b->value->failed)
		value_end(b);
	else
		value_drop(b);
}

/* A token as it is, all else as a quoted string (RFC 7239, 4). */
static void text_value(struct build *b, struct slice value)
{
	if (slice_is_token(value)) {
		buf_add(b->value, value);
		return;
	}
	buf_char(b->value, '"');
	for (size_t i = 0; i < value.len; i++) {
		if (value.ptr[i] == '"' || value.ptr[i] == '\\')
			buf_char(b->value, '\\');
		buf_char(b->value, value.ptr[i]);
	}
	buf_char(b->value, '"');
}

/* RFC 7239, 6. */
static void text_node(struct build *b, struct slice address)
{
	bool is_ipv6 = address.len > 0 && memchr(address.ptr, ':', address.len);

	if (is_ipv6)
		buf_add(b->value, SLICE("\"["));
	buf_add(b->value, address.len > 0 ? address : SLICE("unknown"));
	if (is_ipv6)
		buf_add(b->value, SLICE("]\""));
}

static struct slice scheme_of(const struct forward_request *r)
{
	return r->client->secure ? SLICE("https") : SLICE("http");
}

static void add_forwarded(struct build *b, const struct forward_request *r, struct slice peer, bool trusted)
{
	struct slice authority = head_text(b->in, b->in->authority);

	value_begin(b, FIELD_FORWARDED, SLICE("Forwarded"));
	if (trusted)
		value_list(b);
	buf_add(b->value, SLICE("for="));
	text_node(b, peer);
	if (authority.len > 0) {
		buf_add(b->value, SLICE(";host="));
		text_value(b, authority);
	}
	buf_add(b->value, SLICE(";proto="));
	buf_add(b->value, scheme_of(r));
	value_end(b);
}

static void add_forwarded_proto(struct build *b, const struct forward_request *r, bool trusted)
{
	struct slice said = only_value(b->in, FIELD_X_FORWARDED_PROTO);

	if (trusted && (slice_eq_nocase(said, SLICE("https")) || slice_eq_nocase(said, SLICE("http"))))
		add(b, FIELD_X_FORWARDED_PROTO, SLICE("X-Forwarded-Proto"), said);
	else
		add(b, FIELD_X_FORWARDED_PROTO, SLICE("X-Forwarded-Proto"), scheme_of(r));
}

static void add_forwarded_host(struct build *b, bool trusted)
{
	struct slice said = only_value(b->in, FIELD_X_FORWARDED_HOST), authority = head_text(b->in, b->in->authority);

	if (trusted && field_host_ok(said))
		add(b, FIELD_X_FORWARDED_HOST, SLICE("X-Forwarded-Host"), said);
	else if (authority.len > 0)
		add(b, FIELD_X_FORWARDED_HOST, SLICE("X-Forwarded-Host"), authority);
}

struct slice forward_request_id(
    const struct head *in, const struct forward_client *client, const struct conf *conf, const char *fresh)
{
	struct slice said = only_value(in, FIELD_X_REQUEST_ID);

	return request_id_ok(said) && forward_is_trusted(client, conf) ? said : slice_str(fresh);
}

/* "t=1700000000.123", "1700000000123": digits and at most one dot. */
static bool is_request_start(struct slice s)
{
	unsigned dots = 0, digits = 0;

	if (slice_starts(s, SLICE("t=")))
		s = slice_of(s.ptr + 2, s.len - 2);
	for (size_t i = 0; i < s.len; i++) {
		if (s.ptr[i] == '.')
			dots++;
		else if (s.ptr[i] >= '0' && s.ptr[i] <= '9')
			digits++;
		else
			return false;
	}
	return digits > 0 && dots <= 1 && s.len <= START_BYTES;
}

/* With zeros before it. */
static void text_digits(struct build *b, uint64_t n, unsigned digits)
{
	char text[8];

	assert(digits <= sizeof(text));
	for (unsigned i = digits; i > 0; i--, n /= 10)
		text[i - 1] = (char)('0' + n % 10);
	buf_add(b->value, slice_of(text, digits));
}

static void add_request_start(struct build *b, const struct forward_request *r, bool trusted)
{
	struct slice said = only_value(b->in, FIELD_X_REQUEST_START);

	if (trusted && is_request_start(said)) {
		add(b, FIELD_X_REQUEST_START, SLICE("X-Request-Start"), said);
		return;
	}
	value_begin(b, FIELD_X_REQUEST_START, SLICE("X-Request-Start"));
	buf_add(b->value, SLICE("t="));
	buf_u64(b->value, (uint64_t)r->complete_wall_us / 1000000);
	buf_char(b->value, '.');
	text_digits(b, (uint64_t)r->complete_wall_us % 1000000, 6);
	value_end(b);
}

static void add_certificate(struct build *b, const struct tls_peer *peer)
{
	for (size_t i = 0; peer && i < ARRAY_LEN(certificate_fields); i++) {
		const char *const *text = (const void *)((const char *)peer + certificate_fields[i].offset);

		if (**text)
			add(b, FIELD_OTHER, certificate_fields[i].name, slice_str(*text));
	}
}

static int build_request(struct build *b, const struct head *in, const struct forward_request *r)
{
	bool trusted = forward_is_trusted(r->client, r->conf);
	struct slice peer = forward_peer_address(r->client);

	build_start(b, in, OWN_REQUEST + 2 * (in->authority.len + peer.len));
	if (b->options.overflow)
		b->err = -EINVAL;
	put_control(b);
	add(b, FIELD_HOST, SLICE("Host"), head_text(in, in->authority)); /* first (RFC 9110, 7.2) */
	pass_request_fields(b, r->client, trusted);
	add_request_framing(b, r);
	add_request_connection(b, r);
	add_via(b);
	add_forwarded_for(b, peer, trusted);
	add_forwarded_proto(b, r, trusted);
	add_certificate(b, r->client->tls);
	add_forwarded_host(b, trusted);
	add_forwarded(b, r, peer, trusted);
	add(b, FIELD_X_REQUEST_ID, SLICE("X-Request-Id"), r->request_id);
	add_request_start(b, r, trusted);
	return build_end(b);
}

int forward_request_head(const struct head *in, const struct forward_request *r, struct head *ret)
{
	struct build b;

	build_init(&b, ret, NULL, NULL);
	return build_request(&b, in, r);
}

int forward_request_wire(const struct head *in, const struct forward_request *r, struct buf *out)
{
	struct build b;

	build_init(&b, NULL, out, NULL);
	return build_request(&b, in, r);
}

/* Responses. */

static void pass_response_fields(struct build *b, const struct forward_response *r)
{
	for (unsigned i = 0; i < b->in->field_count; i++) {
		enum field_id id = b->in->fields[i].id;
		struct slice name = head_name(b->in, i);

		if (response_rules[id] == DROP || options_name(&b->options, b->in, name))
			continue;
		if (id == FIELD_X_REQUEST_ID && r->request_id.len > 0)
			continue;
		if (id == FIELD_OTHER && slice_eq_nocase(name, SLICE("Proxy-Authentication-Info")))
			continue;
		keep_field(b, i);
	}
}

static void add_response_framing(struct build *b, const struct forward_response *r)
{
	if (b->in->status < 200 || b->in->status == 204) /* RFC 9110, 8.6; RFC 9112, 6.1 */
		return;
	if (r->chunked)
		add(b, FIELD_TRANSFER_ENCODING, SLICE("Transfer-Encoding"), SLICE("chunked"));
	else if (r->has_length)
		add_u64(b, FIELD_CONTENT_LENGTH, SLICE("Content-Length"), r->length);
}

static void add_response_connection(struct build *b, const struct forward_response *r)
{
	bool upgrade = (r->upgrade || b->in->status == 426) && r->client_version == 11 && add_upgrade(b);

	if (r->client_version == 20)
		return;
	if (r->close && upgrade)
		add(b, FIELD_CONNECTION, SLICE("Connection"), SLICE("upgrade, close"));
	else if (r->close)
		add(b, FIELD_CONNECTION, SLICE("Connection"), SLICE("close"));
	else if (upgrade)
		add(b, FIELD_CONNECTION, SLICE("Connection"), SLICE("upgrade"));
	else if (r->keep_alive_1_0)
		add(b, FIELD_CONNECTION, SLICE("Connection"), SLICE("keep-alive"));
}

static void add_own_fields(struct build *b, const struct forward_response *r)
{
	if (b->in->status < 200)
		return;
	if (r->date.len > 0 && !has(b, FIELD_DATE))
		add(b, FIELD_DATE, SLICE("Date"), r->date);
	if (!has(b, FIELD_SERVER))
		add(b, FIELD_SERVER, SLICE("Server"), SLICE("forebay"));
	if (r->request_id.len > 0)
		add(b, FIELD_X_REQUEST_ID, SLICE("X-Request-Id"), r->request_id);
}

static int build_response(struct build *b, const struct head *in, const struct forward_response *r)
{
	build_start(b, in, OWN_RESPONSE);
	if (b->wire)
		http1_write_status_line(b->wire, in->status, head_text(in, in->reason));
	pass_response_fields(b, r);
	add_response_framing(b, r);
	add_response_connection(b, r);
	add_own_fields(b, r);
	return build_end(b);
}

int forward_response_wire(const struct head *in, const struct forward_response *r, struct buf *out)
{
	struct build b;

	build_init(&b, NULL, out, NULL);
	return build_response(&b, in, r);
}

void forward_response_list(const struct head *in, const struct forward_response *r, struct forward_list *ret)
{
	struct build b;
	int err;

	assert(r->client_version == 20 && !r->chunked);
	ret->count = 0;
	build_init(&b, NULL, NULL, ret);
	err = build_response(&b, in, r);
	assert(!err); /* nothing is allocated */
	assert(ret->count <= (size_t)in->field_count + FORWARD_OWN_FIELDS);
}
