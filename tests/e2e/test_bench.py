"""The benchmarks run: each row in small, with forebay and no other proxy. No figure is judged here."""

import json
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree

import pytest

import procs
from daemon import FOREBAY, PYTHON, TOP
from procs import wait_for

BENCH = os.path.join(TOP, "tests", "bench", "bench.py")
sys.path.insert(0, os.path.dirname(BENCH))

import measure  # noqa: E402

PROGRAMS = os.environ.get("FOREBAY_BENCH") or os.path.join(os.path.dirname(FOREBAY), "tests", "bench")


@pytest.fixture
def bench(work):
    """Starts bench.py with these arguments; what it leaves behind is found at the end of the test."""
    if not os.path.exists(os.path.join(PROGRAMS, "load")):
        pytest.skip(f"no {PROGRAMS}/load: make check builds it")
    started = []

    def start(*args, forebay=FOREBAY):
        popen = subprocess.Popen([PYTHON, BENCH, "--programs", PROGRAMS, *args], stdin=subprocess.DEVNULL, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "FOREBAY": forebay})
        started.append(popen)
        return popen

    yield start
    for popen in started:
        if popen.poll() is None:
            popen.kill()
        popen.communicate()


def listed(bench):
    out, _ = bench("--rows", "list").communicate()
    return [line.split()[0] for line in out.splitlines()]


def has_wsgi():
    """Is the worker program there that the rows with whole stacks need?"""
    return os.path.exists(os.path.join(os.environ.get("FOREBAY_LIBEXEC") or os.path.dirname(FOREBAY), "forebay-wsgi"))


def test_every_row_runs_and_is_written_down(bench, work):
    path = work.path("bench.json")
    popen = bench("--check", "--json", path)
    out, err = popen.communicate()
    assert popen.returncode == 0, err
    with open(path) as f:
        result = json.load(f)
    names = listed(bench)
    left_out = [] if has_wsgi() else [name for name in names if name.startswith("stack-")]
    assert result["left out"] == left_out
    assert len(names) > 17 and list(result["rows"]) == [name for name in names if name not in left_out]
    for name, row in result["rows"].items():
        assert f"{name}: works" in out
        contenders = ["forebay 4 × 1", "forebay 2 × 4"] if name.startswith("stack-") else ["forebay"]
        contenders += ["floor"] if name in ("get-kept", "get-browser", "post-16k") else []
        assert list(row["rounds"]) == contenders
        for contender in contenders:
            assert set(row["units"]) <= set(row["rounds"][contender][0])


@pytest.mark.skipif(not shutil.which("gnuplot"), reason="no gnuplot here")
def test_the_chart_has_a_bar_for_each_comparison(bench, work):
    row = {"title": "", "units": {"CPU": "ms"}, "charted": {"CPU": "one row"},
           "rounds": {"forebay": [{"CPU": 1.0}, {"CPU": 3.0}, {"CPU": 0.5}], "nginx": [{"CPU": 4.0}, {"CPU": 6.0}, {"CPU": 2.0}],
                      "haproxy": [{"CPU": None}] * 3}}
    path = work.write("bench.json", json.dumps({"versions": {"forebay": "1", "nginx": "2"}, "rows": {"one": row}}))
    popen = bench("--json", path, "--chart", work.path("bench.svg"))
    _, err = popen.communicate()
    assert popen.returncode == 0, err
    texts = list(xml.etree.ElementTree.parse(work.path("bench.svg")).getroot().itertext())
    assert "one row" in texts and "forebay ÷ nginx" in texts and "0.25" in texts, texts
    assert not any("haproxy" in text for text in texts), "nothing was measured of it"


