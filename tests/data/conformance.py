"""HTTP/1.1 as tables: what a client sends, what it must hear and what the worker may see; and what a worker sends and what the
client must hear. Each row names the rule it checks (RFC 9112 unless said otherwise) or the trick it withstands."""

from dataclasses import dataclass, field


@dataclass
class Seen:
    """A request at the worker. None: not looked at."""

    target: str = "/x"
    method: str = "GET"
    body: bytes = b""
    has: dict = field(default_factory=dict)  # fields, each exactly once with this value
    hasnt: tuple = ()  # names, in lower case


@dataclass
class Row:
    name: str
    send: bytes
    want: tuple  # statuses, one for each answer; a tuple in it: any of these
    closes: bool  # the connection ends behind the last answer; else it serves another request
    sees: tuple = ()  # what the worker sees


def head(*lines, request="GET /x HTTP/1.1", host="Host: test"):
    """A request head; lines may be str or bytes."""
    out = [request] + ([host] if host else []) + list(lines)
    return b"".join((x if isinstance(x, bytes) else x.encode("latin-1")) + b"\r\n" for x in out) + b"\r\n"


def post(*lines, body=b"", request="POST /x HTTP/1.1"):
    return head(*lines, request=request) + body


def refused(name, send, status=400):
    """Refused at the door: the worker sees nothing, the connection ends, what follows is not looked at."""
    return Row(name, send, (status,), True)


def passed(name, send, **seen):
    return Row(name, send, (200,), False, (Seen(**seen),))


def line(text):
    """A request line as given, else well formed."""
    return head(request=text)


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"

