/*
 * intake: the frames that come in on a slot socket, taken with as few system calls as there can be.
 * Owns:   the memory they are in; a descriptor that came with one, until it is taken.
 * Never:  blocks inside recv() while nothing is there: taking bytes out of the other direction wakes whoever sleeps there (the kernel's
 *         unix_write_space), and a worker would wake up for each answer that the front takes. poll() sleeps through it.
 * Thread: the one that serves the slot.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_INTAKE_H
#define FOREBAY_UPSTREAM_WORKER_INTAKE_H

#include "upstream/worker/wire.h"

struct intake {
	int sock; /* blocking; borrowed */
	char *bytes;
	size_t size, at, end; /* of bytes; what is not handed out stands from at to end */
	int fd;               /* came, and was not taken yet; -1: none */
};

void intake_init(struct intake *in, int sock);
void intake_done(struct intake *in);

/*
 * Waits for the next frame, whole: 1 with *ret and its payload, good until the next call of any function here; 0: the front has closed; or -errno: -EPROTO
 * for what is no frame, or a descriptor inside one.
 */
MUST_USE int intake_frame(struct intake *in, struct wire_frame *ret, struct slice *ret_payload);

/* The header of a frame that came meanwhile; its payload and those before it stay good. Never waits. 1, 0: none, -ECONNRESET: the front has closed, or -errno. */
MUST_USE int intake_look(struct intake *in, struct wire_frame *ret);

/* What was handed out is not needed any more: memory that a large frame took goes back. */
void intake_forget(struct intake *in);

#endif
