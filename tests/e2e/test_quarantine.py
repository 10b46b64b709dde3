"""Requests that were in a worker when it was lost: tried again where that is safe, kept for study, sent again by hand."""

import contextlib
import glob
import os
import select
import signal
import socket
import ssl
import stat
import subprocess

import pytest

import certs
import daemon
import procs
import secure
from client import Client, Cut, message
from daemon import FOREBAY, ROOT
from procs import wait_for
from tools import pattern, read_record

MB = 1 << 20


def a_site(work, processes=2, threads=1, quarantine=None, more=None, forebay=None, listen=None, **pool):
    """A demo whose begun requests are recorded by their query; returns it, and the folder."""
    path = work.path("begun")
    with open(path, "w"):
        pass
    os.chmod(path, 0o666)  # the workers are another user
    folder = quarantine or work.path("quarantine")
    site = work.forebay({"app": "demo", "processes": processes, "threads": threads, "queue_timeout": "5m", "quarantine_dir": folder,
                         "environment": [f"FOREBAY_DEMO_RECORD={path}"], **pool}, more=more, forebay=forebay, listen=listen)
    site.begun = lambda: [query for _, query, _ in read_record(path)]
    return site, folder


def both_serve(site):
    """Until two workers have answered: one that has only started has no slot yet."""

    def once():
        with site.connect() as one, site.connect() as two:
            one.send(message("GET", "/sleep?ms=50"))
            two.send(message("GET", "/sleep?ms=50"))
            assert one.response().status == two.response().status == 200
        return len({e["worker"] for e in site.access()}) == 2

    wait_for(once, "both workers to serve")


def files(site, folder, count=1):
    """Once so many were written to their ends, which is logged behind it."""
    site.wait_log("event=quarantined", count)
    return sorted(glob.glob(folder + "/*.http"))


def parts(path):
    """The remarks, the head's lines, the body."""
    with open(path, "rb") as f:
        head, _, body = f.read().partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    return [l for l in lines if l.startswith("#")], [l for l in lines if not l.startswith("#")], body


