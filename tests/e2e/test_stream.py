"""What is not buffered: `buffer = off`, X-Accel-Buffering, silent streams. Order is shown by each side waiting for the other."""

import threading

import pytest

from backend import OK
from client import Cut, message
from procs import wait_for

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Meeting:
    """A worker's handler that says how far it is, and the test's thread that lets it go on."""

    def __init__(self):
        self.reached, self.go = threading.Event(), threading.Event()

    def wait(self):
        assert self.reached.wait(30), "the worker did not come to this"


@pytest.fixture
def open_route(work):
    backend = work.backend()
    return backend, work.forebay({"socket": backend.name, "slots": 4, "streams": 2}, route={"buffer": "off", "body_limit": "1M"})


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_reaches_the_worker_while_it_is_sent(open_route, chunked):
    backend, site = open_route
    half = Meeting()
    body = b"a" * 20000 + b"b" * 20000
    got = {}

    def handler(conn):
        seen = conn.request_head()
        got["fields"] = seen
        got["first"] = b""
        if chunked:
            while len(got["first"]) < 20000:
                got["first"] += conn_chunk(conn)
        else:
            got["first"] = conn.exactly(20000)
        half.reached.set()
        rest = b""
        if chunked:
            while piece := conn_chunk(conn):
                rest += piece
        else:
            rest = conn.exactly(20000)
        got["rest"] = rest
        conn.send(OK)

    def conn_chunk(conn):
        size = int(conn.until(b"\r\n")[:-2], 16)
        data = conn.exactly(size)
        assert conn.exactly(2) == b"\r\n"
        return data

    backend.next(handler)
    with site.connect() as c:
        whole = message("POST", "/up", body=body, chunked=chunked)
        cut = whole.index(b"b" * 100)
        if chunked:  # between two chunks of the client's
            head, _, _ = whole.partition(b"\r\n\r\n")
            c.send(head + b"\r\n\r\n4e20\r\n" + body[:20000] + b"\r\n")
            half.wait()
            c.send(b"4e20\r\n" + body[20000:] + b"\r\n0\r\n\r\n")
        else:
            c.send(whole[:cut])
            half.wait()
            c.send(whole[cut:])
        assert c.response().status == 200
    assert got["first"] + got["rest"] == body
    if chunked:
        assert got["fields"].get("Transfer-Encoding") == "chunked" and got["fields"].get("Content-Length") is None
    else:
        assert got["fields"].get("Content-Length") == "40000"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_that_breaks_off_never_looks_whole_to_the_worker(open_route, chunked):
    backend, site = open_route
    begun, ended = Meeting(), threading.Event()
    heard = {}

    def handler(conn):
        conn.request_head()
        conn.exactly(100)
        begun.reached.set()
        heard["rest"] = conn.to_end()
        ended.set()

    backend.next(handler)
    c = site.connect()
    head = b"POST /up HTTP/1.1\r\nHost: test\r\n"
    c.send(head + (b"Transfer-Encoding: chunked\r\n\r\n100\r\n" + b"x" * 256 + b"\r\n" if chunked else b"Content-Length: 1000\r\n\r\n" + b"x" * 256))
    begun.wait()
    c.close()
    assert ended.wait(30)
    assert not bytes(heard["rest"]).endswith(b"0\r\n\r\n") and len(heard["rest"]) < 900


def test_parts_of_an_answer_reach_the_client_as_they_come(open_route):
    backend, site = open_route
    parts = [Meeting() for _ in range(3)]

    def handler(conn):
        conn.request()
        conn.send(CHUNKED)
        for n, part in enumerate(parts):
            conn.send(b"5\r\npart%d\r\n" % n)
            assert part.go.wait(30)
        conn.send(b"0\r\n\r\n")

    backend.next(handler)
    with site.connect() as c:
        c.send(message("GET", "/"))
        assert c.head().status == 200
        for n, part in enumerate(parts):
            assert c.chunk() == b"part%d" % n  # while the worker waits for us
            part.go.set()
        assert c.chunk() == b""


