#include "core/body_store.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define BLOCK_MIN 4096u /* of memory; the last of a known length may be smaller */

/* Memory above memory_max that may wait for the disk. An own file is written in larger pieces: who fills it meanwhile does not stop. */
#define SLACK_BYTES          (64u << 10)
#define SLACK_OWN_BYTES      (256u << 10)
#define SLACK_OWN_EASY_BYTES (1u << 20)

bool body_charge(struct body *b, size_t n)
{
	if (!lease_take(&b->loop->lease, n))
		return false;
	b->charged += n;
	return true;
}

void body_uncharge(struct body *b, size_t n)
{
	b->charged -= n;
	lease_give(&b->loop->lease, n);
}

/* Segments */

struct segment *body_segment_new(struct body *b, enum segment_kind kind)
{
	struct segment *seg;

	if (!body_charge(b, sizeof(*seg)))
		return NULL;
	seg = pieces_take(&b->loop->pieces, sizeof(*seg));
	if (!seg) {
		body_uncharge(b, sizeof(*seg));
		return NULL;
	}
	*seg = (struct segment){ .kind = kind };
	return seg;
}

struct segment *body_block_new(struct body *b, size_t size)
{
	struct segment *seg = body_segment_new(b, SEGMENT_MEMORY);

	if (!seg)
		return NULL;
	if (body_charge(b, size)) {
		seg->block.ptr = size == LOOP_BLOCK_BYTES ? loop_block_take(b->loop) : malloc(size);
		if (seg->block.ptr) {
			seg->block.size = size;
			return seg;
		}
		body_uncharge(b, size);
	}
	pieces_give(&b->loop->pieces, seg, sizeof(*seg));
	body_uncharge(b, sizeof(*seg));
	return NULL;
}

void body_block_free(struct body *b, struct segment *seg)
{
	if (seg->block.size == LOOP_BLOCK_BYTES)
		loop_block_give(b->loop, seg->block.ptr);
	else
		free(seg->block.ptr);
	body_uncharge(b, seg->block.size);
	if (seg->len > 0)
		b->memory -= seg->block.size;
}

static void close_foreign(struct body *b, int *fd)
{
	/* The last close of a removed file is disk work. */
	if (b->loop->spool)
		spool_close(b->loop->spool, fd);
	else
		close(*fd);
	*fd = -1;
}

void body_segment_free(struct body *b, struct segment *seg)
{
	assert(!seg->writing && !seg->reading);
	switch (seg->kind) {
	case SEGMENT_MEMORY:
		body_block_free(b, seg);
		break;
	case SEGMENT_EXTENT:
		spool_extent_give(b->loop->spool, &seg->extent, seg->handed_out);
		break;
	case SEGMENT_OWN:
		break;
	case SEGMENT_FOREIGN:
		close_foreign(b, &seg->foreign.fd);
		break;
	}
	pieces_give(&b->loop->pieces, seg, sizeof(*seg));
	body_uncharge(b, sizeof(*seg));
}

struct segment *body_first_unwritten(struct segment *seg)
{
	while (seg && (seg->kind != SEGMENT_MEMORY || seg->writing))
		seg = TAILQ_NEXT(seg, link);
	return seg;
}

void body_segment_remove(struct body *b, struct segment *seg)
{
	if (seg == b->unwritten)
		b->unwritten = body_first_unwritten(TAILQ_NEXT(seg, link));
	if (seg->kind == SEGMENT_MEMORY && !seg->writing)
		b->memory_unwritten -= seg->block.size;
	TAILQ_REMOVE(&b->segments, seg, link);
	b->version++;
	body_segment_free(b, seg);
}

void body_trim(struct body *b)
{
	struct segment *seg;

	/* The analyzer does not see that TAILQ_REMOVE() gives the list another first. */
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
	while ((seg = TAILQ_FIRST(&b->segments)) && seg->at + seg->len <= b->dropped && !seg->writing && !seg->reading)
		body_segment_remove(b, seg);
}

/* Life */

static void give_up_room(struct body *b)
{
	struct segment *seg;

	while ((seg = TAILQ_FIRST(&b->reserve))) {
		TAILQ_REMOVE(&b->reserve, seg, link);
		body_segment_free(b, seg);
	}
}

