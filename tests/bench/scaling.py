#!/usr/bin/python3
"""How forebay's own workers follow a load that comes at once and goes: a Python application that waits (for a database, say), few
clients, then many, then few again. Says the delay in the queue, the workers over time, and how many were started in vain.

    scaling.py [--forebay PATH] [--most N] [--threads N] [--service MS] [--step SECONDS]

Not a row of bench.py: what is measured is a course in time, not a cost."""

import argparse
import os
import re
import sys
import threading
import time
from datetime import datetime

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

FEW, MANY = 1, 24  # clients that each ask for one page after the other
APPLICATION = """import time
def application(environ, start_response):
    time.sleep(%f)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--forebay", default=os.path.join(os.path.dirname(os.path.dirname(HERE)), "forebay"))
    p.add_argument("--most", type=int, default=8, help="processes")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--service", type=int, default=50, help="ms that each request waits in the application")
    p.add_argument("--step", type=int, default=15, help="seconds of each part")
    return p.parse_args()


class Clients:
    def __init__(self, site, count):
        self.site, self.over, self.wrong = site, threading.Event(), []
        self.threads = [threading.Thread(target=self.ask) for _ in range(count)]
        for t in self.threads:
            t.start()

    def ask(self):
        with self.site.connect() as c:
            while not self.over.is_set():
                r = c.ask("GET", "/")
                if r.status != 200:
                    self.wrong.append(r.status)
                if not r.keeps:
                    return

    def stop(self):
        self.over.set()
        for t in self.threads:
            t.join()


class Watcher(threading.Thread):
    """The number of workers, whenever it is another one."""

    def __init__(self, site):
        super().__init__()
        self.site, self.begun, self.over, self.seen = site, time.monotonic(), threading.Event(), []
        self.start()

    def run(self):
        while not self.over.wait(0.02):
            now = len(self.site.workers())
            if not self.seen or self.seen[-1][1] != now:
                self.seen.append((time.monotonic() - self.begun, now))

    def stop(self):
        self.over.set()
        self.join()
        return self.seen


def part(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0


def steps(site, seconds):
    """[(name, from, to)] in the clock of the access log; what went wrong."""
    spans, wrong = [], []
    for name, count in (("few", FEW), ("many", MANY), ("few again", FEW)):
        begun = time.time()
        clients = Clients(site, count)
        time.sleep(seconds)
        clients.stop()
        wrong += clients.wrong
        spans.append((name, begun, time.time()))
    return spans, wrong


def at(entry):
    """When it came."""
    return datetime.fromisoformat(entry["time"].replace("Z", "+00:00")).timestamp()


def report(o, site, spans, seen, wrong):
    entries = [(at(e), e["queue_ms"], e["worker"]) for e in site.access()]
    print(f"{o.threads} threads in each of 1 to {o.most} processes, {o.service} ms a request, {len(entries)} requests, not answered well: {len(wrong)}")
    for name, begun, ended in spans:
        early = [q for t, q, _ in entries if begun <= t < begun + 2]
        late = [q for t, q, _ in entries if begun + 2 <= t < ended]
        print(f"{name:10} queue delay, ms: first 2 s p50 {part(early, .5):7.1f} p99 {part(early, .99):7.1f}   then p50 {part(late, .5):7.1f} "
              f"p99 {part(late, .99):7.1f}   ({len(early) + len(late)} requests)")
    print("workers:   " + ", ".join(f"{n} at {t:.2f} s" for t, n in seen))
    started = {int(p) for p in site.started()}
    served = {w for _, _, w in entries}
    print(f"started:   {len(started)}, of which never had a request: {len(started - served)}; at most {max(n for _, n in seen)} at once")


def main():
    o = arguments()
    os.environ["FOREBAY"] = o.forebay  # the harness asks for it when it is imported
    import daemon
    from procs import wait_for

    work = daemon.Work()
    try:
        with open(os.path.join(work.dir, "waits.py"), "w") as f:
            f.write(APPLICATION % (o.service / 1000))
        site = work.forebay({"app": "wsgi:waits", "directory": work.dir, "processes": o.most, "processes_min": 1, "threads": o.threads,
                             "scale_down_after": "3s", "environment": "PYTHONDONTWRITEBYTECODE=1"}, log_in_memory=True)
        site.started = lambda: re.findall(r'pid=(\d+) what="worker started"', site.log())
        watcher = Watcher(site)
        spans, wrong = steps(site, o.step)
        wait_for(lambda: len(site.workers()) == 1, "one worker")
        report(o, site, spans, watcher.stop(), wrong)
    finally:
        work.close()


if __name__ == "__main__":
    main()
