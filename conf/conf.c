#include "conf/conf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "conf/check.h"
#include "conf/load.h"
#include "core/buf.h"

static void conf_free(struct conf *c)
{
	load_free(c);
	free(c->file);
	free(c->text);
	free(c);
}

/* The text may hold NUL bytes until the reader has refused them. */
static char *copy_of(struct slice text)
{
	char *copy = malloc(text.len + 1);

	if (!copy)
		return NULL;
	if (text.len > 0)
		memcpy(copy, text.ptr, text.len);
	copy[text.len] = '\0';
	return copy;
}

static int conf_new(const char *file, struct slice text, struct conf **ret)
{
	struct conf *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	atomic_init(&c->refs, 1);
	c->file = slice_dup(slice_str(file));
	c->text = copy_of(text);
	c->text_len = text.len;
	if (!c->file || !c->text || load_defaults(c) < 0) {
		conf_free(c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

/* What is wrong with the file as a whole. */
static void refuse_file(const char *file, struct buf *errors, const char *found, const char *expected)
{
	buf_printf(errors, "%s: found %s, expected %s\n", file, found, expected);
}

static void refuse_size(const char *file, struct buf *errors)
{
	refuse_file(file, errors, "more than 1M of text", "a configuration file");
}

static int conf_fill(struct conf *c, struct errors *errors)
{
	struct sections sections;
	int err = load_text(c, &sections, errors);

	if (err == 0)
		err = check_conf(c, &sections, errors);
	sections_done(&sections);
	if (err == -EIO) {
		errors_add(errors, (struct place){ 0 }, FOUND("a libinih that changes what it reads"), SLICE(""),
		    "inih 55 or later as it is released");
		err = 0;
	}
	if (err == 0 && errors->failed)
		err = -ENOMEM;
	if (err == 0 && errors_any(errors))
		err = -EINVAL;
	return err;
}

int conf_parse(const char *file, struct slice text, struct buf *errors, struct conf **ret)
{
	struct errors found;
	struct conf *c;
	int err;

	if (text.len > CONF_FILE_MAX) {
		refuse_size(file, errors);
		return -EINVAL;
	}
	err = conf_new(file, text, &c);
	if (err < 0)
		return err;
	errors_init(&found);
	err = conf_fill(c, &found);
	errors_write(&found, file, errors);
	errors_done(&found);
	if (err < 0)
		conf_free(c);
	else
		*ret = c;
	return err;
}

/* Reads to the end, or one byte more than a file may have. */
static int read_all(int fd, struct buf *out)
{
	char *room;
	ssize_t n;

	do {
		room = buf_room(out, 4096);
		if (!room)
			return -ENOMEM;
		n = read(fd, room, 4096);
		if (n == -1 && errno != EINTR)
			return -errno;
		if (n > 0)
			out->len += (size_t)n;
	} while (n != 0 && out->len <= CONF_FILE_MAX);
	return 0;
}

static int read_file(const char *path, struct buf *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int err;

	if (fd == -1)
		return -errno;
	err = read_all(fd, out);
	close(fd);
	return err;
}

int conf_load(const char *path, struct buf *errors, struct conf **ret)
{
	struct buf text;
	char found[128];
	int err;

	buf_init(&text, CONF_FILE_MAX + 8192);
	err = read_file(path, &text);
	if (err == 0) {
		err = conf_parse(path, buf_slice(&text), errors, ret);
	} else if (err != -ENOMEM) {
		snprintf(found, sizeof(found), "nothing to read (%s)", strerror(-err));
		refuse_file(path, errors, found, "a configuration file");
		err = -EINVAL;
	}
	buf_done(&text);
	return err;
}

struct conf *conf_hold(struct conf *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void conf_drop(struct conf **c)
{
	if (*c && atomic_fetch_sub_explicit(&(*c)->refs, 1, memory_order_acq_rel) == 1)
		conf_free(*c);
	*c = NULL;
}

const struct conf_tls *conf_listen_tls(const struct conf *c, const struct conf_listen *l, size_t i)
{
	for (size_t k = 0; k < c->tls_count; k++)
		if (strcmp(c->tls[k].name, l->tls[i].text) == 0)
			return &c->tls[k];
	return NULL;
}

unsigned conf_pool_slots(const struct conf_pool *p)
{
	return p->app != APP_NONE ? p->processes * p->threads : p->slots * (unsigned)p->socket_count;
}

unsigned conf_pool_places(const struct conf_pool *p)
{
	return p->app != APP_NONE ? 2 * conf_pool_slots(p) : conf_pool_slots(p);
}

unsigned conf_pool_processes_min(const struct conf_pool *p)
{
	return p->processes_min ? p->processes_min : p->processes;
}

unsigned conf_pool_streams(const struct conf_pool *p)
{
	return p->streams > 0 ? p->streams : MAX(conf_pool_slots(p) / 4, 1u);
}
