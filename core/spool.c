#include "core/spool.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* So many arenas hold the limit, but none is smaller than 64M: each costs a descriptor. */
#define ARENAS_MAX        16
#define ARENA_EXTENTS_MIN 1024u
#define READ_BYTES        (64u << 10) /* on the stack of a spool thread */

struct arena {
	int fd;
	uint32_t fresh;      /* extents below this were in use at some time */
	uint32_t free_count; /* of these, free now: recycled last in, first out, for the page cache's sake */
	uint32_t free[];
};

/* A descriptor on its way to being closed by a spool thread. */
struct closing {
	struct closing *next;
	int fd;
	bool own;
	uint64_t charged_bytes;
};

struct spool {
	struct spool_options options;
	uint32_t arena_extents;
	uint64_t extents_max;

	pthread_mutex_t map_lock; /* never held across a system call */
	struct arena *arenas[ARENAS_MAX];
	unsigned arena_count;
	uint64_t extents;    /* in use */
	uint64_t file_bytes; /* charged for own files */
	unsigned own_files;

	pthread_mutex_t queue_lock; /* neither */
	pthread_cond_t work;
	struct spool_job *first, **last;
	struct closing *closings;
	bool stopping;
	uint64_t jobs, errors;

	unsigned thread_count;
	pthread_t *threads;
};

/* Files without a name */

/* For file systems without O_TMPFILE. */
static int open_and_unlink(int dir_fd)
{
	unsigned char random[16];
	char name[16 + 2 * sizeof(random)] = ".spool-";
	size_t len = strlen(name);
	int fd;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	for (size_t i = 0; i < sizeof(random); i++)
		len += (size_t)snprintf(name + len, sizeof(name) - len, "%02x", random[i]);
	fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd == -1)
		return -errno;
	if (unlinkat(dir_fd, name, 0) == -1) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static int open_nameless(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

	if (fd != -1)
		return fd;
	/* What file systems and kernels without it answer. */
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL)
		return -errno;
	return open_and_unlink(dir_fd);
}

/* The threads */

