"""What an operator may call a workload: its name, its numeric id, a cgroup path, or ``pid:N``."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from killswitch.daemon.workloads import Absent, Workload, Workloads
from killswitch.errors import Gone, Protected, TargetError
from killswitch.kernel import cgroupfs


@dataclass(frozen=True, slots=True)
class Unwatched:
    """A cgroup that exists and that no workload is, nor holds."""

    cgroup: str


def is_host(target: str) -> bool:
    """Whether the whole host is meant."""
    return target.strip() == "host"


def resolve(target: str, workloads: Workloads, mount: Path) -> Workload | Absent | Unwatched:
    """Raises TargetError when there is no such thing (the whole host is none: see ``is_host``), Protected for the root cgroup."""
    target = target.strip()
    if is_host(target):
        raise TargetError("target 'host': only kill, sever and release are for the whole host; name a workload")
    if target.startswith("pid:"):
        return _of_process(target, workloads)
    if target.startswith("/"):
        return _at_path(target, workloads, mount)
    if found := workloads.named(target):
        return found
    if target.isdigit() and (found := workloads.get(int(target))):
        return found
    for absent in workloads.absent.values():
        if absent.name == target:
            return absent
    raise TargetError(f"target {target!r}: no workload has this name or id; {workloads.suggest(target)}")


def cgroup_path(target: str, mount: Path) -> str:
    """A cgroup path as the kernel writes it (``/a/b``), from that or from a directory of the mount. Only its form is judged.

    Raises TargetError for what is no absolute path, Protected for the root.
    """
    if not target.startswith("/") or "\0" in target or ".." in Path(target).parts:
        raise TargetError(f"cgroup {target!r}: must be an absolute path below the cgroup v2 root, such as /agents/a")
    path = Path(target)
    below = "/" + str(path.relative_to(mount)) if path == mount or mount in path.parents else str(path)
    below = "/" + below.strip("/").removeprefix(".")
    if below == "/":
        raise Protected("cgroup /: the root holds everything, this daemon and your way in too; name a cgroup below it")
    return below


def _at_path(target: str, workloads: Workloads, mount: Path) -> Workload | Absent | Unwatched:
    below = cgroup_path(target, mount)
    if found := workloads.at(below):
        return found
    if below in workloads.absent:
        return workloads.absent[below]
    if not (mount / below[1:]).is_dir():
        raise TargetError(f"cgroup {below}: there is none at {mount / below[1:]}; {workloads.suggest(below)}")
    if inside := workloads.holding(below):
        raise TargetError(
            f"cgroup {below}: lies inside the workload {inside.name} ({inside.cgroup}); name that to contain it whole"
        )
    return Unwatched(below)


def _of_process(target: str, workloads: Workloads) -> Workload | Unwatched:
    digits = target.removeprefix("pid:")
    if not digits.isdigit():
        raise TargetError(f"target {target!r}: write pid:N with a process id, such as pid:4711")
    try:
        cgroup = cgroup_of(int(digits))
    except Gone as e:
        raise TargetError(f"target {target!r}: {e}") from e
    if found := workloads.holding(cgroup):
        return found
    if cgroup == "/":
        raise Protected(
            f"target {target!r}: it is in the root cgroup, which is never contained; move it to one of its own"
        )
    return Unwatched(cgroup)


def cgroup_of(pid: int) -> str:
    """The cgroup v2 path of a process. Raises Gone."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text(errors="surrogateescape")
    except OSError as e:
        raise Gone(f"process {pid}", e.errno or errno.ESRCH, "it has ended") from e
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:].removesuffix(" (deleted)")
    raise Gone(f"process {pid}", errno.ESRCH, "it is in no cgroup v2")


def id_of(cgroup: str, mount: Path) -> int:
    """The id of an existing cgroup. Raises TargetError."""
    try:
        return cgroupfs.cgroup_id(mount / cgroup.lstrip("/"))
    except Gone as e:
        raise TargetError(
            f"cgroup {cgroup}: there is none at {mount}{cgroup}; create it first, or check the path"
        ) from e
