"""What a proxy costs, as the kernel counts it: CPU time, memory, files; and how long each worker was held."""

import mmap
import os
import stat
import struct
import time

import procs

STAMP = struct.Struct("=QQQ")  # begin_ns, end_ns, ms: see backend.c
STAMPS_HEAD = struct.Struct("=QQ")  # count, capacity


def family(pid):
    return [pid] + procs.descendants(pid)


def cpu_ns(pids):
    """Time on a processor, user's and system's, of all threads: here the kernel counts it in nanoseconds."""
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
    return total


TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED = 2  # see clock_getcpuclockid(3), which makes the same number of a pid


def tree_cpu_ns(pid):
    """The same of a process and all below it, those included that came and went meanwhile: a process's own clock knows its ended
    threads, and its parent, who waited for it, has its time (in ticks of the clock) when it has ended."""
    while True:
        pids = family(pid)
        try:
            total = sum(time.clock_gettime_ns((~p << 3) | CPUCLOCK_SCHED) + waited_for_ns(p) for p in pids)
        except (OSError, FileNotFoundError, ProcessLookupError):  # one ended between the two looks
            if not os.path.exists(f"/proc/{pid}"):
                raise
            continue
        if family(pid) == pids:
            return total


def waited_for_ns(pid):
    """Of children that have ended, and of theirs."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * TICK_NS


def pss_bytes(pids):
    """Memory, shared pages by their share. None where the kernel does not let us look: into the front only root may."""
    total = 0
    try:
        for pid in pids:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += sum(int(line.split()[1]) * 1024 for line in f if line.startswith("Pss:"))
    except PermissionError:
        return None
    return total


def file_bytes(pids, folder):
    """What those files take that the processes have open and that lie in this folder, or did before they lost their names."""
    seen = {}
    try:
        for pid in pids:
            for name in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{name}"
                try:
                    if os.readlink(path).startswith(folder + "/"):
                        s = os.stat(path)
                        if stat.S_ISREG(s.st_mode):
                            seen[s.st_dev, s.st_ino] = s.st_blocks * 512
                except FileNotFoundError:  # closed meanwhile
                    pass
    except PermissionError:
        return None
    return sum(seen.values())


def settle(spent_ns, quiet_ns=1_000_000, deadline=10):
    """Waits until those whose CPU time spent_ns() tells have done what they had to do: hardly any of it in a tenth of a second."""
    end = time.monotonic() + deadline
    before = spent_ns()
    while time.monotonic() < end:
        time.sleep(0.1)
        now = spent_ns()
        if now - before < quiet_ns:
            return
        before = now


class Stamps:
    """When the backend's workers were taken and when they were free again."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.map = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)

    def count(self):
        return STAMPS_HEAD.unpack_from(self.map, 0)[0]

    def since(self, count):
        """(held_ns, the application's own ms) of all requests that ended since count() said so; the last ones if the ring has
        turned over."""
        now, capacity = STAMPS_HEAD.unpack_from(self.map, 0)
        out = []
        for n in range(max(count, now - capacity), now):
            begin, end, ms = STAMP.unpack_from(self.map, STAMPS_HEAD.size + n % capacity * STAMP.size)
            if end >= begin > 0:
                out.append((end - begin, ms))
        return out


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else None
