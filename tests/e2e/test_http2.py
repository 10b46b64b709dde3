"""HTTP/2 end to end: common clients, what reaches a worker, and that streams of one connection do not stop each other."""

import base64
import hashlib
import signal
import struct
import subprocess
import threading

import pytest

import procs
from backend import OK, answer, echo_id
from client import ask
from h2client import H2Client
from procs import wait_for

CANCEL, ENHANCE_YOUR_CALM, NO_ERROR, PROTOCOL_ERROR = 8, 11, 0, 1


def sized(n):
    return answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n + b"x" * n)


class Gate:
    """A handler that says when it has a request, and answers when told."""

    def __init__(self, raw=OK):
        self.raw, self.reached, self.go = raw, threading.Event(), threading.Event()

    def __call__(self, conn):
        conn.request()
        self.reached.set()
        assert self.go.wait(30)
        conn.send(self.raw)

    def wait(self):
        assert self.reached.wait(30), "no request came"


@pytest.fixture
def site(work):
    backend = work.backend()
    made = work.forebay({"socket": backend.name, "slots": 4, "streams": 2}, listen={"http2": "on"})
    made.backend = backend
    return made


def run(*argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl_and_http1_at_one_address(site):
    url = "http://%s:%d/" % site.address
    out = run("curl", "-s", "--http2-prior-knowledge", "-d", "a=b", "-w", " %{http_version} %{http_code}", url)
    assert out == b"ok 2 200"
    assert run("curl", "-s", "-w", " %{http_version}", url) == b"ok 1.1"
    assert site.backend.seen[0].body == b"a=b" and site.backend.seen[0].get("Content-Length") == "3"


def test_nghttp_and_h2load(site):
    url = "http://%s:%d/" % site.address
    assert run("nghttp", "--no-dep", url) == b"ok"
    out = run("h2load", "-n", "1000", "-c", "4", "-m", "100", url)
    assert b"1000 succeeded, 0 failed" in out and b"status codes: 1000 2xx" in out


def test_a_request_reaches_the_worker_as_one_of_http1(site):
    with H2Client(site.address) as c:
        s = c.request("/a/b?c=d", headers=[("cookie", "x=1"), ("cookie", "y=2"), ("te", "trailers"), ("a", "b")])
        assert c.answer(s) == 200 and c.bodies[s] == b"ok"
    seen = site.backend.wait_seen(1)[0]
    assert (seen.method, seen.target, seen.version) == ("GET", "/a/b?c=d", "HTTP/1.1")
    assert seen.all("Host") == ["test"] and seen.all("Cookie") == ["x=1; y=2"] and seen.get("a") == "b"
    assert seen.get("TE") is None and seen.get("Via").startswith("2.0 ") and seen.get("X-Forwarded-Proto") == "http"


def test_content_of_unknown_length_gets_one_and_trailers_are_dropped(site):
    with H2Client(site.address) as c:
        s = c.request("/", method="POST", end=False)
        c.send(s, b"a" * 100000)
        c.h2.send_headers(s, [("x-sum", "1")], end_stream=True)
        c.push()
        assert c.answer(s) == 200
    seen = site.backend.wait_seen(1)[0]
    assert seen.body == b"a" * 100000 and seen.get("Content-Length") == "100000"
    assert seen.get("X-Sum") is None and seen.get("Transfer-Encoding") is None


def test_a_refused_head_request_gets_no_content(site):
    with H2Client(site.address) as c:
        s = c.request("/", method="HEAD", headers=[("expect", "something")])
        assert c.answer(s) == 417 and c.bodies[s] == b""
        s = c.request("/", headers=[("expect", "something")])
        assert c.answer(s) == 417 and c.bodies[s] != b""


def test_early_hints_are_passed_on(site):
    site.backend.next(answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK))
    with H2Client(site.address) as c:
        s = c.request()
        assert c.answer(s) == 200
        assert [(h[":status"], h["link"]) for h in c.interims[s]] == [("103", "</a>")]


def test_a_stream_that_is_not_read_stops_no_other(site):
    site.backend.next(sized(300_000))
    with H2Client(site.address, window=1000, takes=False) as c:
        stopped = c.request("/big")
        assert c.status(stopped) == 200
        for _ in range(20):
            assert c.ask("/small") == 200
        assert len(c.bodies[stopped]) == 1000
    assert site.wait_access(lambda e: e["target"] == "/big")[-1]["reason"]


