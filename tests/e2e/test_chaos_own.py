"""forebay's own workers killed at random under load: every request is executed once or told to be lost, and nothing is left behind.

FOREBAY_TEST_LEAK=100000 makes the descriptor check as long as that; FOREBAY_TEST_SEED=N repeats the random choices of a run."""

import hashlib
import os
import random
import signal
import threading
import time
import zlib

import pytest

import procs
from client import Client, Cut, message
from daemon import SITE, THREADS, is_sanitized, scaled
from procs import wait_for
from pythonapps import needs_python, serve
from tools import pattern, read_record

KILLS_PER_SECOND = 5
LEAK_REQUESTS = int(os.environ.get("FOREBAY_TEST_LEAK") or scaled(4000, 400))


@pytest.fixture
def seed():
    value = int(os.environ.get("FOREBAY_TEST_SEED") or random.randrange(1 << 32))
    print(f"FOREBAY_TEST_SEED={value}")
    return random.Random(value)


class Killer(threading.Thread):
    """Ends random workers, a few times a second."""

    def __init__(self, site, rng, sig=signal.SIGKILL):
        super().__init__()
        self.site, self.rng, self.sig = site, rng, sig
        self.over = threading.Event()
        self.killed = []
        self.start()

    def run(self):
        while not self.over.wait(self.rng.uniform(0, 2 / KILLS_PER_SECOND)):
            workers = self.site.workers()
            if workers:
                pid = self.rng.choice(workers)
                if procs.kill(pid, self.sig):
                    self.killed.append(pid)

    def end(self):
        self.over.set()
        self.join()


class Load:
    """Clients that each send one request after the other, each with an id of its own; what became of each."""

    def __init__(self, site, clients, target, seconds=None, count=None, check=None):
        self.site, self.target, self.check = site, target, check
        self.until = time.monotonic() + seconds if seconds else None
        self.left = count
        self.lock = threading.Lock()
        self.answers, self.wrong = {}, []
        self.threads = [threading.Thread(target=self.client, args=(n,)) for n in range(clients)]
        for t in self.threads:
            t.start()

    def goes_on(self):
        with self.lock:
            if self.left is not None:
                self.left -= 1
                return self.left >= 0
        return time.monotonic() < self.until

    def client(self, n):
        c, i = None, 0
        while self.goes_on():
            ident = f"{n}-{i}"
            i += 1
            try:
                c = c or Client(self.site.address, timeout=120)
                method, target, body = self.target(ident)
                r = c.ask(method, target, body=body)
                if self.check:
                    self.check(ident, r)
                self.answers[ident] = (r.status, r.get("X-Request-Id"))
                if not r.keeps:
                    c.close()
                    c = None
            except (Cut, OSError, AssertionError) as e:
                self.wrong.append((ident, repr(e)))
                c.close()
                c = None
        if c:
            c.close()

    def join(self):
        for t in self.threads:
            t.join()

    def count(self, status):
        return sum(s == status for s, _ in self.answers.values())


def a_site(work, processes=4, threads=2, **kw):
    path = work.path("begun")
    with open(path, "w"):
        pass
    os.chmod(path, 0o666)  # the workers are another user
    site = work.forebay({"app": "demo", "processes": processes, "threads": threads, "queue_timeout": "5m", "queue_limit": 10_000,
                         "environment": [f"FOREBAY_DEMO_RECORD={path}"], **kw}, log_in_memory=True)
    site.begun = lambda: [query.split("&")[0][3:] for _, query, _ in read_record(path)]
    return site


def check_books(site, load, killed, threads):
    """No id was begun twice; whoever has a 200 was begun; whoever has not, was in a worker that was killed."""
    begun = site.begun()
    assert load.wrong == []
    assert {s for s, _ in load.answers.values()} <= {200, 502}
    assert len(begun) == len(set(begun)), "executed twice"
    lost = {rid: ident for ident, (status, rid) in load.answers.items() if status == 502}
    assert {ident for ident, (status, _) in load.answers.items() if status == 200} <= set(begun)
    entries = site.wait_access(lambda e: e["id"] in lost, len(lost))
    for pid in {e["worker"] for e in entries}:
        assert pid in killed and sum(e["worker"] == pid for e in entries) <= threads, pid
    # The record is written a moment behind the start of the application: a worker may be killed between the two.
    return len(lost), sum(ident not in begun for ident in lost.values())


