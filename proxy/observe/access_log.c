#include "proxy/observe/access_log.h"

#include <stdlib.h>
#include <time.h>

#include "core/buf.h"

/* Bytes of each text that are logged; what is longer is cut, and marked. Escaped, a byte takes up to six. */
#define TEXT_MAX   256
#define TARGET_MAX 4096
#define FIELD_MAX  1024
#define CUT_MARK   "..."

static_assert(6 * (TARGET_MAX + 2 * FIELD_MAX + 9 * TEXT_MAX + 512) < LOGGER_LINE_MAX, "a line always fits");

struct access_log {
	struct logger_channel *channel;
	enum conf_access_format format;
	struct buf line;
	time_t second; /* that `date` says */
	char date[32];
};

int access_log_new(struct logger_channel *channel, enum conf_access_format format, struct access_log **ret)
{
	struct access_log *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->channel = channel;
	l->format = format;
	l->second = (time_t)-1;
	buf_init(&l->line, LOGGER_LINE_MAX);
	*ret = l;
	return 0;
}

void access_log_free(struct access_log **log)
{
	struct access_log *l = *log;

	*log = NULL;
	if (!l)
		return;
	buf_done(&l->line);
	free(l);
}

/* Text: printable ASCII as it is, all else as \xHH, so that a line is one line and a terminal shows what was sent. */

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c <= 0x7e && c != '"' && c != '\\';
}

/* In runs, since nearly all bytes of nearly all lines are plain. */
static void add_escaped(struct buf *b, struct slice text, size_t max, bool spaces_too)
{
	size_t len = MIN(text.len, max), run = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text.ptr[i];

		if (is_plain(c) && !(c == ' ' && spaces_too))
			continue;
		buf_add(b, slice_of(text.ptr + run, i - run));
		buf_printf(b, "\\x%02X", c);
		run = i + 1;
	}
	buf_add(b, slice_of(text.ptr + run, len - run));
	if (len < text.len)
		buf_add(b, SLICE(CUT_MARK));
}

static void add_text(struct buf *b, struct slice text, size_t max)
{
	add_escaped(b, text, max, false);
}

static void add_quoted(struct buf *b, struct slice text, size_t max)
{
	buf_char(b, '"');
	add_text(b, text, max);
	buf_char(b, '"');
}

/* A word of a line that is cut at its spaces. */
static void add_word(struct buf *b, struct slice text, size_t max)
{
	add_escaped(b, text.len ? text : SLICE("-"), max, true);
}

/* JSON: UTF-8 as it is, what is not UTF-8 byte by byte as \u00HH. */

