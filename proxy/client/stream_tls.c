#include "proxy/client/stream_tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECORD_BYTES       (16u << 10) /* the most that one takes (RFC 8446, 5.1) */
#define RECORD_BYTES_FIRST 1369u /* with its frame, one segment of the usual size: it is read without waiting for another */
#define FIRST_BYTES        (64u << 10) /* in such records; by then the peer's window has grown */
#define FIRST_AGAIN_MS     1000        /* of silence, after which it may have shrunk */
#define RECORD_BYTES_LEAST 512u        /* that a peer may ask for (RFC 6066, 4) */
#define FRAME_BYTES        96u         /* what a record has beside its content, at most: head, IV, digest, padding */
#define BATCH_BYTES        (64u << 10) /* of content, in one write */
#define SEALED_BYTES       (BATCH_BYTES + (BATCH_BYTES / RECORD_BYTES_LEAST + 1) * FRAME_BYTES)
#define LEFT_MAX           (128u << 10) /* sealed, and not taken by the socket: for a peer that only asks, and does not read */
#define SESSION_BYTES      (16u << 10)  /* of a connection between requests, that of OpenSSL and ours: 15 K were measured */

/* Where records go, while more than one is sealed. On the stack. */
struct sealed {
	size_t len;
	char bytes[SEALED_BYTES];
};

struct stream_tls {
	struct loop *loop;
	int fd;
	SSL *ssl;
	struct sealed *sealed; /* NULL: a record goes to the socket by itself */
	char *left;            /* sealed, and not taken by the socket; charged */
	size_t left_len, left_sent;
	size_t owed;        /* content of these that was not told to be sent */
	size_t first_bytes; /* sent since the last silence */
	uint64_t sent_ms;   /* last */
	int err;            /* of the socket, -errno */
	bool slow;          /* the socket was full the last time */
	bool drained;       /* the last read got less than it asked for: what comes next is an edge of its own */
	bool dry;           /* the last read had all that there was: what OpenSSL may still hold is no whole record */
	bool closed;        /* the end has come, perhaps behind bytes */
	bool eof;           /* it was read, and no close_notify before it */
	bool ends;          /* what is sent are its last words: they go out with the end of the connection, which is next */
	bool failed;        /* no word of this session counts any more */
};

/* ---- OpenSSL's way to the socket ---- */

static bool keep_left(struct stream_tls *t, const char *bytes, size_t len)
{
	size_t before = t->left_len - t->left_sent;
	char *all;

	if (before + len > LEFT_MAX || !lease_take(&t->loop->lease, before + len))
		return false;
	all = malloc(before + len);
	if (!all) {
		lease_give(&t->loop->lease, before + len);
		return false;
	}
	if (before > 0)
		memcpy(all, t->left + t->left_sent, before);
	memcpy(all + before, bytes, len);
	if (t->left)
		lease_give(&t->loop->lease, t->left_len);
	free(t->left);
	t->left = all;
	t->left_len = before + len;
	t->left_sent = 0;
	return true;
}

static void drop_left(struct stream_tls *t)
{
	if (!t->left)
		return;
	lease_give(&t->loop->lease, t->left_len);
	free(t->left);
	t->left = NULL;
	t->left_len = t->left_sent = 0;
}

/* Bytes taken by the socket, maybe 0; or -errno. */
static ssize_t send_some(struct stream_tls *t, const char *bytes, size_t len)
{
	ssize_t got;

	do
		got = send(t->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL | (t->ends ? MSG_MORE : 0));
	while (got == -1 && errno == EINTR);
	if (got == -1 && errno != EAGAIN) {
		t->err = -errno;
		t->failed = true;
		return t->err;
	}
	got = MAX(got, 0);
	t->slow = (size_t)got < len;
	return got;
}

/* All of it, to the socket or to what is left. 0 or -errno. */
static int put_sealed(struct stream_tls *t, const char *bytes, size_t len)
{
	ssize_t got = t->left ? 0 : send_some(t, bytes, len);

	if (got < 0)
		return (int)got;
	if ((size_t)got == len || keep_left(t, bytes + got, len - (size_t)got))
		return 0;
	t->failed = true;
	return -ENOMEM;
}

