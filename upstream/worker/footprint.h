/*
 * footprint: how much memory this process has, as the kernel counts it.
 * Thread: any.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_FOOTPRINT_H
#define FOREBAY_UPSTREAM_WORKER_FOOTPRINT_H

#include "core/base.h"

/* Bytes in memory, what is shared counted in full: cheap. 0: not known. */
uint64_t footprint_rss(void);

/* What is shared counted by its part: dear. 0: not known. */
uint64_t footprint_pss(void);

#endif
