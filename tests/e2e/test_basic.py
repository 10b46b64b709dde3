"""A Django site under gunicorn behaves behind forebay as it does without, whatever the client."""

import asyncio
import hashlib
import http.cookies
import json
import re
import subprocess

import pytest
import websockets

from client import Client, message
from daemon import scaled
from tools import Gate, pattern, pattern_sha256

SERVERS = {
    "sync": {"kind": "sync", "workers": 2},
    "gthread": {"kind": "gthread", "threads": 4},
    "gthread-keepalive": {"kind": "gthread", "threads": 4},
}
MB = 1 << 20


@pytest.fixture(scope="module", params=SERVERS)
def site(request, shared):
    """forebay before each kind of server; both sides' slots are as many as the server has workers or threads."""
    name, how = request.param, SERVERS[request.param]
    server = shared.gunicorn(name="gunicorn-" + name, **how)
    pool = {"socket": server.socket, "slots": how.get("workers", how.get("threads")), "streams": 2,
            "keepalive": "on" if name.endswith("keepalive") else "off"}
    site = shared.forebay(pool, name="forebay-" + name)
    site.gunicorn, site.gates = server, shared.gates
    return site


def test_get_is_answered(site):
    r = site.ask("GET", "/")
    assert (r.status, r.body, r.framing) == (200, b"hello\n", "length")


def test_head_has_the_length_and_no_body(site):
    with site.connect() as c:
        r = c.ask("HEAD", "/")
        assert (r.status, r.get("Content-Length")) == (200, "6")
        assert c.ask("GET", "/").body == b"hello\n"  # and nothing between the two


def test_post_reaches_the_application_whole(site):
    body = pattern(100_000)
    r = json.loads(site.ask("POST", "/echo?a=1&b=%20", body=body).body)
    assert (r["method"], r["path"], r["length"]) == ("POST", "/echo?a=1&b=%20", len(body))
    assert r["sha256"] == hashlib.sha256(body).hexdigest()
    assert r["meta"]["CONTENT_LENGTH"] == "100000"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_other_methods_pass(site, method):
    r = json.loads(site.ask(method, "/echo", body=b"x").body)
    assert (r["method"], r["length"]) == (method, 1)


def test_a_connection_serves_many_requests(site):
    with site.connect() as c:
        for i in range(20):
            assert json.loads(c.ask("GET", f"/echo?{i}").body)["path"] == f"/echo?{i}"


def test_pipelined_requests_are_answered_in_order(site):
    with site.connect() as c:
        c.send(b"".join(message("GET", f"/echo?{i}") for i in range(20)))
        assert [json.loads(c.response().body)["path"] for _ in range(20)] == [f"/echo?{i}" for i in range(20)]


def test_pipelined_requests_with_bodies_are_answered_in_order(site):
    bodies = [pattern(i * 1000, i) for i in range(1, 11)]
    with site.connect() as c:
        c.send(b"".join(message("POST", f"/work?id={i}", body=b, chunked=i % 2) for i, b in enumerate(bodies)))
        for i, body in enumerate(bodies):
            r = c.response()
            assert (r.get("X-Id"), r.get("X-Body-Sha256")) == (str(i), hashlib.sha256(body).hexdigest())


