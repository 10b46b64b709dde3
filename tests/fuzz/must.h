/* must: what ends a fuzzer: a promise that does not hold. */
#ifndef FOREBAY_TESTS_MUST_H
#define FOREBAY_TESTS_MUST_H

#include <stdio.h>
#include <stdlib.h>

#include "core/base.h"

#define must(holds)                                                                                                            \
	do {                                                                                                                   \
		if (!(holds)) {                                                                                                \
			fprintf(stderr, "%s:%d: must hold: %s\n", __FILE__, __LINE__, #holds);                                 \
			abort();                                                                                               \
		}                                                                                                              \
	} while (0)

#endif
