"""The application is loaded once and forked: memory is shared, who cannot be forked is told why, who dies is replaced as ever."""

import os
import signal

import pytest

import procs
from daemon import ROOT
from procs import wait_for
from pythonapps import needs_python

DEMO = {"app": "demo", "processes": 2, "threads": 2}


def test_workers_are_the_masters_children_and_zygotes_own_nobody(work):
    site = work.forebay(DEMO)
    workers = site.wait_workers(2)
    zygote, = site.zygotes()
    assert set(workers) <= set(procs.children(site.pid))
    assert procs.children(zygote) == []
    for pid in workers:
        assert os.getpgid(pid) == pid and procs.cmdline(pid).startswith("forebay: worker app ")


def test_without_preload_there_is_none(work):
    site = work.forebay({**DEMO, "preload": "off"})
    assert site.wait_workers(2) and site.zygotes() == [] and site.ask("GET", "/").status == 200


def test_a_killed_worker_is_forked_anew(work):
    site = work.forebay(DEMO)
    old, zygote = site.wait_workers(2), site.zygotes()
    for pid in old:
        procs.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(set(site.workers()) - set(old)) == 2, "two others")
    assert site.zygotes() == zygote and site.ask("GET", "/").status == 200


def test_a_preload_request_that_is_not_answered_well_is_said(work):
    site = work.forebay({**DEMO, "preload_request": "/nowhere"})
    assert "preload_request was not answered well" in site.log() and "status=404" in site.log()
    assert site.ask("GET", "/").status == 200


def test_a_worker_that_is_not_healthy_gets_no_request(work):
    site = work.forebay({**DEMO, "health_path": "/nowhere"}, ready=False)
    site.wait_log("health_path was answered with status 404")
    site.wait_log("again and again")
    assert " ready: " not in site.log()


def test_too_much_memory_means_another_worker_between_requests(work):
    site = work.forebay({"app": "demo", "processes": 1, "threads": 1, "max_memory": "1K"})
    old, = site.wait_workers(1)
    assert site.ask("GET", "/").status == 200
    site.wait_log("its memory is above max_memory")
    wait_for(lambda: site.workers() and site.workers() != [old], "another worker")
    assert site.ask("GET", "/").status == 200
    assert [e["status"] for e in site.access() if e["status"] != 200] == []


@needs_python
@pytest.mark.parametrize("code, named", [
    ("import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), name='ticker', daemon=True).start()\n", "Python thread ticker"),
    ("import socket\nA, B = socket.socketpair()\n", "socket"),
])
def test_who_cannot_be_forked_is_told_why_and_runs_without(work, code, named):
    folder = work.path("app")
    os.mkdir(folder)
    with open(os.path.join(folder, "unforkable_app.py"), "w") as f:
        f.write(code + "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'here']\n")
    site = work.forebay({"app": "wsgi:unforkable_app", "directory": folder, "processes": 2, "environment": "PYTHONDONTWRITEBYTECODE=1"})
    warning, = [line for line in site.log().split("\n") if "as with preload = off" in line]
    assert named in warning
    assert site.ask("GET", "/").body == b"here"
    wait_for(lambda: site.zygotes() == [], "the zygote to be gone")


def test_the_environment_file_is_read_by_the_master(work):
    path = work.write("environment", "# for us alone\nFROM_FILE=one\n")
    os.chmod(path, 0o600)
    site = work.forebay({**DEMO, "environment_file": path, "umask": "027", "niceness": "5", "locale": "C.UTF-8"})
    worker = site.wait_workers(2)[0]
    if not ROOT:
        pytest.skip("looks into other users' processes")
    with open(f"/proc/{worker}/environ", "rb") as f:
        environ = dict(line.split(b"=", 1) for line in f.read().split(b"\0") if line)
    assert environ[b"FROM_FILE"] == b"one" and environ[b"LC_ALL"] == b"C.UTF-8"
    assert os.getpriority(os.PRIO_PROCESS, worker) == min(19, os.getpriority(os.PRIO_PROCESS, site.pid) + 5)
    with open(f"/proc/{worker}/status") as f:
        assert "Umask:\t0027\n" in f.read()


@pytest.mark.parametrize("pool,soft", [
    ({}, 200),
    ({"threads": 60}, 64 + 4 * 60)])  # what the runtime needs
@pytest.mark.parametrize("app", ["demo", pytest.param("wsgi", marks=needs_python)])
def test_workers_have_the_limit_of_open_files_that_forebay_was_started_with(work, app, pool, soft):
    if app == "wsgi":
        folder = work.path("app")
        os.mkdir(folder)
        with open(os.path.join(folder, "small_app.py"), "w") as f:
            f.write("def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'here']\n")
        pool = {**pool, "app": "wsgi:small_app", "directory": folder, "environment": "PYTHONDONTWRITEBYTECODE=1"}
    site = work.forebay({"app": "demo", "processes": 1, **pool}, wrap=["prlimit", "--nofile=200:3000"])
    assert site.ask("GET", "/").status == 200
    limits = {pid: procs.limit(pid, "Max open files") for pid in [site.front(), *site.wait_workers(1), *site.zygotes()]}
    front = limits.pop(site.front())
    assert front[0] == front[1] >= 3000  # as many as can be had
    assert len(limits) == 2 and set(limits.values()) == {(soft, 3000)}


@pytest.mark.skipif(not ROOT, reason="only root may have more than others")
def test_a_niceness_below_ours_is_had_or_refused_at_the_start(work):
    site = work.forebay({**DEMO, "niceness": "-3"})
    ours = os.getpriority(os.PRIO_PROCESS, site.pid)
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in site.wait_workers(2)} == {max(ours - 3, -20)}
    for pid in site.workers():
        with open(f"/proc/{pid}/status") as f:
            assert "CapEff:\t0000000000000000\n" in f.read()
    site = work.forebay({**DEMO, "niceness": "-3"}, name="without", ready=False, wrap=["setpriv", "--bounding-set=-sys_nice"])
    site.expected = {1}
    assert site.wait() == 1 and "niceness=-3" in site.log() and "CAP_SYS_NICE" in site.log()


def test_a_bad_environment_file_is_an_error_with_its_line(work):
    path = work.write("environment", "A=b\nnonsense\n")
    site = work.forebay({**DEMO, "environment_file": path}, ready=False)
    site.expected = {1}
    assert site.wait() == 1 and f"{path}:2: this line is not KEY=VALUE" in site.log()


@needs_python
def test_a_worker_that_hangs_says_where_before_it_is_ended(work):
    folder = work.path("app")
    os.mkdir(folder)
    with open(os.path.join(folder, "hanging_app.py"), "w") as f:
        f.write("import time\ndef hangs_on_purpose():\n    time.sleep(3600)\ndef application(environ, start_response):\n"
                "    if environ['PATH_INFO'] == '/hang':\n        hangs_on_purpose()\n    start_response('200 OK', [])\n    return [b'here']\n")
    site = work.forebay({"app": "wsgi:hanging_app", "directory": folder, "processes": 1, "threads": 2, "timeout": "1s",
                         "environment": "PYTHONDONTWRITEBYTECODE=1"})
    old = site.wait_workers(1)
    assert site.ask("GET", "/hang").status == 504
    site.wait_log("in hangs_on_purpose")
    wait_for(lambda: site.workers() and site.workers() != old, "another worker")
    assert site.ask("GET", "/").body == b"here"
