"""Asking the daemon to let it go, as root: its sockets and its state are out of reach."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside
from tests.e2e.escapes.loose import Loose, covered, judge

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


def test_as_full_root(loose: Callable[..., Loose], shared_daemon: Daemon) -> None:
    """In a workload that is only watched, where the sockets are in sight: no connection leads to the daemon any more."""
    name = f"loose{Loose.made + 1}"
    paths = [p for p in sys.path if p.endswith("-packages")] + [str(Path(__file__).parents[3])]
    script = loose(
        """
        sys.path[:0] = sys.argv[3:]
        from killswitch.control.client import Client
        from killswitch.errors import KillswitchError
        from pathlib import Path
        path, name = sys.argv[1:3]
        before, raw = Client(Path(path), timeout=5), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        say("free", before.status().pid)
        raw.connect(path)
        go()
        def ask(client):
            try:
                client.release(name, "it is me")
            except KillswitchError as e:
                raise OSError(errno.EPERM, str(e))
        attempt("heard", lambda: raw.recv(100000) and raw.recv(1))
        attempt("before", lambda: ask(before))
        attempt("anew", lambda: ask(Client(Path(path), timeout=5)))
        attempt("connect", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(path))
        """,
        shared_daemon.runtime_dir / "admin.sock", name, *paths,
    )  # fmt: skip
    script.ready()
    script.sever()
    script.go()
    said = script.results()
    assert said["free"]
    w = shared_daemon.workload(name)
    assert w
    escaped = "" if w.desired.severed else f"it was released: {said}"
    if covered(shared_daemon, "unix_connections") or covered(shared_daemon, "lsm_unix_sockets"):
        assert (escaped, said["before"], said["anew"], said["connect"]) == ("", "EPERM", "EPERM", "EPERM"), said
    judge(shared_daemon, "unix_connections", escaped, always=False)


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
