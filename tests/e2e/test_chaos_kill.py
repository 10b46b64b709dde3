"""kill -9 at random points under load, for every kind of process: no answer reaches another client, no POST is executed twice,
who loses a request is told, and service comes back by itself."""

import os
import random
import signal
import time

import pytest

import procs
from client import Cut, ask
from daemon import scaled
from load import Demo, Load, Site
from procs import wait_for

KILL = signal.SIGKILL
CLIENTS = scaled(20, 6)
KILLS = scaled(5, 3)  # each makes the pause before the next start longer
WORKERS = 3
SLOTS = 2 * WORKERS
DIED = r"event=front_died .*signal 9", r"event=worker_died .*signal 9", "workers end again and again"


def record_for_all(work):
    """Workers are another user."""
    with open(work.record, "w"):
        pass
    os.chmod(work.record, 0o666)
    return f"FOREBAY_DEMO_RECORD={work.record}"


@pytest.fixture
def demo(work):
    site = work.forebay({"app": "demo", "processes": WORKERS, "threads": SLOTS // WORKERS, "environment": [record_for_all(work)]})
    wait_for(lambda: len(site.workers()) == WORKERS, lambda: f"{WORKERS} workers:\n{site.log()}")
    return site


def serves(site):
    """A request that was made after the kill is answered."""
    try:
        return ask(site.address, "GET", "/?id=probe").status == 200
    except (Cut, ConnectionError):
        return False


def strike(load, rng, choose, whole):
    """Kills what choose() says at a random moment, counted in answers and a bit more. Returns how long it took until whole()."""
    load.more(1 + rng.randrange(40))
    time.sleep(rng.random() / 100)
    victim = choose()
    procs.kill(victim, KILL)
    begun = time.monotonic()
    wait_for(lambda: whole(victim), lambda: f"recovery:\n{load.site.log()[-4000:]}")
    return time.monotonic() - begun


def front_is_back(site):
    return lambda victim: site.front() not in (None, victim) and serves(site)


def workers_are_back(site):
    def whole(victim):
        now = site.workers()
        return len(now) == WORKERS and victim not in now and serves(site)

    return whole


def test_front(demo, work, quiet, seed, recovery):
    quiet(demo, slots=SLOTS, bad=DIED)
    rng, workers = random.Random(seed), demo.workers()
    with Load(demo, Demo, CLIENTS, seed, cuts=True) as load:
        recovery("front", [strike(load, rng, demo.front, front_is_back(demo)) for _ in range(KILLS)])
        load.more(CLIENTS)
    load.verify(work.record)
    assert demo.workers() == workers


def test_workers(demo, work, quiet, seed, recovery):
    quiet(demo, slots=SLOTS, bad=DIED)
    rng = random.Random(seed)
    with Load(demo, Demo, CLIENTS, seed) as load:
        recovery("worker", [strike(load, rng, lambda: rng.choice(demo.workers()), workers_are_back(demo)) for _ in range(KILLS)])
        load.more(CLIENTS)
    load.verify(work.record)


def test_front_and_workers_at_once(demo, work, quiet, seed, recovery):
    """The front dies with answers that workers still write; workers die that hold slots of a front that has just begun."""
    quiet(demo, slots=SLOTS, bad=DIED)
    rng = random.Random(seed)

    def front_and_some():
        for worker in rng.sample(demo.workers(), rng.randrange(WORKERS)):
            procs.kill(worker, KILL)
        return demo.front()

    def whole(victim):
        return front_is_back(demo)(victim) and len(demo.workers()) == WORKERS

    with Load(demo, Demo, CLIENTS, seed, cuts=True) as load:
        recovery("front and workers", [strike(load, rng, front_and_some, whole) for _ in range(KILLS)])
        load.more(CLIENTS)
    load.verify(work.record)


def test_master(demo, work, seed, recovery):
    """Nobody is left; every client hears its end. The next one starts at once, on the same port, beside nothing."""
    family = demo.family(1 + 1 + WORKERS)  # a front and a zygote
    demo.expected = {-KILL}
    rng, path = random.Random(seed), demo.argv[-1]
    load = Load(demo, Demo, CLIENTS, seed, cuts=True)
    try:
        load.more(rng.randrange(100))
        procs.kill(demo.pid, KILL)
        begun = time.monotonic()
        demo.wait()
        wait_for(lambda: not [pid for pid in family if procs.runs(pid)], lambda: [procs.cmdline(pid) for pid in family])
        recovery("master: all others have ended", [time.monotonic() - begun])
        assert os.listdir(work.spool) == []
        # The dead are gone from the process table before their last sockets are closed.
        wait_for(lambda: refuses(demo.address), "the port to be free")
        second = work.forebay_run(["-c", path], demo.address, name="second")
        load.site = second
        load.more(CLIENTS)
    finally:
        load.stop()
    load.verify(work.record)
    assert serves(second)


def refuses(address):
    try:
        ask(address, "GET", "/")
        return False
    except ConnectionRefusedError:
        return True
    except (Cut, ConnectionError):
        return False


SYNC = {"kind": "sync", "workers": WORKERS}
GTHREAD = {"kind": "gthread", "workers": WORKERS, "threads": SLOTS // WORKERS}
SERVERS = {
    "sync": (SYNC, {"slots": WORKERS}),
    "sync-unread": (SYNC, {"slots": WORKERS, "replay_unread": "on"}),
    "gthread-keepalive": (GTHREAD, {"slots": SLOTS, "keepalive": "on"}),
}


class Behind:
    """gunicorn, and forebay before it."""

    def __init__(self, work, server, pool):
        self.work, self.server = work, server
        self.gunicorn = self.start("gunicorn")
        self.site = work.forebay({"socket": self.gunicorn.socket, **pool})

    def start(self, name):
        return self.work.gunicorn(**self.server, application="chaos:application", name=name, bind=self.work.path("g.sock"))

    def workers(self):
        return [pid for pid in procs.children(self.gunicorn.pid) if procs.runs(pid)]

    def whole(self, victim):
        now = self.workers()
        return len(now) == WORKERS and victim not in now and serves(self.site)


@pytest.fixture(params=SERVERS)
def behind(request, work):
    return Behind(work, *SERVERS[request.param])


def test_gunicorns_workers(behind, work, quiet, seed, recovery, request):
    quiet(behind.site)
    rng = random.Random(seed)
    with Load(behind.site, Site, CLIENTS, seed) as load:
        times = [strike(load, rng, lambda: rng.choice(behind.workers()), behind.whole) for _ in range(KILLS)]
        recovery(f"gunicorn's worker, {request.node.callspec.id}", times)
        load.more(CLIENTS)
    load.verify(work.record)


def test_the_front_before_gunicorn(behind, work, quiet, seed, recovery, request):
    quiet(behind.site, bad=DIED)
    rng = random.Random(seed)
    with Load(behind.site, Site, CLIENTS, seed, cuts=True) as load:
        times = [strike(load, rng, behind.site.front, front_is_back(behind.site)) for _ in range(KILLS)]
        recovery(f"front before gunicorn, {request.node.callspec.id}", times)
        load.more(CLIENTS)
    load.verify(work.record)


def test_gunicorns_arbiter(behind, work, quiet, seed, recovery, request):
    """Its workers end by themselves, some time later; a service manager starts the next at once, on the same path. Requests that
    find nobody wait for it."""
    quiet(behind.site)
    rng = random.Random(seed)
    old = behind.gunicorn
    with Load(behind.site, Site, CLIENTS, seed) as load:
        load.more(1 + rng.randrange(40))
        orphans = behind.workers()
        procs.kill(old.pid, KILL)
        begun = time.monotonic()
        old.wait()
        behind.gunicorn = behind.start("next")
        wait_for(lambda: behind.whole(None), "recovery")
        recovery(f"gunicorn's arbiter, {request.node.callspec.id}", [time.monotonic() - begun])
        wait_for(lambda: not [pid for pid in orphans if procs.runs(pid)], "gunicorn's orphans to end")
        load.more(CLIENTS)
    load.verify(work.record)
