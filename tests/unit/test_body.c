#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/body.h"
#include "core/spool.h"

#define K  (size_t)1024
#define E  SPOOL_EXTENT_BYTES
#define IO 4

/*
 * A spool folder that hangs, or fails: the linker puts this before the real openat(). While the gate is shut, who opens waits, and it must not
 * be the thread of the loop.
 */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool shut;
	int error; /* what openat() fails with; 0: it does not */
	unsigned waiting;
	pthread_t loop; /* its thread, while shut */
} gate = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

int __real_openat(int dir_fd, const char *name, int flags, mode_t mode);
int __wrap_openat(int dir_fd, const char *name, int flags, mode_t mode);

int __wrap_openat(int dir_fd, const char *name, int flags, mode_t mode)
{
	bool blocks;
	int error;

	pthread_mutex_lock(&gate.lock);
	blocks = gate.shut && pthread_equal(gate.loop, pthread_self());
	if (blocks)
		gate.shut = false;
	gate.waiting++;
	pthread_cond_broadcast(&gate.changed);
	while (gate.shut)
		pthread_cond_wait(&gate.changed, &gate.lock);
	gate.waiting--;
	error = gate.error;
	pthread_mutex_unlock(&gate.lock);
	if (blocks)
		fail_msg("the loop's thread waits for the disk");
	errno = error;
	return error ? -1 : __real_openat(dir_fd, name, flags, mode);
}

static void set_gate(bool shut, int error)
{
	pthread_mutex_lock(&gate.lock);
	gate.loop = pthread_self();
	gate.shut = shut;
	gate.error = error;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
}

static void wait_at_gate(unsigned n)
{
	pthread_mutex_lock(&gate.lock);
	while (gate.waiting < n)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
}

struct fixture {
	char dir[64];
	int dir_fd;
	struct budget budget;
	struct spool *spool;
	struct loop *loop;
	struct body *body, *other;
	unsigned room, ready, failed;
	int err;
	bool in_call; /* no event may come now */
	bool free_in_event;
	size_t lease_before;
};

static void on_event(struct fixture *f, unsigned *count)
{
	assert_false(f->in_call);
	(*count)++;
	if (f->free_in_event)
		body_free(&f->body);
}

static void on_room(void *ctx)
{
	on_event(ctx, &((struct fixture *)ctx)->room);
}

static void on_ready(void *ctx)
{
	on_event(ctx, &((struct fixture *)ctx)->ready);
}

static void on_failed(void *ctx, int err)
{
	struct fixture *f = ctx;

	f->err = err;
	on_event(f, &f->failed);
}

static const struct body_events events = { .room = on_room, .ready = on_ready, .failed = on_failed };

