/*
 * scaling: how many workers a pool should have: a policy that is fed with figures and the time.
 * Pure: knows no clock, no process, no log.
 *
 * One more as soon as requests have waited too long, unless one is on its way or memory has no room for it; one less when so many were not needed
 * for long enough.
 */
#ifndef FOREBAY_UPSTREAM_SCALING_H
#define FOREBAY_UPSTREAM_SCALING_H

#include "core/base.h"

struct scaling_rules {
	unsigned least, most; /* workers */
	unsigned threads;     /* requests that each takes at a time */
	uint64_t up_delay_us; /* waiting for longer than this is too long */
	uint64_t down_after_us;
};

struct scaling_figures {
	unsigned wanted;       /* workers, as things stand */
	unsigned starting;     /* of these, not ready yet */
	uint64_t delay_us;     /* the longest that a request has waited since the last figures, or waits now */
	unsigned busy;         /* the most requests at once since the last figures, those that waited included */
	uint64_t worker_bytes; /* the memory of one; 0: not known */
	uint64_t room_bytes;   /* memory that is free; UINT64_MAX: not known */
};

struct scaling {
	uint64_t needed_us; /* when all that are wanted were last needed; 0: never */
};

enum scaling_step {
	SCALING_STAY,
	SCALING_UP,
	SCALING_DOWN,
	SCALING_NO_ROOM, /* one more would be needed: stay */
};

enum scaling_step scaling_look(
    struct scaling *s, const struct scaling_rules *rules, const struct scaling_figures *f, uint64_t now_us);

#endif
