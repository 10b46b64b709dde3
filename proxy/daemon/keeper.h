/*
 * keeper: the master's side of the front: starts it, hands it what it needs, starts another one when it dies, and ends one whose
 * threads stand still.
 * Owns:   the front's process, the control socket, the configuration's memfd.
 * Never:  keeps what it hands over of the workers' slots. Blocks.
 * Thread: the master's only one.
 */
#ifndef FOREBAY_PROXY_KEEPER_H
#define FOREBAY_PROXY_KEEPER_H

#include <event2/event.h>

#include "conf/conf.h"
#include "core/clock.h"
#include "proxy/daemon/channel.h"
#include "proxy/daemon/keys.h"
#include "proxy/daemon/limits.h"
#include "proxy/daemon/listeners.h"
#include "proxy/observe/logger.h"
#include "upstream/spawn.h"

struct keeper;

/* None is called from within a call of the master's, but for keeper_start and keeper_reaped. */
struct keeper_events {
	void (*serving)(void *ctx); /* a front has adopted the configuration and takes slots */
	void (*lost)(void *ctx);    /* it has gone, and another one will be started */
	void (*tick)(void *ctx);    /* keeper_figures are new */
	void (*drained)(void *ctx); /* nothing is left in it */
	/* The own worker of this slot took too long with a request, or broke the protocol. The numbers are the front's: not checked. */
	void (*replace)(void *ctx, size_t pool_index, unsigned slot, pid_t pid);
	/* How much there was to do for a pool with a variable number of workers. Not checked. */
	void (*load)(void *ctx, size_t pool_index, uint64_t delay_us, unsigned requests);
	/* CHANNEL_POISON and CHANNEL_POISON_BODY as they come, not checked. *fd is closed after the call unless it is taken. */
	void (*poison)(void *ctx, const struct channel_message *m, int *fd);
	/* There is none and none will come: it was told to end, or (failed) could not even start serving the first time, or the last one crashed. */
	void (*gone)(void *ctx, bool failed);
};

struct keeper_log {
	enum logger_kind kind;
	int fd; /* -1: off */
};

/* Borrowed for the keeper's life, but for the struct itself. */
struct keeper_options {
	struct event_base *base;
	const struct clock *clock;
	const struct conf *conf;
	const struct limits *limits;
	const struct listeners *listeners;
	const struct keys *keys;
	const struct keeper_log *logs; /* by enum logger_to; read for each front */
	bool log_stamps;               /* the front's lines begin with their time */
	const struct spawn_user *user; /* NULL: as the master */
	int spool_dir;
	unsigned tick_ms; /* between the front's signs of life */
};

MUST_USE int keeper_new(const struct keeper_options *o, const struct keeper_events *events, void *ctx, struct keeper **ret);

/* Kills what still lives. Sets *k to NULL. */
void keeper_free(struct keeper **k);

void keeper_start(struct keeper *k);

/* True if this process is the front. */
bool keeper_knows(const struct keeper *k, pid_t pid);

/* After waitpid: true if it was the front. */
bool keeper_reaped(struct keeper *k, pid_t pid, int status);

/* To a front that is serving; else what is given is closed. Each takes *fd. */
void keeper_send_page(struct keeper *k, size_t pool_index, unsigned slots, int *fd);
void keeper_send_slot(struct keeper *k, size_t pool_index, unsigned slot, int *fd, pid_t pid);

/* keys_fd is another one: a front that is there gets it. */
void keeper_send_keys(struct keeper *k);

/* The logs have been opened anew: a front that is there gets them. */
void keeper_send_logs(struct keeper *k);

/* No more connections; `drained` or `gone` follows. */
void keeper_drain(struct keeper *k);

/* It is to end, cutting what is left; `gone` follows. kill: at once. */
void keeper_end(struct keeper *k, bool kill);

/* What the front said last; NULL while there is none that serves. */
const struct channel_message *keeper_figures(const struct keeper *k);

/* True if each event thread has shown a sign of life since the last call that was true. */
bool keeper_pulse(struct keeper *k);

#endif
