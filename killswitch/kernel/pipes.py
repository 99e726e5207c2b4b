"""Which pipes the processes of a workload have as standard files, and which FIFOs they have open."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from killswitch.errors import KernelError
from killswitch.facts import Pipe, PipeEnds, Pipes
from killswitch.kernel import cgroupfs, procfs, syscalls

MAX_PROCESSES = 2000  # that are looked at
MAX_FILES = 256  # of each


def read_pipes(cgroup: Path, workload: int, pid: int, start_ticks: int, cookie: int) -> Pipes | None:
    """The answer to ``commands.ReadPipes``; None when the process writes to no pipe, or is gone. Raises KernelError.

    Asks no file system but the kernel's own: whoever answers for a FIFO's folder may never do so.
    """
    first = _ends(pid)
    if first is None or not (first.writes or first.kept_writes) or first.start_ticks != start_ticks:
        return None
    others = (_ends(other) for other in cgroupfs.processes(cgroup)[:MAX_PROCESSES] if other != pid)
    return Pipes(workload, cookie, (first, *(o for o in others if o is not None)))


def _ends(pid: int) -> PipeEnds | None:
    """None when it is gone, or has none."""
    standard: tuple[set[Pipe], set[Pipe]] = (set(), set())  # read, written
    others: tuple[set[Pipe], set[Pipe]] = (set(), set())
    nameless: tuple[set[Pipe], set[Pipe]] = (set(), set())
    for number, pipe, mode, named in _open_pipes(pid):
        found = standard if number <= 2 else others if named else nameless
        if mode & stat.S_IRUSR and number not in (1, 2):
            found[0].add(pipe)
        if mode & stat.S_IWUSR and number != 0:
            found[1].add(pipe)
    both = others[0] & others[1]
    reads, writes = (standard[way] | others[way] - both for way in (0, 1))
    own = nameless[0] & nameless[1]  # to wake itself by
    ends = reads, writes, nameless[0] - own, nameless[1] - own
    if not any(ends):
        return None
    try:
        return PipeEnds(pid, procfs.start_ticks(pid), *(tuple(sorted(e)) for e in ends))
    except KernelError:
        return None


def _open_pipes(pid: int) -> Iterator[tuple[int, Pipe, int, bool]]:
    """(descriptor, which, mode of its link, which says how it was opened: proc_pid_fd(5), whether it has a name)"""
    folder = f"/proc/{pid}/fd/"
    try:
        numbers = os.listdir(folder)[:MAX_FILES]  # noqa: PTH208 - names are all that is needed
    except OSError:
        return  # gone
    for number in numbers:
        try:
            target = os.readlink(folder + number)  # noqa: PTH115 - it may be no path
            if int(number) > 2 and not target.startswith(("/", "pipe:")):
                continue  # a socket, …
            found = syscalls.stat_unasked(folder + number)
            if stat.S_ISFIFO(found.st_mode):
                mode = os.lstat(folder + number).st_mode
                yield int(number), (found.st_dev, found.st_ino), mode, not target.startswith("pipe:")
        except OSError:
            continue  # closed by now
