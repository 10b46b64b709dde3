/*
 * body_store: a body's struct and its list of segments, shared by body.c (append, drop), body_spill.c (write) and body_read.c.
 * Nobody else includes this.
 */
#ifndef FOREBAY_CORE_BODY_STORE_H
#define FOREBAY_CORE_BODY_STORE_H

#include <sys/queue.h>

#include "core/body.h"
#include "core/spool.h"

#define BODY_BLOCK_MIN    (1u << 10)
#define BODY_BLOCK_MAX    LOOP_BLOCK_BYTES
#define BODY_WINDOW_BYTES (256u << 10) /* of a file, looked at and read in at once */
#define BODY_WRITE_PIECES 16           /* blocks written by one job: up to 1M */

enum segment_kind {
	SEGMENT_MEMORY,
	SEGMENT_EXTENT,
	SEGMENT_OWN, /* in the body's own file, at the offset that it has in the body */
	SEGMENT_FOREIGN,
};

/* A run of a body's bytes that lie in one place. */
struct segment {
	TAILQ_ENTRY(segment) link;
	uint64_t at;  /* offset of its first byte in the body */
	uint64_t len; /* content bytes, never 0 on the body's list */
	enum segment_kind kind;
	bool writing, reading; /* part of the job that is under way: must not go away */
	bool handed_out;       /* an extent that body_peek has named: sockets may still hold its pages */
	union {
		struct {
			char *ptr;
			size_t size; /* bytes */
		} block;
		struct extent extent;
		struct {
			int fd;
			off_t offset;
		} foreign;
	};
};

TAILQ_HEAD(segment_list, segment);

/* What the owner has still to be told. */
enum body_news {
	NEWS_ROOM = 1 << 0,    /* full no more */
	NEWS_SETTLED = 1 << 1, /* the last write has ended: told as room, too */
	NEWS_READY = 1 << 2,
	NEWS_FAILED = 1 << 3,
};

/* One write is under way at most, and one read: so the jobs lie here and cost nothing when memory is short. */
struct body_write {
	struct spool_job job;
	bool busy;
	struct segment *first, *last; /* what is written; before `first`: `into` */
	struct segment *into;         /* a segment with an extent that has room for these; NULL: `extent` is new */
	struct extent extent;
	struct segment *copied; /* from its extent to the own file, instead of all that */
	bool own;               /* to the own file */
	uint64_t bytes;
	struct iovec iov[BODY_WRITE_PIECES]; /* of the job */
};

struct body_read {
	struct spool_job job;
	bool busy;
	struct segment *segment;
	uint64_t from, to; /* of the body: what is, or was last, read in */
	bool fresh;        /* was read in and not yet looked at since */
};

struct body {
	struct loop *loop;
	struct body_options options;
	struct segment_list segments;
	struct segment_list reserve; /* empty blocks, given out as room */
	struct segment *unwritten;   /* the first in memory that is not being written */
	uint64_t appended, dropped;  /* bytes */
	uint64_t version;            /* changes when a segment goes away */
	size_t charged;              /* bytes, of the loop's lease */
	size_t memory;               /* bytes of blocks with content */
	size_t memory_unwritten;     /* of these, bytes that no write is under way for */
	uint64_t spill_to;           /* what lies before this offset is to be written in any case */
	bool own;                    /* has a file of its own, or is to have one */
	int own_fd;                  /* -1: it is not made yet */
	uint64_t own_charged;        /* bytes, of the spool's limit */
	bool own_refused;            /* there were too many own files: extents from then on */
	bool finished, spooled;
	bool was_full;
	bool freed; /* by its owner; waits for its jobs */
	int failure;
	unsigned news; /* enum body_news */
	bool news_posted, telling;
	struct mail news_mail;
	struct body_read read;
	struct body_write
	    write; /* its `iov` has no meaning before the first write: most bodies have none, and do not clear it */
};

/* Charges and gives back. */
MUST_USE bool body_charge(struct body *b, size_t n);
void body_uncharge(struct body *b, size_t n);

/* A segment without place in the list, or NULL at the ceiling. */
struct segment *body_segment_new(struct body *b, enum segment_kind kind);

/* An empty block of memory likewise. */
struct segment *body_block_new(struct body *b, size_t size);

/* Frees what the segment holds (not an own file's bytes) and the segment; it is on no list and has no job. */
void body_segment_free(struct body *b, struct segment *seg);

/* Only the block of a memory segment. */
void body_block_free(struct body *b, struct segment *seg);

/* Takes the segment from the list and frees it. */
void body_segment_remove(struct body *b, struct segment *seg);

/* Frees what was dropped and can go now. */
void body_trim(struct body *b);

/* The last segment, if bytes can be added to it; else NULL. */
struct segment *body_open_tail(const struct body *b);

/* The first segment at or after seg that is in memory and that nothing is written of. */
struct segment *body_first_unwritten(struct segment *seg);

/* Adds to the news, and looks whether the body is full no more. */
void body_note(struct body *b, unsigned news);

/* The same from within an owner's call: what is new is told from the loop. */
void body_look(struct body *b, unsigned news);

/* Tells at once what there is to tell: the last thing that a job's end does. May free b. */
void body_tell(struct body *b);

/* The first failure is the body's. */
void body_fail(struct body *b, int err);

/* Writes on, if there is something to write and no write is under way. */
void body_write_on(struct body *b);

#endif
