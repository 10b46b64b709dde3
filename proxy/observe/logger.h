/*
 * logger: the thread that writes the logs, so that no event loop ever waits for one.
 * Owns:   for each log a bounded ring for each event thread and one shared by the others; the thread; the logs' descriptors.
 * Never:  blocks a writer: a full ring drops the line and counts it, and the error log says how many were lost when the log can be
 *         written again. A log that blocks does not hold up the other one.
 * Thread: a channel is its event thread's; logger_set any; the shared channel any.
 */
#ifndef FOREBAY_PROXY_LOGGER_H
#define FOREBAY_PROXY_LOGGER_H

#include "core/log.h"
#include "core/slice.h"

#define LOGGER_LINE_MAX (64u << 10) /* bytes; a longer line is dropped */

enum logger_to { LOGGER_ERROR, LOGGER_ACCESS, LOGGER_TO_COUNT };
enum logger_kind { LOGGER_OFF, LOGGER_FILE /* file, pipe or terminal */, LOGGER_SYSLOG /* a datagram socket of /dev/log */ };

struct logger;
struct logger_channel;

/* ring_bytes each, a power of two. Starts the thread (all signals blocked). Both logs are LOGGER_OFF: what is written is thrown away. */
MUST_USE int logger_new(unsigned threads, size_t ring_bytes, struct logger **ret);

/*
 * Writes what is in the rings (for at most `wait_ms`), then ends the thread and closes the descriptors. No other thread may write any more; if
 * the logger is log's sink, the caller gives that another one right after, before it logs again.
 */
void logger_free(struct logger **l, unsigned wait_ms);

/*
 * From now on lines for `to` go there. Takes *fd, also on failure; the old one is closed by the thread after what is in the rings before it. If
 * the old one takes no more, what is in the rings for it is lost and counted.
 */
void logger_set(struct logger *l, enum logger_to to, enum logger_kind kind, int *fd);

struct logger_channel *logger_channel(struct logger *l, unsigned thread);

/* One line, newline included. False: dropped. */
bool logger_write(struct logger_channel *c, enum logger_to to, enum log_level level, struct slice line);

/* A log_sink (ctx: the logger): the calling thread's channel if it said so by logger_here, else the shared one. */
void logger_sink(void *ctx, enum log_level level, struct slice line);
void logger_here(struct logger *l, unsigned thread);

/* Lines lost so far: dropped by a full ring or refused by their log. */
uint64_t logger_dropped(const struct logger *l);

#endif