def test_an_upload_that_stands_still_stops_no_other(site):
    with H2Client(site.address) as c:
        stopped = c.request("/up", method="POST", end=False)
        c.send(stopped, b"x" * 200_000)
        for _ in range(20):
            assert c.ask("/small") == 200
        c.send(stopped, b"y", end=True)
        assert c.answer(stopped) == 200
    assert len(site.backend.seen[-1].body) == 200_001


def test_no_worker_waits_for_a_client_that_does_not_read(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"http2": "on"})
    backend.next(*[sized(500_000)] * 5)
    with H2Client(site.address, window=0, takes=False) as c:
        stopped = [c.request(f"/{n}") for n in range(5)]
        for s in stopped:
            assert c.status(s) == 200  # one slot: each was given away before the next
        assert ask(site.address).status == 200
        assert not c.bodies


def test_what_is_taken_back_in_the_queue_costs_no_worker(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"http2": "on"})
    gate = Gate()
    backend.next(gate)
    with H2Client(site.address) as c:
        first = c.request("/first")
        gate.wait()
        taken_back = [c.request(f"/{n}") for n in range(10)]
        for s in taken_back:
            c.h2.reset_stream(s, CANCEL)
        c.push()
        c.settled()
        gate.go.set()
        assert c.answer(first) == 200 and c.ask("/last") == 200
    assert [s.target for s in backend.seen] == ["/first", "/last"]
    left = site.wait_access(lambda e: e["status"] == 499, 10)
    assert all(e["reason"] == "client reset the stream" for e in left)


def test_what_is_taken_back_with_the_same_write_reaches_no_worker(site):
    with H2Client(site.address) as c:
        c.hold()
        kept = c.request("/kept")
        for n in range(3):
            c.h2.reset_stream(c.request(f"/{n}"), CANCEL)
        c.release()
        assert c.answer(kept) == 200 and c.ask("/last") == 200
    assert [s.target for s in site.backend.seen] == ["/kept", "/last"]
    assert len(site.wait_access(lambda e: e["status"] == 499, 3)) == 3


def test_many_requests_of_one_write_are_each_answered(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 4}, listen={"http2": "on"})
    gate = Gate()
    backend.next(gate)
    with H2Client(site.address) as c:
        held = c.request("/held")
        gate.wait()
        c.hold()
        streams = {c.request(f"/{n}", headers=[("x-id", str(n))]): str(n).encode() for n in range(40)}
        backend.default = echo_id
        c.release()
        for s, body in streams.items():
            assert c.answer(s) == 200 and c.bodies[s] == body
        assert held not in c.heads
        gate.go.set()
        assert c.answer(held) == 200


def test_answers_that_fill_more_than_one_write_come_whole(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"http2": "on"})
    sizes = [1, 30_000, 2, 50_000, 3, 100_000] * 3
    backend.next(*[sized(n) for n in sizes])
    with H2Client(site.address) as c:
        c.hold()
        streams = [c.request(f"/{n}") for n in range(len(sizes))]
        c.release()
        assert [c.answer(s) for s in streams] == [200] * len(sizes)
        assert [len(c.bodies[s]) for s in streams] == sizes


def test_a_body_over_its_limit_is_413_and_the_connection_goes_on(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"http2": "on"}, route={"body_limit": "10K"})
    with H2Client(site.address) as c:
        s = c.request("/", method="POST", end=False)
        c.send(s, b"x" * 20_000)
        assert c.answer(s) == 413
        c.until(lambda: s in c.resets, "RST_STREAM")
        assert c.resets[s] == NO_ERROR
        assert c.ask("/") == 200


def test_a_length_that_is_not_kept_to_is_an_error(site):
    with H2Client(site.address) as c:
        s = c.request("/", method="POST", headers=[("content-length", "5")], end=False)
        c.send(s, b"1234", end=True)
        assert c.answer(s) is None and c.resets[s] == PROTOCOL_ERROR
        assert c.ask("/next") == 200
    assert [s.target for s in site.backend.seen] == ["/next"]
    bad = site.wait_access(lambda e: e["status"] == 400)[0]
    assert bad["reason"] == "Content-Length differs from the content"


