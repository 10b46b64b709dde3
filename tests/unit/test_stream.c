#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/client/stream.h"
#include "tests/unit/made_certs.h"

#define RECORDS_MAX 4096
#define BULK        (3u << 20)

/* Both ends over a socket pair: ours, and OpenSSL's client, whose bytes pass through memory so that each record is seen. */
struct ends {
	struct stream stream;
	int fd; /* the client's */
	SSL *client;
	SSL_CTX *client_ctx, *server_ctx;
	BIO *in, *out;
	char head[5]; /* of the record that is coming */
	size_t head_len, record_left;
	size_t records[RECORDS_MAX]; /* their lengths, as they came to the client */
	size_t record_count;
};

static struct clock_test test_clock;
static struct budget budget;
static struct loop *loop;
static struct made pair;
static char *bulk;
static FILE *bulk_file; /* the same */

static int group_setup(void **state UNUSED)
{
	pair = made(&(struct made_plan){ .kind = MADE_EC, .cn = "test", .names = "DNS:test" });
	clock_test_init(&test_clock);
	budget_init(&budget, 64u << 20);
	bulk = malloc(BULK);
	assert_non_null(bulk);
	for (size_t i = 0; i < BULK; i++)
		bulk[i] = (char)(i % 251);
	bulk_file = tmpfile();
	assert_non_null(bulk_file);
	assert_int_equal(fwrite(bulk, 1, BULK, bulk_file), BULK);
	assert_int_equal(fflush(bulk_file), 0);
	return loop_new(0, &test_clock.clock, &budget, NULL, &loop);
}

static int group_teardown(void **state UNUSED)
{
	loop_free(&loop);
	made_done(&pair);
	fclose(bulk_file);
	free(bulk);
	return 0;
}

static void see_records(struct ends *e, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (e->record_left > 0) {
			size_t skip = MIN(e->record_left, len - i);

			e->record_left -= skip;
			i += skip - 1;
			continue;
		}
		e->head[e->head_len++] = bytes[i];
		if (e->head_len < sizeof(e->head))
			continue;
		e->head_len = 0;
		e->record_left = (size_t)((unsigned char)e->head[3] << 8 | (unsigned char)e->head[4]);
		assert_true(e->record_count < RECORDS_MAX);
		e->records[e->record_count++] = e->record_left;
	}
}

