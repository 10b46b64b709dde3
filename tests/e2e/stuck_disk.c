/*
 * stuck_disk: a disk that hangs, for disk.py, which builds this and puts it before the C library of a forebay under test.
 * What a disk may keep waiting for ever waits here, while the test's page says so: writes and holes, and reads of regular files, and new
 * files of the spool's. The page cache is said to hold nothing meanwhile. The page is a file of struct disk, shared with the test.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct disk {
	_Atomic uint32_t hangs[3];   /* writes, reads, new files: set by the test */
	_Atomic uint32_t waiting[3]; /* calls */
	_Atomic uint32_t held[3];    /* calls, ever */
};

enum { WRITES, READS, FILES };

/* Without the page nobody asks for anything: other programs in the same mount namespace. */
static struct disk *disk_page(void)
{
	static struct disk *_Atomic page;
	static struct disk quiet;
	struct disk *found = atomic_load(&page);
	int fd;

	if (found)
		return found;
	found = &quiet;
	fd = open(DISK_PAGE, O_RDWR | O_CLOEXEC);
	if (fd != -1) {
		found = mmap(NULL, sizeof(*found), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (found == MAP_FAILED)
			abort();
		close(fd);
	}
	atomic_store(&page, found);
	return found;
}

static int is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static void hang(int what)
{
	struct disk *d = disk_page();

	atomic_fetch_add(&d->held[what], 1);
	atomic_fetch_add(&d->waiting[what], 1);
	while (atomic_load(&d->hangs[what]))
		usleep(1000);
	atomic_fetch_sub(&d->waiting[what], 1);
}

static void wait_for_disk(int what, int fd)
{
	int saved = errno;

	if (atomic_load(&disk_page()->hangs[what]) && is_file(fd))
		hang(what);
	errno = saved;
}

#define REAL(name, ...)                                                                                                        \
	static __typeof__(name) *real;                                                                                         \
	if (!real)                                                                                                             \
		real = dlsym(RTLD_NEXT, #name);                                                                                \
	return real(__VA_ARGS__)

/* The spool's are the only ones with these flags. */
int openat(int dir_fd, const char *name, int flags, ...)
{
	mode_t mode = 0;
	va_list args;

	va_start(args, flags);
	if (flags & (O_CREAT | O_TMPFILE))
		mode = va_arg(args, mode_t);
	va_end(args);
	if ((flags & O_TMPFILE) == O_TMPFILE && atomic_load(&disk_page()->hangs[FILES]))
		hang(FILES);
	REAL(openat, dir_fd, name, flags, mode);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	wait_for_disk(WRITES, fd);
	REAL(pwritev, fd, iov, count, offset);
}

ssize_t pwrite(int fd, const void *from, size_t n, off_t offset)
{
	wait_for_disk(WRITES, fd);
	REAL(pwrite, fd, from, n, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	wait_for_disk(WRITES, fd);
	REAL(fallocate, fd, mode, offset, len);
}

ssize_t pread(int fd, void *to, size_t n, off_t offset)
{
	wait_for_disk(READS, fd);
	REAL(pread, fd, to, n, offset);
}

/* Of a build with _FORTIFY_SOURCE. */
ssize_t __pread_chk(int fd, void *to, size_t n, off_t offset, size_t room);
ssize_t __pread_chk(int fd, void *to, size_t n, off_t offset, size_t room)
{
	wait_for_disk(READS, fd);
	REAL(__pread_chk, fd, to, n, offset, room);
}

ssize_t sendfile(int to, int fd, off_t *offset, size_t n)
{
	wait_for_disk(READS, fd);
	REAL(sendfile, to, fd, offset, n);
}

ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	if (flags & RWF_NOWAIT && atomic_load(&disk_page()->hangs[READS]) && is_file(fd)) {
		errno = EAGAIN;
		return -1;
	}
	wait_for_disk(READS, fd);
	REAL(preadv2, fd, iov, count, offset, flags);
}
