"""cgroup v2 by its file system: find, identify, freeze, kill, count. No controller is needed for any of it.

Paths are directories of the mounted hierarchy (``/sys/fs/cgroup/unified/agents/a``); ``below_root`` and ``from_root``
turn them into the kernel's own paths (``/agents/a``) and back. A cgroup's id is what BPF calls it and what its has as
inode number. Every function raises ``Gone`` for a cgroup that has vanished, KernelError for whatever else fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from killswitch.errors import Gone, KernelError, NotSupported
from killswitch.kernel import syscalls
from killswitch.kernel.mounts import mounts

RECHECK_S = (0.0005, 0.05)  # shortest and longest pause between looks at cgroup.events when no notification comes


@cache
def _found_mount() -> Path:
    found = mounts("cgroup2")
    if not found:
        raise NotSupported("find cgroup v2", errno.ENODEV, "mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
    return min(found, key=lambda m: (m.root != "/", len(m.root), len(str(m.point)), str(m.point))).point


_told: list[Path] = []


def find_mount() -> Path:
    """Where cgroup v2 is mounted: on a hybrid host often ``/sys/fs/cgroup/unified``. Of several mounts, the one that
    shows the most of the hierarchy (root ``/``), then the shortest path. Raises NotSupported when there is none."""
    return _told[0] if _told else _found_mount()


def use_mount(path: Path) -> None:
    """Use this mount, whatever else there is. Raises KernelError when cgroup v2 is not mounted there."""
    if all(m.point != path for m in mounts("cgroup2")):
        raise KernelError(
            f"use cgroup mount {path}", errno.EINVAL, "cgroup v2 is not mounted there: see findmnt -t cgroup2"
        )
    _told[:] = [path]


def below_root(path: Path) -> str:
    """``/sys/fs/cgroup/a/b`` → ``/a/b``. Raises ValueError for a path that is not in the mount."""
    return "/" + str(path.relative_to(find_mount())).removeprefix(".")


def from_root(cgroup: str) -> Path:
    """``/a/b`` → ``/sys/fs/cgroup/a/b``."""
    return find_mount() / cgroup.lstrip("/")


def cgroup_id(path: Path) -> int:
    """The id by which BPF knows the cgroup."""
    try:
        status = path.stat()
    except OSError as e:
        raise syscalls.error(f"cgroup {path}", e) from e
    return status.st_ino


def path_of(cgroup: int) -> Path:
    """The directory of the cgroup with this id. Raises Gone when there is none."""
    root = find_mount()
    try:
        fd = _open_by_id(root, cgroup)
    except Gone as e:
        raise Gone(f"cgroup id {cgroup}", errno.ENOENT, "it was removed") from e
    except KernelError:  # without CAP_DAC_READ_SEARCH the handle is refused, and looking everywhere remains
        return _search(root, cgroup)
    try:
        return Path(f"/proc/self/fd/{fd}").readlink()
    finally:
        os.close(fd)


def _open_by_id(root: Path, cgroup: int) -> int:
    anchor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.open_kernfs_id(anchor, cgroup)
    finally:
        os.close(anchor)


def _search(root: Path, cgroup: int) -> Path:
    for folder in subtree(root):
        with contextlib.suppress(OSError):
            if folder.stat().st_ino == cgroup:
                return folder
    raise Gone(f"cgroup id {cgroup}", errno.ENOENT, "it was removed")


def subtree(path: Path) -> Iterator[Path]:
    """The cgroup and all cgroups below it, parents first; those that vanish meanwhile are left out."""
    pending = [str(path)]
    while pending:
        folder = pending.pop()
        yield Path(folder)
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            pending += [e.path for e in entries if e.is_dir(follow_symlinks=False)]


def subtree_ids(path: Path) -> frozenset[int]:
    """The ids of the cgroup and of all below it."""
    ids = set()
    for folder in subtree(path):
        with contextlib.suppress(OSError):
            ids.add(folder.stat().st_ino)
    return frozenset(ids)


# --- one file of one cgroup ----------------------------------------------------------------------------------------


def _read(path: Path, name: str) -> str:
    try:
        fd = os.open(f"{path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_all(fd)
        finally:
            os.close(fd)
    except OSError as e:
        raise _file_error(path, name, "read", e) from e


def _read_all(fd: int) -> str:
    chunks = []
    while chunk := os.read(fd, 65536):
        chunks.append(chunk)
    return b"".join(chunks).decode()


def _write(path: Path, name: str, value: str) -> None:
    try:
        fd = os.open(f"{path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as e:
        raise _file_error(path, name, f"write {value} to", e) from e


def _file_error(path: Path, name: str, verb: str, cause: OSError) -> KernelError:
    if cause.errno == errno.ENOENT and path.is_dir():
        hint = f"this cgroup has no {name}: it is the root, or the kernel is too old"
        return NotSupported(f"{verb} {path}/{name}", errno.ENOSYS, hint)
    if cause.errno in (errno.ENOENT, errno.ENODEV):
        return Gone(f"{verb} {path}/{name}", errno.ENOENT, "the cgroup was removed")
    return syscalls.error(f"{verb} {path}/{name}", cause)


# --- make, remove, move --------------------------------------------------------------------------------------------


def create(path: Path) -> int:
    """Make the cgroup (and its parents) when it is absent; its id."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise syscalls.error(f"create cgroup {path}", e) from e
    return cgroup_id(path)


