/*
 * Any bytes as a head, at any limits: what finds its end with SSE2 and with AVX2 says what plain C says, in one piece and in several,
 * wherever in memory the bytes lie, and looks at none behind them.
 */
#include "tests/fuzz/must.h"
#include "tests/unit/scan_avx2.c"
#undef http1_scan
#undef http1_scan_plain

typedef enum http1_result scan_function(
    struct http1_scan *s, struct slice bytes, const struct http1_limits *limits, size_t *ret_len);

struct plan {
	struct http1_limits limits;
	size_t skew; /* of the bytes in their block */
	size_t step; /* so many more bytes each time */
	struct slice bytes;
};

struct answer {
	enum http1_result result;
	size_t len;
};

/* The first n bytes, in a block that ends with them. */
static enum http1_result scan_first(scan_function *scan, struct http1_scan *s, const struct plan *p, size_t n, size_t *ret_len)
{
	char *block = malloc(p->skew + n + (p->skew + n == 0));
	enum http1_result r;

	must(block);
	if (n > 0)
		memcpy(block + p->skew, p->bytes.ptr, n);
	r = scan(s, slice_of(block + p->skew, n), &p->limits, ret_len);
	free(block);
	return r;
}

static struct answer scan_pieces(scan_function *scan, const struct plan *p, size_t step)
{
	struct answer a = { HTTP1_MORE, 0 };
	struct http1_scan s = { 0 };

	for (size_t n = MIN(step, p->bytes.len); a.result == HTTP1_MORE; n = MIN(n + step, p->bytes.len)) {
		a.result = scan_first(scan, &s, p, n, &a.len);
		if (n == p->bytes.len)
			break;
	}
	return a;
}

static void must_agree(scan_function *scan, const struct plan *p, struct answer plain)
{
	struct answer whole = scan_pieces(scan, p, MAX(p->bytes.len, (size_t)1)), pieces = scan_pieces(scan, p, p->step);

	must(whole.result == plain.result && pieces.result == plain.result);
	must(plain.result != HTTP1_OK || (whole.len == plain.len && pieces.len == plain.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct answer plain;
	struct plan p;

	if (size < 4)
		return 0;
	p = (struct plan){
		.limits = { .head_max_bytes = 4u * data[0], .line_max_bytes = 2u * data[1], .fields_max = data[2] },
		.skew = data[3] % 64,
		.bytes = slice_of((const char *)data + 4, size - 4),
	};
	p.step = p.bytes.len / (1 + data[3] / 16) + 1;
	plain = scan_pieces(http1_scan_plain, &p, MAX(p.bytes.len, (size_t)1));
	must(plain.result != HTTP1_OK || plain.len <= p.bytes.len);
	must_agree(http1_scan_plain, &p, plain);
	must_agree(http1_scan, &p, plain);
#ifdef HAVE_SCAN_AVX2
	if (scan_avx2_runs())
		must_agree(http1_scan_avx2, &p, plain);
#endif
	return 0;
}
