"""An application server that is killed and started again costs delay, not errors; a front that is killed costs its own
connections, and nobody gets another's answer."""

import collections
import signal
import threading

import pytest

from client import Client, Cut, Malformed, ask, message
from daemon import scaled
from procs import kill, runs, wait_for
from tools import Gate, read_record

ROUNDS = 10
WORKERS = 2
CLIENTS = 8


class Load:
    """Clients in threads, each asking for one page after another on a kept connection; every outcome is noted by id."""

    def __init__(self, address, make, prefix="", clients=CLIENTS):
        self.address, self.make, self.prefix = address, make, prefix
        self.outcomes = {}  # id: status, or the exception's text
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.count = 0
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]
        for t in self.threads:
            t.start()

    def _run(self, number):
        c = None
        for turn in range(1_000_000):
            if self.stopping.is_set():
                break
            ident = f"{self.prefix}{number}-{turn}"
            try:
                c = c or Client(self.address)
                c.send(self.make(ident))
                r = c.response()
                good = r.status == 200 and r.get("X-Id") == ident and r.body.split(b" ")[0] == ident.encode()
                outcome = r.status if r.status != 200 or good else f"another's answer: {r.get('X-Id')} {r.body[:40]!r}"
                if not r.keeps:
                    c.close()
                    c = None
            except (Cut, Malformed, OSError, AssertionError) as e:
                outcome = repr(e)
                if c:
                    c.close()
                c = None
            with self.lock:
                self.outcomes[ident] = outcome
                self.count += 1
        if c:
            c.close()

    def wait_more(self, n):
        """Until n more requests have had their outcome."""
        goal = self.count + n
        wait_for(lambda: self.count >= goal, lambda: f"{n} more outcomes, {self.count} so far")

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join()
        return self.outcomes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def start(work):
    return work.gunicorn(workers=WORKERS, application="plain:application")


def restart(work, server):
    """kill -9 for the whole server, and a new one on the same path."""
    server.kill_group(signal.SIGKILL)
    return start(work)


def get(ident):
    return message("GET", f"/work?id={ident}")


def post(ident):
    return message("POST", f"/work?id={ident}", body=b"b" * 2000)


def begun(work):
    return collections.Counter(ident for event, ident, _ in read_record(work.record) if event == "begin")


@pytest.mark.parametrize("replay_unread", ["off", "on"])
def test_no_get_fails_while_the_server_is_killed_ten_times(work, replay_unread):
    server = start(work)
    site = work.forebay({"socket": server.socket, "slots": WORKERS, "replay_unread": replay_unread})
    with Load(site.address, get) as load:
        for _ in range(scaled(ROUNDS, 3)):
            load.wait_more(100)
            server = restart(work, server)
        load.wait_more(100)
        outcomes = load.stop()
    assert {k: v for k, v in outcomes.items() if v != 200} == {}


@pytest.mark.parametrize("replay_unread", ["off", "on"])
def test_no_post_is_begun_twice_while_the_server_is_killed_ten_times(work, replay_unread):
    server = start(work)
    site = work.forebay({"socket": server.socket, "slots": WORKERS, "replay_unread": replay_unread})
    rounds = scaled(ROUNDS, 3)
    with Load(site.address, post) as load:
        for _ in range(rounds):
            load.wait_more(100)
            server = restart(work, server)
        load.wait_more(100)
        outcomes = load.stop()
    count = begun(work)
    assert {k: n for k, n in count.items() if n > 1} == {}
    failed = {k: v for k, v in outcomes.items() if v != 200}
    assert set(failed.values()) <= {502}
    assert all(count[k] == 1 for k in outcomes if k not in failed)
    if replay_unread == "on":  # a death can take with it what was in a slot; what lay in the socket unread is proven not to be
        assert len(failed) <= rounds * WORKERS


def test_the_posts_that_fail_are_those_that_were_begun(work):
    """All workers are inside the application when they are killed: these requests fail, and no other."""
    server = start(work)
    site = work.forebay({"socket": server.socket, "slots": WORKERS, "replay_unread": "on"})
    lost = set()
    for turn in range(scaled(ROUNDS, 3)):
        gate = Gate(f"{work.gates}/{turn}")

        def make(ident, turn=turn):
            return message("POST", f"/work?id={ident}&gate={turn}", body=b"b" * 2000)

        before = set(begun(work))
        with Load(site.address, make, f"{turn}-") as load:
            wait_for(lambda: len(set(begun(work)) - before) == WORKERS, "both workers to begin")
            inside = set(begun(work)) - before
            server.kill_group(signal.SIGKILL)
            gate.open()
            server = start(work)
            load.wait_more(50)
            outcomes = load.stop()
        failed = {k for k, v in outcomes.items() if v != 200}
        assert {outcomes[k] for k in failed} == {502} and failed == inside
        lost |= failed
    count = begun(work)
    assert {k: n for k, n in count.items() if n > 1} == {}
    assert len(lost) <= len(count)


