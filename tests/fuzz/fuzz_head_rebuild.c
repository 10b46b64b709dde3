/*
 * A request as a worker gets it, a response as a client gets it: whatever came in, what goes out is one unambiguous head with the framing
 * that was asked for; and rebuilt from that it is the same once more: a fixed point, but for what every hop adds or counts.
 *
 * The first byte says what the rest is and how it is passed on (see bits below), the second the method that a response answers.
 */
#include <arpa/inet.h>
#include <stdlib.h>

#include "core/fields.h"
#include "core/http1.h"
#include "proxy/serve/forward.h"
#include "tests/fuzz/must.h"

#define TEXT_MAX (4u << 20)

enum how {
	HOW_RESPONSE = 1,
	HOW_LENGTH = 2,
	HOW_CHUNKED = 4,
	HOW_UPGRADE = 8,
	HOW_KEEP = 16,
	HOW_TRUSTED = 32,
	HOW_IPV6 = 64,
	HOW_HTTP10 = 128
};

#define BODY_BYTES 12345

static struct conf conf; /* trusts 10.0.0.0/8 and ::1 */
static struct conf_network networks[] = {
	{ .family_bytes = 4, .prefix_bits = 8, .bytes = { 10 } },
	{ .family_bytes = 16, .prefix_bits = 128, .bytes = { [15] = 1 } },
};

static const union {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
} peers[] = {
	{ .in4 = { .sin_family = AF_INET, .sin_addr.s_addr = 0x010200c0 } },
	{ .in4 = { .sin_family = AF_INET, .sin_addr.s_addr = 0x0100000a } },
	{ .in6 = { .sin6_family = AF_INET6, .sin6_addr.s6_addr = { 0x20, 1, 0xd, 0xb8, [15] = 1 } } },
	{ .in6 = { .sin6_family = AF_INET6, .sin6_addr.s6_addr = { [15] = 1 } } },
};

static unsigned count(const struct head *h, enum field_id id)
{
	unsigned n = 0;

	for (int i = head_find(h, id, 0); i >= 0; i = head_find(h, id, (unsigned)i + 1))
		n++;
	return n;
}

static void check_fields(const struct head *h)
{
	for (unsigned i = 0; i < h->field_count; i++)
		must(field_name_ok(head_name(h, i)) && field_value_ok(head_value(h, i)));
	must(count(h, FIELD_CONTENT_LENGTH) + count(h, FIELD_TRANSFER_ENCODING) <= 1);
	must(count(h, FIELD_CONNECTION) <= 1 && count(h, FIELD_UPGRADE) <= 1);
	must(count(h, FIELD_TE) + count(h, FIELD_TRAILER) + count(h, FIELD_KEEP_ALIVE) + count(h, FIELD_PROXY_CONNECTION) == 0);
	must(count(h, FIELD_HTTP2_SETTINGS) + count(h, FIELD_PROXY_AUTHORIZATION) + count(h, FIELD_PROXY_AUTHENTICATE) == 0);
}

/* Both forms say the same. */
static void must_be_the_fields_of(const struct head *built, const struct head *parsed)
{
	must(built->field_count == parsed->field_count);
	for (unsigned i = 0; i < built->field_count; i++)
		must(slice_eq(head_name(built, i), head_name(parsed, i)) &&
		     slice_eq(head_value(built, i), head_value(parsed, i)) && built->fields[i].id == parsed->fields[i].id);
}

/* So do a response's fields for HTTP/2, and its bytes. */
static void must_be_listed(const struct head *in, const struct forward_response *f, enum method method)
{
	struct forward_response as_list = *f;
	struct forward_list list;
	struct http1_message m;
	struct head parsed;
	struct buf text;

	as_list.client_version = 20;
	as_list.chunked = false;
	buf_init(&text, TEXT_MAX);
	head_init(&parsed);
	list.fields = malloc((in->field_count + FORWARD_OWN_FIELDS) * sizeof(*list.fields));
	must(list.fields && forward_response_wire(in, &as_list, &text) == 0);
	must(http1_response(buf_slice(&text), method, &parsed, &m) == HTTP1_OK);
	forward_response_list(in, &as_list, &list);
	must(list.count == parsed.field_count);
	for (unsigned i = 0; i < list.count; i++)
		must(slice_eq(list.fields[i].name, head_name(&parsed, i)) &&
		     slice_eq(list.fields[i].value, head_value(&parsed, i)) && list.fields[i].id == parsed.fields[i].id);
	free(list.fields);
	head_done(&parsed);
	buf_done(&text);
}

