#include "core/date.h"

#include <time.h>

static char *put_name(char *to, const char *names, int index)
{
	memcpy(to, names + (size_t)index * 3, 3);
	return to + 3;
}

static char *put_number(char *to, int n, int digits)
{
	for (int i = digits; i > 0; i--, n /= 10)
		to[i - 1] = (char)('0' + n % 10);
	return to + digits;
}

static char *put_text(char *to, struct slice s)
{
	memcpy(to, s.ptr, s.len);
	return to + s.len;
}

/* Not strftime, which has a locale. */
static bool make(struct date *d, time_t second)
{
	struct tm t;
	char *to = d->text;

	if (!gmtime_r(&second, &t) || t.tm_year < -1900 || t.tm_year > 9999 - 1900)
		return false;
	to = put_name(to, "SunMonTueWedThuFriSat", t.tm_wday);
	to = put_text(to, SLICE(", "));
	to = put_number(to, t.tm_mday, 2);
	*to++ = ' ';
	to = put_name(to, "JanFebMarAprMayJunJulAugSepOctNovDec", t.tm_mon);
	*to++ = ' ';
	to = put_number(to, t.tm_year + 1900, 4);
	*to++ = ' ';
	to = put_number(to, t.tm_hour, 2);
	*to++ = ':';
	to = put_number(to, t.tm_min, 2);
	*to++ = ':';
	to = put_number(to, t.tm_sec, 2);
	(void)put_text(to, SLICE(" GMT"));
	return true;
}

struct slice date_text(struct date *d, int64_t wall_us)
{
	int64_t second = wall_us / 1000000 - (wall_us % 1000000 < 0);

	if (!d->made || d->second != second) {
		d->made = make(d, (time_t)second);
		d->second = second;
	}
	return slice_of(d->text, d->made ? DATE_BYTES : 0);
}
