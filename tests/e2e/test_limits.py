"""Every limit is reached: who goes over it hears so, and everybody else is served as before."""

import select
import socket
import threading

import pytest

from backend import OK, Backend
from client import Client, Cut, chunks, message
from daemon import free_address, scaled
from procs import wait_for
from tools import pattern

MB = 1 << 20


class Held:
    """A worker's default handler that answers when released."""

    def __init__(self, content=OK):
        self.event, self.content = threading.Event(), content

    def __call__(self, conn):
        conn.request()
        self.event.wait()
        conn.send(self.content)

    def release(self):
        self.event.set()


@pytest.fixture
def held():
    h = Held()
    yield h
    h.release()


def refused_now(site):
    """With one event thread: all that was sent before this has been dealt with."""
    assert site.ask("GET", "/", [("Content-Length", "x")]).status == 400


def reason(site, status, count=1):
    """The access log's entries with this status; each says why."""
    found = site.wait_access(lambda e: e["status"] == status, count)
    assert all(e["reason"] for e in found), found
    return found


def drip(c, data, step=1):
    """Sends a little again and again until the other end has something to say; returns how much was sent."""
    sent = 0
    c.sock.settimeout(0.02)
    while sent < len(data):
        try:
            c.sock.send(data[sent:sent + step])
            sent += step
            if c.sock.recv(1, socket.MSG_PEEK) is not None:
                break
        except socket.timeout:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    c.sock.settimeout(30)
    return sent


# The head


@pytest.fixture(scope="module")
def small(shared):
    backend = shared.backend(name="small")
    site = shared.forebay({"socket": backend.name, "slots": 2}, listen={"head_limit": "4K"}, name="small")
    site.backend = backend
    return site


def test_a_head_over_the_limit_is_a_431(small):
    with small.connect() as c:
        c.try_send(message("GET", "/", [("A", "x" * 5000)]))
        assert c.response().status == 431
        c.ends()
    reason(small, 431)


def test_many_small_fields_over_the_limit_are_a_431(small):
    with small.connect() as c:
        c.try_send(message("GET", "/", [(f"A{i}", "x" * 80) for i in range(60)]))
        assert c.response().status == 431
        c.ends()


def test_a_head_without_end_is_refused_as_soon_as_it_is_over_the_limit(small):
    with small.connect() as c:
        c.send(b"GET / HTTP/1.1\r\nHost: test\r\nA: ")
        assert drip(c, b"x" * 100_000, step=1000) < 50_000
        assert c.response().status == 431


def test_a_request_line_over_the_limit_is_a_414(small):
    with small.connect() as c:
        c.try_send(message("GET", "/" + "x" * 5000))
        assert c.response().status == 414
        c.ends()
    reason(small, 414)


def test_a_head_just_under_the_limit_passes(small):
    raw = message("GET", "/", [("A", "")])
    assert small.ask("GET", "/", [("A", "x" * (4096 - len(raw)))]).status == 200


def test_100_fields_pass_and_one_more_is_a_431(small):
    fields = [(f"a{i}", "b") for i in range(99)]  # and Host
    assert small.ask("GET", "/", fields).status == 200
    with small.connect() as c:
        c.try_send(message("GET", "/", fields + [("one", "more")]))
        assert c.response().status == 431
        c.ends()


def test_a_head_that_takes_too_long_is_a_408(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"head_timeout": "300ms"})
    with site.connect() as c:
        c.send(b"GET / HTTP/1.1\r\nHost: te")
        assert c.response().status == 408
        c.ends()
    with site.connect() as c:  # nothing at all: there is nothing to answer
        rest = c.to_end()
        assert rest == b"" or b" 408 " in rest
    entry = reason(site, 408)[0]
    assert entry["hold_ms"] is None and backend.accepted == 0
    assert site.ask("GET", "/").status == 200


def test_dripping_does_not_extend_the_time_for_the_head(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"head_timeout": "300ms"})
    with site.connect() as c:
        drip(c, message("GET", "/" + "x" * 5000))
        assert c.response().status == 408
    assert backend.accepted == 0


def test_a_second_request_has_its_own_time(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"head_timeout": "300ms", "idle_timeout": "10m"})
    with site.connect() as c:
        assert c.ask("GET", "/").status == 200
        c.send(b"GET / HT")
        assert c.response().status == 408


