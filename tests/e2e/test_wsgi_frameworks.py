"""Django, Flask and Pyramid as Debian has them, and wsgiref's validator, on forebay's own workers."""

import hashlib
import json
import os
import re
import subprocess

import pytest

from daemon import PYTHON, scaled
from pythonapps import APPS, needs, needs_python, serve
from tools import pattern

pytestmark = needs_python
MB = 1 << 20
LINES = b"".join(b"%d bottles of beer\n" % i for i in range(10000))


def put_file(site):
    with open(os.path.join(site.folder, "file"), "wb") as f:
        f.write(LINES)
    return site


def multipart(fields, files):
    mark, out = "------forebay-test", []
    for name, value in fields.items():
        out.append(f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for name, content in files.items():
        out.append(f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode()
                   + content + b"\r\n")
    return [("Content-Type", "multipart/form-data; boundary=" + mark)], b"".join(out) + f"--{mark}--\r\n".encode()


# Django.

class Browser:
    """Keeps cookies, and fills in a form's hidden field."""

    def __init__(self, site):
        self.site, self.cookies = site, {}

    def ask(self, method, target, headers=(), body=None):
        jar = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        r = self.site.ask(method, target, [*headers, ("Cookie", jar)] if jar else headers, body)
        for line in r.all("Set-Cookie"):
            name, _, value = line.split(";")[0].partition("=")
            self.cookies[name] = value
        return r

    def post(self, target, fields, token=True):
        page = self.ask("GET", target)
        if token:
            fields = {**fields, "csrfmiddlewaretoken": re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.body)[1].decode()}
        body = "&".join(f"{k}={v}" for k, v in fields.items()).encode()
        return self.ask("POST", target, [("Content-Type", "application/x-www-form-urlencoded"), ("Referer", self.site.url + target)], body)


def prepare_django(work):
    """Its database, with one user, in the folder of serve()."""
    folder = work.path("folder")
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    env = dict(os.environ, PYTHONPATH=APPS, DJANGO_SETTINGS_MODULE="djangosite.settings", FOREBAY_TEST_FOLDER=folder, DJANGO_SUPERUSER_PASSWORD="secret",
               PYTHONDONTWRITEBYTECODE="1")
    for words in (["migrate", "-v0"], ["createsuperuser", "--noinput", "--username", "admin", "--email", "a@example.org"]):
        subprocess.run([PYTHON, "-m", "django", *words], env=env, check=True, stdout=subprocess.DEVNULL)
    os.chmod(os.path.join(folder, "db.sqlite3"), 0o666)
    return env


@pytest.fixture(scope="module")
def django(shared):
    prepare_django(shared)
    return put_file(serve(shared, "djangosite.wsgi", processes=2, threads=2, route={"body_limit": "1G"}, name="django"))


@needs("django")
def test_django_admin_lets_its_user_in_and_nobody_else(django):
    b = Browser(django)
    assert b.ask("GET", "/admin/").status == 302
    r = b.post("/admin/login/?next=/admin/", {"username": "admin", "password": "wrong"})
    assert r.status == 200 and b"correct username" in r.body
    r = b.post("/admin/login/?next=/admin/", {"username": "admin", "password": "secret"})
    assert (r.status, r.get("Location")) == (302, "/admin/")
    r = b.ask("GET", "/admin/auth/user/")
    assert r.status == 200 and b"a@example.org" in r.body
    assert Browser(django).ask("GET", "/admin/auth/user/").status == 302


@needs("django")
def test_django_csrf_protects_a_form(django):
    assert Browser(django).post("/form", {"name": "x"}, token=False).status == 403
    r = Browser(django).post("/form", {"name": "caf%C3%A9"})
    assert (r.status, json.loads(r.body)) == (200, {"name": "caf\xe9", "files": {}})


