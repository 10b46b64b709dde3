"""No worker ever waits for a client, over TLS and HTTP/2 as over plain HTTP/1.1: by the order of what happens (see test_hold.py), and
no stream of a connection waits for another."""

import hashlib
import threading

import pytest

import h2wire as h
import procs
from certs import CA
from client import Client, Cut, message, tls_context
from daemon import is_sanitized, scaled
from h2wire import H2, get, post, settings, window
from procs import wait_for
from test_hold import PATIENT, RESPONSE, UPLOAD, events
from tools import append, pattern, read_record

CLIENTS = scaled(100, 10)
MB = 1 << 20
PROTOCOLS = ("https", "h2c", "h2")
CASES = {"get": (None, ""), "upload": (UPLOAD, ""), "upload-chunked-response": (UPLOAD, "&chunked")}


def listen_for(work, protocol):
    """Options of a listener, and the sections that it needs."""
    listen, more = {}, {}
    if protocol != "h2c":
        listen["tls"] = "test"
        more["tls test"] = CA(work.dir).issue("test", ["test"]).options
    if protocol != "https":
        listen["http2"] = "yes"
    return listen, more


@pytest.fixture
def site(work, request):
    protocol = request.getfixturevalue("protocol")
    listen, more = listen_for(work, protocol)
    server = work.gunicorn(workers=2)
    site = work.forebay({"socket": server.socket, "slots": 2, "queue_timeout": "10m", "timeout": "10m"}, listen={**PATIENT, **listen},
                        more=more)
    site.record, site.tls = work.record, protocol != "h2c"
    return site


class Slow1:
    """A client of HTTP/1.1 over TLS that has not sent its last byte, and then reads nothing."""

    def __init__(self, site, target, body):
        self.wire = Client(site.address, tls=tls_context(["http/1.1"]))
        whole = message("POST" if body else "GET", target, [("Connection", "close")], body)
        self.wire.send(whole[:-1])
        self.last = whole[-1:]

    def read(self):
        r = self.wire.response()
        assert self.wire.to_end() == b"" and self.wire.ended == "eof"
        return r.status, r.body, r.get("X-Body-Sha256")


class Slow2:
    """The same by a stream of HTTP/2."""

    def __init__(self, site, target, body):
        self.wire = H2(site.address, tls=site.tls)
        if body:
            self.wire.settled()
            self.wire.send(post(1, path=target))
            self.wire.send_body(1, body[:-1], end=False)
            whole = h.data(1, body[-1:])
        else:
            whole = get(1, target)
        self.wire.send(whole[:-1])
        self.last = whole[-1:]

    def read(self):
        self.wire.takes = True
        self.wire.send(settings((h.INITIAL_WINDOW_SIZE, MB)) + window(0, MB))
        s = self.wire.answer(1)
        return s.status, bytes(s.body), s.get("x-body-sha256")


def fast_requests_complete(site, protocol, name):
    for i in range(5):
        target = f"/work?id={name}-{i}"
        if protocol == "https":
            with Client(site.address, tls=tls_context()) as c:
                body = c.ask("GET", target).body
        else:
            body = h.ask(site.address, target, tls=site.tls).body
        assert bytes(body).decode() == f"{name}-{i} 0"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_workers_never_wait_for_slow_clients(site, protocol, case):
    size, extra = CASES[case]
    body = pattern(size) if size else None
    kind = Slow1 if protocol == "https" else Slow2
    clients = []
    try:
        for i in range(CLIENTS):
            clients.append(kind(site, f"/work?id={i}&bytes={RESPONSE}{extra}", body))

        # In receiving: nobody has begun, and others are served.
        fast_requests_complete(site, protocol, "before")
        assert events(site, "begin") == []

        for i, c in enumerate(clients):
            append(site.record, "sent", i)
            c.wire.send(c.last)

        # In draining: nobody reads, yet the workers finish them all, and others are served.
        fast_requests_complete(site, protocol, "between")
        wait_for(lambda: len(events(site, "end")) == CLIENTS, lambda: f"{CLIENTS} ends; {len(events(site, 'end'))}")
        fast_requests_complete(site, protocol, "after")

        order = [(e, ident) for e, ident, _ in read_record(site.record)]
        for i in range(CLIENTS):
            assert order.count(("begin", str(i))) == 1
            assert order.index(("sent", str(i))) < order.index(("begin", str(i)))

        # And the slow ones get what is theirs, all of it.
        for i, c in enumerate(clients):
            assert c.read() == (200, pattern(RESPONSE, i), hashlib.sha256(body or b"").hexdigest())
    finally:
        for c in clients:
            c.wire.close()


