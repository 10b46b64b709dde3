"""Rolling restarts: new code takes over place by place, what fails leaves the old serving, and no request fails through any of it.

FOREBAY_TEST_DEPLOYS=100 makes the deploys under load as many as that."""

import os
import re
import shutil
import signal
import threading

import pytest

import procs
from daemon import Process, scaled
from procs import wait_for
from pythonapps import needs_python

pytestmark = needs_python
DEPLOYS = int(os.environ.get("FOREBAY_TEST_DEPLOYS") or scaled(30, 10))
PROCESSES = 2

GOOD = "import os\nNUMBER = %d\ndef application(environ, start_response):\n" \
       "    status = '200 OK'\n" \
       "    body = b'%%d %%d' %% (NUMBER, os.getpid())\n" \
       "    start_response(status, [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])\n" \
       "    return [body]\n"
BROKEN = {
    "import": "raise RuntimeError('broken on purpose')\n",
    "health": GOOD.replace("'200 OK'", "'500 Broken' if environ['PATH_INFO'] == '/health' else '200 OK'") % 0,
    "hang": "import time\ntime.sleep(3600)\n",
}


def rollouts(site, what):
    return site.log().count(what)


class Clients:
    """Some that ask all the time; every answer counts."""

    def __init__(self, site, count):
        self.site, self.ends, self.wrong, self.seen, self.asked = site, threading.Event(), [], set(), 0
        self.threads = [threading.Thread(target=self.ask) for _ in range(count)]
        for t in self.threads:
            t.start()

    def ask(self):
        while not self.ends.is_set():
            with self.site.connect() as c:
                try:
                    while not self.ends.is_set() and self.ask_one(c):
                        pass
                except Exception as e:
                    self.wrong.append(repr(e))
                    return

    def ask_one(self, c):
        r = c.ask("GET", "/")
        self.asked += 1
        if r.status != 200:
            self.wrong.append((r.status, r.body[:100]))
        self.seen.add(int(r.body.split()[0]))
        return r.get("Connection") != "close"

    def stop(self):
        self.ends.set()
        for t in self.threads:
            t.join()


class Wrk(Process):
    """32 connections that ask all the time, until stop() gives what wrk has counted."""

    def __init__(self, work, url):
        super().__init__(work, "wrk", ["wrk", "--threads", "1", "--connections", "32", "--duration", "3600s", "--timeout", "60s", "--latency", url])

    def stop(self):
        procs.kill(self.pid, signal.SIGINT)
        assert self.wait() == 0
        said = self.log()
        return {"requests": int(re.search(r"(\d+) requests in", said)[1]), "p99": re.search(r"99%\s+(\S+)", said)[1],
                "errors": re.findall(r"Socket errors: .*|Non-2xx or 3xx responses: .*", said)}


@pytest.fixture
def app(work):
    folder = work.path("app")
    os.mkdir(folder)

    def write(text):
        with open(os.path.join(folder, "new"), "w") as f:
            f.write(text)
        os.replace(os.path.join(folder, "new"), os.path.join(folder, "site_of_test.py"))

    write(GOOD % 1)
    write.folder = folder
    return write


def start(work, app, ready=True, **pool):
    site = work.forebay({"app": "wsgi:site_of_test", "directory": app.folder, "environment": "PYTHONDONTWRITEBYTECODE=1", "processes": PROCESSES,
                         "threads": 2, "health_path": "/health", **pool}, ready=ready)
    if ready:
        wait_for(lambda: len(site.workers()) == PROCESSES, "all workers")  # it is ready with the first
    return site


def all_there(site):
    """Every worker has loaded the application: without preload the others may be at it still when the first one serves."""
    seen = set()

    def every():
        seen.add(int(site.ask("GET", "/").body.split()[1]))
        return seen == set(site.workers())

    wait_for(every, lambda: f"all of {site.workers()} to answer, not only {seen}")


def number(site):
    return int(site.ask("GET", "/").body.split()[0])


def restart(site, ends):
    """One, to its end: `ends` is what the log says then."""
    count = rollouts(site, ends)
    procs.kill(site.pid, signal.SIGHUP)
    site.wait_log(ends, count + 1)


@pytest.mark.parametrize("preload", ["on", "off"])
def test_new_code_takes_over_and_the_old_goes(work, app, preload):
    site = start(work, app, preload=preload, threads=1)
    all_there(site)
    old = site.workers() + site.zygotes()
    assert number(site) == 1
    app(GOOD % 2)
    restart(site, "rolling restart done")
    assert {number(site) for _ in range(20)} == {2}
    wait_for(lambda: not [pid for pid in old if procs.runs(pid)], "the old ones to end")
    assert len(site.workers()) == 2 and len(site.zygotes()) == (1 if preload == "on" else 0)


