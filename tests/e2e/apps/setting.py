"""What an application finds where it runs: folder, user, environment, and what else its pool's settings decide."""

import grp
import json
import locale
import os
import pwd
import sys
import tempfile


def application(environ, start_response):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "made")
        with open(path, "w"):
            pass
        mode = os.stat(path).st_mode & 0o777
    locale.setlocale(locale.LC_ALL, "")
    found = {"folder": os.getcwd(), "path": sys.path[0], "uid": os.getuid(), "euid": os.geteuid(), "gid": os.getgid(), "groups": sorted(os.getgroups()),
             "user": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name, "environment": dict(os.environ), "mode": oct(mode), "nice": os.nice(0),
             "locale": locale.setlocale(locale.LC_ALL), "encoding": locale.getpreferredencoding(), "files": sys.getfilesystemencoding(), "prefix": sys.prefix,
             "executable": sys.executable}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]
