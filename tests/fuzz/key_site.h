/*
 * key_site: a listener with [tls main] and [tls other], for fuzzers of what certificates and keys are read from.
 * Owns:   the two sections, and a clock that stands within the seeds' certificates' time.
 * Thread: one.
 */
#ifndef FOREBAY_TESTS_KEY_SITE_H
#define FOREBAY_TESTS_KEY_SITE_H

#include "conf/conf.h"
#include "core/buf.h"
#include "core/clock.h"
#include "proxy/client/tls_shop.h"
#include "tests/fuzz/must.h"

#define KEY_SITE_SECTIONS 2

struct key_site {
	struct clock_test clock;
	struct conf_tls sections[KEY_SITE_SECTIONS];
	struct conf_word names[KEY_SITE_SECTIONS];
	struct conf_listen listen;
	struct conf conf;
};

/* `count` sections. Anew for each input. */
static inline void key_site_init(struct key_site *s, size_t count)
{
	static char names[KEY_SITE_SECTIONS][8] = { "main", "other" };

	*s = (struct key_site){ .listen = { .tls = s->names, .tls_count = count } };
	clock_test_init(&s->clock);
	s->clock.wall_us = INT64_C(1800000000) * 1000000;
	for (size_t i = 0; i < count; i++) {
		s->names[i].text = names[i];
		/* The intermediate profile makes a DH key for each SSL_CTX, which is no one's bytes, and takes most of the time. */
		s->sections[i] = (struct conf_tls){
			.name = names[i],
			.certificate = names[i],
			.profile = TLS_PROFILE_MODERN,
			.session_tickets = true,
			.session_cache = 100,
			.session_timeout_ms = 86400000,
			.index = i,
		};
	}
	s->conf = (struct conf){ .listens = &s->listen, .listen_count = 1, .tls = s->sections, .tls_count = count };
}

/* Whole lines, each of a section, that can go to a terminal. */
static inline void must_be_lines(struct slice words)
{
	struct slice line;

	while (slice_cut(&words, '\n', &line)) {
		must(slice_starts(line, SLICE("tls main.")) || slice_starts(line, SLICE("tls other.")));
		for (size_t i = 0; i < line.len; i++)
			must(line.ptr[i] >= ' ' && line.ptr[i] <= '~');
	}
	must(words.len == 0);
}

/* Written, they are read as what they were, and written the same. The bytes are `ret`'s, to be done. */
static inline void must_come_through(const struct tls_materials *m, struct buf *ret)
{
	struct tls_materials again;
	struct buf second;

	buf_init(ret, 16u << 20);
	buf_init(&second, 16u << 20);
	must(tls_materials_write(m, ret) == 0);
	must(tls_materials_parse(buf_slice(ret), m->count, &again) == 0);
	must(tls_materials_write(&again, &second) == 0);
	must(slice_eq(buf_slice(ret), buf_slice(&second)));
	tls_materials_done(&again);
	buf_done(&second);
}

/* What the front does with them: it serves with all, or says which it cannot use. */
static inline void must_be_adopted_or_refused(const struct key_site *s, struct slice bytes)
{
	struct tls_shop *shop;
	struct buf errors;
	struct tls *t;
	int err;

	buf_init(&errors, 1u << 20);
	must(tls_shop_new(&s->conf, &s->clock.clock, &shop) == 0);
	err = tls_shop_adopt(shop, bytes, &errors);
	must(err == 0 || err == -EINVAL);
	must((err == 0) == (errors.len == 0));
	must_be_lines(buf_slice(&errors));
	t = tls_shop_get(shop, &s->listen);
	must((err == 0) == (t != NULL));
	tls_drop(&t);
	tls_shop_free(&shop);
	buf_done(&errors);
}

#endif