REQUESTS = [
    # 2.2 Message parsing
    passed("an empty line before the request is passed over (2.2)", b"\r\n" + head()),
    refused("a bare LF before the request (2.2)", b"\n" + head()),
    refused("lines that end in LF (2.2)", b"GET /x HTTP/1.1\nHost: test\n\n"),
    refused("one field line that ends in LF (2.2)", b"GET /x HTTP/1.1\r\nHost: test\nA: b\r\n\r\n"),
    refused("an end of head of LF LF (2.2)", b"GET /x HTTP/1.1\r\nHost: test\r\n\n"),
    refused("an end of head of CR LF LF with more (2.2)", b"GET /x HTTP/1.1\r\nHost: test\n\r\n" + SMUGGLED),
    refused("a bare CR in the request line (2.2)", b"GET /x\r HTTP/1.1\r\nHost: test\r\n\r\n"),
    refused("a bare CR in a value (2.2)", head(b"A: b\rc")),
    refused("a bare CR at the end of a value (2.2)", head(b"A: b\r")),
    refused("a bare CR in a name (2.2)", head(b"A\rB: c")),
    refused("lines that end in CR (2.2)", b"GET /x HTTP/1.1\rHost: test\r\r\n\r\n"),
    refused("whitespace before the first field (2.2)", head(host=" Host: test")),
    refused("a tab before the first field (2.2)", head(host="\tHost: test")),
    refused("whitespace before the first field, another Host behind (2.2)", head("Host: test", host=" Host: evil")),
    passed("octets above ASCII in a value pass as they are (2.2)", head(b"A: \xc3\xa9\xff"), has={"A": "\xc3\xa9\xff"}),
    refused("bytes of TLS", b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03" + b"\r\n\r\n"),
    refused("the preface of HTTP/2 (9113, 3.4)", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505, 400)),

    # 2.3 Version
    passed("HTTP/1.2 is served as HTTP/1.1 (2.3; 9110, 2.5)", line("GET /x HTTP/1.2")),
    refused("HTTP/2.0 (2.3)", line("GET /x HTTP/2.0"), 505),
    refused("HTTP/0.9 (2.3)", line("GET /x HTTP/0.9"), 505),
    refused("HTTP/0.9 without a version (3)", b"GET /x\r\n\r\n", (400, 505)),
    refused("version in lower case (2.3)", line("GET /x http/1.1")),
    refused("version with two digits (2.3)", line("GET /x HTTP/1.10")),
    refused("version with leading zero (2.3)", line("GET /x HTTP/01.1")),
    refused("version without minor (2.3)", line("GET /x HTTP/1")),
    refused("version with letters (2.3)", line("GET /x HTTP/1.x")),
    refused("another protocol (2.3)", line("GET /x ICY/1.1")),
    refused("version with a sign (2.3)", line("GET /x HTTP/+1.1")),
    Row("an HTTP/1.0 request is answered, and the worker hears HTTP/1.1 (2.3)", line("GET /x HTTP/1.0"), (200,), True, (Seen(),)),

    # 3 Request line
    refused("two spaces behind the method (3)", line("GET  /x HTTP/1.1")),
    refused("two spaces before the version (3)", line("GET /x  HTTP/1.1")),
    refused("a tab for a space (3)", line("GET\t/x HTTP/1.1")),
    refused("a tab before the version (3)", line("GET /x\tHTTP/1.1")),
    refused("a space at the end (3)", line("GET /x HTTP/1.1 ")),
    refused("a space at the beginning (3)", line(" GET /x HTTP/1.1")),
    refused("a form feed for a space (3)", line("GET\f/x HTTP/1.1")),
    refused("a space in the target (3)", line("GET /x y HTTP/1.1")),
    refused("no target (3)", line("GET HTTP/1.1")),
    refused("no method (3)", line("/x HTTP/1.1")),
    refused("a method that is no token (3.1)", line("GE(T /x HTTP/1.1")),
    refused("a method with octets above ASCII (3.1)", line("G\xc9T /x HTTP/1.1")),
    refused("a method with NUL (3.1)", line("GET\0 /x HTTP/1.1")),
    passed("methods are case-sensitive (3.1)", line("get /x HTTP/1.1"), method="get"),
    passed("an unknown method passes (3.1)", line("M-SEARCH /x HTTP/1.1"), method="M-SEARCH"),
    passed("a target of 8000 octets (3)", line("GET /" + "x" * 7999 + " HTTP/1.1"), target="/" + "x" * 7999),

    # 3.2 Target
    passed("a query (3.2.1)", line("GET /x?a=b&c=%2F?d HTTP/1.1"), target="/x?a=b&c=%2F?d"),
    passed("an empty query stays (3.2.1)", line("GET /x? HTTP/1.1"), target="/x?"),
    passed("a double slash stays (3.2.1)", line("GET //x//y HTTP/1.1"), target="//x//y"),
    passed("percent-encoding stays (3.2.1)", line("GET /a%2Fb/%41%7e HTTP/1.1"), target="/a%2Fb/%41%7e"),
    Row("a path that leaves the root is refused (3986, 5.2.4)", line("GET /../x HTTP/1.1"), (400,), False),
    Row("a path that leaves the root, encoded, is refused (3986, 5.2.4)", line("GET /%2e%2E/x HTTP/1.1"), (400,), False),
    refused("a target without a slash (3.2)", line("GET x HTTP/1.1")),
    refused("a fragment (3.2)", line("GET /x#y HTTP/1.1")),
    refused("octets above ASCII in the target (3.2)", line("GET /\xe9 HTTP/1.1")),
    refused("NUL in the target (3.2)", line("GET /\0 HTTP/1.1")),
    refused("DEL in the target (3.2)", line("GET /\x7f HTTP/1.1")),
    refused("an asterisk with GET (3.2.4)", line("GET * HTTP/1.1")),
    refused("an asterisk with a path (3.2.4)", line("OPTIONS */x HTTP/1.1")),
    passed("OPTIONS * (3.2.4)", line("OPTIONS * HTTP/1.1"), method="OPTIONS", target="*"),
    passed("OPTIONS with forwards left (9110, 7.6.2)", head("Max-Forwards: 7", request="OPTIONS /x HTTP/1.1"), method="OPTIONS",
           has={"Max-Forwards": "6"}),
    passed("TRACE with forwards left (9110, 7.6.2)", head("Max-Forwards: 1", request="TRACE /x HTTP/1.1"), method="TRACE", has={"Max-Forwards": "0"}),
    passed("Max-Forwards is nothing to GET (9110, 7.6.2)", head("Max-Forwards: 0"), has={"Max-Forwards": "0"}),
    Row("OPTIONS without forwards left ends here (9110, 7.6.2)", head("Max-Forwards: 0", request="OPTIONS /x HTTP/1.1"), (204,), False),
    Row("TRACE without forwards left ends here (9110, 7.6.2)", head("Max-Forwards: 0", request="TRACE /x HTTP/1.1"), (405,), False),
    passed("absolute-form, its host wins (3.2.2)", head(request="GET http://example.org/x?y HTTP/1.1", host="Host: other"),
           target="/x?y", has={"Host": "example.org"}),
    passed("absolute-form with a port (3.2.2)", line("GET http://example.org:8080/x HTTP/1.1"), has={"Host": "example.org:8080"}),
    passed("absolute-form in capitals (3.2.2)", line("GET HTTP://EXAMPLE.org/x HTTP/1.1")),
    passed("absolute-form with IPv6 (3.2.2)", line("GET http://[::1]:80/x HTTP/1.1"), has={"Host": "[::1]:80"}),
    passed("absolute-form without a path is the root (3.2.2)", line("GET http://example.org HTTP/1.1"), target="/"),
    passed("absolute-form without a path, with a query (3.2.2)", line("GET http://example.org?q HTTP/1.1"), target="/?q"),
    refused("absolute-form with user information (9110, 4.2.4)", line("GET http://user@example.org/x HTTP/1.1")),
    refused("absolute-form without a host (9110, 4.2.1)", line("GET http:///x HTTP/1.1")),
    refused("absolute-form with a broken port", line("GET http://example.org:99999/x HTTP/1.1")),
    refused("absolute-form with a broken host", line("GET http://exa<mple/x HTTP/1.1")),
    refused("absolute-form of another scheme", line("GET ftp://example.org/x HTTP/1.1")),
    refused("absolute-form, two Hosts", head("Host: b", request="GET http://example.org/x HTTP/1.1")),
    refused("absolute-form without Host (3.2)", head(request="GET http://example.org/x HTTP/1.1", host=None)),
    refused("authority-form with GET (3.2.3)", line("GET example.org:80 HTTP/1.1")),
    refused("CONNECT (3.2.3)", line("CONNECT example.org:443 HTTP/1.1"), 501),
    refused("CONNECT with a path (3.2.3)", line("CONNECT /x HTTP/1.1"), (400, 501)),

    # 3.2 Host
    refused("no Host (3.2)", head(host=None)),
    refused("two Hosts that differ (3.2)", head("Host: other")),
    refused("two Hosts that agree (3.2)", head("Host: test")),
    refused("two Hosts, one in capitals (3.2)", head("HOST: other")),
    refused("a list of Hosts (3.2)", head(host="Host: a, b")),
    refused("a Host with a space (3.2)", head(host="Host: a b")),
    refused("a Host with a path (3.2)", head(host="Host: a/b")),
    refused("a Host with user information (3.2)", head(host="Host: u@a")),
    refused("a Host with a scheme (3.2)", head(host="Host: http://a")),
    refused("a Host with a question mark (3.2)", head(host="Host: a?b")),
    refused("a Host with a hash (3.2)", head(host="Host: a#b")),
    refused("a Host with a backslash (3.2)", head(host="Host: a\\b")),
    refused("a Host with a port that is no number (3.2)", head(host="Host: a:b")),
    refused("a Host with a port over 65535 (3.2)", head(host="Host: a:65536")),
    refused("a Host with two ports (3.2)", head(host="Host: a:1:2")),
    refused("a Host with a broken IPv6 address (3.2)", head(host="Host: [::1")),
    refused("a Host with octets above ASCII (3.2)", head(host="Host: \xe9")),
    refused("a Host with NUL (3.2)", head(host="Host: a\0b")),
    refused("Host with a space before the colon (5.1)", head(host="Host : test")),
    passed("a Host with a port (3.2)", head(host="Host: test:8000"), has={"Host": "test:8000"}),
    passed("a Host with IPv6 (3.2)", head(host="Host: [2001:db8::1]:80"), has={"Host": "[2001:db8::1]:80"}),
    Row("no Host in HTTP/1.0 (3.2)", b"GET /x HTTP/1.0\r\n\r\n", (200,), True, (Seen(),)),
    refused("two Hosts in HTTP/1.0 (3.2)", head("Host: b", request="GET /x HTTP/1.0")),

    # 5 Fields
    refused("a space before the colon (5.1)", head("A : b")),
    refused("a tab before the colon (5.1)", head("A\t: b")),
    refused("no colon (5)", head("nonsense")),
    refused("no name (5)", head(": b")),
    refused("a name with a space (5.1)", head("A B: c")),
    refused("a name that is no token (5.1)", head("A(b): c")),
    refused("a name with octets above ASCII (5.1)", head("\xc4: c")),
    refused("a name with NUL (5.1)", head("A\0: c")),
    refused("a value with NUL (9110, 5.5)", head("A: b\0c")),
    refused("a value with another control (9110, 5.5)", head("A: b\x01c")),
    refused("a value with DEL (9110, 5.5)", head("A: b\x7fc")),
    refused("a value with a vertical tab", head("A: \x0bb")),
    refused("a folded line (5.2)", head("A: b\r\n c")),
    refused("a line folded by a tab (5.2)", head("A: b\r\n\tc")),
    refused("a folded line of blanks (5.2)", head("A: b\r\n ")),
    refused("a folded Transfer-Encoding (5.2)", post("Transfer-Encoding:\r\n chunked", body=HELLO)),
    passed("whitespace around a value is not part of it (5.1)", head("A: \t b c \t "), has={"A": "b c"}),
    passed("no whitespace around a value (5.1)", head("A:b"), has={"A": "b"}),
    passed("an empty value (5.1)", head("A:"), has={"A": ""}),
    passed("a tab in a value (9110, 5.5)", head("A: b\tc"), has={"A": "b\tc"}),
    passed("a colon in a value", head("A: b:c: d"), has={"A": "b:c: d"}),
    passed("names that are tokens (9110, 5.6.2)", head("!#$%&'*+-.^`|~9: x"), has={"!#$%&'*+-.^`|~9": "x"}),

    # 6.1 Transfer-Encoding
    passed("chunks (6.1; 7.1)", post(CHUNKED, body=HELLO), method="POST", body=b"hello",
           has={"Content-Length": "5"}, hasnt=("transfer-encoding",)),
    passed("chunked in capitals (7)", post("TRANSFER-ENCODING: CHUNKED", body=HELLO), method="POST", body=b"hello"),
    passed("chunked with blanks around it (5.1)", post("Transfer-Encoding: \t chunked \t", body=HELLO), method="POST", body=b"hello"),
    refused("length and chunks (6.1; CL.TE)", post("Content-Length: 5", CHUNKED, body=HELLO + SMUGGLED)),
    refused("chunks and length (6.1; TE.CL)", post(CHUNKED, "Content-Length: 5", body=HELLO + SMUGGLED)),
    refused("length 0 and chunks (CL.0)", post("Content-Length: 0", CHUNKED, body=HELLO + SMUGGLED)),
    refused("chunked twice in a list (6.1)", post("Transfer-Encoding: chunked, chunked", body=HELLO)),
    refused("chunked twice in two lines (6.1)", post(CHUNKED, CHUNKED, body=HELLO)),
    refused("chunked not last (6.3)", post("Transfer-Encoding: chunked, gzip", body=HELLO), (400, 501)),
    refused("chunked not last, in two lines (6.3)", post(CHUNKED, "Transfer-Encoding: gzip", body=HELLO), (400, 501)),
    refused("a coding before chunked (6.1)", post("Transfer-Encoding: gzip, chunked", body=HELLO), 501),
    refused("an unknown coding (6.1)", post("Transfer-Encoding: gzip", body=HELLO), (501, 400)),
    refused("identity (TE.TE)", post("Transfer-Encoding: identity", body=HELLO), (501, 400)),
    refused("identity in a second line (TE.TE)", post(CHUNKED, "Transfer-Encoding: identity", body=HELLO), (501, 400)),
    refused("xchunked (TE.TE)", post("Transfer-Encoding: xchunked", body=HELLO), (501, 400)),
    refused("chunked with something behind it (TE.TE)", post("Transfer-Encoding: chunked x", body=HELLO), (501, 400)),
    refused("chunked with a parameter (TE.TE)", post("Transfer-Encoding: chunked;a=b", body=HELLO), (501, 400)),
    refused("chunked in quotes (TE.TE)", post('Transfer-Encoding: "chunked"', body=HELLO), (501, 400)),
    refused("chunked in single quotes (TE.TE)", post("Transfer-Encoding: 'chunked'", body=HELLO), (501, 400)),
    refused("a control before chunked (TE.TE)", post("Transfer-Encoding: \x0bchunked", body=HELLO)),
    refused("a NUL behind chunked (TE.TE)", post("Transfer-Encoding: chunked\0", body=HELLO)),
    refused("a CR behind chunked (TE.TE)", post("Transfer-Encoding: chunked\r", body=HELLO)),
    refused("a space before the colon (TE.TE)", post("Transfer-Encoding : chunked", body=HELLO)),
    refused("a tab before the colon (TE.TE)", post("Transfer-Encoding\t: chunked", body=HELLO)),
    refused("a space before the name (TE.TE)", post("A: b", " Transfer-Encoding: chunked", body=HELLO)),
    refused("a line of its own by LF (TE.TE)", post(b"A: b\nTransfer-Encoding: chunked", body=HELLO)),
    refused("an empty Transfer-Encoding (TE.TE)", post("Transfer-Encoding:", body=HELLO), (400, 501)),
    refused("an empty element beside chunked", post("Transfer-Encoding: , chunked,", "Content-Length: 5", body=HELLO)),
    refused("octets above ASCII beside chunked (TE.TE)", post("Transfer-Encoding: \xa0chunked", body=HELLO), (400, 501)),
    refused("chunks in HTTP/1.0 (6.1)", post(CHUNKED, body=HELLO, request="POST /x HTTP/1.0")),
    passed("Transfer_Encoding is not Transfer-Encoding, and is dropped", post("Transfer_Encoding: chunked", "Content-Length: 5", body=b"hello"),
           method="POST", body=b"hello", hasnt=("transfer_encoding", "transfer-encoding")),

    # 6.2 Content-Length
    passed("a length (6.2)", post("Content-Length: 5", body=b"hello"), method="POST", body=b"hello", has={"Content-Length": "5"}),
    passed("a length of 0 (6.2)", post("Content-Length: 0"), method="POST", has={"Content-Length": "0"}),
    passed("leading zeros (6.2)", post("Content-Length: 0005", body=b"hello"), method="POST", body=b"hello", has={"Content-Length": "5"}),
    passed("a body with GET (6.3)", post("Content-Length: 5", body=b"hello", request="GET /x HTTP/1.1"), body=b"hello",
           has={"Content-Length": "5"}),
    passed("no length and no chunks: no content (6.3)", head(request="POST /x HTTP/1.1"), method="POST"),
    passed("Content_Length is not Content-Length, and is dropped", head("Content_Length: 5"), hasnt=("content_length", "content-length")),
    refused("lengths that differ (6.3)", post("Content-Length: 5", "Content-Length: 6", body=b"hello!")),
    refused("lengths that differ, in a list (6.3)", post("Content-Length: 5, 6", body=b"hello!")),
    refused("lengths that differ, in capitals (6.3)", post("Content-Length: 5", "CONTENT-LENGTH: 0", body=b"hello")),
    refused("a length with a sign (6.2)", post("Content-Length: +5", body=b"hello")),
    refused("a negative length (6.2)", post("Content-Length: -5", body=b"hello")),
    refused("a length of minus nothing (6.2)", post("Content-Length: -0")),
    refused("a length in hexadecimal (6.2)", post("Content-Length: 0x5", body=b"hello")),
    refused("a length with letters behind it (6.2)", post("Content-Length: 5x", body=b"hello")),
    refused("a length with a point (6.2)", post("Content-Length: 5.0", body=b"hello")),
    refused("a length with an exponent (6.2)", post("Content-Length: 5e0", body=b"hello")),
    refused("a length with a space in it (6.2)", post("Content-Length: 5 0", body=b"hello")),
    refused("a length with a comma (6.2)", post("Content-Length: 5,", body=b"hello")),
    refused("an empty length (6.2)", post("Content-Length:", body=b"hello")),
    refused("a length in quotes (6.2)", post('Content-Length: "5"', body=b"hello")),
    refused("a length with an underscore (6.2)", post("Content-Length: 1_0", body=b"hellohello")),
    refused("a length of 2^64 (6.2)", post("Content-Length: 18446744073709551616")),
    refused("a length of 2^64 + 5 (6.2)", post("Content-Length: 18446744073709551621", body=b"hello")),
    refused("a length of 2^32 + 5 digits' worth of zeros and more (6.2)", post("Content-Length: 9" + "9" * 40)),
    Row("a length over the limit (9110, 15.5.14)", post("Content-Length: 9007199254740991"), (413,), True),
    refused("a length of 2^63 (6.2)", post("Content-Length: 9223372036854775808"), (400, 413)),
    refused("a length with a control before it", post("Content-Length: \x0b5", body=b"hello")),
    refused("a space before the colon of a length (5.1)", post("Content-Length : 5", body=b"hello")),
    Row("lengths that agree, one of them too many (6.3)", post("Content-Length: 5", "Content-Length: 5", body=b"hello"), (400,), True),
    Row("lengths that agree, in a list (6.3)", post("Content-Length: 5, 5", body=b"hello"), (400,), True),

    # 7.1 Chunks
    passed("many chunks (7.1)", post(CHUNKED, body=b"1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n"), method="POST", body=b"hello"),
    passed("no content in chunks (7.1)", post(CHUNKED, body=b"0\r\n\r\n"), method="POST", has={"Content-Length": "0"}),
    passed("sizes in capitals and small letters (7.1)", post(CHUNKED, body=b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"), method="POST",
           body=b"01234567890123456789"),
    passed("sizes with zeros in front (7.1)", post(CHUNKED, body=b"0005\r\nhello\r\n000\r\n\r\n"), method="POST", body=b"hello"),
    passed("extensions are passed over (7.1.1)", post(CHUNKED, body=b'5;a=b;c="d e";f\r\nhello\r\n0;x\r\n\r\n'), method="POST", body=b"hello"),
    passed("trailers are passed over (7.1.2)", post(CHUNKED, "Trailer: A", body=b"5\r\nhello\r\n0\r\nA: b\r\nContent-Length: 9\r\n\r\n"), method="POST",
           body=b"hello", has={"Content-Length": "5"}, hasnt=("a", "trailer")),
    refused("a chunk size over 64 bits (7.1)", post(CHUNKED, body=b"10000000000000000\r\nhello\r\n0\r\n\r\n")),
    refused("a chunk size of 2^64 + 5 (7.1)", post(CHUNKED, body=b"10000000000000005\r\nhello\r\n0\r\n\r\n")),
    refused("a chunk size of 2^64 - 1 (7.1)", post(CHUNKED, body=b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n"), (400, 413)),
    refused("a chunk size of 2^32 + 5 zeros (7.1)", post(CHUNKED, body=b"0" * 5000 + b"5\r\nhello\r\n0\r\n\r\n")),
    refused("a chunk size with a sign", post(CHUNKED, body=b"+5\r\nhello\r\n0\r\n\r\n")),
    refused("a chunk size with 0x", post(CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n")),
    refused("a chunk size with an underscore", post(CHUNKED, body=b"0_5\r\nhello\r\n0\r\n\r\n")),
    refused("a chunk size with a space in front", post(CHUNKED, body=b" 5\r\nhello\r\n0\r\n\r\n")),
    refused("a chunk size with a space behind", post(CHUNKED, body=b"5 \r\nhello\r\n0\r\n\r\n")),
    refused("no chunk size", post(CHUNKED, body=b";a\r\nhello\r\n0\r\n\r\n")),
    refused("a size line that ends in LF", post(CHUNKED, body=b"5\nhello\r\n0\r\n\r\n")),
    refused("an extension that ends in LF (desync by chunk extension)", post(CHUNKED, body=b"5;\nhello\r\n0\r\n\r\n")),
    refused("an extension with a CR (desync by chunk extension)", post(CHUNKED, body=b"5;a\rb\r\nhello\r\n0\r\n\r\n")),
    refused("an extension with NUL", post(CHUNKED, body=b"5;a\0\r\nhello\r\n0\r\n\r\n")),
    refused("chunk data that ends in LF", post(CHUNKED, body=b"5\r\nhello\n0\r\n\r\n")),
    refused("chunk data that does not end (desync by chunk data)", post(CHUNKED, body=b"5\r\nhelloXX0\r\n\r\n")),
    refused("a last chunk that ends in LF", post(CHUNKED, body=b"5\r\nhello\r\n0\n\r\n")),
    refused("a trailer that smuggles by LF", post(CHUNKED, body=b"0\r\nA: b\n\r\n" + SMUGGLED)),
    refused("a trailer with a space before the colon", post(CHUNKED, body=b"0\r\nA : b\r\n\r\n")),
    refused("an extension over the limit", post(CHUNKED, body=b"5;" + b"a" * 2000 + b"\r\nhello\r\n0\r\n\r\n")),
    refused("extensions over the limit in all", post(CHUNKED, body=b"1;" + b"a" * 1000 + b"\r\nh\r\n" + (b"1;" + b"a" * 1000 + b"\r\nh\r\n") * 80)),
    refused("trailers over the limit", post(CHUNKED, body=b"0\r\n" + b"A: " + b"b" * 1000 + b"\r\n" + (b"A: " + b"b" * 1000 + b"\r\n") * 30)),

    # 9 Connections
    Row("close ends it, and nothing behind it is served (9.6)", head("Connection: close") + SMUGGLED, (200,), True, (Seen(),)),
    Row("close among others, in capitals (9.6)", head("Connection: foo, CLOSE"), (200,), True, (Seen(),)),
    Row("close in a second line (9.6)", head("Connection: foo", "Connection: close"), (200,), True, (Seen(),)),
    Row("HTTP/1.0 ends it (9.3)", line("GET /x HTTP/1.0") + SMUGGLED, (200,), True, (Seen(),)),
    Row("two requests in order (9.3.2)", head() + line("GET /y HTTP/1.1"), (200, 200), False, (Seen(), Seen(target="/y"))),
    Row("a request behind a length (9.3.2)", post("Content-Length: 5", body=b"hello") + line("GET /y HTTP/1.1"), (200, 200), False,
        (Seen(method="POST", body=b"hello"), Seen(target="/y"))),
    Row("a request behind chunks (9.3.2)", post(CHUNKED, body=HELLO) + line("GET /y HTTP/1.1"), (200, 200), False,
        (Seen(method="POST", body=b"hello"), Seen(target="/y"))),
    Row("a refused request behind a good one (9.3.2)", head() + line("GET  /y HTTP/1.1") + SMUGGLED, (200, 400), True, (Seen(),)),
    Row("a body that looks like a request stays a body", post(f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED), (200,), False,
        (Seen(method="POST", body=SMUGGLED),)),
    refused("what follows a refused head is not looked at", head("A : b") + SMUGGLED),
    refused("a GET with a body that says nothing of it is two requests, one of them broken",
            head("Connection: close", host="Host: a b") + b"hello"),

    # Intermediary: 9110, 7.6.1 and others
    passed("Connection and what it names are not passed on (9110, 7.6.1)",
           head("Connection: x-a, X-B", "X-A: 1", "X-B: 2", "X-C: 3"), has={"X-C": "3"}, hasnt=("x-a", "x-b")),
    passed("hop-by-hop fields are not passed on (9110, 7.6.1)",
           head("Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: trailers", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk",
                "Connection: keep-alive, TE, Upgrade, HTTP2-Settings"),
           hasnt=("keep-alive", "proxy-connection", "te", "http2-settings", "upgrade")),
    passed("hop-by-hop fields that Connection does not name (9110, 7.6.1)",
           head("Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: trailers", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
           hasnt=("keep-alive", "proxy-connection", "te", "upgrade", "http2-settings")),
    passed("Connection cannot take Host away", head("Connection: Host"), has={"Host": "test"}),
    passed("Connection cannot take the length away", post("Connection: Content-Length", "Content-Length: 5", body=b"hello"), method="POST", body=b"hello",
           has={"Content-Length": "5"}),
    passed("Connection cannot take away what forebay says",
           head("Connection: X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id"), has={"X-Forwarded-Proto": "http", "X-Forwarded-Host": "test"}),
    passed("Upgrade is not passed on in HTTP/1.1 without Connection (9110, 7.8)", head("Upgrade: websocket"), hasnt=("upgrade",)),
    Row("Upgrade in HTTP/1.0 is ignored (9110, 7.8)", head("Upgrade: websocket", "Connection: upgrade", request="GET /x HTTP/1.0"), (200,), True,
        (Seen(hasnt=("upgrade",)),)),
    passed("Proxy is dropped (httpoxy)", head("Proxy: http://evil/"), hasnt=("proxy",)),
    passed("fields with an underscore are dropped", head("X_Forwarded_For: 6.6.6.6", "A_B: c"), hasnt=("x_forwarded_for", "a_b")),
    passed("the client's word on who it is is replaced",
           head("X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Request-Start: 1"),
           has={"X-Forwarded-Proto": "http", "X-Forwarded-Host": "test"}),
    passed("other fields pass in their order, with their case and number", head("cookie: a=b", "X-Mixed-Case: y"),
           has={"cookie": "a=b", "X-Mixed-Case": "y"}),
    refused("an expectation nobody knows (9110, 10.1.1)", head("Expect: the-unexpected"), 417),
    Row("Expect in HTTP/1.0 is ignored (9110, 10.1.1)", post("Expect: 100-continue", "Content-Length: 5", body=b"hello", request="POST /x HTTP/1.0"),
        (200,), True, (Seen(method="POST", body=b"hello", hasnt=("expect",)),)),
    Row("100 is sent, and Expect is not passed on (9110, 10.1.1)", post("Expect: 100-Continue", "Content-Length: 5", body=b"hello"), (200,), False,
        (Seen(method="POST", body=b"hello", hasnt=("expect",)),)),
    Row("Expect with a length over the limit is refused without 100", post("Expect: 100-continue", "Content-Length: 9007199254740991"), (413,), True),
]


@dataclass
class Answer:
    """What a worker answers to a request, and what the client hears of it."""

    name: str
    raw: bytes
    want: object  # a status, or a tuple of those allowed
    body: bytes = b""
    has: dict = field(default_factory=dict)
    hasnt: tuple = ()
    request: bytes = head()
    method: str = "GET"
    closes: object = False  # None: either


def reply(*lines, status="HTTP/1.1 200 OK", body=b""):
    return b"".join((x if isinstance(x, bytes) else x.encode("latin-1")) + b"\r\n" for x in (status, *lines)) + b"\r\n" + body


LENGTH = "Content-Length: 5"
HELLO_CHUNKS = b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


def bad(name, raw):
    return Answer(name, raw, 502)


def good(name, raw, **kw):
    return Answer(name, raw, 200, b"hello", **kw)


RESPONSES = [
    good("a length (6.2)", reply(LENGTH, body=b"hello"), has={"Content-Length": "5"}),
    good("chunks (7.1)", reply(CHUNKED, body=HELLO_CHUNKS)),
    good("chunks with extensions (7.1.1)", reply(CHUNKED, body=b"5;a=b\r\nhello\r\n0\r\n\r\n")),
    good("trailers are not passed on when buffered (7.1.2)", reply(CHUNKED, "Trailer: A", body=b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"), hasnt=("a", "trailer")),
    good("the end of the connection (6.3)", reply(body=b"hello")),
    good("an HTTP/1.0 worker (2.3)", reply(LENGTH, status="HTTP/1.0 200 OK", body=b"hello")),
    good("chunked in capitals (7)", reply("TRANSFER-ENCODING: CHUNKED", body=HELLO_CHUNKS)),
    good("a reason phrase of its own (4)", reply(LENGTH, status="HTTP/1.1 200 Fine by me \xe9", body=b"hello")),
    good("no reason phrase (4)", reply(LENGTH, status="HTTP/1.1 200 ", body=b"hello")),
    good("hop-by-hop fields are not passed on (9110, 7.6.1)",
         reply(LENGTH, "Connection: close, X-A", "X-A: 1", "Keep-Alive: timeout=5", "Proxy-Connection: x", "Upgrade: h2c", "X-B: 2", body=b"hello"),
         has={"X-B": "2"}, hasnt=("x-a", "keep-alive", "proxy-connection", "upgrade")),
    good("the worker's close is its own, not the client's (9.6)", reply(LENGTH, "Connection: close", body=b"hello")),
    good("octets above ASCII in a value pass", reply(LENGTH, b"A: \xff\xe9", body=b"hello"), has={"A": "\xff\xe9"}),
    good("fields of the application pass", reply(LENGTH, "Server: me", "Set-Cookie: a=b; Path=/", "ETag: \"x\"", body=b"hello"),
         has={"Server": "me", "Set-Cookie": "a=b; Path=/", "ETag": "\"x\""}),
    Answer("404 with a page", reply(LENGTH, status="HTTP/1.1 404 Not Found", body=b"hello"), 404, b"hello"),
    Answer("500 with a page", reply(LENGTH, status="HTTP/1.1 500 Oops", body=b"hello"), 500, b"hello"),
    Answer("a status nobody knows (9110, 15)", reply(LENGTH, status="HTTP/1.1 299 Odd", body=b"hello"), 299, b"hello"),
    Answer("204 has neither length nor chunks (6.1; 9110, 8.6)", reply("X-A: b", status="HTTP/1.1 204 No Content"), 204, has={"X-A": "b"},
           hasnt=("content-length", "transfer-encoding")),
    Answer("204 with a length of 0 (9110, 8.6)", reply("Content-Length: 0", status="HTTP/1.1 204 No Content"), (204, 502),
           hasnt=("transfer-encoding",)),
    Answer("304 keeps its length and has no content (6.3)", reply(LENGTH, "ETag: \"x\"", status="HTTP/1.1 304 Not Modified"), 304, has={"ETag": "\"x\""}),
    Answer("205 has no content (9110, 15.3.6)", reply("Content-Length: 0", status="HTTP/1.1 205 Reset Content"), 205),
    Answer("HEAD with a length (6.3)", reply(LENGTH), 200, has={"Content-Length": "5"}, request=line("HEAD /x HTTP/1.1"), method="HEAD"),
    Answer("HEAD with chunks (6.3)", reply(CHUNKED), 200, request=line("HEAD /x HTTP/1.1"), method="HEAD"),
    Answer("HEAD with neither (6.3)", reply(), 200, request=line("HEAD /x HTTP/1.1"), method="HEAD"),
    Answer("HTTP/1.0 client, chunks (6.1)", reply(CHUNKED, body=HELLO_CHUNKS), 200, b"hello", hasnt=("transfer-encoding",),
           request=line("GET /x HTTP/1.0"), closes=True),
    Answer("HTTP/1.0 client, length", reply(LENGTH, body=b"hello"), 200, b"hello", has={"Content-Length": "5"}, request=line("GET /x HTTP/1.0"), closes=True),
    Answer("100 is not passed on (9110, 15.2)", reply(status="HTTP/1.1 100 Continue") + reply(LENGTH, body=b"hello"), 200, b"hello"),
    Answer("103 is not passed on unless asked for", reply("Link: </a>", status="HTTP/1.1 103 Early Hints") + reply(LENGTH, body=b"hello"), 200, b"hello",
           hasnt=("link",)),
    bad("a bare LF in the status line (2.2)", b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello"),
    bad("bare LFs (2.2)", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
    bad("a bare CR in a value (2.2; 9110, 5.5)", reply(LENGTH, b"A: b\rc", body=b"hello")),
    bad("NUL in a value (9110, 5.5)", reply(LENGTH, b"A: b\0c", body=b"hello")),
    bad("NUL in the reason phrase (4)", reply(LENGTH, status="HTTP/1.1 200 O\0K", body=b"hello")),
    bad("a bare CR in the reason phrase (4)", reply(LENGTH, status="HTTP/1.1 200 O\rK", body=b"hello")),
    bad("a space before the colon (5.1)", reply("Content-Length : 5", body=b"hello")),
    bad("no colon (5)", reply(LENGTH, "nonsense", body=b"hello")),
    bad("a name that is no token (5.1)", reply(LENGTH, "A(b): c", body=b"hello")),
    bad("a folded line (5.2)", reply(LENGTH, "A: b\r\n c", body=b"hello")),
    bad("a space before the first field (2.2)", reply(" A: b", LENGTH, body=b"hello")),
    bad("HTTP/0.9", b"hello"),
    bad("HTTP/2.0", reply(LENGTH, status="HTTP/2.0 200 OK", body=b"hello")),
    bad("version in lower case", reply(LENGTH, status="http/1.1 200 OK", body=b"hello")),
    bad("two spaces before the status (4)", reply(LENGTH, status="HTTP/1.1  200 OK", body=b"hello")),
    bad("a status of letters (4)", reply(LENGTH, status="HTTP/1.1 2xx OK", body=b"hello")),
    bad("a status of 600 (9110, 15)", reply(LENGTH, status="HTTP/1.1 600 OK", body=b"hello")),
    bad("a status of 000 (9110, 15)", reply(LENGTH, status="HTTP/1.1 000 OK", body=b"hello")),
    bad("a status with something behind it (4)", reply(LENGTH, status="HTTP/1.1 200x OK", body=b"hello")),
    bad("a length that is none (6.3)", reply("Content-Length: five", body=b"hello")),
    bad("a length with a sign", reply("Content-Length: +5", body=b"hello")),
    bad("lengths that differ (6.3)", reply(LENGTH, "Content-Length: 6", body=b"hello!")),
    bad("lengths that differ in a list (6.3)", reply("Content-Length: 5, 6", body=b"hello!")),
    bad("a length of 2^64 + 5", reply("Content-Length: 18446744073709551621", body=b"hello")),
    bad("length and chunks (6.3)", reply(LENGTH, CHUNKED, body=HELLO_CHUNKS)),
    bad("chunked twice (6.1)", reply("Transfer-Encoding: chunked, chunked", body=HELLO_CHUNKS)),
    bad("chunked not last (6.3)", reply("Transfer-Encoding: chunked, gzip", body=HELLO_CHUNKS)),
    bad("an unknown coding (6.1)", reply("Transfer-Encoding: gzip", body=b"hello")),
    bad("chunks in HTTP/1.0 (6.1)", reply(CHUNKED, status="HTTP/1.0 200 OK", body=HELLO_CHUNKS)),
    bad("a broken chunk (7.1)", reply(CHUNKED, body=b"5\r\nhelloX\r\n0\r\n\r\n")),
    bad("a chunk size that overflows (7.1)", reply(CHUNKED, body=b"10000000000000005\r\nhello\r\n0\r\n\r\n")),
    bad("a chunk size that ends in LF (7.1)", reply(CHUNKED, body=b"5\nhello\r\n0\r\n\r\n")),
    bad("no last chunk (8)", reply(CHUNKED, body=b"5\r\nhello\r\n")),
    bad("short of its length (8)", reply("Content-Length: 6", body=b"hello")),
    bad("an end within the head (8)", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"),
    bad("nothing at all (8)", b""),
    bad("101 that nobody asked for (9110, 15.2.2)", reply("Connection: upgrade", "Upgrade: x", status="HTTP/1.1 101 Switching Protocols")),
    bad("an interim response with content", reply(LENGTH, status="HTTP/1.1 102 Processing", body=b"hello") + reply(LENGTH, body=b"hello")),
]
