"""The benchmarks run: each row in small, with forebay alone. No figure is judged here."""

import json
import os
import shutil
import signal
import subprocess
import xml.etree.ElementTree

import pytest

import procs
from daemon import FOREBAY, PYTHON, TOP
from procs import wait_for

BENCH = os.path.join(TOP, "tests", "bench", "bench.py")
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


def test_every_row_runs_and_is_written_down(bench, work):
    path = work.path("bench.json")
    popen = bench("--check", "--json", path)
    out, err = popen.communicate()
    assert popen.returncode == 0, err
    with open(path) as f:
        result = json.load(f)
    names = listed(bench)
    assert len(names) > 10 and list(result["rows"]) == names
    for name in names:
        assert f"{name}: works" in out
        figures = result["rows"][name]["rounds"]["forebay"][0]
        assert set(result["rows"][name]["units"]) <= set(figures)


@pytest.mark.skipif(not shutil.which("gnuplot"), reason="no gnuplot here")
def test_the_chart_has_a_bar_for_each_comparison(bench, work):
    row = {"title": "", "units": {"CPU": "ms"}, "charted": {"CPU": "one row"},
           "rounds": {"forebay": [{"CPU": 1.0}, {"CPU": 3.0}, {"CPU": 1.0}], "nginx": [{"CPU": 4.0}],
                      "haproxy": [{"CPU": None}]}}
    path = work.write("bench.json", json.dumps({"versions": {"forebay": "1", "nginx": "2"}, "rows": {"one": row}}))
    popen = bench("--json", path, "--chart", work.path("bench.svg"))
    _, err = popen.communicate()
    assert popen.returncode == 0, err
    texts = list(xml.etree.ElementTree.parse(work.path("bench.svg")).getroot().itertext())
    assert "one row" in texts and "forebay ÷ nginx" in texts and "0.25" in texts, texts
    assert not any("haproxy" in text for text in texts), "nothing was measured of it"


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