def test_requests_wait_for_a_server_that_is_not_there_yet(work):
    path = work.path("gunicorn.sock")
    site = work.forebay({"socket": path, "slots": WORKERS, "queue_timeout": "5m"})
    clients = [site.connect() for _ in range(20)]
    try:
        for i, c in enumerate(clients):
            c.send(message("POST", f"/work?id={i}", body=b"x"))
        assert site.ask("GET", "/", [("Content-Length", "x")]).status == 400  # forebay is up all the while
        start(work)
        assert [c.response().body for c in clients] == [b"%d 1" % i for i in range(20)]
    finally:
        for c in clients:
            c.close()


def test_a_graceful_reload_of_the_server_loses_nothing(work):
    server = start(work)
    site = work.forebay({"socket": server.socket, "slots": WORKERS})
    with Load(site.address, get) as load:
        for turn in range(3):
            load.wait_more(50)
            server.popen.send_signal(signal.SIGHUP)
            server.wait_log("Booting worker", WORKERS * (turn + 2))
        load.wait_more(50)
        outcomes = load.stop()
    assert {k: v for k, v in outcomes.items() if v != 200} == {}


def test_one_socket_of_two_may_die(work):
    first = work.gunicorn(application="plain:application", name="one")
    second = work.gunicorn(application="plain:application", name="two")
    site = work.forebay({"socket": [first.socket, second.socket], "slots": 1})
    with Load(site.address, get) as load:
        load.wait_more(50)
        first.kill_group(signal.SIGKILL)
        load.wait_more(100)
        outcomes = load.stop()
    assert {k: v for k, v in outcomes.items() if v != 200} == {}


# The front


def crash_front(site):
    front = site.front()
    kill(front, signal.SIGKILL)
    wait_for(lambda: not runs(front), "the front to die")
    return front


def wait_new_front(site, old):
    return wait_for(lambda: site.front() not in (None, old) and site.front(), "a new front")


def in_work(site, clients, make):
    for i, c in enumerate(clients):
        c.ident = str(i)
        c.send(make(c.ident))


def what_they_heard(clients):
    """Every client's answer or end. Asserts that no answer is another's."""
    answers = 0
    for c in clients:
        try:
            r = c.response()
        except (Cut, OSError):
            continue
        if r.status == 200:
            assert r.get("X-Id") == c.ident, f"client {c.ident} got the answer of {r.get('X-Id')}"
            answers += 1
    return answers


def test_nobody_gets_anothers_answer_when_the_front_is_killed(work):
    count = scaled(100, 10)
    server = work.gunicorn("gthread", threads=count, application="plain:application")
    site = work.forebay({"socket": server.socket, "slots": count, "keepalive": "on", "timeout": "5m"})
    gate = Gate(f"{work.gates}/all")
    before = [site.connect() for _ in range(count)]
    after = []
    try:
        in_work(site, before, lambda i: message("GET", f"/work?id={i}&gate=all"))
        wait_for(lambda: len(begun(work)) == count, "all to be in work")
        old = crash_front(site)
        wait_new_front(site, old)
        after = [site.connect() for _ in range(count)]
        for i, c in enumerate(after):
            c.ident = f"new-{i}"
            c.send(message("GET", f"/work?id=new-{i}"))
        gate.open()
        assert what_they_heard(before) == 0  # their connections died with the front
        assert what_they_heard(after) == count
    finally:
        gate.open()
        for c in before + after:
            c.close()


def test_nobody_gets_anothers_answer_from_own_workers_when_the_front_is_killed(work):
    """The demo's slots outlive the front, their sockets must not: else the new front reads the old one's answers."""
    count = scaled(100, 10)
    site = work.forebay({"app": "demo", "processes": 5, "threads": -(-count // 5), "timeout": "5m"})
    before = [site.connect() for _ in range(count)]
    after = []
    try:
        in_work(site, before, lambda i: message("GET", f"/sleep?ms=1500&id={i}", [("X-Id", i)]))
        old = crash_front(site)
        wait_new_front(site, old)
        for round_ in range(3):
            fresh = [site.connect() for _ in range(count)]
            after += fresh
            for i, c in enumerate(fresh):
                c.ident = f"new-{round_}-{i}"
                c.send(message("GET", f"/echo?id={c.ident}", [("X-Id", c.ident)]))
            for c in fresh:
                r = c.response()
                assert r.status == 200 and f"id={c.ident}\n".encode() in r.body, f"{c.ident}: {r.body[:300]!r}"
    finally:
        for c in before + after:
            c.close()


def test_the_front_may_be_killed_again_and_again_under_load(work):
    server = work.gunicorn("gthread", threads=8, application="plain:application")
    site = work.forebay({"socket": server.socket, "slots": 8, "keepalive": "on"})
    with Load(site.address, get) as load:
        for _ in range(3):
            load.wait_more(50)
            old = crash_front(site)
            wait_new_front(site, old)
        load.wait_more(100)
        outcomes = load.stop()
    wrong = {k: v for k, v in outcomes.items() if v != 200 and ("another" in str(v) or "Malformed" in str(v))}
    assert wrong == {}
    assert ask(site.address, "GET", "/work?id=z").status == 200
