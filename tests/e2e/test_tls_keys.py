"""Certificates, keys, staples, tickets and clients' certificates, as openssl's client and other programs see them; and their renewal.
FOREBAY_TEST_RENEWALS says how many times the pair is renewed under load, once a second: 60 is a minute."""

import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

import certs
import procs
from daemon import run, scaled
from procs import wait_for

RENEWALS = int(os.environ.get("FOREBAY_TEST_RENEWALS") or scaled(5, 2))
DEMO = {"app": "demo", "processes": 2}
RSA_ONLY = ["-sigalgs", "rsa_pss_rsae_sha256"]
EC_ONLY = ["-sigalgs", "ECDSA+SHA256"]


def tls_site(work, sections, listen=None, pool=None, more=None, **kw):
    """A site with these [tls NAME], the first of them the default."""
    sections = {"tls " + name: options for name, options in sections.items()}
    names = [name[4:] for name in sections]
    return work.forebay(pool or DEMO, listen={"tls": names, **(listen or {})}, more={**sections, **(more or {})}, **kw)


def s_client(site, *args, request=None, expect=0):
    """What openssl's client has to say. With a request, the connection lasts until it is answered."""
    data = b"GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n" % request.encode() if request else b""
    args = [*(["-ign_eof"] if request else []), *args]
    done = subprocess.run(["openssl", "s_client", "-connect", "%s:%d" % site.address, *args], input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=procs.DEADLINE)
    assert expect is None or (done.returncode == 0) == (expect == 0), done.stdout.decode(errors="replace")
    return done.stdout.decode(errors="replace")


def served(site, *args):
    """The serial of the certificate that is served."""
    text = s_client(site, *args)
    return certs.openssl("x509", "-noout", "-serial", data=text.encode()).decode().strip().partition("=")[2]


@pytest.fixture
def ca(work):
    return certs.CA(work.dir)


# Names


@pytest.fixture(scope="module")
def names(shared):
    ca = certs.CA(shared.dir)
    pairs = {"main": ca.issue("main", ["example.test", "*.example.test"]),
             "rsa": ca.issue("rsa", ["example.test", "*.example.test"], kind="rsa"),
             "other": ca.issue("other", ["other.test"])}
    site = tls_site(shared, {name: pair.options for name, pair in pairs.items()}, name="names")
    site.serials = {pair.serial(): name for name, pair in pairs.items()}
    site.ca = ca.certificate
    return site


@pytest.mark.parametrize("name, args, expected", [
    ("example.test", [], "main"), ("example.test", EC_ONLY, "main"), ("example.test", RSA_ONLY, "rsa"),
    ("www.example.test", RSA_ONLY, "rsa"), ("WWW.Example.Test", [], "main"), ("a.www.example.test", [], "main"),
    ("other.test", [], "other"), ("unknown.test", [], "main"), ("unknown.test", RSA_ONLY, "rsa"), (None, [], "main"),
    ("example.test", ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "rsa"),
    ("example.test", ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "main")])
def test_a_client_gets_the_certificate_for_its_name(names, name, args, expected):
    sni = ["-servername", name] if name else ["-noservername"]
    assert names.serials[served(names, *sni, *args)] == expected


def test_the_chain_leads_to_its_root(names):
    text = s_client(names, "-servername", "example.test", "-CAfile", names.ca, "-verify_return_error", "-verify_hostname", "example.test")
    assert "Verify return code: 0 (ok)" in text


def test_tls_1_1_is_over(names):
    text = s_client(names, "-tls1_1", "-cipher", "ALL@SECLEVEL=0", expect=1)
    assert "alert protocol version" in text or "unsupported protocol" in text, text


def test_renegotiation_is_refused(names):
    done = subprocess.run(["openssl", "s_client", "-connect", "%s:%d" % names.address, "-tls1_2"], input=b"R\n", stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=procs.DEADLINE)
    assert b"RENEGOTIATING" in done.stdout and b"no renegotiation" in done.stdout, done.stdout


def test_the_modern_profile_has_tls_1_3_alone(work, ca):
    site = tls_site(work, {"main": {**ca.issue("main", ["a.test"]).options, "profile": "modern"}})
    assert "TLSv1.3" in s_client(site)
    assert "alert protocol version" in s_client(site, "-tls1_2", expect=1)


# Protocols


