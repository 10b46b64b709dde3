#!/usr/bin/python3
"""forebay beside nginx and HAProxy: CPU time, memory, and how long workers are held.

    bench.py [--rows NAME,NAME | --rows list] [--rounds N] [--json FILE]
                                            names of rows, or of all of a kind: proxy (which is the default), stack
    bench.py --check                        each row in small, with forebay and no other proxy: does the bench itself work?
    bench.py --chart FILE.svg --json FILE   draws what was measured before
    bench.py --table --json FILE            its medians, as the README has them

FOREBAY is the program that is measured. Of the two cores the proxy has one to itself, its clients and the application servers
share the other; in the rows of whole stacks (stack-…), which serve a WSGI application, the stack has the one with all its
processes. Rounds of the contenders take turns, each time in another order; the first is not counted.
"""

import argparse
import contextlib
import datetime
import json
import math
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

import chart  # noqa: E402
import proxies  # noqa: E402
import report  # noqa: E402
import stacks  # noqa: E402
from rows import ROWS  # noqa: E402
from stack_rows import STACK_ROWS  # noqa: E402

SANITIZER_MARKS = (b"__asan_", b"__tsan_", b"__ubsan_", b"__gcov_")
OPTIMIZED_MARK = b"_chk"  # fortified calls: the build asks for them wherever the compiler optimizes, and only there


def unfit(path):
    """Why figures of this program would mislead, or None."""
    with open(path, "rb") as f:
        content = f.read()
    for mark in SANITIZER_MARKS:
        if mark in content:
            return f"is built with sanitizers or for coverage ({mark.decode()}…)"
    if OPTIMIZED_MARK + b"\0" not in content:
        return "is built without optimization"
    return None


def machine():
    with open("/proc/cpuinfo") as f:
        model = [line.partition(":")[2].strip() for line in f if line.startswith("model name")]
    return {"cpu": model[0] if model else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release(),
            "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0], "load": os.getloadavg()[0]}


@contextlib.contextmanager
def about(row, contender):
    """What fails within says where."""
    try:
        yield
    except (proxies.Failed, AssertionError) as e:
        raise proxies.Failed(f"{row.name}, {contender.name}: {e}") from None


class Bench:
    def __init__(self, options, folder, out):
        self.options, self.folder, self.out = options, folder, out
        self.stages = 0
        self.missing = {c: c.missing() for row in ROWS for c in row.contenders}

    def say(self, text):
        print(text, file=self.out, flush=True)

    def contenders(self, row):
        return [c for c in row.contenders if not self.missing[c] and (c.proxy in proxies.BUILT or not self.options.check)]

    def stage(self, row, contender):
        self.stages += 1
        return row.stage(contender, self.options.programs, os.path.join(self.folder, str(self.stages)))

    def run(self, row):
        """{contender's name: [figures of a round]}"""
        contenders = self.contenders(row)
        done = {c.name: [] for c in contenders}
        with contextlib.ExitStack() as stack:
            stages = {}
            for contender in [] if row.anew else contenders:
                with about(row, contender):
                    stage = stack.enter_context(self.stage(row, contender))
                    stages[contender] = stack.enter_context(row.begun(stage, self.options.check))
            first = 0 if row.anew or self.options.check else -1  # a proxy that has just begun has no warm round
            for number in range(first, self.rounds(row)):
                turn = number % len(contenders)
                for contender in contenders[turn:] + contenders[:turn]:
                    figures = self.round(row, contender, stages.get(contender))
                    if number >= 0:
                        done[contender.name].append(figures)
        return done

    def rounds(self, row):
        return 1 if self.options.check else self.options.rounds or row.rounds

    def round(self, row, contender, begun):
        with about(row, contender):
            if begun:
                return row.measure(begun, self.options.check)
            with self.stage(row, contender) as stage, row.begun(stage, self.options.check) as begun:
                return row.measure(begun, self.options.check)

    def all(self, rows):
        versions = {p: proxies.version(p) for p in ("forebay", "nginx", "haproxy") if proxies.find(p)}
        versions.update(stacks.versions())
        result = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
                  "versions": versions, "compiler": os.environ.get("BENCH_COMPILER", ""), "rows": {},
                  "left out": [], "failed": []}
        if not self.options.check:
            self.tell_missing(rows)
        if result["machine"]["load"] > 0.5 and not self.options.check:
            self.say(f"the machine is not quiet (load {result['machine']['load']:.1f}): figures will be rough\n")
        if not self.options.check:
            self.say("Medians of the rounds, in brackets their middle half. ÷: the median of what forebay's figure is of the other's in the same "
                     "round, in brackets where it lies in 19 of 20 runs as far as these rounds tell.\n")
        for row in rows:
            start = time.monotonic()
            if not self.contenders(row):
                self.say(f"{row.name}: left out, there is no {stacks.forebay_wsgi()}")
                result["left out"].append(row.name)
                continue
            try:
                rounds = self.run(row)
            except proxies.Failed as e:  # the other rows are worth having
                self.say(f"{e}\n")
                result["failed"].append(str(e))
                continue
            seconds = time.monotonic() - start
            result["rows"][row.name] = {"title": row.title, "units": row.units, "charted": row.charted(), "rates": row.rates,
                                         "seconds": round(seconds, 1), "rounds": rounds}
            if self.options.check:
                result["failed"] += unmeasured(row, rounds)
                self.say(f"{row.name}: works ({seconds:.1f} s)")
            else:
                self.say(report.table(row, rounds) + f"\n  ({seconds:.0f} s)\n")
        return result


    def tell_missing(self, rows):
        names = {c.name for row in rows for c in row.contenders if self.missing[c]}
        if names:
            self.say(f"not installed, left out: {', '.join(sorted(names))}\n")