/* Built as bytes, and these parsed: *ret is what the other side sees. What the request's builder says if it refuses. */
static int forward_request(
    const struct head *in, const struct forward_request *r, struct head *ret, struct http1_message *ret_m)
{
	struct head built;
	struct buf text;
	int err;

	head_init(&built);
	buf_init(&text, TEXT_MAX);
	err = forward_request_wire(in, r, &text);
	must(forward_request_head(in, r, &built) == err);
	/* An empty Host is what forebay sends for a client that named none, and takes from nobody. */
	if (!err && in->authority.len > 0) {
		must(http1_request(buf_slice(&text), ret, ret_m) == HTTP1_OK);
		must_be_the_fields_of(&built, ret);
		must(slice_eq(head_text(&built, built.target), head_text(ret, ret->target)));
	}
	buf_done(&text);
	head_done(&built);
	return err;
}

static void forward_response(
    const struct head *in, const struct forward_response *f, enum method method, struct head *ret, struct http1_message *ret_m)
{
	struct buf text;

	buf_init(&text, TEXT_MAX);
	must(forward_response_wire(in, f, &text) == 0);
	must(http1_response(buf_slice(&text), method, ret, ret_m) == HTTP1_OK);
	must_be_listed(in, f, method);
	buf_done(&text);
}

/* Field by field, but for those of `hop`. */
static void must_be_same(const struct head *a, const struct head *b, bool (*hop)(enum field_id id, bool trusted), bool trusted)
{
	must(a->field_count == b->field_count);
	for (unsigned i = 0; i < a->field_count; i++) {
		must(slice_eq(head_name(a, i), head_name(b, i)));
		if (a->fields[i].id == FIELD_MAX_FORWARDS && hop)
			continue;
		if (hop && hop(a->fields[i].id, trusted))
			must(slice_starts(head_value(b, i), head_value(a, i)) && head_value(b, i).len > head_value(a, i).len);
		else
			must(slice_eq(head_value(a, i), head_value(b, i)));
	}
}

/* ---- requests ---- */

/* Those that each hop continues: what was there is how it begins. */
static bool grows_by_hop(enum field_id id, bool trusted)
{
	return id == FIELD_VIA || (trusted && (id == FIELD_X_FORWARDED_FOR || id == FIELD_FORWARDED));
}

static bool is_own(struct slice name)
{
	static const struct slice own[] = {
		SLICE_INIT("X-Forwarded-For"),
		SLICE_INIT("X-Forwarded-Proto"),
		SLICE_INIT("X-Forwarded-Host"),
	};

	for (size_t i = 0; i < ARRAY_LEN(own); i++)
		if (slice_eq_nocase(name, own[i]))
			return true;
	return false;
}

/* Of what tells who the client is, nothing is the client's own word; no name can be taken for another by CGI. */
static void check_untrusted(const struct head *h, const struct forward_request *r)
{
	for (unsigned i = 0; i < h->field_count; i++) {
		struct slice name = head_name(h, i);

		must(!memchr(name.ptr, '_', name.len) && !slice_eq_nocase(name, SLICE("X-Real-IP")));
		if (name.len >= 12 && slice_eq_nocase(slice_of(name.ptr, 12), SLICE("X-Forwarded-")))
			must(is_own(name));
	}
	must(slice_eq(head_get(h, FIELD_X_FORWARDED_FOR), slice_str(r->client->peer_address)));
	must(slice_eq(head_get(h, FIELD_X_REQUEST_ID), r->request_id));
}

