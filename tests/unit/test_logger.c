#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proxy/observe/logger.h"
#include "proxy/observe/outlet.h"

#define WAIT_MS 60000 /* never waited for where all goes well */

/* A logger that is also where log_line() goes, so that what it says about itself can be read. */
static struct logger *logger_with(unsigned threads, size_t ring_bytes)
{
	struct logger *l;

	assert_int_equal(logger_new(threads, ring_bytes, &l), 0);
	log_setup("test", LOG_LEVEL_INFO, logger_sink, l);
	return l;
}

static void sink_nowhere(void *ctx UNUSED, enum log_level level UNUSED, struct slice line UNUSED)
{
}

static void end_logger(struct logger **l, unsigned wait_ms)
{
	logger_free(l, wait_ms);
	assert_null(*l);
	log_setup("test", LOG_LEVEL_INFO, sink_nowhere, NULL);
}

static void make_pipe(int ends[2])
{
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
}

/* As if others had written to it and nobody read. */
static void fill_pipe(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	static const char page[4096];

	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	while (write(fd, page, sizeof(page)) > 0)
		;
	fcntl(fd, F_SETFL, flags);
}

/* The next line; an empty one: all writers have closed. */
static const char *read_line(FILE *f)
{
	static char line[LOGGER_LINE_MAX + 1];

	return fgets(line, sizeof(line), f) ? line : "";
}

static bool write_text(struct logger_channel *c, enum logger_to to, const char *text)
{
	return logger_write(c, to, LOG_LEVEL_INFO, slice_str(text));
}

static void a_line_reaches_its_log(void **state UNUSED)
{
	struct logger *l = logger_with(2, 4096);
	int error[2], access[2];
	FILE *from_error, *from_access;

	make_pipe(error);
	make_pipe(access);
	logger_set(l, LOGGER_ERROR, LOGGER_FILE, &error[1]);
	logger_set(l, LOGGER_ACCESS, LOGGER_FILE, &access[1]);
	assert_int_equal(error[1], -1);
	from_error = fdopen(error[0], "r");
	from_access = fdopen(access[0], "r");

	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "one\n"));
	assert_string_equal(read_line(from_access), "one\n");
	assert_true(write_text(logger_channel(l, 1), LOGGER_ACCESS, "two\n"));
	assert_string_equal(read_line(from_access), "two\n");
	assert_true(write_text(logger_channel(l, 1), LOGGER_ERROR, "three\n"));
	assert_string_equal(read_line(from_error), "three\n");
	logger_sink(l, LOG_LEVEL_ERROR, SLICE("from the shared channel\n"));
	assert_string_equal(read_line(from_error), "from the shared channel\n");
	logger_here(l, 1);
	logger_sink(l, LOG_LEVEL_ERROR, SLICE("from its own\n"));
	assert_string_equal(read_line(from_error), "from its own\n");

	assert_int_equal(logger_dropped(l), 0);
	end_logger(&l, WAIT_MS);
	assert_string_equal(read_line(from_error), "");
	assert_string_equal(read_line(from_access), "");
	fclose(from_error);
	fclose(from_access);
}

static void what_is_written_last_is_written(void **state UNUSED)
{
	for (int round = 0; round < 200; round++) {
		struct logger *l = logger_with(1, 4096);
		int fd = memfd_create("log", MFD_CLOEXEC), kept = dup(fd);
		char got[64];

		logger_set(l, LOGGER_ACCESS, LOGGER_FILE, &fd);
		assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "the last words\n"));
		end_logger(&l, WAIT_MS);
		assert_int_equal(pread(kept, got, sizeof(got), 0), 15);
		assert_memory_equal(got, "the last words\n", 15);
		close(kept);
	}
}

static void a_log_that_is_off_takes_all_and_keeps_nothing(void **state UNUSED)
{
	struct logger *l = logger_with(1, 4096);
	int none = -1;

	for (int i = 0; i < 3; i++)
		assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "a\n"));
	logger_set(l, LOGGER_ACCESS, LOGGER_OFF, &none);
	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "b\n"));
	end_logger(&l, WAIT_MS);
	logger_free(&l, 0);
}

