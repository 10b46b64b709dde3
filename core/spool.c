#include "core/spool.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/extents.h"

#define READ_BYTES (64u << 10) /* on the stack of a spool thread */

/* A descriptor on its way to being closed by a spool thread. */
struct closing {
	struct closing *next;
	int fd;
	bool own;
	uint64_t charged_bytes;
};

struct spool {
	struct spool_options options;

	pthread_mutex_t map_lock; /* never held across a system call */
	struct extents extents;
	uint64_t file_bytes; /* charged for own files */
	unsigned own_files;

	pthread_mutex_t queue_lock; /* neither */
	pthread_cond_t work;
	struct spool_job *first, **last;
	struct closing *closings;
	bool reclaiming; /* extents are to leave the disk */
	bool stopping;
	uint64_t jobs, errors;

	unsigned thread_count;
	pthread_t *threads;
};

/* Files without a name */

/*
 * Whoever reads a file notes the time in its inode, which is a change of the file system's and may wait for a busy journal: an event
 * thread's sendfile() of cached pages would. It fails where the file is not ours to the server's mind (NFS).
 */
static int without_atime(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags != -1)
		(void)fcntl(fd, F_SETFL, flags | O_NOATIME);
	return fd;
}

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

/* Arenas */

static bool wants_arena(struct spool *s)
{
	bool wants;

	pthread_mutex_lock(&s->map_lock);
	wants = extents_want_arena(&s->extents);
	pthread_mutex_unlock(&s->map_lock);
	return wants;
}

static int add_arena(struct spool *s)
{
	struct arena *a;
	int fd;

	if (!wants_arena(s))
		return 0;
	fd = open_nameless(s->options.dir_fd);
	if (fd < 0)
		return fd;
	(void)without_atime(fd);
	/*
	 * No read-ahead: it makes folios of up to 2M, which neighbouring extents share. A hole in such a folio is zeros written into pages
	 * that a socket may still hold (ext4 and XFS do that); one in small pages takes them away whole, which is what we punch for.
	 */
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	a = extents_arena_new(&s->extents, &fd);
	if (!a)
		return -ENOMEM;
	pthread_mutex_lock(&s->map_lock);
	extents_add(&s->extents, &a);
	pthread_mutex_unlock(&s->map_lock);
	extents_arena_free(&a); /* another thread was faster */
	return 0;
}

/* The threads */

static int punch(int fd, off_t offset, size_t len)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, (off_t)len) == -1 ? -errno : 0;
}

/* Gives the disk and the pages behind one free extent back; false: there was none. One where that fails is never used again. */
static bool reclaim_one(struct spool *s)
{
	struct extent e;
	bool found;

	pthread_mutex_lock(&s->map_lock);
	found = extents_leave(&s->extents, &e);
	pthread_mutex_unlock(&s->map_lock);
	if (!found)
		return false;
	if (punch(e.fd, e.offset, SPOOL_EXTENT_BYTES) != 0)
		return true;
	pthread_mutex_lock(&s->map_lock);
	extents_left(&s->extents, &e);
	pthread_mutex_unlock(&s->map_lock);
	return true;
}

/*
 * The disk is full before the limit is reached: then what it has behind free extents is needed elsewhere. False: there is nothing behind any.
 */
static bool reclaim_all(struct spool *s)
{
	bool any;

	pthread_mutex_lock(&s->map_lock);
	any = s->extents.recycled > 0;
	extents_reclaim(&s->extents, s->extents.recycled);
	pthread_mutex_unlock(&s->map_lock);
	while (reclaim_one(s))
		any = true;
	return any;
}

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

static int write_all(struct spool *s, int fd, off_t offset, struct iovec *iov, int count)
{
	while (count > 0) {
		ssize_t n = pwritev(fd, iov, count, offset);

		if (n == -1 && (errno == EINTR || (errno == ENOSPC && reclaim_all(s))))
			continue;
		if (n <= 0)
			return n == 0 ? -EIO : -errno;
		offset += n;
		iov_skip(&iov, &count, (size_t)n);
	}
	return 0;
}

