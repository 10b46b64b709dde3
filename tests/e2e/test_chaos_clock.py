"""The wall clock jumps, days at a time, in both directions: no timeout fires early, none fails to fire, durations stay true, and
what is logged has the new time. The front is started with an environment of its own, so that LD_PRELOAD does not reach it: the
daemon runs in a mount namespace with an /etc/ld.so.preload."""

import datetime
import email.utils
import os
import shutil
import signal
import struct
import subprocess
import threading
import time

import pytest

import procs
from backend import OK
from client import Client, message
from daemon import ROOT, SITE, free_address
from procs import wait_for

DAY = 24 * 3600
NOT_FIRST = "verify_asan_link_order=0"
NAMESPACE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
OVERLAY = 'mount -t overlay overlay -o lowerdir="$0:/etc" /etc && exec "$@"'  # nothing is written to either


class WallClock:
    def __init__(self, work):
        self.offset, folder = 0, work.path("etc")
        self.path = work.path("clock")
        self.jump(0)
        os.mkdir(folder)
        library = work.path("wallclock.so")
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", f'-DCLOCK_FILE="{self.path}"', "-o", library,
                        os.path.join(SITE, "wallclock.c")], check=True)
        with open(os.path.join(folder, "ld.so.preload"), "w") as f:
            f.write(library + "\n")
        self.wrap = [*NAMESPACE, OVERLAY, folder]

    def works_here(self):
        r = subprocess.run([*self.wrap, "date", "+%s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return r.returncode == 0 and abs(int(r.stdout) - self.now()) < 60

    def jump(self, to):
        """To so many seconds from the right time."""
        self.offset = to
        mode = "r+b" if os.path.exists(self.path) else "wb"
        with open(self.path, mode) as f:
            f.write(struct.pack("q", to * 10**9))

    def now(self):
        return time.time() + self.offset

    def shows(self, stamp):
        """The time is what a clock that is wrong shows, give or take what a slow machine needs."""
        then = datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
        return abs(then - self.now()) < 600


@pytest.fixture
def clock(work):
    if not ROOT or not shutil.which("gcc"):
        pytest.skip("needs root for a mount namespace, and gcc")
    made = WallClock(work)
    made.jump(-3 * DAY)
    if not made.works_here():
        pytest.skip("no mount namespace with an overlay here")
    made.jump(0)
    return made


@pytest.fixture
def environment():
    """AddressSanitizer wants to be loaded first."""
    options = os.environ.get("ASAN_OPTIONS")
    return dict(os.environ, ASAN_OPTIONS=(options + ":" if options else "") + NOT_FIRST)


def some_ticks(site):
    """Every event thread has looked at its timers again, some times."""
    front = site.front()
    before = {task: procs.sleeps(front, task) for name, task in procs.threads(front).items() if name.startswith("loop-")}
    wait_for(lambda: all(procs.sleeps(front, task) >= n + 5 for task, n in before.items()), "ticks")


def is_open_and_silent(c):
    c.sock.setblocking(False)
    try:
        return c.sock.recv(1) is None
    except BlockingIOError:
        return True
    finally:
        c.sock.settimeout(30)


@pytest.mark.parametrize("jumps", [(DAY, 0), (-DAY, 0), (400 * DAY, -400 * DAY, 0)], ids=["ahead", "back", "far"])
def test_no_timeout_is_early_and_none_is_lost(work, clock, environment, quiet, jumps):
    gates = [threading.Event() for _ in jumps]

    def held(conn):
        turn = int(conn.request().get("X-Turn"))
        gates[turn].wait()
        conn.send(OK)

    backend, short = work.backend(), free_address()
    site = work.forebay({"socket": backend.name, "slots": 1}, wrap=clock.wrap, env=environment,
                        listen={"head_timeout": "10m", "idle_timeout": "10m"},
                        more={"listen short": {"address": "%s:%d" % short, "head_timeout": "300ms", "idle_timeout": "300ms"}})
    quiet(site)
    try:
        for turn, to in enumerate(jumps):
            with site.connect() as idle, site.connect() as inside, site.connect() as working, site.connect() as queued:
                assert idle.ask("GET", "/").status == 200
                seen = len(backend.seen)
                backend.next(held)
                working.send(message("GET", "/working", [("X-Turn", str(turn))]))
                backend.wait_seen(seen + 1)
                queued.send(message("GET", "/queued"))
                inside.send(b"GET /inside HTTP/1.1\r\nHo")
                some_ticks(site)
                clock.jump(to)
                some_ticks(site)
                assert all(is_open_and_silent(c) for c in (idle, inside, working, queued))
                with Client(short) as slow, Client(short) as silent:
                    slow.send(b"GET / HTTP/1.1\r\nHo")
                    r = slow.response()
                    assert r.status == 408
                    assert abs(email.utils.parsedate_to_datetime(r.get("Date")).timestamp() - clock.now()) < 600
                    assert silent.ends() == "eof"
                gates[turn].set()
                assert working.response().status == queued.response().status == 200
                inside.send(b"st: test\r\n\r\n")
                assert inside.response().status == 200
                assert idle.ask("GET", f"/after-{turn}").status == 200
            entry = site.wait_access(lambda e, turn=turn: e["target"] == f"/after-{turn}")[0]
            assert clock.shows(entry["time"]), entry
    finally:
        for gate in gates:
            gate.set()
    for entry in site.access():
        assert all(0 <= value < 600_000 for name, value in entry.items() if name.endswith("_ms") and value is not None), entry


def test_a_front_that_starts_in_the_past_is_believed_by_its_workers(work, clock, environment, quiet):
    """The serials of a new front go on above those of the last one, by the wall clock; workers outlive it."""
    site = work.forebay({"app": "demo", "processes": 1, "threads": 2, "environment": ["ASAN_OPTIONS=" + NOT_FIRST]},
                        wrap=clock.wrap, env=environment)
    worker = wait_for(site.workers, "a worker")
    quiet(site, slots=2, bad=[r"event=front_died .*signal 9"])
    for to in (-DAY, DAY, -400 * DAY):
        assert site.ask("POST", "/upload", body=b"x" * 1000).status == 200
        clock.jump(to)
        old = site.front()
        procs.kill(old, signal.SIGKILL)
        wait_for(lambda old=old: site.front() not in (None, old), "a new front")
        for _ in range(4):
            assert site.ask("POST", "/upload", body=b"x" * 1000).status == 200
        stamps = [line.split(" ")[0] for line in site.log().split("\n") if "event=front_died" in line]
        assert clock.shows(stamps[-1]), stamps
    assert site.workers() == worker
