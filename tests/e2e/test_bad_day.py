"""Python workers on a bad day: applications that hang, hoard, fork, shout and close what is not theirs; machines that cannot fork;
zygotes that are killed."""

import collections
import concurrent.futures
import contextlib
import os
import re
import signal
import threading

import pytest

import procs
from client import Cut, message
from procs import wait_for
from pythonapps import needs_python, serve

pytestmark = needs_python
AGES = {"timeout": "10m", "queue_timeout": "10m", "release_timeout": "10m"}  # nothing here waits for any of these


def day(work, processes=1, threads=1, pool=(), **kw):
    site = serve(work, "badday", processes, threads, more_pool={**AGES, **dict(pool)}, **kw)
    wait_for(lambda: len(site.workers()) == processes, "all workers")
    return site


def noted(site, what, count=1):
    """The processes that have noted it, once there are so many."""

    def there():
        pids = [int(line.rpartition(" ")[2]) for line in site.notes() if line.rpartition(" ")[0] == what]
        return pids if len(pids) >= count else None

    return wait_for(there, what)


def begun(site, ident, count=1):
    """The worker that has begun it, when it has; the last of several."""
    return noted(site, f"begin {ident}", count)[-1]


def open_gate(site, name):
    with open(os.path.join(site.folder, name), "w"):
        pass


def asks(site, method, target):
    """One request, sent; the connection."""
    c = site.connect()
    c.send(message(method, target, body=b"x" if method == "POST" else None))
    return c


def serves(site, not_by=()):
    r = site.ask("POST", "/", body=b"x")
    assert r.status == 200 and int(r.body.split()[0]) not in not_by
    return int(r.body.split()[0])


@contextlib.contextmanager
def at_once(count, ask, over=None):
    """So many threads that ask; `over` is set at the end. What fails in one of them fails here."""
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        asking = [threads.submit(ask) for _ in range(count)]
        try:
            yield
        finally:
            if over:
                over.set()
        for one in asking:
            one.result()


# What a request was at when its worker was killed.


def stopped(pid):
    procs.kill(pid, signal.SIGSTOP)
    wait_for(lambda: procs.state(pid) == "T", "it to stop")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_was_not_begun_is_handed_on_whatever_its_method(work, method):
    """It lies with a worker that does not run."""
    site = day(work)
    old = serves(site)
    stopped(old)
    with asks(site, method, "/hold?id=a") as c:
        site.ask("GET", "/", headers=[("Content-Length", "x")])  # 400: the front has come by
        procs.kill(old, signal.SIGKILL)
        assert c.response().status == 200
    assert begun(site, "a") != old and len(site.notes()) == 1


@pytest.mark.parametrize("method,status", [("GET", 200), ("POST", 502)])
def test_a_request_that_was_begun_is_handed_on_if_that_is_safe(work, method, status):
    site = day(work)
    with asks(site, method, "/hold?id=a&gate=a") as c:
        old = begun(site, "a")
        procs.kill(old, signal.SIGKILL)
        if status == 200:
            begun(site, "a", 2)
        open_gate(site, "a")
        assert c.response().status == status
    assert len(site.notes()) == (2 if status == 200 else 1)
    serves(site, not_by=[old])


def test_a_request_of_which_something_was_sent_is_never_begun_again(work):
    """Its client sees that the answer was cut."""
    site = day(work)
    with asks(site, "GET", "/?id=a&stream=300000&gate=a") as c:
        old = begun(site, "a")
        assert c.head().status == 200
        procs.kill(old, signal.SIGKILL)
        with pytest.raises(Cut):
            c.chunked()
    serves(site, not_by=[old])
    assert len([line for line in site.notes() if line.startswith("begin a ")]) == 1


# Hung.


