"""Workers come while requests wait, and go when they are not needed; what is told of each step."""

import threading

from procs import wait_for

POOL = {"app": "demo", "processes": 4, "processes_min": 1, "threads": 1, "scale_up_delay": "50ms", "scale_down_after": "1s",
        "queue_timeout": "10m", "timeout": "10m"}


def test_workers_come_with_waiting_requests_and_go_without(work):
    site = work.forebay(POOL)
    assert len(site.workers()) == 1
    ends, wrong = threading.Event(), []

    def ask():
        with site.connect() as c:
            while not ends.is_set():
                if c.ask("GET", "/sleep?ms=200").status != 200:
                    wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for t in threads:
        t.start()
    try:
        wait_for(lambda: len(site.workers()) == 4, "four workers")
    finally:
        ends.set()
        for t in threads:
            t.join()
    assert wrong == []
    assert site.log().count("one worker more") == 3  # and never above `processes`
    wait_for(lambda: len(site.workers()) == 1, "one worker")
    assert site.ask("GET", "/").status == 200
    assert [e["status"] for e in site.access() if e["status"] != 200] == []


def test_one_request_at_a_time_needs_no_second_worker(work):
    site = work.forebay(POOL)
    for _ in range(30):
        assert site.ask("GET", "/sleep?ms=20").status == 200
    assert "one worker more" not in site.log() and len(site.workers()) == 1
