"""What /proc says about processes, and waiting for something to become true."""

import ctypes
import os
import time

DEADLINE = 60  # seconds: far beyond what anything here takes, sanitizers and a busy machine included


def wait_for(check, what, deadline=DEADLINE):
    """Returns the first true value of check(). Looks often, decides nothing by time but a hopeless failure."""
    end = time.monotonic() + deadline
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline} s in vain for {what() if callable(what) else what}")
        time.sleep(0.005)


def become_subreaper():
    """Orphans of what the tests start come to this process, so that none stays unseen."""
    PR_SET_CHILD_SUBREAPER = 36
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                found += map(int, f.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return sorted(found)


def descendants(pid):
    found = []
    for child in children(pid):
        found += [child] + descendants(child)
    return found


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def state(pid):
    """One letter as in ps, or "" if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def runs(pid):
    return state(pid) not in ("", "Z", "X")


def stands_still(pid):
    """Stopped by a signal, in all of its threads: it takes a while to reach those that run."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat") as f:
            if f.read().rpartition(")")[2].split()[0] != "T":
                return False
    return True


def owner(pid):
    """The effective uid."""
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith("Uid:"):
                return int(line.split()[2])
    raise AssertionError("no Uid line")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def limit(pid, what):
    """The soft and the hard one, of those that /proc/PID/limits lists."""
    with open(f"/proc/{pid}/limits") as f:
        for line in f:
            if line.startswith(what):
                return tuple(int(word) for word in line[len(what):].split()[:2])
    raise KeyError(what)


def memory_kb(pid, what):
    """VmRSS, VmHWM and the like."""
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith(what + ":"):
                return int(line.split()[1])
    raise AssertionError(f"no {what} line")


def kill(pid, sig):
    """True if there was somebody to hear it."""
    try:
        os.kill(pid, sig)
        return True
    except ProcessLookupError:
        return False


def descriptor_targets(pid):
    """What each stands for: "socket", "pipe", "anon_inode:[eventpoll]", or a path."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        found.append(target.partition(":")[0] if target.startswith(("socket:", "pipe:")) else target)
    return sorted(found)


def pss(pid):
    """Bytes of memory, what is shared by its part."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no Pss line")


def threads(pid):
    """{name: task id}"""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as f:
            found[f.read().strip()] = int(task)
    return found


def sleeps(pid, task):
    """How often the thread has gone to sleep by itself: who spins never does."""
    with open(f"/proc/{pid}/task/{task}/status") as f:
        for line in f:
            if line.startswith("voluntary_ctxt_switches:"):
                return int(line.split()[1])
    raise AssertionError("no such line")


def cpu_ns(pid, task):
    """Time that the thread was on a processor."""
    with open(f"/proc/{pid}/task/{task}/schedstat") as f:
        return int(f.read().split()[0])
