#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/spool.h"

#define E SPOOL_EXTENT_BYTES

struct fixture {
	char dir[64];
	int dir_fd;
	struct mailbox mailbox;
	struct spool *spool;
	size_t done; /* jobs delivered */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	strcpy(f->dir, "/tmp/forebay-spool-XXXXXX");
	if (!mkdtemp(f->dir) || mailbox_init(&f->mailbox, NULL))
		return -1;
	f->dir_fd = open(f->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	*state = f;
	return f->dir_fd == -1 ? -1 : 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int err;

	spool_free(&f->spool);
	mailbox_done(&f->mailbox);
	close(f->dir_fd);
	err = rmdir(f->dir); /* fails if a file with a name was left */
	free(f);
	return err;
}

static void make(struct fixture *f, uint64_t limit_bytes, unsigned own_files_max, unsigned threads)
{
	const struct spool_options o = {
		.dir_fd = f->dir_fd,
		.limit_bytes = limit_bytes,
		.own_file_bytes = 1 << 20,
		.own_files_max = own_files_max,
		.threads = threads,
	};

	assert_int_equal(spool_new(&o, &f->spool), 0);
	assert_int_equal(spool_own_file_bytes(f->spool), 1 << 20);
}

struct test_job {
	struct spool_job job;
	struct fixture *f;
};

static void on_done(struct spool_job *job)
{
	CONTAINER_OF(job, struct test_job, job)->f->done++;
}

static void wait_done(struct fixture *f, size_t done)
{
	while (f->done < done) {
		struct pollfd p = { .fd = f->mailbox.fd, .events = POLLIN };

		assert_int_equal(poll(&p, 1, 60000), 1);
		mailbox_drain(&f->mailbox);
	}
}

static void submit(struct fixture *f, struct test_job *t)
{
	t->f = f;
	t->job.reply = &f->mailbox;
	t->job.done = on_done;
	spool_submit(f->spool, &t->job);
}

/* Submits and waits; the result. */
static int run_job(struct fixture *f, struct test_job *t)
{
	size_t done = f->done;

	submit(f, t);
	wait_done(f, done + 1);
	return t->job.result;
}

/* As a body does it. */
static int take(struct fixture *f, struct extent *ret)
{
	struct test_job arena = { .job = { .what = SPOOL_ARENA } };
	int err = spool_extent_take(f->spool, ret);

	if (err != -EAGAIN)
		return err;
	assert_int_equal(run_job(f, &arena), 0);
	return spool_extent_take(f->spool, ret);
}

/* The file, with one byte; what was to be taken was. */
static int make_file(struct fixture *f)
{
	char text[] = "x";
	struct iovec iov = { text, 1 };
	struct test_job write = { .job = { .what = SPOOL_WRITE, .make_file = true, .iov = &iov, .iov_count = 1, .len = 1 } };

	assert_int_equal(run_job(f, &write), 0);
	assert_true(write.job.fd != -1);
	return write.job.fd;
}

static struct spool_figures figures(struct fixture *f)
{
	struct spool_figures ret;

	spool_figures(f->spool, &ret);
	return ret;
}

static const struct {
	uint64_t limit_bytes;
	size_t fit;
} limits[] = {
	{ 0, 0 }, { E - 1, 0 }, { E, 1 }, { 2 * E - 1, 1 }, { 1000 * (uint64_t)E, 1000 },
	{ 3000 * (uint64_t)E + 5, 3000 },       /* three arenas */
	{ 20000 * (uint64_t)E, 20000 },         /* sixteen larger ones */
	{ 16 * 1024 * (uint64_t)E, 16 * 1024 }, /* exactly full */
};

static void extents_end_at_the_limit_and_are_recycled(void **state)
{
	struct fixture *f = *state;
	struct extent *e = calloc(20001, sizeof(*e));

	assert_non_null(e);
	for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
		size_t n = 0;
		struct stat st;

		make(f, limits[i].limit_bytes, 0, 1);
		while (n <= limits[i].fit && take(f, &e[n]) == 0)
			n++;
		if (n != limits[i].fit)
			fail_msg("row %zu: %zu fit", i, n);
		if (take(f, &e[n]) != -ENOSPC || figures(f).extents != n || figures(f).bytes != n * E)
			fail_msg("row %zu: not at the limit", i);
		for (size_t round = 0; n > 0 && round < 3; round++) {
			const struct extent was = e[n - 1];

			spool_extent_give(f->spool, &e[n - 1], false);
			assert_int_equal(spool_extent_take(f->spool, &e[n - 1]), 0);
			assert_int_equal(e[n - 1].number, was.number);
			assert_int_equal(e[n - 1].fd, was.fd);
			assert_int_equal(e[n - 1].offset, was.offset);
			assert_int_equal(fstat(was.fd, &st), 0);
			assert_int_equal(st.st_nlink, 0);
		}
		while (n > 0)
			spool_extent_give(f->spool, &e[--n], false);
		assert_int_equal(figures(f).bytes, 0);
		spool_free(&f->spool);
		assert_null(f->spool);
	}
	free(e);
}

