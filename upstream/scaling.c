#include "upstream/scaling.h"

/* So that the one that is added does not take the last page. */
static bool has_room(const struct scaling_figures *f)
{
	return f->worker_bytes == 0 || f->room_bytes == UINT64_MAX || f->room_bytes / 2 > f->worker_bytes;
}

static enum scaling_step look_up(const struct scaling_rules *rules, const struct scaling_figures *f)
{
	if (f->wanted < rules->least)
		return SCALING_UP;
	if (f->delay_us <= rules->up_delay_us || f->wanted >= rules->most || f->starting > 0)
		return SCALING_STAY;
	return has_room(f) ? SCALING_UP : SCALING_NO_ROOM;
}

enum scaling_step scaling_look(
    struct scaling *s, const struct scaling_rules *rules, const struct scaling_figures *f, uint64_t now_us)
{
	enum scaling_step step = look_up(rules, f);

	/* One less would not have been enough. */
	if (f->busy > (uint64_t)(f->wanted - 1) * rules->threads || f->starting > 0 || step != SCALING_STAY ||
	    s->needed_us == 0)
		s->needed_us = now_us;
	if (step != SCALING_STAY || f->wanted <= rules->least || now_us - s->needed_us < rules->down_after_us)
		return step;
	s->needed_us = now_us; /* for the next one it begins anew */
	return SCALING_DOWN;
}
