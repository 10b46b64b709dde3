"""What a process has: objects, descriptors, memory. Its applications leave nothing behind."""

import gc
import json
import os
import sys

import cases


def application(environ, start_response):
    if environ["PATH_INFO"] != "/measure":
        return cases.application(environ, start_response)
    gc.collect()
    with open("/proc/self/statm") as f:
        pages = int(f.read().split()[1])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"objects": len(gc.get_objects()), "blocks": sys.getallocatedblocks(), "descriptors": len(os.listdir("/proc/self/fd")),
                        "rss": pages * os.sysconf("SC_PAGESIZE"), "pid": os.getpid()}).encode()]
