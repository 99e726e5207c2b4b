"""Find and remove what a crashed test, demo or benchmark left on the host. Standard library only: it must run anywhere.

Only things named ``ks-test-PID…``, ``ks-demo-PID…`` or ``ks-bench-PID…`` are looked at, and those whose maker (PID) still
lives are left alone.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

OURS = re.compile(r"ks-(?:test|demo|bench)-(\d+)")
DAEMONS_OWN = b"KILLSWITCH_PIN_DIR=/sys/fs/bpf/"


def is_left(name: str) -> bool:
    """Ours by its name, and its maker is gone."""
    found = OURS.match(name)
    return found is not None and not Path("/proc", found[1]).exists()


def left_processes() -> list[int]:
    """Daemons (and commands that talked to one) whose places are named so; what is about to end is given the time."""
    for _ in range(40):
        left = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and is_left(_pins_of(p))]
        if not left:
            break
        time.sleep(0.05)
    return left


def _pins_of(process: Path) -> str:
    try:
        environment = (process / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or not ours to look at
        return ""
    own = (v.removeprefix(DAEMONS_OWN) for v in environment if v.startswith(DAEMONS_OWN))
    return os.fsdecode(next(own, b""))


def cgroup_root() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        if tail.startswith("cgroup2 "):
            return Path(fields.split()[4])
    return None


def left_cgroups() -> list[Path]:
    root = cgroup_root()
    return sorted(p for p in root.iterdir() if p.is_dir() and is_left(p.name)) if root else []


def left_pins() -> list[Path]:
    bpffs = Path("/sys/fs/bpf")
    return sorted(p for p in bpffs.iterdir() if is_left(p.name)) if bpffs.is_dir() else []


def left_namespaces() -> list[str]:
    names = Path("/run/netns")
    return sorted(p.name for p in names.iterdir() if is_left(p.name)) if names.is_dir() else []


def left_files() -> list[Path]:
    return sorted(p for p in Path("/tmp").iterdir() if is_left(p.name))


def left_mounts() -> list[str]:
    """Those of pins and namespaces go with them."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    with_theirs = ("/sys/fs/bpf/", "/run/netns/")
    return [p for p in points if any(is_left(part) for part in Path(p).parts) and not p.startswith(with_theirs)]


def remove_cgroup(top: Path) -> None:
    """Thaw, kill and remove a subtree; only what is inside it is touched."""
    for freezer in top.rglob("cgroup.freeze"):
        freezer.write_text("0")
    for _ in range(200):
        inside = [int(pid) for procs in [top, *top.rglob("*/")] for pid in _read_pids(procs / "cgroup.procs")]
        if not inside:
            break
        killer = top / "cgroup.kill"
        if killer.exists():
            killer.write_text("1")
        else:
            for pid in inside:
                _kill(pid)
        time.sleep(0.01)
    for path in sorted((p for p in top.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)):
        _remove_empty(path)
    _remove_empty(top)


def _remove_empty(cgroup: Path) -> None:
    """What is listed no longer may still be on its way out: for that moment the kernel says EBUSY."""
    for _ in range(200):
        try:
            return cgroup.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        time.sleep(0.01)
    cgroup.rmdir()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended by itself


def _read_pids(procs: Path) -> list[str]:
    try:
        return procs.read_text().split()
    except OSError:  # went away while we looked
        return []


def main() -> int:
    checking = "--check" in sys.argv[1:]
    left: list[tuple[str, object]] = [
        *(("process", p) for p in left_processes()),
        *(("cgroup", p) for p in left_cgroups()),
        *(("pins", p) for p in left_pins()),
        *(("namespace", n) for n in left_namespaces()),
        *(("mount", m) for m in left_mounts()),
        *(("files", f) for f in left_files()),
    ]
    for kind, what in left:
        print(f"left behind: {kind} {what}")
        if checking:
            continue
        if kind == "process":
            _kill(int(str(what)))
        elif kind == "cgroup":
            remove_cgroup(Path(str(what)))
        elif kind in ("pins", "files"):
            shutil.rmtree(str(what), ignore_errors=kind == "files")
        elif kind == "namespace":
            subprocess.run(["ip", "netns", "delete", str(what)], check=True)
        else:
            subprocess.run(["umount", "--lazy", str(what)], check=True)
    if not left:
        print("clean: nothing was left on this host by a test, a demo or a benchmark")
    return 1 if checking and left else 0


if __name__ == "__main__":
    raise SystemExit(main())
