#include "core/mailbox.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

static size_t deliver_all(struct mailbox *m);

/* EV_READ: another thread's wake. */
static void on_wake(evutil_socket_t fd UNUSED, short what, void *ctx)
{
	if (what & EV_READ)
		(void)mailbox_drain(ctx);
	else
		(void)deliver_all(ctx);
}

int mailbox_init(struct mailbox *m, struct event_base *base)
{
	int err;

	*m = (struct mailbox){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	if (m->fd == -1)
		return -errno;
	if (!base)
		return 0;
	if (event_assign(&m->ev, base, m->fd, EV_READ | EV_PERSIST, on_wake, m) == -1 || event_add(&m->ev, NULL) == -1) {
		err = errno ? -errno : -ENOMEM;
		close(m->fd);
		m->fd = -1;
		return err;
	}
	m->watched = true;
	return 0;
}

void mailbox_done(struct mailbox *m)
{
	if (m->fd == -1)
		return;
	/* A poster whose mail is delivered already may still be on its way to the eventfd. */
	while (atomic_load_explicit(&m->posting, memory_order_acquire) != 0)
		sched_yield();
	if (m->watched)
		event_del(&m->ev);
	m->watched = false;
	close(m->fd);
	m->fd = -1;
}

/* The counter of an eventfd is full after 2^64 - 2 wakes: a write can fail for a signal only. */
static void wake(int fd)
{
	const uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) == -1 && errno == EINTR)
		;
}

/* True: the box was empty. */
static bool push(struct mailbox *m, struct mail *mail)
{
	struct mail *head = atomic_load_explicit(&m->head, memory_order_relaxed);

	do
		mail->next = head;
	while (!atomic_compare_exchange_weak_explicit(&m->head, &head, mail, memory_order_release, memory_order_relaxed));
	return !head;
}

void mailbox_post(struct mailbox *m, struct mail *mail)
{
	atomic_fetch_add_explicit(&m->posting, 1, memory_order_relaxed);
	if (push(m, mail))
		wake(m->fd);
	atomic_fetch_sub_explicit(&m->posting, 1, memory_order_release);
}

void mailbox_post_here(struct mailbox *m, struct mail *mail)
{
	if (!push(m, mail))
		return;
	if (m->watched)
		event_active(&m->ev, EV_TIMEOUT, 0);
	else
		wake(m->fd);
}

/* The list is the newest first; turns it round. */
static struct mail *oldest_first(struct mail *list)
{
	struct mail *turned = NULL;

	while (list) {
		struct mail *next = list->next;

		list->next = turned;
		turned = list;
		list = next;
	}
	return turned;
}

static size_t deliver_all(struct mailbox *m)
{
	struct mail *mail = oldest_first(atomic_exchange_explicit(&m->head, NULL, memory_order_acquire));
	size_t count = 0;

	if (m->woken)
		*m->woken = true;
	while (mail) {
		struct mail *next = mail->next;

		mail->deliver(mail);
		mail = next;
		count++;
	}
	return count;
}

size_t mailbox_drain(struct mailbox *m)
{
	uint64_t wakes;

	/* The eventfd before the list: a mail that comes in between leaves a wake too many, never one too few. */
	while (read(m->fd, &wakes, sizeof(wakes)) == -1 && errno == EINTR)
		;
	return deliver_all(m);
}
