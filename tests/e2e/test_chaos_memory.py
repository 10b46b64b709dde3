"""Far more than memory_limit holds, from thousands of clients at once: everybody gets what is right or hears why not, and the front stays small."""

import threading

import pytest

from crowd import Crowd
from daemon import is_sanitized, scaled
from procs import memory_kb, wait_for
from tools import pattern

MB = 1 << 20
COUNT = 2000
# The most that a slow reader's kernel takes for it. Smaller than a segment of the loopback, and both kernels crawl along in pieces of a window
# for minutes once they have learned that it is slow.
RCVBUF = 64 << 10
LIMIT_MB = 32
# What memory_limit does not count: the pages of the program and its libraries, which all that use them share (3.7 MB); the loops' scratch, log
# rings and stacks (2.6 MB); and what malloc keeps between blocks that are in use, up to 6 MB once most of the clients have gone. Bodies are not
# read on above 3/4 of the limit, so that all together stays below the sum of these: 31 to 37.8 MB in 16 runs with two threads.
BASE_MB = 8


def upload_checked(conn):
    """Answers 200 if the body is the pattern that its client has sent."""
    seen = conn.request_head()
    body = bytearray(int(seen.get("Content-Length") or 0))
    at = min(len(conn.buf), len(body))
    body[:at] = conn.take(at)
    while at < len(body):
        n = conn.sock.recv_into(memoryview(body)[at:])
        assert n > 0, "a request that was not whole"
        at += n
    right = body == pattern(len(body), int(seen.get("X-Seed") or 0))
    conn.send(b"HTTP/1.1 %d Judged\r\nContent-Length: 0\r\n\r\n" % (200 if right else 400))


def download(conn):
    seed = int(conn.request_head().get("X-Seed"))
    conn.try_send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MB + pattern(MB, seed))


@pytest.fixture
def site(work):
    crowded, other = work.backend(keeps=False), work.backend(name="other")
    made = work.forebay({"socket": crowded.name, "slots": 8, "queue_limit": 10000, "queue_timeout": "10m"},
                        forebay={"memory_limit": f"{LIMIT_MB}M", "threads": 2}, listen={"min_rate": 0},
                        more={"pool other": {"socket": other.name, "slots": 2}, "route */other": {"pool": "other"}})
    made.backend = crowded
    return made


def other_is_served(site):
    """Memory may be used up for a moment: whoever is told so comes again."""
    r = site.ask("POST", "/other", body=b"x" * 1000)
    assert r.status == 200 or (r.status == 503 and r.get("Retry-After"))
    return r.status == 200


class Others:
    """Ask on and on, on a thread of their own."""

    def __init__(self, site):
        self.site, self.served, self.error, self.ending = site, 0, None, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.ending.wait(0.01):
                self.served += other_is_served(self.site)
        except BaseException as e:
            self.error = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()
        if self.error:
            raise self.error


def check_peak(site):
    peak_kb = memory_kb(site.front(), "VmHWM")
    assert is_sanitized() or peak_kb <= (LIMIT_MB + BASE_MB) << 10, f"{peak_kb} kB at most"


def check_reasons(site, refused):
    """Who was not served to the end finds out why."""
    found = site.wait_access(lambda e: e["target"] != "/other" and (e["status"] != 200 or e["cut"]), refused)
    assert len(found) == refused and all(e["reason"] == "memory_limit" for e in found), found


def test_many_uploads_at_once_are_served_or_refused_and_memory_stays(site):
    site.backend.default = upload_checked
    front, count = site.front(), scaled(COUNT)
    with Others(site) as others, Crowd(site.address, range(1, count + 1), upload=MB) as crowd:
        almost = crowd.members[-1].whole - 16
        crowd.run(lambda: crowd.sent(almost), upto=almost)
        served = others.served
        wait_for(lambda: others.served >= served + 100, "others to be served while all uploads are there")
        crowd.run(crowd.ended)
    ends = crowd.ends()
    assert set(ends) <= {200, 408, 503} and ends[200] >= count // 2, ends
    check_reasons(site, count - ends[200])
    assert site.front() == front
    check_peak(site)


def test_many_slow_readers_at_once_are_served_or_cut_and_memory_stays(site):
    site.backend.default = download
    front, count = site.front(), scaled(COUNT)
    with Others(site) as others, Crowd(site.address, range(1, count + 1), expects=MB, rcvbuf=RCVBUF) as crowd:
        crowd.run(lambda: site.backend.accepted == count and not site.backend.open, reads=False,
                  progress=lambda: site.backend.accepted)
        served = others.served
        wait_for(lambda: others.served >= served + 100, "others to be served while all responses are there")
        crowd.run(crowd.ended)
    ends = crowd.ends()
    assert set(ends) <= {200, 503, "cut"} and ends[200] >= count // 2, ends
    check_reasons(site, count - ends[200])
    assert site.front() == front
    check_peak(site)
