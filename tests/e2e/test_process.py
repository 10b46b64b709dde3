"""The processes: who starts, who replaces whom, how it ends, and that nothing stays."""

import os
import pwd
import re
import signal
import threading

import pytest

import procs
from backend import OK, polite
from client import Client, Cut, ask, message
from daemon import FRONT_USER, POOL_USER, ROOT, TOP, free_address, run
from procs import wait_for
from tools import pattern

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


@pytest.fixture
def demo(work):
    site = work.forebay({"app": "demo", "processes": 2, "threads": 2})
    wait_for(lambda: len(site.workers()) == 2, lambda: f"two workers:\n{site.log()}")
    return site


def held_backend(work):
    release = threading.Event()

    def hold(conn):
        conn.request()
        release.wait()
        conn.send(OK)

    backend = work.backend(hold)
    work.closers.append(release.set)
    return backend, release


def accepts(address):
    """True if a new connection is served or kept, not refused or closed."""
    try:
        with Client(address, timeout=0.2) as extra:
            return bool(extra.sock.recv(1))
    except (TimeoutError, OSError) as e:
        return isinstance(e, TimeoutError)


def dead(pid):
    wait_for(lambda: not procs.runs(pid), f"{pid} to end")


def test_there_are_a_master_a_front_and_workers(demo):
    assert demo.ask("GET", "/").status == 200
    front, workers = demo.front(), demo.workers()
    assert front and len(workers) == 2 and front not in workers
    assert len(demo.zygotes()) == 1
    assert sorted(procs.children(demo.pid)) == sorted([front] + demo.zygotes() + workers)  # and nothing else
    if ROOT:
        assert procs.owner(front) == pwd.getpwnam(FRONT_USER).pw_uid
        assert {procs.owner(w) for w in workers + demo.zygotes()} == {pwd.getpwnam(POOL_USER).pw_uid}
        assert procs.owner(demo.pid) == 0


def test_the_front_is_sandboxed(demo):
    with open(f"/proc/{demo.front()}/status") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0


@pytest.mark.skipif(not ROOT, reason="a master that is not root has no capabilities to give up")
def test_a_root_master_keeps_few_capabilities(demo):
    with open(f"/proc/{demo.pid}/status") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    names = {1: "DAC_OVERRIDE", 2: "DAC_READ_SEARCH", 5: "KILL", 6: "SETGID", 7: "SETUID", 10: "NET_BIND_SERVICE"}
    allowed = sum(1 << n for n in names if n != 1)
    assert int(status["CapEff"], 16) & ~allowed == 0, f"{int(status['CapEff'], 16):x}"


def test_a_killed_front_is_replaced_on_the_same_port_and_workers_stay(demo):
    workers = demo.workers()
    for _ in range(3):
        old = demo.front()
        procs.kill(old, KILL)
        dead(old)
        wait_for(lambda old=old: demo.front() not in (None, old), "a new front")
        for _ in range(5):
            assert demo.ask("GET", "/").status == 200
    assert demo.workers() == workers