# The body


@pytest.fixture(scope="module")
def narrow(shared):
    backend = shared.backend(name="narrow")
    site = shared.forebay({"socket": backend.name, "slots": 2}, route={"body_limit": "100000"}, name="narrow",
                          more={"route */wide": {"pool": "app", "body_limit": "1M"}})
    site.backend = backend
    return site


def test_a_length_over_the_limit_is_a_413_before_the_body(narrow):
    with narrow.connect() as c:
        c.send(message("POST", "/", [("Content-Length", "100001")]))  # and no byte of it
        assert c.response().status == 413
    reason(narrow, 413)
    assert not [s for s in narrow.backend.seen if s.method == "POST"]


def test_a_413_is_heard_by_a_client_that_goes_on_sending(narrow):
    with narrow.connect() as c:
        c.try_send(message("POST", "/", body=b"x" * 3_000_000))
        assert c.response().status == 413


def test_chunks_over_the_limit_are_a_413(narrow):
    with narrow.connect() as c:
        c.send(message("POST", "/", [("Transfer-Encoding", "chunked")]))
        c.try_send(chunks(b"x" * 100_001)[:-5])  # without the last chunk
        assert c.response().status == 413
    assert not [s for s in narrow.backend.seen if s.method == "POST" and len(s.body) > 100_000]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_as_long_as_the_limit_passes(narrow, chunked):
    assert narrow.ask("POST", "/", body=b"x" * 100_000, chunked=chunked).status == 200


def test_a_route_has_a_limit_of_its_own(narrow):
    assert narrow.ask("POST", "/wide", body=b"x" * MB).status == 200
    with narrow.connect() as c:
        c.try_send(message("POST", "/wide", body=b"x" * (MB + 1)))
        assert c.response().status == 413


SLOW = {"min_rate": "100K", "min_rate_grace": "300ms"}


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_that_stops_is_a_408(work, chunked):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen=SLOW)
    with site.connect() as c:
        c.send(message("POST", "/", body=b"x" * 5000, chunked=chunked)[:-3])
        assert c.response().status == 408
        c.ends()
    reason(site, 408)
    assert backend.accepted == 0
    assert site.ask("POST", "/", body=b"x" * 5000).status == 200


def test_an_upload_that_drips_is_a_408(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen=SLOW)
    with site.connect() as c:
        raw = message("POST", "/", body=b"x" * 20_000)
        at = len(raw) - 20_000
        c.send(raw[:at])
        drip(c, raw[at:])
        assert c.response().status == 408
    assert backend.accepted == 0


def test_a_client_that_takes_its_response_too_slowly_is_cut(work):
    size = 8 * MB
    backend = work.backend(lambda conn: (conn.request(), conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
                                                                     + pattern(size))))
    site = work.forebay({"socket": backend.name, "slots": 1}, listen=SLOW)
    with Client(site.address, rcvbuf=4096) as c:
        c.send(message("GET", "/slow"))
        entry = site.wait_access(lambda e: e["target"] == "/slow")[0]  # it ends while we read nothing
        assert entry["cut"] is True and entry["reason"] and entry["response_bytes"] < size
        with pytest.raises(Cut):
            c.response()
    assert site.ask("GET", "/fast").body == pattern(size)


def test_min_rate_0_waits_for_ever(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"min_rate": 0, "min_rate_grace": 0, "idle_timeout": "100ms"})
    with site.connect() as c:
        c.send(message("POST", "/", body=b"x" * 100)[:-1])
        for _ in range(3):  # others come, idle, and are closed meanwhile
            with site.connect() as other:
                assert other.ask("GET", "/").status == 200
                other.ends()
        c.send(b"x")
        assert c.response().status == 200


# Connections


def test_an_idle_connection_is_closed(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"idle_timeout": "300ms"})
    with site.connect() as c:
        assert c.ask("GET", "/").status == 200
        assert c.ends() == "eof"


def test_a_connection_that_waits_for_its_answer_is_not_idle(work, held):
    backend = work.backend(held)
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"idle_timeout": "100ms", "head_timeout": "100ms"})
    with site.connect() as c:
        c.send(message("GET", "/"))
        backend.wait_seen(1)
        for _ in range(3):
            with site.connect() as other:
                other.to_end()
        held.release()
        assert c.response().status == 200


