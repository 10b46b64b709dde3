"""The access log tells what happened, where a request's time went and why it was refused; and never holds anybody up."""

import fcntl
import json
import os
import re
import signal
import threading

import pytest

from backend import OK, answer
from client import message
from procs import wait_for
from tools import pattern

TIMES = ("receive_ms", "queue_ms", "hold_ms", "drain_ms", "total_ms")


def lines(path):
    try:
        with open(path, "rb") as f:
            return f.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


@pytest.fixture
def site(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1})
    site.backend = backend
    return site


def test_json_has_one_object_for_each_request(site):
    site.ask("POST", "/a?b=c", [("User-Agent", "tests/1"), ("Referer", "http://here/")], b"hello")
    entry = site.wait_access(lambda e: True)[0]
    assert (entry["method"], entry["target"], entry["host"], entry["protocol"]) == ("POST", "/a?b=c", "test", "HTTP/1.1")
    assert (entry["status"], entry["request_bytes"], entry["response_bytes"]) == (200, 5, 2)
    assert (entry["pool"], entry["listen"], entry["attempts"], entry["reason"]) == ("app", "main", 1, None)
    assert (entry["user_agent"], entry["referer"]) == ("tests/1", "http://here/")
    assert (entry["request_spooled"], entry["response_spooled"], entry["eof"], entry["cut"]) == (False, False, False, False)
    assert entry["client"] == entry["peer"].rsplit(":", 1)[0] or entry["client"] == entry["peer"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["time"]) and entry["id"]
    assert site.backend.seen[0].get("X-Request-Id") == entry["id"]


def test_the_times_are_there_and_add_up(site):
    site.ask("POST", "/", body=b"x" * 100)
    entry = site.wait_access(lambda e: True)[0]
    assert all(entry[t] is not None and entry[t] >= 0 for t in TIMES)
    assert entry["receive_ms"] + entry["queue_ms"] + entry["hold_ms"] <= entry["total_ms"] + 1


def test_hold_is_the_workers_time_and_queue_the_wait_for_it(work):
    release = threading.Event()

    def slow(conn):
        conn.request()
        release.wait()
        conn.send(OK)

    backend = work.backend()
    backend.next(slow)
    site = work.forebay({"socket": backend.name, "slots": 1})
    with site.connect() as first, site.connect() as second:
        first.send(message("GET", "/held"))
        backend.wait_seen(1)
        second.send(message("GET", "/queued"))
        pause = threading.Event()
        pause.wait(0.3)  # decides nothing: a length to be found again below
        release.set()
        assert first.response().status == second.response().status == 200
    held = site.wait_access(lambda e: e["target"] == "/held")[0]
    queued = site.wait_access(lambda e: e["target"] == "/queued")[0]
    assert held["hold_ms"] >= 300 and held["queue_ms"] < held["hold_ms"]
    assert queued["queue_ms"] > queued["hold_ms"]


