/*
 * porter: what a listener answers by itself, before any route: the challenges that certbot puts down, and the way to https.
 * Never:  reads a file's content (the response's body does that, as of any file); looks outside the one folder.
 * Thread: any.
 */
#ifndef FOREBAY_PROXY_PORTER_H
#define FOREBAY_PROXY_PORTER_H

#include "conf/conf.h"
#include "core/buf.h"
#include "core/head.h"

#define PORTER_TOKEN_MAX 128         /* bytes of a challenge's name; RFC 8555 has them at 22 or more, in practice 43 */
#define PORTER_FILE_MAX  (16u << 10) /* bytes of its content */
#define PORTER_PATH      "/.well-known/acme-challenge/" /* RFC 8555, 8.3 */

struct porter_answer {
	unsigned status;     /* 0: none of the porter's business. 400 and above: a refusal */
	const char *reason;  /* a literal */
	struct buf location; /* of a redirection */
	int fd;              /* of a file's content, or -1 */
	uint64_t len;
};

/* What stands at the other end of *ret is yours: porter_answer_done(). */
void porter_ask(const struct conf_listen *listen, bool secure, const struct head *request, struct porter_answer *ret);
void porter_answer_done(struct porter_answer *a);

/* The head of an answer below 400, into an empty one. 0 or -ENOMEM. */
MUST_USE int porter_head(const struct porter_answer *a, struct head *ret);

/* Strict-Transport-Security, if the listener has it and the worker gave none (RFC 6797). 0, -ENOMEM or -E2BIG. */
MUST_USE int porter_hsts(const struct conf_listen *listen, bool secure, struct head *response);

#endif
