"""Behind a proxy that speaks the PROXY protocol, its clients' addresses are the clients': in logs, fields and counts."""

import re
import socket
import struct

import pytest

import certs
from client import Client, message
from procs import wait_for
from secure import SecureClient

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 443\r\n"


def v2(client="192.0.2.7", port=4321, command=1, extras=b""):
    family, kind = (socket.AF_INET6, 0x21) if ":" in client else (socket.AF_INET, 0x11)
    here = socket.inet_pton(family, "2001:db8::1" if ":" in client else "192.0.2.1")
    rest = socket.inet_pton(family, client) + here + struct.pack(">HH", port, 443) + extras
    return SIGNATURE + struct.pack(">BBH", 0x20 | command, kind, len(rest)) + rest


EXTRAS = b"\x01\0\x02h2" + b"\x02\0\x0bexample.org"  # ALPN, authority
KNOWN = {"v1": (V1, "192.0.2.7"), "v1-ipv6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n", "2001:db8::7"), "v2": (v2(), "192.0.2.7"),
         "v2-ipv6": (v2("2001:db8::7"), "2001:db8::7"), "v2-extras": (v2(extras=EXTRAS), "192.0.2.7")}
UNKNOWN = {"v1": b"PROXY UNKNOWN\r\n", "v1-words": b"PROXY UNKNOWN some words\r\n", "v2-local": SIGNATURE + b"\x20\0\0\0",
           "v2-local-with-address": v2(command=0), "v2-unspecified": SIGNATURE + b"\x21\0\0\0"}


@pytest.fixture(scope="module")
def stage(shared):
    backend = shared.backend()
    site = shared.forebay({"socket": backend.name, "slots": 2}, forebay={"trusted": "127.0.0.0/8", "threads": 1},
                          listen={"proxy_protocol": "on"})
    site.backend = backend
    return site


def refusals(site):
    return re.findall(r"event=proxy_header_refused listen=\S+ peer=([0-9.]+) port=\d+ why=\"([^\"]*)\"", site.log())


def seen(stage):
    (one,) = stage.backend.take()
    return one


@pytest.mark.parametrize("name", KNOWN)
def test_the_client_is_who_the_header_says(stage, name):
    header, address = KNOWN[name]
    with Client(stage.address) as c:
        c.send(header + message("GET", "/" + name))
        assert c.response().body == b"ok"
        assert c.ask("GET", f"/{name}/again").body == b"ok"  # the header stands once, the client stays
    first, again = stage.backend.take()
    assert first.get("X-Forwarded-For") == again.get("X-Forwarded-For") == address
    (entry,) = stage.wait_access(lambda e: e["target"] == "/" + name)
    assert (entry["peer"], entry["client"]) == (address, address)


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_proxy_may_not_know_or_speak_for_itself(stage, name):
    with Client(stage.address) as c:
        c.send(UNKNOWN[name] + message("GET", "/"))
        assert c.response().body == b"ok"
    assert seen(stage).get("X-Forwarded-For") == "127.0.0.1"


@pytest.mark.parametrize("header", [V1, v2(), v2(extras=EXTRAS)], ids=["v1", "v2", "v2-extras"])
def test_a_header_may_come_in_any_pieces(stage, header):
    for at in range(1, len(header) + 1):
        with Client(stage.address) as c:
            c.send(header[:at])
            with Client(stage.address) as other:  # which is served behind the first piece
                other.send(V1 + message("GET", "/other"))
                assert other.response().body == b"ok"
            c.send(header[at:] + message("GET", "/"))
            assert c.response().body == b"ok"
    assert {s.get("X-Forwarded-For") for s in stage.backend.take()} == {"192.0.2.7"}


@pytest.mark.parametrize("bad, why", [
    (message("GET", "/"), "no PROXY header"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 4321\r\n", "not a line of version 1"),
    (b"PROXY " + b"x" * 200, "a line of version 1 without an end"),
    (SIGNATURE + b"\x31\x11\0\x0c" + bytes(12), "neither PROXY nor LOCAL of version 2"),
    (SIGNATURE + b"\x21\x11\xff\xff", "a header that is too long"),
    (v2(extras=b"\x01\0\x09h2"), "what follows the addresses is cut"),
], ids=["none", "v1", "v1-endless", "v2", "v2-long", "v2-extras"])
def test_a_bad_header_closes_and_is_logged(stage, bad, why):
    before = len(refusals(stage))
    with Client(stage.address) as c:
        c.try_send(bad)
        assert c.to_end() == b""
    wait_for(lambda: refusals(stage)[before:] == [("127.0.0.1", why)], "the line")
    assert stage.backend.take() == []


def test_a_cut_header_is_none(stage):
    before = len(refusals(stage))
    with Client(stage.address) as c:
        c.send(V1[:-1])
        c.sock.shutdown(socket.SHUT_WR)
        assert c.to_end() == b""
    wait_for(lambda: refusals(stage)[before:] == [("127.0.0.1", "the client has left inside it")], "the line")


def test_a_header_has_its_time(work):
    site = work.forebay({"app": "demo"}, forebay={"trusted": "127.0.0.0/8"},
                        listen={"proxy_protocol": "on", "handshake_timeout": "200ms"})
    with Client(site.address) as c, Client(site.address) as silent:
        c.send(V1[:-1])
        assert (c.to_end(), silent.to_end()) == (b"", b"")
    wait_for(lambda: refusals(site), "the line")
    assert refusals(site) == [("127.0.0.1", "handshake_timeout")]  # who said nothing is not worth a line


def test_others_than_trusted_peers_are_not_heard(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"trusted": "192.0.2.0/24"}, listen={"proxy_protocol": "on"})
    with Client(site.address) as c:
        c.try_send(V1 + message("GET", "/"))
        assert c.to_end() == b""
    wait_for(lambda: refusals(site) == [("127.0.0.1", "from a peer that is not trusted")], "the line")
    assert backend.take() == []


def test_connections_are_counted_by_client(work):
    site = work.forebay({"app": "demo"}, forebay={"trusted": "127.0.0.0/8", "threads": 1},
                        listen={"proxy_protocol": "on", "connections_per_address": 2})

    def come(client):
        c = Client(site.address)
        c.try_send(v2(client) + message("GET", "/"))
        return c

    first, second = come("192.0.2.7"), come("192.0.2.7")
    assert first.response().status == second.response().status == 200
    with come("192.0.2.7") as third:
        assert third.to_end() == b""
    with come("192.0.2.8") as other:
        assert other.response().status == 200
    first.close()

    def again():
        with come("192.0.2.7") as c:
            return c.fill()

    wait_for(again, "the place of the one that has left")
    second.close()


def test_a_header_stands_before_tls(work):
    pair = certs.CA(work.dir).issue("site", ["localhost"])
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"trusted": "127.0.0.0/8"},
                        listen={"proxy_protocol": "on", "tls": "main"}, more={"tls main": pair.options})
    with SecureClient(site.address, first=v2()) as c:
        assert c.ask("GET", "/").body == b"ok"
    (one,) = backend.take()
    assert (one.get("X-Forwarded-For"), one.get("X-Forwarded-Proto")) == ("192.0.2.7", "https")