def test_connections_made_while_there_is_no_front_are_served(work):
    """The master keeps the listeners: what connects in between waits in the kernel's queue."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 4})
    for _ in range(3):
        old = site.front()
        procs.kill(old, KILL)
        dead(old)
        assert ask(site.address, "GET", "/").status == 200


def test_a_front_that_stands_still_is_replaced(demo):
    """After half a minute of nothing: no other test waits for so long."""
    old = demo.front()
    procs.kill(old, signal.SIGSTOP)
    wait_for(lambda: demo.front() not in (None, old), "a new front", deadline=90)
    assert "has stood still for 30 s" in demo.log()
    assert demo.ask("GET", "/").status == 200


def test_a_killed_worker_is_replaced_and_the_others_serve(demo):
    for _ in range(3):
        before = demo.workers()
        procs.kill(before[0], KILL)
        dead(before[0])
        for _ in range(4):
            assert demo.ask("GET", "/").status == 200
        now = wait_for(lambda: len(demo.workers()) == 2 and demo.workers(), "a new worker")
        assert before[1] in now and before[0] not in now


def test_a_request_in_a_killed_worker_is_a_502_or_served_by_another(demo):
    """A POST was begun: it is lost, and its client is told."""
    with demo.connect() as c:
        c.send(message("POST", "/crash", body=b"x"))
        assert c.response().status == 502
    assert demo.ask("GET", "/").status == 200
    wait_for(lambda: len(demo.workers()) == 2, "a new worker")


def test_workers_that_keep_crashing_are_started_with_a_pause(demo):
    for _ in range(6):
        assert demo.ask("POST", "/crash", body=b"x").status in (502, 503)
    wait_for(lambda: demo.ask("GET", "/").status == 200, "service again")


def test_when_the_master_is_killed_everything_goes(demo):
    family = demo.family(4)  # with the zygote
    demo.expected = {-KILL}
    with demo.connect() as c:
        assert c.ask("GET", "/").status == 200
        procs.kill(demo.pid, KILL)
        demo.wait()
        for pid in family:
            dead(pid)
        assert c.ends()
    wait_for(lambda: not accepts(demo.address), "the port to be free")  # a process is seen to be dead before its last thread is


def test_sigterm_lets_what_is_in_work_end_and_takes_no_more(work):
    backend, release = held_backend(work)
    backend.next(polite)
    site = work.forebay({"socket": backend.name, "slots": 2})
    with site.connect() as c, site.connect() as idle, site.connect() as silent:
        assert idle.ask("GET", "/").keeps
        c.send(message("GET", "/"))
        backend.wait_seen(2)
        procs.kill(site.pid, TERM)
        assert idle.ends() == "eof"
        assert silent.ends()  # reset if nobody had accepted it yet
        wait_for(lambda: not accepts(site.address), "new connections to be refused")
        assert site.running()
        release.set()
        r = c.response()
        assert r.status == 200 and not r.keeps
        c.ends()
    assert site.wait() == 0


def test_sigterm_lets_a_slow_reader_have_its_answer(work):
    size = 4 << 20
    backend = work.backend(lambda conn: (conn.request(), conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
                                                                     + pattern(size))))
    site = work.forebay({"socket": backend.name, "slots": 1})
    with site.connect(rcvbuf=8192) as c:
        c.send(message("GET", "/"))
        head = c.head()
        procs.kill(site.pid, TERM)
        assert c.exactly(int(head.get("Content-Length"))) == pattern(size)
    assert site.wait() == 0


def test_sigterm_drains_own_workers_too(demo):
    with demo.connect() as c:
        c.send(message("GET", "/sleep?ms=500"))
        threading.Event().wait(0.1)  # decides nothing: if it has not begun by now it is in the queue, and must be served just the same
        procs.kill(demo.pid, TERM)
        assert c.response().status == 200
    assert demo.wait() == 0


@pytest.mark.parametrize("signals", [(TERM, TERM), (INT, INT), (INT, TERM)], ids=["term-term", "int-int", "int-term"])
def test_a_second_signal_ends_it_now(work, signals):
    backend, _ = held_backend(work)
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"drain_timeout": "1h"})
    site.expected = {0, 1}
    with site.connect() as c:
        c.send(message("GET", "/"))
        backend.wait_seen(1)
        procs.kill(site.pid, signals[0])
        site.wait_log("event=draining")
        procs.kill(site.pid, signals[1])
        site.wait()
        with pytest.raises((Cut, OSError)):
            c.response()


def test_drain_timeout_ends_what_does_not_end(work):
    backend, _ = held_backend(work)
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"drain_timeout": "300ms"})
    with site.connect() as c:
        c.send(message("GET", "/"))
        backend.wait_seen(1)
        assert site.stop() == 0
        try:
            assert c.response().status == 503
        except (Cut, OSError):
            pass


@pytest.mark.parametrize("raw", [b"GET / HT", message("POST", "/", body=b"x" * 1000)[:-1]], ids=["head", "body"])
def test_drain_timeout_ends_what_is_still_on_its_way_to_us(work, raw):
    """Their refusals come when nothing is there any more to deliver them (seen by AddressSanitizer)."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"drain_timeout": "300ms"})
    clients = [site.connect() for _ in range(8)]
    for c in clients:
        c.send(raw)
    procs.kill(site.pid, TERM)
    for c in clients:
        try:
            assert c.response().status in (408, 503)
        except (Cut, OSError):
            pass
        c.close()
    assert site.wait() == 0