static void no_place_is_given_out_twice(void **state)
{
	struct fixture *f = *state;
	enum { COUNT = 4000 };
	struct extent *e = calloc(COUNT, sizeof(*e));
	struct extent again;
	uint8_t *seen = calloc(COUNT * 2, 1);
	unsigned seed = 7;

	assert_true(e && seen);
	make(f, COUNT * (uint64_t)E, 0, 1);
	for (size_t i = 0; i < COUNT; i++)
		assert_int_equal(take(f, &e[i]), 0);
	for (size_t i = 0; i < COUNT; i++) {
		size_t at = (size_t)rand_r(&seed) % COUNT;

		spool_extent_give(f->spool, &e[at], false);
		assert_int_equal(spool_extent_take(f->spool, &again), 0);
		e[at] = again;
	}
	for (size_t i = 0; i < COUNT; i++) {
		assert_true(e[i].number < COUNT * 2);
		assert_int_equal(seen[e[i].number]++, 0);
	}
	for (size_t i = 0; i < COUNT; i++)
		spool_extent_give(f->spool, &e[i], false);
	free(seen);
	free(e);
}

static void own_files_are_counted_and_charged_with_the_extents(void **state)
{
	struct fixture *f = *state;
	struct extent e;
	struct test_job nothing = { .job = { .what = SPOOL_WRITE, .fd = -1 } };
	int fd[2] = { -1, -1 };

	make(f, 4 * E, 2, 1);
	assert_int_equal(spool_file_take(f->spool, false), 0);
	assert_int_equal(spool_file_take(f->spool, false), -EMFILE); /* half of them are for the urgent */
	assert_int_equal(spool_file_take(f->spool, true), 0);
	assert_int_equal(spool_file_take(f->spool, true), -EMFILE);
	fd[0] = make_file(f);
	assert_int_equal(figures(f).own_files, 2);
	assert_int_equal(spool_file_charge(f->spool, 3 * E), 0);
	assert_int_equal(spool_extent_take(f->spool, &e), 0);
	assert_int_equal(spool_file_charge(f->spool, 1), -ENOSPC);
	assert_int_equal(spool_file_charge(f->spool, UINT64_MAX), -ENOSPC);
	assert_int_equal(figures(f).bytes, 4 * E);
	spool_extent_give(f->spool, &e, false);
	assert_int_equal(spool_file_charge(f->spool, 1), 0);
	assert_int_equal(spool_extent_take(f->spool, &e), -ENOSPC);
	spool_file_give(f->spool, &fd[0], 3 * E);
	assert_int_equal(fd[0], -1);
	spool_file_give(f->spool, &fd[1], 1); /* it was never made */
	/* The one thread closes before it does this, which is behind in the queue. */
	assert_int_equal(run_job(f, &nothing), 0);
	assert_int_equal(figures(f).own_files, 0);
	assert_int_equal(figures(f).bytes, 0);
	assert_int_equal(spool_file_take(f->spool, false), 0);
	fd[0] = make_file(f);
	spool_file_give(f->spool, &fd[0], 0);
	spool_stop(f->spool);
	assert_int_equal(figures(f).own_files, 0); /* it is closed, and not only about to be */
	spool_stop(f->spool);
}

