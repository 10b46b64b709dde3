#include "core/pieces.h"

/* One of each size. */
static void drop_some(struct pieces *p)
{
	for (unsigned i = 0; i < PIECES_SIZES; i++) {
		struct piece *piece = p->kept[i];

		if (!piece)
			continue;
		p->kept[i] = piece->next;
		p->bytes -= pieces_size(i);
		free(piece);
	}
}

void pieces_done(struct pieces *p)
{
	while (p->bytes > 0)
		drop_some(p);
}

void pieces_trim(struct pieces *p)
{
	size_t target = p->bytes - (p->bytes_least + 1) / 2;

	while (p->bytes > target)
		drop_some(p);
	p->bytes_least = p->bytes;
}