def test_a_hung_thread_does_not_harm_its_neighbours(work):
    """504 for it, its stack in the log, and all that its neighbours have begun comes to its end."""
    site = day(work, threads=4, pool={"timeout": "2s"})
    over, answers = threading.Event(), []

    def ask():
        while not over.is_set():
            answers.append(site.ask("POST", "/naps?ms=100", body=b"x"))

    with asks(site, "POST", "/hangs_here?id=hung") as hung:
        old = begun(site, "hung")
        with at_once(3, ask, over):
            assert hung.response().status == 504
    assert {r.status for r in answers} == {200} and old in {int(r.body.split()[0]) for r in answers}
    site.wait_log("in hangs_here")
    wait_for(lambda: not procs.runs(old), "its end")
    serves(site, not_by=[old])


@pytest.mark.parametrize("preload", ["on", "off"])
def test_one_that_blocks_signals_says_where_it_hangs(work, preload):
    """From its import on, and once more."""
    site = day(work, pool={"timeout": "1s", "preload": preload}, environment=["FOREBAY_TEST_DEAF=yes"])
    with asks(site, "POST", "/hangs_deaf?id=hung") as hung:
        old = begun(site, "hung")
        assert hung.response().status == 504
    site.wait_log("in hangs_deaf")
    serves(site, not_by=[old])


# What it does to its own process.


@pytest.mark.parametrize("path", ["closes", "points_elsewhere"])
@pytest.mark.parametrize("threads", [1, 2])
def test_descriptors_that_are_closed_cost_one_worker(work, path, threads):
    """Its main thread sleeps meanwhile, on what is not there any more."""
    site = day(work, threads=threads)
    with asks(site, "POST", f"/{path}?id=a&ms=2500") as c:
        old = begun(site, "a")
        assert c.response().status == 502
    serves(site, not_by=[old])
    wait_for(lambda: not procs.runs(old), "its end")


def test_one_that_exits_is_told_and_replaced(work):
    site = day(work)
    with asks(site, "POST", "/exits?id=a") as c:
        assert c.response().status == 502
    serves(site, not_by=[begun(site, "a")])
    site.wait_log('how="exit 3"')


@pytest.mark.parametrize("path,status", [("sys_exits", 500), ("leads", 500), ("handles", 500), ("raises", 500), ("forks_a_program", 200)])
def test_what_harms_nobody(work, path, status):
    site = day(work)
    old = serves(site)
    assert site.ask("POST", f"/{path}", body=b"x").status == status
    assert serves(site) == old
    if path == "forks_a_program":
        program = wait_for(lambda: [pid for pid in procs.descendants(site.pid) if procs.cmdline(pid) == "/bin/sleep 3600"], "the program")[0]
        assert set(procs.descriptor_targets(program)) <= {"/dev/null", "pipe"}
        procs.kill(program, signal.SIGKILL)


@pytest.mark.parametrize("where", ["control", "slot", "both"])
def test_words_that_are_not_its_own_cost_one_worker(work, where):
    """Bytes without a meaning into sockets that the application was not given."""
    site = day(work, processes=2)
    with asks(site, "POST", f"/scribbles?id=a&where={where}") as c:
        old = begun(site, "a")
        assert c.response().status in ((200, 502) if where == "control" else (502,))  # it is killed for it
    wait_for(lambda: not procs.runs(old), "its end")
    for _ in range(10):
        serves(site, not_by=[old])


def test_one_that_does_not_stop_talking_holds_nobody_up(work):
    """What it says is right, but for its number."""
    site = day(work, processes=2)
    with asks(site, "POST", "/babbles?id=a&gate=a") as c:
        old = begun(site, "a")
        for _ in range(20):
            serves(site, not_by=[old])
        procs.kill(site.pid, signal.SIGHUP)
        wait_for(lambda: len({*site.workers()} - {old}) == 2, "the others to be new")
        open_gate(site, "a")
        assert c.response().status == 200
    site.wait_log("rolling restart done")
    assert not procs.runs(old)


def test_an_application_that_ends_with_each_request_is_not_hammered(work):
    """It is said once, and each client is told."""
    site = day(work)
    for _ in range(7):
        assert site.ask("POST", "/exits", body=b"x").status == 502
    site.wait_log('how="exit 3"', 7)
    assert site.log().count("end again and again") == 1
    pauses = [int(ms) for ms in re.findall(r'how="exit 3" .*restart_after_ms=(\d+)', site.log())]
    assert len(pauses) == 7 and sorted(pauses) == pauses and pauses[-1] > 2000
    serves(site)


