"""HTTP/2 as a table: what a client sends behind its preface and first SETTINGS, and what it must hear. Each row names the section of
RFC 9113 that it checks. Where the RFC leaves a choice (a stream error may be treated as one of the connection, 5.4.1; a malformed
request may be answered with 400, 8.1.1), the row has each of them."""

from dataclasses import dataclass

import h2wire as h
from h2wire import (COMPRESSION_ERROR, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PADDED, PRIORITIZED,
                    PROTOCOL_ERROR, STREAM_CLOSED, continuation, data, frame, get, headers, literal, ping, post,
                    priority, request, reset, settings, window)


@dataclass(frozen=True)
class Goaway:
    """A connection error: GOAWAY with this code, then the end. No worker sees what came with it."""

    code: int


@dataclass(frozen=True)
class Reset:
    """A stream error: RST_STREAM; the connection serves on."""

    code: int
    stream: int = 1


@dataclass(frozen=True)
class Answer:
    status: int
    stream: int = 1
    body: bytes = None  # not looked at


@dataclass(frozen=True)
class Nothing:
    """Of the stream nothing is heard; the connection serves on."""

    stream: int = 1


@dataclass
class Row:
    name: str
    send: bytes
    want: tuple  # any of these
    sees: tuple = ()  # what the worker sees: (method, target, body); or may see, if the answer is an error that came behind it
    has: dict = None  # fields of the last request at the worker, each exactly once with this value
    hasnt: tuple = ()


def connection_error(name, send, *codes, sees=()):
    return Row(name, send, tuple(Goaway(code) for code in codes or (PROTOCOL_ERROR,)), sees)


def stream_error(name, send, *codes, stream=1, sees=()):
    codes = codes or (PROTOCOL_ERROR,)
    return Row(name, send, tuple(kind for code in codes for kind in (Reset(code, stream), Goaway(code))), sees)


def malformed(name, send):
    """Refused, by the stream's end or by a 400; no worker sees it."""
    return Row(name, send, (Reset(PROTOCOL_ERROR), Answer(400)))


def served(name, send, *sees, stream=1, has=None, hasnt=()):
    return Row(name, send, (Answer(200, stream),), sees or (("GET", "/x", b""),), has, hasnt)


def ignored(name, send, sees=(), stream=1):
    return Row(name, send, (Nothing(stream),), sees)


def fields(*more, method="GET", **kw):
    """A request with these fields; each a (name, value) or bytes."""
    return headers(1, request(method, **kw) + list(more))


def trailers(*more, body=b"hello", end=True, head=()):
    return headers(1, request("POST") + list(head), end=False) + data(1, body, end=False) + headers(1, list(more), end=end)


def split(at, stream=1, pieces=2):
    """A request whose block goes on in CONTINUATIONs."""
    whole = h.block(request())
    return whole[:at], whole[at:]


FIRST, REST = split(9)
BEGUN = headers(1, [], end=True, more=True, payload=FIRST)
POST = ("POST", "/x", b"hello")
GET = ("GET", "/x", b"")
NINE = b"\0" * 9

