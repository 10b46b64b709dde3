"""What is measured of proxies. All rows there are, those of stack_rows.py included, are in ROWS."""

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field

import measure
from procs import wait_for
from proxies import FLOOR, HAPROXY, HAPROXY_SPLICE, LOAD_CORE, NGINX, NGINX_DEFAULT, PROXY_CORE, Failed, FOREBAY, Stage, at
from row import GB, KB, MB, Row, within_limits
from stack_rows import STACK_ROWS

@dataclass
class Exchange(Row):
    """CPU time for a fixed number of equal requests on a few kept connections."""

    units: dict = field(default_factory=lambda: {"CPU": "µs/request"})
    host: str = "kept"
    door: str = None  # by which it is gone to, if not the host's own
    rounds: int = 150
    connections: int = 8
    requests: int = 1500
    answer: int = 1 * KB
    body: int = 0
    browser: bool = False
    check_bytes: int = 5 * MB  # with --check, no body is larger

    def bytes(self, check):
        """Of a response and of a request."""
        return [min(n, self.check_bytes) if check else n for n in (self.answer, self.body)]

    @contextlib.contextmanager
    def begun(self, stage, check):
        answer, body = self.bytes(check)
        options = {"browser": True} if self.browser else {}
        with stage.load("rush", self.host, self.door, path=f"/bytes/{answer}", answer=answer, body=body,
                        in_flight=self.connections, **options) as load:
            load.ask(f"open {self.connections}")
            yield stage, load

    def measure(self, begun, check):
        stage, load = begun
        before = stage.cpu_ns()
        result = load.ask(f"go {min(self.requests, 20) if check else self.requests}")
        return {"CPU": self.figure(stage.cpu_ns() - before, result["requests"], sum(self.bytes(check)))}

    def figure(self, cpu_ns, requests, _bytes):
        return cpu_ns / 1e3 / requests


@dataclass
class Bulk(Exchange):
    """The same by what was carried: milliseconds for a gigabyte (10^9 bytes). Each round has new connections: what the kernel has found out
    of one, how much it takes at once above all, would tell two runs apart."""

    units: dict = field(default_factory=lambda: {"CPU": "ms/GB"})
    rounds: int = 25
    connections: int = 2

    def begun(self, stage, _check):
        return contextlib.nullcontext(stage)

    def measure(self, stage, check):
        with super().begun(stage, check) as begun:
            return super().measure(begun, check)

    def figure(self, cpu_ns, requests, bytes):
        return cpu_ns / 1e6 / (requests * bytes / GB)


@dataclass
class Idle(Row):
    """Memory for connections that have had one answer and wait for their next request."""

    units: dict = field(default_factory=lambda: {"memory": "bytes/connection", "base": "MB"})
    anew: bool = True
    connections: int = 16000
    door: str = None

    def measure(self, stage, check):
        connections = 100 if check else within_limits(self.connections)
        with stage.load("rush", "fresh", self.door, path="/bytes/1000", answer=1000) as load:
            load.ask("open 8")
            load.ask("go 100")  # what the first requests make is the base's
            stage.settle()
            base = stage.pss()
            load.ask(f"open {connections + 8}")
            stage.settle()
            return {"memory": per(stage.pss(), base, connections), "base": base and base / MB}


@dataclass
class Handshakes(Row):
    """CPU time for TLS handshakes on connections that ask for nothing, and how near that comes to what OpenSSL's own figures for
    a signature and a key exchange allow."""

    units: dict = field(default_factory=lambda: {"CPU": "µs/handshake", "rate": "handshakes/CPU second", "share": "% of openssl speed"})
    rounds: int = 40
    door: str = "tls"
    command: str = "full"
    handshakes: int = 250
    speed: str = "ecdsap256"

    @contextlib.contextmanager
    def begun(self, stage, _check):
        with stage.load("shake", "kept", self.door) as load:
            load.ask(f"{self.command} 16")  # and sessions to resume
            yield stage, load

    def measure(self, begun, check):
        stage, load = begun
        before = stage.cpu_ns()
        done = load.ask(f"{self.command} {50 if check else self.handshakes}")["handshakes"]
        spent = stage.cpu_ns() - before
        rate = done / (spent / 1e9)
        bound = openssl_handshakes(self.speed)
        return {"CPU": spent / 1e3 / done, "rate": rate, "share": bound and 100 * rate / bound}