def test_a_connection_ends_after_its_number_of_requests(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"keepalive_requests": 3})
    with site.connect() as c:
        assert c.ask("GET", "/").keeps
        assert c.ask("GET", "/").keeps
        assert not c.ask("GET", "/").keeps
        assert c.ends() == "eof"


FULL = 16


def test_at_the_limit_of_connections_the_longest_idle_is_closed_first(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 4}, forebay={"connections": FULL, "threads": 1})
    clients = []
    try:
        for i in range(FULL):
            c = site.connect()
            clients.append(c)
            assert c.ask("GET", "/").status == 200
        for i in range(4):
            c = site.connect()
            clients.append(c)
            assert c.ask("GET", "/").status == 200
            assert clients[i].ends()  # and not another
        for c in clients[4:]:
            assert c.ask("GET", "/").status == 200
    finally:
        for c in clients:
            c.close()


def test_at_the_limit_of_connections_those_with_a_request_in_work_stay(work, held):
    backend = work.backend(held)
    site = work.forebay({"socket": backend.name, "slots": FULL}, forebay={"connections": FULL, "threads": 1})
    busy = [site.connect() for _ in range(FULL - 1)]
    idle = site.connect()
    extra = []
    try:
        for c in busy:
            c.send(message("GET", "/"))
        backend.wait_seen(FULL - 1)
        for _ in range(3):
            c = site.connect()
            extra.append(c)
            c.try_send(message("GET", "/extra"))
        assert idle.ends()
        held.release()
        assert [c.response().status for c in busy] == [200] * (FULL - 1)
    finally:
        for c in busy + extra + [idle]:
            c.close()


def test_one_address_has_only_so_many_connections(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 4}, listen={"connections_per_address": 3})
    clients = [site.connect() for _ in range(3)]
    try:
        assert [c.ask("GET", "/").status for c in clients] == [200] * 3
        with site.connect() as c:
            c.try_send(message("GET", "/"))
            heard = c.to_end()
            assert b" 200 " not in heard.split(b"\r\n")[0]
        other = socket.socket()
        other.bind((free_address()[0], 0))  # another address is not affected
        other.settimeout(30)
        other.connect(site.address)
        other.sendall(message("GET", "/", [("Connection", "close")]))
        assert b" 200 " in other.recv(4096)
        other.close()
        clients.pop().close()

        def let_in():
            with site.connect() as c:
                return c.try_send(message("GET", "/", [("Connection", "close")])) and b" 200 " in c.to_end()

        wait_for(let_in, "room for another connection")
    finally:
        for c in clients:
            c.close()


# The queue and the workers


def test_a_full_queue_is_a_503_with_retry_after(work, held):
    backend = work.backend(held)
    site = work.forebay({"socket": backend.name, "slots": 1, "queue_limit": 2}, forebay={"threads": 1})
    waiting = [site.connect() for _ in range(3)]
    try:
        waiting[0].send(message("GET", "/0"))
        backend.wait_seen(1)
        for i in (1, 2):
            waiting[i].send(message("GET", f"/{i}"))
        refused_now(site)
        r = site.ask("GET", "/3")
        assert r.status == 503 and int(r.get("Retry-After")) >= 1
        reason(site, 503)
        held.release()
        assert [c.response().status for c in waiting] == [200] * 3
        assert [s.target for s in backend.seen] == ["/0", "/1", "/2"]
    finally:
        for c in waiting:
            c.close()


def test_a_request_that_waits_too_long_is_a_503_and_never_reaches_a_worker(work, held):
    backend = work.backend(held)
    site = work.forebay({"socket": backend.name, "slots": 1, "queue_timeout": "300ms"})
    with site.connect() as first:
        first.send(message("GET", "/first"))
        backend.wait_seen(1)
        r = site.ask("POST", "/second", body=b"x")
        assert r.status == 503 and int(r.get("Retry-After")) >= 1
        entry = reason(site, 503)[0]
        assert entry["hold_ms"] is None and entry["total_ms"] >= 300
        held.release()
        assert first.response().status == 200
    assert site.ask("GET", "/third").status == 200
    assert [s.target for s in backend.seen] == ["/first", "/third"]


