"""What is known to have brought HTTP/2 servers down, against forebay: what it answers, that others are served meanwhile, and that its
memory stays where it was. Bounds are counts and bytes, never times."""

import itertools
import select
import ssl
import threading

import pytest

import h2wire as h
import procs
from backend import answer
from client import Cut
from daemon import is_sanitized, scaled
from h2wire import H2, continuation, data, frame, get, headers, literal, ping, post, priority, request, reset, settings, window
from procs import wait_for

MB = 1 << 20
# A front's memory may grow by what it keeps at hand (see calm.py), whoever made it.
BAND = 24 * MB
BATCH = 20  # frames that are sent at once
FLOOD = scaled(200_000, 40_000)  # frames at most; each flood that must be ended is ended far before


@pytest.fixture(scope="module")
def site(shared):
    backend = shared.backend(keeps=False)
    site = shared.forebay({"socket": backend.name, "slots": 2}, forebay={"threads": 1, "memory_limit": "64M"},
                          listen={"http2": "yes", "head_limit": "32K"})
    site.backend = backend
    for _ in range(20):
        assert h.ask(site.address).status == 200
    return site


@pytest.fixture(autouse=True)
def as_before(site):
    """After each attack: others are served, descriptors and memory are level."""
    front = site.front()
    targets, pss = procs.descriptor_targets(front).count("socket"), procs.pss(front)
    yield
    others_are_served(site)
    assert site.front() == front, "the front was replaced"
    wait_for(lambda: procs.descriptor_targets(front).count("socket") <= targets,
             lambda: f"{targets} sockets again: {procs.descriptor_targets(front)}")
    wait_for(lambda: is_sanitized() or procs.pss(front) <= pss + BAND, lambda: f"memory of {pss} again: {procs.pss(front)}")
    with site.backend.lock:
        site.backend.seen.clear()


def others_are_served(site):
    assert h.ask(site.address, "/other").status == 200


def readable(c):
    return bool(c.buf) or isinstance(c.sock, ssl.SSLSocket) and c.sock.pending() or bool(select.select([c.sock], [], [], 0)[0])


def flood(c, pieces):
    """Sends them one by one and reads what comes meanwhile, until the other end has had enough; None if it never has."""
    for n, piece in enumerate(pieces):
        if not c.try_send(piece):
            return n
        while readable(c):
            if c.frame() is None:
                return n
    return None


def ended_with(c, site, pieces, *codes):
    """A flood that is ended by GOAWAY with one of these codes. (What was under way when it ended may have reset the connection, and
    taken the GOAWAY with it; then its access log has the reason.)"""
    batches = (b"".join(map(pieces, range(at, at + BATCH))) for at in range(0, FLOOD, BATCH))
    sent = flood(c, itertools.islice(batches, 1))
    others_are_served(site)
    if sent is None:
        sent = flood(c, batches)
    assert sent is not None, f"{FLOOD} pieces were taken"
    c.end()
    others_are_served(site)
    assert c.goaway is None or c.goaway.code in codes, c.goaway
    assert c.goaway or c.ended == "reset"


CALM = (h.ENHANCE_YOUR_CALM,)


def odd(n):
    return 2 * n + 1


def test_continuation_flood(site):
    """CVE-2024-27316: a field block that does not end. Long before the head's limit is reached a few times over."""
    with H2(site.address) as c:
        c.settled()  # nothing of ours comes in between
        c.send(headers(1, request(), more=True))
        piece = continuation(1, literal("a", "b" * 1000) * 4, end=False)
        ended_with(c, site, lambda n: piece, *CALM)


def test_continuation_flood_of_nothing(site):
    """The same with empty frames, which no limit in bytes ends."""
    with H2(site.address) as c:
        c.settled()  # nothing of ours comes in between
        c.send(headers(1, request(), more=True))
        piece = continuation(1, b"", end=False)
        ended_with(c, site, lambda n: piece, *CALM)


def test_rapid_reset(site):
    """CVE-2023-44487: requests that are taken back at once."""
    with H2(site.address) as c:
        ended_with(c, site, lambda n: get(odd(n)) + reset(odd(n)), *CALM)


