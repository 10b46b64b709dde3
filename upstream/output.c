#include "upstream/output.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"

#define PIECE_BYTES   1800 /* of a log line */
#define READ_BYTES    8192
#define READS_AT_ONCE 8
#define READS_AT_END  256 /* more than a pipe of 1M holds, the largest there is */

struct output {
	const char *name;
	pid_t pid;
	int fd;
	bool bare;
	bool cut; /* the beginning of this line was logged already */
	struct event *ev;
	size_t len;
	char line[OUTPUT_LINE_MAX];
};

/* Bytes at the start of `text` that take at most PIECE_BYTES when they are escaped. */
static size_t piece(struct slice text)
{
	size_t i, escaped = 0;

	for (i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.ptr[i];

		escaped += c >= 0x20 && c < 0x7f && c != '"' && c != '\\' ? 1 : 4;
		if (escaped > PIECE_BYTES)
			break;
	}
	return i;
}

/* Cuts the mark and the id off; empty: there is none. */
static struct slice cut_id(struct slice *line)
{
	struct slice rest = *line, id;

	if (rest.len == 0 || rest.ptr[0] != OUTPUT_MARK)
		return slice_of("", 0);
	rest = slice_of(rest.ptr + 1, rest.len - 1);
	if (!slice_cut(&rest, ' ', &id) || id.len == 0 || id.len > OUTPUT_ID_MAX)
		return slice_of("", 0);
	for (size_t i = 0; i < id.len; i++)
		if (id.ptr[i] < 0x21 || id.ptr[i] > 0x7e || id.ptr[i] == '"' || id.ptr[i] == '\\')
			return slice_of("", 0);
	*line = rest;
	return id;
}

/* " id=ID part=2", each only if there is one. */
static void describe(struct slice id, unsigned part, char *text, size_t size)
{
	int n = id.len ? snprintf(text, size, " id=%.*s", SLICE_ARG(id)) : 0;

	text[n] = '\0';
	if (part > 1)
		(void)snprintf(text + n, size - (size_t)n, " part=%u", part);
}

/* As many lines of the log as it takes: these have a maximum of their own. */
static void log_line_of(const struct output *o, struct slice id, struct slice rest)
{
	char text[PIECE_BYTES + 1], about[OUTPUT_ID_MAX + 32];

	for (unsigned part = 1; rest.len > 0; part++) {
		size_t n = piece(rest);

		(void)log_escape(slice_of(rest.ptr, n), text, sizeof(text));
		describe(id, part, about, sizeof(about));
		log_info("pool=%s pid=%d%s output=\"%s\"", o->name, (int)o->pid, about, text);
		rest = slice_of(rest.ptr + n, rest.len - n);
	}
}

static void log_bare_line(struct slice rest)
{
	do {
		size_t n = MIN(rest.len, LOG_BARE_MAX);

		log_bare(LOG_LEVEL_INFO, slice_of(rest.ptr, n));
		rest = slice_of(rest.ptr + n, rest.len - n);
	} while (rest.len > 0);
}

static void log_output(struct output *o)
{
	struct slice line = { o->line, o->len }, id = cut_id(&line);

	if (!o->bare)
		log_line_of(o, id, line);
	else
		log_bare_line(line);
	o->len = 0;
}

static void take(struct output *o, const char *from, size_t n)
{
	while (n > 0) {
		const char *end = memchr(from, '\n', n);
		size_t part = MIN(end ? (size_t)(end - from) : n, sizeof(o->line) - o->len);

		memcpy(o->line + o->len, from, part);
		o->len += part;
		from += part;
		n -= part;
		if (o->len == sizeof(o->line)) {
			log_output(o);
			o->cut = true;
		}
		if (n > 0 && *from == '\n') {
			if (o->len > 0 || !o->cut)
				log_output(o);
			o->cut = false;
			from++;
			n--;
		}
	}
}

/* At most `times` reads. */
static void read_some(struct output *o, int times)
{
	char bytes[READ_BYTES];

	while (times-- > 0) {
		ssize_t n = read(o->fd, bytes, sizeof(bytes));

		if (n == -1 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			(void)event_del(o->ev);
			return;
		}
		take(o, bytes, (size_t)n);
	}
}

static void on_readable(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	read_some(ctx, READS_AT_ONCE);
}

int output_new(struct event_base *base, const char *name, int *fd, struct output **ret)
{
	struct output *o = calloc(1, sizeof(*o));

	if (!o) {
		close(*fd);
		*fd = -1;
		return -ENOMEM;
	}
	o->name = name;
	o->fd = *fd;
	*fd = -1;
	o->ev = event_new(base, o->fd, EV_READ | EV_PERSIST, on_readable, o);
	if (!o->ev || fcntl(o->fd, F_SETFL, O_NONBLOCK) == -1 || event_add(o->ev, NULL) == -1) {
		output_free(&o);
		return -ENOMEM;
	}
	*ret = o;
	return 0;
}

void output_set_pid(struct output *o, pid_t pid)
{
	o->pid = pid;
}

void output_set_bare(struct output *o)
{
	o->bare = true;
}

void output_end(struct output *o)
{
	read_some(o, READS_AT_END);
	if (o->len > 0)
		log_output(o);
}

void output_free(struct output **o)
{
	struct output *old = *o;

	*o = NULL;
	if (!old)
		return;
	if (old->ev)
		event_free(old->ev);
	close(old->fd);
	free(old);
}
