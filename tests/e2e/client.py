"""A client that sends exactly the bytes it is told to, and judges answers strictly: cut is cut, not short."""

import fcntl
import socket
import ssl
import struct
import termios
from dataclasses import dataclass, field

TIMEOUT = 30  # seconds: an answer that takes longer will not come


class Cut(AssertionError):
    """The connection ended before the message did. `how` is "eof" or "reset"; `partial` is what had come."""

    def __init__(self, how, partial):
        super().__init__(f"cut by {how} after {bytes(partial[:200])!r}")
        self.how, self.partial = how, bytes(partial)


class Malformed(AssertionError):
    pass


@dataclass
class Response:
    version: str
    status: int
    reason: str
    headers: list
    body: bytes = b""
    framing: str = "none"  # "length", "chunked", "close"
    interim: list = field(default_factory=list)  # 1xx statuses before it

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    @property
    def keeps(self):
        return "close" not in (self.get("Connection") or "").lower()


def parse_head(raw):
    lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(status) != 3 or not status.isdigit():
        raise Malformed(f"status line {lines[0]!r}")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
            raise Malformed(f"field line {line!r}")
        headers.append((name, value.strip(" \t")))
    return Response(version, int(status), reason, headers)


def message(method="GET", target="/", headers=(), body=None, chunked=False, version="HTTP/1.1", host="test"):
    """The bytes of a request. `body` gets a Content-Length, or chunks of up to 8 K."""
    lines = [f"{method} {target} {version}"]
    names = {n.lower() for n, _ in headers}
    if host is not None and "host" not in names:
        lines.append(f"Host: {host}")
    lines += [f"{n}: {v}" for n, v in headers]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    elif body is not None and "content-length" not in names:
        lines.append(f"Content-Length: {len(body)}")
    raw = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    if chunked:
        raw += chunks(body or b"")
    elif body is not None:
        raw += body
    return raw


def chunks(body, size=8192):
    pieces = [body[i:i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


class Wire:
    """One end of a connection. Reads are buffered, so pipelined messages come apart cleanly."""

    def __init__(self, sock, timeout=TIMEOUT):
        self.sock = sock
        self.sock.settimeout(timeout)
        self.buf = bytearray()
        self.ended = None  # "eof" or "reset"
        self.got = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        """Ends the connection with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def try_send(self, data):
        """For bytes that the other end need not take: False if it has gone."""
        try:
            self.sock.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            return False

    def fill(self):
        """Reads once; False at the end of the connection."""
        return self.fill_at_most(1 << 18)

    def fill_at_most(self, n):
        if self.ended:
            return False
        try:
            data = self.sock.recv(n)
        except (ConnectionResetError, BrokenPipeError):
            self.ended = "reset"
            return False
        except ssl.SSLEOFError:  # without close_notify: who reads to the end of a connection must take it for a cut
            self.ended = "truncated"
            return False
        except ssl.SSLError as e:
            self.ended = f"alert {e.reason}"
            return False
        except socket.timeout:
            raise AssertionError(f"no answer within {self.sock.gettimeout()} s; so far {bytes(self.buf[:300])!r}") from None
        if not data:
            self.ended = "eof"
            return False
        self.buf += data
        self.got += len(data)
        return True

    def take(self, n):
        out = bytes(self.buf[:n])
        del self.buf[:n]
        return out

    def until(self, mark):
        start = 0
        while True:
            at = self.buf.find(mark, max(0, start - len(mark)))
            if at >= 0:
                return self.take(at + len(mark))
            start = len(self.buf)
            if not self.fill():
                raise Cut(self.ended, self.buf)

    def exactly(self, n):
        while len(self.buf) < n:
            if not self.fill():
                raise Cut(self.ended, self.buf)
        return self.take(n)

    def to_end(self):
        """All that comes until the connection ends, whichever way."""
        while self.fill():
            pass
        return self.take(len(self.buf))

    def ends(self):
        """Asserts that nothing more comes but the end; returns "eof" or "reset"."""
        rest = self.to_end()
        assert not rest, f"more than the answer: {rest[:300]!r}"
        return self.ended

    def peer_is_gone(self):
        """Waits for the other end to close; what it sends until then is thrown away."""
        self.to_end()
        return True


def tls_context(alpn=None, **options):
    """Of a client that checks nobody's certificate. `options` are the context's attributes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    for name, value in options.items():
        setattr(context, name, value)
    return context


class Client(Wire):
    """`tls` is a context for TLS; then its handshake is done, too."""

    def __init__(self, address, rcvbuf=None, timeout=TIMEOUT, mss=None, tls=None, server_name="test"):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if mss:  # as over a network: the other end's kernel sizes its buffer by it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        super().__init__(sock, timeout)
        try:
            sock.connect(address)
            if family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self.sock = tls.wrap_socket(sock, server_hostname=server_name, suppress_ragged_eofs=False)
        except BaseException:
            sock.close()
            raise

    def unread(self):
        """Bytes that have come and that nobody has read."""
        return struct.unpack("i", fcntl.ioctl(self.sock, termios.FIONREAD, b"\0" * 4))[0]

    def head(self):
        return parse_head(self.until(b"\r\n\r\n")[:-4])

    def response(self, method="GET"):
        interim = []
        while True:
            r = self.head()
            if r.status >= 200 or r.status == 101:
                break
            interim.append(r.status)
        r.interim = interim
        if method == "HEAD" or r.status in (101, 204, 304):
            return r
        if r.get("Transfer-Encoding") is not None:
            if r.get("Transfer-Encoding").lower() != "chunked" or r.all("Content-Length"):
                raise Malformed(f"framing {r.headers}")
            r.framing, r.body = "chunked", self.chunked()
        elif r.all("Content-Length"):
            lengths = r.all("Content-Length")
            if len(lengths) != 1 or not lengths[0].isdigit():
                raise Malformed(f"lengths {lengths}")
            r.framing, r.body = "length", self.exactly(int(lengths[0]))
        else:
            r.framing, r.body = "close", self.to_end()
            if self.ended == "reset":
                raise Cut("reset", r.body)
        return r

    def chunk(self):
        """One chunk's bytes; b"" is the last."""
        line = self.until(b"\r\n")[:-2]
        if not line or any(c not in b"0123456789abcdefABCDEF" for c in line):
            raise Malformed(f"chunk size {line!r}")
        size = int(line, 16)
        data = self.exactly(size)
        if size == 0:
            while self.until(b"\r\n") != b"\r\n":
                pass
            return b""
        if self.exactly(2) != b"\r\n":
            raise Malformed("chunk end")
        return data

    def chunked(self):
        out = bytearray()
        while True:
            data = self.chunk()
            if not data:
                return bytes(out)
            out += data

    def ask(self, method="GET", target="/", headers=(), body=None, **kw):
        self.send(message(method, target, headers, body, **kw))
        return self.response(method)


def ask(address, method="GET", target="/", headers=(), body=None, **kw):
    """One request on a connection of its own."""
    with Client(address) as c:
        return c.ask(method, target, headers, body, **kw)