/* Lengths around what a ring of 4096 bytes and a line may have. */
static const struct {
	size_t ring, len;
	bool fits;
} lengths[] = {
	{ 4096, 1, true },
	{ 4096, 4079, true },
	{ 4096, 4080, true },
	{ 4096, 4081, false },
	{ 4096, 4096, false },
	{ 4096, 100000, false },
	{ 1 << 20, LOGGER_LINE_MAX, true },
	{ 1 << 20, LOGGER_LINE_MAX + 1, false },
	{ 1 << 20, 2 << 20, false },
};

static void a_line_fits_or_is_counted(void **state UNUSED)
{
	char *text = malloc(2 << 20);

	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		struct logger *l = logger_with(1, lengths[i].ring);
		int fd = memfd_create("log", MFD_CLOEXEC), kept = dup(fd);

		memset(text, 'x', lengths[i].len);
		text[lengths[i].len - 1] = '\n';
		logger_set(l, LOGGER_ACCESS, LOGGER_FILE, &fd);
		if (logger_write(logger_channel(l, 0), LOGGER_ACCESS, LOG_LEVEL_INFO, slice_of(text, lengths[i].len)) !=
		    lengths[i].fits)
			fail_msg("row %zu: %zu bytes", i, lengths[i].len);
		if (logger_dropped(l) != !lengths[i].fits)
			fail_msg("row %zu: dropped %u", i, (unsigned)logger_dropped(l));
		end_logger(&l, WAIT_MS);
		if (lseek(kept, 0, SEEK_END) != (lengths[i].fits ? (off_t)lengths[i].len : 0))
			fail_msg("row %zu: written %d", i, (int)lseek(kept, 0, SEEK_END));
		close(kept);
	}
	free(text);
}

/* Writes until the ring has been full for a while. Returns how many lines were taken. */
static unsigned overfill(struct logger *l, enum logger_to to)
{
	unsigned taken = 0, dropped = 0;
	char line[128];

	while (dropped < 1000) {
		snprintf(line, sizeof(line), "%u\n", taken);
		if (write_text(logger_channel(l, 0), to, line))
			taken++;
		else
			dropped++;
	}
	return taken;
}

/* Every line that was taken, in order, and in between or after them how many were not: overfill's 1000. */
static void expect_overfill(FILE *from, unsigned taken)
{
	unsigned lost = 0, lost_here, i = 0;

	while (i < taken || lost < 1000) {
		const char *line = read_line(from), *said = strstr(line, "log=error lost=");
		char expected[32];

		if (said && sscanf(said, "log=error lost=%u", &lost_here) == 1) {
			lost += lost_here;
			continue;
		}
		snprintf(expected, sizeof(expected), "%u\n", i++);
		assert_string_equal(line, expected);
	}
	assert_int_equal(lost, 1000);
}

static void what_a_blocked_log_lost_is_said(void **state UNUSED)
{
	struct logger *l = logger_with(1, 4096);
	int ends[2];
	FILE *from;
	unsigned taken;

	make_pipe(ends);
	logger_set(l, LOGGER_ERROR, LOGGER_FILE, &ends[1]);
	from = fdopen(ends[0], "r");
	taken = overfill(l, LOGGER_ERROR);
	assert_int_equal(logger_dropped(l), 1000);
	expect_overfill(from, taken);
	/* Once. */
	write_text(logger_channel(l, 0), LOGGER_ERROR, "on it goes\n");
	assert_string_equal(read_line(from), "on it goes\n");
	end_logger(&l, WAIT_MS);
	assert_string_equal(read_line(from), "");
	fclose(from);
}

static void a_blocked_log_does_not_hold_up_the_other(void **state UNUSED)
{
	struct logger *l = logger_with(1, 4096);
	int stuck[2], ends[2];
	FILE *from;

	make_pipe(stuck);
	make_pipe(ends);
	fill_pipe(stuck[1]);
	logger_set(l, LOGGER_ERROR, LOGGER_FILE, &stuck[1]);
	logger_set(l, LOGGER_ACCESS, LOGGER_FILE, &ends[1]);
	from = fdopen(ends[0], "r");
	overfill(l, LOGGER_ERROR);
	for (int i = 0; i < 100; i++) {
		assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "served\n"));
		assert_string_equal(read_line(from), "served\n");
	}
	/* Nor the end. */
	end_logger(&l, 0);
	assert_string_equal(read_line(from), "");
	fclose(from);
	close(stuck[0]);
}