def test_requests_that_are_taken_back_hold_no_worker(site):
    """As many as are allowed: with no worker free, none of them reaches one."""
    gate = threading.Event()

    def hold(conn):
        conn.request()
        gate.wait()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    site.backend.next(hold, hold)
    try:
        with H2(site.address) as busy, H2(site.address) as c:
            site.backend.take()
            busy.send(get(1, "/busy") + get(3, "/busy"))
            site.backend.wait_seen(2)
            c.send(b"".join(get(odd(n), "/gone") + reset(odd(n)) for n in range(50)))
            c.settled()
            gate.set()
            assert busy.answer(1).status == busy.answer(3).status == 200
            assert c.goaway or c.ask(1001, "/after").status == 200
        assert "/gone" not in [s.target for s in site.backend.take()]
    finally:
        gate.set()


@pytest.mark.parametrize("mistake", [lambda s: window(s, h.WINDOW_MAX), lambda s: window(s, 0), lambda s: data(s, b"x"),
                                     lambda s: headers(s, [(":status", "200")])],
                         ids=["window over its bound", "window by nothing", "DATA behind the end", "malformed trailers"])
def test_made_to_reset(site, mistake):
    """CVE-2025-8671: the server is made to reset the streams by itself, so that no reset of the client's is counted."""
    with H2(site.address) as c:
        ended_with(c, site, lambda n: get(odd(n)) + mistake(odd(n)), *CALM, h.PROTOCOL_ERROR, h.FLOW_CONTROL_ERROR, h.STREAM_CLOSED)


def test_malformed_requests_without_end(site):
    """CVE-2019-9514: each makes the server send RST_STREAM or an answer."""
    with H2(site.address) as c:
        ended_with(c, site, lambda n: headers(odd(n), request() + [("Upper", "case")]), *CALM, h.PROTOCOL_ERROR)


def test_empty_data_flood(site):
    """CVE-2019-9518: frames that carry nothing and end nothing."""
    with H2(site.address) as c:
        c.send(post(1))
        ended_with(c, site, lambda n: data(1, b"", end=False), *CALM)


def test_padding_flood(site):
    """The same with padding: frames that carry nothing but what is thrown away."""
    with H2(site.address, takes=True) as c:
        c.send(post(1))
        empty = frame(h.DATA, h.PADDED, 1, b"\0")
        ended_with(c, site, lambda n: empty, *CALM, h.FLOW_CONTROL_ERROR)


@pytest.mark.parametrize("piece", [settings(), settings((h.INITIAL_WINDOW_SIZE, 65535), (h.HEADER_TABLE_SIZE, 4096)), ping(b"flooding")],
                         ids=["empty SETTINGS (CVE-2019-9515)", "SETTINGS (CVE-2019-9515)", "PING (CVE-2019-9512)"])
def test_flood_that_asks_for_answers(site, piece):
    """From a client that does read: the work alone is too much some day."""
    with H2(site.address) as c:
        ended_with(c, site, lambda n: piece, *CALM)


def stuff(c, piece, most):
    """Sends without reading, until the other end takes no more, or has ended the connection, or has taken so many."""
    c.sock.setblocking(False)
    whole, sent = piece * most, 0
    try:
        while sent < len(whole):
            if not select.select([], [c.sock], [], 1)[1]:
                return "full"
            sent += c.sock.send(whole[sent:sent + 65536])
        return "taken"
    except (BrokenPipeError, ConnectionResetError):
        return "ended"
    finally:
        c.sock.setblocking(True)
        c.sock.settimeout(30)