static int read_all(int fd, off_t offset, char *to, size_t len)
{
	while (len > 0) {
		ssize_t n = pread(fd, to, len, offset);

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 ? -EIO : -errno;
		offset += n;
		to += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Read for real, since readahead() may do as much or as little as it likes. */
static int read_in(const struct spool_job *job, char *buffer)
{
	int err = 0;

	for (size_t done = 0, n; !err && done < job->len; done += n) {
		n = MIN(job->len - done, (size_t)READ_BYTES);
		err = read_all(job->fd, job->offset + (off_t)done, buffer, n);
	}
	return err;
}

static int copy(struct spool *s, const struct spool_job *job, char *buffer)
{
	int err = 0;

	for (size_t done = 0, n; !err && done < job->len; done += n) {
		struct iovec iov;

		n = MIN(job->len - done, (size_t)READ_BYTES);
		iov = (struct iovec){ buffer, n };
		err = read_all(job->from_fd, job->from_offset + (off_t)done, buffer, n);
		if (!err)
			err = write_all(s, job->fd, job->offset + (off_t)done, &iov, 1);
	}
	return err;
}

static int make_file(struct spool *s, struct spool_job *job)
{
	int fd = open_nameless(s->options.dir_fd);

	job->fd = fd < 0 ? -1 : without_atime(fd);
	return MIN(fd, 0);
}

static int perform(struct spool *s, struct spool_job *job, char *buffer)
{
	int err = job->make_file ? make_file(s, job) : 0;

	if (err)
		return err;
	switch (job->what) {
	case SPOOL_READ:
		return read_in(job, buffer);
	case SPOOL_WRITE:
		return write_all(s, job->fd, job->offset, job->iov, job->iov_count);
	case SPOOL_COPY:
		return copy(s, job, buffer);
	case SPOOL_ARENA:
		return add_arena(s);
	}
	return -EINVAL;
}

static void deliver_job(struct mail *m)
{
	struct spool_job *job = CONTAINER_OF(m, struct spool_job, mail);

	job->done(job);
}

static void do_job(struct spool *s, struct spool_job *job, char *buffer)
{
	job->result = perform(s, job, buffer);
	pthread_mutex_lock(&s->queue_lock);
	s->jobs--;
	if (job->result < 0)
		s->errors++;
	pthread_mutex_unlock(&s->queue_lock);
	mailbox_post(job->reply, &job->mail);
}

static void uncount_file(struct spool *s, uint64_t charged_bytes)
{
	pthread_mutex_lock(&s->map_lock);
	s->own_files--;
	s->file_bytes -= charged_bytes;
	pthread_mutex_unlock(&s->map_lock);
}

static void finish_closing(struct spool *s, const struct closing *c)
{
	close(c->fd);
	if (c->own)
		uncount_file(s, c->charged_bytes);
}

/* What a spool thread does next. */
struct work {
	struct closing *closing;
	bool reclaim;
	struct spool_job *job;
};

/* What makes room first. False at the end, when all is done. */
static bool next_work(struct spool *s, struct work *ret)
{
	*ret = (struct work){ 0 };
	pthread_mutex_lock(&s->queue_lock);
	while (!s->first && !s->closings && !s->reclaiming && !s->stopping)
		pthread_cond_wait(&s->work, &s->queue_lock);
	if (s->closings) {
		ret->closing = s->closings;
		s->closings = s->closings->next;
	} else if (s->reclaiming) {
		ret->reclaim = true;
		s->reclaiming = false;
	} else if (s->first) {
		ret->job = s->first;
		s->first = s->first->next;
		if (!s->first)
			s->last = &s->first;
	}
	pthread_mutex_unlock(&s->queue_lock);
	return ret->closing || ret->reclaim || ret->job;
}

static void *spool_thread(void *arg)
{
	struct spool *s = arg;
	char buffer[READ_BYTES];
	struct work work;

	pthread_setname_np(pthread_self(), "spool");
	while (next_work(s, &work)) {
		while (work.reclaim && reclaim_one(s))
			;
		if (work.closing)
			finish_closing(s, work.closing);
		if (work.job)
			do_job(s, work.job, buffer);
		free(work.closing);
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

void spool_stop(struct spool *s)
{
	if (!s->threads)
		return;
	pthread_mutex_lock(&s->queue_lock);
	s->stopping = true;
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->queue_lock);
	for (unsigned i = 0; i < s->thread_count; i++)
		pthread_join(s->threads[i], NULL);
	free(s->threads);
	s->threads = NULL;
}

void spool_submit(struct spool *s, struct spool_job *job)
{
	job->mail.deliver = deliver_job;
	job->next = NULL;
	pthread_mutex_lock(&s->queue_lock);
	*s->last = job;
	s->last = &job->next;
	s->jobs++;
	pthread_mutex_unlock(&s->queue_lock);
	pthread_cond_signal(&s->work); /* not before: who is woken wants the lock */
}

/* Extents */

static uint64_t held_bytes(const struct spool *s)
{
	return s->extents.used * SPOOL_EXTENT_BYTES + s->file_bytes;
}

int spool_extent_take(struct spool *s, struct extent *ret)
{
	int err = -ENOSPC;

	pthread_mutex_lock(&s->map_lock);
	/* One that is recycled costs no disk, and without recycled ones, what is held is what is on disk. */
	if (held_bytes(s) + SPOOL_EXTENT_BYTES <= s->options.limit_bytes)
		err = extents_take(&s->extents, ret);
	pthread_mutex_unlock(&s->map_lock);
	return err;
}

static void wake_to_reclaim(struct spool *s)
{
	pthread_mutex_lock(&s->queue_lock);
	s->reclaiming = true;
	pthread_mutex_unlock(&s->queue_lock);
	pthread_cond_signal(&s->work);
}

void spool_extent_give(struct spool *s, const struct extent *e, bool handed_out)
{
	pthread_mutex_lock(&s->map_lock);
	extents_give(&s->extents, e, handed_out);
	pthread_mutex_unlock(&s->map_lock);
	if (handed_out)
		wake_to_reclaim(s);
}

/* Own files */

int spool_file_take(struct spool *s, bool urgent)
{
	unsigned max = s->options.own_files_max;
	bool room;

	pthread_mutex_lock(&s->map_lock);
	room = s->own_files < (urgent ? max : max - max / 2);
	s->own_files += room;
	pthread_mutex_unlock(&s->map_lock);
	return room ? 0 : -EMFILE;
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
	pthread_mutex_unlock(&s->queue_lock);
	pthread_cond_signal(&s->work);
}

void spool_file_give(struct spool *s, int *fd, uint64_t charged_bytes)
{
	if (*fd == -1)
		uncount_file(s, charged_bytes);
	else
		close_later(s, fd, true, charged_bytes);
}

void spool_close(struct spool *s, int *fd)
{
	close_later(s, fd, false, 0);
}

/* The limit is the disk's: free extents that were written to once take it up too, and leave it now. Returns whether there are any. */
static bool reclaim_for(struct spool *s, uint64_t bytes)
{
	uint64_t left = s->options.limit_bytes - held_bytes(s) - bytes;
	uint64_t recycled = s->extents.recycled * SPOOL_EXTENT_BYTES;

	if (recycled <= left)
		return false;
	extents_reclaim(&s->extents, (recycled - left + SPOOL_EXTENT_BYTES - 1) / SPOOL_EXTENT_BYTES);
	return true;
}

int spool_file_charge(struct spool *s, uint64_t bytes)
{
	bool reclaim = false;
	int err = 0;

	pthread_mutex_lock(&s->map_lock);
	if (bytes > s->options.limit_bytes - held_bytes(s)) {
		err = -ENOSPC;
	} else {
		reclaim = reclaim_for(s, bytes);
		s->file_bytes += bytes;
	}
	pthread_mutex_unlock(&s->map_lock);
	if (reclaim)
		wake_to_reclaim(s);
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
	*ret_fd = without_atime(again);
	return 0;
}

/* Life */

int spool_new(const struct spool_options *o, struct spool **ret)
{
	struct spool *s = calloc(1, sizeof(*s));
	int err = 0;

	if (!s)
		return -ENOMEM;
	s->options = *o;
	extents_init(&s->extents, o->limit_bytes);
	s->last = &s->first;
	pthread_mutex_init(&s->map_lock, NULL);
	pthread_mutex_init(&s->queue_lock, NULL);
	pthread_cond_init(&s->work, NULL);
	/* The first arena now: a directory that cannot be written to, or whose files cannot have holes, shows at the start. */
	err = add_arena(s);
	if (!err)
		err = punch(s->extents.arenas[0]->fd, 0, SPOOL_EXTENT_BYTES);
	if (!err)
		err = start_threads(s);
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
	spool_stop(s);
	assert(s->extents.used == 0 && s->file_bytes == 0 && s->own_files == 0 && s->jobs == 0);
	extents_done(&s->extents);
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
	ret->extents = s->extents.used;
	ret->own_files = s->own_files;
	pthread_mutex_unlock(&s->map_lock);
	pthread_mutex_lock(&s->queue_lock);
	ret->jobs = s->jobs;
	ret->errors = s->errors;
	pthread_mutex_unlock(&s->queue_lock);
}
