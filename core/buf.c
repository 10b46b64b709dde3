#include "core/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_BYTES 256

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf){ .max = max };
}

void buf_init_in(struct buf *b, char *first, size_t first_bytes, size_t max)
{
	*b = (struct buf){ .ptr = first, .size = MIN(first_bytes, max), .max = max, .lent = true };
}

void buf_borrow(struct buf *b, struct slice bytes, size_t max)
{
	*b = (struct buf){ .ptr = (char *)(uintptr_t)bytes.ptr,
		.len = bytes.len,
		.size = bytes.len,
		.max = max,
		.lent = true,
		.borrowed = true };
}

void buf_done(struct buf *b)
{
	if (!b->lent)
		free(b->ptr);
	*b = (struct buf){ .max = b->max };
}

void buf_clear(struct buf *b)
{
	if (b->borrowed)
		buf_done(b);
	b->len = 0;
	b->failed = false;
}

/* At least `need` bytes, doubling, never above max. */
static bool grow(struct buf *b, size_t need)
{
	size_t size = MAX(b->size, (size_t)FIRST_BYTES);
	char *ptr;

	while (size < need)
		size = size > b->max / 2 ? b->max : size * 2;
	size = MIN(size, b->max);
	ptr = realloc(b->lent ? NULL : b->ptr, MAX(size, (size_t)1));
	if (!ptr)
		return false;
	if (b->lent && b->ptr)
		memcpy(ptr, b->ptr, b->len);
	b->lent = b->borrowed = false;
	b->ptr = ptr;
	b->size = size;
	return true;
}

char *buf_room(struct buf *b, size_t n)
{
	if (n > b->max - b->len || (b->len + n > b->size && !grow(b, b->len + n))) {
		b->failed = true;
		return NULL;
	}
	if (!b->ptr && !grow(b, 0)) { /* room for nothing is a place too */
		b->failed = true;
		return NULL;
	}
	return b->ptr + b->len;
}

void buf_char(struct buf *b, char c)
{
	buf_add(b, (struct slice){ &c, 1 });
}

void buf_u64(struct buf *b, uint64_t n)
{
	static const char pairs[] =
	    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
	    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
	char digits[20];
	size_t at = sizeof(digits);

	for (; n >= 10; n /= 100) {
		at -= 2;
		memcpy(digits + at, pairs + n % 100 * 2, 2);
	}
	if (n > 0 || at == sizeof(digits))
		digits[--at] = (char)('0' + n);
	buf_add(b, (struct slice){ digits + at, sizeof(digits) - at });
}

/* What is printed first goes to the stack, so that the NUL that printf wants costs no byte of the maximum. */
void buf_printf(struct buf *b, const char *fmt, ...)
{
	char text[512];
	char *longer = NULL;
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (n >= (int)sizeof(text)) {
		va_start(args, fmt);
		n = vasprintf(&longer, fmt, args);
		va_end(args);
	}
	if (n < 0)
		b->failed = true;
	else
		buf_add(b, (struct slice){ longer ? longer : text, (size_t)n });
	free(longer);
}
