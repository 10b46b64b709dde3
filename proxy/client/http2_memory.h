/*
 * http2_memory: what the library takes and gives back, charged to its loop's lease.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_HTTP2_MEMORY_H
#define FOREBAY_PROXY_HTTP2_MEMORY_H

#include "proxy/client/http2_life.h"

/* For the session of this connection; valid as long as that. */
nghttp2_mem http2_memory(struct http2_client *c);

#endif
