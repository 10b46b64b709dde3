/*
 * pulse: what a front's event threads have last shown of life, and whether one of them stands still.
 * Owns:   nothing but its numbers.
 * Never:  looks at a clock: what time it is, it is told. Counts time in which the master itself did not run.
 * Thread: the master's only one.
 */
#ifndef FOREBAY_PROXY_PULSE_H
#define FOREBAY_PROXY_PULSE_H

#include "proxy/daemon/channel.h"

#define PULSE_LOOK_MS  1000  /* pulse_stands_still is called this often */
#define PULSE_STILL_MS 30000 /* nothing that an event thread does takes so long: it never waits, not even for a disk */

struct pulse {
	unsigned threads;
	uint64_t ticks[CHANNEL_THREADS_MAX];
	uint64_t grown_ms[CHANNEL_THREADS_MAX]; /* when they were seen to grow */
	uint64_t looked_ms;
	uint64_t fed[CHANNEL_THREADS_MAX]; /* ticks at the last pulse_all_beat that was true */
	bool heard;                        /* of any tick at all */
};

/* A new front serves. At most CHANNEL_THREADS_MAX threads. */
void pulse_start(struct pulse *p, unsigned threads, uint64_t now_ms);

/* The ticks of each thread, as the front tells them. */
void pulse_heard(struct pulse *p, const uint64_t *ticks, uint64_t now_ms);

/* Every PULSE_LOOK_MS. True: thread *ret_thread has shown nothing for PULSE_STILL_MS, while the master ran in time. */
bool pulse_stands_still(struct pulse *p, uint64_t now_ms, unsigned *ret_thread);

/* Each thread has shown a sign of life since the last call that was true. */
bool pulse_all_beat(struct pulse *p);

#endif
