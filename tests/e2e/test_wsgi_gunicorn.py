"""Sessions of mixed requests: each answer of an application is the one that the same application gives under gunicorn.
FOREBAY_TEST_SESSION says how many requests each application is asked: 10000 take a minute or two."""

import hashlib
import os
import random
import re
import threading

from client import Client
from daemon import free_address, scaled
from pythonapps import APPS, needs, needs_python, serve
from test_wsgi_frameworks import Browser, multipart, prepare_django, put_file
from tools import pattern

pytestmark = needs_python
REQUESTS = int(os.environ.get("FOREBAY_TEST_SESSION") or scaled(500, least=100))
CLIENTS = 4
UNICODE = ["caf%C3%A9", "%E2%82%AC/%F0%9F%8C%8A", "a%2Fb", "a%20b%3Fc", "a+b;c=d", "a//b", "%25%41"]


def some_text(rng, n):
    return "".join(rng.choice("abcxyz019-_~") for _ in range(n))


def of_flask(rng):
    """One request, as (method, target, headers, body)."""
    def text(n):
        return some_text(rng, n)

    kind = rng.choice(["echo", "echo", "echo", "form", "multipart", "unicode", "bytes", "parts", "memory", "disk", "conditional", "cookie", "redirect", "status", "fails",
                       "unread", "missing", "head"])
    headers = [("X-Custom", text(rng.randrange(1, 40)))] if rng.random() < 0.3 else []
    if kind == "echo":
        method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH"])
        body = None if method == "GET" else pattern(rng.choice([0, 1, 100, 5000, 65536, 70000, 300000]), rng.randrange(1000))
        if rng.random() < 0.3:
            headers.append(("Cookie", f"a={text(5)}; b={text(50)}"))
        return method, f"/echo?x={text(5)}&y=%C3%A9%20{text(3)}&x={text(2)}", headers + [("Content-Type", "application/x-test")], body
    if kind == "form":
        return "POST", "/form", headers + [("Content-Type", "application/x-www-form-urlencoded")], f"a={text(20)}&b=%C3%BC&a={text(3)}".encode()
    if kind == "multipart":
        more, body = multipart({"f": text(10)}, {"one": pattern(rng.randrange(100000), 3), "two": b""})
        return "POST", "/form", headers + more, body
    if kind == "unicode":
        return "GET", rng.choice(["/unicode/caf%C3%A9", "/unicode/%E2%82%AC/%F0%9F%8C%8A", "/unicode/%FF%FE", "/unicode/a%2Fb", "/unicode/a%20b%3Fc", "/unicode/a+b;c=d"]), headers, None
    if kind == "conditional":
        return "GET", rng.choice(["/memory", "/disk"]), headers + [rng.choice([("If-None-Match", '"fixed"'), ("Range", "bytes=10-99"), ("If-None-Match", '"other"'),
                                                                               ("Range", "bytes=-5"), ("Range", "bytes=9999999-")])], None
    if kind == "status":
        return "GET", f"/status/{rng.choice([200, 201, 204, 304, 400, 404, 410, 418, 500, 503])}", headers, None
    if kind == "unread":
        return "POST", "/unread", headers, pattern(rng.choice([10, 100000, 400000]), 4)
    simple = {"bytes": f"/bytes/{rng.choice([0, 1, 1000, 65535, 65536, 65537, 300000])}", "parts": f"/parts/{rng.choice([0, 1, 10, 5000])}", "memory": "/memory",
              "disk": "/disk", "cookie": "/cookie", "redirect": "/redirect", "fails": "/fails", "missing": "/" + text(10), "head": "/echo?head"}
    return "HEAD" if kind == "head" else "GET", simple[kind], headers, None


PAGES = ["/admin/", "/admin/auth/user/", "/admin/auth/user/?q=ad&o=1", "/admin/auth/user/1/change/", "/admin/auth/group/", "/admin/auth/group/add/", "/admin/password_change/"]


def of_django(rng, jar, token):
    """The same; `jar` is the Cookie of somebody who has logged in, `token` one of his forms'."""
    kind = rng.choice(["form", "post", "forged", "raw", "files", "stream", "file", "head", "where", "fails", "missing", "page", "page", "closed"])
    cookie, urlencoded = [("Cookie", jar)], [("Content-Type", "application/x-www-form-urlencoded")]
    if kind == "post":
        return "POST", "/form", cookie + urlencoded, f"name=caf%C3%A9{some_text(rng, rng.randrange(3000))}&csrfmiddlewaretoken={token}".encode()
    if kind == "forged":
        return "POST", "/form", cookie + urlencoded, b"name=x&csrfmiddlewaretoken=" + b"A" * 64
    if kind == "raw":
        return "POST", "/upload", cookie, pattern(rng.choice([0, 1, 5000, 65536, 300000]), rng.randrange(100))
    if kind == "files":
        more, body = multipart({"a": some_text(rng, 9)}, {"file": pattern(rng.randrange(200000), 3)})
        return "POST", "/upload", more, body
    if kind == "page":
        return "GET", rng.choice(PAGES), cookie, None
    if kind == "closed":
        return "GET", rng.choice(PAGES), [], None
    target = {"form": "/form", "stream": f"/stream?lines={rng.randrange(3000)}", "file": "/file", "head": "/file", "fails": "/fails", "missing": "/" + some_text(rng, 9),
              "where": f"/scheme/{rng.choice(UNICODE)}?q={some_text(rng, 4)}"}[kind]
    return "HEAD" if kind == "head" else "GET", target, [], None


