/*
 * args: how the master tells a process of its own what to be: the command line of workers and zygotes, written and read in one place.
 * Owns:   the strings that it makes.
 * Pure:   a struct becomes arguments, arguments a struct.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_ARGS_H
#define FOREBAY_UPSTREAM_WORKER_ARGS_H

#include "upstream/worker/worker.h"

/* Of this, of control.h and of the started page together: a program that others built may be older or newer than the forebay that starts it. */
#define ARGS_INTERFACE 1

#define ARGS_MAX         24 /* with title, role and the NULL at the end */
#define ARGS_TITLE_MAX   96 /* bytes: what ps shows */
#define ARGS_THREADS_MAX 1024

enum args_role { ARGS_WORKER, ARGS_ZYGOTE };

struct worker_args {
	enum args_role role;
	const char *app;  /* its name */
	const char *pool; /* the same */
	struct worker_setting setting;
	unsigned place;                            /* of a worker: its threads have the slots from place * threads on */
	uint64_t max_requests;                     /* 0: any number */
	uint64_t max_memory;                       /* bytes; 0: any */
	const char *health_path, *preload_request; /* "": none */
};

struct args_list {
	char *argv[ARGS_MAX]; /* ends in NULL */
};

/* 0 or -ENOMEM. */
MUST_USE int args_write(const struct worker_args *args, struct args_list *ret);
void args_list_done(struct args_list *list);

/* True if main() got what another version's args_write made. */
bool args_are_anothers(int argc, char *const *argv);

/* What main() got. The strings are copies. False: it is not what args_write makes. */
MUST_USE bool args_read(int argc, char *const *argv, struct worker_args *ret);
void args_done(struct worker_args *args);

/* The title of worker or zygote. */
void args_title(const struct worker_args *args, char ret[ARGS_TITLE_MAX]);

/* ps shows this title from now on. argv is main()'s own, and nothing in it can be used any more. */
void args_retitle(int argc, char **argv, const char *title);

#endif
