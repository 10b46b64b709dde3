#include "proxy/observe/logger.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "proxy/observe/outlet.h"
#include "proxy/observe/ring.h"

#define END_GRACE_MS 1000 /* beyond wait_ms, for a write that hangs after all */

struct logger_channel {
	struct logger *logger;
	bool shared;
	struct ring rings[LOGGER_TO_COUNT];
};

/* What logger_set asked for, until the thread gets to it. */
struct pending {
	bool there;
	enum logger_kind kind;
	int fd;
	uint32_t epoch;
};

#define TELL_US 1000000 /* between two words about lost lines */

struct log {
	const char *name;
	_Alignas(64) atomic_uint_fast32_t epoch; /* grows with each logger_set: a line goes where its epoch's lines go */
	atomic_bool awaited;                     /* the thread sleeps until a line comes */
	struct pending pending;                  /* under set_mutex */
	/* the thread's */
	struct outlet outlet;
	uint32_t outlet_epoch;
	bool turning; /* a pending target was seen, and the rings are looked through once more before */
	bool blocked;
	bool failing;
	uint64_t lost_said;
	uint64_t told_us; /* when that was; 0: never */
};

struct logger {
	struct logger_channel *channels; /* one for each event thread, the shared one last */
	size_t channel_count;
	pthread_mutex_t shared_mutex, set_mutex;
	struct log logs[LOGGER_TO_COUNT];
	pthread_t thread;
	int wake_fd, ended_fd; /* eventfds */
	uint64_t deadline_us;  /* valid once `stopping` */
	atomic_bool stopping;
};

/* Which channel is the calling thread's. */
static _Thread_local struct {
	struct logger *logger;
	struct logger_channel *channel;
} here;

/* Writing a line: any thread. */

static void signal_fd(int fd)
{
	const uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) == -1 && errno == EINTR)
		;
}

static bool put(struct logger_channel *c, enum logger_to to, enum log_level level, struct slice line)
{
	uint32_t epoch = (uint32_t)atomic_load_explicit(&c->logger->logs[to].epoch, memory_order_acquire);

	/* Longer than any outlet's room: as if the ring were full. */
	if (line.len > LOGGER_LINE_MAX) {
		atomic_fetch_add_explicit(&c->rings[to].dropped, 1, memory_order_relaxed);
		return false;
	}
	return ring_put(&c->rings[to], epoch, level, line);
}

bool logger_write(struct logger_channel *c, enum logger_to to, enum log_level level, struct slice line)
{
	struct log *log = &c->logger->logs[to];
	bool fits;

	if (c->shared)
		pthread_mutex_lock(&c->logger->shared_mutex);
	fits = put(c, to, level, line);
	if (c->shared)
		pthread_mutex_unlock(&c->logger->shared_mutex);
	if (fits && atomic_load(&log->awaited) && atomic_exchange(&log->awaited, false))
		signal_fd(c->logger->wake_fd);
	return fits;
}

static struct logger_channel *shared_channel(struct logger *l)
{
	return &l->channels[l->channel_count - 1];
}

void logger_sink(void *ctx, enum log_level level, struct slice line)
{
	struct logger *l = ctx;

	logger_write(here.logger == l ? here.channel : shared_channel(l), LOGGER_ERROR, level, line);
}

void logger_here(struct logger *l, unsigned thread)
{
	here.logger = l;
	here.channel = logger_channel(l, thread);
}

struct logger_channel *logger_channel(struct logger *l, unsigned thread)
{
	assert(thread < l->channel_count - 1);
	return &l->channels[thread];
}

void logger_set(struct logger *l, enum logger_to to, enum logger_kind kind, int *fd)
{
	struct log *log = &l->logs[to];
	int unused = -1;

	pthread_mutex_lock(&l->set_mutex);
	if (log->pending.there)
		unused = log->pending.fd;
	log->pending = (struct pending){ .there = true, .kind = kind, .fd = *fd };
	log->pending.epoch = (uint32_t)atomic_fetch_add_explicit(&log->epoch, 1, memory_order_acq_rel) + 1;
	pthread_mutex_unlock(&l->set_mutex);
	*fd = -1;
	if (unused != -1)
		close(unused);
	signal_fd(l->wake_fd);
}

static uint64_t log_lost(const struct logger *l, enum logger_to to)
{
	uint64_t lost = outlet_lost(&l->logs[to].outlet);

	for (size_t i = 0; i < l->channel_count; i++)
		lost += ring_dropped(&l->channels[i].rings[to]);
	return lost;
}

uint64_t logger_dropped(const struct logger *l)
{
	uint64_t lost = 0;

	for (enum logger_to to = 0; to < LOGGER_TO_COUNT; to++)
		lost += log_lost(l, to);
	return lost;
}

/* The thread. */

static enum logger_to log_index(const struct logger *l, const struct log *log)
{
	return (enum logger_to)(log - l->logs);
}

/* Lines of a later epoch wait for their target. */
static bool is_due(const struct log *log, const struct ring_record *record)
{
	return (int32_t)(record->epoch - log->outlet_epoch) <= 0;
}

