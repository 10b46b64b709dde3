"""An application that does to its worker what applications do on a bad day. The path says what, `id` is noted, `gate` is waited for."""

import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from urllib.parse import parse_qs

FOLDER = os.environ["FOREBAY_TEST_FOLDER"]
CASES = {}
HOARD = []
if "FOREBAY_TEST_DEAF" in os.environ:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))


def case(f):
    CASES[f.__name__] = f
    return f


def note(what):
    """One line of a file that the test reads."""
    fd = os.open(os.path.join(FOLDER, "notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(fd, f"{what} {os.getpid()}\n".encode())
    finally:
        os.close(fd)


def look_for_room():
    """Before each fork: while the file is there, this user has as many processes as it may have."""
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    crowded = os.path.exists(os.path.join(FOLDER, "crowded"))
    if crowded:
        note("no room")
    resource.setrlimit(resource.RLIMIT_NPROC, (0 if crowded else limit, limit))


os.register_at_fork(before=look_for_room)


def wait_for_gate(query):
    """The test makes the file `gate`; without one there is nothing to wait for."""
    if "gate" in query:
        while not os.path.exists(os.path.join(FOLDER, query["gate"])):
            time.sleep(0.01)


@case
def hold(query):
    wait_for_gate(query)


@case
def naps(query):
    time.sleep(int(query["ms"]) / 1000)


@case
def hangs_here(query):
    time.sleep(3600)


@case
def hangs_deaf(query):
    """No thread of this process hears signals any more, but those that cannot be blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    time.sleep(3600)


@case
def exits(query):
    os._exit(3)


@case
def sys_exits(query):
    sys.exit("the application thinks that this is a program of its own")


@case
def leads(query):
    os.setsid()


@case
def handles(query):
    signal.signal(signal.SIGTERM, lambda *_: None)


@case
def hoards(query):
    HOARD.append(b"x" * int(query["bytes"]))
    wait_for_gate(query)


@case
def floods(query):
    """Lines, and bytes without an end."""
    for _ in range(int(query["times"])):
        os.write(1, b"all work and no play\n" * 400)
        os.write(2, b"\xff\0 no end of it" * 500)


@case
def closes(query):
    """As those do who make themselves a daemon."""
    naps(query)
    os.closerange(3, 256)


@case
def points_elsewhere(query):
    naps(query)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3, null):
        os.dup2(null, fd)


def sockets():
    """Of forebay's: the control socket is the first."""
    for fd in map(int, sorted(os.listdir("/proc/self/fd"), key=int)):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield fd
        except OSError:
            pass


@case
def scribbles(query):
    control, *slots = sockets()
    for fd in {"control": [control], "slot": slots, "both": [control, *slots]}[query["where"]]:
        os.write(fd, b"what is this to you? " * 10)


@case
def babbles(query):
    """How much memory it has, again and again."""
    control, *_ = sockets()
    message = struct.pack("<IIQ", 8, 0, 1 << 20)

    def babble():
        while True:
            os.write(control, message)

    threading.Thread(target=babble, daemon=True).start()
    wait_for_gate(query)


def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


@case
def forks(query):
    """The child has all that this process has, and does not end before the gate opens."""

    def child():
        note("child")
        wait_for_gate({"gate": query["child"]})

    in_child(child)
    wait_for_gate(query)


@case
def forks_and_returns(query):
    """Twice: the child comes back from the application as well."""
    if os.fork() == 0:
        note("child")


@case
def forks_a_program(query):
    subprocess.Popen(["/bin/sleep", "3600"], start_new_session=True)


@case
def raises(query):
    raise RuntimeError("on purpose")


def stream(query):
    yield b"x" * int(query["stream"])
    wait_for_gate(query)


def application(environ, start_response):
    query = {k: v[0] for k, v in parse_qs(environ["QUERY_STRING"]).items()}
    if "id" in query:
        note("begin " + query["id"])
    environ["wsgi.input"].read()
    if environ["PATH_INFO"] != "/":
        CASES[environ["PATH_INFO"][1:]](query)
    if "stream" in query:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream(query)
    body = f"{os.getpid()} {threading.get_ident()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