FRAMES = [
    # 4.1 Frame format
    served("a frame of an unknown type on the connection is ignored (4.1, 5.5)", frame(0xfe, 0xff, 0, b"abc") + get(1)),
    served("a frame of an unknown type on a stream is ignored (4.1, 5.5)",
           post(1) + frame(0xfe, 0xff, 1, b"abc") + data(1, b"hello"), POST),
    served("an unknown frame of 16384 bytes (4.1)", frame(0xfe, 0, 0, b"x" * 16384) + get(1)),
    served("flags that mean nothing are ignored (4.1)", frame(h.PING, 0xfe, 0, b"12345678") + frame(h.SETTINGS, 0xfe) + get(1)),
    served("flags of HEADERS that mean nothing are ignored (4.1)", headers(1, request(), flags=0xd2 & ~PADDED)),
    served("the reserved bit of a stream's number is ignored (4.1)", frame(h.HEADERS, 5, 1 | 1 << 31, h.block(request()))),
    served("the reserved bit of a PING's stream is ignored (4.1)", frame(h.PING, 0, 1 << 31, b"12345678") + get(1)),

    # 4.2 Frame size
    served("DATA of 16384 bytes (4.2)", post(1, b"x" * 16384), ("POST", "/x", b"x" * 16384)),
    stream_error("DATA of 16385 bytes (4.2)", post(1, b"x" * 16385), FRAME_SIZE_ERROR),
    connection_error("HEADERS of 16385 bytes (4.2)", headers(1, [], payload=h.block(request()) + b"\0" * 16385), FRAME_SIZE_ERROR),
    connection_error("a PING that says 2^24 - 1 bytes (4.2)", frame(h.PING, 0, 0, b"12345678", length=(1 << 24) - 1), FRAME_SIZE_ERROR),
    connection_error("SETTINGS of more than 16384 bytes (4.2)", frame(h.SETTINGS, 0, 0, b"\0\1\0\0\0\0" * 2731), FRAME_SIZE_ERROR),
    connection_error("an unknown frame of 16385 bytes (4.2)", frame(0xfe, 0, 0, b"x" * 16385), FRAME_SIZE_ERROR),

    # 4.3 Field compression
    connection_error("an index of 0 (7541, 6.1)", headers(1, [b"\x80"]), COMPRESSION_ERROR),
    connection_error("an index beyond the tables (7541, 2.3.3)", headers(1, request() + [b"\xbe"]), COMPRESSION_ERROR),
    connection_error("an index of a name beyond the tables (7541, 2.3.3)", headers(1, request() + [b"\x7e\x01a"]), COMPRESSION_ERROR),
    connection_error("an integer that does not end (7541, 5.1)", headers(1, request() + [b"\xff" + b"\x80" * 20 + b"\x01"]),
                     COMPRESSION_ERROR),
    connection_error("an integer above all bounds (7541, 5.1)", headers(1, request() + [b"\xff\xff\xff\xff\xff\xff\xff\x7f"]),
                     COMPRESSION_ERROR),
    connection_error("a string longer than its block (7541, 5.2)", headers(1, request() + [b"\x00\x01a\x7f\x10b"]), COMPRESSION_ERROR),
    connection_error("a block that ends within a line (4.3)", headers(1, request() + [b"\x00\x01"]), COMPRESSION_ERROR),
    connection_error("a Huffman code of EOS (7541, 5.2)", headers(1, request() + [b"\x00\x01a\x84\xff\xff\xff\xff"]), COMPRESSION_ERROR),
    connection_error("Huffman padding of zeros (7541, 5.2)", headers(1, request() + [b"\x00\x01a\x81\x18"]), COMPRESSION_ERROR),
    connection_error("Huffman padding of a byte and more (7541, 5.2)", headers(1, request() + [b"\x00\x01a\x82\x1f\xff"]),
                     COMPRESSION_ERROR),
    connection_error("a table larger than was allowed (7541, 4.2, 6.3)", headers(1, [h.integer(1 << 20, 5, 0x20)] + request()),
                     COMPRESSION_ERROR),
    connection_error("a table's size behind a field (7541, 4.2)", headers(1, request() + [b"\x20"]), COMPRESSION_ERROR),
    connection_error("a broken block of a stream that is refused otherwise (4.3)", headers(1, [("connection", "close"), b"\x80"]),
                     COMPRESSION_ERROR),
    served("a table's size of 0 before the first field (7541, 4.2)", headers(1, [b"\x20"] + request())),
    served("a line is put into the table, and used by the next request (7541, 2.3.2)",
           headers(1, request() + [literal("a", "b", 0x40)]) + headers(3, request(path="/y") + [b"\xbe"]), GET, ("GET", "/y", b""),
           stream=3, has={"a": "b"}),
    Row("the block of a malformed request counts for the table (4.3, 8.1.1)",
        headers(1, [literal("a", "b", 0x40), ("Upper", "case")]) + headers(3, request() + [b"\xbe"]), (Answer(200, 3),), (GET,), {"a": "b"}),
    Row("trailers of a stream that was reset count for the table (4.3, 5.1)",
        headers(1, request("POST"), end=False) + reset(1) + headers(1, [literal("a", "b", 0x40)]) + headers(3, request() + [b"\xbe"]),
        (Answer(200, 3), Goaway(STREAM_CLOSED)), (GET,), {"a": "b"}),
    served("a field whose value is Huffman-coded (7541, 5.2)", headers(1, request() + [b"\x00\x01a\x81\x1f"]), has={"a": "a"}),

    # 5.1 Stream states
    connection_error("DATA on an idle stream (5.1)", data(1, b"x")),
    connection_error("RST_STREAM on an idle stream (5.1, 6.4)", reset(1)),
    connection_error("WINDOW_UPDATE on an idle stream (5.1)", window(1, 1)),
    connection_error("CONTINUATION on an idle stream (5.1, 6.10)", continuation(1, h.block(request()))),
    connection_error("DATA on an idle stream of the server's (5.1)", data(2, b"x")),
    served("PRIORITY on an idle stream (5.1, 6.3)", priority(1) + priority(7, 1) + get(1)),
    stream_error("DATA behind the end of the stream (5.1)", get(1) + data(1, b"x"), STREAM_CLOSED, sees=(GET,)),
    stream_error("HEADERS behind the end of the stream (5.1)", get(1) + headers(1, [("a", "b")]), STREAM_CLOSED, sees=(GET,)),
    connection_error("CONTINUATION behind the end of the stream (5.1, 6.10)", get(1) + continuation(1), PROTOCOL_ERROR, STREAM_CLOSED,
                     sees=(GET,)),
    served("WINDOW_UPDATE, PRIORITY behind the end of the stream (5.1)", get(1) + window(1, 1) + priority(1, 3)),
    ignored("RST_STREAM of a stream that is reset (5.1)", post(1) + reset(1) + reset(1)),
    ignored("WINDOW_UPDATE on a stream that is reset (5.1)", post(1) + reset(1) + window(1, 1)),
    Row("DATA on a stream that is reset (5.1)", post(1) + reset(1) + data(1, b"x"),
        (Nothing(), Reset(STREAM_CLOSED), Goaway(STREAM_CLOSED))),
    Row("HEADERS on a stream that is reset (5.1)", post(1) + reset(1) + headers(1, [("a", "b")]),
        (Nothing(), Reset(STREAM_CLOSED), Goaway(STREAM_CLOSED))),
    connection_error("CONTINUATION on a stream that is reset (5.1, 6.10)", post(1) + reset(1) + continuation(1), PROTOCOL_ERROR,
                     STREAM_CLOSED),

    # 5.1.1 Stream identifiers
    connection_error("a stream of an even number (5.1.1)", headers(2, request())),
    connection_error("HEADERS on stream 0 (5.1.1, 6.2)", headers(0, request())),
    # The RFC wants an error; who forgets closed streams cannot tell one from a field block on its way to a stream that was reset.
    Row("a stream of a smaller number than one before (5.1.1)", get(5) + get(3, "/smaller"),
        (Goaway(PROTOCOL_ERROR), Nothing(3), Reset(STREAM_CLOSED, 3)), (GET,)),
    served("numbers are left out (5.1.1)", get(5) + get(99, "/y"), GET, ("GET", "/y", b""), stream=99),

    # 5.3 Priorities are read past; RFC 7540 called a stream that depends on itself an error.
    Row("HEADERS that depend on themselves (7540, 5.3.1)", headers(1, [], flags=PRIORITIZED, payload=b"\0\0\0\1\7" + h.block(request())),
        (Answer(200), Reset(PROTOCOL_ERROR), Goaway(PROTOCOL_ERROR)), (GET,)),
    Row("PRIORITY that depends on itself (7540, 5.3.1)", priority(1, 1) + get(1),
        (Answer(200), Reset(PROTOCOL_ERROR), Goaway(PROTOCOL_ERROR)), (GET,)),
    served("priorities in a circle (7540, 5.3.3)", priority(1, 5) + priority(3, 1) + priority(5, 3) + priority(1, 5, exclusive=True) + get(1)),

    # 5.5 Extensions
    connection_error("an unknown frame within a field block (5.5, 6.10)", BEGUN + frame(0xfe, 0, 1) + continuation(1, REST)),
    served("an unknown setting (5.5, 6.5.2)", settings((0xff00, 1), (7, 0)) + get(1)),
    served("an unknown error code (7)", post(1) + reset(1, 0xdeadbeef) + get(3), GET, stream=3),

    # 6.1 DATA
    connection_error("DATA on stream 0 (6.1)", data(0, b"x")),
    served("padded DATA (6.1)", post(1) + frame(h.DATA, END_STREAM | PADDED, 1, b"\4hello\0\0\0\0"), POST),
    served("DATA that is padding only (6.1)", post(1) + frame(h.DATA, PADDED, 1, b"\3\0\0\0") + data(1, b"hello"), POST),
    served("empty DATA ends the stream (6.1)", post(1, b"hello", end=False) + data(1), POST),
    connection_error("padding as long as the payload (6.1)", post(1) + frame(h.DATA, END_STREAM | PADDED, 1, b"\6hello")),
    connection_error("padding longer than the payload (6.1)", post(1) + frame(h.DATA, END_STREAM | PADDED, 1, b"\xffhello")),
    connection_error("PADDED without a length (6.1)", post(1) + frame(h.DATA, END_STREAM | PADDED, 1), PROTOCOL_ERROR, FRAME_SIZE_ERROR),

    # 6.2 HEADERS
    served("padded HEADERS (6.2)", headers(1, [], flags=PADDED, payload=b"\3" + h.block(request()) + b"\0\0\0")),
    served("HEADERS with priority (6.2)", headers(1, [], flags=PRIORITIZED, payload=b"\0\0\0\0\7" + h.block(request()))),
    served("HEADERS with both (6.2)",
           headers(1, [], flags=PRIORITIZED | PADDED, payload=b"\2\x80\0\0\3\7" + h.block(request()) + b"\0\0")),
    connection_error("padding longer than HEADERS (6.2)", headers(1, [], flags=PADDED, payload=b"\xff" + h.block(request()))),
    connection_error("HEADERS too short for their priority (6.2)", headers(1, [], flags=PRIORITIZED, payload=b"\0\0"), FRAME_SIZE_ERROR,
                     PROTOCOL_ERROR),
    connection_error("HEADERS within a field block (6.2)", BEGUN + get(3)),
    connection_error("DATA within a field block (6.2)", BEGUN + data(1, b"x")),
    connection_error("PING within a field block (6.2)", BEGUN + ping()),
    connection_error("SETTINGS within a field block (6.2)", BEGUN + settings()),
    connection_error("WINDOW_UPDATE within a field block (6.2)", BEGUN + window(0, 1)),
    connection_error("RST_STREAM within a field block (6.2)", BEGUN + reset(1)),

    # 6.3 PRIORITY
    connection_error("PRIORITY on stream 0 (6.3)", priority(0)),
    stream_error("PRIORITY of 4 bytes (6.3)", post(1) + frame(h.PRIORITY, 0, 1, b"\0" * 4), FRAME_SIZE_ERROR),
    stream_error("PRIORITY of 6 bytes (6.3)", post(1) + frame(h.PRIORITY, 0, 1, b"\0" * 6), FRAME_SIZE_ERROR),

    # 6.4 RST_STREAM
    connection_error("RST_STREAM on stream 0 (6.4)", reset(0)),
    connection_error("RST_STREAM of 3 bytes (6.4)", post(1) + frame(h.RST_STREAM, 0, 1, b"\0" * 3), FRAME_SIZE_ERROR),
    connection_error("RST_STREAM of 5 bytes (6.4)", post(1) + frame(h.RST_STREAM, 0, 1, b"\0" * 5), FRAME_SIZE_ERROR),
    ignored("a stream is reset before its body is whole: no worker sees it (6.4)", post(1, b"half", end=False) + reset(1)),

    # 6.5 SETTINGS
    connection_error("SETTINGS on a stream (6.5)", frame(h.SETTINGS, 0, 1)),
    connection_error("SETTINGS of 5 bytes (6.5)", frame(h.SETTINGS, 0, 0, b"\0" * 5), FRAME_SIZE_ERROR),
    connection_error("an acknowledgement with a payload (6.5)", frame(h.SETTINGS, h.ACK, 0, b"\0\1\0\0\0\0"), FRAME_SIZE_ERROR),
    connection_error("ENABLE_PUSH 2 (6.5.2)", settings((h.ENABLE_PUSH, 2))),
    connection_error("INITIAL_WINDOW_SIZE 2^31 (6.5.2)", settings((h.INITIAL_WINDOW_SIZE, 1 << 31)), FLOW_CONTROL_ERROR),
    connection_error("MAX_FRAME_SIZE 16383 (6.5.2)", settings((h.MAX_FRAME_SIZE, 16383))),
    connection_error("MAX_FRAME_SIZE 2^24 (6.5.2)", settings((h.MAX_FRAME_SIZE, 1 << 24))),
    connection_error("ENABLE_CONNECT_PROTOCOL 2 (8441, 3)", settings((h.ENABLE_CONNECT_PROTOCOL, 2))),
    served("every setting at its bounds (6.5.2)",
           settings((h.HEADER_TABLE_SIZE, 0), (h.ENABLE_PUSH, 0), (h.MAX_CONCURRENT_STREAMS, 0), (h.INITIAL_WINDOW_SIZE, h.WINDOW_MAX),
                    (h.MAX_FRAME_SIZE, (1 << 24) - 1), (h.MAX_HEADER_LIST_SIZE, (1 << 32) - 1)) + get(1)),
    served("a setting given twice: the last counts (6.5.3)",
           settings((h.INITIAL_WINDOW_SIZE, 0), (h.INITIAL_WINDOW_SIZE, 65535)) + get(1)),

    # 6.6 PUSH_PROMISE
    connection_error("PUSH_PROMISE from a client (6.6, 8.4)", post(1) + frame(h.PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + h.block(request()))),

    # 6.7 PING
    connection_error("PING on a stream (6.7)", frame(h.PING, 0, 1, b"12345678")),
    connection_error("PING of 7 bytes (6.7)", frame(h.PING, 0, 0, b"1234567"), FRAME_SIZE_ERROR),
    connection_error("PING of 9 bytes (6.7)", frame(h.PING, 0, 0, b"123456789"), FRAME_SIZE_ERROR),
    served("an answer to no PING (6.7)", ping(b"87654321", ack=True) + get(1)),

    # 6.8 GOAWAY
    connection_error("GOAWAY on a stream (6.8)", frame(h.GOAWAY, 0, 1, b"\0" * 8)),
    connection_error("GOAWAY of 7 bytes (6.8)", frame(h.GOAWAY, 0, 0, b"\0" * 7), FRAME_SIZE_ERROR),

    # 6.9 WINDOW_UPDATE
    connection_error("the connection's window grows by 0 (6.9)", window(0, 0)),
    stream_error("a stream's window grows by 0 (6.9)", post(1) + window(1, 0)),
    connection_error("WINDOW_UPDATE of 3 bytes (6.9)", frame(h.WINDOW_UPDATE, 0, 0, b"\0\0\1"), FRAME_SIZE_ERROR),
    connection_error("WINDOW_UPDATE of 5 bytes (6.9)", frame(h.WINDOW_UPDATE, 0, 0, b"\0\0\0\1\0"), FRAME_SIZE_ERROR),
    served("the reserved bit of an increment is ignored (6.9)", frame(h.WINDOW_UPDATE, 0, 0, b"\x80\0\0\1") + get(1)),
    connection_error("the connection's window goes over 2^31 - 1 (6.9.1)", window(0, h.WINDOW_MAX), FLOW_CONTROL_ERROR),
    stream_error("a stream's window goes over 2^31 - 1 (6.9.1)", post(1) + window(1, h.WINDOW_MAX), FLOW_CONTROL_ERROR),
    connection_error("a setting takes a stream's window over 2^31 - 1 (6.9.2)",
                     post(1) + window(1, 1) + settings((h.INITIAL_WINDOW_SIZE, h.WINDOW_MAX)), FLOW_CONTROL_ERROR),

    # 6.10 CONTINUATION
    served("a field block in two (6.10)", BEGUN + continuation(1, REST)),
    served("a field block in eight, some of them empty (6.10)",
           BEGUN + b"".join(continuation(1, REST[i:i + 5], end=False) + continuation(1, b"", end=False) for i in range(0, 15, 5))
           + continuation(1, REST[15:])),
    connection_error("CONTINUATION behind a whole field block (6.10)", post(1) + continuation(1, h.block([("a", "b")]))),
    connection_error("CONTINUATION behind DATA (6.10)", post(1, b"x", end=False) + continuation(1)),
    connection_error("CONTINUATION on another stream (6.10)", BEGUN + continuation(3, REST)),
    connection_error("CONTINUATION on stream 0 (6.10)", BEGUN + continuation(0, REST)),
    connection_error("CONTINUATION behind the last (6.10)", BEGUN + continuation(1, REST) + continuation(1), sees=(GET,)),
]

