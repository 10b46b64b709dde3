"""The tables of tests/data/conformance.py, row by row, through one forebay and one worker that records every byte."""

import pytest

from backend import answer
from client import Cut
from conformance import REQUESTS, RESPONSES

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def stage(shared):
    backend = shared.backend()
    site = shared.forebay({"socket": backend.name, "slots": 1, "retries": 0}, forebay={"threads": 1})
    site.backend = backend
    return site


def saw(stage):
    """What reached the worker since the last call, and nothing more is on its way: with one slot, a later request comes last."""
    assert stage.ask("GET", "/sentinel").status == 200
    seen = stage.backend.take()
    assert seen and seen[-1].target == "/sentinel"
    with stage.backend.lock:
        received = len(stage.backend.received)
        stage.backend.received.clear()
    assert received == sum(len(s.raw) for s in seen), "bytes that belong to no whole request"
    return seen[:-1]


@pytest.fixture(autouse=True)
def fresh(stage):
    stage.backend.planned.clear()
    assert stage.ask("GET", "/sentinel").status == 200
    stage.backend.take()
    stage.backend.received.clear()


def allows(want, status):
    return status in (want if isinstance(want, tuple) else (want,))


def hear(c, wanted, methods=()):
    for i, want in enumerate(wanted):
        r = c.response(methods[i] if i < len(methods) else "GET")
        assert allows(want, r.status), f"answer {i + 1}: {r.status} {r.reason} for {want}"
        yield r


def check_seen(expected, got):
    assert (got.method, got.target, got.body) == (expected.method, expected.target, expected.body)
    assert got.version == "HTTP/1.1"
    names = [n.lower() for n, _ in got.headers]
    for name, value in expected.has.items():
        assert [(n, v) for n, v in got.headers if n.lower() == name.lower()] == [(name, value)]
    for name in expected.hasnt:
        assert name not in names, f"{name} passed on"
    assert "transfer-encoding" not in names
    assert names.count("content-length") == (1 if got.body else names.count("content-length")) <= 1
    assert names.count("host") <= 1
    for name in ("x-forwarded-for", "x-forwarded-proto", "forwarded", "x-request-id", "x-request-start"):
        assert names.count(name) == 1, f"{name} {names.count(name)} times"
    assert got.get("Connection", "close").lower() in ("close", "keep-alive")


@pytest.mark.parametrize("row", REQUESTS, ids=[r.name for r in REQUESTS])
def test_request(stage, row):
    with stage.connect() as c:
        c.try_send(row.send)
        list(hear(c, row.want))
        if row.closes:
            c.ends()
            extra = []
        else:
            assert c.ask("GET", "/same-connection").status == 200
            extra = ["/same-connection"]
    got = saw(stage)
    assert [s.target for s in got] == [s.target for s in row.sees] + extra
    for expected, one in zip(row.sees, got):
        check_seen(expected, one)


@pytest.mark.parametrize("step", [1, 7], ids=["byte by byte", "by sevens"])
def test_requests_in_pieces_are_judged_alike(stage, step):
    """The same tables, with the bytes coming in pieces: short rows only, all of them."""
    failures = []
    for row in REQUESTS:
        if len(row.send) > 300:
            continue
        try:
            with stage.connect() as c:
                for at in range(0, len(row.send), step):
                    if not c.try_send(row.send[at:at + step]):
                        break
                list(hear(c, row.want))
                if row.closes:
                    c.ends()
            got = saw(stage)
            assert [s.target for s in got] == [s.target for s in row.sees]
        except AssertionError as e:
            failures.append(f"{row.name}: {e}")
            stage.backend.take()
    assert failures == []


@pytest.mark.parametrize("row", RESPONSES, ids=[r.name for r in RESPONSES])
def test_response(stage, row):
    stage.backend.next(answer(row.raw))
    with stage.connect() as c:
        c.send(row.request)
        r = c.response(row.method)
        assert allows(row.want, r.status), f"{r.status} {r.reason} {r.body[:100]!r}"
        assert r.version == "HTTP/1.1" and r.interim == []
        if r.status != 502:
            assert r.body == row.body
            names = [n.lower() for n, _ in r.headers]
            for name, value in row.has.items():
                assert r.all(name) == [value]
            for name in row.hasnt:
                assert name not in names, f"{name} passed on"
            assert names.count("date") == 1  # RFC 9110, 6.6.1
            assert "transfer-encoding" not in names or "content-length" not in names
        if row.closes:
            c.ends()
        elif r.keeps:
            assert c.ask("GET", "/next").body == b"ok"  # in step
        else:
            c.ends()
    stage.backend.take()


def test_set_cookie_lines_stay_apart_and_in_order(stage):
    cookies = [f"a{i}=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT" for i in range(5)]
    raw = "HTTP/1.1 200 OK\r\n" + "".join(f"Set-Cookie: {c}\r\n" for c in cookies) + "Content-Length: 2\r\n\r\nok"
    stage.backend.next(answer(raw.encode()))
    assert stage.ask("GET", "/").all("Set-Cookie") == cookies


def test_field_lines_of_the_same_name_stay_apart_and_in_order(stage):
    with stage.connect() as c:
        c.ask("GET", "/x", [("A", "1"), ("B", "2"), ("a", "3")])
    seen = saw(stage)[0]
    assert [(n, v) for n, v in seen.headers if n.lower() in "ab"] == [("A", "1"), ("B", "2"), ("a", "3")]


def test_an_upgrade_is_passed_with_its_fields_and_tunnelled(stage):
    def switch(conn):
        seen = conn.request()
        assert seen.get("Upgrade") == "echo" and seen.get("Connection").lower() == "upgrade"
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nwelcome")
        conn.send(conn.exactly(5)[::-1])
        conn.peer_is_gone()

    stage.backend.next(switch)
    with stage.connect() as c:
        c.send(b"GET /x HTTP/1.1\r\nHost: test\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        r = c.response()
        assert (r.status, r.get("Upgrade"), r.get("Connection").lower()) == (101, "echo", "upgrade")
        assert c.exactly(7) == b"welcome"
        c.send(b"12345")
        assert c.exactly(5) == b"54321"
    stage.backend.received.clear()
    stage.backend.take()


def test_an_upgrade_that_is_declined_is_an_ordinary_answer(stage):
    with stage.connect() as c:
        c.send(b"GET /x HTTP/1.1\r\nHost: test\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        assert c.response().body == b"ok"
        assert c.ask("GET", "/next").body == b"ok"


def test_100_continue_is_sent_before_the_body_and_once(stage):
    with stage.connect() as c:
        c.send(b"POST /x HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert c.head().status == 100
        c.send(b"hello")
        r = c.response()
        assert (r.status, r.interim) == (200, [])


def test_100_continue_is_not_sent_when_the_body_is_there(stage):
    """RFC 9110, 10.1.1: may be omitted; either way there is exactly one final answer."""
    with stage.connect() as c:
        c.send(b"POST /x HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
        r = c.response()
        assert r.status == 200 and r.interim in ([], [100])
        assert c.ask("GET", "/next").body == b"ok"


def test_no_answer_follows_a_refusal(stage):
    with stage.connect() as c:
        c.try_send(b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + b"GET /y HTTP/1.1\r\nHost: test\r\n\r\n" * 50)
        assert c.response().status == 400
        try:
            c.ends()
        except Cut:
            pass
    assert saw(stage) == []