static bool is_busy(const struct body *b)
{
	return b->write.busy || b->read.busy || b->news_posted || b->telling;
}

/* Frees what no job needs, and the body once there is no job. */
static void destroy(struct body *b)
{
	struct loop *loop = b->loop;
	struct segment *seg, *next;
	size_t charged;

	for (seg = TAILQ_FIRST(&b->segments); seg; seg = next) {
		next = TAILQ_NEXT(seg, link);
		if (!seg->writing && !seg->reading)
			body_segment_remove(b, seg);
	}
	if (is_busy(b))
		return;
	if (b->own)
		spool_file_give(loop->spool, &b->own_fd, b->own_charged);
	charged = b->charged;
	assert(TAILQ_EMPTY(&b->segments) && b->memory == 0 && charged == sizeof(*b));
	pieces_give(&loop->pieces, b, sizeof(*b));
	lease_give(&loop->lease, charged);
}

static void on_news_mail(struct mail *m)
{
	struct body *b = CONTAINER_OF(m, struct body, news_mail);

	b->news_posted = false;
	body_tell(b);
}

int body_new(struct loop *loop, const struct body_options *o, struct body **ret)
{
	struct body *b;

	if (!lease_take(&loop->lease, sizeof(*b)))
		return -ENOMEM;
	b = pieces_take(&loop->pieces, sizeof(*b));
	if (!b) {
		lease_give(&loop->lease, sizeof(*b));
		return -ENOMEM;
	}
	memset(b, 0, offsetof(struct body, write.iov));
	b->loop = loop;
	b->options = *o;
	b->charged = sizeof(*b);
	b->own_fd = -1;
	b->news_mail.deliver = on_news_mail;
	TAILQ_INIT(&b->segments);
	TAILQ_INIT(&b->reserve);
	*ret = b;
	return 0;
}

void body_free(struct body **body)
{
	struct body *b = *body;

	if (!b)
		return;
	*body = NULL;
	b->freed = true;
	b->news = 0;
	give_up_room(b);
	destroy(b);
}

void body_set_events(struct body *b, const struct body_events *events, void *ctx)
{
	b->options.events = events;
	b->options.ctx = ctx;
}

/* Events */

static void call(struct body *b, void (*event)(void *ctx))
{
	if (event && !b->freed)
		event(b->options.ctx);
}

static void tell_failure(struct body *b)
{
	const struct body_events *events = b->options.events;

	if (events && events->failed)
		events->failed(b->options.ctx, b->failure);
}

/* Each event may free the body or change its owner: nothing is remembered from one to the next. */
static void tell_news(struct body *b, unsigned news)
{
	if (b->failure) {
		if (news & NEWS_FAILED)
			tell_failure(b);
		return;
	}
	if (news & NEWS_READY)
		call(b, b->options.events ? b->options.events->ready : NULL);
	/* Room that was used up before it could be told is no news. */
	if ((news & NEWS_SETTLED) || ((news & NEWS_ROOM) && !body_full(b)))
		call(b, b->options.events ? b->options.events->room : NULL);
}

void body_tell(struct body *b)
{
	unsigned news = b->news;

	b->news = 0;
	if (!b->freed && news) {
		b->telling = true;
		tell_news(b, news);
		b->telling = false;
	}
	if (b->freed)
		destroy(b);
}

void body_note(struct body *b, unsigned news)
{
	b->news |= news;
	if (body_full(b)) {
		b->was_full = true;
	} else if (b->was_full) {
		b->was_full = false;
		b->news |= NEWS_ROOM;
	}
}

void body_look(struct body *b, unsigned news)
{
	body_note(b, news);
	if (b->news && !b->news_posted) {
		b->news_posted = true;
		mailbox_post_here(&b->loop->mailbox, &b->news_mail);
	}
}

void body_fail(struct body *b, int err)
{
	if (b->failure)
		return;
	b->failure = err;
	body_look(b, NEWS_FAILED);
}

/* Appending */

static size_t power_of_two(size_t n)
{
	size_t p = BODY_BLOCK_MIN;

	while (p < n && p < BODY_BLOCK_MAX)
		p *= 2;
	return p;
}

