#include "core/loop.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/log.h"

#define STALL_MS    500
#define WALL_AGE_US 100000u
/*
 * Blocks at hand: 16M, but little of a small memory_limit, and those that were of no use for so long go. None is kept while memory is short:
 * they are not charged.
 */
#define BLOCKS_KEPT    256u
#define BLOCKS_SHARE   32u
#define BLOCKS_IDLE_MS 1000
/* Pieces at hand: some hundred requests' worth. */
#define PIECES_KEPT  (1u << 20)
#define PIECES_SHARE 64u
/* Callbacks before the kernel is asked again: those that activate themselves must not keep others out. */
#define DISPATCH_MAX 64
/* The same of timers: of 10,000 slow clients one in ten has its own due at each tick, milliseconds' worth of them. */
#define TIMERS_AT_ONCE 64

/* Something on this thread took its time, or the machine did: every client of the thread has waited for it. */
static void stalled(struct loop *l, uint64_t late_ms)
{
	atomic_fetch_add_explicit(&l->stalls, 1, memory_order_relaxed);
	log_warning("event=loop_stalled thread=%u ms=%" PRIu64, l->index, late_ms);
}

uint64_t loop_read_clock(struct loop *l)
{
	l->mono_us = clock_mono_us(l->clock);
	l->clock_stale = !l->runs;
	return l->mono_us;
}

int64_t loop_wall_us(struct loop *l)
{
	uint64_t now_us = loop_now_us(l);

	if (now_us - l->wall_of_us >= WALL_AGE_US || !l->wall_us || !l->runs) {
		l->wall_us = clock_wall_us(l->clock);
		l->wall_of_us = now_us;
	}
	return l->wall_us + (int64_t)(now_us - l->wall_of_us);
}

uint64_t loop_turn(struct loop *l)
{
	if (!l->in_turn)
		event_active(&l->turn_end, EV_TIMEOUT, 0);
	l->in_turn = true;
	return l->turn;
}

/*
 * When nothing else is active, the next that happens is that the kernel is asked. While there is always something, it is asked once in
 * DISPATCH_MAX callbacks: two such steps have one of these between them, wherever in the first of them somebody looked.
 */
static void on_turn_end(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct loop *l = ctx;
	bool over = event_base_get_num_events(l->base, EVENT_BASE_COUNT_ACTIVE) == 0;

	if (over || l->callbacks > DISPATCH_MAX) {
		l->turn += over ? 2 : 1;
		l->callbacks = 0;
	}
	l->in_turn = false;
	if (!over)
		(void)loop_turn(l);
}

bool loop_look(struct loop *l, struct loop_look *k)
{
	const struct timeval at_once = { 0 };

	if (k->next)
		return true;
	if (l->looks.next == &l->looks && event_add(&l->look, &at_once) == -1)
		return false;
	k->next = &l->looks;
	k->prev = l->looks.prev;
	k->prev->next = k;
	l->looks.prev = k;
	return true;
}

void loop_look_cancel(struct loop_look *k)
{
	if (!k->next)
		return;
	k->prev->next = k->next;
	k->next->prev = k->prev;
	k->next = k->prev = NULL;
}

/* What they begin to wait for now is the next look. */
static void on_look(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct loop *l = ctx;
	struct loop_look now = l->looks;

	if (now.next == &l->looks)
		return; /* all were cancelled */
	now.next->prev = now.prev->next = &now;
	l->looks.next = l->looks.prev = &l->looks;
	while (now.next != &now) {
		struct loop_look *k = now.next;

		loop_look_cancel(k);
		loop_callback(l);
		k->looked(k);
	}
}

struct loop_block {
	struct loop_block *next;
};

static void blocks_trim(struct loop *l, uint64_t now_ms)
{
	for (unsigned spare = l->blocks_least; spare > 0; spare--) {
		struct loop_block *block = l->blocks;

		l->blocks = block->next;
		l->block_count--;
		munmap(block, LOOP_BLOCK_BYTES);
	}
	l->blocks_least = l->block_count;
	l->blocks_ms = now_ms;
}

static void fire_timers(struct loop *l)
{
	bool more = true;

	while (more) {
		more = wheel_advance(&l->wheel, loop_now_ms(l), TIMERS_AT_ONCE);
		if (more && loop_look(l, &l->more_timers))
			return; /* else, without memory for that, they come now */
	}
}

static void on_more_timers(struct loop_look *k)
{
	fire_timers(CONTAINER_OF(k, struct loop, more_timers));
}

static void on_tick(evutil_socket_t fd UNUSED, short what UNUSED, void *ctx)
{
	struct loop *l = ctx;
	uint64_t now_ms;

	loop_callback(l);
	now_ms = loop_now_ms(l);

	if (now_ms > l->tick_ms + WHEEL_TICK_MS + STALL_MS)
		stalled(l, now_ms - l->tick_ms - WHEEL_TICK_MS);
	l->tick_ms = now_ms;
	atomic_fetch_add_explicit(&l->ticks, 1, memory_order_relaxed);
	if (now_ms - l->blocks_ms >= BLOCKS_IDLE_MS) {
		blocks_trim(l, now_ms);
		pieces_trim(&l->pieces);
	}
	fire_timers(l);
}

