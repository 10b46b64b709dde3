/*
 * body: the bytes of one message's content: appended at one end, read at the other, hot part in memory, cold part in the spool.
 * Owns:   its blocks of memory, its extents and files, and what of them is charged to the loop's lease.
 * Never:  blocks; knows what the bytes mean; calls back from within a call of its owner's.
 * Thread: its loop's.
 */
#ifndef FOREBAY_CORE_BODY_H
#define FOREBAY_CORE_BODY_H

#include <sys/uio.h>

#include "core/loop.h"
#include "core/slice.h"

struct body;

/* What the owner wants to hear. Each is called from the loop, never from within a body_ call. */
struct body_events {
	void (*room)(void *ctx);  /* was full, is not any more */
	void (*ready)(void *ctx); /* what body_peek called BODY_COLD can be read now */
	void (*failed)(
	    void *ctx, int err); /* a write or read of the spool failed: -ENOSPC, -EIO. The body is useless from here on */
};

struct body_options {
	size_t memory_max; /* bytes kept in memory; above, they go to the spool */
	uint64_t expected; /* bytes, if known; 0: unknown. Decides block sizes and the kind of file */
	bool own_file;     /* spool to a file that holds this body only, so that its descriptor can be handed on */
	bool memory_only;  /* never spools: a stream. body_full() says when its reader is behind */
	const struct body_events *events; /* borrowed for the body's life */
	void *ctx;
};

MUST_USE int body_new(struct loop *loop, const struct body_options *o, struct body **ret);

/* At any time, also with reads and writes under way: these end by themselves and no event comes any more. NULL is fine. */
void body_free(struct body **b);

/* A new owner, for a body that outlives its first. */
void body_set_events(struct body *b, const struct body_events *events, void *ctx);

/*
 * Appending. A body takes what it is given as long as memory and spool have room, so that bytes already read from a socket
 * are not lost; the one who appends asks body_full() before it reads more, and goes on at `room`.
 */

/* Up to iov_max pieces of memory of `want` bytes together at most (at least one byte): read into them, then commit. Returns
 * the number of pieces, or -ENOMEM (ceiling), or the body's failure. */
MUST_USE int body_room(struct body *b, size_t want, struct iovec *iov, int iov_max);

/* The first n bytes of the room are content now; the rest of the room is given up. */
void body_commit(struct body *b, size_t n);

/* All or nothing: 0, -ENOMEM, or the body's failure. */
MUST_USE int body_append(struct body *b, struct slice bytes);

/* A piece of a regular file. Takes *fd (a read-only descriptor), also on failure. The caller has checked its size. */
MUST_USE int body_append_file(struct body *b, int *fd, uint64_t offset, uint64_t len);

/* No more will come. */
void body_finish(struct body *b);

bool body_is_finished(const struct body *b);

/* More in memory than it should hold: stop appending until `room`. */
bool body_full(const struct body *b);

uint64_t body_bytes(const struct body *b);         /* ever appended */
uint64_t body_bytes_dropped(const struct body *b); /* given up by body_drop */
size_t body_memory(const struct body *b);          /* bytes charged to the lease just now */
bool body_was_spooled(const struct body *b);
int body_failure(const struct body *b); /* 0 or -errno, sticky */

/*
 * Starts to write what is in memory to the spool, as much as is worth it (small rests stay). For bodies that wait on a
 * client, and under memory pressure. Does nothing to a memory_only one.
 */
void body_spill(struct body *b);

/* Reading. A cursor is a place in one body; several may exist; each is an ordinary struct of its owner's. */
struct body_cursor {
	struct body *body;
	uint64_t offset; /* from the body's first byte */
	void *segment;   /* body.c's: the segment at offset, a hint */
	uint64_t version;
};

void body_cursor_init(struct body_cursor *c, struct body *b);

enum body_peek {
	BODY_MEMORY, /* *ret_n pieces of memory */
	BODY_FILE,   /* a piece of a file, in the page cache as far as can be known: sendfile it */
	BODY_COLD,   /* on disk: is being read in since this call, `ready` will tell */
	BODY_WAIT,   /* the end of what has been appended so far; no event: who appends knows */
	BODY_END,    /* the end of a finished body */
	BODY_FAILED, /* body_failure() says why */
};

struct body_file {
	int fd; /* the body's */
	off_t offset;
	size_t len; /* at most 256K */
};

/* What can be read at the cursor. Pieces are valid until the body or cursor is changed. At most `max` bytes. */
enum body_peek body_peek(
    struct body_cursor *c, size_t max, struct iovec *iov, int iov_max, int *ret_n, struct body_file *ret_file);

/* n bytes were read. */
void body_advance(struct body_cursor *c, size_t n);

/* Bytes between the cursor and the end of what has been appended. */
uint64_t body_unread(const struct body_cursor *c);

/* Bytes before `offset` will not be read again; their memory, extents and files are freed where whole pieces allow. */
void body_drop(struct body *b, uint64_t offset);

/*
 * A fresh read-only descriptor of the whole finished body, for a worker: of the own file if all of it is there, else of a
 * sealed memfd filled from memory. *ret_fd is yours. 0, the body's failure, -EAGAIN (a write is under way: `room` comes when
 * body_settled), -ENODATA (part was dropped), -EXDEV (it lies in several places, as a body without own_file may, and any body
 * when there were too many own files when it finished: read it with a cursor), or -errno.
 */
MUST_USE int body_export(struct body *b, int *ret_fd);

/* No write is under way. `room` is also called when the last one has ended. */
bool body_settled(const struct body *b);

#endif
