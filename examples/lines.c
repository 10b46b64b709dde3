/*
 * An application for forebay's own workers, in C: GET / shows the request's variables, POST / counts the lines of what was sent.
 *
 *   cc -pthread -o lines lines.c $(pkg-config --cflags --libs forebay-worker)
 *   forebay run worker:./lines
 *   curl http://127.0.0.1:8000/?any=thing
 *   curl --data-binary @/etc/services http://127.0.0.1:8000/
 */
#include <forebay/worker.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static bool is(struct forebay_text text, const char *word)
{
	return text.len == strlen(word) && memcmp(text.ptr, word, text.len) == 0;
}

static void show_variables(struct forebay_request *r)
{
	struct forebay_text name, value;

	for (size_t i = 0; i < forebay_variable_count(r); i++) {
		forebay_variable_at(r, i, &name, &value);
		forebay_write(r, name.ptr, name.len);
		forebay_write(r, "=", 1);
		forebay_write(r, value.ptr, value.len);
		if (forebay_write(r, "\n", 1) != 0)
			return; /* nobody listens any more */
	}
}

/* A small body is in memory, a large one in a file; either is all there. forebay_body_read() reads both, for those who do not care. */
static uint64_t count_lines(struct forebay_request *r)
{
	size_t len = forebay_body_bytes(r);
	const char *at = forebay_body_memory(r).ptr, *end;
	void *map = MAP_FAILED;
	uint64_t lines = 0;

	if (forebay_body_fd(r) != -1) {
		map = mmap(NULL, len, PROT_READ, MAP_PRIVATE, forebay_body_fd(r), 0);
		if (map == MAP_FAILED)
			return 0;
		at = map;
	}
	for (end = at + len; at < end && (at = memchr(at, '\n', (size_t)(end - at))); at++)
		lines++;
	if (map != MAP_FAILED)
		munmap(map, len);
	return lines;
}

static void serve(void *ctx, struct forebay_request *r)
{
	char text[64];
	int len;

	(void)ctx;
	forebay_status(r, 200);
	forebay_field(r, "Content-Type", "text/plain; charset=utf-8");
	if (is(forebay_variable(r, "REQUEST_METHOD"), "POST")) {
		len = snprintf(text, sizeof(text), "%" PRIu64 " lines\n", count_lines(r));
		forebay_write(r, text, (size_t)len);
	} else {
		show_variables(r);
	}
}

int main(int argc, char **argv)
{
	static const struct forebay_app app = { .name = "lines", .serve = serve };

	return forebay_worker_main(argc, argv, &app);
}