def test_posts_while_workers_are_killed(work, seed, record_property):
    site = a_site(work)
    killer = Killer(site, seed)
    load = Load(site, 12, lambda ident: ("POST", f"/slow?id={ident}&parts=1&ms=3", b"x" * 100), seconds=scaled(8, 2))
    load.join()
    killer.end()
    lost, unwritten = check_books(site, load, killer.killed, 2)
    assert load.count(200) > 0 and killer.killed
    print(f"{len(load.answers)} requests, {len(killer.killed)} kills, {lost} lost and told, {unwritten} of them before their record")
    wait_for(lambda: len(site.workers()) == 4, "the workers to be back")
    assert site.ask("POST", "/echo?id=end", body=b"").status == 200


def a_python_site(work, **kw):
    path = work.path("begun")
    with open(path, "w"):
        pass
    os.chmod(path, 0o666)
    site = work.forebay({"app": "wsgi:chaos:application", "directory": SITE, "processes": 4, "threads": 2, "queue_timeout": "5m",
                         "queue_limit": 10_000, "timeout": "5m",
                         "environment": [f"FOREBAY_TEST_RECORD={path}", "PYTHONDONTWRITEBYTECODE=1"], **kw}, log_in_memory=True)
    site.begun = lambda: [ident for _, ident, _ in read_record(path)]
    return site


def python_load(site, seconds):
    """POSTs, small and large; each answer is that of its request."""
    bodies = [b"x", pattern(5000), pattern(400_000)]
    answer = {n: f"{len(b)} {hashlib.sha256(b).hexdigest()}\n".encode() for n, b in enumerate(bodies)}

    def one(ident):
        return "POST", f"/?id={ident}&ms=5", bodies[zlib.crc32(ident.encode()) % 3]

    def right(ident, r):
        assert r.status == 502 or r.body == ident.encode() + b" " + answer[zlib.crc32(ident.encode()) % 3], (ident, r)

    return Load(site, 12, one, seconds=seconds, check=right)


@needs_python
def test_posts_to_a_python_application_while_its_workers_are_killed(work, seed):
    site = a_python_site(work)
    killer = Killer(site, seed)
    load = python_load(site, scaled(8, 2))
    load.join()
    killer.end()
    lost, unwritten = check_books(site, load, killer.killed, 2)
    assert load.count(200) > 0 and killer.killed
    print(f"{len(load.answers)} requests, {len(killer.killed)} kills, {lost} lost and told, {unwritten} of them before their record")


class Trouble(threading.Thread):
    """Rolling restarts and killed zygotes, a few times a second."""

    def __init__(self, site, rng):
        super().__init__()
        self.site, self.rng, self.over, self.done = site, rng, threading.Event(), 0
        self.start()

    def run(self):
        while not self.over.wait(self.rng.uniform(0, 1)):
            zygotes = self.site.zygotes()
            if zygotes and self.rng.randrange(3) == 0:
                procs.kill(self.rng.choice(zygotes), signal.SIGKILL)
            else:
                procs.kill(self.site.pid, signal.SIGHUP)
            self.done += 1

    def end(self):
        self.over.set()
        self.join()


@needs_python
def test_posts_while_workers_and_zygotes_are_killed_and_restarted(work, seed):
    """Workers that have done their share as well. Who restarts loses nothing; who is killed, what it was at."""
    site = a_python_site(work, max_requests=50)
    killer, trouble = Killer(site, seed), Trouble(site, random.Random(seed.random()))
    load = python_load(site, scaled(10, 3))
    load.join()
    killer.end()
    trouble.end()
    lost, unwritten = check_books(site, load, killer.killed, 2)
    assert load.count(200) > 0 and killer.killed and trouble.done
    print(f"{len(load.answers)} requests, {len(killer.killed)} kills, {trouble.done} restarts or killed zygotes, {lost} lost and told")
    # A zygote that was killed at last is missed when the next worker is needed.
    pid = wait_for(site.workers, "a worker")[0]
    procs.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in (w := site.workers()) and len(w) == 4 and len(site.zygotes()) == 1, "all to be back")