def test_a_front_that_dies_while_it_drains_is_the_last(work):
    """There is nothing left to drain, and no listener for another front: the daemon ends long before drain_timeout."""
    backend, _ = held_backend(work)
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"drain_timeout": "10m"})
    with site.connect() as c:
        c.send(message("GET", "/"))
        backend.wait_seen(1)
        front = site.front()
        procs.kill(site.pid, TERM)
        site.wait_log("event=draining")
        procs.kill(front, signal.SIGKILL)
        site.expected = {0, 1}
        assert site.wait() in (0, 1)


def test_sigint_ends_it_in_the_foreground(demo):
    family = procs.descendants(demo.pid)
    assert demo.stop(INT) == 0
    for pid in family:
        dead(pid)


def test_nothing_is_left_behind(work):
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    site = work.forebay({"app": "demo", "processes": 2, "threads": 2}, forebay={"pid_file": work.path("pid")})
    wait_for(lambda: os.path.exists(work.path("pid")), "the pid file")
    with open(work.path("pid")) as f:
        assert int(f.read()) == site.pid
    assert site.ask("POST", "/upload", body=b"x" * 3_000_000).status == 200
    family = procs.descendants(site.pid)
    assert site.stop() == 0
    assert not [pid for pid in family if procs.runs(pid)]
    assert os.listdir(work.spool) == [] and not os.path.exists(work.path("pid"))
    assert not [n for n in (set(os.listdir("/dev/shm")) - before if before else ()) if "forebay" in n]


def test_descriptors_do_not_grow(demo):
    def rounds(n):
        for i in range(n):
            with demo.connect() as c:
                assert c.ask("POST", "/upload", body=b"x" * 200_000).status == 200
                if i % 3 == 0:
                    c.send(message("POST", "/upload", body=b"x" * 200_000)[:-5])
            if i % 5 == 0:
                demo.ask("GET", "/big?bytes=300000")

    pids = [demo.pid, demo.front()] + demo.workers()
    rounds(20)
    first = [procs.descriptors(p) for p in pids]
    rounds(60)
    wait_for(lambda: all(procs.descriptors(p) <= n + 8 for p, n in zip(pids, first)),
             lambda: f"descriptors: {first}, now {[procs.descriptors(p) for p in pids]}")


def test_workers_get_no_descriptor_of_the_front(demo):
    for worker in demo.workers():
        targets = [os.readlink(f"/proc/{worker}/fd/{fd}") for fd in os.listdir(f"/proc/{worker}/fd")]
        assert not [t for t in targets if "spool" in t or "access" in t], targets


def test_nobody_inherits_the_environment(work):
    os.environ["FOREBAY_TEST_SECRET"] = "s3cret"
    try:
        site = work.forebay({"app": "demo", "processes": 1, "environment": ["SAID=yes"]})
    finally:
        del os.environ["FOREBAY_TEST_SECRET"]
    worker = wait_for(site.workers, "a worker")[0]
    for pid in (site.front(), worker):
        with open(f"/proc/{pid}/environ", "rb") as f:
            assert b"s3cret" not in f.read()
    with open(f"/proc/{worker}/environ", "rb") as f:
        assert b"SAID=yes" in f.read()


