/*
 * http1: HTTP/1.1 message syntax (RFC 9112), for requests and for workers' responses. Strict: what the RFC calls invalid is an
 * error, never repaired.
 * Pure: slices in, no socket, clock, log or allocation but the head's.
 */
#ifndef FOREBAY_CORE_HTTP1_H
#define FOREBAY_CORE_HTTP1_H

#include "core/buf.h"
#include "core/head.h"

/* Each error has one status and one sentence; a row per value in http1.c. */
enum http1_result {
	HTTP1_OK,
	HTTP1_MORE,                      /* nothing wrong so far, but not all there */
	HTTP1_BAD_LINE_END,              /* bare CR or LF, 400 (RFC 9112, 2.2) */
	HTTP1_BAD_BYTE,                  /* NUL or other control, 400 */
	HTTP1_BAD_REQUEST_LINE,          /* 400 */
	HTTP1_BAD_METHOD,                /* not a token, 400 */
	HTTP1_BAD_TARGET,                /* 400 */
	HTTP1_BAD_VERSION,               /* not HTTP/x.y at all, 400 */
	HTTP1_VERSION_NOT_SUPPORTED,     /* HTTP/2.0 in an HTTP/1 request line, HTTP/0.9, 505 */
	HTTP1_TARGET_TOO_LONG,           /* 414 */
	HTTP1_HEAD_TOO_LARGE,            /* bytes or number of fields, 431 */
	HTTP1_BAD_FIELD_NAME,            /* also whitespace before the colon, no colon, an empty name; 400 */
	HTTP1_BAD_FIELD_VALUE,           /* 400 */
	HTTP1_OBS_FOLD,                  /* 400 (RFC 9112, 5.2) */
	HTTP1_BAD_HOST,                  /* missing in HTTP/1.1, twice, not a host; 400 (RFC 9112, 3.2) */
	HTTP1_HOST_DIFFERS,              /* never for absolute-form, where Host is ignored (RFC 9112, 3.2.2); for HTTP/2 */
	HTTP1_BAD_CONTENT_LENGTH,        /* not a number, a list, too large, differing; 400 */
	HTTP1_LENGTH_AND_CHUNKED,        /* both; 400 */
	HTTP1_BAD_TRANSFER_ENCODING,     /* chunked not last, twice, or in HTTP/1.0; 400 */
	HTTP1_UNKNOWN_TRANSFER_ENCODING, /* anything but chunked; 501 */
	HTTP1_BAD_EXPECT,                /* not 100-continue; 417 */
	HTTP1_CONNECT_REFUSED,           /* 501 */
	HTTP1_BAD_CHUNK,                 /* size line or data end; 400 */
	HTTP1_CHUNK_EXTENSION_TOO_LONG,  /* 400 */
	HTTP1_CHUNK_TOO_LARGE,           /* size overflows; 400 */
	HTTP1_BAD_TRAILER,               /* 400 */
	HTTP1_BAD_STATUS_LINE,           /* a response's */
	HTTP1_NO_MEMORY,                 /* 503 */
	HTTP1_RESULT_COUNT,
};

/* 0 for HTTP1_OK and HTTP1_MORE. */
unsigned http1_status(enum http1_result r);

/* A lower-case phrase for the log and the error page: "bare LF in the request head". */
const char *http1_reason(enum http1_result r);

struct http1_limits {
	size_t head_max_bytes; /* whole head, line ends included */
	size_t line_max_bytes; /* the first line; beyond: 414 */
	unsigned fields_max;
};

/* Where the end of a head was looked for. All zero to begin. */
struct http1_scan {
	uint32_t seen;       /* bytes that need no second look */
	uint32_t line_start; /* of the line being read */
	uint16_t lines;      /* whole lines so far, the first included */
	uint8_t blank;       /* empty lines skipped before a request line (at most one, RFC 9112, 2.2) */
};

/*
 * Looks for the end of the head that starts at bytes.ptr, from where the last call left off; `bytes` is all that has come
 * so far and may have moved. HTTP1_OK: *ret_len is the head's length, its empty line included (leading empty line too).
 * Refuses bad line ends, control bytes and what is over a limit as soon as they are seen, with SIMD where the compiler has it.
 */
enum http1_result http1_scan(struct http1_scan *s, struct slice bytes, const struct http1_limits *limits, size_t *ret_len);