static struct event_base *base_new(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;

	if (!config)
		return NULL;
	/*
	 * The environment could ask for epoll's changelist, which confuses events of one descriptor that was closed and
	 * opened again within one turn. EARLY_CLOSE is EV_CLOSED: how a client's departure is seen.
	 */
	if (event_config_set_flag(
	        config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_NO_CACHE_TIME | EVENT_BASE_FLAG_IGNORE_ENV) == 0 &&
	    event_config_set_max_dispatch_interval(config, NULL, DISPATCH_MAX, 0) == 0 &&
	    event_config_require_features(config, EV_FEATURE_O1 | EV_FEATURE_EARLY_CLOSE) == 0)
		base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

static int tick_start(struct loop *l)
{
	const struct timeval every = { .tv_usec = WHEEL_TICK_MS * 1000 };

	if (event_assign(&l->turn_end, l->base, -1, 0, on_turn_end, l) == -1 ||
	    event_assign(&l->look, l->base, -1, 0, on_look, l) == -1 ||
	    event_assign(&l->tick, l->base, -1, EV_PERSIST, on_tick, l) == -1 || event_add(&l->tick, &every) == -1)
		return -ENOMEM;
	return 0;
}

int loop_new(unsigned index, const struct clock *clock, struct budget *budget, struct spool *spool, struct loop **ret)
{
	struct loop *l = calloc(1, sizeof(*l));
	int err = -ENOMEM;

	if (!l)
		return -ENOMEM;
	l->index = index;
	l->clock = clock;
	l->clock_stale = true;
	l->blocks_max = (unsigned)MIN(budget->limit / BLOCKS_SHARE / LOOP_BLOCK_BYTES, (size_t)BLOCKS_KEPT);
	pieces_init(&l->pieces, MIN(budget->limit / PIECES_SHARE, (size_t)PIECES_KEPT));
	l->spool = spool;
	l->looks.next = l->looks.prev = &l->looks;
	l->more_timers.looked = on_more_timers;
	l->mailbox.fd = -1;
	lease_init(&l->lease, budget);
	wheel_init(&l->wheel, loop_now_ms(l));
	l->scratch = malloc(LOOP_SCRATCH_BYTES);
	errno = 0;
	l->base = base_new();
	if (!l->base && errno)
		err = -errno; /* no descriptor for epoll, most likely */
	if (!l->scratch || !l->base)
		goto fail;
	err = mailbox_init(&l->mailbox, l->base);
	l->mailbox.woken = &l->clock_stale;
	if (!err)
		err = tick_start(l);
	if (err)
		goto fail;
	*ret = l;
	return 0;
fail:
	loop_free(&l);
	return err;
}

void *loop_block_take(struct loop *l)
{
	struct loop_block *block = l->blocks;

	if (block) {
		l->blocks = block->next;
		l->block_count--;
		l->blocks_least = MIN(l->blocks_least, l->block_count);
		l->blocks_out++;
		return block;
	}
	block = mmap(NULL, LOOP_BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (block == MAP_FAILED)
		return NULL;
	l->blocks_out++;
	return block;
}

void loop_block_give(struct loop *l, void *block)
{
	struct loop_block *given = block;

	assert(l->blocks_out > 0);
	l->blocks_out--;
	if (l->block_count >= l->blocks_max || budget_pressure(l->lease.budget) != BUDGET_EASY) {
		munmap(block, LOOP_BLOCK_BYTES);
		return;
	}
	given->next = l->blocks;
	l->blocks = given;
	l->block_count++;
}

static void free_blocks(struct loop *l)
{
	struct loop_block *next;

	for (struct loop_block *block = l->blocks; block; block = next) {
		next = block->next;
		munmap(block, LOOP_BLOCK_BYTES);
	}
}

/* What others still owe to this loop: the ends of spool jobs. They come by themselves, after a disk's time. */
size_t loop_settle(struct loop *l)
{
	struct pollfd wake = { .fd = l->mailbox.fd, .events = POLLIN };
	size_t all = 0, n;

	while ((n = mailbox_drain(&l->mailbox)) > 0 || l->awaited > 0) {
		all += n;
		if (l->awaited > 0)
			poll(&wake, 1, -1);
	}
	return all;
}

void loop_free(struct loop **loop)
{
	struct loop *l = *loop;

	if (!l)
		return;
	if (l->mailbox.fd != -1)
		(void)loop_settle(l);
	if (event_initialized(&l->turn_end))
		event_del(&l->turn_end);
	if (event_initialized(&l->look))
		event_del(&l->look);
	if (event_initialized(&l->tick))
		event_del(&l->tick);
	mailbox_done(&l->mailbox);
	lease_done(&l->lease);
	free_blocks(l);
	pieces_done(&l->pieces);
	if (l->base)
		event_base_free(l->base);
	free(l->scratch);
	free(l);
	*loop = NULL;
}

void loop_run(struct loop *l)
{
	l->tick_ms = loop_now_ms(l);
	l->runs = true;
	event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY);
	l->runs = false;
	l->clock_stale = true;
}

void loop_stop(struct loop *l)
{
	event_base_loopbreak(l->base);
}

void loop_timer_set(struct loop *l, struct timer *t, uint64_t after_ms)
{
	/* Rounded up: a timer never fires early, not even by part of a millisecond. */
	wheel_set(&l->wheel, t, (loop_now_us(l) + 999) / 1000 + after_ms);
}

void loop_timer_clear(struct loop *l, struct timer *t)
{
	wheel_clear(&l->wheel, t);
}
