/*
 * nearest: which known word was meant by an unknown one.
 * Pure functions.
 */
#ifndef FOREBAY_CONF_NEAREST_H
#define FOREBAY_CONF_NEAREST_H

#include "core/slice.h"

#define NEAREST_MAX 64 /* bytes of a word that is looked at; a longer one has no neighbours */

/*
 * The number of single-byte insertions, deletions, changes and swaps of neighbours that make one of the other, letters of
 * either case being the same. NEAREST_MAX + 1 if either is too long.
 */
unsigned nearest_distance(struct slice a, struct slice b);

/* The search for the nearest of many: begins with the word alone. */
struct nearest {
	struct slice word;
	struct slice best; /* empty: none is near enough */
	unsigned distance; /* of best */
};

/* At most two typing errors are a neighbour's, one in a word of up to three bytes. */
void nearest_offer(struct nearest *n, struct slice candidate);

#endif
