/*
 * body_spill: what of a body goes to the spool, and when.
 * Blocks stay readable in memory until a spool thread has said that they are written; then the list has a place on disk instead.
 */
#include "core/body_store.h"

#define WORTH_BYTES     (4u << 10) /* of memory: less is not worth a write */
#define OWN_WRITE_BYTES (1u << 20)

/* Starting */

/* Chooses the own file where there is one, or should and can be one. */
static void choose_file(struct body *b)
{
	struct spool *spool = b->loop->spool;
	uint64_t large = spool_own_file_bytes(spool);

	if (b->own || b->own_refused)
		return;
	if (!b->options.own_file && b->options.expected <= large && b->appended <= large)
		return;
	b->own = spool_file_take(spool, b->options.own_file && b->finished) == 0;
	b->own_refused = !b->own;
}

/* More than may stay in memory, or asked for. An open tail is left to grow, unless it was asked for. */
static bool wants_write(const struct body *b, const struct segment *seg)
{
	if (seg->at < b->spill_to)
		return true;
	return b->memory_unwritten > b->options.memory_max && seg != body_open_tail(b);
}

/* Collects neighbouring blocks from b->unwritten on, into write.iov. */
static void collect(struct body *b, uint64_t bytes_max)
{
	struct body_write *w = &b->write;
	struct segment *seg = b->unwritten;

	w->first = seg;
	w->bytes = 0;
	w->job.iov_count = 0;
	while (seg && seg->kind == SEGMENT_MEMORY && w->job.iov_count < BODY_WRITE_PIECES) {
		if (w->bytes + seg->len > bytes_max || (seg == body_open_tail(b) && seg->at >= b->spill_to))
			break;
		w->iov[w->job.iov_count++] = (struct iovec){ seg->block.ptr, (size_t)seg->len };
		w->bytes += seg->len;
		w->last = seg;
		seg = TAILQ_NEXT(seg, link);
	}
}

/* Room for `first` in the extent of the segment before it, so that a trickle does not cost an extent a drop. */
static struct segment *extent_before(const struct segment *first)
{
	struct segment *before = TAILQ_PREV(first, segment_list, link);

	if (!before || before->kind != SEGMENT_EXTENT || before->len + first->len > SPOOL_EXTENT_BYTES)
		return NULL;
	return before;
}

/* The job goes to that place in the own file, and makes it if there is none. */
static int aim_at_own_file(struct body *b, uint64_t at, uint64_t bytes)
{
	struct spool_job *job = &b->write.job;
	int err = spool_file_charge(b->loop->spool, bytes);

	if (err)
		return err;
	b->own_charged += bytes;
	job->fd = b->own_fd;
	job->make_file = b->own_fd == -1;
	job->offset = (off_t)at;
	return 0;
}

static int place_in_own_file(struct body *b)
{
	struct body_write *w = &b->write;

	w->own = true;
	w->into = NULL;
	collect(b, OWN_WRITE_BYTES);
	return aim_at_own_file(b, w->first->at, w->bytes);
}

static int place_in_extent(struct body *b)
{
	struct body_write *w = &b->write;
	uint64_t used = 0;
	int err;

	w->own = false;
	w->into = extent_before(b->unwritten);
	if (w->into) {
		w->extent = w->into->extent;
		used = w->into->len;
	} else {
		err = spool_extent_take(b->loop->spool, &w->extent);
		if (err)
			return err;
	}
	collect(b, SPOOL_EXTENT_BYTES - used);
	w->job.fd = w->extent.fd;
	w->job.make_file = false;
	w->job.offset = w->extent.offset + (off_t)used;
	return 0;
}

/* Sets or clears `writing` for all that the write is about. */
static void mark(struct body *b, bool writing)
{
	struct body_write *w = &b->write;

	if (w->into)
		w->into->writing = writing;
	for (struct segment *seg = w->first; seg != TAILQ_NEXT(w->last, link); seg = TAILQ_NEXT(seg, link)) {
		seg->writing = writing;
		if (writing)
			b->memory_unwritten -= seg->block.size;
		else
			b->memory_unwritten += seg->block.size;
	}
}

static void on_written(struct spool_job *job);
static void on_copied(struct spool_job *job);
static void on_arena(struct spool_job *job);

static void submit(struct body *b)
{
	b->write.busy = true;
	b->write.job.reply = &b->loop->mailbox;
	b->write.job.len = (size_t)b->write.bytes;
	b->loop->awaited++;
	spool_submit(b->loop->spool, &b->write.job);
}

/* There is no place yet, and to make one takes a disk's time: the blocks wait as they would for a write. */
static int start_arena(struct body *b)
{
	struct body_write *w = &b->write;

	w->bytes = 0;
	w->job.make_file = false;
	w->job.what = SPOOL_ARENA;
	w->job.done = on_arena;
	submit(b);
	return 0;
}

static int start_write(struct body *b)
{
	struct body_write *w = &b->write;
	int err;

	choose_file(b);
	err = b->own ? place_in_own_file(b) : place_in_extent(b);
	if (err == -EAGAIN)
		return start_arena(b);
	if (err)
		return err;
	assert(w->job.iov_count > 0);
	mark(b, true);
	b->unwritten = body_first_unwritten(TAILQ_NEXT(w->last, link));
	b->spooled = true;
	w->job.iov = w->iov;
	w->job.what = SPOOL_WRITE;
	w->job.done = on_written;
	submit(b);
	return 0;
}