/* Bytes of the character at the beginning; 0: it is not UTF-8 (RFC 3629, 4). */
static size_t utf8_bytes(struct slice s)
{
	const unsigned char *p = (const unsigned char *)s.ptr;
	size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

	if (len == 0 || len > s.len)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong, surrogates, beyond U+10FFFF. */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
	    (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

/*
 * Bytes that may stand in a JSON string as they are; 0: they may not. Controls may not, as they move a terminal's cursor: U+0080 to U+009F no
 * less than the others.
 */
static size_t json_plain_bytes(struct slice s)
{
	const unsigned char *p = (const unsigned char *)s.ptr;

	if (is_plain(p[0]))
		return 1;
	if (p[0] < 0x80 || (p[0] == 0xc2 && s.len > 1 && p[1] < 0xa0))
		return 0;
	return utf8_bytes(s);
}

/* Writes one character that is not plain; returns its bytes. */
static size_t json_escape(struct buf *b, struct slice s)
{
	const unsigned char *p = (const unsigned char *)s.ptr;

	if (p[0] == '"' || p[0] == '\\') {
		buf_printf(b, "\\%c", p[0]);
		return 1;
	}
	if (utf8_bytes(s) == 2) {
		buf_printf(b, "\\u%04x", p[1]);
		return 2;
	}
	buf_printf(b, "\\u%04x", p[0]);
	return 1;
}

static void json_string(struct buf *b, struct slice text, size_t max)
{
	size_t i = 0, run = 0;

	buf_char(b, '"');
	while (i < text.len && i < max) {
		struct slice rest = slice_of(text.ptr + i, text.len - i);
		size_t plain = json_plain_bytes(rest);

		if (plain > 0) {
			i += plain;
			continue;
		}
		buf_add(b, slice_of(text.ptr + run, i - run));
		i += json_escape(b, rest);
		run = i;
	}
	buf_add(b, slice_of(text.ptr + run, i - run));
	if (i < text.len)
		buf_add(b, SLICE(CUT_MARK));
	buf_char(b, '"');
}

static void json_name(struct buf *b, const char *name)
{
	buf_char(b, ',');
	buf_char(b, '"');
	buf_add(b, slice_str(name));
	buf_add(b, SLICE("\":"));
}

/* An empty one is null: it was not there, or not understood. */
static void json_text(struct buf *b, const char *name, struct slice text, size_t max)
{
	json_name(b, name);
	if (text.len == 0)
		buf_add(b, SLICE("null"));
	else
		json_string(b, text, max);
}

static void json_number(struct buf *b, const char *name, uint64_t n)
{
	json_name(b, name);
	buf_u64(b, n);
}

static void json_bool(struct buf *b, const char *name, bool value)
{
	json_name(b, name);
	buf_add(b, value ? SLICE("true") : SLICE("false"));
}

/* Milliseconds with three decimals, or what stands for "did not come to that". */
static void add_ms(struct buf *b, uint64_t us, struct slice none)
{
	if (us == UINT64_MAX)
		buf_add(b, none);
	else
		buf_printf(b, "%" PRIu64 ".%03u", us / 1000, (unsigned)(us % 1000));
}

static void json_ms(struct buf *b, const char *name, uint64_t us)
{
	json_name(b, name);
	add_ms(b, us, SLICE("null"));
}

/* What all formats tell. */

static struct slice request_text(const struct access_record *r, struct span span)
{
	return r->request ? head_text(r->request, span) : slice_of("", 0);
}

static struct slice request_field(const struct access_record *r, enum field_id id)
{
	return r->request ? head_get(r->request, id) : slice_of("", 0);
}

static struct slice method_of(const struct access_record *r)
{
	return r->request ? request_text(r, r->request->method_text) : slice_of("", 0);
}

static struct slice target_of(const struct access_record *r)
{
	return r->request ? request_text(r, r->request->target) : slice_of("", 0);
}

static struct slice authority_of(const struct access_record *r)
{
	return r->request ? request_text(r, r->request->authority) : slice_of("", 0);
}

static struct slice protocol_of(const struct access_record *r)
{
	switch (r->request ? r->request->version : 0) {
	case 10:
		return SLICE("HTTP/1.0");
	case 11:
		return SLICE("HTTP/1.1");
	case 20:
		return SLICE("HTTP/2.0");
	}
	return slice_of("", 0);
}

/* The formatted time changes once a second; `strftime_format` is one literal for a log. UTC, whatever the machine's zone. */
static const char *date_of(struct access_log *l, int64_t wall_us, const char *strftime_format)
{
	time_t second = (time_t)(wall_us / 1000000);
	struct tm tm;

	if (second != l->second && gmtime_r(&second, &tm)) {
		strftime(l->date, sizeof(l->date), strftime_format, &tm);
		l->second = second;
	}
	return l->date;
}

/* RFC 3339 with microseconds. */
static void add_time(struct access_log *l, int64_t wall_us)
{
	buf_printf(&l->line, "%s.%06uZ", date_of(l, wall_us, "%Y-%m-%dT%H:%M:%S"), (unsigned)(wall_us % 1000000));
}

/* What other servers call combined; tools read it, so nothing is added. */

static void quote_request(struct buf *b, const struct access_record *r)
{
	buf_char(b, '"');
	if (r->request) {
		add_text(b, method_of(r), TEXT_MAX);
		buf_char(b, ' ');
		add_text(b, target_of(r), TARGET_MAX);
		buf_char(b, ' ');
		buf_add(b, protocol_of(r));
	} else {
		add_text(b, r->request_line.len ? r->request_line : SLICE("-"), TARGET_MAX);
	}
	buf_char(b, '"');
}

static void quote_field(struct buf *b, const struct access_record *r, enum field_id id)
{
	struct slice value = request_field(r, id);

	add_quoted(b, value.len ? value : SLICE("-"), FIELD_MAX);
}

static void write_combined(struct access_log *l, const struct access_record *r)
{
	struct buf *b = &l->line;

	add_word(b, r->client, TEXT_MAX);
	buf_printf(b, " - - [%s] ", date_of(l, r->wall_us, "%d/%b/%Y:%H:%M:%S +0000"));
	quote_request(b, r);
	buf_printf(b, " %u %" PRIu64 " ", r->status, r->response_bytes);
	quote_field(b, r, FIELD_REFERER);
	buf_char(b, ' ');
	quote_field(b, r, FIELD_USER_AGENT);
}

static void json_request(struct buf *b, const struct access_record *r)
{
	json_text(b, "method", method_of(r), TEXT_MAX);
	/* Of a request that was not understood the target is what there was of its first line. */
	json_text(b, "target", r->request ? target_of(r) : r->request_line, TARGET_MAX);
	json_text(b, "host", authority_of(r), TEXT_MAX);
	json_text(b, "protocol", protocol_of(r), TEXT_MAX);
}

static void json_times(struct buf *b, const struct access_record *r)
{
	json_ms(b, "receive_ms", r->receive_us);
	json_ms(b, "queue_ms", r->queue_us);
	json_ms(b, "hold_ms", r->hold_us);
	json_ms(b, "drain_ms", r->drain_us);
	json_ms(b, "total_ms", r->total_us);
}

static void json_worker(struct buf *b, const struct access_record *r)
{
	json_number(b, "attempts", r->attempts);
	json_text(b, "pool", slice_str(r->pool), TEXT_MAX);
	if (r->worker_pid > 0)
		json_number(b, "worker", (uint64_t)r->worker_pid);
	else
		json_text(b, "worker", slice_of("", 0), 0);
}

static void write_json(struct access_log *l, const struct access_record *r)
{
	struct buf *b = &l->line;

	buf_add(b, SLICE("{\"time\":\""));
	add_time(l, r->wall_us);
	buf_char(b, '"');
	json_text(b, "id", r->id, TEXT_MAX);
	json_text(b, "client", r->client, TEXT_MAX);
	json_text(b, "peer", r->peer, TEXT_MAX);
	json_text(b, "listen", slice_str(r->listen), TEXT_MAX);
	json_text(b, "tls", slice_str(r->tls), TEXT_MAX);
	json_request(b, r);
	json_number(b, "status", r->status);
	json_number(b, "request_bytes", r->request_bytes);
	json_number(b, "response_bytes", r->response_bytes);
	json_times(b, r);
	json_worker(b, r);
	json_bool(b, "request_spooled", r->request_spooled);
	json_bool(b, "response_spooled", r->response_spooled);
	json_bool(b, "eof", r->eof);
	json_bool(b, "cut", r->cut);
	json_text(b, "reason", slice_str(r->reason), TEXT_MAX);
	json_text(b, "referer", request_field(r, FIELD_REFERER), FIELD_MAX);
	json_text(b, "user_agent", request_field(r, FIELD_USER_AGENT), FIELD_MAX);
	buf_char(b, '}');
}

static void timing_request(struct buf *b, const struct access_record *r)
{
	buf_char(b, '"');
	if (r->request) {
		add_text(b, method_of(r), TEXT_MAX);
		buf_char(b, ' ');
		add_text(b, target_of(r), TARGET_MAX);
	} else {
		add_text(b, r->request_line.len ? r->request_line : SLICE("-"), TARGET_MAX);
	}
	buf_char(b, '"');
}

static void timing_ms(struct buf *b, const char *name, uint64_t us)
{
	buf_printf(b, " %s=", name);
	add_ms(b, us, SLICE("-"));
}

static void timing_worker(struct buf *b, const struct access_record *r)
{
	buf_add(b, SLICE(" pool="));
	add_word(b, slice_str(r->pool), TEXT_MAX);
	if (r->worker_pid > 0)
		buf_printf(b, " worker=%ld", (long)r->worker_pid);
	else
		buf_add(b, SLICE(" worker=-"));
}

static void write_timing(struct access_log *l, const struct access_record *r)
{
	struct buf *b = &l->line;

	add_time(l, r->wall_us);
	buf_char(b, ' ');
	add_word(b, r->id, TEXT_MAX);
	buf_char(b, ' ');
	add_word(b, r->client, TEXT_MAX);
	buf_char(b, ' ');
	timing_request(b, r);
	buf_printf(b, " %u %" PRIu64, r->status, r->response_bytes);
	timing_ms(b, "receive", r->receive_us);
	timing_ms(b, "queue", r->queue_us);
	timing_ms(b, "hold", r->hold_us);
	timing_ms(b, "drain", r->drain_us);
	timing_ms(b, "total", r->total_us);
	timing_worker(b, r);
	buf_add(b, SLICE(" reason="));
	if (r->reason)
		add_quoted(b, slice_str(r->reason), TEXT_MAX);
	else
		buf_char(b, '-');
}

/* For eyes on a terminal. Nothing that was sent can move its cursor or change its color: all that is not plain is escaped. */

static const char *color_of(unsigned status)
{
	static const char *const colors[] = { [2] = "32", [3] = "36", [4] = "33", [5] = "1;31" };
	unsigned hundreds = status / 100;

	return hundreds < ARRAY_LEN(colors) && colors[hundreds] ? colors[hundreds] : "0";
}

static void short_status(struct access_log *l, unsigned status)
{
	if (l->format == ACCESS_COLOR)
		buf_printf(&l->line, "\x1b[%sm%u\x1b[0m ", color_of(status), status);
	else
		buf_printf(&l->line, "%u ", status);
}

static void short_request(struct buf *b, const struct access_record *r)
{
	if (!r->request) {
		add_quoted(b, r->request_line, TARGET_MAX);
		return;
	}
	add_word(b, method_of(r), TEXT_MAX);
	buf_char(b, ' ');
	add_word(b, target_of(r), TARGET_MAX);
}

static void write_short(struct access_log *l, const struct access_record *r)
{
	struct buf *b = &l->line;

	short_status(l, r->status);
	short_request(b, r);
	buf_printf(b, " %" PRIu64 "B", r->response_bytes);
	timing_ms(b, "total", r->total_us);
	timing_ms(b, "hold", r->hold_us);
	timing_ms(b, "queue", r->queue_us);
	if (r->reason) {
		buf_char(b, ' ');
		add_quoted(b, slice_str(r->reason), TEXT_MAX);
	}
}

void access_log_write(struct access_log *l, const struct access_record *r)
{
	buf_clear(&l->line);
	switch (l->format) {
	case ACCESS_COMBINED:
		write_combined(l, r);
		break;
	case ACCESS_JSON:
		write_json(l, r);
		break;
	case ACCESS_TIMING:
		write_timing(l, r);
		break;
	case ACCESS_SHORT:
	case ACCESS_COLOR:
		write_short(l, r);
		break;
	}
	buf_char(&l->line, '\n');
	/* Without memory for it, half a line is worse than none. */
	if (!l->line.failed)
		logger_write(l->channel, LOGGER_ACCESS, LOG_LEVEL_INFO, buf_slice(&l->line));
}
