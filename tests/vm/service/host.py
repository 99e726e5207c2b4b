"""What the tests ask of the machine: systemd, the installed command, and the far side that counts."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from killswitch.control.client import Client
from killswitch.control.service import WorkloadInfo
from killswitch.errors import KillswitchError
from tests.rig.emulated import patience
from tests.vm.service.far import LOG

T = TypeVar("T")
ROOT = Path(__file__).parents[3]
UNIT = "killswitchd.service"
CGROUPS = Path("/sys/fs/cgroup")


def sh(*command: str, check: bool = True, seconds: float = 600) -> str:
    """What it printed. Raises AssertionError with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def client() -> Client:
    """Of the daemon that runs now; close it (``with``). One a question: the daemon may be another one by the next."""
    return Client(Path("/run/killswitch/admin.sock"), timeout=patience(30))


def prop(name: str, unit: str = UNIT) -> str:
    return sh("systemctl", "show", "--value", "--property", name, unit).strip()


def main_pid() -> int:
    return int(prop("MainPID"))


def until(what: str, condition: Callable[[], T | None], seconds: float = 300) -> T:
    """Poll until it is true. Raises AssertionError with the daemon's journal."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            journal = sh("journalctl", "--boot", "--no-pager", "--lines=60", "--unit", UNIT, check=False)
            raise AssertionError(f"not seen in {seconds} s: {what}\n{journal}")
        time.sleep(0.2)
    return found


def answers() -> bool:
    try:
        with client() as c:
            return bool(c.status())
    except KillswitchError:
        return False


def workload(name: str) -> WorkloadInfo | None:
    """As the daemon tells of it; None = not watched, or no daemon."""
    try:
        with client() as c:
            return next((w for w in c.workloads() if w.name == name), None)
    except KillswitchError:
        return None


def cgroup_events(service: str) -> dict[str, int]:
    text = (CGROUPS / "agents.slice" / service / "cgroup.events").read_text()
    return {k: int(v) for k, v in re.findall(r"(\w+) (\d)", text)}


def arrived(port: int, *, since: float = 0.0) -> int:
    """Packets that have come to this port of the far side (of this boot), since a unix time in seconds."""
    lines = Path(LOG).read_text().split("\n")[:-1]
    return sum(int(where) == port and int(at) / 1e9 > since for at, where in (line.split() for line in lines))
