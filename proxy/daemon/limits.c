#include "proxy/daemon/limits.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "proxy/daemon/channel.h"

/* Descriptors that the front needs besides its clients'. */
#define FRONT_FIXED      96 /* logs, control, spool directory and arenas, libraries */
#define FRONT_PER_THREAD 8  /* epoll, eventfd, the moment between accept and a refusal */
#define FRONT_PER_SLOT   2  /* the link, and a file that a worker handed over */

#define SMALL_FILE_BYTES 4096

/* A whole small file; false if it cannot be read or is larger. NUL-terminated. */
static bool read_small(int dir, const char *path, char text[SMALL_FILE_BYTES], struct slice *ret)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	size_t len = 0;
	ssize_t n = 0;

	if (fd == -1)
		return false;
	while (len < SMALL_FILE_BYTES && (n = read(fd, text + len, SMALL_FILE_BYTES - len)) > 0)
		len += (size_t)n;
	close(fd);
	if (n < 0 || len == SMALL_FILE_BYTES)
		return false;
	text[len] = '\0';
	*ret = slice_of(text, len);
	return true;
}

/* A file that holds one number; "max" and everything else is no limit. */
static uint64_t read_number(int root, const char *path)
{
	char text[SMALL_FILE_BYTES];
	struct slice all, line;
	uint64_t n;

	if (!read_small(root, path, text, &all) || !slice_cut(&all, '\n', &line) || !slice_to_u64(line, &n))
		return UINT64_MAX;
	return n;
}

/* Where a group's figures are. */
static const struct group_files {
	const char *mount, *limit, *used;
} unified = { "sys/fs/cgroup", "memory.max", "memory.current" },
  old = { "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes" };

/* Bytes of files that were read and can be dropped at any time. */
static uint64_t droppable(int root, const char *folder)
{
	const struct slice figure = SLICE("inactive_file ");
	char name[PATH_MAX], text[SMALL_FILE_BYTES];
	struct slice all, line;
	uint64_t n;
	int len = snprintf(name, sizeof(name), "%s/memory.stat", folder);

	if (len < 0 || (size_t)len >= sizeof(name) || !read_small(root, name, text, &all))
		return 0;
	while (slice_cut(&all, '\n', &line))
		if (slice_starts(line, figure))
			return slice_to_u64(slice_of(line.ptr + figure.len, line.len - figure.len), &n) ? n : 0;
	return 0;
}

/* The limit of one group, or (room) what of it is left. */
static uint64_t group_figure(int root, const struct group_files *files, const char *folder, bool room)
{
	char name[PATH_MAX];
	uint64_t limit = UINT64_MAX, used = 0;
	int n = snprintf(name, sizeof(name), "%s/%s", folder, files->limit);

	if (n > 0 && (size_t)n < sizeof(name))
		limit = read_number(root, name);
	if (!room || limit == UINT64_MAX)
		return limit;
	n = snprintf(name, sizeof(name), "%s/%s", folder, files->used);
	if (n > 0 && (size_t)n < sizeof(name))
		used = read_number(root, name);
	if (used == UINT64_MAX)
		return UINT64_MAX;
	used -= MIN(used, droppable(root, folder));
	return limit > used ? limit - used : 0;
}

/* The lowest of a group and of all above it. `path` begins with "/". */
static uint64_t lowest_upwards(int root, const struct group_files *files, struct slice path, bool room)
{
	char folder[PATH_MAX];
	uint64_t lowest = UINT64_MAX;

	for (;;) {
		int n = snprintf(folder, sizeof(folder), "%s%.*s", files->mount, SLICE_ARG(path));

		if (n > 0 && (size_t)n < sizeof(folder))
			lowest = MIN(lowest, group_figure(root, files, folder, room));
		if (path.len == 0)
			return lowest;
		while (path.len > 0 && path.ptr[--path.len] != '/')
			;
	}
}

static bool has_controller(struct slice list, struct slice name)
{
	struct slice one;

	while (slice_cut(&list, ',', &one))
		if (slice_eq(one, name))
			return true;
	return slice_eq(list, name);
}

/* One line of /proc/self/cgroup: "0::/path" (v2) or "4:memory:/path" (v1). */
static uint64_t line_figure(int root, struct slice line, bool room)
{
	struct slice number, controllers;

	if (!slice_cut(&line, ':', &number) || !slice_cut(&line, ':', &controllers) || !slice_starts(line, SLICE("/")))
		return UINT64_MAX;
	if (controllers.len == 0)
		return lowest_upwards(root, &unified, line, room);
	if (has_controller(controllers, SLICE("memory")))
		return lowest_upwards(root, &old, line, room);
	return UINT64_MAX;
}

