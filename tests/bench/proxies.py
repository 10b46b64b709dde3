"""The proxies that are compared, each in front of application servers of its own, and the load: started, and ended by pid."""

import contextlib
import ctypes
import json
import os
import re
import select
import shutil
import signal
import subprocess
from dataclasses import dataclass

import client
import measure
from daemon import free_address
from procs import wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.geteuid() == 0
PROCESSES = {"kept": 8, "fresh": 8, "wide": 128}  # of each application server
DOORS = ("kept", "fresh", "variant", "tls", "rsa")  # the addresses: in front of which application server, or by what kind of TLS
CERTIFICATES = {"tls": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["-newkey", "rsa:2048"]}
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
ANSWER_DEADLINE = 120  # seconds for one command of the load: many times what any takes

CORES = sorted(os.sched_getaffinity(0))
LOAD_CORE, PROXY_CORE = CORES[0], CORES[-1]  # the same on a machine with one: figures hold, rates do not


class Failed(Exception):
    """Something did not run as it must; no figure of it counts."""


BUILT = ("forebay", "floor")  # with the bench


@dataclass(frozen=True)
class Contender:
    name: str  # in tables
    proxy: str  # "forebay", "nginx", "haproxy", "floor"
    variant: bool = False  # nginx with its own buffers, HAProxy that splices: at an address of its own
    ours: str = "forebay"  # the contender that it stands beside
    serves: tuple = ("kept", "fresh")

    def missing(self):
        return self.proxy not in BUILT and not find(self.proxy)


FOREBAY = Contender("forebay", "forebay")
NGINX = Contender("nginx", "nginx")
NGINX_DEFAULT = Contender("nginx default", "nginx", variant=True)
HAPROXY = Contender("haproxy", "haproxy")
HAPROXY_SPLICE = Contender("haproxy splice", "haproxy", variant=True)
FLOOR = Contender("floor", "floor", serves=("kept",))  # no proxy: see floor.c
TEMPLATES = {"forebay": "forebay.ini.in", "nginx": "nginx.conf.in", "haproxy": "haproxy.cfg.in"}


