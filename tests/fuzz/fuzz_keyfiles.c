/*
 * Any bytes as the files of a [tls NAME]: they are taken, or refused in lines for people; what is taken fits together, comes through to
 * the front as it is, and the front serves with it or says why not.
 * The first byte says which of the options are given; the rest are the files, in this order, with a line "%%" between them.
 */
#include <openssl/err.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxy/daemon/keyfiles.h"
#include "tests/fuzz/key_site.h"

enum file { CERTIFICATE, KEY, PASSWORD, CLIENT_CA, STAPLE, TICKET_KEY, OLD_TICKET_KEY, FILES };

static struct {
	int fd;
	char path[32];
} files[FILES];

static void put_files(struct slice rest)
{
	for (size_t i = 0; i < FILES; i++) {
		const char *end = rest.len > 0 ? memmem(rest.ptr, rest.len, "\n%%\n", 4) : NULL;
		size_t len = end ? (size_t)(end - rest.ptr) + 1 : rest.len;

		must(ftruncate(files[i].fd, 0) == 0 && pwrite(files[i].fd, rest.ptr, len, 0) == (ssize_t)len);
		if (end)
			len += 3;
		rest = slice_of(rest.ptr + len, rest.len - len);
	}
}

/* Ticket keys have no lines, so that the one before a "%%" is no part of a key. */
static void cut_newline(enum file f)
{
	struct stat st;
	char last;

	must(fstat(files[f].fd, &st) == 0);
	if (st.st_size > 0 && pread(files[f].fd, &last, 1, st.st_size - 1) == 1 && last == '\n')
		must(ftruncate(files[f].fd, st.st_size - 1) == 0);
}

static char *path_if(bool given, enum file f)
{
	return given ? files[f].path : NULL;
}

static void configure(struct conf_tls *t, unsigned given, struct conf_word tickets[2])
{
	t->certificate = files[CERTIFICATE].path;
	t->key = files[KEY].path;
	t->key_password_file = path_if(given & 1, PASSWORD);
	t->client_ca = path_if(given & 2, CLIENT_CA);
	t->client_verify = given & 2 ? CLIENT_VERIFY_OPTIONAL : CLIENT_VERIFY_OFF;
	t->ocsp_staple = path_if(given & 4, STAPLE);
	tickets[0].text = files[TICKET_KEY].path;
	tickets[1].text = files[OLD_TICKET_KEY].path;
	t->ticket_key_files = tickets;
	t->ticket_key_file_count = (given >> 3) % 3;
}

static void must_fit(const struct key_site *s, struct tls_material *m)
{
	const struct conf_tls *t = &s->sections[0];
	const struct tls_materials all = { .own = { { .bytes = 32 } }, .own_count = 1, .all = m, .count = 1 };
	struct buf bytes;

	must(sk_X509_num(m->chain) >= 1 && sk_X509_num(m->chain) <= TLS_CHAIN_MAX);
	must(X509_check_private_key(sk_X509_value(m->chain, 0), m->key) == 1);
	must((t->client_ca != NULL) == (m->client_ca != NULL));
	must(m->ticket_key_count == t->ticket_key_file_count);
	must(!m->staple || (t->ocsp_staple && m->staple_len > 0 && m->staple_until_us > s->clock.wall_us));
	must_come_through(&all, &bytes);
	must_be_adopted_or_refused(s, buf_slice(&bytes));
	buf_done(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf_word tickets[2] = { { NULL, 0 } };
	struct buf errors, warnings;
	struct tls_material m;
	struct key_site site;
	int err;

	if (size < 1)
		return 0;
	put_files(slice_of((const char *)data + 1, size - 1));
	cut_newline(TICKET_KEY);
	cut_newline(OLD_TICKET_KEY);
	key_site_init(&site, 1);
	configure(&site.sections[0], data[0], tickets);
	buf_init(&errors, 1u << 20);
	buf_init(&warnings, 1u << 20);
	err = keyfiles_read(&site.sections[0], &site.clock.clock, &errors, &warnings, &m);
	must(err == 0 || err == -EINVAL);
	must((err == 0) == (errors.len == 0));
	must_be_lines(buf_slice(&errors));
	must_be_lines(buf_slice(&warnings));
	must(ERR_peek_error() == 0);
	if (!err) {
		must_fit(&site, &m);
		tls_material_done(&m);
	}
	buf_done(&errors);
	buf_done(&warnings);
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
	must(tls_library_init() == 0);
	for (size_t i = 0; i < FILES; i++) {
		files[i].fd = memfd_create("fuzz-keyfiles", MFD_CLOEXEC);
		must(files[i].fd != -1 && fchmod(files[i].fd, 0600) == 0);
		snprintf(files[i].path, sizeof(files[i].path), "/proc/self/fd/%d", files[i].fd);
	}
	return 0;
}
