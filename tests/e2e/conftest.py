"""End-to-end tests: a real forebay (the environment's FOREBAY, or the one in the build's top folder), real servers and raw
clients. FOREBAY_TEST_SCALE=0.1 makes counts a tenth, for sanitizers; FOREBAY_TEST_THREADS=4 gives fronts
four threads where the test does not say how many; FOREBAY_TEST_SEED=N repeats the random choices of a run that printed N."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import calm  # noqa: E402
import daemon  # noqa: E402
import load  # noqa: E402
import procs  # noqa: E402

procs.become_subreaper()
_works = []


def pytest_report_header():
    return f"forebay: {daemon.FOREBAY}, scale {daemon.SCALE}"


def pytest_sessionstart(session):
    if not os.access(daemon.FOREBAY, os.X_OK):
        pytest.exit(f"no forebay at {daemon.FOREBAY}: build it, or say where it is with FOREBAY=", returncode=2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.when in ("setup", "call"):
        for work in _works:
            for name, text in work.logs():
                report.sections.append((name, text))


def pytest_terminal_summary(terminalreporter):
    """What the tests have measured: a line for each."""
    rows, storms = [], []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            rows += [value for name, value in getattr(report, "user_properties", []) if name == "recovery"]
    for report in sum(terminalreporter.stats.values(), []):
        storms += [value for name, value in getattr(report, "user_properties", []) if name == "storm" and report.when == "teardown"]
    if storms:
        terminalreporter.section("a front's memory (PSS) before and after a storm, in kB")
        for name, before, after, band in sorted(row for row in storms if row[2] - row[1] > 1 << 20):
            terminalreporter.write_line(f"{name:68} {before // 1024:6} {after // 1024:6}   at most {(before + band) // 1024}")
    if not rows:
        return
    terminalreporter.section("recovery times, in ms")
    terminalreporter.write_line(f"{'':44} {'kills':>5} {'least':>7} {'median':>7} {'most':>7}   seed")
    for what, seed, times in sorted(rows):
        ms = sorted(1000 * t for t in times)
        terminalreporter.write_line(f"{what:44} {len(ms):5} {ms[0]:7.1f} {ms[len(ms) // 2]:7.1f} {ms[-1]:7.1f}   {seed}")


@pytest.fixture
def seed():
    """For what a test leaves to chance; printed when it fails."""
    value = load.new_seed()
    print(f"FOREBAY_TEST_SEED={value}")
    return value


@pytest.fixture
def recovery(record_property, seed):
    """recovery(what, [seconds, ...]) makes a line at the end of the run."""
    return lambda what, times: record_property("recovery", (what, seed, list(times)))


def _work():
    work = daemon.Work()
    _works.append(work)
    try:
        yield work
    finally:
        _works.remove(work)
        work.close()


@pytest.fixture
def work():
    """A test's own folder and processes."""
    yield from _work()


@pytest.fixture(scope="module")
def shared():
    """The same for a whole module."""
    yield from _work()


@pytest.fixture
def quiet(work, request, record_property):
    """quiet(site) before a storm; at the test's end the site must be as it was then, and end well."""
    watched = []

    def watch(site, **kw):
        watched.append(calm.Calm(site, **kw))
        return watched[-1]

    yield watch
    for one in watched:
        record_property("storm", (request.node.name, one.pss, one.check(), one.pss_more))
