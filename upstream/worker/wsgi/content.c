#include "upstream/worker/wsgi/content.h"

#include <stdio.h>
#include <unistd.h>

#include "upstream/worker/wsgi/flusher.h"
#include "upstream/worker/wsgi/lines.h"

#define GATHERED_MAX (60u << 10) /* bytes that surely go without a system call */
#define COPIED_MAX   (16u << 10) /* a block that is copied faster than the GIL changes hands */

static bool wants_more(const struct answer *a)
{
	return !a->over && !a->no_content;
}

/* What worker.h's functions say: nobody listens. */
static void note(struct call *c, int err)
{
	if (err)
		c->answer.over = true;
}

static void write_block(struct call *c, const char *from, size_t n)
{
	int err;

	call_lock(c);
	if (n <= COPIED_MAX && c->answer.waiting + n <= GATHERED_MAX) {
		err = worker_write(c->r, from, n);
		c->answer.waiting += n;
	} else {
		PyThreadState *saved = PyEval_SaveThread();

		err = worker_write(c->r, from, n);
		PyEval_RestoreThread(saved);
		c->answer.waiting = n;
	}
	call_unlock(c);
	note(c, err);
}

static void say_too_much(struct call *c)
{
	lines_say("forebay: the application yields more than its Content-Length: the rest is not sent\n");
	c->answer.over = c->answer.too_much = true;
}

static int check(const struct call *c, PyObject *block)
{
	if (!PyBytes_Check(block))
		PyErr_Format(PyExc_TypeError, "content must be bytes, not %.100s", Py_TYPE(block)->tp_name);
	else if (!c->answer.started)
		PyErr_SetString(PyExc_AssertionError, "content came before start_response was called");
	else
		return 0;
	return -1;
}

int content_give(struct call *c, PyObject *block)
{
	struct answer *a = &c->answer;
	size_t n;
	bool too_much;

	if (check(c, block) == -1)
		return -1;
	n = (size_t)PyBytes_GET_SIZE(block);
	if (n == 0)
		return 0;
	a->opened = true;
	if (!wants_more(a))
		return 0;
	too_much = a->has_length && n > a->left;
	n = too_much ? (size_t)a->left : n;
	a->left -= a->has_length ? n : 0;
	if (n > 0)
		write_block(c, PyBytes_AS_STRING(block), n);
	if (too_much)
		say_too_much(c);
	return 0;
}

/* With the lock. */
static void flush(struct call *c)
{
	PyThreadState *saved = PyEval_SaveThread();
	int err = worker_flush(c->r);

	PyEval_RestoreThread(saved);
	c->answer.waiting = 0;
	atomic_store(&c->waits_since_us, 0);
	note(c, err);
}

void content_part(struct call *c)
{
	struct answer *a = &c->answer;
	uint64_t now;

	if (a->over)
		return;
	call_lock(c);
	if (a->waiting > 0) {
		now = flusher_now_us();
		a->given_us = a->given_us == 0 ? now : a->given_us;
		if (a->is_stream || now - a->given_us >= FLUSHER_DELAY_MS * 1000 || !flusher_watch(c, now)) {
			flush(c);
			a->given_us = now;
		}
	}
	call_unlock(c);
}

bool content_may_stop(struct call *c)
{
	struct answer *a = &c->answer;
	bool gone;

	if (a->over || (a->no_content && a->opened))
		return true;
	call_lock(c);
	/* A system call: not for each small part. */
	gone = a->waiting == 0 && worker_client_gone(c->r);
	if (gone)
		worker_abort(c->r); /* it is not whole */
	call_unlock(c);
	a->over = gone;
	return gone;
}

void content_announce(struct call *c, uint64_t bytes)
{
	char text[24];
	int n;

	/* An answer to HEAD that is empty says nothing of what GET would give. */
	if (c->answer.has_length || c->answer.opened || c->answer.over || (c->is_head && bytes == 0) ||
	    c->answer.status == 204 || c->answer.status == 304)
		return;
	n = snprintf(text, sizeof(text), "%" PRIu64, bytes);
	note(c, worker_field(c->r, SLICE("Content-Length"), slice_of(text, (size_t)n)));
	c->answer.has_length = true;
	c->answer.left = bytes;
}

void content_give_file(struct call *c, int *fd, uint64_t offset, uint64_t len)
{
	struct answer *a = &c->answer;
	int err = 0;

	content_announce(c, len);
	len = a->has_length ? MIN(len, a->left) : len;
	a->opened = true;
	if (wants_more(a) && len > 0) {
		PyThreadState *saved;

		a->left -= a->has_length ? len : 0;
		call_lock(c);
		saved = PyEval_SaveThread();
		err = worker_write_file(c->r, fd, offset, len);
		PyEval_RestoreThread(saved);
		a->waiting = 1;
		call_unlock(c);
	}
	note(c, err);
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

void content_end(struct call *c)
{
	const struct answer *a = &c->answer;
	char text[160];

	if (!wants_more(a) || !a->has_length || a->left == 0)
		return;
	(void)snprintf(text, sizeof(text),
	    "forebay: the application yielded %" PRIu64 " bytes less than its Content-Length: the answer is cut\n", a->left);
	lines_say(text);
}

bool content_take_back(struct call *c)
{
	if (worker_reset(c->r) != 0)
		return false;
	c->answer = (struct answer){ .over = c->answer.over };
	atomic_store(&c->waits_since_us, 0);
	return true;
}
