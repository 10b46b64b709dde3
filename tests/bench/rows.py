"""What is measured. A row's measure(stage, sizes) is one round with one contender: it returns figures by name, None for what
cannot be had here."""

from dataclasses import dataclass, field

from proxies import FOREBAY, HAPROXY, NGINX, NGINX_DEFAULT

KB, MB, GB = 1000, 1000 * 1000, 1000 * 1000 * 1000


@dataclass
class Row:
    name: str
    title: str
    units: dict  # of each figure, in the order of the table
    contenders: tuple = (FOREBAY, NGINX, HAPROXY)
    notes: dict = field(default_factory=dict)  # contender's name: what to know about its figures
    rounds: int = 5
    anew: bool = False  # each round with a proxy that has served nothing before
    chart: tuple = ()  # the figures that go into the chart; the first one if none is said

    def measure(self, stage, check):
        raise NotImplementedError


@dataclass
class Exchange(Row):
    """CPU time for a fixed number of equal requests on a few kept connections."""

    units: dict = field(default_factory=lambda: {"CPU": "µs/request"})
    host: str = "kept"
    connections: int = 8
    requests: int = 20000
    answer: int = 1 * KB
    body: int = 0
    browser: bool = False
    check_bytes: int = 5 * MB  # with --check, no body is larger

    def measure(self, stage, check):
        requests, answer, body = self.requests, self.answer, self.body
        if check:
            requests, answer, body = min(requests, 20), min(answer, self.check_bytes), min(body, self.check_bytes)
        options = {"browser": True} if self.browser else {}
        with stage.load("rush", self.host, path=f"/bytes/{answer}", answer=answer, body=body, in_flight=self.connections,
                        **options) as load:
            load.ask(f"open {self.connections}")
            before = stage.cpu_ns()
            result = load.ask(f"go {requests}")
            spent = stage.cpu_ns() - before
        return {"CPU": self.figure(spent, result["requests"], body + answer)}

    def figure(self, cpu_ns, requests, _bytes):
        return cpu_ns / 1e3 / requests


@dataclass
class Bulk(Exchange):
    """The same by what was carried: milliseconds for a gigabyte (10^9 bytes)."""

    units: dict = field(default_factory=lambda: {"CPU": "ms/GB"})
    connections: int = 2

    def figure(self, cpu_ns, requests, bytes):
        return cpu_ns / 1e6 / (requests * bytes / GB)


STREAMS = {"haproxy": "passes bodies through as they come: a slow client's upload holds a worker"}
UPLOADS = (FOREBAY, NGINX, NGINX_DEFAULT, HAPROXY)

ROWS = [
    Exchange("get-kept", "GET 1 kB, connections to the application kept"),
    Exchange("get-fresh", "GET 1 kB, a connection to the application for each request", host="fresh"),
    Exchange("get-browser", "GET 1 kB with a browser's 20 fields, kept", browser=True),
    Exchange("post-16k", "POST 16 kB", requests=10000, body=16 * KB, answer=100, contenders=UPLOADS, notes=STREAMS),
    Bulk("post-1m", "POST 1 MB", requests=400, body=1 * MB, answer=100, contenders=UPLOADS, notes=STREAMS),
    Bulk("post-100m", "POST 100 MB", requests=5, connections=1, body=100 * MB, answer=100, contenders=UPLOADS, notes=STREAMS),
    Bulk("resp-100k", "response of 100 kB", requests=5000, answer=100 * KB),
    Bulk("resp-10m", "response of 10 MB", requests=50, answer=10 * MB),
    Bulk("resp-1g", "response of 1 GB", requests=1, connections=1, answer=1 * GB),
]