static int bio_write(BIO *bio, const char *bytes, int len)
{
	struct stream_tls *t = BIO_get_data(bio);
	struct sealed *s = t->sealed;

	BIO_clear_retry_flags(bio);
	if (!s)
		return put_sealed(t, bytes, (size_t)len) == 0 ? len : -1;
	if ((size_t)len > sizeof(s->bytes) - s->len)
		return -1;
	memcpy(s->bytes + s->len, bytes, (size_t)len);
	s->len += (size_t)len;
	return len;
}

static int bio_read(BIO *bio, char *bytes, int len)
{
	struct stream_tls *t = BIO_get_data(bio);
	ssize_t got = -1;

	BIO_clear_retry_flags(bio);
	errno = EAGAIN;
	if (!t->drained || t->closed)
		got = recv(t->fd, bytes, (size_t)len, MSG_DONTWAIT);
	if (got > 0) {
		t->drained = got < len;
		return (int)got;
	}
	if (got == -1 && (errno == EAGAIN || errno == EINTR)) {
		BIO_set_retry_read(bio);
		return -1;
	}
	t->eof = got == 0;
	t->err = got == 0 ? 0 : -errno;
	return (int)got;
}

static long bio_ctrl(BIO *bio UNUSED, int what, long n UNUSED, void *ptr UNUSED)
{
	return what == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method; /* OpenSSL's object for the above; made once, never changed */

static void bio_method_make(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "forebay stream");

	if (!m || BIO_meth_set_write(m, bio_write) != 1 || BIO_meth_set_read(m, bio_read) != 1 ||
	    BIO_meth_set_ctrl(m, bio_ctrl) != 1) {
		BIO_meth_free(m);
		return;
	}
	bio_method = m;
}

static BIO *bio_new(struct stream_tls *t)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *bio;

	(void)pthread_once(&once, bio_method_make);
	bio = bio_method ? BIO_new(bio_method) : NULL;
	if (!bio)
		return NULL;
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	return bio;
}

/* ---- from handshake to end ---- */

int stream_tls_new(struct loop *loop, int fd, SSL *ssl, struct stream_tls **ret)
{
	struct stream_tls *t = NULL;
	BIO *bio = NULL;

	if (lease_take(&loop->lease, SESSION_BYTES)) {
		t = calloc(1, sizeof(*t));
		bio = t ? bio_new(t) : NULL;
		if (!bio)
			lease_give(&loop->lease, SESSION_BYTES);
	}
	if (!bio) {
		free(t);
		SSL_free(ssl);
		return -ENOMEM;
	}
	t->loop = loop;
	t->fd = fd;
	t->ssl = ssl;
	SSL_set_bio(ssl, bio, bio);
	SSL_set_read_ahead(ssl, 1);
	*ret = t;
	return 0;
}

