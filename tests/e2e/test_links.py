"""Connections to workers, and what is on them when nobody looks: no answer is another's, no slot is lost, nothing is told to
who has gone. Each step waits for the one before it: what two ends do at the same time is held until it is wanted."""

import contextlib
import fcntl
import signal
import socket
import struct
import termios
import threading

import pytest

from backend import OK, answer
from client import Client, Cut, message
from procs import kill, state, wait_for

KEPT = {"slots": 1, "keepalive": "on", "timeout": "10s"}
ONE = {"threads": 1}


class Gate:
    """A worker says that it has come here, and goes on when the test lets it."""

    def __init__(self):
        self.reached, self.open = threading.Event(), threading.Event()

    def here(self):
        self.reached.set()
        assert self.open.wait(60)

    def wait(self):
        assert self.reached.wait(60), "the worker did not come here"

    def release(self):
        self.open.set()


@contextlib.contextmanager
def standing_still(site):
    """The front sees what happens meanwhile all at once."""
    front = site.front()
    kill(front, signal.SIGSTOP)
    try:
        wait_for(lambda: state(front) == "T", "the front to stand still")
        yield
    finally:
        kill(front, signal.SIGCONT)


def left(conn):
    """What the kernel counts for what this worker sent and nobody took."""
    return struct.unpack("i", fcntl.ioctl(conn.sock, termios.TIOCOUTQ, bytes(4)))[0]


def upgrade(target="/"):
    return message("GET", target, [("Connection", "upgrade"), ("Upgrade", "x")])


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"


# Kept connections


@pytest.mark.parametrize("before", [0, 2])  # short answers behind a short one are read in place
@pytest.mark.parametrize("behind", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"], ids=["its end", "another answer"])
def test_what_comes_with_the_answer_on_a_kept_connection_is_seen_before_the_next_request(work, behind, before):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, **KEPT}, forebay=ONE)
    read, sent = Gate(), threading.Event()

    def answer_and_more(conn):
        for _ in range(before):
            conn.request()
            conn.send(OK)
        conn.request()
        read.here()
        conn.send(OK)
        if behind:
            conn.try_send(behind)
        else:
            conn.sock.shutdown(2)
        sent.set()
        conn.peer_is_gone()

    backend.next(answer_and_more)
    for _ in range(before):
        assert site.ask("GET", "/before").body == b"ok"
    with site.connect() as c:
        c.send(message("GET", "/first"))
        read.wait()
        with standing_still(site):
            read.release()
            assert sent.wait(60)
        first = c.response()
        assert first.body != b"evil" and first.status in ((200,) if not behind else (200, 502))
    second = site.ask("POST", "/second", body=b"x")
    assert (second.status, second.body) == (200, b"ok")


def test_short_answers_lie_in_a_kept_connection_for_a_while(work):
    """Taking each out would wake a worker that sleeps in recv() for nothing. Whatever their sizes, they come whole; not many
    lie there; and the worker sees a clean end."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, **KEPT}, forebay=ONE)
    bodies = [b"1", b"22", b"333", bytes(200_000), b"4444", b"55555", bytes(16_384), b"6", b"77", b"888",
              *(b"%d" % i * 500 for i in range(100))]
    lie, end = [], []

    def answer_all(conn):
        for body in bodies:
            conn.request()
            lie.append(left(conn))
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        end.append(conn.sock.recv(1))

    backend.next(answer_all)
    for body in bodies:
        assert site.ask("GET", "/").body == body
    site.stop()
    wait_for(lambda: end, "the worker to see the end")
    assert end == [b""]
    assert lie[2] > 1 and lie[3] > lie[2], "short answers are read in place"
    assert lie[4] <= 1, "nothing is left before a long one, nor of it"
    assert max(lie) < 100_000, "what the kernel counts for some 16K"


def test_nothing_is_left_in_the_connection_of_a_worker_that_is_waited_for(work):
    """It wakes for its next request at once: as soon as its answer is taken out, which costs less than to wake it later."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, **KEPT}, forebay=ONE)
    held = Gate()
    lie = []

    def answer_all(conn):
        for number in range(5):
            conn.request()
            lie.append(left(conn))
            if number == 2:
                held.here()
            conn.send(OK)

    backend.next(answer_all)
    for _ in range(2):
        assert site.ask("GET", "/").body == b"ok"
    with site.connect() as first, site.connect() as second:
        first.send(message("GET", "/"))
        held.wait()
        second.send(message("GET", "/"))
        with site.connect() as later:  # what came before this is dealt with when this is
            later.send(b"nonsense\r\n\r\n")
            assert later.response().status == 400
        held.release()
        assert first.response().body == second.response().body == b"ok"
    assert site.ask("GET", "/").body == b"ok"
    assert lie[2] > 1, "nobody waited: it was read in place"
    assert lie[3] <= 1 < lie[4]


