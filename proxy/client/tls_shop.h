/*
 * tls_shop: the current struct tls of each listener, made of what the master has sent last.
 * Owns:   one reference of each, and of forebay's own ticket keys, which the master makes.
 * Thread: tls_shop_adopt the front's main thread; tls_shop_get any.
 */
#ifndef FOREBAY_PROXY_TLS_SHOP_H
#define FOREBAY_PROXY_TLS_SHOP_H

#include "conf/conf.h"
#include "core/clock.h"
#include "proxy/client/tls.h"

struct tls_shop;
struct buf;

/* Empty. Borrows conf and clock. */
MUST_USE int tls_shop_new(const struct conf *conf, const struct clock *clock, struct tls_shop **ret);
/* Connections that are still there keep what they have. */
void tls_shop_free(struct tls_shop **s);

/* Takes over all that tls_materials_write has written, or nothing: then a line in `errors` says why. 0 or -errno. */
MUST_USE int tls_shop_adopt(struct tls_shop *s, struct slice bytes, struct buf *errors);

/* A reference, yours to drop; NULL: the listener is plain, or nothing was adopted yet. `listen` is one of conf's. */
struct tls *tls_shop_get(struct tls_shop *s, const struct conf_listen *listen);

#endif
