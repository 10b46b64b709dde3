"""HTTP/1.1 over TLS is what it is without: uploads, large responses, streams, ends, cuts, limits."""

import hashlib
import re
import socket
import ssl
import subprocess
import threading

import pytest

import certs
import procs
from backend import OK, answer
from client import Client, Cut, message
from procs import wait_for
from secure import SecureClient, context
from tools import pattern

MB = 1 << 20
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def secure_site(work, pool, listen=None, more=None, **kw):
    ca = certs.CA(work.dir)
    pair = ca.issue("site", ["localhost", "127.0.0.1"])
    site = work.forebay(pool, listen={"tls": "main", **(listen or {})}, more={"tls main": pair.options, **(more or {})}, **kw)
    site.ca = ca.certificate
    site.secure = lambda **kw: SecureClient(site.address, **kw)
    return site


@pytest.fixture(scope="module")
def demo(shared):
    return secure_site(shared, {"app": "demo", "processes": 2})


@pytest.fixture
def stage(work):
    """One slot, and a worker made of sockets."""
    backend = work.backend()
    site = secure_site(work, {"socket": backend.name, "slots": 1}, forebay={"threads": 1}, listen={"min_rate": 0})
    site.backend = backend
    return site


def curl(site, *args, target="/", scheme="https"):
    """(exit status, what it printed); the server is checked."""
    url = "%s://localhost:%d%s" % (scheme, site.address[1], target)
    done = subprocess.run(["curl", "-sS", "--max-time", "30", "--cacert", site.ca, "--resolve",
                           "localhost:%d:%s" % (site.address[1], site.address[0]), *args, url],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=procs.DEADLINE)
    return done.returncode, done.stdout


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_is_served(demo, version):
    code, out = curl(demo, "--http1.1", f"--tlsv{version}", "--tls-max", version, "-d", "some words", "-w", "%{http_version} %{http_code}",
                     target="/echo")
    assert (code, out.endswith(b"1.1 200")) == (0, True), out
    assert demo.wait_access(lambda e: e["target"] == "/echo" and e["tls"] == "TLSv" + version)
    assert b"some words" in out


def test_openssl_is_told_http11(demo):
    done = subprocess.run(["openssl", "s_client", "-connect", "%s:%d" % demo.address, "-CAfile", demo.ca, "-verify_return_error",
                           "-servername", "localhost", "-alpn", "h2,http/1.1"], input=b"", stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=procs.DEADLINE)
    assert done.returncode == 0 and b"ALPN protocol: http/1.1" in done.stdout, done.stdout


def test_the_worker_hears_that_it_was_https(stage):
    with stage.secure() as c:
        assert c.ask("GET", "/").body == b"ok"
    (seen,) = stage.backend.take()
    assert (seen.get("X-Forwarded-Proto"), seen.get("X-Forwarded-For")) == ("https", "127.0.0.1")


def test_a_connection_serves_many_requests(demo):
    with demo.secure() as c:
        for i in range(20):
            assert c.ask("GET", f"/?{i}").status == 200
        c.send(b"".join(message("GET", f"/?{i}") for i in range(20)))  # and pipelined ones, many in a record
        assert [c.response().status for _ in range(20)] == [200] * 20


def test_a_request_may_come_a_byte_a_record(stage):
    with stage.secure() as c:
        for byte in message("POST", "/slow", body=b"body"):
            c.send(bytes([byte]))
        assert c.response().body == b"ok"
    assert stage.backend.take()[0].body == b"body"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_uploads_come_whole(stage, chunked):
    body = pattern(10 * MB)
    with stage.secure() as c:
        assert c.ask("POST", "/up", body=body, chunked=chunked).status == 200
    assert stage.backend.take()[0].body == body


@pytest.mark.parametrize("size", [0, 1, 1300, 1369, 1370, 16384, 65536, 65537, 10 * MB])
def test_responses_come_whole(stage, size):
    body = pattern(size, size)
    stage.backend.next(answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body))
    with stage.secure() as c:
        assert c.ask("GET", "/").body == body