/* What has come goes to the client's OpenSSL, what that says to the socket. 0: the socket has ended; -1: nothing came. */
static ssize_t carry(struct ends *e)
{
	char bytes[65536];
	ssize_t got = recv(e->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (got > 0) {
		see_records(e, bytes, (size_t)got);
		assert_int_equal(BIO_write(e->in, bytes, (int)got), got);
	}
	return got;
}

static void carry_out(struct ends *e)
{
	char bytes[65536];
	int n = BIO_read(e->out, bytes, sizeof(bytes));

	if (n > 0)
		assert_int_equal(send(e->fd, bytes, (size_t)n, MSG_NOSIGNAL), n);
}

static void shake_hands(struct ends *e)
{
	const char *why = "";
	int ours = -EAGAIN, theirs = 0;

	for (int i = 0; i < 20 && (ours != 0 || theirs != 1); i++) {
		if (theirs != 1)
			theirs = SSL_do_handshake(e->client);
		carry_out(e);
		stream_edge(&e->stream, false);
		if (ours != 0)
			ours = stream_handshake(&e->stream, &why);
		(void)carry(e);
	}
	if (ours != 0 || theirs != 1)
		fail_msg("no handshake: %d %s", ours, why);
	e->record_count = 0;
}

static int set_up(void **state)
{
	struct ends *e = calloc(1, sizeof(*e));
	int fds[2], room = 16384;
	SSL *ours;

	assert_non_null(e);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
	e->server_ctx = SSL_CTX_new(TLS_server_method());
	e->client_ctx = SSL_CTX_new(TLS_client_method());
	assert_int_equal(SSL_CTX_use_certificate(e->server_ctx, pair.x), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(e->server_ctx, pair.key), 1);
	SSL_CTX_set_mode(
	    e->server_ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	e->client = SSL_new(e->client_ctx);
	e->in = BIO_new(BIO_s_mem());
	e->out = BIO_new(BIO_s_mem());
	SSL_set_bio(e->client, e->in, e->out);
	SSL_set_connect_state(e->client);
	stream_init(&e->stream, &fds[0]);
	e->fd = fds[1];
	ours = SSL_new(e->server_ctx);
	SSL_set_accept_state(ours);
	assert_int_equal(stream_secure(&e->stream, loop, ours), 0);
	*state = e;
	return 0;
}

static int tear_down(void **state)
{
	struct ends *e = *state;

	stream_close(&e->stream);
	SSL_free(e->client);
	SSL_CTX_free(e->client_ctx);
	SSL_CTX_free(e->server_ctx);
	if (e->fd != -1)
		close(e->fd);
	assert_int_equal(loop->lease.used, 0);
	free(e);
	return 0;
}

/* All that the client can read now, which must be what bulk has from *at on. */
static void client_reads(struct ends *e, size_t *at)
{
	char bytes[65536];
	int n;

	while (carry(e) > 0)
		;
	while ((n = SSL_read(e->client, bytes, sizeof(bytes))) > 0) {
		assert_true(*at + (size_t)n <= BULK);
		assert_memory_equal(bytes, bulk + *at, (size_t)n);
		*at += (size_t)n;
	}
	carry_out(e);
}

/* In pieces of no common measure, as a sender would, over a socket that takes little. */
static ssize_t offer(struct ends *e, size_t at)
{
	size_t first = MIN((size_t)1000, BULK - at), second = MIN((size_t)70000, BULK - at - first);
	const struct iovec iov[] = { { bulk + at, first }, { bulk + at + first, second } };

	return stream_sink.pieces(&e->stream, iov, second > 0 ? 2 : 1, false);
}

static ssize_t offer_file(struct ends *e, size_t at)
{
	return stream_sink.file(&e->stream, fileno(bulk_file), (off_t)at, BULK - at);
}

static void send_all(struct ends *e, ssize_t (*how)(struct ends *, size_t))
{
	size_t told = 0, read = 0, full = 0;

	while (told < BULK) {
		ssize_t got = how(e, told);

		if (got == -EAGAIN) {
			full++;
			client_reads(e, &read);
			continue;
		}
		assert_true(got > 0);
		told += (size_t)got;
		assert_true(told <= BULK);
	}
	client_reads(e, &read);
	assert_int_equal(read, BULK); /* what was told to be sent is in the socket */
	assert_true(full > 10);       /* it was full many a time */
}

static void pieces_come_whole_over_a_narrow_socket(void **state)
{
	struct ends *e = *state;

	shake_hands(e);
	send_all(e, offer);
}

static void a_file_comes_whole_over_a_narrow_socket(void **state)
{
	struct ends *e = *state;

	shake_hands(e);
	send_all(e, offer_file);
}

/* Less what TLS 1.3 adds. */
static size_t record_content(const struct ends *e, size_t i)
{
	return e->records[i] - 17;
}

static void first_records_are_small_and_later_ones_full(void **state)
{
	struct ends *e = *state;
	size_t small = 0, full = 0;

	shake_hands(e);
	send_all(e, offer);
	assert_int_equal(record_content(e, 0), 1369);
	for (size_t i = 0; i < e->record_count; i++) {
		small += record_content(e, i) == 1369;
		full += record_content(e, i) == 16384;
	}
	assert_in_range(small, 40, 60);
	assert_true(full > (BULK - (128u << 10)) / 16384 / 2);
}

static void after_a_silence_records_are_small_again(void **state)
{
	struct ends *e = *state;
	size_t at = 0;
	struct iovec all = { bulk, 4000 };

	shake_hands(e);
	send_all(e, offer);
	for (int silent = 0; silent < 2; silent++) {
		clock_test_advance(&test_clock, silent ? 1000000 : 900000);
		loop_callback(loop);
		e->record_count = 0;
		assert_int_equal(stream_sink.pieces(&e->stream, &all, 1, false), 4000);
		at = 0;
		client_reads(e, &at);
		assert_int_equal(at, 4000);
		assert_int_equal(record_content(e, 0), silent ? 1369 : 4000);
	}
}

static void what_stays_in_the_library_is_told(void **state)
{
	struct ends *e = *state;
	char bytes[10];
	struct iovec one = { bytes, sizeof(bytes) };

	shake_hands(e);
	assert_int_equal(SSL_write(e->client, bulk, 15), 15);
	assert_int_equal(SSL_write(e->client, bulk + 15, 10), 10);
	carry_out(e);
	stream_edge(&e->stream, false);
	assert_false(stream_is_quiet(&e->stream));
	for (size_t at = 0; at < 20; at += 10) {
		assert_int_equal(stream_recv(&e->stream, &one, 1), 10);
		assert_memory_equal(bytes, bulk + at, 10);
		assert_true(stream_pending(&e->stream));
	}
	assert_int_equal(stream_recv(&e->stream, &one, 1), 5);
	assert_false(stream_pending(&e->stream));
	assert_int_equal(stream_recv(&e->stream, &one, 1), -EAGAIN);
	assert_true(stream_is_quiet(&e->stream));
}

static void half_a_record_is_nothing_yet(void **state)
{
	struct ends *e = *state;
	char bytes[100], sealed[200];
	struct iovec one = { bytes, sizeof(bytes) };
	int n;

	shake_hands(e);
	assert_int_equal(SSL_write(e->client, bulk, 50), 50);
	n = BIO_read(e->out, sealed, sizeof(sealed));
	assert_true(n > 50);
	for (int i = 0; i < n - 1; i++) {
		assert_int_equal(send(e->fd, sealed + i, 1, 0), 1);
		stream_edge(&e->stream, false);
		assert_int_equal(stream_recv(&e->stream, &one, 1), -EAGAIN);
		assert_false(stream_pending(&e->stream));
	}
	assert_int_equal(send(e->fd, sealed + n - 1, 1, 0), 1);
	stream_edge(&e->stream, false);
	assert_int_equal(stream_recv(&e->stream, &one, 1), 50);
}

static void an_end_is_told_from_a_cut(void **state)
{
	struct ends *e = *state;
	char byte;
	struct iovec one = { &byte, 1 };

	shake_hands(e);
	assert_int_equal(SSL_shutdown(e->client), 0);
	carry_out(e);
	stream_edge(&e->stream, false);
	assert_int_equal(stream_recv(&e->stream, &one, 1), 0);
	assert_true(stream_pending(&e->stream));
	assert_int_equal(stream_end(&e->stream), 0);
	while (carry(e) > 0)
		;
	assert_int_equal(SSL_read(e->client, &byte, 1), 0);
	assert_int_equal(SSL_get_error(e->client, 0), SSL_ERROR_ZERO_RETURN);
}

static void an_end_without_a_word_is_a_cut(void **state)
{
	struct ends *e = *state;
	char byte;
	struct iovec one = { &byte, 1 };

	shake_hands(e);
	assert_int_equal(shutdown(e->fd, SHUT_WR), 0);
	stream_edge(&e->stream, true);
	assert_int_equal(stream_recv(&e->stream, &one, 1), -EPROTO);
	assert_int_equal(offer(e, 0) > 0, 1); /* who ended its side may still listen */
}

static void bytes_that_are_no_record_end_it(void **state)
{
	struct ends *e = *state;
	char byte;
	struct iovec one = { &byte, 1 };

	shake_hands(e);
	assert_int_equal(send(e->fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
	stream_edge(&e->stream, false);
	assert_int_equal(stream_recv(&e->stream, &one, 1), -EPROTO);
	assert_true(stream_pending(&e->stream));
	assert_int_equal(offer(e, 0), -EPROTO);
	assert_int_equal(ERR_peek_error(), 0);
}

static void a_cut_says_nothing(void **state)
{
	struct ends *e = *state;

	shake_hands(e);
	while (carry(e) > 0)
		;
	e->record_count = 0;
	stream_cut(&e->stream);
	stream_close(&e->stream);
	while (carry(e) > 0)
		;
	assert_int_equal(e->record_count, 0);
}

static void an_end_waits_for_room(void **state)
{
	struct ends *e = *state;
	size_t read = 0;
	ssize_t got;
	size_t told = 0;

	shake_hands(e);
	while ((got = offer(e, told)) != -EAGAIN)
		told += (size_t)got;
	assert_int_equal(stream_end(&e->stream), -EAGAIN);
	while (stream_end(&e->stream) == -EAGAIN)
		client_reads(e, &read);
	client_reads(e, &read);
	assert_true(read >= told);
	assert_int_equal(SSL_get_shutdown(e->client), SSL_RECEIVED_SHUTDOWN);
}

/* Each asks for an answer, which it does not read: what is kept for it has an end. */
static void a_peer_that_only_asks_is_cut(void **state)
{
	struct ends *e = *state;
	char byte;
	struct iovec one = { &byte, 1 };
	ssize_t got = -EAGAIN;
	size_t held = 0;

	shake_hands(e);
	for (int i = 0; i < 100000 && got == -EAGAIN; i++) {
		assert_int_equal(SSL_key_update(e->client, SSL_KEY_UPDATE_REQUESTED), 1);
		assert_int_equal(SSL_do_handshake(e->client), 1);
		carry_out(e);
		stream_edge(&e->stream, false);
		got = stream_recv(&e->stream, &one, 1);
		held = MAX(held, loop->lease.used);
	}
	assert_int_equal(got, -EPROTO);
	assert_in_range(held, 100u << 10, 160u << 10);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(pieces_come_whole_over_a_narrow_socket),
		TEST(a_file_comes_whole_over_a_narrow_socket),
		TEST(first_records_are_small_and_later_ones_full),
		TEST(after_a_silence_records_are_small_again),
		TEST(what_stays_in_the_library_is_told),
		TEST(half_a_record_is_nothing_yet),
		TEST(an_end_is_told_from_a_cut),
		TEST(an_end_without_a_word_is_a_cut),
		TEST(bytes_that_are_no_record_end_it),
		TEST(a_cut_says_nothing),
		TEST(an_end_waits_for_room),
		TEST(a_peer_that_only_asks_is_cut),
	};
#undef TEST

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