def test_a_worker_that_takes_too_long_is_a_504_and_keeps_its_slot(work, held):
    backend = work.backend(held)
    site = work.forebay({"socket": backend.name, "slots": 1, "timeout": "300ms", "release_timeout": "10m", "queue_timeout": "10m"},
                        forebay={"threads": 1})
    assert site.ask("POST", "/slow", body=b"x").status == 504
    reason(site, 504)
    with site.connect() as c:
        c.send(message("GET", "/next"))
        refused_now(site)
        assert backend.accepted == 1  # it waits: the worker is not free
        held.release()
        assert c.response().status == 200
    assert [s.target for s in backend.seen] == ["/slow", "/next"]


def test_a_worker_that_never_ends_gives_its_slot_back_at_last(work, held):
    backend = work.backend()
    backend.next(held)
    site = work.forebay({"socket": backend.name, "slots": 1, "timeout": "200ms", "release_timeout": "500ms", "queue_timeout": "10m"})
    assert site.ask("POST", "/slow", body=b"x").status == 504
    assert site.ask("GET", "/next").status == 200


def test_a_timeout_in_the_middle_of_a_long_response_is_a_cut(work):
    release = threading.Event()

    def half(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + pattern(300_000))
        release.wait()

    backend = work.backend(half)
    site = work.forebay({"socket": backend.name, "slots": 1, "timeout": "300ms"})
    try:
        with site.connect() as c:
            c.send(message("GET", "/"))
            with pytest.raises(Cut):
                c.response()
    finally:
        release.set()


def test_a_client_that_leaves_the_queue_costs_no_worker(work, held):
    backend = work.backend()
    backend.next(held)
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"threads": 1})
    with site.connect() as first:
        first.send(message("GET", "/first"))
        backend.wait_seen(1)
        gone = [site.connect() for _ in range(10)]
        for i, c in enumerate(gone):
            c.send(message("GET", f"/gone-{i}"))
        refused_now(site)
        for i, c in enumerate(gone):
            (c.close if i % 2 else c.reset)()
        site.wait_access(lambda e: e["status"] == 499, 10)
        held.release()
        assert first.response().status == 200
    assert site.ask("GET", "/last").status == 200
    assert [s.target for s in backend.seen] == ["/first", "/last"]


def test_half_close_is_a_departure_unless_it_is_allowed(work, held):
    backend = work.backend(held)
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"half_close": "on"})
    with site.connect() as c:
        c.send(message("GET", "/"))
        c.sock.shutdown(socket.SHUT_WR)
        backend.wait_seen(1)
        held.release()
        assert c.response().status == 200
        c.ends()


def test_a_server_that_cannot_be_connected_to_is_a_503_in_the_end(work):
    site = work.forebay({"socket": work.path("nobody.sock"), "slots": 1, "queue_timeout": "300ms"})
    r = site.ask("GET", "/")
    assert r.status == 503 and r.get("Retry-After")
    reason(site, 503)


def test_streams_are_capped_and_leave_the_other_slots(work):
    release = threading.Event()

    def stream(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\n\n\r\n")
        release.wait()
        conn.send(b"0\r\n\r\n")

    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 2, "streams": 1})
    try:
        backend.next(stream)
        with site.connect() as first:
            first.send(message("GET", "/stream"))
            first.head()
            assert first.chunk() == b"a\n\n"
            with site.connect() as second:
                second.send(message("GET", "/", [("Connection", "Upgrade"), ("Upgrade", "websocket")]))
                assert second.response().status == 503
            for _ in range(5):
                assert site.ask("GET", "/").status == 200
            release.set()
            assert first.chunk() == b""
    finally:
        release.set()


# Memory and spool


def test_a_body_that_does_not_fit_the_spool_is_refused_alone(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 2}, forebay={"spool_limit": "1M"})
    with site.connect() as other:
        other.send(message("POST", "/other", body=b"x" * 1000)[:-1])
        with site.connect() as c:
            c.try_send(message("POST", "/big", body=pattern(8 * MB)))
            assert c.response().status in (503, 507)
        other.send(b"x")
        assert other.response().status == 200
    found = site.wait_access(lambda e: e["target"] == "/big")[0]
    assert found["reason"] and found["hold_ms"] is None
    assert [s.target for s in backend.seen] == ["/other"]
    assert site.ask("POST", "/again", body=pattern(500_000)).status == 200  # the spool's room came back


