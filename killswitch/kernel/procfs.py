"""One process, read from /proc. Processes vanish while they are read: then ``Gone`` is raised.

A process that died but was not waited for (a zombie) still has its ``stat``; its memory, files and executable are gone.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from killswitch.errors import Gone, KernelError
from killswitch.events import text
from killswitch.kernel import syscalls

TICKS = os.sysconf("SC_CLK_TCK")
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_.%()-]{0,127}")


@dataclass(frozen=True, slots=True)
class Stat:
    """``/proc/PID/stat``, what we use of it."""

    pid: int
    comm: str
    state: str  # R, S, D, T, Z, …
    ppid: int
    session: int
    start_ticks: int
    cpu_ns: int  # user and system time so far; precise to a tick
    threads: int


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What can be told of a process. ``environment`` has the *names* only: values hold secrets."""

    stat: Stat
    executable: str  # as the kernel walks it; " (deleted)" at its end when unlinked; "" = none (a zombie)
    command_line: tuple[str, ...]
    cwd: str
    root: str
    uid: int  # effective
    gid: int
    cgroup: str  # cgroup v2 path, "/a/b"
    environment: tuple[str, ...]
    namespaces: tuple[tuple[str, int], ...]  # ("net", inode), …


@dataclass(frozen=True, slots=True)
class Mapping:
    start: int
    end: int
    permissions: str  # "r-xp"
    offset: int
    device: str
    inode: int
    name: str  # "" = anonymous


@dataclass(frozen=True, slots=True)
class Io:
    """``/proc/PID/io``: what it has consumed and produced so far, through whatever system call."""

    rchar: int
    wchar: int
    syscr: int
    syscw: int


# --- reading --------------------------------------------------------------------------------------------------------


def read_bytes(pid: int, name: str) -> bytes:
    """One file of ``/proc/PID``. Raises Gone, KernelError."""
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            chunks = []
            while chunk := os.read(fd, 65536):
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            os.close(fd)
    except OSError as e:
        raise syscalls.error(f"read /proc/{pid}/{name}", e) from e


def _link(pid: int, name: str) -> str:
    """Where a link of ``/proc/PID`` leads; "" for a kernel thread or zombie, which has none."""
    try:
        return os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115 - read for every descriptor of every process
    except OSError:
        return ""


def pids() -> Iterator[int]:
    """Every process that /proc shows."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def parse_stat(raw: bytes) -> Stat:
    """The name stands in brackets and may itself hold brackets, blanks and newlines: so from the last bracket on."""
    head, _, tail = raw.rpartition(b")")
    pid, _, comm = head.partition(b" (")
    f = tail.split()
    cpu = (int(f[11]) + int(f[12])) * (1_000_000_000 // TICKS)
    return Stat(int(pid), text(comm), f[0].decode(), int(f[1]), int(f[3]), int(f[19]), cpu, int(f[17]))


def stat(pid: int) -> Stat:
    """Raises Gone when there is no such process."""
    return parse_stat(read_bytes(pid, "stat"))


def start_ticks(pid: int) -> int:
    return stat(pid).start_ticks


def same(pid: int, ticks: int) -> bool:
    """Whether ``pid`` is still the process that started at ``ticks``, and not another that has got its number."""
    try:
        return stat(pid).start_ticks == ticks
    except Gone:
        return False


def ancestors(pid: int) -> tuple[Stat, ...]:
    """The process's parent, its parent, … up to pid 1 (or until one of them has gone)."""
    chain: list[Stat] = []
    with contextlib.suppress(Gone):
        parent = stat(pid).ppid
        while parent > 0 and len(chain) < 1024:
            chain.append(stat(parent))
            parent = chain[-1].ppid
    return tuple(chain)


def parse_cgroup(raw: bytes) -> str:
    """The cgroup v2 path of ``/proc/PID/cgroup``: the line ``0::/path``."""
    for line in raw.splitlines():
        if line.startswith(b"0::"):
            return text(line[3:]).removesuffix(" (deleted)")
    return ""


def cgroup(pid: int) -> str:
    return parse_cgroup(read_bytes(pid, "cgroup"))


