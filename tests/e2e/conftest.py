"""End-to-end tests: a real forebay (the environment's FOREBAY, or the one in the build's top folder), real servers and raw
clients. FOREBAY_TEST_SCALE=0.1 makes counts a tenth, for sanitizers; FOREBAY_TEST_THREADS=4 gives fronts
four threads where the test does not say how many."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import daemon  # noqa: E402
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
