/*
 * keys: certificates and keys of all [tls NAME], read and checked by the master, so that the front never opens one; read again when
 * their files change.
 * Owns:   what it has read last and found right, as bytes for the front in a sealed memfd; forebay's own session ticket keys.
 * Never:  lets something broken take the place of something that works. Blocks, but for reading small files.
 * Thread: the master's.
 */
#ifndef FOREBAY_PROXY_KEYS_H
#define FOREBAY_PROXY_KEYS_H

#include <event2/event.h>

#include "conf/conf.h"
#include "core/clock.h"

struct keys;
struct buf;

/*
 * Reads everything. Lines for people go to `errors` and `warnings`. 0, -ENOMEM or another -errno, or -EINVAL with at least one line in
 * `errors`. Borrows conf and clock. Without any [tls NAME]: nothing is read, nothing will be watched.
 */
MUST_USE int keys_new(
    const struct conf *conf, const struct clock *clock, struct buf *errors, struct buf *warnings, struct keys **ret);
void keys_free(struct keys **k);

/* The memfd, borrowed until the next change; -1: there is no [tls NAME]. */
int keys_fd(const struct keys *k);

/* From here on files are watched, and what is told is logged. `changed`: keys_fd is another one. 0 or -ENOMEM. */
MUST_USE int keys_watch(struct keys *k, struct event_base *base, void (*changed)(void *ctx), void *ctx);

/* Logs which certificates will not be valid for much longer: each of 30, 7 and 1 days, and the end, once. The watch does it every hour. */
void keys_tell_expiry(struct keys *k);

/* New session ticket keys, if it is time for them: then `changed` is called. The watch does it every hour. */
void keys_turn_tickets(struct keys *k);

#endif