@pytest.mark.parametrize("first, piece", [
    (b"", settings()), (b"", ping()), (b"", priority(1, 3) + priority(3, 1)), (b"", priority(5, 7, exclusive=True) + priority(7, 5, 255)),
    (post(1), data(1, b"", end=False)), (b"", window(0, 1)), (post(1), window(1, 1)), (b"", frame(0xfe, 0, 0, b"x" * 100)),
    (b"", frame(h.PRIORITY_UPDATE, 0, 0, b"\0\0\0\x09u=1")), (post(1), frame(0xfe, 0, 1))],
    ids=["SETTINGS (CVE-2019-9515)", "PING (CVE-2019-9512)", "PRIORITY in circles (CVE-2019-9513)", "exclusive PRIORITY (CVE-2019-9513)",
         "empty DATA (CVE-2019-9518)", "windows of the connection", "windows of a stream", "unknown frames", "PRIORITY_UPDATE",
         "unknown frames on a stream"])
def test_flood_from_a_client_that_does_not_read(site, first, piece):
    """Whether forebay ends it or takes it in: others are served, and its memory does not grow (see as_before, and here)."""
    front = site.front()
    before = procs.pss(front)
    with H2(site.address) as c:
        c.send(first)
        stuff(c, piece, FLOOD)
        others_are_served(site)
        assert is_sanitized() or procs.pss(front) <= before + BAND


def test_priorities_of_streams_that_never_come(site):
    """Each names another stream: what a server remembers of them has a bound."""
    front = site.front()
    before = procs.pss(front)
    with H2(site.address) as c:
        many = b"".join(priority(odd(n), max(0, odd(n) - 2)) for n in range(1, FLOOD // 2))
        stuff(c, many, 1)
        others_are_served(site)
        assert is_sanitized() or procs.pss(front) <= before + BAND


def refused_for_size(c, stream):
    """431 or RST_STREAM for the stream, or GOAWAY; no worker sees the request."""
    while True:
        if c.goaway or c.frame() is None:
            assert c.goaway and c.goaway.code in (h.ENHANCE_YOUR_CALM, h.PROTOCOL_ERROR, h.COMPRESSION_ERROR)
            return
        s = c.streams.get(stream)
        if s and s.over:
            assert s.status in (431, 400) or s.reset in (h.ENHANCE_YOUR_CALM, h.PROTOCOL_ERROR, h.REFUSED_STREAM, h.CANCEL)
            assert c.ask(stream + 2).status == 200
            return


def test_hpack_bomb(site):
    """A line of 4000 bytes goes into the table, then a block of 16,000 bytes names it 16,000 times: 64 MB, if anybody made them."""
    front = site.front()
    before = procs.pss(front)
    with H2(site.address) as c:
        c.send(headers(1, request(path="/filled") + [literal("a", "b" * 4000, 0x40)]))
        assert c.answer(1).status == 200
        c.try_send(headers(3, request(path="/bomb") + [b"\xbe" * 16_000]))
        refused_for_size(c, 3)
        others_are_served(site)
    assert is_sanitized() or procs.pss(front) <= before + BAND
    assert "/bomb" not in [s.target for s in site.backend.take()]


@pytest.mark.parametrize("fields", [[("a", "b" * 40_000)], [("a", "b")] * 2000, [("", "")] * 10_000, [("a" * 40_000, "b")]],
                         ids=["one long value", "many fields", "many of nothing (CVE-2019-9516)", "one long name"])
def test_header_list_above_the_limit(site, fields):
    """head_limit is 32K; the list's size is counted as RFC 9113, 6.5.2 says, or as bytes."""
    whole = h.block(request(path="/huge") + fields)
    pieces = [whole[at:at + h.FRAME_MAX] for at in range(0, len(whole), h.FRAME_MAX)]
    with H2(site.address) as c:
        c.try_send(headers(1, [], more=len(pieces) > 1, payload=pieces[0])
                   + b"".join(continuation(1, piece, end=piece is pieces[-1]) for piece in pieces[1:]))
        refused_for_size(c, 1)
    assert "/huge" not in [s.target for s in site.backend.take()]


def test_header_list_just_below_the_limit(site):
    with H2(site.address) as c:
        whole = h.block(request() + [(f"a{n}", "b" * 900) for n in range(30)])
        c.send(headers(1, [], more=True, payload=whole[:h.FRAME_MAX]) + continuation(1, whole[h.FRAME_MAX:]))
        assert c.answer(1).status == 200


def big(conn):
    """A megabyte for each request, as long as there are some."""
    while True:
        try:
            conn.request()
        except Cut:
            return
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MB + b"x" * MB)


STALLED = 50
LARGEST = window(0, h.WINDOW_MAX - h.WINDOW)


@pytest.mark.parametrize("hello", [settings((h.INITIAL_WINDOW_SIZE, 0)), settings((h.INITIAL_WINDOW_SIZE, 1)), settings(),
                                   settings((h.INITIAL_WINDOW_SIZE, h.WINDOW_MAX)) + LARGEST],
                         ids=["windows of nothing", "windows of a byte", "a connection's window", "no windows, nobody reads (CVE-2019-9517)"])
def test_answers_that_nobody_takes(work, hello):
    """CVE-2019-9511, 9517: 50 answers of a megabyte that stay. The workers have given them away; they lie in the spool."""
    backend = work.backend(big, keeps=False)
    site = work.forebay({"socket": backend.name, "slots": 2}, listen={"http2": "yes", "min_rate": 0}, forebay={"threads": 1})
    others_are_served(site)
    front = site.front()
    before = procs.pss(front)
    with H2(site.address, hello=hello, rcvbuf=16 << 10) as c:
        c.send(b"".join(get(odd(n), f"/{n}") for n in range(STALLED)))
        backend.wait_seen(STALLED + 1)
        others_are_served(site)
        assert is_sanitized() or procs.pss(front) <= before + BAND
        c.takes = True
        # the connection's window that is as large as can be grows by what is taken only
        c.send(settings((h.INITIAL_WINDOW_SIZE, 1 << 20)) + (b"" if hello.endswith(LARGEST) else window(0, 1 << 20)))
        for n in range(STALLED):
            assert len(c.answer(odd(n)).body) == MB


def test_windows_that_grow_byte_by_byte(site):
    """CVE-2019-9511: an answer of 2000 bytes in as many frames."""
    site.backend.next(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000))
    with H2(site.address, hello=settings((h.INITIAL_WINDOW_SIZE, 0))) as c:
        c.send(get(1) + window(1, 1) * 2000)
        try:
            assert len(c.answer(1).body) == 2000
        except Cut:  # forebay may find that too much
            assert c.goaway.code == h.ENHANCE_YOUR_CALM
    others_are_served(site)


