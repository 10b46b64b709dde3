#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "core/date.h"

static void dates_are_imf_fixdates(void **state UNUSED)
{
	static const struct {
		int64_t wall_us;
		const char *text;
	} cases[] = {
		{ 0, "Thu, 01 Jan 1970 00:00:00 GMT" },
		{ 999999, "Thu, 01 Jan 1970 00:00:00 GMT" },
		{ -1, "Wed, 31 Dec 1969 23:59:59 GMT" },
		{ 784111777000000, "Sun, 06 Nov 1994 08:49:37 GMT" }, /* RFC 9110's own */
		{ 951782399000000, "Mon, 28 Feb 2000 23:59:59 GMT" },
		{ 951782400000000, "Tue, 29 Feb 2000 00:00:00 GMT" },
		{ 1798761599000000, "Thu, 31 Dec 2026 23:59:59 GMT" },
		{ 4294967296000000, "Sun, 07 Feb 2106 06:28:16 GMT" },
		{ 253402300799000000, "Fri, 31 Dec 9999 23:59:59 GMT" },
		{ 253402300800000000, "" }, /* five digits */
		{ 1798761599000000, "Thu, 31 Dec 2026 23:59:59 GMT" },
	};
	struct date d = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		for (int again = 0; again < 2; again++)
			if (!slice_eq(date_text(&d, cases[i].wall_us), slice_str(cases[i].text)))
				fail_msg("row %zu: %.*s", i, SLICE_ARG(date_text(&d, cases[i].wall_us)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dates_are_imf_fixdates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