/* Moves an iovec n bytes on. */
static void iov_skip(struct iovec **iov, int *count, size_t n)
{
	while (*count > 0 && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (*count > 0) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

static int write_all(const struct spool_job *job)
{
	struct iovec *iov = job->iov;
	int count = job->iov_count;
	off_t offset = job->offset;

	while (count > 0) {
		ssize_t n = pwritev(job->fd, iov, count, offset);

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 ? -EIO : -errno;
		offset += n;
		iov_skip(&iov, &count, (size_t)n);
	}
	return 0;
}

/* Read for real, since readahead() may do as much or as little as it likes. */
static int read_in(const struct spool_job *job, char *buffer)
{
	size_t done = 0;

	while (done < job->len) {
		ssize_t n = pread(job->fd, buffer, MIN(job->len - done, (size_t)READ_BYTES), job->offset + (off_t)done);

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 ? -EIO : -errno;
		done += (size_t)n;
	}
	return 0;
}

static void deliver_job(struct mail *m)
{
	struct spool_job *job = CONTAINER_OF(m, struct spool_job, mail);

	job->done(job);
}

static void do_job(struct spool *s, struct spool_job *job, char *buffer)
{
	job->result = job->what == SPOOL_WRITE ? write_all(job) : read_in(job, buffer);
	pthread_mutex_lock(&s->queue_lock);
	s->jobs--;
	if (job->result < 0)
		s->errors++;
	pthread_mutex_unlock(&s->queue_lock);
	mailbox_post(job->reply, &job->mail);
}

static void finish_closing(struct spool *s, const struct closing *c)
{
	close(c->fd);
	if (c->own) {
		pthread_mutex_lock(&s->map_lock);
		s->own_files--;
		s->file_bytes -= c->charged_bytes;
		pthread_mutex_unlock(&s->map_lock);
	}
}

/* The next thing to do, closing first as it makes room; false at the end, when all is done. */
static bool next_work(struct spool *s, struct spool_job **ret_job, struct closing **ret_closing)
{
	bool found;

	*ret_job = NULL;
	*ret_closing = NULL;
	pthread_mutex_lock(&s->queue_lock);
	while (!s->first && !s->closings && !s->stopping)
		pthread_cond_wait(&s->work, &s->queue_lock);
	if (s->closings) {
		*ret_closing = s->closings;
		s->closings = s->closings->next;
	} else if (s->first) {
		*ret_job = s->first;
		s->first = s->first->next;
		if (!s->first)
			s->last = &s->first;
	}
	found = *ret_closing || *ret_job;
	pthread_mutex_unlock(&s->queue_lock);
	return found;
}

static void *spool_thread(void *arg)
{
	struct spool *s = arg;
	char buffer[READ_BYTES];
	struct spool_job *job;
	struct closing *closing;

	pthread_setname_np(pthread_self(), "spool");
	while (next_work(s, &job, &closing)) {
		if (job)
			do_job(s, job, buffer);
		else
			finish_closing(s, closing);
		free(closing);
	}
	return NULL;
}

/* Signals are the main thread's business. */
static int start_threads(struct spool *s)
{
	sigset_t all, before;
	int err = 0;

	s->threads = calloc(s->options.threads, sizeof(*s->threads));
	if (!s->threads)
		return -ENOMEM;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (!err && s->thread_count < s->options.threads) {
		err = -pthread_create(&s->threads[s->thread_count], NULL, spool_thread, s);
		if (!err)
			s->thread_count++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

static void stop_threads(struct spool *s)
{
	pthread_mutex_lock(&s->queue_lock);
	s->stopping = true;
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->queue_lock);
	for (unsigned i = 0; i < s->thread_count; i++)
		pthread_join(s->threads[i], NULL);
	free(s->threads);
}

void spool_submit(struct spool *s, struct spool_job *job)
{
	job->mail.deliver = deliver_job;
	job->next = NULL;
	pthread_mutex_lock(&s->queue_lock);
	*s->last = job;
	s->last = &job->next;
	s->jobs++;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->queue_lock);
}

/* Extents */

static uint64_t held_bytes(const struct spool *s)
{
	return s->extents * SPOOL_EXTENT_BYTES + s->file_bytes;
}

static int arena_new(const struct spool *s, struct arena **ret)
{
	struct arena *a = malloc(sizeof(*a) + s->arena_extents * sizeof(a->free[0]));

	if (!a)
		return -ENOMEM;
	*a = (struct arena){ .fd = open_nameless(s->options.dir_fd) };
	if (a->fd < 0) {
		int err = a->fd;

		free(a);
		return err;
	}
	*ret = a;
	return 0;
}

static void arena_free(struct arena *a)
{
	if (!a)
		return;
	close(a->fd);
	free(a);
}

/* From the arenas there are, the first first, so that the last can stay empty. 0, -ENOSPC, or -EAGAIN: another arena is needed. */
static int take_from_arenas(struct spool *s, struct extent *ret)
{
	if (s->extents >= s->extents_max || held_bytes(s) + SPOOL_EXTENT_BYTES > s->options.limit_bytes)
		return -ENOSPC;
	for (unsigned i = 0; i < s->arena_count; i++) {
		struct arena *a = s->arenas[i];
		uint32_t at;

		if (a->free_count == 0 && a->fresh == s->arena_extents)
			continue;
		at = a->free_count > 0 ? a->free[--a->free_count] : a->fresh++;
		*ret = (struct extent){
			.fd = a->fd,
			.number = i * s->arena_extents + at,
			.offset = (off_t)at * SPOOL_EXTENT_BYTES,
		};
		s->extents++;
		return 0;
	}
	return -EAGAIN;
}

/* Adds *a, unless another thread was faster and there are enough. */
static void add_arena(struct spool *s, struct arena **a)
{
	if (s->arena_count == ARENAS_MAX)
		return;
	s->arenas[s->arena_count++] = *a;
	*a = NULL;
}

int spool_extent_take(struct spool *s, struct extent *ret)
{
	for (;;) {
		struct arena *a = NULL;
		int err;

		pthread_mutex_lock(&s->map_lock);
		err = take_from_arenas(s, ret);
		pthread_mutex_unlock(&s->map_lock);
		if (err != -EAGAIN)
			return err;
		err = arena_new(s, &a);
		if (err)
			return err;
		pthread_mutex_lock(&s->map_lock);
		add_arena(s, &a);
		pthread_mutex_unlock(&s->map_lock);
		arena_free(a);
	}
}

void spool_extent_give(struct spool *s, const struct extent *e)
{
	struct arena *a;

	pthread_mutex_lock(&s->map_lock);
	a = s->arenas[e->number / s->arena_extents];
	assert(a->free_count < a->fresh && s->extents > 0);
	a->free[a->free_count++] = e->number % s->arena_extents;
	s->extents--;
	pthread_mutex_unlock(&s->map_lock);
}

/* Own files */

int spool_file_take(struct spool *s, int *ret_fd)
{
	bool room;
	int fd;

	pthread_mutex_lock(&s->map_lock);
	room = s->own_files < s->options.own_files_max;
	s->own_files += room;
	pthread_mutex_unlock(&s->map_lock);
	if (!room)
		return -EMFILE;
	fd = open_nameless(s->options.dir_fd);
	if (fd < 0) {
		pthread_mutex_lock(&s->map_lock);
		s->own_files--;
		pthread_mutex_unlock(&s->map_lock);
		return fd;
	}
	*ret_fd = fd;
	return 0;
}

static void close_later(struct spool *s, int *fd, bool own, uint64_t charged_bytes)
{
	struct closing *c = malloc(sizeof(*c));
	struct closing now = { .fd = *fd, .own = own, .charged_bytes = charged_bytes };

	*fd = -1;
	if (!c) {
		finish_closing(s, &now); /* without memory: a stall is better than a leak */
		return;
	}
	*c = now;
	pthread_mutex_lock(&s->queue_lock);
	c->next = s->closings;
	s->closings = c;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->queue_lock);
}

void spool_file_give(struct spool *s, int *fd, uint64_t charged_bytes)
{
	close_later(s, fd, true, charged_bytes);
}

void spool_close(struct spool *s, int *fd)
{
	close_later(s, fd, false, 0);
}

int spool_file_charge(struct spool *s, uint64_t bytes)
{
	int err = 0;

	pthread_mutex_lock(&s->map_lock);
	if (bytes > s->options.limit_bytes - held_bytes(s))
		err = -ENOSPC;
	else
		s->file_bytes += bytes;
	pthread_mutex_unlock(&s->map_lock);
	return err;
}

/* Without /proc: the file gets a name for a moment (Linux 6.10 lets its opener do that). */
static int reopen_by_name(int dir_fd, int fd)
{
	unsigned char random[8];
	char name[32] = ".spool-";
	uint64_t number;
	int again, err;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	memcpy(&number, random, sizeof(number));
	snprintf(name, sizeof(name), ".spool-%016" PRIx64, number);
	if (linkat(fd, "", dir_fd, name, AT_EMPTY_PATH) == -1)
		return -errno;
	again = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	err = again == -1 ? -errno : 0;
	unlinkat(dir_fd, name, 0);
	return err ? err : again;
}

int spool_file_reopen(struct spool *s, int fd, int *ret_fd)
{
	char path[32];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDONLY | O_CLOEXEC);
	if (again == -1)
		again = reopen_by_name(s->options.dir_fd, fd);
	if (again < 0)
		return again;
	*ret_fd = again;
	return 0;
}

