#include "conf/sections.h"

#include <stdlib.h>

struct section *sections_add(struct sections *s, enum option_section kind)
{
	size_t size = s->size ? s->size * 2 : 16;
	struct section *list = s->list;

	if (s->count == s->size) {
		list = reallocarray(list, size, sizeof(*list));
		if (!list)
			return NULL;
		s->list = list;
		s->size = size;
	}
	list[s->count] = (struct section){ .kind = kind };
	return &list[s->count++];
}

void sections_done(struct sections *s)
{
	free(s->list);
	*s = (struct sections){ 0 };
}

unsigned section_said(const struct section *s, const char *option)
{
	const struct option *o = option_find(s->kind, slice_str(option));

	return s->option_lines[option_index(o)];
}
