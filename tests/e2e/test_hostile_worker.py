"""A worker of the pool that does not keep to the protocol: the client has its 502, nobody else is harmed, and the process is replaced."""

import os
import shutil
import subprocess

import pytest

import procs
from client import message
from daemon import HERE, TOP
from procs import wait_for


@pytest.fixture(scope="module")
def program(shared):
    if not shutil.which("gcc"):
        pytest.skip("no gcc")
    path = shared.path("hostile")
    subprocess.run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wno-misleading-indentation", "-I", TOP, "-o", path,
                    os.path.join(HERE, "hostile_worker.c")], check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture
def site(work, program):
    made = work.forebay({"app": "worker:" + program, "processes": 1, "threads": 1, "preload": "off", "queue_timeout": "5m", "timeout": "10m",
                         "quarantine_dir": work.path("quarantine")})
    made.workers_of_program = lambda: [pid for pid in procs.children(made.pid) if pid != made.front() and procs.runs(pid)]
    return made


def serves(site):
    """Whoever serves the slot now."""
    r = site.ask("POST", "/do/hcHdE", body=b"x")
    assert (r.status, r.body) == (200, b"12345")


def serves_in_the_end(site):
    """What a worker says out of turn may come when the next request is on its way to it: that is lost then, and told. Nothing of it is
    ever an answer."""

    def good():
        r = site.ask("POST", "/do/hcHdE", body=b"x")
        assert r.status == 502 or (r.status, r.body) == (200, b"12345")
        return r.status == 200

    wait_for(good, "a good answer")


NONSENSE = ["X", "H", "hG", "hE", "hd", "hcHs", "hcHR", "hcHF", "hcHp", "hu", "ht", "hcn", "hcLE", "hcLdd", "hcHm", "hcHH", "hcLdI"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("says", NONSENSE)
def test_nonsense_is_a_502_and_its_process_is_replaced(site, says, method):
    worker = wait_for(site.workers_of_program, "a worker")
    with site.connect() as c:
        c.send(message(method, f"/do/{says}w", body=b"x" if method == "POST" else None))
        assert c.response().status == 502
    entry = site.wait_access(lambda e: "/do/" in e["target"])[0]
    assert entry["attempts"] == 1 and entry["reason"]
    wait_for(lambda: (now := site.workers_of_program()) and now != worker, "another process")
    serves(site)
    assert os.listdir(os.path.dirname(site.argv[-1]) + "/quarantine") == []


@pytest.mark.parametrize("says,status", [("hcHdEE", 200), ("hcHdEX", 200), ("hcHdEhH", 200)])
def test_what_is_said_behind_an_answer_is_nobodys(site, says, status):
    """With it, or while nobody waits for anything: never a part of the next answer."""
    worker = wait_for(site.workers_of_program, "a worker")
    with site.connect() as c:
        c.send(message("POST", f"/do/{says}w", body=b"x"))
        assert c.response().status in (status, 502)  # 502 if both came at once
    wait_for(lambda: (now := site.workers_of_program()) and now != worker, "another process")
    serves_in_the_end(site)


@pytest.mark.parametrize("says,get,post", [
    ("C", 502, 502),  # not begun: another one each time, for as long as there is one
    ("hcC", 502, 502), ("hcHC", 502, 502), ("hcHdC", 502, 502), ("hcK", 502, 502)])
def test_one_that_ends_its_connection_is_told(site, says, get, post):
    """The path says the same to each worker that it is handed to: in the end it is a 502."""
    for method, want in (("GET", get), ("POST", post)):
        with site.connect() as c:
            c.send(message(method, f"/do/{says}", body=b"x" if method == "POST" else None))
            assert c.response().status == want
    tries = [e["attempts"] for e in site.wait_access(lambda e: "/do/" in e["target"], 2)]
    assert tries == ([2, 1] if "c" in says else [33, 33])
    serves(site)


def test_half_a_connection_is_no_proof(site):
    """It has closed what it sends by, and may read and begin yet: a POST is not handed to another one."""
    worker = wait_for(site.workers_of_program, "a worker")
    assert site.ask("POST", "/do/hSw", body=b"x").status == 502
    assert site.wait_access(lambda e: "/do/hSw" in e["target"])[0]["attempts"] == 1
    wait_for(lambda: (now := site.workers_of_program()) and now != worker, "another process")
    serves(site)


def test_one_that_does_not_end_when_it_is_told_to_is_killed(site):
    worker = wait_for(site.workers_of_program, "a worker")
    assert site.ask("POST", "/do/Xg", body=b"x").status == 502
    serves(site)  # by another one, which does not wait for it
    site.wait_log("signal 9 (Killed)")
    assert not set(worker) & set(site.workers_of_program())


def test_a_client_that_leaves_does_not_hear_what_is_said_then(work, program):
    """Its answer comes behind CANCEL, right or wrong: the slot serves the next client, or its process is replaced."""
    site = work.forebay({"app": "worker:" + program, "processes": 1, "threads": 1, "preload": "off", "timeout": "10m", "queue_timeout": "5m"})
    for says in ("hcHdE", "hcHdX", "hcHdEE"):
        for _ in range(5):
            with site.connect() as c:
                c.send(message("POST", f"/do/{says}", body=b"x"))
                c.reset()
        serves_in_the_end(site)


def test_nothing_of_it_is_left_open(site):
    front = site.front()
    serves(site)
    before = procs.descriptors(front)
    for says in ("hcHm", "ht", "hcHp", "hu", "X", "hcHC", "hcHdEE"):
        assert site.ask("POST", f"/do/{says}w", body=b"x").status in (200, 502)
        serves_in_the_end(site)
    wait_for(lambda: procs.descriptors(front) <= before + 1, lambda: f"{before}, {procs.descriptors(front)}")