@needs("django")
@pytest.mark.parametrize("how", ["raw", "multipart"])
def test_a_large_upload_arrives_in_django_as_it_was(django, how):
    body = pattern(scaled(200 * MB, least=20 * MB), 7)
    headers, sent = ([], body) if how == "raw" else multipart({}, {"file": body})
    r = django.ask("POST", "/upload", headers, sent)
    assert r.status == 200, r
    assert json.loads(r.body) == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


@needs("django")
def test_django_streams_and_sends_files(django):
    r = django.ask("GET", "/stream?lines=20000")
    assert (r.status, r.body) == (200, b"".join(b"line %d\n" % i for i in range(20000)))
    r = django.ask("GET", "/file")
    assert (r.status, r.body, r.framing) == (200, LINES, "length") and "filename" in r.get("Content-Disposition")
    r = django.ask("HEAD", "/file")
    assert (r.status, r.get("Content-Length")) == (200, str(len(LINES)))


@needs("django")
def test_django_knows_where_it_is(django):
    r = json.loads(django.ask("GET", "/scheme/caf%C3%A9?q=%20", [("Host", "shop.example:8080")]).body)
    assert (r["url"], r["path"]) == ("http://shop.example:8080/scheme/caf%C3%A9?q=%20", "/scheme/caf\xe9")


@needs("django")
def test_a_view_that_fails_is_django_s_500(django):
    r = django.ask("GET", "/fails")
    assert r.status == 500 and b"on purpose" not in r.body
    django.wait_log("RuntimeError: the view failed on purpose")  # by Django's own logger, on sys.stderr


# Pyramid.

@needs("pyramid")
def test_pyramid(work):
    site = put_file(serve(work, "pyramidapp"))
    r = site.ask("GET", "/hello/caf%C3%A9?a=1&b=%C3%BC")
    assert json.loads(r.body) == {"hello": "caf\xe9", "query": {"a": "1", "b": "\xfc"}}
    body = pattern(3 * MB, 9)
    assert json.loads(site.ask("POST", "/upload", body=body).body)["sha256"] == hashlib.sha256(body).hexdigest()
    r = site.ask("POST", "/form", [("Content-Type", "application/x-www-form-urlencoded")], b"x=1&y=caf%C3%A9")
    assert json.loads(r.body)["fields"] == {"x": "1", "y": "caf\xe9"}
    assert site.ask("GET", "/file").body == LINES
    assert site.ask("GET", "/stream").body == b"".join(b"line %d\n" % i for i in range(1000))
    assert site.ask("GET", "/nowhere").status == 404
    assert site.ask("GET", "/fails").status == 500
    site.wait_log("RuntimeError: the view failed on purpose")


# wsgiref.validate.

BODY = b"a line\nanother line\nthird\n" * 10


@pytest.mark.parametrize("size", ["memory", "descriptor"])
def test_the_validator_has_nothing_to_say(work, size):
    site = serve(work, "validated", threads=2)
    body = BODY if size == "memory" else BODY * 2000
    lines = body.splitlines(keepends=True)
    wanted = {"list": b"abc", "one": b"one", "generator": b"".join(b"part %d\n" % i for i in range(1000)), "write": b"written returned", "length": b"length",
              "read": body[:10] + b"|" + body[10:1000010], "lines": lines[0] + b"|" + lines[1][:5] + b"|" + (body[len(lines[0]) + 5:]) + b"||",
              "iteration": b"|".join(lines)}
    wanted["lines"] = wanted["lines"][:-1]
    for name, want in wanted.items():
        r = site.ask("POST", f"/{name}?a=b", [("Content-Type", "text/plain"), ("X-Custom", "v\xe9")], body)
        assert (r.status, r.body) == (200, want), name
        r = site.ask("GET", f"/{name}")
        assert r.status == 200, name
        assert site.ask("HEAD", f"/{name}").status == 200, name
    assert site.ask("GET", "/exc_info").status == 500
    assert site.ask("GET", "/empty").status == 204
    assert "AssertionError" not in site.log() and "WSGIWarning" not in site.log() and "garbage collected" not in site.log()
