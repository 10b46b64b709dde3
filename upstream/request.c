#include "upstream/request.h"

#include <stdlib.h>

struct request *request_new(struct loop *loop)
{
	struct request *r;

	if (!lease_take(&loop->lease, sizeof(*r)))
		return NULL;
	r = pieces_take(&loop->pieces, sizeof(*r));
	if (!r) {
		lease_give(&loop->lease, sizeof(*r));
		return NULL;
	}
	*r = (struct request){ .refs = 1, .loop = loop, .charged = sizeof(*r) };
	head_init(&r->head);
	buf_init(&r->wire, REQUEST_WIRE_MAX);
	return r;
}

struct request *request_hold(struct request *r)
{
	r->refs++;
	return r;
}

int request_charge(struct request *r)
{
	size_t now = sizeof(*r) + head_memory(&r->head) + r->wire.size;

	if (now > r->charged && !lease_take(&r->loop->lease, now - r->charged))
		return -ENOMEM;
	if (now < r->charged)
		lease_give(&r->loop->lease, r->charged - now);
	r->charged = now;
	return 0;
}

void request_drop(struct request **r)
{
	struct request *old = *r;

	*r = NULL;
	if (!old || --old->refs > 0)
		return;
	body_free(&old->body);
	head_done(&old->head);
	buf_done(&old->wire);
	lease_give(&old->loop->lease, old->charged);
	pieces_give(&old->loop->pieces, old, sizeof(*old));
}
