/*
 * refusal: the answer that forebay itself gives: an error page in HTML, JSON or plain text, by Accept.
 * Pure but for the head's allocation.
 */
#ifndef FOREBAY_PROXY_REFUSAL_H
#define FOREBAY_PROXY_REFUSAL_H

#include "core/buf.h"
#include "core/head.h"

struct refusal {
	unsigned status;
	const char *reason;     /* a literal for a person, shown on the page of a 4xx, in the log always */
	struct slice id;        /* of the request */
	struct slice accept;    /* the Accept field, may be hostile or empty: then text/html */
	unsigned retry_after_s; /* 0: no Retry-After */
};

/* Fills an empty head (status, Content-Type, Content-Length, Cache-Control: no-store, Retry-After) and appends the page to `page`. 0 or -ENOMEM. */
MUST_USE int refusal_make(const struct refusal *r, struct head *ret_head, struct buf *page);

#endif
