"""The number of a process that has ended, taken by another outside: an order by pid hits nobody else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.errors import KillswitchError
from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose

SCRIPT = """
say("pid", os.getpid())
go()
"""
AGAIN = Path("/proc/sys/kernel/ns_last_pid")


def as_pid(number: int) -> subprocess.Popen[bytes] | None:
    """A process with this number, if it can be had."""
    for _ in range(20):
        AGAIN.write_text(str(number - 1))
        process = subprocess.Popen(["sleep", "30"])
        if process.pid == number:
            return process
        process.kill()
        process.wait()
    return None


def test_pid_reuse(loose: Callable[..., Loose], shared_daemon: Daemon) -> None:
    if not AGAIN.exists():
        pytest.skip("this kernel does not let anybody choose a pid")
    script = loose(SCRIPT)
    script.ready()
    pid = script.said["pid"]
    script.go()
    script.results()
    innocent = as_pid(pid)
    if innocent is None:
        pytest.skip("the number was taken by others again and again")
    try:
        with pytest.raises(KillswitchError):
            shared_daemon.client.kill(f"pid:{pid}", "escape test")
        assert innocent.poll() is None
        assert "State:\tT" not in Path(f"/proc/{pid}/status").read_text()
        assert Path(f"/proc/{pid}/cgroup").read_text() == Path(f"/proc/{os.getpid()}/cgroup").read_text()
    finally:
        innocent.kill()
        innocent.wait()
