#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 2048

static void to_stderr(void *ctx UNUSED, enum log_level level UNUSED, struct slice line)
{
	/* One write, so that lines of several processes do not mix; if nobody takes it, there is nobody to tell. */
	ssize_t n UNUSED = write(STDERR_FILENO, line.ptr, line.len);
}

/* The only process-wide state there is; written at start-up only, before there are threads. */
static struct {
	const char *name;
	enum log_level level;
	bool stamps;
	log_sink *sink;
	void *ctx;
} setup = { .name = "forebay", .level = LOG_LEVEL_INFO, .sink = to_stderr };

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

void log_setup(const char *name, enum log_level level, log_sink *sink, void *ctx)
{
	setup.name = name ? name : "forebay";
	setup.level = level;
	setup.sink = sink ? sink : to_stderr;
	setup.ctx = ctx;
}

void log_stamps(bool on)
{
	setup.stamps = on;
}

bool log_wants(enum log_level level)
{
	return level <= setup.level;
}

/* "2026-01-31T23:59:59.123456Z master: info: ", as in the access log; its length. */
static size_t put_prefix(char *line, size_t room, enum log_level level)
{
	char time[32] = "";
	struct timespec now;
	struct tm tm;
	int n;

	if (setup.stamps && clock_gettime(CLOCK_REALTIME, &now) == 0 && gmtime_r(&now.tv_sec, &tm))
		(void)strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%S", &tm);
	if (*time)
		n = snprintf(line, room, "%s.%06ldZ %s: %s: ", time, now.tv_nsec / 1000, setup.name, level_names[level]);
	else
		n = snprintf(line, room, "%s: %s: ", setup.name, level_names[level]);
	return n < 0 ? 0 : MIN((size_t)n, room - 1);
}

/* Whatever was printed, it stays one line, and no terminal takes it for orders. UTF-8 passes. */
static void blank_controls(char *text, size_t len, char but)
{
	for (size_t i = 0; i < len; i++)
		if (((unsigned char)text[i] < 0x20 && text[i] != but) || text[i] == 0x7f)
			text[i] = '?';
}

void log_bare(enum log_level level, struct slice text)
{
	char line[LOG_BARE_MAX + 1];
	size_t len = MIN(text.len, LOG_BARE_MAX);

	if (!log_wants(level))
		return;
	if (len)
		memcpy(line, text.ptr, len);
	blank_controls(line, len, '\t');
	line[len++] = '\n';
	setup.sink(setup.ctx, level, (struct slice){ line, len });
}

void log_line(enum log_level level, const char *fmt, ...)
{
	int saved_errno = errno; /* callers log on the way to `return -errno` */
	char line[LINE_BYTES];
	size_t room = sizeof(line) - 1; /* the newline's place is kept */
	size_t len;
	va_list args;
	int n;

	if (!log_wants(level))
		return;
	len = put_prefix(line, room, level);
	va_start(args, fmt);
	n = vsnprintf(line + len, room - len, fmt, args);
	va_end(args);
	if (n >= 0 && (size_t)n >= room - len) {
		len = room - 1;
		memcpy(line + len - 3, "...", 3);
	} else if (n > 0) {
		len += (size_t)n;
	}
	blank_controls(line, len, 0x7f);
	line[len++] = '\n';
	setup.sink(setup.ctx, level, (struct slice){ line, len });
	errno = saved_errno;
}

const char *log_escape(struct slice text, char *out, size_t out_size)
{
	static const char hex[] = "0123456789abcdef";
	size_t len = 0;

	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.ptr[i];
		bool plain = c >= 0x20 && c < 0x7f && c != '"' && c != '\\';

		if (len + (plain ? 1 : 4) >= out_size) /* an escape is whole or not there */
			break;
		if (plain) {
			out[len++] = (char)c;
			continue;
		}
		out[len++] = '\\';
		out[len++] = 'x';
		out[len++] = hex[c >> 4];
		out[len++] = hex[c & 15];
	}
	if (out_size)
		out[len] = '\0';
	return out;
}