@pytest.mark.parametrize("http2, offered, chosen", [
    ("yes", "h2,http/1.1", "h2"), ("yes", "http/1.1,h2", "h2"), ("yes", "http/1.1", "http/1.1"), ("no", "h2,http/1.1", "http/1.1"),
    ("no", "h2", None), ("yes", "spdy/3", None), ("yes", "", "")])
def test_the_protocol_is_one_that_both_have(work, ca, http2, offered, chosen):
    site = tls_site(work, {"main": ca.issue("main", ["a.test"]).options}, listen={"http2": http2})
    text = s_client(site, *(["-alpn", offered] if offered else []), expect=1 if chosen is None else 0)
    if chosen is None:
        assert "no application protocol" in text
    else:
        assert (f"ALPN protocol: {chosen}" if chosen else "No ALPN negotiated") in text


# Staples


def test_a_staple_is_served_and_refreshed(work, ca):
    pair = ca.issue("main", ["a.test"])
    rsa = ca.issue("rsa", ["a.test"], kind="rsa")
    site = tls_site(work, {"main": {**pair.options, "ocsp_staple": ca.staple(pair, minutes=60)}, "rsa": rsa.options})
    first = s_client(site, "-status")
    assert "OCSP Response Status: successful" in first and "Cert Status: good" in first
    assert "no response sent" in s_client(site, "-status", *RSA_ONLY)
    assert "OCSP" not in s_client(site)
    ca.staple(pair, minutes=600)
    site.wait_log("event=tls_files_changed tls=main")
    next_update = re.compile("Next Update: (.*)")
    wait_for(lambda: next_update.findall(s_client(site, "-status")) != next_update.findall(first), "the new staple")


def test_a_staple_of_another_certificate_is_left_out_and_told(work, ca):
    pair, other = ca.issue("main", ["a.test"]), ca.issue("other", ["a.test"])
    site = tls_site(work, {"main": {**pair.options, "ocsp_staple": ca.staple(other)}})
    assert "found an answer about another certificate, expected one about this certificate" in site.log()
    assert "no response sent" in s_client(site, "-status")


# Clients' certificates


def ask_worker(site, ca, *args, pair=None):
    """What the worker is told of a client: {field: value}; its fields are sent as if by somebody who deceives."""
    shown = ["--cert", pair.certificate, "--key", pair.key] if pair else []
    for field in ("Verify: SUCCESS", "Subject: CN=evil", "Fingerprint: 00", "Issuer: CN=evil", "Serial: 1"):
        shown += ["-H", "X-Client-" + field]
    done = subprocess.run(["curl", "-sS", "--max-time", "30", "--cacert", ca.certificate, "--resolve",
                           "a.test:%d:%s" % (site.address[1], site.address[0]), *shown, *args, "https://a.test:%d/" % site.address[1]],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=procs.DEADLINE)
    if done.returncode:
        return done.stdout.decode()
    (seen,) = site.backend.take()
    return {name[9:].lower(): value for name, value in seen.headers if name.lower().startswith("x-client-")}


def asking_site(work, ca, verify, listen=None):
    backend = work.backend()
    site = tls_site(work, {"main": {**ca.issue("main", ["a.test"]).options, "client_ca": ca.certificate, "client_verify": verify},
                           "b": ca.issue("b", ["b.test"]).options}, listen=listen, pool={"socket": backend.name, "slots": 2})
    site.backend = backend
    return site


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_the_worker_knows_who_the_client_is(work, ca, version):
    site = asking_site(work, ca, "optional", {"http2": "yes"})
    friend = ca.issue("friend", usage="clientAuth", cn="friend")
    told = {"verify": "SUCCESS", "subject": "CN=friend", "issuer": "CN=forebay test ca", "serial": friend.serial(),
            "fingerprint": friend.fingerprint()}
    assert ask_worker(site, ca, version, pair=friend) == told
    assert ask_worker(site, ca, version) == {"verify": "NONE"}
    os.mkdir(work.path("elsewhere"))
    stranger = certs.CA(work.path("elsewhere"), "elsewhere").issue("stranger", usage="clientAuth", cn="friend")
    assert re.fullmatch("FAILED:.+", ask_worker(site, ca, version, pair=stranger).pop("verify"))
    assert list(ask_worker(site, ca, version, pair=stranger)) == ["verify"]
    # A server's certificate is none for a client.
    server = ca.issue("server", ["a.test"])
    assert ask_worker(site, ca, version, pair=server)["verify"].startswith("FAILED:")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_who_has_no_certificate_is_refused_under_every_name(work, ca, version):
    site = asking_site(work, ca, "require")
    friend = ca.issue("friend", usage="clientAuth", cn="friend")
    assert ask_worker(site, ca, "--tls-max", version, pair=friend)["verify"] == "SUCCESS"
    expired = ca.issue("expired", usage="clientAuth", days=-1)
    for args, pair in (((), None), ((), expired), (("--resolve", "b.test:%d:%s" % (site.address[1], site.address[0])), None)):
        assert isinstance(ask_worker(site, ca, "--tls-max", version, *args, pair=pair), str)
    assert "alert" in s_client(site, "-servername", "b.test", request="/", expect=None)
    assert site.backend.take() == []


