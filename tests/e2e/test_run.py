"""forebay run: applications without a configuration, for whoever develops them."""

import os
import pty
import re
import select
import sys

import pytest

import procs
from daemon import FOREBAY, PYTHON, ROOT, free_address
from procs import wait_for

wsgi = pytest.mark.skipif(not os.path.exists(os.path.join(os.path.dirname(FOREBAY), "forebay-wsgi")), reason="built without Python")

SITE = """import os

WORD = "first"


def application(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("on <purpose>")
    if environ["PATH_INFO"] == "/print":
        print("said\\tby the application")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [WORD.encode(), b" ", os.environ.get("FROM_THE_SHELL", "-").encode()]
"""
# Puts a descriptor in the place of standard error, and becomes what follows.
ON_TERMINAL = [PYTHON, "-c", "import os, sys; os.dup2(int(sys.argv[1]), 2); os.execv(sys.argv[2], sys.argv[2:])"]


class Folder:
    """Where the application is, and what changes there."""

    def __init__(self, work):
        self.path = work.path("site")
        os.mkdir(self.path)
        os.chmod(self.path, 0o755)

    def write(self, name, text):
        """As editors save: the whole file under its name at once."""
        path = os.path.join(self.path, name)
        with open(path + "~", "w") as f:
            f.write(text)
        os.rename(path + "~", path)


@pytest.fixture
def folder(work):
    made = Folder(work)
    made.write("site_app.py", SITE)
    return made


def run(work, target, *args, **kw):
    address = free_address()
    return work.forebay_run(["run", target, "--bind", "%s:%d" % address, *args], address, **kw)


@wsgi
def test_a_module_is_served_from_the_folder_where_one_is(work, folder):
    site = run(work, "wsgi:site_app", "--processes", "2", "--threads", "3", cwd=folder.path)
    assert site.ask("GET", "/").body == b"first -"
    site.wait_log("with 2 worker processes of 3 threads: 6 requests at a time")
    site.wait_log(f"from {folder.path}\n")
    if ROOT:
        workers = wait_for(site.workers, "workers")
        assert not {0, procs.owner(site.front())} & {procs.owner(pid) for pid in workers}


@wsgi
def test_a_module_is_served_from_a_folder_that_is_named(work, folder):
    site = run(work, "wsgi:site_app:application", "--directory", folder.path)
    assert site.ask("GET", "/").body == b"first -"


@wsgi
def test_the_shells_environment_is_the_applications(work, folder):
    site = run(work, "wsgi:site_app", cwd=folder.path, env={**os.environ, "FROM_THE_SHELL": "a b=c"})
    assert site.ask("GET", "/").body == b"first a b=c"


@wsgi
def test_what_the_application_prints_stands_as_it_is(work, folder):
    site = run(work, "wsgi:site_app", cwd=folder.path)
    assert site.ask("GET", "/print").status == 200
    site.wait_log("\nsaid\tby the application\n")


@wsgi
def test_an_error_is_shown_to_whoever_asks_and_in_the_log(work, folder):
    site = run(work, "wsgi:site_app", cwd=folder.path)
    r = site.ask("GET", "/fail")
    assert r.status == 500 and b"Traceback" in r.body and b"on &lt;purpose&gt;" in r.body and b"on <purpose>" not in r.body
    site.wait_log('    raise ValueError("on <purpose>")\n')


@wsgi
@pytest.mark.parametrize("text,words", [
    ("import no_such_module\n", ["    import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'\n"]),
    ("application = (\n", ["    application = (\n", "SyntaxError: '(' was never closed\n"]),
    ("", ["site_app"])])  # no application in it
def test_an_import_error_at_the_start_is_shown_whole_and_ends_it(work, folder, text, words):
    folder.write("site_app.py", text)
    site = run(work, "wsgi:site_app", cwd=folder.path, ready=False)
    site.expected = {1}
    assert site.wait() == 1
    for word in words:
        assert word in site.log()
    assert f"could not be loaded: wsgi:site_app, in the folder {folder.path}\n" in site.log() and "ENOEXEC" not in site.log()


@wsgi
def test_new_workers_take_over_when_source_changes(work, folder):
    site = run(work, "wsgi:site_app", "--reload", cwd=folder.path)
    assert site.ask("GET", "/").body == b"first -"
    folder.write("site_app.py", SITE.replace("first", "second"))
    site.wait_log('event=reload file="site_app.py"')
    site.wait_log("rolling restart done")
    assert site.ask("GET", "/").body == b"second -"