struct segment *body_open_tail(const struct body *b)
{
	struct segment *tail = TAILQ_LAST(&b->segments, segment_list);

	if (!tail || tail->kind != SEGMENT_MEMORY || tail->writing || tail->len == tail->block.size)
		return NULL;
	return tail;
}

/* Bytes known to come after those appended and `more`; 0: unknown or none. */
static uint64_t still_expected(const struct body *b, uint64_t more)
{
	uint64_t have = b->appended + more;

	return b->options.expected > have ? b->options.expected - have : 0;
}

/*
 * The block for the next `need` bytes of room, `more` of which are in blocks already. A body of unknown length starts
 * small and doubles, so that it never holds much more than its content.
 */
static size_t room_block_bytes(const struct body *b, size_t need, size_t more)
{
	uint64_t known = still_expected(b, more), have = b->appended + more;

	return power_of_two((size_t)MIN((uint64_t)need, known ? known : MAX(have, (uint64_t)BLOCK_MIN)));
}

static size_t append_block_bytes(const struct body *b, size_t need, size_t more)
{
	uint64_t known = still_expected(b, more), have = b->appended + more;
	uint64_t grow = known ? MIN(known, have) : have;

	return power_of_two((size_t)MIN(MAX((uint64_t)need, grow), (uint64_t)BODY_BLOCK_MAX));
}

/* Where there is no memory for so large a block, a smaller one: whoever waited for all of it could wait for ever. */
static struct segment *block_that_fits(struct body *b, size_t size)
{
	struct segment *seg = body_block_new(b, size);

	while (!seg && size > BLOCK_MIN) {
		size /= 2;
		seg = body_block_new(b, size);
	}
	return seg;
}

/* A piece of room, from the tail or a block of the reserve. */
static size_t room_piece(struct segment *seg, size_t want, struct iovec *ret)
{
	*ret = (struct iovec){ seg->block.ptr + seg->len, MIN(seg->block.size - seg->len, want) };
	return ret->iov_len;
}

int body_room(struct body *b, size_t want, struct iovec *iov, int iov_max)
{
	struct segment *tail;
	size_t have = 0;
	int count = 0;

	assert(!b->finished && iov_max > 0);
	if (b->failure)
		return b->failure;
	want = MAX(want, (size_t)1);
	give_up_room(b);
	tail = body_open_tail(b);
	if (tail)
		have = room_piece(tail, want, &iov[count++]);
	while (have < want && count < iov_max) {
		struct segment *seg = block_that_fits(b, room_block_bytes(b, want - have, have));

		if (!seg)
			break;
		TAILQ_INSERT_TAIL(&b->reserve, seg, link);
		have += room_piece(seg, want - have, &iov[count++]);
	}
	return count > 0 ? count : -ENOMEM;
}

/* A block of the reserve gets content and its place. */
static struct segment *add_block(struct body *b)
{
	struct segment *seg = TAILQ_FIRST(&b->reserve);

	assert(seg);
	TAILQ_REMOVE(&b->reserve, seg, link);
	seg->at = b->appended;
	TAILQ_INSERT_TAIL(&b->segments, seg, link);
	b->memory += seg->block.size;
	b->memory_unwritten += seg->block.size;
	if (!b->unwritten)
		b->unwritten = seg;
	return seg;
}

/* Makes n bytes of tail and reserve content: those of `from`, or what was read into the room if that is NULL. */
static void take_in(struct body *b, const char *from, size_t n)
{
	struct segment *seg = body_open_tail(b);

	while (n > 0) {
		size_t part;

		if (!seg)
			seg = add_block(b);
		part = (size_t)MIN((uint64_t)n, seg->block.size - seg->len);
		if (from) {
			memcpy(seg->block.ptr + seg->len, from, part);
			from += part;
		}
		seg->len += part;
		b->appended += part;
		n -= part;
		seg = NULL;
	}
}

static void appended(struct body *b)
{
	give_up_room(b);
	body_write_on(b);
	body_look(b, 0);
}

void body_commit(struct body *b, size_t n)
{
	take_in(b, NULL, n);
	appended(b);
}