def test_an_answer_that_comes_after_one_to_head_is_nobodys(work):
    """gunicorn sends what an application yields for HEAD too, and it may come later than the head."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, **KEPT}, forebay=ONE)

    def head_then_content(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 47\r\n\r\n")
        conn.until(b"\r\n\r\n")  # should the next request be sent here
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEVIL!")
        conn.peer_is_gone()

    backend.next(head_then_content)
    assert site.ask("HEAD", "/head").status == 200
    assert site.ask("GET", "/next").body == b"ok"


@pytest.mark.parametrize("length", [0, 1, 3000])
def test_bytes_behind_an_answer_make_it_a_502(work, length):
    backend = work.backend(answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + b"a" * length + b"XX"))
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay=ONE)
    assert site.ask("POST", "/", body=b"x").status == 502


def test_early_hints_have_only_fields_that_are_for_the_client(work):
    hints = (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\n"
             b"Keep-Alive: timeout=5\r\nX-Request-Id: evil\r\n\r\n")
    backend = work.backend(answer(hints + OK))
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"early_hints": "on"})
    with site.connect() as c:
        c.send(message("GET", "/"))
        early = c.head()
        assert early.status == 103 and early.get("Link") == "</a>"
        names = {name.lower() for name, _ in early.headers}
        assert not names & {"connection", "x-hop", "transfer-encoding", "keep-alive"}, early.headers
        assert early.get("X-Request-Id") != "evil"
        assert c.response().body == b"ok"


# Clients that have gone


def test_a_101_for_a_client_that_has_gone_gives_the_slot_back(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1, "streams": 1, "release_timeout": "10m", "queue_timeout": "10s"},
                        forebay=ONE)
    gate, ended = Gate(), threading.Event()

    def late(conn):
        conn.request()
        gate.here()
        conn.send(SWITCHING)
        conn.peer_is_gone()
        ended.set()

    backend.next(late)
    c = site.connect()
    c.send(upgrade("/late"))
    gate.wait()
    c.reset()
    site.wait_access(lambda e: e["target"] == "/late")
    gate.release()
    assert site.ask("GET", "/next").status == 200
    assert ended.wait(60)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", ["events", "tunnel"])
def test_a_client_that_leaves_a_silent_stream_is_noticed(work, kind, how):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1, "streams": 1, "stream_idle_timeout": "1h", "queue_timeout": "10s",
                         "release_timeout": "1h"}, forebay=ONE)
    ended = threading.Event()

    def silent(conn):
        conn.request()
        conn.send(EVENTS if kind == "events" else SWITCHING)
        conn.peer_is_gone()
        ended.set()

    backend.next(silent)
    c = site.connect()
    c.send(message("GET", "/stream") if kind == "events" else upgrade("/stream"))
    assert c.head().status == (200 if kind == "events" else 101)
    if kind == "events":
        c.until(b"data: 1\n\n")
    (c.close if how == "close" else c.reset)()
    assert ended.wait(60)
    assert site.ask("GET", "/next").status == 200
    site.wait_access(lambda e: e["target"] == "/stream")


# Clients that read slowly


def test_an_upload_may_take_longer_than_timeout_while_the_worker_reads_it(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 2, "streams": 2, "timeout": "1s"}, forebay=ONE,
                        route={"buffer": "off"})
    taken = threading.Semaphore(0)

    def read_all(conn):
        conn.request_head()
        while conn.until(b"\r\n") != b"0\r\n":
            conn.until(b"\r\n")
            taken.release()
        conn.until(b"\r\n")
        conn.send(OK)

    def never(conn):
        conn.request()
        conn.peer_is_gone()

    backend.next(read_all, never)
    with site.connect() as upload, site.connect() as witness:

        def piece():
            upload.send(b"1\r\na\r\n")
            assert taken.acquire(timeout=60)

        upload.send(message("POST", "/upload", [("Transfer-Encoding", "chunked")]))
        piece()
        witness.send(message("GET", "/witness"))  # its time begins later, and ends first
        while witness.unread() == 0:
            piece()
        assert witness.response().status == 504
        piece()
        upload.send(b"0\r\n\r\n")
        assert upload.response().status == 200


def test_what_a_client_has_yet_to_read_of_one_response_does_not_count_against_the_next(work):
    """Far above min_rate all the time; until another, that reads nothing, has been cut for it."""
    first, second = 150_000, 3_000_000
    backend = work.backend()
    sizes = {"/first": first, "/second": second, "/witness": second}

    def sized(conn):
        size = sizes[conn.request().target]
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"z" * size)

    backend.default = sized
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay=ONE, listen={"min_rate": "1K", "min_rate_grace": "1s"})
    with Client(site.address, rcvbuf=4096) as c, Client(site.address, rcvbuf=4096) as witness:
        c.send(message("GET", "/first"))
        site.wait_access(lambda e: e["target"] == "/first")  # in the socket, all of it
        c.send(message("GET", "/second"))
        backend.wait_seen(2)
        witness.send(message("GET", "/witness"))  # its turn comes when the second has left the worker

        def witness_was_cut():
            c.buf += c.sock.recv(250)
            return any(e["cut"] for e in site.access() if e["target"] == "/witness")

        wait_for(witness_was_cut, "the end of one who does not read")
        assert len(c.response().body) == first
        assert len(c.response().body) == second
    assert not any(e["cut"] for e in site.access() if e["target"] != "/witness")


def test_a_refused_requests_body_outlives_its_worker(work):
    """A client with no room for its 504: the worker ends, and then what was kept of the request goes to the spool."""
    gate = Gate()
    backend = work.backend()

    def handler(conn):
        target = conn.request().target
        if target == "/late":
            gate.here()
        elif target == "/long":
            conn.try_send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"z" * 5_000_000)
        else:
            conn.send(OK)

    backend.default = handler
    path = work.path("site.sock")
    site = work.forebay({"socket": backend.name, "slots": 2, "timeout": "1s", "release_timeout": "10m"}, forebay=ONE,
                        listen={"min_rate": "1K", "min_rate_grace": "100ms"}, more={"listen unix": {"address": path, "min_rate": 0}, "route fill": {"pool": "fill"},
                              "pool fill": {"socket": backend.name, "slots": 1}})

    def logged(target):
        with open(site.access_path) as f:
            return f'"target":"{target}"' in f.read()

    def sent(target):
        """True: this response is in its client's socket. Another client's, whose turn at the only slot came later, is."""
        assert site.ask("GET", "/after" + target, host="fill").status == 200
        wait_for(lambda: logged("/after" + target), "the log")
        return logged(target)

    # How many responses fit a socket that nobody reads: the same each time, for a Unix socket.
    with Client(path) as c:
        for room in range(10_000):
            c.send(message("GET", f"/fill-{room}", host="fill"))
            backend.wait_seen(2 * room + 1)
            if not sent(f"/fill-{room}"):
                break
    with Client(path) as c:
        for i in range(room):
            c.send(message("GET", f"/full-{i}", host="fill"))
            backend.wait_seen(2 * room + 2 + 2 * i + 1)
            assert sent(f"/full-{i}")
        c.send(message("POST", "/late", body=b"q" * 20_000))
        gate.wait()
        with site.connect() as witness:
            backend.next(lambda conn: (conn.request(), conn.peer_is_gone()))
            witness.send(message("POST", "/witness", body=b"x"))  # later, so its 504 is the later one
            assert witness.response().status == 504
        assert not sent("/late")
        gate.release()
        with Client(site.address, rcvbuf=4096) as witness:  # waited for later, so looked after later, until it is cut
            witness.send(message("GET", "/long", host="fill"))
            site.wait_access(lambda e: e["target"] == "/long" and e["cut"])
        assert site.ask("GET", "/last").status == 200
        for i in range(room):
            assert c.response().status == 200
        assert c.response().status == 504
    assert site.wait_access(lambda e: e["target"] == "/late")[0]["request_spooled"]


@pytest.mark.parametrize("piece", [len(OK), 10])
def test_many_short_answers_come_by_one_connection(work, piece):
    """forebay leaves short answers in the worker's socket for a while: however short they are, and in however many pieces they were
    written, the worker never waits for room. (A socket's buffer counts some 768 bytes for each piece.)"""

    def in_pieces(conn):
        while True:
            try:
                conn.request()
            except Cut:
                return
            for at in range(0, len(OK), piece):
                conn.send(OK[at:at + piece])

    backend = work.backend(in_pieces, keeps=False)
    site = work.forebay({"socket": backend.name, **KEPT}, forebay=ONE)
    with site.connect() as c:
        for _ in range(1000):
            assert c.ask("GET", "/").status == 200


@pytest.mark.parametrize("body", [None, b"x", b"x" * 500_000], ids=["no body", "small", "large"])
def test_a_worker_that_waits_for_room_to_answer_gets_it(work, body):
    """The answers of before lie in its socket, read in place; its buffer has room for a few of them only."""

    def short_of_room(conn):
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least
        while True:
            try:
                conn.request()
            except Cut:
                return
            conn.send(OK)

    backend = work.backend(short_of_room, keeps=False)
    site = work.forebay({"socket": backend.name, **KEPT}, forebay=ONE)
    with site.connect() as c:
        for _ in range(30):
            assert c.ask("GET", "/").status == 200
        for _ in range(3):
            c.send(message("POST", "/", body=body) if body else message("GET", "/"))
            assert c.response().status == 200
