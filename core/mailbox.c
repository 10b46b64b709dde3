#include "core/mailbox.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_wake(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	mailbox_drain(ctx);
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

void mailbox_post(struct mailbox *m, struct mail *mail)
{
	struct mail *head;

	atomic_fetch_add_explicit(&m->posting, 1, memory_order_relaxed);
	head = atomic_load_explicit(&m->head, memory_order_relaxed);
	do
		mail->next = head;
	while (!atomic_compare_exchange_weak_explicit(&m->head, &head, mail, memory_order_release, memory_order_relaxed));
	if (!head)
		wake(m->fd);
	atomic_fetch_sub_explicit(&m->posting, 1, memory_order_release);
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

size_t mailbox_drain(struct mailbox *m)
{
	size_t count = 0;
	uint64_t wakes;
	struct mail *mail;

	/* The eventfd before the list: a mail that comes in between leaves a wake too many, never one too few. */
	while (read(m->fd, &wakes, sizeof(wakes)) == -1 && errno == EINTR)
		;
	mail = oldest_first(atomic_exchange_explicit(&m->head, NULL, memory_order_acquire));
	while (mail) {
		struct mail *next = mail->next;

		mail->deliver(mail);
		mail = next;
		count++;
	}
	return count;
}