MESSAGES = [
    # 8.1 Message framing
    served("a body in pieces (8.1)", post(1) + data(1, b"he", end=False) + data(1, b"", end=False) + data(1, b"llo"), POST,
           has={"content-length": "5"}),
    served("no body in a POST (8.1)", fields(method="POST"), ("POST", "/x", b"")),
    served("trailers are read and dropped (8.1)", trailers(("a", "b")), POST, hasnt=("a",)),
    malformed("trailers that do not end the stream (8.1)", trailers(("a", "b"), end=False)),
    malformed("pseudo-fields in trailers (8.1, 8.3)", trailers((":path", "/y"))),
    malformed("an unknown pseudo-field in trailers (8.3)", trailers((":x", "/y"))),
    malformed("connection-specific fields in trailers (8.2.2)", trailers(("connection", "close"))),
    malformed("upper case in trailers (8.2.1)", trailers(("A", "b"))),
    served("content-length that holds (8.1.1)", post(1, b"hello", more=[("content-length", "5")]), POST, has={"content-length": "5"}),
    malformed("content-length less than the body (8.1.1)", post(1, b"hello", more=[("content-length", "4")])),
    malformed("content-length more than the body (8.1.1)", post(1, b"hello", more=[("content-length", "6")])),
    malformed("content-length of a request without a body (8.1.1)", fields(("content-length", "1"), method="POST")),
    malformed("content-length more than the body before trailers (8.1.1)", trailers(("a", "b"), head=[("content-length", "6")])),
    malformed("two content-lengths that differ (8.1.1)", post(1, b"hello", more=[("content-length", "5"), ("content-length", "6")])),
    malformed("two content-lengths that agree (10.3)", post(1, b"hello", more=[("content-length", "5"), ("content-length", "5")])),
    malformed("content-length with a sign (8.1.1)", post(1, b"hello", more=[("content-length", "+5")])),
    malformed("content-length in a list (8.1.1)", post(1, b"hello", more=[("content-length", "5, 5")])),
    malformed("content-length above 2^64 (8.1.1)", post(1, b"hello", more=[("content-length", "18446744073709551621")])),
    malformed("an empty content-length (8.1.1)", post(1, b"hello", more=[("content-length", "")])),

    # 8.2.1 Field validity
    *[malformed(f"a field name {what} (8.2.1)", fields((name, "b"))) for what, name in (
        ("in upper case", "Aa"), ("with a space", "a a"), ("with a space at its end", "a "), ("with a colon", "a:b"),
        ("that is empty", ""), ("with NUL", "a\0"), ("with CR", "a\r"), ("with LF", "a\n"), ("with CR LF and a field", "a\r\nb: c"),
        ("with DEL", "a\x7f"), ("above ASCII", "a\xe9"), ("with a tab", "a\tb"), ("with a parenthesis", "a(b)"))],
    *[malformed(f"a field value {what} (8.2.1)", fields(("a", value))) for what, value in (
        ("with NUL", "b\0c"), ("with CR", "b\rc"), ("with LF", "b\nc"), ("with CR LF and a field", "b\r\nc: d"),
        ("with a request", "b\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n"))],
    *[malformed(f"a field value {what} (8.2.1)", fields(("a", value))) for what, value in (
        ("with a space at its begin", " b"), ("with a space at its end", "b "), ("with a tab at its begin", "\tb"),
        ("with a tab at its end", "b\t"))],
    served("an empty value (8.2.1)", fields(("a", "")), has={"a": ""}),
    served("octets above ASCII in a value (8.2.1)", fields(("a", "\xc3\xa9\xff")), has={"a": "\xc3\xa9\xff"}),
    served("spaces within a value (8.2.1)", fields(("a", "b \t c")), has={"a": "b \t c"}),

    # 8.2.2 Connection-specific fields
    *[malformed(f"{name}: {value} (8.2.2)", fields((name, value))) for name, value in (
        ("connection", "close"), ("connection", "x-foo"), ("keep-alive", "timeout=5"), ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"), ("transfer-encoding", "identity"), ("upgrade", "h2c"), ("te", "gzip"),
        ("te", "trailers, gzip"))],
    malformed("transfer-encoding with a body of chunks (8.2.2, 10.3)",
              post(1, b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n", more=[("transfer-encoding", "chunked")])),
    served("te: trailers (8.2.2)", fields(("te", "trailers")), hasnt=("te", "transfer-encoding")),

    # 8.2.3 Cookies
    served("cookie crumbs are one field for the worker (8.2.3)", fields(("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f")),
           has={"cookie": "a=b; c=d; e=f"}),

    # 8.3 Control data
    malformed("a pseudo-field behind a field (8.3)", headers(1, [(":method", "GET"), (":scheme", "http"), ("a", "b"), (":path", "/x"),
                                                                 (":authority", "test")])),
    malformed("an unknown pseudo-field (8.3)", fields((":x", "y"))),
    malformed("a pseudo-field of responses (8.3)", fields((":status", "200"))),
    *[malformed(f"{name}, then {name} {value} (8.3)", headers(1, request() + [(name, value)])) for name, value in (
        (":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "test"), (":path", "/y"))],
    *[malformed(f"no :{name} (8.3.1)", headers(1, request(**{name: None}))) for name in ("method", "scheme", "path")],
    malformed("an empty :path (8.3.1)", fields(path="")),
    malformed("a :path that does not begin with a slash (8.3.1)", fields(path="x")),
    malformed("a :path of * for GET (8.3.1)", fields(path="*")),
    served("OPTIONS * (8.3.1)", fields(method="OPTIONS", path="*"), ("OPTIONS", "*", b"")),
    *[malformed(f"a :path {what} (8.3.1, 10.3)", fields(path=path)) for what, path in (
        ("with a space", "/x HTTP/1.1"), ("with CR LF", "/x\r\na: b"), ("with NUL", "/x\0"), ("with a fragment", "/x#y"),
        ("with DEL", "/x\x7f"), ("with a tab", "/x\ty"))],
    *[malformed(f"a :method {what} (8.3.1, 10.3)", fields(method=method)) for what, method in (
        ("that is empty", ""), ("with a space", "GET /y"), ("with CR LF", "GET\r\n"), ("with a colon", "GE:T"))],
    *[malformed(f"a :authority {what} (8.3.1, 10.3)", fields(authority=authority)) for what, authority in (
        ("with user and password", "a:b@test"), ("with a user", "a@test"), ("with a space", "te st"), ("with CR LF", "test\r\na: b"),
        ("with a slash", "test/x"), ("with a port that is none", "test:x"), ("with NUL", "test\0"))],
    malformed("an empty :authority (8.3.1)", fields(authority="")),
    malformed("a :scheme with a space (8.3.1)", fields(scheme="ht tp")),
    served("host without :authority (8.3.1)", fields(("host", "test"), authority=None), has={"host": "test"}),
    served("host that agrees with :authority (8.3.1)", fields(("host", "test")), has={"host": "test"}),
    malformed("host that differs from :authority (8.3.1)", fields(("host", "evil"))),
    malformed("host twice (8.3.1)", fields(("host", "test"), ("host", "test"))),
    malformed("host twice, without :authority (8.3.1)", fields(("host", "test"), ("host", "evil"), authority=None)),
    malformed("neither :authority nor host (8.3.1)", fields(authority=None)),
    served(":authority with a port (8.3.1)", fields(authority="test:80"), has={"host": "test:80"}),

    # 8.5 CONNECT
    malformed("CONNECT with :path and :scheme (8.5)", fields(method="CONNECT")),
    malformed("CONNECT without :authority (8.5)", headers(1, [(":method", "CONNECT")])),
    malformed(":protocol for GET (8441, 4)", headers(1, request() + [(":protocol", "websocket")])),
    malformed(":protocol twice (8441, 4)", headers(1, request("CONNECT") + [(":protocol", "websocket")] * 2)),

    # 10.3 What an HTTP/1.1 worker would take for something else
    served("field lines of the same name stay apart", fields(("a", "1"), ("b", "2"), ("a", "3"))),
    served("what forebay itself tells workers is not the client's to tell", fields(("x-forwarded-proto", "gopher"),),
           has={"x-forwarded-proto": "http"}),
    malformed("a header list that would be two requests in HTTP/1.1", fields(("a", "b\r\ncontent-length: 5\r\n\r\nhello"), method="POST")),
]

ROWS = FRAMES + MESSAGES
SAMPLE = 5  # over TLS, every so many of them
assert len({row.name for row in ROWS}) == len(ROWS)
