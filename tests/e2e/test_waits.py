"""Who waits for whom: an edge that comes between two requests, a client or a worker that takes nothing, memory that only lies
ready. Order is by what each side holds back; the short times of the configuration are what is tested."""

import threading

import pytest

from backend import OK
from client import message
from procs import wait_for

THREADS_OF_MANY = 64
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"


@pytest.fixture
def held():
    """A worker's handler waits for it; it is let go at the end of the test in any case."""
    event = threading.Event()
    yield event
    event.set()


def test_a_request_that_comes_while_two_are_in_work_is_read(work, held):
    backend = work.backend()

    def handler(conn):
        seen = conn.request_head()
        if seen.target == "/a":
            assert held.wait(30)
        conn.send(OK)

    backend.default = handler
    site = work.forebay({"socket": backend.name, "slots": 2}, forebay={"threads": 1})
    with site.connect() as c:
        c.send(message(target="/a") + message(target="/b"))
        backend.wait_accepted(1)  # /a is in work, /b was read with it
        c.send(message(target="/c"))
        assert site.ask(target="/other").status == 200  # the only thread has come by: it knows of /c
        held.set()
        for _ in "abc":
            assert c.response().status == 200


def test_a_client_that_takes_no_hints_is_cut_and_the_front_lives(work, held):
    backend = work.backend()

    def handler(conn):
        conn.request_head()
        for _ in range(8):  # more than all buffers up to the client
            conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 60000 + b"\r\n\r\n")
        assert held.wait(60)

    backend.next(handler)
    site = work.forebay({"socket": backend.name, "slots": 1, "keepalive": "off"}, forebay={"threads": 1},
                        listen={"early_hints": "on", "min_rate_grace": "1s"})
    front = site.front()
    with site.connect(rcvbuf=2048, mss=1000) as c:
        c.send(message())
        wait_for(lambda: site.access() or site.front() != front, "the client's end, or the front's")
        assert site.front() == front, site.log()
        assert [(e["status"], e["reason"]) for e in site.access()] == [(499, "min_rate")]
    held.set()
    assert site.ask().status == 200


def test_a_stream_that_is_full_and_silent_on_both_sides_ends(work, held):
    backend = work.backend()

    def handler(conn):  # answers, and then neither reads nor writes
        conn.request_head()
        conn.send(STREAM)
        held.wait(60)

    backend.next(handler)
    site = work.forebay({"socket": backend.name, "slots": 1, "streams": 1, "stream_idle_timeout": "2s"},
                        forebay={"threads": 1}, listen={"min_rate_grace": "1s"}, route={"buffer": "off"})
    with site.connect() as c:
        c.send(message("PUT", "/up", [("Content-Length", "50000000")]))
        upload = threading.Thread(target=c.try_send, args=(b"x" * 50000000,))
        upload.start()  # until nobody takes any more of it
        assert c.head().status == 200
        c.to_end()
        upload.join()
    [entry] = site.wait_access(lambda e: e["reason"] == "stream_idle_timeout")
    assert entry["status"] == 200 and entry["cut"] and entry["request_bytes"] < 50000000


def test_a_refused_stream_whose_client_still_sends_says_that_it_closes(work, held):
    backend = work.backend()

    def handler(conn):
        conn.request()
        assert held.wait(30)
        conn.send(OK)

    backend.next(handler)
    site = work.forebay({"socket": backend.name, "slots": 1, "streams": 1, "queue_timeout": "1s"}, forebay={"threads": 1},
                        route={"buffer": "off"}, more={"route two": {"pool": "app"}})
    with site.connect() as a, site.connect() as c:
        a.send(message(host="two"))
        backend.wait_accepted(1)  # the only slot is taken
        c.send(message("PUT", "/up", [("Content-Length", "100000")]) + b"x" * 10)
        answer = c.response()
        assert answer.status == 503 and not answer.keeps
        c.ends()
        held.set()
        assert a.response().status == 200


def test_memory_that_only_lies_ready_refuses_nobody(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 4}, forebay={"threads": THREADS_OF_MANY, "memory_limit": "16M"})
    for _ in range(10 * THREADS_OF_MANY):  # each thread has had some
        assert site.ask().status == 200
    assert site.ask("PUT", body=b"x" * 100000).status == 200