static void stage_ring(struct log *log, struct ring *ring)
{
	struct ring_record record;

	while (ring_front(ring, &record) && is_due(log, &record) && outlet_has_room(&log->outlet, record.len)) {
		ring_take(ring, &record, outlet_room(&log->outlet));
		outlet_add(&log->outlet, (enum log_level)record.level, record.len);
	}
}

/* True: there is something to write. */
static bool stage(struct logger *l, struct log *log)
{
	for (size_t i = 0; i < l->channel_count; i++)
		stage_ring(log, &l->channels[i].rings[log_index(l, log)]);
	return !outlet_is_empty(&log->outlet);
}

static bool is_pending(struct logger *l, const struct log *log)
{
	bool there;

	pthread_mutex_lock(&l->set_mutex);
	there = log->pending.there;
	pthread_mutex_unlock(&l->set_mutex);
	return there;
}

static struct pending pending_take(struct logger *l, struct log *log)
{
	struct pending p;

	pthread_mutex_lock(&l->set_mutex);
	p = log->pending;
	log->pending = (struct pending){ .fd = -1 };
	pthread_mutex_unlock(&l->set_mutex);
	return p;
}

/* To the next target, if one was set. True: there may be more to write. */
static bool turn(struct logger *l, struct log *log)
{
	struct pending next;

	if (!is_pending(l, log))
		return false;
	/* Lines from before the logger_set may have come since the rings were found empty: they go to the old target. */
	log->turning = !log->turning;
	if (log->turning)
		return true;
	next = pending_take(l, log);
	outlet_point(&log->outlet, next.kind, &next.fd);
	log->outlet_epoch = next.epoch;
	return true;
}

/* Writes all that can be written. */
static void log_work(struct logger *l, struct log *log)
{
	log->blocked = false;
	do {
		while (stage(l, log)) {
			if (outlet_flush(&log->outlet))
				continue;
			if (!is_pending(l, log)) {
				log->blocked = true;
				return;
			}
			outlet_give_up(&log->outlet);
		}
	} while (turn(l, log));
}

/* The first failure is told at once, the number of lines when there is a success again: not one line for each line lost. */
static void log_tell(struct logger *l, struct log *log)
{
	uint64_t lost = log_lost(l, log_index(l, log));
	int failure = log->outlet.failure;

	if (failure != 0 && !log->failing)
		log_error(
		    "logger log=%s error=\"%s\": its lines are lost until this ends", log->name, strerrordesc_np(failure));
	log->failing = failure != 0;
	if (log->failing || log->blocked || lost == log->lost_said)
		return;
	if (!atomic_load(&l->stopping) && log->told_us && clock_mono_us(&clock_real) - log->told_us < TELL_US)
		return;
	log->told_us = clock_mono_us(&clock_real);
	log_warning("logger log=%s lost=%" PRIu64, log->name, lost - log->lost_said);
	log->lost_said = lost;
}

static bool has_lines(const struct logger *l, enum logger_to to)
{
	for (size_t i = 0; i < l->channel_count; i++)
		if (!ring_is_empty(&l->channels[i].rings[to]))
			return true;
	return false;
}

/* True: there is something to do right now. False: a line that comes will wake the thread, unless its log is blocked. */
static bool prepare_to_sleep(struct logger *l)
{
	bool busy = false;

	for (enum logger_to to = 0; to < LOGGER_TO_COUNT; to++) {
		struct log *log = &l->logs[to];

		if (!log->blocked) {
			atomic_store(&log->awaited, true);
			busy = busy || has_lines(l, to);
		}
		busy = busy || is_pending(l, log);
	}
	return busy;
}

static bool any_blocked(const struct logger *l)
{
	for (size_t i = 0; i < LOGGER_TO_COUNT; i++)
		if (l->logs[i].blocked)
			return true;
	return false;
}

/* Lines were lost, and it was not yet time to say so. */
static bool any_untold(const struct logger *l)
{
	for (size_t i = 0; i < LOGGER_TO_COUNT; i++)
		if (!l->logs[i].failing && !l->logs[i].blocked && log_lost(l, (enum logger_to)i) != l->logs[i].lost_said)
			return true;
	return false;
}

/* -1: as long as it takes. */
static int ms_to_sleep(const struct logger *l)
{
	uint64_t now_us;

	if (!atomic_load(&l->stopping))
		return any_untold(l) ? TELL_US / 1000 : -1;
	now_us = clock_mono_us(&clock_real);
	return now_us >= l->deadline_us ? 0 : (int)((l->deadline_us - now_us) / 1000 + 1);
}

static void sleep_for_work(struct logger *l)
{
	struct pollfd fds[1 + LOGGER_TO_COUNT] = { { .fd = l->wake_fd, .events = POLLIN } };
	nfds_t count = 1;
	uint64_t wakes;

	for (size_t i = 0; i < LOGGER_TO_COUNT; i++)
		if (l->logs[i].blocked)
			fds[count++] = (struct pollfd){ .fd = l->logs[i].outlet.fd, .events = POLLOUT };
	poll(fds, count, ms_to_sleep(l));
	while (read(l->wake_fd, &wakes, sizeof(wakes)) == -1 && errno == EINTR)
		;
}

