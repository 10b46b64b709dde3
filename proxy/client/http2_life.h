/*
 * http2_life: what one HTTP/2 connection and its streams are, and how they end. Below http2_respond, http2_receive and http2_client,
 * which share the structs; nobody else includes this.
 * Owns:   see http2_client.h.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_HTTP2_LIFE_H
#define FOREBAY_PROXY_HTTP2_LIFE_H

#include <event2/event_struct.h>
#include <nghttp2/nghttp2.h>

#include "proxy/client/arrival.h"
#include "proxy/client/crowd.h"
#include "proxy/client/http2_fields.h"
#include "proxy/client/http2_flood.h"
#include "proxy/client/rate.h"
#include "proxy/serve/exchange.h"

#define HTTP2_CARE_MS     1000 /* between two looks at a peer that is waited for */
#define HTTP2_ARRIVED_MAX 16   /* requests of one read, before the first of them goes on */
#define HTTP2_STARVED_MS  100  /* until windows that were kept for want of memory are looked at again */

enum http2_phase {
	HTTP2_OPEN,
	HTTP2_NOTICE, /* the peer was told to open no more streams; those on their way are still taken (RFC 9113, 6.8) */
	HTTP2_LAST,   /* and that from now on none is */
	HTTP2_LINGER, /* our last words are out; what comes is thrown away */
	HTTP2_PHASE_COUNT,
};

enum http2_reading {
	HTTP2_HEAD,    /* its fields are coming */
	HTTP2_CONTENT, /* content, to be kept */
	HTTP2_HELD,    /* nothing: the request is whole, or not wanted */
	HTTP2_TUNNEL,  /* no HTTP any more */
	HTTP2_READING_COUNT,
};

struct http2_client;

/* One request and its response. */
struct http2_stream {
	struct http2_client *client;
	struct http2_stream *next, *prev;                  /* of all */
	struct http2_stream *next_touched;                 /* of what the writes at hand have taken from */
	struct http2_stream *next_closed;                  /* of those that the library has forgotten */
	struct http2_stream *next_answered, **answered_at; /* where it stands among the answered; NULL: nowhere */
	struct exchange *exchange;                         /* NULL: not yet, or no more */
	struct body_cursor cursor;                         /* in the response's body */
	struct rate rate;
	uint64_t content_length, got_bytes; /* of the request's body */
	uint64_t kept_window;               /* bytes taken that the peer was not yet given back */
	uint64_t sent_bytes, seen_bytes;    /* of the response's body; when last looked */
	uint64_t active_ms;                 /* when something last went either way */
	const char *why;                    /* it ended before its time: a literal */
	int32_t id;
	uint8_t reading; /* enum http2_reading */
	bool has_length, connects;
	bool of_head;    /* its method is HEAD, also if it was refused */
	bool responding; /* the response's head was handed to the library, or will be with the next flush */
	bool sending;    /* its body is the library's to ask for; not if it waits for us */
	bool over;       /* all of the response is in frames */
	bool closed;     /* the library has forgotten it */
	bool touched, slow;
	bool passing; /* counted as a stream that passes through: it may be silent for so long, no longer */
};

/* What the library asked for last: it says so before it wants to have it. */
struct http2_piece {
	struct iovec iov[8];
	int n;
	bool in_file;
	struct body_file file;
};

