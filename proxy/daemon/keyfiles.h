/*
 * keyfiles: what the files of a [tls NAME] hold, read and judged.
 * Owns:   nothing.
 * Never:  waits for what is no regular file; keeps a copy of a key or a password.
 * Thread: the master's.
 */
#ifndef FOREBAY_PROXY_KEYFILES_H
#define FOREBAY_PROXY_KEYFILES_H

#include "conf/conf.h"
#include "core/clock.h"
#include "proxy/client/tls_material.h"

#define KEYFILE_MAX (1u << 20) /* bytes */

struct buf;

/*
 * 0, -ENOMEM, or -EINVAL with lines in `errors`, each "tls NAME.OPTION: FILE: found ..., expected ...". What can be lived with is a line in
 * `warnings`; a staple that cannot be used is left out. *ret is to be done after a 0 only.
 */
MUST_USE int keyfiles_read(
    const struct conf_tls *t, const struct clock *clock, struct buf *errors, struct buf *warnings, struct tls_material *ret);

/* The time after which a certificate is not valid, since 1970. */
int64_t keyfiles_expiry_us(const X509 *x);
int64_t keyfiles_begin_us(const X509 *x);

#endif