@pytest.mark.skipif(not shutil.which("gnuplot"), reason="no gnuplot here")
def test_whole_stacks_have_a_chart_where_a_rate_twice_as_high_is_half_the_cost(bench, work):
    row = {"title": "a row", "units": {"rate": "/s", "PSS": "MB"}, "charted": {"rate": "speed", "PSS": "memory"}, "rates": ["rate"],
           "rounds": {"forebay 4 × 1": [{"rate": 500, "PSS": 30}], "nginx+uWSGI 4 × 1": [{"rate": 200, "PSS": 40}],
                      "mod_wsgi 4 × 1": [{"rate": 0, "PSS": 50}]}}
    path = work.write("bench.json", json.dumps({"versions": {"forebay": "1", "uWSGI": "2", "Django": "3"}, "rows": {"one": row}}))
    popen = bench("--json", path, "--table", "--chart", work.path("bench.svg"))
    out, err = popen.communicate()
    assert popen.returncode == 0, err
    texts = list(xml.etree.ElementTree.parse(work.path("bench.svg")).getroot().itertext())
    assert {"speed", "forebay ÷ nginx+uWSGI 4 × 1", "forebay ÷ mod_wsgi 4 × 1"} <= set(texts), texts
    assert sorted(text for text in texts if text in ("0.40", "0.75", "0.60", "2.50", "0.00")) == ["0.40", "0.60", "0.75"], texts
    assert "| a row: PSS, MB | 30.0 | 40.0 | 50.0 |" in out


def test_a_row_that_does_not_exist_is_told(bench):
    popen = bench("--check", "--rows", "get-kept,nonsense")
    _, err = popen.communicate()
    assert popen.returncode != 0 and "no row nonsense" in err and "get-kept" in err


def test_a_proxy_that_does_not_start_is_told(bench, work):
    broken = work.write("broken", "#!/bin/sh\necho no luck today >&2\nexit 3\n")
    os.chmod(broken, 0o755)
    popen = bench("--check", "--rows", "get-kept", forebay=broken)
    _, err = popen.communicate()
    assert popen.returncode != 0 and "get-kept, forebay" in err and "no luck today" in err


def test_a_program_that_is_not_built_for_speed_is_refused(bench, work):
    """What it is told by: names that only such builds have, or that only others have."""
    for name, content, why in (("asan", b"\0__asan_init\0__printf_chk\0", "sanitizers"),
                               ("plain", b"\0printf\0", "without optimization")):
        with open(work.path(name), "wb") as f:
            f.write(content)
        popen = bench("--rows", "get-kept", forebay=work.path(name))
        _, err = popen.communicate()
        assert popen.returncode != 0 and why in err, err


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_bench_that_is_stopped_takes_all_with_it(bench, sig):
    popen = bench("--check", "--rows", "slow")
    started = []

    def running():
        started[:] = procs.descendants(popen.pid)
        lines = [procs.cmdline(pid) for pid in started]
        return any(" crawl " in line for line in lines) and any(line.startswith(FOREBAY) for line in lines)

    wait_for(running, "the bench to run")
    procs.kill(popen.pid, sig)
    _, err = popen.communicate()
    assert popen.returncode == 128 + sig, err
    assert not [procs.cmdline(pid) for pid in started if procs.runs(pid)]


SPENDER = """
import resource, subprocess, sys, threading, time
def spend():
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        pass
if len(sys.argv) > 1:
    spend()
    sys.exit()
for _ in range(2):
    subprocess.run([sys.executable, "-c", sys.orig_argv[2], "child"])
thread = threading.Thread(target=spend)
thread.start()
thread.join()
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(u.ru_utime + u.ru_stime for u in used), flush=True)
sys.stdin.read()
"""


def test_time_of_children_and_threads_that_have_ended_is_counted():
    with subprocess.Popen([PYTHON, "-c", SPENDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        used = float(popen.stdout.readline())
        found = measure.tree_cpu_ns(popen.pid) / 1e9
        popen.stdin.close()
    assert used > 0.3
    ticks = 4 * measure.TICK_NS / 1e9  # children's are cut to these, what the process did after it told is less
    assert abs(found - used) < ticks, (found, used)
