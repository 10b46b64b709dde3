"""Many requests of every kind, good and bad: memory and descriptors are level afterwards. FOREBAY_TEST_SOAK says how many: 200000 take
two or three minutes."""

import collections
import os
import threading

import procs
from backend import polite
from client import Cut, message
from daemon import POOL_USER, ROOT, is_sanitized, scaled
from procs import memory_kb, wait_for
from tools import pattern

REQUESTS = int(os.environ.get("FOREBAY_TEST_SOAK") or scaled(20_000))
THREADS = 8
PIPELINED = 10
# Memory goes up and down by what is kept at hand: up to 4 MB of 64 K blocks by each of two threads, and the pieces of malloc's arenas.
# Measured from the 20,000th to the 200,000th request: 0.9 and 1.8 MB in the front, less than 0.2 MB elsewhere.
BAND_KB = 4096


def pipelined(site, seed):
    with site.connect() as c:
        c.send((message("GET", "/echo?a=1") + message("GET", "/other")) * (PIPELINED // 2))
        return [c.response().status for _ in range(PIPELINED)]


def kept(site, seed):
    body = pattern(3000, seed)
    with site.connect() as c:
        return [c.ask("GET", "/").status, c.ask("HEAD", "/").status, c.ask("POST", "/upload", body=body).status,
                c.ask("POST", "/upload", body=body, chunked=True).status, c.ask("GET", "/other").status,
                c.ask("POST", "/other", body=body).status]


def spooled(site, seed):
    body = pattern(300_000, seed)
    with site.connect() as c:
        r = c.ask("POST", "/upload", body=body, chunked=seed % 2)
        assert b"300000" in r.body
        return [r.status, c.ask("POST", "/other", body=body).status, c.ask("GET", "/big?bytes=400000").status]


def slow(site, seed):
    """Reads nothing until another has been served."""
    with site.connect(rcvbuf=4096) as c:
        c.send(message("GET", "/big?bytes=1000000"))
        first = site.ask("GET", "/").status
        return [first, c.response().status]


def refused(site, seed):
    statuses = [site.ask("GET", "/", host="elsewhere").status, site.ask("GET", "/", [("Content-Length", "x")]).status,
                site.ask("GET", "/x" * 5000).status]
    with site.connect() as c:
        c.send(message("POST", "/", [("Content-Length", "999999999")]))
        return statuses + [c.response().status]


def left(site, seed):
    """Inside the head, inside the body, before the answer, and inside it."""
    for raw in (b"GET / HTTP/1.1\r\nHo", message("POST", "/upload", body=b"x" * 100_000)[:-1], message("GET", "/echo")):
        with site.connect() as c:
            c.send(raw)
            (c.close, c.reset)[seed % 2]()
    with site.connect(rcvbuf=4096) as c:
        c.send(message("GET", "/big?bytes=500000"))
        try:
            c.head()
        except Cut:  # it may be told to wait
            pass
        c.reset()
    return [None] * 4


def patient(conn):
    """A kept connection may lie unused for as long as this test takes."""
    conn.sock.settimeout(None)
    polite(conn)


ROUND = (pipelined, kept, pipelined, refused, pipelined, left, pipelined, spooled, pipelined, slow)


class Load:
    """Threads that take rounds until so many requests were made."""

    def __init__(self, site):
        self.site, self.lock, self.seen, self.error = site, threading.Lock(), collections.Counter(), None

    def run(self, requests):
        self.until = sum(self.seen.values()) + requests
        threads = [threading.Thread(target=self.rounds, args=(i,)) for i in range(THREADS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if self.error:
            raise self.error

    def rounds(self, seed):
        try:
            while not self.error and sum(self.seen.values()) < self.until:
                for kind in ROUND:
                    statuses = kind(self.site, seed)
                    with self.lock:
                        self.seen.update((kind.__name__, s) for s in statuses)
                seed += 1
        except BaseException as e:
            self.error = e


EXPECTED = {("pipelined", 200), ("kept", 200), ("spooled", 200), ("slow", 200), ("refused", 404), ("refused", 400), ("refused", 414),
            ("refused", 413), ("left", None)}


def level(site, pids):
    """When nobody is connected any more: descriptors and memory of each process."""
    quiet = site.ask("GET", "/echo", [("Connection", "close")])
    assert quiet.status == 200
    return [procs.descriptors(pid) for pid in pids], [memory_kb(pid, "VmRSS") for pid in pids]


def test_memory_and_descriptors_are_level(work):
    other = work.backend(patient, keeps=False, name="other")
    other.seen = collections.deque(maxlen=100)
    site = work.forebay(listen={"head_limit": "4K"}, more={
        "pool demo": {"app": "demo", "processes": 2, "threads": 4, "user": POOL_USER if ROOT else None},
        "pool other": {"socket": other.name, "slots": 8, "keepalive": "on"},
        "route test": {"pool": "demo", "body_memory": "64K", "body_limit": "100M"},
        "route test/other": {"pool": "other"}})
    wait_for(lambda: len(site.workers()) == 2, "the workers")
    pids = [site.pid, site.front()] + site.workers()
    load = Load(site)
    load.run(REQUESTS // 10)
    descriptors, first = level(site, pids)
    load.run(REQUESTS - REQUESTS // 10)
    assert set(load.seen) == EXPECTED, load.seen
    wait_for(lambda: all(now <= was + 2 for was, now in zip(descriptors, level(site, pids)[0])),
             lambda: f"descriptors: {descriptors}, now {level(site, pids)[0]}")
    last = level(site, pids)[1]
    print(f"{sum(load.seen.values())} requests; kB of master, front, workers after a tenth {first}, at the end {last}; "
          f"descriptors {descriptors}, {level(site, pids)[0]}")
    assert pids == [site.pid, site.front()] + site.workers()
    assert is_sanitized() or all(now <= was + BAND_KB for was, now in zip(first, last)), f"kB after a tenth {first}, at the end {last}"
