"""What the network and the machine do on a bad day: too few descriptors, crowds that come and go, clients that drip, workers that
misbehave at every stage, ports that are taken, a clock that jumps."""

import collections
import os
import random
import selectors
import socket
import threading
import time

import pytest

import procs
from backend import OK, polite
from client import Client, Cut, Malformed, ask, message, parse_head
from daemon import FRONT_USER, ROOT, SITE, THREADS, free_address, scaled
from procs import wait_for
from tools import pattern

NOFILE = 200
RISING = ["setpriv", "--bounding-set=-sys_resource"] if ROOT else []  # root could raise any limit


def hold_until(event, content=OK):
    def handler(conn):
        conn.request()
        event.wait()
        conn.try_send(content)

    return handler


@pytest.fixture
def release(work):
    """Set at the end at the latest, before anybody waits for who waits for it."""
    event = threading.Event()
    yield event
    event.set()


def event_threads(front):
    return [task for name, task in procs.threads(front).items() if name.startswith("loop-")]


def never_spins(site, sleeps=10, cpu_share_ns=20_000_000):
    """Each event thread goes to sleep by itself again and again (at least its tick wakes it), and does little in between. Who is
    woken at once, every time, by a listener that it cannot serve never sleeps."""
    front = site.front()
    for task in event_threads(front):
        asleep, cpu = procs.sleeps(front, task), procs.cpu_ns(front, task)
        wait_for(lambda task=task, asleep=asleep: procs.sleeps(front, task) >= asleep + sleeps, "a thread to sleep now and then")
        spent, slept = procs.cpu_ns(front, task) - cpu, procs.sleeps(front, task) - asleep
        assert spent <= slept * cpu_share_ns, f"{spent} ns in {slept} turns"


# Too few descriptors


def connect_all(address, count):
    """Connections that the kernel has taken, whoever accepts them."""
    clients = []
    for _ in range(count):
        clients.append(Client(address))
    return clients


def test_200_descriptors_and_1000_clients(work, quiet, release):
    """Those that find no place wait unaccepted in the kernel's queue, and are served when there is room: none is turned away."""
    backend = work.backend(hold_until(release))
    site = work.forebay({"socket": backend.name, "slots": 2, "queue_timeout": "10m", "timeout": "10m"},
                        listen={"idle_timeout": "10m", "head_timeout": "10m"},
                        wrap=[*RISING, "prlimit", f"--nofile={NOFILE}:{NOFILE}"])
    front = site.front()
    with open(f"/proc/{front}/limits") as f:
        assert [line.split()[3:5] for line in f if line.startswith("Max open files")] == [[str(NOFILE)] * 2]
    quiet(site)
    clients = connect_all(site.address, scaled(1000, 300))
    for c in clients:
        c.send(message("GET", "/", [("Connection", "close")]))
    site.wait_log("accepting stops for a moment")
    backend.wait_seen(2)
    never_spins(site)
    assert procs.descriptors(front) < NOFILE
    release.set()
    answers = collections.Counter()
    for c in clients:
        try:
            answers[c.response().status] += 1
        except Cut as cut:
            answers[cut.how] += 1
        c.close()
    assert answers == {200: len(clients)}
    assert site.front() == front