static void check_request(
    const struct head *in, const struct head *h, const struct http1_message *m, const struct forward_request *r)
{
	bool empty = in->method == METHOD_POST || in->method == METHOD_PUT || in->method == METHOD_PATCH;

	check_fields(h);
	must(h->fields[0].id == FIELD_HOST && count(h, FIELD_HOST) == 1 && count(h, FIELD_VIA) == 1);
	must(count(h, FIELD_X_REQUEST_ID) == 1 && count(h, FIELD_X_REQUEST_START) == 1 && count(h, FIELD_FORWARDED) == 1);
	must(count(h, FIELD_X_FORWARDED_FOR) == 1 && count(h, FIELD_X_FORWARDED_PROTO) == 1);
	must(count(h, FIELD_EXPECT) == 0 && count(h, FIELD_PROXY) == 0);
	must(slice_eq(head_text(h, h->method_text), head_text(in, in->method_text)));
	must(slice_eq(head_text(h, h->path), head_text(in, in->path)) &&
	     slice_eq(head_text(h, h->query), head_text(in, in->query)));
	must(m->upgrade == (r->upgrade && count(in, FIELD_UPGRADE) > 0 && count(h, FIELD_UPGRADE) == 1));
	must(m->keep_alive == (r->keepalive || m->upgrade));
	if (r->chunked)
		must(m->framing == FRAMING_CHUNKED);
	else if (r->has_body_length)
		must(m->framing == FRAMING_LENGTH && m->length == r->body_length);
	else
		must(m->framing == FRAMING_NONE && m->has_length == empty);
	if (!forward_is_trusted(r->client, r->conf))
		check_untrusted(h, r);
}

/* Rebuilt from what the worker sees. */
static void rebuild_request(const struct head *h, const struct http1_message *m, const struct forward_request *first)
{
	struct forward_request r = *first;
	struct http1_message again_m;
	struct head again;

	r.upgrade = m->upgrade;
	r.request_id = forward_request_id(h, r.client, r.conf, "id-1");
	head_init(&again);
	must(forward_request(h, &r, &again, &again_m) == 0);
	must_be_same(h, &again, grows_by_hop, forward_is_trusted(r.client, r.conf));
	must(again_m.framing == m->framing && again_m.length == m->length && again_m.keep_alive == m->keep_alive);
	must(slice_eq(head_text(h, h->target), head_text(&again, again.target)));
	head_done(&again);
}

static void check_client_address(const struct head *in, const struct forward_client *client)
{
	char text[INET6_ADDRSTRLEN];
	unsigned char bytes[16];

	must(forward_client_address(in, client, &conf, text, sizeof(text)) == 0);
	must(inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1);
}

/* It is answered here (RFC 9110, 7.6.2). */
static bool is_last_hop(const struct head *in)
{
	uint64_t left;

	return (in->method == METHOD_OPTIONS || in->method == METHOD_TRACE) &&
	       slice_to_u64(head_get(in, FIELD_MAX_FORWARDS), &left) && left <= 1;
}

static void try_request(struct slice bytes, unsigned how)
{
	unsigned peer = ((how & HOW_TRUSTED) ? 1 : 0) + ((how & HOW_IPV6) ? 2 : 0);
	static const char *const addresses[] = { "192.0.2.1", "10.0.0.1", "2001:db8::1", "::1" };
	const struct forward_client client = {
		.peer_address = addresses[peer], .peer = &peers[peer].any, .secure = how & HOW_CHUNKED
	};
	struct forward_request r = { .client = &client,
		.conf = &conf,
		.complete_wall_us = 1700000000000001,
		.body_length = BODY_BYTES,
		.has_body_length = how & HOW_LENGTH,
		.chunked = (how & HOW_CHUNKED) && !(how & HOW_LENGTH),
		.keepalive = how & HOW_KEEP };
	struct http1_message m, out_m;
	struct head in, seen;
	int err;

	head_init(&in);
	head_init(&seen);
	if (http1_request(bytes, &in, &m) != HTTP1_OK)
		return;
	check_client_address(&in, &client);
	r.upgrade = m.upgrade && (how & HOW_UPGRADE) && !(how & (HOW_LENGTH | HOW_CHUNKED));
	r.request_id = forward_request_id(&in, r.client, r.conf, "id-1");
	err = is_last_hop(&in) ? -EINVAL : forward_request(&in, &r, &seen, &out_m);
	must(err == 0 || err == -EINVAL);
	if (!err && in.authority.len > 0) {
		check_request(&in, &seen, &out_m, &r);
		rebuild_request(&seen, &out_m, &r);
	}
	head_done(&in);
	head_done(&seen);
}

/* ---- responses ---- */