static int make_dir(struct fixture *f)
{
	strcpy(f->dir, "/tmp/forebay-body-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	f->dir_fd = open(f->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return f->dir_fd == -1 ? -1 : 0;
}

static int setup(void **state)
{
	*state = calloc(1, sizeof(struct fixture));
	return *state ? make_dir(*state) : -1;
}

static void make_with(struct fixture *f, size_t memory_bytes, uint64_t spool_bytes, unsigned own_files_max)
{
	const struct spool_options o = {
		.dir_fd = f->dir_fd,
		.limit_bytes = spool_bytes,
		.own_file_bytes = 1 << 20,
		.own_files_max = own_files_max,
		.threads = 2,
	};

	budget_init(&f->budget, memory_bytes);
	assert_int_equal(spool_new(&o, &f->spool), 0);
	assert_int_equal(loop_new(0, &clock_real, &f->budget, f->spool, &f->loop), 0);
}

static void make(struct fixture *f)
{
	make_with(f, 64 << 20, 256 << 20, 4);
}

/* Delivers until nothing is under way. */
static void settle(struct fixture *f)
{
	while (mailbox_drain(&f->loop->mailbox) > 0 || f->loop->awaited > 0) {
		struct pollfd p = { .fd = f->loop->mailbox.fd, .events = POLLIN };

		if (f->loop->awaited > 0)
			assert_int_equal(poll(&p, 1, 60000), 1);
	}
}

static struct spool_figures figures(struct fixture *f)
{
	struct spool_figures ret;

	spool_figures(f->spool, &ret);
	return ret;
}

/* All is given back, whatever the test did. */
static void unmake(struct fixture *f)
{
	struct spool_figures left;

	body_free(&f->other);
	body_free(&f->body);
	assert_null(f->body);
	settle(f);
	assert_int_equal(f->loop->lease.used, 0);
	/* Files are closed by the spool's threads. */
	do {
		left = figures(f);
		sched_yield();
	} while (left.own_files > 0);
	assert_int_equal(left.bytes, 0);
	assert_int_equal(left.extents, 0);
	assert_int_equal(left.jobs, 0);
	loop_free(&f->loop);
	assert_int_equal(atomic_load(&f->budget.leased), 0);
	spool_free(&f->spool);
	f->room = f->ready = f->failed = 0;
	f->free_in_event = false;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int err;

	if (f->loop)
		unmake(f);
	close(f->dir_fd);
	err = rmdir(f->dir);
	free(f);
	return err;
}

static void new_body(struct fixture *f, struct body_options o)
{
	o.events = &events;
	o.ctx = f;
	assert_int_equal(body_new(f->loop, &o, &f->body), 0);
}

/* The byte that stands at an offset: no two windows are alike. */
static char byte_at(uint64_t offset)
{
	return (char)((offset * 2654435761u) >> 16 ^ offset);
}

static void fill(char *to, uint64_t offset, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = byte_at(offset + i);
}

static void check_bytes(const char *got, uint64_t offset, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (got[i] != byte_at(offset + i))
			fail_msg("wrong byte at %" PRIu64, offset + i);
}

static int append(struct fixture *f, size_t n)
{
	char *bytes = malloc(n + 1);
	int err;

	assert_non_null(bytes);
	fill(bytes, body_bytes(f->body), n);
	f->in_call = true;
	err = body_append(f->body, slice_of(bytes, n));
	f->in_call = false;
	free(bytes);
	return err;
}

/* Appends n bytes the other way: room, then as much of it as is there. */
static int append_by_room(struct fixture *f, size_t n)
{
	struct iovec iov[IO];
	uint64_t at = body_bytes(f->body);
	size_t done = 0;
	int count;

	f->in_call = true;
	count = body_room(f->body, n, iov, IO);
	for (int i = 0; i < count; i++) {
		fill(iov[i].iov_base, at + done, iov[i].iov_len);
		done += iov[i].iov_len;
	}
	assert_true(count < 0 || (done > 0 && done <= MAX(n, (size_t)1)));
	if (count > 0)
		body_commit(f->body, done);
	f->in_call = false;
	return count < 0 ? count : 0;
}

/* Reads and checks what can be read at the cursor, at most n bytes. */
static enum body_peek read_some(struct fixture *f, struct body_cursor *c, size_t n, size_t *ret)
{
	struct iovec iov[IO];
	struct body_file file;
	enum body_peek what;
	int count = 0;
	char *got;

	*ret = 0;
	f->in_call = true;
	what = body_peek(c, n, iov, IO, &count, &file);
	f->in_call = false;
	if (what == BODY_MEMORY) {
		for (int i = 0; i < count; i++) {
			check_bytes(iov[i].iov_base, c->offset + *ret, iov[i].iov_len);
			*ret += iov[i].iov_len;
		}
	} else if (what == BODY_FILE) {
		assert_true(file.len <= 256 * K);
		got = malloc(file.len);
		assert_non_null(got);
		assert_int_equal(pread(file.fd, got, file.len, file.offset), file.len);
		check_bytes(got, c->offset, file.len);
		*ret = file.len;
		free(got);
	} else {
		return what;
	}
	assert_true(*ret > 0 && *ret <= n);
	body_advance(c, *ret);
	return what;
}

/* Reads to the end of what is there; how often each answer came is in seen[]. */
static void read_all(struct fixture *f, struct body_cursor *c, unsigned seen[BODY_FAILED + 1])
{
	enum body_peek what;
	size_t n;

	do {
		what = read_some(f, c, 1 << 20, &n);
		seen[what]++;
		if (what == BODY_COLD)
			settle(f);
	} while (what == BODY_MEMORY || what == BODY_FILE || what == BODY_COLD);
}

static void check_content(struct fixture *f)
{
	struct body_cursor c;
	unsigned seen[BODY_FAILED + 1] = { 0 };

	body_cursor_init(&c, f->body);
	read_all(f, &c, seen);
	assert_int_equal(body_unread(&c), 0);
	assert_int_equal(seen[body_is_finished(f->body) ? BODY_END : BODY_WAIT], 1);
}

/* Where bytes end up. */
static const struct {
	struct body_options options;
	size_t piece, pieces;
	bool spooled;
	uint64_t extents, own_files;
	size_t memory_max; /* charged in the end, at most */
} placements[] = {
	{ { .memory_max = 64 * K }, 100, 10, false, 0, 0, 4 * K },
	{ { .memory_max = 64 * K, .expected = 1000 }, 100, 10, false, 0, 0, 3 * K },
	{ { .memory_max = 64 * K }, 1000, 64, false, 0, 0, 68 * K },
	{ { .memory_max = 64 * K }, 8 * K, 40, true, 4, 0, 68 * K },
	{ { .memory_max = 64 * K, .expected = 320 * K }, 8 * K, 40, true, 4, 0, 68 * K },
	{ { .memory_max = 0 }, 64 * K, 3, true, 3, 0, 4 * K },
	{ { .memory_max = 0 }, 100, 3, false, 0, 0, 4 * K },           /* an open block may grow */
	{ { .memory_max = 64 * K }, 64 * K, 32, true, 15, 1, 68 * K }, /* own file from 1M on, known too late */
	{ { .memory_max = 64 * K, .expected = 2048 * K }, 64 * K, 32, true, 0, 1, 68 * K },
	{ { .memory_max = 64 * K, .own_file = true }, 64 * K, 4, true, 0, 1, 4 * K },
	{ { .memory_max = 64 * K, .own_file = true }, 1000, 30, false, 0, 0, 68 * K },
	{ { .memory_max = 64 * K, .memory_only = true }, 64 * K, 32, false, 0, 0, 2100 * K },
};

static void bytes_go_where_they_belong(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(placements); i++) {
		struct spool_figures got;

		make(f);
		new_body(f, placements[i].options);
		for (size_t j = 0; j < placements[i].pieces; j++) {
			if (append(f, placements[i].piece))
				fail_msg("row %zu: piece %zu", i, j);
			settle(f);
		}
		body_finish(f->body);
		settle(f);
		got = figures(f);
		if (body_was_spooled(f->body) != placements[i].spooled || got.own_files != placements[i].own_files)
			fail_msg("row %zu: %" PRIu64 " own files", i, got.own_files);
		if (got.extents > placements[i].extents + 1 || (got.extents == 0) != (placements[i].extents == 0))
			fail_msg("row %zu: %" PRIu64 " extents", i, got.extents);
		if (body_memory(f->body) > placements[i].memory_max || body_memory(f->body) != f->loop->lease.used)
			fail_msg("row %zu: %zu bytes of memory", i, body_memory(f->body));
		check_content(f);
		unmake(f);
	}
}

