"""Workers over TCP, clients over Unix sockets and IPv6: the same job on other addresses."""

import socket
import threading

import pytest

from backend import OK, Backend, echo_id, polite
from client import Wire, message, parse_head
from daemon import free_address
from procs import wait_for


@pytest.mark.parametrize("keepalive", ["off", "on"])
def test_workers_over_tcp(work, keepalive):
    backend = work.tcp_backend(echo_id)
    site = work.forebay({"socket": backend.name, "slots": 2, "keepalive": keepalive})
    with site.connect() as c:
        for n in range(20):
            r = c.ask("POST" if n % 2 else "GET", "/", [("X-Id", f"id{n}")], body=b"b" * 5000 if n % 2 else None)
            assert (r.status, r.body) == (200, b"id%d" % n)
    if keepalive == "off":
        assert backend.accepted == 20
    else:
        assert backend.accepted < 20


def test_a_tcp_server_that_is_not_there_yet_costs_delay(work):
    address = free_address()
    site = work.forebay({"socket": "%s:%d" % address, "slots": 2})
    answers = []
    asking = threading.Thread(target=lambda: answers.append(site.ask("POST", "/", body=b"x").status))
    asking.start()
    wait_for(lambda: "cannot be reached" in site.log(), "the refused connection in the log")
    assert not answers
    backend = Backend(address)
    try:
        asking.join(30)
        assert answers == [200] and len(backend.take()) == 1
        wait_for(lambda: "can be reached again" in site.log(), "that it is back in the log")
    finally:
        site.stop()
        backend.close()


def test_a_tcp_worker_that_resets_a_post_is_a_502_and_not_tried_again(work):
    """On TCP a reset proves nothing about what was read."""

    def reset(conn):
        conn.request_head()
        conn.reset()

    backend = work.tcp_backend(polite)
    backend.next(reset)
    site = work.forebay({"socket": backend.name, "slots": 1, "retries": 3})
    assert site.ask("POST", "/", body=b"x" * 100).status == 502
    assert backend.accepted == 1
    backend.next(reset)
    assert site.ask("GET", "/").status == 200  # once more, since that is safe
    assert backend.accepted == 3


def test_several_servers_share_a_pool_and_one_that_is_away_is_passed_over(work):
    near, far = work.backend(name="near"), work.tcp_backend()
    site = work.forebay({"socket": [near.name, far.name, work.path("nobody.sock")], "slots": 1})
    for _ in range(30):
        assert site.ask("GET", "/").status == 200
    hold = threading.Event()

    def held(conn):
        conn.request()
        hold.wait(30)
        conn.send(OK)

    for backend in (near, far):
        backend.next(held)
    with site.connect() as a, site.connect() as b:
        a.send(message("GET", "/a"))
        b.send(message("GET", "/b"))
        near.wait_seen(1), far.wait_seen(1)
        wait_for(lambda: {"/a", "/b"} <= {s.target for s in near.seen + far.seen}, "both servers at work")
        hold.set()
        assert a.response().status == b.response().status == 200


def test_clients_over_ipv6(work):
    backend = work.backend()
    with socket.socket(socket.AF_INET6) as s:
        try:
            s.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        port = s.getsockname()[1]
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"address": [f"[::1]:{port}", "127.77.0.1:%d" % port]},
                        address=("127.77.0.1", port))
    with socket.create_connection(("::1", port)) as s:
        wire = Wire(s)
        wire.send(message("GET", "/"))
        assert parse_head(wire.until(b"\r\n\r\n")[:-4]).status == 200
    seen = backend.take()[-1]
    assert seen.get("X-Forwarded-For") == "::1" and 'for="[::1]' in seen.get("Forwarded")
    assert site.ask("GET", "/").status == 200
    assert backend.take()[-1].get("X-Forwarded-For") == "127.0.0.1"


def test_clients_over_a_unix_socket(work):
    backend = work.backend()
    path = work.path("front.sock")
    address = free_address()
    work.forebay({"socket": backend.name, "slots": 1}, listen={"address": [f"unix:{path}", "%s:%d" % address]}, address=address)
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        wire = Wire(s)
        for _ in range(3):
            wire.send(message("POST", "/", body=b"abc"))
            head = parse_head(wire.until(b"\r\n\r\n")[:-4])
            assert head.status == 200 and wire.exactly(int(head.get("Content-Length"))) == b"ok"
    seen = backend.take()
    assert len(seen) == 3 and seen[0].get("X-Forwarded-For") is None and "for=unknown" in seen[0].get("Forwarded")