/* As http1_respond decides it. */
static struct forward_response response_plan(
    const struct head *h, const struct http1_message *m, enum method method, unsigned how)
{
	bool http10 = how & HOW_HTTP10, none = method == METHOD_HEAD || h->status < 200 || h->status == 204 || h->status == 304;
	struct forward_response f = {
		.client_version = http10 ? 10 : 11,
		.request_id = (how & HOW_TRUSTED) ? SLICE("id-1") : slice_of("", 0),
		.upgrade = h->status == 101,
		.date = SLICE("Tue, 14 Nov 2023 22:13:20 GMT"),
		.has_length = m->has_length && h->status != 101 && h->status >= 200 && h->status != 204,
		.length = m->length,
	};

	f.chunked = !f.has_length && !none && !http10;
	f.close = !(how & HOW_KEEP) && !f.upgrade;
	f.keep_alive_1_0 = (how & HOW_KEEP) && http10;
	return f;
}

static void check_response(const struct head *in, const struct head *h, const struct http1_message *m,
    const struct forward_response *f, enum method method)
{
	check_fields(h);
	must(h->version == 11 && h->status == in->status);
	if (in->reason.len > 0) /* else the usual one is written */
		must(slice_eq(head_text(h, h->reason), head_text(in, in->reason)));
	must(count(h, FIELD_X_ACCEL_BUFFERING) == 0);
	must(m->has_length == f->has_length && (!f->has_length || m->length == f->length));
	must((count(h, FIELD_TRANSFER_ENCODING) == 1) == f->chunked);
	if (f->chunked)
		must(m->framing == FRAMING_CHUNKED);
	if (method == METHOD_HEAD && h->status != 101)
		must(m->framing == FRAMING_NONE);
	if (h->status >= 200)
		must(count(h, FIELD_SERVER) > 0 && count(h, FIELD_DATE) > 0);
	if (h->status >= 200 && f->request_id.len > 0)
		must(count(h, FIELD_X_REQUEST_ID) == 1 && slice_eq(head_get(h, FIELD_X_REQUEST_ID), f->request_id));
	if (f->close && h->status >= 200)
		must(!m->keep_alive);
}

static bool has_field(const struct head *h, struct slice name, struct slice value)
{
	for (unsigned i = 0; i < h->field_count; i++)
		if (slice_eq(head_name(h, i), name) && slice_eq(head_value(h, i), value))
			return true;
	return false;
}

/* What a client saw, passed on once more. What forebay adds at the end, it keeps in its place the next time: hence the order may differ. */
static void rebuild_response(const struct head *h, const struct http1_message *m, const struct forward_response *f,
    enum method method, struct head *ret, bool in_order)
{
	struct http1_message again_m;

	forward_response(h, f, method, ret, &again_m);
	must(ret->field_count == h->field_count);
	for (unsigned i = 0; i < h->field_count; i++)
		must(has_field(ret, head_name(h, i), head_value(h, i)));
	if (in_order)
		must_be_same(h, ret, NULL, false);
	must(again_m.framing == m->framing && again_m.length == m->length && again_m.keep_alive == m->keep_alive);
}

static void try_response(struct slice bytes, enum method method, unsigned how)
{
	struct head in, seen, again, third;
	struct http1_message m, out_m;
	struct forward_response f;

	head_init(&in);
	head_init(&seen);
	head_init(&again);
	head_init(&third);
	if (http1_response(bytes, method, &in, &m) != HTTP1_OK)
		return;
	f = response_plan(&in, &m, method, how);
	forward_response(&in, &f, method, &seen, &out_m);
	check_response(&in, &seen, &out_m, &f, method);
	rebuild_response(&seen, &out_m, &f, method, &again, false);
	rebuild_response(&again, &out_m, &f, method, &third, true);
	head_done(&in);
	head_done(&seen);
	head_done(&again);
	head_done(&third);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice bytes;

	if (size < 2)
		return 0;
	conf.daemon.trusted = networks;
	conf.daemon.trusted_count = ARRAY_LEN(networks);
	bytes = slice_of((const char *)data + 2, size - 2);
	if (data[0] & HOW_RESPONSE)
		try_response(
		    bytes, data[1] % METHOD_CONNECT, data[0]); /* that and what is behind it have no other rules that matter */
	else
		try_request(bytes, data[0]);
	return 0;
}
