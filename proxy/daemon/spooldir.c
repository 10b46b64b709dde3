#include "proxy/daemon/spooldir.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_root(void)
{
	return geteuid() == 0;
}

/* Makes it if need be, for nobody but the front. */
static int open_or_make(const char *path, const struct spawn_user *user, int flags, int *ret_fd)
{
	bool made = mkdir(path, 0700) == 0;
	int fd, err;

	if (!made && errno != EEXIST)
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
	if (fd == -1)
		return -errno;
	if (made && user && fchown(fd, user->uid, user->gid) == -1) {
		err = -errno;
		close(fd);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

/* Anybody may have made a directory of that name before us. */
static bool is_ours_alone(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & (S_IWGRP | S_IWOTH));
}

static int open_private(int *ret_fd, char *ret_path, size_t path_size)
{
	const char *tmp = getenv("TMPDIR");
	int fd, err;

	snprintf(ret_path, path_size, "%s/forebay-%u", tmp && tmp[0] == '/' ? tmp : "/tmp", (unsigned)geteuid());
	err = open_or_make(ret_path, NULL, O_NOFOLLOW, &fd);
	if (err)
		return err;
	if (!is_ours_alone(fd)) {
		close(fd);
		return -EPERM;
	}
	*ret_fd = fd;
	return 0;
}

int spooldir_open(const char *path, const struct spawn_user *user, int *ret_fd, char *ret_path, size_t path_size)
{
	int err = open_or_make(path, user, 0, ret_fd);

	snprintf(ret_path, path_size, "%s", path);
	if (!err && (is_root() || faccessat(*ret_fd, ".", W_OK | X_OK, AT_EACCESS) == 0))
		return 0;
	if (!err) {
		err = -errno;
		close(*ret_fd);
		*ret_fd = -1;
	}
	if (is_root() || strcmp(path, SPOOLDIR_DEFAULT) != 0)
		return err;
	return open_private(ret_fd, ret_path, path_size);
}

int spooldir_check(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd == -1)
		return errno == EOPNOTSUPP || errno == EISDIR ? 0 : -errno; /* the spool has its way with such file systems */
	close(fd);
	return 0;
}
