"""The spool's disk is full, or it hangs: whom that concerns hears so or waits, nobody else notices, and afterwards all is as before."""

import os
import re
import signal
import socket
import threading
import time

import pytest

from client import Client, Cut, message
from disk import FILES, READS, WRITES, Disk, free_bytes, needs_root, small
from procs import wait_for
from tools import pattern

MB = 1 << 20
OTHERS = 100
SPOOL_THREADS = 2

pytestmark = needs_root


def big_answer(size, seed):
    """A worker that has this to say."""

    def handler(conn):
        conn.request()
        conn.try_send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + pattern(size, seed))

    return handler


def others_are_served(site, n=OTHERS):
    """With and without a body, on connections of their own and on one."""
    with site.connect() as kept:
        for i in range(n // 2):
            assert kept.ask("GET", f"/other/{i}").body == b"ok"
            assert site.ask("POST", f"/other/{i}", body=pattern(1000, i)).body == b"ok"


class Uploads:
    """Each on a thread of its own; `answers` are filled as they come."""

    def __init__(self, site, sizes, chunked=False):
        self.answers = [None] * len(sizes)
        self.threads = [threading.Thread(target=self.one, args=(site, i, size, chunked)) for i, size in enumerate(sizes)]
        for t in self.threads:
            t.start()

    def one(self, site, i, size, chunked):
        with site.connect() as c:
            c.try_send(message("POST", f"/upload/{i}", body=pattern(size, i), chunked=chunked))
            self.answers[i] = c.response().status

    def wait(self):
        for t in self.threads:
            t.join()
        return self.answers


def uploads_seen(backend):
    """Those that reached the worker, by number; each is what its client sent."""
    seen = {int(s.target.rpartition("/")[2]): s.body for s in backend.take() if s.target.startswith("/upload/")}
    for i, body in seen.items():
        assert body == pattern(len(body), i), f"upload {i} is not what it was"
    return seen


# A full disk: 16 MB, though spool_limit says more


@pytest.fixture
def full(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 4, "queue_timeout": "10m"}, listen={"min_rate": 0},
                        more={"pool other": {"socket": backend.name, "slots": 4}, "route */other": {"pool": "other"}},
                        wrap=small(work.spool, 16))
    site.backend, site.spool = backend, work.spool
    return site


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_that_the_disk_has_no_room_for_is_a_507(full, chunked):
    whole = free_bytes(full, full.spool)
    for _ in range(3):
        with full.connect() as c:
            c.try_send(message("POST", "/upload/0", body=pattern(24 * MB), chunked=chunked))
            assert c.response().status == 507
        others_are_served(full, 10)
    for e in full.wait_access(lambda e: e["status"] == 507, 3):
        assert e["reason"] == "spool_limit or disk full" and e["hold_ms"] is None
    assert not uploads_seen(full.backend)
    # The room is there again for those that fit, whichever way they are kept.
    assert full.ask("POST", "/upload/1", body=pattern(12 * MB, 1), chunked=chunked).status == 200
    assert full.ask("POST", "/upload/2", body=pattern(12 * MB, 2), chunked=not chunked).status == 200
    assert [len(b) for b in uploads_seen(full.backend).values()] == [12 * MB] * 2
    wait_for(lambda: free_bytes(full, full.spool) > whole - 2 * MB, "the disk to be free again")


@pytest.mark.parametrize("size", [700_000, 3 * MB], ids=["extents", "own files"])
def test_more_uploads_than_the_disk_has_room_for(full, size):
    """All but the last byte of each: none can be handed on to make room for another."""
    count = 64 * MB // size
    clients = [full.connect() for _ in range(count)]
    try:
        threads = [threading.Thread(target=c.try_send, args=(message("POST", f"/upload/{i}", body=pattern(size, i))[:-1],))
                   for i, c in enumerate(clients)]
        for t in threads:
            t.start()
        others_are_served(full)
        for t in threads:
            t.join()
        for i, c in enumerate(clients):
            c.try_send(pattern(size, i)[-1:])
        statuses = [c.response().status for c in clients]
    finally:
        for c in clients:
            c.close()
    seen = uploads_seen(full.backend)
    assert 507 in statuses and set(statuses) <= {200, 507} and {i for i, s in enumerate(statuses) if s == 200} == set(seen)
    assert all(len(body) == size for body in seen.values())
    assert full.ask("POST", "/upload/0", body=pattern(12 * MB)).status == 200
    assert len(uploads_seen(full.backend)[0]) == 12 * MB