static uint64_t cgroup_figure(int root, bool room)
{
	char text[SMALL_FILE_BYTES];
	struct slice all, line;
	uint64_t lowest = UINT64_MAX;

	if (!read_small(root, "proc/self/cgroup", text, &all))
		return UINT64_MAX;
	while (slice_cut(&all, '\n', &line))
		lowest = MIN(lowest, line_figure(root, line, room));
	return lowest;
}

uint64_t limits_cgroup_memory(int root)
{
	return cgroup_figure(root, false);
}

/* What programs can still have without the kernel having to swap. */
static uint64_t available(int root)
{
	char text[SMALL_FILE_BYTES];
	struct slice all, line, word;
	uint64_t n;

	if (!read_small(root, "proc/meminfo", text, &all))
		return UINT64_MAX;
	while (slice_cut(&all, '\n', &line)) {
		if (!slice_starts(line, SLICE("MemAvailable:")))
			continue;
		line = slice_trim_ows(slice_of(line.ptr + 13, line.len - 13));
		return slice_cut(&line, ' ', &word) && slice_to_u64(word, &n) ? n << 10 : UINT64_MAX;
	}
	return UINT64_MAX;
}

uint64_t limits_memory_room(int root)
{
	return MIN(available(root), cgroup_figure(root, true));
}

uint64_t limits_look_for_room(void)
{
	int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t room = limits_memory_room(root);

	if (root != -1)
		close(root);
	return room;
}

static uint64_t raise_descriptors(int root)
{
	uint64_t most = read_number(root, "proc/sys/fs/nr_open");
	struct rlimit r, more;

	if (getrlimit(RLIMIT_NOFILE, &r) == -1)
		return 256;
	more.rlim_cur = more.rlim_max = most;
	if (most != UINT64_MAX && most > r.rlim_max && setrlimit(RLIMIT_NOFILE, &more) == 0)
		return most;
	more.rlim_cur = more.rlim_max = r.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &more) == 0 ? r.rlim_max : r.rlim_cur;
}

static uint64_t ram_bytes(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

	return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 1ull << 30;
}

static unsigned cores(void)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	/* A machine with more cores than a cpu_set_t holds gives EINVAL. */
	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		return (unsigned)CPU_COUNT(&set);
	return online > 0 ? (unsigned)online : 1;
}

void limits_look(struct limits_have *ret)
{
	int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	ret->descriptors = raise_descriptors(root);
	ret->memory_bytes = MIN(ram_bytes(), limits_cgroup_memory(root));
	ret->cores = cores();
	if (root != -1)
		close(root);
}

/* What the front holds open without a single client. */
static uint64_t reserved(const struct conf *conf, unsigned threads)
{
	uint64_t n = FRONT_FIXED + (uint64_t)FRONT_PER_THREAD * threads;

	for (size_t i = 0; i < conf->listen_count; i++)
		n += (uint64_t)conf->listens[i].address_count * threads;
	for (size_t i = 0; i < conf->pool_count; i++)
		n += FRONT_PER_SLOT * conf_pool_places(&conf->pools[i]);
	return n;
}

int limits_compute(const struct limits_have *have, const struct conf *conf, struct limits *ret)
{
	unsigned threads = conf->daemon.threads ? conf->daemon.threads : MAX(have->cores, 1);
	uint64_t memory = conf->daemon.memory_limit, taken, rest, own_files, most;

	threads = MIN(threads, CHANNEL_THREADS_MAX);
	if (memory == 0)
		memory = MIN(have->memory_bytes / 2, LIMITS_MEMORY_AUTO_MAX);
	taken = reserved(conf, threads);
	rest = have->descriptors > taken ? have->descriptors - taken : 0;
	own_files = MIN(rest / 16, LIMITS_OWN_FILES_MAX);
	rest -= own_files;
	if (rest < LIMITS_CONNECTIONS_MIN) {
		ret->descriptors = taken + LIMITS_CONNECTIONS_MIN * 17 / 16 + 1;
		return -EMFILE;
	}
	most = MIN(MIN(rest, MAX(memory / LIMITS_CONNECTION_BYTES, LIMITS_CONNECTIONS_MIN)), UINT_MAX);
	*ret = (struct limits){
		.descriptors = have->descriptors,
		.memory_bytes = memory,
		.threads = threads,
		.connections = (unsigned)(conf->daemon.connections ? MIN(conf->daemon.connections, most) : most),
		.own_files = (unsigned)own_files,
		.connections_refused = conf->daemon.connections > most ? conf->daemon.connections : 0,
	};
	return 0;
}