def test_workers_are_renewed_after_max_requests(work):
    site = work.forebay({"app": "demo", "processes": 1, "threads": 1, "max_requests": 5})
    first = wait_for(site.workers, "a worker")[0]
    for _ in range(40):
        assert site.ask("POST", "/echo", body=b"x").status == 200  # none is lost by it
    assert site.workers() != [first]


STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (master|front): (info|warning|error|debug): ")


def test_a_log_file_has_the_time_of_each_line(work):
    path = work.path("log")
    site = work.forebay({"app": "demo", "processes": 1}, forebay={"log": path, "log_level": "debug"}, listen={"connections_per_address": 1})

    def lines():
        with open(path) as f:
            return f.read().splitlines()

    def front_spoke():
        with site.connect(), site.connect():
            return [line for line in lines() if "connections_per_address" in line]

    wait_for(front_spoke, lambda: f"a refused connection in {lines()}")
    assert site.stop() == 0
    assert {line.split()[1] for line in lines()} == {"master:", "front:"}
    assert [line for line in lines() if not STAMPED.match(line)] == []


def test_the_journal_has_times_of_its_own(work):
    site = work.forebay({"app": "demo", "processes": 1}, env=dict(os.environ, JOURNAL_STREAM="1:2"))
    assert site.stop() == 0
    assert "master: info: " in site.log() and "Z master: " not in site.log()


# The command line


def test_an_address_in_use_is_a_clear_error(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1})
    second = work.forebay({"socket": backend.name, "slots": 1}, address=site.address, name="second", ready=False)
    second.expected = {1}
    assert second.wait() == 1
    assert "%s:%d" % site.address in second.log() and "in use" in second.log().lower()
    assert site.ask("GET", "/").status == 200


def test_t_says_that_a_configuration_is_good(work):
    path, _ = work.config({"socket": work.path("x.sock"), "slots": 1})
    r = run("-t", "-c", path)
    assert r.returncode == 0, r.stderr


@pytest.mark.skipif(not ROOT, reason="only root sees what a daemon would")
@pytest.mark.parametrize("pool,words", [
    ({"user": "no-such-user"}, "no-such-user"),
    ({"group": "no-such-group"}, "no-such-group"),
    ({"directory": "/nowhere/at/all"}, "/nowhere/at/all"),
    ({"environment_file": "/nowhere/at/all"}, "/nowhere/at/all"),
    ({"app": "worker:/nowhere/program"}, "/nowhere/program")])
def test_t_looks_for_what_pools_need(work, pool, words):
    good = {"app": "demo", "user": "daemon"}
    path, _ = work.config(good, name="good")
    r = run("-t", "-c", path)
    assert r.returncode == 0 and r.stderr == "" and "is fine" in r.stdout
    path, _ = work.config({**good, **pool})
    r = run("-t", "-c", path)
    assert r.returncode == 1 and words in r.stderr and r.stdout == ""


BROKEN = """\
[forebay]
thread = 2
memory_limit = 12parsecs
spool_dir = relative/path

[listen main]
address = nonsense
head_timeout = 1ms

[pool app]
socket = /run/x.sock

[pol other]
slots = 3

[route *]
pool = nobody
"""


def test_t_tells_all_errors_with_their_lines(work):
    path = work.write("broken.ini", BROKEN)
    r = run("-t", "-c", path)
    assert r.returncode == 1
    for line, word in ((2, "thread"), (3, "memory_limit"), (7, "address"), (8, "head_timeout"), (13, "pol"), (17, "nobody")):
        assert re.search(rf"{re.escape(path)}:{line}: .*{word}", r.stderr), f"line {line}:\n{r.stderr}"
    assert "did you mean" in r.stderr and "slots" in r.stderr
    r = run("-c", path)
    assert r.returncode == 1 and "memory_limit" in r.stderr


def test_a_file_that_is_not_there_is_a_clear_error(work):
    r = run("-c", work.path("nowhere.ini"))
    assert r.returncode == 1 and "nowhere.ini" in r.stderr and "No such file" in r.stderr