def test_responses_that_the_disk_has_no_room_for_are_whole_or_visibly_cut(full):
    """Clients that read nothing until all is decided, and then everything: a cut is a cut, and no byte is wrong."""
    size, count = 6 * MB, 8
    full.backend.next(*[big_answer(size, i) for i in range(count)])
    clients = []
    try:
        for i in range(count):
            clients.append(Client(full.address, rcvbuf=4096))
            clients[i].send(message("GET", "/download"))
            full.backend.wait_accepted(i + 1)  # so that it gets the handler with its number
        # Those that cannot be kept are cut, and those that can be are whole in forebay.
        full.wait_access(lambda e: e["target"] == "/download" and e["cut"], 1)
        others_are_served(full)
        whole = 0
        for i, c in enumerate(clients):
            try:
                assert c.response().body == pattern(size, i)
                whole += 1
            except Cut as cut:
                body = cut.partial.partition(b"\r\n\r\n")[2] or cut.partial
                assert body == pattern(len(body), i)
    finally:
        for c in clients:
            c.close()
    assert 0 < whole < count
    for e in full.wait_access(lambda e: e["target"] == "/download", count):
        assert (e["status"], e["reason"]) == ((200, "spool_limit or disk full") if e["cut"] else (200, None))
    full.backend.next(big_answer(12 * MB, 99))
    with Client(full.address, rcvbuf=4096) as c:
        c.send(message("GET", "/download"))
        assert c.response().body == pattern(12 * MB, 99)


# A disk that hangs. Static files do not exist yet: the spool is all that forebay has on disk.


@pytest.fixture
def disk(work):
    d = Disk(work)
    yield d
    d.release()


def hanging(work, disk, **options):
    """One event thread, so that whoever waits for the disk there keeps everybody waiting."""
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 8, "queue_timeout": "10m", "timeout": "10m"}, listen={"min_rate": 0},
                        forebay={"threads": 1, "drain_timeout": "300ms", "spool_threads": SPOOL_THREADS, **options}, wrap=disk.wrap,
                        env=disk.env, more={"pool other": {"socket": backend.name, "slots": 4}, "route */other": {"pool": "other"}})
    site.backend = backend
    return site


@pytest.fixture
def hung(work, disk):
    return hanging(work, disk)


def stalls_ms(site):
    return [int(ms) for ms in re.findall(r"event=loop_stalled thread=\d+ ms=(\d+)", site.log())]


@pytest.mark.parametrize("size", [400_000, 3 * MB], ids=["extents", "own files"])
def test_uploads_wait_for_a_disk_that_hangs_and_nobody_else(hung, disk, size):
    disk.hang(WRITES)
    uploads = Uploads(hung, [size] * 6)
    disk.wait_waiting(WRITES, SPOOL_THREADS)
    others_are_served(hung)
    assert disk.waiting(WRITES) == SPOOL_THREADS and uploads.answers == [None] * 6 and not uploads_seen(hung.backend)
    disk.release()
    assert uploads.wait() == [200] * 6
    assert [len(body) for _, body in sorted(uploads_seen(hung.backend).items())] == [size] * 6


def test_uploads_wait_for_files_that_a_disk_does_not_make_and_nobody_else(hung, disk):
    size = 3 * MB
    disk.hang(FILES)
    uploads = Uploads(hung, [size] * 6)
    disk.wait_waiting(FILES, SPOOL_THREADS)
    others_are_served(hung)
    assert disk.waiting(FILES) == SPOOL_THREADS and uploads.answers == [None] * 6 and not uploads_seen(hung.backend)
    disk.release()
    assert uploads.wait() == [200] * 6
    assert [len(body) for _, body in sorted(uploads_seen(hung.backend).items())] == [size] * 6


def test_an_upload_waits_for_an_arena_that_a_disk_does_not_make_and_nobody_else(work, disk):
    """An arena is a sixteenth of the spool, and the first is made when forebay starts."""
    site = hanging(work, disk, spool_own_file="1G", spool_limit="1G")
    size = 70 * MB
    disk.hang(FILES)
    uploads = Uploads(site, [size])
    disk.wait_waiting(FILES, 1)
    others_are_served(site)
    assert disk.waiting(FILES) == 1 and uploads.answers == [None] and not uploads_seen(site.backend)
    disk.release()
    assert uploads.wait() == [200]
    assert [len(body) for body in uploads_seen(site.backend).values()] == [size]


def test_responses_wait_for_a_disk_that_hangs_and_nobody_else(hung, disk):
    """Slow clients' responses, which are larger than what may stay in memory. Their workers wait: there is no other place."""
    size, count = 6 * MB, 4
    disk.hang(WRITES)
    hung.backend.next(*[big_answer(size, i) for i in range(count)])
    clients = []
    try:
        for i in range(count):
            clients.append(Client(hung.address, rcvbuf=4096))
            clients[i].send(message("GET", "/download"))
            hung.backend.wait_accepted(i + 1)
        disk.wait_waiting(WRITES, SPOOL_THREADS)
        others_are_served(hung)
        assert disk.waiting(WRITES) == SPOOL_THREADS
        disk.release()
        assert all(c.response().body == pattern(size, i) for i, c in enumerate(clients))
    finally:
        for c in clients:
            c.close()


