/*
 * logs: opens what `log` and `access_log` name, and carries the master's own lines there.
 * Owns:   the descriptor it was opened with, in struct logs.
 * Never:  waits for a reader: the master has more to do. What cannot be written at once is dropped, counted, and said.
 * Thread: the master's.
 */
#ifndef FOREBAY_PROXY_LOGS_H
#define FOREBAY_PROXY_LOGS_H

#include "proxy/observe/logger.h"

/* `target`: a path, "stderr", "syslog" or "off". 0 with the kind and a descriptor (-1: off), yours to close; or -errno. */
MUST_USE int logs_open(const char *target, enum logger_kind *ret_kind, int *ret_fd);

struct logs {
	int fd; /* -1: standard error */
	enum logger_kind kind;
	uint64_t dropped; /* lines, not yet told */
};

/* From now on the master's lines go to *fd (taken). Before the first call they go to standard error. */
void logs_set(struct logs *l, enum logger_kind kind, int *fd);
void logs_done(struct logs *l);

/* A log_sink; ctx: the struct logs. */
void logs_sink(void *ctx, enum log_level level, struct slice line);

#endif
