"""What others write workers with: header, library and pkg-config file, as they are installed."""

import os
import re
import shutil
import subprocess

import pytest

from daemon import FOREBAY, TOP

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
    assert len(names) == 16
    assert symbols(find(kit, "libforebay-worker.a")[0], "-g", "--defined-only") == names


def test_nothing_of_the_front_is_in_the_library(kit):
    """Nor any library but the C library: what it lacks, libc has."""
    lacks = symbols(find(kit, "libforebay-worker.a")[0], "-u")
    assert not [name for name in lacks if re.match(r"event_|evutil|SSL_|nghttp2_|ini_|conf_|pool_|exchange_|body_|spool_", name)]
    has = symbols(find(kit, "libforebay-worker.a")[0])
    assert "worker_main" in has and "talk_serve" in has
    assert not [name for name in has if re.match(r"demo_|conf_|pool_|exchange_|spool_|http1_|client_|master_", name)]


def test_by_hand_it_says_what_it_is(kit):
    for args in ([], ["worker"], ["worker", "worker", "", "1", "0", "0"]):
        got = subprocess.run([os.path.join(kit, "lines"), *args], capture_output=True, text=True)
        assert got.returncode == 2 and "forebay" in got.stderr