/* Bytes of disk behind an arena. */
static uint64_t on_disk(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void free_extents_leave_the_disk_for_own_files(void **state)
{
	struct fixture *f = *state;
	enum { COUNT = 64 };
	struct extent e[COUNT + 1];
	static char text[E];
	struct iovec iov;
	struct test_job write = { .job = { .what = SPOOL_WRITE, .iov = &iov, .iov_count = 1, .len = E } };
	struct test_job nothing = { .job = { .what = SPOOL_WRITE, .fd = -1 } };
	int fd = -1;

	make(f, COUNT * E, 1, 1);
	memset(text, 'x', sizeof(text));
	for (size_t i = 0; i < COUNT; i++) {
		assert_int_equal(spool_extent_take(f->spool, &e[i]), 0);
		iov = (struct iovec){ text, sizeof(text) };
		write.job.fd = e[i].fd;
		write.job.offset = e[i].offset;
		assert_int_equal(run_job(f, &write), 0);
	}
	fsync(e[0].fd);
	assert_true(on_disk(e[0].fd) >= COUNT * E);
	for (size_t i = 0; i < COUNT; i++)
		spool_extent_give(f->spool, &e[i], false);
	assert_true(on_disk(e[0].fd) >= COUNT * E); /* recycled without truncation */
	assert_int_equal(spool_file_take(f->spool, false), 0);
	assert_int_equal(spool_file_charge(f->spool, 10 * E + 1), 0);
	assert_int_equal(spool_file_charge(f->spool, 50 * E - 1), 0);
	assert_int_equal(run_job(f, &nothing), 0);
	assert_true(on_disk(e[0].fd) <= 5 * E);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(spool_extent_take(f->spool, &e[i]), 0);
	assert_int_equal(spool_extent_take(f->spool, &e[4]), -ENOSPC);
	spool_file_give(f->spool, &fd, 60 * E);
	assert_int_equal(run_job(f, &nothing), 0);
	for (size_t i = 4; i < COUNT; i++)
		assert_int_equal(spool_extent_take(f->spool, &e[i]), 0); /* the holes */
	assert_int_equal(spool_extent_take(f->spool, &e[COUNT]), -ENOSPC);
	assert_int_equal(e[COUNT - 1].fd, e[0].fd);
	for (size_t i = 0; i < COUNT; i++) {
		assert_true(e[i].number < COUNT);
		spool_extent_give(f->spool, &e[i], false);
	}
}

static void jobs_write_all_pieces_and_read_in(void **state)
{
	struct fixture *f = *state;
	char text[] = "one two three", got[16] = "";
	struct iovec iov[] = { { text, 4 }, { text + 4, 0 }, { text + 4, 4 }, { text + 8, 5 } };
	struct test_job write = { .job = { .what = SPOOL_WRITE, .iov = iov, .iov_count = ARRAY_LEN(iov), .len = 13 } };
	struct test_job read = { .job = { .what = SPOOL_READ } };
	struct test_job copy = { .job = { .what = SPOOL_COPY, .len = 13 } };
	struct extent e;

	make(f, 4 * E, 1, 2);
	assert_int_equal(spool_extent_take(f->spool, &e), 0);
	write.job.fd = read.job.fd = e.fd;
	write.job.offset = read.job.offset = e.offset + 100;
	assert_int_equal(run_job(f, &write), 0);
	assert_int_equal(pread(e.fd, got, sizeof(got), e.offset + 100), 13);
	assert_string_equal(got, text);
	read.job.len = 13;
	assert_int_equal(run_job(f, &read), 0);
	copy.job.fd = copy.job.from_fd = e.fd;
	copy.job.from_offset = e.offset + 100;
	copy.job.offset = e.offset + 1000;
	assert_int_equal(run_job(f, &copy), 0);
	assert_int_equal(pread(e.fd, got, sizeof(got), e.offset + 1000), 13);
	assert_string_equal(got, text);
	copy.job.from_offset = e.offset + 5000; /* nothing there */
	assert_int_equal(run_job(f, &copy), -EIO);
	read.job.len = 1000; /* past the end */
	assert_int_equal(run_job(f, &read), -EIO);
	assert_int_equal(figures(f).errors, 2);
	assert_int_equal(figures(f).jobs, 0);
	spool_extent_give(f->spool, &e, false);
}

static void a_full_disk_is_the_jobs_result(void **state)
{
	struct fixture *f = *state;
	char text[] = "x";
	struct iovec iov = { text, 1 };
	struct test_job t = { .job = { .what = SPOOL_WRITE, .iov = &iov, .iov_count = 1, .len = 1 } };

	make(f, E, 0, 1);
	t.job.fd = open("/dev/full", O_RDWR | O_CLOEXEC);
	assert_true(t.job.fd != -1);
	assert_int_equal(run_job(f, &t), -ENOSPC);
	spool_close(f->spool, &t.job.fd);
	assert_int_equal(t.job.fd, -1);
	t.job.iov = &iov;
	t.job.iov_count = 1;
	iov = (struct iovec){ text, 1 };
	assert_int_equal(run_job(f, &t), -EBADF);
	assert_int_equal(figures(f).errors, 2);
}

static void a_reopened_file_cannot_be_changed(void **state)
{
	struct fixture *f = *state;
	char got[4];
	int fd = -1, again = -1;

	make(f, E, 1, 1);
	assert_int_equal(spool_file_take(f->spool, false), 0);
	fd = make_file(f);
	assert_int_equal(pwrite(fd, "abc", 3, 0), 3);
	assert_int_equal(spool_file_reopen(f->spool, fd, &again), 0);
	assert_int_equal(read(again, got, sizeof(got)), 3); /* an offset of its own */
	assert_int_equal(write(again, "x", 1), -1);
	assert_int_equal(ftruncate(again, 0), -1);
	close(again);
	spool_file_give(f->spool, &fd, 0);
}

/* That would be a change of the file system's, by whoever reads. */
static void no_read_notes_its_time(void **state)
{
	struct fixture *f = *state;
	struct extent e;
	int fd, again = -1;

	make(f, 2 * E, 1, 1);
	assert_int_equal(spool_extent_take(f->spool, &e), 0);
	assert_true(fcntl(e.fd, F_GETFL) & O_NOATIME);
	spool_extent_give(f->spool, &e, false);
	assert_int_equal(spool_file_take(f->spool, false), 0);
	fd = make_file(f);
	assert_true(fcntl(fd, F_GETFL) & O_NOATIME);
	assert_int_equal(spool_file_reopen(f->spool, fd, &again), 0);
	assert_true(fcntl(again, F_GETFL) & O_NOATIME);
	close(again);
	spool_file_give(f->spool, &fd, 0);
}

/* Threads that find no room at once make one arena and not two. */
static void one_arena_is_made_when_one_is_wanted(void **state)
{
	struct fixture *f = *state;
	enum { ARENA = 1024, JOBS = 16 };
	struct extent *e = calloc(2 * ARENA, sizeof(*e)), more;
	struct test_job jobs[JOBS];

	assert_non_null(e);
	make(f, 3 * ARENA * (uint64_t)E, 0, 4);
	for (size_t i = 0; i < ARENA; i++)
		assert_int_equal(spool_extent_take(f->spool, &e[i]), 0);
	assert_int_equal(spool_extent_take(f->spool, &e[ARENA]), -EAGAIN);
	for (size_t i = 0; i < JOBS; i++) {
		jobs[i] = (struct test_job){ .job = { .what = SPOOL_ARENA } };
		submit(f, &jobs[i]);
	}
	wait_done(f, JOBS);
	for (size_t i = 0; i < JOBS; i++)
		assert_int_equal(jobs[i].job.result, 0);
	for (size_t i = ARENA; i < 2 * ARENA; i++)
		assert_int_equal(spool_extent_take(f->spool, &e[i]), 0);
	assert_int_equal(spool_extent_take(f->spool, &more), -EAGAIN);
	for (size_t i = 0; i < 2 * ARENA; i++)
		spool_extent_give(f->spool, &e[i], false);
	free(e);
}

static void a_file_that_cannot_be_made_is_the_jobs_result(void **state)
{
	struct fixture *f = *state;
	char text[] = "x";
	struct iovec iov = { text, 1 };
	struct test_job write = { .job = { .what = SPOOL_WRITE, .make_file = true, .iov = &iov, .iov_count = 1, .len = 1 } };

	make(f, E, 1, 1);
	/* The folder is gone. */
	assert_int_equal(rmdir(f->dir), 0);
	assert_true(run_job(f, &write) < 0);
	assert_int_equal(write.job.fd, -1);
	assert_int_equal(mkdir(f->dir, 0700), 0);
}

static void a_directory_that_cannot_be_used_is_an_error_at_the_start(void **state)
{
	struct fixture *f = *state;
	struct spool_options o = { .dir_fd = -1, .limit_bytes = E, .threads = 1 };

	assert_true(spool_new(&o, &f->spool) < 0);
	o.dir_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(spool_new(&o, &f->spool) < 0);
	close(o.dir_fd);
	assert_null(f->spool);
}

#define THREADS 4
#define ROUNDS  3000

struct user {
	pthread_t thread;
	struct fixture *f;
	atomic_uchar *held; /* by extent number */
	unsigned seed;
	size_t twice, refused, over;
};

static void *take_and_give(void *arg)
{
	struct user *u = arg;
	struct extent mine[8];
	bool have[8] = { false };

	for (size_t i = 0; i < ROUNDS + ARRAY_LEN(mine); i++) {
		size_t at = i < ROUNDS ? (size_t)rand_r(&u->seed) % ARRAY_LEN(mine) : i - ROUNDS;

		if (have[at]) {
			atomic_fetch_sub(&u->held[mine[at].number], 1);
			spool_extent_give(u->f->spool, &mine[at], false);
			have[at] = false;
		} else if (i < ROUNDS) {
			have[at] = spool_extent_take(u->f->spool, &mine[at]) == 0;
			u->refused += !have[at];
			u->twice += have[at] && atomic_fetch_add(&u->held[mine[at].number], 1) != 0;
		}
		u->over += figures(u->f).bytes > 6 * E;
	}
	return NULL;
}

static void threads_share_the_extents(void **state)
{
	struct fixture *f = *state;
	struct user users[THREADS];
	static atomic_uchar held[4096];
	size_t refused = 0;

	make(f, 6 * E, 0, 1);
	for (unsigned i = 0; i < THREADS; i++) {
		users[i] = (struct user){ .f = f, .held = held, .seed = i };
		assert_int_equal(pthread_create(&users[i].thread, NULL, take_and_give, &users[i]), 0);
	}
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(users[i].thread, NULL);
		assert_int_equal(users[i].twice, 0);
		assert_int_equal(users[i].over, 0);
		refused += users[i].refused;
	}
	assert_true(refused > 0);
	assert_int_equal(figures(f).bytes, 0);
}

