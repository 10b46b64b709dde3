/*
 * log: forebay's own voice: one line of key=value for each thing worth telling. Not the access log.
 * Owns:   the level and the sink: the only process-wide state there is.
 * Thread: any. The sink must be safe to call from every thread that logs.
 */
#ifndef FOREBAY_CORE_LOG_H
#define FOREBAY_CORE_LOG_H

#include "core/slice.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Takes one whole line, newline included. The default sink writes it to standard error. */
typedef void log_sink(void *ctx, enum log_level level, struct slice line);

/* At start-up, before there are threads. `name` (borrowed for ever) heads each line: "master", "front". */
void log_setup(const char *name, enum log_level level, log_sink *sink, void *ctx);

/* At start-up as well: each line begins with its time (UTC). For files and terminals; syslog and the journal have their own. */
void log_stamps(bool on);

void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);
bool log_wants(enum log_level level);

/* A line of somebody else's words, with nothing before it: controls in it but TAB are blanked. What is longer than LOG_BARE_MAX is cut. */
#define LOG_BARE_MAX 2000 /* bytes */
void log_bare(enum log_level level, struct slice text);

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                                                         \
	do {                                                                                                                   \
		if (log_wants(LOG_LEVEL_DEBUG))                                                                                \
			log_line(LOG_LEVEL_DEBUG, __VA_ARGS__);                                                                \
	} while (0)

/*
 * Appends `text` to `out` (as much as fits in out_size, always NUL-terminated) with everything but printable ASCII, and
 * `"` and `\`, as \xHH. Returns out. For bytes of a peer in a log line.
 */
const char *log_escape(struct slice text, char *out, size_t out_size);

#endif
