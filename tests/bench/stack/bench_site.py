"""The application of the stack rows: the same one in every stack. Only what PEP 3333 says is used of the server."""

import os
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
PIECE = 64 * 1024
STAMPS = os.path.join(HERE, "stamps")  # who reads them makes the file; a line for each body that was read


def answer(start_response, body):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def hello(environ, start_response):
    return answer(start_response, b"Hello, world!\n")


def count(environ):
    """The number at the end of the path."""
    return int(environ["PATH_INFO"].rpartition("/")[2])


def some_bytes(environ, start_response):
    """After the whole request, as most applications."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return answer(start_response, b"x" * count(environ))


def form(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    fields = urllib.parse.parse_qs(body.decode("ascii"), strict_parsing=True)
    return answer(start_response, b"%06d\n" % sum(len(value) for values in fields.values() for value in values))


def upload(environ, start_response):
    """Reads the body in pieces, and notes for how long that kept it: its length and nanoseconds."""
    begin = time.monotonic_ns()
    left = length = int(environ["CONTENT_LENGTH"])
    while left > 0:
        piece = environ["wsgi.input"].read(min(PIECE, left))
        if not piece:
            raise OSError("the body ended early")
        left -= len(piece)
    held = time.monotonic_ns() - begin
    fd = os.open(STAMPS, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"%d %d\n" % (length, held))
    finally:
        os.close(fd)
    return answer(start_response, b"ok")


def pieces(length):
    piece = b"x" * PIECE
    for _ in range(length // PIECE):
        yield piece
    yield piece[:length % PIECE]


def generated(environ, start_response):
    length = count(environ)
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(length))])
    return pieces(length)


class Pieces:
    """What PEP 3333 tells applications to do where the server has no wrapper."""

    def __init__(self, file, size):
        self.file, self.size = file, size

    def __iter__(self):
        return iter(lambda: self.file.read(self.size), b"")

    def close(self):
        self.file.close()


def file(environ, start_response):
    f = open(os.path.join(HERE, "file"), "rb")
    length = os.fstat(f.fileno()).st_size
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(length))])
    return environ.get("wsgi.file_wrapper", Pieces)(f, PIECE)


PAGES = {"hello": hello, "bytes": some_bytes, "form": form, "upload": upload, "generated": generated, "file": file}


def application(environ, start_response):
    return PAGES[environ["PATH_INFO"].split("/", 2)[1]](environ, start_response)