def test_uploads_by_descriptor_while_workers_are_killed(work, seed):
    """Bodies that go as descriptors, and are handed to another worker when the first had not begun."""
    site = a_site(work)
    body = pattern(400_000)
    killer = Killer(site, seed)
    load = Load(site, 8, lambda ident: ("POST", f"/upload?id={ident}", body), seconds=scaled(5, 2))
    load.join()
    killer.end()
    check_books(site, load, killer.killed, 2)
    assert load.count(200) > 0


def test_gets_while_workers_are_killed_have_no_error(work, seed):
    """Safe to be begun twice: a request would have to lose two workers to be lost."""
    site = a_site(work, replay_max=10, retries=10)
    killer = Killer(site, seed)
    load = Load(site, 8, lambda ident: ("GET", f"/slow?id={ident}&parts=2&ms=2", None), seconds=scaled(5, 2))
    load.join()
    killer.end()
    assert load.wrong == [] and load.count(200) == len(load.answers) > 0 and killer.killed


def test_a_hung_thread_is_a_504_and_the_others_of_its_process_end_well(work):
    """The process goes when the others are done; what comes meanwhile is its successor's."""
    site = a_site(work, processes=1, threads=4, timeout="2s", release_timeout="10m")
    old = wait_for(site.workers, "a worker")
    with site.connect() as hung, site.connect() as begun:
        hung.send(message("POST", "/sleep?id=1&ms=600000", body=b""))
        wait_for(lambda: site.begun() == ["1"], "it to hang")
        load = Load(site, 6, lambda ident: ("POST", f"/slow?id={ident}&parts=4&ms=100", b""), seconds=4)
        assert hung.response().status == 504
        begun.send(message("POST", "/slow?id=2&parts=2&ms=100", body=b""))
        assert begun.response().status == 200
        load.join()
    assert load.wrong == [] and load.count(200) == len(load.answers) > 0
    assert len(site.begun()) == len(set(site.begun()))
    wait_for(lambda: len(site.workers()) == 1 and site.workers() != old, "a successor")


def test_no_descriptor_is_left_over(work, seed):
    """Small and large, memory, descriptors and files, crashes, clients that leave: as many are open in front, master and workers after
    it as before."""
    site = a_site(work, retries=0, streams=8, quarantine_dir=work.path("quarantine"), quarantine_limit=3)
    front = site.front()

    def one(ident):
        if seed.randrange(LEAK_REQUESTS) < 8:  # some: each is followed by a pause, which grows
            return "POST", f"/crash?id={ident}", pattern(seed.choice([0, 1000, 300_000]))
        return calm(ident)

    def calm(ident):
        kind = seed.randrange(40)
        if kind < 4:
            return "GET", f"/file?id={ident}&bytes={seed.randrange(1, 200_000)}", None
        if kind < 6:
            return "POST", f"/upload?id={ident}", pattern(seed.randrange(600_000))
        if kind < 7:
            return "POST", f"/cut?id={ident}", b""
        return "POST", f"/echo?id={ident}", b"x"

    sockets = 1 + THREADS + 4 * 2  # the channel to the master, each thread's listener, one of each thread of each worker

    def at_work():
        """What master and front have open with all workers at work: one that died is replaced, its sockets are with the front."""
        def look():
            seen = procs.descriptor_targets(site.pid), procs.descriptor_targets(front)
            return len(site.workers()) == 4 and seen[1].count("socket") == sockets and seen
        return wait_for(look, "all workers' sockets")

    Load(site, 4, one, count=200).join()
    Load(site, 4, calm, count=200).join()  # whoever crashed at last in the first has ended by now, with all its sockets
    assert site.ask("POST", "/upload?id=spooled", body=pattern(600_000)).status == 200  # opens the spool's file for good
    # The master keeps requests that may have to go to quarantine for some seconds: they are none of what is there for good.
    before = [[t for t in targets if not t.startswith("/memfd:request")] for targets in at_work()]
    load = Load(site, 8, one, count=LEAK_REQUESTS)
    load.join()
    for i in range(20):
        with site.connect() as c:
            c.send(message("POST", f"/upload?id=left-{i}", body=pattern(300_000))[:200_000])
            c.reset()
    assert load.wrong == [] and {s for s, _ in load.answers.values()} <= {200, 502}
    assert site.front() == front
    wait_for(lambda: all(len(a) <= len(b) for a, b in zip(at_work(), before)), lambda: f"{before} before, {at_work()} after")
    print(f"{len(load.answers)} requests, master and front: {[len(b) for b in before]} -> {[len(a) for a in at_work()]}")