static void a_spilled_trickle_shares_extents(void **state)
{
	struct fixture *f = *state;

	make(f);
	new_body(f, (struct body_options){ .memory_max = 64 * K });
	body_spill(f->body); /* nothing there: nothing happens */
	assert_int_equal(append(f, 1000), 0);
	body_spill(f->body); /* not worth it */
	settle(f);
	assert_false(body_was_spooled(f->body));
	for (size_t i = 0; i < 24; i++) {
		assert_int_equal(append(f, 5000), 0);
		body_spill(f->body);
		assert_false(body_settled(f->body));
		settle(f);
		assert_true(body_settled(f->body));
	}
	assert_true(figures(f).extents <= 3);
	assert_true(body_memory(f->body) < 4 * K);
	check_content(f);
}

static void full_is_said_and_room_is_told(void **state)
{
	struct fixture *f = *state;

	make(f);
	new_body(f, (struct body_options){ .memory_max = 64 * K });
	for (size_t i = 0; !body_full(f->body); i++) {
		assert_true(i < 4);
		assert_int_equal(append(f, 64 * K), 0);
	}
	assert_int_equal(f->room, 0);
	assert_int_equal(append(f, 64 * K), 0); /* taken all the same */
	settle(f);
	assert_false(body_full(f->body));
	assert_true(f->room > 0);
	check_content(f);
}

static void a_stream_is_full_until_it_is_read(void **state)
{
	struct fixture *f = *state;

	make(f);
	new_body(f, (struct body_options){ .memory_max = 16 * K, .memory_only = true });
	while (!body_full(f->body))
		assert_int_equal(append(f, 10 * K), 0);
	body_spill(f->body);
	settle(f);
	assert_false(body_was_spooled(f->body));
	assert_int_equal(f->room, 0);
	f->in_call = true;
	body_drop(f->body, body_bytes(f->body)); /* the event comes later, not from within */
	f->in_call = false;
	assert_int_equal(f->room, 0);
	settle(f);
	assert_int_equal(f->room, 1);
	assert_int_equal(body_bytes_dropped(f->body), body_bytes(f->body));
	assert_true(body_memory(f->body) < 2 * K);
}

static void room_used_up_again_is_not_told(void **state)
{
	struct fixture *f = *state;

	make(f);
	new_body(f, (struct body_options){ .memory_max = 16 * K, .memory_only = true });
	assert_int_equal(append(f, 256 * K), 0);
	body_drop(f->body, 256 * K);
	assert_int_equal(append(f, 256 * K), 0);
	settle(f);
	assert_int_equal(f->room, 0);
	body_drop(f->body, 512 * K);
	settle(f);
	assert_int_equal(f->room, 1);
}

static void room_is_given_up_but_for_what_is_committed(void **state)
{
	struct fixture *f = *state;
	struct iovec iov[IO];
	size_t before;

	make(f);
	new_body(f, (struct body_options){ .memory_max = 64 * K });
	before = body_memory(f->body);
	assert_true(body_room(f->body, 64 * K, iov, IO) > 0);
	assert_true(body_memory(f->body) > before);
	body_commit(f->body, 0);
	assert_int_equal(body_memory(f->body), before);
	assert_true(body_room(f->body, 64 * K, iov, IO) > 0);
	assert_true(body_room(f->body, 1, iov, 1) == 1); /* asked again: the first is forgotten */
	assert_int_equal(iov[0].iov_len, 1);
	*(char *)iov[0].iov_base = byte_at(0);
	body_commit(f->body, 1);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(append_by_room(f, i * 50), 0);
	body_finish(f->body);
	settle(f);
	check_content(f);
}

static void at_the_memory_ceiling_appending_is_all_or_nothing(void **state)
{
	struct fixture *f = *state;
	struct iovec iov[IO];
	struct body *second = NULL;
	const struct body_options o = { .memory_max = 64 * K };
	size_t n = 0;
	uint64_t had;

	make_with(f, 300 * K, 0, 0);
	new_body(f, (struct body_options){ .memory_max = 16 << 20 });
	while (append(f, 10 * K) == 0)
		assert_true(++n < 30);
	had = body_bytes(f->body);
	assert_int_equal(had, n * 10 * K);
	assert_true(atomic_load(&f->budget.refused) > 0);
	assert_int_equal(append(f, 300 * K), -ENOMEM);
	/* What is left of the last block is used to the last byte. */
	while (append_by_room(f, 1) == 0)
		had++;
	assert_int_equal(body_bytes(f->body), had);
	assert_int_equal(body_room(f->body, 64 * K, iov, IO), -ENOMEM);
	assert_int_equal(body_failure(f->body), 0);
	while (lease_take(&f->loop->lease, 1))
		n++;
	assert_int_equal(body_new(f->loop, &o, &second), -ENOMEM);
	assert_null(second);
	lease_give(&f->loop->lease, f->loop->lease.used - body_memory(f->body));
	check_content(f);
	body_drop(f->body, had);
	assert_int_equal(append(f, 10 * K), 0);
}

