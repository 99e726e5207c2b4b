"""Asking the daemon to let it go, as root: its sockets and its state are out of reach."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside

SCRIPT = """
runtime, state, policies = sys.argv[1:]
def connect(path):
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(path)
attempt("admin", lambda: connect(f"{runtime}/admin.sock"))
attempt("view", lambda: connect(f"{runtime}/view.sock"))
attempt("replace", lambda: os.rename(runtime, runtime + ".old"))
attempt("ledger", lambda: open(f"{state}/ledger.db", "r+b"))
attempt("forge", lambda: open(f"{state}/new", "w"))
attempt("policy", lambda: open(f"{policies}/new.yaml", "w"))
attempt("remove policy", lambda: os.rename(policies, policies + ".old"))
"""


def test_daemon_socket(inside: Callable[..., Inside], user: str, shared_daemon: Daemon) -> None:
    d = shared_daemon
    tried = inside(SCRIPT, d.runtime_dir, d.state_dir, d.policy_dir, user=user).results()
    assert {"ENOENT", "EACCES", "EPERM", "EROFS", "EBUSY"} >= set(tried.values()), tried
    assert (d.runtime_dir / "admin.sock").is_socket()


def test_releasing_itself(inside: Callable[..., Inside], shared_daemon: Daemon) -> None:
    script = inside(
        """
        import subprocess
        go()
        done = subprocess.run([sys.argv[1], "-m", "killswitch", "release", sys.argv[2], "--reason", "x"],
                              capture_output=True, text=True)
        say("status", done.returncode)
        """,
        "python3" if not os.environ.get("VIRTUAL_ENV") else f"{os.environ['VIRTUAL_ENV']}/bin/python",
        "pid:1",
    )
    script.ready()
    script.sever()
    script.go()
    assert script.results()["status"] != 0
    w = shared_daemon.workload(script.name)
    assert w
    assert w.desired.severed
