#include "proxy/client/crowd.h"

#define LOOK_AT_MOST 1024 /* members */
#define ASK_AT_MOST  64   /* of them, whether they are quiet */
#define FRESH_MS     1000

void crowd_init(struct crowd *c)
{
	*c = (struct crowd){ 0 };
	for (unsigned i = 0; i < CROWD_LIST_COUNT; i++)
		c->lists[i].next = c->lists[i].prev = &c->lists[i];
}

void crowd_move(struct crowd *c, struct crowd_member *m, enum crowd_list to)
{
	struct crowd_member *list = &c->lists[to];

	if (m->where != CROWD_NONE) {
		m->prev->next = m->next;
		m->next->prev = m->prev;
		c->count--;
	}
	m->where = (uint8_t)to;
	if (to == CROWD_NONE)
		return;
	m->prev = list->prev;
	m->next = list;
	m->prev->next = m;
	list->prev = m;
	c->count++;
}

bool crowd_others_busy(const struct crowd *c, const struct crowd_member *m)
{
	const struct crowd_member *list = &c->lists[CROWD_BUSY], *first = list->next == m ? m->next : list->next;

	return first != list;
}

bool crowd_evict_idle(struct crowd *c, uint64_t now_ms, const char *why)
{
	struct crowd_member *list = &c->lists[CROWD_IDLE];
	unsigned looked = 0, asked = 0;

	for (struct crowd_member *m = list->next; m != list && looked < LOOK_AT_MOST && asked < ASK_AT_MOST;
	     m = m->next, looked++) {
		if (m->fresh && now_ms < m->since_ms + FRESH_MS)
			continue;
		asked++;
		if (m->acts->is_quiet(m)) {
			m->acts->evict(m, why);
			return true;
		}
	}
	return false;
}

bool crowd_evict_slowest(struct crowd *c, uint64_t now_ms, uint64_t grace_ms, const char *why)
{
	struct crowd_member *list = &c->lists[CROWD_WAITING], *slowest = NULL;
	uint64_t slowest_rate = UINT64_MAX;
	unsigned looked = 0;

	for (struct crowd_member *m = list->next; m != list && looked < LOOK_AT_MOST; m = m->next, looked++) {
		uint64_t ms = now_ms > m->since_ms ? now_ms - m->since_ms : 0;

		if (ms < grace_ms)
			continue;
		if (m->bytes * 1000 / (ms + 1) < slowest_rate) {
			slowest_rate = m->bytes * 1000 / (ms + 1);
			slowest = m;
		}
	}
	if (!slowest)
		return false;
	slowest->acts->evict(slowest, why);
	return true;
}

void crowd_evict_quiet(struct crowd *c, const char *why)
{
	struct crowd_member *list = &c->lists[CROWD_IDLE], *next;

	for (struct crowd_member *m = list->next; m != list; m = next) {
		next = m->next;
		if (m->acts->is_quiet(m))
			m->acts->evict(m, why);
	}
}

void crowd_drain(struct crowd *c)
{
	for (enum crowd_list which = CROWD_IDLE; which < CROWD_LIST_COUNT; which++)
		for (struct crowd_member *m = c->lists[which].next; m != &c->lists[which]; m = m->next)
			if (m->acts->drain)
				m->acts->drain(m);
}

void crowd_evict_all(struct crowd *c, enum crowd_list which, const char *why)
{
	struct crowd_member *list = &c->lists[which];

	while (list->next != list)
		list->next->acts->evict(list->next, why);
}

void crowd_spill(struct crowd *c)
{
	static const enum crowd_list with_bodies[] = { CROWD_WAITING, CROWD_BUSY };

	for (size_t i = 0; i < ARRAY_LEN(with_bodies); i++) {
		struct crowd_member *list = &c->lists[with_bodies[i]];

		for (struct crowd_member *m = list->next; m != list; m = m->next)
			m->acts->spill(m);
	}
}
