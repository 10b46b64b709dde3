/*
 * http1_life: what one HTTP/1.x connection is, which states its reading has, and how it ends. Below http1_respond, http1_receive and
 * http1_client, which share the struct; nobody else includes this.
 * Owns:   see http1_client.h.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_HTTP1_LIFE_H
#define FOREBAY_PROXY_HTTP1_LIFE_H

#include <event2/event_struct.h>

#include "proxy/client/arrival.h"
#include "proxy/client/crowd.h"
#include "proxy/client/rate.h"
#include "proxy/serve/exchange.h"

#define CLIENT_CARE_MS 1000 /* between two looks at a peer that is waited for */

enum reading {
	READING_IDLE, /* between requests: nothing has come */
	READING_HEAD,
	READING_LENGTH,  /* content, of known length */
	READING_CHUNKED, /* content */
	READING_HELD,    /* nothing: the request at hand is whole, or not wanted */
	READING_TUNNEL,  /* no HTTP any more */
	READING_LINGER,  /* our last words are out; what comes is thrown away */
	READING_COUNT,
};

struct http1_client;

/* One request and its response. Made when the head is whole, so that an idle connection costs nothing of it. */
struct turn {
	struct exchange *exchange;
	struct http1_message message;
	struct chunked chunked;
	uint64_t body_left;  /* READING_LENGTH */
	uint32_t read_bytes; /* of the body, at a time */
	struct sender sender;
	struct loop_look look; /* before the response goes out */
	struct http1_client *client;
	struct rate rate;
	uint64_t seen_bytes;   /* of the body sent, when last looked */
	uint64_t queued_bytes; /* in the socket then, of whatever response */
	uint64_t active_ms;    /* when something last went either way */
	bool responding;       /* respond was called */
	bool keep;             /* the connection serves another request after this one */
	bool stuck;            /* the socket was full when last tried */
	bool starved;          /* no memory for the body: tried again by the timer */
	char peer[INET6_ADDRSTRLEN];
};

struct http1_client {
	struct crowd_member member;
	struct context *cx;
	const struct conf_listen *listen;
	const struct conf_address *local;
	struct stream stream;
	struct event ev; /* edge-triggered, all of READ, WRITE and CLOSED, added once */
	struct timer timer;
	struct turn *turn;
	char *partial; /* read and not yet understood */
	uint32_t partial_len;
	bool partial_again; /* it may hold more than was asked for so far: look before reading */
	bool readable;
	bool drained; /* the last read got less than it asked for: what comes next is an edge of its own */
	bool peer_closed, broken;
	bool unended;    /* READING_LINGER: our end found no room yet */
	uint8_t reading; /* enum reading */
	struct http1_scan scan;
	uint32_t requests;
	uint64_t head_begun_us;
	int64_t head_begun_wall_us;
	union peer peer;
};

/* A 503 for who could not be given memory for one of its own. */
#define CLIENT_NO_ROOM                                                                                                         \
	SLICE("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

struct loop *client_loop(const struct http1_client *c);
uint64_t client_now_ms(const struct http1_client *c);

/* The only writer of c->reading; what a state waits for, and for how long, is set up here too. */
void client_enter(struct http1_client *c, enum reading next);

/* Closes at once, in any state. Frees c. */
void client_close(struct http1_client *c, const char *why);

/*
 * For want of memory, or of time: with a few last words of `status`, 408 or 503, which need no memory, if it has asked for something and has
 * heard nothing yet. Frees c.
 */
void client_turn_away(struct http1_client *c, unsigned status, const char *why);

/* What was sent of a response must not look whole: the peer sees a reset (RFC 9112, 8). Frees c. */
void client_cut(struct http1_client *c, const char *why);

/* Our last words are out: closing now could destroy them on their way if the peer still sends. */
void client_linger(struct http1_client *c);
/* There is room: now perhaps. False: c was freed. */
bool client_linger_on(struct http1_client *c);

/* True: it has gone, as far as a request goes that is not yet in work. */
bool client_has_left(const struct http1_client *c);

/* A stream that has begun may be silent for so long; while its request is still received, that has limits of its own. */
void client_watch_stream(struct http1_client *c);

/* What was read and not used, and the turn at hand, are given up. */
void client_partial_free(struct http1_client *c);
void client_turn_free(struct http1_client *c);

#endif
