"""What is known of a workload's processes: enough to say who started what, in bounded memory.

A process is told by (pid, start_ticks): a reused pid is another process, and a late event of the old one finds nothing.
The names of a process's ancestors are copied to it when it is forked, because the ancestors may be gone when they are
asked for (a double fork leaves no parent to look up).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from killswitch.events import Exec, Fork, text

MAX_PROCESSES = 4096  # a workload; the longest unheard-of goes first (a fork bomb must not fill the daemon)
MAX_GONE = 512  # processes that ended, of a workload
MAX_ANCESTORS = 6
MAX_ARGV = 1024  # bytes of the command line that are kept

Ancestry = tuple[tuple[int, bytes], ...]  # (pid, name), oldest first


@dataclass(slots=True)
class Process:
    pid: int
    start_ticks: int
    ppid: int
    name: bytes  # basename of the executable; b"" = not known (it was there before we watched)
    executable: bytes
    filename: bytes  # the path that was asked for: a script, a symbolic link
    argv: bytes  # NUL-terminated arguments, at most MAX_ARGV bytes
    argv_cut: bool
    parent_name: bytes
    ancestors: Ancestry
    file: tuple[int, int] = (0, 0)  # (device, inode) of the executable; (0, 0) = not known
    memfd: bool = False
    unlinked: bool = False
    listens: bool = False  # it, or the one that it was forked from, has listened for connections
    outside: tuple[str, int] | None = (
        None  # the address and port of another host that either first connected to, by TCP
    )

    @property
    def args(self) -> tuple[str, ...]:
        raw = self.argv[:-1] if self.argv.endswith(b"\0") else self.argv
        return tuple(map(text, raw.split(b"\0"))) if self.argv else ()


class ProcessTable:
    """The live processes of one workload, least recently heard of first."""

    __slots__ = ("_by_pid", "_gone", "_limit", "evicted")

    def __init__(self, limit: int = MAX_PROCESSES) -> None:
        self._by_pid: dict[int, Process] = {}
        self._gone: dict[int, Process] = {}  # the last that ended: what they did may be told late
        self._limit = limit
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._by_pid)

    def __iter__(self) -> Iterator[Process]:
        return iter(self._by_pid.values())

    def get(self, pid: int, start_ticks: int) -> Process | None:
        process = self._by_pid.get(pid)
        return process if process is not None and process.start_ticks == start_ticks else None

    def fork(self, event: Fork) -> Process:
        """A new process, which runs its parent's program. Execs come by a ring of their own and are often told before the fork
        that made the process: then only its place in the tree is new."""
        parent = self._by_pid.get(event.ppid)
        known = self.get(event.pid, event.start_ticks)
        if parent is not None and parent.start_ticks == event.parent_start_ticks:
            ancestors = (*parent.ancestors[1 - MAX_ANCESTORS :], (parent.pid, parent.name))
            if known is not None:
                known.ancestors = ancestors
                self._put(known)
                return known
            child = Process(
                event.pid, event.start_ticks, event.ppid, parent.name, parent.executable, parent.filename, parent.argv,
                parent.argv_cut, parent.name, ancestors, parent.file, parent.memfd, parent.unlinked, parent.listens,
                parent.outside,
            )  # fmt: skip
        elif known is not None:
            return known
        else:
            child = Process(
                event.pid, event.start_ticks, event.ppid, b"", b"", b"", b"", False, b"", ((event.ppid, b""),)
            )
        self._put(child)
        return child

    def exec(self, event: Exec) -> Process:
        """The process runs another program from now on; its place in the tree stays."""
        executable = event.executable
        argv = event.argv
        known = self._by_pid.get(event.pid)
        if known is not None and known.start_ticks == event.start_ticks:
            ancestors = known.ancestors
            if ancestors and not ancestors[-1][1]:
                ancestors = (*ancestors[:-1], (event.ppid, event.parent_name))
        else:
            ancestors = ((event.ppid, event.parent_name),)
        process = Process(
            event.pid,
            event.start_ticks,
            event.ppid,
            executable[executable.rfind(b"/") + 1 :],
            executable,
            event.filename,
            argv if len(argv) <= MAX_ARGV else argv[:MAX_ARGV],
            event.argv_total > len(argv) or len(argv) > MAX_ARGV,
            event.parent_name,
            ancestors,
            (event.device, event.inode),
            event.memfd,
            event.nlink == 0,
        )
        self._put(process)
        return process

    def put(self, process: Process) -> None:
        """Take over a process that came from another workload."""
        self._put(process)

    def remove(self, pid: int, start_ticks: int) -> Process | None:
        process = self._by_pid.get(pid)
        if process is None or process.start_ticks != start_ticks:
            return None
        del self._by_pid[pid]
        self._gone.pop(pid, None)
        self._gone[pid] = process
        if len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]
        return process

    def last(self, pid: int) -> Process | None:
        """The latest process of this pid, alive or ended lately."""
        return self._by_pid.get(pid) or self._gone.get(pid)

    def beside(self, pid: int, other: int) -> bool:
        """Whether ``pid`` is known to descend from whoever started ``other``, and not from ``other`` itself."""
        process, beside = self._by_pid.get(pid), self._by_pid.get(other)
        if process is None or beside is None or process is beside or not beside.ancestors:
            return False
        line = [ancestor for ancestor, _ in process.ancestors]
        return beside.ancestors[-1][0] in line and other not in line

    def _put(self, process: Process) -> None:
        by_pid = self._by_pid
        pid = process.pid
        if pid in by_pid:
            del by_pid[pid]  # so that it goes to the end: dicts keep the order of insertion
        elif len(by_pid) >= self._limit:
            del by_pid[next(iter(by_pid))]
            self.evicted += 1
        by_pid[pid] = process