/* The same without SIMD: what the other must agree with. */
enum http1_result http1_scan_plain(
    struct http1_scan *s, struct slice bytes, const struct http1_limits *limits, size_t *ret_len);

enum http1_framing {
	FRAMING_NONE, /* no content */
	FRAMING_LENGTH,
	FRAMING_CHUNKED,
	FRAMING_CLOSE,  /* a response that ends with its connection */
	FRAMING_TUNNEL, /* 101: no HTTP any more */
};

struct http1_message {
	enum http1_framing framing;
	uint64_t
	    length; /* with FRAMING_LENGTH (a request's 0 is FRAMING_NONE with has_length); and of a response to HEAD as said */
	bool has_length;      /* a Content-Length was there */
	bool keep_alive;      /* the connection may serve another message (RFC 9112, 9.3) */
	bool expect_continue; /* HTTP/1.1 only */
	bool upgrade;         /* Connection has `upgrade` and there is an Upgrade field; HTTP/1.1 only */
};

/*
 * Parses a whole request head, as http1_scan measured it, into an empty head (left empty on error; room that was reserved in
 * it is used) and checks all that RFC 9112 asks of a recipient: request line, fields, Host, framing. Authority, path and query
 * are set for origin-form, absolute-form and asterisk-form.
 */
enum http1_result http1_request(struct slice text, struct head *ret, struct http1_message *ret_message);

/* A whole response head. `request_method` decides on content (RFC 9112, 6.3). 1xx but 101: framing NONE. */
enum http1_result http1_response(
    struct slice text, enum method request_method, struct head *ret, struct http1_message *ret_message);

/* Chunked content (RFC 9112, 7.1). All zero to begin. */
struct chunked {
	uint64_t left;             /* bytes of the chunk at hand; 0 until its size line is whole */
	uint64_t size;             /* of the size line being read */
	uint64_t extensions_total; /* bytes, over all chunks */
	uint32_t line_bytes;       /* of the trailer section so far */
	uint32_t trailer_fields;
	uint16_t extension_bytes; /* of the chunk at hand */
	uint8_t digits;
	uint8_t state; /* chunked.c's */
};

#define CHUNKED_DIGITS_MAX         16          /* of a chunk's size, leading zeros included */
#define CHUNKED_EXTENSION_MAX      1024        /* bytes, a chunk, its ';' included */
#define CHUNKED_EXTENSIONS_MAX     (64u << 10) /* bytes, a message */
#define CHUNKED_TRAILER_MAX        (16u << 10) /* bytes, the section */
#define CHUNKED_TRAILER_FIELDS_MAX 100

/*
 * Decodes as far as the next piece of content: *in moves on. HTTP1_MORE with a non-empty *ret_data: content, call again;
 * with an empty one: all of *in was used, more is needed. HTTP1_OK: the message's end, trailers passed over; what is left in
 * *in does not belong to it. Else an error.
 */
enum http1_result chunked_decode(struct chunked *c, struct slice *in, struct slice *ret_data);

/* Bytes that are certain to be content of the current chunk, so that they may be read past the decoder; then say so. */
static inline uint64_t chunked_data_left(const struct chunked *c)
{
	return c->left;
}
void chunked_skip(struct chunked *c, uint64_t n);

/*
 * Writing a head, piece by piece: its first line, its fields, the empty line. What is written must have been checked (fields.h). Each piece goes
 * in whole, or sets out->failed.
 */

/* `query` NULL: there is none. */
void http1_write_request_line(struct buf *out, struct slice method, struct slice path, const struct slice *query);

/* An empty reason: the usual one. */
void http1_write_status_line(struct buf *out, unsigned status, struct slice reason);

static inline void http1_write_field(struct buf *out, struct slice name, struct slice value)
{
	size_t len = name.len + value.len + 4;
	char *to = len <= out->size - out->len ? out->ptr + out->len : buf_room(out, len);

	if (!to)
		return;
	memcpy(to, name.ptr, name.len);
	to += name.len;
	*to++ = ':';
	*to++ = ' ';
	if (value.len > 0) /* else it may be NULL */
		memcpy(to, value.ptr, value.len);
	to += value.len;
	*to++ = '\r';
	*to = '\n';
	out->len += len;
}

static inline void http1_write_end(struct buf *out)
{
	buf_add(out, SLICE("\r\n"));
}

#endif
