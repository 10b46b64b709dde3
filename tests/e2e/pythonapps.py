"""Python applications on forebay's own workers: where they are, and a forebay that runs one."""

import importlib.util
import os

import pytest

import daemon

APPS = os.path.join(daemon.HERE, "apps")
WORKER = os.path.join(os.environ.get("FOREBAY_LIBEXEC") or os.path.dirname(daemon.FOREBAY), "forebay-wsgi")

needs_python = pytest.mark.skipif(not os.access(WORKER, os.X_OK), reason="forebay was built without Python: there is no forebay-wsgi")


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"Debian's package of {module} is not there")


def serve(work, target, processes=1, threads=1, route=None, environment=(), more_pool=None, **kw):
    """A forebay with this application. FOREBAY_TEST_FOLDER in its environment is a folder that it may write to."""
    folder = work.path("folder")
    if not os.path.exists(folder):
        os.mkdir(folder)
        os.chmod(folder, 0o777)
    pool = {"app": "wsgi:" + target, "directory": APPS, "processes": processes, "threads": threads,
            "environment": [f"FOREBAY_TEST_FOLDER={folder}", "PYTHONDONTWRITEBYTECODE=1", *environment], **(more_pool or {})}
    site = work.forebay(pool, route=route, **kw)
    site.folder = folder
    site.notes = lambda: notes(folder)
    return site


def notes(folder):
    try:
        with open(os.path.join(folder, "notes")) as f:
            return f.read().split("\n")[:-1]
    except FileNotFoundError:
        return []
