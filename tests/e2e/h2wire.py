"""HTTP/2 frame by frame: a blocking client that sends exactly the bytes it is told to, and frames as bytes for tables. What is sent
is encoded without state (no dynamic table) unless a test says so; what comes is decoded by Debian's python3-hpack."""

import collections
import struct
from dataclasses import dataclass, field

import hpack

from client import Client, Cut, tls_context

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16  # RFC 9218
TYPES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION")

END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20

(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM,
 CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, HTTP_1_1_REQUIRED) = range(14)
ERRORS = ("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
          "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
          "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED")

(HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE) = range(1, 7)
ENABLE_CONNECT_PROTOCOL = 8  # RFC 8441

WINDOW = 65535  # of connection and streams, where nobody said otherwise
WINDOW_MAX = (1 << 31) - 1
FRAME_MAX = 16384
PROBE = 0x7ffffffd  # a stream behind all others


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """`length`: what the frame says of itself, if not the truth."""
    return struct.pack(">I", len(payload) if length is None else length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def integer(value, bits, first=0):
    """RFC 7541, 5.1."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = bytearray([first | limit]), value - limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def raw(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


def literal(name, value, first=0x00):
    """A field line that goes into no table; first = 0x40: into it."""
    name, value = raw(name), raw(value)
    return bytes([first]) + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields):
    """A field block of (name, value), or of bytes that are a line's encoding already."""
    return b"".join(f if isinstance(f, bytes) else literal(*f) for f in fields)


def request(method="GET", path="/x", authority="test", scheme="http"):
    """The pseudo-fields; method=None leaves one out."""
    return [(n, v) for n, v in ((":method", method), (":scheme", scheme), (":authority", authority), (":path", path))
            if v is not None]


def headers(stream, fields, end=True, more=False, flags=0, payload=None):
    """`more`: CONTINUATION follows; `payload`: the frame's, when it has more than a block."""
    flags |= (END_STREAM if end else 0) | (0 if more else END_HEADERS)
    return frame(HEADERS, flags, stream, block(fields) if payload is None else payload)


def get(stream, path="/x", more=(), **kw):
    return headers(stream, request(path=path, **kw) + list(more))


def post(stream, body=None, path="/x", more=(), end=True):
    """A head, and the body in one frame unless it is None."""
    head = headers(stream, request("POST", path) + list(more), end=False)
    return head if body is None else head + data(stream, body, end)


def data(stream, payload=b"", end=True):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def continuation(stream, payload=b"", end=True):
    return frame(CONTINUATION, END_HEADERS if end else 0, stream, payload)


def settings(*pairs):
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", n, v) for n, v in pairs))


def settings_ack():
    return frame(SETTINGS, ACK)


def ping(opaque=b"\0" * 8, ack=False):
    return frame(PING, ACK if ack else 0, payload=opaque)


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def window(stream, more):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


def priority(stream, depends=0, weight=15, exclusive=False):
    return frame(PRIORITY, 0, stream, struct.pack(">IB", depends | (1 << 31 if exclusive else 0), weight))


def goaway(last=0, code=NO_ERROR, about=b""):
    return frame(GOAWAY, payload=struct.pack(">II", last, code) + about)


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: list = None  # of a HEADERS with all its CONTINUATIONs

    @property
    def code(self):
        """Of RST_STREAM and GOAWAY."""
        return struct.unpack(">I", self.payload[:4] if self.kind == RST_STREAM else self.payload[4:8])[0]

    @property
    def last_stream(self):
        return struct.unpack(">I", self.payload[:4])[0]

    @property
    def increment(self):
        return struct.unpack(">I", self.payload)[0]

    @property
    def ends(self):
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    def has(self, flag):
        return bool(self.flags & flag)

    def __str__(self):
        name = TYPES[self.kind] if self.kind < len(TYPES) else f"type {self.kind}"
        about = f" {error_name(self.code)}" if self.kind in (RST_STREAM, GOAWAY) else f" {self.fields}" if self.fields else ""
        return f"{name} flags={self.flags:#x} stream={self.stream} {len(self.payload)} bytes{about}"


def error_name(code):
    return ERRORS[code] if code < len(ERRORS) else hex(code)


@dataclass
class Stream:
    """What has come of one stream."""

    interim: list = field(default_factory=list)
    fields: list = None  # of the answer's head
    trailers: list = None
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    reset: int = None  # the code

    @property
    def over(self):
        return self.whole or self.reset is not None

    @property
    def status(self):
        return None if self.fields is None else int(dict(self.fields)[":status"])

    def get(self, name, default=None):
        return dict(self.fields).get(name, default)


class Malformed(AssertionError):
    pass


class H2(Client):
    """A connection by prior knowledge, or over TLS with `tls=True`. Sends its preface, `hello`, and acknowledges the other end's
    settings; it says nothing else by itself: windows are given back with `takes` only."""

    def __init__(self, address, tls=False, hello=None, start=True, takes=False, **kw):
        super().__init__(address, tls=tls_context(["h2"]) if tls else None, **kw)
        self.decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self.streams, self.peer, self.frames = {}, {}, []
        self.acked = 0  # settings of ours that the other end has
        self.grown, self.sent = collections.Counter(), collections.Counter()  # windows that the other end gave, and what we used
        self.goaway = None
        self.takes = takes
        try:
            assert not tls or self.sock.selected_alpn_protocol() == "h2"
            if start:
                self.send(PREFACE + (settings() if hello is None else hello))
        except BaseException:
            self.close()
            raise

    def exactly_or_end(self, n):
        """None at the end of the connection between two frames."""
        try:
            return self.exactly(n)
        except Cut as cut:
            if cut.partial and cut.how == "eof":
                raise Malformed(f"the connection ended within a frame: {cut.partial[:100]!r}") from None
            return None

    def frame(self):
        """The next one, accounted for; None at the end."""
        head = self.exactly_or_end(9)
        if head is None:
            return None
        length = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        payload = b""
        if length:
            payload = self.exactly_or_end(length)
            if payload is None:
                return None
        f = Frame(kind, flags, stream, payload)
        self.check(f)
        if kind == HEADERS:
            self.finish_block(f)
        self.frames.append(f)
        self.account(f)
        return f

    def check(self, f):
        """What no server may send us."""
        if f.stream & 1 << 31 or len(f.payload) > FRAME_MAX:
            raise Malformed(f"reserved bit or length of {f}")
        if f.kind in (PUSH_PROMISE, PRIORITY, CONTINUATION):
            raise Malformed(f"not to be sent by a server, or not here: {f}")
        if (f.kind in (DATA, HEADERS, RST_STREAM)) != (f.stream != 0) and f.kind != WINDOW_UPDATE and f.kind < 10:
            raise Malformed(f"on the wrong stream: {f}")
        lengths = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
        if f.kind in lengths and len(f.payload) != lengths[f.kind] or f.kind == SETTINGS and len(f.payload) % 6:
            raise Malformed(f"length of {f}")

    def finish_block(self, f):
        """The field block's rest, and its meaning."""
        parts, last = [f.payload], f
        if f.has(PADDED) or f.has(PRIORITIZED):
            raise Malformed(f"flags that nobody wants: {f}")
        while not last.has(END_HEADERS):
            head = self.exactly(9)
            last = Frame(head[3], head[4], struct.unpack(">I", head[5:])[0], self.exactly(int.from_bytes(head[:3], "big")))
            if last.kind != CONTINUATION or last.stream != f.stream:
                raise Malformed(f"within a field block: {last}")
            parts.append(last.payload)
        f.fields = [(n, v) for n, v in self.decoder.decode(b"".join(parts))]

    def account(self, f):
        if f.kind == SETTINGS and not f.has(ACK):
            self.peer.update(struct.iter_unpack(">HI", f.payload))
            self.try_send(settings_ack())
        elif f.kind == SETTINGS:
            self.acked += 1
        elif f.kind == GOAWAY:
            if self.goaway is None or self.goaway.code == NO_ERROR:
                self.goaway = f  # the first that tells of an error
        elif f.kind == WINDOW_UPDATE:
            self.grown[f.stream] += f.increment
        elif f.kind in (HEADERS, DATA, RST_STREAM):
            self.account_stream(f, self.streams.setdefault(f.stream, Stream()))

    def account_stream(self, f, s):
        if s.over and f.kind != RST_STREAM:
            raise Malformed(f"behind the end of its stream: {f}")
        if f.kind == HEADERS:
            self.account_head(f, s)
        elif f.kind == DATA:
            if s.fields is None or f.has(PADDED):
                raise Malformed(f"before its head, or padded: {f}")
            s.body += f.payload
            if self.takes and f.payload:
                self.try_send(window(0, len(f.payload)) + (b"" if f.ends else window(f.stream, len(f.payload))))
        else:
            s.reset = f.code
        s.whole = s.whole or f.ends

    def account_head(self, f, s):
        names = [n for n, _ in f.fields]
        if any(n != n.lower() for n in names) or any(n in CONNECTION_FIELDS for n in names):
            raise Malformed(f"field names of {f}")
        if s.fields is not None:
            if not f.ends or any(n.startswith(":") for n in names):
                raise Malformed(f"trailers: {f}")
            s.trailers = f.fields
        elif names[:1] != [":status"] or names.count(":status") != 1:
            raise Malformed(f"pseudo-fields of {f}")
        elif 100 <= int(f.fields[0][1]) < 200:
            s.interim.append(int(f.fields[0][1]))
        else:
            s.fields = f.fields

    def frames_until(self, there, what):
        """Reads frames until there() is true; the connection's end before it is an error."""
        while not there():
            if self.frame() is None:
                raise Cut(self.ended, f"{what}; frames: {', '.join(map(str, self.frames[-20:]))}".encode())

    def settled(self, opaque=b"settled!"):
        """The other end has dealt with all that was sent before."""
        self.send(ping(opaque))
        self.frames_until(lambda: self.pong(opaque), "a ping's answer")

    def pong(self, opaque):
        return any(f.kind == PING and f.has(ACK) and f.payload == opaque for f in self.frames[-200:])

    def answer(self, stream):
        """Waits until a stream is over."""
        self.frames_until(lambda: stream in self.streams and self.streams[stream].over, f"the end of stream {stream}")
        return self.streams[stream]

    def answer_head(self, stream):
        self.frames_until(lambda: stream in self.streams and (self.streams[stream].fields is not None or self.streams[stream].over),
                          f"the head of stream {stream}")
        return self.streams[stream]

    def room(self, stream):
        """Bytes of DATA that the other end takes now."""
        of_stream = self.peer.get(INITIAL_WINDOW_SIZE, WINDOW) + self.grown[stream] - self.sent[stream]
        return min(of_stream, WINDOW + self.grown[0] - self.sent[0])

    def send_body(self, stream, body, end=True, padding=None):
        """In frames as long as the windows allow, and waiting for them to grow. With `padding` each has so much of it."""
        while body or padding is not None:
            more = 0 if padding is None else padding + 1
            self.frames_until(lambda: self.room(stream) > more, f"a window of stream {stream}")
            piece = body[:min(self.room(stream), FRAME_MAX) - more]
            body = body[len(piece):]
            self.sent.update({stream: len(piece) + more, 0: len(piece) + more})
            flags = END_STREAM if end and not body else 0
            self.send(frame(DATA, flags, stream, piece) if padding is None else
                      frame(DATA, flags | PADDED, stream, bytes([padding]) + piece + b"\0" * padding))
            if not body:
                return

    def ask(self, stream, path="/x", **kw):
        self.send(get(stream, path, **kw))
        return self.answer(stream)

    def end(self):
        """Reads to the end of the connection; the last GOAWAY's code, or None without one."""
        while self.frame() is not None:
            pass
        return self.goaway.code if self.goaway else None


CONNECTION_FIELDS = ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")


def ask(address, path="/x", tls=False, **kw):
    """One request on a connection of its own."""
    with H2(address, tls=tls, takes=True) as c:
        return c.ask(1, path, **kw)
