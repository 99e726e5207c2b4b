"""Who must never be killed or frozen: pid 1, the daemon and its ancestors, the operators' sshd, and what is configured.

The question "does a protected process live in this cgroup" is asked by the few protected processes' own cgroups, not by
listing the target's: it must cost the same for a workload of one process and of ten thousand. Who is protected is found
by walking /proc, which is slow: ``refresh`` does it, at start and on a timer (from a thread); a check only confirms that
those found are still the same processes, and where they are now.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from killswitch import errors
from killswitch.errors import KernelError
from killswitch.kernel import cgroupfs, procfs

SSHD = ("sshd", "sshd-session", "sshd-auth")
HOSTS_PLACES = ("/system.slice/ssh.service", "/system.slice/sshd.service", "/user.slice", "/init.scope")
FRESH_S = 5.0
_WAY_IN = "the operators' way in"


@dataclass(frozen=True, slots=True)
class Kept:
    """One protected process."""

    pid: int
    start_ticks: int
    why: str  # "pid 1", "the daemon", …
    way_in: bool = False  # an sshd: what it runs of its own kind is protected as well


def contains(outer: str, inner: str) -> bool:
    """Whether cgroup ``inner`` is ``outer`` or lies below it."""
    return outer == "/" or inner == outer or inner.startswith(outer + "/")


class Protected:
    """Refuses what would hit a protected process.

    ``cgroups`` are cgroup v2 paths that nobody may contain, nor anything around or below them; ``names`` are basenames of
    further executables to protect (the file that runs, not the name that a process gives itself). ``watched`` (the ids of
    the workloads' cgroups; the Switch sets it) keeps a workload from making itself untouchable: an sshd that is started
    *inside* one is the workload's own and protects nobody, unless it is where the service manager puts the host's.
    """

    def __init__(self, cgroups: Iterable[str] = (), *, names: Iterable[str] = ()) -> None:
        self._names = {
            **dict.fromkeys(names, "protected by configuration"),
            **dict.fromkeys(SSHD, _WAY_IN),
        }
        self.cgroups = tuple(c.rstrip("/") or "/" for c in cgroups)
        self.watched: Callable[[], Collection[int]] = tuple
        self._always = self._lineage()
        self._found: dict[int, Kept] = {}
        self._refreshed = 0.0  # monotonic seconds, 0 = never

    @staticmethod
    def _lineage() -> tuple[Kept, ...]:
        me = procfs.stat(os.getpid())
        kept = [Kept(me.pid, me.start_ticks, "the daemon itself")]
        for a in procfs.ancestors(me.pid):
            kept.append(Kept(a.pid, a.start_ticks, "pid 1" if a.pid == 1 else "an ancestor of the daemon"))
        if kept[-1].pid != 1:
            with contextlib.suppress(KernelError):
                kept.append(Kept(1, procfs.start_ticks(1), "pid 1"))
        return tuple(kept)

    def refresh(self, older_than_s: float = 0.0) -> None:
        """Find the protected processes anew, unless that was done less than so many seconds ago. Walks /proc."""
        now = time.monotonic()
        if self._refreshed and now - self._refreshed < older_than_s:
            return
        found: dict[int, Kept] = {}
        for pid in procfs.pids():
            with contextlib.suppress(KernelError):
                if kept := self._recognise(pid):
                    found[pid] = kept
        self._found, self._refreshed = found, now

    def _recognise(self, pid: int) -> Kept | None:
        try:
            executable = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115 - of every process
        except OSError:
            return None  # a kernel thread, or it has ended
        name = PurePosixPath(executable).name
        if name not in self._names or not _is_hosts(pid):
            return None
        ticks = procfs.start_ticks(pid)
        known = self._found.get(pid)
        if known is not None and known.start_ticks == ticks:
            return known  # once protected, always: also when somebody moves it into a workload
        if self._in_workload(procfs.cgroup(pid)) and not self._child_of_one(pid):
            return None
        return Kept(pid, ticks, f"{name}, {self._names[name]}", name in SSHD)

    def _child_of_one(self, pid: int) -> bool:
        """Whether a protected process of the same family has started it: a login's own sshd."""
        parent = procfs.stat(pid).ppid
        found = self._found.get(parent)
        return found is not None and found.way_in and procfs.same(parent, found.start_ticks)

    def note(self, pid: int) -> bool:
        """Look at this process now; whether it is protected and was not known to be."""
        with contextlib.suppress(KernelError):
            kept = self._recognise(pid)
            if kept is not None and self._found.get(pid) != kept:
                self._found = {**self._found, pid: kept}
                return True
        return False

    def places(self) -> list[tuple[Kept, str]]:
        """Every protected process that lives, with the path of its cgroup."""
        found = []
        for kept in self._every():
            with contextlib.suppress(KernelError):
                where = procfs.cgroup(kept.pid)
                if procfs.same(kept.pid, kept.start_ticks):
                    found.append((kept, where))
        return found

    def _in_workload(self, cgroup: str) -> bool:
        if any(contains(place, cgroup) for place in HOSTS_PLACES):
            return False
        watched = self.watched()
        path, root = cgroupfs.from_root(cgroup), cgroupfs.find_mount()
        return any(cgroupfs.cgroup_id(p) in watched for p in (path, *path.parents) if p.is_relative_to(root))

    def kept(self) -> tuple[Kept, ...]:
        """All protected processes that still live, as of the last refresh."""
        return tuple(k for k in self._every() if procfs.same(k.pid, k.start_ticks))

    def _every(self) -> Collection[Kept]:
        return {k.pid: k for k in (*self._found.values(), *self._always)}.values()

    def check_cgroup(self, path: Path, *, fresh: bool = True) -> None:
        """Raises Protected (killswitch.errors) when containing this cgroup would hit who is protected.

        ``fresh`` looks for protected processes anew when that was last done more than some seconds ago; without, the
        answer takes a fraction of a millisecond whatever runs on the host.
        """
        cgroup = cgroupfs.below_root(path)
        if cgroup == "/":
            raise errors.Protected(
                "cgroup / holds the whole host, pid 1 and the daemon included; name a cgroup below it"
            )
        for own in self.cgroups:
            if contains(cgroup, own) or contains(own, cgroup):
                raise errors.Protected(
                    f"cgroup {cgroup} is, holds or lies in {own}, which is protected by configuration; "
                    "name another cgroup, or take it out of the configuration"
                )
        if fresh or not self._refreshed:
            self.refresh(FRESH_S)
        for k in self._every():
            with contextlib.suppress(KernelError):
                where = procfs.cgroup(k.pid)
                if contains(cgroup, where) and procfs.same(k.pid, k.start_ticks):
                    raise errors.Protected(
                        f"cgroup {cgroup} holds process {k.pid} ({k.why}) in {where}; "
                        "name a cgroup below it that does not, or move that process out of it"
                    )

    def check_process(self, pid: int) -> None:
        """Raises Protected when the process is protected, or lives in a protected cgroup."""
        self.note(pid)
        for k in self.kept():
            if k.pid == pid:
                raise errors.Protected(f"process {pid} is {k.why}; it is never killed: name another process")
        with contextlib.suppress(KernelError):
            where = procfs.cgroup(pid)
            if any(contains(own, where) for own in self.cgroups):
                raise errors.Protected(
                    f"process {pid} lives in {where}, which is protected by configuration; name another process"
                )

    def operators(self) -> tuple[int, ...]:
        """The processes of the operators' sshd that still live, as of the last refresh."""
        found = (k for k in self.kept() if k.why.endswith(_WAY_IN))
        return tuple(k.pid for k in found)

    def socket_inodes(self) -> frozenset[int]:
        """The sockets that protected processes hold: never to be destroyed, even when a workload holds them too."""
        held: set[int] = set()
        for k in self.kept():
            with contextlib.suppress(KernelError):
                held |= procfs.socket_inodes(k.pid).keys()
        return frozenset(held)

    def sockets(self) -> Container[int]:
        """The same, found out when it is first asked for one: most workloads have no socket that could be meant."""
        return _Found(self.socket_inodes)


class _Found(Container[int]):
    def __init__(self, find: Callable[[], frozenset[int]]) -> None:
        self._find = functools.cache(find)

    def __contains__(self, inode: object) -> bool:
        return inode in self._find()


def _is_hosts(pid: int) -> bool:
    """Whether the process sees the host's own files and processes: one in a container is called whatever it likes."""
    with contextlib.suppress(KernelError):
        return all(procfs.namespace(pid, kind) == procfs.namespace(os.getpid(), kind) for kind in ("mnt", "pid"))
    return False
