#include "proxy/client/http2_flood.h"

static const char *const reasons[] = {
	[FLOOD_RESET] = "too many streams reset",
	[FLOOD_MALFORMED] = "too many malformed requests",
	[FLOOD_SETTINGS] = "too many SETTINGS",
	[FLOOD_PING] = "too many PING",
	[FLOOD_PRIORITY] = "too many PRIORITY",
	[FLOOD_WINDOW_UPDATE] = "too many WINDOW_UPDATE",
	[FLOOD_EMPTY] = "too many empty DATA",
	[FLOOD_CONTINUATION] = "too many CONTINUATION",
	[FLOOD_OTHER] = "too many frames of unknown types",
};
static_assert(ARRAY_LEN(reasons) == FLOOD_KIND_COUNT, "a row for each kind");

void http2_flood_init(struct http2_flood *f, unsigned allowance, uint64_t now_ms)
{
	*f = (struct http2_flood){ .allowance = allowance, .since_ms = now_ms };
}

const char *http2_flood_count(struct http2_flood *f, enum http2_flood_kind kind, uint64_t now_ms)
{
	uint64_t passed = now_ms > f->since_ms ? MIN(now_ms - f->since_ms, HTTP2_FLOOD_REGAIN_MS) : 0;
	uint64_t back = passed * 1000 * f->allowance / HTTP2_FLOOD_REGAIN_MS;

	if (kind == FLOOD_WINDOW_UPDATE && f->updates > 0) {
		f->updates--;
		return NULL;
	}
	f->spent = f->spent > back ? f->spent - back : 0;
	if (back > 0 || passed == 0)
		f->since_ms = MAX(f->since_ms, now_ms); /* what is too little to count is not lost */
	if (f->spent + 1000 > (uint64_t)f->allowance * 1000)
		return reasons[kind];
	f->spent += 1000;
	return NULL;
}
