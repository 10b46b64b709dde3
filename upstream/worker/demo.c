#include "upstream/worker/demo.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES  64
#define PIECE_BYTES (64u << 10)
#define QUERY_MAX   1024 /* of what is recorded */

struct demo {
	int record_fd; /* -1: nothing is recorded */
};

struct page {
	const char *path;
	const char *example; /* for the list on the front page; NULL: not there */
	const char *what;
	void (*show)(struct worker_request *r);
};

static const struct page pages[];

/* The number behind NAME= in the query, at most max; if_none without one. */
static uint64_t number(struct worker_request *r, struct slice name, uint64_t if_none, uint64_t max)
{
	struct slice query = worker_get(r, "QUERY_STRING"), item;
	uint64_t n;

	while (query.len > 0) {
		if (!slice_cut(&query, '&', &item)) {
			item = query;
			query.len = 0;
		}
		if (!slice_starts(item, name) || item.len == name.len || item.ptr[name.len] != '=')
			continue;
		item = slice_of(item.ptr + name.len + 1, item.len - name.len - 1);
		return slice_to_u64(item, &n) ? MIN(n, max) : if_none;
	}
	return if_none;
}

/* A response begins. False: nobody listens. */
static bool begin(struct worker_request *r, unsigned status, const char *type)
{
	return worker_status(r, status) == 0 && worker_field(r, SLICE("Content-Type"), slice_str(type)) == 0 &&
	       worker_field(r, SLICE("X-Content-Type-Options"), SLICE("nosniff")) == 0;
}

static bool field_u64(struct worker_request *r, struct slice name, uint64_t n)
{
	char text[24];
	int len = snprintf(text, sizeof(text), "%" PRIu64, n);

	return worker_field(r, name, slice_of(text, (size_t)len)) == 0;
}

static bool say(struct worker_request *r, const char *text)
{
	return worker_write(r, text, strlen(text)) == 0;
}

static bool say_slice(struct worker_request *r, struct slice s)
{
	return worker_write(r, s.ptr, s.len) == 0;
}

static void not_found(struct worker_request *r)
{
	if (begin(r, 404, "text/plain; charset=utf-8"))
		(void)say(r, "No such page. / says what there is.\n");
}

static void show_index(struct worker_request *r)
{
	if (!begin(r, 200, "text/html; charset=utf-8"))
		return;
	(void)say(r,
	    "<!DOCTYPE html>\n<html lang=\"en\"><head><title>forebay</title></head><body>\n<h1>forebay works</h1>\n"
	    "<p>This page was made by one of forebay's own workers: a process that blocks, serves one request at a time, and never "
	    "waits for you. forebay took in your request completely before a worker saw it, and took the answer off the worker's "
	    "hands at once; however slowly you read it, the worker is already free.</p>\n<h2>To try</h2>\n<dl>\n");
	for (const struct page *p = pages; p->path; p++) {
		if (!p->example)
			continue;
		(void)(say(r, "<dt><a href=\"") && say(r, p->example) && say(r, "\"><code>") && say(r, p->example) &&
		       say(r, "</code></a></dt>\n<dd>") && say(r, p->what) && say(r, "</dd>\n"));
	}
	(void)say(r, "</dl>\n</body></html>\n");
}

static void send_body_back(struct worker_request *r)
{
	char piece[8192];
	ssize_t n;

	while ((n = worker_body_read(r, piece, sizeof(piece))) > 0)
		if (worker_write(r, piece, (size_t)n) != 0)
			return;
	if (n < 0)
		worker_abort(r);
}

static void show_echo(struct worker_request *r)
{
	struct slice name, value;
	char pid[48];

	if (!begin(r, 200, "text/plain; charset=utf-8"))
		return;
	for (size_t i = 0; i < worker_variable_count(r); i++) {
		worker_variable(r, i, &name, &value);
		(void)(say_slice(r, name) && say(r, "=") && say_slice(r, value) && say(r, "\n"));
	}
	(void)snprintf(pid, sizeof(pid), "worker process: %ld\n", (long)getpid());
	(void)(say(r, "\n") && say(r, pid) &&
	       say(r, worker_body_fd(r) != -1 ? "body: a descriptor\n\n" : "body: in memory\n\n"));
	send_body_back(r);
}

static void sleep_ms(uint64_t ms)
{
	struct timespec left = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&left, &left) == -1 && errno == EINTR)
		;
}

static void show_sleep(struct worker_request *r)
{
	uint64_t ms = number(r, SLICE("ms"), 1000, DEMO_SLEEP_MAX_MS);
	char text[64];

	sleep_ms(ms);
	(void)snprintf(text, sizeof(text), "Slept for %" PRIu64 " ms.\n", ms);
	if (begin(r, 200, "text/plain; charset=utf-8"))
		(void)say(r, text);
}

