"""What there is to be known of a frozen workload: read from /proc, within bounds, saying what was left out."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from killswitch.contain.folder import Folder
from killswitch.errors import Gone, KernelError
from killswitch.events import text
from killswitch.kernel import netns, procfs
from killswitch.kernel.sockdiag import STATE_NAMES, Diag, InetSocket
from killswitch.kernel.sockets import Owners, held_sockets

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What evidence may cost. What goes beyond is left out, and named in the manifest."""

    seconds: float = 10.0  # for everything
    processes: int = 20_000
    files: int = 1024  # open files of one process
    hash_bytes: int = 512 << 20  # of one executable
    copy_bytes: int = 64 << 20  # of all executables that have no name any more


@dataclass(slots=True)
class Collector:
    """Reads processes one by one. What it could not do is in ``left_out``: sentences for the manifest."""

    folder: Folder
    limits: Limits
    deadline: float  # time.monotonic()
    breathe: Callable[[], object] = lambda: None  # called between two processes: lets go while something is urgent
    left_out: list[str] = field(default_factory=list)
    read: list[int] = field(default_factory=list)  # pids
    _executables: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    _copied: int = 0

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def processes(self, pids: list[int]) -> Iterator[dict[str, Any]]:
        """A row each; those that were read are in ``read``."""
        for n, pid in enumerate(pids):
            if self.late or n >= self.limits.processes:
                why = "time is up" if self.late else f"more than {self.limits.processes}"
                self.left_out.append(f"{len(pids) - n} of {len(pids)} processes: {why}")
                return
            self.breathe()
            with contextlib.suppress(Gone):
                row = self._process(pid)
                self.read.append(pid)
                yield row

    def files(self) -> Iterator[dict[str, Any]]:
        """The open files of each process that was read."""
        for pid in self._in_time("open files"):
            yield {"pid": pid, "files": self._files(pid)}

    def memory(self) -> Iterator[dict[str, Any]]:
        """Of each process that was read and has some: executable memory without a file."""
        for pid in self._in_time("memory"):
            if suspicious := self._memory(pid):
                yield {"pid": pid, "mappings": suspicious}

    def _in_time(self, what: str) -> Iterator[int]:
        for n, pid in enumerate(self.read):
            if self.late:
                self.left_out.append(f"{what} of {len(self.read) - n} of {len(self.read)} processes: time is up")
                return
            self.breathe()
            yield pid

    def _process(self, pid: int) -> dict[str, Any]:
        facts = procfs.facts(pid)
        s = facts.stat
        return {
            "pid": pid,
            "start_ticks": s.start_ticks,
            "ppid": s.ppid,
            "session": s.session,
            "name": s.comm,
            "state": s.state,
            "threads": s.threads,
            "cpu_ns": s.cpu_ns,
            "executable": facts.executable,
            "file": self._executable(pid),
            "command_line": list(facts.command_line),
            "working_directory": facts.cwd,
            "root": facts.root,
            "uid": facts.uid,
            "gid": facts.gid,
            "cgroup": facts.cgroup,
            "environment_names": list(facts.environment),
            "namespaces": dict(facts.namespaces),
        }

    def _files(self, pid: int) -> list[dict[str, Any]]:
        try:
            found = procfs.open_files(pid, self.limits.files + 1)
        except KernelError as e:
            self.left_out.append(str(e))
            return []
        if len(found) > self.limits.files:
            self.left_out.append(f"open files of process {pid} beyond the first {self.limits.files}")
        return [{"descriptor": fd, "leads_to": to} for fd, to in found[: self.limits.files]]

    def _memory(self, pid: int) -> list[dict[str, Any]]:
        """Executable memory that no file on disk backs: code made at run time, a memfd, an unlinked file."""
        with contextlib.suppress(KernelError):
            return [
                {"start": f"{m.start:#x}", "bytes": m.end - m.start, "permissions": m.permissions, "name": m.name}
                for m in procfs.mappings(pid, executable=True)
                if m.name not in ("[vdso]", "[vsyscall]") and (m.inode == 0 or m.name.endswith(" (deleted)"))
            ]
        return []

    # --- executables ---

    def _executable(self, pid: int) -> dict[str, Any]:
        """The file that runs, by its hash; each file is read once. One that has no name any more is kept whole."""
        try:
            fd = os.open(procfs.executable_of(pid), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return {}  # a zombie has none
        with os.fdopen(fd, "rb", buffering=0) as file:
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino)
            if key not in self._executables:
                about = {
                    "device": status.st_dev,
                    "inode": status.st_ino,
                    "bytes": status.st_size,
                    "links": status.st_nlink,
                }
                self._executables[key] = about | self._hash(file.fileno(), status)
            return self._executables[key]

    def _hash(self, fd: int, status: os.stat_result) -> dict[str, Any]:
        if status.st_size > self.limits.hash_bytes:
            self.left_out.append(f"hash of inode {status.st_ino}: {status.st_size} bytes are too many")
            return {"sha256": ""}
        digest = hashlib.sha256()
        for chunk in _chunks(fd):
            if self.late:
                self.left_out.append(f"hash of inode {status.st_ino}: time is up")
                return {"sha256": ""}
            digest.update(chunk)
        kept = {}
        if status.st_nlink == 0:
            if self._copied + status.st_size <= self.limits.copy_bytes:
                self._copied += status.st_size
                name = f"executables/{digest.hexdigest()}"
                os.lseek(fd, 0, os.SEEK_SET)
                self.folder.write(name, _chunks(fd))
                kept = {"kept_as": name}
            else:
                self.left_out.append(f"copy of unlinked inode {status.st_ino}: {status.st_size} bytes are too many")
        return {"sha256": digest.hexdigest(), **kept}

    # --- sockets ---

    def sockets(self, pids: list[int], cgroups: frozenset[int], destroyed: tuple[InetSocket, ...]) -> dict[str, Any]:
        """What was destroyed when it was cut off, and what is there now, unix sockets included."""
        held = held_sockets(pids)
        owners = Owners(cgroups, held, frozenset())
        now: list[InetSocket] = []
        unix: list[dict[str, Any]] = []
        for pid in netns.namespaces_of(pids).values():
            try:
                fd = netns.open_of_process(pid)
                try:
                    with Diag(fd) as diag:
                        now += [s for s in diag.dump() if owners.wanted(s)]
                finally:
                    os.close(fd)
                unix += [row for row in _unix(pid) if row["inode"] in held]
            except KernelError as e:
                self.left_out.append(f"sockets in the network namespace of process {pid}: {e}")
        return {
            "destroyed": [describe(s, held) for s in destroyed],
            "present": [describe(s, held) for s in now],
            "unix": unix,
        }


def describe(s: InetSocket, held: dict[int, tuple[int, int]]) -> dict[str, Any]:
    pid, fd = held.get(s.inode, (0, -1))
    return {
        "transport": s.transport,
        "state": STATE_NAMES.get(s.state, str(s.state)),
        "source": f"{s.source_ip} {s.source_port}",
        "destination": f"{s.destination_ip} {s.destination_port}",
        "uid": s.uid,
        "inode": s.inode,
        "cgroup_id": s.cgroup,
        "pid": pid,
        "descriptor": fd,
    }


def _unix(pid: int) -> Iterator[dict[str, Any]]:
    """``/proc/PID/net/unix``: the unix sockets of its network namespace."""
    for line in procfs.read_bytes(pid, "net/unix").splitlines()[1:]:
        f = line.split(None, 7)
        yield {
            "inode": int(f[6]),
            "path": text(f[7]) if len(f) > 7 else "",
            "listening": bool(int(f[3], 16) & 0x10000),
        }


def _chunks(fd: int) -> Iterator[bytes]:
    while chunk := os.read(fd, _CHUNK):
        yield chunk