def test_cold_responses_wait_for_a_disk_that_hangs_and_nobody_else(hung, disk):
    """What lies in the spool and not in the page cache any more, when the client that it is for begins to read."""
    size, count = 8 * MB, 4
    clients = []
    try:
        for i in range(count):
            hung.backend.next(big_answer(size, i))
            clients.append(Client(hung.address, rcvbuf=4096))
            clients[i].send(message("GET", "/download"))
            hung.backend.wait_accepted(i + 1)
        wait_for(lambda: not hung.backend.open, "the workers to be rid of their answers")
        disk.hang(READS)
        got = [None] * count

        def read(i):
            got[i] = clients[i].response().body

        readers = [threading.Thread(target=read, args=(i,)) for i in range(count)]
        for t in readers:
            t.start()
        disk.wait_waiting(READS, SPOOL_THREADS)
        others_are_served(hung)
        assert disk.waiting(READS) == SPOOL_THREADS and got == [None] * count
        disk.release()
        for t in readers:
            t.join()
        assert all(body == pattern(size, i) for i, body in enumerate(got))
    finally:
        for c in clients:
            c.close()


def test_cold_uploads_wait_for_a_disk_that_hangs_and_nobody_else(hung, disk):
    """Whole requests whose bodies must be read from the disk to be handed on: they hold their workers, which are no others'."""
    size, count = 400_000, 6
    raw = [message("POST", f"/upload/{i}", body=pattern(size, i)) for i in range(count)]
    clients = [hung.connect() for _ in range(count)]
    try:
        for c, r in zip(clients, raw):
            c.send(r[:-1])
        others_are_served(hung, 10)  # by then all that could be read was read
        disk.hang(READS)
        for c, r in zip(clients, raw):
            c.send(r[-1:])
        disk.wait_waiting(READS, SPOOL_THREADS)
        others_are_served(hung)
        assert not uploads_seen(hung.backend)
        disk.release()
        assert [c.response().status for c in clients] == [200] * count
    finally:
        for c in clients:
            c.close()
    assert [len(body) for _, body in sorted(uploads_seen(hung.backend).items())] == [size] * count


def test_clients_that_leave_while_the_disk_hangs_leave_nothing(hung, disk):
    raw = [message("POST", f"/upload/{i}", body=pattern(400_000, i)) for i in range(8)]
    clients = [hung.connect() for _ in raw]
    for c, r in zip(clients, raw):
        c.send(r[:1000])
    others_are_served(hung, 10)  # by then each has been heard: who leaves unheard is not in the log
    disk.hang(WRITES)
    threads = [threading.Thread(target=c.try_send, args=(r[1000:-1],)) for c, r in zip(clients, raw)]
    for t in threads:
        t.start()
    disk.wait_waiting(WRITES, SPOOL_THREADS)
    for c in clients:
        c.sock.shutdown(socket.SHUT_RDWR)
    for t in threads:
        t.join()
    for c in clients:
        c.reset()  # an end of the stream would wait behind what nobody reads
    hung.wait_access(lambda e: e["status"] == 499 and e["target"].startswith("/upload"), 8)
    others_are_served(hung)
    assert disk.waiting(WRITES) == SPOOL_THREADS
    disk.release()
    assert hung.ask("POST", "/upload/9", body=pattern(400_000, 9)).status == 200
    assert list(uploads_seen(hung.backend)) == [9]


def test_a_forebay_whose_disk_hangs_can_be_ended(hung, disk):
    disk.hang(WRITES)
    with hung.connect() as c:
        c.send(message("POST", "/upload/0", body=pattern(400_000))[:300_000])
        disk.wait_waiting(WRITES, 1)
        assert hung.stop() == 0
        c.to_end()


def test_a_loop_that_stands_still_is_told_and_counted(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1}, forebay={"threads": 1})
    front = site.front()
    assert site.ask("GET", "/").status == 200
    os.kill(front, signal.SIGSTOP)
    time.sleep(1.2)  # the time for which nothing runs: at least so long
    os.kill(front, signal.SIGCONT)
    site.wait_log("event=loop_stalled thread=0 ms=")
    assert max(stalls_ms(site)) >= 1000
    assert site.ask("GET", "/").status == 200
    assert site.stop() == 0
    assert f"event=loop_stalls count={len(stalls_ms(site))}" in site.log()
