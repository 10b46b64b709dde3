/*
 * mailbox: how other threads hand something to an event loop: a lock-free list and an eventfd.
 * Owns:   the eventfd. A mail is its poster's until posted and the receiver's from its delivery on; in between nobody's.
 * Thread: mailbox_post any, all else the loop's.
 */
#ifndef FOREBAY_CORE_MAILBOX_H
#define FOREBAY_CORE_MAILBOX_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdatomic.h>

#include "core/base.h"

struct mail {
	struct mail *next;
	void (*deliver)(struct mail *m); /* on the loop's thread; may free or post m again */
};

struct mailbox {
	_Atomic(struct mail *) head;
	atomic_uint posting; /* threads inside mailbox_post just now: mailbox_done waits for them */
	int fd;              /* eventfd; -1: none */
	bool watched;        /* ev is added */
	bool *woken;         /* set before mails are delivered; NULL: nobody asks */
	struct event ev;
};

/* base may be NULL: then only mailbox_drain delivers (tests). Returns 0 or -errno. */
MUST_USE int mailbox_init(struct mailbox *m, struct event_base *base);

/* What was not delivered stays undelivered. Nobody may begin to post any more. Does nothing when fd is -1. */
void mailbox_done(struct mailbox *m);

/* Delivered once, in the order of posting among the mails of one thread. Wakes the loop only if the box was empty. */
void mailbox_post(struct mailbox *m, struct mail *mail);

/* The same from the loop's own thread, without asking the kernel to wake it. */
void mailbox_post_here(struct mailbox *m, struct mail *mail);

/* Delivers all that is there now. Returns how many. */
size_t mailbox_drain(struct mailbox *m);

#endif