def namespace(pid: int, kind: str) -> int:
    """The inode number of a namespace (``net``, ``mnt``, ``pid``, …). Raises Gone."""
    try:
        # "net:[4026531840]"; half the price of stat, which makes an inode, and paid for every process of a workload
        return int(os.readlink(f"/proc/{pid}/ns/{kind}").rpartition("[")[2][:-1])  # noqa: PTH115
    except OSError as e:
        raise syscalls.error(f"namespace {kind} of process {pid}", e) from e


def environment_names(raw: bytes) -> tuple[str, ...]:
    """The names in ``/proc/PID/environ``, sorted, never a value. What does not look like a name is left out: a process
    may have written over this memory, and then anything may stand before a "="."""
    names = (e.partition(b"=")[0] for e in raw.split(b"\0") if b"=" in e)
    return tuple(sorted({n.decode() for n in names if _NAME.fullmatch(n)}))


def effective_ids(status: bytes) -> tuple[int, int]:
    """Effective user and group id, of ``/proc/PID/status``."""

    def second(field: bytes) -> int:
        return int(status.split(field, 1)[1].split(None, 2)[1])

    return second(b"\nUid:"), second(b"\nGid:")


def command_line(pid: int) -> tuple[str, ...]:
    raw = read_bytes(pid, "cmdline")
    return tuple(text(a) for a in raw.removesuffix(b"\0").split(b"\0")) if raw else ()


def facts(pid: int) -> ProcessFacts:
    """Everything that can be told; what alone cannot be read is left empty. Raises Gone when the process is gone."""
    first = stat(pid)
    uid, gid = effective_ids(read_bytes(pid, "status"))

    def tolerant(name: str) -> bytes:
        with contextlib.suppress(KernelError):
            return read_bytes(pid, name)
        return b""

    args = tolerant("cmdline")
    spaces = []
    for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts"):
        with contextlib.suppress(KernelError):
            spaces.append((kind, namespace(pid, kind)))
    return ProcessFacts(
        stat=first,
        executable=_link(pid, "exe"),
        command_line=tuple(text(a) for a in args.removesuffix(b"\0").split(b"\0")) if args else (),
        cwd=_link(pid, "cwd"),
        root=_link(pid, "root"),
        uid=uid,
        gid=gid,
        cgroup=parse_cgroup(tolerant("cgroup")),
        environment=environment_names(tolerant("environ")),
        namespaces=tuple(spaces),
    )


def open_files(pid: int, limit: int = 4096) -> list[tuple[int, str]]:
    """(descriptor, what it leads to: a path, ``socket:[inode]``, ``anon_inode:…``), ``limit`` at most. Raises Gone."""
    found: list[tuple[int, str]] = []
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                if len(found) >= limit:
                    break
                found.append((int(entry.name), _link(pid, f"fd/{entry.name}")))
    except OSError as e:
        raise syscalls.error(f"list /proc/{pid}/fd", e) from e
    return found


def socket_inodes(pid: int) -> dict[int, int]:
    """Inode → descriptor, of every socket that the process holds. Raises Gone."""
    return {int(to[8:-1]): fd for fd, to in open_files(pid, 1 << 20) if to.startswith("socket:[")}


def parse_maps(raw: bytes, *, executable: bool = False) -> list[Mapping]:
    """``executable``: only mappings that are."""
    found = []
    for line in raw.splitlines():
        f = line.split(None, 5)
        if executable and b"x" not in f[1]:
            continue
        start, _, end = f[0].partition(b"-")
        name = text(f[5]) if len(f) > 5 else ""
        found.append(
            Mapping(int(start, 16), int(end, 16), f[1].decode(), int(f[2], 16), f[3].decode(), int(f[4]), name)
        )
    return found


def mappings(pid: int, *, executable: bool = False) -> list[Mapping]:
    """The process's address space (``executable``: only what is); empty for a zombie. Raises Gone."""
    return parse_maps(read_bytes(pid, "maps"), executable=executable)


def io_counters(pid: int) -> Io:
    """Raises Gone, and KernelError (EACCES) for a process that we may not trace."""
    values = dict(line.split(b": ") for line in read_bytes(pid, "io").splitlines())
    return Io(*(int(values[k]) for k in (b"rchar", b"wchar", b"syscr", b"syscw")))


def executable_of(pid: int) -> Path:
    """A path by which the file that the process runs can be opened, even when it has no name any more."""
    return Path(f"/proc/{pid}/exe")
