/*
 * account: at the end of a front that has drained, what was taken must have been given back.
 * Owns:   nothing.
 * Never:  runs in a build that is not for debugging: there the process ends, and all is the kernel's again.
 * Thread: the front's main thread, when it is the last.
 */
#ifndef FOREBAY_PROXY_ACCOUNT_H
#define FOREBAY_PROXY_ACCOUNT_H

#include "core/base.h"

#ifdef FOREBAY_DEBUG
#define ACCOUNT_ON true
#else
#define ACCOUNT_ON false
#endif

/* Of a front that has not given back what it took. */
#define ACCOUNT_EXIT 70

/* 0, or 1 after saying in the log of what kind, which, what of it is `left`. */
unsigned account(const char *kind, uint64_t number, const char *what, uint64_t left);

/* The same for each descriptor from `first` on that is open. Returns how many. */
unsigned account_descriptors(int first);

#endif
