/*
 * attempt_life: what one attempt is, and which states it has. Below attempt_send, attempt_read and attempt, which share the struct; nobody else
 * includes this.
 * Owns:   see attempt.h.
 * Thread: its loop's.
 */
#ifndef FOREBAY_UPSTREAM_ATTEMPT_LIFE_H
#define FOREBAY_UPSTREAM_ATTEMPT_LIFE_H

#include "core/sender.h"
#include "upstream/attempt.h"
#include "upstream/protocol/protocol.h"

enum attempt_state {
	STATE_CONNECTING,
	STATE_SENDING,
	STATE_WAITING, /* all is sent */
	STATE_READING, /* the response has begun, the request may still be under way */
	STATE_DISCARDING,
	STATE_GONE,
	STATE_COUNT,
};

struct attempt {
	struct loop *loop;
	struct slot *slot;
	struct link *link;
	struct request *request;
	const struct protocol *protocol;
	const struct attempt_events *events; /* NULL: detached */
	void *ctx;
	struct body *into; /* NULL: detached */
	enum attempt_state state;
	struct timer limit; /* connect_timeout, timeout, release_timeout: one after the other */
	struct timer starved;
	struct timer unread;  /* set while the worker may not have read the head */
	struct mail end_mail; /* brings an end that was decided outside the loop's callbacks */
	uint64_t begun_us;
	/* sending */
	struct sender sender;
	int out_fd; /* rides on the first byte; -1: none */
	/* reading */
	struct buf in;
	uint64_t raw_left;
	/* how it ended, once that is known */
	enum attempt_end how;
	const char *why;
	bool ended, end_posted;
	bool reusable;
	bool link_connected;
	bool body_held; /* until the head is known to have been read (replay_unread) */
	bool sent_any, sent_all;
	bool untouched;   /* nothing was sent */
	bool given_up;    /* at the time limit */
	bool misled;      /* the worker closed one half of its link only */
	bool send_failed; /* the worker does not take any more; it may have answered all the same */
	bool readable, paused;
	bool got_byte, got_final, grew, tunnel, is_stream;
	uint8_t interim;
	_Alignas(max_align_t) char protocol_state[];
};

static inline const struct conf_pool *attempt_conf(const struct attempt *a)
{
	return pool_conf(a->slot->pool);
}

static inline bool attempt_is_unix(const struct attempt *a)
{
	return !a->slot->address || a->slot->address->addr.any.sa_family == AF_UNIX;
}

/* The only writer of a->state. */
void attempt_enter(struct attempt *a, enum attempt_state next);

/* How it ends; the first that is decided stays. */
void attempt_decide(struct attempt *a, enum attempt_end how, const char *why);

#endif