def test_a_slow_clients_time_is_not_the_workers(work):
    """The body's last byte comes late: that is receive time, not hold time."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1})
    with site.connect() as c:
        c.send(message("POST", "/", body=b"x" * 100)[:-1])
        threading.Event().wait(0.3)  # as above
        c.send(b"x")
        c.response()
    entry = site.wait_access(lambda e: True)[0]
    assert entry["receive_ms"] >= 200 > entry["hold_ms"]  # the last byte came 300 ms after the first was sent


def test_spooled_bodies_are_marked(work):
    backend = work.backend(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + pattern(3_000_000)))
    site = work.forebay({"socket": backend.name, "slots": 1})
    assert site.ask("POST", "/", body=pattern(3_000_000)).body == pattern(3_000_000)
    entry = site.wait_access(lambda e: True)[0]
    assert entry["request_spooled"] is True and entry["request_bytes"] == entry["response_bytes"] == 3_000_000


REFUSALS = {
    400: b"GET /\x01 HTTP/1.1\r\nHost: test\r\n\r\n",
    413: b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9007199254740991\r\n\r\n",
    414: b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    417: b"GET / HTTP/1.1\r\nHost: test\r\nExpect: more\r\n\r\n",
    431: b"GET / HTTP/1.1\r\nHost: test\r\n" + b"a: b\r\n" * 101 + b"\r\n",
    501: b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    505: b"GET / HTTP/2.0\r\nHost: test\r\n\r\n",
}


@pytest.mark.parametrize("status", REFUSALS)
def test_every_refusal_has_its_reason(site, status):
    with site.connect() as c:
        c.try_send(REFUSALS[status])
        assert c.response().status == status
    entry = site.wait_access(lambda e: e["status"] == status)[0]
    assert entry["reason"] and entry["hold_ms"] is None and entry["id"]


def test_a_502_has_its_reason(work):
    backend = work.backend(answer(b"garbage\r\n\r\n"))
    site = work.forebay({"socket": backend.name, "slots": 1})
    assert site.ask("POST", "/", body=b"").status == 502
    entry = site.wait_access(lambda e: e["status"] == 502)[0]
    assert entry["reason"] and entry["hold_ms"] is not None


HOSTILE = b"GET /a\"b\\c?\x7e HTTP/1.1\r\nHost: test\r\nUser-Agent: \xff\xc3\xa9\t\"\\<x>\xe2\x80\xa8\xc2\x9b\r\nReferer: x\" 200 0 \"y\r\n\r\n"


@pytest.mark.parametrize("style", ["json", "combined", "timing"])
def test_hostile_bytes_are_escaped(work, style):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"access_format": style})
    for raw in (HOSTILE, b"\x1b[31mGET \x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\x1b\r\n\r\n"):
        with site.connect() as c:
            c.try_send(raw)
            c.response()
    wait_for(lambda: len(lines(site.access_path)) == 3, "three lines")
    for line in lines(site.access_path):
        assert not [b for b in line if b < 0x20 or b == 0x7f], line
        if style == "json":
            assert not re.search("[\x00-\x1f\x7f-\x9f]", line.decode()) and json.loads(line)
        else:
            assert not [b for b in line if b > 0x7e], line
            without = re.sub(rb"\\x[0-9A-Fa-f]{2}", b"", line)
            assert without.count(b'"') % 2 == 0 and b"\\" not in without


def test_combined_is_what_tools_read(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"access_format": "combined"})
    site.ask("GET", "/x?y", [("User-Agent", "tests/1")])
    wait_for(lambda: lines(site.access_path), "a line")
    line = lines(site.access_path)[0].decode()
    assert re.fullmatch(r'127\.[\d.]+ - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET /x\?y HTTP/1\.1" 200 2 "-" "tests/1"', line), line


def test_timing_tells_where_the_time_went(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"access_format": "timing"})
    site.ask("GET", "/x")
    wait_for(lambda: len(lines(site.access_path)) == 1, "a line")  # another thread's may overtake it
    with site.connect() as c:
        c.send(b"GET / HTTP/1.1\r\n\r\n")
        c.response()
    wait_for(lambda: len(lines(site.access_path)) == 2, "two lines")
    good, bad = [line.decode() for line in lines(site.access_path)]
    for name in ("receive", "queue", "hold", "drain", "total"):
        assert re.search(rf" {name}=\d+\.\d{{3}}\b", good), good
    assert "pool=app" in good and re.search(r'reason="[^"]+"', bad) and " hold=-" in bad


def test_logs_are_opened_anew_on_sigusr1(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"log": work.path("forebay.log")})
    site.ask("GET", "/before")
    wait_for(lambda: lines(site.access_path), "a line")
    os.rename(site.access_path, site.access_path + ".1")
    os.rename(work.path("forebay.log"), work.path("forebay.log.1"))
    site.ask("GET", "/between")
    wait_for(lambda: len(lines(site.access_path + ".1")) == 2, "the old file still gets lines")
    os.kill(site.pid, signal.SIGUSR1)

    def in_the_new_file():
        site.ask("GET", "/after")
        return lines(site.access_path)

    wait_for(in_the_new_file, "lines in the new file")
    wait_for(lambda: os.path.exists(work.path("forebay.log")), "the new log")
    assert not [x for x in lines(site.access_path) if b"/before" in x or b"/between" in x]


def test_a_front_that_was_replaced_logs_on(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1})
    old = site.front()
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: site.front() not in (None, old), "a new front")
    assert site.ask("GET", "/after").status == 200
    site.wait_access(lambda e: e["target"] == "/after")


def test_a_log_that_nobody_reads_holds_nobody_up(work):
    """A FIFO that is full: lines are lost, requests are not; when it is read again the log says how many were."""
    fifo = work.path("fifo")
    os.mkfifo(fifo, 0o666)
    end = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.fcntl(end, 1031, 4096)  # F_SETPIPE_SZ
        backend = work.backend()
        site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"access_log": fifo, "threads": 1})
        size = 0
        with site.connect() as c:
            for i in range(3000):  # well over the pipe and the ring of 256K
                target = "/" + "x" * 200 + str(i)
                size += len(target) + 300
                assert c.ask("GET", target).status == 200
        assert size > 1_000_000
        reader = b""

        def told():
            nonlocal reader
            try:
                reader += os.read(end, 1 << 16)
            except BlockingIOError:
                pass
            return "lost" in site.log() or "dropped" in site.log()

        wait_for(told, lambda: f"word of the lost lines in\n{site.log()}")
    finally:
        os.close(end)


def test_a_log_that_cannot_be_opened_is_an_error_at_start(work):
    site = work.forebay({"socket": work.path("x.sock"), "slots": 1}, forebay={"access_log": "/nonexistent/dir/access.log"}, ready=False)
    site.expected = {1}
    assert site.wait() == 1
    assert "/nonexistent/dir/access.log" in site.log() and "No such file" in site.log()


def test_the_log_may_be_off(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"access_log": "off"})
    assert site.ask("GET", "/").status == 200
    assert site.stop() == 0 and not os.path.exists(site.access_path)


def test_the_access_log_may_go_to_stderr(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"access_log": "stderr", "access_format": "combined"})
    site.ask("GET", "/to-stderr")
    site.wait_log("/to-stderr")


def test_everything_is_written_before_the_end(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1})
    with site.connect() as c:
        for _ in range(500):
            c.ask("GET", "/")
    assert site.stop() == 0
    assert len(site.access()) == 500
