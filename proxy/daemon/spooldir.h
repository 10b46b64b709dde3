/*
 * spooldir: finds or makes the directory of the spool, for the user that the front runs as.
 * Owns nothing.
 * Never:  takes a directory of somebody else in a place that all may write to.
 */
#ifndef FOREBAY_PROXY_SPOOLDIR_H
#define FOREBAY_PROXY_SPOOLDIR_H

#include <stdio.h>

#include "upstream/spawn.h"

/* conf's default: where it cannot be had by one who is not root, a directory of one's own under $TMPDIR or /tmp does. */
#define SPOOLDIR_DEFAULT "/var/spool/forebay"

/* `user` NULL: the front runs as we do. 0 with *ret_fd (yours to close) and the path taken, or -errno with that path. */
MUST_USE int spooldir_open(const char *path, const struct spawn_user *user, int *ret_fd, char *ret_path, size_t path_size);

/* For the front: can files be made here? 0 or -errno. */
MUST_USE int spooldir_check(int dir_fd);

#endif
