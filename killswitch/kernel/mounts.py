"""bpffs: where pinned programs and maps outlive the daemon."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from killswitch.errors import KernelError
from killswitch.kernel import syscalls

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


@dataclass(frozen=True, slots=True)
class Mount:
    point: Path
    root: str  # of the file system, as seen through this mount: "/" unless it is a bind mount or a cgroup namespace
    kind: str
    device: str  # "major:minor"


def _unescape(field: str) -> str:
    """mountinfo writes blank, tab, newline and backslash as octal."""
    for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(octal, char)
    return field


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts of ``/proc/PID/mountinfo``, in order; a later one covers an earlier one at the same point."""
    found = []
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        fields = left.split(" ")
        if dash and len(fields) >= 5:
            found.append(Mount(Path(_unescape(fields[4])), _unescape(fields[3]), right.split(" ", 1)[0], fields[2]))
    return found


def mounts(kind: str) -> list[Mount]:
    """What is mounted of this file system type in our mount namespace, and not covered by something else."""
    every = parse_mountinfo(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    on_top = {m.point: m for m in every}
    return [m for m in every if m.kind == kind and on_top[m.point] is m]


def ensure_bpffs(path: Path) -> None:
    """Make sure that ``path`` lies on bpffs: mount one at ``/sys/fs/bpf`` (or at its parent) when it does not.

    ``path`` itself is created as a directory (0700) when it is absent. Raises KernelError when it cannot be.
    """
    if not _on_bpffs(path):
        under_sys = Path("/sys/fs/bpf")
        point = under_sys if path == under_sys or under_sys in path.parents else path
        try:
            point.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            hint = "choose another pin_dir, such as /sys/fs/bpf/killswitch"
            raise syscalls.error(f"create {point} to mount bpffs on", e, hint) from e
        try:
            syscalls.mount("bpf", str(point), "bpf", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=0700")
        except KernelError as e:
            hint = f"mount it by hand: mount -t bpf bpf {point}"
            raise syscalls.error(f"mount bpffs at {point}", e.code, hint) from e
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise syscalls.error(f"create {path} on bpffs", e) from e


def _on_bpffs(path: Path) -> bool:
    existing = Path(os.path.normpath(path.absolute()))
    while not existing.exists():
        existing = existing.parent
    device = existing.stat().st_dev
    return any(m.device == f"{os.major(device)}:{os.minor(device)}" for m in mounts("bpf"))
