"""What the network does on a bad day: too few descriptors, crowds that come and go, clients that drip."""

import collections
import random
import select
import socket
import threading
import time

import pytest

import procs
from backend import OK
from client import Client, Cut, message, parse_head
from daemon import ROOT, scaled
from procs import wait_for

NOFILE = 200
RISING = ["setpriv", "--bounding-set=-sys_resource"] if ROOT else []  # root could raise any limit


def hold_until(event, content=OK):
    def handler(conn):
        conn.request()
        event.wait()
        conn.try_send(content)

    return handler


@pytest.fixture
def release(work):
    """Set at the end at the latest, before anybody waits for who waits for it."""
    event = threading.Event()
    yield event
    event.set()


def event_threads(front):
    return [task for name, task in procs.threads(front).items() if name.startswith("loop-")]


def never_spins(site, sleeps=10, cpu_share_ns=20_000_000):
    """Each event thread goes to sleep by itself again and again (at least its tick wakes it), and does little in between. Who is
    woken at once, every time, by a listener that it cannot serve never sleeps."""
    front = site.front()
    for task in event_threads(front):
        asleep, cpu = procs.sleeps(front, task), procs.cpu_ns(front, task)
        wait_for(lambda task=task, asleep=asleep: procs.sleeps(front, task) >= asleep + sleeps, "a thread to sleep now and then")
        spent, slept = procs.cpu_ns(front, task) - cpu, procs.sleeps(front, task) - asleep
        assert spent <= slept * cpu_share_ns, f"{spent} ns in {slept} turns"


# Too few descriptors


def connect_all(address, count):
    """Connections that the kernel has taken, whoever accepts them."""
    clients = []
    for _ in range(count):
        clients.append(Client(address))
    return clients


def test_200_descriptors_and_1000_clients(work, quiet, release):
    """Those that find no place wait unaccepted in the kernel's queue, and are served when there is room: none is turned away."""
    backend = work.backend(hold_until(release))
    site = work.forebay({"socket": backend.name, "slots": 2, "queue_timeout": "10m", "timeout": "10m"},
                        listen={"idle_timeout": "10m", "head_timeout": "10m"},
                        wrap=[*RISING, "prlimit", f"--nofile={NOFILE}:{NOFILE}"])
    front = site.front()
    with open(f"/proc/{front}/limits") as f:
        assert [line.split()[3:5] for line in f if line.startswith("Max open files")] == [[str(NOFILE)] * 2]
    quiet(site)
    clients = connect_all(site.address, scaled(1000, 300))
    for c in clients:
        c.send(message("GET", "/", [("Connection", "close")]))
    site.wait_log("accepting stops for a moment")
    backend.wait_seen(2)
    never_spins(site)
    assert procs.descriptors(front) < NOFILE
    release.set()
    answers = collections.Counter()
    for c in clients:
        try:
            answers[c.response().status] += 1
        except Cut as cut:
            answers[cut.how] += 1
        c.close()
    assert answers == {200: len(clients)}
    assert site.front() == front


# Crowds


def leave_at_once(c, rng):
    c.close()


def leave_by_reset(c, rng):
    c.reset()


def leave_half_closed(c, rng):
    c.sock.shutdown(socket.SHUT_WR)
    c.close()


def leave_inside_the_head(c, rng):
    raw = message("GET", "/big?bytes=10")
    c.try_send(raw[:rng.randrange(1, len(raw) - 1)])
    rng.choice((c.close, c.reset))()


def leave_inside_the_body(c, rng):
    raw = message("POST", "/upload", body=b"x" * 100_000, chunked=rng.random() < 0.5)
    c.try_send(raw[:rng.randrange(200, len(raw) - 1)])
    rng.choice((c.close, c.reset))()


def leave_before_the_answer(c, rng):
    c.try_send(message("GET", "/big?bytes=100000"))
    rng.choice((c.close, c.reset))()


def leave_inside_the_answer(c, rng):
    if c.try_send(message("GET", "/big?bytes=1000000")):
        c.fill_at_most(rng.randrange(1, 5000))
    rng.choice((c.close, c.reset))()


def leave_after_the_answer(c, rng):
    assert c.ask("GET", "/big?bytes=1000").status == 200
    rng.choice((c.close, c.reset))()


WAYS = {leave_at_once: 20, leave_by_reset: 20, leave_half_closed: 12, leave_inside_the_head: 20, leave_inside_the_body: 8,
        leave_before_the_answer: 6, leave_inside_the_answer: 4, leave_after_the_answer: 10}
CHURNERS = 4