/* Else two uploads that had half of the memory each would wait for the other for ever. */
static void where_a_large_block_finds_no_memory_smaller_ones_do(void **state)
{
	struct fixture *f = *state;
	struct iovec iov[IO];
	size_t held = 0, room = 0;
	int n;

	make_with(f, 300 * K, 0, 0);
	new_body(f, (struct body_options){ .memory_max = 16 << 20, .expected = 192 * K });
	assert_int_equal(append(f, 64 * K), 0); /* a full block */
	while (lease_take(&f->loop->lease, K))
		held += K;
	lease_give(&f->loop->lease, 40 * K);
	held -= 40 * K;
	n = body_room(f->body, 64 * K, iov, IO);
	assert_true(n > 0);
	for (int i = 0; i < n; i++)
		room += iov[i].iov_len;
	assert_in_range(room, 32 * K, 40 * K);
	body_commit(f->body, 0);
	assert_int_equal(append(f, 10 * K), 0);
	assert_int_equal(append(f, 40 * K), -ENOMEM);
	assert_int_equal(body_bytes(f->body), 74 * K);
	lease_give(&f->loop->lease, held);
	assert_int_equal(append(f, 40 * K), 0);
	check_content(f);
}

static void at_the_spool_limit_the_body_fails_and_no_other(void **state)
{
	static const struct {
		uint64_t spool_bytes;
		struct body_options options;
	} rows[] = {
		{ 0, { .memory_max = 64 * K } },
		{ 3 * E, { .memory_max = 64 * K } },
		{ 0, { .memory_max = 64 * K, .expected = 2 << 20 } },
		{ 3 * E + 5, { .memory_max = 64 * K, .own_file = true } },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct body_cursor c;
		size_t n = 0, got;
		struct iovec iov[IO];
		struct body *other = NULL;
		const struct body_options o = { .memory_max = 64 * K };

		make_with(f, 64 << 20, rows[i].spool_bytes, 4);
		assert_int_equal(body_new(f->loop, &o, &other), 0);
		new_body(f, rows[i].options);
		body_cursor_init(&c, f->body);
		while (append(f, 64 * K) == 0 && ++n < 20)
			settle(f);
		settle(f);
		if (n >= 20 || body_failure(f->body) != -ENOSPC || f->failed != 1 || f->err != -ENOSPC)
			fail_msg("row %zu: failure %d after %zu", i, body_failure(f->body), n);
		assert_int_equal(append(f, 1), -ENOSPC); /* sticky */
		assert_int_equal(body_room(f->body, 1, iov, IO), -ENOSPC);
		assert_int_equal(read_some(f, &c, 1, &got), BODY_FAILED);
		body_spill(f->body);
		body_finish(f->body);
		settle(f);
		assert_int_equal(f->failed, 1);
		assert_int_equal(body_append(other, SLICE("fine")), 0);
		body_free(&other);
		unmake(f);
	}
}

static void without_a_spool_all_stays_in_memory(void **state)
{
	struct fixture *f = *state;

	make(f);
	f->loop->spool = NULL;
	new_body(f, (struct body_options){ .memory_max = 1000 });
	assert_int_equal(append(f, 300 * K), 0);
	body_spill(f->body);
	body_finish(f->body);
	settle(f);
	assert_false(body_was_spooled(f->body));
	check_content(f);
	body_free(&f->body);
	f->loop->spool = f->spool;
}

static void too_many_own_files_go_to_extents(void **state)
{
	struct fixture *f = *state;
	int fd = -1;

	make_with(f, 64 << 20, 64 << 20, 0);
	new_body(f, (struct body_options){ .memory_max = 64 * K, .own_file = true });
	for (size_t i = 0; i < 20; i++) {
		assert_int_equal(append(f, 64 * K), 0);
		settle(f);
	}
	body_finish(f->body);
	settle(f);
	assert_true(figures(f).extents > 0);
	assert_int_equal(body_export(f->body, &fd), -EXDEV);
	check_content(f);
}

static void check_exported(int fd, size_t bytes);

/* Half of the own files are for those that are whole: many slow clients do not take them all. */
static void a_body_that_went_to_extents_gets_its_file_when_it_is_whole(void **state)
{
	struct fixture *f = *state;
	struct body *other = NULL;
	const struct body_options o = { .memory_max = 0, .own_file = true };
	static const char text[100000];
	int fd = -1;

	make_with(f, 64 << 20, 64 << 20, 2);
	assert_int_equal(body_new(f->loop, &o, &other), 0);
	assert_int_equal(body_append(other, slice_of(text, sizeof(text))), 0);
	new_body(f, (struct body_options){ .memory_max = 64 * K, .own_file = true });
	for (size_t i = 0; i < 30; i++) {
		assert_int_equal(append(f, 20 * K), 0);
		settle(f);
	}
	assert_int_equal(figures(f).own_files, 1);
	assert_true(figures(f).extents > 5);
	body_finish(f->body);
	assert_false(body_settled(f->body));
	settle(f);
	assert_true(body_settled(f->body));
	assert_int_equal(figures(f).own_files, 2);
	assert_int_equal(figures(f).extents, 0);
	check_content(f);
	assert_int_equal(body_export(f->body, &fd), 0);
	check_exported(fd, 600 * K);
	close(fd);
	body_free(&other);
}

static void check_exported(int fd, size_t bytes)
{
	char *got = malloc(bytes + 1);
	size_t done = 0;
	ssize_t n;
	struct stat st;

	assert_non_null(got);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, bytes);
	while ((n = read(fd, got + done, bytes + 1 - done)) > 0)
		done += (size_t)n;
	assert_int_equal(done, bytes);
	check_bytes(got, 0, bytes);
	free(got);
}

