"""The settings of a pool as its application sees them, from a forebay that was started by root and by somebody else."""

import json
import os
import pwd
import shutil
import subprocess
import sys

import pytest

from daemon import POOL_USER, PYTHON, ROOT
from pythonapps import APPS, needs_python, serve

pytestmark = needs_python
NOBODY = pwd.getpwnam("nobody")
AS_NOBODY = ["setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups"]


@pytest.fixture(params=["root", "somebody"])
def start(work, request):
    """start(options of the pool) is what the application found; forebay runs as this user."""
    if request.param == "root" and not ROOT:
        pytest.skip("needs root")

    def found(target="setting", env=None, environment=(), **options):
        kw = {}
        if request.param == "somebody" and ROOT:
            # The work folder is root's, the spool the front's user's, who is nobody.
            kw = {"wrap": AS_NOBODY, "forebay": {"user": None, "access_log": os.path.join(work.spool, "access")}}
            options = {"user": None, **options}
        site = serve(work, target, environment=environment, more_pool=options, env=env, **kw)
        r = site.ask("GET", "/")
        assert r.status == 200, r.body
        return json.loads(r.body)

    found.as_root = request.param == "root"
    return found


def test_without_any(start):
    found = start(env={**os.environ, "SECRET": "of the daemon", "FOREBAY_TEST_SECRET": "too"})
    assert found["folder"] == found["path"] == APPS
    user = pwd.getpwnam(POOL_USER) if start.as_root else pwd.getpwuid(NOBODY.pw_uid if ROOT else os.getuid())
    assert (found["user"], found["uid"], found["euid"], found["gid"]) == (user.pw_name, user.pw_uid, user.pw_uid, user.pw_gid)
    if start.as_root:
        assert (found["environment"]["HOME"], found["environment"]["USER"]) == (user.pw_dir, user.pw_name)
        assert found["groups"] == sorted(os.getgrouplist(user.pw_name, user.pw_gid))
    assert "SECRET" not in found["environment"] and "FOREBAY_TEST_SECRET" not in found["environment"]  # the daemon's is not the applications'
    assert (found["mode"], found["nice"], found["encoding"].lower().replace("-", "")) == ("0o644", os.nice(0), "utf8")


def test_directory(start, work):
    folder = work.path("a folder")
    os.mkdir(folder)
    shutil.copy(os.path.join(APPS, "setting.py"), folder)
    found = start(directory=folder)
    assert (found["folder"], found["path"]) == (folder, folder)


def test_a_directory_that_is_not_there_is_said(work):
    site = serve(work, "setting", more_pool={"directory": work.path("nowhere")}, ready=False)
    site.expected = {1}
    assert site.wait() == 1 and 'nowhere what="no such directory"' in site.log()


def test_environment(start):
    found = start(environment=["A=b c=d ", "B=\"quotes\" stay", "EMPTY=", "UTF=caf\xe9", "PATH=/only/here"])["environment"]
    assert (found["A"], found["B"], found["EMPTY"], found["UTF"], found["PATH"]) == ("b c=d", '"quotes" stay', "", "caf\xe9", "/only/here")


def test_environment_file(start, work):
    path = work.write("secrets", "# what nobody else is to read\n\nFROM_FILE=from the file\nBOTH=file\n")
    if ROOT:
        os.chown(path, 0 if start.as_root else NOBODY.pw_uid, 0)
    os.chmod(path, 0o600)
    found = start(environment_file=path, environment=["BOTH=the configuration"])["environment"]
    assert (found["FROM_FILE"], found["BOTH"]) == ("from the file", "the configuration")


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_user_and_group(work):
    found = json.loads(serve(work, "setting", more_pool={"user": "www-data", "group": "games"}).ask("GET", "/").body)
    assert (found["user"], found["group"]) == ("www-data", "games")
    assert 0 not in found["groups"] + [found["uid"], found["euid"], found["gid"]]


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_who_is_not_root_cannot_become_another(work):
    site = serve(work, "setting", more_pool={"user": "www-data"}, wrap=AS_NOBODY, ready=False,
                 forebay={"user": None, "access_log": os.path.join(work.spool, "access")})
    site.expected = {1}
    assert site.wait() == 1 and "only root can start workers as another user" in site.log()


@pytest.mark.parametrize("umask, mode", [("077", "0o600"), ("002", "0o664"), ("0", "0o666")])
def test_umask(start, umask, mode):
    assert start(umask=umask)["mode"] == mode


def test_niceness(start):
    assert start(niceness="7")["nice"] == min(19, os.nice(0) + 7)


@pytest.mark.parametrize("locale, encoding", [("C.UTF-8", "utf8"), ("POSIX", "utf8"), ("C", "utf8")])
def test_locale(start, locale, encoding):
    """Python takes UTF-8 where it is told nothing (PEP 538, PEP 540)."""
    found = start(locale=locale)
    assert found["environment"]["LC_ALL"] == locale
    assert found["files"].replace("-", "") == encoding


def venv(work, *options):
    folder = work.path("venv")
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", *options, folder], check=True)
    packages = os.path.join(folder, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
    with open(os.path.join(packages, "pure.py"), "w") as f:
        f.write("import json\nfrom setting import application\n")
    return folder


def test_virtualenv(start, work):
    folder = venv(work)
    found = start("pure", virtualenv=folder)
    assert (found["prefix"], found["executable"], found["environment"]["VIRTUAL_ENV"]) == (folder, f"{folder}/bin/python", folder)
    assert found["environment"]["PATH"].startswith(f"{folder}/bin:")


def test_what_is_no_virtualenv_is_said(work):
    os.mkdir(work.path("empty"))
    site = serve(work, "setting", more_pool={"virtualenv": work.path("empty")}, ready=False)
    site.wait_log("not a virtualenv of Python ")
    assert " ready: " not in site.log()
