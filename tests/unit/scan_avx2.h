/*
 * scan_avx2: core/http1_scan.c once more, as a compiler makes it that may use AVX2, under names of its own. The product is built for
 * what its target guarantees, so that without this the widest of its ways would be run by nobody here.
 */
#ifndef FOREBAY_TESTS_SCAN_AVX2_H
#define FOREBAY_TESTS_SCAN_AVX2_H

#include "core/http1.h"

#if defined(__x86_64__) && !defined(FOREBAY_NO_SIMD)
#define HAVE_SCAN_AVX2 1

enum http1_result http1_scan_avx2(struct http1_scan *s, struct slice bytes, const struct http1_limits *limits, size_t *ret_len);
enum http1_result http1_scan_plain_avx2(
    struct http1_scan *s, struct slice bytes, const struct http1_limits *limits, size_t *ret_len);

/* Whether the processor has it. */
static inline bool scan_avx2_runs(void)
{
	return __builtin_cpu_supports("avx2");
}
#endif

#endif
