"""What the test site, the plain WSGI application and the tests share: contents that can be checked, a record, gates."""

import fcntl
import hashlib
import os
import struct

PAGE = 4096


def pattern(size, seed=0):
    """`size` bytes of which every 8 say where they belong and in which content."""
    pages = [struct.pack(">II", seed & 0xFFFFFFFF, page) * (PAGE // 8) for page in range((size + PAGE - 1) // PAGE)]
    return b"".join(pages)[:size]


def pattern_part(begin, end, seed=0):
    """pattern()[begin:end] without making the rest."""
    first = begin // PAGE
    pages = [struct.pack(">II", seed & 0xFFFFFFFF, page) * (PAGE // 8) for page in range(first, (end + PAGE - 1) // PAGE)]
    return b"".join(pages)[begin - first * PAGE:end - first * PAGE]


def pattern_sha256(size, seed=0):
    return hashlib.sha256(pattern(size, seed)).hexdigest()


def record(event, ident):
    """One line by one write to the file that all workers share: the order of lines is the order of events."""
    path = os.environ.get("FOREBAY_TEST_RECORD")
    if path:
        append(path, event, ident)


def append(path, event, ident):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(fd, f"{event} {ident} {os.getpid()}\n".encode())
    finally:
        os.close(fd)


def read_record(path):
    """[(event, id, pid), ...] in the order in which it happened."""
    try:
        with open(path) as f:
            lines = f.read().split("\n")[:-1]  # without a last line that is not all there
    except FileNotFoundError:
        return []
    return [tuple(line.split(" ")) for line in lines]


class Gate:
    """The test holds it shut; who passes waits until it is opened (or the test is dead)."""

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def open(self):
        if self.fd != -1:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open()


def pass_gate(name):
    """A worker's side. A gate that nobody made is open."""
    path = os.path.join(os.environ.get("FOREBAY_TEST_GATES", "/nonexistent"), name)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)