/* What must be in one file, but went to extents while there were too many files, moves when all of it has come. */
static struct segment *misplaced(const struct body *b)
{
	struct segment *seg;

	if (!b->finished || !b->options.own_file || b->own_refused || b->dropped > 0)
		return NULL;
	TAILQ_FOREACH(seg, &b->segments, link)
	{
		if (seg->kind == SEGMENT_EXTENT)
			return seg;
	}
	return NULL;
}

static int start_copy(struct body *b, struct segment *seg)
{
	struct body_write *w = &b->write;
	int err;

	choose_file(b);
	if (!b->own)
		return 0;
	err = aim_at_own_file(b, seg->at, seg->len);
	if (err)
		return err;
	seg->writing = true;
	w->copied = seg;
	w->bytes = seg->len;
	w->job.from_fd = seg->extent.fd;
	w->job.from_offset = seg->extent.offset;
	w->job.what = SPOOL_COPY;
	w->job.done = on_copied;
	submit(b);
	return 0;
}

void body_write_on(struct body *b)
{
	struct segment *seg;
	int err = 0;

	if (b->write.busy || b->failure || b->freed || b->options.memory_only || !b->loop->spool)
		return;
	if (b->unwritten && wants_write(b, b->unwritten))
		err = start_write(b);
	else if ((seg = misplaced(b)))
		err = start_copy(b, seg);
	if (err)
		body_fail(b, err);
}

void body_spill(struct body *b)
{
	if (b->memory_unwritten < WORTH_BYTES)
		return;
	b->spill_to = b->appended;
	body_write_on(b);
}

/* Ending */

/* The segment that stands for what was written: one that grows, or the first of the run. */
static struct segment *place_of(const struct body_write *w)
{
	struct segment *before = TAILQ_PREV(w->first, segment_list, link);

	if (w->into)
		return w->into;
	return w->own && before && before->kind == SEGMENT_OWN ? before : w->first;
}

/* Puts the place on disk where the blocks were, and frees these. */
static void replace_blocks(struct body *b)
{
	struct body_write *w = &b->write;
	struct segment *place = place_of(w), *end = TAILQ_NEXT(w->last, link), *next;

	if (w->into)
		w->into->writing = false;
	for (struct segment *seg = w->first; seg != end; seg = next) {
		next = TAILQ_NEXT(seg, link);
		body_block_free(b, seg);
		seg->writing = false;
		seg->kind = SEGMENT_OWN; /* holds nothing any more */
		if (seg != place)
			body_segment_remove(b, seg);
	}
	if (place != w->first) {
		place->len += w->bytes;
		return;
	}
	place->len = w->bytes;
	if (!w->own) {
		place->kind = SEGMENT_EXTENT;
		place->extent = w->extent;
	}
}

/* The blocks stay what they were: the body is useless, but its reader's pieces are still there. */
static void give_up_write(struct body *b)
{
	struct body_write *w = &b->write;

	mark(b, false);
	b->unwritten = w->first;
	if (!w->own && !w->into)
		spool_extent_give(b->loop->spool, &w->extent, false);
}

/* May free the body. */
static void ended(struct body *b, int result)
{
	if (!b->freed && result < 0)
		body_fail(b, result);
	body_trim(b);
	body_write_on(b);
	body_note(b, b->write.busy ? 0 : NEWS_SETTLED);
	body_tell(b);
}

/* The file that the job may have made, and the job's result. To have no descriptor for a file is no failure: extents do. */
static int take_file(struct body *b, const struct spool_job *job)
{
	if (!job->make_file)
		return job->result;
	b->own_fd = job->fd;
	if (b->own_fd != -1)
		return job->result;
	spool_file_give(b->loop->spool, &b->own_fd, b->own_charged);
	b->own = false;
	b->own_charged = 0;
	b->own_refused = true;
	return job->result == -EMFILE || job->result == -ENFILE ? 0 : job->result;
}

static void on_copied(struct spool_job *job)
{
	struct body *b = CONTAINER_OF(job, struct body, write.job);
	struct segment *seg = b->write.copied, *before = TAILQ_PREV(seg, segment_list, link);

	b->loop->awaited--;
	b->write.busy = false;
	seg->writing = false;
	if (job->result == 0 && !b->freed) {
		spool_extent_give(b->loop->spool, &seg->extent, seg->handed_out);
		seg->kind = SEGMENT_OWN;
		if (before && before->kind == SEGMENT_OWN && !seg->reading) {
			before->len += seg->len;
			body_segment_remove(b, seg);
		}
	}
	ended(b, take_file(b, job));
}

static void on_written(struct spool_job *job)
{
	struct body *b = CONTAINER_OF(job, struct body, write.job);

	b->loop->awaited--;
	b->write.busy = false;
	if (job->result < 0 || b->freed)
		give_up_write(b);
	else
		replace_blocks(b);
	ended(b, take_file(b, job));
}

static void on_arena(struct spool_job *job)
{
	struct body *b = CONTAINER_OF(job, struct body, write.job);

	b->loop->awaited--;
	b->write.busy = false;
	ended(b, job->result);
}
