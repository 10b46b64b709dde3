/*
 * outlet: the end of one log: lines staged for a descriptor and written to it without waiting for it.
 * Owns:   the descriptor, and up to OUTLET_BYTES of lines on their way.
 * Never:  waits for a pipe, a terminal or a socket that takes no more (a regular file may still cost the time of its disk).
 * Thread: the logger's; outlet_lost any.
 */
#ifndef FOREBAY_PROXY_OUTLET_H
#define FOREBAY_PROXY_OUTLET_H

#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "proxy/observe/logger.h"

#define OUTLET_BYTES (2 * (LOGGER_LINE_MAX))

struct outlet {
	int fd;       /* -1: what comes is thrown away */
	uint8_t way;  /* outlet.c's: how this kind of descriptor is written to */
	bool midline; /* the last line written was cut short */
	bool given_up;
	int failure; /* errno of the last write; 0: it went well */
	char *staged;
	size_t begin, end;         /* bytes of `staged` yet to be written */
	struct sockaddr_un peer;   /* where syslog was */
	socklen_t peer_len;        /* 0: unknown */
	atomic_uint_fast64_t lost; /* lines */
};

/* 0 or -ENOMEM. */
MUST_USE int outlet_init(struct outlet *o);
void outlet_done(struct outlet *o);

/* Lines go there from now on; what is still staged is lost. Takes *fd; closes the old one. */
void outlet_point(struct outlet *o, enum logger_kind kind, int *fd);

/* Room for a line of so many bytes. */
bool outlet_has_room(const struct outlet *o, size_t line_bytes);

/* Where to put the line's text; then say outlet_add. There must be room. */
char *outlet_room(struct outlet *o);
void outlet_add(struct outlet *o, enum log_level level, size_t line_bytes);

bool outlet_is_empty(const struct outlet *o);

/* Writes what is staged. False: the descriptor takes no more just now (POLLOUT will tell). Lines that it refuses are counted lost. */
MUST_USE bool outlet_flush(struct outlet *o);

/* What is staged and what comes until the next outlet_point is lost, and counted. */
void outlet_give_up(struct outlet *o);

uint64_t outlet_lost(const struct outlet *o);

#endif