static void a_blocked_log_that_is_replaced_is_left(void **state UNUSED)
{
	struct logger *l = logger_with(1, 4096);
	int stuck[2], ends[2], kept;
	FILE *from;
	char first[16];

	make_pipe(stuck);
	make_pipe(ends);
	kept = dup(stuck[1]);
	logger_set(l, LOGGER_ERROR, LOGGER_FILE, &stuck[1]);
	/* So that the thread is known to have got there. */
	logger_sink(l, LOG_LEVEL_INFO, SLICE("the first\n"));
	assert_int_equal(read(stuck[0], first, sizeof(first)), 10);
	fill_pipe(kept);
	from = fdopen(ends[0], "r");
	overfill(l, LOGGER_ERROR);
	logger_set(l, LOGGER_ERROR, LOGGER_FILE, &ends[1]);
	/* What was lost with the old one is the first that the new one tells. */
	assert_non_null(strstr(read_line(from), "log=error lost="));
	assert_true(write_text(logger_channel(l, 0), LOGGER_ERROR, "at last\n"));
	assert_string_equal(read_line(from), "at last\n");
	assert_true(logger_dropped(l) > 1000);
	end_logger(&l, WAIT_MS);
	fclose(from);
	close(stuck[0]);
	close(kept);
}

static void each_line_goes_to_the_target_of_its_time(void **state UNUSED)
{
	struct logger *l = logger_with(1, 1 << 16);
	int kept[20];

	for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
		int fd = memfd_create("log", MFD_CLOEXEC);

		kept[i] = dup(fd);
		logger_set(l, LOGGER_ACCESS, LOGGER_FILE, &fd);
		for (int n = 0; n < 10; n++)
			assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "a line\n"));
	}
	end_logger(&l, WAIT_MS);
	/* None before its time: a set that follows fast may take over what its predecessor had not begun. */
	for (size_t i = 0, sum = 0; i < ARRAY_LEN(kept); i++) {
		sum += (size_t)lseek(kept[i], 0, SEEK_END) / 7;
		if (sum > 10 * (i + 1) || (i == ARRAY_LEN(kept) - 1 && sum != 200))
			fail_msg("row %zu: %zu lines", i, sum);
		close(kept[i]);
	}
}

static void a_replaced_log_is_closed_when_its_lines_are_written(void **state UNUSED)
{
	struct logger *l = logger_with(1, 1 << 16);
	int old[2], fresh[2];
	FILE *from;

	make_pipe(old);
	make_pipe(fresh);
	logger_set(l, LOGGER_ACCESS, LOGGER_FILE, &old[1]);
	from = fdopen(old[0], "r");
	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "first\n"));
	assert_string_equal(read_line(from), "first\n");
	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "second\n"));
	logger_set(l, LOGGER_ACCESS, LOGGER_FILE, &fresh[1]);
	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "third\n"));
	assert_string_equal(read_line(from), "second\n");
	assert_string_equal(read_line(from), "");
	fclose(from);
	from = fdopen(fresh[0], "r");
	assert_string_equal(read_line(from), "third\n");
	end_logger(&l, WAIT_MS);
	fclose(from);
}

static void a_log_that_refuses_is_told_of_once(void **state UNUSED)
{
	struct logger *l = logger_with(1, 4096);
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC), ends[2], good[2];
	FILE *from, *from_good;

	if (full == -1)
		skip();
	make_pipe(ends);
	make_pipe(good);
	logger_set(l, LOGGER_ACCESS, LOGGER_FILE, &full);
	logger_set(l, LOGGER_ERROR, LOGGER_FILE, &ends[1]);
	from = fdopen(ends[0], "r");
	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "nowhere\n"));
	assert_non_null(strstr(read_line(from), "log=access error=\"No space left on device\""));
	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "nor this\n"));
	logger_set(l, LOGGER_ACCESS, LOGGER_FILE, &good[1]);
	from_good = fdopen(good[0], "r");
	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "somewhere\n"));
	assert_string_equal(read_line(from_good), "somewhere\n");
	assert_non_null(strstr(read_line(from), "log=access lost=2"));
	assert_int_equal(logger_dropped(l), 2);
	end_logger(&l, WAIT_MS);
	assert_string_equal(read_line(from), "");
	fclose(from);
	fclose(from_good);
}