/* What is appended meanwhile stays in memory, and can be read there. */
static void a_file_that_takes_the_disk_long_is_waited_for(void **state)
{
	static const struct body_options rows[] = {
		{ .memory_max = 64 * K, .own_file = true },
		{ .memory_max = 64 * K, .expected = 2 << 20 },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		make(f);
		new_body(f, rows[i]);
		set_gate(true, 0);
		assert_int_equal(append(f, 700 * K), 0);
		assert_int_equal(append(f, 500 * K), 0);
		wait_at_gate(1);
		assert_int_equal(mailbox_drain(&f->loop->mailbox), 0);
		assert_false(body_settled(f->body));
		assert_int_equal(figures(f).own_files, 1);
		check_content(f);
		body_finish(f->body);
		set_gate(false, 0);
		settle(f);
		assert_true(body_settled(f->body));
		assert_int_equal(f->failed, 0);
		assert_int_equal(figures(f).own_files, 1);
		assert_int_equal(figures(f).extents, 0);
		check_content(f);
		unmake(f);
	}
}

static void an_arena_that_takes_the_disk_long_is_waited_for(void **state)
{
	struct fixture *f = *state;
	enum { ARENA = 1024 };
	struct extent *e = calloc(ARENA, sizeof(*e));

	assert_non_null(e);
	make(f);
	for (size_t i = 0; i < ARENA; i++)
		assert_int_equal(spool_extent_take(f->spool, &e[i]), 0);
	new_body(f, (struct body_options){ .memory_max = 64 * K });
	set_gate(true, 0);
	assert_int_equal(append(f, 200 * K), 0);
	wait_at_gate(1);
	assert_int_equal(mailbox_drain(&f->loop->mailbox), 0);
	assert_true(body_full(f->body));
	assert_int_equal(f->room, 0);
	check_content(f);
	set_gate(false, 0);
	settle(f);
	assert_int_equal(f->failed, 0);
	assert_true(f->room > 0);
	assert_true(figures(f).extents > ARENA);
	check_content(f);
	for (size_t i = 0; i < ARENA; i++)
		spool_extent_give(f->spool, &e[i], false);
	free(e);
}

static void an_arena_that_cannot_be_made_is_a_failure(void **state)
{
	struct fixture *f = *state;
	enum { ARENA = 1024 };
	struct extent *e = calloc(ARENA, sizeof(*e));

	assert_non_null(e);
	make(f);
	for (size_t i = 0; i < ARENA; i++)
		assert_int_equal(spool_extent_take(f->spool, &e[i]), 0);
	new_body(f, (struct body_options){ .memory_max = 64 * K });
	set_gate(false, EIO);
	assert_int_equal(append(f, 200 * K), 0);
	settle(f);
	set_gate(false, 0);
	assert_int_equal(f->failed, 1);
	assert_int_equal(f->err, -EIO);
	for (size_t i = 0; i < ARENA; i++)
		spool_extent_give(f->spool, &e[i], false);
	free(e);
}

static void a_file_that_cannot_be_made_is_a_failure_but_for_want_of_descriptors(void **state)
{
	static const struct {
		int error, failure;
	} rows[] = { { EMFILE, 0 }, { ENFILE, 0 }, { EIO, -EIO }, { ENOSPC, -ENOSPC } };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		make(f);
		f->failed = 0;
		new_body(f, (struct body_options){ .memory_max = 64 * K, .expected = 2 << 20 });
		set_gate(false, rows[i].error);
		assert_int_equal(append(f, 300 * K), 0);
		settle(f);
		set_gate(false, 0);
		assert_int_equal(body_failure(f->body), rows[i].failure);
		assert_int_equal(f->failed, rows[i].failure != 0);
		assert_int_equal(figures(f).own_files, 0);
		if (!rows[i].failure) {
			assert_int_equal(append(f, 300 * K), 0);
			settle(f);
			assert_true(figures(f).extents > 0);
			check_content(f);
		}
		unmake(f);
	}
}

/* The same when a body that went to extents is to move into a file. */
static void a_body_that_cannot_move_into_a_file_says_so(void **state)
{
	struct fixture *f = *state;
	int fd = -1;

	make_with(f, 64 << 20, 64 << 20, 1);
	assert_int_equal(spool_file_take(f->spool, false), 0); /* the one that is there */
	new_body(f, (struct body_options){ .memory_max = 64 * K, .own_file = true });
	assert_int_equal(append(f, 300 * K), 0);
	settle(f);
	spool_file_give(f->spool, &fd, 0);
	assert_true(figures(f).extents > 0);
	body_spill(f->body);
	settle(f);
	set_gate(false, EMFILE);
	body_finish(f->body);
	settle(f);
	set_gate(false, 0);
	assert_int_equal(figures(f).own_files, 0);
	assert_true(body_settled(f->body));
	assert_int_equal(body_export(f->body, &fd), -EXDEV);
	check_content(f);
}

static void a_body_freed_while_its_file_is_made_leaves_nothing(void **state)
{
	struct fixture *f = *state;

	for (int error = 0; error <= EMFILE; error += EMFILE) {
		make(f);
		new_body(f, (struct body_options){ .memory_max = 64 * K, .own_file = true });
		set_gate(true, error);
		assert_int_equal(append(f, 300 * K), 0);
		wait_at_gate(1);
		body_free(&f->body);
		assert_true(f->loop->lease.used > 0);
		set_gate(false, error);
		settle(f);
		set_gate(false, 0);
		unmake(f);
	}
}

