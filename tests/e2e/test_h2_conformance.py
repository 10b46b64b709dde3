"""The table of tests/data/conformance_h2.py, row by row, through one forebay and one worker that records every byte; then what no row
can say: what the server sends by itself, what it owes a client's windows and settings, and how connections begin and end."""

import struct
import threading

import pytest

import h2wire as h
from backend import answer
from certs import CA
from client import Client
from conformance_h2 import ROWS, SAMPLE, Answer, Goaway, Nothing, Reset
from h2wire import H2, PROBE, data, frame, get, headers, ping, post, request, reset, settings, window

PROBE_PATH = "/probe"


@pytest.fixture(scope="module")
def stage(shared):
    backend = shared.backend()
    site = shared.forebay({"socket": backend.name, "slots": 1, "retries": 0}, forebay={"threads": 1}, listen={"http2": "yes"})
    site.backend = backend
    return site


@pytest.fixture(scope="module")
def tls_stage(shared):
    backend = shared.backend(name="tls")
    site = shared.forebay({"socket": backend.name, "slots": 1, "retries": 0}, name="tls", forebay={"threads": 1},
                          listen={"http2": "yes", "tls": "test"}, more={"tls test": CA(shared.dir).issue("test", ["test"]).options})
    site.backend = backend
    return site


def saw(stage, tls=False):
    """What reached the worker since the last call, and nothing more is on its way: with one slot, a later request comes last."""
    assert h.ask(stage.address, "/sentinel", tls=tls).status == 200
    seen = stage.backend.take()
    assert seen and seen[-1].target == "/sentinel"
    with stage.backend.lock:
        received = len(stage.backend.received)
        stage.backend.received.clear()
    assert received == sum(len(s.raw) for s in seen), "bytes that belong to no whole request"
    return [s for s in seen[:-1] if s.target != PROBE_PATH]


@pytest.fixture(autouse=True)
def fresh(request):
    """Nothing is left of a test that failed."""
    stage = request.getfixturevalue("tls_stage" if "over_tls" in request.node.name else "stage")
    stage.backend.planned.clear()
    saw(stage, "over_tls" in request.node.name)


def over(c, want):
    """Has the stream come to what it wants? Of nothing, a probe behind it is the only sign."""
    return isinstance(want, (Nothing, Goaway)) or (want.stream in c.streams and c.streams[want.stream].over)


def hear(c, row):
    """Sends the row, and a request behind it. What came of both: kinds as the table has them."""
    c.try_send(row.send + get(PROBE, PROBE_PATH))
    while not (PROBE in c.streams and c.streams[PROBE].over and any(over(c, want) for want in row.want)):
        if c.frame() is None:
            return [Goaway(c.goaway.code)] if c.goaway else [f"an end by {c.ended} without GOAWAY"]
    assert c.streams[PROBE].status == 200 and c.goaway is None, c.streams[PROBE]
    return [kind_of(c, n) for n in sorted({getattr(want, "stream", 1) for want in row.want})]


def kind_of(c, stream):
    s = c.streams.get(stream)
    if s is None:
        return Nothing(stream)
    return Answer(s.status, stream) if s.status is not None else Reset(s.reset, stream)


def check_row(stage, row, tls=False):
    with H2(stage.address, tls=tls) as c:
        heard = hear(c, row)
        assert any(kind in row.want for kind in heard), f"{heard} for {row.want}; frames: {', '.join(map(str, c.frames))}"
        answered = any(isinstance(kind, Answer) for kind in heard)
    requests = saw(stage, tls)
    seen = [(r.method, r.target, r.body) for r in requests]
    assert seen == list(row.sees) or not answered and not seen
    if requests and answered:
        check_fields(row, requests[-1])


def check_fields(row, seen):
    names = [n.lower() for n, _ in seen.headers]
    for name, value in (row.has or {}).items():
        assert [v for n, v in seen.headers if n.lower() == name] == [value], seen.headers
    for name in row.hasnt + ("transfer-encoding", "te", "http2-settings", "upgrade"):
        assert name not in names, f"{name} passed on"
    assert seen.version == "HTTP/1.1" and names.count("host") == 1 and not any(":" in n for n in names)
    for name in ("x-forwarded-for", "x-forwarded-proto", "forwarded", "x-request-id", "x-request-start"):
        assert names.count(name) == 1, f"{name} {names.count(name)} times"


@pytest.mark.parametrize("row", ROWS, ids=[r.name for r in ROWS])
def test_row(stage, row):
    check_row(stage, row)


