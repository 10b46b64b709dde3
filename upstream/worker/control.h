/*
 * control: what the master says to a worker process or a zygote and hears from it, on its control socket (SOCK_SEQPACKET): one struct a packet.
 * Both are built from the same source, so it is the struct itself that travels.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_CONTROL_H
#define FOREBAY_UPSTREAM_WORKER_CONTROL_H

#include <stdint.h>

/* The descriptors of both. */
enum { WORKER_FD_CONTROL = 3, WORKER_FD_STARTED = 4, WORKER_FD_COUNT };

#define STARTED_LINE_BYTES 64 /* of the started page, a slot; the serial is its first word */

enum control_type {
	CONTROL_WANT = 1,    /* worker: thread `seat` has no slot socket; the first one says that it is fit */
	CONTROL_SPENT,       /* worker: max_requests is reached: it ends when what it has begun is done */
	CONTROL_SLOT,        /* master, with one descriptor: the slot socket for `seat` */
	CONTROL_END,         /* master: end when what you have begun is done */
	CONTROL_END_WITHOUT, /* master: the same, but do not wait for `seat`: the front has given up on its request */
	CONTROL_HERE,        /* worker that a zygote has forked, before all else: the kernel says which process it is */
	CONTROL_UNFIT,       /* worker: its answer for health_path had the status `value` (0: it gave none); it ends */
	CONTROL_MEMORY,      /* worker: it has `value` bytes of memory, what is shared by its part */
	CONTROL_SWOLLEN,     /* worker: that is above max_memory; otherwise as SPENT */
};

struct control_message {
	uint32_t type;  /* enum control_type */
	uint32_t seat;  /* thread of the process, from 0 */
	uint64_t value; /* 0 where none is said */
};

#define ZYGOTE_TEXT_MAX 512 /* bytes, with the NUL */

enum zygote_type {
	ZYGOTE_READY = 1,  /* zygote: the application is loaded, SPAWN may come */
	ZYGOTE_UNFORKABLE, /* zygote: a fork would lose what the text names: it is of no use */
	ZYGOTE_SPAWN,      /* master: fork a worker for `place`; with its control socket and the writing end of its output */
	ZYGOTE_NO_FORK,    /* zygote: the worker for `place` could not be forked; `error` is an errno */
};

struct zygote_message {
	uint32_t type; /* enum zygote_type */
	uint32_t place;
	uint32_t error;
	char text[ZYGOTE_TEXT_MAX];
};

#endif
