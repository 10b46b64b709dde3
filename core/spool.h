/*
 * spool: where bytes go that memory is too dear for: arena files cut into extents, and own files for the largest bodies.
 * Owns:   the files (all without a name), the extents' map, the spool threads.
 * Never:  lets an event-loop thread wait for a disk. Interprets a byte.
 * Thread: spool_new and spool_free one; the rest any. body.c is its only caller but for start-up and figures.
 */
#ifndef FOREBAY_CORE_SPOOL_H
#define FOREBAY_CORE_SPOOL_H

#include <sys/types.h>
#include <sys/uio.h>

#include "core/mailbox.h"

#define SPOOL_EXTENT_BYTES (64u << 10)

struct spool_options {
	int dir_fd;              /* the spool directory; borrowed for the spool's life */
	uint64_t limit_bytes;    /* of everything on disk */
	uint64_t own_file_bytes; /* bodies above this get a file of their own */
	unsigned own_files_max;  /* at once; more go to the arenas */
	unsigned threads;        /* that read and write */
};

struct spool;

MUST_USE int spool_new(const struct spool_options *o, struct spool **ret);

/* Has the threads do what there is to do and end: no jobs any more, and nothing may be given back. */
void spool_stop(struct spool *s);

/* After spool_stop, which it does first; all extents and files must have been given back (asserted in debug builds). */
void spool_free(struct spool **s);

/* A place of SPOOL_EXTENT_BYTES in an arena. */
struct extent {
	int fd; /* the arena's; the spool's to close */
	uint32_t number;
	off_t offset;
};

/* Returns 0, -ENOSPC at spool_limit, or -EAGAIN: try again after a SPOOL_ARENA job. */
MUST_USE int spool_extent_take(struct spool *s, struct extent *ret);
/*
 * handed_out: sendfile() may have put its pages into a socket, which shows what is written to them later on. Such an extent is used again only
 * after a hole was punched where it was: the pages in flight then belong to nobody else.
 */
void spool_extent_give(struct spool *s, const struct extent *e, bool handed_out);

/*
 * The right to a file of its own, yours to give back with the bytes that were charged and the file, if it was made: by the first job, since that
 * can take a disk's time. -EMFILE when own_files_max were taken, or half as many and this one is not `urgent`: a body that is whole and must have
 * a file now. A spool thread closes the file: until then file and bytes count.
 */
MUST_USE int spool_file_take(struct spool *s, bool urgent);
void spool_file_give(struct spool *s, int *fd, uint64_t charged_bytes);

/*
 * A second, read-only open of an own file, with its own offset; *ret_fd is yours. No disk work where there is a /proc and the file system is a
 * local one (tried: ext4, while it is frozen).
 */
MUST_USE int spool_file_reopen(struct spool *s, int fd, int *ret_fd);

/* Takes *fd, any regular file's, and has a spool thread close it. */
void spool_close(struct spool *s, int *fd);
/* Bytes about to be written to an own file. 0 or -ENOSPC. Free extents give their disk back for them, where that is needed. */
MUST_USE int spool_file_charge(struct spool *s, uint64_t bytes);

uint64_t spool_own_file_bytes(const struct spool *s);

/*
 * One read, write or copy by a spool thread, or an arena that it adds if none has room. Yours from the call to its delivery at `reply`; done() runs
 * on that mailbox's thread.
 */
struct spool_job {
	struct mail mail; /* set by spool_submit */
	struct mailbox *reply;
	int fd;
	bool make_file; /* first: it has no name, fd is its read-write descriptor, yours, or -1 if that failed */
	off_t offset;
	struct iovec *iov; /* what is written; used up. SPOOL_READ has none: it reads into the page cache only */
	int iov_count;
	int from_fd; /* what is copied to fd and offset */
	off_t from_offset;
	size_t len; /* bytes; of a write: what iov holds together */
	enum { SPOOL_READ, SPOOL_WRITE, SPOOL_COPY, SPOOL_ARENA } what;
	int result; /* 0: all of it, or -errno; a short read is -EIO */
	void (*done)(struct spool_job *job);
	struct spool_job *next;
};
void spool_submit(struct spool *s, struct spool_job *job);

struct spool_figures {
	uint64_t bytes;     /* held, of limit_bytes */
	uint64_t extents;   /* in use */
	uint64_t own_files; /* not yet closed */
	uint64_t jobs;      /* waiting or at work */
	uint64_t errors;    /* jobs that failed, ever */
};
void spool_figures(struct spool *s, struct spool_figures *ret);

#endif
