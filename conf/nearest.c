#include "conf/nearest.h"

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* One row of the table after the other (Damerau and Levenshtein; a swapped pair is not edited again). */
unsigned nearest_distance(struct slice a, struct slice b)
{
	unsigned rows[3][NEAREST_MAX + 1];
	unsigned *before = rows[0], *last = rows[1], *now = rows[2], *turn;

	if (a.len > NEAREST_MAX || b.len > NEAREST_MAX)
		return NEAREST_MAX + 1;
	for (size_t j = 0; j <= b.len; j++)
		last[j] = (unsigned)j;
	for (size_t i = 1; i <= a.len; i++) {
		now[0] = (unsigned)i;
		for (size_t j = 1; j <= b.len; j++) {
			bool same = lower(a.ptr[i - 1]) == lower(b.ptr[j - 1]);

			now[j] = MIN(last[j - 1] + !same, MIN(last[j], now[j - 1]) + 1);
			if (i > 1 && j > 1 && lower(a.ptr[i - 1]) == lower(b.ptr[j - 2]) &&
			    lower(a.ptr[i - 2]) == lower(b.ptr[j - 1]))
				now[j] = MIN(now[j], before[j - 2] + 1);
		}
		turn = before;
		before = last;
		last = now;
		now = turn;
	}
	return last[b.len];
}

void nearest_offer(struct nearest *n, struct slice candidate)
{
	unsigned allowed = MIN(n->word.len, candidate.len) <= 3 ? 1 : 2;
	unsigned distance;

	if (MAX(n->word.len, candidate.len) - MIN(n->word.len, candidate.len) > allowed)
		return;
	distance = nearest_distance(n->word, candidate);
	if (distance > allowed || (n->best.len > 0 && distance >= n->distance))
		return;
	n->best = candidate;
	n->distance = distance;
}
