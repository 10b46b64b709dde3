"""Whole stacks that serve one WSGI application: what answers the clients, what runs the application, or both in one. All of a
stack's processes are on one core, the load is on the other."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from signal import SIGTERM

import client
import measure
import proxies
from daemon import free_address
from procs import wait_for
from proxies import PROXY_CORE, ROOT, Child, Ensemble, Failed, Load

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stack")
APPLICATION = ("bench_site.py", "bench_django.py", "page.html")
FILE_BYTES = 100_000_000  # of the file that is downloaded
PIECE = b"x" * 1_000_000
DEBIAN_PYTHON = "/usr/bin/python3"  # every stack's: modules and plugins of the others are built for it
APACHE_MODULES = "/usr/lib/apache2/modules"
PASSENGER = "/usr/lib/passenger/support-binaries/PassengerAgent"
APACHE = "/usr/sbin/apache2"
UWSGI = "/usr/bin/uwsgi"
GUNICORN = "/usr/lib/python3/dist-packages/gunicorn/__init__.py"


def forebay_wsgi():
    """The worker program: where forebay looks first."""
    folder = os.environ.get("FOREBAY_LIBEXEC") or os.path.dirname(proxies.find("forebay"))
    return os.path.join(folder, "forebay-wsgi")


@dataclass(frozen=True)
class Stack:
    """A contender of the stack rows."""

    name: str
    proxy: str  # what its first process is
    processes: int
    threads: int
    ours: str = ""  # forebay's contender that it stands beside
    gunicorn: str = ""  # the class of gunicorn's workers
    preload: bool = False  # gunicorn's

    def needs(self):
        return {"forebay": [forebay_wsgi()], "gunicorn": [proxies.find("nginx"), GUNICORN],
                "uwsgi": [proxies.find("nginx"), UWSGI, "/usr/lib/uwsgi/plugins/python3_plugin.so"],
                "mod_wsgi": [APACHE, os.path.join(APACHE_MODULES, "mod_wsgi.so")], "passenger": [PASSENGER]}[self.proxy]

    def missing(self):
        return not all(path and os.path.exists(path) for path in self.needs())


FOREBAY = Stack("forebay 4 × 1", "forebay", 4, 1)
FOREBAY_THREADS = Stack("forebay 2 × 4", "forebay", 2, 4)
BESIDE, BESIDE_THREADS = FOREBAY.name, FOREBAY_THREADS.name
SYNC = Stack("nginx+gunicorn sync 4 × 1", "gunicorn", 4, 1, BESIDE, gunicorn="sync")
SYNC_PRELOAD = Stack("nginx+gunicorn sync 4 × 1, preload_app", "gunicorn", 4, 1, BESIDE, gunicorn="sync", preload=True)
GTHREAD = Stack("nginx+gunicorn gthread 2 × 4", "gunicorn", 2, 4, BESIDE_THREADS, gunicorn="gthread")
NGINX_UWSGI = Stack("nginx+uWSGI 4 × 1", "uwsgi", 4, 1, BESIDE)
NGINX_UWSGI_THREADS = Stack("nginx+uWSGI 2 × 4", "uwsgi", 2, 4, BESIDE_THREADS)
MOD_WSGI = Stack("mod_wsgi 4 × 1", "mod_wsgi", 4, 1, BESIDE)
MOD_WSGI_THREADS = Stack("mod_wsgi 2 × 4", "mod_wsgi", 2, 4, BESIDE_THREADS)
PASSENGER_ALONE = Stack("Passenger 4 × 1", "passenger", 4, 1, BESIDE)
ALL = (FOREBAY, SYNC, NGINX_UWSGI, MOD_WSGI, PASSENGER_ALONE, FOREBAY_THREADS, GTHREAD, NGINX_UWSGI_THREADS, MOD_WSGI_THREADS)


def versions():
    """{name: version} of what is here."""
    asked = {"gunicorn": [DEBIAN_PYTHON, "-m", "gunicorn", "--version"], "uWSGI": [UWSGI, "--version"], "Apache": [APACHE, "-v"],
             "mod_wsgi": ["dpkg-query", "-Wf", "${Version}", "libapache2-mod-wsgi-py3"],
             "Passenger": ["/usr/bin/passenger", "--version"], "CPython": [DEBIAN_PYTHON, "--version"],
             "Django": [DEBIAN_PYTHON, "-m", "django", "--version"]}
    found = {}
    for name, argv in asked.items():
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except FileNotFoundError:
            continue
        number = re.search(r"\d+\.\d+[\w.+~-]*", done.stdout)
        if done.returncode == 0 and number:
            found[name] = number.group()
    return found


class Stage(Ensemble):
    """One stack with its application."""

    def __init__(self, contender, programs, folder, module, page):
        super().__init__(contender, programs, folder)
        self.module, self.page = module, page  # the application's, and what it is asked for to see that it runs
        self.application = os.path.join(folder, "application")

    def _start(self):
        self._lay_out()
        self.address = free_address()
        getattr(self, "_start_" + self.contender.proxy)()
        wait_for(self._answers, f"{self.contender.name} to answer")
        wait_for(self._complete, f"all of {self.contender.name}'s processes")

    def _lay_out(self):
        """Folders that root, and the user who runs the application, can work in."""
        for folder in (self.folder, self.temp, self.application):
            os.mkdir(folder, 0o755)
        for name in APPLICATION:
            shutil.copy(os.path.join(HERE, name), self.application)
        os.link(self._file(), os.path.join(self.application, "file"))
        self.stamps = os.path.join(self.application, "stamps")
        with open(self.stamps, "wb"):
            os.chmod(self.stamps, 0o666)
        if ROOT:
            for folder in (self.temp, self.application):
                shutil.chown(folder, "www-data", "www-data")

    def _file(self):
        """Made once, with bytes on the disk: a file of holes would cost less than files do."""
        path = os.path.join(os.path.dirname(self.folder), "file")
        if not os.path.exists(path):
            with open(path, "wb") as f:
                for _ in range(FILE_BYTES // len(PIECE)):
                    f.write(PIECE)
        return path

    def _config(self, template, **more):
        s = self.contender
        values = {"FOLDER": self.folder, "TEMP": self.temp, "APP": self.application, "ADDRESS": "%s:%d" % self.address,
                  "SOCKET": os.path.join(self.temp, "application.sock"), "MODULE": self.module, "PAGE": self.page,
                  "PROCESSES": str(s.processes), "THREADS": str(s.threads), "THREADED": "" if s.threads > 1 else "; ",
                  "AS_ROOT": "" if ROOT else "# ", "AS_ROOT_INI": "" if ROOT else "; ", **more}
        with open(os.path.join(HERE, template + ".in")) as f:
            text = re.sub("@([A-Z_]+)@", lambda m: values[m.group(1)], f.read())
        path = os.path.join(self.folder, template)
        with open(path, "w") as f:
            f.write(text)
        return path

    def _child(self, argv, cwd=None):
        name = os.path.basename(argv[0])
        self._add(Child(argv, PROXY_CORE, os.path.join(self.folder, name + ".err"), end=SIGTERM, cwd=cwd))

    def _start_forebay(self):
        self._child([proxies.find("forebay"), "-c", self._config("forebay.ini")])

    def _start_nginx(self, uwsgi, kept):
        config = self._config("nginx.conf", HTTP="# " if uwsgi else "", UWSGI="" if uwsgi else "# ", KEPT="" if kept else "# ")
        self._child([proxies.find("nginx"), "-p", self.folder, "-e", "stderr", "-c", config])

    def _start_gunicorn(self):
        s = self.contender
        config = self._config("gunicorn.py", CLASS=s.gunicorn, PRELOAD=str(s.preload), USER=repr("www-data") if ROOT else "None")
        self._child([DEBIAN_PYTHON, "-m", "gunicorn", "-c", config, self.module + ":application"])
        self._start_nginx(uwsgi=False, kept=s.gunicorn == "gthread")

    def _start_uwsgi(self):
        self._child([UWSGI, "--ini", self._config("uwsgi.ini")])
        self._start_nginx(uwsgi=True, kept=False)

    def _start_mod_wsgi(self):
        self._child([APACHE, "-DFOREGROUND", "-f", self._config("apache.conf", MODULES=APACHE_MODULES)])

    def _start_passenger(self):
        with open(self._config("passenger.args")) as f:
            words = [word for line in f if not line.startswith("#") for word in line.split()]
        self._child([PASSENGER] + words, cwd=self.application)  # which is where it looks for the application

    def _answers(self):
        for child in self.children:
            child.check()
        try:
            return client.ask(self.address, target=self.page, host="bench").status == 200
        except (ConnectionRefusedError, client.Cut):
            return False

    def _complete(self):
        """Are the workers there, each with its interpreter?"""
        return sum(self._runs_python(pid) for pid in self.pids()) >= self.contender.processes

    def _runs_python(self, pid):
        try:
            with open(f"/proc/{pid}/maps") as f:
                text = f.read()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return any(name in text for name in ("/python3", "libpython3", "/forebay-wsgi"))

    def pids(self):
        return [pid for child in self.children for pid in measure.family(child.pid)]

    def load(self, kind, **options):
        return Load(self.programs, self.folder, kind, self.address, host="bench", **options)

    def crawl_upload(self, path, body, pieces, pause):
        """One client that sends a body piece by piece. Returns the status."""
        with socket.create_connection(self.address, timeout=60) as s:
            s.sendall(f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {body}\r\nConnection: close\r\n\r\n".encode())
            for number in range(pieces):
                s.sendall(b"x" * (body * (number + 1) // pieces - body * number // pieces))
                pause()
            head = b""
            while b"\r\n" not in head:
                more = s.recv(1000)
                if not more:
                    raise Failed(f"{self.contender.name} closed without an answer")
                head += more
        return int(head.split()[1])

    def held(self):
        """[(length, ns)] of the bodies that the application has read, since the last call."""
        with open(self.stamps, "r+b") as f:
            lines = f.read().split(b"\n")
            f.truncate(0)
        return [tuple(map(int, line.split())) for line in lines if line]

    def cpu_ns(self):
        for child in self.children:
            child.check()
        return sum(measure.tree_cpu_ns(child.pid) for child in self.children)

    def pss(self):
        while True:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one ended between the two looks
                return measure.pss_bytes(self.pids())