def test_x_accel_buffering_no_makes_a_stream(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 4, "streams": 1})
    first = Meeting()

    def handler(conn):
        conn.request()
        conn.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nX-Accel-Buffering: no\r\n\r\n") + b"5\r\nfirst\r\n")
        assert first.go.wait(30)
        conn.send(b"0\r\n\r\n")

    backend.next(handler)
    with site.connect() as c:
        c.send(message("GET", "/"))
        head = c.head()
        assert head.status == 200 and head.get("X-Accel-Buffering") is None
        assert c.chunk() == b"first"
        first.go.set()
        assert c.chunk() == b""


def test_more_streams_than_streams_are_503(open_route):
    backend, site = open_route
    hold = threading.Event()

    def handler(conn):
        conn.request()
        conn.send(CHUNKED + b"1\r\na\r\n")
        hold.wait(30)
        conn.send(b"0\r\n\r\n")

    backend.next(handler, handler)
    with site.connect() as a, site.connect() as b:
        for c in (a, b):
            c.send(message("GET", "/"))
            assert c.head().status == 200 and c.chunk() == b"a"
        assert site.ask("GET", "/").status == 503
        hold.set()
        assert a.chunk() == b.chunk() == b""
        wait_for(lambda: site.ask("GET", "/").status == 200, "a place for another stream")
    assert any(e["reason"] == "streams" for e in site.wait_access(lambda e: e["status"] == 503))


@pytest.mark.parametrize("answered", [False, True], ids=["before the answer", "inside the answer"])
def test_a_stream_over_body_limit_is_refused_or_cut(open_route, answered):
    backend, site = open_route

    def handler(conn):
        conn.request_head()
        if answered:
            conn.send(CHUNKED + b"1\r\na\r\n")
        conn.to_end()

    backend.next(handler)
    with site.connect() as c:
        c.send(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        if answered:
            assert c.head().status == 200 and c.chunk() == b"a"
        for _ in range(20):
            if not c.try_send(b"10000\r\n" + b"x" * 65536 + b"\r\n"):
                break
        if answered:
            with pytest.raises(Cut):
                c.chunk()
        else:
            assert c.response().status == 413
    site.wait_access(lambda e: e["reason"] == "body_limit")


def test_a_silent_tunnel_ends_after_stream_idle_timeout(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 4, "streams": 1, "stream_idle_timeout": "1s"})

    def handler(conn):
        conn.request()
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        conn.peer_is_gone()

    backend.next(handler)
    with site.connect() as c:
        c.send(b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        assert c.head().status == 101
        assert c.ends() in ("reset", "eof")
    site.wait_access(lambda e: e["reason"] == "stream_idle_timeout")
    assert site.ask("GET", "/").status == 200


@pytest.mark.parametrize("side", ["client", "worker"])
def test_a_tunnel_whose_one_side_ends_carries_the_other_to_its_end(work, side):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 4, "streams": 1}, listen={"half_close": "on"})

    def handler(conn):
        conn.request()
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        if side == "worker":
            conn.send(b"bye" * 100000)
            return
        said = bytes(conn.to_end())
        conn.send(said[::-1])

    backend.next(handler)
    with site.connect() as c:
        c.send(b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        assert c.head().status == 101
        if side == "worker":
            assert c.exactly(300000) == b"bye" * 100000
        else:
            c.send(b"123")
            c.sock.shutdown(1)
            assert c.exactly(3) == b"321"


def test_own_workers_get_whole_requests_on_an_unbuffered_route(work):
    site = work.forebay({"app": "demo", "processes": 1}, route={"buffer": "off"})
    with site.connect() as c:
        r = c.ask("POST", "/upload", body=b"z" * 300000, chunked=True)
        assert r.status == 200 and b"300000" in r.body
