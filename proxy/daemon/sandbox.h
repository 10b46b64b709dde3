/*
 * sandbox: what master and front give up.
 * Thread: before there are threads.
 */
#ifndef FOREBAY_PROXY_SANDBOX_H
#define FOREBAY_PROXY_SANDBOX_H

#include "core/base.h"

/*
 * The front: it has no capability, nothing it execs gains privileges, nobody of the same user reads its memory, it leaves no core. False: the kernel refused one of these
 * (it then goes on without).
 */
bool sandbox_front(void);

/* A worker that is not root: a program file with capabilities of its own (setcap, for low ports) has given them to each that execs it. */
void sandbox_worker(void);

/*
 * A root master: keeps CAP_SETUID, SETGID, KILL, NET_BIND_SERVICE and DAC_READ_SEARCH and no other, for itself and what it execs; and
 * CAP_SYS_NICE where workers shall come before others. Does nothing for others than root. False: the kernel refused.
 */
bool sandbox_master(bool hurries);

#endif
