/*
 * http2_fields: the fields of one HTTP/2 request, or of its trailers, checked one by one as HPACK gives them (RFC 9113, 8.2 and 8.3) and
 * made into the head that all protocols share. What could mean something else once it is written as HTTP/1.1 is refused.
 * Owns:   the head in the making.
 * Never:  trusts the library to have looked; goes over its limits, whatever comes.
 * Pure but for the head's allocation.
 */
#ifndef FOREBAY_PROXY_HTTP2_FIELDS_H
#define FOREBAY_PROXY_HTTP2_FIELDS_H

#include "core/buf.h"
#include "core/http1.h"

#define HTTP2_FIELD_OVERHEAD 32 /* bytes that a field counts beside its text (RFC 9113, 6.5.2) */

struct http2_fields {
	struct head head;
	struct buf cookie;     /* its crumbs, joined (RFC 9113, 8.2.3) */
	struct span protocol;  /* :protocol (RFC 8441) */
	struct span priority;  /* RFC 9218 */
	const char *malformed; /* the first thing that was wrong: a literal */
	uint64_t bytes;        /* all that came, also what is not kept */
	uint64_t bytes_max;
	unsigned count, count_max;
	uint8_t seen; /* pseudo-fields, as bits */
	bool trailers;
	bool regular; /* no pseudo-field may come any more */
	bool too_large, no_memory;
};

void http2_fields_begin(struct http2_fields *f, bool trailers, uint64_t bytes_max, unsigned count_max);
void http2_fields_done(struct http2_fields *f);

void http2_fields_add(struct http2_fields *f, struct slice name, struct slice value);

/* So much more came than is allowed that taking in the rest is work for nothing. */
bool http2_fields_flooded(const struct http2_fields *f);

enum http2_fields_result {
	HTTP2_FIELDS_OK,
	HTTP2_FIELDS_MALFORMED, /* a stream error (RFC 9113, 8.1.1) */
	HTTP2_FIELDS_REFUSED,   /* well-formed, and answered by forebay */
};

struct http2_request {
	struct http1_message message;
	bool connects;   /* extended CONNECT: `head` asks for the upgrade that it stands for */
	unsigned status; /* with HTTP2_FIELDS_REFUSED */
	const char *why; /* if not OK: a literal */
	uint8_t urgency; /* RFC 9218 */
	bool incremental;
};

/*
 * The block is whole. `ended`: no content follows. f->head is the request's from here on; it may be taken out. For an extended CONNECT
 * `key` (24 bytes of base64) becomes its Sec-WebSocket-Key.
 */
enum http2_fields_result http2_fields_end(struct http2_fields *f, bool ended, struct slice key, struct http2_request *ret);

/* Urgency and incremental of a Priority field; what is not understood changes nothing (RFC 9218, 4). */
void http2_priority_parse(struct slice value, uint8_t *urgency, bool *incremental);

#endif