@pytest.mark.parametrize("protocol", ["h2c", "h2"])
def test_streams_of_one_connection_never_hold_workers(site, protocol):
    """A hundred uploads on one connection, each without its last frame; then a hundred answers that nobody takes."""
    streams = [2 * i + 1 for i in range(scaled(100, 10))]
    body = pattern(10_000)
    with H2(site.address, tls=site.tls) as c:
        c.settled()
        for i, stream in enumerate(streams):
            c.send(post(stream, path=f"/work?id={i}&bytes=100000"))
            c.send_body(stream, body[:-1], end=False)
        c.settled()
        fast_requests_complete(site, protocol, "before")
        assert events(site, "begin") == []
        for stream in streams:
            c.send_body(stream, body[-1:])
        wait_for(lambda: len(events(site, "end")) == len(streams), lambda: f"the ends; there are {len(events(site, 'end'))}")
        fast_requests_complete(site, protocol, "after")
        c.takes = True
        c.send(settings((h.INITIAL_WINDOW_SIZE, MB)) + window(0, MB))
        for i, stream in enumerate(streams):
            s = c.answer(stream)
            assert s.status == 200 and bytes(s.body) == pattern(100_000, i)


def sized(conn):
    """Answers /NUMBER with so many bytes."""
    while True:
        try:
            seen = conn.request()
        except Cut:
            return
        size = int(seen.target[1:])
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + pattern(size))


@pytest.fixture
def raw_site(work, request):
    protocol = request.getfixturevalue("protocol")
    listen, more = listen_for(work, protocol)
    backend = work.backend(sized, keeps=False)
    site = work.forebay({"socket": backend.name, "slots": 2}, listen={**PATIENT, **listen}, more=more, forebay={"threads": 1})
    site.backend, site.tls = backend, protocol == "h2"
    return site


@pytest.mark.parametrize("protocol", ["h2c", "h2"])
def test_a_stream_that_is_not_read_delays_no_other(raw_site, protocol):
    """Twenty streams whose answers of 4 MB nobody takes, beside twenty of the same connection that are read to their ends. What the
    former cost lies in the spool, not in memory."""
    big, size, stuck = 4 * MB, 300_000, 20
    with H2(raw_site.address, tls=raw_site.tls) as c:
        assert c.ask(1, "/1000").status == 200
        before = procs.pss(raw_site.front())
        stopped = [2 * i + 3 for i in range(stuck)]
        c.send(settings((h.INITIAL_WINDOW_SIZE, 1000)) + b"".join(get(s, f"/{big}") for s in stopped))
        c.frames_until(lambda: all(s in c.streams and len(c.streams[s].body) == 1000 for s in stopped), "1000 bytes of each")
        others = [2 * i + 3 for i in range(stuck, 2 * stuck)]
        c.send(settings((h.INITIAL_WINDOW_SIZE, 1000)) + window(0, stuck * size))
        for s in others:
            c.send(get(s, f"/{size}") + window(s, size))
        for s in others:
            assert bytes(c.answer(s).body) == pattern(size)
        c.settled()
        assert [len(c.streams[s].body) for s in stopped] == [1000] * stuck
        more = procs.pss(raw_site.front()) - before
        assert is_sanitized() or more <= 24 * MB, f"{stuck} answers of {big} bytes took {more} bytes of memory"
        c.takes = True
        c.send(window(0, 1 << 20) + window(stopped[0], big))
        assert bytes(c.answer(stopped[0]).body) == pattern(big)
    for s in range(2):
        assert h.ask(raw_site.address, "/10", tls=raw_site.tls).status == 200