def test_workers_that_have_done_their_share_do_not_all_go_at_once(work):
    """max_requests, and up to a tenth more, by lot."""
    site = day(work, processes=8, pool={"max_requests": 500})

    def ask():
        with site.connect() as c:
            for _ in range(1200):
                r = c.ask("GET", "/")
                assert r.status == 200
                shares[int(r.body.split()[0])] += 1

    shares = collections.Counter()
    with at_once(8, ask):
        pass
    assert sum(shares.values()) == 9600
    ended = [n for pid, n in shares.items() if pid not in site.workers()]
    assert len(ended) >= 8 and all(500 <= n <= 550 for n in ended) and len(set(ended)) > 1, shares


# Children of its own.


@pytest.mark.parametrize("method,status", [("POST", 502), ("GET", 200)])
def test_a_workers_child_does_not_hold_its_request(work, method, status):
    """The worker is killed, its child lives: the client is told at once."""
    site = day(work, )
    with asks(site, method, "/forks?id=a&child=c&gate=a") as c:
        old = begun(site, "a")
        child = noted(site, "child")[0]
        procs.kill(old, signal.SIGKILL)
        if status == 200:
            begun(site, "a", 2)
        open_gate(site, "a")
        assert c.response().status == status
        assert procs.runs(child)
    serves(site, not_by=[old, child])
    children = noted(site, "child", 2 if status == 200 else 1)  # a GET is begun twice
    open_gate(site, "c")
    wait_for(lambda: not [pid for pid in children if procs.runs(pid)], "them to end")


def test_a_workers_child_does_not_hold_up_the_end(work):
    site = day(work)
    with asks(site, "POST", "/forks?id=a&child=c") as c:
        assert c.response().status == 200
    child = noted(site, "child")[0]
    old = serves(site)
    procs.kill(site.pid, signal.SIGHUP)
    site.wait_log("rolling restart done")
    assert not procs.runs(old) and procs.runs(child)
    serves(site, not_by=[old])
    assert site.stop() == 0
    assert procs.runs(child)
    open_gate(site, "c")
    wait_for(lambda: not procs.runs(child), "the child to end")


def test_a_child_that_comes_back_answers_nobody(work):
    site = day(work)
    for i in range(5):
        with site.connect() as c:
            r = c.ask("POST", f"/forks_and_returns?id={i}", body=b"x")
            assert r.status == 200 and int(r.body.split()[0]) == begun(site, i)
            assert c.ask("POST", "/", body=b"x").status == 200
    children = noted(site, "child", 5)
    wait_for(lambda: not [pid for pid in children if procs.runs(pid)], "them to end")


# Memory and noise.


def test_one_that_hoards_goes_when_its_requests_are_done(work):
    site = day(work, threads=2, pool={"max_memory": "100M"})
    with asks(site, "POST", "/hold?id=a&gate=a") as a:
        old = begun(site, "a")
        with asks(site, "POST", "/hoards?id=b&bytes=200000000") as b:
            assert b.response().status == 200
        site.wait_log("its memory is above max_memory")
        serves(site, not_by=[old])
        open_gate(site, "a")
        r = a.response()
        assert r.status == 200 and int(r.body.split()[0]) == old
    wait_for(lambda: not procs.runs(old), "its end")


def test_a_flood_of_words_stops_nobody(work):
    site = day(work, processes=2)
    flood = [asks(site, "POST", "/floods?id=a&times=300")]
    old = begun(site, "a")
    for _ in range(20):
        serves(site)
    procs.kill(site.pid, signal.SIGHUP)
    site.wait_log("rolling restart done")
    assert flood[0].response().status == 200
    flood[0].close()
    assert not procs.runs(old)
    serves(site)


# No processes to be had, and zygotes that die.


