"""forebay and the servers behind it as processes of a test: started, waited for, ended, and nothing left of them."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import client
import procs
from backend import Backend
from procs import wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
SITE = os.path.join(HERE, "site")
FOREBAY = os.path.abspath(os.environ.get("FOREBAY") or os.path.join(TOP, "forebay"))
PYTHON = "/usr/bin/python3"  # Debian's: the servers are Debian packages
ROOT = os.geteuid() == 0
FRONT_USER, POOL_USER = "nobody", "daemon"  # in every Debian
SCALE = float(os.environ.get("FOREBAY_TEST_SCALE", "1"))
THREADS = int(os.environ.get("FOREBAY_TEST_THREADS", "2"))  # of each front whose test does not say how many
SANITIZER_MARKS = ("AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "UndefinedBehaviorSanitizer", "runtime error:",
                   "event=not_given_back", "Assertion `")  # and what debug builds find themselves

def is_sanitized():
    """Such a build takes memory for its own ends."""
    with open(FOREBAY, "rb") as f:
        program = f.read()
    return any(mark in program for mark in (b"__asan_init", b"__tsan_init", b"__msan_init"))


def sanitizers_of_python():
    """What they want to be told where there is Python in a process."""
    if not is_sanitized():
        return {}
    suppressions = os.path.join(TOP, "tests", "data", "python.supp")
    return {"PYTHONMALLOC": "malloc", "LSAN_OPTIONS": f"suppressions={suppressions}:print_suppressions=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


LIVE = set()  # pids of what was started and not yet reaped
_addresses = 0


def scaled(count, least=1):
    return max(least, int(count * SCALE))


def free_address():
    """(host, port) that nobody else takes: each call has a loopback address of its own."""
    global _addresses
    _addresses += 1
    host = f"127.{1 + os.getpid() % 250}.{_addresses >> 7 & 255}.{1 + (_addresses & 127)}"
    with socket.socket() as s:
        s.bind((host, 0))
        return s.getsockname()


def ini(sections):
    """{"listen main": {"address": ["a", "b"], "backlog": 5}} as a file's text; None leaves an option out."""
    out = []
    for name, options in sections.items():
        out.append(f"[{name}]")
        for key, value in options.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if one is not None:
                    out.append(f"{key} = {one}")
        out.append("")
    return "\n".join(out)


class Process:
    """A child in a session of its own, its output in a file."""

    def __init__(self, work, name, argv, env=None, cwd=None, pass_fds=(), stdin=subprocess.DEVNULL):
        self.work, self.name, self.argv = work, name, argv
        self.log_path = work.path(name + ".err")
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(argv, env=env, cwd=cwd, stdin=stdin, stdout=log, stderr=log,
                                          start_new_session=True, pass_fds=pass_fds)
        self.pid = self.popen.pid
        LIVE.add(self.pid)
        work.processes.append(self)

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def wait_log(self, text, count=1):
        """Waits until the process has written this; fails at once when it ends instead."""

        def there():
            ended = self.popen.poll() is not None
            if self.log().count(text) >= count:
                return True
            assert not ended, f"{self.name} ended with {self.popen.returncode}:\n{self.log()}"
            return False

        wait_for(there, lambda: f"{text!r} from {self.name}:\n{self.log()[-4000:]}")

    def running(self):
        return self.popen.poll() is None

    def wait(self, deadline=procs.DEADLINE):
        try:
            code = self.popen.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {deadline} s:\n{self.log()[-4000:]}") from None
        LIVE.discard(self.pid)
        return code

    def kill_group(self, sig=signal.SIGKILL):
        try:
            os.killpg(self.pid, sig)
        except ProcessLookupError:
            pass
        return self.wait()

    def close(self):
        if self.running():
            self.kill_group()
        else:
            self.wait()


