"""Workers made of raw sockets: they record every byte, and misbehave as told."""

import collections
import os
import socket
import threading
from dataclasses import dataclass, field

from client import Cut, Wire
from procs import wait_for

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Seen:
    """One request as it reached the worker."""

    raw: bytes
    method: str
    target: str
    version: str
    headers: list
    body: bytes
    number: int = 0  # of its connection
    extra: dict = field(default_factory=dict)

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]


class Connection(Wire):
    """The worker's end. What a handler gets."""

    def __init__(self, sock, backend, number):
        super().__init__(sock)
        self.backend, self.number = backend, number

    def fill(self):
        before = len(self.buf)
        more = super().fill()
        if more and self.backend.keeps:
            with self.backend.lock:
                self.backend.received += self.buf[before:]
        return more

    def request_head(self):
        """Up to the empty line; the body stays unread."""
        raw = self.until(b"\r\n\r\n")
        lines = raw[:-4].decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(": ")
            assert colon and name, f"a field line that nobody should be sent: {line!r}"
            headers.append((name, value))
        return Seen(raw, method, target, version, headers, b"", self.number)

    def all_but_one_byte_of_the_head(self):
        """So that closing finds bytes unread."""
        while b"\r\n\r\n" not in (there := self.sock.recv(65536, socket.MSG_PEEK)):
            assert there, "the head did not come whole"
        self.exactly_unbuffered(there.index(b"\r\n\r\n") + 3)

    def exactly_unbuffered(self, n):
        while n > 0:
            n -= len(self.sock.recv(n))

    def request(self):
        """A whole request; what forebay sends has an exact length or none."""
        seen = self.request_head()
        length = seen.all("Content-Length")
        assert len(length) <= 1 and not seen.all("Transfer-Encoding"), seen.headers
        if length:
            seen.body = self.exactly(int(length[0]))
            seen.raw += seen.body
        with self.backend.lock:
            self.backend.seen.append(seen)
        return seen


def polite(conn):
    """Answers every request on the connection with 200."""
    while True:
        try:
            conn.request()
        except Cut as cut:
            assert not cut.partial, f"a request that was not whole: {cut.partial[:200]!r}"
            return
        conn.send(OK)


def answer(raw, then="close"):
    """Reads a request, sends these bytes, ends as told: "close", "hold" (until the other end closes), "linger" (like
    gunicorn from 26 on: no more from us, then the other end's close), "reset" (closes with bytes unread: on a Unix socket that
    is ECONNRESET at the other end)."""

    def handler(conn):
        if then == "reset":
            conn.all_but_one_byte_of_the_head()
        else:
            conn.request()
        for piece in raw if isinstance(raw, (list, tuple)) else [raw]:
            if not conn.try_send(piece):
                return
        if then == "linger":
            conn.sock.shutdown(socket.SHUT_WR)
        if then in ("hold", "linger"):
            conn.peer_is_gone()

    return handler


def echo_id(conn):
    """Answers with the request's X-Id field, on one connection as often as asked."""
    while True:
        try:
            seen = conn.request()
        except Cut:
            return
        ident = (seen.get("X-Id") or "none").encode()
        conn.send(b"HTTP/1.1 200 OK\r\nX-Id: %s\r\nContent-Length: %d\r\n\r\n%s" % (ident, len(ident), ident))


class Backend:
    """Listens on a Unix socket (a path) or on TCP (host, port 0). Each connection gets the next handler that was queued with
    next(), or else the default one."""

    def __init__(self, address, default=polite, backlog=1024, keeps=True):
        self.default = default
        self.keeps = keeps  # every byte that comes; for what is too much to be kept: False
        self.lock = threading.Lock()
        self.planned = collections.deque()
        self.seen = []  # whole requests
        self.received = bytearray()  # every byte
        self.accepted = 0
        self.errors = []
        self.open = {}
        self.threads = []
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.bind(address)
            os.chmod(address, 0o666)
            self.address = address
        else:
            self.sock = socket.create_server(address)
            self.address = self.sock.getsockname()
        self.sock.listen(backlog)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    @property
    def name(self):
        """As `socket =` takes it."""
        return self.address if isinstance(self.address, str) else "%s:%d" % self.address

    def next(self, *handlers):
        self.planned.extend(handlers)

    def take(self):
        """The requests seen since the last take()."""
        with self.lock:
            seen, self.seen = self.seen, []
        return seen

    def wait_seen(self, n):
        wait_for(lambda: len(self.seen) >= n, lambda: f"{n} requests at the worker, there are {len(self.seen)}")
        return self.seen

    def wait_accepted(self, n):
        wait_for(lambda: self.accepted >= n, lambda: f"{n} connections at the worker, there are {self.accepted}")

    def _accept(self):
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            with self.lock:
                self.accepted += 1
                number = self.accepted
            handler = self.planned.popleft() if self.planned else self.default
            thread = threading.Thread(target=self._serve, args=(sock, handler, number), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock, handler, number):
        conn = Connection(sock, self, number)
        with self.lock:
            self.open[number] = conn
        try:
            handler(conn)
        except (Cut, BrokenPipeError, ConnectionResetError) as e:
            self.errors.append(("ended", number, e))
        except Exception as e:  # told by close(): a handler's own surprise must fail the test
            self.errors.append(("surprise", number, e))
        finally:
            with self.lock:
                self.open.pop(number, None)
            conn.close()

    def stop_listening(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.thread.join()
        if isinstance(self.address, str):
            os.unlink(self.address)

    def close(self):
        if self.sock.fileno() != -1:
            self.stop_listening()
        with self.lock:
            still = list(self.open.values())
        for conn in still:
            try:
                conn.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join()
        surprises = [e for kind, _, e in self.errors if kind == "surprise"]
        if surprises:
            raise surprises[0]
