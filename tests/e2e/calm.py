"""What must be as before when a storm is over: descriptors, memory, processes, and a log that says nothing bad."""

import os
import re

import daemon
import procs
from client import message
from procs import wait_for

MB = 1 << 20
FILES_MORE = 8  # arenas of the spool, which stay for the next body
# What a front may keep of a storm's memory: blocks at hand (4M a thread), a lease of each thread, what malloc holds back.
PSS_MORE, PSS_MORE_A_THREAD = 6 * MB, 6 * MB
WARM = 300_000


def is_sanitized():
    """A sanitizer keeps what was freed, and has errors of its own words."""
    with open(daemon.FOREBAY, "rb") as f:
        program = f.read()
    return b"__asan_init" in program or b"__tsan_init" in program


class Calm:
    """Made before the storm. `slots` are those of forebay's own workers: their sockets come to the front one by one. `bad` are the
    log's words that this test brings about itself (regular expressions)."""

    def __init__(self, site, slots=0, bad=(), pss_more=None):
        self.site = site
        self.bad = [re.compile(pattern) for pattern in bad]
        self.pss_more = pss_more or PSS_MORE + daemon.THREADS * PSS_MORE_A_THREAD
        self.warm()
        front = site.front()
        if slots:
            own = 1 + daemon.THREADS + slots  # the channel to the master, and each thread's listener
            wait_for(lambda: procs.descriptor_targets(front).count("socket") == own, f"{own} sockets of the front")
        self.targets = procs.descriptor_targets(front)
        self.pss = procs.pss(front)

    def warm(self):
        """What is made at the first use is there from now on."""
        for _ in range(2 * daemon.THREADS):
            with self.site.connect() as c:
                c.send(message("GET", "/", [("Content-Length", "x")]))
                assert c.response().status == 400

    def sockets_are_back(self, front):
        now = procs.descriptor_targets(front)
        return now.count("socket") <= self.targets.count("socket") and len(now) <= len(self.targets) + FILES_MORE

    def memory_is_back(self, front):
        return is_sanitized() or procs.pss(front) <= self.pss + self.pss_more

    def settled(self):
        front = wait_for(self.site.front, "a front")
        wait_for(lambda: self.sockets_are_back(front),
                 lambda: f"descriptors as before: {self.targets}, now {procs.descriptor_targets(front)}")
        wait_for(lambda: self.memory_is_back(front),
                 lambda: f"memory near {self.pss}, now {procs.pss(front)}")
        return procs.pss(front)

    def log_is_clean(self):
        lines = [line for line in self.site.log().split("\n") if re.search(r"(^| )(master|front): error: ", line)]
        lines = [line for line in lines if not any(b.search(line) for b in self.bad)]
        assert not lines, "\n".join(lines)

    def check(self):
        """The site serves, is as before, drains, and leaves nothing. Returns the memory that its front had at last."""
        after = self.settled()
        family = procs.descendants(self.site.pid)
        assert self.site.stop() in self.site.expected, self.site.log()[-4000:]
        wait_for(lambda: not [pid for pid in family if procs.runs(pid)], "all processes to end")
        assert os.listdir(self.site.work.spool) == []
        self.log_is_clean()
        return after