def test_a_head_that_does_not_come_to_its_end(work):
    """Half a field block, half a frame, half a preface: head_timeout ends them all, and others are served."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"http2": "yes", "head_timeout": "1s"})
    clients = []
    try:
        for start in (h.PREFACE[:10], h.PREFACE, h.PREFACE + settings() + headers(1, request(), more=True),
                      h.PREFACE + settings() + get(1)[:30]):
            clients.append(H2(site.address, start=False))
            clients[-1].send(start)
        others_are_served(site)
        for c in clients[:1]:
            assert c.peer_is_gone()
        for c in clients[1:]:
            c.end()
            assert c.ended
        assert {s.target for s in backend.seen} == {"/other"}
    finally:
        for c in clients:
            c.close()


def test_an_idle_connection_is_closed_in_good_order(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"http2": "yes", "idle_timeout": "1s", "head_timeout": "1s"})
    with H2(site.address) as c:
        assert c.ask(1).status == 200
        assert c.end() == h.NO_ERROR and c.ended == "eof"
    with H2(site.address) as c:  # one that never asks is no better
        assert c.end() in (h.NO_ERROR, None) and c.ended


def test_a_body_that_crawls_is_ended_alone(work):
    """min_rate is each stream's: the slow one is ended, the connection serves on."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1},
                        listen={"http2": "yes", "min_rate": "1K", "min_rate_grace": "1s", "idle_timeout": "1m"})
    with H2(site.address) as c:
        c.send(post(1, b"slow", end=False))
        assert c.ask(3).status == 200
        s = c.answer(1)
        assert s.status == 408 or s.reset is not None
        assert c.ask(5).status == 200
    assert [s.target for s in backend.seen] == ["/x", "/x"]
