/*
 * body_read: cursors, what lies at them, and the whole body as a descriptor.
 */
#include "core/body_store.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* Cursors */

void body_cursor_init(struct body_cursor *c, struct body *b)
{
	*c = (struct body_cursor){ .body = b };
}

void body_advance(struct body_cursor *c, size_t n)
{
	assert(n <= body_unread(c));
	c->offset += n;
}

uint64_t body_unread(const struct body_cursor *c)
{
	return c->body->appended - c->offset;
}

/* The segment that has the cursor's offset, or NULL at the end. The last one found is where the search begins. */
static struct segment *segment_at(struct body_cursor *c)
{
	struct body *b = c->body;
	struct segment *seg = c->version == b->version ? c->segment : NULL;

	if (!seg || seg->at > c->offset)
		seg = TAILQ_FIRST(&b->segments);
	while (seg && seg->at + seg->len <= c->offset)
		seg = TAILQ_NEXT(seg, link);
	c->segment = seg ? seg : TAILQ_LAST(&b->segments, segment_list);
	c->version = b->version;
	return seg;
}

/* Memory */

static int memory_pieces(const struct segment *seg, uint64_t offset, size_t max, struct iovec *iov, int iov_max)
{
	int count = 0;

	while (seg && seg->kind == SEGMENT_MEMORY && max > 0 && count < iov_max) {
		size_t skip = (size_t)(offset - seg->at);
		size_t len = MIN((size_t)seg->len - skip, max);

		iov[count++] = (struct iovec){ seg->block.ptr + skip, len };
		offset += len;
		max -= len;
		seg = TAILQ_NEXT(seg, link);
	}
	return count;
}

/* Files */

enum warmth { WARM, COLD, UNKNOWN, SHORT, BROKEN };

/* Where the body's byte at `offset` lies. */
static struct body_file file_place(const struct body *b, const struct segment *seg, uint64_t offset)
{
	off_t skip = (off_t)(offset - seg->at);

	switch (seg->kind) {
	case SEGMENT_EXTENT:
		return (struct body_file){ .fd = seg->extent.fd, .offset = seg->extent.offset + skip };
	case SEGMENT_FOREIGN:
		return (struct body_file){ .fd = seg->foreign.fd, .offset = seg->foreign.offset + skip };
	case SEGMENT_OWN:
	case SEGMENT_MEMORY:
		break;
	}
	return (struct body_file){ .fd = b->own_fd, .offset = (off_t)offset };
}

/* Is this one byte in the page cache? */
static enum warmth probe_byte(int fd, off_t offset)
{
	char byte;
	struct iovec iov = { &byte, 1 };
	ssize_t n;

	do
		n = preadv2(fd, &iov, 1, offset, RWF_NOWAIT);
	while (n == -1 && errno == EINTR);
	if (n >= 0)
		return n == 1 ? WARM : SHORT;
	if (errno == EAGAIN)
		return COLD;
	return errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL ? UNKNOWN : BROKEN;
}

