#include "proxy/client/tls_memory.h"

static _Thread_local struct pieces *here;

void tls_memory_here(struct pieces *p)
{
	here = p;
}

void *tls_memory_take(size_t size, const char *file UNUSED, int line UNUSED)
{
	return here ? pieces_take(here, size) : malloc(size);
}

void *tls_memory_resize(void *memory, size_t size, const char *file UNUSED, int line UNUSED)
{
	return realloc(memory, size);
}

void tls_memory_give(void *memory, const char *file UNUSED, int line UNUSED)
{
	if (here && memory)
		pieces_give_back(here, memory);
	else
		free(memory);
}
