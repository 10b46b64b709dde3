#include "proxy/serve/again.h"

unsigned again_lost_max(const struct conf_pool *pool)
{
	return pool->app == APP_NONE ? pool->retries : MIN(pool->retries, pool->replay_max);
}

bool again_may(struct again *a, const struct conf_pool *pool, enum method method, enum attempt_end how, bool sent)
{
	switch (how) {
	case ATTEMPT_UNREACHABLE:
		return !sent; /* the time it may wait goes on */
	case ATTEMPT_UNREAD:
		return ++a->unread <= AGAIN_UNREAD_MAX && !sent;
	case ATTEMPT_LOST:
		return ++a->lost <= again_lost_max(pool) && !sent && method_is_idempotent(method);
	case ATTEMPT_WHOLE:
	case ATTEMPT_WHOLE_EOF:
	case ATTEMPT_GARBAGE: /* that worker lives, and may begin yet with what it was sent */
	case ATTEMPT_TIMEOUT: /* the same */
	case ATTEMPT_NO_MEMORY:
	case ATTEMPT_NO_SPOOL:
	case ATTEMPT_TOO_LARGE:
	case ATTEMPT_ABORTED:
	case ATTEMPT_END_COUNT:
		break;
	}
	return false;
}