/* All is written that ever can be. */
static bool is_finished(const struct logger *l, bool busy)
{
	return clock_mono_us(&clock_real) >= l->deadline_us || (!busy && !any_blocked(l));
}

static void *run(void *ctx)
{
	struct logger *l = ctx;

	for (;;) {
		/* Before the work: what was written before the end was asked for is seen by it. */
		bool stopping = atomic_load(&l->stopping), busy;

		for (size_t i = 0; i < LOGGER_TO_COUNT; i++) {
			log_work(l, &l->logs[i]);
			log_tell(l, &l->logs[i]);
		}
		busy = prepare_to_sleep(l);
		if (stopping && is_finished(l, busy))
			break;
		if (!busy)
			sleep_for_work(l);
	}
	signal_fd(l->ended_fd);
	return NULL;
}

/* Making and ending. */

static int channels_new(struct logger *l, size_t count, size_t ring_bytes)
{
	l->channels = aligned_alloc(_Alignof(struct logger_channel), count * sizeof(*l->channels));
	if (!l->channels)
		return -ENOMEM;
	memset(l->channels, 0, count * sizeof(*l->channels));
	l->channel_count = count;
	for (size_t i = 0; i < count; i++) {
		l->channels[i].logger = l;
		l->channels[i].shared = i == count - 1;
		for (size_t to = 0; to < LOGGER_TO_COUNT; to++)
			if (ring_init(&l->channels[i].rings[to], ring_bytes) != 0)
				return -ENOMEM;
	}
	return 0;
}

static int logs_init(struct logger *l)
{
	static const char *const names[] = { [LOGGER_ERROR] = "error", [LOGGER_ACCESS] = "access" };
	int err = 0;

	for (size_t i = 0; i < LOGGER_TO_COUNT; i++) {
		l->logs[i].name = names[i];
		l->logs[i].pending.fd = -1;
		if (outlet_init(&l->logs[i].outlet) != 0)
			err = -ENOMEM;
	}
	return err;
}

static int start_thread(struct logger *l)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&l->thread, NULL, run, l);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

/* Also of a half-made one, whose thread does not run. */
static void logger_destroy(struct logger *l)
{
	for (size_t i = 0; i < LOGGER_TO_COUNT; i++) {
		outlet_done(&l->logs[i].outlet);
		if (l->logs[i].pending.fd != -1)
			close(l->logs[i].pending.fd);
	}
	for (size_t i = 0; i < l->channel_count; i++)
		for (size_t to = 0; to < LOGGER_TO_COUNT; to++)
			ring_done(&l->channels[i].rings[to]);
	free(l->channels);
	if (l->wake_fd != -1)
		close(l->wake_fd);
	if (l->ended_fd != -1)
		close(l->ended_fd);
	pthread_mutex_destroy(&l->shared_mutex);
	pthread_mutex_destroy(&l->set_mutex);
	free(l);
}

static int logger_init(struct logger *l, unsigned threads, size_t ring_bytes)
{
	int err = logs_init(l);

	pthread_mutex_init(&l->shared_mutex, NULL);
	pthread_mutex_init(&l->set_mutex, NULL);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->wake_fd == -1)
		err = -errno;
	l->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->ended_fd == -1)
		err = -errno;
	if (err == 0)
		err = channels_new(l, (size_t)threads + 1, ring_bytes);
	return err;
}

int logger_new(unsigned threads, size_t ring_bytes, struct logger **ret)
{
	struct logger *l = aligned_alloc(_Alignof(struct logger), sizeof(*l));
	int err;

	if (!l)
		return -ENOMEM;
	memset(l, 0, sizeof(*l));
	err = logger_init(l, threads, ring_bytes);
	if (err == 0)
		err = start_thread(l);
	if (err != 0) {
		logger_destroy(l);
		return err;
	}
	*ret = l;
	return 0;
}

void logger_free(struct logger **logger, unsigned wait_ms)
{
	struct logger *l = *logger;
	struct pollfd ended;

	*logger = NULL;
	if (!l)
		return;
	if (here.logger == l)
		here.logger = NULL;
	l->deadline_us = clock_mono_us(&clock_real) + (uint64_t)wait_ms * 1000;
	atomic_store(&l->stopping, true);
	signal_fd(l->wake_fd);
	ended = (struct pollfd){ .fd = l->ended_fd, .events = POLLIN };
	while (poll(&ended, 1, (int)wait_ms + END_GRACE_MS) == -1 && errno == EINTR)
		;
	if (ended.revents == 0) {
		/* A write hangs (a dead network file system): the process ends, and the thread with all that is its own along with it. */
		pthread_detach(l->thread);
		return;
	}
	pthread_join(l->thread, NULL);
	logger_destroy(l);
}
