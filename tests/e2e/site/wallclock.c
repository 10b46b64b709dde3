/* Preloaded by test_chaos_clock.py: the wall clock goes wrong by as many nanoseconds as the file CLOCK_FILE says just now. */
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000

static const volatile int64_t *wrong_by;

__attribute__((constructor)) static void open_file(void)
{
	int fd = open(CLOCK_FILE, O_RDONLY | O_CLOEXEC);
	void *page = fd == -1 ? MAP_FAILED : mmap(NULL, sizeof(*wrong_by), PROT_READ, MAP_SHARED, fd, 0);

	if (page != MAP_FAILED)
		wrong_by = page;
	if (fd != -1)
		close(fd);
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int64_t ns;

	if (syscall(SYS_clock_gettime, id, ts) == -1)
		return -1;
	if ((id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE) || !wrong_by)
		return 0;
	ns = (int64_t)ts->tv_sec * SECOND + ts->tv_nsec + *wrong_by;
	*ts = (struct timespec){ .tv_sec = ns / SECOND, .tv_nsec = ns % SECOND };
	return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &ts);
	*tv = (struct timeval){ .tv_sec = ts.tv_sec, .tv_usec = ts.tv_nsec / 1000 };
	return 0;
}

time_t time(time_t *ret)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (ret)
		*ret = ts.tv_sec;
	return ts.tv_sec;
}
