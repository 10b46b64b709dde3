#include "proxy/daemon/keys.h"

#include <event2/event_struct.h>
#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "proxy/client/tickets.h"
#include "proxy/client/tls_shop.h"
#include "proxy/daemon/keyfiles.h"
#include "proxy/daemon/keywatch.h"

#define BYTES_MAX     (256u << 20) /* of everything together */
#define LINES_MAX     (64u << 10)
#define QUIET_MS      100  /* after a change: who writes one file may write the next */
#define QUIET_MOST_MS 1000 /* for as long as it goes on */
#define AGAIN_MS      1000 /* what is wrong may be half of a change: it is looked at twice before it is told */
#define HOUR_S        3600
#define DAY_US        (INT64_C(86400) * 1000000)

/* A [tls NAME] as it was read last. */
struct section {
	const struct conf_tls *conf;
	struct buf bytes; /* for the front */
	X509 *leaf;
	unsigned told; /* of the expiry's steps */
};

struct keys {
	const struct conf *conf;
	const struct clock *clock;
	struct section *sections;
	struct tickets *tickets; /* forebay's own keys */
	struct ticket_key given; /* the one of them that encrypts, as the front was told last */
	int fd;
	/* once they are watched */
	struct keywatch *watch;
	const char **paths;
	size_t path_count;
	struct event look, hour;
	uint64_t first_change_ms; /* 0: none since the last look */
	bool again;               /* the last look found something wrong */
	void (*changed)(void *ctx);
	void *ctx;
};

static void log_lines(enum log_level level, const char *event, const struct buf *lines)
{
	struct slice text = buf_slice(lines), line;

	while (slice_cut(&text, '\n', &line))
		log_line(level, "event=%s what=%.*s", event, SLICE_ARG(line));
}