@wsgi
def test_what_is_broken_does_not_take_over_and_is_shown(work, folder):
    site = run(work, "wsgi:site_app", "--reload", cwd=folder.path)
    assert site.ask("GET", "/").body == b"first -"
    folder.write("site_app.py", "import no_such_module\n")
    site.wait_log("rolling restart failed")
    assert "    import no_such_module\n" in site.log() and "ModuleNotFoundError" in site.log()
    assert site.ask("GET", "/").body == b"first -"
    folder.write("site_app.py", SITE.replace("first", "mended"))
    site.wait_log("rolling restart done")
    assert site.ask("GET", "/").body == b"mended -"


@wsgi
def test_a_module_that_is_imported_counts_and_one_of_a_virtual_environment_does_not(work, folder):
    os.makedirs(os.path.join(folder.path, "venv/lib"))
    folder.write("venv/pyvenv.cfg", "home = /usr/bin\n")
    os.mkdir(os.path.join(folder.path, "part"))
    folder.write("part/words.py", "WORD = 'one'\n")
    folder.write("site_app.py", SITE.replace('WORD = "first"', "from part.words import WORD"))
    site = run(work, "wsgi:site_app", "--reload", cwd=folder.path)
    assert site.ask("GET", "/").body == b"one -"
    folder.write("venv/lib/other.py", "")
    folder.write("part/words.py", "WORD = 'two'\n")
    site.wait_log("rolling restart done")
    assert site.ask("GET", "/").body == b"two -"
    assert site.log().count("event=reload") == 1 and 'file="part/words.py"' in site.log()


@wsgi
def test_the_shells_virtual_environment_is_the_applications(work, folder):
    venv = os.path.join(folder.path, "venv")
    packages = "venv/lib/python%d.%d/site-packages" % sys.version_info[:2]  # the tests are Debian's Python's, too
    os.makedirs(os.path.join(folder.path, packages))
    folder.write("venv/pyvenv.cfg", "home = /usr/bin\n")
    folder.write(packages + "/only_there.py", "WORD = 'there'\n")
    folder.write("site_app.py", SITE.replace('WORD = "first"', "from only_there import WORD"))
    site = run(work, "wsgi:site_app", cwd=folder.path, env={**os.environ, "VIRTUAL_ENV": venv})
    assert site.ask("GET", "/").body == b"there -"
    site.wait_log(f"with the virtual environment {venv}\n")


# The log on a terminal


def on_terminal(work, env):
    """What somebody sees of one request."""
    ours, theirs = pty.openpty()
    try:
        site = run(work, "demo", wrap=[*ON_TERMINAL, str(theirs)], pass_fds=[theirs], log_elsewhere=True,
                   env={k: v for k, v in {**os.environ, "TERM": "xterm", "NO_COLOR": None, **env}.items() if v is not None})
        assert site.ask("GET", "/nowhere?a=b").status == 404
        seen = b""
        while b"/nowhere" not in seen or not seen.endswith(b"\n"):
            assert select.select([ours], [], [], procs.DEADLINE)[0], seen
            seen += os.read(ours, 65536)
        site.stop()
        return seen
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("env,colored", [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_the_log_has_color_on_a_terminal_unless_somebody_minds(work, env, colored):
    seen = on_terminal(work, env)
    status = rb"\x1b\[33m404\x1b\[0m" if colored else rb"404"
    assert re.search(rb"\n" + status + rb" GET /nowhere\?a=b \d+B total=[\d.]+ hold=[\d.]+ queue=[\d.]+\r\n", seen), seen
    assert (b"\x1b" in seen) == colored


def test_the_log_has_no_color_in_a_file(work):
    site = run(work, "demo")
    assert site.ask("GET", "/").status == 200
    site.wait_log("\n200 GET / ")
    assert "\x1b" not in site.log()


# Words that are wrong


@pytest.mark.parametrize("args,words", [
    (["wsgi:a-b"], "wsgi:MODULE"), (["wsgi"], "wsgi:MODULE"), (["worker:/nowhere/prog"], "/nowhere/prog"),
    (["demo", "--directory", "/nowhere"], "/nowhere: No such file or directory")])
def test_words_that_are_wrong_are_said(work, args, words):
    site = run(work, *args, ready=False)
    site.expected = {1, 2}
    assert site.wait() in site.expected and words in site.log()
