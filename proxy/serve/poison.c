#include "proxy/serve/poison.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/http1.h"

/* They say how the message came, not what it is; and those that are written afresh. */
static bool is_left_out(const struct head *h, unsigned i)
{
	enum field_id id = h->fields[i].id;

	return field_is_of_connection(id) || id == FIELD_CONTENT_LENGTH || id == FIELD_EXPECT || id == FIELD_HOST ||
	       head_has_element(h, FIELD_CONNECTION, head_name(h, i));
}

static void write_length(struct buf *out, uint64_t bytes)
{
	char digits[24];
	struct buf length;

	buf_init_in(&length, digits, sizeof(digits), sizeof(digits));
	buf_u64(&length, bytes);
	http1_write_field(out, SLICE("Content-Length"), buf_slice(&length));
	buf_done(&length);
}

static void write_head(const struct poison_case *from, struct buf *out)
{
	const struct head *h = from->head;
	struct slice path = head_text(h, h->path), query = head_text(h, h->query);

	http1_write_request_line(
	    out, head_text(h, h->method_text), path.len > 0 ? path : SLICE("/"), h->has_query ? &query : NULL);
	http1_write_field(out, SLICE("Host"), head_text(h, h->authority));
	for (unsigned i = 0; i < h->field_count; i++)
		if (!is_left_out(h, i))
			http1_write_field(out, head_name(h, i), head_value(h, i));
	if (from->body)
		write_length(out, body_bytes(from->body));
	http1_write_end(out);
}

static int sealed_memfd(struct slice text, int *ret_fd)
{
	int fd = memfd_create("request", MFD_CLOEXEC | MFD_ALLOW_SEALING), err = 0;

	if (fd == -1)
		return -errno;
	for (size_t done = 0; !err && done < text.len;) {
		ssize_t n = write(fd, text.ptr + done, text.len - done);

		if (n == -1 && errno != EINTR)
			err = -errno;
		else if (n > 0)
			done += (size_t)n;
	}
	if (!err && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == -1)
		err = -errno;
	if (err)
		close(fd);
	else
		*ret_fd = fd;
	return err;
}

static int head_memfd(const struct poison_case *from, int *ret_fd)
{
	struct buf text;
	int err;

	buf_init(&text, POISON_HEAD_MAX);
	write_head(from, &text);
	err = text.failed ? -E2BIG : sealed_memfd(buf_slice(&text), ret_fd);
	buf_done(&text);
	return err;
}

int poison_new(const struct poison_case *from, struct poison **ret)
{
	struct poison *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	*p = (struct poison){ .pool = from->pool,
		.pid = from->pid,
		.tries = from->tries,
		.wall_us = from->wall_us,
		.head_fd = -1,
		.body_fd = -1,
		.body_bytes = from->body ? body_bytes(from->body) : 0 };
	slice_to_str(from->id, p->id, sizeof(p->id));
	err = head_memfd(from, &p->head_fd);
	if (err) {
		poison_free(&p);
		return err;
	}
	/* One that is being written to the spool just now is missing: that is said. */
	if (p->body_bytes > 0 && body_export(from->body, &p->body_fd) != 0)
		p->body_fd = -1;
	*ret = p;
	return 0;
}

void poison_free(struct poison **poison)
{
	struct poison *p = *poison;

	if (!p)
		return;
	if (p->head_fd != -1)
		close(p->head_fd);
	if (p->body_fd != -1)
		close(p->body_fd);
	free(p);
	*poison = NULL;
}