@functools.cache
def openssl_handshakes(signature):
    """A second's worth: a signature, where there is one, and a key exchange each, on the proxy's core."""
    names = ["ecdhx25519"] + ([signature] if signature else [])
    done = subprocess.run(["openssl", "speed", "-mr", "-seconds", "1", *names], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, preexec_fn=lambda: at(PROXY_CORE, signal.SIGKILL))
    found = re.findall(r"^\+F[245]:\d+:\d+:([\d.]+):", done.stdout, re.MULTILINE)
    if done.returncode or len(found) != len(names):
        return None
    return 1 / sum(1 / float(a_second) for a_second in found)


@dataclass
class Streams(Row):
    """CPU time for equal requests on many streams of one connection. The application has a process for each."""

    units: dict = field(default_factory=lambda: {"CPU": "µs/request"})
    rounds: int = 20
    requests: int = 6000
    streams: int = 100

    def measure(self, stage, check):
        with stage.h2load("wide", "/bytes/1000", 1000 if not check else 200, self.streams) as load:
            load.ready()  # connections to the application are there
        before = stage.cpu_ns()
        with stage.h2load("wide", "/bytes/1000", 200 if check else self.requests, self.streams) as load:
            load.ready()
            return {"CPU": (stage.cpu_ns() - before) / 1e3 / load.requests}


@dataclass
class Drip(Row):
    """Memory for requests whose heads do not come to an end."""

    units: dict = field(default_factory=lambda: {"memory": "bytes/head"})
    anew: bool = True
    connections: int = 2000

    def measure(self, stage, check):
        connections = 50 if check else within_limits(self.connections)
        with stage.load("rush", "fresh", path="/bytes/1000", answer=1000) as load:
            load.ask("open 8")
            load.ask("go 100")
        with stage.load("drip", "fresh", browser=True) as load:
            stage.settle()
            base = stage.pss()
            load.ask(f"open {connections}")
            stage.settle()
            full = stage.pss()
            if load.ask("status")["lost"] > 0:
                raise Failed("dripping connections were answered or closed before they were counted")
            return {"memory": per(full, base, connections)}