def test_nobody_but_forebay_says_who_a_client_is(work, ca):
    backend = work.backend()
    site = tls_site(work, {"main": ca.issue("main", ["a.test"]).options}, pool={"socket": backend.name, "slots": 1})
    site.backend = backend
    assert ask_worker(site, ca) == {}


def test_own_workers_get_variables(work, ca):
    site = tls_site(work, {"main": {**ca.issue("main", ["a.test"]).options, "client_ca": ca.certificate, "client_verify": "require"}})
    friend = ca.issue("friend", usage="clientAuth", cn="friend")
    text = s_client(site, "-cert", friend.certificate, "-key", friend.key, request="/echo")
    assert "SSL_CLIENT_VERIFY" in text and "SSL_CLIENT_S_DN" in text and friend.fingerprint() in text, text


# Sessions


def begin(site, path, *args):
    """A session of this site in a file."""
    text = s_client(site, "-sess_out", path, *args, request="/")
    assert "New, TLS" in text and os.path.getsize(path) > 0, text


def resumes(site, path, *args):
    text = s_client(site, "-sess_in", path, *args, request="/")
    assert "Reused, TLS" in text or "New, TLS" in text, text
    return "Reused, TLS" in text


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_is_resumed(work, ca, version):
    site = tls_site(work, {"main": ca.issue("main", ["a.test"]).options})
    begin(site, work.path("session"), version)
    assert all(resumes(site, work.path("session"), version) for _ in range(8))  # whichever thread it meets


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_is_resumed_by_the_front_that_takes_a_lost_ones_place(work, ca, version):
    site = tls_site(work, {"main": ca.issue("main", ["a.test"]).options})
    begin(site, work.path("session"), version)
    lost = site.front()
    os.kill(lost, signal.SIGKILL)
    wait_for(lambda: site.front() not in (None, lost), "another front")
    assert resumes(site, work.path("session"), version)


def test_sessions_without_tickets_are_shared_by_the_threads(work, ca):
    site = tls_site(work, {"main": ca.issue("main", ["a.test"]).options})
    begin(site, work.path("session"), "-tls1_2", "-no_ticket")
    assert all(resumes(site, work.path("session"), "-tls1_2", "-no_ticket") for _ in range(8))


def test_a_handshake_gives_one_ticket(work, ca):
    site = tls_site(work, {"main": ca.issue("main", ["a.test"]).options})
    assert s_client(site, "-tls1_3", request="/").count("Post-Handshake New Session Ticket arrived") == 1


def test_no_tickets_where_they_are_off(work, ca):
    site = tls_site(work, {"main": {**ca.issue("main", ["a.test"]).options, "session_tickets": "off", "session_cache": "0"}})
    assert "New Session Ticket" not in s_client(site, "-tls1_3", request="/")
    s_client(site, "-tls1_2", "-sess_out", work.path("session"), request="/")
    assert not os.path.exists(work.path("session"))  # no ticket, and no name either


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("size", [48, 80])
def test_tickets_are_known_on_two_machines_and_across_a_rotation(work, ca, version, size):
    """As it is done by hand on several machines: the next key is everywhere before anybody encrypts with it."""
    new, old = certs.ticket_key(work.path("new.key"), size), certs.ticket_key(work.path("old.key"), size)
    sections = {"main": {**ca.issue("main", ["a.test"]).options, "ticket_key_file": [new, old]}}
    sites = [tls_site(work, sections, name=name) for name in ("one", "two")]
    first, second = work.path("first"), work.path("second")
    begin(sites[0], first, version)
    assert resumes(sites[1], first, version)
    # Both turn: the one that encrypted becomes the old one.
    certs.write(old, certs.read(new))
    certs.write(new, os.urandom(size))
    for site in sites:
        wait_for(lambda: changed_to(site, version, work.path("probe")), "the new keys")
    assert resumes(sites[0], first, version) and resumes(sites[1], first, version)
    begin(sites[1], second, version)
    assert resumes(sites[0], second, version)
    # And again: what was encrypted two turns ago is a full handshake, which is no error.
    certs.write(old, certs.read(new))
    wait_for(lambda: not resumes(sites[0], first, version), "the first key to be forgotten")
    assert resumes(sites[0], second, version)


