/*
 * run: `forebay run TARGET`: a configuration made of a few words, for somebody at a terminal.
 * Owns:   the text, and a directory for the spool that is gone when it ends.
 * Thread: the master's.
 */
#ifndef FOREBAY_PROXY_RUN_H
#define FOREBAY_PROXY_RUN_H

#include "core/slice.h"

#define RUN_LISTEN_DEFAULT "127.0.0.1:8000"

struct buf;

struct run_options {
	const char *target;    /* "demo", "wsgi:MODULE:CALLABLE", "worker:PROGRAM TARGET", "socket:/path" */
	const char *listen;    /* NULL: RUN_LISTEN_DEFAULT; also PORT, :PORT, localhost:PORT */
	unsigned processes;    /* 0: not said */
	unsigned threads;      /* of each; 0: not said */
	const char *directory; /* of the application; NULL: where we are */
	bool reload;           /* the workers start anew when a .py file there changes */
};

/* What is not the command line's: found by run_main, given by tests. */
struct run_place {
	const char *spool_dir;
	const char *here;        /* where relative paths begin */
	const char *directory;   /* of the application, an absolute path */
	const char *virtualenv;  /* of whoever started us; NULL: none */
	const char *front_user;  /* NULL: not started by root */
	const char *worker_user; /* the same */
	bool nobody_there;       /* socket:/path: no server listens on it yet */
	bool color;              /* the log goes to somebody's eyes */
};

/* Appends the INI text and what to show on the screen. 0, or -EINVAL with *ret_why a literal. */
MUST_USE int run_compose(
    const struct run_options *o, const struct run_place *place, struct buf *ini, struct buf *screen, const char **ret_why);

/* Serves until it is told to end. Returns the exit status. */
int run_main(const struct run_options *o);

#endif
