#include "proxy/daemon/quarantine.h"

#include <dirent.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"

#define PIECE_BYTES (64u << 10)
#define GONE_MAX    64 /* ends of processes remembered: the front's word may come behind them */
#define NAME_BYTES  256
#define SAFE_POOL   64

/* A pool's directory. */
struct ward {
	int dir;        /* -1: none */
	unsigned count; /* files, as far as is known */
	bool told;      /* that something could not be kept; until one can again */
};

struct patient {
	bool used;
	uint64_t until_ms;
	struct channel_message m;
	int head_fd, body_fd; /* -1: none */
};

struct end {
	pid_t pid;
	int status;
};

struct quarantine {
	const struct conf *conf;
	const struct clock *clock;
	struct event timer;
	struct ward *wards; /* by conf_pool.index */
	struct patient patients[QUARANTINE_WAITING];
	struct patient *last; /* whose body may come; NULL: nobody's */
	struct end gone[GONE_MAX];
	unsigned gone_next;
};

static void close_fd(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

/* ---- directories ---- */

/* An id may be a trusted proxy's, with whatever it takes for one. */
static void make_safe(const char *from, char *to, size_t size)
{
	static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	size_t i = 0;

	for (; i < size - 1 && from[i]; i++)
		to[i] = strchr(fine, from[i]) ? from[i] : '_';
	to[i] = '\0';
}

static bool is_ours(const char *name, const char *pool)
{
	size_t len = strlen(name), pool_len = strlen(pool), suffix = strlen(QUARANTINE_SUFFIX);

	return len > pool_len + suffix && strncmp(name, pool, pool_len) == 0 && name[pool_len] == '.' &&
	       strcmp(name + len - suffix, QUARANTINE_SUFFIX) == 0;
}

/* Files of the pool that are there now; somebody may have taken some away. */
static void count_files(struct ward *w, const char *pool)
{
	int fd = openat(w->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd == -1 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	char safe[SAFE_POOL];

	if (!dir) {
		close_fd(&fd);
		return; /* what was known stays */
	}
	make_safe(pool, safe, sizeof(safe));
	w->count = 0;
	while ((entry = readdir(dir)))
		w->count += is_ours(entry->d_name, safe);
	closedir(dir);
}

static int open_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd == -1 && errno == ENOENT && mkdir(path, 0700) == 0)
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd == -1 ? -errno : fd;
}

/* Cookies and passwords lie in there. */
static int ward_open(struct ward *w, const struct conf_pool *pool)
{
	int fd = open_dir(pool->quarantine_dir);
	struct stat st;

	if (fd < 0) {
		log_error("pool=%s quarantine_dir=%s error=\"%s\"", pool->name, pool->quarantine_dir, strerror(-fd));
		return fd;
	}
	w->dir = fd;
	if (fstat(fd, &st) == -1 || (st.st_mode & S_IWOTH)) {
		log_error("pool=%s quarantine_dir=%s what=\"anybody may write there\"", pool->name, pool->quarantine_dir);
		return -EPERM;
	}
	count_files(w, pool->name);
	return 0;
}

int quarantine_check(const struct quarantine *q)
{
	for (size_t i = 0; i < q->conf->pool_count; i++) {
		if (q->wards[i].dir == -1 || faccessat(q->wards[i].dir, ".", W_OK | X_OK, AT_EACCESS) == 0)
			continue;
		log_error(
		    "pool=%s quarantine_dir=%s error=\"%s\" what=\"it must belong to the user that forebay is started as\"",
		    q->conf->pools[i].name, q->conf->pools[i].quarantine_dir, strerror(errno));
		return -EACCES;
	}
	return 0;
}

/* ---- a file ---- */

static int write_all(int to, const char *from, size_t n)
{
	while (n > 0) {
		ssize_t got = write(to, from, n);

		if (got == -1 && errno == EINTR)
			continue;
		if (got == -1)
			return -errno;
		from += got;
		n -= (size_t)got;
	}
	return 0;
}

/* Up to `max` bytes of a regular file from its first one on. 0 or -errno. */
static int copy(int from, int to, uint64_t max, uint64_t *ret_bytes)
{
	char piece[PIECE_BYTES];
	int err = 0;

	*ret_bytes = 0;
	while (!err && *ret_bytes < max) {
		ssize_t n = pread(from, piece, (size_t)MIN(sizeof(piece), max - *ret_bytes), (off_t)*ret_bytes);

		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -errno;
		if (n == 0)
			break;
		err = write_all(to, piece, (size_t)n);
		*ret_bytes += (uint64_t)n;
	}
	return err;
}