@dataclass
class Conns(Row):
    """CPU time for a request when many connections are open: with the same few in use (the rest idle), and with all in turn."""

    levels: tuple = (10, 100, 1000, 10000)
    in_flight: int = 8
    requests: int = 600
    rounds: int = 60

    def __post_init__(self):
        self.units = {}
        for n in self.levels:
            self.units[f"{n:,} open"] = self.units[f"{n:,} in turn"] = "µs/request"
        self.units["10,000 in turn ÷ 100"] = "times"

    @contextlib.contextmanager
    def stage(self, contender, programs, folder):
        """A proxy for each level, so that they can take turns too."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(Stage(contender, programs, f"{folder}-{level}", hosts=("kept", "fresh"))) for level in self.levels]

    @contextlib.contextmanager
    def begun(self, stages, check):
        with contextlib.ExitStack() as stack:
            loads = []
            for level, stage in zip(self.levels, stages):
                loads.append(stack.enter_context(stage.load("rush", "kept", path="/bytes/1000", answer=1000, in_flight=self.in_flight)))
                loads[-1].ask(f"open {min(level, 50) if check else within_limits(level)}")
                stage.settle()
            yield list(zip(self.levels, stages, loads))

    def measure(self, begun, check):
        out = {}
        for level, stage, load in begun:
            out[f"{level:,} open"] = self.cost(stage, load, "go", check)
            out[f"{level:,} in turn"] = self.cost(stage, load, "rotate", check)
        out["10,000 in turn ÷ 100"] = out["10,000 in turn"] / out["100 in turn"]
        return out

    def cost(self, stage, load, command, check):
        before = stage.cpu_ns()
        done = load.ask(f"{command} {50 if check else self.requests}")["requests"]
        return (stage.cpu_ns() - before) / 1e3 / done


@dataclass
class Slow(Row):
    """Eight fast clients of an application that takes 5 ms, beside many slow ones: half upload 64 kB at 2 kB/s, half
    download 256 kB at 3 kB/s."""

    levels: tuple = (0, 1000, 5000, 10000)
    application_ms: int = 5
    anew: bool = True
    rounds: int = 5
    window_ms: int = 2000

    def __post_init__(self):
        self.units = {}
        for n in self.levels:
            here = f"{n:,} slow"
            self.units.update({f"{here}: fast rate": "requests/s", f"{here}: CPU": "% of a core", f"{here}: p50": "ms",
                               f"{here}: p99": "ms", f"{here}: hold p50": "ms", f"{here}: hold p99": "ms"})
            if n:
                self.units.update({f"{here}: hold beside the application": "ms, mean", f"{here}: memory": "kB/client",
                                   f"{here}: files": "kB/client", f"{here}: lost": "clients"})

    def measure(self, stage, check):
        out = {}
        path = f"/bytes/1000?ms={self.application_ms}"
        with stage.load("rush", "fresh", path=path, answer=1000) as fast, stage.load("crawl", "fresh") as slow:
            fast.ask("open 8")
            stage.settle()
            base = stage.pss()
            for level in self.levels:
                clients = min(level, 20) if check else within_limits(level)
                out.update(self.level(stage, fast, slow, f"{level:,} slow", clients, base, 200 if check else self.window_ms))
        return out

    def level(self, stage, fast, slow, here, clients, base, window_ms):
        stamps = stage.backends["fresh"].stamps
        if clients:
            slow.ask(f"open {clients}")
            fast.ask(f"for {window_ms}")  # until all is as it will stay
        before, cpu_ns = stamps.count(), stage.cpu_ns()
        result = fast.ask(f"for {window_ms}")
        cpu_ns = stage.cpu_ns() - cpu_ns
        held = stamps.since(before)
        own = [ns / 1e6 for ns, ms in held if ms == self.application_ms]
        out = {f"{here}: fast rate": result["requests"] / result["seconds"], f"{here}: CPU": cpu_ns / 1e7 / result["seconds"],
               f"{here}: p50": result.get("p50_us", 0) / 1e3, f"{here}: p99": result.get("p99_us", 0) / 1e3,
               f"{here}: hold p50": measure.percentile(own, 0.5), f"{here}: hold p99": measure.percentile(own, 0.99)}
        if clients:
            state = slow.ask("status")
            beside = [ns / 1e6 - ms for ns, ms in held]
            files = stage.file_bytes()
            out.update({f"{here}: hold beside the application": sum(beside) / len(beside) if beside else None,
                        f"{here}: memory": per(stage.pss(), base, clients * 1000),
                        f"{here}: files": files and files / clients / 1000,
                        f"{here}: lost": state["lost"] + state["refused"],
                        f"{here}: load late, ms": state["late_ms"]})  # no line of the table: how well the clients kept pace
        return out

    def remarks(self, rounds):
        late = max((r.get(f"{level:,} slow: load late, ms", 0) for r in rounds for level in self.levels), default=0)
        return [f"the slow clients were up to {late:.0f} ms behind their pace: the machine was busy"] if late > 500 else []


@dataclass
class Calls(Row):
    """System calls for a request, counted by strace, which makes everything slow: only the numbers count."""

    units: dict = field(default_factory=lambda: {"kept": "calls/request", "fresh": "calls/request"})
    requests: int = 500
    rounds: int = 3

    def measure(self, stage, check):
        return {host: self.count(stage, host, 50 if check else self.requests) for host in ("kept", "fresh")}

    def count(self, stage, host, requests):
        if not shutil.which("strace"):
            return None
        with stage.load("rush", host, path="/bytes/1000", answer=1000) as load:
            load.ask("open 8")
            with tempfile.NamedTemporaryFile(dir=stage.folder) as f:
                with Strace(stage.pids, f.name) as strace:
                    if not strace.attached:
                        return None
                    done = load.ask(f"go {requests}")["requests"]
                return total_calls(f.read().decode()) / done


class Strace:
    """strace on processes that run already, from when all their threads are traced."""

    def __init__(self, pids, path):
        self.pids = pids
        words = ["strace", "-c", "-f", "-q", "-o", path]
        for pid in pids:
            words += ["-p", str(pid)]
        self.popen = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
                                      preexec_fn=lambda: at(LOAD_CORE, signal.SIGINT))

    def __enter__(self):
        try:
            wait_for(lambda: self.popen.poll() is not None or all(map(traced, self.pids)), "strace to begin")
        except BaseException:
            self.__exit__()
            raise
        self.attached = self.popen.poll() is None  # where tracing is not allowed it ends
        return self

    def __exit__(self, *_):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
        self.popen.communicate()


def traced(pid):
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as f:
            if re.search(r"^TracerPid:\s+0$", f.read(), re.MULTILINE):
                return False
    return True


def total_calls(text):
    """From strace's table, whose last line has the sum: share, seconds, µs a call, calls, errors if any, "total"."""
    return int(text.rstrip().rpartition("\n")[2].split()[3])


