"""Under systemd: the units are right, sockets are taken over by name, and the manager hears how it goes. Without a systemd that
runs: its protocols are spoken by the tests."""

import glob
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import time

import pytest

import certs
import procs
from client import ask
from daemon import FOREBAY, POOL_USER, PYTHON, ROOT, TOP, free_address
from procs import wait_for
from secure import SecureClient

UNITS = sorted(glob.glob(os.path.join(TOP, "systemd", "*.service*")) + glob.glob(os.path.join(TOP, "systemd", "*.socket*")))
analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")

# Becomes forebay with sockets from 3 on, as systemd does it: the pid is known only in the process itself.
LAUNCH = """
import os, sys
fds = [int(n) for n in sys.argv[1].split(",") if n]
for i, fd in enumerate(fds):
    os.dup2(fd, 100 + i)
for i in range(len(fds)):
    os.dup2(100 + i, 3 + i, inheritable=True)
    os.close(100 + i)
if fds:
    os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), str(len(fds))
if "WATCHDOG_USEC" in os.environ:
    os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """The datagram socket that a service manager listens on."""

    def __init__(self, work):
        self.path = work.path("notify.sock")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        os.chmod(self.path, 0o666)
        self.sock.setblocking(False)
        self.heard = []
        work.closers.append(self.sock.close)

    def hear(self):
        while select.select([self.sock], [], [], 0)[0]:
            self.heard += self.sock.recv(65536).decode().split("\n")
        return self.heard

    def wait(self, line, count=1):
        wait_for(lambda: self.hear().count(line) >= count, lambda: f"{line} from forebay; it said {self.heard}")


def launch(work, path, address, sockets=(), env=None, ready=True, **kw):
    """forebay by way of a process that hands it sockets."""
    from daemon import Forebay

    site = object.__new__(Forebay)
    site.address, site.expected, site.access_path = address, {0}, work.path("forebay.access")
    site.log_elsewhere = False
    fds = [s.fileno() for s in sockets]
    environment = {**os.environ, **(env or {})}
    super(Forebay, site).__init__(work, "forebay", [PYTHON, "-c", LAUNCH, ",".join(map(str, fds)), FOREBAY, "-c", path], env=environment,
                                  pass_fds=fds, **kw)
    if ready:
        site.wait_ready()
    return site


def listening(address):
    s = socket.create_server(address, reuse_port=True)
    s.setblocking(False)
    return s


@pytest.fixture
def manager(work):
    return Manager(work)


def notify_env(manager, **more):
    return {"NOTIFY_SOCKET": manager.path, **more}


# Units


def patched(tmp_path):
    """The units as installed, but with this build's program, so that what they name is there."""
    for path in UNITS:
        with open(path) as f:
            text = f.read()
        text = re.sub(r"@\w+@", "/usr", text)
        text = re.sub(r"^(ExecStart\w*=[-+!:@]*)\S*/forebay\b", rf"\1{FOREBAY}", text, flags=re.M)
        (tmp_path / os.path.basename(path).removesuffix(".in")).write_text(text)
    return sorted(str(p) for p in tmp_path.iterdir())


@analyze
def test_the_units_are_there_and_verify_clean(tmp_path):
    units = patched(tmp_path)
    names = {os.path.basename(u) for u in units}
    assert {"forebay.service", "forebay-app.service", "forebay.socket"} <= names
    r = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    ours = [line for line in r.stdout.split("\n") if "forebay" in line]
    assert r.returncode == 0 and not ours, r.stdout


@analyze
def test_the_service_is_hardened(tmp_path):
    patched(tmp_path)
    r = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", str(tmp_path / "forebay.service")],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", r.stdout)
    assert level and float(level.group(1)) < 2.0, r.stdout


def test_the_service_says_what_the_daemon_does():
    unit = [u for u in UNITS if os.path.basename(u).startswith("forebay.service")][0]
    with open(unit) as f:
        text = f.read()
    for line in ("Type=notify", "KillMode=mixed", "User=forebay"):
        assert re.search(rf"^{line}$", text, re.M), line
    assert re.search(r"^WatchdogSec=\d", text, re.M)


def app_unit():
    with open(os.path.join(TOP, "systemd/forebay-app.service.in")) as f:
        return f.read()


def test_the_service_for_applications_has_no_sandbox_that_they_would_inherit():
    options = re.findall(r"^(\w+)=", app_unit(), re.M)
    assert "CapabilityBoundingSet" in options and "User" not in options
    inherited = r"Protect|Private|Restrict|SystemCall|NoNewPrivileges|ReadOnly|Inaccessible|LockPersonality|MemoryDeny|SecureBits|RemoveIPC|Device"
    assert not [o for o in options if re.match(inherited, o)]