@pytest.mark.parametrize("protocol", ["h2c", "h2"])
def test_an_upload_that_stops_delays_no_other(raw_site, protocol):
    """Its stream has used its window up to the last byte; the connection's is given back, so the others go on."""
    with H2(raw_site.address, tls=raw_site.tls) as c:
        c.settled()
        for stream in (1, 3, 5):
            c.send(post(stream, path="/10"))
            c.send_body(stream, b"x" * 50_000, end=False)
        for stream in (7, 9, 11):
            c.send(post(stream, path="/10"))
            c.send_body(stream, pattern(500_000, stream))
            assert c.answer(stream).status == 200
        assert sorted(len(s.body) for s in raw_site.backend.take()) == [500_000] * 3
        for stream in (1, 3, 5):
            c.send_body(stream, b"y")
            assert c.answer(stream).status == 200
        assert [s.body for s in raw_site.backend.take()] == [b"x" * 50_000 + b"y"] * 3


@pytest.mark.parametrize("protocol", ["h2c", "h2"])
def test_streams_are_answered_as_they_are_ready(raw_site, protocol):
    """The first stream's worker is still at work when the others have been answered."""
    gate = threading.Event()

    def held(conn):
        conn.request()
        gate.wait()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    raw_site.backend.next(held)
    try:
        with H2(raw_site.address, tls=raw_site.tls) as c:
            c.send(get(1, "/1"))
            raw_site.backend.wait_seen(1)
            for stream in (3, 5, 7):
                assert c.ask(stream, "/10").status == 200
            assert 1 not in c.streams
            gate.set()
            assert c.answer(1).status == 200
    finally:
        gate.set()


@pytest.mark.parametrize("protocol", ["h2c", "h2"])
def test_a_stream_that_is_reset_while_it_waits_costs_no_worker(raw_site, protocol):
    """Both workers are held; what waits behind them is taken back, and never reaches one."""
    gate = threading.Event()

    def held(conn):
        conn.request()
        gate.wait()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    raw_site.backend.next(held, held)
    try:
        with H2(raw_site.address, tls=raw_site.tls) as c:
            c.send(get(1, "/1") + get(3, "/3"))
            raw_site.backend.wait_seen(2)
            c.send(get(5, "/5") + get(7, "/7") + h.reset(5))
            c.settled()
            gate.set()
            assert [c.answer(s).status for s in (1, 3, 7)] == [200] * 3
            assert 5 not in c.streams
        assert "/5" not in [s.target for s in raw_site.backend.take()]
    finally:
        gate.set()


@pytest.mark.parametrize("protocol", ["https", "h2c", "h2"])
def test_a_client_that_left_while_its_worker_worked(work, protocol):
    """The answer is thrown away, and the worker is free for the next."""
    listen, more = listen_for(work, protocol)
    backend = work.backend()
    gate = threading.Event()

    def held(conn):
        conn.request()
        gate.wait()
        conn.try_send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend.next(held)
    site = work.forebay({"socket": backend.name, "slots": 1}, listen=listen, more=more)
    try:
        if protocol == "https":
            with Client(site.address, tls=tls_context()) as c:
                c.send(message("GET", "/gone"))
                backend.wait_seen(1)
        else:
            with H2(site.address, tls=protocol == "h2") as c:
                c.send(get(1, "/gone"))
                backend.wait_seen(1)
        gate.set()
        if protocol == "https":
            with Client(site.address, tls=tls_context()) as c:
                assert c.ask("GET", "/next").status == 200
        else:
            assert h.ask(site.address, "/next", tls=protocol == "h2").status == 200
        assert [s.target for s in backend.seen] == ["/gone", "/next"]
    finally:
        gate.set()


def test_answers_are_cut_so_that_it_shows_over_tls(work):
    """What is cut short ends without close_notify: nobody can take it for whole."""
    listen, more = listen_for(work, "https")
    backend = work.backend()
    begun = threading.Event()

    def cut(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 200_000)
        begun.wait()

    site = work.forebay({"socket": backend.name, "slots": 1, "retries": 0}, listen=listen, more=more)
    backend.next(cut)
    try:
        with Client(site.address, tls=tls_context()) as c:
            c.send(message("GET", "/cut"))
            c.head()
            begun.set()
            c.to_end()
            assert c.ended in ("truncated", "reset")
    finally:
        begun.set()
    with Client(site.address, tls=tls_context()) as c:
        c.send(message("GET", "/whole", [("Connection", "close")]))
        assert c.response().status == 200 and c.ends() == "eof"  # close_notify was there
