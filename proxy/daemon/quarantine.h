/*
 * quarantine: requests that were in a worker when it was lost, kept as files in the pool's quarantine_dir: one readable message each.
 * Owns:   the directories, opened before the master gives up its privileges, and what waits for the end of its worker.
 * Never:  believes what the front says of a file; follows a link, writes over a file, keeps half a one.
 * Thread: the master's only one.
 *
 * The front sees that a worker's socket has ended; whether the worker has, the master hears when it reaps it. What a living worker broke off is
 * not kept.
 *
 * A file is named POOL.TIME.ID.http, mode 0600. Lines with '#' come first and say what happened; then the request line, the fields, an empty
 * line, the body.
 */
#ifndef FOREBAY_PROXY_QUARANTINE_H
#define FOREBAY_PROXY_QUARANTINE_H

#include <event2/event.h>
#include <sys/types.h>

#include "conf/conf.h"
#include "core/clock.h"
#include "proxy/daemon/channel.h"

#define QUARANTINE_SUFFIX   ".http"
#define QUARANTINE_BODY_MAX (16u << 20) /* bytes of a body that are kept */
#define QUARANTINE_HEAD_MAX (1u << 20)
#define QUARANTINE_WAIT_MS  5000 /* for the worker's end */
#define QUARANTINE_WAITING  64   /* requests */

struct quarantine;

/*
 * Opens each pool's quarantine_dir, and makes those that are not there (0700, in a directory that is). Borrows base, conf and clock. 0, or -errno,
 * said in the log.
 */
MUST_USE int quarantine_new(
    struct event_base *base, const struct conf *conf, const struct clock *clock, struct quarantine **ret);
void quarantine_free(struct quarantine **q);

/* After the privileges have gone: files can be made in each. 0, or -EACCES, said in the log. */
MUST_USE int quarantine_check(const struct quarantine *q);

/* CHANNEL_POISON or CHANNEL_POISON_BODY. Takes *fd or leaves it. */
void quarantine_hear(struct quarantine *q, const struct channel_message *m, int *fd);

/* After waitpid: what this process had is kept now. */
void quarantine_reaped(struct quarantine *q, pid_t pid, int status);

/* Gives up what has waited for too long. Its own timer calls it; tests do after moving the clock. */
void quarantine_tick(struct quarantine *q);

#endif