char demo_byte(uint64_t offset)
{
	static const char digits[] = "0123456789abcdef";
	uint64_t line = offset / LINE_BYTES * LINE_BYTES;
	unsigned column = (unsigned)(offset % LINE_BYTES);

	if (column == LINE_BYTES - 1)
		return '\n';
	return column < 16 ? digits[line >> (4 * (15 - column)) & 15] : '.';
}

/* The same as demo_byte, a line at a time. `offset` is a multiple of LINE_BYTES. */
static void fill(char *to, size_t n, uint64_t offset)
{
	static const char rest[LINE_BYTES - 16 + 1] = "...............................................\n";
	char line[LINE_BYTES];

	while (n > 0) {
		size_t part = MIN(n, sizeof(line));

		for (unsigned i = 0; i < 16; i++)
			line[i] = demo_byte(offset + i);
		memcpy(line + 16, rest, sizeof(line) - 16);
		memcpy(to, line, part);
		to += part;
		offset += part;
		n -= part;
	}
}

static bool begin_bytes(struct worker_request *r, uint64_t bytes)
{
	return begin(r, 200, "application/octet-stream") && field_u64(r, SLICE("Content-Length"), bytes);
}

static void show_big(struct worker_request *r)
{
	uint64_t bytes = number(r, SLICE("bytes"), 1u << 20, DEMO_BIG_MAX_BYTES);
	char *piece = malloc(PIECE_BYTES);

	if (!piece || !begin_bytes(r, bytes)) {
		free(piece);
		return;
	}
	for (uint64_t at = 0; at < bytes; at += PIECE_BYTES) {
		size_t n = (size_t)MIN(PIECE_BYTES, bytes - at);

		fill(piece, n, at);
		if (worker_write(r, piece, n) != 0 || worker_client_gone(r))
			break;
	}
	free(piece);
}

static bool write_whole(int fd, const char *from, size_t n)
{
	while (n > 0) {
		ssize_t got = write(fd, from, n);

		if (got == -1)
			return false;
		from += got;
		n -= (size_t)got;
	}
	return true;
}

/* A memfd with the bytes of /big. -1 without memory. */
static int make_file(uint64_t bytes)
{
	int fd = memfd_create("demo", MFD_CLOEXEC);
	char *piece = malloc(PIECE_BYTES);
	bool ok = fd != -1 && piece;

	for (uint64_t at = 0; ok && at < bytes; at += PIECE_BYTES) {
		size_t n = (size_t)MIN(PIECE_BYTES, bytes - at);

		fill(piece, n, at);
		ok = write_whole(fd, piece, n);
	}
	free(piece);
	if (!ok && fd != -1)
		close(fd);
	return ok ? fd : -1;
}

static void show_file(struct worker_request *r)
{
	uint64_t bytes = number(r, SLICE("bytes"), 1u << 20, DEMO_BIG_MAX_BYTES);
	int fd = make_file(bytes);

	if (fd == -1) {
		if (begin(r, 507, "text/plain; charset=utf-8"))
			(void)say(r, "No memory for the file.\n");
		return;
	}
	if (begin_bytes(r, bytes))
		(void)!worker_write_file(r, &fd, 0, bytes);
	if (fd != -1)
		close(fd);
}

