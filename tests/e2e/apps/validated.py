"""Every call between the server and an application under the eyes of wsgiref.validate."""

import sys
from wsgiref.validate import validator

OK = [("Content-Type", "text/plain")]


def parts(n):
    for i in range(n):
        yield b"part %d\n" % i


def inner(environ, start_response):
    name, stream = environ["PATH_INFO"].strip("/"), environ["wsgi.input"]
    environ["wsgi.errors"].write("to wsgi.errors\n")
    environ["wsgi.errors"].writelines(["two ", "pieces\n"])
    environ["wsgi.errors"].flush()
    if name == "write":
        write = start_response("200 OK", OK)
        write(b"written ")
        return [b"returned"]
    if name == "exc_info":
        start_response("200 OK", OK)
        try:
            raise ValueError("replaced")
        except ValueError:
            start_response("500 Replaced", OK, sys.exc_info())
        return [b"replaced"]
    if name == "empty":
        start_response("204 No Content", [])
        return []
    if name == "length":
        start_response("200 OK", OK + [("Content-Length", "6")])
        return [b"length"]
    start_response("200 OK", OK)
    if name == "generator":
        return parts(1000)
    if name == "list":
        return [b"a", b"b", b"c"]
    if name == "read":
        return [stream.read(10), b"|", stream.read(1000000)]
    if name == "lines":
        return [stream.readline(), b"|", stream.readline(5), b"|", b"".join(stream.readlines()), b"|", stream.read(5)]
    if name == "iteration":
        return [b"|".join(stream)]
    return [b"one"]


application = validator(inner)