static void what_is_exported_is_whole_and_cannot_be_changed(void **state)
{
	static const struct {
		size_t bytes;
		bool own_file, spill_early;
		int result;
	} rows[] = {
		{ 0, true, false, 0 },
		{ 1000, true, false, 0 },
		{ 64 * K, true, false, 0 },
		{ 70 * K, true, false, 0 },
		{ 3000 * K, true, false, 0 },
		{ 20 * K, true, true, 0 },
		{ 1000, false, false, 0 },
		{ 300 * K, false, false, -EXDEV },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int fd = -1, err;
		char byte = 0;

		make(f);
		new_body(f, (struct body_options){ .memory_max = 64 * K, .own_file = rows[i].own_file });
		for (size_t left = rows[i].bytes; left > 0; left -= MIN(left, 10 * K)) {
			assert_int_equal(append(f, MIN(left, 10 * K)), 0);
			if (rows[i].spill_early)
				body_spill(f->body);
		}
		body_finish(f->body);
		if (!body_settled(f->body))
			assert_int_equal(body_export(f->body, &fd), -EAGAIN);
		settle(f);
		assert_true(body_settled(f->body));
		err = body_export(f->body, &fd);
		if (err != rows[i].result)
			fail_msg("row %zu: %s", i, strerror(-err));
		if (!err) {
			assert_true(pwrite(fd, &byte, 1, 0) == -1);
			assert_true(rows[i].bytes == 0 || ftruncate(fd, 0) == -1);
			assert_true(ftruncate(fd, 1 << 20) == -1);
			check_exported(fd, rows[i].bytes);
			body_free(&f->body);
			assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
			check_exported(fd, rows[i].bytes); /* it outlives the body */
			close(fd);
		}
		unmake(f);
	}
}

static void settling_is_told_as_room(void **state)
{
	struct fixture *f = *state;
	int fd = -1;

	make(f);
	new_body(f, (struct body_options){ .memory_max = 64 * K, .own_file = true });
	assert_int_equal(append(f, 100 * K), 0);
	settle(f);
	f->room = 0;
	body_finish(f->body);
	assert_false(body_settled(f->body));
	settle(f);
	assert_int_equal(f->room, 1);
	assert_int_equal(body_export(f->body, &fd), 0);
	close(fd);
	body_drop(f->body, 1);
	assert_int_equal(body_export(f->body, &fd), -ENODATA);
}

/* A file of n bytes of the pattern, from offset `at` on. */
static int pattern_file(struct fixture *f, uint64_t first, off_t at, size_t n)
{
	char *bytes = malloc(n), path[32];
	int fd = openat(f->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), again;

	if (fd == -1)
		skip();
	assert_non_null(bytes);
	fill(bytes, first, n);
	assert_int_equal(pwrite(fd, bytes, n, at), n);
	free(bytes);
	assert_int_equal(fsync(fd), 0);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(again != -1);
	close(fd);
	return again;
}

static void a_cold_file_is_read_in_first(void **state)
{
	struct fixture *f = *state;
	struct body_cursor c, d;
	unsigned seen[BODY_FAILED + 1] = { 0 };
	size_t n;
	int fd;

	make(f);
	new_body(f, (struct body_options){ .memory_max = 64 * K });
	assert_int_equal(append(f, 1000), 0);
	fd = pattern_file(f, 1000, 300, 1000 * K);
	assert_int_equal(body_append_file(f->body, &fd, 300, 1000 * K), 0);
	assert_int_equal(fd, -1);
	assert_int_equal(append(f, 1000), 0);
	body_finish(f->body);
	assert_int_equal(body_bytes(f->body), 1000 * K + 2000);
	body_cursor_init(&c, f->body);
	body_cursor_init(&d, f->body);
	assert_int_equal(read_some(f, &c, 1 << 20, &n), BODY_MEMORY);
	d.offset = 700 * K;
	if (read_some(f, &c, 1 << 20, &n) == BODY_COLD) { /* else it does not grow cold here */
		read_some(f, &d, 1, &n);                  /* a second cursor is told by the same event */
		settle(f);
		assert_int_equal(f->ready, 1);
		assert_int_equal(read_some(f, &c, 1 << 20, &n), BODY_FILE);
	}
	read_all(f, &c, seen);
	assert_int_equal(body_unread(&c), 0);
	assert_int_equal(seen[BODY_END], 1);
	assert_true(seen[BODY_FILE] >= 3);
	read_all(f, &d, seen);
	assert_int_equal(body_unread(&d), 0);
}

/* /proc cannot say what is cached and is no memory file system either. */
static void a_file_that_cannot_be_looked_at_is_read_in_once(void **state)
{
	struct fixture *f = *state;
	struct body_cursor c;
	struct body_file file;
	struct iovec iov[IO];
	char text[512];
	ssize_t bytes;
	int fd = open("/proc/version", O_RDONLY | O_CLOEXEC), count;

	assert_true(fd != -1);
	bytes = pread(fd, text, sizeof(text), 0);
	assert_true(bytes > 10);
	make(f);
	new_body(f, (struct body_options){ .memory_max = 64 * K });
	assert_int_equal(body_append_file(f->body, &fd, 0, (uint64_t)bytes), 0);
	body_cursor_init(&c, f->body);
	assert_int_equal(body_peek(&c, 1 << 20, iov, IO, &count, &file), BODY_COLD);
	settle(f);
	assert_int_equal(f->ready, 1);
	for (size_t left = (size_t)bytes; left > 0; left--) {
		assert_int_equal(body_peek(&c, 1 << 20, iov, IO, &count, &file), BODY_FILE);
		assert_int_equal(file.len, left);
		body_advance(&c, 1);
	}
	assert_int_equal(body_peek(&c, 1 << 20, iov, IO, &count, &file), BODY_WAIT);
}

