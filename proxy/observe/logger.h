/*
 * logger: the thread that writes the logs, so that no event loop ever waits for one.
 * Owns:   a bounded ring for each event thread and one shared by the others, the thread, and the logs' descriptors.
 * Never:  blocks a writer: a full ring drops the line and counts it, and the log says how many were lost when it can be written again.
 * Thread: a channel is its event thread's; logger_set any; the shared channel any.
 */
#ifndef FOREBAY_PROXY_LOGGER_H
#define FOREBAY_PROXY_LOGGER_H

#include "core/log.h"
#include "core/slice.h"

enum logger_to { LOGGER_ERROR, LOGGER_ACCESS, LOGGER_TO_COUNT };
enum logger_kind { LOGGER_OFF, LOGGER_FILE /* file, pipe or terminal */, LOGGER_SYSLOG /* a datagram socket of /dev/log */ };

struct logger;
struct logger_channel;

/* ring_bytes each, a power of two. Starts the thread (all signals blocked). */
MUST_USE int logger_new(unsigned threads, size_t ring_bytes, struct logger **ret);

/* Writes what is in the rings (for at most `wait_ms`), then ends the thread and closes the descriptors. */
void logger_free(struct logger **l, unsigned wait_ms);

/* From now on lines for `to` go there. Takes *fd, also on failure; the old one is closed by the thread after what is in the rings before it. */
void logger_set(struct logger *l, enum logger_to to, enum logger_kind kind, int *fd);

struct logger_channel *logger_channel(struct logger *l, unsigned thread);

/* One line, newline included. False: dropped. */
bool logger_write(struct logger_channel *c, enum logger_to to, enum log_level level, struct slice line);

/* A log_sink (ctx: the logger): the calling thread's channel if it said so by logger_here, else the shared one. */
void logger_sink(void *ctx, enum log_level level, struct slice line);
void logger_here(struct logger *l, unsigned thread);

uint64_t logger_dropped(const struct logger *l);

#endif