static bool lives_in_memory(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* The ends stand for what is between them: read-ahead and eviction go by neighbours. */
static enum warmth probe(const struct body_file *f)
{
	enum warmth first = probe_byte(f->fd, f->offset);

	if (first == UNKNOWN && lives_in_memory(f->fd))
		return WARM;
	return first == WARM ? probe_byte(f->fd, f->offset + (off_t)f->len - 1) : first;
}

static bool is_read_in(const struct body_read *r, uint64_t offset)
{
	return !r->busy && offset >= r->from && offset < r->to;
}

static void on_read_in(struct spool_job *job)
{
	struct body *b = CONTAINER_OF(job, struct body, read.job);

	b->loop->awaited--;
	b->read.busy = false;
	b->read.fresh = true;
	b->read.segment->reading = false;
	if (!b->freed && job->result < 0)
		body_fail(b, job->result);
	body_trim(b);
	body_note(b, NEWS_READY);
	body_tell(b);
}

/* Has a spool thread read a window of the segment into the page cache. One at a time: at `ready`, all look again. */
static void read_in(struct body *b, struct segment *seg, uint64_t offset)
{
	struct body_read *r = &b->read;
	struct body_file place = file_place(b, seg, offset);

	if (r->busy)
		return;
	r->busy = true;
	r->segment = seg;
	seg->reading = true;
	r->from = offset;
	r->to = offset + MIN(seg->at + seg->len - offset, (uint64_t)BODY_WINDOW_BYTES);
	r->job = (struct spool_job){
		.reply = &b->loop->mailbox,
		.fd = place.fd,
		.offset = place.offset,
		.len = (size_t)(r->to - r->from),
		.what = SPOOL_READ,
		.done = on_read_in,
	};
	b->loop->awaited++;
	spool_submit(b->loop->spool, &r->job);
}

static enum body_peek hand_out(struct segment *seg)
{
	seg->handed_out = true;
	return BODY_FILE;
}

/*
 * What was just read in is taken at its word once: to look again could go on for ever when memory is short. Where one cannot
 * look, it is taken at its word for as long as the cursor is in it.
 */
static enum body_peek peek_file(struct body *b, struct segment *seg, uint64_t offset, size_t max, struct body_file *ret)
{
	bool was_read_in = is_read_in(&b->read, offset);
	enum warmth warmth;

	*ret = file_place(b, seg, offset);
	ret->len = (size_t)MIN(seg->at + seg->len - offset, (uint64_t)MIN(max, (size_t)BODY_WINDOW_BYTES));
	if (was_read_in)
		ret->len = (size_t)MIN((uint64_t)ret->len, b->read.to - offset);
	if (was_read_in && b->read.fresh) {
		b->read.fresh = false;
		return hand_out(seg);
	}
	warmth = b->loop->spool ? probe(ret) : WARM;
	switch (warmth) {
	case WARM:
		return hand_out(seg);
	case UNKNOWN:
		if (was_read_in)
			return hand_out(seg);
		break;
	case COLD:
		break;
	case SHORT:
	case BROKEN:
		body_fail(b, -EIO);
		return BODY_FAILED;
	}
	read_in(b, seg, offset);
	return BODY_COLD;
}

enum body_peek body_peek(
    struct body_cursor *c, size_t max, struct iovec *iov, int iov_max, int *ret_n, struct body_file *ret_file)
{
	struct body *b = c->body;
	struct segment *seg;

	assert(max > 0 && iov_max > 0 && c->offset <= b->appended);
	if (b->failure)
		return BODY_FAILED;
	assert(c->offset >= b->dropped);
	seg = segment_at(c);
	if (!seg)
		return b->finished ? BODY_END : BODY_WAIT;
	if (seg->kind != SEGMENT_MEMORY)
		return peek_file(b, seg, c->offset, max, ret_file);
	*ret_n = memory_pieces(seg, c->offset, max, iov, iov_max);
	return BODY_MEMORY;
}

/* The whole, for a worker */

static int new_memfd(void)
{
	int fd = memfd_create("body", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd == -1 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("body", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd == -1 ? -errno : fd;
}

static int write_segment(int fd, const struct segment *seg)
{
	size_t done = 0;

	while (done < seg->len) {
		ssize_t n = pwrite(fd, seg->block.ptr + done, (size_t)seg->len - done, (off_t)(seg->at + done));

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 ? -EIO : -errno;
		done += (size_t)n;
	}
	return 0;
}

static int export_memory(const struct body *b, int *ret_fd)
{
	const struct segment *seg;
	int fd = new_memfd(), err = 0;

	if (fd < 0)
		return fd;
	TAILQ_FOREACH(seg, &b->segments, link)
	{
		err = write_segment(fd, seg);
		if (err)
			break;
	}
	if (!err && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == -1)
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

static bool all_are(const struct body *b, enum segment_kind kind)
{
	const struct segment *seg;

	TAILQ_FOREACH(seg, &b->segments, link)
	{
		if (seg->kind != kind)
			return false;
	}
	return true;
}

int body_export(struct body *b, int *ret_fd)
{
	assert(b->finished);
	if (b->failure)
		return b->failure;
	if (b->dropped > 0)
		return -ENODATA;
	if (b->write.busy)
		return -EAGAIN;
	if (all_are(b, SEGMENT_MEMORY))
		return export_memory(b, ret_fd);
	return all_are(b, SEGMENT_OWN) ? spool_file_reopen(b->loop->spool, b->own_fd, ret_fd) : -EXDEV;
}
