#include "upstream/worker/wsgi/respond.h"

#include "upstream/worker/wsgi/content.h"
#include "upstream/worker/wsgi/failure.h"
#include "upstream/worker/wsgi/file_wrapper.h"

static PyObject *name_close;

int respond_setup(void)
{
	name_close = PyUnicode_InternFromString("close");
	return name_close ? 0 : -1;
}

static int check_started(const struct call *c)
{
	if (c->answer.started)
		return 0;
	PyErr_SetString(PyExc_AssertionError, "the application did not call start_response");
	return -1;
}

/* Bytes of all blocks of a list or tuple. 0, or -1: they are not all bytes. */
static int add_up(PyObject *blocks, uint64_t *ret)
{
	*ret = 0;
	for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(blocks); i++) {
		PyObject *block = PySequence_Fast_GET_ITEM(blocks, i);

		if (!PyBytes_Check(block))
			return -1;
		*ret += (uint64_t)PyBytes_GET_SIZE(block);
	}
	return 0;
}

/* All blocks are here: so is the length. */
static int give_list(struct call *c, PyObject *blocks)
{
	uint64_t bytes;

	if (check_started(c) == -1)
		return -1;
	if (add_up(blocks, &bytes) == 0)
		content_announce(c, bytes);
	/* Another thread of the application may change a list while a block is sent. */
	for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(blocks) && !c->answer.over; i++) {
		PyObject *block = PySequence_Fast_GET_ITEM(blocks, i);
		int got;

		Py_INCREF(block);
		got = content_give(c, block);
		Py_DECREF(block);
		if (got == -1)
			return -1;
	}
	return 0;
}

static int give_blocks(struct call *c, PyObject *blocks)
{
	PyObject *block;

	while ((block = PyIter_Next(blocks))) {
		int got = content_give(c, block);

		Py_DECREF(block);
		if (got == -1)
			return -1;
		if (!c->answer.opened)
			continue;
		content_part(c);
		if (content_may_stop(c))
			return 0;
	}
	return PyErr_Occurred() ? -1 : check_started(c);
}

static int give_iterable(struct call *c, PyObject *result)
{
	PyObject *blocks;
	int got;

	if (PyBytes_Check(result) || PyUnicode_Check(result)) {
		PyErr_Format(PyExc_TypeError, "the application must return an iterable of bytes, such as a list, not %.100s",
		    Py_TYPE(result)->tp_name);
		return -1;
	}
	blocks = PyObject_GetIter(result);
	if (!blocks)
		return -1;
	got = give_blocks(c, blocks);
	Py_DECREF(blocks);
	return got;
}

static int give(struct call *c, PyObject *result)
{
	struct file_piece piece;

	if (PyList_CheckExact(result) || PyTuple_CheckExact(result))
		return give_list(c, result);
	if (!file_wrapper_piece(result, &piece))
		return PyErr_Occurred() ? -1 : give_iterable(c, result);
	if (check_started(c) == -1) {
		file_piece_done(&piece);
		return -1;
	}
	content_give_file(c, &piece.fd, piece.offset, piece.bytes);
	return 0;
}

/* close(), if it has one; an exception that was set stays. */
static void close_result(PyObject *result)
{
	PyObject *type, *value, *tb, *close, *got = NULL;

	if (PyList_CheckExact(result) || PyTuple_CheckExact(result))
		return;
	PyErr_Fetch(&type, &value, &tb);
	close = PyObject_GetAttr(result, name_close);
	if (close)
		got = PyObject_CallNoArgs(close);
	else if (PyErr_ExceptionMatches(PyExc_AttributeError))
		PyErr_Clear();
	if (PyErr_Occurred())
		failure_log("close() of what the application returned failed");
	Py_XDECREF(close);
	Py_XDECREF(got);
	PyErr_Restore(type, value, tb);
}

void respond(struct call *c, PyObject *result)
{
	int got = result ? give(c, result) : -1;

	if (got == 0)
		content_end(c);
	if (result)
		close_result(result);
	if (got == -1 && c->answer.over && !c->answer.too_much && PyErr_ExceptionMatches(PyExc_BrokenPipeError))
		PyErr_Clear(); /* that its client has left is no failure of the application's */
	else if (got == -1)
		failure_answer(c);
	Py_XDECREF(result);
}
