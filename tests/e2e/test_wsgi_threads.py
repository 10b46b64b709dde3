"""Threads and processes of a WSGI pool: who runs beside whom, who waits for whom, and what they share."""

import hashlib
import os
import signal
import threading

import pytest

import procs
from client import Client, message
from daemon import is_sanitized, scaled
from procs import wait_for
from pythonapps import APPS, needs, needs_python, serve
from tools import pattern

pytestmark = needs_python
MB = 1 << 20


def ask_together(site, n, target):
    got = []
    threads = [threading.Thread(target=lambda: got.append(site.ask("GET", target))) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return got


def test_eight_threads_of_one_process_are_in_the_application_at_once(work):
    site = serve(work, "cases", processes=1, threads=8)
    got = ask_together(site, 8, "/barrier")
    assert [r.status for r in got] == [200] * 8 and len({r.body for r in got}) == 1


def test_a_counter_for_one_thread_counts_right_where_there_is_one(work):
    """And not where wsgi.multithread says that there are others."""
    alone = serve(work, "cases", processes=1, threads=1)
    assert sorted(int(r.body) for r in ask_together(alone, 8, "/counter")) == list(range(1, 9))
    together = serve(work, "cases", processes=1, threads=8, name="together")
    assert [r.body for r in ask_together(together, 8, "/counter")] == [b"1"] * 8


def test_processes_are_processes(work):
    site = serve(work, "cases", processes=3)
    seen = set()

    def all_seen():
        seen.update(int(r.body) for r in ask_together(site, 6, "/pid"))
        return len(seen) == 3

    wait_for(all_seen, "an answer from each process")
    assert seen == set(site.workers())


def sleeps_in(pid, what):
    """The threads of this process that sleep in a function of the kernel with such a name."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/wchan") as f:
                if what in f.read():
                    found.append(int(task))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def says_what_threads_wait_for():
    """Of a thread that surely waits."""
    r, w = os.pipe()
    t = threading.Thread(target=os.read, args=(r, 1))
    t.start()
    try:
        wait_for(lambda: sleeps_in(os.getpid(), "pipe"), "its name", deadline=5)
        return True
    except AssertionError:
        return False
    finally:
        os.write(w, b"x")
        t.join()
        os.close(r)
        os.close(w)


@pytest.fixture
def two(work):
    """One process of two threads."""
    site = serve(work, "cases", processes=1, threads=2, more_pool={"streams": 1, "timeout": "10m"})
    if not os.access("/proc/self/wchan", os.R_OK) or not says_what_threads_wait_for():
        pytest.skip("this kernel does not say what threads wait for")
    return site


def test_a_thread_that_waits_for_its_client_keeps_nobody_from_running(two):
    pid, = two.workers()

    def writing():
        """Who sleeps in its write, and how often each has gone to sleep so far."""
        return [(task, procs.sleeps(pid, task)) for task in sleeps_in(pid, "sock_alloc_send")]

    def answered_meanwhile():
        before = writing()
        return before and two.ask("GET", "/one").body == b"one" and writing() == before

    with Client(two.address, rcvbuf=4096) as c:
        c.send(message("GET", "/endless?text/event-stream"))
        wait_for(answered_meanwhile, "an answer from beside a thread that slept in its write all the while")
        c.reset()
    wait_for(lambda: "closed endless" in two.notes(), "its end")


def test_threads_that_wait_for_requests_keep_nobody_from_running(two):
    """All of them wait, and a thread of the application's own goes on."""
    assert two.ask("GET", "/leaves_a_thread").body == b"left"
    with open(os.path.join(two.folder, "go"), "w"):
        pass
    wait_for(lambda: "the thread went on" in two.notes(), "the application's thread")


def test_what_waited_for_the_gil_was_not_begun(two):
    """A POST that lies with a worker when that dies is given to another, if the application has not been called: here it waited for another thread."""
    pid, = two.workers()
    with Client(two.address) as first, Client(two.address) as second:
        first.send(message("POST", "/holds_the_gil", body=b"x"))
        wait_for(lambda: "the GIL is held" in two.notes(), "the application to begin")
        wait_for(lambda: not sleeps_in(pid, "futex"), "nobody else to want it")
        second.send(message("POST", "/called", body=b"y"))
        wait_for(lambda: sleeps_in(pid, "futex"), "the other thread to wait for the GIL")
        procs.kill(pid, signal.SIGKILL)
        assert first.response().status == 502  # it may have done something
        r = second.response()
        assert r.status == 200 and int(r.body) != pid
    assert two.notes() == ["the GIL is held", "called"]


@pytest.mark.parametrize("how", ["blocks", "lines"])
def test_a_large_body_is_never_whole_in_the_worker(work, how):
    site = serve(work, "cases", route={"body_limit": "1G"})
    pid, = site.workers()
    body = pattern(scaled(200 * MB, least=40 * MB), 5)
    want = hashlib.sha256(body).hexdigest().encode()
    assert site.ask("POST", f"/digest?{how}", body=body[:MB]).status == 200  # what it takes the first time it keeps
    before = procs.memory_kb(pid, "VmHWM")
    assert site.ask("POST", f"/digest?{how}", body=body).body == want
    after = procs.memory_kb(pid, "VmHWM")
    print(f"a body of {len(body) // MB} MB by {how}: at most {before} kB of memory before, {after} kB with it")
    assert after - before < 4096 or is_sanitized()
    assert site.workers() == [pid]


def test_what_is_loaded_is_shared(work):
    """By a zygote: most of a worker's memory is that of all."""
    import procs

    work.write("large.py", "from cases import application\nkept = [str(i) * 3 for i in range(300_000)]\n")
    site = serve(work, "large", processes=4, environment=[f"PYTHONPATH={APPS}"], more_pool={"directory": work.dir})
    for _ in range(20):
        assert site.ask("GET", "/one").body == b"one"
    for pid in site.workers():
        pss, rss = procs.pss(pid), procs.memory_kb(pid, "VmRSS") << 10
        print(f"worker {pid}: PSS {pss >> 10} kB, RSS {rss >> 10} kB")
        assert pss < rss / 2


def footprint(site, processes):
    """PSS of all that there is of a pool once each of its workers has answered."""
    def all_have_answered():
        ask_together(site, 2 * processes, "/form")
        return len({entry["worker"] for entry in site.access() if entry.get("worker")}) == processes

    wait_for(all_have_answered, "an answer from each process")
    for _ in range(5):
        ask_together(site, 2 * processes, "/form")
    return sum(procs.pss(pid) for pid in site.workers() + site.zygotes())


@needs("django")
@pytest.mark.skipif(is_sanitized(), reason="measures memory")
def test_a_zygote_saves_most_of_what_django_takes(work):
    """Four workers, and the zygote where there is one."""
    seen = {}
    for name, options in (("off", {"preload": "off"}), ("on", {}), ("request", {"preload_request": "/form"})):
        site = serve(work, "djangosite.wsgi", processes=4, name=name, more_pool=options)
        assert len(site.zygotes()) == (0 if name == "off" else 1)
        seen[name] = footprint(site, 4)
        site.stop()
    mb = {name: round(n / MB, 1) for name, n in seen.items()}
    print(f"Django, 4 workers, PSS: loaded by each {mb['off']} MB; by a zygote {mb['on']} MB; with preload_request {mb['request']} MB")
    assert seen["request"] < seen["on"] < seen["off"]
    assert seen["request"] < seen["off"] / 2
