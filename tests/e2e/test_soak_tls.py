"""Many TLS handshakes, and many HTTP/2 streams that are reset half-way: the front's memory and descriptors are level afterwards.
FOREBAY_TEST_SOAK says how many of each: 100000 take some minutes."""

import collections
import os
import threading

import pytest

import h2wire as h
import procs
from backend import polite
from certs import CA
from client import Client, Cut, tls_context
from daemon import is_sanitized, scaled
from h2wire import H2, data, get, post, reset
from procs import wait_for
from test_door_left import client_hello

COUNT = int(os.environ.get("FOREBAY_TEST_SOAK") or scaled(4000, 200))
THREADS = 4
STREAMS = 40  # of each connection: far fewer resets than forebay would end it for
# What a front keeps at hand goes up and down by (see test_soak.py). Measured from the 20,000th to the 100,000th: 0.3 MB of either kind.
BAND_KB = 4096


def patient(conn):
    conn.sock.settimeout(None)
    polite(conn)


@pytest.fixture
def site(work):
    backend = work.backend(patient, keeps=False)
    backend.seen = collections.deque(maxlen=100)
    site = work.forebay({"socket": backend.name, "slots": 8, "keepalive": "on"}, listen={"tls": "test", "http2": "yes"},
                        more={"tls test": CA(work.dir).issue("test", ["test"]).options})
    site.backend = backend
    return site


def whole(site, context, _number):
    with Client(site.address, tls=context) as c:
        assert c.ask("GET", "/x").status == 200
    return 1


def resumed(site, context, _number):
    """The session is the one before's."""
    with Client(site.address, tls=context) as c:
        assert c.ask("GET", "/x").status == 200
        session = c.sock.session
    with Client(site.address) as plain:
        sock = context.wrap_socket(plain.sock, server_hostname="test", session=session)
        plain.sock = sock
        assert plain.ask("GET", "/x").status == 200 and sock.session_reused
    return 2


def broken(site, _context, number):
    """Left within the handshake, at a byte that is another each time; or no TLS at all."""
    hello = client_hello()
    with Client(site.address) as c:
        c.send(hello[:1 + number * 37 % len(hello)] if number % 3 else b"GET / HTTP/1.1\r\n\r\n")
        (c.close, c.reset)[number % 2]()
    return 1


def half_way(site, _context, _number):
    """Streams that are taken back: in the body, behind it, and while the answer comes."""
    with H2(site.address, tls=True) as c:
        for n in range(STREAMS):
            stream = 2 * n + 1
            if n % 4 == 3:
                c.send(get(stream) + reset(stream))
            else:
                c.send(post(stream) + data(stream, b"x" * 1000, end=n % 4 == 1) + reset(stream))
        try:
            c.settled()
            assert c.ask(2 * STREAMS + 1).status == 200
        except Cut:
            assert c.goaway is None, c.goaway
            raise
    return STREAMS


def run(site, kinds, count):
    """Threads that take turns of these kinds until so many were made; the number made."""
    made, errors, lock = [0], [], threading.Lock()

    def rounds(seed):
        context = tls_context()
        try:
            while made[0] < count and not errors:
                for kind in kinds:
                    n = kind(site, context, seed)
                    with lock:
                        made[0] += n
                seed += THREADS
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=rounds, args=(i,)) for i in range(THREADS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return made[0]


@pytest.mark.parametrize("kinds", [(whole, resumed, broken), (half_way,)], ids=["handshakes", "streams"])
def test_memory_and_descriptors_are_level(site, kinds):
    front = site.front()
    made = run(site, kinds, COUNT // 5)
    wait_for(lambda: h.ask(site.address, tls=True).status == 200, "an answer")
    descriptors, first = procs.descriptors(front), procs.memory_kb(front, "VmRSS")
    made += run(site, kinds, COUNT - COUNT // 5)
    wait_for(lambda: procs.descriptors(front) <= descriptors + 2, lambda: f"{descriptors} descriptors, now {procs.descriptors(front)}")
    last = procs.memory_kb(front, "VmRSS")
    print(f"{made} made; the front's kB after a fifth {first}, at the end {last}; descriptors {descriptors}, {procs.descriptors(front)}")
    assert site.front() == front
    assert is_sanitized() or last <= first + BAND_KB, f"kB after a fifth {first}, at the end {last}"