static void a_reader_that_left_is_survived(void **state UNUSED)
{
	struct logger *l = logger_with(1, 4096);
	int broken[2], ends[2];
	FILE *from;

	make_pipe(broken);
	make_pipe(ends);
	close(broken[0]);
	logger_set(l, LOGGER_ACCESS, LOGGER_FILE, &broken[1]);
	logger_set(l, LOGGER_ERROR, LOGGER_FILE, &ends[1]);
	from = fdopen(ends[0], "r");
	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "nobody reads\n"));
	assert_non_null(strstr(read_line(from), "log=access error=\"Broken pipe\""));
	end_logger(&l, WAIT_MS);
	fclose(from);
}

static void a_datagram(int fd, char *out, size_t size)
{
	ssize_t n = recv(fd, out, size - 1, 0);

	assert_true(n > 0);
	out[n] = '\0';
}

static const struct {
	enum log_level level;
	int priority;
} levels[] = {
	{ LOG_LEVEL_ERROR, 27 },
	{ LOG_LEVEL_WARNING, 28 },
	{ LOG_LEVEL_INFO, 30 },
	{ LOG_LEVEL_DEBUG, 31 },
};

static void syslog_gets_a_datagram_for_each_line(void **state UNUSED)
{
	struct logger *l = logger_with(1, 4096);
	int ends[2];
	char got[256], expected[256];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends), 0);
	logger_set(l, LOGGER_ERROR, LOGGER_SYSLOG, &ends[1]);
	for (size_t i = 0; i < ARRAY_LEN(levels); i++)
		assert_true(logger_write(logger_channel(l, 0), LOGGER_ERROR, levels[i].level, SLICE("the text\n")));
	for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
		a_datagram(ends[0], got, sizeof(got));
		snprintf(expected, sizeof(expected), "<%d>forebay[%ld]: the text", levels[i].priority, (long)getpid());
		assert_string_equal(got, expected);
	}
	/* One that nobody reads fills up like a pipe. */
	overfill(l, LOGGER_ERROR);
	end_logger(&l, 0);
	close(ends[0]);
}

static int bound_datagram_socket(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (const struct sockaddr *)addr, sizeof(*addr)), 0);
	return fd;
}

static void a_syslog_started_anew_is_found_again(void **state UNUSED)
{
	struct logger *l = logger_with(1, 4096);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int server, fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char got[256];

	/* Abstract: leaves no file behind. */
	snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "forebay-test-logger-%ld", (long)getpid());
	server = bound_datagram_socket(&addr);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	logger_set(l, LOGGER_ACCESS, LOGGER_SYSLOG, &fd);
	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "before\n"));
	a_datagram(server, got, sizeof(got));
	close(server);
	server = bound_datagram_socket(&addr);
	assert_true(write_text(logger_channel(l, 0), LOGGER_ACCESS, "after\n"));
	a_datagram(server, got, sizeof(got));
	assert_non_null(strstr(got, ": after"));
	end_logger(&l, WAIT_MS);
	close(server);
}

static void a_stream_socket_is_never_waited_for(void **state UNUSED)
{
	struct logger *l = logger_with(1, 4096);
	int ends[2];
	FILE *from;
	unsigned taken;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	logger_set(l, LOGGER_ERROR, LOGGER_FILE, &ends[1]);
	taken = overfill(l, LOGGER_ERROR);
	from = fdopen(ends[0], "r");
	expect_overfill(from, taken);
	end_logger(&l, WAIT_MS);
	fclose(from);
}

#define CROWD_THREADS 3
#define CROWD_LINES   20000

struct crowd {
	struct logger *logger;
	unsigned thread; /* CROWD_THREADS and above: those without a channel */
	unsigned written;
};

static void *write_many(void *ctx)
{
	struct crowd *c = ctx;
	char line[256];

	if (c->thread < CROWD_THREADS)
		logger_here(c->logger, c->thread);
	for (unsigned i = 0; i < CROWD_LINES; i++) {
		snprintf(line, sizeof(line), "%u %u %.*s\n", c->thread, i, (int)(i % 60),
		    "............................................................");
		if (c->thread < CROWD_THREADS)
			c->written += write_text(logger_channel(c->logger, c->thread), LOGGER_ERROR, line);
		else
			logger_sink(c->logger, LOG_LEVEL_INFO, slice_str(line));
	}
	return NULL;
}

