"""No worker ever waits for a client. Shown by the order of what happens, not by how long it takes: 200 slow clients before two
workers, with the application's record of begins and ends, to which the test adds when it sent each last byte."""

import hashlib
import selectors
import threading

import pytest

from client import Client, message
from daemon import scaled
from procs import wait_for
from tools import append, pattern, read_record

CLIENTS = scaled(200, 20)
RESPONSE = 1 << 20
UPLOAD = 100_000  # more than stays in memory

# No limit but those of the machine: these clients are as slow as can be.
PATIENT = {"min_rate": 0, "head_timeout": "10m", "idle_timeout": "10m"}

CASES = {
    "get": ("GET", None, False, ""),
    "get-chunked-response": ("GET", None, False, "&chunked"),
    "upload": ("POST", UPLOAD, False, ""),
    "chunked-upload-and-response": ("POST", UPLOAD, True, "&chunked"),
}


@pytest.fixture
def site(work):
    server = work.gunicorn(workers=2)
    site = work.forebay({"socket": server.socket, "slots": 2, "queue_timeout": "10m", "timeout": "10m"}, listen=PATIENT)
    site.record = work.record
    return site


def fast_requests_complete(site, name):
    for i in range(10):
        assert site.ask("GET", f"/work?id={name}-{i}").body.decode() == f"{name}-{i} 0"


def refused_now(site):
    """Proof that the (one) event thread has dealt with all that was sent before: what came in later has been answered."""
    assert site.ask("GET", "/", [("Content-Length", "x")]).status == 400


def events(site, event):
    return [ident for e, ident, _ in read_record(site.record) if e == event and ident.isdigit()]


def read_all(clients):
    """Reads every client's answer to its end, all at once, as they come."""
    chooser = selectors.DefaultSelector()
    for c in clients:
        chooser.register(c.sock, selectors.EVENT_READ, c)
    while chooser.get_map():
        ready = chooser.select(60)
        assert ready, f"{len(chooser.get_map())} clients wait for the rest"
        for key, _ in ready:
            c = key.data
            if not c.fill():
                chooser.unregister(c.sock)


@pytest.mark.parametrize("case", CASES)
def test_workers_never_wait_for_slow_clients(site, case):
    method, size, chunked, extra = CASES[case]
    body = pattern(size) if size else None
    clients = []
    try:
        for i in range(CLIENTS):
            c = Client(site.address, rcvbuf=64 << 10)
            clients.append(c)
            whole = message(method, f"/work?id={i}&bytes={RESPONSE}{extra}", [("Connection", "close")], body, chunked=chunked)
            c.send(whole[:-1])
            c.last = whole[-1:]

        # In receiving: nobody has begun, and others are served.
        fast_requests_complete(site, "before")
        assert events(site, "begin") == []

        for i, c in enumerate(clients):
            append(site.record, "sent", i)
            c.send(c.last)

        # In draining: nobody reads, yet the workers finish them all, and others are served.
        fast_requests_complete(site, "between")
        wait_for(lambda: len(events(site, "end")) == CLIENTS, lambda: f"{CLIENTS} ends; {len(events(site, 'end'))}")
        had = [c.unread() for c in clients]
        assert max(had) <= RESPONSE // 2, f"a slow client had {max(had)} bytes when the workers had finished"
        fast_requests_complete(site, "after")

        order = [(e, ident) for e, ident, _ in read_record(site.record)]
        for i in range(CLIENTS):
            assert order.count(("begin", str(i))) == 1
            assert order.index(("sent", str(i))) < order.index(("begin", str(i)))

        # And the slow ones get what is theirs, all of it.
        read_all(clients)
        for i, c in enumerate(clients):
            r = c.response()
            assert r.status == 200 and r.body == pattern(RESPONSE, i)
            assert r.get("X-Body-Sha256") == hashlib.sha256(body or b"").hexdigest()
            assert c.ended == "eof" and not c.buf
    finally:
        for c in clients:
            c.close()


def test_a_client_that_sends_byte_by_byte_costs_no_worker(site):
    whole = message("POST", "/work?id=1", body=b"0123456789", chunked=True)
    with site.connect() as c:
        for at in range(len(whole) - 1):
            c.send(whole[at:at + 1])
        fast_requests_complete(site, "fast")
        assert events(site, "begin") == []
        c.send(whole[-1:])
        assert c.response().body == b"1 10"


def test_more_idle_clients_than_workers_cost_nothing(site):
    clients = [Client(site.address) for _ in range(scaled(500, 50))]
    try:
        fast_requests_complete(site, "fast")
        for c in clients[:20]:  # the idle ones are served when they wake up
            assert c.ask("GET", "/").body == b"hello\n"
    finally:
        for c in clients:
            c.close()


def test_no_more_requests_are_in_work_than_there_are_slots(work):
    """The raw worker would take all at once; forebay hands it two."""

    def hold(conn):
        conn.request()
        conn.backend.release.wait()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend = work.backend(hold)
    backend.release = threading.Event()
    site = work.forebay({"socket": backend.name, "slots": 2}, forebay={"threads": 1})
    clients = [site.connect() for _ in range(30)]
    try:
        for i, c in enumerate(clients):
            c.send(message("GET", f"/{i}"))
        backend.wait_seen(2)
        refused_now(site)
        assert len(backend.seen) == 2 and backend.accepted == 2
        backend.release.set()
        assert [c.response().status for c in clients] == [200] * 30
    finally:
        backend.release.set()
        for c in clients:
            c.close()


def test_requests_wait_in_the_order_in_which_they_were_complete(work):
    backend = work.backend()

    def first(conn):
        conn.request()
        conn.backend.release.wait()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend.release = threading.Event()
    backend.next(first)
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"threads": 1})
    clients = [site.connect() for _ in range(6)]
    try:
        clients[0].send(message("GET", "/0"))
        backend.wait_seen(1)
        for i in (3, 1, 5, 2, 4):
            clients[i].send(message("GET", f"/{i}"))
            refused_now(site)
        backend.release.set()
        for c in clients:
            assert c.response().status == 200
        assert [s.target for s in backend.seen] == ["/0", "/3", "/1", "/5", "/2", "/4"]
    finally:
        backend.release.set()
        for c in clients:
            c.close()
