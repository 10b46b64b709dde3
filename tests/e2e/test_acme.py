"""What listeners answer by themselves: challenges from a folder, the way to https, and the word that it is to be kept to."""

import os

import pytest

import certs
from client import Client
from daemon import free_address
from secure import SecureClient
from tools import pattern

PATH = "/.well-known/acme-challenge/"
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
CONTENT = TOKEN.encode() + b".9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"


@pytest.fixture(scope="module")
def stage(shared):
    """A plain listener that sends all to https but challenges, and the TLS one."""
    pair = certs.CA(shared.dir).issue("site", ["localhost"])
    webroot = shared.path("webroot")
    os.makedirs(webroot + PATH)
    os.chmod(webroot, 0o755)
    with open(webroot + PATH + TOKEN, "wb") as f:
        f.write(CONTENT)
    secure, elsewhere = free_address(), free_address()
    backend = shared.backend()
    site = shared.forebay({"socket": backend.name, "slots": 1}, listen={"acme_challenge": webroot, "redirect_https": "on"}, more={
        "tls main": pair.options,
        "listen elsewhere": {"address": "%s:%d" % elsewhere, "redirect_https": "on", "redirect_https_port": secure[1]},
        "listen secure": {"address": "%s:%d" % secure, "tls": "main", "hsts": "365d", "acme_challenge": webroot}})
    site.backend, site.secure, site.elsewhere, site.webroot = backend, secure, elsewhere, webroot + PATH
    return site


def test_a_challenge_is_served(stage):
    with Client(stage.address) as c:
        for _ in range(3):  # on one connection, as it was meant
            r = c.ask("GET", PATH + TOKEN, host="example.org")
            assert (r.status, r.body, r.get("Content-Type")) == (200, CONTENT, "application/octet-stream")
        r = c.ask("HEAD", PATH + TOKEN)
        assert (r.status, r.get("Content-Length")) == (200, str(len(CONTENT)))
    assert stage.backend.take() == []
    assert stage.wait_access(lambda e: e["reason"] == "acme_challenge", 4)[0]["status"] == 200


def test_a_challenge_is_served_over_tls(stage):
    with SecureClient(stage.secure) as c:
        assert c.ask("GET", PATH + TOKEN).body == CONTENT


def test_a_challenge_that_came_later_is_served(stage):
    assert stage.ask("GET", PATH + "later").status == 404
    with open(stage.webroot + "later", "wb") as f:
        f.write(pattern(16 << 10))
    assert stage.ask("GET", PATH + "later").body == pattern(16 << 10)
    with open(stage.webroot + "later", "ab") as f:
        f.write(b"x")
    r = stage.ask("GET", PATH + "later")
    assert r.status == 404 and b"challenge is too large" in r.body


@pytest.mark.parametrize("name", ["none", "", "..", "../secret", "%2e%2e/secret", "a/b", "a.b", "a%00b", TOKEN + "/", "link", "x" * 129])
def test_nothing_else_is_served(stage, name):
    link = stage.webroot + "link"
    if not os.path.islink(link):
        os.symlink(TOKEN, link)
    with open(os.path.join(stage.webroot, "..", "secret"), "w") as f:
        f.write("secret")
    r = stage.ask("GET", PATH + name)
    assert r.status in (400, 404) and b"secret" not in r.body
    assert stage.backend.take() == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_the_rest_is_sent_to_https(stage, method):
    with Client(stage.address) as c:
        r = c.ask(method, "/shop?id=1&x=%20", host="example.org:8080")
        assert (r.status, r.get("Location"), r.keeps) == (308, "https://example.org/shop?id=1&x=%20", True)
        assert c.ask("GET", "/", host="other.example").get("Location") == "https://other.example/"
    assert stage.backend.take() == []


def test_https_may_be_at_another_port(stage):
    with Client(stage.elsewhere) as c:
        where = c.ask("GET", "/shop", host=stage.secure[0]).get("Location")
    assert where == "https://%s:%d/shop" % stage.secure
    with SecureClient(stage.secure) as c:
        assert c.ask("GET", "/shop").status == 200
    assert [s.target for s in stage.backend.take()] == ["/shop"]


def test_an_upload_is_sent_to_https_unread(stage):
    r = stage.ask("POST", "/up", body=b"x" * 100_000)
    assert (r.status, r.get("Location"), r.keeps) == (308, "https://test/up", False)
    assert stage.backend.take() == []


def test_without_a_host_there_is_nowhere_to_send(stage):
    assert stage.ask("GET", "/", version="HTTP/1.0", host=None).status == 400


def test_hsts_is_said_over_tls(stage):
    with SecureClient(stage.secure) as c:
        assert c.ask("GET", "/").all("Strict-Transport-Security") == ["max-age=31536000"]
        assert c.ask("OPTIONS", "/", [("Max-Forwards", "0")]).all("Strict-Transport-Security") == ["max-age=31536000"]  # our own word
    assert stage.ask("GET", "/").all("Strict-Transport-Security") == []
    stage.backend.take()


def test_the_worker_may_say_hsts_itself(stage):
    def handler(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nstrict-transport-security: max-age=1\r\nContent-Length: 0\r\n\r\n")

    stage.backend.next(handler)
    with SecureClient(stage.secure) as c:
        assert c.ask("GET", "/").all("Strict-Transport-Security") == ["max-age=1"]