def changed_to(site, version, path):
    """Looks whether the new first key is in use: its name begins each ticket."""
    begin(site, path, version)
    text = certs.openssl("sess_id", "-in", path, "-noout", "-text").decode()
    name = re.search(r"TLS session ticket:\n\s+0000 - ([0-9a-f -]+?)   ", text).group(1).replace("-", " ").split()
    return bytes.fromhex("".join(name)) == certs.read(site.work.path("new.key"))[:16]


def test_a_new_certificate_ends_no_session(work, ca):
    pair = ca.issue("main", ["a.test"])
    site = tls_site(work, {"main": pair.options})
    begin(site, work.path("session"))
    ca.issue("main", ["a.test"])
    wait_for(lambda: served(site) == pair.serial(), "the new certificate")
    assert resumes(site, work.path("session"))


# Files


def test_the_front_opens_no_key(work, ca):
    """Its user could not: the files are root's, and no other's."""
    pair = ca.issue("main", ["a.test"])
    site = tls_site(work, {"main": pair.options})
    assert os.stat(pair.key).st_mode & 0o077 == 0
    assert served(site) == pair.serial()
    assert not [t for t in procs.descriptor_targets(site.front()) if t.endswith((".pem", ".key")) or "forebay-keys" in t]


def test_what_is_wrong_with_a_file_is_told_in_words(work, ca):
    pair, other = ca.issue("main", ["a.test"]), ca.issue("other", ["a.test"])
    path, _ = work.config(DEMO, listen={"tls": "main"}, more={"tls main": {"certificate": pair.certificate, "key": other.key}})
    done = run("-t", "-c", path)
    assert done.returncode == 1
    assert f"tls main.key: {other.key}: found the key of another certificate, expected the key of {pair.certificate}" in done.stderr
    done = run("-c", path)
    assert done.returncode == 1 and "found the key of another certificate" in done.stderr
    certs.write(other.key, certs.read(pair.key))
    assert run("-t", "-c", path).returncode == 0


def test_a_broken_new_file_keeps_the_old_one(work, ca):
    pair = ca.issue("main", ["a.test"])
    site = tls_site(work, {"main": pair.options})
    serial = pair.serial()
    certs.write(pair.certificate, b"nonsense\n")
    site.wait_log("event=tls_files_refused old=stays what=tls main.certificate: " + pair.certificate + ": found no certificate")
    assert served(site) == serial
    ca.issue("main", ["a.test"])
    wait_for(lambda: served(site) == pair.serial() != serial, "the new certificate")