/* Life */

static uint32_t arena_extents_for(uint64_t extents_max)
{
	return (uint32_t)MAX((extents_max + ARENAS_MAX - 1) / ARENAS_MAX, (uint64_t)ARENA_EXTENTS_MIN);
}

int spool_new(const struct spool_options *o, struct spool **ret)
{
	struct spool *s = calloc(1, sizeof(*s));
	int err = 0;

	if (!s)
		return -ENOMEM;
	s->options = *o;
	/* An extent's number has 32 bits: 256T are the most, whatever the limit says. */
	s->extents_max = MIN(o->limit_bytes / SPOOL_EXTENT_BYTES, (uint64_t)UINT32_MAX - ARENAS_MAX);
	s->arena_extents = arena_extents_for(s->extents_max);
	s->last = &s->first;
	pthread_mutex_init(&s->map_lock, NULL);
	pthread_mutex_init(&s->queue_lock, NULL);
	pthread_cond_init(&s->work, NULL);
	/* The first arena now: a directory that cannot be written to shows at the start. */
	err = arena_new(s, &s->arenas[0]);
	if (!err) {
		s->arena_count = 1;
		err = start_threads(s);
	}
	if (err) {
		spool_free(&s);
		return err;
	}
	*ret = s;
	return 0;
}

void spool_free(struct spool **spool)
{
	struct spool *s = *spool;

	if (!s)
		return;
	stop_threads(s);
	assert(s->extents == 0 && s->file_bytes == 0 && s->own_files == 0 && s->jobs == 0);
	for (unsigned i = 0; i < s->arena_count; i++)
		arena_free(s->arenas[i]);
	pthread_cond_destroy(&s->work);
	pthread_mutex_destroy(&s->queue_lock);
	pthread_mutex_destroy(&s->map_lock);
	free(s);
	*spool = NULL;
}

uint64_t spool_own_file_bytes(const struct spool *s)
{
	return s->options.own_file_bytes;
}

void spool_figures(struct spool *s, struct spool_figures *ret)
{
	*ret = (struct spool_figures){ 0 };
	pthread_mutex_lock(&s->map_lock);
	ret->bytes = held_bytes(s);
	ret->extents = s->extents;
	ret->own_files = s->own_files;
	pthread_mutex_unlock(&s->map_lock);
	pthread_mutex_lock(&s->queue_lock);
	ret->jobs = s->jobs;
	ret->errors = s->errors;
	pthread_mutex_unlock(&s->queue_lock);
}
