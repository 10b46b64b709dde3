"""The demo's pages through the framed protocol: what forebay's own workers get and give, small and large."""

import os
import threading
import zlib

import pytest

from client import Client, Cut, message
from procs import wait_for
from tools import pattern, read_record

MB = 1 << 20


@pytest.fixture(scope="module")
def demo(shared):
    return shared.forebay({"app": "demo", "processes": 2, "threads": 2, "streams": 2}, listen={"early_hints": "on"},
                          route={"body_memory": "64K"})


def offsets(body):
    """The demo's contents are lines of 64 bytes that begin with their offset."""
    return all(body[at:at + 16] == b"%016x" % at for at in range(0, len(body) - 16, 64))


def variables(body):
    head = body.split(b"\n\n")[0].decode("latin-1")
    return dict(line.split("=", 1) for line in head.split("\n") if line)


def test_the_front_page_says_what_to_try(demo):
    r = demo.ask("GET", "/")
    assert r.status == 200 and r.get("Content-Type").startswith("text/html")
    assert b"/echo" in r.body and b"/upload" in r.body


def test_echo_shows_what_reached_the_worker(demo):
    r = demo.ask("POST", "/echo/more?a=b%20c", [("X-Custom", "value"), ("Content-Type", "text/x"), ("Proxy", "evil"), ("X_A", "b")], b"hello")
    assert r.status == 404  # the demo knows /echo alone
    got = variables(demo.ask("POST", "/echo?a=b%20c", [("X-Custom", "value"), ("Content-Type", "text/x"), ("Proxy", "evil"), ("X_A", "b")],
                             b"hello").body)
    assert (got["REQUEST_METHOD"], got["PATH_INFO"], got["QUERY_STRING"]) == ("POST", "/echo", "a=b%20c")
    assert (got["CONTENT_LENGTH"], got["CONTENT_TYPE"], got["HTTP_X_CUSTOM"], got["HTTP_HOST"]) == ("5", "text/x", "value", "test")
    assert got["REMOTE_ADDR"].startswith("127.") and got["HTTP_X_REQUEST_ID"] and got["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert "HTTP_PROXY" not in got and "HTTP_X_A" not in got


@pytest.mark.parametrize("size", [0, 1, 1000, 65_536, 65_537, 262_144, 262_145, 1_048_577, 20 * MB])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_arrives_whole_in_memory_or_by_descriptor(demo, size, chunked):
    body = pattern(size, size)
    r = demo.ask("POST", "/upload", body=body, chunked=chunked)
    got = variables(r.body)
    assert (int(got["bytes"]), got["crc32"]) == (size, f"{zlib.crc32(body):08x}")
    if size <= 1000:
        assert got["body"] == "memory"
    if size > 262_144:
        assert got["body"] == "descriptor"


def test_a_large_body_comes_back_as_it_was(demo):
    body = pattern(3 * MB, 5)
    r = demo.ask("POST", "/echo", body=body)
    assert r.status == 200 and r.body.endswith(body) and b"body: a descriptor" in r.body[:4000]


@pytest.mark.parametrize("page", ["big", "file"])
@pytest.mark.parametrize("size", [0, 1, 64, 65_536, 65_537, 1_000_000, 50_000_000])
def test_a_large_response_comes_whole(demo, page, size):
    if size == 0 and page == "file":
        pytest.skip("a file of nothing is nothing to hand over")
    r = demo.ask("GET", f"/{page}?bytes={size}")
    assert (r.status, len(r.body), r.framing) == (200, size, "length") and offsets(r.body)


def test_a_slow_reader_gets_all_of_a_file_while_others_are_served(demo):
    readers = []
    try:
        for page in ("big", "file") * 4:  # more than there are workers
            c = Client(demo.address, rcvbuf=16 << 10)
            readers.append(c)
            c.send(message("GET", f"/{page}?bytes=4000000"))
        for _ in range(10):
            assert demo.ask("GET", "/echo").status == 200
        for c in readers:
            r = c.response()
            assert len(r.body) == 4_000_000 and offsets(r.body)
    finally:
        for c in readers:
            c.close()


@pytest.mark.parametrize("page", ["/", "/echo", "/big?bytes=1000000", "/file?bytes=1000000", "/slow?parts=2&ms=1"])
def test_head_has_no_body(demo, page):
    with demo.connect() as c:
        r = c.ask("HEAD", page)
        assert r.status == 200
        if "bytes=" in page:
            assert r.get("Content-Length") == "1000000"
        assert c.ask("GET", "/echo").status == 200  # nothing of a body came between


def test_an_unknown_page_is_a_404(demo):
    assert demo.ask("GET", "/nowhere").status == 404


def test_many_requests_on_one_connection(demo):
    with demo.connect() as c:
        for i in range(50):
            assert variables(c.ask("GET", f"/echo?{i}").body)["QUERY_STRING"] == str(i)


def test_pipelined_requests_are_answered_in_order(demo):
    with demo.connect() as c:
        c.send(b"".join(message("GET", f"/echo?{i}") for i in range(50)))
        assert [variables(c.response().body)["QUERY_STRING"] for _ in range(50)] == [str(i) for i in range(50)]


def test_requests_run_side_by_side_in_threads_and_processes(demo):
    """Four slots: four sleepers together take less than four times one. By the log: each had its slot at once."""
    clients = [demo.connect() for _ in range(4)]
    for c in clients:
        c.send(message("GET", "/sleep?ms=300"))
    assert [c.response().status for c in clients] == [200] * 4
    entries = demo.wait_access(lambda e: e["target"] == "/sleep?ms=300", 4)
    assert max(e["queue_ms"] for e in entries) < 300
    assert len({e["worker"] for e in entries}) == 2
    for c in clients:
        c.close()


def test_an_event_stream_is_passed_on_part_by_part(demo):
    with demo.connect() as c:
        c.send(message("GET", "/stream?parts=3&ms=100"))
        assert c.head().get("Content-Type") == "text/event-stream"
        whole = c.chunk()
        assert whole.startswith(b"data: part 1 of 3") and b"part 3" not in whole
        while piece := c.chunk():
            whole += piece
        assert whole.count(b"data: part") == 3


def test_a_response_that_is_written_slowly_is_kept_until_it_is_whole(demo):
    r = demo.ask("GET", "/slow?parts=5&ms=20")
    assert len(r.body) == 5 * 64 and offsets(r.body)


def test_early_hints_come_before_the_answer(demo):
    r = demo.ask("GET", "/hints")
    assert (r.status, r.interim) == (200, [103])


def test_an_answer_that_breaks_off_is_a_502(demo):
    assert demo.ask("POST", "/cut", body=b"").status == 502
    assert demo.ask("GET", "/").status == 200


@pytest.mark.parametrize("page", ["/crash", "/exit"])
def test_a_worker_that_ends_costs_its_request_only(demo, page):
    others = [demo.connect() for _ in range(2)]
    assert demo.ask("POST", page, body=b"x").status == 502
    for c in others:
        assert c.ask("GET", "/echo").status == 200
        c.close()
    wait_for(lambda: len(demo.workers()) == 2, "a new worker")
    for _ in range(8):
        assert demo.ask("GET", "/echo").status == 200


def test_clients_that_leave_leave_their_slots(demo):
    for i in range(12):
        with demo.connect() as c:
            c.send(message("GET", "/slow?parts=3&ms=20" if i % 2 else "/big?bytes=5000000"))
            if i % 3 == 0:
                c.reset()
    for _ in range(8):
        assert demo.ask("GET", "/echo").status == 200


def test_a_client_that_leaves_a_stream_frees_its_slot(demo):
    """As soon as the page notices, which is at its next part: a page of a thousand would take minutes."""

    def streams():
        with demo.connect() as c:
            c.send(message("GET", "/stream?parts=1000&ms=200"))
            return c.head().status == 200 and c.chunk()

    for _ in range(6):
        wait_for(streams, "room for another stream")


def test_a_broken_stream_is_visibly_cut(work):
    site = work.forebay({"app": "demo", "processes": 1, "threads": 2, "streams": 1, "retries": 0})
    with site.connect() as c:
        c.send(message("GET", "/stream?parts=1000&ms=50"))
        c.head()
        assert c.chunk()
        assert site.ask("POST", "/crash", body=b"").status == 502  # the other thread of the same process
        with pytest.raises(Cut):
            c.chunked()


def test_a_worker_that_takes_too_long_is_a_504_and_is_replaced(work):
    site = work.forebay({"app": "demo", "processes": 1, "threads": 1, "timeout": "300ms", "queue_timeout": "5m", "release_timeout": "2s"})
    before = wait_for(site.workers, "a worker")
    assert site.ask("POST", "/sleep?ms=60000", body=b"").status == 504
    assert site.ask("GET", "/echo").status == 200
    assert len(site.workers()) == 1 and site.workers() != before
    assert "its request took longer than timeout" in site.log()


def test_others_in_the_process_of_a_worker_that_takes_too_long_are_served_to_their_end(work):
    site = work.forebay({"app": "demo", "processes": 1, "threads": 2, "timeout": "1s", "queue_timeout": "5m", "release_timeout": "100ms"})
    before = wait_for(site.workers, "a worker")
    with site.connect() as stuck, site.connect() as other:
        stuck.send(message("POST", "/sleep?ms=60000", body=b""))
        assert stuck.response().status == 504
        other.send(message("POST", "/sleep?ms=900", body=b""))  # begun before the process is told, or after by its successor
        assert other.response().status == 200
    assert site.ask("GET", "/echo").status == 200
    wait_for(lambda: len(site.workers()) == 1 and site.workers() != before, "a new worker")


def test_what_serves_lets_event_loops_go_first_and_hands_that_to_nobody(demo):
    assert demo.ask("GET", "/").status == 200

    def policies(pid):
        return [os.sched_getscheduler(int(task)) for task in os.listdir(f"/proc/{pid}/task") if int(task) != pid]

    for pid in demo.workers():
        # Two serve; a build with ThreadSanitizer has a thread more.
        wait_for(lambda: policies(pid).count(os.SCHED_BATCH | os.SCHED_RESET_ON_FORK) == 2, lambda: f"the threads' policy, not {policies(pid)}")
    assert os.sched_getscheduler(demo.front()) == os.SCHED_OTHER


def test_workers_serve_under_load(demo):
    wrong, lock = [], threading.Lock()

    def client(n):
        with demo.connect() as c:
            for i in range(60):
                size = (n * 7919 + i * 104_729) % 200_000
                body = pattern(size, n)
                r = c.ask("POST", "/upload", body=body)
                if r.status != 200 or f"crc32={zlib.crc32(body):08x}".encode() not in r.body:
                    with lock:
                        wrong.append((n, i, size, r.status, r.body))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_requests_are_recorded_where_the_environment_says(work):
    path = work.path("begun")
    with open(path, "w"):
        pass
    os.chmod(path, 0o666)  # the workers are another user
    site = work.forebay({"app": "demo", "processes": 1, "environment": [f"FOREBAY_DEMO_RECORD={path}"]})
    worker = wait_for(site.workers, "a worker")[0]
    for target in ("/echo?id=1", "/nowhere?id=2", "/", "/echo?" + "x" * 5000):
        site.ask("GET", target)
    assert [(event, query[:20]) for event, query, _ in read_record(path)] == [
        ("begin", "id=1"), ("begin", "id=2"), ("begin", ""), ("begin", "x" * 20)]
    assert {pid for _, _, pid in read_record(path)} == {str(worker)}
    assert len(read_record(path)[3][1]) == 1024