static void a_file_cut_short_is_a_failure(void **state)
{
	struct fixture *f = *state;
	struct body_cursor c;
	unsigned seen[BODY_FAILED + 1] = { 0 };
	int fd;

	make(f);
	new_body(f, (struct body_options){ .memory_max = 64 * K });
	fd = pattern_file(f, 0, 0, 10 * K);
	assert_int_equal(body_append_file(f->body, &fd, 0, 10 * K + 1), 0);
	body_cursor_init(&c, f->body);
	read_all(f, &c, seen);
	settle(f);
	assert_int_equal(seen[BODY_FAILED], 1);
	assert_int_equal(c.offset, 0); /* nothing of it was given out */
	assert_int_equal(body_failure(f->body), -EIO);
	assert_int_equal(f->failed, 1);
	fd = pattern_file(f, 0, 0, 1);
	assert_int_equal(body_append_file(f->body, &fd, 0, 1), -EIO);
	assert_int_equal(fd, -1); /* taken all the same */
}

static void an_empty_file_adds_nothing(void **state)
{
	struct fixture *f = *state;
	int fd;

	make(f);
	new_body(f, (struct body_options){ .memory_max = 64 * K });
	fd = pattern_file(f, 0, 0, 10);
	assert_int_equal(body_append_file(f->body, &fd, 5, 0), 0);
	assert_int_equal(fd, -1);
	assert_int_equal(append(f, 10), 0);
	check_content(f);
}

static void a_body_may_be_freed_with_jobs_in_flight(void **state)
{
	static const struct body_options rows[] = {
		{ .memory_max = 0 },
		{ .memory_max = 64 * K },
		{ .memory_max = 64 * K, .own_file = true },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows) * 3; i++) {
		struct body_cursor c;
		size_t n;
		int fd;

		make(f);
		new_body(f, rows[i / 3]);
		assert_int_equal(append(f, 500 * K), 0);
		if (i % 3 == 1) {
			settle(f); /* then a cold read */
			fd = pattern_file(f, 500 * K, 0, 300 * K);
			assert_int_equal(body_append_file(f->body, &fd, 0, 300 * K), 0);
			body_cursor_init(&c, f->body);
			c.offset = 500 * K;
			read_some(f, &c, 1000, &n);
		}
		if (i % 3 == 2) /* freed with what is told, by an event */
			f->free_in_event = true;
		else
			body_free(&f->body);
		settle(f);
		assert_int_equal(f->failed, 0);
		assert_null(f->body);
		unmake(f);
	}
}

static void freeing_the_loop_waits_for_orphans(void **state)
{
	struct fixture *f = *state;

	make(f);
	new_body(f, (struct body_options){ .memory_max = 0 });
	assert_int_equal(append(f, 500 * K), 0);
	body_free(&f->body);
	assert_true(f->loop->lease.used > 0); /* held until the disk has it */
	loop_free(&f->loop);
	assert_int_equal(atomic_load(&f->budget.leased), 0);
	spool_free(&f->spool);
}

static void a_new_owner_hears_the_events(void **state)
{
	struct fixture *f = *state, heir = { 0 };

	make(f);
	new_body(f, (struct body_options){ .memory_max = 0 });
	assert_int_equal(append(f, 500 * K), 0);
	body_set_events(f->body, &events, &heir);
	settle(f);
	assert_int_equal(f->room, 0);
	assert_true(heir.room > 0);
	body_set_events(f->body, NULL, NULL); /* nobody is fine */
	assert_int_equal(append(f, 500 * K), 0);
	settle(f);
}

/* A real full disk: a file system of its own, in a mount namespace of its own. */
static void a_full_disk_fails_the_body(void **state)
{
	struct fixture *f = *state;
	int dir_fd = f->dir_fd;
	size_t n = 0;

	if (unshare(CLONE_NEWNS) == -1 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) == -1 ||
	    mount("tmpfs", f->dir, "tmpfs", 0, "size=512k") == -1)
		skip();
	f->dir_fd = open(f->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->dir_fd != -1);
	for (size_t i = 0; i < 2; i++) {
		make(f);
		new_body(f, (struct body_options){ .memory_max = 64 * K, .own_file = i == 1 });
		for (n = 0; n < 20 && append(f, 64 * K) == 0; n++) {
			check_content(f); /* tmpfs: never cold */
			settle(f);
		}
		assert_true(n > 2 && n < 20);
		assert_int_equal(body_failure(f->body), -ENOSPC);
		assert_int_equal(f->failed, 1);
		assert_int_equal(f->ready, 0);
		unmake(f);
	}
	close(f->dir_fd);
	f->dir_fd = dir_fd;
	assert_int_equal(umount2(f->dir, MNT_DETACH), 0);
}

/* Against a plain count, since the bytes are known from their offsets. */
struct model {
	struct body_cursor cursors[3];
	uint64_t read[3]; /* where each cursor is */
	unsigned seed;
};

static unsigned pick(struct model *m, unsigned n)
{
	return (unsigned)rand_r(&m->seed) % n;
}

static uint64_t slowest(const struct model *m)
{
	return MIN(MIN(m->read[0], m->read[1]), m->read[2]);
}