def replay(*args, timeout=60):
    return subprocess.run([FOREBAY, "replay", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=timeout, check=False)


@pytest.mark.parametrize("page", ["crash", "exit"])
def test_a_post_that_kills_its_worker_is_tried_once_and_kept(work, page):
    site, folder = a_site(work)
    r = site.ask("POST", f"/{page}?id=1", [("X-Some", "thing"), ("Cookie", "a=b"), ("Connection", "X-Hop"), ("X-Hop", "1")], b"hello\nworld")
    assert r.status == 502 and site.begun() == ["id=1"]
    path = files(site, folder)[0]
    remarks, head, body = parts(path)
    assert head == [f"POST /{page}?id=1 HTTP/1.1", "Host: test", "X-Some: thing", "Cookie: a=b", "Content-Length: 11"]
    assert body == b"hello\nworld"
    assert r.get("X-Request-Id") in remarks[0] and r.get("X-Request-Id") in path
    assert ("signal 6 (Aborted)" if page == "crash" else "ended by itself (exit 0)") in remarks[1] and "handed to 1 worker." in remarks[1]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert f"event=quarantined pool=app id={r.get('X-Request-Id')} file={path}" in site.log()


def test_a_get_that_kills_its_worker_has_replay_max_more(work):
    site, folder = a_site(work)
    assert site.ask("GET", "/crash?id=1").status == 502
    assert site.begun() == ["id=1"] * 2
    remarks, head, body = parts(files(site, folder)[0])
    assert "handed to 2 workers." in remarks[1] and head == ["GET /crash?id=1 HTTP/1.1", "Host: test"] and body == b""
    assert site.wait_access(lambda e: e["target"] == "/crash?id=1")[0]["attempts"] == 2


@pytest.mark.parametrize("most", [0, 3])
def test_replay_max_is_the_most(work, most):
    site, _ = a_site(work, replay_max=most, retries=10)
    assert site.ask("GET", "/crash?id=1").status == 502
    assert site.begun() == ["id=1"] * (1 + most)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH", "PURGE"])
def test_each_method_after_a_loss_behind_the_start(work, method):
    site, _ = a_site(work)
    with site.connect() as c:
        c.send(message(method, "/crash?id=1", body=None if method in ("GET", "HEAD") else b"x"))
        assert c.response(method).status == 502
    assert len(site.begun()) == (2 if method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS") else 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("size", [0, 300_000, 2 * MB])
def test_each_method_after_a_loss_before_the_start(work, method, size):
    """Both workers stand still with a request that they have not read, for longer than any wait for a slot may be. One is killed:
    its request goes to the other, body and all."""
    site, folder = a_site(work, queue_timeout="3s", timeout="10m")
    both_serve(site)
    workers = site.workers()
    body = pattern(size) if size else None
    clients = [site.connect() for _ in range(3)]
    try:
        for pid in workers:
            procs.kill(pid, signal.SIGSTOP)
            wait_for(lambda: procs.stands_still(pid), "all its threads to stand still")
        for i, c in enumerate(clients):
            c.send(message(method, f"/upload?id={i}", body=body))
        answered = select.select([c.sock for c in clients], [], [], 60)[0]
        refused = next(c for c in clients if c.sock in answered)
        assert refused.response(method).status == 503  # so the two others have the slots
        clients.remove(refused)
        procs.kill(workers[1], signal.SIGCONT)
        procs.kill(workers[0], signal.SIGKILL)
        for c in clients:
            r = c.response(method)
            assert r.status == 200 and f"bytes={size}\n".encode() in r.body
    finally:
        for c in [*clients, refused]:
            c.close()
        for pid in workers:
            procs.kill(pid, signal.SIGCONT)
    begun = [query for query in site.begun() if query.startswith("id=")]
    assert len(begun) == len(set(begun)) == 2
    assert sorted(e["attempts"] for e in site.wait_access(lambda e: e["status"] == 200 and "id=" in e["target"], 2)) == [1, 2]
    assert glob.glob(folder + "/*") == []


def test_what_has_gone_out_is_not_taken_back(work):
    """The answer has begun at the client, or hints have: it is cut, or a 502, and nobody tries again."""
    site, folder = a_site(work, threads=2, streams=2)
    with site.connect() as c:
        c.send(message("GET", "/stream?parts=1000&ms=20&id=1"))
        c.head()
        assert c.chunk()
        pid = wait_for(lambda: read_record(work.path("begun")), "a record")[0][2]
        procs.kill(int(pid), signal.SIGKILL)
        with pytest.raises(Cut):
            c.chunked()
    assert site.begun() == ["parts=1000&ms=20&id=1"]
    assert "signal 9 (Killed)" in parts(files(site, folder)[0])[0][1]


@pytest.mark.parametrize("size", [100_000, 300_000, 3 * MB, 16 * MB, 16 * MB + 1])
def test_bodies_are_kept_wherever_they_lie_up_to_16m(work, size):
    site, folder = a_site(work)
    body = pattern(size, 7)
    assert site.ask("POST", "/crash", body=body).status == 502
    path = files(site, folder)[0]
    wait_for(lambda: "event=quarantined" in site.log(), "all of it to be written")
    remarks, head, kept = parts(path)
    assert kept == body[:16 * MB] and f"Content-Length: {size}" in head
    assert any(f"# Cut: of the body's {size} bytes only the first {16 * MB} are here." == r for r in remarks) == (size > 16 * MB)
    out = replay("--to", "%s:%d" % site.address, path)
    if size > 16 * MB:
        assert out.returncode == 1 and f"Content-Length says {size}, but {16 * MB} bytes stand behind".encode() in out.stderr
        assert out.stderr.startswith(path.encode() + b":%d:" % (len(remarks) + len(head))) and out.stdout == b""
    else:
        assert out.returncode == 1 and out.stdout.startswith(b"HTTP/1.1 502 ")


def test_the_limit_is_kept_and_said_once(work):
    site, folder = a_site(work, quarantine_limit=2)
    for i in range(5):
        assert site.ask("POST", f"/crash?id={i}", body=b"").status == 502
    site.wait_log("event=not_quarantined")
    wait_for(lambda: site.log().count("signal 6") >= 5, "all to be reaped")
    assert len(files(site, folder, 2)) == 2 and site.log().count("event=not_quarantined") == 1
    os.remove(files(site, folder, 2)[0])
    assert site.ask("POST", "/crash?id=9", body=b"").status == 502
    assert len(files(site, folder, 3)) == 2  # the third that was kept


def test_files_of_an_earlier_life_count(work):
    folder = work.path("quarantine")
    os.mkdir(folder, 0o700)
    for name in ("app.a.b.http", "app.c.d.http", "else.a.b.http", "note"):
        with open(os.path.join(folder, name), "w"):
            pass
    site, _ = a_site(work, quarantine_limit=2)
    assert site.ask("POST", "/crash", body=b"").status == 502
    site.wait_log("quarantine_limit")
    assert len(os.listdir(folder)) == 4


def test_an_answer_that_a_living_worker_breaks_off_is_not_kept(work):
    site, folder = a_site(work, retries=0)
    assert site.ask("POST", "/cut", body=b"").status == 502
    assert site.ask("POST", "/crash", body=b"").status == 502
    assert "POST /crash HTTP/1.1" in parts(files(site, folder)[0])[1] and len(os.listdir(folder)) == 1


def test_without_a_folder_nothing_is_kept(work):
    site = work.forebay({"app": "demo", "processes": 1})
    assert site.ask("POST", "/crash", body=b"").status == 502
    assert site.ask("GET", "/echo").status == 200 and "quarantine" not in site.log()


def test_a_full_disk_keeps_no_half_of_a_file(work, tmpfs_of):
    folder = tmpfs_of(1 * MB)
    site, _ = a_site(work, quarantine=folder)
    for _ in range(2):
        assert site.ask("POST", "/crash", body=pattern(2 * MB)).status == 502
        wait_for(lambda: "No space left on device" in site.log(), "to be told")
    assert site.ask("POST", "/crash", body=b"small").status == 502
    assert len(files(site, folder)) == 1 and len(os.listdir(folder)) == 1
    assert site.log().count("event=not_quarantined") == 1


@pytest.fixture
def tmpfs_of(work):
    if not ROOT:
        pytest.skip("only root mounts")
    mounted = []

    def make(size):
        folder = work.path("small")
        os.mkdir(folder)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", folder], stderr=subprocess.DEVNULL,
                          check=False).returncode:
            pytest.skip("no mounting here")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("kind", ["file", "world-writable", "no parent"])
def test_a_folder_that_will_not_do_is_an_error_of_the_start(work, kind):
    folder = work.path("quarantine")
    if kind == "file":
        work.write("quarantine", "")
    elif kind == "world-writable":
        os.mkdir(folder)
        os.chmod(folder, 0o777)
    else:
        folder = work.path("nowhere/quarantine")
    site = work.forebay({"app": "demo", "processes": 1, "quarantine_dir": folder}, ready=False)
    site.expected = {1}
    assert site.wait() == 1 and f"quarantine_dir={folder}" in site.log()


@pytest.mark.skipif(not ROOT, reason="another user's folder")
def test_a_folder_that_the_master_cannot_write_to_is_an_error_of_the_start(work):
    folder = work.path("quarantine")
    os.mkdir(folder, 0o700)
    os.chown(folder, 65534, 65534)
    site = work.forebay({"app": "demo", "processes": 1, "quarantine_dir": folder}, ready=False)
    site.expected = {1}
    assert site.wait() == 1 and "it must belong to the user that forebay is started as" in site.log()


# forebay replay


def test_a_kept_request_is_sent_again_as_it_was_and_as_it_is_edited(work):
    site, folder = a_site(work)
    assert site.ask("PATCH", "/crash?id=1", [("X-Some", "thing")], b"body").status == 502
    path = files(site, folder)[0]
    site.wait_log("signal 6")  # its client may be told before the master buries the worker
    out = replay("--config", site.argv[-1], path)
    assert out.returncode == 1 and out.stdout.startswith(b"HTTP/1.1 502 ")
    site.wait_log("signal 6", 2)
    with open(path, "rb") as f:
        text = f.read().replace(b"PATCH /crash?id=1 ", b"PUT /echo?id=2 ").replace(b"Content-Length: 4\r\n", b"").replace(b"body", b"another body\n")
    edited = work.path("edited")
    with open(edited, "wb") as f:
        f.write(text.replace(b"\r\n", b"\n"))
    out = replay("--config", site.argv[-1], edited)
    assert out.returncode == 0 and out.stdout.startswith(b"HTTP/1.1 200 ") and out.stdout.endswith(b"\nanother body\n")
    assert b"REQUEST_METHOD=PUT\n" in out.stdout and b"HTTP_X_SOME=thing\n" in out.stdout and b"CONTENT_LENGTH=13\n" in out.stdout


@pytest.mark.parametrize("text,line,what", [
    ("", 1, "no request"),
    ("# only this\n", 2, "no request"),
    ("GET /\nHost: a\n\n", 1, "request line"),
    ("# x\r\nGET  / HTTP/1.1\r\nHost: a\r\n\r\n", 2, "request line"),
    ("GET / HTTP/2\nHost: a\n\n", 1, "request line"),
    ("GET / HTTP/1.1\nHost: a\nno field\n\n", 3, "no field"),
    ("GET / HTTP/1.1\nHost : a\n\n", 2, "no field"),
    ("GET / HTTP/1.1\nHost: a\nX: \x01\n\n", 3, "byte"),
    ("# a\n# b\nGET / HTTP/1.1\nX: a\n\n", 3, "no Host"),
    ("POST / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabcd", 3, "says 3, but 4"),
    ("POST / HTTP/1.1\nContent-Length: x\nHost: a\n\nabcd", 2, "no number"),
    ("POST / HTTP/1.1\nHost: a\nContent-Length: 4\nContent-Length: 3\n\nabcd", 4, "line 3"),
    ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n0\n\n", 3, "Transfer-Encoding"),
])
def test_what_is_wrong_with_a_file_is_told_with_its_line(work, text, line, what):
    path = work.path("request")
    with open(path, "w", newline="") as f:
        f.write(text)
    out = replay("--to", "127.0.0.1:1", path)
    assert out.returncode == 1 and out.stdout == b""
    assert out.stderr.decode().startswith(f"{path}:{line}: ") and what in out.stderr.decode()


def test_each_form_of_answer_is_printed(work):
    site, _ = a_site(work, streams=1)
    path = work.path("request")

    def ask(target, method="GET", connection=""):
        with open(path, "w") as f:
            f.write(f"{method} {target} HTTP/1.1\nHost: a\n{connection}\n")
        out = replay("--to", "%s:%d" % site.address, path)
        assert out.returncode == 0, out.stderr
        return out.stdout

    assert ask("/big?bytes=3000000").partition(b"\r\n\r\n")[2] == Client(site.address).ask("GET", "/big?bytes=3000000").body
    assert ask("/stream?parts=3&ms=1").endswith(b"data: part 3 of 3\n\n") and b"\r\n" not in ask("/stream?parts=3").partition(b"\r\n\r\n")[2]
    assert ask("/big?bytes=100", "HEAD").endswith(b"\r\n\r\n")
    assert ask("/nowhere").startswith(b"HTTP/1.1 404 ")
    assert ask("/echo", connection="Connection: keep-alive\nExpect: 100-continue\n").startswith(b"HTTP/1.1 200 ")


def test_replay_finds_the_listener_that_can_be_spoken_to(work):
    door = work.path("door.sock")
    site, _ = a_site(work, more={"listen secret": {"address": "%s:%d" % daemon.free_address(), "redirect_https": "on"},
                                 "listen door": {"address": "unix:" + door, "proxy_protocol": "on"}},
                     forebay={"trusted": "unix"})
    path = work.path("request")
    with open(path, "w") as f:
        f.write("GET /echo HTTP/1.1\nHost: a\n")  # without a body the empty line may be missing, too
    assert replay("-c", site.argv[-1], path).stdout.startswith(b"HTTP/1.1 200 ")
    with open(site.argv[-1]) as f:
        text = f.read().replace("[listen main]\n", "[listen main]\nredirect_https = on\n")
    assert replay("-c", work.write("other.ini", text), path).stdout.startswith(b"HTTP/1.1 200 ")
    with open(work.write("none.ini", text.replace("proxy_protocol = on", "redirect_https = on"))) as f:
        out = replay("-c", f.name, path)
    assert out.returncode == 1 and b"has no listener that serves" in out.stderr
    for args in ((), (path, path), ("--to", "nonsense", path), ("-c", "a", "--to", "127.0.0.1:1", path), ("--what", path)):
        assert replay(*args).returncode == 2, args
    out = replay("--to", "127.0.0.1:1", path)
    assert out.returncode == 1 and b"127.0.0.1:1: Connection refused" in out.stderr
    out = replay("--to", "127.0.0.1:1", path + "-not")
    assert out.returncode == 1 and b"No such file" in out.stderr


@pytest.mark.parametrize("first", ["", "PROXY"])
def test_replay_speaks_tls_where_there_is_nothing_else(work, first):
    ca = certs.CA(work.dir)
    pair = ca.issue("site", ["site.example"])
    site, folder = a_site(work, listen={"tls": "site", **({"proxy_protocol": "on"} if first else {})},
                          more={"tls site": pair.options,
                                "listen elsewhere": {"address": "%s:%d" % daemon.free_address(), "redirect_https": "on"}},
                          forebay={"trusted": "127.0.0.1"})
    body = pattern(3 * MB, 5)
    with secure.SecureClient(site.address, first=b"PROXY UNKNOWN\r\n" if first else b"", name="site.example") as c:
        c.send(message("POST", "/crash", [("Host", "site.example:443")], body))
        assert c.response().status == 502
    site.wait_log("event=quarantined")  # all of it is there
    path = files(site, folder)[0]
    with open(path, "rb") as f:
        text = f.read().replace(b"POST /crash ", b"POST /echo ")
    with open(path, "wb") as f:
        f.write(text)
    out = replay("--config", site.argv[-1], path)
    assert out.returncode == 0 and out.stderr == b"" and out.stdout.startswith(b"HTTP/1.1 200 ")
    assert out.stdout.endswith(body) and b"HTTPS=on\n" in out.stdout and b"HTTP_HOST=site.example:443\n" in out.stdout


@pytest.mark.parametrize("host,name", [("site.example:443", "site.example"), ("site.example", "site.example"), ("127.0.0.1:8", None),
                                       ("[::1]:8", None), ("a." * 200, None)])
def test_replay_asks_for_the_name_of_the_request(work, host, name):
    pair = certs.CA(work.dir).issue("site", ["site.example"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    asked = []
    context.sni_callback = lambda sock, given, context: asked.append(given)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = work.write("other.ini", "[listen a]\naddress = 127.0.0.1:%d\ntls = a\n[tls a]\ncertificate = %s\nkey = %s\n"
                            "[pool a]\napp = demo\n[route *]\npool = a\n" % (listener.getsockname()[1], pair.certificate, pair.key))
        sender = subprocess.Popen([FOREBAY, "replay", "-c", config, work.write("request", f"GET / HTTP/1.1\nHost: {host}\n\n")],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with context.wrap_socket(listener.accept()[0], server_side=True) as sock:
            got = b""
            while not got.endswith(b"\r\n\r\n"):
                got += sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nto the end")
            if name:  # the end of the others is not said, so they may have been cut
                with contextlib.suppress(OSError):
                    sock.unwrap()
    said = sender.communicate(timeout=60)[0]
    assert asked == [name] and got.startswith(b"GET / HTTP/1.1\r\nHost: %s\r\n" % host.encode())
    assert said.startswith(b"HTTP/1.1 200 OK\r\n\r\nto the end")
    assert (sender.returncode, b"the answer was cut" in said) == ((0, False) if name else (1, True))


def test_replay_says_that_it_has_no_certificate(work):
    ca = certs.CA(work.dir)
    pair = ca.issue("site", ["site.example"])
    options = {**pair.options, "client_ca": ca.certificate, "client_verify": "require"}
    site, _ = a_site(work, listen={"tls": "main"}, more={"tls main": options})
    out = replay("--config", site.argv[-1], work.write("request", "GET / HTTP/1.1\nHost: a\n\n"))
    assert out.returncode == 1 and b"without a client's certificate" in out.stderr


# What the application is told


def test_a_mounted_application_sees_its_own_path(work):
    site, _ = a_site(work, more={"route */blog": {"pool": "app", "mount": "/blog"}})
    for target, names in (("/blog/echo?a", ("/blog", "/echo")), ("/%62log/ec%68o", ("/blog", "/echo")), ("/echo", ("", "/echo"))):
        r = site.ask("GET", target)
        got = dict(line.split("=", 1) for line in r.body.split(b"\n\n")[0].decode().split("\n") if line)
        assert r.status == 200 and (got["SCRIPT_NAME"], got["PATH_INFO"]) == names and got["REQUEST_URI"] == target
        assert got["FOREBAY_REQUEST_ID"] == r.get("X-Request-Id") and 0 <= float(got["FOREBAY_QUEUE_MS"]) < 60_000


def test_the_time_that_a_request_waited_is_told(work):
    site, _ = a_site(work, processes=1)
    with site.connect() as first, site.connect() as second:
        first.send(message("GET", "/sleep?ms=500"))
        wait_for(site.begun, "the first to be in the worker")
        second.send(message("GET", "/echo"))
        waited = float(second.response().body.partition(b"FOREBAY_QUEUE_MS=")[2].split(b"\n")[0])
        assert first.response().status == 200
    entry = site.wait_access(lambda e: e["target"] == "/echo")[0]
    assert abs(waited - entry["queue_ms"]) < 2 and waited > 0
