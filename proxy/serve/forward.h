/*
 * forward: the head that goes to a worker, made from the client's, and the head that goes to a client, made from the worker's.
 * Always built anew from the parsed form (RFC 9110, 7.6); framing is told by the caller, who knows the body.
 * Never:  reads a body, a socket or a clock.
 * Thread: any.
 *
 * Left out, both ways: Connection and every field it names, Keep-Alive, Proxy-Connection, TE, Trailer, Transfer-Encoding,
 * Upgrade, HTTP2-Settings, Proxy-Authenticate, Proxy-Authentication-Info, Proxy-Authorization, and Content-Length, which is
 * written afresh if there is one. A Connection that names a field which forebay writes itself (Host, Content-Length, X-Forwarded-*,
 * ...) has no effect on that field, as it is written after the client's own was dropped.
 * Towards a worker also: Expect, Proxy, every name with "_" (CGI cannot tell it from "-").
 *
 * What tells of the client (X-Forwarded-*, X-Real-IP, X-Client-Verify and what goes with it, Forwarded, X-Request-Id, X-Request-Start)
 * is dropped and written afresh unless the peer is in `trusted`. From a trusted peer: X-Forwarded-For and Forwarded are continued, the others kept if they
 * are well-formed and there is one only.
 */
#ifndef FOREBAY_PROXY_FORWARD_H
#define FOREBAY_PROXY_FORWARD_H

#include "conf/conf.h"
#include "core/buf.h"
#include "core/head.h"

#define FORWARD_OPTIONS_MAX 64 /* elements of Connection in a request */

/* Of a client that was asked for a certificate. Texts are borrowed. */
struct tls_peer {
	const char *verify;      /* "SUCCESS", "NONE", "FAILED:reason" */
	const char *subject;     /* as RFC 2253 writes it, with SUCCESS only; else "" */
	const char *issuer;      /* the same */
	const char *serial;      /* hexadecimal, with SUCCESS only; else "" */
	const char *fingerprint; /* SHA-256, lower-case hexadecimal, with SUCCESS only; else "" */
};

/* Who is at the other end of the connection, and where it came in. Texts are borrowed. */
struct forward_client {
	const char *peer_address; /* numeric; "" for a Unix socket */
	uint16_t peer_port;
	const struct sockaddr *peer;
	bool secure;
	const struct tls_peer *tls;    /* NULL: it was not asked for a certificate */
	const struct sockaddr *server; /* the address it came to; NULL: unknown */
};

struct forward_request {
	const struct forward_client *client;
	const struct conf *conf;  /* `trusted` */
	struct slice request_id;  /* forward_request_id() */
	int64_t complete_wall_us; /* X-Request-Start: t=SECONDS.MICROSECONDS */
	bool has_body_length;     /* Content-Length: body_length. Without it POST, PUT and PATCH get 0 */
	uint64_t body_length;
	bool chunked;   /* of unknown length: Transfer-Encoding */
	bool upgrade;   /* Upgrade is passed on, with Connection: upgrade */
	bool keepalive; /* Connection: keep-alive, else close */
};

/*
 * Into an empty head (empty after an error too). The target is origin-form, or "*". Host comes first and is the authority, empty
 * if the client (HTTP/1.0) gave none. Via is continued (RFC 9110, 7.6.3). 0, -ENOMEM, -E2BIG, or -EINVAL if Connection has more
 * than FORWARD_OPTIONS_MAX elements: 400.
 */
MUST_USE int forward_request_head(const struct head *in, const struct forward_request *r, struct head *ret);

/* The same as bytes of HTTP/1.1, behind what stands in `out`. -ENOMEM also if they do not fit; after an error what `out` holds is of no use. */
MUST_USE int forward_request_wire(const struct head *in, const struct forward_request *r, struct buf *out);

/* The X-Request-Id: a trusted peer's own if it is well-formed, else `fresh`. Borrowed from either. */
struct slice forward_request_id(
    const struct head *in, const struct forward_client *client, const struct conf *conf, const char *fresh);

struct forward_response {
	uint8_t client_version;  /* 10, 11 or 20: the latter gets no connection fields */
	struct slice request_id; /* X-Request-Id, in place of the worker's; empty: the worker's */
	struct slice date;       /* Date, if the worker gave none (core/date.h); empty: none */
	bool has_length;
	uint64_t length;
	bool chunked;
	bool close;          /* Connection: close */
	bool keep_alive_1_0; /* Connection: keep-alive, which an HTTP/1.0 client must be told */
	bool upgrade;        /* a 101: Upgrade is passed on. A 426 keeps it anyhow (RFC 9110, 15.5.22) */
};

/*
 * As bytes of HTTP/1.1, as forward_request_wire. X-Accel-Buffering is dropped, Server added if there is none. 1xx and 204 never
 * get a length; 1xx get no field of forebay's own but a 101's Connection.
 */
MUST_USE int forward_response_wire(const struct head *in, const struct forward_response *r, struct buf *out);

#define FORWARD_OWN_FIELDS 12 /* that forebay adds to a head, at most */

/* A response's fields where they stand: in the worker's head, in what forward_response points to, and here. */
struct forward_list {
	struct forward_field {
		struct slice name, value;
		enum field_id id;
	} * fields; /* borrowed: room for those of the head and FORWARD_OWN_FIELDS */
	size_t count;
	char length[20]; /* Content-Length */
};

/* The same for a client_version of 20, which frames fields by itself. ret->fields is the caller's. */
void forward_response_list(const struct head *in, const struct forward_response *r, struct forward_list *ret);

/* True if the peer's word about the client counts. */
bool forward_is_trusted(const struct forward_client *client, const struct conf *conf);

/*
 * The client's address as numeric text (an IPv4-mapped one as IPv4): the peer's, or, as long as that is trusted, the one before it
 * in X-Forwarded-For, from the right. What is no address ends the walk at the hop that gave it. "" if it is a Unix socket's.
 * 0, or -ENOSPC if it does not fit (INET6_ADDRSTRLEN always does).
 */
MUST_USE int forward_client_address(
    const struct head *h, const struct forward_client *client, const struct conf *conf, char *ret, size_t ret_size);

/* The same of the peer alone: as it stands in X-Forwarded-For and Forwarded. */
struct slice forward_peer_address(const struct forward_client *client);

#endif