@needs_python
def test_nothing_is_left_over_of_python_workers(work, seed):
    """Answers small and large, in memory and by descriptor, exceptions, workers that have done their share, clients that leave, and
    a rolling restart: descriptors are as many as before, memory is near to what it was."""
    site = serve(work, "cases", 4, 2, log_in_memory=True, route={"body_memory": "64K"},
                 more_pool={"max_requests": max(20, LEAK_REQUESTS // 20), "queue_timeout": "5m", "timeout": "5m"})
    with open(os.path.join(site.folder, "file"), "wb") as f:
        f.write(b"a line of a file\n" * 20_000)
    kinds = ["/one", "/one", "/one", "/generator", "/written", "/big_parts", "/raises", "/raises_in_the_middle", "/file_plain", "/environment", "/closing"]

    def one(ident):
        if seed.randrange(10) == 0:
            return "POST", "/body?read", pattern(seed.choice([10, 5000, 300_000]))
        return "GET", seed.choice(kinds), None

    def masters():
        return site.pid, site.front(), *site.zygotes()

    def rest():
        """Of the master, the front, the zygote, and the most that a worker has."""
        wait_for(lambda: len(site.workers()) == 4 and len(site.zygotes()) == 1, "the workers to be back")
        for _ in range(40):
            assert site.ask("GET", "/one").status == 200
        pids = masters()
        assert len(pids) == 3
        # A worker ends between two looks at it, when it has done its share.
        seen = [(procs.descriptors(pid), procs.memory_kb(pid, "VmRSS")) for pid in site.workers() if procs.runs(pid)]
        return [procs.descriptors(pid) for pid in pids] + [max(n for n, _ in seen)], \
            [procs.memory_kb(pid, "VmRSS") for pid in pids] + [max(kb for _, kb in seen)]

    def deploy(count):
        procs.kill(site.pid, signal.SIGHUP)
        site.wait_log("rolling restart done", count)

    Load(site, 8, one, count=max(400, LEAK_REQUESTS // 10)).join()
    deploy(1)
    Load(site, 8, one, count=400).join()
    descriptors, memory = rest()
    load = Load(site, 8, one, count=LEAK_REQUESTS)
    load.join()
    for i in range(20):
        with site.connect() as c:
            c.send(message("POST", "/body?read", body=pattern(300_000))[:200_000])
            c.reset()
    deploy(2)
    Load(site, 8, one, count=400).join()
    assert load.wrong == [] and {s for s, _ in load.answers.values()} == {200, 500}
    wait_for(lambda: all(a <= b + 1 for a, b in zip(rest()[0], descriptors)), lambda: f"{descriptors} before, {rest()[0]} after")
    after = rest()
    print(f"{len(load.answers)} requests; master, front, zygote, workers: descriptors {descriptors} -> {after[0]}, VmRSS in kB {memory} -> {after[1]}")
    assert is_sanitized() or all(a < b + 16_000 for a, b in zip(after[1], memory)), (memory, after[1])
