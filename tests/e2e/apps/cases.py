"""A table of small applications, each at /NAME, each with one claim about what a WSGI server does with it."""

import gzip
import io
import json
import os
import sys
import tempfile
import threading

OK = [("Content-Type", "text/plain")]
CASES = {}
FOLDER = os.environ.get("FOREBAY_TEST_FOLDER", "/nowhere")
LINES = b"".join(b"%d bottles of beer\n" % i for i in range(10000))


def case(f):
    CASES[f.__name__] = f
    return f


def application(environ, start_response):
    return CASES[environ["PATH_INFO"].split("/")[1]](environ, start_response)


class Closing:
    """An iterable that says when it was closed, and how often."""

    def __init__(self, parts, name, fail=None):
        self.parts, self.name, self.fail = iter(parts), name, fail

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.parts)

    def close(self):
        note(f"closed {self.name}")
        if self.fail:
            raise self.fail


def note(line):
    """One line of a file that the test reads."""
    fd = os.open(os.path.join(FOLDER, "notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)


# What an application may return.

@case
def one(environ, start_response):
    start_response("200 OK", OK)
    return [b"one"]


@case
def many(environ, start_response):
    start_response("200 OK", OK)
    return [b"many", b"", b" blocks", b" of", b" bytes"]


@case
def in_a_tuple(environ, start_response):
    start_response("200 OK", OK)
    return (b"one", b" two")


@case
def nothing(environ, start_response):
    start_response("200 OK", OK)
    return []


@case
def generator(environ, start_response):
    start_response("200 OK", OK)
    yield b""
    yield b"gen"
    yield b"erated"


@case
def late_start(environ, start_response):
    """start_response by the first iteration is early enough."""
    start_response("200 OK", OK)
    yield b"late"


@case
def written(environ, start_response):
    write = start_response("200 OK", OK)
    write(b"written ")
    write(b"")
    write(b"and ")
    return [b"returned"]


@case
def length(environ, start_response):
    start_response("200 OK", OK + [("Content-Length", "4")])
    return iter([b"fo", b"ur"])


@case
def big(environ, start_response):
    start_response("200 OK", OK)
    return [LINES]


@case
def big_parts(environ, start_response):
    start_response("200 OK", OK)
    return (LINES[at:at + 997] for at in range(0, len(LINES), 997))


@case
def subclass(environ, start_response):
    class Bytes(bytes):
        pass

    start_response("200 OK", OK)
    return [Bytes(b"sub")]


class Application:
    """An iterable object that is the application as well: PEP 3333's AppClass."""

    def __init__(self, environ, start_response):
        self.start = start_response

    def __iter__(self):
        self.start("200 OK", OK)
        yield b"object"


CASES["an_object"] = Application


# Its status and its fields.

@case
def status(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " "), [])
    return []


@case
def bad_status(environ, start_response):
    bad = {"none": None, "int": 200, "short": "20", "text": "OK 200", "no_space": "200OK", "low": "199 Low", "continue": "100 Continue",
           "high": "600 High", "end": "200 OK\r\nX-Evil: yes", "nul": "200 O\0K", "bytes": b"200 OK", "wide": "200 \u20ac"}
    start_response(bad[environ["QUERY_STRING"]], OK)
    return [b"never"]


BAD_FIELDS = {"cr": [("X-A", "a\rb")], "lf": [("X-A", "a\nb")], "crlf": [("X-A", "a\r\nX-Evil: yes")], "nul": [("X-A", "a\0b")], "del": [("X-A", "a\x7f")],
              "name_space": [("X A", "a")], "name_colon": [("X:", "a")], "name_empty": [("", "a")], "name_end": [("X\r\nY", "a")], "name_wide": [("X-\u20ac", "a")],
              "wide": [("X-A", "\u20ac")], "bytes": [("X-A", b"a")], "bytes_name": [(b"X-A", "a")], "int": [("Content-Length", 3)], "none": [("X-A", None)],
              "list": [["X-A", "a"]], "three": [("X-A", "a", "b")], "not_a_pair": ["X-A: a"], "tuple": (("X-A", "a"),), "dict": {"X-A": "a"}, "no_list": None,
              "connection": [("Connection", "close")], "keep_alive": [("Keep-Alive", "timeout=5")], "transfer": [("Transfer-Encoding", "chunked")],
              "upgrade": [("Upgrade", "x")], "two_lengths": [("Content-Length", "3"), ("Content-Length", "3")], "length_text": [("Content-Length", "x")],
              "length_negative": [("Content-Length", "-1")], "length_plus": [("Content-Length", "+3")], "too_many": [("X-A", "a")] * 600,
              "too_large": [("X-A", "a" * 70000)]}


@case
def bad_field(environ, start_response):
    start_response("200 OK", BAD_FIELDS[environ["QUERY_STRING"]])
    return [b"abc"]


@case
def good_fields(environ, start_response):
    start_response("200 OK", [("X-Latin", "caf\xe9"), ("X-Blanks", "  a  b\t"), ("X-Empty", ""), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("content-length", "2")])
    return [b"ok"]


@case
def bad_call(environ, start_response):
    calls = {"none": lambda: start_response(), "one": lambda: start_response("200 OK"), "four": lambda: start_response("200 OK", OK, None, None),
             "name": lambda: start_response("200 OK", headers=OK), "exc": lambda: start_response("200 OK", OK, "exc"),
             "exc_short": lambda: start_response("200 OK", OK, (ValueError, ValueError()))}
    calls[environ["QUERY_STRING"]]()
    return [b"never"]


# exc_info.

@case
def replaced(environ, start_response):
    start_response("200 OK", OK + [("X-First", "yes"), ("Content-Length", "100")])
    try:
        raise ValueError("the first answer is not to be")
    except ValueError:
        start_response("503 Later", OK + [("X-Second", "yes")], sys.exc_info())
    return [b"later"]


@case
def replaced_by_name(environ, start_response):
    start_response("200 OK", OK)
    try:
        raise ValueError("the first answer is not to be")
    except ValueError:
        start_response("503 Later", OK, exc_info=sys.exc_info())
    return [b"later"]


@case
def exc_info_first(environ, start_response):
    start_response("200 OK", OK, (None, None, None) if environ["QUERY_STRING"] else None)
    return [b"fine"]


@case
def raised_again(environ, start_response):
    """With content given there is no other answer any more: the exception goes on."""
    start_response("200 OK", OK)
    yield b"x" * 200000
    try:
        raise LookupError("too late for another answer")
    except LookupError:
        start_response("500 Oops", OK, sys.exc_info())
    note("raised_again went on")
    yield b"never"


@case
def started_twice(environ, start_response):
    start_response("200 OK", OK)
    start_response("200 OK", OK)
    return [b"never"]


@case
def bad_then_good(environ, start_response):
    """What was refused has not been said; who says it anew hands over the exception."""
    try:
        start_response("200 OK", OK + [("X-Bad", "a\nb")])
    except ValueError:
        start_response("200 OK", OK + [("X-Good", "yes")], sys.exc_info() if environ["QUERY_STRING"] else None)
    return [b"good"]


@case
def exc_info_late(environ, start_response):
    write = start_response("200 OK", OK)
    write(b"begun")
    start_response("500 Oops", OK, (None, None, None))
    note("exc_info_late went on")
    return [b"never"]


# What goes wrong.

@case
def raises(environ, start_response):
    raise ValueError("raised on purpose: \u20ac <b>&")


@case
def raises_after_start(environ, start_response):
    start_response("200 OK", OK + [("X-Started", "yes")])
    raise ValueError("raised after start_response")


@case
def raises_in_the_middle(environ, start_response):
    start_response("200 OK", OK)
    yield b"some"
    raise ValueError("raised in the middle")


@case
def raises_far_on(environ, start_response):
    start_response("200 OK", OK)
    for _ in range(50):
        yield b"y" * 10000
    raise ValueError("raised far on")


@case
def exits(environ, start_response):
    sys.exit("exit on purpose")


@case
def interrupts(environ, start_response):
    raise KeyboardInterrupt("interrupted on purpose")


@case
def chained(environ, start_response):
    try:
        raise KeyError("the cause")
    except KeyError as e:
        raise RuntimeError("the effect") from e


@case
def no_start(environ, start_response):
    return [b"no start"]


@case
def no_start_nothing(environ, start_response):
    return []


@case
def no_start_generator(environ, start_response):
    yield b"no start"


@case
def returns(environ, start_response):
    start_response("200 OK", OK)
    return {"none": None, "int": 5, "str": "text", "bytes": b"bytes", "list_of_str": ["text"], "list_of_int": [1], "generator_of_str": (x for x in ["text"]),
            "mixed": [b"bytes", "text"]}[environ["QUERY_STRING"]]


@case
def too_long(environ, start_response):
    start_response("200 OK", OK + [("Content-Length", "4")])
    return Closing([b"four", b" and more"], "too_long")


@case
def too_long_block(environ, start_response):
    start_response("200 OK", OK + [("Content-Length", "4")])
    return [b"four and more"]


@case
def written_too_much(environ, start_response):
    write = start_response("200 OK", OK + [("Content-Length", "4")])
    write(b"four")
    try:
        write(b" and more")
    except ValueError:
        if environ["QUERY_STRING"] == "pass":
            raise
        note("write() of too much raised")
    return []


@case
def written_for_ever(environ, start_response):
    """Whoever writes on and on is told when nobody listens any more."""
    write = start_response("200 OK", OK)
    note("written_for_ever begins")
    try:
        while True:
            write(b"w" * 5000)
    except BrokenPipeError:
        note("write() to nobody raised")
        raise


@case
def no_content(environ, start_response):
    """What must have no content has none, whatever is given."""
    write = start_response(environ["QUERY_STRING"] + " Whatever", [("X-Kept", "yes"), ("Content-Length", "100")])
    write(b"written")
    return [b"content ", b"that", b" cannot be"]


@case
def no_content_file(environ, start_response):
    start_response(environ["QUERY_STRING"] + " Whatever", [])
    return environ["wsgi.file_wrapper"](open(os.path.join(FOLDER, "file"), "rb"))


@case
def too_short(environ, start_response):
    start_response("200 OK", OK + [("Content-Length", "400")])
    return [b"four"]


@case
def too_short_far_on(environ, start_response):
    start_response("200 OK", OK + [("Content-Length", "400000")])
    return (b"z" * 10000 for _ in range(30))


@case
def late_calls(environ, start_response):
    """What is called after the request's end says so."""
    kept = {}

    def later(environ, start_response):
        said = []
        for what, call in (("write", lambda: kept["write"](b"x")), ("start", lambda: kept["start"]("200 OK", OK)), ("input", lambda: kept["input"].read())):
            try:
                call()
                said.append(f"{what} worked")
            except (RuntimeError, ValueError) as e:
                said.append(f"{what} {type(e).__name__}")
        said.append(f"gone {kept['gone']()}")
        start_response("200 OK", OK)
        return ["\n".join(said).encode()]

    kept.update(write=start_response("200 OK", OK), start=start_response, input=environ["wsgi.input"], gone=environ["forebay.client_gone"])
    CASES["later"] = later
    return [b"kept"]


@case
def other_thread(environ, start_response):
    """start_response is for the thread that the application was called on."""
    said = []

    def call():
        try:
            start_response("200 OK", OK)
        except RuntimeError as e:
            said.append(str(e).encode())

    t = threading.Thread(target=call)
    t.start()
    t.join()
    start_response("200 OK", OK)
    return said


# close().

@case
def closing(environ, start_response):
    start_response("200 OK", OK)
    return Closing([b"parts", b" of", b" it"], "closing")


@case
def closing_raises(environ, start_response):
    start_response("200 OK", OK)
    return Closing([b"whole"], "closing_raises", OSError("close failed on purpose"))


@case
def closing_after_failure(environ, start_response):
    def parts():
        yield b"part"
        raise ValueError("failed before close")

    start_response("200 OK", OK)
    return Closing(parts(), "closing_after_failure")


@case
def closing_unstarted(environ, start_response):
    return Closing([b"x"], "closing_unstarted")


@case
def endless(environ, start_response):
    """Until its client has gone."""
    start_response("200 OK", [("Content-Type", environ["QUERY_STRING"] or "text/plain")])

    def parts():
        while True:
            yield b"w" * 5000

    return Closing(parts(), "endless")


@case
def head_only(environ, start_response):
    start_response("200 OK", OK + [("X-Head", "yes")])

    def parts():
        while True:
            yield b"content"

    return Closing(parts(), "head_only")


# The request.

@case
def environment(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    plain = {k: v if isinstance(v, (str, bool, int, float, tuple)) else type(v).__name__ for k, v in environ.items()}
    types = {k: type(v).__name__ for k, v in environ.items()}
    return [json.dumps({"environ": plain, "types": types, "exact": type(environ) is dict, "pid": os.getpid()}).encode()]


@case
def scribbles(environ, start_response):
    """An environ is the application's to change, and nobody else's."""
    found = "scribbled" in environ or "SERVER_SOFTWARE" not in environ
    environ["scribbled"] = "yes"
    del environ["SERVER_SOFTWARE"]
    environ["wsgi.version"] = None
    start_response("200 OK", OK)
    return [b"dirty" if found else b"clean"]


@case
def body(environ, start_response):
    """How it was read stands in the query: a list of calls, whose results are put together."""
    stream, out = environ["wsgi.input"], []
    for call in environ["QUERY_STRING"].split(";"):
        name, _, argument = call.partition(",")
        if name == "iter":
            got = list(stream)
        elif name == "next":
            got = next(stream)
        elif name == "all64k":
            got = list(iter(lambda: stream.read(65536), b""))
        else:
            got = getattr(stream, name)(*([None if argument == "None" else int(argument)] if argument else []))
        out.append(got if isinstance(got, list) else [got])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([[line.decode("latin-1") for line in part] for part in out]).encode()]


@case
def body_errors(environ, start_response):
    stream, said = environ["wsgi.input"], []
    for call in (lambda: stream.read("x"), lambda: stream.read(1, 2), lambda: stream.read(1.5), lambda: stream.write(b"x"), lambda: type(stream)()):
        try:
            call()
            said.append("worked")
        except (TypeError, AttributeError) as e:
            said.append(type(e).__name__)
    start_response("200 OK", OK)
    return [" ".join(said).encode()]


@case
def body_in_a_thread(environ, start_response):
    """A thread of the application may read, while the request lasts."""
    got = []
    t = threading.Thread(target=lambda: got.append(environ["wsgi.input"].read()))
    t.start()
    t.join()
    start_response("200 OK", OK)
    return got


# The log.

@case
def says(environ, start_response):
    environ["wsgi.errors"].write("one line\nanother ")
    environ["wsgi.errors"].writelines(["line\n", "third\n"])
    environ["wsgi.errors"].flush()
    print("printed", 1, 2, 3)
    print("to stderr", file=sys.stderr)
    print("not ended", end="")
    environ["wsgi.errors"].write("e\u20acuro \udc80\n")
    sys.stdout.buffer.write(b"raw bytes\n")
    print("L" * 20000)
    start_response("200 OK", OK)
    return [f"{sys.stdout.fileno()} {sys.stderr.fileno()} {sys.stdout.isatty()} {environ['wsgi.errors'] is sys.stderr}".encode()]


# Files.

def wrapped(environ, start_response, file, *args, headers=()):
    start_response("200 OK", [("Content-Type", "application/octet-stream"), *headers])
    return environ["wsgi.file_wrapper"](file, *args)


@case
def file_plain(environ, start_response):
    return wrapped(environ, start_response, open(os.path.join(FOLDER, "file"), "rb"))


@case
def file_at(environ, start_response):
    f = open(os.path.join(FOLDER, "file"), "rb")
    f.read(10)  # the descriptor stands further on than the file does
    return wrapped(environ, start_response, f, 1000)


@case
def file_raw(environ, start_response):
    f = open(os.path.join(FOLDER, "file"), "rb", buffering=0)
    f.seek(10)
    return wrapped(environ, start_response, f)


@case
def file_begun(environ, start_response):
    """Iterated in part, and returned: the rest."""
    start_response("200 OK", OK)
    wrapper = environ["wsgi.file_wrapper"](open(os.path.join(FOLDER, "file"), "rb"), 1000)
    next(wrapper)
    return wrapper


@case
def file_length(environ, start_response):
    return wrapped(environ, start_response, open(os.path.join(FOLDER, "file"), "rb"), headers=[("Content-Length", "5000")])


@case
def file_length_too_long(environ, start_response):
    return wrapped(environ, start_response, open(os.path.join(FOLDER, "file"), "rb"), headers=[("Content-Length", "5000000")])


@case
def file_at_its_end(environ, start_response):
    f = open(os.path.join(FOLDER, "file"), "rb")
    f.seek(0, os.SEEK_END)
    return wrapped(environ, start_response, f)


@case
def file_past_its_end(environ, start_response):
    f = open(os.path.join(FOLDER, "file"), "rb")
    f.seek(10 ** 9)
    return wrapped(environ, start_response, f)


@case
def file_negative_length(environ, start_response):
    """A file that is shorter than where it stands by now."""
    f = tempfile.TemporaryFile()
    f.write(LINES)
    f.flush()
    os.ftruncate(f.fileno(), 1000)
    return wrapped(environ, start_response, f)


def changing(environ, start_response, change):
    """A file that is changed when it is closed: after it was given, before anybody has read it."""
    f = tempfile.NamedTemporaryFile()
    f.write(LINES * 4)
    f.seek(0)
    close = f.close

    def change_and_close():
        change(f.fileno())
        close()
        note("changed")

    f.close = change_and_close
    return wrapped(environ, start_response, f)


@case
def file_shrinks(environ, start_response):
    return changing(environ, start_response, lambda fd: os.ftruncate(fd, 1000))


@case
def file_vanishes(environ, start_response):
    return changing(environ, start_response, lambda fd: os.ftruncate(fd, 0))


@case
def file_grows(environ, start_response):
    return changing(environ, start_response, lambda fd: os.pwrite(fd, b"more", len(LINES) * 4))


@case
def file_empty(environ, start_response):
    return wrapped(environ, start_response, open(os.devnull, "rb"))


@case
def file_memory(environ, start_response):
    return wrapped(environ, start_response, io.BytesIO(LINES), 1000)


@case
def file_gzip(environ, start_response):
    """Its fileno() is that of the compressed file."""
    return wrapped(environ, start_response, gzip.open(os.path.join(FOLDER, "file.gz"), "rb"))


@case
def file_temporary(environ, start_response):
    f = tempfile.TemporaryFile()
    f.write(LINES)
    f.seek(6)
    return wrapped(environ, start_response, f)


@case
def file_named(environ, start_response):
    f = tempfile.NamedTemporaryFile()
    f.write(LINES)
    f.seek(6)
    return wrapped(environ, start_response, f)


@case
def file_unflushed(environ, start_response):
    f = tempfile.TemporaryFile()
    f.write(b"in the buffer still")
    f.seek(3)
    f.write(b"THE")
    f.seek(0)
    return wrapped(environ, start_response, f)


@case
def file_spooled(environ, start_response):
    f = tempfile.SpooledTemporaryFile(max_size=100)
    f.write(LINES)
    f.seek(6)
    return wrapped(environ, start_response, f)


@case
def file_pipe(environ, start_response):
    r, w = os.pipe()
    os.write(w, b"through a pipe")
    os.close(w)
    return wrapped(environ, start_response, os.fdopen(r, "rb"))


@case
def file_proc(environ, start_response):
    """A regular file without a size."""
    return wrapped(environ, start_response, open("/proc/self/comm", "rb"))


@case
def file_upper(environ, start_response):
    """Its bytes are not the file's, though it has one."""

    class Upper:
        def __init__(self):
            self.file = open(os.path.join(FOLDER, "file"), "rb")
            self.fileno, self.tell = self.file.fileno, self.file.tell

        def read(self, size=-1):
            return self.file.read(size).upper()

    return wrapped(environ, start_response, Upper())


@case
def file_reader(environ, start_response):
    """Something else that is read by the method of a plain file."""

    class Other:
        def __init__(self):
            self.file = open(os.path.join(FOLDER, "file"), "rb")
            self.read = self.file.readline
            self.close = lambda: note("closed file_reader")

    return wrapped(environ, start_response, Other())


@case
def file_closed(environ, start_response):
    f = open(os.path.join(FOLDER, "file"), "rb")
    f.close = lambda: note("closed file_closed")
    return wrapped(environ, start_response, f)


@case
def file_text(environ, start_response):
    return wrapped(environ, start_response, open(os.path.join(FOLDER, "file"), encoding="latin-1"))


@case
def file_no_read(environ, start_response):
    return wrapped(environ, start_response, object())


# Threads and processes.

BARRIER = threading.Barrier(8)


@case
def barrier(environ, start_response):
    """Opens when eight requests are in one process at once."""
    BARRIER.wait(30)
    start_response("200 OK", OK)
    return [str(os.getpid()).encode()]


COUNTED = 0


@case
def counter(environ, start_response):
    """Counts as one may where no other thread does; where others do, all of them read before any writes."""
    global COUNTED
    found = COUNTED
    if environ["wsgi.multithread"]:
        BARRIER.wait(30)
    COUNTED = found + 1
    if environ["wsgi.multithread"]:
        BARRIER.wait(30)
    start_response("200 OK", OK)
    return [str(COUNTED).encode()]


@case
def holds_the_gil(environ, start_response):
    """As an extension that computes for long and lets nobody else run; until the process ends."""
    import ctypes

    pause = ctypes.PyDLL(None).pause  # a PyDLL keeps the GIL
    note("the GIL is held")
    pause()


@case
def called(environ, start_response):
    note("called")
    start_response("200 OK", OK)
    return [str(os.getpid()).encode()]


@case
def leaves_a_thread(environ, start_response):
    """Which goes on when the request is over."""
    import select

    def wait():
        while not os.path.exists(os.path.join(FOLDER, "go")):
            select.select([], [], [], 0.01)
        note("the thread went on")

    threading.Thread(target=wait, daemon=True).start()
    start_response("200 OK", OK)
    return [b"left"]


@case
def digest(environ, start_response):
    """Of a body that is never whole in memory."""
    import hashlib

    h, stream = hashlib.sha256(), environ["wsgi.input"]
    if environ["QUERY_STRING"] == "blocks":
        for block in iter(lambda: stream.read(65536), b""):
            h.update(block)
    else:
        for line in stream:
            h.update(line)
    start_response("200 OK", OK)
    return [h.hexdigest().encode()]


@case
def gone(environ, start_response):
    """Waits until its client has left."""
    import select

    note("gone begins")
    while not environ["forebay.client_gone"]():
        select.select([], [], [], 0.01)
    note("gone seen")
    start_response("200 OK", OK)
    return [b"nobody reads this"]


@case
def gone_in_a_thread(environ, start_response):
    got = []
    t = threading.Thread(target=lambda: got.append(str(environ["forebay.client_gone"]()).encode()))
    t.start()
    t.join()
    start_response("200 OK", OK)
    return got


@case
def pid(environ, start_response):
    start_response("200 OK", OK)
    return [str(os.getpid()).encode()]


# Streams.

def slot():
    """The socket to the front, of a worker with one thread."""
    import socket

    for fd in os.listdir("/proc/self/fd"):
        try:
            s = socket.socket(fileno=os.dup(int(fd)))
        except OSError:
            continue
        if s.family == socket.AF_UNIX and s.type == socket.SOCK_STREAM:
            return s
        s.close()
    raise AssertionError("no slot")


def waiting_in(s):
    """Bytes that were sent and that nobody has read."""
    import fcntl
    import struct
    import termios

    return struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, b"\0" * 4))[0]


@case
def parts_while_nobody_reads(environ, start_response):
    """How many of fifty parts had left when the next was asked for."""
    import select

    with slot() as s:
        note("parts begin")
        while not os.path.exists(os.path.join(FOLDER, "go")):
            select.select([], [], [], 0.01)
        start_response("200 OK", [("Content-Type", environ["QUERY_STRING"])])
        left, before = 0, waiting_in(s)
        for _ in range(50):
            yield b"part"
            now = waiting_in(s)
            left += now > before
            before = now
    note(f"left {left}")


@case
def gated(environ, start_response):
    """Its second part comes when the test has seen the first."""
    import select

    start_response("200 OK", [("Content-Type", environ["QUERY_STRING"])])
    note("gated begins")
    yield b"data: first\n\n"
    while not os.path.exists(os.path.join(FOLDER, "go")):
        select.select([], [], [], 0.01)
    yield b"data: second\n\n"


@case
def gated_write(environ, start_response):
    import select

    write = start_response("200 OK", [("Content-Type", environ["QUERY_STRING"])])
    write(b"data: first\n\n")
    while not os.path.exists(os.path.join(FOLDER, "go")):
        select.select([], [], [], 0.01)
    return [b"data: second\n\n"]