static bool is_regular(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static uint64_t size_of(int fd)
{
	struct stat st;

	return fd != -1 && fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void put_how(struct buf *b, const int *status)
{
	if (!status)
		buf_printf(b, "has ended");
	else if (WIFSIGNALED(*status))
		buf_printf(b, "was ended by signal %d (%s)", WTERMSIG(*status), strsignal(WTERMSIG(*status)));
	else
		buf_printf(b, "ended by itself (exit %d)", WEXITSTATUS(*status));
}

/* What a person wants to know first. */
static int write_remarks(int to, const struct patient *p, const char *pool, const char *id, const char *when, const int *status)
{
	uint64_t here = MIN(size_of(p->body_fd), QUARANTINE_BODY_MAX);
	struct buf b;
	int err;

	buf_init(&b, 8192);
	buf_printf(&b, "# This request was in a worker of the pool %s that was lost: %s, request %s.\r\n", pool, when, id);
	buf_printf(&b, "# Worker %" PRId32 " ", p->m.u.poison.pid);
	put_how(&b, status);
	buf_printf(&b, ". The request was handed to %" PRIu32 " worker%s.\r\n", p->m.u.poison.tries,
	    p->m.u.poison.tries == 1 ? "" : "s");
	if (here < p->m.u.poison.body_bytes)
		buf_printf(&b, "# Cut: of the body's %" PRIu64 " bytes only the first %" PRIu64 " are here.\r\n",
		    p->m.u.poison.body_bytes, here);
	buf_printf(&b, "# Send it again: forebay replay FILE\r\n");
	err = b.failed ? -ENOMEM : write_all(to, b.ptr, b.len);
	buf_done(&b);
	return err;
}

static int write_file(int to, const struct patient *p, const char *pool, const char *id, const char *when, const int *status)
{
	uint64_t n;
	int err = write_remarks(to, p, pool, id, when, status);

	if (!err)
		err = copy(p->head_fd, to, QUARANTINE_HEAD_MAX, &n);
	if (!err && p->body_fd != -1)
		err = copy(p->body_fd, to, MIN(p->m.u.poison.body_bytes, QUARANTINE_BODY_MAX), &n);
	return err;
}

static void make_names(const struct patient *p, const char *pool, char *ret_name, char *ret_id, char *ret_when)
{
	time_t seconds = (time_t)(p->m.u.poison.wall_us / 1000000);
	char safe_pool[SAFE_POOL], compact[32];
	struct tm tm;

	if (!gmtime_r(&seconds, &tm))
		memset(&tm, 0, sizeof(tm));
	strftime(ret_when, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
	strftime(compact, sizeof(compact), "%Y%m%dT%H%M%SZ", &tm);
	make_safe(pool, safe_pool, sizeof(safe_pool));
	make_safe(p->m.u.poison.id, ret_id, 100);
	snprintf(ret_name, NAME_BYTES, "%s.%s.%s" QUARANTINE_SUFFIX, safe_pool, compact, ret_id);
}

static void not_kept(struct ward *w, const char *pool, const char *id, const char *why)
{
	if (!w->told)
		log_error("event=not_quarantined pool=%s id=%s why=\"%s\" what=\"said once, until one can be kept again\"",
		    pool, id, why);
	w->told = true;
}

static bool has_room(struct ward *w, const struct conf_pool *pool)
{
	if (w->count >= pool->quarantine_limit)
		count_files(w, pool->name);
	return w->count < pool->quarantine_limit;
}

/* status NULL: nobody knows any more how it ended. */
static void keep(struct quarantine *q, struct patient *p, const int *status)
{
	const struct conf_pool *pool = &q->conf->pools[p->m.u.poison.pool];
	struct ward *w = &q->wards[p->m.u.poison.pool];
	char name[NAME_BYTES], id[100], when[32];
	int fd, err;

	make_names(p, pool->name, name, id, when);
	if (!has_room(w, pool)) {
		not_kept(w, pool->name, id, "quarantine_limit");
		return;
	}
	fd = openat(w->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	err = fd == -1 ? -errno : write_file(fd, p, pool->name, id, when, status);
	if (fd != -1 && close(fd) == -1 && !err)
		err = -errno;
	if (err) {
		if (fd != -1)
			(void)unlinkat(w->dir, name, 0);
		not_kept(w, pool->name, id, strerror(-err));
		return;
	}
	w->count++;
	w->told = false;
	log_warning("event=quarantined pool=%s id=%s file=%s/%s", pool->name, id, pool->quarantine_dir, name);
}

/* ---- who waits ---- */

static void discharge(struct quarantine *q, struct patient *p)
{
	if (q->last == p)
		q->last = NULL;
	close_fd(&p->head_fd);
	close_fd(&p->body_fd);
	p->used = false;
}

static const int *status_of(const struct quarantine *q, pid_t pid)
{
	for (size_t i = 0; i < GONE_MAX; i++)
		if (q->gone[i].pid == pid)
			return &q->gone[i].status;
	return NULL;
}

/* A child that has not been reaped, dead or alive. */
static bool is_child(pid_t pid)
{
	siginfo_t info;

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* All of it is here. */
static void admit(struct quarantine *q, struct patient *p)
{
	pid_t pid = p->m.u.poison.pid;

	if (is_child(pid))
		return; /* quarantine_reaped */
	keep(q, p, status_of(q, pid));
	discharge(q, p);
}

static struct patient *bed(struct quarantine *q)
{
	for (size_t i = 0; i < QUARANTINE_WAITING; i++)
		if (!q->patients[i].used)
			return &q->patients[i];
	return NULL;
}

static void set_timer(struct quarantine *q)
{
	static const struct timeval tv = { QUARANTINE_WAIT_MS / 1000, QUARANTINE_WAIT_MS % 1000 * 1000 };

	if (!event_pending(&q->timer, EV_TIMEOUT, NULL))
		event_add(&q->timer, &tv);
}

static void hear_head(struct quarantine *q, const struct channel_message *m, int *fd)
{
	struct patient *p = bed(q);

	if (m->u.poison.pool >= q->conf->pool_count || q->wards[m->u.poison.pool].dir == -1 || m->u.poison.pid <= 0 ||
	    strnlen(m->u.poison.id, sizeof(m->u.poison.id)) == sizeof(m->u.poison.id) || !is_regular(*fd)) {
		log_error("event=front_nonsense message=poison");
		return;
	}
	if (!p) {
		not_kept(&q->wards[m->u.poison.pool], q->conf->pools[m->u.poison.pool].name, "", "too many at once");
		return;
	}
	*p = (struct patient){
		.used = true, .until_ms = clock_mono_ms(q->clock) + QUARANTINE_WAIT_MS, .m = *m, .head_fd = *fd, .body_fd = -1
	};
	*fd = -1;
	set_timer(q);
	if (m->u.poison.body_follows)
		q->last = p;
	else
		admit(q, p);
}

static void hear_body(struct quarantine *q, int *fd)
{
	struct patient *p = q->last;

	q->last = NULL;
	if (!p)
		return; /* there was no bed for it */
	if (is_regular(*fd)) {
		p->body_fd = *fd;
		*fd = -1;
	}
	admit(q, p);
}

void quarantine_hear(struct quarantine *q, const struct channel_message *m, int *fd)
{
	if (m->type == CHANNEL_POISON_BODY) {
		hear_body(q, fd);
		return;
	}
	q->last = NULL;
	hear_head(q, m, fd);
}

void quarantine_reaped(struct quarantine *q, pid_t pid, int status)
{
	q->gone[q->gone_next] = (struct end){ pid, status };
	q->gone_next = (q->gone_next + 1) % GONE_MAX;
	for (size_t i = 0; i < QUARANTINE_WAITING; i++) {
		struct patient *p = &q->patients[i];

		if (!p->used || p == q->last || p->m.u.poison.pid != pid)
			continue;
		keep(q, p, &status);
		discharge(q, p);
	}
}

void quarantine_tick(struct quarantine *q)
{
	uint64_t now = clock_mono_ms(q->clock);
	bool some = false;

	for (size_t i = 0; i < QUARANTINE_WAITING; i++) {
		struct patient *p = &q->patients[i];

		if (p->used && now >= p->until_ms) {
			log_debug("event=not_quarantined id=%s why=\"its worker lives\"", p->m.u.poison.id);
			discharge(q, p);
		}
		some = some || p->used;
	}
	if (some)
		set_timer(q);
}

static void on_timer(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	quarantine_tick(ctx);
}

int quarantine_new(struct event_base *base, const struct conf *conf, const struct clock *clock, struct quarantine **ret)
{
	struct quarantine *q = calloc(1, sizeof(*q));
	int err = 0;

	if (!q)
		return -ENOMEM;
	q->conf = conf;
	q->clock = clock;
	q->wards = calloc(MAX(conf->pool_count, 1), sizeof(*q->wards));
	if (!q->wards || evtimer_assign(&q->timer, base, on_timer, q)) {
		free(q->wards);
		free(q);
		return -ENOMEM;
	}
	for (size_t i = 0; i < conf->pool_count; i++)
		q->wards[i].dir = -1;
	for (size_t i = 0; !err && i < conf->pool_count; i++)
		if (conf->pools[i].quarantine_dir)
			err = ward_open(&q->wards[i], &conf->pools[i]);
	if (err)
		quarantine_free(&q);
	else
		*ret = q;
	return err;
}

void quarantine_free(struct quarantine **quarantine)
{
	struct quarantine *q = *quarantine;

	if (!q)
		return;
	event_del(&q->timer);
	for (size_t i = 0; i < QUARANTINE_WAITING; i++)
		if (q->patients[i].used)
			discharge(q, &q->patients[i]);
	for (size_t i = 0; i < q->conf->pool_count; i++)
		close_fd(&q->wards[i].dir);
	free(q->wards);
	free(q);
	*quarantine = NULL;
}
