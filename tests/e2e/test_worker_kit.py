"""What others write workers with: header, library and pkg-config file, as they are installed."""

import os
import pwd
import re
import shutil
import signal
import subprocess

import pytest

import procs
from daemon import FOREBAY, FRONT_USER, POOL_USER, ROOT, TOP, free_address
from procs import wait_for

BUILD = os.path.dirname(FOREBAY)
CHECK = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]


@pytest.fixture
def kit(work):
    """A folder with an installed kit in it, and the example as `lines`."""
    root = work.path("kit")
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    made = subprocess.run(["make", "-C", BUILD, "kit-example", f"KIT_ROOT={root}"], env=env, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return root


def find(folder, name):
    return [os.path.join(path, name) for path, _, files in os.walk(folder) if name in files]


def symbols(library, *flags):
    out = subprocess.run(["nm", *flags, library], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in out.splitlines() if line and not line.endswith(":")}


def declared():
    with open(os.path.join(TOP, "include/forebay/worker.h")) as f:
        return set(re.findall(r"^[a-z][^()=*/]*?\*?(forebay_\w+)\($|^[a-z][^()=/]*?(forebay_\w+)\(", f.read(), re.M)) - {""}


def test_what_is_installed_is_enough(kit):
    for name in ("worker.h", "libforebay-worker.a", "forebay-worker.pc"):
        assert len(find(kit, name)) == 1, name
    assert os.access(os.path.join(kit, "lines"), os.X_OK)


@pytest.mark.parametrize("compilers,language,standard", [
    (("gcc", "clang"), "c", "c11"), (("gcc", "clang"), "c", "gnu17"), (("g++", "clang++"), "c++", "c++11"),
    (("g++", "clang++"), "c++", "c++20")])
def test_the_header_stands_alone(kit, work, compilers, language, standard):
    source = work.write("alone.c", "#include <forebay/worker.h>\n#include <forebay/worker.h>\n")
    include = os.path.dirname(os.path.dirname(find(kit, "worker.h")[0]))
    there = [c for c in compilers if shutil.which(c)]
    if not there:
        pytest.skip("no compiler for it")
    for compiler in there:
        got = subprocess.run([compiler, "-x", language, f"-std={standard}", *CHECK, "-I", include, source],
                             capture_output=True, text=True)
        assert got.returncode == 0, got.stderr


def test_the_library_shows_what_the_header_declares_and_nothing_else(kit):
    names = {a or b for a, b in declared()}
    assert len(names) == 18
    assert symbols(find(kit, "libforebay-worker.a")[0], "-g", "--defined-only") == names


def test_nothing_of_the_front_is_in_the_library(kit):
    """Nor any library but the C library: what it lacks, libc has."""
    lacks = symbols(find(kit, "libforebay-worker.a")[0], "-u")
    assert not [name for name in lacks if re.match(r"event_|evutil|SSL_|nghttp2_|ini_|conf_|pool_|exchange_|body_|spool_", name)]
    has = symbols(find(kit, "libforebay-worker.a")[0])
    assert "worker_main" in has and "talk_serve" in has
    assert not [name for name in has if re.match(r"demo_|conf_|pool_|exchange_|spool_|http1_|client_|master_", name)]


# What serves


@pytest.fixture
def lines(kit, work):
    os.chmod(kit, 0o755)
    return work.forebay({"app": f"worker:{kit}/lines", "processes": 2, "threads": 2})


def test_a_request_gets_to_the_program_and_its_answer_to_the_client(lines):
    got = lines.ask("GET", "/a%20b?c=d", [("X-It", "yes")])
    assert got.status == 200 and got.get("Content-Type") == "text/plain; charset=utf-8"
    variables = dict(line.split(b"=", 1) for line in got.body.splitlines())
    assert variables[b"PATH_INFO"] == b"/a b" and variables[b"QUERY_STRING"] == b"c=d" and variables[b"HTTP_X_IT"] == b"yes"


@pytest.mark.parametrize("count", [0, 1, 1000, 300_000])  # the last goes by descriptor
def test_a_body_is_all_there(lines, count):
    assert lines.ask("POST", "/", body=b"line\n" * count).body == b"%d lines\n" % count


def test_it_runs_as_the_pool_says_and_nothing_of_forebay_is_in_it(lines, kit):
    workers = wait_for(lambda: len(lines.workers()) == 2 and lines.workers(), "two workers")
    assert {os.readlink(f"/proc/{pid}/exe") for pid in workers} == {os.path.realpath(f"{kit}/lines")}
    if ROOT:
        assert {procs.owner(pid) for pid in workers} == {pwd.getpwnam(POOL_USER).pw_uid}


def test_a_worker_that_was_killed_is_replaced(lines):
    workers = wait_for(lambda: len(lines.workers()) == 2 and lines.workers(), "two workers")
    for pid in workers:
        procs.kill(pid, signal.SIGKILL)
    assert lines.ask("POST", "/", body=b"a\nb\n").body == b"2 lines\n"


def host(work, kit, target="", **options):
    os.chmod(kit, 0o755)
    return work.forebay({"app": f"worker:{kit}/host {target}".strip(), "processes": 1, "threads": 1, **options})


def test_a_host_is_loaded_once_and_forked(work, kit):
    got = host(work, kit, "site.lua  x").ask("GET", "/").body.decode().splitlines()
    assert got == ["load target=site.lua  x processes=1 threads=1 debug=0", "freeze", "before_fork", "after_fork child",
                   "prepare_thread", "forked"]


def test_a_host_is_loaded_in_each_worker_without_preload(work, kit):
    got = host(work, kit, preload="off").ask("GET", "/").body.decode().splitlines()
    assert got == ["load target= processes=1 threads=1 debug=0", "prepare_thread", "here"]


def test_what_a_host_says_a_fork_would_lose_is_told_and_not_forked(work, kit):
    site = host(work, kit, "threads")
    assert site.ask("GET", "/").body.endswith(b"\nhere\n")
    assert "a thread of its own" in site.log()


def test_a_response_can_begin_anew(work, kit):
    got = host(work, kit).ask("GET", "/?anew")
    assert got.status == 202 and b"first thought" not in got.body


@pytest.mark.parametrize("when,status", [("before", 200), ("behind", 502)])
def test_a_request_has_begun_when_the_host_says_so(work, kit, when, status):
    """A POST in a worker that dies: another one gets it if it had not begun."""
    mark = work.write("mark", "")
    os.chmod(os.path.dirname(mark), 0o777)  # the worker takes it away
    site = host(work, kit, processes=2)
    assert site.ask("POST", "/" + when, [("X-Mark", mark)], b"").status == status
    assert not os.path.exists(mark)


def test_run_serves_a_program_by_a_path_that_begins_here(work, kit):
    os.chmod(kit, 0o755)
    address = free_address()
    site = work.forebay_run(["run", "worker:./host a b", "--bind", "%s:%d" % address], address, cwd=kit)
    assert site.ask("GET", "/").body.startswith(b"load target=a b processes=1 threads=4 debug=1\n")


def test_run_ends_where_a_host_cannot_load(work, kit):
    os.chmod(kit, 0o755)
    address = free_address()
    site = work.forebay_run(["run", "worker:./host fail", "--bind", "%s:%d" % address], address, cwd=kit, ready=False)
    site.expected = {1}
    assert site.wait() == 1 and "could not be loaded" in site.log()


def test_a_program_that_is_not_there_is_said_at_the_start(work):
    site = work.forebay({"app": "worker:/nowhere/lines"}, ready=False)
    site.expected = {1}
    assert site.wait() == 1 and "/nowhere/lines" in site.log()


@pytest.mark.skipif(not ROOT, reason="only root can choose users")
@pytest.mark.parametrize("user,words", [(None, "forebay was started by root: say which user"), (FRONT_USER, "is the front's user"),
                                        ("no-such-user", "there is no such user")])
def test_under_a_root_master_it_needs_a_user_of_its_own(work, user, words):
    site = work.forebay({"app": "worker:/bin/true", "user": user}, ready=False)
    site.expected = {1}
    assert site.wait() == 1 and words in site.log()


def test_by_hand_it_says_what_it_is(kit):
    for args in ([], ["worker"], ["worker", "worker", "", "1", "0", "0"]):
        got = subprocess.run([os.path.join(kit, "lines"), *args], capture_output=True, text=True)
        assert got.returncode == 2 and "forebay" in got.stderr