@pytest.mark.parametrize("row", ROWS[::SAMPLE], ids=[r.name for r in ROWS[::SAMPLE]])
def test_row_over_tls(tls_stage, row):
    if row.has and "x-forwarded-proto" in row.has:
        row.has["x-forwarded-proto"] = "https"
    check_row(tls_stage, row, tls=True)


def test_the_server_begins_with_its_settings(stage):
    """RFC 9113, 3.4: the server's preface is SETTINGS, which may not be an acknowledgement."""
    with H2(stage.address) as c:
        first = c.frame()
        assert first.kind == h.SETTINGS and not first.has(h.ACK)
        c.settled()
        assert c.acked == 1 and c.peer.get(h.ENABLE_PUSH, 0) == 0
        assert c.peer[h.MAX_CONCURRENT_STREAMS] >= 100  # 6.5.2


def test_a_preface_byte_by_byte(stage):
    with H2(stage.address, start=False) as c:
        for byte in h.PREFACE + settings() + get(1):
            c.send(bytes([byte]))
        assert c.answer(1).status == 200
    assert [s.target for s in saw(stage)] == ["/x"]


@pytest.mark.parametrize("first", [get(1), ping(), frame(h.SETTINGS, h.ACK), window(0, 1), frame(0xfe), reset(1)],
                         ids=["HEADERS", "PING", "an acknowledgement", "WINDOW_UPDATE", "unknown", "RST_STREAM"])
def test_a_preface_that_goes_on_with_something_else(stage, first):
    """RFC 9113, 3.4: an invalid preface is a connection error of type PROTOCOL_ERROR."""
    with H2(stage.address, start=False) as c:
        c.try_send(h.PREFACE + first + get(3))
        assert c.end() == h.PROTOCOL_ERROR and c.ended
    assert saw(stage) == []


@pytest.mark.parametrize("at", range(14, 24))
def test_a_preface_with_a_wrong_byte(stage, at):
    """RFC 9113, 3.4: GOAWAY may be left out, as the client does not speak HTTP/2; HTTP/1.1's refusal will do."""
    wrong = bytearray(h.PREFACE)
    wrong[at] ^= 0x20
    with Client(stage.address) as c:
        c.try_send(bytes(wrong) + settings() + get(1))
        came = c.to_end()
    assert came == b"" or came.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 ")) or frame(h.SETTINGS)[3:4] == came[3:4]
    assert saw(stage) == []


def test_http1_is_served_at_the_same_address(stage):
    assert Client(stage.address).ask("GET", "/one").status == 200
    assert [s.target for s in saw(stage)] == ["/one"]


def test_a_ping_is_answered_with_what_it_carries(stage):
    """RFC 9113, 6.7; in the order in which they came."""
    with H2(stage.address) as c:
        pings = [struct.pack(">Q", n * 0x0102030405) for n in range(20)]
        c.send(b"".join(map(ping, pings)))
        c.frames_until(lambda: c.pong(pings[-1]), "the last ping's answer")
        assert [f.payload for f in c.frames if f.kind == h.PING] == pings and all(f.has(h.ACK) for f in c.frames if f.kind == h.PING)


def test_each_settings_frame_is_acknowledged(stage):
    """RFC 9113, 6.5.3."""
    with H2(stage.address) as c:
        c.send(settings((h.INITIAL_WINDOW_SIZE, 100)) * 10)
        c.settled()
        assert c.acked == 11


def test_a_field_table_of_nothing_is_respected(stage):
    """RFC 7541, 4.2: after HEADER_TABLE_SIZE 0 the server's encoder says so and uses no table."""
    with H2(stage.address, hello=settings((h.HEADER_TABLE_SIZE, 0))) as c:
        c.decoder.max_allowed_table_size = 0
        for stream in (1, 3, 5):
            assert c.ask(stream).status == 200
        assert c.decoder.header_table_size == 0
    saw(stage)


def body_of(size):
    return answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)


def received(c, stream=1):
    return len(c.streams[stream].body) if stream in c.streams else 0


def test_a_stream_window_is_kept_to_the_byte(stage):
    """RFC 9113, 6.9: 10 bytes, none more before the window grows."""
    stage.backend.next(body_of(100))
    with H2(stage.address, hello=settings((h.INITIAL_WINDOW_SIZE, 10))) as c:
        c.send(get(1))
        c.frames_until(lambda: received(c) >= 10, "10 bytes")
        c.settled()
        assert received(c) == 10
        c.send(window(1, 1))
        c.frames_until(lambda: received(c) >= 11, "one more")
        c.settled()
        assert received(c) == 11
        c.send(window(1, 1000))
        assert len(c.answer(1).body) == 100
    saw(stage)


