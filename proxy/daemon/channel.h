/*
 * channel: the framed messages between master and front, over one SOCK_SEQPACKET pair.
 * Owns:   its end of the socket, what waits to be sent and the descriptors that ride on it.
 * Never:  believes a message: type, direction, size and descriptor are checked against one table, texts are cut to size.
 *         Blocks: what the socket does not take waits in a queue with a maximum.
 * Thread: its base's.
 */
#ifndef FOREBAY_PROXY_CHANNEL_H
#define FOREBAY_PROXY_CHANNEL_H

#include <event2/event.h>
#include <sys/types.h>

#include "core/slice.h"

#define CHANNEL_THREADS_MAX 256
#define CHANNEL_TEXT_MAX    8192 /* bytes, with the NUL */

enum channel_type {
	/* from the master; "+fd" carries one descriptor */
	CHANNEL_LIMITS,   /* what the front may use; first */
	CHANNEL_CONF,     /* +fd: a sealed memfd with the configuration; the text is its name in messages */
	CHANNEL_LOG,      /* +fd unless the kind is off; again after SIGUSR1 */
	CHANNEL_SPOOL,    /* +fd: the spool directory */
	CHANNEL_TLS,      /* +fd: a sealed memfd with certificates and keys; after CHANNEL_CONF, and again when they change */
	CHANNEL_LISTENER, /* +fd */
	CHANNEL_GO,       /* that was all: adopt or refuse */
	CHANNEL_PAGE,     /* +fd: a pool's started page (sealed memfd); after CHANNEL_ADOPTED, before its slots */
	CHANNEL_SLOT,     /* +fd: the front's end of an own worker's slot; after CHANNEL_ADOPTED */
	CHANNEL_DRAIN,    /* no more connections; answered by CHANNEL_DRAINED */
	/* from the front */
	CHANNEL_ADOPTED,
	CHANNEL_REFUSED, /* the text says why; the front ends */
	CHANNEL_TICK,    /* the figures, and each thread's sign of life */
	CHANNEL_DRAINED,
	CHANNEL_REPLACE,     /* an own worker took too long, or broke the protocol: its process is to be replaced */
	CHANNEL_POISON,      /* +fd: the head of a request that was in a worker when it was lost (sealed memfd) */
	CHANNEL_POISON_BODY, /* +fd: its body; right behind it */
	CHANNEL_LOAD,        /* how much there was to do for a pool of own workers since it was said last */
	CHANNEL_TYPE_COUNT,
};

enum channel_side { CHANNEL_MASTER, CHANNEL_FRONT };

struct channel_message {
	uint32_t type;     /* enum channel_type */
	uint32_t reserved; /* 0; unnamed, it would carry what lay on the sender's stack */
	union {
		struct {
			uint64_t memory_bytes;
			uint64_t log_ring_bytes;
			uint32_t threads;
			uint32_t tick_ms; /* between two of CHANNEL_TICK */
			uint32_t connections;
			uint32_t own_files;  /* spool files at once */
			uint32_t log_level;  /* enum log_level */
			uint32_t log_stamps; /* 1: each line begins with its time */
		} limits;
		struct {
			uint32_t to, kind; /* enum logger_to, enum logger_kind */
		} log;
		struct {
			uint32_t listen, address, thread; /* indexes */
		} listener;
		struct {
			uint32_t pool, slots;
		} page;
		struct {
			uint32_t pool, slot;
			int32_t pid;
		} slot;
		struct {
			uint32_t pool, slot;
			int32_t pid;
		} replace;
		struct {
			uint64_t delay_us; /* the longest that a request waited or waits */
			uint32_t pool;
			uint32_t requests; /* the most at once, in work or waiting */
		} load;
		struct {
			uint64_t body_bytes; /* of the request, kept or not */
			int64_t wall_us;
			uint32_t pool;
			int32_t pid; /* of the worker */
			uint32_t tries;
			uint32_t body_follows; /* 1: as CHANNEL_POISON_BODY */
			char id[136];          /* NUL-terminated */
		} poison;
		struct {
			uint64_t ticks[CHANNEL_THREADS_MAX]; /* of each event thread; grow while it lives */
			uint64_t spool_bytes;
			uint64_t memory_bytes;
			uint64_t log_dropped;
			uint32_t connections, queued, busy, slots, stalls;
		} tick;
		char text[CHANNEL_TEXT_MAX]; /* CONF, REFUSED: NUL-terminated */
	} u;
};

struct channel;

struct channel_events {
	/* *fd is -1 or a descriptor: taken by setting it to -1, closed after the call otherwise. May free the channel. */
	void (*message)(void *ctx, const struct channel_message *m, int *fd);
	/* 0: the other end has gone. -errno: it broke the rules or the socket failed. No more events. May free the channel. */
	void (*ended)(void *ctx, int err);
};

/* The pair, close-on-exec and non-blocking. 0 or -errno. */
MUST_USE int channel_pair(int *ret_master, int *ret_front);

/* Takes *fd, also on failure. `side` is who we are. At most queue_max messages wait to be sent. */
MUST_USE int channel_new(struct event_base *base, int *fd, enum channel_side side, size_t queue_max,
    const struct channel_events *events, void *ctx, struct channel **ret);

/* What waits is not sent any more, its descriptors are closed. */
void channel_free(struct channel **c);

/*
 * Sends, now or as soon as the socket takes it. Takes *fd (-1 or NULL: none), also on failure; it is closed here as soon as it is sent.
 * 0, -ENOMEM, or -ENOBUFS: queue_max wait already. A broken socket is told by `ended` only.
 */
MUST_USE int channel_send(struct channel *c, const struct channel_message *m, int *fd);

/* Tells what has come by now. May free c, as the events may. */
void channel_poll(struct channel *c);

size_t channel_waiting(const struct channel *c);

/* A message of a text, cut to what fits. */
void channel_text(struct channel_message *m, enum channel_type type, struct slice text);

#endif
