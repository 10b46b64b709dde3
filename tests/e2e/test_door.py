"""What a connection speaks is found out without taking anything from it, however its first bytes come."""

import subprocess

import pytest

import certs
import procs
from client import Client
from secure import SecureClient, context
from test_proxy_protocol import V1

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # an empty frame of that type


@pytest.fixture(scope="module")
def doors(shared):
    """`plain` with HTTP/2 by prior knowledge, `behind` a proxy too, and over TLS by ALPN, `secure`."""
    pair = certs.CA(shared.dir).issue("site", ["localhost"])
    addresses = {name: shared.config()[1] for name in ("plain", "behind", "secure")}
    options = {"plain": {}, "behind": {"proxy_protocol": "on"}, "secure": {"tls": "main"}}
    more = {f"listen {name}": {"address": "%s:%d" % addresses[name], "http2": "on", "handshake_timeout": "1s", **options[name]}
            for name in addresses}
    shared.forebay({"app": "demo"}, forebay={"trusted": "127.0.0.0/8"}, more={"tls main": pair.options, **more})
    return addresses


def frame(c):
    """(type, payload) of the next one."""
    head = c.exactly(9)
    return head[3], c.exactly(int.from_bytes(head[:3], "big"))


def test_http1_is_spoken_beside_http2(doors):
    for address, before in ((doors["plain"], b""), (doors["behind"], V1)):
        with Client(address) as c:
            c.send(before)
            assert [c.ask("GET", "/").status for _ in range(3)] == [200] * 3


def test_a_preface_may_come_in_any_pieces(doors):
    for address, before in ((doors["plain"], b""), (doors["behind"], V1)):
        for at in range(1, len(PREFACE)):
            with Client(address) as c:
                c.send(before + PREFACE[:at])
                with Client(doors["plain"]) as other:  # which is served behind the first piece
                    assert other.ask("GET", "/").status == 200
                c.send(PREFACE[at:] + SETTINGS)
                assert frame(c)[0] == SETTINGS[3]


@pytest.mark.parametrize("at", [1, 4, 14, 18, 23])
def test_what_only_begins_like_a_preface_is_http1s(doors, at):
    with Client(doors["plain"]) as c:
        c.send(PREFACE[:at])
        with Client(doors["plain"]) as other:
            assert other.ask("GET", "/").status == 200
        c.send(b"\0" + b"\r\n\r\n")
        assert c.response().status in (400, 505)


def test_half_a_preface_has_its_time(doors):
    with Client(doors["plain"]) as half, Client(doors["plain"]) as silent:
        half.send(PREFACE[:-1])
        assert (half.to_end(), silent.to_end()) == (b"", b"")


@pytest.mark.parametrize("offered, spoken", [(("h2", "http/1.1"), "h2"), (("http/1.1", "h2"), "h2"), (("http/1.1",), "http/1.1"), ((), None)])
def test_alpn_decides_over_tls(doors, offered, spoken):
    with SecureClient(doors["secure"], made=context(alpn=offered)) as c:
        assert c.sock.selected_alpn_protocol() == spoken
        if spoken == "h2":
            c.send(PREFACE + SETTINGS)
            assert frame(c)[0] == SETTINGS[3]
        else:
            assert c.ask("GET", "/").status == 200


def test_without_alpn_a_preface_is_no_request(doors):
    """Prior knowledge is for connections without TLS (RFC 9113, 3.3)."""
    with SecureClient(doors["secure"]) as c:
        c.send(PREFACE + SETTINGS)
        assert c.response().status in (400, 505)


@pytest.mark.parametrize("args", [["--http2-prior-knowledge"], ["--http1.1"]])
def test_curl_chooses(doors, args):
    done = subprocess.run(["curl", "-sS", *args, "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "http://%s:%d/" % doors["plain"]],
                          stdout=subprocess.PIPE, timeout=procs.DEADLINE)
    assert done.stdout.decode() == ("2 200" if "prior" in args[0] else "1.1 200")
