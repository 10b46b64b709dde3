#include "core/slice.h"

#include <stdlib.h>

/* RFC 9110, 5.6.2: "!#$%&'*+-.^_`|~", digits and letters. */
static const bool is_tchar[256] = {
	['!'] = true,
	['#'] = true,
	['$'] = true,
	['%'] = true,
	['&'] = true,
	['\''] = true,
	['*'] = true,
	['+'] = true,
	['-'] = true,
	['.'] = true,
	['^'] = true,
	['_'] = true,
	['`'] = true,
	['|'] = true,
	['~'] = true,
	['0' ... '9'] = true,
	['A' ... 'Z'] = true,
	['a' ... 'z'] = true,
};

static unsigned char lower(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

static bool is_ows(char c)
{
	return c == ' ' || c == '\t';
}

/* What stands behind the first n bytes. */
static struct slice without_first(struct slice s, size_t n)
{
	return n ? (struct slice){ s.ptr + n, s.len - n } : s; /* a NULL is not added to */
}

bool slice_eq_nocase(struct slice a, struct slice b)
{
	if (a.len != b.len)
		return false;
	for (size_t i = 0; i < a.len; i++)
		if (lower((unsigned char)a.ptr[i]) != lower((unsigned char)b.ptr[i]))
			return false;
	return true;
}

bool slice_starts(struct slice s, struct slice prefix)
{
	return s.len >= prefix.len && slice_eq((struct slice){ s.ptr, prefix.len }, prefix);
}

bool slice_ends(struct slice s, struct slice suffix)
{
	return s.len >= suffix.len && slice_eq(without_first(s, s.len - suffix.len), suffix);
}

bool slice_cut(struct slice *s, char sep, struct slice *ret_before)
{
	const char *at = s->len ? memchr(s->ptr, sep, s->len) : NULL;

	if (!at)
		return false;
	*ret_before = (struct slice){ s->ptr, (size_t)(at - s->ptr) };
	*s = without_first(*s, ret_before->len + 1);
	return true;
}

struct slice slice_trim_ows(struct slice s)
{
	size_t skip = 0;

	while (skip < s.len && is_ows(s.ptr[skip]))
		skip++;
	s = without_first(s, skip);
	while (s.len && is_ows(s.ptr[s.len - 1]))
		s.len--;
	return s;
}

size_t slice_token_len(struct slice s)
{
	size_t i = 0;

	while (i < s.len && is_tchar[(unsigned char)s.ptr[i]])
		i++;
	return i;
}

bool slice_is_token(struct slice s)
{
	return s.len > 0 && slice_token_len(s) == s.len;
}

bool slice_to_u64(struct slice s, uint64_t *ret)
{
	uint64_t n = 0;

	if (s.len == 0)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		unsigned digit = (unsigned)(unsigned char)s.ptr[i] - '0';

		if (digit > 9 || __builtin_mul_overflow(n, (uint64_t)10, &n) || __builtin_add_overflow(n, (uint64_t)digit, &n))
			return false;
	}
	*ret = n;
	return true;
}

/* Length up to the first comma outside of a quoted string; a quote that does not end takes all. */
static size_t element_len(struct slice s)
{
	bool quoted = false;
	size_t i;

	for (i = 0; i < s.len; i++) {
		if (s.ptr[i] == '"')
			quoted = !quoted;
		else if (quoted && s.ptr[i] == '\\')
			i++;
		else if (!quoted && s.ptr[i] == ',')
			break;
	}
	return MIN(i, s.len);
}

bool slice_next_element(struct slice *list, struct slice *ret)
{
	while (list->len) {
		size_t len = element_len(*list);
		struct slice element = slice_trim_ows((struct slice){ list->ptr, len });

		*list = without_first(*list, MIN(len + 1, list->len));
		if (element.len) {
			*ret = element;
			return true;
		}
	}
	return false;
}

char *slice_dup(struct slice s)
{
	char *copy = malloc(s.len + 1);

	if (!copy)
		return NULL;
	if (s.len)
		memcpy(copy, s.ptr, s.len);
	copy[s.len] = '\0';
	return copy;
}