uint32_t demo_crc32(uint32_t crc, const void *data, size_t len)
{
	/* The remainder of each half byte. */
	static const uint32_t table[16] = { 0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158,
		0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c };
	const unsigned char *p = data;

	crc = ~crc;
	while (len-- > 0) {
		crc ^= *p++;
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

static void show_upload(struct worker_request *r)
{
	char piece[16384], text[160];
	uint32_t crc = 0;
	ssize_t n;

	while ((n = worker_body_read(r, piece, sizeof(piece))) > 0)
		crc = demo_crc32(crc, piece, (size_t)n);
	if (n < 0) {
		worker_abort(r);
		return;
	}
	(void)snprintf(text, sizeof(text), "bytes=%" PRIu64 "\ncrc32=%08" PRIx32 "\nbody=%s\n", worker_body_bytes(r), crc,
	    worker_body_fd(r) != -1 ? "descriptor" : "memory");
	if (begin(r, 200, "text/plain; charset=utf-8"))
		(void)say(r, text);
}

static void show_stream(struct worker_request *r)
{
	uint64_t parts = number(r, SLICE("parts"), 5, DEMO_PARTS_MAX), ms = number(r, SLICE("ms"), 0, DEMO_SLEEP_MAX_MS);
	char text[64];

	if (!begin(r, 200, "text/event-stream") || worker_flush(r) != 0)
		return;
	for (uint64_t i = 0; i < parts && !worker_client_gone(r); i++) {
		(void)snprintf(text, sizeof(text), "data: part %" PRIu64 " of %" PRIu64 "\n\n", i + 1, parts);
		if (!say(r, text) || worker_flush(r) != 0)
			return;
		sleep_ms(ms);
	}
}

/* Content in pieces with pauses, complete at last: what a worker does that computes while it writes. */
static void show_slow(struct worker_request *r)
{
	uint64_t parts = number(r, SLICE("parts"), 5, DEMO_PARTS_MAX), ms = number(r, SLICE("ms"), 100, 1000);
	char line[LINE_BYTES];

	if (!begin_bytes(r, parts * LINE_BYTES))
		return;
	for (uint64_t i = 0; i < parts && !worker_client_gone(r); i++) {
		fill(line, sizeof(line), i * LINE_BYTES);
		if (worker_write(r, line, sizeof(line)) != 0 || worker_flush(r) != 0)
			return;
		sleep_ms(ms);
	}
}

static void show_hints(struct worker_request *r)
{
	if (worker_status(r, 103) == 0 && worker_field(r, SLICE("Link"), SLICE("</style.css>; rel=preload; as=style")) == 0 &&
	    begin(r, 200, "text/plain; charset=utf-8"))
		(void)say(r, "A 103 came before this.\n");
}

static void show_cut(struct worker_request *r)
{
	if (begin_bytes(r, 2 * LINE_BYTES) && say(r, "This answer ends here, half way.\n"))
		(void)!worker_flush(r);
	worker_abort(r);
}

static void show_crash(struct worker_request *r)
{
	(void)r;
	abort();
}

static void show_exit(struct worker_request *r)
{
	(void)r;
	_exit(0);
}

static const struct page pages[] = {
	{ "/", NULL, NULL, show_index },
	{ "/echo", "/echo?any=thing", "what reached the worker: its variables, and the body as it came", show_echo },
	{ "/sleep", "/sleep?ms=1000", "holds its worker for a second", show_sleep },
	{ "/big", "/big?bytes=1000000", "a megabyte (up to 4G) of lines that begin with their offset", show_big },
	{ "/file", "/file?bytes=1000000", "the same as a file whose descriptor is handed over", show_file },
	{ "/upload", "/upload", "POST something: how many bytes came, and their CRC-32", show_upload },
	{ "/stream", "/stream?parts=5&amp;ms=500", "an event stream, passed on part by part", show_stream },
	{ "/slow", "/slow?parts=5&amp;ms=100", "an answer that is written slowly", show_slow },
	{ "/hints", "/hints", "early hints (103) before the answer", show_hints },
	{ "/cut", "/cut", "an answer that breaks off", show_cut },
	{ "/crash", "/crash", "the worker crashes on purpose, and is replaced", show_crash },
	{ "/exit", "/exit", "the worker ends without an answer, and is replaced", show_exit },
	{ NULL, NULL, NULL, NULL },
};

static int demo_load(const struct worker_setting *setting UNUSED, void **ret_ctx)
{
	const char *path = getenv(DEMO_RECORD);
	struct demo *d = malloc(sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->record_fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666) : -1;
	if (path && d->record_fd == -1) {
		err = -errno;
		free(d);
		return err;
	}
	*ret_ctx = d;
	return 0;
}

static void demo_unload(void *ctx)
{
	struct demo *d = ctx;

	if (d->record_fd != -1)
		close(d->record_fd);
	free(d);
}

/* One write a line, so that the lines of all workers stand in the order of what happened. */
static void note_begin(const struct demo *d, struct worker_request *r)
{
	struct slice query = worker_get(r, "QUERY_STRING");
	char line[QUERY_MAX + 64];
	int n;

	if (d->record_fd == -1)
		return;
	query.len = MIN(query.len, QUERY_MAX);
	n = snprintf(line, sizeof(line), "begin %.*s %ld\n", SLICE_ARG(query), (long)getpid());
	if (write(d->record_fd, line, (size_t)n) != n)
		(void)fprintf(stderr, "demo: " DEMO_RECORD ": %s\n", strerror(errno));
}

static void demo_serve(void *ctx, struct worker_request *r)
{
	struct slice path = worker_get(r, "PATH_INFO");

	note_begin(ctx, r);
	for (const struct page *p = pages; p->path; p++)
		if (slice_eq(path, slice_str(p->path))) {
			p->show(r);
			return;
		}
	not_found(r);
}

const struct worker_app demo_app = { .name = "demo", .load = demo_load, .serve = demo_serve, .unload = demo_unload };