static void many_jobs_on_many_threads_all_come_back(void **state)
{
	struct fixture *f = *state;
	enum { JOBS = 2000 };
	struct test_job *jobs = calloc(JOBS, sizeof(*jobs));
	uint32_t *values = calloc(JOBS, sizeof(*values)), got;
	struct iovec *iov = calloc(JOBS, sizeof(*iov));
	struct extent e;

	assert_true(jobs && values && iov);
	make(f, E, 0, 4);
	assert_int_equal(spool_extent_take(f->spool, &e), 0);
	for (uint32_t i = 0; i < JOBS; i++) {
		values[i] = i * 7;
		iov[i] = (struct iovec){ &values[i], sizeof(values[i]) };
		jobs[i].job = (struct spool_job){
			.what = SPOOL_WRITE,
			.fd = e.fd,
			.offset = e.offset + (off_t)(i * sizeof(got)),
			.iov = &iov[i],
			.iov_count = 1,
			.len = sizeof(got),
		};
		submit(f, &jobs[i]);
	}
	wait_done(f, JOBS);
	for (uint32_t i = 0; i < JOBS; i++) {
		assert_int_equal(jobs[i].job.result, 0);
		assert_int_equal(pread(e.fd, &got, sizeof(got), e.offset + (off_t)(i * sizeof(got))), sizeof(got));
		assert_int_equal(got, i * 7);
	}
	assert_int_equal(figures(f).jobs, 0);
	spool_extent_give(f->spool, &e, false);
	free(iov);
	free(values);
	free(jobs);
}

