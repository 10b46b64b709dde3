"""Many clients at once, each request with a token of its own: every answer is checked to be this request's, and the
application's record says how often it was executed."""

import collections
import hashlib
import itertools
import os
import random
import select
import threading
import time
import zlib

from client import Client, Cut, Malformed, message
from procs import wait_for
from tools import pattern, read_record

HOLD = 64 << 10  # forebay's default
TOLD = (502, 503)  # a request that was lost, and its client knows it
TOLD_AT_THE_END = (408,)  # its body was on the way when a front ended in order
SLOW_RCVBUF = 16384
ENDS = 60  # seconds for all clients to come to their ends: beyond client.TIMEOUT


def new_seed():
    """FOREBAY_TEST_SEED repeats what an earlier run printed."""
    return int(os.environ.get("FOREBAY_TEST_SEED") or random.SystemRandom().randrange(1 << 32))


class Demo:
    """What forebay's demo pages make of a request. It is recorded where FOREBAY_DEMO_RECORD says."""

    kinds = ("get", "post", "spooled", "chunked", "slow upload", "slow reader")

    @staticmethod
    def target(token, kind):
        return f"/echo?id={token}"

    @staticmethod
    def answer_bytes(kind, body):
        return len(body)

    @staticmethod
    def is_right(r, token, body):
        variables, found, rest = r.body.partition(b"\nworker process: ")
        mark = b"in memory\n\n" if b": in memory\n\n" in rest[:64] else b"a descriptor\n\n"
        return found and f"\nQUERY_STRING=id={token}\n".encode() in variables and rest.partition(mark)[2] == body

    @staticmethod
    def executed(record):
        """How often each token's request was begun."""
        return collections.Counter(ident.removeprefix("id=") for event, ident, _ in read_record(record) if event == "begin")


class Site:
    """The same for the test site's chaos application."""

    kinds = ("get", "post", "spooled", "chunked", "slow upload", "slow page")

    @staticmethod
    def target(token, kind):
        return f"/?id={token}" + ("&bytes=300000" if kind == "slow page" else "")

    @staticmethod
    def answer_bytes(kind, body):
        return 300000 if kind == "slow page" else 100

    @staticmethod
    def is_right(r, token, body):
        said, _, content = r.body.partition(b"\n")
        return said.decode() == f"{token} {len(body)} {hashlib.sha256(body).hexdigest()}" and \
            content in (b"", pattern(300000, zlib.crc32(token.encode())))

    @staticmethod
    def executed(record):
        return collections.Counter(ident for event, ident, _ in read_record(record) if event == "begin")


class Load:
    """`cuts`: a connection may end without an answer, since what holds it is killed. Without that it may only end inside an
    answer that is longer than `hold`: a worker was lost that had begun to send it."""

    def __init__(self, site, app, clients, seed, cuts=False):
        self.site, self.app, self.seed, self.cuts = site, app, seed, cuts
        self.lock = threading.Lock()
        self.outcomes = collections.Counter()  # (kind, what)
        self.answers = 0
        self.posts, self.answered = set(), set()  # tokens
        self.wrong = []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Every client comes to an end with its last request."""
        self.ending.set()
        end = time.monotonic() + ENDS
        for thread in self.threads:
            thread.join(max(0, end - time.monotonic()))
        assert not [t for t in self.threads if t.is_alive()], f"clients that hang, seed {self.seed}"

    def more(self, count):
        """Waits for so many more answers."""
        least = self.answers + count
        wait_for(lambda: self.answers >= least or self.wrong, lambda: f"{least} answers, there are {self.answers}: {self.outcomes}")
        assert not self.wrong, (self.seed, self.wrong[:5])

    def verify(self, record):
        """After stop()."""
        executed = self.app.executed(record)
        assert not self.wrong, (self.seed, self.wrong[:5])
        again = [token for token in self.posts if executed[token] > 1]
        assert not again, f"seed {self.seed}: POSTs executed more than once: {again}"
        never = [token for token in self.answered if not executed[token]]
        assert not never, f"seed {self.seed}: answered, and the application did not see them: {never}"
        assert self.answers > 0 and self.posts & self.answered, self.outcomes

    def _count(self, kind, what):
        with self.lock:
            self.outcomes[kind, what] += 1

    def _client(self, n):
        rng, c = random.Random(f"{self.seed}/{n}"), None
        try:
            for i in itertools.count():
                if self.ending.is_set():
                    break
                c = self._one(c, rng, rng.choice(self.app.kinds), f"{n}x{i}")
        except Exception as e:
            with self.lock:
                self.wrong.append((n, type(e).__name__, str(e)[:500]))
        finally:
            if c:
                c.close()

    def _one(self, c, rng, kind, token):
        """One request, on the connection that there is or on a new one. Returns the connection if it can be used again."""
        slow_reader = kind in ("slow reader", "slow page")
        if c and (slow_reader or rng.random() < 0.3):
            c.close()
            c = None
        before, body = c.got if c else 0, b""
        try:
            c = c or Client(self.site.address, rcvbuf=SLOW_RCVBUF if slow_reader else None)
            method, body = self._send(c, rng, kind, token)
            if slow_reader:
                self._dawdle(c)
            r = c.response(method)
        except (Cut, ConnectionError) as e:
            begun = c is not None and c.got > before and self.app.answer_bytes(kind, body) > HOLD
            if not self.cuts and not begun:
                raise AssertionError(f"{kind} {token}: no answer but {e!r}") from e
            self._count(kind, "cut")
            if c:
                c.close()
            return None
        self._judge(r, kind, token, body)
        if slow_reader or not r.keeps:
            c.close()
            return None
        return c

    def _send(self, c, rng, kind, token):
        target = self.app.target(token, kind)
        if kind in ("get", "slow page"):
            c.send(message("GET", target))
            return "GET", b""
        sizes = {"post": (1, 5000), "spooled": (70_000, 250_000), "chunked": (1, 150_000)}
        body = pattern(rng.randrange(*sizes.get(kind, (80_000, 250_000))), zlib.crc32(token.encode()))
        with self.lock:
            self.posts.add(token)
        raw = message("POST", target, body=body, chunked=kind == "chunked")
        if kind == "slow upload":
            cut = rng.randrange(1, len(raw))
            for piece in (raw[:cut], raw[cut:cut + 1], raw[cut + 1:]):
                c.send(piece)
                time.sleep(rng.random() / 50)
        else:
            c.send(raw)
        return "POST", body

    @staticmethod
    def _dawdle(c):
        """Takes the beginning of an answer in small pieces, while there is any; how long that takes decides nothing."""
        for _ in range(5):
            if select.select([c.sock], [], [], 0.2)[0]:
                c.fill_at_most(4000)
            time.sleep(0.01)

    def _judge(self, r, kind, token, body):
        if r.status == 200 and not self.app.is_right(r, token, body):
            raise Malformed(f"{kind} {token} of {len(body)} bytes got another answer: {r.headers} {r.body[:300]!r}")
        told = TOLD + TOLD_AT_THE_END if self.cuts else TOLD
        if r.status != 200 and r.status not in told:
            raise Malformed(f"{kind} {token}: {r.status} {r.body[:300]!r}")
        with self.lock:
            self.outcomes[kind, r.status] += 1
            if r.status == 200:
                self.answers += 1
                self.answered.add(token)
