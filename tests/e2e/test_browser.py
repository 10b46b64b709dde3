"""Chromium, headless, over HTTP/2: a page with a hundred scripts, and an upload form."""

import os
import re
import shutil
import signal

import pytest

from certs import CA
from client import Cut
from daemon import Process
from procs import wait_for
from tools import pattern

CHROMIUM = shutil.which("chromium")
SCRIPTS = 100
UPLOAD = 300_000

PAGE = """<!doctype html><meta charset="utf-8"><title>page</title><link rel="icon" href="data:,">
<script>var loaded = 0;</script>
%s
<form id="form" method="post" action="/upload" enctype="multipart/form-data"><input type="file" name="file" id="file"></form>
<script>
onload = function () {
	var protocols = performance.getEntriesByType("resource").filter(e => e.name.includes("/script/")).map(e => e.nextHopProtocol);
	var h2 = protocols.filter(p => p === "h2").length;
	var bytes = new Uint8Array(%d);
	for (var i = 0; i < bytes.length; i++) bytes[i] = i %% 251;
	var files = new DataTransfer();
	files.items.add(new File([bytes], "file.bin"));
	document.getElementById("file").files = files.files;
	document.getElementById("form").action = "/upload?loaded=" + loaded + "&h2=" + h2 +
	    "&page=" + performance.getEntriesByType("navigation")[0].nextHopProtocol;
	document.getElementById("form").submit();
};
</script>
""" % ("\n".join(f'<script src="/script/{n}"></script>' for n in range(SCRIPTS)), UPLOAD)


def answer_of(seen):
    """Media type and content."""
    if seen.target == "/":
        return b"text/html", PAGE.encode()
    if seen.target.startswith("/script/"):
        return b"text/javascript", b"loaded++; // " + pattern(3000).hex().encode()
    if seen.target.startswith("/upload"):
        return b"text/html", b"<title>done</title><img src=/after>"
    return b"text/plain", b"ok"


def application(conn):
    while True:
        try:
            seen = conn.request()
        except Cut:
            return
        kind, content = answer_of(seen)
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(content), content))


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here")
def test_a_page_and_an_upload(work):
    backend = work.backend(application)
    site = work.forebay({"socket": backend.name, "slots": 2}, listen={"tls": "test", "http2": "yes"},
                        more={"tls test": CA(work.dir).issue("test", ["test"]).options})
    profile = work.path("profile")
    os.mkdir(profile)
    browser = Process(work, "chromium", [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                                         "--no-first-run", "--disable-background-networking", "--disable-component-update",
                                         "--disable-sync", "--ignore-certificate-errors", f"--user-data-dir={profile}",
                                         "--host-resolver-rules=MAP test %s" % site.address[0], "--remote-debugging-port=0",
                                         f"https://test:{site.address[1]}/"], env={**os.environ, "HOME": work.dir})
    try:
        wait_for(lambda: any(s.target == "/after" for s in backend.seen) or not browser.running(),
                 lambda: f"the page behind the upload; there were {[s.target for s in backend.seen][-5:]}\n{browser.log()[-2000:]}")
    finally:
        browser.kill_group(signal.SIGTERM)
    targets = [s.target for s in backend.seen]
    assert sorted(t for t in targets if t.startswith("/script/")) == sorted(f"/script/{n}" for n in range(SCRIPTS))
    (upload,) = [s for s in backend.seen if s.target.startswith("/upload")]
    assert upload.method == "POST" and upload.target == f"/upload?loaded={SCRIPTS}&h2={SCRIPTS}&page=h2"
    boundary = re.fullmatch(r"multipart/form-data; boundary=(\S+)", upload.get("Content-Type")).group(1).encode()
    head, _, rest = upload.body.partition(b"\r\n\r\n")
    assert b'name="file"; filename="file.bin"' in head and head.startswith(b"--" + boundary)
    assert rest == bytes(n % 251 for n in range(UPLOAD)) + b"\r\n--" + boundary + b"--\r\n"
    assert upload.get("X-Forwarded-Proto") == "https" and upload.get("Host") == f"test:{site.address[1]}"