def find(proxy):
    """The program, or None."""
    if proxy == "forebay":
        return os.path.abspath(os.environ.get("FOREBAY") or "forebay")
    return shutil.which(proxy, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def arguments(proxy, config, folder):
    return {"forebay": [find("forebay"), "-c", config],
            "nginx": [find("nginx"), "-p", folder, "-e", "stderr", "-c", config],
            "haproxy": [find("haproxy"), "-db", "-f", config]}[proxy]


def version(proxy):
    words = {"forebay": "--version", "nginx": "-v", "haproxy": "-v"}
    done = subprocess.run([find(proxy), words[proxy]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = re.search(r"\d+\.\d+\S*", done.stdout)
    return found.group() if found else "unknown"


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # that end the bench
LIVE = set()  # children that are to be ended


def at(core, sig):
    """In the child: on this core, and not without us."""
    LIBC.prctl(PR_SET_PDEATHSIG, sig)
    os.sched_setaffinity(0, {core})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_all():
    for child in list(LIVE):
        child.close()


class Child:
    """A process in a session of its own, so that Ctrl-C reaches the bench alone. What it says goes to a file."""

    def __init__(self, argv, core, errors, stdin=subprocess.DEVNULL, stdout=None, end=signal.SIGKILL, cwd=None):
        self.name, self.errors, self.end, self.cwd = os.path.basename(argv[0]), errors, end, cwd
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # nothing is started that LIVE does not know
        try:
            self._start(argv, core, stdin, stdout)
            LIVE.add(self)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _start(self, argv, core, stdin, stdout):
        with open(self.errors, "ab") as log:
            self.popen = subprocess.Popen(argv, stdin=stdin, stdout=stdout or log, stderr=log, start_new_session=True,
                                          cwd=self.cwd, preexec_fn=lambda: at(core, self.end))
        self.pid = self.popen.pid

    def said(self):
        with open(self.errors, errors="replace") as f:
            return f.read()[-2000:]

    def check(self):
        if self.popen.poll() is not None:
            raise Failed(f"{self.name} ended with {self.popen.returncode}: {self.said()}")

    def close(self):
        if self.popen.poll() is None:
            self.popen.send_signal(self.end)
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                for pid in measure.family(self.pid):
                    os.kill(pid, signal.SIGKILL)
        self.popen.wait()
        LIVE.discard(self)
        for stream in (self.popen.stdin, self.popen.stdout):
            with contextlib.suppress(BrokenPipeError):
                if stream:
                    stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Backend(Child):
    def __init__(self, programs, folder, name):
        self.socket, stamps = os.path.join(folder, name + ".sock"), os.path.join(folder, name + ".stamps")
        super().__init__([os.path.join(programs, "backend"), "--socket", self.socket, "--processes", str(PROCESSES[name]),
                          "--stamps", stamps], LOAD_CORE, os.path.join(folder, name + ".err"), stdout=subprocess.PIPE,
                         end=signal.SIGTERM)
        try:
            if self.popen.stdout.readline() != b"ready\n":
                raise Failed(f"backend: {self.said()}")
            self.stamps = measure.Stamps(stamps)
        except BaseException:
            self.close()
            raise


class Load(Child):
    """See load.h: one command a line, one line of JSON back."""

    def __init__(self, programs, folder, kind, address, **options):
        argv = [os.path.join(programs, "load"), kind, "--address", "%s:%d" % address]
        for name, value in options.items():
            argv += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
        super().__init__(argv, LOAD_CORE, os.path.join(folder, f"load-{kind}.err"), stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)

    def ask(self, command):
        try:
            self.popen.stdin.write(command.encode() + b"\n")
            self.popen.stdin.flush()
            ready, _, _ = select.select([self.popen.stdout], [], [], ANSWER_DEADLINE)
            line = self.popen.stdout.readline() if ready else b""
        except BrokenPipeError:
            line = b""
        if not line:
            self.popen.kill()
            self.popen.wait()
            raise Failed(f"load, told to {command}: {self.said() or 'no answer'}")
        return json.loads(line)

    def close(self):
        """It ends with its input."""
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self.popen.stdin.close()
            self.popen.wait(10)
        super().close()


class H2Load(Child):
    """nghttp2's client: so many requests on one connection, so many streams at once; ready() says all were answered with 200."""

    def __init__(self, folder, address, host, path, requests, streams):
        super().__init__([find_tool("h2load"), "-n", str(requests), "-c", "1", "-m", str(streams), "--connect-to=%s:%d" % address,
                          f"https://{host}{path}"], LOAD_CORE, os.path.join(folder, "h2load.err"), stdout=subprocess.PIPE)
        self.requests = requests

    def ready(self):
        try:
            out, _ = self.popen.communicate(timeout=ANSWER_DEADLINE)
        except subprocess.TimeoutExpired:
            raise Failed("h2load does not end") from None
        counts = re.search(rb"(\d+) succeeded, .* timeout\nstatus codes: (\d+) 2xx", out)
        if not counts or set(map(int, counts.groups())) != {self.requests} or b"Application protocol: h2\n" not in out:
            raise Failed(f"h2load: {out.decode(errors='replace')[-1000:]} {self.said()}")


def find_tool(name):
    path = shutil.which(name)
    if not path:
        raise Failed(f"no {name} here (autogen.sh --deps installs it)")
    return path


def make_certificate(folder, name):
    """NAME.crt, NAME.key, and both in one, as HAProxy wants them."""
    at = os.path.join(folder, name)
    made = subprocess.run(["openssl", "req", "-x509", *CERTIFICATES[name], "-nodes", "-subj", "/CN=bench", "-addext",
                           "subjectAltName=DNS:kept,DNS:fresh,DNS:wide", "-days", "2", "-keyout", at + ".key", "-out",
                           at + ".crt"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise Failed(f"openssl: {made.stdout.decode(errors='replace')}")
    with open(at + ".pem", "wb") as both:
        for part in (".crt", ".key"):
            with open(at + part, "rb") as f:
                both.write(f.read())


class Ensemble:
    """Processes that work together in a folder of their own, as a context: begun by _start(), the last one is the first to end."""

    def __init__(self, contender, programs, folder):
        self.contender, self.programs, self.folder = contender, programs, folder
        self.temp = os.path.join(folder, "temp")
        self.children = []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            child.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _add(self, child):
        self.children.append(child)
        return child

    def settle(self):
        measure.settle(self.cpu_ns)


class Stage(Ensemble):
    """One contender with its application servers."""

    def __init__(self, contender, programs, folder, hosts=tuple(PROCESSES)):
        super().__init__(contender, programs, folder)
        self.hosts = hosts

    def _start(self):
        os.mkdir(self.folder, 0o755)
        if self.contender.proxy == "nginx":
            os.mkdir(self.temp, 0o755)  # the others make it, or have none
        for name in CERTIFICATES:
            make_certificate(self.folder, name)
        self.backends = {name: self._add(Backend(self.programs, self.folder, name)) for name in self.hosts}
        self.addresses = {name: free_address() for name in DOORS}
        self.proxy = self._add(Child(self._arguments(), PROXY_CORE, os.path.join(self.folder, "proxy.err"), end=signal.SIGTERM))
        for host in self.contender.serves:
            wait_for(lambda: self._answers(host), f"{self.contender.name} to answer")
        self.pids = measure.family(self.proxy.pid)

    def _arguments(self):
        if self.contender.proxy == "floor":
            ip, port = self.address("kept")
            return [os.path.join(self.programs, "floor"), ip, str(port), self.backends["kept"].socket]
        return arguments(self.contender.proxy, self._config(), self.folder)

    def _config(self):
        values = {"FOLDER": self.folder, "TEMP": self.temp, "AS_ROOT": "" if ROOT else "# "}
        values.update({name.upper(): "%s:%d" % address for name, address in self.addresses.items()})
        values.update({name.upper() + "_SOCKET": os.path.join(self.folder, name + ".sock") for name in PROCESSES})
        with open(os.path.join(HERE, TEMPLATES[self.contender.proxy])) as f:
            text = re.sub("@([A-Z_]+)@", lambda m: values[m.group(1)], f.read())
        path = os.path.join(self.folder, "config")
        with open(path, "w") as f:
            f.write(text)
        return path

    def _answers(self, host):
        self.proxy.check()
        try:
            return client.ask(self.address(host), target="/bytes/2", host=host).status == 200
        except (ConnectionRefusedError, client.Cut):
            return False

    def address(self, host):
        return self.addresses["variant" if host == "kept" and self.contender.variant else host]

    def load(self, kind, host, door=None, **options):
        """A load on this stage, by that door: the one of the host's name, or one with TLS. The caller closes it."""
        if door in CERTIFICATES:
            options["tls"] = True
        return Load(self.programs, self.folder, kind, self.address(door or host), host=host, **options)

    def h2load(self, host, path, requests, streams):
        return H2Load(self.folder, self.address("tls"), host, path, requests, streams)

    def cpu_ns(self):
        self.proxy.check()
        return measure.cpu_ns(self.pids)

    def pss(self):
        self.proxy.check()
        return measure.pss_bytes(self.pids)

    def file_bytes(self):
        return measure.file_bytes(self.pids, self.temp)