def test_an_http10_client_is_served_and_let_go(site):
    with site.connect() as c:
        c.send(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")
        r = c.response()
        assert (r.status, r.body) == (200, b"hello\n")
        c.ends()


def test_an_http10_client_may_keep_its_connection(site):
    with site.connect() as c:
        for _ in range(2):
            c.send(b"GET / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n")
            r = c.response()
            assert (r.body, r.get("Connection").lower()) == (b"hello\n", "keep-alive")


def test_an_http10_client_gets_no_chunks(site):
    with site.connect() as c:
        c.send(b"GET /stream?bytes=300000 HTTP/1.0\r\nHost: test\r\n\r\n")
        r = c.response()
        assert r.framing in ("length", "close") and r.body == pattern(300_000)


def test_expect_100_continue_is_answered_before_the_body(site):
    with site.connect() as c:
        c.send(message("POST", "/upload", [("Expect", "100-continue"), ("Content-Length", "5")]))
        assert c.head().status == 100
        c.send(b"hello")
        assert c.response().body.startswith(b"5 ")


def test_options_asterisk_is_answered(site):
    with site.connect() as c:
        r = c.ask("OPTIONS", "*")
        assert r.status in (200, 204, 400, 404)  # the application's word: it has no such page
        assert c.ask("GET", "/").status == 200


def test_absolute_form_names_the_host(site):
    with site.connect() as c:
        c.send(b"GET http://example.org/echo?x HTTP/1.1\r\nHost: other\r\n\r\n")
        r = json.loads(c.response().body)
        assert (r["path"], r["meta"]["HTTP_HOST"]) == ("/echo?x", "example.org")


def test_connection_close_is_kept_to(site):
    with site.connect() as c:
        r = c.ask("GET", "/", [("Connection", "close")])
        assert r.body == b"hello\n" and not r.keeps
        assert c.ends() == "eof"


def test_the_application_hears_who_the_client_is(site):
    meta = json.loads(site.ask("GET", "/echo", [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"),
                                                ("Forwarded", "for=6.6.6.6"), ("X-Forwarded-Host", "evil")]).body)["meta"]
    assert meta["HTTP_X_FORWARDED_FOR"].startswith("127.")
    assert meta["HTTP_X_FORWARDED_PROTO"] == "http"
    assert meta["HTTP_X_FORWARDED_HOST"] == "test"
    assert "6.6.6.6" not in meta["HTTP_FORWARDED"] and "127." in meta["HTTP_FORWARDED"]
    assert meta["HTTP_X_REQUEST_ID"] and meta["HTTP_X_REQUEST_START"]


def test_a_form_with_session_and_csrf_works(site):
    with site.connect() as c:
        page = c.ask("GET", "/form")
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.body.decode()).group(1)
        jar = http.cookies.SimpleCookie(page.get("Set-Cookie"))
        cookie = "; ".join(f"{k}={m.value}" for k, m in jar.items())
        form = f"csrfmiddlewaretoken={token}&name=J%C3%BCrgen".encode()
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        assert c.ask("POST", "/form", [kind], form).status == 403  # without the cookie
        r = c.ask("POST", "/form", [kind, ("Cookie", cookie)], form)
        assert (r.status, r.get("Location")) == (302, "/whoami")
        session = {}
        for line in r.all("Set-Cookie"):
            session.update({k: m.value for k, m in http.cookies.SimpleCookie(line).items()})
        r = c.ask("GET", "/whoami", [("Cookie", "; ".join(f"{k}={v}" for k, v in session.items()))])
        assert r.body.decode() == "Jürgen"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_20_mb_arrive_as_they_were_sent(site, chunked):
    body = pattern(20 * MB, 7)
    r = site.ask("POST", "/upload", body=body, chunked=chunked)
    assert r.body.decode() == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


@pytest.mark.parametrize("page", ["download", "stream"])
def test_50_mb_come_back_as_they_were(site, page):
    size = 50 * MB
    r = site.ask("GET", f"/{page}?bytes={size}&seed=9")
    assert r.status == 200 and len(r.body) == size
    assert hashlib.sha256(r.body).hexdigest() == pattern_sha256(size, 9)


def test_a_streaming_response_comes_whole(site):
    r = site.ask("GET", "/stream?bytes=1234567&seed=3")
    assert r.body == pattern(1_234_567, 3) and r.framing in ("chunked", "length")


def test_server_sent_events_arrive_at_once(site):
    with Gate(f"{site.gates}/sse-{site.address[0]}") as gate, site.connect() as c:
        c.send(message("GET", f"/sse?gate=sse-{site.address[0]}"))
        head = c.head()
        assert head.get("Content-Type").startswith("text/event-stream")
        assert head.get("Transfer-Encoding") == "chunked"
        assert c.chunk() == b"data: one\n\n"  # while the test still holds the second
        gate.open()
        assert c.chunk() == b"data: two\n\n"
        assert c.chunk() == b""