def test_10000_connections_come_and_go(work, quiet, seed):
    """In every way there is. The ones that ask whole things meanwhile get them."""
    site = work.forebay({"app": "demo", "processes": 2, "threads": 2, "queue_timeout": "10m"})
    wait_for(lambda: len(site.workers()) == 2, "two workers")
    quiet(site, slots=4)
    front, errors, done = site.front(), [], collections.Counter()

    def churn(n):
        rng = random.Random(f"{seed}/{n}")
        mine = collections.Counter()
        try:
            for _ in range(scaled(10_000) // CHURNERS):
                way, = rng.choices(list(WAYS), WAYS.values())
                way(Client(site.address), rng)
                mine[way.__name__] += 1
        except Exception as e:
            errors.append(e)
        done.update(mine)

    threads = [threading.Thread(target=churn, args=(n,)) for n in range(CHURNERS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, (seed, errors)
    assert sum(done.values()) == scaled(10_000) // CHURNERS * CHURNERS and len(done) == len(WAYS)
    assert site.front() == front
    assert site.ask("GET", "/big?bytes=100000").status == 200


# Clients that drip


class Dripper:
    """One slow client, moved on by hand: never idle, never fast."""

    def __init__(self, site, kind, start, drop):
        self.kind, self.drop = kind, drop
        self.c = Client(site.address, rcvbuf=4096 if kind == "reader" else None)
        self.c.send(start)
        self.c.sock.setblocking(False)
        self.got, self.over, self.poll = bytearray(), None, select.poll()
        if kind == "reader":
            self.poll.register(self.c.sock, select.POLLERR | select.POLLHUP)

    def step(self):
        """Sends or takes a little. True once the other end has closed; a reset counts before what still lies unread."""
        if self.over:
            return True
        if self.poll.poll(0):
            self.over = "reset"
            return True
        try:
            if self.drop:
                self.c.sock.send(self.drop)
            piece = self.c.sock.recv(1 if self.kind == "reader" else 4096)
            self.got += piece
            if not piece:
                self.over = "eof"
        except BlockingIOError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            self.over = "reset"
        return bool(self.over)

    def status(self):
        return parse_head(bytes(self.got).partition(b"\r\n\r\n")[0]).status if self.got else None


DRIP = {
    "head": (b"GET / HTTP/1.1\r\nHost: test\r\nX-Drip: ", b"x"),
    "body": (message("POST", "/upload", [("Content-Length", "1000000")]), b"x"),
    "reader": (message("GET", "/big?bytes=4000000"), b""),
}
STORM_PSS_MORE = 40 << 20  # 500 answers were held at once; see calm.py for what of that may stay
REASONS = {"head": (408, "head_timeout"), "body": (408, "min_rate"), "reader": (200, "min_rate")}


def test_1500_that_drip_are_each_closed_at_their_limit(work, quiet):
    """500 heads, 500 bodies, 500 readers. While all of them are there, and while they are closed, fast clients are served."""
    count = scaled(500, 50)
    site = work.forebay({"app": "demo", "processes": 2, "threads": 2, "queue_timeout": "10m"}, log_in_memory=True,
                        listen={"head_timeout": "4s", "min_rate": "10K", "min_rate_grace": "3s"})
    wait_for(lambda: len(site.workers()) == 2, "two workers")
    quiet(site, slots=4, pss_more=STORM_PSS_MORE)
    drippers = [Dripper(site, kind, *DRIP[kind]) for kind in ("reader", "body", "head") for _ in range(count)]
    fast, stop, errors = [0], threading.Event(), []

    def be_fast():
        try:
            with site.connect() as c:
                while not stop.is_set():
                    assert c.ask("POST", "/upload", body=b"y" * 1000).status == 200
                    fast[0] += 1
                    time.sleep(0.005)
        except Exception as e:
            errors.append(e)

    quick = threading.Thread(target=be_fast)
    quick.start()
    try:
        end = time.monotonic() + procs.DEADLINE
        while not all([d.step() for d in drippers]):
            assert time.monotonic() < end, collections.Counter((d.kind, d.over) for d in drippers)
            time.sleep(0.1)
    finally:
        stop.set()
        quick.join()
        for d in drippers:
            d.c.close()
    assert not errors and fast[0] > 0, errors
    for d in drippers:
        assert d.kind == "reader" or d.status() == 408 or (d.status() is None and d.over == "reset"), (d.kind, d.status(), d.over)
    assert {d.over for d in drippers if d.kind == "reader"} == {"reset"}  # an answer that was cut does not look whole
    for kind, (status, reason) in REASONS.items():
        mine = {"head": lambda e: e["reason"] == "head_timeout", "body": lambda e: e["target"] == "/upload" and e["reason"],
                "reader": lambda e: e["target"] == "/big?bytes=4000000"}[kind]
        found = site.wait_access(mine, count)
        assert collections.Counter((e["status"], e["reason"]) for e in found) == {(status, reason): count}, kind
        assert all(e["hold_ms"] is None for e in found) or kind == "reader"
