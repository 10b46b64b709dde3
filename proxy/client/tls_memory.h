/*
 * tls_memory: what OpenSSL asks for, out of the pieces of the thread that asks: a handshake takes and gives back more than a thousand.
 * Owns:   nothing.
 * Never:  tells pieces of malloc() from its own: each goes where it is given back, on any thread.
 * Thread: any; those that named no pieces use malloc().
 */
#ifndef FOREBAY_PROXY_TLS_MEMORY_H
#define FOREBAY_PROXY_TLS_MEMORY_H

#include "core/pieces.h"

/* The calling thread's, until it says otherwise; NULL: malloc()'s. */
void tls_memory_here(struct pieces *p);

/* For CRYPTO_set_mem_functions(). */
void *tls_memory_take(size_t size, const char *file, int line);
void *tls_memory_resize(void *memory, size_t size, const char *file, int line);
void tls_memory_give(void *memory, const char *file, int line);

#endif