def test_a_stream_whose_client_leaves_gives_its_slot_back(site):
    for i in range(8):  # more than there are slots
        with Gate(f"{site.gates}/leave-{i}-{site.address[0]}") as gate, site.connect() as c:
            c.send(message("GET", f"/sse?gate=leave-{i}-{site.address[0]}"))
            c.head()
            assert c.chunk() == b"data: one\n\n"
            c.close()
            gate.open()
    assert site.ask("GET", "/").status == 200


def test_an_error_of_the_application_passes(site):
    assert site.ask("GET", "/nothing-here").status == 404


def run(*argv):
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)


def test_curl_uploads_and_downloads(site, tmp_path):
    size = 3 * MB
    (tmp_path / "up").write_bytes(pattern(size, 5))
    up = run("curl", "-sS", "--fail", "-T", str(tmp_path / "up"), site.url + "/upload")
    assert up.stdout.decode() == f"{size} {pattern_sha256(size, 5)}", up.stderr
    form = run("curl", "-sS", "--fail", "-F", f"file=@{tmp_path}/up;filename=a.bin", site.url + "/file")
    assert form.stdout.decode() == f"a.bin {size} {pattern_sha256(size, 5)}", form.stderr
    down = run("curl", "-sS", "--fail", "-o", str(tmp_path / "down"), f"{site.url}/download?bytes={size}&seed=6")
    assert down.returncode == 0 and (tmp_path / "down").read_bytes() == pattern(size, 6)


def test_curl_sends_chunks_and_waits_for_100(site):
    r = subprocess.run(["curl", "-sS", "--fail", "-T", "-", "-H", "Expect: 100-continue", site.url + "/upload"],
                       input=pattern(500_000, 4), stdout=subprocess.PIPE, timeout=120)
    assert r.stdout.decode() == f"500000 {pattern_sha256(500_000, 4)}"


def test_wrk_sees_no_errors(site):
    connections = scaled(64, 8)
    r = run("wrk", "-t1", f"-c{connections}", "-d3", "--timeout", "60", site.url + "/")
    out = r.stdout.decode()
    assert r.returncode == 0, r.stderr
    assert "Socket errors" not in out and "Non-2xx" not in out, out
    assert int(re.search(r"(\d+) requests in", out).group(1)) >= connections, out


# WebSocket


@pytest.fixture(scope="module")
def echo(shared):
    server = shared.websocket()
    return shared.forebay({"socket": server.socket, "slots": 8, "streams": 4}, name="forebay-websocket")


def websocket(address, talk):
    async def whole():
        async with websockets.connect("ws://%s:%d/" % address, max_size=1 << 26, compression=None) as socket:
            await talk(socket)

    asyncio.run(asyncio.wait_for(whole(), 60))


def test_a_websocket_echoes_text_and_binary(echo):
    async def talk(socket):
        for i in range(50):
            await socket.send(f"message {i}")
            assert await socket.recv() == f"message {i}"
        await socket.send(b"\0\1\2")
        assert await socket.recv() == b"\0\1\2"

    websocket(echo.address, talk)


def test_a_websocket_carries_big_messages_both_ways_at_once(echo):
    async def talk(socket):
        messages = [pattern(2 * MB + i, i) for i in range(8)]

        async def send():
            for m in messages:
                await socket.send(m)

        async def receive():
            for m in messages:
                assert await socket.recv() == m

        await asyncio.gather(send(), receive())

    websocket(echo.address, talk)


def test_a_websocket_is_closed_by_handshake(echo):
    async def talk(socket):
        await socket.send("x")
        await socket.recv()
        await socket.close(1000, "done")
        assert socket.close_code == 1000

    websocket(echo.address, talk)


def test_a_websocket_gives_its_slot_back(echo):
    async def talk(socket):
        await socket.send("x")
        await socket.recv()

    for _ in range(10):  # more than streams and slots
        websocket(echo.address, talk)


def test_a_client_that_leaves_its_websocket_gives_the_slot_back(echo):
    head = message("GET", "/", [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
                                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")])
    for _ in range(10):
        with Client(echo.address) as c:
            c.send(head)
            assert c.response().status == 101
            c.reset()
    with Client(echo.address) as c:
        c.send(head)
        assert c.response().status == 101