def test_a_window_of_nothing_lets_the_head_pass(stage):
    stage.backend.next(body_of(100))
    with H2(stage.address, hello=settings((h.INITIAL_WINDOW_SIZE, 0))) as c:
        c.send(get(1))
        assert c.answer_head(1).status == 200
        c.settled()
        assert received(c) == 0
        c.send(settings((h.INITIAL_WINDOW_SIZE, 5)))
        c.frames_until(lambda: received(c) >= 5, "5 bytes")
        c.settled()
        assert received(c) == 5
    saw(stage)


def test_a_window_that_became_negative(stage):
    """RFC 9113, 6.9.2: what was sent before counts; nothing is sent until the window is above nought again."""
    stage.backend.next(body_of(100))
    with H2(stage.address, hello=settings((h.INITIAL_WINDOW_SIZE, 50))) as c:
        c.send(get(1))
        c.frames_until(lambda: received(c) >= 50, "50 bytes")
        c.send(settings((h.INITIAL_WINDOW_SIZE, 10)) + window(1, 40))
        c.settled()
        assert received(c) == 50
        c.send(window(1, 1))
        c.frames_until(lambda: received(c) >= 51, "one byte")
        c.settled()
        assert received(c) == 51
    saw(stage)


def test_the_connection_window_is_kept_to_the_byte(stage):
    """RFC 9113, 6.9.1: 65535 bytes for all streams together."""
    stage.backend.next(body_of(50_000), body_of(50_000))
    with H2(stage.address) as c:
        c.send(get(1) + get(3))
        c.frames_until(lambda: received(c, 1) + received(c, 3) >= h.WINDOW, "a window's bytes")
        c.settled()
        assert received(c, 1) + received(c, 3) == h.WINDOW
        c.send(window(0, 100_000))
        assert len(c.answer(1).body) == len(c.answer(3).body) == 50_000
    saw(stage)


def test_frames_of_an_answer_are_no_longer_than_allowed(stage):
    """RFC 9113, 4.2; the client of these tests checks every frame. With more allowed, more may come."""
    stage.backend.next(body_of(200_000))
    with H2(stage.address, hello=settings((h.INITIAL_WINDOW_SIZE, 1 << 20)) + window(0, 1 << 20)) as c:
        assert len(c.ask(1).body) == 200_000
        assert max(len(f.payload) for f in c.frames if f.kind == h.DATA) <= h.FRAME_MAX
    saw(stage)


def test_more_than_a_window_is_an_error(stage):
    """RFC 9113, 6.9.1: FLOW_CONTROL_ERROR for the stream or the connection, however often the window has grown before."""
    with H2(stage.address) as c:
        c.settled()
        c.send(post(1))
        while not (1 in c.streams and c.streams[1].reset is not None):
            too_much = c.room(1) // h.FRAME_MAX + 1
            c.sent.update({0: too_much * h.FRAME_MAX, 1: too_much * h.FRAME_MAX})
            c.try_send(data(1, b"x" * h.FRAME_MAX, end=False) * too_much)
            if c.frame() is None:
                assert c.goaway.code == h.FLOW_CONTROL_ERROR
                break
        else:
            assert c.streams[1].reset == h.FLOW_CONTROL_ERROR
    assert saw(stage) == []


def test_padding_counts_and_is_given_back(stage):
    """RFC 9113, 6.9.1: padding uses windows up; it is gone when it is read, so the windows grow again."""
    with H2(stage.address) as c:
        c.settled()
        c.send(post(1))
        frames = 2 * c.room(1) // 256
        for _ in range(frames):
            c.send_body(1, b"x", end=False, padding=255)
        c.send_body(1, b"hello", padding=3)
        assert c.answer(1).status == 200
    assert [s.body for s in saw(stage)] == [b"x" * frames + b"hello"]


def test_a_goaway_from_the_client_ends_nothing_that_was_begun(stage):
    """RFC 9113, 6.8: streams that are open are answered, then the connection ends."""
    with H2(stage.address) as c:
        c.send(post(1) + h.goaway() + data(1, b"hello"))
        assert c.answer(1).status == 200
    assert [s.body for s in saw(stage)] == [b"hello"]


