#include "proxy/client/http2_memory.h"

#include <stddef.h>
#include <string.h>

/* Before what the library was given: it does not say how much it gives back. */
struct library_piece {
	_Alignas(max_align_t) size_t bytes; /* with this */
};

static void *memory_malloc(size_t size, void *ctx)
{
	struct loop *loop = http2_loop(ctx);
	struct library_piece *piece;
	size_t bytes;

	if (__builtin_add_overflow(size, sizeof(*piece), &bytes) || !lease_take(&loop->lease, bytes))
		return NULL;
	piece = pieces_take(&loop->pieces, bytes);
	if (!piece) {
		lease_give(&loop->lease, bytes);
		return NULL;
	}
	piece->bytes = bytes;
	return piece + 1;
}

static void memory_free(void *memory, void *ctx)
{
	struct loop *loop = http2_loop(ctx);
	struct library_piece *piece = memory;

	if (!piece)
		return;
	piece--;
	lease_give(&loop->lease, piece->bytes);
	pieces_give(&loop->pieces, piece, piece->bytes);
}

static void *memory_calloc(size_t n, size_t size, void *ctx)
{
	size_t bytes;
	void *fresh = __builtin_mul_overflow(n, size, &bytes) ? NULL : memory_malloc(bytes, ctx);

	return fresh ? memset(fresh, 0, bytes) : NULL;
}

static void *memory_realloc(void *memory, size_t size, void *ctx)
{
	void *fresh = memory_malloc(size, ctx);

	if (!fresh)
		return NULL;
	if (memory)
		memcpy(fresh, memory, MIN(size, ((struct library_piece *)memory - 1)->bytes - sizeof(struct library_piece)));
	memory_free(memory, ctx);
	return fresh;
}

nghttp2_mem http2_memory(struct http2_client *c)
{
	return (nghttp2_mem){
		.mem_user_data = c,
		.malloc = memory_malloc,
		.free = memory_free,
		.calloc = memory_calloc,
		.realloc = memory_realloc,
	};
}
