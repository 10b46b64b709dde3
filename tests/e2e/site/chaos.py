"""A WSGI application for tests that kill: it records what it begins, and its answer tells which request it was and what came."""

import hashlib
import time
import zlib
from urllib.parse import parse_qs

from tools import pattern, record


def application(environ, start_response):
    query = {k: v[0] for k, v in parse_qs(environ.get("QUERY_STRING", "")).items()}
    ident = query["id"]
    record("begin", ident)
    body = environ["wsgi.input"].read()
    if len(body) != int(environ.get("CONTENT_LENGTH") or 0):
        raise ValueError("whoever sent this has gone")
    time.sleep(int(query.get("ms", 0)) / 1000)
    content = f"{ident} {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode()
    content += pattern(int(query.get("bytes", 0)), zlib.crc32(ident.encode()))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))])
    return [content]
