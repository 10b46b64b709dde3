#include "tests/unit/scan_avx2.h"

#ifdef HAVE_SCAN_AVX2
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#ifndef __AVX2__
#define __AVX2__ 1
#endif
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

/* The functions, not the struct of the same name. */
#define http1_scan(s, bytes, limits, ret_len)       http1_scan_avx2(s, bytes, limits, ret_len)
#define http1_scan_plain(s, bytes, limits, ret_len) http1_scan_plain_avx2(s, bytes, limits, ret_len)
#include "core/http1_scan.c"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