def test_a_zygote_that_cannot_fork_is_waited_for(work):
    """It is said once, the others go on, and when there is room again nobody has to help."""
    site = day(work, processes=2)
    zygotes, old = site.zygotes(), site.workers()
    open_gate(site, "crowded")
    procs.kill(old[0], signal.SIGKILL)
    site.wait_log("a worker could not be started")
    for _ in range(20):
        assert serves(site) == old[1]
    noted(site, "no room", 4)
    tries = [line for line in site.log().split("\n") if "a worker could not be started" in line or "worker lost" in line]
    assert len(tries) == 1 and "error=EAGAIN" in tries[0], tries
    os.unlink(os.path.join(site.folder, "crowded"))
    site.wait_log("workers can be started again")
    wait_for(lambda: len(site.workers()) == 2, "both")
    assert site.zygotes() == zygotes and site.log().count("a worker could not be started") == 1


def test_a_zygote_that_hangs_is_replaced(work):
    site = day(work, processes=2, pool={"start_timeout": "2s"})
    zygote, = site.zygotes()
    old = site.workers()
    stopped(zygote)
    procs.kill(old[0], signal.SIGKILL)
    assert serves(site) == old[1]
    site.wait_log("rolling restart done")
    assert len(site.workers()) == 2 and zygote not in site.zygotes() and not procs.runs(zygote)
    serves(site, not_by=old)


def test_a_zygote_that_is_killed_while_it_forks_under_load(work):
    site = day(work, processes=2, pool={"max_requests": 5})
    ends, answers = threading.Event(), []

    def ask():
        while not ends.is_set():
            with site.connect(timeout=procs.DEADLINE * 2) as c:  # pauses grow with each one that is lost
                answers.append(c.ask("POST", "/", body=b"x").status)

    with at_once(4, ask, ends):
        for i in range(6):
            site.wait_log("the application is loaded", i + 1)
            zygote = int(re.findall(r"zygote=(\d+) load_ms=", site.log())[i])
            procs.kill(zygote, signal.SIGKILL)
            wait_for(lambda: not procs.runs(zygote), "its end")
    assert set(answers) == {200}
    serves(site)


def test_a_zygote_that_is_killed_while_it_loads(work):
    folder = work.path("app")
    os.mkdir(folder)
    with open(os.path.join(folder, "slow_app.py"), "w") as f:
        f.write("import time\ntime.sleep(0.5)\ndef application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'here']\n")
    site = work.forebay({"app": "wsgi:slow_app", "directory": folder, "environment": "PYTHONDONTWRITEBYTECODE=1"}, ready=False)

    def kill_zygote(i):
        site.wait_log("zygote started", i + 1)
        procs.kill(int(re.findall(r'zygote=(\d+) what="zygote started"', site.log())[i]), signal.SIGKILL)

    for i in range(3):
        kill_zygote(i)
    site.wait_ready()
    assert site.ask("GET", "/").body == b"here"
    old = wait_for(lambda: len(got := site.workers()) == 2 and got, "both workers")
    for i in range(3):
        procs.kill(site.pid, signal.SIGHUP)
        kill_zygote(4 + i)
        site.wait_log("rolling restart failed", i + 1)
    assert sorted(site.workers()) == sorted(old)
    assert site.ask("GET", "/").body == b"here"


# Signals.


def test_a_storm_of_restarts(work):
    site = day(work, processes=2)
    for _ in range(100):
        procs.kill(site.pid, signal.SIGHUP)
    site.wait_log("rolling restart done")

    def is_over():
        told = site.log()
        begun, done = (re.findall(rf'generation=(\d+) what="rolling restart {what}"', told)[-1] for what in ("begins", "done"))
        return begun == done

    # One whose old workers leave after the next has taken over is not told of by itself.
    wait_for(is_over, "the end of it")
    assert len(site.workers()) == 2 and len(site.zygotes()) == 1
    serves(site)


def test_a_restart_while_it_ends(work):
    site = day(work, processes=2)
    with asks(site, "POST", "/hold?id=a&gate=a") as c:
        begun(site, "a")
        procs.kill(site.pid, signal.SIGTERM)
        site.wait_log("draining")
        for _ in range(10):
            procs.kill(site.pid, signal.SIGHUP)
        open_gate(site, "a")
        assert c.response().status == 200
    assert site.wait() == 0
    assert "rolling restart begins" not in site.log() and "nothing_to_restart" not in site.log()
