#include "proxy/serve/exchange_own.h"

#include <stdlib.h>

#include "proxy/serve/exchange_response.h"
#include "proxy/serve/porter.h"
#include "proxy/serve/refusal.h"

#define RETRY_AFTER_S 1

static void refusal_delivered(struct mail *m)
{
	struct exchange *ex = CONTAINER_OF(m, struct exchange, mail);

	ex->mailed = false;
	if (ex->dead)
		free(ex);
	else
		ex->events->respond(ex->ctx);
}

static void page_make(struct exchange *ex)
{
	struct refusal refusal = { .status = ex->status, .reason = ex->reason, .id = exchange_id(ex) };
	struct buf page;

	refusal.accept = head_get(&ex->head, FIELD_ACCEPT);
	refusal.retry_after_s = ex->status == 503 ? RETRY_AFTER_S : 0;
	buf_init(&page, 16u << 10);
	exchange_response_reset(ex);
	/* Without memory for the page the status goes out alone. */
	if (ex->status >= 400 && refusal_make(&refusal, &ex->response, &page) != 0) {
		head_done(&ex->response);
		head_init(&ex->response);
		buf_clear(&page);
	}
	ex->response.status = (uint16_t)ex->status;
	ex->response.version = 11;
	if (exchange_response_new(ex, page.len) == 0) {
		if (page.len && body_append(ex->response_body, buf_slice(&page)) != 0)
			log_warning("no memory for an error page id=%s status=%u", ex->id, ex->status);
		body_finish(ex->response_body);
	}
	buf_done(&page);
}

/* Takes the content. */
static int own_make(struct exchange *ex, struct porter_answer *own)
{
	int err = porter_head(own, &ex->response);

	if (!err)
		err = exchange_response_new(ex, own->len);
	if (!err && own->fd != -1)
		err = body_append_file(ex->response_body, &own->fd, 0, own->len);
	if (!err)
		body_finish(ex->response_body);
	return err;
}

/* What forebay itself says: the porter's word, or a page. */
static void answer(struct exchange *ex, unsigned status, const char *reason, struct porter_answer *own)
{
	exchange_let_go(ex);
	exchange_enter(ex, EXCHANGE_DRAINING);
	ex->status = status;
	ex->reason = reason;
	ex->refused = true;
	ex->answered_us = exchange_now_us(ex);
	ex->response_over = true;
	if (own && own_make(ex, own) != 0) {
		ex->status = 503;
		ex->reason = "memory_limit";
		own = NULL;
	}
	if (!own)
		page_make(ex);
	if (porter_hsts(ex->origin.listen, ex->origin.client.secure, &ex->response) != 0)
		log_debug("no memory for a field id=%s", ex->id);
	ex->given = true;
	ex->mail.deliver = refusal_delivered;
	ex->mailed = true;
	mailbox_post_here(&ex->cx->loop->mailbox, &ex->mail);
}

void exchange_refuse(struct exchange *ex, unsigned status, const char *reason)
{
	if (ex->state != EXCHANGE_DRAINING && !ex->given)
		answer(ex, status, reason, NULL);
}

bool exchange_porter_answered(struct exchange *ex)
{
	struct porter_answer own;

	porter_ask(ex->origin.listen, ex->origin.client.secure, &ex->head, &own);
	if (own.status != 0)
		answer(ex, own.status, own.reason, own.status < 400 ? &own : NULL);
	porter_answer_done(&own);
	return own.status != 0;
}

static void cut_delivered(struct mail *m)
{
	struct exchange *ex = CONTAINER_OF(m, struct exchange, mail);

	ex->mailed = false;
	if (ex->dead)
		free(ex);
	else
		ex->events->cut(ex->ctx);
}

void exchange_cut_later(struct exchange *ex, const char *reason)
{
	if (ex->mailed)
		return;
	exchange_let_go(ex);
	ex->reason = reason;
	ex->refused = true;
	ex->mail.deliver = cut_delivered;
	ex->mailed = true;
	mailbox_post_here(&ex->cx->loop->mailbox, &ex->mail);
}