void stream_tls_free(struct stream_tls **t)
{
	struct stream_tls *old = *t;

	*t = NULL;
	if (!old)
		return;
	/* Or OpenSSL forgets the session, which is none of the connection's end. */
	if (!old->failed && SSL_is_init_finished(old->ssl))
		SSL_set_shutdown(old->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(old->ssl);
	ERR_clear_error();
	drop_left(old);
	lease_give(&old->loop->lease, SESSION_BYTES);
	free(old);
}

/* 0: nothing is left. -EAGAIN: the socket takes no more. In between, *ret_told is what of the content may be told to be sent. */
static int send_left(struct stream_tls *t, size_t *ret_told)
{
	size_t len = t->left_len - t->left_sent;
	ssize_t got;

	*ret_told = 0;
	if (t->failed)
		return t->err ? t->err : -EPROTO;
	if (!t->left)
		return 0;
	got = send_some(t, t->left + t->left_sent, len);
	if (got < 0)
		return (int)got;
	t->left_sent += (size_t)got;
	if ((size_t)got == len) {
		*ret_told = t->owed;
		t->owed = 0;
		drop_left(t);
		return 0;
	}
	/* In proportion, and never the last byte: its peer's pace is what is looked at. */
	if (t->owed > 0)
		*ret_told = (size_t)((uint64_t)(t->owed - 1) * (size_t)got / len);
	t->owed -= *ret_told;
	return -EAGAIN;
}

/* What became of a call that OpenSSL did not finish: -EAGAIN, 0 (the peer's good end), or -errno. */
static int outcome(struct stream_tls *t, int result)
{
	switch (SSL_get_error(t->ssl, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		t->dry = true;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		/* After an end that was no TLS one there is still somebody who may listen. */
		t->failed = t->failed || !t->eof;
		if (!t->err)
			t->err = -EPROTO;
		return t->err;
	}
}

static const char *why_of(const struct stream_tls *t)
{
	unsigned long code = ERR_peek_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	if (reason)
		return reason;
	if (t->eof)
		return "the client has left";
	return t->err == -ECONNRESET || t->err == -EPIPE ? "the client has reset the connection" : "protocol error";
}

int stream_tls_handshake(struct stream_tls *t, const char **ret_why)
{
	size_t told;
	int err = send_left(t, &told), result;

	if (err == -EAGAIN)
		return err;
	ERR_clear_error();
	result = SSL_do_handshake(t->ssl);
	if (result == 1) {
		t->dry = false;
		return t->left ? -EAGAIN : 0;
	}
	err = outcome(t, result);
	if (err == -EAGAIN)
		return err;
	if (ret_why)
		*ret_why = why_of(t);
	ERR_clear_error();
	t->failed = true;
	return -EPROTO;
}

/* ---- bytes ---- */

void stream_tls_edge(struct stream_tls *t, bool closed)
{
	t->drained = false;
	t->closed = t->closed || closed;
}

/* Into one piece. 1: it is full. 0 or -errno: nothing more, as stream_recv has it. *got counts on. */
static int recv_piece(struct stream_tls *t, struct iovec piece, size_t *got)
{
	char *to = piece.iov_base;
	size_t left = piece.iov_len, n;

	while (left > 0) {
		int result = SSL_read_ex(t->ssl, to, left, &n);

		if (result != 1)
			return outcome(t, result);
		t->dry = false;
		to += n;
		left -= n;
		*got += n;
	}
	return 1;
}

ssize_t stream_tls_recv(struct stream_tls *t, const struct iovec *iov, int n)
{
	size_t got = 0;
	int what = 1;

	if (t->failed)
		return t->err ? t->err : -EPROTO;
	ERR_clear_error();
	for (int i = 0; i < n && what == 1; i++)
		what = recv_piece(t, iov[i], &got);
	ERR_clear_error();
	return got > 0 ? (ssize_t)got : what;
}

bool stream_tls_pending(const struct stream_tls *t)
{
	return t->failed || t->eof || (!t->dry && SSL_has_pending(t->ssl)) ||
	       (SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN);
}

static size_t record_bytes(const struct stream_tls *t)
{
	return t->first_bytes < FIRST_BYTES ? RECORD_BYTES_FIRST : RECORD_BYTES;
}

/* A socket that does not take a batch gets single records: what is sealed for it is memory. */
static size_t batch_bytes(const struct stream_tls *t)
{
	return t->slow ? RECORD_BYTES : BATCH_BYTES;
}

/* 0 or -errno. */
static int seal(struct stream_tls *t, const char *content, size_t len)
{
	size_t n;

	ERR_clear_error();
	for (size_t done = 0; done < len; done += n) {
		if (SSL_write_ex(t->ssl, content + done, len - done, &n) == 1)
			continue;
		t->failed = true;
		ERR_clear_error();
		return t->err ? t->err : -EPROTO;
	}
	t->first_bytes += len;
	return 0;
}

/* Content that was sealed by now: what of it is sent, or -errno. */
static ssize_t sealed_sent(struct stream_tls *t, struct sealed *s, size_t content)
{
	size_t told = content;
	int err = s->len > 0 ? put_sealed(t, s->bytes, s->len) : 0;

	if (err)
		return err;
	if (t->left) {
		size_t len = s->len > 0 ? s->len : t->left_len;

		told = (size_t)((uint64_t)(content - 1) * (len - MIN(t->left_len, len)) / len);
		t->owed = content - told;
	}
	return told > 0 ? (ssize_t)told : -EAGAIN;
}

/* Whatever can be sent before new content: 0, or what the sink has to say. */
static ssize_t before_content(struct stream_tls *t)
{
	uint64_t now = loop_now_ms(t->loop);
	size_t told;
	int err = send_left(t, &told);

	if (now - t->sent_ms >= FIRST_AGAIN_MS)
		t->first_bytes = 0;
	t->sent_ms = now;
	return told > 0 ? (ssize_t)told : err;
}

/* The next record's content: in its place if it lies there in one piece, else put together in `room`. */
struct reader {
	const struct iovec *iov;
	int n;
	size_t offset; /* in the first */
};

static const char *next_content(struct reader *r, size_t max, char *room, size_t *ret_len)
{
	const char *start = r->n > 0 ? (const char *)r->iov->iov_base + r->offset : NULL;
	bool copied = r->n > 1 && r->iov->iov_len - r->offset < max;
	size_t len = 0, piece;

	for (; r->n > 0 && len < max; len += piece) {
		piece = MIN(r->iov->iov_len - r->offset, max - len);
		if (copied)
			memcpy(room + len, (const char *)r->iov->iov_base + r->offset, piece);
		r->offset += piece;
		if (r->offset == r->iov->iov_len) {
			r->iov++;
			r->n--;
			r->offset = 0;
		}
	}
	*ret_len = len;
	return copied ? room : start;
}

ssize_t stream_tls_pieces(struct stream_tls *t, const struct iovec *iov, int n)
{
	struct reader reader = { .iov = iov, .n = n };
	char room[RECORD_BYTES];
	size_t content = 0, all = 0, len;
	struct sealed sealed;
	ssize_t err = before_content(t);

	if (err)
		return err;
	for (int i = 0; i < n; i++)
		all += iov[i].iov_len;
	all = MIN(all, batch_bytes(t));
	sealed.len = 0;
	t->sealed = all > record_bytes(t) ? &sealed : NULL;
	while (!err && content < all) {
		const char *next = next_content(&reader, MIN(record_bytes(t), all - content), room, &len);

		err = seal(t, next, len);
		content += len;
	}
	t->sealed = NULL;
	return err ? err : sealed_sent(t, &sealed, content);
}

ssize_t stream_tls_file(struct stream_tls *t, int fd, off_t offset, size_t len)
{
	char room[BATCH_BYTES];
	struct iovec whole = { .iov_base = room };
	ssize_t err = before_content(t), got;

	if (err)
		return err;
	got = pread(fd, room, MIN(len, batch_bytes(t)), offset);
	if (got <= 0)
		return got == 0 ? 0 : -errno;
	whole.iov_len = (size_t)got;
	return stream_tls_pieces(t, &whole, 1);
}

void stream_tls_say(struct stream_tls *t, struct slice words)
{
	if (!t->failed && !t->left && SSL_is_init_finished(t->ssl))
		(void)seal(t, words.ptr, words.len);
}

static void close_notify(struct stream_tls *t)
{
	if (t->failed || !SSL_is_init_finished(t->ssl) || (SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN))
		return;
	ERR_clear_error();
	t->ends = true;
	(void)SSL_shutdown(t->ssl);
	ERR_clear_error();
}

int stream_tls_end(struct stream_tls *t)
{
	size_t told;
	int err = send_left(t, &told);

	if (err)
		return err;
	close_notify(t);
	return send_left(t, &told);
}

void stream_tls_farewell(struct stream_tls *t)
{
	if (!t->left && !t->closed && !t->eof)
		close_notify(t);
}

size_t stream_tls_unsent(const struct stream_tls *t)
{
	return t->left_len - t->left_sent;
}

SSL *stream_tls_ssl(const struct stream_tls *t)
{
	return t->ssl;
}
