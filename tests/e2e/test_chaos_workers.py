"""Workers that stop, vanish or talk nonsense at each stage of a request: the client is told, the slot is free when it should be, and
others are served meanwhile."""

import signal
import socket
import threading

import pytest

import procs
from backend import OK
from client import Client, Cut, message
from daemon import free_address
from procs import wait_for
from tools import pattern

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"
LONG = pattern(300_000)
BODY = pattern(500_000)


# How a worker misbehaves: `until` is set at the test's end


def never_reads(conn, until):
    conn.sock.recv(1, socket.MSG_PEEK)  # it has come: who vanishes before may be taken for one that was never there
    until.wait()


def reads_half_the_body(conn, until):
    conn.request_head()
    conn.exactly(100_000)
    until.wait()


def never_answers(conn, until):
    conn.request()
    until.wait()


def one_byte(conn, until):
    conn.request()
    conn.send(b"H")
    until.wait()


def half_a_head(conn, until):
    conn.request()
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    until.wait()


def half_a_short_body(conn, until):
    conn.request()
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n0123456789")
    until.wait()


def half_a_long_body(conn, until):
    conn.request()
    conn.send(HEAD + LONG[:200_000])
    until.wait()


def then(close):
    """The same, but it ends where it would stop."""

    def made(handler):
        def handle(conn, until):
            class Now:
                @staticmethod
                def wait():
                    pass

            handler(conn, Now)
            if close == "reset":
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        return handle

    return made


STAGES = [never_reads, reads_half_the_body, never_answers, one_byte, half_a_head, half_a_short_body, half_a_long_body]


def what_came(c):
    try:
        return c.response("POST").status
    except Cut as cut:
        head = cut.partial if cut.partial.startswith(b"HTTP/") else b""
        return f"cut by {cut.how}" + (" in the head" if head else "")


@pytest.fixture
def until():
    event = threading.Event()
    yield event
    event.set()


def a_bad_one(work, bad, until, **pool):
    """A pool of two slots on TCP, where a close is seen as what it is."""
    backend = work.tcp_backend()
    backend.next(lambda conn: bad(conn, until))
    site = work.forebay({"socket": backend.name, "slots": 2, "retries": 0, "queue_timeout": "10m", **pool})
    return backend, site


def others_are_served(site, n=20):
    assert [site.ask("GET", f"/other-{i}").status for i in range(n)] == [200] * n


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.__name__)
def test_a_worker_that_stops_is_a_504_and_its_slot_waits_for_it(work, quiet, until, stage):
    """A request it might still be at keeps its slot, until release_timeout; then both are used again."""
    backend, site = a_bad_one(work, stage, until, timeout="1500ms", release_timeout="300ms")
    calm = quiet(site)
    with site.connect() as c:
        c.send(message("POST", "/bad", body=BODY))
        backend.wait_accepted(1)
        others_are_served(site)
        assert what_came(c) == ("cut by reset" if stage is half_a_long_body else 504)
    entry = site.wait_access(lambda e: e["target"] == "/bad")[0]
    assert entry["reason"] and entry["attempts"] == 1
    wait_for(lambda: calm.sockets_are_back(site.front()), "the connection to the worker to be given up")
    both_slots_serve(site, backend)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.__name__)
def test_a_worker_that_vanishes_is_a_502_at_once(work, quiet, until, stage, how):
    backend, site = a_bad_one(work, then(how)(stage), until, timeout="10m", release_timeout="10m")
    quiet(site)
    with site.connect() as c:
        c.send(message("POST", "/bad", body=BODY))
        assert what_came(c) == ("cut by reset" if stage is half_a_long_body else 502)
    entry = site.wait_access(lambda e: e["target"] == "/bad")[0]
    assert entry["reason"] and entry["attempts"] == 1
    both_slots_serve(site, backend)


def both_slots_serve(site, backend):
    """Two requests are at the worker at the same time: no slot was lost."""
    gate, there = threading.Barrier(3), []

    def meet(conn):
        there.append(conn.request().target)
        gate.wait(60)
        conn.send(OK)

    backend.next(meet, meet)
    with site.connect() as one, site.connect() as two:
        one.send(message("GET", "/one"))
        two.send(message("GET", "/two"))
        gate.wait(60)
        assert one.response().status == two.response().status == 200
    assert sorted(there) == ["/one", "/two"]


# Ports


def holder(address):
    """Somebody else who listens there."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address)
    s.listen()
    return s


def refused(address):
    try:
        Client(address).close()
        return False
    except ConnectionRefusedError:
        return True


@pytest.mark.parametrize("reuseport", [False, True])
def test_one_port_of_three_that_is_taken_leaves_none_bound(work, reuseport):
    """Also when the other would share it: half of the connections would go to it."""
    addresses = [free_address() for _ in range(3)]
    with socket.socket() as other:
        if reuseport:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(addresses[1])
        other.listen()
        site = work.forebay({"socket": work.path("x.sock"), "slots": 1}, ready=False,
                            listen={"address": ["%s:%d" % a for a in addresses]})
        site.expected = {1}
        assert site.wait() == 1
        assert "%s:%d: bind: Address already in use" % addresses[1] in site.log()
        assert refused(addresses[0]) and refused(addresses[2]) and " ready: " not in site.log()


def test_a_port_that_is_taken_while_forebay_is_away(work):
    """It says so, ends with 1, and starts as soon as the port is free again: connections of its last life do not keep it."""
    backend = work.backend()
    first = work.forebay({"socket": backend.name, "slots": 1})
    path, address = first.argv[-1], first.address
    lingering = first.connect()
    assert lingering.ask("GET", "/").status == 200
    assert first.stop() == 0
    with holder(address):
        second = work.forebay_run(["-c", path], address, name="second", ready=False)
        second.expected = {1}
        assert second.wait() == 1
        assert "another program listens there" in second.log()
    lingering.close()
    third = work.forebay_run(["-c", path], address, name="third")
    assert third.ask("GET", "/").status == 200


def test_a_unix_socket_that_somebody_serves_is_not_taken_away(work):
    path = work.path("door.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        site = work.forebay({"socket": work.path("x.sock"), "slots": 1}, ready=False, listen={"address": "unix:" + path})
        site.expected = {1}
        assert site.wait() == 1 and "Address already in use" in site.log()
        with Client(path):
            other.accept()[0].close()


def test_a_front_that_is_replaced_keeps_the_port(work):
    """The listeners are the master's: nobody can take the port between two fronts."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 4})
    for _ in range(3):
        old = site.front()
        procs.kill(old, signal.SIGKILL)
        with pytest.raises(OSError):
            holder(site.address)
        wait_for(lambda old=old: site.front() not in (None, old), "a new front")
        assert site.ask("GET", "/").status == 200
