"""Whole stacks that serve WSGI applications: see stacks.py for who they are, stack/ for the application and their configurations.
Requests per CPU second are per second of all the processes of a stack together."""

import time
from dataclasses import dataclass, field

import stacks
from proxies import Failed
from row import GB, KB, MB, Row, within_limits

DOWNLOAD = stacks.FILE_BYTES
READY = {"bench_site": "/hello", "bench_django": "/page"}  # what each application is asked for first


@dataclass
class StackRow(Row):
    contenders: tuple = stacks.ALL
    rounds: int = 3
    by_line: bool = True  # a line of the table for each contender
    module: str = "bench_site"
    page: str = "/hello"

    def stage(self, contender, programs, folder):
        return stacks.Stage(contender, programs, folder, self.module, READY[self.module])


@dataclass
class Rate(StackRow):
    """Requests for each second of CPU time, on a few kept connections."""

    units: dict = field(default_factory=lambda: {"rate": "requests/CPU second"})
    rates: tuple = ("rate",)
    requests: int = 4000
    answer: int = 14
    body: int = 0
    form: bool = False
    connections: int = 8

    def measure(self, stage, check):
        options = {"form": True} if self.form else {}
        with stage.load("rush", path=self.page, answer=self.answer, body=self.body, in_flight=self.connections,
                        **options) as load:
            load.ask(f"open {self.connections}")
            before = stage.cpu_ns()
            done = load.ask(f"go {40 if check else self.requests}")["requests"]
            return {"rate": done / ((stage.cpu_ns() - before) / 1e9)}


@dataclass
class Upload(StackRow):
    """What a large body costs, and for how long the application was kept with a body: from being called to having read it, by its
    own clock. The slow client sends for a second."""

    units: dict = field(default_factory=lambda: {"CPU": "s/GB", "hold, 100 MB": "ms", "hold, 1 MB": "ms", "hold, 1 MB in 1 s": "ms"})
    page: str = "/upload"
    body: int = 100 * MB
    small: int = 1 * MB
    pieces: int = 50

    def measure(self, stage, check):
        body = 2 * MB if check else self.body
        stage.held()
        with stage.load("rush", path=self.page, answer=2, body=body, in_flight=1) as load:
            before = stage.cpu_ns()
            load.ask("open 1")
            spent = stage.cpu_ns() - before
        with stage.load("rush", path=self.page, answer=2, body=self.small, in_flight=1) as load:
            load.ask("open 1")
            load.ask(f"go {2 if check else 8}")
        fast = stage.held()
        if stage.crawl_upload(self.page, self.small, self.pieces, lambda: time.sleep(0 if check else 1 / self.pieces)) != 200:
            raise Failed("a slow client's upload was refused")
        slow = stage.held()
        return {"CPU": spent / 1e9 / (body / GB), "hold, 100 MB": mean_ms(fast, body), "hold, 1 MB": mean_ms(fast, self.small),
                "hold, 1 MB in 1 s": mean_ms(slow, self.small)}


def mean_ms(held, length):
    found = [ns / 1e6 for bytes, ns in held if bytes == length]
    return sum(found) / len(found)


@dataclass
class Download(StackRow):
    """What a large answer costs: made piece by piece, and from a file that is handed to the server."""

    units: dict = field(default_factory=lambda: {"generator": "s/GB", "file_wrapper": "s/GB"})
    count: int = 2

    def measure(self, stage, check):
        return {"generator": self.cost(stage, f"/generated/{DOWNLOAD}", check), "file_wrapper": self.cost(stage, "/file", check)}

    def cost(self, stage, path, check):
        with stage.load("rush", path=path, answer=DOWNLOAD, in_flight=1) as load:
            before = stage.cpu_ns()
            load.ask("open 1")
            if not check:
                load.ask(f"go {self.count - 1}")
            return (stage.cpu_ns() - before) / 1e9 / ((1 if check else self.count) * DOWNLOAD / GB)


@dataclass
class Beside(StackRow):
    """Eight fast clients beside many slow ones: half upload 64 kB at 2 kB/s, half download 256 kB at 3 kB/s."""

    units: dict = field(default_factory=lambda: {"rate alone": "requests/s", "rate beside": "requests/s", "kept": "%",
                                                 "not served": "slow clients"})
    rates: tuple = ("rate alone", "rate beside", "kept")
    anew: bool = True
    clients: int = 2000
    window_ms: int = 1500

    def measure(self, stage, check):
        window = 200 if check else self.window_ms
        clients = 20 if check else within_limits(self.clients)
        with stage.load("rush", path=self.page, answer=14) as fast, stage.load("crawl") as slow:
            fast.ask("open 8")
            fast.ask(f"for {window // 3}")
            alone = rate(fast.ask(f"for {window}"))
            slow.ask(f"open {clients}")
            beside, why = self.beside(fast, window)
            state = slow.ask("status")
            return {"rate alone": alone, "rate beside": beside, "kept": 100 * beside / alone,
                    "not served": state["lost"] + state["refused"], "why none": why}

    def beside(self, fast, window):
        """The rate; or 0 and why, if fast clients were turned away: half of a rate is no rate."""
        try:
            fast.ask(f"for {window}")  # until all is as it will stay
            return rate(fast.ask(f"for {window}")), None
        except Failed as e:
            return 0, str(e).splitlines()[0]

    def remarks(self, rounds):
        return [f"fast clients too were turned away: {r['why none']}" for r in rounds if r["why none"]][:1]


def rate(result):
    return result["requests"] / result["seconds"]


@dataclass
class Memory(StackRow):
    """All processes of a stack that has served some pages and has nothing to do."""

    units: dict = field(default_factory=lambda: {"PSS": "MB", "processes": ""})
    anew: bool = True
    module: str = "bench_django"
    page: str = "/page"
    requests: int = 200

    def measure(self, stage, check):
        with stage.load("rush", path=self.page, answer=PAGE_BYTES, in_flight=16) as load:
            load.ask("open 16")
            load.ask(f"go {20 if check else self.requests}")
        stage.settle()
        pss = stage.pss()
        return {"PSS": pss and pss / MB, "processes": len(stage.pids())}


PAGE_BYTES = 834  # of the Django page, which has nothing in it that changes

STACK_ROWS = [
    Rate("stack-hello", "WSGI, whole stacks: hello-world", chart={"rate": "hello-world"}),
    Rate("stack-django", "WSGI, whole stacks: a Django page", requests=600, answer=PAGE_BYTES, module="bench_django", page="/page",
         chart={"rate": "Django page"}),
    Rate("stack-form", "WSGI, whole stacks: 16 kB form, parsed", requests=2000, answer=7, body=16 * KB, form=True, page="/form",
         chart={"rate": "form of 16 kB"}),
    Upload("stack-upload", "WSGI, whole stacks: upload of 100 MB, read in pieces of 64 kB",
           chart={"CPU": "upload of 100 MB", "hold, 100 MB": "its hold time"}),
    Download("stack-download", "WSGI, whole stacks: download of 100 MB",
             notes={"Passenger 4 × 1": "has no wsgi.file_wrapper: the application yields the file in pieces of 64 kB"},
             chart={"generator": "download, generator", "file_wrapper": "download, file_wrapper"}),
    Beside("stack-slow", "WSGI, whole stacks: hello-world beside 2,000 slow clients", chart={"rate beside": "beside slow clients"}),
    Memory("stack-idle", "WSGI, whole stacks: memory with Django, idle", contenders=stacks.ALL + (stacks.SYNC_PRELOAD,),
           chart={"PSS": "memory with Django"}),
]
