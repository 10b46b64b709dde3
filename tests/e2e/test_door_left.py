"""Clients that leave before it is known what they speak: nothing is left of them, long before any time is up."""

import ssl

import pytest

import h2wire as h
import procs
from certs import CA
from client import Client, tls_context
from procs import wait_for

PATIENT = {"handshake_timeout": "10m", "head_timeout": "10m", "idle_timeout": "10m"}


def client_hello():
    """The first flight of a handshake."""
    outgoing = ssl.MemoryBIO()
    try:
        tls_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="test").do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake with nobody")


@pytest.mark.parametrize("leave", [Client.close, Client.reset], ids=["closed", "reset"])
@pytest.mark.parametrize("kind", ["tls", "preface"])
def test_who_leaves_at_the_door_leaves_nothing(work, kind, leave):
    """With the first bytes, however many: the end comes together with them, so no edge tells of it later."""
    backend = work.backend()
    listen = {"tls": {"tls": "test", "http2": "yes"}, "preface": {"http2": "yes"}}[kind]
    more = {"tls test": CA(work.dir).issue("test", ["test"]).options} if kind == "tls" else None
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={**PATIENT, **listen}, more=more, forebay={"threads": 1})
    whole = client_hello() if kind == "tls" else h.PREFACE + h.settings() + h.post(1, b"half", end=False)
    assert h.ask(site.address, tls=kind == "tls").status == 200
    front = site.front()
    wait_for(lambda: not backend.open, "the worker's connection to end")
    before = procs.descriptors(front)
    for at in range(1, len(whole) + 1, max(1, len(whole) // 60)):
        c = Client(site.address)
        c.send(whole[:at])
        leave(c)
    wait_for(lambda: procs.descriptors(front) <= before, lambda: f"{before} descriptors, now {procs.descriptors(front)}")
