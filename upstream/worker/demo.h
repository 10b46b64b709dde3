/*
 * demo: a small application on forebay's own workers: pages that show what reached a worker, and that misbehave when asked to.
 * Thread: any number at once; it keeps nothing but the record's descriptor.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_DEMO_H
#define FOREBAY_UPSTREAM_WORKER_DEMO_H

#include "upstream/worker/worker.h"

/* The environment's name of a file to which each request that begins adds a line: "begin QUERY PID". Without it there is none. */
#define DEMO_RECORD "FOREBAY_DEMO_RECORD"

#define DEMO_SLEEP_MAX_MS  60000
#define DEMO_BIG_MAX_BYTES (UINT64_C(4) << 30)
#define DEMO_PARTS_MAX     10000

extern const struct worker_app demo_app;

/* The byte that stands at `offset` of /big and /file: lines of 64 bytes that begin with their own offset in hexadecimal. */
char demo_byte(uint64_t offset);

/* CRC-32 (ISO-HDLC, as gzip and PNG have it) of more bytes; begin with 0. */
uint32_t demo_crc32(uint32_t crc, const void *data, size_t len);

#endif