def both_ready(c, site, more):
    """Two answers of 16,000 bytes that wait for their windows."""
    site.backend.next(sized(16_000), sized(16_000))
    streams = [c.request("/first", headers=more[0]), c.request("/second", headers=more[1])]
    for s in streams:
        assert c.status(s) == 200
    site.backend.wait_seen(2)
    return streams


def open_windows(c):
    c.h2.update_settings({4: 16_000})
    c.push()


def test_the_more_urgent_answer_goes_first(site):
    with H2Client(site.address, window=0) as c:
        first, second = both_ready(c, site, [[("priority", "u=7")], [("priority", "u=0")]])
        open_windows(c)
        assert c.answer(first) == c.answer(second) == 200
        assert c.order.index(first) > max(i for i, s in enumerate(c.order) if s == second)


def test_priority_update_moves_an_answer_ahead(site):
    with H2Client(site.address, window=0) as c:
        first, second = both_ready(c, site, [[], []])
        payload = struct.pack(">I", second) + b"u=1"
        c.sock.sendall(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", 16, 0, 0) + payload)
        open_windows(c)
        assert c.answer(first) == c.answer(second) == 200
        assert c.order.index(first) > max(i for i, s in enumerate(c.order) if s == second)


def test_a_drain_lets_open_streams_end_and_takes_no_others(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 2}, listen={"http2": "on"})
    gate = Gate()
    backend.next(gate)
    with H2Client(site.address) as c:
        s = c.request("/in-work")
        gate.wait()
        procs.kill(site.pid, signal.SIGTERM)
        c.until(lambda: len(c.goaways) == 2, "second GOAWAY")
        assert [(g.error_code, g.last_stream_id) for g in c.goaways] == [(NO_ERROR, (1 << 31) - 1), (NO_ERROR, s)]
        gate.go.set()
        c.until(lambda: s in c.whole, "the answer")
        c.to_end()
    assert site.wait() == 0


def test_so_many_requests_end_a_connection_in_good_order(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 2}, listen={"http2": "on", "keepalive_requests": 3})
    with H2Client(site.address) as c:
        for _ in range(3):
            assert c.ask() == 200
        c.to_end()
        assert c.goaways[-1].error_code == NO_ERROR and c.goaways[-1].last_stream_id == 5
    assert len(backend.seen) == 3


def test_who_spends_its_allowance_is_told_why(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 2}, listen={"http2": "on", "http2_allowance": 50})
    with H2Client(site.address) as c:
        assert c.ask() == 200
        ping = struct.pack(">I", 8)[1:] + bytes([6, 0, 0, 0, 0, 0]) + b"12345678"
        c.sock.sendall(ping * 60)
        c.until(lambda: c.goaways, "GOAWAY")
        assert c.goaways[0].error_code == ENHANCE_YOUR_CALM and c.goaways[0].additional_data == b"too many PING"
        c.to_end()
    site.wait_log('reason="too many PING"')
    assert site.log().count("http2=goaway") == 1
    assert ask(site.address).status == 200


def test_a_body_that_crawls_is_408(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 2}, listen={"http2": "on", "min_rate": "10K", "min_rate_grace": "1s"})
    with H2Client(site.address) as c:
        s = c.request("/", method="POST", end=False)
        c.send(s, b"x")
        assert c.answer(s) == 408
        assert c.ask() == 200
    site.wait_access(lambda e: e["status"] == 408 and e["reason"] == "min_rate")


def test_an_answer_that_is_not_taken_is_reset_alone(work):
    backend = work.backend(sized(100_000))
    site = work.forebay({"socket": backend.name, "slots": 2}, listen={"http2": "on", "min_rate": "10K", "min_rate_grace": "1s"})
    with H2Client(site.address, window=0) as c:
        s = c.request("/stopped")
        assert c.status(s) == 200
        c.until(lambda: s in c.resets, "RST_STREAM")
        open_windows(c)
        assert c.status(c.request("/next")) == 200
    assert site.wait_access(lambda e: e["target"] == "/stopped")[0]["reason"] == "min_rate"


# WebSockets (RFC 8441)

def connect(c, path="/", end=False):
    c.until(lambda: c.h2.remote_settings.enable_connect_protocol, "ENABLE_CONNECT_PROTOCOL")
    return c.request(path, method="CONNECT", pseudo=[(":protocol", "websocket")], headers=[("sec-websocket-version", "13")],
                     end=end)


