/*
 * environment: what the processes of a pool find in their environment: a few things of ours, what a file says, what the configuration says.
 * Owns:   all its strings.
 * Never:  hands on what the master itself was given, but for language, time zone and home, unless the pool inherits.
 */
#ifndef FOREBAY_UPSTREAM_ENVIRONMENT_H
#define FOREBAY_UPSTREAM_ENVIRONMENT_H

#include "conf/conf.h"
#include "upstream/spawn.h"

#define ENVIRONMENT_FILE_MAX (256u << 10) /* bytes */
#define ENVIRONMENT_WHY_MAX  512

struct environment {
	char **envp; /* ends in NULL */
	size_t count;
};

/*
 * Reads conf->environment_file. `user` may be NULL. 0, -ENOMEM, or, with `ret_why` ("FILE:LINE: what is wrong"): -EINVAL for a line or a size that
 * is wrong, -errno for a file that cannot be read.
 */
MUST_USE int environment_make(
    const struct conf_pool *conf, const struct spawn_user *user, struct environment *ret, char ret_why[ENVIRONMENT_WHY_MAX]);
void environment_done(struct environment *e);

#endif
