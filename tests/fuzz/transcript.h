/*
 * transcript: what went one way over a connection, read as HTTP messages: requests, or responses to the requests that went the other way.
 * Owns:   the bytes and what was read from them.
 */
#ifndef FOREBAY_TESTS_TRANSCRIPT_H
#define FOREBAY_TESTS_TRANSCRIPT_H

#include "core/http1.h"
#include "tests/fuzz/must.h"

#define TRANSCRIPT_MAX (16u << 20) /* bytes */

/* What this reads is no news to the fuzzer. */
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)

struct message {
	struct head head;
	struct http1_message m;
	struct buf content;
	bool whole;
	bool head_checked, whole_checked; /* by whoever reads the transcript */
};

struct transcript {
	const struct http1_limits *limits;
	struct buf bytes;
	size_t at; /* bytes before it have been read */
	struct http1_scan scan;
	struct chunked chunked;
	uint64_t left; /* of a content with a length */
	struct message *messages;
	size_t count;
	size_t interims;    /* 1xx responses, passed over */
	bool empty_host_ok; /* as forebay sends it for a client that named none (RFC 9112, 3.2), but takes from nobody */
	bool bad;           /* bytes that are no message: nothing is read from there on */
	bool tunnel;        /* no HTTP any more behind the last message's head */
};

static inline void transcript_init(struct transcript *t, const struct http1_limits *limits)
{
	*t = (struct transcript){ .limits = limits };
	buf_init(&t->bytes, TRANSCRIPT_MAX);
}

static inline void transcript_done(struct transcript *t)
{
	for (size_t i = 0; i < t->count; i++) {
		head_done(&t->messages[i].head);
		buf_done(&t->messages[i].content);
	}
	free(t->messages);
	buf_done(&t->bytes);
}

static inline void transcript_add(struct transcript *t, struct slice bytes)
{
	buf_add(&t->bytes, bytes);
	must(!t->bytes.failed);
}

static inline struct slice transcript_rest(const struct transcript *t)
{
	return t->bytes.len > t->at ? slice_of(t->bytes.ptr + t->at, t->bytes.len - t->at) : slice_of("", 0);
}

/* The last message, if it is still being read. */
static inline struct message *transcript_open(const struct transcript *t)
{
	return t->count > 0 && !t->messages[t->count - 1].whole ? &t->messages[t->count - 1] : NULL;
}

static inline size_t transcript_whole(const struct transcript *t)
{
	return transcript_open(t) ? t->count - 1 : t->count;
}

static inline void transcript_push(struct transcript *t, const struct head *h, const struct http1_message *m)
{
	t->messages = reallocarray(t->messages, t->count + 1, sizeof(*t->messages));
	must(t->messages);
	t->messages[t->count] = (struct message){ .head = *h, .m = *m, .whole = m->framing == FRAMING_NONE };
	buf_init(&t->messages[t->count].content, TRANSCRIPT_MAX);
	t->count++;
	t->chunked = (struct chunked){ 0 };
	t->left = m->length;
	t->tunnel = m->framing == FRAMING_TUNNEL;
}

static inline enum http1_result transcript_request(
    const struct transcript *t, struct slice text, struct head *h, struct http1_message *m)
{
	static const struct slice empty = SLICE_INIT("\r\nHost: \r\n");
	enum http1_result r = http1_request(text, h, m);
	const char *at = memmem(text.ptr, text.len, empty.ptr, empty.len);
	struct buf named;

	if (r != HTTP1_BAD_HOST || !t->empty_host_ok || !at)
		return r;
	buf_init(&named, TRANSCRIPT_MAX);
	buf_add(&named, slice_of(text.ptr, (size_t)(at - text.ptr)));
	buf_add(&named, SLICE("\r\nHost: none\r\n"));
	buf_add(&named, slice_of(at + empty.len, text.len - (size_t)(at + empty.len - text.ptr)));
	r = http1_request(buf_slice(&named), h, m);
	buf_done(&named);
	return r;
}

/* False: no more can be read now. */
static inline bool transcript_head(struct transcript *t, bool responses, enum method method)
{
	struct slice in = transcript_rest(t);
	struct http1_message m;
	enum http1_result r;
	struct head h;
	size_t len;

	if (in.len == 0)
		return false;
	r = http1_scan(&t->scan, in, t->limits, &len);
	if (r == HTTP1_MORE)
		return false;
	head_init(&h);
	if (r == HTTP1_OK)
		r = responses ? http1_response(slice_of(in.ptr, len), method, &h, &m)
		              : transcript_request(t, slice_of(in.ptr, len), &h, &m);
	t->scan = (struct http1_scan){ 0 };
	t->bad = r != HTTP1_OK;
	if (t->bad)
		return false;
	t->at += len;
	if (responses && h.status < 200 && h.status != 101) {
		t->interims++; /* the answer is still to come */
		head_done(&h);
	} else {
		transcript_push(t, &h, &m);
	}
	return true;
}

static inline bool transcript_chunks(struct transcript *t, struct message *o)
{
	struct slice in = transcript_rest(t), data;
	enum http1_result r;

	while ((r = chunked_decode(&t->chunked, &in, &data)) == HTTP1_MORE && data.len > 0)
		buf_add(&o->content, data);
	t->at = t->bytes.len - in.len;
	o->whole = r == HTTP1_OK;
	t->bad = r != HTTP1_OK && r != HTTP1_MORE;
	return o->whole;
}

static inline bool transcript_content(struct transcript *t, struct message *o)
{
	struct slice in = transcript_rest(t);

	if (o->m.framing == FRAMING_CHUNKED)
		return transcript_chunks(t, o);
	if (o->m.framing == FRAMING_LENGTH)
		in.len = (size_t)MIN(in.len, t->left);
	buf_add(&o->content, in);
	t->at += in.len;
	t->left -= MIN(t->left, in.len);
	o->whole = o->m.framing == FRAMING_LENGTH && t->left == 0;
	return o->whole;
}

/* Requests: as far as it goes. */
static inline void transcript_requests(struct transcript *t)
{
	bool more = true;

	while (more && !t->bad) {
		struct message *o = transcript_open(t);

		more = o ? transcript_content(t, o) : transcript_head(t, false, METHOD_OTHER);
	}
}

/* Responses, each to the request of its number; one that answers no request is read as if it answered a GET. */
static inline void transcript_responses(struct transcript *t, const struct transcript *requests)
{
	bool more = true;

	while (more && !t->bad) {
		struct message *o = transcript_open(t);
		enum method method = t->count < requests->count ? requests->messages[t->count].head.method : METHOD_GET;

		more = o ? transcript_content(t, o) : transcript_head(t, true, method);
	}
}

/* The connection has ended in good order: so has what only its end could end. */
static inline void transcript_end(struct transcript *t)
{
	struct message *o = transcript_open(t);

	if (o && o->m.framing == FRAMING_CLOSE)
		o->whole = true;
}

#pragma clang attribute pop

#endif