def unmeasured(row, rounds):
    """Of the table's figures, those that are no numbers. What cannot be had here is told, and no failure."""
    found = []
    for contender, done in rounds.items():
        for name, value in ((name, figures[name]) for figures in done for name in row.units):
            if value is None:
                sys.stderr.write(f"bench: {row.name}: {name} cannot be had here (not root, or no strace)\n")
            elif not math.isfinite(value):
                found.append(f"{row.name}, {contender}: {name} is {value}")
    return found


def choose(names):
    known = {row.name: [row] for row in ROWS}
    known["stack"] = STACK_ROWS
    known["proxy"] = [row for row in ROWS if row not in STACK_ROWS]
    for name in names:
        if name not in known:
            sys.exit(f"bench: no row {name}; there are: {', '.join(known)}")
    return [row for name in names for row in known[name]]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default="tests/bench", help="where the built backend and load are")
    parser.add_argument("--rows", default="", help="names with commas between them, proxy, stack, or list")
    parser.add_argument("--rounds", type=int, default=0, help="that count, of each row; by default the row's own number")
    parser.add_argument("--json", help="the file that all rounds are written to")
    parser.add_argument("--check", action="store_true", help="try the bench itself, in small")
    parser.add_argument("--chart", help="the SVG file to be drawn, by gnuplot")
    parser.add_argument("--table", action="store_true", help="a table of medians, in Markdown")
    parser.add_argument("--force", action="store_true", help="measure a program that is not built for speed")
    options = parser.parse_args()
    options.programs = os.path.abspath(options.programs)
    if (options.chart or options.table) and not options.json:
        parser.error("--chart and --table show what --json tells")
    return options


def on_signal(number, _frame):
    for other in proxies.SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)  # by way of all that has to be ended


def show(options):
    with open(options.json) as f:
        result = json.load(f)
    if options.chart:
        chart.draw(result, options.chart)
    if options.table:
        print(report.markdown(result))


def main():
    options = arguments()
    if options.rows == "list":
        for row in ROWS:
            print(f"{row.name:18} {row.title}")
        return
    if options.chart or options.table:
        show(options)
        return
    rows = choose(options.rows.split(",") if options.rows else ["proxy", "stack"] if options.check else ["proxy"])
    forebay = proxies.find("forebay")
    why = unfit(forebay)
    if why and not options.force and not options.check:
        sys.exit(f"bench: {forebay} {why}: its figures would mislead (--force to have them)")
    for number in proxies.SIGNALS:
        signal.signal(number, on_signal)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # On a disk: what goes to files must cost what files cost.
    folder = tempfile.mkdtemp(prefix="fb-bench-", dir="/var/tmp")
    os.chmod(folder, 0o755)
    try:
        result = Bench(options, folder, sys.stdout).all(rows)
    finally:
        proxies.end_all()
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        with open(options.json, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    if result["failed"]:
        sys.exit("bench: " + "\n".join(result["failed"]))


if __name__ == "__main__":
    main()
