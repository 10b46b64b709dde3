/*
 * http2_flood: how much a peer may ask for that brings nobody a response: what costs it a few bytes and us work. It has an allowance,
 * which comes back with time; who spends it all is sent away.
 * Pure: times are given.
 */
#ifndef FOREBAY_PROXY_HTTP2_FLOOD_H
#define FOREBAY_PROXY_HTTP2_FLOOD_H

#include "core/base.h"

enum http2_flood_kind {
	FLOOD_RESET,     /* RST_STREAM of a stream that we worked for */
	FLOOD_MALFORMED, /* what makes us send one */
	FLOOD_SETTINGS,
	FLOOD_PING,
	FLOOD_PRIORITY,      /* PRIORITY, PRIORITY_UPDATE */
	FLOOD_WINDOW_UPDATE, /* beyond what our DATA frames earn */
	FLOOD_EMPTY,         /* DATA without content that ends nothing */
	FLOOD_CONTINUATION,
	FLOOD_OTHER, /* frames of unknown types */
	FLOOD_KIND_COUNT,
};

struct http2_flood {
	uint64_t spent;     /* thousandths of a frame */
	uint64_t since_ms;  /* when `spent` was right */
	uint64_t updates;   /* WINDOW_UPDATEs that were earned */
	unsigned allowance; /* frames; all of it comes back in HTTP2_FLOOD_REGAIN_MS */
};

#define HTTP2_FLOOD_REGAIN_MS 30000u

void http2_flood_init(struct http2_flood *f, unsigned allowance, uint64_t now_ms);

/* NULL, or a literal that says what there was too much of: send it away. */
const char *http2_flood_count(struct http2_flood *f, enum http2_flood_kind kind, uint64_t now_ms);

/* A DATA frame was sent, which its taker may answer. */
static inline void http2_flood_earn(struct http2_flood *f)
{
	f->updates = MIN(f->updates + 4, 1000); /* for the stream and the connection, twice */
}

#endif
