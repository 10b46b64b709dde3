#include "proxy/client/tls_shop.h"

#include <pthread.h>
#include <stdlib.h>

#include "core/buf.h"
#include "proxy/client/tickets.h"

struct tls_shop {
	const struct conf *conf;
	const struct clock *clock;
	struct tickets *tickets; /* NULL: nothing was adopted yet */
	pthread_mutex_t mutex;   /* of `current` */
	struct tls **current;    /* by the listener's number in conf */
};

int tls_shop_new(const struct conf *conf, const struct clock *clock, struct tls_shop **ret)
{
	struct tls_shop *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->conf = conf;
	s->clock = clock;
	pthread_mutex_init(&s->mutex, NULL);
	s->current = calloc(MAX(conf->listen_count, 1), sizeof(struct tls *));
	err = s->current ? 0 : -ENOMEM;
	if (!err && conf->tls_count > 0) /* who needs none of OpenSSL does without its memory */
		err = tls_library_init();
	if (err)
		tls_shop_free(&s);
	else
		*ret = s;
	return err;
}

static void drop_all(struct tls **list, size_t count)
{
	for (size_t i = 0; list && i < count; i++)
		tls_drop(&list[i]);
	free(list);
}

void tls_shop_free(struct tls_shop **ps)
{
	struct tls_shop *s = *ps;

	*ps = NULL;
	if (!s)
		return;
	drop_all(s->current, s->conf->listen_count);
	tickets_drop(&s->tickets);
	pthread_mutex_destroy(&s->mutex);
	free(s);
}

static int make_all(
    struct tls_shop *s, const struct tls_materials *materials, struct tickets *tickets, struct buf *errors, struct tls **ret)
{
	int err = 0;

	for (size_t i = 0; i < s->conf->listen_count && !err; i++) {
		const struct tls_options o = {
			.conf = s->conf,
			.listen = &s->conf->listens[i],
			.materials = materials->all,
			.tickets = tickets,
			.clock = s->clock,
			.http2 = s->conf->listens[i].http2,
		};

		if (o.listen->tls_count > 0)
			err = tls_new(&o, errors, &ret[i]);
	}
	return err;
}

/* Both get what was there. */
static void swap(struct tls_shop *s, struct tls ***fresh, struct tickets **tickets)
{
	struct tickets *keys = s->tickets;
	struct tls **old;

	pthread_mutex_lock(&s->mutex);
	old = s->current;
	s->current = *fresh;
	pthread_mutex_unlock(&s->mutex);
	*fresh = old;
	s->tickets = *tickets;
	*tickets = keys;
}

int tls_shop_adopt(struct tls_shop *s, struct slice bytes, struct buf *errors)
{
	struct tls **fresh = calloc(MAX(s->conf->listen_count, 1), sizeof(struct tls *));
	struct tickets *tickets = NULL;
	struct tls_materials materials;
	int err;

	if (!fresh)
		return -ENOMEM;
	err = tls_materials_parse(bytes, s->conf->tls_count, &materials);
	if (!err)
		err = tickets_new_fixed(materials.own, materials.own_count, &tickets);
	if (!err)
		err = make_all(s, &materials, tickets, errors, fresh);
	if (!err)
		swap(s, &fresh, &tickets);
	/* What is not current any more goes; connections hold theirs. */
	drop_all(fresh, s->conf->listen_count);
	tickets_drop(&tickets);
	tls_materials_done(&materials);
	return err;
}

struct tls *tls_shop_get(struct tls_shop *s, const struct conf_listen *listen)
{
	struct tls *t;

	if (listen->tls_count == 0)
		return NULL;
	pthread_mutex_lock(&s->mutex);
	t = s->current[listen - s->conf->listens];
	if (t)
		tls_hold(t);
	pthread_mutex_unlock(&s->mutex);
	return t;
}