def test_a_response_that_does_not_fit_the_spool_is_whole_or_visibly_not(work):
    size = 8 * MB
    backend = work.backend()
    backend.next(lambda conn: (conn.request(), conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + pattern(size))))
    site = work.forebay({"socket": backend.name, "slots": 2, "retries": 0}, forebay={"spool_limit": "1M"})
    with site.connect() as c:
        c.send(message("GET", "/"))
        try:
            r = c.response()
            assert r.status in (502, 503, 507) or r.body == pattern(size)
        except Cut:
            pass
    assert site.ask("GET", "/").body == b"ok"


def test_when_memory_is_full_bodies_go_to_the_spool_and_all_are_served(work):
    """Twice as much as memory holds, all at once, each small enough to stay in memory if it were alone."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 2, "queue_timeout": "10m"}, listen={"min_rate": 0},
                        forebay={"memory_limit": "16M"})
    count = scaled(512, 300)
    body = pattern(64 << 10)
    raw = message("POST", "/", body=body)
    clients = []
    try:
        for _ in range(count):
            c = site.connect()
            clients.append(c)
            c.send(raw[:-1])
        assert site.ask("GET", "/small").status == 200
        for c in clients:
            c.send(raw[-1:])
        assert [c.response().status for c in clients] == [200] * count
        assert all(s.body == body for s in backend.take() if s.method == "POST")
    finally:
        for c in clients:
            c.close()


def test_who_finds_no_room_for_its_head_is_told_so(work):
    """Heads without an end, more than memory holds."""
    site = work.forebay({"socket": work.backend().name, "slots": 2}, listen={"head_limit": "64K", "head_timeout": "10m"},
                        forebay={"memory_limit": "16M", "threads": 1})
    clients = []
    try:
        for _ in range(16 * MB // 30_000 + 50):
            c = site.connect()
            clients.append(c)
            c.try_send(b"GET / HTTP/1.1\r\nX: " + b"x" * 30_000)
        for _ in range(50):  # at least so many have found none
            told = wait_for(lambda: [c for c in clients if select.select([c.sock], [], [], 0)[0]], "somebody to be told")[0]
            clients.remove(told)
            assert told.response().status in (503, 408)
            told.close()
        site.wait_access(lambda e: e["status"] == 503 and e["reason"] == "memory_limit", 1)
    finally:
        for c in clients:
            c.close()
    wait_for(lambda: site.ask("POST", "/", body=pattern(64 << 10)).status == 200, "room again")


def test_when_memory_and_spool_are_full_some_are_refused_and_the_daemon_goes_on(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 2, "queue_timeout": "10m"}, listen={"min_rate": 0},
                        forebay={"memory_limit": "16M", "spool_limit": "1M"})
    front = site.front()
    raw = message("POST", "/", body=pattern(64 << 10))
    clients, heard = [], []
    try:
        for _ in range(500):
            c = site.connect()
            clients.append(c)
            c.try_send(raw[:-1])
        for c in clients:
            c.try_send(raw[-1:])
        for c in clients:
            try:
                heard.append(c.response().status)
            except Cut:
                heard.append("cut")
        assert set(heard) <= {200, 503, 507, 408, "cut"}
        assert 200 in heard and (503 in heard or 507 in heard), {h: heard.count(h) for h in set(heard)}
        assert site.front() == front
    finally:
        for c in clients:
            c.close()
    wait_for(lambda: site.ask("POST", "/", body=pattern(64 << 10)).status == 200, "room again")


def test_connections_in_the_backlog_of_a_full_server_wait(work):
    """A Unix socket whose backlog is full answers EAGAIN: not an error of the request's."""
    path = work.path("full.sock")
    backend = Backend(path, backlog=0)
    work.closers.append(backend.close)
    site = work.forebay({"socket": path, "slots": 16})
    clients = [site.connect() for _ in range(64)]
    try:
        for c in clients:
            c.send(message("GET", "/"))
        assert [c.response().status for c in clients] == [200] * 64
    finally:
        for c in clients:
            c.close()