#define NEIGHBOURS 64

/* Extents that lie side by side, their pages out of the cache and read in again in order: the kernel's read-ahead does what it can. */
static void read_in_side_by_side(struct fixture *f, struct extent *e)
{
	char bytes[4096];

	memset(bytes, 'a', sizeof(bytes));
	for (size_t i = 0; i < NEIGHBOURS; i++) {
		assert_int_equal(spool_extent_take(f->spool, &e[i]), 0);
		assert_true(e[i].fd == e[0].fd && e[i].offset == e[0].offset + (off_t)(i * E));
		for (off_t at = 0; at < E; at += (off_t)sizeof(bytes))
			assert_int_equal(pwrite(e[i].fd, bytes, sizeof(bytes), e[i].offset + at), sizeof(bytes));
	}
	assert_int_equal(fsync(e[0].fd), 0);
	assert_int_equal(posix_fadvise(e[0].fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	for (off_t at = 0; at < NEIGHBOURS * E; at += (off_t)sizeof(bytes))
		assert_int_equal(pread(e[0].fd, bytes, sizeof(bytes), e[0].offset + at), sizeof(bytes));
}

/* Pages of several extents must not hang together: giving one extent's back would change those that sockets still hold. */
static void what_was_sent_from_a_file_read_in_stays_what_it_was(void **state)
{
	struct fixture *f = *state;
	struct test_job after = { .job = { .what = SPOOL_READ } };
	struct extent e[NEIGHBOURS];
	char got[4096];
	int ends[2];

	make(f, 2 * NEIGHBOURS * E, 1, 1);
	read_in_side_by_side(f, e);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	for (size_t i = 0; i < NEIGHBOURS; i++) {
		off_t at = e[i].offset;

		assert_int_equal(sendfile(ends[0], e[i].fd, &at, sizeof(got)), sizeof(got));
		spool_extent_give(f->spool, &e[i], true);
		assert_int_equal(run_job(f, &after), 0);
		assert_int_equal(recv(ends[1], got, sizeof(got), MSG_WAITALL), sizeof(got));
		for (size_t j = 0; j < sizeof(got); j++)
			assert_int_equal(got[j], 'a');
	}
	close(ends[0]);
	close(ends[1]);
}

/*
 * sendfile() puts the file's pages into the socket, not a copy: what is written there later on shows in what was sent before. So
 * an extent that was handed out must have lost its pages before it is used again.
 */
static void what_was_sent_from_an_extent_stays_what_it_was(void **state)
{
	struct fixture *f = *state;
	char bytes[4096], got[4096];
	struct test_job after = { .job = { .what = SPOOL_READ } };
	struct extent e, again;
	int ends[2];
	off_t at;

	make(f, 64 * E, 1, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(spool_extent_take(f->spool, &e), 0);
	memset(bytes, 'a', sizeof(bytes));
	assert_int_equal(pwrite(e.fd, bytes, sizeof(bytes), e.offset), sizeof(bytes));
	at = e.offset;
	assert_int_equal(sendfile(ends[0], e.fd, &at, sizeof(bytes)), sizeof(bytes));
	spool_extent_give(f->spool, &e, true);
	/* The one thread gives places back before it does a job: when the job is done, the place is free. */
	assert_int_equal(run_job(f, &after), 0);
	assert_int_equal(spool_extent_take(f->spool, &again), 0);
	assert_true(again.fd == e.fd && again.offset == e.offset);
	memset(bytes, 'b', sizeof(bytes));
	assert_int_equal(pwrite(again.fd, bytes, sizeof(bytes), again.offset), sizeof(bytes));
	assert_int_equal(recv(ends[1], got, sizeof(got), MSG_WAITALL), sizeof(got));
	for (size_t i = 0; i < sizeof(got); i++)
		assert_int_equal(got[i], 'a');
	spool_extent_give(f->spool, &again, false);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(extents_end_at_the_limit_and_are_recycled, setup, teardown),
		cmocka_unit_test_setup_teardown(no_place_is_given_out_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_sent_from_an_extent_stays_what_it_was, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_sent_from_a_file_read_in_stays_what_it_was, setup, teardown),
		cmocka_unit_test_setup_teardown(own_files_are_counted_and_charged_with_the_extents, setup, teardown),
		cmocka_unit_test_setup_teardown(free_extents_leave_the_disk_for_own_files, setup, teardown),
		cmocka_unit_test_setup_teardown(jobs_write_all_pieces_and_read_in, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_is_the_jobs_result, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reopened_file_cannot_be_changed, setup, teardown),
		cmocka_unit_test_setup_teardown(no_read_notes_its_time, setup, teardown),
		cmocka_unit_test_setup_teardown(a_directory_that_cannot_be_used_is_an_error_at_the_start, setup, teardown),
		cmocka_unit_test_setup_teardown(one_arena_is_made_when_one_is_wanted, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_cannot_be_made_is_the_jobs_result, setup, teardown),
		cmocka_unit_test_setup_teardown(threads_share_the_extents, setup, teardown),
		cmocka_unit_test_setup_teardown(many_jobs_on_many_threads_all_come_back, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
