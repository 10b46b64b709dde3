/*
 * request: what goes to a worker: the rebuilt head and the body. Shared by an exchange and its attempts, so that an attempt can
 * send on what it began when its exchange has gone.
 * Owns:   head or wire, body, texts.
 * Thread: one loop's; the count is not atomic.
 */
#ifndef FOREBAY_UPSTREAM_REQUEST_H
#define FOREBAY_UPSTREAM_REQUEST_H

#include "core/body.h"
#include "core/buf.h"
#include "core/head.h"

struct request {
	unsigned refs;
	struct loop *loop;
	struct head head;        /* as an own worker shall see it (proxy/serve/forward); for others' its method only */
	struct buf wire;         /* the same for others' workers: a whole head of HTTP/1.1 */
	struct body *body;       /* NULL: no content */
	bool length_known;       /* false: a stream of unknown length, sent in chunks */
	uint64_t length;         /* bytes */
	bool streams;            /* sent while it comes in: what was sent is dropped, and it cannot be sent twice */
	bool upgrade;            /* asks for a change of protocol */
	bool secure;             /* came by TLS */
	const char *tls_version; /* a literal; NULL: plain, or somebody else ended it */
	uint64_t queue_us;       /* that it waited for its slot, all of its tries together */
	const char *mount;       /* own workers: as conf_route has it, which outlives every attempt's start; NULL: none */
	char id[129];            /* X-Request-Id */
	char remote_addr[46];    /* the client's address as numeric text, "" for Unix sockets; what `trusted` made of it */
	uint16_t remote_port;    /* 0: unknown */
	char server_addr[46];    /* where it was accepted, for own workers */
	uint16_t server_port;
	size_t charged; /* bytes of the lease */
};

#define REQUEST_WIRE_MAX (512u << 10) /* bytes */

/* One reference; NULL at the memory ceiling. */
struct request *request_new(struct loop *loop);

/* Charges the memory that head and wire hold now. 0 or -ENOMEM. */
MUST_USE int request_charge(struct request *r);

struct request *request_hold(struct request *r);
/* Frees with the last one; sets the pointer to NULL. */
void request_drop(struct request **r);

#endif