def of_pyramid(rng):
    kind = rng.choice(["hello", "hello", "upload", "form", "files", "file", "head", "stream", "missing"])
    if kind == "upload":
        return "POST", "/upload", [], pattern(rng.choice([0, 1, 70000, 300000]), rng.randrange(100))
    if kind == "form":
        return "POST", "/form", [("Content-Type", "application/x-www-form-urlencoded")], f"x={some_text(rng, 9)}&y=caf%C3%A9&x=2".encode()
    if kind == "files":
        more, body = multipart({"x": some_text(rng, 9), "y": "1"}, {})
        return "POST", "/form", more, body
    target = {"hello": f"/hello/{rng.choice(UNICODE[:1] + UNICODE[3:5])}?a={some_text(rng, 5)}&b=%C3%BC", "file": "/file", "head": "/file", "stream": "/stream",
              "missing": "/" + some_text(rng, 5)}[kind]
    return "HEAD" if kind == "head" else "GET", target, [("Range", "bytes=5-99")] if kind == "file" and rng.random() < 0.5 else [], None


OF_THE_SERVER = {"date", "expires", "server", "connection", "x-request-id", "transfer-encoding", "content-length", "keep-alive"}
BY_CHANCE = re.compile(rb'session=[^;]+|sessionid=[^;]+|csrftoken=[^;]+|(?i:expires=)[^;]+|name="csrfmiddlewaretoken" value="\w+"')


def essence(r):
    """What of an answer is the application's, and neither the time of day nor chance."""
    headers = sorted((n.lower(), BY_CHANCE.sub(b"", v.encode("latin-1"))) for n, v in r.headers if n.lower() not in OF_THE_SERVER)
    body = BY_CHANCE.sub(b"", r.body)
    return r.status, headers, hashlib.sha256(body).hexdigest(), len(body)


def lengths_agree(a, b):
    """One that says none has chunks, or ends."""
    return a.get("Content-Length") is None or b.get("Content-Length") is None or a.get("Content-Length") == b.get("Content-Length")


def compare(site, theirs, seed, chance):
    """Asks both the same, on connections that are kept."""
    wrong, done, kinds = [], [], set()

    def session(number):
        rng = random.Random(seed + number)
        ours, reference = Client(site.address), Client(theirs.bind)
        for _ in range(REQUESTS // CLIENTS):
            request = chance(rng)
            a, b = ours.ask(*request), reference.ask(*request)
            kinds.add((request[0], b.status))
            if essence(a) != essence(b) or not lengths_agree(a, b):
                wrong.append((request[:3], a.status, b.status, BY_CHANCE.sub(b"", a.body)[:300], BY_CHANCE.sub(b"", b.body)[:300], essence(a)[1], essence(b)[1]))
            if not a.keeps:
                ours.close()
                ours = Client(site.address)
            if not b.keeps or request[0] == "HEAD":  # to HEAD of a file gunicorn gives content
                reference.close()
                reference = Client(theirs.bind)
        ours.close()
        reference.close()
        done.append(number)

    threads = [threading.Thread(target=session, args=(n,)) for n in range(CLIENTS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, (len(wrong), wrong[:3])
    assert sorted(done) == list(range(CLIENTS)), "a session broke off"
    assert len({status for _, status in kinds}) > 1 and len({method for method, _ in kinds}) > 2
    print(f"{CLIENTS * (REQUESTS // CLIENTS)} requests, all answers as under gunicorn: {sorted(kinds)}")


def gunicorn(work, application, **env):
    return work.gunicorn("gthread", workers=2, threads=4, application=application, bind=free_address(), keepalive=600, env=dict(os.environ, **env), site=APPS)


@needs("flask")
def test_flask_answers_as_under_gunicorn(work, seed):
    file = os.path.join(APPS, "cases.py")
    theirs = gunicorn(work, "flaskapp:app", FLASK_FILE=file)
    site = serve(work, "flaskapp", processes=2, threads=2, environment=["FLASK_FILE=" + file], route={"body_limit": "10M"})
    compare(site, theirs, seed, of_flask)


@needs("django")
def test_django_answers_as_under_gunicorn(work, seed):
    """Both on one database, so that a session is one under both."""
    prepare_django(work)
    site = put_file(serve(work, "djangosite.wsgi", processes=2, threads=2, route={"body_limit": "10M"}))
    theirs = gunicorn(work, "djangosite.wsgi:application", FOREBAY_TEST_FOLDER=site.folder)
    b = Browser(site)
    assert b.post("/admin/login/?next=/admin/", {"username": "admin", "password": "secret"}).status == 302
    token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', b.ask("GET", "/form").body)[1].decode()
    jar = "; ".join(f"{k}={v}" for k, v in b.cookies.items())
    compare(site, theirs, seed, lambda rng: of_django(rng, jar, token))


@needs("pyramid")
def test_pyramid_answers_as_under_gunicorn(work, seed):
    site = put_file(serve(work, "pyramidapp", processes=2, threads=2, route={"body_limit": "10M"}))
    theirs = gunicorn(work, "pyramidapp:application", FOREBAY_TEST_FOLDER=site.folder)
    compare(site, theirs, seed, of_pyramid)
