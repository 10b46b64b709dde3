/*
 * program: where the programs are that forebay starts beside itself.
 * Pure but for looking at the file system.
 */
#ifndef FOREBAY_UPSTREAM_PROGRAM_H
#define FOREBAY_UPSTREAM_PROGRAM_H

#include "core/base.h"

#define PROGRAM_WSGI "forebay-wsgi"

/*
 * The path of a program of forebay's: in the folder that FOREBAY_LIBEXEC in the environment names, else beside the running program, else where it is
 * installed. -ENOENT: in none of them, and *ret is where it should have been; -E2BIG.
 */
MUST_USE int program_find(const char *name, char *ret, size_t size);

#endif