def per(full, base, count):
    return None if full is None or base is None else (full - base) / count


STREAMS = {"haproxy": "passes bodies through as they come: a slow client's upload holds a worker"}
KERNEL = {"floor": "no proxy: what the kernel takes to carry the bytes"}
BESIDE_FLOOR = (FOREBAY, NGINX, HAPROXY, FLOOR)
UPLOADS = (FOREBAY, NGINX, NGINX_DEFAULT, HAPROXY)
LARGE_UPLOADS = UPLOADS + (HAPROXY_SPLICE,)

ROWS = [
    Exchange("get-kept", "GET 1 kB, connections to the application kept", contenders=BESIDE_FLOOR, notes=KERNEL),
    Exchange("get-fresh", "GET 1 kB, a connection to the application for each request", host="fresh"),
    Exchange("get-browser", "GET 1 kB with a browser's 20 fields, kept", browser=True, contenders=BESIDE_FLOOR, notes=KERNEL),
    Exchange("post-16k", "POST 16 kB", rounds=9, requests=5000, body=16 * KB, answer=100, contenders=UPLOADS + (FLOOR,),
             notes=STREAMS | KERNEL),
    Bulk("post-1m", "POST 1 MB", requests=60, body=1 * MB, answer=100, contenders=LARGE_UPLOADS, notes=STREAMS),
    Bulk("post-100m", "POST 100 MB", rounds=15, requests=1, connections=1, body=100 * MB, answer=100, contenders=LARGE_UPLOADS,
         notes=STREAMS),
    Bulk("resp-100k", "response of 100 kB", rounds=60, requests=400, answer=100 * KB),
    Bulk("resp-10m", "response of 10 MB", rounds=60, requests=4, answer=10 * MB),
    Bulk("resp-1g", "response of 1 GB", rounds=11, requests=1, connections=1, answer=1 * GB),
    Idle("idle", "16,000 idle connections", rounds=3),
    Drip("drip", "2,000 connections with 400 bytes of a head that does not end"),
    Slow("slow", "8 fast clients of a 5 ms application with 8 workers, beside slow ones", {},
         chart={"10,000 slow: memory": "slow: memory", "10,000 slow: hold beside the application": "slow: hold"},
         notes={"haproxy": "whoever uploads or downloads more than its buffer of 16 kB holds a worker meanwhile"}),
    Conns("conns", "GET 1 kB, kept, with many connections open", {}, chart={"10,000 in turn": "get, 10,000 open"}),
    Handshakes("tls-handshake-p256", "full TLS 1.3 handshakes, ECDSA P-256"),
    Handshakes("tls-handshake-rsa", "full TLS 1.3 handshakes, RSA 2048", door="rsa", handshakes=125, speed="rsa2048"),
    Handshakes("tls-resume", "TLS 1.3 handshakes resumed by ticket", command="resume", speed=None),
    Exchange("tls-get", "GET 1 kB over TLS, connections to the application kept", door="tls"),
    Bulk("tls-100m", "response of 100 MB over TLS", requests=1, connections=1, answer=100 * MB, door="tls"),
    Idle("tls-idle", "5,000 idle TLS connections", rounds=3, connections=5000, door="tls"),
    Streams("h2-get", "GET 1 kB over TLS by HTTP/2, 100 streams of one connection"),
    Calls("syscalls", "system calls, GET 1 kB", chart={"kept": "syscalls, kept", "fresh": "syscalls, fresh"}),
    *STACK_ROWS,
]