def test_more_streams_than_allowed_are_refused(work):
    """RFC 9113, 5.1.2: a stream error, PROTOCOL_ERROR or REFUSED_STREAM, or one of the connection."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"http2": "yes", "http2_max_streams": 10})
    with H2(site.address) as c:
        c.settled()
        assert c.peer[h.MAX_CONCURRENT_STREAMS] == 10
        c.settled()  # and our acknowledgement has come
        c.send(b"".join(post(n) for n in range(1, 23, 2)))
        c.try_send(ping(b"the last"))
        while not c.pong(b"the last"):
            if c.frame() is None:
                break
        if c.goaway:
            assert c.goaway.code in (h.PROTOCOL_ERROR, h.ENHANCE_YOUR_CALM)
        else:
            assert c.streams[21].reset in (h.PROTOCOL_ERROR, h.REFUSED_STREAM)
            c.send(data(1, b"hello"))
            assert c.answer(1).status == 200
            c.send(get(23))
            assert c.answer(23).status == 200
    with H2(site.address) as c:
        assert [c.ask(n).status for n in range(1, 43, 2)] == [200] * 21  # one after the other


def test_connect_is_no_tunnel(stage):
    """RFC 9113, 8.5: forebay is no such proxy, and says so as it does in HTTP/1.1."""
    with Client(stage.address) as one:
        one.send(b"CONNECT test:443 HTTP/1.1\r\nHost: test:443\r\n\r\n")
        status = one.response().status
    with H2(stage.address) as c:
        c.send(headers(1, [(":method", "CONNECT"), (":authority", "test:443")]))
        s = c.answer(1)
        assert s.status == status or s.reset == h.PROTOCOL_ERROR
        assert c.ask(3).status == 200
    assert [s.target for s in saw(stage)] == ["/x"]


def test_expect_100_continue(stage):
    with H2(stage.address) as c:
        c.send(post(1, more=[("expect", "100-continue"), ("content-length", "5")]))
        c.frames_until(lambda: 1 in c.streams and c.streams[1].interim, "100")
        c.send(data(1, b"hello"))
        s = c.answer(1)
        assert (s.status, s.interim) == (200, [100])
    assert [s.body for s in saw(stage)] == [b"hello"]


def test_a_head_request_has_no_body(stage):
    stage.backend.next(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"))
    with H2(stage.address) as c:
        c.send(headers(1, request("HEAD")))
        s = c.answer(1)
        assert (s.status, s.get("content-length"), bytes(s.body)) == (200, "100", b"")
        assert c.ask(3).status == 200
    saw(stage)


@pytest.mark.parametrize("raw, status, body", [
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    (b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", 304, b""),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, b"abc"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n", 200, b"abc"),
    (b"HTTP/1.1 200 OK\r\n\r\nto the end", 200, b"to the end"),
    (b"HTTP/1.1 200 OK\r\nConnection: close, x-a\r\nX-A: b\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    (b"HTTP/1.1 200 OK\r\nX-UPPER: Case\r\nContent-Length: 0\r\n\r\n", 200, b""),
    (b"HTTP/1.1 404 Nowhere\r\nContent-Length: 2\r\n\r\nno", 404, b"no"),
], ids=["204", "304", "chunked", "trailers", "to the end", "hop by hop", "upper case", "404"])
def test_an_answer_is_one_of_http2(stage, raw, status, body):
    """RFC 9113, 8.2: lower case, nothing of the connection's; h2wire refuses all else."""
    stage.backend.next(answer(raw))
    with H2(stage.address) as c:
        s = c.ask(1)
        assert (s.status, bytes(s.body), s.reset) == (status, body, None)
        names = [n for n, _ in s.fields]
        assert names.count("date") == 1 and "x-a" not in names
        assert c.ask(3).status == 200
    saw(stage)


def test_an_answer_that_is_cut_short_is_reset(stage):
    """What had begun to reach the client ends by RST_STREAM, never by END_STREAM; the connection serves on."""
    begun = threading.Event()

    def cut(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 200_000)
        begun.wait()

    stage.backend.next(cut)
    try:
        with H2(stage.address, takes=True) as c:
            c.send(get(1))
            assert c.answer_head(1).status == 200
            begun.set()
            s = c.answer(1)
            assert not s.whole and s.reset == h.INTERNAL_ERROR
            assert c.ask(3).status == 200
    finally:
        begun.set()
    saw(stage)


def test_a_connection_that_ends_within_a_frame(stage):
    for cut in (get(1)[:5], get(1)[:20], post(1, b"hello")[:-2]):
        with H2(stage.address) as c:
            c.settled()
            c.send(cut)
    assert saw(stage) == []


def test_half_a_request_never_reaches_a_worker(stage):
    with H2(stage.address) as c:
        c.send(post(1, b"half", end=False))
        c.settled()
    assert saw(stage) == []
