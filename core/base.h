/*
 * base: the few macros that every module uses.
 * Owns nothing.
 */
#ifndef FOREBAY_CORE_BASE_H
#define FOREBAY_CORE_BASE_H

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a)           (sizeof(a) / sizeof((a)[0]))
#define MUST_USE               __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define UNUSED                 __attribute__((unused))
#define ALWAYS_INLINE          inline __attribute__((always_inline))
#define NEVER_INLINE           __attribute__((noinline))

/* A state as a bit, for tables of allowed moves. */
#define TO(state) (1u << (state))

/* The struct of `type` whose `member` is at `ptr`. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#endif