def test_options_lists_every_option(work):
    r = run("--options")
    assert r.returncode == 0
    for name in ("memory_limit", "head_timeout", "queue_timeout", "replay_unread", "body_limit", "hold", "drain_timeout", "processes"):
        assert re.search(rf"\b{name}\b", r.stdout), name


def test_help_and_version_go_to_stdout():
    r = run("--help")
    assert r.returncode == 0 and "-c" in r.stdout and "run" in r.stdout and not r.stderr
    r = run("--version")
    assert r.returncode == 0 and re.match(r"forebay \d+\.\d+", r.stdout) and not r.stderr


@pytest.mark.parametrize("args", [["--nonsense"], ["-c"], ["run"], ["run", "nonsense"], ["run", "demo", "--listen"], ["run", "demo", "--processes", "x"],
                                  ["nonsense"]], ids=" ".join)
def test_a_wrong_command_line_is_refused(args):
    r = run(*args)
    assert r.returncode in (1, 2) and r.stderr and not r.stdout


def test_run_demo_answers_and_says_where(work):
    address = free_address()
    site = work.forebay_run(["run", "demo", "--listen", "%s:%d" % address, "--processes", "3", "--threads", "2"], address)
    assert ask(address, "GET", "/").status == 200
    site.wait_log("%s:%d" % address)
    assert len(wait_for(lambda: len(site.workers()) == 3 and site.workers(), "three workers")) == 3
    assert site.stop(INT) == 0


def test_the_demo_configuration_works_as_it_is(work):
    address = free_address()
    with open(os.path.join(TOP, "conf", "demo.ini")) as f:
        text = f.read().replace("127.0.0.1:8000", "%s:%d" % address)
    text = text.replace("[forebay]\n", f"[forebay]\nspool_dir = {work.spool}\n")
    site = work.forebay_run(["-c", work.write("demo.ini", text)], address)
    assert site.ask("GET", "/").status == 200
    if ROOT:  # it chooses users, and says whom
        workers = wait_for(site.workers, "workers")
        front = procs.owner(site.front())
        assert front != 0 and not {0, front} & {procs.owner(w) for w in workers}
        assert "its workers run as" in site.log() and "the front runs as" in site.log()


@pytest.mark.skipif(not ROOT, reason="only root can choose users")
def test_the_front_and_the_workers_are_different_users(work):
    site = work.forebay({"app": "demo", "user": FRONT_USER}, ready=False)
    site.expected = {1}
    assert site.wait() == 1 and "is the front's user" in site.log()


def test_run_socket_serves_others_workers(work):
    backend = work.backend()
    address = free_address()
    work.forebay_run(["run", "socket:" + backend.name, "--listen", "%s:%d" % address], address)
    assert ask(address, "GET", "/").body == b"ok"


def test_a_unix_socket_listener_works_and_is_taken_away(work):
    backend = work.backend()
    path = work.path("front.sock")
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"address": "unix:" + path}, address=None, ready=False)
    wait_for(lambda: os.path.exists(path) and site.front(), lambda: f"the socket:\n{site.log()}")
    assert ask(path, "GET", "/").body == b"ok"
    assert site.stop() == 0 and not os.path.exists(path)


def test_more_than_one_address(work):
    backend = work.backend()
    other = free_address()
    address = free_address()
    site = work.forebay({"socket": backend.name, "slots": 1}, address=address,
                        listen={"address": ["%s:%d" % address, "%s:%d" % other]})
    assert ask(site.address, "GET", "/").status == ask(other, "GET", "/").status == 200


def test_many_threads_share_the_load(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 8}, forebay={"threads": 4})
    clients = [site.connect() for _ in range(64)]
    for c in clients:
        c.send(message("GET", "/"))
    assert [c.response().status for c in clients] == [200] * 64
    for c in clients:
        c.close()