/* Each line whole, and those of one thread in order. */
static unsigned check_crowd(int fd)
{
	FILE *f = fdopen(fd, "r");
	int last[CROWD_THREADS + 2];
	unsigned lines = 0, thread, number;
	char dots[128];
	const char *line;

	memset(last, -1, sizeof(last));
	rewind(f);
	while (*(line = read_line(f))) {
		dots[0] = '\0';
		if (sscanf(line, "%u %u %127s", &thread, &number, dots) < 2 || thread >= ARRAY_LEN(last))
			fail_msg("a broken line: %s", line);
		if (strlen(dots) != number % 60 || (int)number <= last[thread])
			fail_msg("not in order, or not whole: %s", line);
		last[thread] = (int)number;
		lines++;
	}
	fclose(f);
	return lines;
}

static void threads_write_side_by_side(void **state UNUSED)
{
	struct logger *l;
	struct crowd crowd[CROWD_THREADS + 2] = { 0 };
	pthread_t threads[ARRAY_LEN(crowd)];
	int fd = memfd_create("log", MFD_CLOEXEC), kept = dup(fd);
	uint64_t dropped;

	log_setup("test", LOG_LEVEL_INFO, sink_nowhere, NULL);
	assert_int_equal(logger_new(CROWD_THREADS, 1 << 14, &l), 0);
	logger_set(l, LOGGER_ERROR, LOGGER_FILE, &fd);
	for (unsigned i = 0; i < ARRAY_LEN(crowd); i++) {
		crowd[i] = (struct crowd){ .logger = l, .thread = i };
		assert_int_equal(pthread_create(&threads[i], NULL, write_many, &crowd[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_LEN(crowd); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	dropped = logger_dropped(l);
	end_logger(&l, WAIT_MS);
	assert_int_equal(check_crowd(kept) + dropped, ARRAY_LEN(crowd) * CROWD_LINES);
}

/* However near to its end the last line came: a burst of lines must not be the end of the log. */
static void a_stage_that_was_full_is_used_anew(void **state UNUSED)
{
	static const size_t line_bytes[] = { 100, 500, 1000, LOGGER_LINE_MAX };
	int fd = memfd_create("log", MFD_CLOEXEC);
	struct outlet o;

	assert_int_equal(outlet_init(&o), 0);
	outlet_point(&o, LOGGER_FILE, &fd);
	for (size_t i = 0; i < ARRAY_LEN(line_bytes); i++)
		for (int times = 0; times < 3; times++) {
			assert_true(outlet_has_room(&o, line_bytes[i]));
			while (outlet_has_room(&o, line_bytes[i])) {
				char *to = outlet_room(&o);

				memset(to, 'x', line_bytes[i]);
				to[line_bytes[i] - 1] = '\n';
				outlet_add(&o, LOG_LEVEL_INFO, line_bytes[i]);
			}
			assert_true(outlet_flush(&o));
			assert_true(outlet_is_empty(&o));
		}
	assert_int_equal(outlet_lost(&o), 0);
	outlet_done(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_reaches_its_log),
		cmocka_unit_test(what_is_written_last_is_written),
		cmocka_unit_test(a_log_that_is_off_takes_all_and_keeps_nothing),
		cmocka_unit_test(a_line_fits_or_is_counted),
		cmocka_unit_test(what_a_blocked_log_lost_is_said),
		cmocka_unit_test(a_blocked_log_does_not_hold_up_the_other),
		cmocka_unit_test(a_blocked_log_that_is_replaced_is_left),
		cmocka_unit_test(each_line_goes_to_the_target_of_its_time),
		cmocka_unit_test(a_replaced_log_is_closed_when_its_lines_are_written),
		cmocka_unit_test(a_log_that_refuses_is_told_of_once),
		cmocka_unit_test(a_reader_that_left_is_survived),
		cmocka_unit_test(syslog_gets_a_datagram_for_each_line),
		cmocka_unit_test(a_syslog_started_anew_is_found_again),
		cmocka_unit_test(a_stream_socket_is_never_waited_for),
		cmocka_unit_test(a_stage_that_was_full_is_used_anew),
		cmocka_unit_test(threads_write_side_by_side),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
