"""Typing commands on the operator's terminal, for the shell that reads them when the workload has ended."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from tests.e2e.conftest import Daemon

SCRIPT = """
import fcntl
for request in (0x5412, 0x541C):
    try:
        fcntl.ioctl(0, request, b"x")
        print("typed")
    except OSError as e:
        print("refused", e.errno)
"""


def test_typing(shared_daemon: Daemon) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            ["setsid", "-c", sys.executable, "-m", "killswitch", "run", "--", "/usr/bin/python3", "-c", SCRIPT],
            env=shared_daemon.env, stdin=theirs, capture_output=True, text=True, timeout=60, cwd="/", check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout == "refused 1\nrefused 1\n", done.stderr
