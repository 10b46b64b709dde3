"""Disks that are full and disks that hang, for a forebay in a mount namespace of its own: nobody else sees them, and they go with it."""

import mmap
import os
import shutil
import struct
import subprocess

import pytest

from daemon import HERE, ROOT
from procs import wait_for

needs_root = pytest.mark.skipif(not ROOT, reason="mounts need root")

WRITES, READS, FILES = 0, 1, 2
WORDS = 3  # for each: hangs, waiting, held


def in_namespace(script, *args):
    """What to put before a program, so that the shell's script runs in its mount namespace first; "$1"... are the args."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f'{script}\nshift {len(args)}\nexec "$@"', "sh", *args]


def small(path, mb):
    """The folder is a file system of its own, with `mb` megabytes."""
    owner = os.stat(path)
    options = f"size={mb}m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    return in_namespace('mount -t tmpfs -o "$2" none "$1"', path, options)


def free_bytes(site, path):
    """Of the file system that `site` has there."""
    st = os.statvfs(f"/proc/{site.pid}/root{path}")
    return st.f_bavail * st.f_frsize


class Disk:
    """Can be told to hang. Everything that a program started behind `wrap` writes to regular files, or reads from them, or
    has new ones of the spool's made, waits then."""

    def __init__(self, work):
        page, library, etc = work.path("disk"), work.path("stuck_disk.so"), work.path("etc")
        with open(page, "wb") as f:
            f.write(bytes(4 * 3 * WORDS))
        os.chmod(page, 0o666)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", f'-DDISK_PAGE="{page}"', "-o", library,
                        os.path.join(HERE, "stuck_disk.c"), "-ldl"], check=True, stdin=subprocess.DEVNULL)
        with open(page, "r+b") as f:
            self.page = mmap.mmap(f.fileno(), 4 * 3 * WORDS)
        work.closers.append(self.release)
        # The front is started with an environment of its own, so LD_PRELOAD does not reach it. The file does, in an /etc of its own.
        os.mkdir(etc)
        for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache", "localtime"):
            if os.path.exists("/etc/" + name):
                shutil.copy("/etc/" + name, etc)
        work.write("etc/ld.so.preload", library + "\n")
        self.wrap = in_namespace('mount --bind "$1" /etc', etc)
        # Sanitizers want to be the first library.
        self.env = dict(os.environ, ASAN_OPTIONS=":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"])))

    def word(self, at):
        return struct.unpack_from("=I", self.page, 4 * at)[0]

    def hang(self, what):
        struct.pack_into("=I", self.page, 4 * what, 1)

    def release(self):
        struct.pack_into(f"={WORDS}I", self.page, 0, *[0] * WORDS)

    def waiting(self, what):
        """Calls that hang just now."""
        return self.word(WORDS + what)

    def wait_waiting(self, what, n):
        wait_for(lambda: self.waiting(what) >= n, lambda: f"{n} calls to hang, there are {self.waiting(what)}")