static void model_step(struct fixture *f, struct model *m, uint64_t limit)
{
	uint64_t had = body_bytes(f->body);
	size_t which = pick(m, 3), n, want = pick(m, 4) ? pick(m, 3000) : pick(m, 150000);
	int fd;

	switch (pick(m, 12)) {
	case 0:
	case 1:
		if (body_is_finished(f->body) || had > limit || body_full(f->body))
			break;
		assert_int_equal(append(f, want), 0);
		assert_int_equal(body_bytes(f->body), had + want);
		break;
	case 2:
	case 3:
		if (!body_is_finished(f->body) && had <= limit)
			assert_int_equal(append_by_room(f, want), 0);
		break;
	case 4:
		if (body_is_finished(f->body) || had > limit || pick(m, 10))
			break;
		fd = pattern_file(f, had, 77, want + 1);
		assert_int_equal(body_append_file(f->body, &fd, 77, want + 1), 0);
		break;
	case 5:
		body_drop(f->body, slowest(m));
		break;
	case 6:
		body_spill(f->body);
		break;
	case 7:
		mailbox_drain(&f->loop->mailbox);
		break;
	default:
		read_some(f, &m->cursors[which], want + 1, &n);
		m->read[which] += n;
		assert_int_equal(m->cursors[which].offset, m->read[which]);
		assert_int_equal(body_unread(&m->cursors[which]), body_bytes(f->body) - m->read[which]);
		break;
	}
	assert_int_equal(body_failure(f->body), 0);
	assert_int_equal(body_memory(f->body) + (f->other ? body_memory(f->other) : 0), f->loop->lease.used);
}

static void random_use_agrees_with_a_model(void **state)
{
	struct fixture *f = *state;

	for (unsigned round = 0; round < 60; round++) {
		struct model m = { .seed = round };
		const struct body_options o = { .memory_max = 0, .own_file = true };
		uint64_t limit = round % 3 == 0 ? 20 * K : round % 3 == 1 ? 700 * K : 3000 * K;

		make_with(f, 64 << 20, 256 << 20, round % 8 == 4 ? 1 : 4);
		assert_int_equal(body_new(f->loop, &o, &f->other), 0);
		assert_int_equal(body_append(f->other, SLICE("other")), 0);
		body_finish(f->other); /* has the own file that the body would have */
		new_body(f, (struct body_options){
		                .memory_max = round % 5 * 16 * K,
		                .expected = round % 7 == 0 ? limit : 0,
		                .own_file = round % 4 == 0,
		                .memory_only = round % 11 == 0,
		            });
		for (size_t i = 0; i < 3; i++)
			body_cursor_init(&m.cursors[i], f->body);
		for (size_t i = 0; i < 400; i++)
			model_step(f, &m, limit);
		if (round % 16 == 4) {
			body_free(&f->other);
			settle(f);
		}
		body_finish(f->body);
		for (size_t i = 0; i < 100; i++)
			model_step(f, &m, limit);
		for (size_t i = 0; i < 3; i++) {
			unsigned seen[BODY_FAILED + 1] = { 0 };

			read_all(f, &m.cursors[i], seen);
			assert_int_equal(seen[BODY_END], 1);
			assert_int_equal(m.cursors[i].offset, body_bytes(f->body));
		}
		if (round % 2)
			settle(f);
		if (round % 4 == 3) {
			body_drop(f->body, body_bytes(f->body));
			settle(f);
			assert_true(body_memory(f->body) < 4 * K);
			assert_int_equal(figures(f).extents, 0);
		}
		unmake(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bytes_go_where_they_belong, setup, teardown),
		cmocka_unit_test_setup_teardown(a_spilled_trickle_shares_extents, setup, teardown),
		cmocka_unit_test_setup_teardown(full_is_said_and_room_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stream_is_full_until_it_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(room_used_up_again_is_not_told, setup, teardown),
		cmocka_unit_test_setup_teardown(room_is_given_up_but_for_what_is_committed, setup, teardown),
		cmocka_unit_test_setup_teardown(at_the_memory_ceiling_appending_is_all_or_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(where_a_large_block_finds_no_memory_smaller_ones_do, setup, teardown),
		cmocka_unit_test_setup_teardown(at_the_spool_limit_the_body_fails_and_no_other, setup, teardown),
		cmocka_unit_test_setup_teardown(without_a_spool_all_stays_in_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many_own_files_go_to_extents, setup, teardown),
		cmocka_unit_test_setup_teardown(a_body_that_went_to_extents_gets_its_file_when_it_is_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_takes_the_disk_long_is_waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(an_arena_that_takes_the_disk_long_is_waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(an_arena_that_cannot_be_made_is_a_failure, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    a_file_that_cannot_be_made_is_a_failure_but_for_want_of_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(a_body_that_cannot_move_into_a_file_says_so, setup, teardown),
		cmocka_unit_test_setup_teardown(a_body_freed_while_its_file_is_made_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_exported_is_whole_and_cannot_be_changed, setup, teardown),
		cmocka_unit_test_setup_teardown(settling_is_told_as_room, setup, teardown),
		cmocka_unit_test_setup_teardown(a_cold_file_is_read_in_first, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_cannot_be_looked_at_is_read_in_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_cut_short_is_a_failure, setup, teardown),
		cmocka_unit_test_setup_teardown(an_empty_file_adds_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_body_may_be_freed_with_jobs_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(freeing_the_loop_waits_for_orphans, setup, teardown),
		cmocka_unit_test_setup_teardown(a_new_owner_hears_the_events, setup, teardown),
		cmocka_unit_test_setup_teardown(random_use_agrees_with_a_model, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_fails_the_body, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
