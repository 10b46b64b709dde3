"""Thousands of clients in one thread: each has one request, whose body is a pattern of its own, and judges one answer."""

import errno
import select
import socket
import time

from client import TIMEOUT, message, parse_head
from procs import DEADLINE
from tools import pattern_part

PIECE = 1 << 16


class Member:
    """How it ended is `end`: "whole" (an answer, with `status`), "cut" (the end came before), or None so far."""

    def __init__(self, address, seed, upload, expects, rcvbuf):
        self.seed, self.upload, self.expects = seed, upload, expects
        headers = [("X-Seed", str(seed)), ("Connection", "close")]
        if upload:
            headers.append(("Content-Length", str(upload)))
        self.head = message("POST" if upload else "GET", f"/{seed}", headers)
        self.sent, self.got = 0, 0  # of the request; of the answer's body
        self.status, self.length, self.end = None, None, None
        self.buf = b""
        self.sock = socket.socket()
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(address)
        self.sock.setblocking(False)

    @property
    def whole(self):
        return len(self.head) + self.upload

    def send(self, upto):
        """Sends on, not beyond `upto`. False: nothing more to do now."""
        if self.sent < len(self.head):
            part = self.head[self.sent:]
        else:
            at = self.sent - len(self.head)
            part = pattern_part(at, min(at + PIECE, upto - len(self.head)), self.seed)
        if not part:
            return False
        try:
            self.sent += self.sock.send(part)
        except BlockingIOError:
            return False
        except OSError as e:
            assert e.errno in (errno.EPIPE, errno.ECONNRESET), e
            self.sent = self.whole  # it listens no more; what it has to say is still to be heard
            return False
        return True

    def judge(self, data):
        """Bytes of the body: of a 200 each must be the right one."""
        if self.status == 200 and self.expects:
            assert data == pattern_part(self.got, self.got + len(data), self.seed), f"wrong bytes for {self.seed} from {self.got} on"
        self.got += len(data)
        assert self.got <= self.length, "more than the answer"
        if self.got == self.length:
            self.end = "whole"

    def take(self, data):
        if self.status is None:
            self.buf += data
            head, found, data = self.buf.partition(b"\r\n\r\n")
            if not found:
                return
            answer = parse_head(head)
            self.status, self.length = answer.status, int(answer.get("Content-Length"))
            assert self.status != 200 or not self.expects or self.length == self.expects
        self.judge(data)

    def receive(self):
        """False: nothing more to do now."""
        try:
            data = self.sock.recv(PIECE)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if data:
            self.take(data)
        elif not self.end:
            self.end = "cut"
        return bool(data)


class Crowd:
    def __init__(self, address, seeds, upload=0, expects=0, rcvbuf=None):
        """`upload`: bytes of each one's request body. `expects`: bytes of each one's answer, a pattern; 0: judged by status alone."""
        self.members = [Member(address, seed, upload, expects, rcvbuf) for seed in seeds]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for m in self.members:
            m.sock.close()

    def run(self, done, upto=None, reads=True, progress=lambda: None):
        """Serves all until done(). `upto`: no byte of a request beyond. reads=False: they hear, but take nothing in. However long it takes,
        as long as something moves: bytes of theirs, or what progress() says."""
        poll = select.epoll()
        by_fd = {}
        end = time.monotonic() + DEADLINE
        for m in self.members:
            if m.end:
                continue
            limit = m.whole if upto is None else min(upto, m.whole)
            by_fd[m.sock.fileno()] = (m, limit)
            poll.register(m.sock.fileno(), (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if m.sent < limit else 0))
        try:
            before = None
            while not done():
                events, now = poll.poll(0.01, 1024), progress()
                if events or now != before:
                    end, before = time.monotonic() + DEADLINE, now
                assert time.monotonic() < end, f"nothing has moved for {DEADLINE} s; {self.ends()}"
                for fd, what in events:
                    self.serve(poll, fd, what, reads, *by_fd[fd])
        finally:
            poll.close()

    def serve(self, poll, fd, what, reads, m, limit):
        if what & select.EPOLLOUT and not (m.send(limit) and m.sent < limit) and m.sent >= limit:
            poll.modify(fd, select.EPOLLIN if reads else 0)
        if what & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            if reads:
                m.receive()
            if m.end or not reads:
                poll.unregister(fd)  # what has come stays in the socket

    def sent(self, upto):
        return all(m.end or m.sent >= min(upto, m.whole) for m in self.members)

    def ended(self):
        return all(m.end for m in self.members)

    def ends(self):
        """{200: 1990, 503: 10}, and "cut" or None for those without a whole answer."""
        counts = {}
        for m in self.members:
            key = m.status if m.end == "whole" else m.end
            counts[key] = counts.get(key, 0) + 1
        return counts