/* Tail and reserve for n bytes. */
static int reserve(struct body *b, size_t n)
{
	const struct segment *tail = body_open_tail(b);
	size_t have = tail ? (size_t)(tail->block.size - tail->len) : 0;

	give_up_room(b);
	while (have < n) {
		struct segment *seg = block_that_fits(b, append_block_bytes(b, n - have, have));

		if (!seg) {
			give_up_room(b);
			return -ENOMEM;
		}
		TAILQ_INSERT_TAIL(&b->reserve, seg, link);
		have += seg->block.size;
	}
	return 0;
}

int body_append(struct body *b, struct slice bytes)
{
	int err;

	assert(!b->finished);
	if (b->failure)
		return b->failure;
	err = reserve(b, bytes.len);
	if (err)
		return err;
	take_in(b, bytes.ptr, bytes.len);
	appended(b);
	return b->failure;
}

int body_append_file(struct body *b, int *fd, uint64_t offset, uint64_t len)
{
	struct segment *seg = NULL;
	int err = b->failure;

	assert(!b->finished);
	give_up_room(b);
	if (!err && len > 0) {
		seg = body_segment_new(b, SEGMENT_FOREIGN);
		if (!seg)
			err = -ENOMEM;
	}
	if (!seg) {
		close_foreign(b, fd);
		return err;
	}
	seg->foreign.fd = *fd;
	seg->foreign.offset = (off_t)offset;
	*fd = -1;
	seg->at = b->appended;
	seg->len = len;
	TAILQ_INSERT_TAIL(&b->segments, seg, link);
	b->appended += len;
	return 0;
}

/* A last block that is more than half empty gives that back. */
static void shrink_tail(struct body *b)
{
	struct segment *tail = body_open_tail(b);
	size_t size;
	char *ptr;

	if (!tail)
		return;
	size = power_of_two((size_t)tail->len);
	if (size > tail->block.size / 2)
		return;
	ptr = tail->block.size == LOOP_BLOCK_BYTES ? malloc(size) : realloc(tail->block.ptr, size);
	if (!ptr)
		return;
	if (tail->block.size == LOOP_BLOCK_BYTES) {
		memcpy(ptr, tail->block.ptr, (size_t)tail->len);
		loop_block_give(b->loop, tail->block.ptr);
	}
	body_uncharge(b, tail->block.size - size);
	b->memory -= tail->block.size - size;
	b->memory_unwritten -= tail->block.size - size;
	tail->block.ptr = ptr;
	tail->block.size = size;
}

/* For its descriptor to be handed on, all of an own file's body must be there, unless all is still in memory and may stay. */
static bool wants_whole_file(const struct body *b)
{
	return b->options.own_file && (b->spooled || b->memory > b->options.memory_max);
}

void body_finish(struct body *b)
{
	b->finished = true;
	give_up_room(b);
	shrink_tail(b);
	if (wants_whole_file(b)) {
		b->spill_to = b->appended;
		b->own_refused = false; /* it is urgent now */
	}
	body_write_on(b);
	body_look(b, 0);
}

void body_drop(struct body *b, uint64_t offset)
{
	assert(offset <= b->appended);
	if (offset <= b->dropped)
		return;
	b->dropped = offset;
	give_up_room(b);
	body_trim(b);
	body_look(b, 0);
}

/* What it says about itself */

bool body_is_finished(const struct body *b)
{
	return b->finished;
}

bool body_full(const struct body *b)
{
	bool easy = budget_pressure(b->loop->lease.budget) == BUDGET_EASY;
	size_t slack = !b->own ? SLACK_BYTES : easy ? SLACK_OWN_EASY_BYTES : SLACK_OWN_BYTES;

	return b->memory > b->options.memory_max && b->memory - b->options.memory_max > slack;
}

uint64_t body_bytes(const struct body *b)
{
	return b->appended;
}

uint64_t body_bytes_dropped(const struct body *b)
{
	return b->dropped;
}

size_t body_memory(const struct body *b)
{
	return b->charged;
}

bool body_was_spooled(const struct body *b)
{
	return b->spooled;
}

int body_failure(const struct body *b)
{
	return b->failure;
}

bool body_settled(const struct body *b)
{
	return !b->write.busy;
}
