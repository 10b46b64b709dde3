"""The Django site's /work page without Django: it starts fast, for tests that restart the server often."""

from urllib.parse import parse_qs

from tools import pass_gate, pattern, record


class Recorded:
    def __init__(self, ident, content):
        self.ident, self.content = ident, content

    def __iter__(self):
        yield self.content

    def close(self):
        record("end", self.ident)


def application(environ, start_response):
    query = {k: v[0] for k, v in parse_qs(environ.get("QUERY_STRING", "")).items()}
    ident = query.get("id", "none")
    record("begin", ident)
    body = environ["wsgi.input"].read()
    pass_gate(query.get("gate", "none"))
    content = pattern(int(query["bytes"])) if "bytes" in query else f"{ident} {len(body)}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(content))), ("X-Id", ident)])
    return Recorded(ident, content)
