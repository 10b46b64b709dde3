/*
 * date: the time of day as Date has it, IMF-fixdate (RFC 9110, 5.6.7), made once a second.
 */
#ifndef FOREBAY_CORE_DATE_H
#define FOREBAY_CORE_DATE_H

#include "core/slice.h"

#define DATE_BYTES 29

struct date {
	int64_t second; /* since 1970, of the text */
	bool made;
	char text[DATE_BYTES];
};

/* Of this time, in microseconds since 1970; lies in d. Empty before the year 0 and after 9999. */
struct slice date_text(struct date *d, int64_t wall_us);

#endif
