"""Requests go to the pool of the most exact host and the longest path; and workers hear the truth about who asks."""

import pytest

from backend import answer


def named(name):
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name.encode())

    def handler(conn):
        conn.backend.last = conn.request()
        conn.send(raw)

    return handler


ROUTES = {
    "route example.org": "exact",
    "route example.org/blog": "blog",
    "route example.org/blog/admin": "admin",
    "route *.example.org": "wild",
    "route */any": "any",
    "route *": "rest",
}
CASES = [
    ("example.org", "/", "exact"),
    ("EXAMPLE.org", "/", "exact"),
    ("example.org:8000", "/x", "exact"),
    ("example.org", "/blog", "blog"),
    ("example.org", "/blog/", "blog"),
    ("example.org", "/blog/x", "blog"),
    ("example.org", "/blog?x", "blog"),
    ("example.org", "/blogs", "exact"),  # whole segments
    ("example.org", "/blog/admin/x", "admin"),
    ("example.org", "/any", "exact"),  # the host counts first
    ("a.example.org", "/", "wild"),
    ("a.b.example.org", "/", "wild"),
    ("aexample.org", "/", "rest"),
    ("other", "/any/x", "any"),
    ("other", "/", "rest"),
    ("127.0.0.1", "/", "rest"),
]


@pytest.fixture(scope="module")
def town(shared):
    more = {}
    for name in ROUTES.values():
        backend = shared.backend(named(name), name=name)
        more["pool " + name] = {"socket": backend.name, "slots": 1}
    for route, name in ROUTES.items():
        more[route] = {"pool": name}
    return shared.forebay(more=more)


@pytest.mark.parametrize("host,path,pool", CASES, ids=[f"{h}{p}" for h, p, _ in CASES])
def test_a_request_finds_its_pool(town, host, path, pool):
    assert town.ask("GET", path, host=host).body.decode() == pool


def test_a_request_without_a_route_is_refused(work):
    backend = work.backend()
    site = work.forebay(more={"pool app": {"socket": backend.name, "slots": 1}, "route example.org": {"pool": "app"}})
    assert site.ask("GET", "/", host="example.org").status == 200
    assert site.ask("GET", "/", host="other").status in (404, 421)
    assert site.wait_access(lambda e: e["host"] == "other")[0]["reason"]


def test_the_pool_is_in_the_log(town):
    town.ask("GET", "/blog/log-me", host="example.org")
    assert town.wait_access(lambda e: e["target"] == "/blog/log-me")[0]["pool"] == "blog"


# Who asks

FORGED = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil"), ("Forwarded", "for=6.6.6.6"),
          ("X-Request-Id", "forged"), ("X-Request-Start", "0")]


def seen(work, headers, **daemon):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay=daemon)
    r = site.ask("GET", "/", headers)
    assert r.status == 200
    return backend.seen[0], site


def test_an_untrusted_clients_word_is_replaced(work):
    got, site = seen(work, FORGED)
    assert got.all("X-Forwarded-For") == ["127.0.0.1"] or got.get("X-Forwarded-For").startswith("127.")
    assert (got.all("X-Forwarded-Proto"), got.all("X-Forwarded-Host")) == (["http"], ["test"])
    assert len(got.all("Forwarded")) == 1 and "6.6.6.6" not in got.get("Forwarded")
    assert got.get("X-Request-Id") != "forged" and got.get("X-Request-Start") != "0"
    assert site.wait_access(lambda e: True)[0]["client"].startswith("127.")


def test_a_trusted_peers_list_is_walked_from_the_right(work):
    got, site = seen(work, [("X-Forwarded-For", "6.6.6.6, 192.0.2.7, 127.9.9.9"), ("X-Request-Id", "from-outside-1")],
                     trusted=["127.0.0.0/8"])
    assert "192.0.2.7" in got.get("X-Forwarded-For")
    assert site.wait_access(lambda e: True)[0]["client"] == "192.0.2.7"
    assert got.get("X-Request-Id") == "from-outside-1"


@pytest.mark.parametrize("forged", ["unknown", "not an address", "1.2.3.4.5", "\xff", "6.6.6.6.", "x" * 5000])
def test_nonsense_from_a_trusted_peer_does_no_harm(work, forged):
    got, site = seen(work, [("X-Forwarded-For", forged)], trusted=["127.0.0.0/8"])
    assert site.wait_access(lambda e: True)[0]["client"].startswith("127.")
    assert len(got.all("X-Forwarded-For")) == 1


@pytest.mark.parametrize("ident", ["a" * 5000, "a b", "a\"b", "\xff"])
def test_a_request_id_from_a_trusted_peer_is_checked(work, ident):
    got, _ = seen(work, [("X-Request-Id", ident)], trusted=["127.0.0.0/8"])
    assert got.get("X-Request-Id") and got.get("X-Request-Id") != ident


def test_ids_differ_and_are_logged(town):
    for _ in range(20):
        town.ask("GET", "/ids", host="example.org")
    entries = town.wait_access(lambda e: e["target"] == "/ids", 20)
    assert len({e["id"] for e in entries}) == 20


# Error pages


@pytest.mark.parametrize("accept,kind", [("text/html", "text/html"), ("application/json", "application/json"), ("text/plain", "text/plain"),
                                         (None, "text/html"), ("*/*", "text/html"), ("\xff\"<script>", "text/")])
def test_an_error_page_is_as_the_client_accepts_it_and_names_the_request(work, accept, kind):
    backend = work.backend(answer(b""))
    site = work.forebay({"socket": backend.name, "slots": 1, "retries": 0})
    r = site.ask("POST", "/<script>alert(1)</script>", [("Accept", accept)] if accept else [], body=b"")
    assert r.status == 502 and r.get("Content-Type").startswith(kind)
    assert b"<script>" not in r.body
    entry = site.wait_access(lambda e: e["status"] == 502)[0]
    assert entry["id"].encode() in r.body