class Forebay(Process):
    """The daemon under test, by a configuration file or by other arguments."""

    def __init__(self, work, argv, address, name="forebay", ready=True, env=None, log_elsewhere=False, wrap=(), **kw):
        self.address = address
        self.log_elsewhere = log_elsewhere  # its words do not come to standard error
        self.expected = {0}  # exit statuses that are no failure at the end of the test
        self.access_path = work.path(name + ".access")
        super().__init__(work, name, [*wrap, FOREBAY] + argv, env=env, **kw)  # `wrap` execs what follows it
        if ready:
            self.wait_ready()

    def wait_ready(self):
        if not self.log_elsewhere:
            self.wait_log(" ready: listening on ")
            return

        def accepts():
            assert self.running(), f"forebay ended with {self.popen.returncode}:\n{self.log()}"
            try:
                client.Client(self.address).close()
                return self.front() is not None
            except (ConnectionRefusedError, FileNotFoundError):
                return False

        wait_for(accepts, lambda: f"forebay to listen:\n{self.log()[-4000:]}")

    def front(self):
        """The front's pid, or None while there is none."""
        for pid in procs.children(self.pid):
            words = procs.cmdline(pid).split()
            if any("front" in word for word in words[1:2]) and procs.runs(pid):
                return pid
        return None

    def workers(self):
        """The pids of forebay's own workers: children of the master's, and not what a sanitizer has below one that ends (who kills
        that stops the worker for good)."""
        return [pid for pid in procs.children(self.pid)
                if procs.cmdline(pid).startswith("forebay: worker ") and procs.runs(pid)]

    def family(self, count):
        """All processes below the master. Whom a zygote has between itself and a worker that it forks is gone in a moment."""
        wait_for(lambda: len(procs.descendants(self.pid)) == count, lambda: f"{count} of {procs.descendants(self.pid)}")
        return procs.descendants(self.pid)

    def wait_workers(self, count):
        """Their pids when there are so many. What a zygote has just forked bears the zygote's name yet, and so is not among them."""
        return wait_for(lambda: len(pids := self.workers()) == count and pids, f"{count} workers")

    def zygotes(self):
        """The pids of what the workers are forked from."""
        return [pid for pid in procs.children(self.pid) if procs.cmdline(pid).startswith("forebay: zygote ") and procs.runs(pid)]

    def connect(self, **kw):
        return client.Client(self.address, **kw)

    def ask(self, method="GET", target="/", headers=(), body=None, **kw):
        return client.ask(self.address, method, target, headers, body, **kw)

    @property
    def url(self):
        return "http://%s:%d" % self.address

    def access(self):
        """The access log's whole lines, parsed."""
        try:
            with open(self.access_path, "rb") as f:
                lines = f.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def wait_access(self, match, count=1):
        """The entries for which match(entry) holds, once there are `count`."""
        found = []

        def enough():
            found[:] = [entry for entry in self.access() if match(entry)]
            return len(found) >= count

        wait_for(enough, lambda: f"{count} entries in the access log, which has {self.access()[-20:]}")
        return found

    def stop(self, sig=signal.SIGTERM):
        """Asks it to end and waits; returns its exit status."""
        procs.kill(self.pid, sig)
        return self.wait()

    def sanitizer_reports(self):
        return [line for line in self.log().split("\n") if any(mark in line for mark in SANITIZER_MARKS)]

    def close(self):
        family = procs.descendants(self.pid)
        if self.running():
            self.stop()
        else:
            self.wait()
        left = [pid for pid in family if procs.runs(pid) and procs.cmdline(pid)]
        assert not self.sanitizer_reports(), self.log()
        assert self.popen.returncode in self.expected, f"forebay ended with {self.popen.returncode}:\n{self.log()}"
        assert not left, f"left behind: {[(pid, procs.cmdline(pid)) for pid in left]}"


class Gunicorn(Process):
    """gunicorn with one of the test site's applications, on a Unix socket, or on TCP with bind=(host, port)."""

    def __init__(self, work, kind="sync", workers=1, threads=1, application="wsgi:application", bind=None, name="gunicorn",
                 keepalive=2, env=None, site=SITE):
        self.bind = bind or work.path(name + ".sock")
        self.count = workers
        env = dict(os.environ if env is None else env)
        env.update(FOREBAY_TEST_RECORD=work.record, FOREBAY_TEST_GATES=work.gates, FOREBAY_TEST_UPLOADS=work.dir,
                   PYTHONDONTWRITEBYTECODE="1", PYTHONPATH=site)
        target = "unix:" + self.bind if isinstance(self.bind, str) else "%s:%d" % self.bind
        argv = [PYTHON, "/usr/bin/gunicorn", "--chdir", site, "--bind", target, "--workers", str(workers), "--umask", "0",
                "--timeout", "0", "--graceful-timeout", "1", "--worker-tmp-dir", "/dev/shm", "--backlog", "64",
                "--keep-alive", str(keepalive)]
        argv += ["--worker-class", kind]
        if kind == "gthread":
            argv += ["--threads", str(threads)]
        argv.append(application)
        booted = 0
        if os.path.exists(work.path(name + ".err")):
            with open(work.path(name + ".err"), errors="replace") as f:
                booted = f.read().count("Booting worker")
        super().__init__(work, name, argv, env=env)
        self.wait_log("Booting worker", booted + workers)

    @property
    def socket(self):
        """As `socket =` takes it."""
        return self.bind if isinstance(self.bind, str) else "%s:%d" % self.bind


class WebSocketEcho(Process):
    def __init__(self, work, name="websocket"):
        self.socket = work.path(name + ".sock")
        super().__init__(work, name, [PYTHON, os.path.join(SITE, "websocket_echo.py"), self.socket])
        self.wait_log("ready")


