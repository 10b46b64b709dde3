#include "upstream/program.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* 0, -ENOENT or -E2BIG. */
static int look_in(const char *folder, const char *name, char *ret, size_t size)
{
	int n = snprintf(ret, size, "%s/%s", folder, name);

	if (n < 0 || (size_t)n >= size)
		return -E2BIG;
	return access(ret, X_OK) == 0 ? 0 : -ENOENT;
}

static int look_beside(const char *name, char *ret, size_t size)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n <= 0)
		return -ENOENT;
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return -ENOENT;
	*slash = '\0';
	return look_in(self, name, ret, size);
}

int program_find(const char *name, char *ret, size_t size)
{
	const char *folder = getenv("FOREBAY_LIBEXEC");
	int err;

	if (folder && *folder)
		return look_in(folder, name, ret, size);
	err = look_beside(name, ret, size);
	return err == -ENOENT ? look_in(FOREBAY_PKGLIBEXECDIR, name, ret, size) : err;
}
