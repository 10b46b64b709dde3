/*
 * limits: what this machine and this process can give, and what can be served with it.
 * Owns nothing. limits_compute is pure.
 * Thread: start-up's.
 */
#ifndef FOREBAY_PROXY_LIMITS_H
#define FOREBAY_PROXY_LIMITS_H

#include "conf/conf.h"

#define LIMITS_MEMORY_AUTO_MAX  (1ull << 30) /* bytes */
#define LIMITS_CONNECTION_BYTES 4096         /* of memory_limit that a connection must find, whatever it does */
#define LIMITS_CONNECTIONS_MIN  16
#define LIMITS_OWN_FILES_MAX    1024
#define LIMITS_LOG_RING_BYTES   (1u << 20) /* a thousand clients that leave at once, each with a line of 1K */

/* What there is. */
struct limits_have {
	uint64_t descriptors;  /* of one process */
	uint64_t memory_bytes; /* the smaller of RAM and what the control group may use */
	unsigned cores;        /* that we may run on */
};

/* What is served with it. */
struct limits {
	uint64_t descriptors;
	uint64_t memory_bytes;
	unsigned threads;
	unsigned connections;
	unsigned own_files;           /* spool files at once */
	uint64_t connections_refused; /* what was asked for and cannot be had; 0: nothing */
};

/* Raises RLIMIT_NOFILE as far as it goes (with the right to do so up to fs.nr_open) and looks around. */
void limits_look(struct limits_have *ret);

/* The lowest memory limit of the control groups that the process is in (v1 and v2), UINT64_MAX without one. `root`: of the file system. */
uint64_t limits_cgroup_memory(int root);

/* Bytes that can still be had: what the kernel calls available, and what is left of the control groups' limits; UINT64_MAX: not known. */
uint64_t limits_look_for_room(void);
uint64_t limits_memory_room(int root); /* below the directory `root`, for tests */

/* Returns 0, or -EMFILE: too few descriptors to be of use; ret->descriptors then says how many it takes. */
MUST_USE int limits_compute(const struct limits_have *have, const struct conf *conf, struct limits *ret);

#endif
