/*
 * control: what the master and a worker process say to each other on the worker's control socket (SOCK_SEQPACKET): one struct a packet.
 * Both run the same program file, so it is the struct itself that travels.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_CONTROL_H
#define FOREBAY_UPSTREAM_WORKER_CONTROL_H

#include <stdint.h>

/* A worker's descriptors. */
enum { WORKER_FD_CONTROL = 3, WORKER_FD_STARTED = 4, WORKER_FD_COUNT };

#define STARTED_LINE_BYTES 64 /* of the started page, a slot; the serial is its first word */

enum control_type {
	CONTROL_WANT = 1,    /* worker: thread `seat` has no slot socket */
	CONTROL_SPENT,       /* worker: max_requests is reached: it ends when what it has begun is done */
	CONTROL_SLOT,        /* master, with one descriptor: the slot socket for `seat` */
	CONTROL_END,         /* master: end when what you have begun is done */
	CONTROL_END_WITHOUT, /* master: the same, but do not wait for `seat`: the front has given up on its request */
};

struct control_message {
	uint32_t type; /* enum control_type */
	uint32_t seat; /* thread of the process, from 0 */
};

#endif
