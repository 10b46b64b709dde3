#include "core/http1.h"

#if defined(__SSE2__) && !defined(FOREBAY_NO_SIMD)
#include <immintrin.h>
#endif

/* Every byte that is not part of a line: control bytes but HTAB, and DEL. */
static inline bool is_control(unsigned char c)
{
	return (c < 0x20 && c != '\t') || c == 0x7f;
}

/* The first control byte at or after `at`, or `end`. */
typedef size_t find_control(const char *text, size_t at, size_t end);

static inline size_t find_control_plain(const char *text, size_t at, size_t end)
{
	while (at < end && !is_control((unsigned char)text[at]))
		at++;
	return at;
}

#if defined(__AVX2__) && !defined(FOREBAY_NO_SIMD)
static inline uint32_t control_mask_32(const char *p)
{
	__m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)p);
	__m256i low = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes);
	__m256i tab = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('\t'));
	__m256i del = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x7f));

	return (uint32_t)_mm256_movemask_epi8(_mm256_or_si256(_mm256_andnot_si256(tab, low), del));
}
#endif

#if defined(__SSE2__) && !defined(FOREBAY_NO_SIMD)
static inline uint32_t control_mask_16(const char *p)
{
	__m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
	__m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
	__m128i tab = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t'));
	__m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));

	return (uint32_t)_mm_movemask_epi8(_mm_or_si128(_mm_andnot_si128(tab, low), del));
}
#endif

/* What the build's target guarantees to have; never reads behind `end`. */
static inline size_t find_control_fast(const char *text, size_t at, size_t end)
{
#if defined(__AVX2__) && !defined(FOREBAY_NO_SIMD)
	for (; end - at >= 32; at += 32) {
		uint32_t mask = control_mask_32(text + at);

		if (mask)
			return at + (size_t)__builtin_ctz(mask);
	}
#endif
#if defined(__SSE2__) && !defined(FOREBAY_NO_SIMD)
	for (; end - at >= 16; at += 16) {
		uint32_t mask = control_mask_16(text + at);

		if (mask)
			return at + (size_t)__builtin_ctz(mask);
	}
	if (at < end && end >= 16) { /* what is left, with some of what was looked at before */
		uint32_t mask = control_mask_16(text + end - 16) >> (16 - (end - at));

		return mask ? at + (size_t)__builtin_ctz(mask) : end;
	}
#endif
	return find_control_plain(text, at, end);
}

/*
 * How far it is looked: a line end, or the head's, that is not before this comes too late. So an error depends on the bytes
 * alone, not on the pieces they came in.
 */
static inline size_t allowed(const struct http1_scan *s, const struct http1_limits *limits)
{
	size_t head_max = MIN(limits->head_max_bytes, (size_t)UINT32_MAX);

	if (s->lines > 0 || limits->line_max_bytes > head_max - MIN(s->line_start, head_max))
		return head_max;
	return s->line_start + limits->line_max_bytes;
}

static enum http1_result over_limit(const struct http1_scan *s, const struct http1_limits *limits, size_t end)
{
	return s->lines == 0 && end < limits->head_max_bytes ? HTTP1_TARGET_TOO_LONG : HTTP1_HEAD_TOO_LARGE;
}

/* The line's CR is at `at`, its LF behind it. HTTP1_OK at the empty line that ends the head. */
static inline enum http1_result end_line(struct http1_scan *s, size_t at, const struct http1_limits *limits)
{
	bool empty = at == s->line_start;

	s->line_start = s->seen = (uint32_t)at + 2;
	if (empty && s->lines > 0)
		return HTTP1_OK;
	if (empty)
		return s->blank++ ? HTTP1_BAD_REQUEST_LINE : HTTP1_MORE;
	if (s->lines > limits->fields_max || s->lines == UINT16_MAX) /* the first line is no field */
		return HTTP1_HEAD_TOO_LARGE;
	s->lines++;
	return HTTP1_MORE;
}

static inline __attribute__((always_inline)) enum http1_result scan(
    struct http1_scan *s, struct slice bytes, const struct http1_limits *limits, size_t *ret_len, find_control *find)
{
	enum http1_result result;

	for (;;) {
		size_t end = MIN(bytes.len, allowed(s, limits));
		size_t at = find(bytes.ptr, MIN(s->seen, end), end);

		if (at + 1 >= end && (at == end || bytes.ptr[at] == '\r')) {
			s->seen = (uint32_t)at;
			return end == allowed(s, limits) ? over_limit(s, limits, end) : HTTP1_MORE;
		}
		if (bytes.ptr[at] != '\r')
			return bytes.ptr[at] == '\n' ? HTTP1_BAD_LINE_END : HTTP1_BAD_BYTE;
		if (bytes.ptr[at + 1] != '\n')
			return HTTP1_BAD_LINE_END;
		result = end_line(s, at, limits);
		if (result == HTTP1_OK)
			*ret_len = s->seen;
		if (result != HTTP1_MORE)
			return result;
	}
}

enum http1_result http1_scan(struct http1_scan *s, struct slice bytes, const struct http1_limits *limits, size_t *ret_len)
{
	return scan(s, bytes, limits, ret_len, find_control_fast);
}

enum http1_result http1_scan_plain(struct http1_scan *s, struct slice bytes, const struct http1_limits *limits, size_t *ret_len)
{
	return scan(s, bytes, limits, ret_len, find_control_plain);
}