@pytest.mark.skipif(not ROOT or not shutil.which("setpriv"), reason="root with setpriv only")
def test_the_five_capabilities_of_the_service_for_applications_are_enough(work):
    """The front's and the pool's users are not the master's, the spool is the front's, and a key is nobody's but another's."""
    capabilities = re.search(r"^CapabilityBoundingSet=(.*)$", app_unit(), re.M).group(1).split()
    assert len(capabilities) == 5
    bound = "-all," + ",".join("+" + c.removeprefix("CAP_").lower() for c in capabilities)
    pair = certs.CA(work.dir).issue("site", ["localhost"])
    os.chown(pair.key, pwd.getpwnam(POOL_USER).pw_uid, -1)
    site = work.forebay({"app": "demo", "processes": 1}, listen={"tls": "site"}, more={"tls site": pair.options},
                        wrap=["setpriv", "--inh-caps=-all", "--bounding-set=" + bound])
    with SecureClient(site.address) as c:
        assert c.ask("GET", "/").status == 200
    worker = wait_for(site.workers, "a worker")[0]
    with open(f"/proc/{worker}/status") as f:
        status = dict(line.split(":\t", 1) for line in f)
    assert int(status["NoNewPrivs"]) == 0 and int(status["Seccomp"]) == 0 and int(status["CapEff"], 16) == 0
    procs.kill(worker, signal.SIGKILL)
    wait_for(lambda: site.workers() and site.workers() != [worker], "a new worker")


# Sockets


def test_a_listening_socket_is_taken_over_by_name(work):
    backend = work.backend()
    address = free_address()
    path, _ = work.config({"socket": backend.name, "slots": 1}, address=address)
    with listening(address) as given:
        # Another socket of that address cannot be bound by forebay itself without SO_REUSEPORT on both: it must use this one.
        site = launch(work, path, address, [given], {"LISTEN_FDNAMES": "main"})
    assert ask(address, "GET", "/").body == b"ok"
    assert site.stop() == 0


def test_connections_from_before_the_start_are_served(work):
    """Socket activation: the manager's socket has taken connections before forebay was there."""
    from client import Client, message
    backend = work.backend()
    address = free_address()
    path, _ = work.config({"socket": backend.name, "slots": 1}, address=address, forebay={"threads": 1})
    with listening(address) as given:
        with Client(address) as early:
            early.send(message("GET", "/early"))
            launch(work, path, address, [given], {"LISTEN_FDNAMES": "main"})
            assert early.response().body == b"ok"


def test_a_unix_socket_is_taken_over_and_left_where_it_is(work):
    backend = work.backend()
    there = work.path("given.sock")
    given = socket.socket(socket.AF_UNIX)
    given.bind(there)
    os.chmod(there, 0o666)
    given.listen(16)
    path, _ = work.config({"socket": backend.name, "slots": 1}, listen={"address": "unix:" + there})
    with given:
        site = launch(work, path, there, [given], {"LISTEN_FDNAMES": "main"})
    assert ask(there, "GET", "/").body == b"ok"
    assert site.stop() == 0
    assert os.path.exists(there)  # the manager's


def test_a_socket_that_nobody_asked_for_is_an_error(work):
    backend = work.backend()
    address, other = free_address(), free_address()
    path, _ = work.config({"socket": backend.name, "slots": 1}, address=address)
    with listening(other) as given:
        site = launch(work, path, address, [given], {"LISTEN_FDNAMES": "strange"}, ready=False)
        site.expected = {1}
        assert site.wait() == 1
    assert "strange" in site.log()


def test_sockets_for_another_process_are_left_alone(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, env={**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert site.ask("GET", "/").status == 200


# Notifications


def test_ready_is_said_when_it_serves_and_stopping_when_it_ends(work, manager):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, env={**os.environ, **notify_env(manager)})
    manager.wait("READY=1")
    assert any(line.startswith("STATUS=") for line in manager.heard)
    assert "STOPPING=1" not in manager.hear()
    assert site.ask("GET", "/").status == 200
    procs.kill(site.pid, signal.SIGTERM)
    manager.wait("STOPPING=1")
    assert site.wait() == 0
    assert manager.hear().count("READY=1") == 1


def test_ready_is_not_said_when_it_cannot_serve(work, manager):
    backend = work.backend()
    address = free_address()
    with socket.create_server(address):
        site = work.forebay({"socket": backend.name, "slots": 1}, address=address, ready=False, env={**os.environ, **notify_env(manager)})
        site.expected = {1}
        assert site.wait() == 1
    assert "READY=1" not in manager.hear()


def test_the_watchdog_is_fed_while_all_threads_tick_and_not_when_one_hangs(work, manager):
    backend = work.backend()
    path, address = work.config({"socket": backend.name, "slots": 1})
    site = launch(work, path, address, env=notify_env(manager, WATCHDOG_USEC="400000"))
    manager.wait("WATCHDOG=1", 3)
    front = site.front()
    procs.kill(front, signal.SIGSTOP)
    try:
        wait_for(lambda: procs.state(front) == "T", "the front to stand still")
        before = manager.hear().count("WATCHDOG=1")
        time.sleep(1.5)  # several feedings' time: what is claimed is that they do not happen
        assert manager.hear().count("WATCHDOG=1") <= before + 2  # ticks that were on their way
    finally:
        procs.kill(front, signal.SIGCONT)
    manager.wait("WATCHDOG=1", before + 3)


def test_a_notify_socket_that_nobody_reads_holds_nothing_up(work, manager):
    backend = work.backend()
    env = notify_env(manager, WATCHDOG_USEC="20000")
    path, address = work.config({"socket": backend.name, "slots": 1})
    site = launch(work, path, address, env=env)
    for _ in range(50):
        assert site.ask("GET", "/").status == 200
    assert site.stop() == 0
