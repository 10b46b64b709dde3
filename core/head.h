/*
 * head: a message's control data and fields, the one form that every protocol reads from and writes to.
 * Owns:   one block of memory with its fields and its text; all text is kept as spans into it, so a head may be moved.
 * Never:  checks meaning; what is put in must have been checked (fields.h) by whoever puts it in.
 */
#ifndef FOREBAY_CORE_HEAD_H
#define FOREBAY_CORE_HEAD_H

#include "core/slice.h"

enum method {
	METHOD_OTHER, /* any other token: method_text has it */
	METHOD_GET,
	METHOD_HEAD,
	METHOD_POST,
	METHOD_PUT,
	METHOD_DELETE,
	METHOD_OPTIONS,
	METHOD_TRACE,
	METHOD_CONNECT,
	METHOD_PATCH,
	METHOD_COUNT,
};

/* Field names that somebody in forebay looks at; found once, when a field is added. */
enum field_id {
	FIELD_OTHER,
	FIELD_ACCEPT,
	FIELD_CONNECTION,
	FIELD_CONTENT_LENGTH,
	FIELD_CONTENT_TYPE,
	FIELD_COOKIE,
	FIELD_DATE,
	FIELD_EXPECT,
	FIELD_FORWARDED,
	FIELD_HOST,
	FIELD_HTTP2_SETTINGS,
	FIELD_KEEP_ALIVE,
	FIELD_MAX_FORWARDS,
	FIELD_PROXY,
	FIELD_PROXY_AUTHENTICATE,
	FIELD_PROXY_AUTHORIZATION,
	FIELD_PROXY_CONNECTION,
	FIELD_REFERER,
	FIELD_RETRY_AFTER,
	FIELD_SERVER,
	FIELD_TE,
	FIELD_TRAILER,
	FIELD_TRANSFER_ENCODING,
	FIELD_UPGRADE,
	FIELD_USER_AGENT,
	FIELD_VIA,
	FIELD_X_ACCEL_BUFFERING,
	FIELD_X_FORWARDED_FOR,
	FIELD_X_FORWARDED_HOST,
	FIELD_X_FORWARDED_PROTO,
	FIELD_X_REQUEST_ID,
	FIELD_X_REQUEST_START,
	FIELD_ID_COUNT,
};

struct span {
	uint32_t at, len; /* bytes, in head.text */
};

struct field {
	struct span name, value;
	uint8_t id; /* enum field_id */
};

struct head {
	char *text;
	uint32_t text_len, text_size;
	struct field *fields;
	uint16_t field_count, field_size;
	uint64_t ids; /* of its fields: a bit for each enum field_id */
	/* a request's */
	uint8_t method; /* enum method */
	struct span method_text;
	struct span target;    /* as received */
	struct span scheme;    /* of an absolute-form target or :scheme; else empty */
	struct span authority; /* host[:port]: the absolute-form's or else the Host field's; may be empty (HTTP/1.0) */
	struct span path;      /* from the first '/', without the query; "*" for OPTIONS * */
	struct span query;     /* behind '?', without it */
	bool has_query;
	/* a response's */
	uint16_t status;
	struct span reason;
	/* both */
	uint8_t version; /* 10 or 11 (HTTP/1.x), 20 */
};

/* Empty, without memory. */
void head_init(struct head *h);
void head_done(struct head *h);

/* Makes room for what is known to come; 0 or -ENOMEM. Optional. */
MUST_USE int head_reserve(struct head *h, size_t text_bytes, size_t fields);

/* Memory that the head holds, in bytes: what is charged for it. */
size_t head_memory(const struct head *h);

/*
 * Copies the text in, which must not be this head's own: the block may move. 0, -ENOMEM, or -E2BIG (65,535 fields, 16M of
 * text); nothing has changed on failure.
 */
MUST_USE int head_add(struct head *h, struct slice name, struct slice value);
MUST_USE int head_put(struct head *h, struct slice text, struct span *ret);

/* The same of a name whose id is known. */
MUST_USE int head_add_id(struct head *h, enum field_id id, struct slice name, struct slice value);

/* A field whose text is in the head already. */
MUST_USE int head_add_spans(struct head *h, struct span name, struct span value);

static inline struct slice head_text(const struct head *h, struct span s)
{
	return (struct slice){ s.len ? h->text + s.at : "", s.len };
}
static inline struct slice head_name(const struct head *h, unsigned i)
{
	return head_text(h, h->fields[i].name);
}
static inline struct slice head_value(const struct head *h, unsigned i)
{
	return head_text(h, h->fields[i].value);
}

/* The first field with this id at or after index `from`; -1: none. id is not FIELD_OTHER. */
int head_find(const struct head *h, enum field_id id, unsigned from);

/* The value of the first, or an empty slice. */
struct slice head_get(const struct head *h, enum field_id id);

/* True if any field of this id has this list element (RFC 9110, 5.6.1), case-insensitively. */
bool head_has_element(const struct head *h, enum field_id id, struct slice element);

/* Idempotent by RFC 9110, 9.2.2. METHOD_OTHER is not. */
bool method_is_idempotent(enum method m);
enum method method_from(struct slice text);

/* The id of a field name, in any case. The name is a token: of another text it may say anything. */
enum field_id field_id_from(struct slice name);

/* It speaks of one connection or of how a message is framed on it (RFC 9110, 7.6.1): never passed on. Content-Length is none of these. */
bool field_is_of_connection(enum field_id id);

/* The name in lower case; "" for FIELD_OTHER. */
struct slice field_id_name(enum field_id id);

/* The standard reason phrase, or "" for an unknown status. */
struct slice status_reason(unsigned status);

#endif
