"""A WSGI worker that has answered many requests, of every kind, has what it had before."""

import json
import os

from daemon import is_sanitized, scaled
from pythonapps import needs_python, serve

pytestmark = needs_python
# Each begins and ends something: objects, descriptors, exceptions, answers that are taken back, bodies in memory and in files.
KINDS = [("GET", "/one"), ("GET", "/many"), ("GET", "/generator"), ("GET", "/written"), ("GET", "/big_parts"), ("GET", "/raises"), ("GET", "/raises_after_start"),
         ("GET", "/replaced"), ("GET", "/closing"), ("GET", "/closing_raises"), ("GET", "/closing_after_failure"), ("GET", "/returns?none"), ("GET", "/bad_field?crlf"),
         ("GET", "/bad_status?nul"), ("GET", "/started_twice"), ("GET", "/no_start"), ("GET", "/exits"), ("GET", "/environment"), ("HEAD", "/one"), ("GET", "/file_plain"),
         ("GET", "/file_gzip"), ("GET", "/file_temporary"), ("GET", "/file_memory"), ("GET", "/too_long"), ("GET", "/gone_in_a_thread"), ("GET", "/other_thread"),
         ("GET", "/bad_call?four"), ("GET", "/status?204"), ("POST", "/body?read"), ("POST", "/body?readline;readlines"), ("POST", "/body?next;read,5"),
         ("POST", "/body_in_a_thread"), ("POST", "/body_errors"), ("POST", "/body?iter")]


def test_many_requests_leave_nothing_behind(work):
    site = serve(work, "leaky")
    with open(os.path.join(site.folder, "file"), "wb") as f:
        f.write(b"a line of a file\n" * 5000)
    import gzip
    with gzip.open(os.path.join(site.folder, "file.gz"), "wb") as f:
        f.write(b"a line of a file\n" * 5000)
    small, large = b"a body\n" * 20, b"a line of a large body\n" * 20_000

    def rounds(n):
        with site.connect() as c:
            for i in range(n):
                method, target = KINDS[i % len(KINDS)]
                body = None if method != "POST" else large if i // len(KINDS) % 8 == 0 else small
                c.ask(method, target, [(f"X-Once-{i}", "a name of its own")], body)

    def measure():
        return json.loads(site.ask("GET", "/measure").body)

    total = scaled(10_000, least=700)
    rounds(total)  # now what is kept on purpose is there: names, a parser, imports
    before = measure()
    grown = []
    for _ in range(6):
        rounds(total)
        after = measure()
        assert before["pid"] == after["pid"] and site.workers() == [after["pid"]]
        assert after["descriptors"] == before["descriptors"], (before, after)
        grown.append({what: after[what] - before[what] for what in before})
        # One object for every hundred requests would be found. What leaks grows each time; Python's own spare blocks fill up at some time.
        if grown[-1]["objects"] < max(20, total / 100) and \
                (is_sanitized() or grown[-1]["blocks"] < max(200, total / 50) and grown[-1]["rss"] < (4 << 20)):
            return
        before = after
    raise AssertionError(grown)