class Work:
    """What one test, or a module's shared set-up, has started and where its files are. The directory is short (Unix socket
    paths have 107 bytes) and open to other users (the front is one)."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="fb-", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.processes, self.closers = [], []
        self.record = self.path("record")
        self.gates = self.path("gates")
        os.mkdir(self.gates)
        self.spool = self.path("spool")
        os.mkdir(self.spool)
        if ROOT:
            front = pwd.getpwnam(FRONT_USER)
            os.chown(self.spool, front.pw_uid, front.pw_gid)

    def path(self, name):
        return os.path.join(self.dir, name)

    def path_in_memory(self, name):
        """On a tmpfs where there is one."""
        if not os.access("/dev/shm", os.W_OK):
            return self.path(name)
        folder = tempfile.mkdtemp(prefix="fb-", dir="/dev/shm")
        self.closers.append(lambda: shutil.rmtree(folder))
        return os.path.join(folder, name)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    def backend(self, *args, name="backend", **kw):
        made = Backend(self.path(name + ".sock"), *args, **kw)
        self.closers.append(made.close)
        return made

    def tcp_backend(self, *args, **kw):
        made = Backend((free_address()[0], 0), *args, **kw)
        self.closers.append(made.close)
        return made

    def gunicorn(self, *args, **kw):
        return Gunicorn(self, *args, **kw)

    def websocket(self):
        return WebSocketEcho(self)

    def config(self, pool=None, listen=None, forebay=None, route=None, more=None, name="forebay", address=None):
        """A configuration file for tests; returns its path and the address. Each argument's options go over the defaults."""
        address = address or free_address()
        daemon = {"threads": THREADS, "spool_dir": self.spool, "log": "stderr", "log_level": "info",
                  "access_log": self.path(name + ".access"), "access_format": "json",
                  "user": FRONT_USER if ROOT else None}
        daemon.update(forebay or {})
        if pool and "app" in pool and ROOT:
            pool = {"user": POOL_USER, **pool}
        if pool and str(pool.get("app")).startswith("wsgi:"):
            # A worker's environment is its own.
            said = pool.get("environment") or []
            said = [said] if isinstance(said, str) else list(said)
            pool = {**pool, "environment": said + [f"{name}={value}" for name, value in sanitizers_of_python().items()]}
        sections = {"forebay": daemon, "listen main": {"address": "%s:%d" % address, **(listen or {})}}
        if pool:
            sections["pool app"] = pool
            # Small enough that tests reach the spool with small bodies.
            sections["route *"] = {"pool": "app", "body_memory": "64K", **(route or {})}
        sections.update(more or {})
        return self.write(name + ".ini", ini(sections)), address

    def forebay(self, pool=None, name="forebay", ready=True, env=None, wrap=(), log_in_memory=False, **kw):
        """`log_in_memory`: for a test that wants every line of a storm; forebay drops what a busy disk does not take."""
        access = self.path_in_memory(name + ".access") if log_in_memory else None
        if access:
            kw["forebay"] = {**(kw.get("forebay") or {}), "access_log": access}
        path, address = self.config(pool, name=name, **kw)
        elsewhere = (kw.get("forebay") or {}).get("log", "stderr") != "stderr"
        site = Forebay(self, ["-c", path], address, name=name, ready=ready, env=env, log_elsewhere=elsewhere, wrap=wrap)
        site.access_path = access or site.access_path
        wanted = int((pool or {}).get("processes_min") or (pool or {}).get("processes") or 0)
        if ready and wanted:
            wait_for(lambda: len(site.workers()) >= wanted, "all workers")  # it is ready with the first
        return site

    def forebay_run(self, args, address, name="forebay", ready=True, env=None, **kw):
        env = {**(os.environ if env is None else env), **sanitizers_of_python()}
        return Forebay(self, args, address, name=name, ready=ready, env=env, **kw)

    def logs(self):
        out = []
        for process in self.processes:
            out.append((f"{process.name} ({os.path.basename(process.argv[0])})", process.log()[-8000:]))
        for process in self.processes:
            if isinstance(process, Forebay) and os.path.exists(process.access_path):
                with open(process.access_path, errors="replace") as f:
                    out.append((f"{process.name} access log", f.read()[-4000:]))
        return out

    def close(self):
        failures = []
        for close in [p.close for p in reversed(self.processes)] + list(reversed(self.closers)):
            try:
                close()
            except Exception as e:
                failures.append(e)
        failures += reap_orphans()
        shutil.rmtree(self.dir, ignore_errors=True)
        if failures:
            raise failures[0]


def orphans():
    return [pid for pid in procs.children(os.getpid()) if pid not in LIVE]


def reap_orphans():
    """What lost its parent came to this process. The dead are buried; the living are a failure."""

    def none_left():
        for pid in orphans():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        return not [pid for pid in orphans() if procs.runs(pid)]

    try:
        wait_for(none_left, "orphans to end", deadline=10)
        return []
    except AssertionError:
        left = [(pid, procs.cmdline(pid)) for pid in orphans()]
        for pid, _ in left:
            procs.kill(pid, signal.SIGKILL)
        return [AssertionError(f"processes that outlived their parents: {left}")]


def run(*args, env=None, timeout=procs.DEADLINE):
    """forebay to its end, for -t, --help and the like."""
    return subprocess.run([FOREBAY, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace", timeout=timeout, env=env)


for _folder in (SITE, os.path.join(TOP, "tests", "data")):  # tools.py and the tables, for the tests too
    sys.path.insert(0, _folder)
