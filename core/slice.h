/*
 * slice: a piece of text that somebody else owns.
 * All text from outside is one of these. Never taken to end in NUL; dies with the next change of the buffer under it.
 */
#ifndef FOREBAY_CORE_SLICE_H
#define FOREBAY_CORE_SLICE_H

#include <string.h>

#include "core/base.h"

struct slice {
	const char *ptr;
	size_t len; /* bytes */
};

/* A slice of a string literal. */
#define SLICE_INIT(literal)                                                                                                    \
	{                                                                                                                      \
		"" literal, sizeof(literal) - 1                                                                                \
	}
#define SLICE(literal) ((struct slice)SLICE_INIT(literal))
/* For printf's "%.*s". */
#define SLICE_ARG(s) (int)(s).len, (s).ptr

static inline struct slice slice_of(const char *ptr, size_t len)
{
	return (struct slice){ ptr, len };
}

/* As a string of `size` bytes, 1 at least, with its NUL; what does not fit is cut off. */
static inline void slice_to_str(struct slice s, char *ret, size_t size)
{
	size_t len;

	assert(size > 0);
	len = MIN(s.len, size - 1);
	if (len)
		memcpy(ret, s.ptr, len);
	ret[len] = '\0';
}

/* The text of a NUL-terminated string of our own; NULL gives an empty slice. */
static inline struct slice slice_str(const char *str)
{
	return (struct slice){ str ? str : "", str ? strlen(str) : 0 };
}

static inline bool slice_eq(struct slice a, struct slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Equal but for the case of ASCII letters. */
bool slice_eq_nocase(struct slice a, struct slice b);

bool slice_starts(struct slice s, struct slice prefix);
bool slice_ends(struct slice s, struct slice suffix);

/* The first `sep` cuts *s: *ret_before is what stood before it, *s what stands behind. False, nothing changed, without one. */
bool slice_cut(struct slice *s, char sep, struct slice *ret_before);

/* Without spaces and tabs at both ends (OWS, RFC 9110, 5.6.3). */
struct slice slice_trim_ows(struct slice s);

/* Bytes of tchar (RFC 9110, 5.6.2) that it begins with. */
size_t slice_token_len(struct slice s);

/* One or more tchar. */
bool slice_is_token(struct slice s);

/* Decimal digits only, at least one, no sign, no space. False on overflow or anything else. */
bool slice_to_u64(struct slice s, uint64_t *ret);

/*
 * The next element of a comma-separated list (RFC 9110, 5.6.1), trimmed; empty elements are passed over, commas in
 * quoted strings do not cut. False at the end of *list.
 */
bool slice_next_element(struct slice *list, struct slice *ret);

/* A malloc'ed NUL-terminated copy, yours to free; NULL without memory. */
char *slice_dup(struct slice s);

#endif
