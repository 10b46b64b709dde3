/*
 * poison: a request that was in a worker when the worker was lost, on its way to be kept for study: event thread, the front's main thread,
 * master (proxy/daemon/quarantine).
 * Owns:   copies of all: nothing of the exchange's.
 * Never:  opens a path; copies a body that lies in a file.
 * Thread: whose hands it is in.
 */
#ifndef FOREBAY_PROXY_POISON_H
#define FOREBAY_PROXY_POISON_H

#include <sys/types.h>

#include "core/body.h"
#include "core/head.h"
#include "core/mailbox.h"

#define POISON_ID_MAX   129 /* bytes, with the NUL: struct request's */
#define POISON_HEAD_MAX (1u << 20)

struct poison {
	struct mail mail; /* for whoever hands it on */
	void *owner;      /* the same */
	size_t pool;      /* conf_pool.index */
	pid_t pid;        /* of the worker that was lost last */
	unsigned tries;
	int64_t wall_us;
	char id[POISON_ID_MAX];
	int head_fd; /* a sealed memfd: an HTTP/1.1 head as the client sent it, without what is of its connection only */
	int body_fd; /* a read-only descriptor of the body; -1: there is none, or it cannot be had */
	uint64_t body_bytes; /* of the request, kept or not */
};

struct poison_case {
	const struct head *head; /* the client's */
	struct body *body;       /* finished; NULL: no content */
	size_t pool;
	pid_t pid;
	unsigned tries;
	int64_t wall_us;
	struct slice id;
};

/* 0, -ENOMEM, -E2BIG, or -errno of the descriptors. */
MUST_USE int poison_new(const struct poison_case *from, struct poison **ret);

/* Sets *p to NULL. */
void poison_free(struct poison **p);

#endif