static const char *date_of(int64_t us, char text[32])
{
	time_t s = (time_t)(us / 1000000);
	struct tm tm;

	if (!gmtime_r(&s, &tm) || strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(text, 32, "?");
	return text;
}

/* ---- expiry ---- */

static const struct expiry {
	int64_t days;
	enum log_level level;
} expiry_steps[] = {
	{ 30, LOG_LEVEL_INFO },
	{ 7, LOG_LEVEL_WARNING },
	{ 1, LOG_LEVEL_ERROR },
	{ 0, LOG_LEVEL_ERROR },
};

static unsigned expiry_step(const struct section *s, int64_t now_us)
{
	unsigned step = 0;

	while (step < ARRAY_LEN(expiry_steps) && keyfiles_expiry_us(s->leaf) - now_us <= expiry_steps[step].days * DAY_US)
		step++;
	return step;
}

/* False: nothing new. */
static bool tell_expiry(struct section *s, int64_t now_us)
{
	unsigned step = expiry_step(s, now_us);
	int64_t end_us = keyfiles_expiry_us(s->leaf), days = (end_us - now_us) / DAY_US;
	char date[32];

	if (step <= s->told)
		return false;
	s->told = step;
	if (end_us <= now_us)
		log_error("event=certificate_expired tls=%s file=%s expired=%s what=\"clients refuse it\"", s->conf->name,
		    s->conf->certificate, date_of(end_us, date));
	else
		log_line(expiry_steps[step - 1].level, "event=certificate_expires tls=%s file=%s expires=%s days=%" PRId64,
		    s->conf->name, s->conf->certificate, date_of(end_us, date), days);
	return true;
}

static void count_expiry(const struct keys *k, int64_t now_us)
{
	size_t expired = 0, expiring = 0;

	for (size_t i = 0; i < k->conf->tls_count; i++) {
		unsigned step = expiry_step(&k->sections[i], now_us);

		expired += step == ARRAY_LEN(expiry_steps);
		expiring += step > 0 && step < ARRAY_LEN(expiry_steps);
	}
	log_info("event=certificates expired=%zu expiring=%zu of=%zu", expired, expiring, k->conf->tls_count);
}

void keys_tell_expiry(struct keys *k)
{
	int64_t now_us = clock_wall_us(k->clock);
	bool told = false;

	for (size_t i = 0; i < k->conf->tls_count; i++)
		told |= tell_expiry(&k->sections[i], now_us);
	if (told)
		count_expiry(k, now_us);
}

/* ---- reading ---- */

static void section_done(struct section *s)
{
	if (s->bytes.ptr)
		OPENSSL_cleanse(s->bytes.ptr, s->bytes.len);
	buf_done(&s->bytes);
	X509_free(s->leaf);
	s->leaf = NULL;
}

/* Who has none, or one that is wrong, goes on with what it had, while that is about this certificate and of this time. */
static int keep_staple(const struct keys *k, const struct section *old, struct tls_material *m)
{
	struct slice bytes = buf_slice(&old->bytes);
	struct tls_material was;
	int err;

	if (m->staple || !old->conf->ocsp_staple || !old->leaf || X509_cmp(old->leaf, sk_X509_value(m->chain, 0)) != 0)
		return 0;
	err = tls_material_parse(&bytes, &was);
	if (!err && was.staple && was.staple_until_us > clock_wall_us(k->clock)) {
		m->staple = was.staple;
		m->staple_len = was.staple_len;
		m->staple_until_us = was.staple_until_us;
		was.staple = NULL;
	}
	tls_material_done(&was);
	return err;
}

static bool is_over(const struct keys *k, const X509 *x)
{
	return keyfiles_expiry_us(x) <= clock_wall_us(k->clock);
}

static int refuse_expired(const struct keys *k, const struct section *old, const struct tls_material *m, struct buf *errors)
{
	const X509 *x = sk_X509_value(m->chain, 0);
	char date[32];

	if (!old->leaf || is_over(k, old->leaf) || !is_over(k, x))
		return 0;
	buf_printf(errors, "tls %s.certificate: %s: found a certificate that has expired (%s), expected one that is valid\n",
	    old->conf->name, old->conf->certificate, date_of(keyfiles_expiry_us(x), date));
	return -EINVAL;
}

/* 0 with a section to be done; or as keyfiles_read. */
static int read_section(
    const struct keys *k, const struct section *old, struct buf *errors, struct buf *warnings, struct section *ret)
{
	struct tls_material m;
	int err = keyfiles_read(old->conf, k->clock, errors, warnings, &m);

	if (err)
		return err;
	*ret = (struct section){ .conf = old->conf };
	buf_init(&ret->bytes, BYTES_MAX);
	err = refuse_expired(k, old, &m, errors);
	if (!err)
		err = keep_staple(k, old, &m);
	if (!err)
		err = tls_material_write(&m, &ret->bytes);
	if (!err) {
		ret->leaf = sk_X509_value(m.chain, 0);
		X509_up_ref(ret->leaf);
	}
	tls_material_done(&m);
	if (err)
		section_done(ret);
	return err;
}

/* ---- what the front gets ---- */

/* *ret is the ticket key that encrypts. */
static int join(const struct keys *k, const struct section *sections, struct buf *out, struct ticket_key *ret)
{
	struct ticket_key own[TICKETS_OWN];
	size_t count = tickets_all(k->tickets, own);
	int err = count > 0 ? tls_materials_begin(own, count, out) : -EIO;

	*ret = own[0];
	OPENSSL_cleanse(own, sizeof(own));
	if (err)
		return err;
	for (size_t i = 0; i < k->conf->tls_count; i++)
		buf_add(out, buf_slice(&sections[i].bytes));
	return out->failed ? -ENOMEM : 0;
}

/* The front will do just this. */
static int try_as_front(const struct keys *k, struct slice bytes, struct buf *errors)
{
	struct tls_shop *shop;
	int err = tls_shop_new(k->conf, k->clock, &shop);

	if (err)
		return err;
	err = tls_shop_adopt(shop, bytes, errors);
	tls_shop_free(&shop);
	return err;
}

static int write_all(int fd, struct slice bytes)
{
	for (size_t done = 0; done < bytes.len;) {
		ssize_t n = write(fd, bytes.ptr + done, bytes.len - done);

		if (n == -1)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

static int make_memfd(struct slice bytes)
{
	int fd = memfd_create("forebay-keys", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int err = fd == -1 ? -errno : write_all(fd, bytes);

	if (!err && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == -1)
		err = -errno;
	if (err && fd != -1)
		close(fd);
	return err ? err : fd;
}

/* Makes the memfd of these sections. Nothing has changed after an error. */
static int publish(struct keys *k, const struct section *sections, struct buf *errors)
{
	struct ticket_key first;
	struct buf all;
	int fd = -1, err;

	buf_init(&all, BYTES_MAX);
	err = join(k, sections, &all, &first);
	if (!err)
		err = try_as_front(k, buf_slice(&all), errors);
	if (!err)
		err = fd = make_memfd(buf_slice(&all));
	if (all.ptr)
		OPENSSL_cleanse(all.ptr, all.len);
	buf_done(&all);
	if (err < 0)
		return err;
	if (k->fd != -1)
		close(k->fd);
	k->fd = fd;
	k->given = first;
	return 0;
}

static int read_first(struct keys *k, struct buf *errors, struct buf *warnings)
{
	int last = 0;

	for (size_t i = 0; i < k->conf->tls_count; i++) {
		struct section *s = &k->sections[i], fresh;
		int err = read_section(k, s, errors, warnings, &fresh);

		if (err == -ENOMEM)
			return err;
		if (err)
			last = err;
		else
			*s = fresh;
	}
	return last ? last : publish(k, k->sections, errors);
}

int keys_new(const struct conf *conf, const struct clock *clock, struct buf *errors, struct buf *warnings, struct keys **ret)
{
	struct keys *k = calloc(1, sizeof(*k));
	int err;

	if (!k)
		return -ENOMEM;
	*k = (struct keys){ .conf = conf, .clock = clock, .fd = -1 };
	k->sections = calloc(MAX(conf->tls_count, 1), sizeof(*k->sections));
	err = k->sections ? 0 : -ENOMEM;
	if (!err && conf->tls_count > 0)
		err = tls_library_init();
	for (size_t i = 0; !err && i < conf->tls_count; i++)
		k->sections[i].conf = &conf->tls[i];
	if (!err && conf->tls_count > 0)
		err = tickets_new(clock, &k->tickets);
	if (!err && conf->tls_count > 0)
		err = read_first(k, errors, warnings);
	if (err)
		keys_free(&k);
	else
		*ret = k;
	return err;
}

void keys_free(struct keys **pk)
{
	struct keys *k = *pk;

	*pk = NULL;
	if (!k)
		return;
	if (event_initialized(&k->look))
		event_del(&k->look);
	if (event_initialized(&k->hour))
		event_del(&k->hour);
	keywatch_free(&k->watch);
	free(k->paths);
	for (size_t i = 0; k->sections && i < k->conf->tls_count; i++)
		section_done(&k->sections[i]);
	free(k->sections);
	tickets_drop(&k->tickets);
	OPENSSL_cleanse(&k->given, sizeof(k->given));
	if (k->fd != -1)
		close(k->fd);
	free(k);
}

int keys_fd(const struct keys *k)
{
	return k->fd;
}

/* ---- changes ---- */

static void log_section(const char *event, const struct section *s)
{
	BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(s->leaf), NULL);
	char *serial = number ? BN_bn2hex(number) : NULL;
	char date[32];

	log_info("event=%s tls=%s file=%s serial=%s expires=%s", event, s->conf->name, s->conf->certificate,
	    serial ? serial : "?", date_of(keyfiles_expiry_us(s->leaf), date));
	OPENSSL_free(serial);
	BN_free(number);
}

static bool same_section(const struct section *a, const struct section *b)
{
	return a->bytes.len == b->bytes.len && CRYPTO_memcmp(a->bytes.ptr, b->bytes.ptr, a->bytes.len) == 0;
}

static void take_over(struct section *s, struct section *fresh)
{
	bool renewed = X509_cmp(s->leaf, fresh->leaf) != 0;

	fresh->told = renewed ? 0 : s->told;
	section_done(s);
	*s = *fresh;
	log_section(renewed ? "certificate_renewed" : "tls_files_changed", s);
}

/* What stands in `fresh` where something is new, and what is old elsewhere: a section that was not read again is all zero. */
static int publish_fresh(struct keys *k, struct section *fresh, struct buf *errors)
{
	const size_t count = k->conf->tls_count;
	struct section *all = calloc(count, sizeof(*all));
	int err;

	if (!all)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		all[i] = fresh[i].leaf ? fresh[i] : k->sections[i];
	err = publish(k, all, errors);
	free(all);
	return err;
}

static void adopt(struct keys *k, struct section *fresh, struct buf *errors)
{
	int err = publish_fresh(k, fresh, errors);

	if (err && errors->len == 0)
		buf_printf(errors, "%s\n", strerror(-err));
	for (size_t i = 0; i < k->conf->tls_count; i++) {
		if (!fresh[i].leaf)
			continue;
		if (err)
			section_done(&fresh[i]);
		else
			take_over(&k->sections[i], &fresh[i]);
	}
	if (err)
		return;
	keys_tell_expiry(k);
	k->changed(k->ctx);
}

/* Each section by itself, so that a broken one keeps no other from being renewed. */
static bool read_again(struct keys *k, struct section *fresh, struct buf *errors, struct buf *warnings)
{
	bool any = false;

	for (size_t i = 0; i < k->conf->tls_count; i++) {
		struct section *s = &k->sections[i], now = { 0 };
		int err = read_section(k, s, errors, warnings, &now);

		if (err == -ENOMEM)
			buf_printf(errors, "tls %s: no memory\n", s->conf->name);
		if (err)
			continue;
		if (same_section(s, &now)) {
			section_done(&now);
		} else {
			fresh[i] = now;
			any = true;
		}
	}
	return any;
}

static void set_timer(struct event *timer, uint64_t after_ms)
{
	const struct timeval tv = { (time_t)(after_ms / 1000), (suseconds_t)(after_ms % 1000) * 1000 };

	event_add(timer, &tv);
}

static void tell_trouble(struct keys *k, const struct buf *errors)
{
	if (errors->len == 0) {
		k->again = false;
	} else if (!k->again) {
		k->again = true;
		set_timer(&k->look, AGAIN_MS);
	} else {
		k->again = false;
		log_lines(LOG_LEVEL_ERROR, "tls_files_refused old=stays", errors);
	}
}

static void watch_paths(struct keys *k)
{
	int err = keywatch_set(k->watch, k->paths, k->path_count);

	if (err)
		log_error("event=tls_files_not_watched error=\"%s\" what=\"they are looked at every hour\"", strerror(-err));
}

static void look(struct keys *k)
{
	struct section *fresh = calloc(k->conf->tls_count, sizeof(*fresh));
	struct buf errors, warnings;

	k->first_change_ms = 0;
	watch_paths(k);
	if (!fresh)
		return;
	buf_init(&errors, LINES_MAX);
	buf_init(&warnings, LINES_MAX);
	if (read_again(k, fresh, &errors, &warnings)) {
		log_lines(LOG_LEVEL_WARNING, "tls_files_warning", &warnings);
		adopt(k, fresh, &errors);
	}
	tell_trouble(k, &errors);
	buf_done(&errors);
	buf_done(&warnings);
	free(fresh);
}

static void on_look(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	look(ctx);
}

void keys_turn_tickets(struct keys *k)
{
	struct ticket_key now;
	struct buf errors;
	int err;

	if (!tickets_current(k->tickets, &now) || memcmp(now.name, k->given.name, sizeof(now.name)) != 0) {
		buf_init(&errors, LINES_MAX);
		err = publish(k, k->sections, &errors);
		if (err)
			log_error("event=ticket_keys_stay error=\"%s\" what=\"new ones could not be given to the front\"",
			    strerror(-err));
		else
			k->changed(k->ctx);
		buf_done(&errors);
	}
	OPENSSL_cleanse(&now, sizeof(now));
}

static void on_hour(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	look(ctx);
	keys_tell_expiry(ctx);
	keys_turn_tickets(ctx);
}

static void on_change(void *ctx)
{
	struct keys *k = ctx;
	uint64_t now_ms = clock_mono_ms(k->clock);

	if (!k->first_change_ms)
		k->first_change_ms = now_ms;
	if (now_ms - k->first_change_ms < QUIET_MOST_MS)
		set_timer(&k->look, QUIET_MS);
}

static void add_path(struct keys *k, const char *path)
{
	if (path)
		k->paths[k->path_count++] = path;
}

static int list_paths(struct keys *k)
{
	size_t most = 0;

	for (size_t i = 0; i < k->conf->tls_count; i++)
		most += 5 + k->conf->tls[i].ticket_key_file_count;
	k->paths = calloc(most, sizeof(*k->paths));
	if (!k->paths)
		return -ENOMEM;
	for (size_t i = 0; i < k->conf->tls_count; i++) {
		const struct conf_tls *t = &k->conf->tls[i];

		add_path(k, t->certificate);
		add_path(k, t->key);
		add_path(k, t->key_password_file);
		add_path(k, t->client_ca);
		add_path(k, t->ocsp_staple);
		for (size_t f = 0; f < t->ticket_key_file_count; f++)
			add_path(k, t->ticket_key_files[f].text);
	}
	return 0;
}

int keys_watch(struct keys *k, struct event_base *base, void (*changed)(void *ctx), void *ctx)
{
	static const struct timeval hour = { .tv_sec = HOUR_S };
	int err;

	if (k->conf->tls_count == 0)
		return 0;
	k->changed = changed;
	k->ctx = ctx;
	err = list_paths(k);
	if (!err)
		err = keywatch_new(base, on_change, k, &k->watch);
	if (!err && (event_assign(&k->look, base, -1, 0, on_look, k) ||
	                event_assign(&k->hour, base, -1, EV_PERSIST, on_hour, k) || event_add(&k->hour, &hour)))
		err = -ENOMEM;
	if (err)
		return err;
	for (size_t i = 0; i < k->conf->tls_count; i++)
		log_section("certificate", &k->sections[i]);
	keys_tell_expiry(k);
	/* What changed since it was read. */
	on_change(k);
	watch_paths(k);
	return 0;
}