def frame(text, opcode=1):
    """A client's, masked with nothing."""
    return bytes([0x80 | opcode, 0x80 | len(text)]) + b"\0\0\0\0" + text


def test_a_websocket_by_extended_connect(work):
    server = work.websocket()
    site = work.forebay({"socket": server.socket, "slots": 4, "streams": 2}, listen={"http2": "on"})
    with H2Client(site.address) as c:
        s = connect(c)
        assert c.status(s) == 200 and "sec-websocket-accept" not in c.heads[s] and "upgrade" not in c.heads[s]
        for text in (b"hello", b"again"):
            c.bodies[s] = b""
            c.send(s, frame(text))
            c.until(lambda: len(c.bodies[s]) >= 2 + len(text), "an echo")
            assert c.bodies[s] == bytes([0x81, len(text)]) + text
        c.send(s, frame(struct.pack(">H", 1000), opcode=8))
        c.until(lambda: s in c.whole, "the tunnel's end")


def switching(seen):
    accept = base64.b64encode(hashlib.sha1(seen.get("Sec-WebSocket-Key").encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)


@pytest.mark.parametrize("change", [lambda head: head.replace(b"Accept: ", b"Accept: x"), lambda head: head.replace(b"Accept", b"Except")],
                         ids=["another's", "none"])
def test_a_worker_that_does_not_speak_websocket_opens_no_tunnel(work, change):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1, "streams": 1}, listen={"http2": "on"})
    ended = threading.Event()

    def handler(conn):
        conn.send(change(switching(conn.request())))
        assert conn.to_end() == b""
        ended.set()

    backend.next(handler)
    with H2Client(site.address) as c:
        s = connect(c)
        assert c.answer(s) == 502
        wait_for(ended.is_set, "the worker to be let go")
        assert c.ask() == 200  # the slot is free again
    assert site.wait_access(lambda e: e["reason"] == "101 without the right Sec-WebSocket-Accept", 1)


def test_a_tunnel_whose_client_says_nothing_more(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1, "streams": 1}, listen={"http2": "on"})

    def handler(conn):
        conn.send(switching(conn.request()))
        assert conn.to_end() == b""
        conn.send(b"bye")

    backend.next(handler)
    with H2Client(site.address) as c:
        s = connect(c, end=True)
        assert c.answer(s) == 200 and c.bodies[s] == b"bye"
        assert c.ask() == 200


def test_a_worker_that_does_not_change_protocols_opens_no_tunnel(site):
    with H2Client(site.address) as c:
        s = connect(c)
        assert c.answer(s) == 502
        site.backend.next(answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"))
        s = connect(c)
        assert c.answer(s) == 403 and c.bodies[s] == b"no"
        assert c.ask() == 200
    seen = site.backend.seen[0]
    assert (seen.method, seen.get("Upgrade"), seen.get("Connection").lower()) == ("GET", "websocket", "upgrade")
    assert len(seen.get("Sec-WebSocket-Key")) == 24 and seen.get("Sec-WebSocket-Version") == "13"


def test_parts_of_a_stream_come_as_they_are_written(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 2, "streams": 2}, listen={"http2": "on"}, route={"buffer": "off"})
    parts = [threading.Event() for _ in range(3)]

    def handler(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n, part in enumerate(parts):
            conn.send(b"5\r\npart%d\r\n" % n)
            assert part.wait(30)
        conn.send(b"0\r\n\r\n")

    backend.next(handler)
    with H2Client(site.address) as c:
        s = c.request()
        for n, part in enumerate(parts):
            c.until(lambda: len(c.bodies[s]) == 5 * (n + 1), f"part {n}")
            part.set()
        assert c.answer(s) == 200


def test_a_client_that_leaves_takes_its_streams_along(site):
    gates = [Gate(), Gate()]
    site.backend.next(*gates)
    with H2Client(site.address) as c:
        c.request("/a")
        c.request("/b")
        for gate in gates:
            gate.wait()
    left = site.wait_access(lambda e: e["status"] == 499, 2)
    assert {e["target"] for e in left} == {"/a", "/b"}
    for gate in gates:
        gate.go.set()
    wait_for(lambda: ask(site.address).status == 200, "a free worker")