def test_a_large_response_comes_from_the_spool_to_a_client_that_was_slow(stage):
    """The worker is done before the client has read anything: all of it is in forebay, most of it on disk."""
    size = 64 * MB
    body = pattern(MB, 7) * (size // MB)
    stage.backend.next(answer([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, body]))
    with stage.secure(rcvbuf=65536) as c:
        c.send(message("GET", "/large"))
        stage.backend.wait_seen(1)
        with stage.secure() as other:  # the only slot is free again
            assert other.ask("GET", "/other").body == b"ok"
        got = c.response()
    assert hashlib.sha256(got.body).digest() == hashlib.sha256(body).digest()
    assert stage.wait_access(lambda e: e["target"] == "/large")[0]["response_spooled"]


def test_a_stream_passes_as_it_comes(work):
    backend = work.backend()
    site = secure_site(work, {"socket": backend.name, "slots": 2, "streams": 1}, route={"buffer": "off"})
    more = threading.Event()

    def handler(conn):
        conn.request()
        conn.send(CHUNKED + b"5\r\nfirst\r\n")
        assert more.wait(30)
        conn.send(b"4\r\nlast\r\n0\r\n\r\n")

    backend.next(handler)
    with site.secure() as c:
        c.send(message("GET", "/events"))
        assert c.head().status == 200
        assert c.chunk() == b"first"  # while the worker waits for us
        more.set()
        assert (c.chunk(), c.chunk()) == (b"last", b"")


def test_a_websocket_goes_both_ways(work):
    server = work.websocket()
    site = secure_site(work, {"socket": server.socket, "slots": 2, "streams": 1})
    with site.secure() as c:
        c.send(message("GET", "/", [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
                                    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]))
        assert c.response().status == 101
        for text in (b"one", b"two"):
            c.send(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
            assert c.exactly(2 + len(text)) == bytes([0x81, len(text)]) + text


def test_an_orderly_end_is_told(stage):
    with stage.secure() as c:
        assert c.ask("GET", "/", [("Connection", "close")]).body == b"ok"
        assert c.ends() == "eof"


def test_a_response_to_the_end_of_its_connection_ends_in_good_order(stage):
    stage.backend.next(answer(b"HTTP/1.0 200 OK\r\n\r\n" + pattern(MB)))
    with stage.secure() as c:
        assert c.ask("GET", "/", version="HTTP/1.0").body == pattern(MB)
        assert c.ends() == "eof"


def test_a_cut_response_does_not_look_whole(stage):
    stage.backend.next(answer(CHUNKED + b"100000\r\n" + pattern(200_000)))
    with stage.secure() as c:
        with pytest.raises(Cut) as cut:
            c.ask("GET", "/")
        assert cut.value.how in ("truncated", "reset")


def test_an_upload_that_ends_without_close_notify_is_not_whole(stage):
    with stage.secure() as c:
        c.send(message("POST", "/half", body=b"x" * 1000)[:-1])
        c.sock.shutdown(socket.SHUT_WR)
        c.peer_is_gone()
    with stage.secure() as c:
        assert c.ask("GET", "/after").status == 200
    assert [s.target for s in stage.backend.take()] == ["/after"]


def test_a_client_may_end_its_side(work):
    backend = work.backend()
    site = secure_site(work, {"socket": backend.name, "slots": 1}, listen={"half_close": "on"})
    go = threading.Event()

    def handler(conn):
        conn.request()
        assert go.wait(30)
        conn.send(OK)

    backend.next(handler)
    with site.secure() as c:
        c.send(message("GET", "/", [("Connection", "close")]))
        backend.wait_seen(1)
        c.end()
        go.set()
        # The library reads on beneath its own close_notify no more; what comes is the records of an answer.
        raw = socket.socket(fileno=socket.dup(c.sock.fileno()))
        raw.settimeout(30)
        with raw:
            got = 0
            while data := raw.recv(65536):
                got += len(data)
        assert got > len(OK)
    assert site.wait_access(lambda e: e["target"] == "/")[0]["status"] == 200


def test_plain_http_is_told_so(demo):
    with Client(demo.address) as c:
        r = c.ask("GET", "/")
        assert r.status == 400 and b"plain HTTP sent to a TLS port" in r.body
        assert c.ends() == "eof"
    assert demo.wait_access(lambda e: e["status"] == 400)[0]["reason"] == "plain HTTP sent to a TLS port"


def failures(site):
    return re.findall(r"event=tls_handshake_failed listen=main peer=([0-9.]+) port=\d+ why=\"([^\"]*)\"", site.log())


def test_a_failed_handshake_is_logged_once_with_openssls_word(work):
    site = secure_site(work, {"app": "demo"})
    made = context(version=ssl.TLSVersion.TLSv1_2)
    made.set_ciphers("AES128-SHA")  # no forward secrecy
    with pytest.raises(ssl.SSLError):
        site.secure(made=made)
    wait_for(lambda: failures(site), "the line")
    with Client(site.address) as c:
        c.send(b"\x16\x03\x01\x00\x05hello")
        c.peer_is_gone()
    wait_for(lambda: len(failures(site)) == 2, "the other line")
    assert failures(site)[0] == ("127.0.0.1", "no shared cipher")
    assert failures(site)[1][0] == "127.0.0.1" and failures(site)[1][1]


def test_who_only_looks_is_not_logged(work):
    site = secure_site(work, {"app": "demo"})
    Client(site.address).close()
    with Client(site.address) as c:
        c.send(b"\x16\x03\x01\x00\x05hello")  # whose line comes later
        c.peer_is_gone()
    wait_for(lambda: failures(site), "the line")
    assert len(failures(site)) == 1


def test_a_flood_of_failures_is_counted(work):
    site = secure_site(work, {"app": "demo"}, forebay={"threads": 1})
    for _ in range(50):
        with Client(site.address) as c:
            c.send(b"\x16\x03\x01\x00\x05hello")
            c.peer_is_gone()
    with site.secure() as c:
        assert c.ask("GET", "/").status == 200
    assert len(failures(site)) == 20


def test_a_handshake_has_its_time(work):
    site = secure_site(work, {"app": "demo"}, listen={"handshake_timeout": "300ms"})
    with Client(site.address) as silent, Client(site.address) as half:
        half.send(b"\x16\x03\x01\x02\x00\x01")
        assert (silent.ends(), half.ends()) == ("eof", "eof")
    wait_for(lambda: ("127.0.0.1", "handshake_timeout") in failures(site), "the line")
    assert len(failures(site)) == 1


def test_a_handshake_may_come_byte_by_byte(demo):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context().wrap_bio(incoming, outgoing)
    with Client(demo.address) as c:
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    c.send(bytes([byte]))
                assert c.fill()
                incoming.write(c.take(len(c.buf)))
        session.write(message("GET", "/"))
        c.send(outgoing.read())
        while True:
            try:
                assert session.read(65536).startswith(b"HTTP/1.1 200 ")
                break
            except ssl.SSLWantReadError:
                assert c.fill()
                incoming.write(c.take(len(c.buf)))


def test_silent_connections_make_room(work):
    """Who has not begun, or does not end, its handshake gives way to who comes."""
    site = secure_site(work, {"app": "demo"}, forebay={"connections": 16, "threads": 1},
                       listen={"min_rate_grace": "100ms", "handshake_timeout": "5m"})
    held = [Client(site.address) for _ in range(16)]
    for c in held[::2]:
        c.send(b"\x16\x03\x01\x02\x00\x01")
    try:
        for _ in range(20):
            with site.secure() as c:
                assert c.ask("GET", "/").status == 200
    finally:
        for c in held:
            c.close()


def test_a_drain_ends_what_rests_and_serves_what_works(work):
    backend = work.backend()
    site = secure_site(work, {"socket": backend.name, "slots": 1}, forebay={"threads": 1})
    go = threading.Event()

    def handler(conn):
        conn.request()
        assert go.wait(30)
        conn.send(OK)

    backend.next(handler)
    with site.secure() as idle, Client(site.address) as silent, site.secure() as busy:
        busy.send(message("GET", "/"))
        backend.wait_seen(1)
        procs.kill(site.pid, 15)
        assert (idle.ends(), silent.ends()) == ("eof", "eof")
        go.set()
        assert busy.response().body == b"ok"
        assert busy.ends() == "eof"
    assert site.wait() == 0




def test_a_client_that_stops_reading_is_cut(work):
    """Its socket is full of records, and sealed ones wait behind: they are no sign of life."""
    backend = work.backend()
    site = secure_site(work, {"socket": backend.name, "slots": 1}, listen={"min_rate": "1K", "min_rate_grace": "1s"})
    size = 32 * MB
    backend.next(answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + pattern(size)))
    with site.secure(rcvbuf=65536) as c:
        c.send(message("GET", "/"))
        (entry,) = site.wait_access(lambda e: e["target"] == "/")
        assert (entry["reason"], entry["cut"]) == ("min_rate", True)
        with pytest.raises(Cut) as cut:
            c.response()
        assert cut.value.how in ("truncated", "reset")