def test_a_connection_keeps_its_certificate_and_lives_on(work, ca):
    pair = ca.issue("main", ["a.test"])
    site = tls_site(work, {"main": pair.options})
    client = subprocess.Popen(["openssl", "s_client", "-connect", "%s:%d" % site.address, "-ign_eof", "-quiet"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with client:
        client.stdin.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        client.stdin.flush()
        assert b" 200 " in client.stdout.readline()
        for _ in range(3):
            ca.issue("main", ["a.test"])
            wait_for(lambda: served(site) == pair.serial(), "the new certificate")
        client.stdin.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        client.stdin.close()
        assert client.stdout.read().count(b"HTTP/1.1 200 ") == 1


def test_a_new_front_serves_the_newest(work, ca):
    pair = ca.issue("main", ["a.test"])
    site = tls_site(work, {"main": pair.options})
    ca.issue("main", ["a.test"])
    wait_for(lambda: served(site) == pair.serial(), "the new certificate")
    front = site.front()
    procs.kill(front, 9)
    wait_for(lambda: site.front() not in (None, front), "another front")
    site.wait_log("event=front_restart")
    wait_for(lambda: pair.serial() in serial_or_nothing(site), "the new front to serve")


def serial_or_nothing(site):
    text = s_client(site, expect=None)
    if "BEGIN CERTIFICATE" not in text:
        return ""
    return certs.openssl("x509", "-noout", "-serial", data=text.encode()).decode()


# Renewal under load


def renew(ca, count):
    """A new pair every second."""
    for _ in range(count):
        start = time.monotonic()
        ca.issue("main", ["a.test"])
        time.sleep(max(0, 1 - (time.monotonic() - start)))


def test_renewal_under_load_fails_no_request(work, ca):
    """wrk begins a connection anew every 50 requests."""
    pair = ca.issue("main", ["a.test"])
    site = tls_site(work, {"main": pair.options}, listen={"keepalive_requests": 50}, forebay={"access_log": "off"})
    first = pair.serial()
    load = subprocess.Popen(["wrk", "-c", "64", "-t", "1", "-d", str(RENEWALS + 2), "-s", work.write("count.lua", COUNT),
                             "https://%s:%d/" % site.address], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with load:
        renew(ca, RENEWALS)
        out = load.stdout.read().decode()
    result = json.loads(out[out.index("{"):])
    assert result["failed"] == 0 and result["requests"] > 0, out
    wait_for(lambda: served(site) == pair.serial() != first, "the newest certificate")
    assert site.log().count("event=certificate_renewed") >= RENEWALS // 2  # two may come as one
    assert "refused" not in site.log()


def test_renewal_under_http2_fails_no_request(work, ca):
    """h2load again and again, each time with connections of its own."""
    pair = ca.issue("main", ["a.test"])
    site = tls_site(work, {"main": pair.options}, listen={"http2": "yes"}, forebay={"access_log": "off"})
    first, done = pair.serial(), threading.Event()
    outs = []

    def load():
        while not done.is_set():
            outs.append(subprocess.run(["h2load", "-c", "16", "-t", "1", "-m", "10", "-n", "400", "https://%s:%d/" % site.address],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       timeout=procs.DEADLINE).stdout.decode())

    thread = threading.Thread(target=load)
    thread.start()
    try:
        renew(ca, min(RENEWALS, 10))
    finally:
        done.set()
        thread.join()
    wait_for(lambda: served(site) == pair.serial() != first, "the newest certificate")
    assert outs
    for out in outs:
        assert "400 done, 400 succeeded, 0 failed, 0 errored, 0 timeout" in out and "Application protocol: h2" in out, out


COUNT = """done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests": %d, "failed": %d}\\n', summary.requests, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


# Scanners


def test_sslscan_finds_nothing_weak(names):
    done = subprocess.run(["sslscan", "--no-colour", "--sni-name=example.test", "%s:%d" % names.address], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=procs.DEADLINE * 3)
    text = done.stdout.decode()
    assert done.returncode == 0, text
    for protocol in ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"):
        assert re.search(protocol + r"\s+disabled", text), text
    for protocol in ("TLSv1.2", "TLSv1.3"):
        assert re.search(protocol + r"\s+enabled", text), text
    assert "Session renegotiation not supported" in text, text
    assert "vulnerable" not in text.replace("not vulnerable", ""), text
    bits = re.findall(r"(?:Preferred|Accepted)\s+TLSv1\.\d\s+(\d+) bits\s+(\S+)", text)
    assert bits and all(int(n) >= 128 and not re.search("CBC|RC4|DES|-SHA$|NULL|EXP", cipher) for n, cipher in bits), bits


def test_testssl_finds_nothing_above_low(names, work):
    """Of the certificates themselves only what is forebay's: these are from no public authority."""
    report = work.path("testssl.json")
    env = {**os.environ, "TERM": "dumb"}
    subprocess.run(["testssl", "--quiet", "--color", "0", "--warnings", "off", "--openssl-timeout", "20", "--protocols", "--std",
                    "--fs", "--server-defaults", "--vulnerable", "--ip", "one", "--add-ca", names.ca, "--jsonfile", report,
                    "%s:%d" % names.address],
                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, env=env)
    with open(report) as f:
        findings = json.load(f)
    assert len(findings) > 40, findings
    ours = [f for f in findings if not f["id"].startswith(("cert_", "OCSP_", "DNS_CAArecord", "scanTime"))]
    assert len(ours) > 30, findings
    # WARN is what testssl itself could not do.
    bad = [f for f in ours if f["severity"] in ("MEDIUM", "HIGH", "CRITICAL")]
    assert not bad, bad
