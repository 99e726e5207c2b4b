"""Signals to what is outside: root may signal root's processes, so those outside are out of reach."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.e2e.escapes.conftest import Inside

SCRIPT = """
pid = int(sys.argv[1])
attempt("stop", lambda: os.kill(pid, 19))
attempt("kill", lambda: os.kill(pid, 9))
attempt("group", lambda: os.killpg(pid, 19))
attempt("queue", lambda: call("syscall", 129, pid, 19, struct.pack("=iii", 19, 0, -1) + bytes(116)))
attempt("thread", lambda: call("syscall", 234, pid, pid, 19))
attempt("pidfd", lambda: os.pidfd_open(pid))
attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
attempt("affinity", lambda: os.sched_setaffinity(pid, {0}))
attempt("limits", lambda: __import__("resource").prlimit(pid, 0, (1, 1)))
say("seen", [p for p in os.listdir("/proc") if p.isdigit()])
"""


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_signal(inside: Callable[..., Inside], user: str, victim: subprocess.Popen[bytes]) -> None:
    tried = inside(SCRIPT, victim.pid, user=user).results()
    assert len(tried.pop("seen")) == 2  # its init and itself
    assert set(tried.values()) == {"ESRCH"}, tried
    assert (victim.poll(), _state(victim.pid)) == (None, "S")


def test_with_the_hosts_pids_root_can(inside: Callable[..., Inside], victim: subprocess.Popen[bytes]) -> None:
    """So the attempt is a real one."""
    assert inside(SCRIPT, victim.pid, options=("--host-pids",)).results()["stop"] == "done"
    assert victim.wait(10) == -signal.SIGKILL