def remove(path: Path, timeout_s: float = 1.0) -> None:
    """Remove the cgroup and those below it. Processes that are already dying are waited for, ``timeout_s`` at most.

    Raises KernelError (EBUSY) when processes still live there: they are never killed here. A cgroup that is gone
    already is no error.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            for folder in reversed(list(subtree(path))):
                with contextlib.suppress(FileNotFoundError):
                    folder.rmdir()
            return
        except OSError as e:
            if e.errno != errno.EBUSY or time.monotonic() > deadline:
                hint = "processes still live there: move or kill them first" if e.errno == errno.EBUSY else ""
                raise syscalls.error(f"remove cgroup {path}", e, hint) from e
        time.sleep(0.005)


def move(path: Path, pid: int) -> None:
    """Move a process (all its threads; 0 = ourselves) into the cgroup."""
    try:
        _write(path, "cgroup.procs", str(pid))
    except Gone:
        raise
    except KernelError as e:
        if e.code == errno.ESRCH:
            raise Gone(f"move process {pid} into {path}", e.code, "the process has ended") from e
        raise


# --- freeze and kill -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Events:
    """``cgroup.events``: what the kernel observed, not what was asked for."""

    populated: bool
    frozen: bool


def parse_events(text: str) -> Events:
    values = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    return Events(values.get("populated", "0") == "1", values.get("frozen", "0") == "1")


def events(path: Path) -> Events:
    return parse_events(_read(path, "cgroup.events"))


def freeze(path: Path, on: bool) -> None:
    """Ask the kernel to freeze the cgroup and all below it, or to let it run. That it has done so, ``events`` tells."""
    _write(path, "cgroup.freeze", "1" if on else "0")


def is_frozen(path: Path) -> bool:
    return events(path).frozen


def populated(path: Path) -> bool:
    """Whether a living process is in the cgroup or below it."""
    return events(path).populated


def processes(path: Path, recursive: bool = True) -> list[int]:
    """The pids in the cgroup (0 = a process that our pid namespace does not show, left out)."""
    pids: list[int] = []
    for folder in subtree(path) if recursive else (path,):
        try:
            pids += [int(p) for p in _read(folder, "cgroup.procs").split() if p != "0"]
        except Gone:
            if folder == path:
                raise
        except KernelError as e:
            if e.code != errno.EOPNOTSUPP:  # a threaded cgroup: its parent lists its processes
                raise
    return pids


def cpu_usage_ns(path: Path) -> int:
    """CPU time that the cgroup and all below it have used, ever. Precise to a microsecond; needs no controller."""
    for line in _read(path, "cpu.stat").splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1]) * 1000
    raise NotSupported(f"read {path}/cpu.stat", errno.ENOSYS, "it has no usage_usec")


def kill(path: Path, rounds: int = 100) -> str:
    """SIGKILL every process in the cgroup and below, frozen or not. Returns how: ``"cgroup.kill"`` or ``"signals"``.

    The kernel's own cgroup.kill cannot be outrun by fork. Without it the processes are frozen, so that they cannot
    multiply, and signalled until none is left, ``rounds`` times at most. That nothing is left, ``events`` tells.
    """
    try:
        _write(path, "cgroup.kill", "1")
        return "cgroup.kill"
    except NotSupported:
        if path == find_mount():
            raise
    freeze(path, True)
    for _ in range(rounds):
        for pid in processes(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not populated(path):
            break
        time.sleep(0.002)
    return "signals"


# --- wait -----------------------------------------------------------------------------------------------------------


async def wait_frozen(path: Path, timeout_s: float) -> bool:
    """Wait until the kernel says ``frozen 1``. False after ``timeout_s`` seconds."""
    return await _wait(path, timeout_s, lambda e: e.frozen)


async def wait_thawed(path: Path, timeout_s: float) -> bool:
    return await _wait(path, timeout_s, lambda e: not e.frozen)


async def wait_empty(path: Path, timeout_s: float) -> bool:
    """Wait until nothing lives in the cgroup any more; a cgroup that is gone is empty."""
    try:
        return await _wait(path, timeout_s, lambda e: not e.populated)
    except Gone:
        return True


async def _wait(path: Path, timeout_s: float, wanted: Callable[[Events], bool]) -> bool:
    """Sleep on the file's own notification (EPOLLPRI), which the kernel holds back when the last was less than 10 ms
    ago (CGROUP_FILE_NOTIFY_MIN_INTV); so also look again whenever a fifth more time has passed. The file is "readable"
    at all times: an epoll of its own, which waits for EPOLLPRI alone, stands between it and the event loop."""
    try:
        fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise _file_error(path, "cgroup.events", "open", e) from e
    loop = asyncio.get_running_loop()
    began = loop.time()
    deadline = began + timeout_s
    changed = asyncio.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        gate = stack.enter_context(select.epoll())
        gate.register(fd, select.EPOLLPRI)
        loop.add_reader(gate.fileno(), changed.set)
        stack.callback(loop.remove_reader, gate.fileno())
        while True:
            changed.clear()
            try:
                now = parse_events(os.pread(fd, 4096, 0).decode())
            except OSError as e:
                raise _file_error(path, "cgroup.events", "read", e) from e
            if wanted(now):
                return True
            left = deadline - loop.time()
            if left <= 0:
                return False
            pause = min(max((loop.time() - began) / 5, RECHECK_S[0]), RECHECK_S[1])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), min(pause, left))
