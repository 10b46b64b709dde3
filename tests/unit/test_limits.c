#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxy/daemon/channel.h"
#include "proxy/daemon/limits.h"

#define GIGA (1ull << 30)
#define MEGA (1ull << 20)

static struct conf_listen one_listen = { .address_count = 1 };
static struct conf_pool one_pool = { .slots = 10, .socket_count = 1 };

static struct conf conf_of(unsigned threads, uint64_t memory, uint64_t connections)
{
	return (struct conf){
		.daemon = { .threads = threads, .memory_limit = memory, .connections = connections },
		.listens = &one_listen,
		.listen_count = 1,
		.pools = &one_pool,
		.pool_count = 1,
	};
}

static void what_can_be_served_is_computed(void **state)
{
	static const struct {
		struct limits_have have;
		unsigned threads;
		uint64_t memory, connections;
		int err;
		/* expected */
		unsigned got_threads, got_connections, got_own_files;
		uint64_t got_memory, refused;
	} cases[] = {
		/* reserved: 96 + 2 * 8 + 2 + 20 = 134 descriptors */
		{ { 20000, 8 * GIGA, 2 }, 0, 0, 0, 0, 2, 20000 - 134 - 1024, 1024, GIGA, 0 },
		{ { 20000, GIGA, 2 }, 0, 0, 0, 0, 2, 20000 - 134 - 1024, 1024, 512 * MEGA, 0 },
		{ { 20000, GIGA, 2 }, 0, 0, 500, 0, 2, 500, 1024, 512 * MEGA, 0 },
		{ { 20000, GIGA, 2 }, 0, 0, 50000, 0, 2, 20000 - 134 - 1024, 1024, 512 * MEGA, 50000 },
		{ { 1024, GIGA, 2 }, 0, 0, 0, 0, 2, 1024 - 134 - 55, 55, 512 * MEGA, 0 },
		/* memory is the tighter one */
		{ { 1000000, GIGA, 2 }, 0, 16 * MEGA, 0, 0, 2, 4096, 1024, 16 * MEGA, 0 },
		{ { 1000000, GIGA, 2 }, 0, 16 * MEGA, 4097, 0, 2, 4096, 1024, 16 * MEGA, 4097 },
		/* threads as told, or one a core, or one at least; no more than a tick can carry */
		{ { 20000, GIGA, 2 }, 4, 0, 100, 0, 4, 100, 1024, 512 * MEGA, 0 },
		{ { 20000, GIGA, 0 }, 0, 0, 100, 0, 1, 100, 1024, 512 * MEGA, 0 },
		{ { 20000, GIGA, 4000 }, 0, 0, 100, 0, CHANNEL_THREADS_MAX, 100, 1024, 512 * MEGA, 0 },
		/* 134 + 17: 16 connections and one file */
		{ { 134 + 17, GIGA, 2 }, 0, 0, 0, 0, 2, 16, 1, 512 * MEGA, 0 },
		{ { 134 + 15, GIGA, 2 }, 0, 0, 0, -EMFILE, 0, 0, 0, 0, 0 },
		{ { 100, GIGA, 2 }, 0, 0, 0, -EMFILE, 0, 0, 0, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct conf conf = conf_of(cases[i].threads, cases[i].memory, cases[i].connections);
		struct limits got;
		int err = limits_compute(&cases[i].have, &conf, &got);

		if (err != cases[i].err)
			fail_msg("row %zu: %d", i, err);
		if (err)
			continue;
		if (got.threads != cases[i].got_threads || got.connections != cases[i].got_connections ||
		    got.own_files != cases[i].got_own_files || got.memory_bytes != cases[i].got_memory ||
		    got.connections_refused != cases[i].refused)
			fail_msg("row %zu: %u threads, %u connections, %u files, %" PRIu64 " bytes, refused %" PRIu64, i,
			    got.threads, got.connections, got.own_files, got.memory_bytes, got.connections_refused);
	}
}

static void too_few_descriptors_say_how_many_it_takes(void **state)
{
	struct limits_have have = { 100, GIGA, 2 };
	struct conf conf = conf_of(0, 0, 0);
	struct limits got;

	(void)state;
	assert_int_equal(limits_compute(&have, &conf, &got), -EMFILE);
	have.descriptors = got.descriptors;
	assert_int_equal(limits_compute(&have, &conf, &got), 0);
}

/* A file system of a test's own: directories are made on the way. */
static void put(const char *root, const char *path, const char *text)
{
	char name[512];
	int fd;

	snprintf(name, sizeof(name), "%s/%s", root, path);
	for (char *slash = strchr(name + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(name, 0700);
		*slash = '/';
	}
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void remove_tree(const char *root)
{
	char command[600];

	snprintf(command, sizeof(command), "rm -rf '%s'", root);
	assert_int_equal(system(command), 0);
}

static void the_lowest_limit_of_all_groups_above_counts(void **state)
{
	static const struct {
		const char *cgroup;
		const char *files[3][2];
		uint64_t expected;
	} cases[] = {
		{ "0::/a/b\n", { { "sys/fs/cgroup/a/b/memory.max", "5000\n" } }, 5000 },
		{ "0::/a/b\n", { { "sys/fs/cgroup/a/b/memory.max", "5000\n" }, { "sys/fs/cgroup/a/memory.max", "4000\n" } },
		    4000 },
		{ "0::/a/b\n", { { "sys/fs/cgroup/a/b/memory.max", "max\n" }, { "sys/fs/cgroup/a/memory.max", "4000\n" } },
		    4000 },
		{ "0::/\n", { { "sys/fs/cgroup/memory.max", "3000\n" } }, 3000 },
		{ "0::/\n", { { "sys/fs/cgroup/memory.max", "3000" } }, UINT64_MAX }, /* cut short */
		{ "4:memory:/x\n0::/\n", { { "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2000\n" } }, 2000 },
		{ "4:cpu,memory:/x\n", { { "sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n" } }, 2000 },
		{ "4:memoryless:/x\n", { { "sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n" } }, UINT64_MAX },
		{ "0:/a\nnonsense\n0::a\n", { { "sys/fs/cgroup/a/memory.max", "1000\n" } }, UINT64_MAX },
		{ "", { { "sys/fs/cgroup/memory.max", "1000\n" } }, UINT64_MAX },
		{ "0::/a\n", { { NULL, NULL } }, UINT64_MAX },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char root[] = "/tmp/test_limits-XXXXXX";
		uint64_t got;
		int fd;

		assert_non_null(mkdtemp(root));
		put(root, "proc/self/cgroup", cases[i].cgroup);
		for (size_t k = 0; k < ARRAY_LEN(cases[i].files) && cases[i].files[k][0]; k++)
			put(root, cases[i].files[k][0], cases[i].files[k][1]);
		fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		assert_true(fd >= 0);
		got = limits_cgroup_memory(fd);
		close(fd);
		remove_tree(root);
		if (got != cases[i].expected)
			fail_msg("row %zu: %" PRIu64, i, got);
	}
}

static const struct {
	const char *available, *max, *current, *stat;
	uint64_t room;
} rooms[] = {
	{ "MemTotal: 9 kB\nMemAvailable:    1000 kB\n", "max\n", "5\n", "", 1000 << 10 },
	{ "MemAvailable:    1000 kB\n", "300000\n", "100000\n", "anon 7\ninactive_file 50000\n", 250000 },
	{ "MemAvailable:    1000 kB\n", "300000\n", "400000\n", "inactive_file 0\n", 0 },
	{ "MemAvailable:    1000 kB\n", "300000\n", "40000\n", "inactive_file 50000\n", 300000 },
	{ "MemFree: 1 kB\n", "max\n", "1\n", "", UINT64_MAX },
};

static void room_is_what_is_left_of_each(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rooms); i++) {
		char root[] = "/tmp/forebay-test-XXXXXX";
		uint64_t got;
		int fd;

		assert_non_null(mkdtemp(root));
		put(root, "proc/meminfo", rooms[i].available);
		put(root, "proc/self/cgroup", "0::/a\n");
		put(root, "sys/fs/cgroup/a/memory.max", rooms[i].max);
		put(root, "sys/fs/cgroup/a/memory.current", rooms[i].current);
		put(root, "sys/fs/cgroup/a/memory.stat", rooms[i].stat);
		fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		got = limits_memory_room(fd);
		if (got != rooms[i].room)
			fail_msg("row %zu: %" PRIu64, i, got);
		close(fd);
		remove_tree(root);
	}
}

static void this_machine_has_something(void **state)
{
	struct limits_have have;

	(void)state;
	limits_look(&have);
	assert_true(have.descriptors > 0);
	assert_true(have.memory_bytes > 0);
	assert_true(have.cores > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(room_is_what_is_left_of_each),
		cmocka_unit_test(what_can_be_served_is_computed),
		cmocka_unit_test(too_few_descriptors_say_how_many_it_takes),
		cmocka_unit_test(the_lowest_limit_of_all_groups_above_counts),
		cmocka_unit_test(this_machine_has_something),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