@pytest.mark.parametrize("how", sorted(BROKEN))
@pytest.mark.parametrize("preload", ["on", "off"])
def test_broken_code_leaves_the_old_serving_loudly(work, app, how, preload):
    site = start(work, app, preload=preload, start_timeout="1500ms", threads=1)
    all_there(site)
    workers = sorted(site.workers())
    app(BROKEN[how])
    restart(site, "rolling restart failed")
    assert number(site) == 1 and sorted(site.workers()) == workers
    if how == "import":
        assert "RuntimeError: broken on purpose" in site.log() and "Traceback" in site.log()
    app(GOOD % 3)
    restart(site, "rolling restart done")
    assert number(site) == 3


def test_a_file_that_is_touched_starts_one(work, app):
    trigger = work.write("trigger", "")
    site = start(work, app, restart_on_change=trigger)
    app(GOOD % 2)
    os.utime(trigger)
    site.wait_log("rolling restart done")
    assert number(site) == 2
    os.unlink(trigger)
    app(GOOD % 4)
    work.write("trigger", "again")
    site.wait_log("rolling restart done", 2)
    assert number(site) == 4
    app(GOOD % 5)
    os.replace(work.write("another", "in its place"), trigger)
    site.wait_log("rolling restart done", 3)
    assert number(site) == 5
    os.unlink(trigger)
    os.symlink(work.write("elsewhere", "one"), trigger)
    site.wait_log("rolling restart done", 4)
    app(GOOD % 6)
    work.write("elsewhere", "other words")
    site.wait_log("rolling restart done", 5)
    assert number(site) == 6


def test_what_is_mended_while_the_broken_one_hangs_follows_it(work, app):
    site = start(work, app, start_timeout="1500ms")
    app("print('is loaded for ever', flush=True)\n" + BROKEN["hang"])
    procs.kill(site.pid, signal.SIGHUP)
    site.wait_log("is loaded for ever")
    app(GOOD % 2)
    procs.kill(site.pid, signal.SIGHUP)
    site.wait_log("another one follows it")
    site.wait_log("rolling restart done")
    assert number(site) == 2 and rollouts(site, "rolling restart failed") == 1


@pytest.mark.parametrize("hangs", ["at its start", "at a restart"])
def test_the_end_does_not_wait_for_what_hangs(work, app, hangs):
    if hangs == "at its start":
        app("print('is loaded for ever', flush=True)\n" + BROKEN["hang"])
    site = start(work, app, ready=hangs == "at a restart")
    if hangs == "at a restart":
        app("print('is loaded for ever', flush=True)\n" + BROKEN["hang"])
        procs.kill(site.pid, signal.SIGHUP)
    site.wait_log("is loaded for ever")
    assert site.stop() == 0


def test_a_dead_zygote_means_a_rolling_restart_once_a_worker_is_needed(work, app):
    site = start(work, app)
    zygote, workers = site.zygotes(), site.workers()
    app(GOOD % 2)
    procs.kill(zygote[0], signal.SIGKILL)
    site.wait_log("the next one that is needed starts a rolling restart")
    assert sorted(site.workers()) == sorted(workers) and number(site) == 1
    procs.kill(workers[0], signal.SIGKILL)
    site.wait_log("rolling restart done")
    assert number(site) == 2
    wait_for(lambda: len(site.workers()) == 2, "two workers")


@pytest.mark.skipif(not shutil.which("wrk"), reason="Debian's package of wrk is not there")
def test_deploys_under_load(work, app):
    """Every tenth is broken, in one of three ways."""
    site = start(work, app, start_timeout="3s", queue_limit=10_000, queue_timeout="5m")
    clients, wrk = Clients(site, 4), Wrk(work, site.url + "/")
    hows, current = sorted(BROKEN), 1
    try:
        for i in range(DEPLOYS):
            if i % 10 == 9:
                app(BROKEN[hows[i // 10 % len(hows)]])
                restart(site, "rolling restart failed")
                assert number(site) == current
            else:
                current = i + 2
                app(GOOD % current)
                restart(site, "rolling restart done")
                assert number(site) == current
            assert not clients.wrong, clients.wrong[:5]
    finally:
        clients.stop()
    counted = wrk.stop()
    print(f"{DEPLOYS} deploys, {clients.asked} requests and wrk's: {counted}")
    assert not clients.wrong, clients.wrong[:5]
    assert clients.asked > 0 and 0 not in clients.seen
    assert counted["requests"] > 0 and counted["errors"] == []
