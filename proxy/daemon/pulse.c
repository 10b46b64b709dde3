#include "proxy/daemon/pulse.h"

/* A look that comes later than this says that it was the master who did not run: stopped, or on a machine that stood still. */
#define LATE_MS (3 * PULSE_LOOK_MS)

static void forgive(struct pulse *p, uint64_t now_ms)
{
	for (unsigned i = 0; i < p->threads; i++)
		p->grown_ms[i] = now_ms;
}

void pulse_start(struct pulse *p, unsigned threads, uint64_t now_ms)
{
	assert(threads <= CHANNEL_THREADS_MAX);
	*p = (struct pulse){ .threads = threads, .looked_ms = now_ms };
	forgive(p, now_ms);
}

void pulse_heard(struct pulse *p, const uint64_t *ticks, uint64_t now_ms)
{
	p->heard = true;
	for (unsigned i = 0; i < p->threads; i++) {
		if (ticks[i] <= p->ticks[i])
			continue;
		p->ticks[i] = ticks[i];
		p->grown_ms[i] = now_ms;
	}
}

bool pulse_stands_still(struct pulse *p, uint64_t now_ms, unsigned *ret_thread)
{
	bool late = now_ms - p->looked_ms > LATE_MS;

	p->looked_ms = now_ms;
	if (late)
		forgive(p, now_ms);
	for (unsigned i = 0; i < p->threads; i++) {
		if (now_ms - p->grown_ms[i] < PULSE_STILL_MS)
			continue;
		*ret_thread = i;
		return true;
	}
	return false;
}

bool pulse_all_beat(struct pulse *p)
{
	for (unsigned i = 0; i < p->threads; i++)
		if (p->ticks[i] <= p->fed[i])
			return false;
	memcpy(p->fed, p->ticks, sizeof(p->fed));
	return p->heard;
}
