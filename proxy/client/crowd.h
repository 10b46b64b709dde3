/*
 * crowd: a thread's client connections, so that under pressure the right ones go first: idle ones, then the slowest.
 * Owns:   two lists; the members lie in their connections.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_CROWD_H
#define FOREBAY_PROXY_CROWD_H

#include "core/base.h"

struct crowd_member;

/* What a crowd may ask of a connection. */
struct crowd_acts {
	/* Ends it: told why by a literal. Frees the member. */
	void (*evict)(struct crowd_member *m, const char *why);
	/* Memory is short: puts on disk what it can. */
	void (*spill)(struct crowd_member *m);
	/* An idle one: no request of its peer's lies in its socket. May ask the kernel. */
	bool (*is_quiet)(struct crowd_member *m);
	/* Tells its peer that no further request will be served, if it can. NULL: that is told with the next response. Frees nothing. */
	void (*drain)(struct crowd_member *m);
};

struct crowd_member {
	struct crowd_member *next, *prev;
	uint64_t since_ms; /* began to wait on its peer */
	uint64_t bytes;    /* that its peer has sent or taken since */
	uint8_t where;     /* enum crowd_list, or 0 */
	bool fresh;        /* its first request has not begun to come */
	const struct crowd_acts *acts;
};

enum crowd_list {
	CROWD_NONE,
	CROWD_IDLE,    /* kept alive, between requests; the oldest first */
	CROWD_WAITING, /* forebay waits for it: it sends a request or takes a response */
	CROWD_BUSY,    /* it waits for forebay */
	CROWD_LIST_COUNT,
};

struct crowd {
	struct crowd_member lists[CROWD_LIST_COUNT]; /* rings */
	unsigned count;
};

void crowd_init(struct crowd *c);

/* To the end of a list, from wherever it was; CROWD_NONE takes it out. */
void crowd_move(struct crowd *c, struct crowd_member *m, enum crowd_list to);

/* Others than `m` are BUSY. */
bool crowd_others_busy(const struct crowd *c, const struct crowd_member *m);

/*
 * Ends the connection that has been idle longest. One whose request has come and was not yet read is not idle, nor for its first moments one
 * that is fresh: its request is on its way. Looks at a bounded number. False: none.
 */
bool crowd_evict_idle(struct crowd *c, uint64_t now_ms, const char *why);

/* Ends the slowest of those that have been waited for at least `grace_ms`. Looks at a bounded number, the oldest first. False: none. */
bool crowd_evict_slowest(struct crowd *c, uint64_t now_ms, uint64_t grace_ms, const char *why);

/* Ends the idle ones that are quiet. */
void crowd_evict_quiet(struct crowd *c, const char *why);

/* Tells each that a drain has begun. */
void crowd_drain(struct crowd *c);

/* Ends all of a list. */
void crowd_evict_all(struct crowd *c, enum crowd_list which, const char *why);

/* Every member with a request at hand puts on disk what it can: also of one that waits for a worker. */
void crowd_spill(struct crowd *c);

#endif