struct http2_client {
	struct crowd_member member;
	struct context *cx;
	const struct conf_listen *listen;
	const struct conf_address *local;
	struct stream stream;
	struct event ev; /* edge-triggered, all of READ, WRITE and CLOSED, added once */
	struct timer timer;
	uint64_t timer_due_ms;
	nghttp2_session *session;
	struct http2_stream streams; /* a ring */
	struct http2_stream *touched, *closed;
	struct http2_stream *answered, **answered_end; /* for the next flush, the first come first */
	unsigned answered_count;
	uint64_t answered_bytes;                         /* of their bodies, as far as they have come */
	struct loop_look look;                           /* before that */
	unsigned looks;                                  /* for these answers */
	unsigned looked_count;                           /* `answered_count` when the last of them began */
	struct http2_fields fields;                      /* of the block that is coming */
	struct http2_stream *fields_of;                  /* NULL: none that is wanted */
	bool in_fields;                                  /* a block is coming */
	struct http2_stream *arrived[HTTP2_ARRIVED_MAX]; /* with whole requests that are to go on; within one read only */
	unsigned arrived_count;
	uint64_t fields_begun_ms;
	struct http2_flood flood;
	struct http2_piece piece;
	char *block; /* LOOP_BLOCK_BYTES: frames for the next write. NULL outside of a flush */
	size_t block_len, batch_bytes;
	bool block_full;
	char *pending; /* frames that the socket did not take */
	size_t pending_len, pending_sent;
	uint64_t out_bytes, seen_bytes, queued_bytes; /* ever sent; and in the socket, when last looked */
	uint64_t idle_since_ms, notice_ms, linger_ms;
	uint64_t pending_since_ms; /* when some of it was last taken */
	uint64_t requests;
	unsigned stream_count, receiving, sending, passing;
	const char *failed; /* it is being sent away for this: a literal */
	uint8_t phase;      /* enum http2_phase */
	bool told;          /* why it goes was logged */
	bool stuck;         /* the socket takes no more just now */
	bool starved;
	bool windows_changed;   /* by SETTINGS whose consequences are still to be sent */
	bool behind;            /* the next flush waits already for what else is active */
	unsigned continuations; /* of the field block that is coming */
	bool readable, drained, peer_closed, broken;
	union peer peer;
	struct exchange_origin origin; /* of its requests; the time is each one's own */
	char peer_text[INET6_ADDRSTRLEN];
};

struct loop *http2_loop(const struct http2_client *c);
uint64_t http2_now_ms(const struct http2_client *c);

/* The only writers of c->phase and s->reading. */
void http2_enter(struct http2_client *c, enum http2_phase next);
void http2_read_enter(struct http2_stream *s, enum http2_reading next);

/* NULL without memory. */
struct http2_stream *http2_stream_new(struct http2_client *c, int32_t id);

/* Its exchange's end: `cut` if some of the response is missing. */
void http2_stream_leave(struct http2_stream *s, const char *why);

/* Ends a stream before its time: `status` (if not 0) is what its request is logged with, if it has no answer yet. */
void http2_stream_reset(struct http2_stream *s, uint32_t code, unsigned status, const char *why);

/* Its answer is there, and goes to the library with the next flush; or does not any more. */
void http2_answered_add(struct http2_stream *s);
void http2_answered_remove(struct http2_stream *s);

/* The response's body is, or is not, the library's to ask for. */
void http2_stream_sending(struct http2_stream *s, bool sending);

/* Frees what the library has forgotten; what was answered only when the socket has it. */
void http2_reap(struct http2_client *c);

/* Where it stands in the crowd, and when to look at it again. After anything has happened. */
void http2_settle(struct http2_client *c);

/* The library has frames to send: after what this turn of the loop has to do already. */
void http2_kick(struct http2_client *c);

/* Sends it away: every stream ends, GOAWAY says why, and so does one line of the log. */
void http2_fail(struct http2_client *c, uint32_t code, const char *why);

/* Forgets the frames that the socket did not take, or has now. */
void http2_pending_free(struct http2_client *c);

/* No more streams, in good order. */
void http2_notice(struct http2_client *c);
void http2_last(struct http2_client *c);

/* Closes at once, in any state. Frees c. */
void http2_close(struct http2_client *c, const char *why);
/* The same: the peer sees a reset. */
void http2_cut(struct http2_client *c, const char *why);
/* The same, with a GOAWAY if there is room for it. */
void http2_goodbye(struct http2_client *c, uint32_t code, const char *why);

/* Our last words are out. May free c. */
void http2_linger(struct http2_client *c);

#endif
