#include "proxy/daemon/account.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/log.h"

#define DESCRIPTORS_MAX (1 << 16) /* looked at */

unsigned account(const char *kind, uint64_t number, const char *what, uint64_t left)
{
	if (left == 0)
		return 0;
	log_error("event=not_given_back %s=%" PRIu64 " what=%s left=%" PRIu64, kind, number, what, left);
	return 1;
}

unsigned account_descriptors(int first)
{
	struct rlimit r = { .rlim_cur = DESCRIPTORS_MAX };
	unsigned wrong = 0;
	struct stat st;

	(void)getrlimit(RLIMIT_NOFILE, &r);
	for (int fd = first; fd < (int)MIN(r.rlim_cur, (rlim_t)DESCRIPTORS_MAX); fd++) {
		if (fcntl(fd, F_GETFD) == -1)
			continue;
		/* Its name in /proc is not ours to read: the front is not dumpable. */
		if (fstat(fd, &st) == -1)
			st.st_mode = 0;
		log_error("event=not_given_back descriptor=%d mode=0%o", fd, (unsigned)st.st_mode);
		wrong++;
	}
	return wrong;
}
